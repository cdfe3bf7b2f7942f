"""A session: who may run a turn in it, what its next turn starts from, and how it ends.

A session ends when it is told to, or when nothing has happened in it for as long as its configuration says. The end is
one transaction: the session is ENDED, its history begins behind all events so far, and, if an ended session leaves
something behind, those events are a segment that waits for its consolidation (`memory/segments.py`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from turnwright import keys
from turnwright.clock import expiry, now_ms
from turnwright.errors import CommitConflict, SessionBusy
from turnwright.item_sizes import attribute_bytes, attribute_sizes
from turnwright.keys import NO_ACTOR, SessionId
from turnwright.memory.actors import Actor, Actors
from turnwright.memory.plans import configuration_of
from turnwright.memory.segments import Segment
from turnwright.table import (
    SCHEMA_VERSION,
    ConditionFailed,
    Delete,
    Item,
    Table,
    TransactionRefused,
    Update,
    Write,
)

LONGEST_TURN_SECONDS = 900
"""TimeoutSeconds of the state machine."""

_LEASE_MARGIN_SECONDS = 60

UNCOMMITTED_DAYS = 30
"""How long the item of a session lives in which no turn was ever committed; a commit sets the agent's storageDays."""

SEGMENT_DAYS = 30
"""How long a segment is kept at least: a failed consolidation can be redriven for 14 days."""

_MOST_TRIES = 10

FREE_SESSION = "attribute_not_exists(leaseOwner) OR leaseOwner = :turn OR leaseExpiresAt < :now"
"""The condition under which turn `:turn` may claim a session at the moment `:now` (milliseconds)."""


def lease_expiry(now: int) -> int:
    """A lease outlives the longest turn, so that only a turn whose end was never recorded loses it by time."""
    return now + (LONGEST_TURN_SECONDS + _LEASE_MARGIN_SECONDS) * 1000


@dataclass(frozen=True, slots=True)
class Session:
    """A session as its item has it.

    `version` grows with each committed turn and each end, so that no turn commits that began before either.
    `attributes` is JSON; `expires_at` is in seconds, `active_at` and `due_at` in ms: when the last turn or event was
    committed, and when the session will have been idle for too long, None if nothing has to happen then. `agent_id` is
    the agent that committed last. `undigested_turns` and `undigested_characters` count the turns behind the event
    `digested_to`.
    """

    version: int = 0
    ended: bool = False
    last_event_id: str = ""
    history_floor: str = ""
    attributes: str = "{}"
    lease_owner: str | None = None
    lease_expires_at: int = 0
    expires_at: int = 0
    active_at: int = 0
    due_at: int | None = None
    agent_id: str = ""
    agent_version: str = ""
    digested_to: str = ""
    undigested_turns: int = 0
    undigested_characters: int = 0
    sizes: Mapping[str, int] = field(default_factory=dict, compare=False, repr=False)
    """What each attribute takes of the item, in bytes: what the commit will consume is computed from that."""

    @classmethod
    def decode(cls, item: Item) -> "Session":
        return cls(
            version=item["version"],
            ended=item["status"] == "ENDED",
            last_event_id=item.get("lastEventId", ""),
            history_floor=item.get("historyFloor", ""),
            attributes=item.get("attributes", "{}"),
            lease_owner=item.get("leaseOwner"),
            lease_expires_at=item.get("leaseExpiresAt", 0),
            expires_at=item["expiresAt"],
            active_at=item.get("updatedAt", 0),
            due_at=int(item["dueSK"].partition("#")[0]) if "dueSK" in item else None,
            agent_id=item.get("agentId", ""),
            agent_version=item.get("agentVersion", ""),
            digested_to=item.get("digestedTo", ""),
            undigested_turns=item.get("undigestedTurns", 0),
            undigested_characters=item.get("undigestedCharacters", 0),
            sizes=attribute_sizes(item),
        )

    def held_by_another(self, turn_id: str, now: int) -> bool:
        return self.lease_owner not in (None, turn_id) and self.lease_expires_at >= now

    def as_of(self, now: int) -> "Session":
        """An expired session that is not deleted yet counts as ended."""
        return replace(self, ended=self.ended or 0 < self.expires_at * 1000 <= now)

    def idle(self, now: int, idle_seconds: int | None) -> bool:
        """Whether nothing has happened for too long; `idle_seconds` is for a session that the index `Due` has not."""
        if self.ended or not self.active_at:
            return False
        if self.due_at is not None:
            return self.due_at <= now
        return idle_seconds is not None and self.active_at + idle_seconds * 1000 <= now

    @property
    def has_events(self) -> bool:
        """Whether anything was said since the session began, as far as it has not expired altogether."""
        return self.last_event_id > self.history_floor

    @property
    def first_event_id(self) -> str:
        """Where the history of the next turn begins: a turn in an ended session starts a new session of that id."""
        return max(self.history_floor, next_event_id(self.last_event_id)) if self.ended else self.history_floor

    @property
    def current_attributes(self) -> dict[str, str]:
        attributes: dict[str, str] = {} if self.ended else json.loads(self.attributes)
        return attributes

    def new_event_id(self, turn_id: str, now: int) -> str:
        """An id later than every event of the session and its floor, also when this machine's clock is behind those.

        Its form is AgentCore Memory's: sixteen digits of milliseconds, `#`, eight hexadecimal digits.
        """
        return f"{self._next_ms(now):016d}#{turn_id[:8]}"

    def floor_at(self, now: int) -> str:
        """Where the history of the next session of this id begins, if this one ends now."""
        return f"{self._next_ms(now):016d}"

    def _next_ms(self, now: int) -> int:
        last = int(self.last_event_id.partition("#")[0] or -1)
        return max(now, last + 1, int(self.history_floor.partition("#")[0] or 0))


