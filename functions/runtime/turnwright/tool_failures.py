"""From what a tool can do wrong to the error code that policies, traces and the model know it by.

| what happened | code |
| --- | --- |
| Lambda throttled the call (429) | THROTTLING |
| Lambda had a fault (5xx), or was not reached | SERVICE_UNAVAILABLE |
| no answer within the policy's timeoutSeconds, or the function's own time-out | TIMEOUT |
| the function is not there | NOT_FOUND |
| the gateway may not invoke the function | ACCESS_DENIED |
| the function raised; its class name is a code of this table, or a usual name of one | that code |
| the function raised anything else, died, or answered `responseState: FAILURE` | TOOL_ERROR |
| the answer does not have Bedrock's form | INVALID_RESPONSE |
| the tool asks for other arguments (`responseState: REPROMPT`) | REPROMPT |
| the model's arguments break the tool's schema; nothing was invoked | INVALID_ARGUMENTS |
| the agent has no such tool; nothing was invoked | UNKNOWN_TOOL |
"""

import re

CODES = frozenset(
    {
        "THROTTLING",
        "SERVICE_UNAVAILABLE",
        "TIMEOUT",
        "NOT_FOUND",
        "ACCESS_DENIED",
        "TOOL_ERROR",
        "INVALID_RESPONSE",
        "REPROMPT",
        "INVALID_ARGUMENTS",
        "UNKNOWN_TOOL",
    }
)

_USUAL_NAMES = {
    "throttling": "THROTTLING",
    "throttled": "THROTTLING",
    "toomanyrequests": "THROTTLING",
    "requestlimitexceeded": "THROTTLING",
    "provisionedthroughputexceeded": "THROTTLING",
    "serviceunavailable": "SERVICE_UNAVAILABLE",
    "connect": "SERVICE_UNAVAILABLE",
    "connection": "SERVICE_UNAVAILABLE",
    "endpointconnection": "SERVICE_UNAVAILABLE",
    "connectionrefused": "SERVICE_UNAVAILABLE",
    "connectionreset": "SERVICE_UNAVAILABLE",
    "timeout": "TIMEOUT",
    "timedout": "TIMEOUT",
    "connecttimeout": "TIMEOUT",
    "readtimeout": "TIMEOUT",
    "accessdenied": "ACCESS_DENIED",
}


class ToolFailure(Exception):
    """One attempt failed: a code of this module's table, and a message for the model and the trace."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def code_of_exception(error_type: str) -> str:
    """The code of an exception class's name, such as `ThrottlingException`, `bank.errors.Throttled` or `THROTTLING`."""
    name = error_type.rpartition(".")[2]
    if name in CODES:
        return name
    letters = re.sub(r"[^a-z]", "", name.lower())
    stem = re.sub(r"(exception|error)$", "", letters)
    return _USUAL_NAMES.get(stem, "TOOL_ERROR")


_LAMBDA_CODES = {
    "TooManyRequestsException": "THROTTLING",
    "ThrottlingException": "THROTTLING",
    "ResourceNotFoundException": "NOT_FOUND",
    "AccessDeniedException": "ACCESS_DENIED",
    "RequestTooLargeException": "INVALID_ARGUMENTS",
}


def code_of_lambda_error(code: str, http_status: int) -> str:
    """The code of an error of Lambda's Invoke API itself: the function did not run."""
    if code in _LAMBDA_CODES:
        return _LAMBDA_CODES[code]
    if http_status == 429:
        return "THROTTLING"
    return "SERVICE_UNAVAILABLE" if http_status >= 500 else "TOOL_ERROR"
