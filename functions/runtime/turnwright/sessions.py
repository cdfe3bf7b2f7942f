"""A session: who may run a turn in it, and what its next turn starts from."""

import json
from dataclasses import dataclass, replace
from typing import Any

from turnwright import keys
from turnwright.clock import expiry, now_ms
from turnwright.errors import CommitConflict, SessionBusy
from turnwright.keys import SessionId
from turnwright.table import SCHEMA_VERSION, ConditionFailed, Item, Table, Update

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
    `attributes` is JSON; `expires_at` is in seconds.
    """

    version: int = 0
    ended: bool = False
    last_event_id: str = ""
    history_floor: str = ""
    attributes: str = "{}"
    lease_owner: str | None = None
    lease_expires_at: int = 0
    expires_at: int = 0

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
        )

    def held_by_another(self, turn_id: str, now: int) -> bool:
        return self.lease_owner not in (None, turn_id) and self.lease_expires_at >= now

    def as_of(self, now: int) -> "Session":
        """An expired session that is not deleted yet counts as ended."""
        return replace(self, ended=self.ended or 0 < self.expires_at * 1000 <= now)

    @property
    def first_event_id(self) -> str:
        """Where the history of the next turn begins: a turn in an ended session starts a new session of that id."""
        return next_event_id(self.last_event_id) if self.ended else self.history_floor

    @property
    def current_attributes(self) -> dict[str, str]:
        attributes: dict[str, str] = {} if self.ended else json.loads(self.attributes)
        return attributes

    def new_event_id(self, turn_id: str, now: int) -> str:
        """An id later than every event of the session, also when this machine's clock is behind the last one's.

        Its form is AgentCore Memory's: sixteen digits of milliseconds, `#`, eight hexadecimal digits.
        """
        last = int(self.last_event_id.partition("#")[0] or 0)
        return f"{max(now, last + 1):016d}#{turn_id[:8]}"


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
        session = self._update_free(
            session_id,
            turn_id,
            now,
            "leaseOwner = :turn, leaseExpiresAt = :expiry, version = if_not_exists(version, :zero), "
            "#status = if_not_exists(#status, :open)",
            {":expiry": lease_expiry(now), ":open": "OPEN"},
        )
        if session.expires_at * 1000 > session.lease_expires_at:
            return session
        return self._keep(session_id, turn_id, session.as_of(now))

    def end(self, session_id: SessionId) -> Session:
        """Marks the session ENDED. Raises SessionBusy while a turn runs in it."""
        return self._update_free(
            session_id,
            "",
            now_ms(),
            "#status = :ended, endedAt = :now, version = if_not_exists(version, :zero) + :one",
            {":ended": "ENDED", ":one": 1},
        )

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

    def _keep(self, session_id: SessionId, turn_id: str, session: Session) -> Session:
        """Lets the claimed session live on beyond its turn, which could not commit if DynamoDB deleted it meanwhile."""
        expires = expiry(session.lease_expires_at, 1)
        try:
            self._table.update(
                Update(
                    keys.session(session_id),
                    "SET expiresAt = :expires, #status = :status",
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

    def _update_free(
        self, session_id: SessionId, turn_id: str, now: int, assignments: str, values: dict[str, Any]
    ) -> Session:
        update = Update(
            keys.session(session_id),
            f"SET {assignments}, schemaVersion = :schema, memoryStore = :store, actor = :actor, sessionId = :session, "
            "expiresAt = if_not_exists(expiresAt, :expires)",
            condition=FREE_SESSION,
            names={"#status": "status"},
            values={
                **values,
                ":turn": turn_id,
                ":now": now,
                ":zero": 0,
                ":schema": SCHEMA_VERSION,
                ":store": session_id.store,
                ":actor": session_id.actor,
                ":session": session_id.session,
                ":expires": expiry(now, UNCOMMITTED_DAYS),
            },
        )
        try:
            return Session.decode(self._table.update(update))
        except ConditionFailed as refused:
            owner = (refused.item or {}).get("leaseOwner")
            raise SessionBusy(f"session {session_id.session} runs turn {owner}") from refused
