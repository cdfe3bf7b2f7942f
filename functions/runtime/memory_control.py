"""AgentCore's control plane for memory: the memory stores and their strategies."""

from typing import Any

from turnwright.api.agentcore.routes import invoked_region, resolve, resolver
from turnwright.api.agentcore.store_operations import Defaults, Memories, Place
from turnwright.memory.erasure.erasures import Erasures, request_identity
from turnwright.storage import clients
from turnwright.storage.settings import settings
from turnwright.storage.table import Table
from turnwright.tracing.handler_errors import with_safe_errors


def _memories(store: Table) -> Memories:
    machine = settings().erase_memory_state_machine_arn
    return Memories(
        store,
        Place(*invoked_region(app.lambda_context)),
        Defaults(settings().memory_models, settings().memory_embedding_model),
        Erasures(clients.stepfunctions(), machine, request_identity(app.current_event.raw_event)),
    )


app = resolver(
    {
        "CreateMemory": lambda store, fields: _memories(store).create(fields),
        "GetMemory": lambda store, fields: _memories(store).get(fields),
        "ListMemories": lambda store, fields: _memories(store).page(fields),
        "UpdateMemory": lambda store, fields: _memories(store).update(fields),
        "DeleteMemory": lambda store, fields: _memories(store).delete(fields),
        "ListTagsForResource": lambda store, fields: _memories(store).tags(fields),
        "TagResource": lambda store, fields: _memories(store).tag(fields),
        "UntagResource": lambda store, fields: _memories(store).untag(fields),
    }
)


@with_safe_errors
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """An API Gateway proxy event -> the proxy response."""
    return resolve(app, event, context)
