"""The answer to what no route serves: an operation of Bedrock's agent services that this runtime does not have, a
method that a path does not take, a path that there is not.

Which operations there are says `unsupported_operations.json`, which `python -m local.deployment.service_operations`
writes, each with an error that its model declares and no client retries. Which of them are supported nothing says here:
those have routes of their own, and their requests never come this way.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_suffix(".json")
"""`{service: {error: {operation: "METHOD /path/{parameter}"}}}`"""

STATUS = {"ValidationException": 400, "ResourceNotFoundException": 404, "AccessDeniedException": 403}
"""The errors that refuse an operation, by preference, as all four services have them."""

OWN = "turnwright"
"""The service whose operations Bedrock does not have."""

_AGENT_FILES = "agents are files in agents/, which a deployment publishes"
_INSTEAD = {
    "InvokeInlineAgent": "describe the agent in a file in agents/, and call InvokeAgent",
    "InvokeAgentRuntime": "InvokeAgent of bedrock-agent-runtime runs a turn, and so does POST /turns",
    ("bedrock-agent", "agents"): _AGENT_FILES,
    ("bedrock-agentcore-control", "runtimes"): _AGENT_FILES,
    ("bedrock-agent-runtime", "sessions"): "InvokeAgent keeps the sessions; CreateEvent and ListEvents of "
    "bedrock-agentcore write and read them",
}
"""What there is in place of an operation, or of a service's operations under a path."""


@dataclass(frozen=True, slots=True)
class Operation:
    service: str
    name: str
    error: str
    method: str
    segments: tuple[str, ...]

    def fits(self, segments: Sequence[str]) -> bool:
        return len(segments) == len(self.segments) and all(
            bool(given) if wanted.startswith("{") else given == wanted
            for wanted, given in zip(self.segments, segments, strict=True)
        )

    @property
    def literals(self) -> list[bool]:
        """Grows with how closely the path is described, segment by segment."""
        return [not segment.startswith("{") for segment in self.segments]

    @property
    def instead(self) -> str:
        found = _INSTEAD.get(self.name) or _INSTEAD.get((self.service, self.segments[0]))
        return found or f"a client of {self.service} without an endpoint_url calls AWS, which has it"


@cache
def operations() -> tuple[Operation, ...]:
    return tuple(
        Operation(service, name, error, route.partition(" ")[0], _segments(route.partition(" ")[2]))
        for service, errors in json.loads(FILE.read_text()).items()
        for error, routes in errors.items()
        for name, route in routes.items()
    )


def answer(event: Mapping[str, Any]) -> dict[str, Any]:
    """An API Gateway proxy event -> the proxy response that refuses it, in the services' own form."""
    method, path = event["httpMethod"], event["path"]
    there = [operation for operation in operations() if operation.fits(_segments(path))]
    closest = max((operation.literals for operation in there), default=[])
    there = [operation for operation in there if operation.literals == closest]
    called = [operation for operation in there if operation.method == method]
    if called:
        # Services share a few paths, and a request does not say which of them it means.
        names = " or ".join(f"{operation.name} of {operation.service}" for operation in called)
        instead = "; ".join(dict.fromkeys(operation.instead for operation in called))
        error = called[0].error
        return _refusal(STATUS[error], error, f"{names} is not supported by this runtime: {instead}")
    if there:
        taken = ", ".join(f"{operation.method} ({operation.name})" for operation in there)
        allowed = {"Allow": ", ".join(sorted({operation.method for operation in there}))}
        return _refusal(
            405, "ValidationException", f"the path {path} does not take {method}; it takes {taken}", allowed
        )
    return _refusal(404, "ResourceNotFoundException", f"no operation has the path {path}")


def _segments(path: str) -> tuple[str, ...]:
    """Of a percent-encoded path; a slash at its end does not matter."""
    return tuple(path.removesuffix("/").split("/")[1:])


def _refusal(status: int, error: str, message: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    # `reason` is required of AgentCore's ValidationException, and unknown to the others.
    body = {"__type": error, "message": message, "reason": "CannotParse"}
    return {
        "statusCode": status,
        "headers": {"Content-Type": "application/json", "x-amzn-ErrorType": error, **(headers or {})},
        "body": json.dumps(body),
    }
