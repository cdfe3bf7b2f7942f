"""How sessions end: once, with one segment, whoever ends them and whatever dies in between."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from tests.unit.stored_turns import SESSION, A, B, C, Interrupted, StoredTurns, die, step, text
from turnwright.errors import ActorErased, LeaseLost, SessionBusy, TurnAlreadyEnded
from turnwright.memory.records.actors import Actors
from turnwright.memory.session_ends.segments import START_AGAIN_MS, Segment, Segments, SegmentStatus, done
from turnwright.memory.session_ends.session_ends import SessionEnds
from turnwright.sessions.sessions import Session, Sessions, lease_expiry
from turnwright.sessions.turns import Turns
from turnwright.sessions.values import Status
from turnwright.storage import keys
from turnwright.storage.keys import NO_ACTOR
from turnwright.storage.table import Put, Table, TransactionRefused, Update

IDLE_MS = 600_000
MEMORY: dict[str, Any] = {
    "storageDays": 7,
    "history": {"maxTurns": 3, "maxCharacters": 2_000},
    "idleSessionTTLInSeconds": IDLE_MS // 1000,
    "namespaces": [{"name": "facts"}],
}


@pytest.fixture
def remembering(stored: StoredTurns) -> StoredTurns:
    """The same, with an agent whose ended sessions leave something behind."""
    stored.publish(memoryConfiguration=MEMORY)
    stored.dynamodb.forget()
    return stored


def segments(stored: StoredTurns) -> list[Segment]:
    prefix = keys.SEGMENT_PREFIX
    return [Segment.decode(item) for item in stored.table.query(SESSION.partition, prefix, prefix + keys.END)]


def due(stored: StoredTurns, until: int = 10**15) -> list[tuple[str, str]]:
    """The sort keys of what is due by then, in the table and in the index."""
    found = []
    for shard in range(keys.DUE_SHARDS):
        partition = keys.due_partition(shard)
        found += [(key.sk, at) for key, at in stored.table.query_index(keys.DUE_INDEX, partition, "0", f"{until:016d}")]
    return found


def test_an_ended_session_leaves_one_segment_of_all_its_events(remembering: StoredTurns) -> None:
    stored = remembering
    stored.run(A)
    last = stored.run(B).event_id
    stored.clock.ms += 5_000
    version = stored.session()["version"]

    segment = SessionEnds(stored.table).end(SESSION)

    now = stored.clock.ms
    actor = Actors(stored.table).read(SESSION.store, SESSION.actor)
    assert actor is not None
    assert segment == Segment(
        session=SESSION,
        from_event="",
        to_event=last,
        ended_at=now,
        agent_id="BANK",
        agent_version="2",
        actor_epoch=actor.epoch,
        expires_at=now // 1000 + 30 * 86_400,
    )
    assert segments(stored) == [segment]
    session = stored.session()
    assert (session["status"], session["version"], session["historyFloor"]) == ("ENDED", version + 1, f"{now:016d}")
    assert session.keys().isdisjoint({"duePK", "digestedTo", "undigestedTurns", "undigestedCharacters"})
    assert due(stored) == [(segment.key.sk, f"{now + START_AGAIN_MS:016d}#{SESSION.partition}")]


def test_a_session_is_due_when_it_will_have_been_idle_for_too_long(remembering: StoredTurns) -> None:
    remembering.run(A)

    assert due(remembering) == [("SESSION", f"{remembering.clock.ms + IDLE_MS:016d}#{SESSION.partition}")]
    remembering.clock.ms += 5_000
    remembering.run(B)
    assert due(remembering) == [("SESSION", f"{remembering.clock.ms + IDLE_MS:016d}#{SESSION.partition}")]


def test_the_next_session_of_the_id_has_a_segment_of_its_own(remembering: StoredTurns) -> None:
    stored = remembering
    stored.run(A)
    first = SessionEnds(stored.table).end(SESSION)
    last = stored.run(B).event_id
    second = SessionEnds(stored.table).end(SESSION)

    assert first is not None
    assert second is not None
    assert first.to_event < second.from_event < second.to_event == last
    assert first.consolidation.consolidationId != second.consolidation.consolidationId


def test_a_session_that_is_ended_again_leaves_nothing_more(remembering: StoredTurns) -> None:
    remembering.run(A)

    first = SessionEnds(remembering.table).end(SESSION)

    assert SessionEnds(remembering.table).end(SESSION) is None
    assert segments(remembering) == [first]


def test_of_ends_at_once_one_writes_the_segment(remembering: StoredTurns) -> None:
    stored = remembering
    stored.run(A)
    start = Barrier(2)
    stored.dynamodb.forget()

    def end(_: int) -> Segment | None:
        start.wait()
        return SessionEnds(stored.table).end(SESSION)

    with ThreadPoolExecutor(2) as threads:
        ended = list(threads.map(end, range(2)))

    assert [segment for segment in ended if segment] == segments(stored)
    assert len(segments(stored)) == 1


def test_an_end_that_sees_another_one_come_first_changes_only_the_version(remembering: StoredTurns) -> None:
    """Both read the open session; the second one's transaction is refused, and it looks again."""
    stored = remembering
    stored.run(A)
    stored.dynamodb.forget()
    others: list[Segment | None] = []
    other = Table(stored.dynamodb.client, stored.table.name)
    stored.dynamodb.before[2] = lambda: others.append(SessionEnds(other).end(SESSION))

    assert SessionEnds(stored.table).end(SESSION) is None

    assert stored.dynamodb.operations[2] == "transact_write_items"
    assert others == segments(stored)
    assert len(others) == 1


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("request_number", range(3))
def test_an_end_that_dies_anywhere_is_all_or_nothing_and_completed_by_its_repeat(
    remembering: StoredTurns, when: str, request_number: int
) -> None:
    stored = remembering
    stored.run(A)
    before = stored.memory()
    stored.dynamodb.forget()
    getattr(stored.dynamodb, when)[request_number] = die

    with pytest.raises(Interrupted):
        SessionEnds(stored.table).end(SESSION)

    assert len(segments(stored)) == ((request_number, when) == (2, "after"))
    if not segments(stored):
        assert stored.memory() == before
    SessionEnds(stored.table).end(SESSION)
    assert len(segments(stored)) == 1
    assert len(due(stored)) == 1, "the segment, which the sweep starts if whoever ended the session died before that"


