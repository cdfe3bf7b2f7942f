from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from tests.unit.stored_turns import SESSION, A, B, C, Interrupted, StoredTurns, die, step, text
from turnwright.errors import InvalidRequest, LeaseLost, SessionBusy, TurnAlreadyEnded
from turnwright.sessions.attributes import SESSION_BYTES
from turnwright.sessions.sessions import Sessions, lease_expiry
from turnwright.sessions.turns import Turns
from turnwright.sessions.values import Status, Turn
from turnwright.storage import keys
from turnwright.storage.table import Delete


def test_a_turn_pins_what_it_works_with(stored: StoredTurns) -> None:
    first = stored.run(A, sessionAttributes={"name": "Ann", "city": "Ulm"}).event_id

    turn = stored.begin(B, words="And now?", sessionAttributes={"city": "Bonn"}, trace=True)

    assert turn == Turn(
        turnId=B,
        agentId="BANK",
        agentAliasId="live",
        agentVersion="1",
        memoryStore="BANK-turnwright",
        actor="user-1",
        sessionId="s-1",
        sessionVersion=1,
        historyFrom=first,
        historyTo=first,
        trace=True,
    )
    header = stored.header(B)
    assert (header.status, header.turn) == (Status.RUNNING, turn)
    assert header.session_attributes == {"name": "Ann", "city": "Bonn"}
    assert stored.documents.fetch(header.request)["inputText"] == "And now?"
    assert header.event_id > first
    assert header.fields["expiresAt"] == stored.clock.ms // 1000 + 30 * 86_400


def test_a_repeat_after_a_lost_response_gets_the_same_turn(stored: StoredTurns) -> None:
    stored.run(A)
    first = stored.begin(B)
    header = stored.header(B)
    stored.clock.ms += 5_000

    assert stored.begin(B) == first
    assert stored.header(B) == header
    assert stored.session()["leaseExpiresAt"] == lease_expiry(stored.clock.ms)


def test_a_repeat_gets_the_version_that_was_pinned_though_another_one_was_published(stored: StoredTurns) -> None:
    first = stored.begin(A)
    stored.publish(instruction="Answer questions about bank accounts in few words.")

    assert stored.agent().version == "2"
    assert stored.begin(A) == first


@pytest.mark.parametrize("redriven", [False, True])
def test_a_late_repeat_after_the_commit_changes_nothing_and_holds_no_session(
    stored: StoredTurns, redriven: bool
) -> None:
    stored.run(A)
    before = stored.items()

    with pytest.raises(TurnAlreadyEnded):
        stored.begin(A, redriven=redriven)

    assert stored.items() == before


def test_a_late_repeat_after_the_failure_changes_nothing_and_holds_no_session(stored: StoredTurns) -> None:
    stored.begin(A)
    Turns(stored.table).fail(A, {"error": "E"})
    Sessions(stored.table).release(SESSION, A)
    before = stored.items()

    with pytest.raises(TurnAlreadyEnded):
        stored.begin(A)

    assert stored.items() == before


def test_a_late_repeat_while_another_turn_runs_leaves_both_turns_as_they_are(stored: StoredTurns) -> None:
    stored.begin(A)
    Turns(stored.table).fail(A, {"error": "ModelsExhausted", "cause": "c"})
    Sessions(stored.table).release(SESSION, A)
    stored.begin(B)
    before = stored.items()

    with pytest.raises(SessionBusy):
        stored.begin(A)

    assert stored.items() == before


def test_a_redriven_turn_begins_again_from_what_is_committed_by_then(stored: StoredTurns) -> None:
    stored.begin(A, words="Again")
    Turns(stored.table).fail(A, {"error": "E"})
    Sessions(stored.table).release(SESSION, A)
    stored.run(B, words="Meanwhile")

    turn = stored.begin(A, words="Again", redriven=True)
    stored.journal(turn, step(1, text("Done")))
    stored.commit(turn)

    assert stored.seen(stored.begin(C)) == ["Meanwhile", "Hi", "Again", "Done"]


def test_the_second_turn_of_a_session_is_refused_and_told_so_in_its_header(stored: StoredTurns) -> None:
    stored.begin(A)
    before = stored.items()

    with pytest.raises(SessionBusy):
        stored.begin(B)

    header = stored.header(B)
    assert (header.status, header.failure) == (
        Status.FAILED,
        {"error": "SessionBusy", "cause": f"session s-1 runs turn {A}", "state": "Load Memory"},
    )
    after = stored.items()
    del after[keys.turn_header(B)]
    assert after == before


def test_a_refused_turn_stays_refused_when_its_load_memory_is_repeated_in_a_session_that_is_free_by_then(
    stored: StoredTurns,
) -> None:
    """The caller was told already."""
    running = stored.begin(A)
    with pytest.raises(SessionBusy):
        stored.begin(B)
    stored.journal(running, step(1, text("Hi")))
    stored.commit(running)
    before = stored.items()

    with pytest.raises(TurnAlreadyEnded):
        stored.begin(B)

    assert stored.items() == before