def _sizes_after(sizes: Mapping[str, int], end: Update, *, kept_lease: bool) -> dict[str, int]:
    """The sizes of a session's attributes after the update with which it ends."""
    written = {
        "status": end.values[":ended"],
        "endedAt": end.values[":now"],
        "version": end.values[":next"],
        "historyFloor": end.values[":floor"],
    }
    lease = () if kept_lease else ("leaseOwner", "leaseExpiresAt")
    removed = ("duePK", "dueSK", "digestedTo", "undigestedTurns", "undigestedCharacters", *lease)
    kept = {name: size for name, size in sizes.items() if name not in removed}
    return kept | {name: attribute_bytes(name, value) for name, value in written.items()}


def next_event_id(event_id: str) -> str:
    """The lowest id that is later than `event_id`'s millisecond."""
    return f"{int(event_id.partition('#')[0] or 0) + 1:016d}" if event_id else ""


class Sessions:
    """The sessions of a table."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def claim(self, session_id: SessionId, turn_id: str) -> Session:
        """Takes the session's lease for a turn; a repeat by the same turn takes it again. Raises SessionBusy.

        A session that has expired and is not deleted yet counts as ended.
        """
        now = now_ms()
        session = self._take(session_id, turn_id, now)
        if session.expires_at * 1000 > session.lease_expires_at:
            return session
        return self._keep(session_id, turn_id, session.as_of(now))

    def read(self, session_id: SessionId) -> Session | None:
        item = self._table.get(keys.session(session_id))
        return Session.decode(item) if item else None

    def end(self, session_id: SessionId, *, due_by: int | None = None) -> Segment | None:
        """Ends the session; the segment whose consolidation the caller should start, None if there is none.

        With `due_by` only a session that was due by then is ended. Raises SessionBusy while a turn runs in it.
        """
        for _ in range(_MOST_TRIES):
            session = self.read(session_id)
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
            current = self.read(session_id)
            if current is None or current.lease_owner != turn_id:
                raise CommitConflict(f"session {session_id.session} was just taken over") from refused
            return current

    def _end(self, session_id: SessionId, session: Session, turn_id: str, now: int) -> tuple[Session, Segment | None]:
        """One transaction, on the condition that the session is what was read. Raises TransactionRefused.

        Of an event that CreateEvent adds meanwhile either this end knows, or CreateEvent learns of the new version.
        """
        segment, actor = self._segment(session_id, session, now)
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
            sizes=_sizes_after(session.sizes, update, kept_lease=bool(turn_id)),
        )
        return ended, segment

    def _segment(self, session_id: SessionId, session: Session, now: int) -> tuple[Segment | None, Actor | None]:
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

    def release(self, session_id: SessionId, turn_id: str) -> bool:
        """Gives the lease back if the turn holds it; False if it does not."""
        try:
            self._table.update(
                Update(
                    keys.session(session_id),
                    "REMOVE leaseOwner, leaseExpiresAt",
                    condition="leaseOwner = :turn",
                    values={":turn": turn_id},
                )
            )
        except ConditionFailed:
            return False
        return True

    def forget(self, session_id: SessionId, turn_id: str) -> None:
        """Gives the lease back; of a session in which nothing was ever committed nothing is left."""
        try:
            self._table.delete(
                Delete(
                    keys.session(session_id),
                    condition="leaseOwner = :turn AND version = :zero AND attribute_not_exists(lastEventId)",
                    values={":turn": turn_id, ":zero": 0},
                )
            )
        except ConditionFailed:
            self.release(session_id, turn_id)

    def _keep(self, session_id: SessionId, turn_id: str, session: Session) -> Session:
        """Lets the claimed session live on beyond its turn, which could not commit if DynamoDB deleted it meanwhile."""
        expires = expiry(session.lease_expires_at, 1)
        try:
            item = self._table.update(
                Update(
                    keys.session(session_id),
                    "SET expiresAt = :expires, #status = :status"
                    + (" REMOVE digestedTo, undigestedTurns, undigestedCharacters" if session.ended else ""),
                    condition="leaseOwner = :turn",
                    names={"#status": "status"},
                    values={
                        ":expires": expires,
                        ":status": "ENDED" if session.ended else "OPEN",
                        ":turn": turn_id,
                    },
                )
            )
        except ConditionFailed as refused:
            raise CommitConflict(f"session {session_id.session} was just deleted") from refused
        return replace(session, expires_at=expires, sizes=attribute_sizes(item))

    def _take(self, session_id: SessionId, turn_id: str, now: int) -> Session:
        update = Update(
            keys.session(session_id),
            "SET leaseOwner = :turn, leaseExpiresAt = :lease, version = if_not_exists(version, :zero), "
            "#status = if_not_exists(#status, :open), schemaVersion = :schema, memoryStore = :store, actor = :actor, "
            "sessionId = :session, createdAt = if_not_exists(createdAt, :now), "
            "expiresAt = if_not_exists(expiresAt, :expires)"
            + "".join(f", {name} = :{name}" for name in keys.owned_session(session_id)),
            condition=FREE_SESSION,
            names={"#status": "status"},
            values={
                ":turn": turn_id,
                ":now": now,
                ":lease": lease_expiry(now),
                ":open": "OPEN",
                ":zero": 0,
                ":schema": SCHEMA_VERSION,
                ":store": session_id.store,
                ":actor": session_id.actor,
                ":session": session_id.session,
                ":expires": expiry(now, UNCOMMITTED_DAYS),
                **{f":{name}": value for name, value in keys.owned_session(session_id).items()},
            },
        )
        try:
            return Session.decode(self._table.update(update))
        except ConditionFailed as refused:
            owner = (refused.item or {}).get("leaseOwner")
            raise SessionBusy(f"session {session_id.session} runs turn {owner}") from refused