def test_a_session_cannot_end_between_a_turns_claim_and_its_commit(remembering: StoredTurns) -> None:
    stored = remembering
    stored.run(A)
    turn = stored.begin(B)
    stored.journal(turn, step(1, text("Hi")))

    with pytest.raises(SessionBusy):
        SessionEnds(stored.table).end(SESSION)

    assert stored.commit(turn).status is Status.COMMITTED
    assert segments(stored) == []


def test_a_turn_that_claims_the_session_while_it_is_being_ended_is_not_disturbed(remembering: StoredTurns) -> None:
    stored = remembering
    stored.run(A)
    stored.dynamodb.forget()
    other = Table(stored.dynamodb.client, stored.table.name)
    stored.dynamodb.before[2] = lambda: Sessions(other).claim(SESSION, B)

    with pytest.raises(SessionBusy, match=B):
        SessionEnds(stored.table).end(SESSION)

    assert segments(stored) == []
    assert stored.session()["status"] == "OPEN"


def test_an_event_that_comes_while_the_session_is_being_ended_is_in_its_segment(remembering: StoredTurns) -> None:
    """CreateEvent does not change the version."""
    stored = remembering
    event_id = stored.run(A).event_id
    later = f"{stored.clock.ms + 5:016d}#eeeeeeee"
    stored.dynamodb.forget()
    other = Table(stored.dynamodb.client, stored.table.name)
    stored.dynamodb.before[2] = lambda: other.update(
        Update(keys.session(SESSION), "SET lastEventId = :event", values={":event": later})
    )

    segment = SessionEnds(stored.table).end(SESSION)

    assert event_id < later
    assert segment is not None
    assert segment.to_event == later


