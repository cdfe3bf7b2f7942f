"""Record Consolidation Failure: an execution of Consolidate Memory ended badly. Marks its segment, dead-letters it."""

from typing import Any

from turnwright.memory.consolidation.record_consolidation_failure import record
from turnwright.memory.session_ends.consolidations import Consolidation
from turnwright.storage import clients
from turnwright.storage.dead_letters import dead_letters
from turnwright.storage.table import table
from turnwright.tracing.execution_failures import read_failure
from turnwright.tracing.handler_errors import with_safe_errors
from turnwright.tracing.log import logger, logger_for


@with_safe_errors
def handler(event: dict[str, Any], context: object) -> None:
    """An EventBridge event "Step Functions Execution Status Change" with status FAILED, TIMED_OUT or ABORTED.

    It may come twice, or late: an execution that runs again (redriven) or has succeeded since is left alone.
    """
    failure = read_failure(clients.stepfunctions(), event["detail"]["executionArn"], find_state=True)
    if failure is None:
        logger().info("execution is not in failure any more", executionArn=event["detail"]["executionArn"])
        return
    log = logger_for(Consolidation.decode(failure.request).log_fields)
    if record(table(), dead_letters(), failure):
        log.error("consolidation failed", failure=failure.summary)
    else:
        log.info("consolidation was written, or its actor is erased", failure=failure.summary)
