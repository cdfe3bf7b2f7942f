"""From an API Gateway proxy event to an operation and back: the edge of the memory API's functions.

Powertools routes and answers. It is given API Gateway's own `resource` as the path, see `operations.py`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response

from turnwright.agentcore.operations import Operation
from turnwright.agentcore.refusals import Answer, Refusal, refusal_of, refused
from turnwright.documents import json_text
from turnwright.log import logger

Action = Callable[[dict[str, Any]], Mapping[str, Any]]
"""What an operation does: its checked fields -> its answer."""


def resolver(*actions: tuple[Operation, Action]) -> APIGatewayRestResolver:
    """The routes of some operations. An action may raise what `refusals` knows; anything else is a ServiceException."""
    app = APIGatewayRestResolver()
    for operation, action in actions:
        app.route(operation.path, method=operation.method)(_responder(app, operation, action))
    return app


def resolve(app: APIGatewayRestResolver, event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """The proxy response. A path is as good with a trailing slash as without."""
    return app.resolve({**event, "path": event["resource"].rstrip("/")}, context)


def answer(operation: Operation, action: Action, event: Mapping[str, Any]) -> Answer:
    """The operation's answer to a proxy event, or why there is none."""
    try:
        body = json_text(action(operation.read(event)))
        return Answer(operation.status, {"Content-Type": "application/json"}, body)
    except Exception as error:  # the edge: whatever it was, the caller gets a typed error and the log the rest
        refusal = refusal_of(error)
        if refusal is None:
            request_id = (event.get("requestContext") or {}).get("requestId", "")
            logger().exception("the request failed", operation=operation.name, requestId=request_id)
            refusal = Refusal(f"the request {request_id} failed inside the runtime; its log says why")
        return refused(refusal)


def _responder(app: APIGatewayRestResolver, operation: Operation, action: Action) -> Callable[[], Response[str]]:
    def respond() -> Response[str]:
        given = answer(operation, action, app.current_event.raw_event)
        headers: dict[str, Any] = {name: value for name, value in given.headers.items() if name != "Content-Type"}
        return Response(given.status, content_type="application/json", body=given.body, headers=headers)

    return respond


def invoked_region(context: Any) -> tuple[str, str, str]:
    """The partition, the Region and the account that the function runs in, from its own ARN."""
    _, partition, _, region, account, *_ = context.invoked_function_arn.split(":")
    return partition, region, account
