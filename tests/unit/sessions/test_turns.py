from contextlib import suppress

import pytest

from tests.unit.stored_turns import SESSION, A, B, StoredTurns, step, text
from turnwright.errors import LeaseLost, SessionBusy, TurnAlreadyEnded
from turnwright.sessions.sessions import Sessions, lease_expiry
from turnwright.sessions.turns import Beginning, Turns
from turnwright.sessions.values import Status, Turn
from turnwright.storage import keys
from turnwright.storage.table import Delete


def failed(stored: StoredTurns, turn_id: str) -> Turn:
    """A turn that began, failed, and gave its session back."""
    turn = stored.begin(turn_id)
    Turns(stored.table).fail(turn_id, {"error": "E", "cause": "c"})
    Sessions(stored.table).release(SESSION, turn_id)
    return turn


def beginning(turn: Turn) -> Beginning:
    return Beginning(turn, "0000000000000001#aaaaaaaa", "", {"inline": {"inputText": "x"}}, {}, "arn", "caller")


def test_a_turn_travels_through_state_and_its_header_unchanged(stored: StoredTurns) -> None:
    turn = stored.begin(A, trace=True)

    assert Turn.decode(turn.encode()) == turn
    assert stored.header(A).turn == turn


def test_a_failure_is_recorded_also_for_a_turn_that_never_wrote_a_header(stored: StoredTurns) -> None:
    assert Turns(stored.table).fail(A, {"error": "E", "cause": "c"}) is True

    header = stored.header(A)
    assert (header.status, header.failure) == (Status.FAILED, {"error": "E", "cause": "c"})
    assert header.fields["expiresAt"] == stored.clock.ms // 1000 + 30 * 86_400


def test_a_committed_turn_does_not_fail_any_more(stored: StoredTurns) -> None:
    stored.run(A)
    before = stored.items()

    assert Turns(stored.table).fail(A, {"error": "E"}) is False
    assert stored.items() == before


def test_a_failed_turn_begins_again_only_when_it_is_redriven(stored: StoredTurns) -> None:
    turn = failed(stored, A)
    with pytest.raises(TurnAlreadyEnded):
        Turns(stored.table).begin(beginning(turn), redrive=0)
    assert stored.header(A).status is Status.FAILED

    begun = Turns(stored.table).begin(beginning(turn), redrive=1)

    assert begun.status is Status.RUNNING
    assert "failure" not in stored.header(A).fields
    assert stored.header(A).fields.items() >= begun.fields.items()


def test_a_redriven_beginning_that_is_overtaken_by_its_own_repeat_does_not_undo_the_commit(stored: StoredTurns) -> None:
    """Two deliveries of Load Memory: one stalls after it saw the failed turn, and the other's turn is committed."""
    failed(stored, A)

    def overtake() -> None:
        turn = stored.begin(A, redriven=True)
        stored.journal(turn, step(1, text("Hi")))
        stored.commit(turn)

    turn = stored.header(A).turn
    stored.dynamodb.forget()
    stored.dynamodb.before[1] = overtake
    with pytest.raises(TurnAlreadyEnded):
        Turns(stored.table).begin(beginning(turn), redrive=1)

    assert stored.header(A).status is Status.COMMITTED


def test_a_redriven_turn_takes_its_session_back(stored: StoredTurns) -> None:
    turn = failed(stored, A)
    stored.clock.ms += 60_000

    Turns(stored.table).resume(turn, 1)

    header = stored.header(A)
    assert (header.status, "failure" in header.fields, "endedAt" in header.fields) == (Status.RUNNING, False, False)
    assert stored.session()["leaseOwner"] == A
    assert stored.session()["leaseExpiresAt"] == lease_expiry(stored.clock.ms)


def test_a_redriven_turn_that_resumed_can_be_committed(stored: StoredTurns) -> None:
    turn = failed(stored, A)
    Turns(stored.table).resume(turn, 1)
    stored.journal(turn, step(1, text("at last")))

    assert stored.commit(turn).status is Status.COMMITTED
    assert stored.seen(stored.begin(B)) == ["Hello", "at last"]


