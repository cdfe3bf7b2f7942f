"""A session: who may run a turn in it, and what its next turn starts from. How it ends: `memory/session_ends/`."""

import json
from dataclasses import dataclass, replace

from turnwright.errors import CommitConflict, SessionBusy
from turnwright.storage import keys
from turnwright.storage.clock import expiry, now_ms
from turnwright.storage.keys import SessionId
from turnwright.storage.table import (
    SCHEMA_VERSION,
    ConditionFailed,
    Delete,
    Item,
    Table,
    Update,
)

LONGEST_TURN_SECONDS = 900
"""TimeoutSeconds of the state machine."""

_LEASE_MARGIN_SECONDS = 60

UNCOMMITTED_DAYS = 30
"""How long the item of a session lives in which no turn was ever committed; a commit sets the agent's storageDays."""

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

    def release(self, session_id: SessionId, turn_id: str) -> bool:
        """Gives the lease back if the turn holds it; False if it does not."""
        try:
            self._table.update(without_lease(session_id, turn_id))
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
            self._table.update(
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
        return replace(session, expires_at=expires)

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


def without_lease(session_id: SessionId, turn_id: str) -> Update:
    """Gives a session's lease back, which the turn must hold."""
    return Update(
        keys.session(session_id),
        "REMOVE leaseOwner, leaseExpiresAt",
        condition="leaseOwner = :turn",
        values={":turn": turn_id},
    )
