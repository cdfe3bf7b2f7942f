"""What a turn did, as the `trace` events of InvokeAgent: written while it runs, only when the caller asked for them.

An event's sort key is its step and its place within the step, so that a repeated handler writes the same event again
instead of a second one. Shapes: `TracePart` in botocore's service model of `bedrock-agent-runtime`.
"""

from collections.abc import Mapping
from typing import Any

from turnwright import keys
from turnwright.action_groups import parameters, request_body
from turnwright.agents import Agent, Tool
from turnwright.clock import expiry, iso8601, now_ms
from turnwright.documents import STATE_BYTES, Documents, json_text
from turnwright.journal import Step
from turnwright.table import Put, Table
from turnwright.turns import JOURNAL_DAYS, Turn

MODEL_INPUT, MODEL_OUTPUT, RATIONALE, TOOL_INPUT, TOOL_OUTPUT, FINAL = "1", "2", "3", "4", "5", "6"


class Traces:
    """The trace events of one turn. Every method does nothing unless the caller enabled the trace."""

    def __init__(self, table: Table, documents: Documents, turn: Turn) -> None:
        self._table = table
        self._documents = documents
        self._turn = turn

    def model_input(self, step: int, agent: Agent, arguments: Mapping[str, Any]) -> None:
        """The prompt: the system texts, messages and tools that ConverseStream is given, as JSON."""
        if not self._turn.trace:
            return
        prompt = {name: arguments[name] for name in ("system", "messages", "toolConfig") if name in arguments}
        inference = agent.inference
        configuration = {
            "temperature": inference.temperature,
            "topP": inference.top_p,
            "maximumLength": inference.max_tokens,
            "stopSequences": list(inference.stop_sequences) if inference.stop_sequences else None,
        }
        self._orchestration(
            step,
            f"{MODEL_INPUT}#{now_ms():013d}",
            "modelInvocationInput",
            {
                "type": "ORCHESTRATION",
                "foundationModel": arguments["modelId"],
                "text": json_text(prompt),
                "inferenceConfiguration": {k: v for k, v in configuration.items() if v is not None},
            },
        )

    def model_output(self, step: Step, agent: Agent) -> None:
        """The raw response, the text beside a tool call as rationale, and what is to be invoked."""
        if not self._turn.trace:
            return
        self._orchestration(
            step.number,
            MODEL_OUTPUT,
            "modelInvocationOutput",
            {
                "rawResponse": {"content": json_text(step.message)},
                "metadata": {
                    "usage": {name: step.usage.get(name, 0) for name in ("inputTokens", "outputTokens")},
                    "totalTimeMs": step.latency_ms,
                },
            },
        )
        tool_uses = step.tool_uses()
        if tool_uses and step.text():
            self._orchestration(step.number, RATIONALE, "rationale", {"text": step.text()})
        for index, tool_use in enumerate(tool_uses):
            tool = agent.tool(tool_use["name"])
            if tool:
                self._orchestration(
                    step.number, f"{TOOL_INPUT}#{index:03d}", "invocationInput", _invocation(tool, tool_use)
                )

    def tool_output(self, step: int, index: int, tool_use_id: str, attempt: int, text: str, started: int) -> None:
        """One attempt's result, or the error that it ended with; `clientRequestId` is its input's `invocationId`."""
        ended = now_ms()
        self._orchestration(
            step,
            f"{TOOL_OUTPUT}#{index:03d}#{attempt:03d}",
            "observation",
            {
                "type": "ACTION_GROUP",
                "actionGroupInvocationOutput": {
                    "text": text,
                    "metadata": {
                        "clientRequestId": tool_use_id,
                        "startTime": iso8601(started),
                        "endTime": iso8601(ended),
                        "totalTimeMs": ended - started,
                    },
                },
            },
        )

    def final_response(self, step: int, text: str) -> None:
        self._orchestration(step, FINAL, "observation", {"type": "FINISH", "finalResponse": {"text": text}})

    def _orchestration(self, step: int, order: str, kind: str, body: Mapping[str, Any]) -> None:
        if not self._turn.trace:
            return
        now = now_ms()
        part = trace_part(
            self._turn,
            now,
            {"orchestrationTrace": {kind: {"traceId": f"{self._turn.turnId}-{step}", **body}}},
        )
        stowed = self._documents.stow(part, lambda digest: keys.turn_object(self._turn.turnId, digest), STATE_BYTES)
        self._table.put(
            Put(
                keys.trace_event(self._turn.turnId, step, order),
                {"event": json_text(stowed), "expiresAt": expiry(now, JOURNAL_DAYS)},
            )
        )


def trace_part(turn: Turn, at: int, trace: Mapping[str, Any]) -> dict[str, Any]:
    """A TracePart; `trace` is one member of the union `Trace`."""
    return {
        "agentId": turn.agentId,
        "agentAliasId": turn.agentAliasId,
        "agentVersion": turn.agentVersion,
        "sessionId": turn.sessionId,
        "eventTime": iso8601(at),
        "trace": dict(trace),
    }


def failure_trace(turn_id: str, reason: str) -> dict[str, Any]:
    """The member `failureTrace` of a turn that failed."""
    return {"failureTrace": {"traceId": turn_id, "failureReason": reason}}


def _invocation(tool: Tool, tool_use: Mapping[str, Any]) -> dict[str, Any]:
    arguments = tool_use["input"]
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
            "invocationId": tool_use["toolUseId"],
            "parameters": parameters(tool, arguments),
        },
    }
