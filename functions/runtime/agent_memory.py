"""Agent Memory: GetAgentMemory and DeleteAgentMemory of Bedrock's agent runtime."""

from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response

from turnwright.api.bedrock import wire_errors
from turnwright.api.bedrock.agent_memory import delete_agent_memory, get_agent_memory
from turnwright.api.request_bodies import query_fields
from turnwright.memory.erasure.erasures import Erasures, request_identity
from turnwright.storage import clients
from turnwright.storage.documents import documents, json_text
from turnwright.storage.settings import settings
from turnwright.storage.table import table
from turnwright.tracing.handler_errors import with_safe_errors
from turnwright.tracing.log import logger

_MEMORIES = "/agents/<agentId>/agentAliases/<agentAliasId>/memories"
app = APIGatewayRestResolver()


@with_safe_errors
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """An API Gateway proxy event -> the answer."""
    return app.resolve(event, context)


@app.get(_MEMORIES)
def read(agentId: str, agentAliasId: str) -> Response[str]:  # noqa: N803 - the path's own names
    store = table()
    body = get_agent_memory(store, agentId, agentAliasId, query_fields(app.current_event.raw_event))
    logger().info("memory listed", **store.consumed.fields())
    return _answer(200, body)


@app.delete(_MEMORIES)
def delete(agentId: str, agentAliasId: str) -> Response[str]:  # noqa: N803 - the path's own names
    query, machine = query_fields(app.current_event.raw_event), settings().erase_memory_state_machine_arn
    erasures = Erasures(clients.stepfunctions(), machine, request_identity(app.current_event.raw_event))
    store = table()
    delete_agent_memory(store, documents(), erasures, agentId, agentAliasId, query)
    logger().info("memory deleted", **store.consumed.fields())
    return _answer(202, {})


def refuse(error: Exception) -> Response[str]:
    refusal = wire_errors.of_exception(error, app.current_event.request_context.request_id or "")
    if refusal.status >= 500:
        logger().exception("the request failed")
    return Response(refusal.status, "application/json", refusal.body.decode(), dict(refusal.headers))


app.exception_handler(Exception)(refuse)


def _answer(status: int, body: dict[str, Any]) -> Response[str]:
    return Response(status, "application/json", json_text(body))
