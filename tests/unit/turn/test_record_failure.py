import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

import record_failure
from tests.unit.stored_turns import SESSION, START, STOP_DATE, A, B, Interrupted, StoredTurns, die, step, text
from turnwright.agents.versions import publish
from turnwright.errors import ActorErased, LeaseLost, SessionBusy
from turnwright.sessions.turns import Turns
from turnwright.sessions.values import Status
from turnwright.storage import keys
from turnwright.storage.dead_letters import DeadLetters
from turnwright.storage.table import Update
from turnwright.tracing.execution_failures import ExecutionFailure, read_failure
from turnwright.turn.record_failure import Recorded, record

ARN = f"arn:aws:states:us-east-1:123456789012:execution:turns:{A}"


@dataclass(slots=True)
class Queue:
    """The dead-letter queue. `lost` makes as many sends fail."""

    letters: list[dict[str, Any]] = field(default_factory=list)
    lost: int = 0

    def send_message(self, *, QueueUrl: str, MessageBody: str) -> None:  # noqa: N803 (SQS's names)
        assert QueueUrl == "https://queue"
        if self.lost:
            self.lost -= 1
            raise Interrupted
        self.letters.append(json.loads(MessageBody))


@dataclass(slots=True)
class Executions:
    """Step Functions with one execution."""

    execution: dict[str, Any]
    history: list[dict[str, Any]] = field(default_factory=list)

    def describe_execution(self, *, executionArn: str) -> dict[str, Any]:  # noqa: N803 (Step Functions' name)
        assert executionArn == ARN
        return {"stopDate": STOP_DATE, **self.execution}

    def get_execution_history(self, *, reverseOrder: bool, **_arguments: Any) -> dict[str, Any]:  # noqa: N803
        assert reverseOrder
        return {"events": self.history[::-1]}


def failure(stored: StoredTurns, turn_id: str = A, error: str = "ModelsExhausted", **fields: Any) -> ExecutionFailure:
    return ExecutionFailure(
        **{
            "execution_arn": ARN,
            "turn_id": turn_id,
            "request": stored.request(turn_id).encode(),
            "status": "FAILED",
            "error": error,
            "cause": "c",
            "state": "Invoke Model",
            **fields,
        }
    )


def letter(failed: ExecutionFailure) -> dict[str, Any]:
    return {"turnId": failed.turn_id, "executionArn": ARN, "failure": failed.summary, "input": failed.request}


def test_a_failed_turn_is_recorded_its_session_freed_and_the_turn_dead_lettered(stored: StoredTurns) -> None:
    stored.begin(A)
    queue, failed = Queue(), failure(stored)

    assert record(stored.table, stored.documents, DeadLetters(queue, "https://queue"), failed) is Recorded.DEAD_LETTERED

    assert queue.letters == [letter(failed)]
    header = stored.header(A)
    assert (header.status, header.failure) == (
        Status.FAILED,
        {"error": "ModelsExhausted", "cause": "c", "executionStatus": "FAILED", "state": "Invoke Model"},
    )
    assert "leaseOwner" not in stored.session()


def test_a_failure_recorded_twice_leaves_what_it_left_the_first_time(stored: StoredTurns) -> None:
    stored.begin(A)
    failed = failure(stored)
    record(stored.table, stored.documents, DeadLetters(Queue(), "https://queue"), failed)
    before = stored.items()

    record(stored.table, stored.documents, DeadLetters(Queue(), "https://queue"), failed)

    assert stored.items() == before


def test_a_failure_recorded_again_while_the_next_turn_runs_does_not_touch_it(stored: StoredTurns) -> None:
    stored.begin(A)
    failed = failure(stored)
    record(stored.table, stored.documents, DeadLetters(Queue(), "https://queue"), failed)
    stored.begin(B)
    before = stored.items()

    record(stored.table, stored.documents, DeadLetters(Queue(), "https://queue"), failed)

    assert stored.items() == before


