"""Bedrock's contract with an action group's Lambda function: the event it gets and the response it gives.

Source: "Configure Lambda functions to send information that an Amazon Bedrock agent elicits from the user" in the
Bedrock user guide, in both its forms: function details, and API schema (a tool with an `operation`). One field is added
to the event: `idempotencyKey`, the same in every attempt of a call.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from turnwright.agents.definitions import Agent, Body, Tool
from turnwright.sessions.attributes import ATTRIBUTES_BYTES, size
from turnwright.sessions.values import Turn
from turnwright.surrogates import mended_json
from turnwright.tools.tool_arguments import json_type
from turnwright.tools.tool_failures import CODES, ToolFailure, code_of_exception

_POWERTOOLS_ERROR = re.compile(r"Error: ([A-Za-z_]\w*): (.*)", re.DOTALL)
_NO_CONTENT = (204, 205)
_STATUS_CODES = {
    408: "TIMEOUT",
    429: "THROTTLING",
    502: "SERVICE_UNAVAILABLE",
    503: "SERVICE_UNAVAILABLE",
    504: "TIMEOUT",
}
"""The codes of the statuses that mean the same for every API; the others go by their hundreds."""


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """What a tool answered. Attributes are None where the response leaves them out: then they are unchanged."""

    text: str
    session_attributes: dict[str, str] | None = None
    prompt_session_attributes: dict[str, str] | None = None


# ---- The event ----


def event(
    turn: Turn,
    agent: Agent,
    tool: Tool,
    tool_use: Mapping[str, Any],
    *,
    input_text: str,
    idempotency_key: str,
    session_attributes: Mapping[str, str],
    prompt_session_attributes: Mapping[str, str],
) -> dict[str, Any]:
    """The event of one attempt."""
    return {
        "messageVersion": "1.0",
        "agent": {
            "name": agent.name,
            "id": turn.agentId,
            "alias": turn.agentAliasId,
            "version": turn.agentVersion,
        },
        "inputText": input_text,
        "sessionId": turn.sessionId,
        "actionGroup": tool.action_group,
        **_request(tool, tool_use["input"]),
        "sessionAttributes": dict(session_attributes),
        "promptSessionAttributes": dict(prompt_session_attributes),
        "idempotencyKey": idempotency_key,
    }


def _request(tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
    if tool.operation is None:
        return {"function": tool.name, "parameters": parameters(tool, arguments)}
    request: dict[str, Any] = {
        "apiPath": tool.operation.path,
        "httpMethod": tool.operation.method,
        "parameters": parameters(tool, arguments),
    }
    body = request_body(tool, arguments)
    if body is not None:
        content_type, properties = body
        request["requestBody"] = {"content": {content_type: {"properties": properties}}}
    return request


def parameters(tool: Tool, arguments: Mapping[str, Any]) -> list[dict[str, str]]:
    """The arguments that are no part of a request body, as Bedrock sends them: with their types, as strings."""
    types = {parameter.name: parameter.type for parameter in tool.parameters}
    if tool.operation is None:
        return [_typed(name, types.get(name) or "string", value) for name, value in arguments.items()]
    return _typed_all((name, value, types[name]) for name, value in arguments.items() if name in types)


def request_body(tool: Tool, arguments: Mapping[str, Any]) -> tuple[str, list[dict[str, str]]] | None:
    """The content type and the properties of an operation's request body; None if the call has no body."""
    body = tool.operation.body if tool.operation else None
    if body is None:
        return None
    given = _body_of(tool, body, arguments)
    if given is None:
        return None
    return body.contentType, _typed_all((name, value, body.types.get(name)) for name, value in given.items())


