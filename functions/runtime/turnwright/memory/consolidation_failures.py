"""How a consolidation ends badly: its segment is FAILED, so that nobody starts it again, and it is dead-lettered.

Nothing of it is visible, or, if it needed several transactions, the first of them are; a redrive goes on from there.
"""

from typing import Any

from turnwright.documents import json_text
from turnwright.failures import ExecutionFailure
from turnwright.memory.consolidation import Consolidation, Kind
from turnwright.memory.segments import Segments, SegmentStatus
from turnwright.table import Table


def record(table: Table, queue: Any, queue_url: str, failure: ExecutionFailure) -> bool:
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
    letter = {
        "consolidationId": consolidation.consolidationId,
        "executionArn": failure.execution_arn,
        "failure": failure.summary,
        "input": consolidation.encode(),
    }
    queue.send_message(QueueUrl=queue_url, MessageBody=json_text(letter))
    return True
