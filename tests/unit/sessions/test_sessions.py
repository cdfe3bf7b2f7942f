from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.stored_turns import SESSION, A, B, C, StoredTurns, step, text
from turnwright.errors import LeaseLost, SessionBusy
from turnwright.memory.session_ends.session_ends import SessionEnds
from turnwright.sessions.sessions import LONGEST_TURN_SECONDS, Session, Sessions, lease_expiry, next_event_id
from turnwright.sessions.turns import Turns
from turnwright.sessions.values import Status

EVENT_IDS = st.builds("{:016d}#{}".format, st.integers(0, 10**15), st.sampled_from(["00000000", "ffffffff"]))
DAY_MS = 86_400_000


def test_a_claim_of_a_new_session_makes_its_item(stored: StoredTurns) -> None:
    session = Sessions(stored.table).claim(SESSION, A)

    now = stored.clock.ms
    expires = now // 1000 + 30 * 86_400
    assert session == Session(lease_owner=A, lease_expires_at=lease_expiry(now), expires_at=expires)
    assert stored.session() == {
        "PK": "SESSION#BANK-turnwright#user-1#s-1",
        "SK": "SESSION",
        "schemaVersion": 1,
        "memoryStore": "BANK-turnwright",
        "actor": "user-1",
        "sessionId": "s-1",
        "status": "OPEN",
        "version": 0,
        "leaseOwner": A,
        "leaseExpiresAt": lease_expiry(now),
        "expiresAt": expires,
        "createdAt": now,
        "ownerPK": "ACTOR#BANK-turnwright#user-1",
        "ownerSK": "SESSION#s-1",
    }


def test_a_lease_outlives_the_longest_turn() -> None:
    assert lease_expiry(0) > LONGEST_TURN_SECONDS * 1000


def test_a_claim_repeated_by_its_turn_takes_the_session_again(stored: StoredTurns) -> None:
    sessions = Sessions(stored.table)

    first = sessions.claim(SESSION, A)
    stored.clock.ms += 5_000

    assert sessions.claim(SESSION, A) == replace(first, lease_expires_at=lease_expiry(stored.clock.ms))


def test_a_claim_of_a_held_session_is_refused_at_once_and_leaves_it_untouched(stored: StoredTurns) -> None:
    sessions = Sessions(stored.table)
    sessions.claim(SESSION, A)
    before = stored.items()
    stored.clock.ms = lease_expiry(stored.clock.ms)

    with pytest.raises(SessionBusy, match=f"session s-1 runs turn {A}"):
        sessions.claim(SESSION, B)

    assert stored.items() == before


def test_of_turns_that_claim_a_session_at_once_exactly_one_wins(stored: StoredTurns) -> None:
    turn_ids = [f"{number:032x}" for number in range(8)]
    start = Barrier(len(turn_ids))

    def claim(turn_id: str) -> str | None:
        start.wait()
        try:
            Sessions(stored.table).claim(SESSION, turn_id)
        except SessionBusy:
            return None
        return turn_id

    with ThreadPoolExecutor(len(turn_ids)) as threads:
        winners = [turn_id for turn_id in threads.map(claim, turn_ids) if turn_id]

    assert winners == [stored.session()["leaseOwner"]]


def test_turns_of_other_sessions_actors_and_stores_do_not_meet(stored: StoredTurns) -> None:
    sessions = Sessions(stored.table)
    others = [SESSION._replace(session="s-2"), SESSION._replace(actor="user-2"), SESSION._replace(store="SHOP")]

    for session_id, turn_id in zip([SESSION, *others], (A, B, C, "d" * 32), strict=True):
        assert sessions.claim(session_id, turn_id).lease_owner == turn_id


def test_an_expired_lease_is_taken_over_and_its_turn_is_no_longer_the_holder(stored: StoredTurns) -> None:
    sessions = Sessions(stored.table)
    sessions.claim(SESSION, A)
    stored.clock.ms = lease_expiry(stored.clock.ms) + 1

    assert sessions.claim(SESSION, B).lease_owner == B
    assert sessions.release(SESSION, A) is False
    assert stored.session()["leaseOwner"] == B


def test_a_session_is_given_back_once_and_only_by_its_holder(stored: StoredTurns) -> None:
    sessions = Sessions(stored.table)

    assert sessions.release(SESSION, A) is False
    assert stored.memory() == {}
    sessions.claim(SESSION, A)
    assert [sessions.release(SESSION, turn_id) for turn_id in (B, A, A)] == [False, True, False]
    assert sessions.claim(SESSION, B).lease_owner == B


@pytest.mark.parametrize("ahead", [-1, 0, 1])
def test_who_looks_and_who_claims_agree_on_when_a_lease_ends(stored: StoredTurns, ahead: int) -> None:
    sessions = Sessions(stored.table)
    held = sessions.claim(SESSION, A)
    stored.clock.ms = held.lease_expires_at + ahead

    busy = held.held_by_another(B, stored.clock.ms)

    assert busy == (ahead <= 0)
    assert held.held_by_another(A, stored.clock.ms) is False
    if busy:
        with pytest.raises(SessionBusy):
            sessions.claim(SESSION, B)
    else:
        assert sessions.claim(SESSION, B).lease_owner == B


@given(EVENT_IDS, st.integers(0, 10**15))
def test_an_event_id_is_later_than_the_last_whatever_the_clock_says(last: str, now: int) -> None:
    event_id = Session(last_event_id=last).new_event_id("0" * 32, now)

    assert event_id > last
    assert len(event_id) == len(last)


def test_event_ids_have_the_form_of_agentcore_memory() -> None:
    assert Session().new_event_id("0123456789abcdef", 1_790_000_000_123) == "0001790000000123#01234567"


