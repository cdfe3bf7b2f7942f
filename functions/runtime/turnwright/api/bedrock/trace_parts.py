"""A trace event as the `trace` events of InvokeAgent have it: Bedrock's TracePart.

Source of the shapes: `TracePart` in botocore's service model of `bedrock-agent-runtime`. What Bedrock has no shape for
(memory) is a custom orchestration event, whose text is the event itself.
"""

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from turnwright.agents.definitions import Tool
from turnwright.storage.clock import iso8601
from turnwright.tools.action_groups import parameters, request_body
from turnwright.tracing.trace_events import Status, TraceEvent, Type

_TURN_CHARACTERS = 12
"""Which leaves room in a `traceId` for a step of three digits."""


def trace_parts(event: TraceEvent, agent_alias_id: str, tool: Callable[[str], Tool | None]) -> list[dict[str, Any]]:
    """The parts of an event, in order; those of a model call that has STARTED are the first of those it ends with.

    `tool` finds a tool of the event's agent. TURN_FAILED has no part: `failure_trace` tells it, from the turn's header.
    """
    trace_id = trace_id_of(event["turnId"], event["step"])
    match event["type"]:
        case Type.MODEL_INVOCATION:
            bodies = [{"modelInvocationInput": {"traceId": trace_id, **_model_input(event)}}]
            if event["status"] == Status.SUCCESS:
                bodies.append({"modelInvocationOutput": {"traceId": trace_id, **_model_output(event)}})
        case Type.TOOL_SELECTION:
            bodies = []
            if event["index"] == 0 and event.get("reasoning"):
                bodies.append({"rationale": {"traceId": trace_id, "text": event["reasoning"]}})
            selected = tool(event["toolName"]) if event["status"] == Status.SUCCESS else None
            if selected:
                bodies.append({"invocationInput": {"traceId": trace_id, **_invocation_input(event, selected)}})
        case Type.TOOL_INVOCATION:
            bodies = [{"observation": {"traceId": trace_id, **_observation(event)}}]
        case Type.FINAL_RESPONSE:
            final = {"type": "FINISH", "finalResponse": _text(event, "answer")}
            bodies = [{"observation": {"traceId": trace_id, **final}}]
        case Type.MEMORY_RETRIEVAL | Type.MEMORY_WRITE:
            text = json.dumps(dict(event), ensure_ascii=False, separators=(",", ":"))
            return [
                _part(
                    event, agent_alias_id, {"customOrchestrationTrace": {"traceId": trace_id, "event": {"text": text}}}
                )
            ]
        case _:
            return []
    return [_part(event, agent_alias_id, {"orchestrationTrace": body}) for body in bodies]


def trace_id_of(turn_id: str, step: int | None = None) -> str:
    """The `traceId` of a step's parts, or of what is told of the turn as a whole: at most 16 characters, as the model
    has it, so that it holds the beginning of the turn's id.
    """
    return turn_id[:_TURN_CHARACTERS] if step is None else f"{turn_id[:_TURN_CHARACTERS]}-{step}"


def failure_trace(turn_id: str, reason: str) -> dict[str, Any]:
    """The member `failureTrace` of a turn that failed."""
    return {"failureTrace": {"traceId": trace_id_of(turn_id), "failureReason": reason}}


def _part(event: TraceEvent, agent_alias_id: str, trace: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "agentId": event["agentId"],
        "agentAliasId": agent_alias_id,
        "agentVersion": event["agentVersion"],
        "sessionId": event["sessionId"],
        "eventTime": event["timestamp"],
        "trace": trace,
    }


def _model_input(event: TraceEvent) -> dict[str, Any]:
    return {
        "type": "ORCHESTRATION",
        "foundationModel": event["model"],
        **_text(event, "prompt"),
        "inferenceConfiguration": json.loads(event["inferenceConfiguration"]),
    }


def _model_output(event: TraceEvent) -> dict[str, Any]:
    return {
        "rawResponse": {"content": event["response"]} if "response" in event else {},
        "metadata": {
            "usage": {name: event[name] for name in ("inputTokens", "outputTokens")},
            "totalTimeMs": event["durationMs"],
        },
    }


def _invocation_input(event: TraceEvent, tool: Tool) -> dict[str, Any]:
    arguments = _arguments(event)
    called: dict[str, Any] = {"function": tool.name}
    if not tool.is_memory:
        called["executionType"] = "LAMBDA"
    if tool.operation:
        called |= {"apiPath": tool.operation.path, "verb": tool.operation.method.lower()}
        del called["function"]
        body = request_body(tool, arguments)
        if body:
            content_type, properties = body
            called["requestBody"] = {"content": {content_type: properties}}
    return {
        "invocationType": "ACTION_GROUP",
        "actionGroupInvocationInput": {
            "actionGroupName": tool.action_group,
            **called,
            "invocationId": event["toolUseId"],
            "parameters": parameters(tool, arguments),
        },
    }


def _arguments(event: TraceEvent) -> Mapping[str, Any]:
    """None at the level METADATA, and where `arguments` itself is a name that REDACTED takes out."""
    try:
        arguments = json.loads(event.get("arguments", "{}"))
    except ValueError:
        return {}
    return arguments if isinstance(arguments, Mapping) else {}


def _observation(event: TraceEvent) -> dict[str, Any]:
    metadata: dict[str, Any] = {"clientRequestId": event["toolUseId"]}
    if "durationMs" in event:
        ended = round(datetime.fromisoformat(event["timestamp"]).timestamp() * 1000)
        metadata |= {
            "startTime": iso8601(ended - event["durationMs"]),
            "endTime": event["timestamp"],
            "totalTimeMs": event["durationMs"],
        }
    return {
        "type": "ACTION_GROUP",
        "actionGroupInvocationOutput": {**_text(event, "result"), "metadata": metadata},
    }


def _text(event: TraceEvent, field: str) -> dict[str, str]:
    """Left out where the level of detail leaves it out."""
    return {"text": event[field]} if field in event else {}
