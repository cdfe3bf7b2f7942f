"""Record Consolidation Failure: an execution of Consolidate Memory ended badly. Marks its segment, dead-letters it."""

from typing import Any

from turnwright import clients
from turnwright.failures import read_failure
from turnwright.log import consolidation_logger, logger
from turnwright.memory.consolidation import Consolidation
from turnwright.memory.consolidation_failures import record
from turnwright.settings import settings
from turnwright.table import table


def handler(event: dict[str, Any], context: object) -> None:
    """An EventBridge event "Step Functions Execution Status Change" with status FAILED, TIMED_OUT or ABORTED.

    It may come twice, or late: an execution that runs again (redriven) or has succeeded since is left alone.
    """
    failure = read_failure(clients.stepfunctions(), event["detail"]["executionArn"], find_state=True)
    if failure is None:
        logger().info("execution is not in failure any more", executionArn=event["detail"]["executionArn"])
        return
    log = consolidation_logger(Consolidation.decode(failure.request))
    if record(table(), clients.sqs(), settings().dead_letter_queue_url, failure):
        log.error("consolidation failed", failure=failure.summary)
    else:
        log.info("consolidation was written, or its actor is erased", failure=failure.summary)