def test_a_committed_turn_stays_committed_and_is_not_dead_lettered(stored: StoredTurns) -> None:
    """Its execution failed after the commit: the response of Write Memory was lost each time."""
    stored.run(A)
    before, queue = stored.items(), Queue()

    assert (
        record(stored.table, stored.documents, DeadLetters(queue, "https://queue"), failure(stored))
        is Recorded.COMMITTED_BEFORE
    )

    assert (stored.items(), queue.letters) == (before, [])


def test_a_refused_turn_is_not_dead_lettered_and_the_running_one_keeps_its_session(stored: StoredTurns) -> None:
    stored.begin(A)
    with pytest.raises(SessionBusy):
        stored.begin(B)
    session, running, queue = stored.session(), stored.header(A), Queue()

    assert (
        record(
            stored.table,
            stored.documents,
            DeadLetters(queue, "https://queue"),
            failure(stored, B, "SessionBusy", state="Load Memory"),
        )
        is Recorded.REFUSED
    )

    assert queue.letters == []
    assert (stored.session(), stored.header(A)) == (session, running)
    assert stored.header(B).failure["error"] == "SessionBusy"


def test_a_turn_of_an_actor_who_is_being_erased_is_not_dead_lettered(stored: StoredTurns) -> None:
    stored.run(A)
    actor = keys.actor(SESSION.store, SESSION.actor)
    stored.table.update(Update(actor, "SET erasingSince = :now", values={":now": 1}))
    with pytest.raises(ActorErased):
        stored.begin(B)
    queue = Queue()

    erased = failure(stored, B, "ActorErased", state="Load Memory")
    assert record(stored.table, stored.documents, DeadLetters(queue, "https://queue"), erased) is Recorded.REFUSED

    assert queue.letters == []
    assert "leaseOwner" not in stored.session()


def test_a_redriven_turn_that_finds_its_session_busy_is_dead_lettered_again(stored: StoredTurns) -> None:
    """It had begun: nobody but the dead-letter queue keeps it."""
    turn = stored.begin(A)
    record(stored.table, stored.documents, DeadLetters(Queue(), "https://queue"), failure(stored))
    stored.begin(B)
    with pytest.raises(SessionBusy):
        Turns(stored.table).resume(turn, 1)
    session, queue, failed = stored.session(), Queue(), failure(stored, error="SessionBusy", redrive=1)

    assert record(stored.table, stored.documents, DeadLetters(queue, "https://queue"), failed) is Recorded.DEAD_LETTERED

    assert queue.letters == [letter(failed)]
    assert stored.session() == session


def test_a_redriven_turn_whose_session_went_on_fails_and_stays_without_a_trace_in_it(stored: StoredTurns) -> None:
    turn = stored.begin(A)
    record(stored.table, stored.documents, DeadLetters(Queue(), "https://queue"), failure(stored))
    stored.run(B, words="Meanwhile")
    memory = stored.memory()

    with pytest.raises(LeaseLost):
        Turns(stored.table).resume(turn, 1)
    failed = failure(stored, error="LeaseLost", redrive=1)
    record(stored.table, stored.documents, DeadLetters(Queue(), "https://queue"), failed)

    assert stored.memory() == memory
    assert stored.header(A).failure["error"] == "LeaseLost"


@pytest.mark.parametrize("number", range(3))
def test_a_failure_that_is_recorded_late_ends_no_turn_that_runs_again(stored: StoredTurns, number: int) -> None:
    """The redriven state begins before the recording's request of that number."""
    turn, queue, failed = stored.begin(A), Queue(), failure(stored)
    stored.dynamodb.forget()
    stored.dynamodb.before[number] = lambda: Turns(stored.table).resume(turn, 1)

    assert record(stored.table, stored.documents, DeadLetters(queue, "https://queue"), failed) is Recorded.RUNS_AGAIN

    assert stored.dynamodb.before == {}
    assert (stored.header(A).status, stored.session()["leaseOwner"], queue.letters) == (Status.RUNNING, A, [])
    stored.journal(turn, step(1, text("Hi")))
    assert stored.commit(turn).status is Status.COMMITTED