def test_a_late_commit_into_an_ended_session_is_refused(remembering: StoredTurns) -> None:
    stored = remembering
    stored.run(A)
    turn = stored.begin(B)
    stored.journal(turn, step(1, text("late")))
    stored.clock.ms = lease_expiry(stored.clock.ms) + 1
    SessionEnds(stored.table).end(SESSION)
    before = stored.items()

    with pytest.raises(LeaseLost):
        stored.commit(turn)

    assert stored.items() == before


def test_an_agent_that_keeps_nothing_leaves_no_segment(stored: StoredTurns) -> None:
    stored.run(A)

    assert due(stored) == []
    assert SessionEnds(stored.table).end(SESSION) is None
    assert segments(stored) == []


def test_a_session_without_an_actor_leaves_no_segment_and_is_never_due(remembering: StoredTurns) -> None:
    session_id = SESSION._replace(actor=NO_ACTOR)
    Sessions(remembering.table).claim(session_id, A)
    remembering.table.update(
        Update(
            keys.session(session_id),
            "SET lastEventId = :event, agentId = :agent, agentVersion = :version REMOVE leaseOwner",
            values={":event": f"{remembering.clock.ms:016d}#aaaaaaaa", ":agent": "BANK", ":version": "2"},
        )
    )

    assert SessionEnds(remembering.table).end(session_id) is None
    assert remembering.session(session_id)["status"] == "ENDED"
    assert due(remembering) == []


# ---- Idle sessions ----


def test_a_turn_in_a_session_that_was_idle_for_too_long_starts_a_new_one(remembering: StoredTurns) -> None:
    stored = remembering
    last = stored.run(A, words="Old", sessionAttributes={"name": "Ann"}).event_id
    stored.clock.ms += IDLE_MS

    turn = stored.begin(B)

    assert (stored.seen(turn), stored.header(B).session_attributes) == ([], {})
    assert [segment.to_event for segment in segments(stored)] == [last]
    stored.journal(turn, step(1, text("New answer")))
    stored.commit(turn)
    assert stored.seen(stored.begin(C)) == ["Hello", "New answer"]


def test_a_turn_just_before_the_session_is_idle_goes_on_with_it(remembering: StoredTurns) -> None:
    stored = remembering
    stored.run(A, words="Old")
    stored.clock.ms += IDLE_MS - 1

    assert stored.seen(stored.begin(B)) == ["Old", "Hi"]
    assert segments(stored) == []


def test_a_repeat_of_a_beginning_does_not_end_the_session_that_the_turn_runs_in(remembering: StoredTurns) -> None:
    """Load Memory is retried, and meanwhile the session's time has come."""
    stored = remembering
    stored.run(A, words="Old")
    stored.clock.ms += IDLE_MS - 1
    turn = stored.begin(B)
    stored.clock.ms += 5_000

    assert stored.begin(B) == turn
    stored.journal(turn, step(1, text("Hi again")))
    assert stored.commit(turn).status is Status.COMMITTED
    assert segments(stored) == []
    assert stored.seen(stored.begin(C)) == ["Old", "Hi", "Hello", "Hi again"]


def test_a_redriven_turn_begins_anew_in_a_session_that_was_idle_for_too_long(remembering: StoredTurns) -> None:
    stored = remembering
    stored.run(A, words="Old")
    stored.begin(B)
    Turns(stored.table).fail(B, {"error": "E"})
    Sessions(stored.table).release(SESSION, B)
    stored.clock.ms += IDLE_MS

    turn = stored.begin(B, redriven=True)

    assert stored.seen(turn) == []
    stored.journal(turn, step(1, text("Hi")))
    assert stored.commit(turn).status is Status.COMMITTED
    assert len(segments(stored)) == 1


