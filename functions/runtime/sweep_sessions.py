"""Sweep Sessions: ends the sessions that were idle for too long, and starts consolidations that were not started."""

from typing import Any

from turnwright.memory.session_ends.sweep_sessions import Sweep, starter
from turnwright.storage import clients
from turnwright.storage.settings import settings
from turnwright.storage.table import table
from turnwright.tracing.handler_errors import with_safe_errors
from turnwright.tracing.log import logger


@with_safe_errors
def handler(event: dict[str, Any], context: Any) -> dict[str, int]:
    """An EventBridge scheduled event -> `{"ended", "started", "postponed"}`. Two runs at once do no harm."""
    store = table()
    start = starter(clients.stepfunctions(), settings().consolidation_state_machine_arn)
    swept = Sweep(store, start, lambda: context.get_remaining_time_in_millis() / 1000).run()
    done = {"ended": swept.ended, "started": swept.started, "postponed": swept.postponed}
    logger().info("swept", done=done, **store.consumed.fields())
    return done
