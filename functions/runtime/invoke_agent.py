"""The front door: InvokeAgent. Starts the turn's execution, or joins it, and answers with Bedrock's event stream."""

import base64
from typing import Any

from turnwright.api.bedrock.front_door import Answer, FrontDoor
from turnwright.api.streaming_runtime import LambdaContext, StreamedResponse
from turnwright.storage import clients
from turnwright.storage.documents import documents
from turnwright.storage.settings import settings
from turnwright.storage.table import table
from turnwright.tracing.handler_errors import with_safe_errors


@with_safe_errors
def stream_handler(event: dict[str, Any], context: LambdaContext) -> StreamedResponse:
    """An API Gateway proxy event -> the response's head, and its body as it comes (see `streaming_runtime.py`)."""
    answer = _answer(event, context)
    return {"statusCode": answer.status, "headers": dict(answer.headers)}, answer.body


@with_safe_errors
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """The same, buffered: for a stack whose parameter StreamResponses is false."""
    answer = _answer(event, context)
    return {
        "statusCode": answer.status,
        "headers": dict(answer.headers),
        "body": base64.b64encode(b"".join(answer.body)).decode(),
        "isBase64Encoded": True,
    }


def _answer(event: dict[str, Any], context: LambdaContext) -> Answer:
    door = FrontDoor(table, documents, clients.stepfunctions, settings)
    return door.invoke_agent(event, context.get_remaining_time_in_millis)
