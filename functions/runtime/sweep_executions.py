"""Sweep Executions: finds executions that ended badly without anybody having been told, and tells who records that."""

from typing import Any

from turnwright.executions.sweep_executions import SweepExecutions, invoker
from turnwright.storage import clients
from turnwright.storage.settings import settings
from turnwright.storage.table import table
from turnwright.tracing.handler_errors import with_safe_errors
from turnwright.tracing.log import logger

_HAND_OVER_SECONDS = 5


@with_safe_errors
def handler(event: dict[str, Any], context: Any) -> dict[str, int]:
    """An EventBridge scheduled event -> `{"lost"}`: how many failures were handed over. Two runs at once do no harm."""
    store, hand_over = table(), invoker(clients.aws_lambda(_HAND_OVER_SECONDS))
    sweep = SweepExecutions(
        store, clients.stepfunctions(), hand_over, lambda: context.get_remaining_time_in_millis() / 1000
    )
    done = {"lost": sweep.run(settings().failure_recorders)}
    logger().info("swept", done=done, **store.consumed.fields())
    return done
