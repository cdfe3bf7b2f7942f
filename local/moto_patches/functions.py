"""Lambda invocations."""

import base64
from typing import Any

from moto.awslambda.models import LambdaFunction
from moto.core.exceptions import JsonRESTError

from local.moto_patches.hooks import FunctionCall, connected
from local.moto_patches.replacing import replace


class NobodyRunsFunctions(JsonRESTError):  # type: ignore[misc]
    code = 500

    def __init__(self) -> None:
        super().__init__("ServiceException", "No server that runs functions is connected")


def hand_invocations_over() -> None:
    """Stock moto runs functions in Docker containers, waits for asynchronous ones, and calls every error
    "Handled".
    """

    def invoke(function: Any, body: Any, request_headers: Any, response_headers: Any) -> bytes:
        if (hooks := connected()) is None:
            raise NobodyRunsFunctions
        headers = {name.lower(): value for name, value in dict(request_headers or {}).items()}
        context = headers.get("x-amz-client-context")
        call = FunctionCall(
            function=function,
            payload=_payload(body),
            client_context=base64.b64decode(context).decode() if context else None,
            trace_header=headers.get("x-amzn-trace-id"),
        )
        invocation_type = headers.get("x-amz-invocation-type", "RequestResponse")
        if invocation_type == "DryRun":
            return b""
        if invocation_type == "Event":
            hooks.invoke_later(call)
            return b""
        answer = hooks.invoke_function(call)
        response_headers["x-amz-executed-version"] = "$LATEST"
        response_headers["x-amz-log-result"] = base64.b64encode(answer.log_tail.encode()).decode()
        if answer.function_error:
            response_headers["x-amz-function-error"] = answer.function_error
        return answer.payload

    replace(LambdaFunction, "invoke", lambda original: invoke)


def _payload(body: Any) -> bytes:
    if isinstance(body, str):
        body = body.encode()
    return body or b"{}"


def apply() -> None:
    hand_invocations_over()
