from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.unit import samples
from tests.unit.followed_turns import STATE_MACHINE, FakeStepFunctions, StoredTurn, client_error
from turnwright.agents.definitions import Definition
from turnwright.agents.versions import publish
from turnwright.api.bedrock import following
from turnwright.api.bedrock.requests import Invocation
from turnwright.errors import StorageUnavailable
from turnwright.sessions.values import Step
from turnwright.storage.documents import Documents
from turnwright.storage.table import Table
from turnwright.tracing.trace_events import Failure, ModelCall
from turnwright.tracing.traces import Traces

INVOCATION = Invocation(
    agent_id="BANKASSIST",
    agent_alias_id="live",
    session_id="session-1",
    memory_id="user_1",
    invocation_id="i-1",
    caller="arn:aws:iam::1:user/a",
    enable_trace=True,
    body={"inputText": "Hi"},
)
PLENTY = 60_000
EXECUTION = f"arn:aws:states:us-east-1:123456789012:execution:AgentTurn:{INVOCATION.turn_id}"


class Followed:
    """Follows a turn whose states do one thing of `then` each time before the follower looks again."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.documents = Documents(samples.FakeBucket(), "bucket")
        self.stepfunctions = FakeStepFunctions()
        self.turn = StoredTurn(table, self.documents, INVOCATION.turn_id)

    def stream(self, *then: Callable[[], object], trace: bool = True) -> bytes:
        """The whole stream. With nothing left to do, the function's time is up."""
        left = list(then)

        def remaining_ms() -> int:
            if not left:
                return 0
            left.pop(0)()
            return PLENTY

        invocation = INVOCATION if trace else self.untraced()
        frames = following.followed(
            self.table, self.documents, self.stepfunctions, STATE_MACHINE, invocation, remaining_ms
        )
        return b"".join(frames)

    def untraced(self) -> Invocation:
        invocation = replace(INVOCATION, enable_trace=False)
        self.turn = StoredTurn(self.table, self.documents, invocation.turn_id)
        return invocation

    def events(self, *then: Callable[[], object]) -> list[str]:
        """The events' kinds and texts, in short."""
        return [short(event) for event in samples.boto3_stream(self.stream(*then))]


def short(event: dict[str, Any]) -> str:
    if "chunk" in event:
        return f"chunk {event['chunk']['bytes'].decode()}"
    trace = event["trace"]["trace"]
    if "failureTrace" in trace:
        return f"failure {trace['failureTrace']['failureReason']}"
    observation = trace["orchestrationTrace"]["observation"]
    if "finalResponse" in observation:
        return f"final {observation['finalResponse']['text']}"
    return f"tool {observation['actionGroupInvocationOutput']['text']}"


def nothing() -> None:
    """The turn is busy."""