def _body_of(tool: Tool, body: Body, arguments: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if body.argument is not None:
        whole = arguments.get(body.argument)
        return whole if isinstance(whole, Mapping) else None
    taken = {parameter.name for parameter in tool.parameters}
    properties = {name: value for name, value in arguments.items() if name not in taken}
    return properties if properties or body.required else None


def _typed_all(values: Iterable[tuple[str, Any, str | None]]) -> list[dict[str, str]]:
    """Names, values and types as the API form has them. It has texts only, so that a null is left out."""
    return [_typed(name, kind or json_type(value), value) for name, value, kind in values if value is not None]


def _typed(name: str, kind: str, value: Any) -> dict[str, str]:
    """A string as it is, anything else as JSON."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return {"name": name, "type": kind, "value": text}


# ---- The response ----


def read_response(payload: bytes, tool: Tool) -> ToolAnswer:
    """Raises ToolFailure with INVALID_RESPONSE naming the place, or with the code of what the tool itself says."""
    try:
        document = mended_json(json.loads(payload))
    except (ValueError, RecursionError) as error:
        raise _invalid(tool, f"is not JSON: {error}") from error
    response = _mapping(tool, document, "response")
    text = _function_text(tool, response) if tool.operation is None else _api_text(tool, response)
    return ToolAnswer(
        text,
        _attributes(tool, document, "sessionAttributes"),
        _attributes(tool, document, "promptSessionAttributes"),
    )


def _function_text(tool: Tool, response: Mapping[str, Any]) -> str:
    function_response = _mapping(tool, response, "functionResponse", "response")
    place = "response.functionResponse"
    bodies = _mapping(tool, function_response, "responseBody", place)
    for content_type in ("TEXT", "text"):
        entry = bodies.get(content_type)
        if isinstance(entry, Mapping) and isinstance(entry.get("body"), str):
            text = str(entry["body"])
            break
    else:
        raise _invalid(tool, f"has no text {place}.responseBody.TEXT.body")
    _check_state(tool, function_response, text)
    _check_body(text)
    return text


def _api_text(tool: Tool, response: Mapping[str, Any]) -> str:
    status = response.get("httpStatusCode", 200)
    if not isinstance(status, int) or isinstance(status, bool) or not 200 <= status < 600:
        raise _invalid(tool, f"has no status of an answer, 200 to 599, as response.httpStatusCode, but {status!r}")
    text = _api_body(tool, response, status)
    _check_state(tool, response, text)
    code = _code_of_status(status)
    if code is not None:
        raise ToolFailure(code, text or f"{tool.name} answered with status {status} and nothing else")
    if status == 200:
        _check_body(text)
    return text


def _api_body(tool: Tool, response: Mapping[str, Any], status: int) -> str:
    bodies = response.get("responseBody")
    entries = list(bodies.items()) if isinstance(bodies, Mapping) else []
    texts = {
        name: entry["body"]
        for name, entry in entries
        if isinstance(entry, Mapping) and isinstance(entry.get("body"), str) and _is_text(name)
    }
    if texts:
        return str(texts.get("application/json", next(iter(texts.values()))))
    if status in _NO_CONTENT:
        return ""
    place = "response.responseBody"
    if not isinstance(bodies, Mapping):
        form = "; it has the form for functions, functionResponse" if "functionResponse" in response else ""
        raise _invalid(tool, f"has no object {place}{form}")
    binary = [name for name, _ in entries if not _is_text(name)]
    if binary:
        raise _invalid(tool, f"has the content type {binary[0]} in {place}; text/* and JSON are taken")
    raise _invalid(tool, f"has no text {place}.{entries[0][0] if entries else 'application/json'}.body")


def _is_text(content_type: str) -> bool:
    name = content_type.partition(";")[0].strip().lower()
    return name == "text" or name.startswith("text/") or name.endswith(("/json", "+json"))


def _code_of_status(status: int) -> str | None:
    """The code of an API's answer that is no success; 2xx and 3xx are."""
    if status < 400:
        return None
    return _STATUS_CODES.get(status, "TOOL_ERROR" if status >= 500 else "FAILURE")


def _check_state(tool: Tool, response: Mapping[str, Any], text: str) -> None:
    """Raises ToolFailure with the code of a `responseState`."""
    match response.get("responseState"):
        case None:
            return
        case "FAILURE" | "REPROMPT" as state:
            raise ToolFailure(state, text)
        case other:
            raise _invalid(tool, f"has the responseState {other!r}; FAILURE and REPROMPT are known")


def failure_in_body(text: str) -> ToolFailure | None:
    """The exception that a Powertools resolver answered as a body, or None if the text is the tool's own.

    Such a body is `Error: <class>: <message>`, or that as a JSON string, with a class that is named like an exception
    (`tool_failures.py`).
    """
    if text.startswith('"Error: '):
        try:
            text = json.loads(text)
        except ValueError:
            return None
    found = _POWERTOOLS_ERROR.fullmatch(text)
    if not found or not _is_exception_name(found[1]):
        return None
    return ToolFailure(code_of_exception(found[1]), f"{found[1]}: {found[2]}")


def _is_exception_name(name: str) -> bool:
    if name in CODES or name.endswith(("Error", "Exception")):
        return True
    return name[0].isupper() and code_of_exception(name) != "TOOL_ERROR"


def _check_body(text: str) -> None:
    failure = failure_in_body(text)
    if failure is not None:
        raise failure


def _mapping(tool: Tool, parent: Any, name: str, place: str = "") -> Mapping[str, Any]:
    where = f"{place}.{name}" if place else name
    value = parent.get(name) if isinstance(parent, Mapping) else None
    if not isinstance(value, Mapping):
        raise _invalid(tool, f"has no object {where}")
    return value


def _attributes(tool: Tool, document: Mapping[str, Any], name: str) -> dict[str, str] | None:
    value = document.get(name)
    if value is None:
        return None
    if not isinstance(value, Mapping) or not all(isinstance(entry, str) for entry in value.values()):
        raise _invalid(tool, f"has {name} that are not an object of strings")
    if size(value) > ATTRIBUTES_BYTES:
        raise _invalid(tool, f"has {name} of {size(value)} bytes of JSON; at most {ATTRIBUTES_BYTES} are taken")
    return dict(value)


def _invalid(tool: Tool, fault: str) -> ToolFailure:
    return ToolFailure("INVALID_RESPONSE", f"the response of {tool.name} {fault}")
