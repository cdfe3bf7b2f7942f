"""How an erasure ends badly: dead-lettered, since its actor stays closed until it is finished.

A redrive of its execution, the letter sent again and another DeleteAgentMemory or DeleteMemory all go on where it was.
"""

from turnwright.storage import keys
from turnwright.storage.dead_letters import DeadLetters
from turnwright.storage.table import Table
from turnwright.tracing.execution_failures import ExecutionFailure


def record(table: Table, letters: DeadLetters, failure: ExecutionFailure) -> bool:
    """True if the erasure was dead-lettered: not one that another execution has finished. May be repeated."""
    request = failure.request
    store, actor = request["memoryStore"], request.get("actor")
    if actor is None:
        over = table.get(keys.store(store)) is None
    else:
        over = table.get(keys.ended_erasure(store, failure.turn_id)) is not None
    if over:
        return False
    letters.send(failure.letter("erasureId", request))
    return True
