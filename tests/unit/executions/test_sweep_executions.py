"""Failures whose event was lost, came late or came twice, beside a sweep: each is recorded, with the real recorders."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import pytest
from botocore.exceptions import ClientError

import record_consolidation_failure
import record_erasure_failure
import record_failure
import sweep_executions
from tests.unit.stored_memory import StoredMemory
from tests.unit.stored_turns import SESSION, START, A, B, C, Interrupted, StoredTurns, die, step, text
from turnwright.executions.recorded_failures import REMEMBERED_DAYS
from turnwright.executions.sweep_executions import EVENT_MS, LISTED_LATE_MS
from turnwright.memory.erasure.erase_memory import Erasure
from turnwright.memory.records.actors import Actors
from turnwright.memory.session_ends.consolidations import Kind
from turnwright.memory.session_ends.segments import Segments, SegmentStatus
from turnwright.sessions.turns import Turns
from turnwright.sessions.values import Status
from turnwright.storage import keys
from turnwright.storage.settings import settings

ACCOUNT = "arn:aws:states:us-east-1:123456789012"
RECORDERS: Mapping[str, ModuleType] = {
    "turns": record_failure,
    "consolidations": record_consolidation_failure,
    "erasures": record_erasure_failure,
}
MINUTE = 60_000


def arn(name: str, machine: str = "turns") -> str:
    return f"{ACCOUNT}:execution:{machine}:{name}"


@dataclass(slots=True)
class StepFunctions:
    """Executions that have ended, in pages of `page`, of which each begins with the last `overlap` entries of the one
    before it. `after_describe` runs when an execution was described, once.
    """

    redrives: dict[str, int] = field(default_factory=dict)
    executions: dict[str, dict[str, Any]] = field(default_factory=dict)
    page: int = 2
    overlap: int = 0
    listed: list[str] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    after_describe: Callable[[], object] = lambda: None

    def end(self, name: str, request: Any, at: int, status: str = "FAILED", machine: str = "turns") -> str:
        self.executions[arn(name, machine)] = {
            "executionArn": arn(name, machine),
            "stateMachineArn": f"{ACCOUNT}:stateMachine:{machine}",
            "name": name,
            "status": status,
            "stopDate": datetime.fromtimestamp(at / 1000, UTC),
            "error": "Broken",
            "cause": "c",
            "input": json.dumps(request),
        }
        return arn(name, machine)

    def redrive(self, name: str) -> None:
        self.executions[arn(name)]["status"] = "RUNNING"
        self.redrives[arn(name)] = self.redrives.get(arn(name), 0) + 1

    def list_executions(self, **given: Any) -> dict[str, Any]:
        """Those that have ended stand by the moment of that, newest first."""
        machine = given["stateMachineArn"].rpartition(":")[2]
        self.listed.append(machine)
        if machine in self.refused:
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "ListExecutions")
        found = [
            each
            for each in self.executions.values()
            if each["status"] == given["statusFilter"] and each["stateMachineArn"] == given["stateMachineArn"]
        ]
        found.sort(key=lambda each: each["stopDate"], reverse=True)
        start = int(given.get("nextToken", 0))
        end = start + min(self.page, given["maxResults"])
        return {"executions": found[start:end], **({"nextToken": str(end - self.overlap)} if end < len(found) else {})}

    def describe_execution(self, *, executionArn: str) -> dict[str, Any]:  # noqa: N803 (Step Functions' name)
        described = {**self.executions[executionArn], "redriveCount": self.redrives.get(executionArn, 0)}
        after, self.after_describe = self.after_describe, lambda: None
        after()
        return described

    def get_execution_history(self, **_: Any) -> dict[str, Any]:
        entered = {"stateEnteredEventDetails": {"name": "Invoke Model"}}
        return {
            "events": [
                {"id": 2, "previousEventId": 1, "type": "TaskFailed"},
                {"id": 1, "previousEventId": 0, "type": "TaskStateEntered", **entered},
            ]
        }


@dataclass(slots=True)
class Lambda:
    """Runs asynchronous invocations at once, or, with `holds`, keeps them. `accepts` are so many that it takes."""

    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    holds: bool = False
    accepts: int = 1000

    def invoke(self, *, FunctionName: str, InvocationType: str, Payload: bytes) -> None:  # noqa: N803
        assert InvocationType == "Event"
        if self.accepts == 0:
            raise ClientError({"Error": {"Code": "TooManyRequestsException", "Message": "no"}}, "Invoke")
        self.accepts -= 1
        self.events.append((FunctionName, json.loads(Payload)))
        if not self.holds:
            self.deliver()

    def deliver(self, times: int = 1) -> None:
        """What was handed over last."""
        function, event = self.events[-1]
        for _ in range(times):
            RECORDERS[function].handler(event, None)


@dataclass(slots=True)
class Context:
    ms: int = 50_000

    def get_remaining_time_in_millis(self) -> int:
        return self.ms


@dataclass(slots=True)
class World:
    """A stack in which turns fail."""

    memory: StoredMemory
    stepfunctions: StepFunctions
    functions: Lambda

    @property
    def stored(self) -> StoredTurns:
        return self.memory.stored

    @property
    def letters(self) -> list[str]:
        """Whose letters there are."""
        ids = ("turnId", "consolidationId", "erasureId")
        return [letter[name] for letter in self.memory.queue.letters for name in ids if name in letter]

    def pass_by(self, ms: int) -> None:
        self.stored.clock.ms += ms

    def sweep(self, context: Context | None = None) -> int:
        lost = sweep_executions.handler({}, context or Context())["lost"]
        assert isinstance(lost, int)
        return lost

    def fail(self, turn_id: str, status: str = "FAILED") -> str:
        request = self.stored.request(turn_id).encode()
        return self.stepfunctions.end(turn_id, request, self.stored.clock.ms, status)

    def deliver(self, execution_arn: str, machine: str = "turns") -> None:
        """The event of EventBridge."""
        RECORDERS[machine].handler({"detail": {"executionArn": execution_arn, "status": "FAILED"}}, None)

    def is_ended(self, turn_id: str = A) -> bool:
        header = self.stored.header(turn_id)
        return header.status is Status.FAILED and self.stored.session().get("leaseOwner") != turn_id


@pytest.fixture
def world(memory: StoredMemory, monkeypatch: pytest.MonkeyPatch) -> World:
    """One whose sweep has run before."""
    stepfunctions, functions = StepFunctions(), Lambda()
    monkeypatch.setattr("turnwright.storage.clients.stepfunctions", lambda: stepfunctions)
    monkeypatch.setattr("turnwright.storage.clients.aws_lambda", lambda _seconds: functions)
    for variable, machine in (("", "turns"), ("CONSOLIDATE_", "consolidations"), ("ERASE_MEMORY_", "erasures")):
        monkeypatch.setenv(f"{variable}STATE_MACHINE_ARN", f"{ACCOUNT}:stateMachine:{machine}")
    for variable, function in (("", "turns"), ("_CONSOLIDATION", "consolidations"), ("_ERASURE", "erasures")):
        monkeypatch.setenv(f"RECORD{variable}_FAILURE_FUNCTION", function)
    settings.cache_clear()
    running = World(memory, stepfunctions, functions)
    assert running.sweep() == 0
    running.pass_by(MINUTE)
    stepfunctions.listed.clear()
    return running


@pytest.mark.parametrize("status", ["FAILED", "TIMED_OUT", "ABORTED"])
def test_a_turn_whose_event_is_lost_is_ended_and_dead_lettered_once(world: World, status: str) -> None:
    world.stored.begin(A)
    world.fail(A, status)
    world.pass_by(EVENT_MS - 1)
    assert world.sweep() == 0, "the event may still come"

    world.pass_by(1)
    assert world.sweep() == 1
    assert world.is_ended()
    assert world.letters == [A]
    assert world.memory.queue.letters[0]["failure"]["executionStatus"] == status
    for _ in range(3):
        world.pass_by(MINUTE)
        assert world.sweep() == 0
    assert world.letters == [A]


def test_what_the_event_has_told_is_not_handed_over(world: World) -> None:
    world.stored.begin(A)
    world.deliver(world.fail(A))
    before = world.stored.items()
    world.pass_by(EVENT_MS)

    assert world.sweep() == 0

    assert world.functions.events == []
    marks = keys.swept_machine(f"{ACCOUNT}:stateMachine:turns")
    assert {key for key, item in world.stored.items().items() if before.get(key) != item} <= {marks}


@pytest.mark.parametrize("times", [1, 2])
def test_an_event_that_comes_behind_the_sweep_records_nothing_again(world: World, times: int) -> None:
    world.stored.begin(A)
    failed = world.fail(A)
    world.pass_by(EVENT_MS)
    world.sweep()
    world.stored.begin(B)
    before = world.stored.items()

    for _ in range(times):
        world.deliver(failed)

    assert (world.stored.items(), world.letters) == (before, [A])


def test_an_event_that_comes_while_the_handed_over_one_is_on_its_way_is_the_one_that_is_recorded(world: World) -> None:
    world.stored.begin(A)
    failed = world.fail(A)
    world.pass_by(EVENT_MS)
    world.functions.holds = True
    assert world.sweep() == 1
    world.pass_by(MINUTE)
    assert world.sweep() == 0, "it is on its way"

    world.deliver(failed)
    world.functions.deliver(times=2)

    assert world.is_ended()
    assert world.letters == [A]


def test_recorders_that_meet_leave_one_ending_and_at_most_a_letter_each(world: World) -> None:
    world.stored.begin(A)
    failed = world.fail(A)
    world.stepfunctions.after_describe = lambda: world.deliver(failed)
    world.deliver(failed)
    assert world.is_ended()
    assert set(world.letters) == {A}
    assert len(world.letters) <= 2
    world.pass_by(EVENT_MS)
    assert world.sweep() == 0


@pytest.mark.parametrize("number", range(11))
def test_two_sweeps_at_once_end_the_turn(world: World, number: int) -> None:
    """The second one comes before the first one's request of that number."""
    world.stored.begin(A)
    world.fail(A)
    world.pass_by(EVENT_MS)
    world.stored.dynamodb.forget()
    world.stored.dynamodb.before[number] = world.sweep

    world.sweep()

    assert world.stored.dynamodb.before == {}
    assert world.is_ended()
    assert world.letters == [A] * len(world.letters)
    assert 1 <= len(world.letters) <= 2
    world.pass_by(MINUTE)
    assert world.sweep() == 0


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(8))
def test_a_sweep_that_dies_anywhere_is_completed_by_the_next(world: World, when: str, number: int) -> None:
    world.stored.begin(A)
    world.fail(A)
    world.pass_by(EVENT_MS)
    world.stored.dynamodb.forget()
    getattr(world.stored.dynamodb, when)[number] = die

    with pytest.raises(Interrupted):
        world.sweep()

    world.stored.dynamodb.forget()
    world.pass_by(MINUTE)
    world.sweep()
    assert world.is_ended()
    assert set(world.letters) == {A}
    world.pass_by(MINUTE)
    assert world.sweep() == 0