@pytest.mark.parametrize("number", range(3))
def test_a_turn_that_is_erased_while_its_failure_is_recorded_leaves_nothing(stored: StoredTurns, number: int) -> None:
    """Its items go before the recording's request of that number."""
    stored.begin(A)
    queue, failed = Queue(), failure(stored)

    def erase() -> None:
        stored.write_together(delete=[key for key in stored.items() if key[0].startswith(("TURN#", "SESSION#"))])

    stored.dynamodb.forget()
    stored.dynamodb.before[number] = erase

    assert record(stored.table, stored.documents, DeadLetters(queue, "https://queue"), failed) is Recorded.ERASED

    assert stored.dynamodb.before == {}
    assert [key for key in stored.items() if key[0].startswith(("TURN#", "SESSION#"))] == []
    assert queue.letters == []


def test_a_turn_that_died_between_its_claim_and_its_header_gives_the_session_back(stored: StoredTurns) -> None:
    stored.dynamodb.forget()
    stored.dynamodb.before[3] = die
    with pytest.raises(Interrupted):
        stored.begin(A)
    assert (stored.session()["leaseOwner"], stored.table.get(keys.turn_header(A))) == (A, None)
    queue, failed = Queue(), failure(stored, error="States.Timeout", state="Load Memory")

    record(stored.table, stored.documents, DeadLetters(queue, "https://queue"), failed)

    assert "leaseOwner" not in stored.session()
    assert stored.header(A).status is Status.FAILED
    assert queue.letters == [letter(failed)]


@pytest.mark.parametrize("later", [[{}], [{}, {"instruction": "More words than before."}], None])
def test_the_session_is_given_back_in_the_store_that_the_turn_began_in_whatever_was_published_since(
    stored: StoredTurns, later: list[dict[str, Any]] | None
) -> None:
    """None: the agent was removed."""
    stored.dynamodb.before[3] = die
    with pytest.raises(Interrupted):
        stored.begin(A)
    failed = failure(stored, error="States.Timeout", state="Load Memory")
    if later is None:
        publish(stored.table, [])
    for changes in later or []:
        stored.publish(memoryConfiguration={"memoryStore": "OTHER-turnwright"}, **changes)

    record(stored.table, stored.documents, DeadLetters(Queue(), "https://queue"), failed)

    assert "leaseOwner" not in stored.session()
    assert stored.items()[keys.turn_header(A)]["ownerPK"] == {"S": SESSION.owner}


def test_a_refused_turn_looks_for_no_session_in_other_stores(stored: StoredTurns) -> None:
    stored.run(B)
    stored.dynamodb.forget()

    refused = failure(stored, error="SessionBusy", state="Load Memory")
    record(stored.table, stored.documents, DeadLetters(Queue(), "https://queue"), refused)

    assert "query" not in stored.dynamodb.operations


def test_a_turn_of_an_agent_that_is_gone_is_recorded_and_dead_lettered(stored: StoredTurns) -> None:
    queue = Queue()
    request = {**stored.request(A).encode(), "agentId": "NOBODY"}

    assert (
        record(
            stored.table,
            stored.documents,
            DeadLetters(queue, "https://queue"),
            failure(stored, request=request, error="AgentNotFound", state="Load Memory"),
        )
        is Recorded.DEAD_LETTERED
    )

    assert stored.header(A).status is Status.FAILED
    assert [each["turnId"] for each in queue.letters] == [A]
    assert stored.memory() == {}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("request_number", range(3))
def test_a_record_that_dies_anywhere_is_completed_by_its_repeat(
    stored: StoredTurns, when: str, request_number: int
) -> None:
    stored.begin(A)
    queue, failed = Queue(), failure(stored)
    stored.dynamodb.forget()
    getattr(stored.dynamodb, when)[request_number] = die
    with pytest.raises(Interrupted):
        record(stored.table, stored.documents, DeadLetters(queue, "https://queue"), failed)
    assert queue.letters == []

    record(stored.table, stored.documents, DeadLetters(queue, "https://queue"), failed)

    assert queue.letters == [letter(failed)]
    assert stored.header(A).failure == failed.summary
    assert "leaseOwner" not in stored.session()


