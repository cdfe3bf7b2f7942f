"""Turns without a stream: POST /turns, GET /turns/{turnId}, GET /turns/{turnId}/trace."""

from collections.abc import Callable
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response

from turnwright.api.bedrock import async_turns
from turnwright.api.bedrock.async_turns import Answer, AsyncTurns, caller_of
from turnwright.api.bedrock.front_door import FrontDoor
from turnwright.api.request_bodies import query_fields
from turnwright.storage import clients
from turnwright.storage.documents import documents, json_text
from turnwright.storage.settings import settings
from turnwright.storage.table import table
from turnwright.tracing.handler_errors import with_safe_errors

app = APIGatewayRestResolver()


@app.post("/turns")
def start_turn() -> Response[str]:
    door = FrontDoor(table, documents, clients.stepfunctions, settings)
    return _answered(lambda event: async_turns.start(door, event), status=202)


@app.get("/turns/<turn_id>")
def read_turn(turn_id: str) -> Response[str]:
    return _answered(lambda event: _turns().read(turn_id, caller_of(event)))


@app.get("/turns/<turn_id>/trace")
def read_trace(turn_id: str) -> Response[str]:
    return _answered(lambda event: _turns().trace(turn_id, caller_of(event), query_fields(event).get("nextToken")))


@with_safe_errors
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """An API Gateway proxy event -> the proxy response. A path is as good with a trailing slash as without."""
    return app.resolve({**event, "path": event["path"].rstrip("/")}, context)


def _turns() -> AsyncTurns:
    return AsyncTurns(table(), documents(), clients.stepfunctions(), settings().state_machine_arn)


def _answered(action: Callable[[dict[str, Any]], dict[str, Any]], status: int = 200) -> Response[str]:
    event = app.current_event.raw_event
    try:
        answer = Answer(status, json_text(action(event)))
    except Exception as error:  # the edge: whatever it was, the caller gets a typed error and the log the rest
        answer = async_turns.refused(error, event["requestContext"]["requestId"])
    headers: dict[str, Any] = {"x-amzn-ErrorType": answer.error} if answer.error else {}
    return Response(answer.status, content_type="application/json", body=answer.body, headers=headers)