def test_a_redriven_turn_runs_on_and_is_ended_when_it_fails_again(world: World) -> None:
    turn = world.stored.begin(A)
    world.deliver(world.fail(A))
    world.stepfunctions.redrive(A)
    Turns(world.stored.table).resume(turn, 1)
    world.pass_by(EVENT_MS)
    assert world.sweep() == 0
    assert world.stored.header(A).status is Status.RUNNING

    world.fail(A)
    world.pass_by(EVENT_MS)
    assert world.sweep() == 1
    assert world.is_ended()
    assert world.letters == [A, A]


def test_a_turn_that_is_redriven_when_its_failure_was_listed_is_left_alone(world: World) -> None:
    turn = world.stored.begin(A)
    world.fail(A)
    world.pass_by(EVENT_MS)
    world.functions.holds = True
    assert world.sweep() == 1
    world.stepfunctions.redrive(A)

    world.functions.deliver()

    assert (world.stored.header(A).status, world.letters) == (Status.RUNNING, [])
    world.stored.journal(turn, step(1, text("Hi")))
    assert world.stored.commit(turn).status is Status.COMMITTED


def test_a_turn_that_is_redriven_when_its_failure_was_read_takes_its_session_back(world: World) -> None:
    turn = world.stored.begin(A)
    world.fail(A)
    world.pass_by(EVENT_MS)
    world.stepfunctions.after_describe = lambda: world.stepfunctions.redrive(A)
    assert world.sweep() == 1
    assert world.is_ended()

    Turns(world.stored.table).resume(turn, 1)
    world.stored.journal(turn, step(1, text("Hi")))

    assert world.stored.commit(turn).status is Status.COMMITTED
    assert world.letters == [A]


