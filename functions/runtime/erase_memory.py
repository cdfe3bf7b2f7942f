"""Erase Memory: erases as much of an actor's memory as there is time for, and says whether there is more."""

from typing import Any, Protocol

from turnwright import clients
from turnwright.documents import documents
from turnwright.handler_errors import with_safe_errors
from turnwright.log import logger
from turnwright.memory.erasure import Erasure
from turnwright.settings import settings
from turnwright.table import table

_LAST_MS = 15_000
"""With less than this left of the function's time nothing new is begun."""


class LambdaContext(Protocol):
    def get_remaining_time_in_millis(self) -> int: ...


@with_safe_errors
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """`{"memoryStore", "actor", "erasureId"}` -> `{"done", "waitSeconds", "erased"}`."""
    store = table()
    erasure = Erasure(
        store,
        documents(),
        clients.stepfunctions(),
        settings().state_machine_arn,
        event["memoryStore"],
        event["actor"],
        event["erasureId"],
        has_time=lambda: context.get_remaining_time_in_millis() > _LAST_MS,
    )
    progress = erasure.run()
    logger().info("memory erased", erasureId=event["erasureId"], progress=progress.encode(), **store.consumed.fields())
    return progress.encode()
