"""How a session ends: when it is told to, or when nothing has happened in it for as long as its configuration says.

The end is one transaction: the session is ENDED, its history begins behind all events so far, and, if an ended session
leaves something behind, those events are a segment that waits for its consolidation (`segments.py`).
"""

from dataclasses import replace

from turnwright.errors import CommitConflict, SessionBusy
from turnwright.memory.records.actors import Actor, Actors
from turnwright.memory.records.store_configuration import configuration_of
from turnwright.memory.session_ends.segments import Segment
from turnwright.sessions.sessions import FREE_SESSION, Session, Sessions
from turnwright.storage import keys
from turnwright.storage.clock import expiry, now_ms
from turnwright.storage.keys import NO_ACTOR, SessionId
from turnwright.storage.table import Table, TransactionRefused, Update, Write

SEGMENT_DAYS = 30
"""How long a segment is kept at least: a failed consolidation can be redriven for 14 days."""

_MOST_TRIES = 10


class SessionEnds:
    """Ends the sessions of a table."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._sessions = Sessions(table)

    def end(self, session_id: SessionId, *, due_by: int | None = None) -> Segment | None:
        """Ends the session; the segment whose consolidation the caller should start, None if there is none.

        With `due_by` only a session that was due by then is ended. Raises SessionBusy while a turn runs in it.
        """
        for _ in range(_MOST_TRIES):
            session = self._sessions.read(session_id)
            if session is None or (due_by is not None and (session.due_at is None or session.due_at > due_by)):
                return None
            now = now_ms()
            if session.held_by_another("", now):
                raise SessionBusy(f"session {session_id.session} runs turn {session.lease_owner}")
            try:
                return self._end(session_id, session, "", now)[1]
            except TransactionRefused:
                continue  # a turn, an event or another end was faster
        raise CommitConflict(f"session {session_id.session} keeps changing; try again")

    def end_idle(self, session_id: SessionId, turn_id: str, session: Session) -> Session:
        """The session that the turn has claimed (or, for "", that is free) as it is for it: ended, if a repeat of the
        turn was faster also by that. Raises CommitConflict if it changes meanwhile.

        Its consolidation is left to the sweep, so that the turn does not wait for it.
        """
        try:
            return self._end(session_id, session, turn_id, now_ms())[0]
        except TransactionRefused as refused:
            current = self._sessions.read(session_id)
            if current is None or current.lease_owner != turn_id:
                raise CommitConflict(f"session {session_id.session} was just taken over") from refused
            return current

    def _end(self, session_id: SessionId, session: Session, turn_id: str, now: int) -> tuple[Session, Segment | None]:
        """One transaction, on the condition that the session is what was read. Raises TransactionRefused.

        Of an event that CreateEvent adds meanwhile either this end knows, or CreateEvent learns of the new version.
        """
        segment, actor = self._left_behind(session_id, session, now)
        floor = session.floor_at(now)
        lease = "" if turn_id else ", leaseOwner, leaseExpiresAt"
        last = "lastEventId = :last" if session.last_event_id else "attribute_not_exists(lastEventId)"
        update = Update(
            keys.session(session_id),
            "SET #status = :ended, endedAt = :now, version = :next, historyFloor = :floor "
            f"REMOVE duePK, dueSK, digestedTo, undigestedTurns, undigestedCharacters{lease}",
            condition=f"version = :version AND {last} AND ({FREE_SESSION})",
            names={"#status": "status"},
            values={
                ":ended": "ENDED",
                ":now": now,
                ":version": session.version,
                ":next": session.version + 1,
                ":floor": floor,
                ":turn": turn_id,
                **({":last": session.last_event_id} if session.last_event_id else {}),
            },
        )
        writes: list[Write] = [update]
        if segment and actor:
            writes += [segment.added(), actor.unchanged()]
        self._table.transact(writes)
        ended = replace(
            session,
            ended=True,
            version=session.version + 1,
            history_floor=floor,
            due_at=None,
            digested_to="",
            undigested_turns=0,
            undigested_characters=0,
        )
        return ended, segment

    def _left_behind(self, session_id: SessionId, session: Session, now: int) -> tuple[Segment | None, Actor | None]:
        """The segment that the session's end leaves behind, and whose it is."""
        if session_id.actor == NO_ACTOR or not session.has_events or session.as_of(now).ended:
            return None, None
        configuration = configuration_of(self._table, session_id.store, session.agent_id, session.agent_version)
        actor = Actors(self._table).read(session_id.store, session_id.actor)
        if not configuration.consolidates or actor is None or actor.erasing:
            return None, None
        segment = Segment(
            session=session_id,
            from_event=session.history_floor,
            to_event=session.last_event_id,
            ended_at=now,
            agent_id=session.agent_id,
            agent_version=session.agent_version,
            actor_epoch=actor.epoch,
            expires_at=max(session.expires_at, expiry(now, SEGMENT_DAYS)),
        )
        return segment, actor
