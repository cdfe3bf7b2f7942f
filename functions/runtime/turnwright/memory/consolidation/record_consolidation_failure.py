"""How a consolidation ends badly: its segment is FAILED, so that nobody starts it again, and it is dead-lettered.

Nothing of it is visible, or, if it needed several transactions, the first of them are; a redrive goes on from there.
"""

from turnwright.memory.session_ends.consolidations import Consolidation, Kind
from turnwright.memory.session_ends.segments import Segments, SegmentStatus
from turnwright.storage.dead_letters import DeadLetters
from turnwright.storage.table import Table
from turnwright.tracing.execution_failures import ExecutionFailure


def record(table: Table, letters: DeadLetters, failure: ExecutionFailure) -> bool:
    """True if the consolidation was dead-lettered: not one that was written all the same, or whose actor is erased.

    Each part may be repeated. A digest has no segment: the session's next one makes up for it.
    """
    consolidation = Consolidation.decode(failure.request)
    if consolidation.kind is Kind.SESSION_END:
        segments = Segments(table)
        segments.fail(consolidation.session, consolidation.toEvent)
        segment = segments.read(consolidation.session, consolidation.toEvent)
        if segment is None or segment.status is SegmentStatus.DONE:
            return False
    letters.send(failure.letter("consolidationId", consolidation.encode()))
    return True
