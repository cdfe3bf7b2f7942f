"""AgentCore's control plane for memory: the memory stores and their strategies."""

from typing import Any

from turnwright import clients
from turnwright.agentcore import control_operations as operations
from turnwright.agentcore.control import Defaults, Memories, Place
from turnwright.agentcore.routes import invoked_region, resolve, resolver
from turnwright.memory.erasures import Erasures, request_identity
from turnwright.settings import settings
from turnwright.table import table


def _memories() -> Memories:
    machine = settings().erase_memory_state_machine_arn
    return Memories(
        table(),
        Place(*invoked_region(app.lambda_context)),
        Defaults(settings().memory_models, settings().memory_embedding_model),
        Erasures(clients.stepfunctions(), machine, request_identity(app.current_event.raw_event)),
    )


app = resolver(
    (operations.CREATE_MEMORY, lambda fields: _memories().create(fields)),
    (operations.GET_MEMORY, lambda fields: _memories().get(fields)),
    (operations.LIST_MEMORIES, lambda fields: _memories().page(fields)),
    (operations.UPDATE_MEMORY, lambda fields: _memories().update(fields)),
    (operations.DELETE_MEMORY, lambda fields: _memories().delete(fields)),
)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """An API Gateway proxy event -> the proxy response."""
    return resolve(app, event, context)
