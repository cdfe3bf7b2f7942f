"""How an erasure ends badly: dead-lettered, since until it is finished nothing can be said to its actor.

A redrive of its execution, the letter sent again and another DeleteAgentMemory or DeleteMemory all go on where it was.
"""

from typing import Any

from turnwright import keys
from turnwright.documents import json_text
from turnwright.failures import ExecutionFailure
from turnwright.table import Table


def record(table: Table, queue: Any, queue_url: str, failure: ExecutionFailure) -> bool:
    """True if the erasure was dead-lettered: not one that another execution has finished. May be repeated."""
    request = failure.request
    store, actor = request["memoryStore"], request.get("actor")
    if actor is None:
        over = table.get(keys.store(store)) is None
    else:
        over = table.get(keys.ended_erasure(store, failure.turn_id)) is not None
    if over:
        return False
    letter = {
        "erasureId": failure.turn_id,
        "executionArn": failure.execution_arn,
        "failure": failure.summary,
        "input": dict(request),
    }
    queue.send_message(QueueUrl=queue_url, MessageBody=json_text(letter))
    return True
