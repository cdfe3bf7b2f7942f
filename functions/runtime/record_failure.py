"""Record Failure: an execution ended without a commit. Frees the session and dead-letters the turn."""

from typing import Any

from turnwright.executions.recorded_failures import RecordedFailures
from turnwright.storage import clients
from turnwright.storage.dead_letters import dead_letters
from turnwright.storage.documents import documents
from turnwright.storage.table import table
from turnwright.tracing import metrics
from turnwright.tracing.handler_errors import with_safe_errors
from turnwright.tracing.log import logger
from turnwright.turn.record_failure import Recorded, record


@with_safe_errors
def handler(event: dict[str, Any], context: object) -> None:
    """An EventBridge event "Step Functions Execution Status Change" with status FAILED, TIMED_OUT or ABORTED.

    It may come twice, or late, or, when it was lost, from Sweep Executions: an execution that runs again (redriven), or
    a turn that is committed, is left alone.
    """
    store = table()
    failures = RecordedFailures(store)
    failure = failures.unrecorded(clients.stepfunctions(), event["detail"]["executionArn"])
    if failure is None:
        return
    outcome = record(store, documents(), dead_letters(), failure)
    failures.recorded(failure)
    if outcome is Recorded.COMMITTED_BEFORE:
        logger().info("turn committed already", turnId=failure.turn_id, failure=failure.summary)
        return
    if outcome in (Recorded.ERASED, Recorded.RUNS_AGAIN):
        logger().info(f"turn {outcome.value} already", turnId=failure.turn_id)
        return
    refused = outcome is Recorded.REFUSED
    metrics.turn_failed(str(failure.request.get("agentId", "")), failure.error, refused=refused)
    message = "turn refused" if refused else "turn dead-lettered"
    logger().info(message, turnId=failure.turn_id, failure=failure.summary)
