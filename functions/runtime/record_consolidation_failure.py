"""Record Consolidation Failure: an execution of Consolidate Memory ended badly. Marks its segment, dead-letters it."""

from typing import Any

from turnwright.executions.recorded_failures import RecordedFailures
from turnwright.memory.consolidation.record_consolidation_failure import record
from turnwright.memory.session_ends.consolidations import Consolidation
from turnwright.storage import clients
from turnwright.storage.dead_letters import dead_letters
from turnwright.storage.table import table
from turnwright.tracing.handler_errors import with_safe_errors
from turnwright.tracing.log import logger_for


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
    log = logger_for(Consolidation.decode(failure.request).log_fields)
    if dead_lettered:
        log.error("consolidation failed", failure=failure.summary)
    else:
        log.info("consolidation was written, or its actor is erased", failure=failure.summary)
