from dataclasses import dataclass, field
from typing import Any

import pytest
from botocore.exceptions import ClientError

import sweep_sessions
from tests.unit.stored_memory import ACTOR, STORE, StoredMemory
from tests.unit.stored_turns import SESSION, B
from turnwright.memory.session_ends.segments import SegmentStatus
from turnwright.memory.session_ends.sweep_sessions import LATER_MS, LOOK_AGAIN_MS
from turnwright.storage import keys
from turnwright.storage.keys import SessionId
from turnwright.storage.settings import settings

IDLE_MS = 1_800_000
MACHINE = "arn:aws:states:us-east-1:123456789012:stateMachine:consolidations"


@dataclass(slots=True)
class Machine:
    """Step Functions: the executions by name. `fails` makes every start fail."""

    executions: dict[str, str] = field(default_factory=dict)
    fails: bool = False
    starts: int = 0

    def start_execution(self, **given: str) -> None:
        assert given["stateMachineArn"] == MACHINE
        self.starts += 1
        code = "ServiceUnavailable" if self.fails else "ExecutionAlreadyExists"
        if self.fails or given["name"] in self.executions:
            raise ClientError({"Error": {"Code": code, "Message": "no"}}, "StartExecution")
        self.executions[given["name"]] = given["input"]


@dataclass(slots=True)
class Context:
    """Lambda's context with so much time left."""

    ms: int = 50_000

    def get_remaining_time_in_millis(self) -> int:
        return self.ms


@pytest.fixture
def machine(memory: StoredMemory, monkeypatch: pytest.MonkeyPatch) -> Machine:
    fake = Machine()
    monkeypatch.setattr("turnwright.storage.clients.stepfunctions", lambda: fake)
    monkeypatch.setenv("CONSOLIDATE_STATE_MACHINE_ARN", MACHINE)
    settings.cache_clear()
    return fake


def sweep(context: Context | None = None) -> dict[str, int]:
    return sweep_sessions.handler({}, context or Context())


def due_at(memory: StoredMemory, key: keys.Key) -> int | None:
    item = memory.stored.table.get(key)
    assert item is not None
    return int(item["dueSK"][:16]) if "dueSK" in item else None


def segments(memory: StoredMemory, session: SessionId = SESSION) -> list[Any]:
    first = keys.SEGMENT_PREFIX
    return list(memory.stored.table.query(session.partition, first, first + keys.END))


def test_a_session_that_is_idle_for_too_long_is_ended_once_and_its_consolidation_started(
    memory: StoredMemory, machine: Machine
) -> None:
    memory.say("currency: USD")
    memory.stored.clock.ms += IDLE_MS - 1
    assert sweep() == {"ended": 0, "started": 0, "postponed": 0}
    memory.stored.clock.ms += 1
    assert sweep() == {"ended": 1, "started": 1, "postponed": 0}
    assert sweep() == {"ended": 0, "started": 0, "postponed": 0}
    assert memory.stored.session()["status"] == "ENDED"
    (segment,) = segments(memory)
    assert len(machine.executions) == 1
    assert segment["status"] == SegmentStatus.PENDING


def test_a_session_in_which_a_turn_runs_is_left_alone_and_looked_at_later(
    memory: StoredMemory, machine: Machine
) -> None:
    memory.say("currency: USD")
    turn = memory.stored.begin(B)
    memory.stored.clock.ms += 600_000
    item = keys.session(turn.session)
    memory.stored.table.update(_due_now(memory, item))
    assert sweep() == {"ended": 0, "started": 0, "postponed": 1}
    assert memory.stored.session()["status"] == "OPEN"
    assert due_at(memory, item) == memory.stored.clock.ms + LATER_MS
    assert machine.executions == {}


def _due_now(memory: StoredMemory, key: keys.Key) -> Any:
    from turnwright.storage.table import Update

    due = keys.due(SESSION, memory.stored.clock.ms)
    return Update(key, "SET duePK = :pk, dueSK = :sk", values={":pk": due["duePK"], ":sk": due["dueSK"]})


def test_a_consolidation_that_was_never_started_is_started_by_the_sweep_and_not_each_minute(
    memory: StoredMemory, machine: Machine
) -> None:
    memory.say("currency: USD")
    work = memory.end()
    assert sweep()["started"] == 0, "whoever ended the session has a minute to start it"
    memory.stored.clock.ms += 60_000
    assert sweep() == {"ended": 0, "started": 1, "postponed": 1}
    assert list(machine.executions) == [work.consolidationId]
    assert due_at(memory, keys.segment(work.session, work.toEvent)) == memory.stored.clock.ms + LOOK_AGAIN_MS
    memory.stored.clock.ms += 60_000
    assert sweep()["started"] == 0
    memory.stored.clock.ms += LOOK_AGAIN_MS
    sweep()
    assert (machine.starts, len(machine.executions)) == (2, 1), "it was started again, which is the same execution"
    memory.consolidate(work)
    memory.stored.clock.ms += 2 * LOOK_AGAIN_MS
    sweep()
    assert machine.starts == 2


def test_a_start_that_fails_keeps_nothing_else_from_being_done_and_is_made_up_for(
    memory: StoredMemory, machine: Machine
) -> None:
    memory.say("currency: USD")
    memory.say("currency: USD", session="s-2")
    memory.stored.clock.ms += IDLE_MS
    machine.fails = True
    assert sweep()["ended"] == 2
    assert memory.stored.session()["status"] == "ENDED"
    machine.fails = False
    memory.stored.clock.ms += LOOK_AGAIN_MS
    sweep()
    assert len(machine.executions) == 2


def test_an_item_that_cannot_be_read_stands_in_nobodys_way(memory: StoredMemory, machine: Machine) -> None:
    memory.say("currency: USD")
    broken = keys.session(SessionId(STORE, ACTOR, "broken"))
    due = keys.due(SESSION, 1)
    memory.stored.dynamodb.client.put_item(
        TableName=memory.stored.table.name,
        Item={
            "PK": {"S": broken.pk},
            "SK": {"S": broken.sk},
            "schemaVersion": {"N": "99"},
            "duePK": {"S": due["duePK"]},
            "dueSK": {"S": due["dueSK"]},
        },
    )
    memory.stored.clock.ms += IDLE_MS
    assert sweep()["ended"] == 1
    item = memory.stored.items()[broken]
    assert int(item["dueSK"]["S"][:16]) == memory.stored.clock.ms + LOOK_AGAIN_MS


def test_a_run_ends_before_its_time_does(memory: StoredMemory, machine: Machine) -> None:
    memory.say("currency: USD")
    memory.stored.clock.ms += IDLE_MS
    assert sweep(Context(ms=4_000)) == {"ended": 0, "started": 0, "postponed": 0}
    assert sweep()["ended"] == 1


def test_a_sweep_reads_only_what_is_due(memory: StoredMemory, machine: Machine) -> None:
    for number in range(8):
        memory.say("currency: USD", session=f"s-{number}")
    memory.stored.dynamodb.forget()
    sweep()
    assert memory.stored.dynamodb.operations == ["query"] * keys.DUE_SHARDS
    assert memory.stored.dynamodb.read == 0
