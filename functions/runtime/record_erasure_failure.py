"""Record Erasure Failure: an execution of Erase Memory ended badly, and its actor stays closed. Dead-letters it."""

from typing import Any

from turnwright import clients
from turnwright.failures import read_failure
from turnwright.log import logger
from turnwright.memory.erasure_failures import record
from turnwright.settings import settings
from turnwright.table import table


def handler(event: dict[str, Any], context: object) -> None:
    """An EventBridge event "Step Functions Execution Status Change" with status FAILED, TIMED_OUT or ABORTED.

    It may come twice, or late: an execution that runs again (redriven) or has succeeded since is left alone.
    """
    failure = read_failure(clients.stepfunctions(), event["detail"]["executionArn"], find_state=True)
    if failure is None:
        logger().info("execution is not in failure any more", executionArn=event["detail"]["executionArn"])
    elif record(table(), clients.sqs(), settings().dead_letter_queue_url, failure):
        logger().error("erasure failed", erasureId=failure.turn_id, failure=failure.summary)
    else:
        logger().info("erasure was finished by another", erasureId=failure.turn_id, failure=failure.summary)
