"""What is due: sessions that have been idle for too long are ended, and segments consolidated that nobody started.

Both are found in the index `Due`, in which only they are. A run does a bounded number of them, and whatever it cannot
do now it moves to a later time, so that it stands in nobody's way; the next run goes on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from turnwright.errors import CommitConflict, SessionBusy, TurnwrightError
from turnwright.memory.session_ends import consolidations
from turnwright.memory.session_ends.consolidations import Consolidation
from turnwright.memory.session_ends.segments import Segment, SegmentStatus
from turnwright.memory.session_ends.session_ends import SessionEnds
from turnwright.storage import keys
from turnwright.storage.clock import now_ms
from turnwright.storage.keys import Key, SessionId
from turnwright.storage.table import ConditionFailed, Table, TransactionRefused, Update
from turnwright.tracing.log import logger

MOST_AT_ONCE = 250
"""Due items of a shard that a run looks at."""

LATER_MS = 60_000
"""When a session in which a turn runs is looked at again."""

LOOK_AGAIN_MS = 15 * 60_000
"""When a segment is looked at again whose consolidation was started, the end of which takes it out of the index; and
what could not be done because of a fault.
"""

_SPARE_SECONDS = 5


@dataclass(slots=True)
class Swept:
    """What a run did."""

    ended: int = 0
    started: int = 0
    postponed: int = 0


class Sweep:
    """One run. `start` starts a consolidation, however often it is asked to."""

    def __init__(self, table: Table, start: Callable[[Consolidation], None], seconds_left: Callable[[], float]) -> None:
        self._table = table
        self._start = start
        self._seconds_left = seconds_left
        self._swept = Swept()

    def run(self) -> Swept:
        """Does what is due, of each shard the longest due first, until all is done or the time is used up."""
        now = now_ms()
        for shard in range(keys.DUE_SHARDS):
            for key, due in self._due(shard, now):
                if self._seconds_left() < _SPARE_SECONDS:
                    return self._swept
                try:
                    self._look(key, due, now)
                except (BotoCoreError, ClientError, ConditionFailed, TurnwrightError):
                    logger().exception("what is due was not done", key=key)
                    self._postpone(key, due, now + LOOK_AGAIN_MS)  # or it would stand in the way of all others
        return self._swept

    def _due(self, shard: int, now: int) -> list[tuple[Key, str]]:
        """Read at once: what is done takes it out of the index while it would be read."""
        first, last = "0", f"{now:016d}{keys.END}"
        partition = keys.due_partition(shard)
        return list(self._table.query_index(keys.DUE_INDEX, partition, first, last, limit=MOST_AT_ONCE))

    def _look(self, key: Key, due: str, now: int) -> None:
        item = self._table.get(key)
        if item is None or item.get("dueSK") != due:
            return  # the index is behind: somebody was here
        if key.sk.startswith(keys.SEGMENT_PREFIX):
            segment = Segment.decode(item)
            if segment.status is SegmentStatus.PENDING:
                self._consolidate(segment)
            self._postpone(key, due, now + LOOK_AGAIN_MS)
        else:
            self._end(SessionId(item["memoryStore"], item["actor"], item["sessionId"]), key, due, now)

    def _end(self, session: SessionId, key: Key, due: str, now: int) -> None:
        try:
            segment = SessionEnds(self._table).end(session, due_by=now)
        except SessionBusy:
            self._postpone(key, due, now + LATER_MS)
            return
        self._swept.ended += 1
        if segment:
            self._consolidate(segment)

    def _consolidate(self, segment: Segment) -> None:
        self._start(segment.consolidation)
        self._swept.started += 1

    def _postpone(self, key: Key, due: str, at: int) -> None:
        """Unless its due time was changed or taken away meanwhile.

        A transaction, since an update answers with the item, which may be what could not be read.
        """
        later = Update(
            key,
            "SET dueSK = :later",
            condition="dueSK = :seen",
            values={":later": keys.due_later(due, at), ":seen": due},
        )
        try:
            self._table.transact([later])
        except (TransactionRefused, CommitConflict):
            return
        self._swept.postponed += 1


def starter(stepfunctions: Any, machine_arn: str) -> Callable[[Consolidation], None]:
    """Starts consolidations in the machine."""
    return lambda work: consolidations.start(stepfunctions, machine_arn, work)
