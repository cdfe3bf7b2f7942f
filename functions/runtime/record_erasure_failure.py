"""Record Erasure Failure: an execution of Erase Memory ended badly, and its actor stays closed. Dead-letters it."""

from typing import Any

from turnwright.memory.erasure.record_erasure_failure import record
from turnwright.storage import clients
from turnwright.storage.dead_letters import dead_letters
from turnwright.storage.table import table
from turnwright.tracing.execution_failures import read_failure
from turnwright.tracing.handler_errors import with_safe_errors
from turnwright.tracing.log import logger


@with_safe_errors
def handler(event: dict[str, Any], context: object) -> None:
    """An EventBridge event "Step Functions Execution Status Change" with status FAILED, TIMED_OUT or ABORTED.

    It may come twice, or late: an execution that runs again (redriven) or has succeeded since is left alone.
    """
    failure = read_failure(clients.stepfunctions(), event["detail"]["executionArn"], find_state=True)
    if failure is None:
        logger().info("execution is not in failure any more", executionArn=event["detail"]["executionArn"])
    elif record(table(), dead_letters(), failure):
        logger().error("erasure failed", erasureId=failure.turn_id, failure=failure.summary)
    else:
        logger().info("erasure was finished by another", erasureId=failure.turn_id, failure=failure.summary)