@pytest.fixture
def followed(table: Table, monkeypatch: pytest.MonkeyPatch) -> Followed:
    monkeypatch.setattr(following, "_FIRST_WAIT_SECONDS", 0)
    monkeypatch.setattr(following, "_LONGEST_WAIT_SECONDS", 0)
    return Followed(table)


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn counts as quiet at once."""
    monkeypatch.setattr(following, "_QUIET_SECONDS", -1)


def tool(followed: Followed, step: int, index: int, text: str) -> Callable[[], object]:
    return lambda: followed.turn.tool(step, index, text)


def test_traces_come_as_they_are_written_each_once_and_the_answer_last(followed: Followed) -> None:
    turn = followed.turn

    assert followed.events(
        nothing,
        turn.run,
        tool(followed, 1, 1, "1.1"),
        nothing,
        tool(followed, 1, 0, "1.0"),
        tool(followed, 2, 0, "2.0"),
        lambda: turn.answer("Hi!"),
    ) == ["tool 1.1", "tool 1.0", "tool 2.0", "final Hi!", "chunk Hi!"]
    assert followed.stepfunctions.described == []


def test_frames_come_while_the_turn_runs(followed: Followed) -> None:
    followed.turn.run()
    followed.turn.told(1, "early")
    frames = following.followed(
        followed.table, followed.documents, followed.stepfunctions, STATE_MACHINE, INVOCATION, lambda: PLENTY
    )

    (first,) = samples.boto3_stream(next(frames))
    followed.turn.commit("Hi!")
    (second,) = samples.boto3_stream(next(frames))

    assert (short(first), short(second)) == ("final early", "chunk Hi!")
    assert list(frames) == []


def test_a_turn_that_has_ended_long_ago_is_told_at_once(followed: Followed) -> None:
    followed.turn.told(1, "Hi!")
    followed.turn.commit("Hi!")

    assert followed.events() == ["final Hi!", "chunk Hi!"]


def test_a_caller_without_trace_gets_the_answer_alone(followed: Followed) -> None:
    followed.untraced()
    followed.turn.run()

    stream = followed.stream(lambda: followed.turn.answer("Hi!"), trace=False)

    assert [short(event) for event in samples.boto3_stream(stream)] == ["chunk Hi!"]


@pytest.mark.parametrize("answer", ["ä😀" * 100_000, "a" * 1_000_000, ""], ids=["600 kB", "1 MB", "nothing"])
def test_an_answer_that_a_chunk_can_hold_is_one_chunk(followed: Followed, answer: str) -> None:
    followed.turn.commit(answer)

    assert followed.events() == [f"chunk {answer}"]


@pytest.mark.parametrize("beginning", ["", "a", "aa", "aaa"])
def test_a_longer_answer_is_in_chunks_each_of_which_can_be_decoded(followed: Followed, beginning: str) -> None:
    answer = beginning + "😀" * 600_000
    followed.turn.commit(answer)

    pieces = [event["chunk"]["bytes"] for event in samples.boto3_stream(followed.stream())]

    assert [len(piece) for piece in pieces[:2]] == [1_000_000 - -len(beginning) % 4, 1_000_000]
    assert len(pieces) == 3
    assert "".join(piece.decode() for piece in pieces) == answer


def test_a_failed_turn_ends_with_a_failure_trace_and_an_exception(followed: Followed) -> None:
    followed.turn.run()
    followed.turn.told(1, "almost")

    events, name, message = samples.ended_with(
        followed.stream(lambda: followed.turn.fail("ModelsThrottled", "all 2 models failed"))
    )

    reason = f"turn {INVOCATION.turn_id} failed in Invoke Model: ModelsThrottled: all 2 models failed"
    assert [short(event) for event in events] == ["final almost", f"failure {reason}"]
    assert (name, message) == ("throttlingException", reason)
    failure = events[-1]["trace"]
    assert failure.pop("eventTime")
    assert failure == {
        "agentId": "BANKASSIST",
        "agentAliasId": "live",
        "agentVersion": "3",
        "sessionId": "session-1",
        "trace": {"failureTrace": {"traceId": INVOCATION.turn_id[:12], "failureReason": reason}},
    }


def test_a_failed_turn_without_trace_ends_with_the_exception_alone(followed: Followed) -> None:
    invocation = followed.untraced()
    followed.turn.fail("SessionBusy", "session session-1 runs turn x", state="Load Memory")

    assert samples.ended_with(followed.stream(trace=False)) == (
        [],
        "conflictException",
        f"turn {invocation.turn_id} failed in Load Memory: SessionBusy: session session-1 runs turn x",
    )


def test_a_response_that_cannot_stay_open_says_how_to_go_on(followed: Followed) -> None:
    followed.turn.run()

    assert samples.ended_with(followed.stream(nothing, nothing)) == (
        [],
        "internalServerException",
        (
            f"turn {INVOCATION.turn_id} still runs, and this response cannot stay open longer; "
            "repeat the request to join it"
        ),
    )


@pytest.mark.usefixtures("quiet")
def test_an_execution_that_ended_without_telling_the_header_is_found(followed: Followed) -> None:
    followed.turn.run()
    followed.stepfunctions.execution = {
        "status": "FAILED",
        "error": "States.DataLimitExceeded",
        "cause": '{"errorMessage": "too long"}',
    }

    events, name, message = samples.ended_with(followed.stream(nothing))

    reason = f"turn {INVOCATION.turn_id} failed: States.DataLimitExceeded: too long"
    assert [short(event) for event in events] == [f"failure {reason}"]
    assert events[0]["trace"]["agentVersion"] == "3"
    assert (name, message) == ("internalServerException", reason)
    assert followed.stepfunctions.described == [EXECUTION]


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("status", ["TIMED_OUT", "ABORTED"])
def test_an_execution_that_never_wrote_a_header_is_found(followed: Followed, status: str) -> None:
    followed.stepfunctions.execution = {"status": status}

    events, name, message = samples.ended_with(followed.stream(nothing))

    reason = f"turn {INVOCATION.turn_id} failed: {status}"
    assert [short(event) for event in events] == [f"failure {reason}"]
    assert "agentVersion" not in events[0]["trace"]
    assert (name, message) == ("internalServerException", reason)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("execution", "reason"),
    [
        (None, "ExecutionDoesNotExist: its state machine was deleted"),
        ({"status": "SUCCEEDED"}, "TurnNotKept: its execution succeeded, and nothing of the turn is kept"),
    ],
    ids=["its machine was replaced", "it was erased"],
)
def test_a_turn_that_has_begun_and_will_never_be_told_to_have_ended_is_not_waited_for(
    followed: Followed, execution: dict[str, Any] | None, reason: str
) -> None:
    followed.turn.run()
    followed.stepfunctions.execution = execution

    _, name, message = samples.ended_with(followed.stream(nothing))

    assert (name, message) == ("internalServerException", f"turn {INVOCATION.turn_id} failed: {reason}")


@pytest.mark.usefixtures("quiet")
def test_what_a_turn_wrote_before_its_execution_was_found_failed_is_told(followed: Followed) -> None:
    followed.turn.run()
    followed.stepfunctions.execution = {"status": "ABORTED"}
    describe = followed.stepfunctions.describe_execution

    def describe_later(**arguments: Any) -> dict[str, Any]:
        followed.turn.told(1, "late")
        return describe(**arguments)

    followed.stepfunctions.describe_execution = describe_later  # type: ignore[method-assign]

    events, _, _ = samples.ended_with(followed.stream(nothing))

    assert [short(event).partition(" ")[0] for event in events] == ["final", "failure"]


@pytest.mark.usefixtures("quiet")
def test_a_turn_that_was_committed_is_answered_though_its_execution_failed_after_that(followed: Followed) -> None:
    followed.turn.run()
    followed.stepfunctions.execution = {"status": "FAILED", "error": "Lambda.Unknown"}
    describe = followed.stepfunctions.describe_execution

    def describe_later(**arguments: Any) -> dict[str, Any]:
        followed.turn.commit("Hi!")
        return describe(**arguments)

    followed.stepfunctions.describe_execution = describe_later  # type: ignore[method-assign]

    assert followed.events(nothing) == ["chunk Hi!"]


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("execution", "refusal"),
    [
        ({"status": "RUNNING"}, None),
        (None, None),
        (None, StorageUnavailable("slow down", throttled=True)),
    ],
    ids=["running", "not started yet", "throttled"],
)
def test_a_quiet_turn_that_has_not_failed_is_waited_for(
    followed: Followed, execution: dict[str, Any] | None, refusal: Exception | None
) -> None:
    followed.stepfunctions.execution = execution
    followed.stepfunctions.refusal = refusal

    assert followed.events(nothing, nothing, lambda: followed.turn.commit("Hi!")) == ["chunk Hi!"]
    assert followed.stepfunctions.described == [EXECUTION] * 3


@pytest.mark.parametrize("trace", [True, False])
def test_a_turn_is_followed_through_a_hiccup_of_the_table_and_told_of_a_longer_one(
    followed: Followed, monkeypatch: pytest.MonkeyPatch, trace: bool
) -> None:
    monkeypatch.setattr("turnwright.storage.availability._PAUSE_SECONDS", (0.0, 0.0))
    read = getattr(followed.table, "query" if trace else "get")
    faults: list[Exception] = []

    def sometimes(*arguments: Any, **named: Any) -> Any:
        if faults:
            raise faults.pop()
        return read(*arguments, **named)

    monkeypatch.setattr(followed.table, read.__name__, sometimes)

    def hiccup(times: int) -> Callable[[], None]:
        return lambda: faults.extend([StorageUnavailable("no")] * times)

    def committed() -> None:
        followed.turn.commit("Hi!")
        faults.extend([StorageUnavailable("no")] * 2)

    stream = followed.stream(hiccup(1), hiccup(2), committed, trace=trace)
    assert [short(event) for event in samples.boto3_stream(stream)] == ["chunk Hi!"]
    hiccup(3)()
    with pytest.raises(StorageUnavailable):
        followed.stream(trace=trace)


@pytest.mark.usefixtures("quiet")
def test_any_other_refusal_of_step_functions_is_not_hidden(followed: Followed) -> None:
    followed.stepfunctions.refusal = client_error("AccessDeniedException", "DescribeExecution")

    with pytest.raises(Exception, match="AccessDeniedException"):
        followed.stream(nothing)


def test_a_model_call_is_told_when_it_begins_and_when_it_ends_each_once(followed: Followed) -> None:
    traces = followed.turn.traces
    call = ModelCall("model-1", 1, "{}", "{}")
    message = {"role": "assistant", "content": [{"text": "Hi"}]}
    answered = Step(1, [], message, "end_turn", "model-1", {"inputTokens": 1}, 5)
    stream = followed.stream(
        followed.turn.run,
        lambda: traces.model_started(1, 0, call),
        nothing,
        lambda: traces.model_answered(0, call, answered, ()),
        nothing,
        lambda: followed.turn.answer("Hi"),
    )

    kinds = [
        next(iter(event["trace"]["trace"]["orchestrationTrace"]))
        for event in samples.boto3_stream(stream)
        if "trace" in event
    ]
    assert kinds == ["modelInvocationInput", "modelInvocationOutput", "observation"]


@pytest.mark.parametrize("refused", [None, Failure("INVALID_ARGUMENTS", "it was cut")], ids=["made", "not made"])
def test_what_is_selected_is_told_by_the_agents_own_schema_unless_the_call_is_not_made(
    followed: Followed, refused: Failure | None
) -> None:
    publish(followed.table, [Definition.of(samples.DEFINITION)])
    followed.turn.turn = replace(followed.turn.turn, agentVersion="1")
    traces = Traces.of_turn(followed.table, followed.documents, followed.turn.turn)
    content = [{"toolUse": {"toolUseId": "t-0", "name": "search", "input": {"limit": 5}}}]
    answered = Step(1, [], {"role": "assistant", "content": content}, "tool_use", "model-1", {}, 5)
    stream = followed.stream(
        lambda: traces.model_answered(0, ModelCall("model-1", 1, "{}", "{}"), answered, [refused]),
        lambda: followed.turn.answer("Hi"),
    )

    inputs = [
        event["trace"]["trace"]["orchestrationTrace"]["invocationInput"]["actionGroupInvocationInput"]["parameters"]
        for event in samples.boto3_stream(stream)
        if "invocationInput" in event.get("trace", {"trace": {"orchestrationTrace": {}}})["trace"]["orchestrationTrace"]
    ]
    assert inputs == ([] if refused else [[{"name": "limit", "type": "integer", "value": "5"}]])