@given(EVENT_IDS, st.integers(0, 10**15))
def test_the_next_session_of_an_ended_id_begins_after_the_last_event_and_before_the_next(last: str, now: int) -> None:
    ended = Session(last_event_id=last, ended=True)

    assert last < ended.first_event_id <= ended.new_event_id("0" * 32, now)
    assert next_event_id("") == ""


def test_event_ids_grow_though_the_clock_goes_back(stored: StoredTurns) -> None:
    first = stored.run(A).event_id
    stored.clock.ms -= 3_600_000
    second = stored.run(B).event_id
    stored.clock.ms -= 3_600_000
    third = stored.run(C).event_id

    assert first < second < third
    turn = stored.begin("d" * 32)
    assert (turn.historyFrom, turn.historyTo) == (first, third)


def test_the_next_turn_of_an_ended_session_starts_without_history_and_attributes(stored: StoredTurns) -> None:
    stored.run(A, words="Remember 7", sessionAttributes={"name": "Ann"})
    SessionEnds(stored.table).end(SESSION)

    turn = stored.begin(B)

    assert (stored.seen(turn), stored.header(B).session_attributes) == ([], {})


def test_a_new_session_of_an_ended_id_remembers_only_its_own_turns(stored: StoredTurns) -> None:
    stored.run(A, words="Old")
    SessionEnds(stored.table).end(SESSION)
    stored.clock.ms -= 60_000
    stored.run(B, words="New")

    assert stored.session()["status"] == "OPEN"
    assert stored.seen(stored.begin(C)) == ["New", "Hi"]


def test_a_session_is_still_ended_after_its_next_turn_failed(stored: StoredTurns) -> None:
    stored.run(A, words="Old", sessionAttributes={"name": "Ann"})
    SessionEnds(stored.table).end(SESSION)
    before = stored.memory()
    stored.begin(B)
    Turns(stored.table).fail(B, {"error": "E"})
    Sessions(stored.table).release(SESSION, B)

    assert stored.memory() == before
    turn = stored.begin(C)
    assert (stored.seen(turn), stored.header(C).session_attributes) == ([], {})


def test_a_session_can_be_ended_twice_and_before_its_first_turn(stored: StoredTurns) -> None:
    ends = SessionEnds(stored.table)

    assert ends.end(SESSION) is None
    assert stored.memory() == {}
    stored.run(A)
    assert [ends.end(SESSION), ends.end(SESSION)] == [None, None]
    assert (stored.session()["status"], stored.session()["version"]) == ("ENDED", 3)
    stored.run(B)

    assert stored.seen(stored.begin(C)) == ["Hello", "Hi"]


def test_a_session_in_which_a_turn_runs_cannot_be_ended(stored: StoredTurns) -> None:
    stored.begin(A)
    before = stored.items()

    with pytest.raises(SessionBusy):
        SessionEnds(stored.table).end(SESSION)

    assert stored.items() == before


def test_a_turn_whose_lease_expired_cannot_commit_into_a_session_that_was_ended_since(stored: StoredTurns) -> None:
    turn = stored.begin(A)
    stored.journal(turn, step(1, text("late")))
    stored.clock.ms = lease_expiry(stored.clock.ms) + 1
    SessionEnds(stored.table).end(SESSION)
    before = stored.items()

    with pytest.raises(LeaseLost):
        stored.commit(turn)

    assert stored.items() == before


def test_a_redrive_does_not_bring_back_a_session_that_was_ended_since(stored: StoredTurns) -> None:
    stored.run(A, words="Old")
    turn = stored.begin(B)
    Turns(stored.table).fail(B, {"error": "E"})
    Sessions(stored.table).release(SESSION, B)
    SessionEnds(stored.table).end(SESSION)

    with pytest.raises(LeaseLost):
        Turns(stored.table).resume(turn, 1)

    assert stored.header(B).status is Status.FAILED
    assert stored.seen(stored.begin(C)) == []


def test_a_session_does_not_expire_while_a_turn_runs_in_it(stored: StoredTurns) -> None:
    """DynamoDB deletes an item any time after its expiresAt, and a turn that lost its session's item cannot commit."""
    stored.run(A)
    assert stored.session()["expiresAt"] == stored.clock.ms // 1000 + 7 * 86_400
    stored.clock.ms += 7 * DAY_MS - 1_000

    stored.begin(B)

    assert stored.session()["expiresAt"] * 1000 > lease_expiry(stored.clock.ms)


def test_a_claim_does_not_change_when_a_session_expires_that_lives_long_enough(stored: StoredTurns) -> None:
    stored.run(A)
    before = stored.session()["expiresAt"]
    stored.clock.ms += DAY_MS

    stored.begin(B)

    assert stored.session()["expiresAt"] == before


def test_an_expired_turn_is_not_remembered_in_a_session_that_lives_on(stored: StoredTurns) -> None:
    stored.run(A, words="Old", sessionAttributes={"name": "Ann"})
    stored.clock.ms += 4 * DAY_MS
    stored.run(B, words="Newer")
    stored.clock.ms += 3 * DAY_MS + 1_000

    turn = stored.begin(C)

    assert (stored.seen(turn), stored.header(C).session_attributes) == (["Newer", "Hi"], {"name": "Ann"})


def test_what_has_expired_is_not_remembered_though_dynamodb_has_not_deleted_it_yet(stored: StoredTurns) -> None:
    """TTL deletes within days, not at once."""
    stored.run(A, words="Old", sessionAttributes={"name": "Ann"})
    stored.clock.ms += 7 * DAY_MS + 1_000

    turn = stored.begin(B)

    assert (stored.seen(turn), stored.header(B).session_attributes) == ([], {})
