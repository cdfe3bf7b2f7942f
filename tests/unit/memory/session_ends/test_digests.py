"""Digests of long sessions: what a commit counts, and when a digest is started."""

import json
from typing import Any

import pytest

from tests.unit.followed_turns import FakeStepFunctions, client_error
from tests.unit.stored_turns import SESSION, A, B, C, Interrupted, StoredTurns, die, step, text
from turnwright.agents.definitions import HistoryWindow
from turnwright.errors import StorageUnavailable
from turnwright.memory.records.actors import Actors
from turnwright.memory.session_ends.digests import start_digest, wanted
from turnwright.memory.session_ends.session_ends import SessionEnds
from turnwright.sessions.sessions import Session
from turnwright.sessions.turns import Turns
from turnwright.sessions.values import Header
from turnwright.storage import keys
from turnwright.storage.table import Update

MACHINE = "arn:aws:states:us-east-1:123456789012:stateMachine:Consolidate"
WINDOW = HistoryWindow(max_turns=20, max_characters=1_000)


@pytest.fixture
def remembering(stored: StoredTurns) -> StoredTurns:
    stored.publish(memoryConfiguration={"history": {"maxTurns": 4}, "namespaces": [{"name": "facts"}]})
    return stored


def counts(stored: StoredTurns) -> tuple[Any, ...]:
    session = stored.session()
    return tuple(session.get(name) for name in ("digestedTo", "undigestedTurns", "undigestedCharacters"))


def digest(stored: StoredTurns, stepfunctions: FakeStepFunctions, header: Header) -> bool:
    return start_digest(stored.table, stepfunctions, MACHINE, stored.agent(), header)


def test_a_commit_counts_the_turns_that_no_digest_covers_without_another_write(remembering: StoredTurns) -> None:
    stored = remembering
    stored.run(A)
    first = counts(stored)
    stored.dynamodb.forget()
    stored.run(B)

    operation, arguments = stored.dynamodb.made[-1]
    assert (operation, len(arguments["TransactItems"])) == ("transact_write_items", 3)
    assert stored.dynamodb.written == 6
    assert first[:2] == ("", 1)
    assert first[2] > 0
    assert counts(stored) == ("", 2, 2 * first[2])


def test_a_repeated_commit_counts_once(remembering: StoredTurns) -> None:
    stored = remembering
    turn = stored.begin(A)
    stored.journal(turn, step(1, text("Hi")))
    stored.dynamodb.forget()
    stored.dynamodb.after[3] = die
    with pytest.raises(Interrupted):
        stored.commit(turn)
    assert stored.dynamodb.operations[-1] == "transact_write_items"

    header = stored.commit(turn)

    assert counts(stored) == ("", 1, header.fields["characters"])


def test_an_agent_that_keeps_nothing_counts_nothing(stored: StoredTurns) -> None:
    stored.run(A)

    assert counts(stored) == (None, None, None)


def test_a_new_session_of_an_ended_id_counts_from_its_own_beginning(remembering: StoredTurns) -> None:
    stored = remembering
    stored.run(A)
    SessionEnds(stored.table).end(SESSION)
    header = stored.run(B)

    assert counts(stored) == (stored.session()["historyFloor"], 1, header.fields["characters"])
    assert stored.session()["historyFloor"] > ""


def test_a_session_that_has_expired_counts_from_its_new_beginning(remembering: StoredTurns) -> None:
    stored = remembering
    stored.run(A)
    stored.clock.ms += 30 * 86_400_000 + 1_000
    header = stored.run(B)

    assert counts(stored) == (stored.session()["historyFloor"], 1, header.fields["characters"])


@pytest.mark.parametrize(
    ("turns", "characters", "last", "expected"),
    [
        (9, 100, 10, False),
        (10, 100, 10, True),
        (11, 100, 10, False),
        (20, 100, 10, True),
        (3, 499, 99, False),
        (3, 500, 100, True),
        (4, 600, 100, False),
        (4, 1_000, 100, True),
        (4, 2_700, 2_000, True),
    ],
)
def test_a_digest_is_due_each_time_a_count_passes_half_the_window(
    turns: int, characters: int, last: int, expected: bool
) -> None:
    session = Session(undigested_turns=turns, undigested_characters=characters)

    assert wanted(session, last, WINDOW) is expected


