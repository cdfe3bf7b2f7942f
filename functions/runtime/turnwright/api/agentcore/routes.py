"""From an API Gateway proxy event to an operation and back: the edge of the memory API's functions.

Powertools routes and answers. It is given API Gateway's own `resource` as the path, see `operations.py`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response

from turnwright.api.agentcore.operations import Operation, operations
from turnwright.api.agentcore.refusals import Answer, Refusal, refusal_of, refused
from turnwright.api.streaming_runtime import StreamedResponse
from turnwright.storage.documents import json_text
from turnwright.storage.table import Table, table
from turnwright.tracing.log import logger

_PIECE_BYTES = 64 * 1024

Action = Callable[[Table, dict[str, Any]], Mapping[str, Any]]
"""What an operation does: the table and its checked fields -> its answer."""


def resolver(actions: Mapping[str, Action]) -> APIGatewayRestResolver:
    """The routes of operations, given by their names. An action may raise what `refusals` knows; anything else is a
    ServiceException.
    """
    app = APIGatewayRestResolver()
    for name, action in actions.items():
        operation = operations()[name]
        app.route(operation.path, method=operation.method)(_responder(app, operation, action))
    return app


def resolve(app: APIGatewayRestResolver, event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """The proxy response. A path is as good with a trailing slash as without."""
    return app.resolve({**event, "path": event["resource"].rstrip("/")}, context)


def streamed(response: Mapping[str, Any]) -> StreamedResponse:
    """A proxy response as a streamed one: its head, and its body in pieces."""
    headers = {name: values[-1] for name, values in response["multiValueHeaders"].items()}
    body = response["body"].encode()
    pieces = (body[start : start + _PIECE_BYTES] for start in range(0, len(body), _PIECE_BYTES))
    return {"statusCode": response["statusCode"], "headers": headers}, pieces


def answer(
    operation: Operation, action: Callable[[dict[str, Any]], Mapping[str, Any]], event: Mapping[str, Any]
) -> Answer:
    """The operation's answer to a proxy event, or why there is none."""
    try:
        body = json_text(action(operation.read(event)))
        return Answer(operation.status, {"Content-Type": "application/json"}, body if operation.status != 204 else "")
    except Exception as error:  # the edge: whatever it was, the caller gets a typed error and the log the rest
        refusal = refusal_of(error)
        if refusal is None:
            request_id = (event.get("requestContext") or {}).get("requestId", "")
            logger().exception("the request failed", operation=operation.name, requestId=request_id)
            refusal = Refusal(f"the request {request_id} failed inside the runtime; its log says why")
        return refused(refusal, operation.errors)


def _responder(app: APIGatewayRestResolver, operation: Operation, action: Action) -> Callable[[], Response[str]]:
    def respond() -> Response[str]:
        store = table()
        given = answer(operation, lambda fields: action(store, fields), app.current_event.raw_event)
        logger().info("answered", operation=operation.name, status=given.status, **store.consumed.fields())
        headers: dict[str, Any] = {name: value for name, value in given.headers.items() if name != "Content-Type"}
        return Response(given.status, content_type="application/json", body=given.body, headers=headers)

    return respond


def invoked_region(context: Any) -> tuple[str, str, str]:
    """The partition, the Region and the account that the function runs in, from its own ARN."""
    _, partition, _, region, account, *_ = context.invoked_function_arn.split(":")
    return partition, region, account
