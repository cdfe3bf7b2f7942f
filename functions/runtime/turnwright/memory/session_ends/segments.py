"""The ended parts of sessions, and whether what was said in them is consolidated.

A segment is written in the transaction that ends its session, so that each ended session has exactly one, and is in the
index `Due` until its consolidation has ended: whoever should have started that and died is made up for by the sweep.
"""

from dataclasses import dataclass
from enum import StrEnum

from turnwright.memory.session_ends.consolidations import Consolidation, Kind, consolidation
from turnwright.storage import keys
from turnwright.storage.keys import SessionId
from turnwright.storage.table import ConditionFailed, Item, Put, Table, Update

START_AGAIN_MS = 60_000
"""So long after the end of its session a segment is due, which gives whoever ended that the time to start it."""


class SegmentStatus(StrEnum):
    PENDING = "PENDING"
    DONE = "DONE"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Segment:
    """The events of a session behind `from_event` up to `to_event`. `ended_at` is in ms, `expires_at` in seconds.

    `agent_id` and `agent_version` are of the agent that committed last, "" if only CreateEvent was used. `actor_epoch`
    is the actor's when the session ended.
    """

    session: SessionId
    from_event: str
    to_event: str
    ended_at: int
    agent_id: str
    agent_version: str
    actor_epoch: str
    expires_at: int
    status: SegmentStatus = SegmentStatus.PENDING

    @property
    def key(self) -> keys.Key:
        return keys.segment(self.session, self.to_event)

    @property
    def consolidation(self) -> Consolidation:
        return consolidation(
            Kind.SESSION_END,
            self.session,
            self.from_event,
            self.to_event,
            agent_id=self.agent_id,
            agent_version=self.agent_version,
            actor_epoch=self.actor_epoch,
        )

    def added(self) -> Put:
        """The write of a new segment."""
        item: Item = {
            "memoryStore": self.session.store,
            "actor": self.session.actor,
            "sessionId": self.session.session,
            "fromEvent": self.from_event,
            "toEvent": self.to_event,
            "endedAt": self.ended_at,
            "agentId": self.agent_id,
            "agentVersion": self.agent_version,
            "actorEpoch": self.actor_epoch,
            "status": self.status,
            "expiresAt": self.expires_at,
            **keys.due(self.session, self.ended_at + START_AGAIN_MS),
        }
        return Put(self.key, item, only_if_absent=True)

    @classmethod
    def decode(cls, item: Item) -> "Segment":
        return cls(
            session=SessionId(item["memoryStore"], item["actor"], item["sessionId"]),
            from_event=item["fromEvent"],
            to_event=item["toEvent"],
            ended_at=item["endedAt"],
            agent_id=item["agentId"],
            agent_version=item["agentVersion"],
            actor_epoch=item["actorEpoch"],
            expires_at=item["expiresAt"],
            status=SegmentStatus(item["status"]),
        )


def done(session: SessionId, to_event: str) -> Update:
    """The write that ends a consolidation well, an entry of its last transaction: it is refused the second time.

    A failed one may be redriven.
    """
    return _ended(session, to_event, SegmentStatus.DONE, (SegmentStatus.PENDING, SegmentStatus.FAILED))


class Segments:
    """The segments of a table."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def read(self, session: SessionId, to_event: str) -> Segment | None:
        item = self._table.get(keys.segment(session, to_event))
        return Segment.decode(item) if item else None

    def fail(self, session: SessionId, to_event: str) -> bool:
        """Marks a segment FAILED, which is not started again by itself. False if it is not pending any more."""
        try:
            self._table.update(_ended(session, to_event, SegmentStatus.FAILED, (SegmentStatus.PENDING,)))
        except ConditionFailed:
            return False
        return True


def _ended(session: SessionId, to_event: str, status: SegmentStatus, before: tuple[SegmentStatus, ...]) -> Update:
    known = {f":before{position}": value for position, value in enumerate(before)}
    return Update(
        keys.segment(session, to_event),
        "SET #status = :status REMOVE duePK, dueSK",
        condition=f"#status IN ({', '.join(known)})",
        names={"#status": "status"},
        values={":status": status, **known},
    )