def test_a_turn_whose_lease_another_took_is_ended_all_the_same(world: World) -> None:
    world.stored.begin(A)
    world.pass_by(20 * MINUTE)
    turn = world.stored.begin(B)  # nobody has told of the first one's end
    world.fail(A)
    world.pass_by(EVENT_MS)

    assert world.sweep() == 1

    assert world.is_ended()
    assert world.letters == [A]
    world.stored.journal(turn, step(1, text("Hi")))
    assert world.stored.commit(turn).status is Status.COMMITTED


def test_a_turn_that_was_committed_before_its_execution_failed_stays_so(world: World) -> None:
    world.stored.run(A)
    world.fail(A)
    world.pass_by(EVENT_MS)
    assert world.sweep() == 1
    assert (world.stored.header(A).status, world.letters) == (Status.COMMITTED, [])
    world.pass_by(MINUTE)
    assert world.sweep() == 0


@pytest.mark.parametrize("recorded", [False, True])
def test_of_a_turn_that_is_erased_nothing_comes_back(world: World, recorded: bool) -> None:
    world.stored.begin(A)
    failed = world.fail(A)
    if recorded:
        world.deliver(failed)
    erase(world)
    letters = list(world.letters)
    world.pass_by(EVENT_MS)

    world.sweep()
    world.deliver(failed)

    assert world.letters == letters == ([A] if recorded else [])
    left = json.dumps(list(world.stored.items().values()))
    assert SESSION.actor not in left
    assert "Hello" not in left