def test_of_two_turns_that_begin_at_once_in_a_session_exactly_one_runs(stored: StoredTurns) -> None:
    start = Barrier(2)

    def begin(turn_id: str) -> type[Exception] | None:
        start.wait()
        try:
            stored.begin(turn_id)
        except SessionBusy as busy:
            return type(busy)
        return None

    with ThreadPoolExecutor(2) as threads:
        outcomes = dict(zip((A, B), threads.map(begin, (A, B)), strict=True))

    winner = stored.session()["leaseOwner"]
    loser = A if winner == B else B
    assert outcomes == {winner: None, loser: SessionBusy}
    assert (stored.header(winner).status, stored.header(loser).status) == (Status.RUNNING, Status.FAILED)


def test_repeats_of_one_beginning_at_once_get_the_same_turn(stored: StoredTurns) -> None:
    start = Barrier(4)

    def begin(_number: int) -> Turn:
        start.wait()
        return stored.begin(A)

    with ThreadPoolExecutor(4) as threads:
        turns = list(threads.map(begin, range(4)))

    assert turns == [stored.header(A).turn] * 4


def test_a_turn_whose_lease_expired_cannot_commit_beside_the_one_that_took_over(stored: StoredTurns) -> None:
    stored.run(C, words="Before")
    old = stored.begin(A, words="Old")
    stored.journal(old, step(1, text("late")))
    stored.clock.ms = lease_expiry(stored.clock.ms) + 1
    new = stored.begin(B, words="New")
    before = stored.items()

    with pytest.raises(LeaseLost):
        stored.commit(old)
    assert stored.items() == before

    stored.journal(new, step(1, text("Hi")))
    stored.commit(new)
    with pytest.raises(LeaseLost):
        stored.commit(old)
    assert stored.seen(stored.begin("d" * 32)) == ["Before", "Hi", "New", "Hi"]


def test_a_turn_that_takes_its_expired_lease_again_cannot_commit_over_what_was_committed_since(
    stored: StoredTurns,
) -> None:
    """A late repeat of its Load Memory finds the session free and takes it."""
    old = stored.begin(A, words="Old")
    stored.journal(old, step(1, text("late")))
    stored.clock.ms = lease_expiry(stored.clock.ms) + 1
    stored.run(B, words="New")
    memory = stored.memory()
    stored.begin(A, words="Old")

    with pytest.raises(LeaseLost):
        stored.commit(old)

    assert stored.memory() == memory


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("request_number", range(5))
@pytest.mark.parametrize("text_bytes", [10, 1_048_576])
def test_a_beginning_that_dies_anywhere_is_completed_by_its_repeat(
    stored: StoredTurns, when: str, request_number: int, text_bytes: int
) -> None:
    stored.run(C, sessionAttributes={"name": "Ann"})
    expected = stored.begin(A, words="x" * text_bytes)
    undisturbed = stored.items()
    stored.table.delete(Delete(keys.turn_header(A)))
    Sessions(stored.table).release(SESSION, A)
    stored.dynamodb.forget()
    getattr(stored.dynamodb, when)[request_number] = die

    with pytest.raises(Interrupted):
        stored.begin(A, words="x" * text_bytes)

    assert stored.begin(A, words="x" * text_bytes) == expected
    assert stored.items() == undisturbed


def test_attributes_that_do_not_fit_the_session_refuse_the_turn_and_leave_the_session_as_it_was(
    stored: StoredTurns,
) -> None:
    half = "x" * (SESSION_BYTES // 2)
    stored.run(A, sessionAttributes={"one": half})
    before = stored.items()

    with pytest.raises(InvalidRequest):
        stored.begin(B, sessionAttributes={"two": half})

    after = stored.items()
    assert stored.header(B).failure["error"] == "InvalidRequest"
    del after[keys.turn_header(B)]
    assert after == before


def test_an_input_of_a_mebibyte_comes_back_whole(stored: StoredTurns) -> None:
    stored.begin(A, words="€" * 349_525)

    header = stored.header(A)
    assert stored.documents.fetch(header.request)["inputText"] == "€" * 349_525
    assert len(header.fields["request"]) < 200


def test_a_caller_may_want_fewer_turns_than_the_agent_shows(stored: StoredTurns) -> None:
    stored.run(A, words="One?", answer="One.")
    stored.run(B, words="Two?", answer="Two.")
    all_of_them = ["One?", "One.", "Two?", "Two."]

    for number, (turns, seen) in enumerate([(0, []), (1, all_of_them[2:]), (2, all_of_them), (1_000, all_of_them)]):
        turn = stored.begin(f"{number:032x}", previousConversationTurnsToInclude=turns)
        assert stored.seen(turn) == seen
        Sessions(stored.table).release(SESSION, turn.turnId)