def test_a_window_of_one_turn_has_a_digest_with_each_turn() -> None:
    assert wanted(Session(undigested_turns=1, undigested_characters=10), 10, HistoryWindow(1, 100_000))


def test_every_second_turn_of_a_window_of_four_starts_a_digest(remembering: StoredTurns) -> None:
    stored, stepfunctions = remembering, FakeStepFunctions()
    started = [digest(stored, stepfunctions, stored.run(f"{number:032x}")) for number in range(5)]

    assert started == [False, True, False, True, False]
    actor = Actors(stored.table).read(SESSION.store, SESSION.actor)
    assert actor is not None
    inputs = [json.loads(execution["input"]) for execution in stepfunctions.started]
    assert inputs[0] == {
        "consolidationId": stepfunctions.started[0]["name"],
        "kind": "DIGEST",
        "memoryStore": SESSION.store,
        "actor": SESSION.actor,
        "sessionId": SESSION.session,
        "fromEvent": "",
        "toEvent": stored.header(f"{1:032x}").event_id,
        "agentId": "BANK",
        "agentVersion": "2",
        "actorEpoch": actor.epoch,
    }
    assert len({execution["name"] for execution in stepfunctions.started}) == 2


def test_a_digest_begins_where_the_last_one_ended(remembering: StoredTurns) -> None:
    stored, stepfunctions = remembering, FakeStepFunctions()
    first = stored.run(A)
    stored.table.update(
        Update(
            keys.session(SESSION),
            "SET digestedTo = :event, undigestedTurns = undigestedTurns - :one",
            values={":event": first.event_id, ":one": 1},
        )
    )
    stored.run(B)

    assert digest(stored, stepfunctions, stored.run(C))
    assert json.loads(stepfunctions.started[0]["input"])["fromEvent"] == first.event_id


def test_a_repeated_write_memory_starts_the_same_digest(remembering: StoredTurns) -> None:
    stored, stepfunctions = remembering, FakeStepFunctions()
    stored.run(A)
    header = stored.run(B)

    assert [digest(stored, stepfunctions, header) for _ in range(2)] == [True, True]
    assert stepfunctions.started[0] == stepfunctions.started[1]


def test_a_write_memory_that_comes_late_starts_no_digest(remembering: StoredTurns) -> None:
    stored, stepfunctions = remembering, FakeStepFunctions()
    stored.run(A)
    second = stored.run(B)
    third = stored.run(C)
    assert not digest(stored, stepfunctions, second)
    SessionEnds(stored.table).end(SESSION)
    assert not digest(stored, stepfunctions, third)

    assert stepfunctions.started == []


def test_a_digest_that_cannot_be_started_costs_the_turn_nothing(remembering: StoredTurns) -> None:
    stored, stepfunctions = remembering, FakeStepFunctions()
    stored.run(A)
    header = stored.run(B)
    stepfunctions.refusal = StorageUnavailable("slow down", throttled=True)

    assert digest(stored, stepfunctions, header) is False
    current = Turns(stored.table).read(B)
    assert current == header


def test_an_execution_that_is_there_already_counts_as_started(remembering: StoredTurns) -> None:
    stored, stepfunctions = remembering, FakeStepFunctions()
    stored.run(A)
    header = stored.run(B)
    stepfunctions.refusal = client_error("ExecutionAlreadyExists", "StartExecution")

    assert digest(stored, stepfunctions, header) is True


def test_an_actor_who_is_being_erased_gets_no_digest(remembering: StoredTurns) -> None:
    stored, stepfunctions = remembering, FakeStepFunctions()
    stored.run(A)
    header = stored.run(B)
    stored.table.update(Update(keys.actor(SESSION.store, SESSION.actor), "SET erasingSince = :now", values={":now": 1}))

    assert digest(stored, stepfunctions, header) is False
    assert stepfunctions.started == []