def test_a_session_without_an_actor_is_idle_too(stored: StoredTurns) -> None:
    now = stored.clock.ms
    session = Session(version=1, active_at=now - IDLE_MS)

    assert session.idle(now, IDLE_MS // 1000)
    assert not session.idle(now, IDLE_MS // 1000 + 1)
    assert not session.idle(now, None)
    assert not Session().idle(now, 1)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("request_number", range(9))
def test_a_beginning_in_an_idle_session_that_dies_anywhere_is_completed_by_its_repeat(
    remembering: StoredTurns, when: str, request_number: int
) -> None:
    stored = remembering
    last = stored.run(A, words="Old").event_id
    stored.clock.ms += IDLE_MS
    stored.dynamodb.forget()
    getattr(stored.dynamodb, when)[request_number] = die
    with pytest.raises(Interrupted):
        stored.begin(B)

    turn = stored.begin(B)

    assert stored.seen(turn) == []
    assert [segment.to_event for segment in segments(stored)] == [last]
    assert stored.session()["leaseOwner"] == B
    stored.journal(turn, step(1, text("New")))
    assert stored.commit(turn).status is Status.COMMITTED


def test_beginnings_of_one_turn_at_once_end_the_idle_session_once(remembering: StoredTurns) -> None:
    stored = remembering
    stored.run(A)
    stored.clock.ms += IDLE_MS
    session = Sessions(stored.table).claim(SESSION, B)

    first = SessionEnds(stored.table).end_idle(SESSION, B, session)
    second = SessionEnds(stored.table).end_idle(SESSION, B, session)

    assert (first.version, first.ended, first.first_event_id) == (second.version, second.ended, second.first_event_id)
    assert len(segments(stored)) == 1


def test_a_session_is_ended_for_being_due_only_if_it_still_is(remembering: StoredTurns) -> None:
    stored = remembering
    stored.run(A)
    ends = SessionEnds(stored.table)

    assert ends.end(SESSION, due_by=stored.clock.ms + IDLE_MS - 1) is None
    assert stored.session()["status"] == "OPEN"
    assert ends.end(SESSION, due_by=stored.clock.ms + IDLE_MS) is not None
    assert ends.end(SESSION, due_by=stored.clock.ms + IDLE_MS) is None
    assert len(segments(stored)) == 1


# ---- Actors ----


def erase(stored: StoredTurns, actor: str = SESSION.actor) -> None:
    stored.table.update(
        Update(keys.actor(SESSION.store, actor), "SET erasingSince = :now", values={":now": stored.clock.ms})
    )


def test_an_actor_comes_to_be_with_its_first_turn_and_costs_one_write(stored: StoredTurns) -> None:
    written = []
    for turn_id in (A, B):
        stored.dynamodb.forget()
        stored.run(turn_id)
        written.append(stored.dynamodb.written)

    assert [count - written[1] for count in written] == [1, 0]
    actor = Actors(stored.table).read(SESSION.store, SESSION.actor)
    assert actor is not None
    assert not actor.erasing


def test_a_turn_of_an_actor_who_is_being_erased_is_refused_and_leaves_no_session(stored: StoredTurns) -> None:
    Actors(stored.table).require(SESSION.store, SESSION.actor)
    erase(stored)

    with pytest.raises(ActorErased):
        stored.begin(A)

    assert stored.memory() == {}
    assert stored.header(A).failure["error"] == "ActorErased"
    with pytest.raises(ActorErased):
        stored.begin(A)
    assert stored.memory() == {}


def test_an_erasure_that_begins_while_a_turn_claims_its_session_is_seen_by_the_turn(stored: StoredTurns) -> None:
    stored.run(A)
    before = stored.memory(), stored.session()
    stored.dynamodb.forget()
    stored.dynamodb.after[1] = lambda: erase_unnoticed(stored)

    with pytest.raises(ActorErased):
        stored.begin(B)

    assert (stored.memory(), stored.session()) == before, "what was committed is the erasure's to remove"


def erase_unnoticed(stored: StoredTurns) -> None:
    other = Table(stored.dynamodb.client, stored.table.name)
    other.update(Update(keys.actor(SESSION.store, SESSION.actor), "SET erasingSince = :now", values={":now": 1}))


def test_an_end_while_the_actor_is_being_erased_leaves_no_segment(remembering: StoredTurns) -> None:
    remembering.run(A)
    erase(remembering)

    assert SessionEnds(remembering.table).end(SESSION) is None
    assert segments(remembering) == []


def test_an_erasure_that_begins_while_a_session_is_being_ended_gets_no_segment_to_miss(
    remembering: StoredTurns,
) -> None:
    remembering.run(A)
    remembering.dynamodb.forget()
    remembering.dynamodb.before[2] = lambda: erase_unnoticed(remembering)

    assert SessionEnds(remembering.table).end(SESSION) is None

    assert segments(remembering) == []
    assert remembering.session()["status"] == "ENDED"


def test_a_late_repeat_of_a_committed_turn_ends_an_idle_session_but_holds_nothing(remembering: StoredTurns) -> None:
    stored = remembering
    stored.run(A)
    stored.clock.ms += IDLE_MS

    with pytest.raises(TurnAlreadyEnded):
        stored.begin(A)

    assert len(segments(stored)) == 1
    assert "leaseOwner" not in stored.session()


# ---- Segments ----


def test_a_segment_is_done_once(remembering: StoredTurns) -> None:
    stored = remembering
    stored.run(A)
    segment = SessionEnds(stored.table).end(SESSION)
    assert segment is not None

    stored.table.transact([done(SESSION, segment.to_event)])

    assert segments(stored)[0].status is SegmentStatus.DONE
    assert due(stored) == []
    with pytest.raises(TransactionRefused):
        stored.table.transact([done(SESSION, segment.to_event)])
    assert Segments(stored.table).fail(SESSION, segment.to_event) is False


def test_a_failed_segment_is_not_started_again_by_itself_but_may_still_be_done(remembering: StoredTurns) -> None:
    stored = remembering
    stored.run(A)
    segment = SessionEnds(stored.table).end(SESSION)
    assert segment is not None

    assert [Segments(stored.table).fail(SESSION, segment.to_event) for _ in range(2)] == [True, False]
    assert due(stored) == []
    stored.table.transact([done(SESSION, segment.to_event)])

    found = Segments(stored.table).read(SESSION, segment.to_event)
    assert found is not None
    assert found.status is SegmentStatus.DONE


def test_what_was_not_there_is_not_failed(stored: StoredTurns) -> None:
    assert Segments(stored.table).fail(SESSION, "0001790000000000#aaaaaaaa") is False
    assert Segments(stored.table).read(SESSION, "0001790000000000#aaaaaaaa") is None
    assert stored.memory() == {}


def test_a_failed_turn_is_not_redriven_into_a_session_that_was_idle_for_too_long(remembering: StoredTurns) -> None:
    stored = remembering
    stored.run(A)
    turn = stored.begin(B)
    Turns(stored.table).fail(B, {"error": "E"})
    Sessions(stored.table).release(SESSION, B)
    stored.clock.ms += IDLE_MS
    SessionEnds(stored.table).end(SESSION, due_by=stored.clock.ms)

    with pytest.raises(LeaseLost):
        Turns(stored.table).resume(turn, 1)


def test_a_store_without_an_agent_ends_sessions_by_its_own_configuration(stored: StoredTurns) -> None:
    """Sessions that only CreateEvent has written."""
    Actors(stored.table).require(SESSION.store, SESSION.actor)
    Sessions(stored.table).claim(SESSION, A)
    event_id = f"{stored.clock.ms:016d}#aaaaaaaa"
    stored.table.update(
        Update(keys.session(SESSION), "SET lastEventId = :e REMOVE leaseOwner", values={":e": event_id})
    )
    stored.table.put(Put(keys.store(SESSION.store), {"memoryStore": SESSION.store, "summarizes": True}))

    segment = SessionEnds(stored.table).end(SESSION)

    assert segment is not None
    assert (segment.agent_id, segment.agent_version, segment.to_event) == ("", "", event_id)
