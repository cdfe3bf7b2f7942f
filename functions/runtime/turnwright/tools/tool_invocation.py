"""One invocation of a tool's function, within a time that nothing can stretch, and what its failure means."""

import json
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, ReadTimeoutError

from turnwright.agents.definitions import Tool
from turnwright.deadline import within
from turnwright.storage import clients
from turnwright.storage.documents import json_text
from turnwright.surrogates import mended
from turnwright.tools import action_groups
from turnwright.tools.action_groups import ToolAnswer
from turnwright.tools.tool_failures import ToolFailure, code_of_function_error, code_of_lambda_error


def invoke(tool: Tool, event: Mapping[str, Any]) -> ToolAnswer:
    """Invokes the tool's function once and reads its answer, or raises ToolFailure.

    The policy's timeoutSeconds are kept by this process's own clock. The SDK never retries, and its socket time-outs
    are a little longer, only so that an abandoned request ends by itself.
    """
    seconds = tool.policy.timeout_seconds
    client = clients.aws_lambda(seconds + 2)

    def request() -> tuple[Mapping[str, Any], bytes]:
        response = client.invoke(FunctionName=tool.function_arn, Payload=json_text(event).encode())
        return response, response["Payload"].read()

    try:
        response, payload = within(seconds, request)
    except (TimeoutError, ReadTimeoutError) as error:
        raise ToolFailure("TIMEOUT", f"{tool.name} gave no answer within {seconds} s") from error
    except ClientError as error:
        code = code_of_lambda_error(
            error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
        )
        raise ToolFailure(code, f"{tool.name} could not be invoked: {error}") from error
    except BotoCoreError as error:
        raise ToolFailure("SERVICE_UNAVAILABLE", f"{tool.name} could not be reached: {error}") from error
    if "FunctionError" in response:
        raise _function_error(tool, payload)
    return action_groups.read_response(payload, tool)


def _function_error(tool: Tool, payload: bytes) -> ToolFailure:
    try:
        error = json.loads(payload)
        error_type, message = str(error.get("errorType") or ""), str(error.get("errorMessage") or "")
    except (ValueError, AttributeError, RecursionError):
        error_type, message = "", payload[:500].decode("utf-8", "replace")
    code = code_of_function_error(error_type, message)
    return ToolFailure(code, mended(f"{tool.name} failed with {error_type or 'an error'}: {message}"))