def test_a_letter_that_could_not_be_sent_is_sent_by_the_repeat(stored: StoredTurns) -> None:
    stored.begin(A)
    queue, failed = Queue(lost=1), failure(stored)
    with pytest.raises(Interrupted):
        record(stored.table, stored.documents, DeadLetters(queue, "https://queue"), failed)

    record(stored.table, stored.documents, DeadLetters(queue, "https://queue"), failed)

    assert queue.letters == [letter(failed)]


def test_a_letter_of_the_longest_input_fits_the_queue(stored: StoredTurns) -> None:
    queue = Queue()
    request = stored.request(A, words="€" * 349_525).encode()

    record(
        stored.table,
        stored.documents,
        DeadLetters(queue, "https://queue"),
        failure(stored, request=request, cause="€" * 4_000, state="Load Memory"),
    )

    assert len(json.dumps(queue.letters[0], ensure_ascii=False).encode()) < 32_000


@pytest.mark.parametrize("status", ["RUNNING", "SUCCEEDED"])
def test_an_execution_that_runs_again_or_has_succeeded_is_no_failure(status: str) -> None:
    assert read_failure(Executions({"status": status}), ARN, find_state=True) is None


@pytest.mark.parametrize(
    ("described", "error", "cause"),
    [
        ({"error": "LeaseLost", "cause": '{"errorMessage": "gone", "errorType": "LeaseLost"}'}, "LeaseLost", "gone"),
        ({"error": "States.Runtime", "cause": "not JSON {"}, "States.Runtime", "not JSON {"),
        ({"error": "E", "cause": '["a list"]'}, "E", '["a list"]'),
        ({"error": "E", "cause": "x" * 32_000}, "E", "x" * 4_000),
        ({}, "FAILED", ""),
    ],
)
def test_a_failure_is_read_as_step_functions_describes_it(described: dict[str, str], error: str, cause: str) -> None:
    client = Executions(
        {"status": "FAILED", "name": A, "input": '{"turnId": 1}', **described},
        [
            entered(1, 0, "Load Memory"),
            {"id": 2, "previousEventId": 1, "type": "TaskStateExited"},
            entered(3, 2, "Invoke Model"),
            {"id": 4, "previousEventId": 3, "type": "TaskFailed"},
            {"id": 5, "previousEventId": 4, "type": "ExecutionFailed"},
        ],
    )

    expected = ExecutionFailure(ARN, A, {"turnId": 1}, "FAILED", error, cause, "Invoke Model", stopped_at=START)
    found = read_failure(client, ARN, find_state=True)
    assert found
    assert replace(found, costs=expected.costs) == expected
    assert found.costs.spent.unknown == {"InvokeModel": 1}
    summary = {"error": error, "cause": cause, "executionStatus": "FAILED"}
    assert expected.summary == {**summary, "state": "Invoke Model"}
    unsought = read_failure(client, ARN, find_state=False)
    assert unsought
    assert unsought.summary == summary


def entered(number: int, previous: int, name: str) -> dict[str, Any]:
    details = {"stateEnteredEventDetails": {"name": name}}
    return {"id": number, "previousEventId": previous, "type": "TaskStateEntered", **details}


def test_the_state_that_failed_is_told_though_another_branch_entered_one_after_it() -> None:
    client = Executions(
        {"status": "FAILED", "name": A, "input": "{}"},
        [
            entered(1, 0, "Run Tools"),
            entered(2, 1, "Invoke Tool"),
            {"id": 3, "previousEventId": 2, "type": "TaskFailed"},
            entered(4, 1, "Which Handler?"),
            {"id": 5, "previousEventId": 3, "type": "MapStateFailed"},
            {"id": 6, "previousEventId": 5, "type": "ExecutionFailed"},
        ],
    )
    failure = read_failure(client, ARN, find_state=True)
    assert failure
    assert failure.state == "Invoke Tool"


def test_a_stopped_execution_is_told_with_the_state_it_was_in() -> None:
    client = Executions(
        {"status": "ABORTED", "name": A, "input": "{}"},
        [entered(1, 0, "Invoke Model"), {"id": 2, "previousEventId": 0, "type": "ExecutionAborted"}],
    )
    failure = read_failure(client, ARN, find_state=True)
    assert failure
    assert failure.state == "Invoke Model"


