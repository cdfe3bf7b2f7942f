"""From what a tool can do wrong to the error code that policies, traces and the model know it by.

| what happened | code | counts for the breaker |
| --- | --- | --- |
| Lambda throttled the call (429) | THROTTLING | yes |
| Lambda had a fault (5xx), or was not reached | SERVICE_UNAVAILABLE | yes |
| no answer within the policy's timeoutSeconds, or the function's own time-out | TIMEOUT | yes |
| the function raised; its class name is a code of this table, or a usual name of one | that code | as that code |
| the function raised anything else | TOOL_ERROR | yes |
| the function's process ended | TOOL_CRASHED | yes |
| the function ran out of memory | OUT_OF_MEMORY | yes |
| the answer does not have Bedrock's form, or is not text | INVALID_RESPONSE | yes |
| the answer is longer than Lambda's 6 MB | RESPONSE_TOO_LARGE | no |
| the function is not there | NOT_FOUND | no |
| the gateway may not invoke the function | ACCESS_DENIED | no |
| the tool answered `responseState: FAILURE` | FAILURE | no |
| the tool asks for other arguments (`responseState: REPROMPT`) | REPROMPT | no |
| the arguments break the tool's schema, or take too long to check; nothing was invoked | INVALID_ARGUMENTS | no |
| the agent has no such tool; nothing was invoked | UNKNOWN_TOOL | no |
| the reply asks for more calls than one step makes; nothing was invoked | TOO_MANY_CALLS | no |
| the circuit is open; nothing was invoked | CIRCUIT_OPEN | no |
| the gateway was lost, and no result is recorded: the tool may have run | OUTCOME_UNKNOWN | no |

Powertools' resolvers answer an exception with a normal body, `Error: <class>: <message>`. It is taken for one if that
is how the body begins and the class is named like an exception: a code of this table, a usual name of one, or a name
that ends in Error or Exception. Any other text is the tool's own, whatever it begins with.
"""

import re

SERVICE_FAILURES = frozenset(
    {
        "THROTTLING",
        "SERVICE_UNAVAILABLE",
        "TIMEOUT",
        "TOOL_ERROR",
        "TOOL_CRASHED",
        "OUT_OF_MEMORY",
        "INVALID_RESPONSE",
    }
)
"""The codes that say something about the tool's service, and not about what it was asked: they count for the breaker.
"""

NOT_THE_SERVICES_FAULT = frozenset(
    {
        "RESPONSE_TOO_LARGE",
        "NOT_FOUND",
        "ACCESS_DENIED",
        "FAILURE",
        "REPROMPT",
        "INVALID_ARGUMENTS",
        "UNKNOWN_TOOL",
        "TOO_MANY_CALLS",
        "CIRCUIT_OPEN",
        "OUTCOME_UNKNOWN",
    }
)

CODES = SERVICE_FAILURES | NOT_THE_SERVICES_FAULT

_USUAL_NAMES = {
    "throttling": "THROTTLING",
    "throttled": "THROTTLING",
    "toomanyrequests": "THROTTLING",
    "requestlimitexceeded": "THROTTLING",
    "ratelimit": "THROTTLING",
    "ratelimitexceeded": "THROTTLING",
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
    """One attempt failed: a code of this module's table, and a message for the model and the trace.

    `invoked` says whether the function was called; a function may raise any code of the table.
    """

    def __init__(self, code: str, message: str, *, invoked: bool = True) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.invoked = invoked


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


_RUNTIME_CODES = {
    "Runtime.OutOfMemory": "OUT_OF_MEMORY",
    "Runtime.ExitError": "TOOL_CRASHED",
    "Extension.Crash": "TOOL_CRASHED",
    "Function.ResponseSizeTooLarge": "RESPONSE_TOO_LARGE",
    "Runtime.MarshalError": "INVALID_RESPONSE",
    "Sandbox.Timedout": "TIMEOUT",
}


def code_of_function_error(error_type: str, message: str) -> str:
    """The code of a function error as Lambda reports it: the runtime's own words first, then the exception's name.

    A time-out without a type is what Lambda reported before it had types for it; a process that the kernel killed has
    run out of memory.
    """
    if not error_type and "Task timed out after" in message:
        return "TIMEOUT"
    if error_type == "Runtime.ExitError" and "signal: killed" in message:
        return "OUT_OF_MEMORY"
    return _RUNTIME_CODES.get(error_type) or code_of_exception(error_type)


def code_of_lambda_error(code: str, http_status: int) -> str:
    """The code of an error of Lambda's Invoke API itself: the function did not run."""
    if code in _LAMBDA_CODES:
        return _LAMBDA_CODES[code]
    if http_status == 429:
        return "THROTTLING"
    return "SERVICE_UNAVAILABLE" if http_status >= 500 else "TOOL_ERROR"
