"""Erase Memory: erases as much of an actor's memory, or of a store, as there is time for; says if there is more."""

from typing import Any, Protocol

from turnwright.api.agentcore.store_erasure import StoreErasure
from turnwright.memory.erasure.erase_memory import Erasure
from turnwright.storage import clients
from turnwright.storage.documents import documents
from turnwright.storage.settings import settings
from turnwright.storage.table import table
from turnwright.tracing.handler_errors import with_safe_errors
from turnwright.tracing.log import logger

_LAST_MS = 15_000
"""With less than this left of the function's time nothing new is begun."""


class LambdaContext(Protocol):
    def get_remaining_time_in_millis(self) -> int: ...


@with_safe_errors
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """`{"memoryStore", "actor"?, "erasureId"}` -> `{"done", "waitSeconds", "erased"}`. Without an actor: a store."""
    store, store_id = table(), event["memoryStore"]

    def has_time() -> bool:
        return context.get_remaining_time_in_millis() > _LAST_MS

    def of_actor(actor: str, erasure_id: str) -> Erasure:
        stepfunctions, machine = clients.stepfunctions(), settings().state_machine_arn
        return Erasure(store, documents(), stepfunctions, machine, store_id, actor, erasure_id, has_time)

    if "actor" in event:
        progress = of_actor(event["actor"], event["erasureId"]).run()
    else:
        progress = StoreErasure(store, store_id, of_actor, has_time).run()
    logger().info("memory erased", erasureId=event["erasureId"], progress=progress.encode(), **store.consumed.fields())
    return progress.encode()