def erase(world: World) -> None:
    class Stopping:
        def stop_execution(self, **_: str) -> None: ...

    stored = world.stored
    erasure = Erasure(stored.table, stored.documents, Stopping(), "machine", SESSION.store, SESSION.actor, "e-1")
    while not (progress := erasure.run()).done:
        world.pass_by(progress.waitSeconds * 1000)


@pytest.mark.parametrize("kind", list(Kind))
def test_a_consolidation_whose_event_is_lost_is_marked_and_dead_lettered(world: World, kind: Kind) -> None:
    """A digest has no item that would say that it failed."""
    world.memory.say("currency: USD")
    work = world.memory.end()
    request = {**work.encode(), "kind": kind}
    world.stepfunctions.end(work.consolidationId, request, world.stored.clock.ms, machine="consolidations")
    world.pass_by(EVENT_MS)

    assert world.sweep() == 1

    assert world.letters == [work.consolidationId]
    segment = Segments(world.stored.table).read(work.session, work.toEvent)
    assert segment
    assert segment.status is (SegmentStatus.FAILED if kind is Kind.SESSION_END else SegmentStatus.PENDING)
    world.pass_by(MINUTE)
    assert world.sweep() == 0


def test_an_erasure_whose_event_is_lost_is_dead_lettered(world: World) -> None:
    Actors(world.stored.table).require(SESSION.store, SESSION.actor)
    request = {"memoryStore": SESSION.store, "actor": SESSION.actor}
    world.stepfunctions.end("e-1", request, world.stored.clock.ms, "TIMED_OUT", machine="erasures")
    world.pass_by(EVENT_MS)
    assert world.sweep() == 1
    assert world.letters == ["e-1"]
    world.pass_by(MINUTE)
    assert world.sweep() == 0


def test_an_execution_that_is_listed_late_is_found(world: World) -> None:
    for turn_id, session in ((A, "s-1"), (B, "s-2")):
        world.stored.begin(turn_id, session=session)
    at = world.stored.clock.ms
    world.fail(B)
    world.pass_by(EVENT_MS)
    assert world.sweep() == 1
    world.pass_by(LISTED_LATE_MS - MINUTE)
    world.stepfunctions.end(A, world.stored.request(A).encode(), at)
    assert world.sweep() == 1
    assert sorted(world.letters) == [A, B]


