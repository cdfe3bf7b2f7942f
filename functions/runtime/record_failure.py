"""Record Failure: an execution ended without a commit. Frees the session and dead-letters the turn."""

from typing import Any

from turnwright import clients
from turnwright.documents import documents
from turnwright.failures import read_failure, record
from turnwright.handler_errors import with_safe_errors
from turnwright.log import logger
from turnwright.settings import settings
from turnwright.table import table


@with_safe_errors
def handler(event: dict[str, Any], context: object) -> None:
    """An EventBridge event "Step Functions Execution Status Change" with status FAILED, TIMED_OUT or ABORTED.

    It may come twice, or late: an execution that runs again (redriven) or a turn that is committed is left alone.
    """
    failure = read_failure(clients.stepfunctions(), event["detail"]["executionArn"], find_state=True)
    if failure is None:
        logger().info("execution is not in failure any more", executionArn=event["detail"]["executionArn"])
        return
    dead_lettered = record(table(), documents(), clients.sqs(), settings().dead_letter_queue_url, failure)
    if dead_lettered:
        logger().info("turn dead-lettered", turnId=failure.turn_id, failure=failure.summary)
    else:
        logger().info("turn refused, or committed already", turnId=failure.turn_id, failure=failure.summary)
