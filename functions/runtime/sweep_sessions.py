"""Sweep Sessions: ends the sessions that were idle for too long, and starts consolidations that were not started."""

from typing import Any

from turnwright import clients
from turnwright.log import logger
from turnwright.memory.sweeping import Sweep, starter
from turnwright.settings import settings
from turnwright.table import table


def handler(event: dict[str, Any], context: Any) -> dict[str, int]:
    """An EventBridge scheduled event -> `{"ended", "started", "postponed"}`. Two runs at once do no harm."""
    store = table()
    start = starter(clients.stepfunctions(), settings().consolidation_state_machine_arn)
    swept = Sweep(store, start, lambda: context.get_remaining_time_in_millis() / 1000).run()
    done = {"ended": swept.ended, "started": swept.started, "postponed": swept.postponed}
    logger().info("swept", done=done, **store.consumed.fields())
    return done
