"""Bedrock's contract with an action group's Lambda function: the event it gets and the response it gives.

Source: "Configure Lambda functions to send information that an Amazon Bedrock agent elicits from the user" in the
Bedrock user guide, function-details form. One field is added to the event: `idempotencyKey`, the same in every
attempt of a call.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from turnwright.agents import Agent, Tool
from turnwright.attributes import ATTRIBUTES_BYTES, size
from turnwright.surrogates import mended_json
from turnwright.tool_failures import ToolFailure

if TYPE_CHECKING:
    from turnwright.turns import Turn


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """What a tool answered. Attributes are None where the response leaves them out: then they are unchanged."""

    text: str
    session_attributes: dict[str, str] | None = None
    prompt_session_attributes: dict[str, str] | None = None


def event(
    turn: "Turn",
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
        "function": tool.name,
        "parameters": parameters(tool, tool_use["input"]),
        "sessionAttributes": dict(session_attributes),
        "promptSessionAttributes": dict(prompt_session_attributes),
        "idempotencyKey": idempotency_key,
    }


def parameters(tool: Tool, arguments: Mapping[str, Any]) -> list[dict[str, str]]:
    """The arguments as Bedrock sends them: with their types, and each value as a string."""
    types = {parameter.name: parameter.type for parameter in tool.parameters}
    return [
        {"name": name, "type": types.get(name, "string"), "value": _parameter_value(value, types.get(name))}
        for name, value in arguments.items()
    ]


def _parameter_value(value: Any, parameter_type: str | None) -> str:
    """A string as it is, anything else as JSON. 5.0 is an integer to JSON Schema, but "5.0" is none to a tool."""
    if parameter_type == "integer" and isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def read_response(payload: bytes, tool: Tool) -> ToolAnswer:
    """Raises ToolFailure with INVALID_RESPONSE naming the place, or with the code of the tool's own `responseState`."""
    try:
        document = mended_json(json.loads(payload))
    except (ValueError, RecursionError) as error:
        raise _invalid(tool, f"is not JSON: {error}") from error
    response = _mapping(tool, document, "response")
    function_response = _mapping(tool, response, "functionResponse", "response")
    bodies = _mapping(tool, function_response, "responseBody", "response.functionResponse")
    text = _body(tool, bodies)
    match function_response.get("responseState"):
        case None:
            pass
        case "FAILURE":
            raise ToolFailure("TOOL_ERROR", text)
        case "REPROMPT":
            raise ToolFailure("REPROMPT", text)
        case other:
            raise _invalid(tool, f"has the responseState {other!r}; FAILURE and REPROMPT are known")
    return ToolAnswer(
        text,
        _attributes(tool, document, "sessionAttributes"),
        _attributes(tool, document, "promptSessionAttributes"),
    )


def _mapping(tool: Tool, parent: Any, name: str, place: str = "") -> Mapping[str, Any]:
    where = f"{place}.{name}" if place else name
    value = parent.get(name) if isinstance(parent, Mapping) else None
    if not isinstance(value, Mapping):
        raise _invalid(tool, f"has no object {where}")
    return value


def _body(tool: Tool, bodies: Mapping[str, Any]) -> str:
    for content_type in ("TEXT", "text"):
        entry = bodies.get(content_type)
        if isinstance(entry, Mapping) and isinstance(entry.get("body"), str):
            return str(entry["body"])
    raise _invalid(tool, "has no text response.functionResponse.responseBody.TEXT.body")


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
