"""Record Erasure Failure: an execution of Erase Memory ended badly, and its actor stays closed. Dead-letters it."""

from typing import Any

from turnwright.executions.recorded_failures import RecordedFailures
from turnwright.memory.erasure.record_erasure_failure import record
from turnwright.storage import clients
from turnwright.storage.dead_letters import dead_letters
from turnwright.storage.table import table
from turnwright.tracing.handler_errors import with_safe_errors
from turnwright.tracing.log import logger


@with_safe_errors
def handler(event: dict[str, Any], context: object) -> None:
    """An EventBridge event "Step Functions Execution Status Change" with status FAILED, TIMED_OUT or ABORTED.

    It may come twice, or late, or, when it was lost, from Sweep Executions: an execution that runs again (redriven) or
    has succeeded since is left alone.
    """
    store = table()
    failures = RecordedFailures(store)
    failure = failures.unrecorded(clients.stepfunctions(), event["detail"]["executionArn"])
    if failure is None:
        return
    dead_lettered = record(store, dead_letters(), failure)
    failures.recorded(failure)
    if dead_lettered:
        logger().error("erasure failed", erasureId=failure.turn_id, failure=failure.summary)
    else:
        logger().info("erasure was finished by another", erasureId=failure.turn_id, failure=failure.summary)