def test_resuming_is_repeated_by_every_state_of_a_redriven_turn(stored: StoredTurns) -> None:
    turn = failed(stored, A)

    for _ in range(3):
        Turns(stored.table).resume(turn, 1)
        stored.clock.ms += 1_000

    assert stored.header(A).status is Status.RUNNING
    assert stored.session()["leaseOwner"] == A


def test_a_turn_whose_failure_was_not_recorded_before_its_redrive_keeps_its_session_for_the_whole_of_it(
    stored: StoredTurns,
) -> None:
    """The execution timed out after 900 s and was redriven at once: its lease would end a minute later."""
    turn = stored.begin(A)
    stored.clock.ms += 900_000

    Turns(stored.table).resume(turn, 1)

    assert stored.session()["leaseExpiresAt"] == lease_expiry(stored.clock.ms)


def test_a_late_record_of_the_first_failure_does_not_cost_a_redriven_turn_its_session(stored: StoredTurns) -> None:
    """Record Failure saw the failed execution, stalled, and went on between two steps of the redrive."""
    turn = failed(stored, A)
    turns = Turns(stored.table)
    turns.fail(A, {"error": "E"})
    turns.resume(turn, 1)
    Sessions(stored.table).release(SESSION, A)

    turns.resume(turn, 1)

    stored.journal(turn, step(1, text("at last")))
    assert stored.commit(turn).status is Status.COMMITTED


def test_a_redrive_waits_for_nobody_when_another_turn_runs(stored: StoredTurns) -> None:
    turn = failed(stored, A)
    stored.begin(B)
    before = stored.items()

    with pytest.raises(SessionBusy):
        Turns(stored.table).resume(turn, 1)

    after = stored.items()
    assert after[keys.turn_header(A)].pop("redrive") == {"N": "1"}
    assert after == before


def test_a_redrive_is_refused_when_the_session_went_on(stored: StoredTurns) -> None:
    turn = failed(stored, A)
    stored.run(B)
    before = stored.items()

    with pytest.raises(LeaseLost):
        Turns(stored.table).resume(turn, 1)

    after = stored.items()
    assert after[keys.turn_header(A)].pop("redrive") == {"N": "1"}
    assert after == before


def test_a_redrive_after_another_turn_failed_too_goes_on(stored: StoredTurns) -> None:
    turn = failed(stored, A)
    failed(stored, B)

    Turns(stored.table).resume(turn, 1)

    assert stored.session()["leaseOwner"] == A


def test_a_redrive_of_a_session_that_is_gone_is_refused(stored: StoredTurns) -> None:
    turn = failed(stored, A)
    stored.table.delete(Delete(keys.session(SESSION)))

    with pytest.raises(LeaseLost):
        Turns(stored.table).resume(turn, 1)

    assert stored.memory() == {}


@pytest.mark.parametrize("redriven_after", ["commit", "expiry of its items"])
def test_resuming_a_turn_that_has_nothing_to_resume_writes_nothing(stored: StoredTurns, redriven_after: str) -> None:
    stored.run(A)
    turn = stored.header(A).turn
    if redriven_after != "commit":
        stored.table.delete(Delete(keys.turn_header(A)))
    before = stored.items()

    Turns(stored.table).resume(turn, 1)

    assert stored.items() == before


@pytest.mark.parametrize("request_number", [1, 2])
def test_resuming_that_stalls_while_its_repeat_commits_does_not_undo_the_commit(
    stored: StoredTurns, request_number: int
) -> None:
    turn = failed(stored, A)

    def overtake() -> None:
        Turns(stored.table).resume(turn, 1)
        stored.journal(turn, step(1, text("Hi")))
        stored.commit(turn)

    stored.dynamodb.forget()
    stored.dynamodb.before[request_number] = overtake
    with suppress(LeaseLost):
        Turns(stored.table).resume(turn, 1)

    assert stored.header(A).status is Status.COMMITTED
    assert "leaseOwner" not in stored.session()