def test_what_a_sweep_was_not_there_for_it_finds_when_it_is_back(world: World) -> None:
    world.stored.begin(A)
    world.fail(A)
    world.pass_by(20 * 24 * 60 * MINUTE)
    assert world.sweep() == 1
    assert world.is_ended()


def test_the_first_sweep_of_a_table_leaves_former_failures_alone(world: World) -> None:
    """Nobody noted then which were recorded."""
    world.stored.table.delete_many([keys.swept_machine(f"{ACCOUNT}:stateMachine:turns")])
    world.stored.begin(A)
    world.fail(A)
    world.pass_by(60 * MINUTE)
    assert world.sweep() == 0


def test_a_sweep_reads_a_page_of_each_status_and_writes_nothing_when_nothing_failed(world: World) -> None:
    world.stored.dynamodb.forget()
    world.sweep()
    assert world.stored.dynamodb.operations == ["get_item"] * 3
    assert world.stepfunctions.listed == ["turns"] * 3 + ["consolidations"] * 3 + ["erasures"] * 3


def test_an_execution_that_is_listed_twice_is_handed_over_once(world: World) -> None:
    for turn_id, session in ((A, "s-1"), (B, "s-2"), (C, "s-3")):
        world.stored.begin(turn_id, session=session)
        world.fail(turn_id)
    world.stepfunctions.overlap = 1
    world.pass_by(EVENT_MS)
    assert world.sweep() == 3
    assert sorted(world.letters) == [A, B, C]


def test_a_sweep_pages_no_further_back_than_it_has_looked(world: World) -> None:
    for number in range(40):
        name = f"{number:032x}"
        world.stored.begin(name, session=f"s-{number}")
        world.deliver(world.fail(name))
        world.pass_by(10 * MINUTE)
    world.sweep()
    world.stepfunctions.listed.clear()
    world.pass_by(10 * MINUTE)
    world.sweep()
    assert 3 < world.stepfunctions.listed.count("turns") <= 3 + 5


def test_failures_that_find_no_time_or_no_taker_wait_for_the_next_sweep(world: World) -> None:
    for turn_id, session in ((A, "s-1"), (B, "s-2"), (C, "s-3")):
        world.stored.begin(turn_id, session=session)
        world.fail(turn_id)
    world.pass_by(EVENT_MS)
    with pytest.raises(Exception, match="the next run goes on"):
        world.sweep(Context(ms=4_000))
    world.functions.accepts = 1
    with pytest.raises(ClientError, match="TooManyRequests"):
        world.sweep()
    assert len(world.letters) == 1
    world.functions.accepts = 1000
    world.pass_by(MINUTE)
    assert world.sweep() == 2
    assert sorted(world.letters) == [A, B, C]


def test_what_keeps_one_machine_from_being_swept_does_not_keep_the_others(world: World) -> None:
    Actors(world.stored.table).require(SESSION.store, SESSION.actor)
    request = {"memoryStore": SESSION.store, "actor": SESSION.actor}
    world.stepfunctions.end("e-1", request, world.stored.clock.ms, machine="erasures")
    world.stored.begin(A)
    world.fail(A)
    world.pass_by(EVENT_MS)
    world.stepfunctions.refused = {"turns"}
    with pytest.raises(ClientError, match="AccessDenied"):
        world.sweep()
    assert world.letters == ["e-1"]
    world.stepfunctions.refused = set()
    assert world.sweep() == 1
    assert world.letters == ["e-1", A]


def test_a_recorded_failure_is_remembered_as_long_as_it_is_listed(world: World) -> None:
    world.stored.begin(A)
    failed = world.fail(A)
    world.deliver(failed)
    item = world.stored.table.get(keys.execution_failure(failed))
    assert item
    assert item["expiresAt"] == world.stored.clock.ms // 1000 + REMEMBERED_DAYS * 86_400
    assert item["recorded"] == START + MINUTE


def test_a_recorder_that_comes_late_does_not_take_back_that_a_later_failure_was_recorded(world: World) -> None:
    world.stored.begin(A)
    failed = world.fail(A)

    def fail_again() -> None:
        world.pass_by(MINUTE)
        world.fail(A)
        world.deliver(failed)

    world.stepfunctions.after_describe = fail_again
    world.deliver(failed)
    world.pass_by(EVENT_MS)
    assert world.sweep() == 0
