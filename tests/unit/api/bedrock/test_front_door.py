import base64
import json
from typing import Any

import pytest

from tests.unit import samples
from tests.unit.followed_turns import STATE_MACHINE, FakeStepFunctions, StoredTurn, client_error
from turnwright.agents.definitions import Definition
from turnwright.agents.versions import publish
from turnwright.api.bedrock import following
from turnwright.api.bedrock.front_door import SESSION_ENDED, Answer, FrontDoor
from turnwright.api.bedrock.requests import Invocation
from turnwright.errors import StorageUnavailable
from turnwright.memory.records.actors import Actors
from turnwright.memory.session_ends.segments import Segments, SegmentStatus
from turnwright.sessions.attributes import SESSION_BYTES
from turnwright.sessions.sessions import Sessions
from turnwright.sessions.values import TurnRequest
from turnwright.storage import keys
from turnwright.storage.clock import now_ms
from turnwright.storage.documents import Documents
from turnwright.storage.keys import SessionId
from turnwright.storage.settings import Settings
from turnwright.storage.table import Put, Table, Update

CONSOLIDATE_STATE_MACHINE = f"{STATE_MACHINE}-consolidate"
CALLER = "arn:aws:iam::123456789012:user/alice"
SESSION = SessionId("BANKASSIST-turnwright", "user_1", "session-1")
STREAM_HEADERS = {
    "Content-Type": "application/vnd.amazon.eventstream",
    "x-amzn-bedrock-agent-content-type": "application/json",
    "x-amz-bedrock-agent-session-id": "session-1",
    "x-amz-bedrock-agent-memory-id": "user_1",
}