def handle(monkeypatch: pytest.MonkeyPatch, stored: StoredTurns, **execution: Any) -> Queue:
    """One delivery of the event to the handler."""
    queue = Queue()
    described = {"name": A, "input": json.dumps(stored.request(A).encode()), **execution}
    monkeypatch.setattr("turnwright.storage.clients.stepfunctions", lambda: Executions(described))
    monkeypatch.setattr("turnwright.storage.clients.sqs", lambda: queue)
    record_failure.handler({"detail": {"executionArn": ARN, "status": "FAILED"}}, None)
    return queue


def test_an_event_of_a_stopped_execution_frees_the_session(
    stored: StoredTurns, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored.begin(A)

    queue = handle(monkeypatch, stored, status="ABORTED")

    assert [each["failure"] for each in queue.letters] == [
        {"error": "ABORTED", "cause": "", "executionStatus": "ABORTED"}
    ]
    assert stored.begin(B)


@pytest.mark.parametrize("status", ["RUNNING", "SUCCEEDED"])
def test_an_event_that_comes_after_the_redrive_changes_nothing(
    stored: StoredTurns, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    stored.begin(A)
    before = stored.items()

    queue = handle(monkeypatch, stored, status=status)

    assert (stored.items(), queue.letters) == (before, [])


def test_of_a_turn_that_had_begun_and_was_erased_nothing_is_written_anew(stored: StoredTurns) -> None:
    before, queue = stored.items(), Queue()

    assert (
        record(stored.table, stored.documents, DeadLetters(queue, "https://queue"), failure(stored)) is Recorded.ERASED
    )

    assert (stored.items(), queue.letters) == (before, [])


def test_an_event_that_comes_after_the_commit_changes_nothing(
    stored: StoredTurns, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored.run(A)
    before = stored.items()

    queue = handle(monkeypatch, stored, status="FAILED", error="States.Timeout")

    noted = stored.items().pop(keys.execution_failure(ARN))
    assert int(noted["recorded"]["N"]) == START
    assert (stored.items(), queue.letters) == ({**before, keys.execution_failure(ARN): noted}, [])


def test_a_failed_turn_is_told_by_an_event_and_to_a_caller_who_traced_it_by_one_item(
    stored: StoredTurns, trace_events: list[dict[str, Any]]
) -> None:
    stored.begin(A, trace=True)
    for _ in range(2):
        record(stored.table, stored.documents, DeadLetters(Queue(), "https://queue"), failure(stored))

    event = trace_events[0]
    told = (
        "type",
        "status",
        "error",
        "cause",
        "state",
        "executionStatus",
        "turnId",
        "agentVersion",
        "memoryId",
        "step",
    )
    assert tuple(event[name] for name in told) == (
        *("TURN_FAILED", "FAILED", "ModelsExhausted", "c", "Invoke Model", "FAILED", A, "1", "user-1"),
        0,
    )
    assert len(trace_events) == 2, "the log has it as often as EventBridge says it"
    items = [sk for pk, sk in stored.items() if pk == keys.turn_partition(A) and sk.startswith(keys.TRACE_PREFIX)]
    assert items == ["TRACE#999#6"], "after all steps"


def test_a_refused_turn_is_told_as_refused_and_a_committed_one_not_at_all(
    stored: StoredTurns, trace_events: list[dict[str, Any]]
) -> None:
    stored.run(A)
    trace_events.clear()
    record(stored.table, stored.documents, DeadLetters(Queue(), "https://queue"), failure(stored))
    assert trace_events == []

    refused = failure(stored, B, "SessionBusy", state="Load Memory")
    record(stored.table, stored.documents, DeadLetters(Queue(), "https://queue"), refused)
    (event,) = trace_events
    assert (event["status"], event["error"], event["turnId"], event["agentVersion"]) == (
        "REFUSED",
        "SessionBusy",
        B,
        "",
    )
    assert event["sessionId"] == "s-1"