def request(fields: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """API Gateway's proxy event of a request."""
    given = {"inputText": "Hi", "memoryId": "user_1"} if fields is None else fields
    return {
        "pathParameters": {"agentId": "BANKASSIST", "agentAliasId": "live", "sessionId": "session-1"},
        "headers": {"Amz-Sdk-Invocation-Id": "i-1", "Content-Type": "application/json"},
        "requestContext": {"requestId": "r-1", "identity": {"userArn": CALLER}},
        "body": base64.b64encode(json.dumps(given).encode()).decode(),
        "isBase64Encoded": True,
        **changes,
    }


def invocation(body: dict[str, Any] | None = None, **changes: Any) -> Invocation:
    """The invocation that `request()` is."""
    fields: dict[str, Any] = {
        "agent_id": "BANKASSIST",
        "agent_alias_id": "live",
        "session_id": "session-1",
        "memory_id": "user_1",
        "invocation_id": "i-1",
        "caller": CALLER,
        "body": body or {"inputText": "Hi"},
        **changes,
    }
    return Invocation(**fields)


class Door:
    """A front door to a table with an agent in it, and what is behind it."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.bucket = samples.FakeBucket()
        self.documents = Documents(self.bucket, "bucket")
        self.stepfunctions = FakeStepFunctions()
        self.settings = Settings(
            {"STATE_MACHINE_ARN": STATE_MACHINE, "CONSOLIDATE_STATE_MACHINE_ARN": CONSOLIDATE_STATE_MACHINE}
        )
        self.turn = StoredTurn(table, self.documents, invocation().turn_id)
        publish(table, [Definition.of(samples.DEFINITION)])

    def ask(self, event: dict[str, Any], remaining_ms: int = 60_000) -> Answer:
        door = FrontDoor(lambda: self.table, lambda: self.documents, lambda: self.stepfunctions, lambda: self.settings)
        left = iter(range(remaining_ms, 0, -1_000))  # a second passes with each look at the turn
        return door.invoke_agent(event, lambda: next(left, 0))


@pytest.fixture
def door(table: Table, monkeypatch: pytest.MonkeyPatch) -> Door:
    monkeypatch.setattr(following, "_FIRST_WAIT_SECONDS", 0)
    monkeypatch.setattr(following, "_LONGEST_WAIT_SECONDS", 0)
    monkeypatch.delenv("_X_AMZN_TRACE_ID", raising=False)
    return Door(table)


def chunks(answer: Answer) -> list[str]:
    return [event["chunk"]["bytes"].decode() for event in samples.boto3_stream(b"".join(answer.body))]


def refusal(answer: Answer) -> tuple[int, str, str]:
    """Status, error name and message of an answer that is an error of rest-json."""
    body = json.loads(b"".join(answer.body))
    assert dict(answer.headers) == {"Content-Type": "application/json", "x-amzn-ErrorType": body["__type"]}
    assert body.keys() == {"message", "__type"}
    return answer.status, body["__type"], body["message"]


def commits_at_start(door: Door, answer: str = "Hello!") -> None:
    """Executions end as soon as they are started."""
    start = door.stepfunctions.start_execution

    def start_and_commit(**arguments: Any) -> dict[str, Any]:
        StoredTurn(door.table, door.documents, arguments["name"]).commit(answer)
        return start(**arguments)

    door.stepfunctions.start_execution = start_and_commit  # type: ignore[method-assign]


def test_a_request_starts_its_turn_and_is_answered(door: Door) -> None:
    commits_at_start(door)

    answer = door.ask(request())

    turn = {"x-turnwright-turn-id": invocation().turn_id}
    assert (answer.status, dict(answer.headers)) == (200, STREAM_HEADERS | turn)
    assert chunks(answer) == ["Hello!"]
    ((started),) = door.stepfunctions.started
    assert started == {
        "stateMachineArn": STATE_MACHINE,
        "name": invocation().turn_id,
        "input": started["input"],
    }
    assert TurnRequest.decode(json.loads(started["input"])) == TurnRequest(
        turn_id=invocation().turn_id,
        agent_id="BANKASSIST",
        agent_alias_id="live",
        session_id="session-1",
        memory_id="user_1",
        caller=CALLER,
        trace=False,
        body={"inline": {"inputText": "Hi"}},
    )


def test_the_trace_header_of_the_invocation_goes_on_to_the_execution(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_X_AMZN_TRACE_ID", "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1")
    commits_at_start(door)

    door.ask(request())

    assert door.stepfunctions.started[0]["traceHeader"] == "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1"


def test_a_caller_without_memory_id_gets_no_header_for_it(door: Door) -> None:
    commits_at_start(door)

    answer = door.ask(request({"inputText": "Hi"}))

    assert answer.headers.keys() == (STREAM_HEADERS | {"x-turnwright-turn-id": ""}).keys() - {
        "x-amz-bedrock-agent-memory-id"
    }


def test_an_input_that_is_too_long_for_a_state_travels_in_the_bucket(door: Door) -> None:
    commits_at_start(door)
    text = "ä" * 500_000

    door.ask(request({"inputText": text, "memoryId": "user_1"}))

    stowed = json.loads(door.stepfunctions.started[0]["input"])["request"]
    assert stowed.keys() == {"object", "bytes"}
    assert door.documents.fetch(stowed) == {"inputText": text}
    assert len(door.stepfunctions.started[0]["input"]) < 1_000


def test_a_request_without_an_invocation_id_is_a_turn_of_its_own_each_time(door: Door) -> None:
    commits_at_start(door)

    for headers in (None, {}, {"accept": "x"}):
        door.ask(request(headers=headers))

    assert len({started["name"] for started in door.stepfunctions.started}) == 3


def test_a_request_without_identity_is_one_of_nobody(door: Door) -> None:
    commits_at_start(door)

    door.ask(request(requestContext={"requestId": "r-1"}))

    assert json.loads(door.stepfunctions.started[0]["input"])["caller"] == ""


def test_a_repeat_joins_the_running_turn(door: Door) -> None:
    door.turn.run()

    frames = iter(door.ask(request()).body)
    door.turn.commit("Hello!")

    assert b"".join(frames) == b"".join(door.ask(request()).body)
    assert chunks(door.ask(request())) == ["Hello!"]
    assert door.stepfunctions.started == []


def test_a_repeat_joins_its_turn_though_the_turn_holds_the_session(door: Door) -> None:
    Sessions(door.table).claim(SESSION, invocation().turn_id)
    commits_at_start(door)

    assert chunks(door.ask(request())) == ["Hello!"]


def test_a_repeat_of_a_failed_turn_is_told_how_it_ended(door: Door) -> None:
    door.turn.fail("ModelsExhausted", "all 2 models failed")

    assert samples.ended_with(b"".join(door.ask(request()).body)) == (
        [],
        "dependencyFailedException",
        f"turn {invocation().turn_id} failed in Invoke Model: ModelsExhausted: all 2 models failed",
    )
    assert door.stepfunctions.started == []


def test_a_repeat_that_comes_before_the_turn_s_header_joins_all_the_same(door: Door) -> None:
    door.stepfunctions.refusal = client_error("ExecutionAlreadyExists", "StartExecution")

    answer = door.ask(request())
    door.turn.commit("Hello!")

    assert (answer.status, chunks(answer)) == (200, ["Hello!"])


def test_another_turn_in_the_session_is_refused_before_anything_is_started(door: Door) -> None:
    Sessions(door.table).claim(SESSION, "another-turn")
    before = door.table.get(keys.session(SESSION))

    assert refusal(door.ask(request())) == (
        409,
        "ConflictException",
        "session session-1 runs turn another-turn; wait for its end",
    )
    assert door.stepfunctions.started == []
    assert door.table.get(keys.session(SESSION)) == before


def test_a_session_of_another_actor_is_another_session(door: Door) -> None:
    Sessions(door.table).claim(SessionId("BANKASSIST-turnwright", "user_2", "session-1"), "another-turn")
    commits_at_start(door)

    assert chunks(door.ask(request())) == ["Hello!"]


def test_a_lease_that_ran_out_holds_nobody_up(door: Door) -> None:
    Sessions(door.table).claim(SESSION, "another-turn")
    item = door.table.get(keys.session(SESSION))
    assert item is not None
    door.table.put(Put(keys.session(SESSION), {**item, "leaseExpiresAt": now_ms() - 1}))
    commits_at_start(door)

    assert chunks(door.ask(request())) == ["Hello!"]


def test_attributes_that_are_too_long_with_the_session_s_are_refused_before_anything_is_started(door: Door) -> None:
    claimed = Sessions(door.table)
    claimed.claim(SESSION, "earlier")
    claimed.release(SESSION, "earlier")
    item = door.table.get(keys.session(SESSION))
    assert item is not None
    kept = json.dumps({"full": "x" * (SESSION_BYTES - 100)})
    door.table.put(Put(keys.session(SESSION), {**item, "attributes": kept}))
    more = {"inputText": "Hi", "memoryId": "user_1", "sessionState": {"sessionAttributes": {"more": "x" * 200}}}

    assert refusal(door.ask(request(more))) == (
        400,
        "ValidationException",
        (
            "sessionState.sessionAttributes: make 65657 bytes of JSON with those that the session has; "
            "it keeps at most 65536"
        ),
    )
    assert door.stepfunctions.started == []


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ({"agentId": "NOBODY"}, "There is no agent 'NOBODY'."),
        (
            {"agentAliasId": "blue"},
            "Agent 'BANKASSIST' has no alias 'blue'; 'live' and 'TSTALIASID' are there.",
        ),
    ],
    ids=["agent", "alias"],
)
def test_an_agent_or_alias_that_is_not_there_is_named(door: Door, path: dict[str, str], message: str) -> None:
    event = request()
    event["pathParameters"] |= path

    assert refusal(door.ask(event)) == (404, "ResourceNotFoundException", message)


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (request({"inputText": ""}), "inputText: is empty; a turn needs an input"),
        (request(body="%%%"), "body: is not base64, though the gateway says so"),
        (request(body="{", isBase64Encoded=False), "body: is not JSON: "),
        (request(body=None), "inputText: is empty; a turn needs an input"),
        (
            request(headers={"X-Amz-Source-Arn": "arn:aws:bedrock:us-east-1:1:agent/a"}),
            "sourceArn: is not a field that this runtime supports",
        ),
    ],
    ids=["empty", "base64", "json", "nothing", "source ARN"],
)
def test_a_request_that_breaks_a_rule_needs_nothing_behind_the_door(event: dict[str, Any], message: str) -> None:
    def unreachable() -> Any:
        raise AssertionError("this was not to be asked for")

    answer = FrontDoor(unreachable, unreachable, unreachable, unreachable).invoke_agent(event, lambda: 0)

    status, name, said = refusal(answer)
    assert (status, name) == (400, "ValidationException")
    assert said.startswith(message)


def test_the_end_of_a_session_is_answered_without_a_turn(door: Door) -> None:
    Sessions(door.table).claim(SESSION, "turn")
    Sessions(door.table).release(SESSION, "turn")

    answer = door.ask(request({"endSession": True, "memoryId": "user_1"}))

    assert (answer.status, dict(answer.headers)) == (200, STREAM_HEADERS)
    assert chunks(answer) == [SESSION_ENDED]
    item = door.table.get(keys.session(SESSION))
    assert item is not None
    assert item["status"] == "ENDED"
    assert door.stepfunctions.started == []


def session_to_remember(door: Door) -> None:
    """A session with an event, of an agent that keeps what was said."""
    publish(door.table, [Definition.of({**samples.DEFINITION, "memoryConfiguration": {"namespaces": [{"name": "f"}]}})])
    Actors(door.table).require(SESSION.store, SESSION.actor)
    Sessions(door.table).claim(SESSION, "turn")
    door.table.update(
        Update(
            keys.session(SESSION),
            "SET agentId = :agent, agentVersion = :version, lastEventId = :event REMOVE leaseOwner",
            values={":agent": "BANKASSIST", ":version": "2", ":event": "0001790000000000#aaaaaaaa"},
        )
    )


def test_the_end_of_a_session_starts_its_consolidation(door: Door) -> None:
    session_to_remember(door)

    answer = door.ask(request({"endSession": True, "memoryId": "user_1"}))

    assert chunks(answer) == [SESSION_ENDED]
    segment = Segments(door.table).read(SESSION, "0001790000000000#aaaaaaaa")
    assert segment is not None
    ((started),) = door.stepfunctions.started
    assert started == {
        "stateMachineArn": CONSOLIDATE_STATE_MACHINE,
        "name": segment.consolidation.consolidationId,
        "input": json.dumps(segment.consolidation.encode(), separators=(",", ":")),
    }


def test_a_session_is_ended_though_its_consolidation_cannot_be_started(door: Door) -> None:
    session_to_remember(door)
    door.stepfunctions.refusal = StorageUnavailable("slow down", throttled=True)

    assert chunks(door.ask(request({"endSession": True, "memoryId": "user_1"}))) == [SESSION_ENDED]

    segment = Segments(door.table).read(SESSION, "0001790000000000#aaaaaaaa")
    assert segment is not None
    assert segment.status is SegmentStatus.PENDING


def test_a_session_in_which_a_turn_runs_is_not_ended(door: Door) -> None:
    Sessions(door.table).claim(SESSION, "another-turn")

    assert refusal(door.ask(request({"endSession": True, "memoryId": "user_1"}))) == (
        409,
        "ConflictException",
        "session session-1 runs turn another-turn",
    )
    item = door.table.get(keys.session(SESSION))
    assert item is not None
    assert item["status"] == "OPEN"


def test_a_start_that_is_throttled_is_told_as_such(door: Door) -> None:
    door.stepfunctions.refusal = StorageUnavailable("slow down", throttled=True)

    told = "the runtime is asked too much at once; repeat the request"
    assert refusal(door.ask(request())) == (429, "ThrottlingException", told)


def errors_of(caplog: pytest.LogCaptureFixture) -> list[tuple[str, type[BaseException] | None]]:
    """What was logged as an error, with the type of its exception."""
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    return [(record.getMessage(), record.exc_info[0] if record.exc_info else None) for record in errors]


INTERNAL = (500, "InternalServerException", "the request r-1 failed inside the runtime; its log says why")


@pytest.mark.parametrize(
    "error", [client_error("AccessDeniedException", "StartExecution"), KeyError("secret")], ids=["AWS", "own"]
)
def test_an_error_that_nobody_expected_is_typed_says_nothing_of_the_inside_and_is_logged(
    door: Door, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    door.stepfunctions.refusal = error

    assert refusal(door.ask(request())) == INTERNAL
    assert errors_of(caplog) == [("the request failed", type(error))]


def test_a_setting_that_is_missing_is_told_as_an_error_of_the_runtime(door: Door) -> None:
    door.settings = Settings({})

    assert refusal(door.ask(request())) == INTERNAL


def test_an_error_while_the_turn_is_followed_ends_the_stream_with_a_frame(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    commits_at_start(door)
    answer = door.ask(request())
    item = door.table.get(keys.turn_header(invocation().turn_id))
    assert item is not None
    door.table.put(Put(keys.turn_header(invocation().turn_id), {**item, "status": "A STATUS OF LATER"}))

    assert samples.ended_with(b"".join(answer.body)) == (
        [],
        "internalServerException",
        f"following turn {invocation().turn_id} failed; repeat the request to join it",
    )
    assert errors_of(caplog) == [("following a turn failed", ValueError)]


def test_a_caller_that_goes_away_leaves_the_turn_alone(door: Door) -> None:
    event = request({"inputText": "Hi", "memoryId": "user_1", "enableTrace": True})
    traced = StoredTurn(door.table, door.documents, invocation(enable_trace=True).turn_id)
    traced.run()
    traced.told(1, "early")
    body: Any = door.ask(event).body

    next(body)
    body.close()

    assert chunks_after(door, event, traced) == ["Hello!"]


def chunks_after(door: Door, event: dict[str, Any], turn: StoredTurn) -> list[str]:
    turn.commit("Hello!")
    stream = samples.boto3_stream(b"".join(door.ask(event).body))
    return [event["chunk"]["bytes"].decode() for event in stream if "chunk" in event]


def test_a_turn_that_outlives_its_response_can_be_joined_again(door: Door) -> None:
    door.turn.run()

    _, name, message = samples.ended_with(b"".join(door.ask(request(), remaining_ms=2_999).body))

    assert name == "internalServerException"
    assert message.endswith("repeat the request to join it")


def test_an_error_of_dynamodb_is_an_error_of_the_runtime(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise StorageUnavailable("DynamoDB BatchGetItem: InternalServerError: x")

    monkeypatch.setattr(door.table, "get_many", fail)

    assert refusal(door.ask(request())) == INTERNAL
