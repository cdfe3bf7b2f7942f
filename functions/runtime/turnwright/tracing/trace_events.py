"""The trace events: one for each thing that happened, flat, so that CloudWatch Logs Insights knows its fields by name.

`schemas/trace_event.schema.json` says what each type has. The same event is written to the log, kept for a caller who
asked for the trace, and shown on the page. Times are milliseconds; nested values are JSON texts. This module alone
makes events; it is pure. What may be written of them is decided by `payloads.py`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

from turnwright.sessions.values import Step, Turn
from turnwright.storage import keys
from turnwright.storage.clock import iso8601

TraceEvent = Mapping[str, Any]

_json_text = partial(json.dumps, ensure_ascii=False, separators=(",", ":"))


class Type(StrEnum):
    MODEL_INVOCATION = "MODEL_INVOCATION"
    TOOL_SELECTION = "TOOL_SELECTION"
    TOOL_INVOCATION = "TOOL_INVOCATION"
    MEMORY_RETRIEVAL = "MEMORY_RETRIEVAL"
    MEMORY_WRITE = "MEMORY_WRITE"
    FINAL_RESPONSE = "FINAL_RESPONSE"
    TURN_FAILED = "TURN_FAILED"


class Status(StrEnum):
    STARTED = "STARTED"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    REFUSED = "REFUSED"


class CircuitState(StrEnum):
    """A circuit as an attempt found it: HALF_OPEN means that the attempt is its probe."""

    CLOSED = "CLOSED"
    HALF_OPEN = "HALF_OPEN"
    OPEN = "OPEN"


@dataclass(frozen=True, slots=True)
class Source:
    """Where events come from: a turn, a consolidation, or a call of a memory API. What is not known is empty."""

    session_id: str
    agent_id: str
    agent_version: str
    turn_id: str = ""
    memory_id: str = ""
    consolidation_id: str = ""

    @classmethod
    def of_turn(cls, turn: Turn) -> "Source":
        return cls(turn.sessionId, turn.agentId, turn.agentVersion, turn.turnId, _memory_id(turn.actor))

    @classmethod
    def of_session(
        cls, session: keys.SessionId, agent_id: str = "", agent_version: str = "", consolidation_id: str = ""
    ) -> "Source":
        return cls(
            session.session, agent_id, agent_version, "", _memory_id(session.actor), consolidation_id=consolidation_id
        )


@dataclass(frozen=True, slots=True)
class Moment:
    """When an event happened, under which X-Ray trace, and in which step (0: before the first, or of none)."""

    at: int
    trace_id: str
    step: int


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One call of a model: `attempt` counts the calls of a step from 1, over all models. `prompt` and `inference` are
    JSON texts.
    """

    model: str
    attempt: int
    prompt: str
    inference: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """What the model asked for: the call's place among those of its step (from 0), its arguments as JSON text."""

    name: str
    tool_use_id: str
    index: int
    arguments: str


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something failed: a code that can be counted, and a message for people."""

    code: str
    message: str


def model_started(source: Source, moment: Moment, call: ModelCall) -> TraceEvent:
    return _event(source, moment, Type.MODEL_INVOCATION, Status.STARTED, **_model(call))


def model_answered(
    source: Source, moment: Moment, call: ModelCall, step: Step, dollars: float | None = None
) -> TraceEvent:
    """`dollars` is what the call cost by the price file, where that is known."""
    usage = step.usage
    return _event(
        source,
        moment,
        Type.MODEL_INVOCATION,
        Status.SUCCESS,
        **_model(call),
        response=_json_text(step.message),
        responseText=step.text(),
        stopReason=step.stop_reason,
        inputTokens=usage.get("inputTokens", 0),
        outputTokens=usage.get("outputTokens", 0),
        cacheReadInputTokens=usage.get("cacheReadInputTokens", 0),
        cacheWriteInputTokens=usage.get("cacheWriteInputTokens", 0),
        durationMs=step.latency_ms,
        estimatedDollars=dollars,
    )


def model_failed(source: Source, moment: Moment, call: ModelCall, failure: Failure, duration_ms: int) -> TraceEvent:
    return _event(
        source,
        moment,
        Type.MODEL_INVOCATION,
        Status.FAILED,
        **_model(call),
        errorCode=failure.code,
        errorMessage=failure.message,
        durationMs=duration_ms,
    )


def tool_selection(
    source: Source, moment: Moment, call: ToolCall, reasoning: str, refusal: Failure | None = None
) -> TraceEvent:
    """`refusal` says why the call is not made at all: the agent has no such tool."""
    return _event(
        source,
        moment,
        Type.TOOL_SELECTION,
        Status.FAILED if refusal else Status.SUCCESS,
        **_tool(call),
        reasoning=reasoning,
        **_failure(refusal),
    )


def tool_succeeded(
    source: Source,
    moment: Moment,
    call: ToolCall,
    attempt: int,
    result: str,
    duration_ms: int | None,
    circuit: CircuitState | None,
) -> TraceEvent:
    """`duration_ms` is None for a result that was found recorded after its gateway was lost."""
    return _event(
        source,
        moment,
        Type.TOOL_INVOCATION,
        Status.SUCCESS,
        **_tool(call),
        attempt=attempt,
        durationMs=duration_ms,
        circuitState=circuit,
        result=result,
    )


def tool_failed(
    source: Source,
    moment: Moment,
    call: ToolCall,
    attempt: int,
    failure: Failure,
    result: str,
    duration_ms: int,
    retry_in_ms: int | None,
    circuit: CircuitState | None,
) -> TraceEvent:
    """`result` is what the model is told if no other attempt follows; `retry_in_ms` says after how long one does."""
    return _event(
        source,
        moment,
        Type.TOOL_INVOCATION,
        Status.FAILED,
        **_tool(call),
        attempt=attempt,
        durationMs=duration_ms,
        circuitState=circuit,
        **_failure(failure),
        retryScheduledInMs=retry_in_ms,
        result=result,
    )


def memory_retrieval(
    source: Source,
    moment: Moment,
    namespace: str,
    records: Sequence[Mapping[str, Any]],
    duration_ms: int | None,
    status: Status,
    query: str | None,
    failure: Failure | None,
) -> TraceEvent:
    """`query` is None where records were listed and not searched, `duration_ms` if nobody knows how long it took."""
    return _memory(source, moment, Type.MEMORY_RETRIEVAL, namespace, records, duration_ms, status, failure, query=query)


def memory_write(
    source: Source,
    moment: Moment,
    namespace: str,
    records: Sequence[Mapping[str, Any]],
    duration_ms: int | None,
    status: Status,
    failure: Failure | None,
) -> TraceEvent:
    return _memory(source, moment, Type.MEMORY_WRITE, namespace, records, duration_ms, status, failure)


def final_response(
    source: Source, moment: Moment, prompt: str, answer: str, usage: Mapping[str, int], duration_ms: int
) -> TraceEvent:
    """`usage` and `duration_ms` are the whole turn's."""
    return _event(
        source,
        moment,
        Type.FINAL_RESPONSE,
        Status.SUCCESS,
        prompt=prompt,
        answer=answer,
        turnInputTokens=usage.get("inputTokens", 0),
        turnOutputTokens=usage.get("outputTokens", 0),
        durationMs=duration_ms,
    )


def turn_failed(source: Source, moment: Moment, status: Status, failure: Mapping[str, Any]) -> TraceEvent:
    """`failure` is `{"error", "cause", "executionStatus"?, "state"?}`, as the turn's header keeps it."""
    return _event(
        source,
        moment,
        Type.TURN_FAILED,
        status,
        error=failure["error"],
        cause=failure["cause"],
        state=failure.get("state"),
        executionStatus=failure.get("executionStatus"),
    )


def reasoning_of(message: Mapping[str, Any]) -> str:
    """What a model said beside its tool calls: its reasoning, where the model shows that, and its text."""
    texts = [
        block["reasoningContent"]["reasoningText"]["text"]
        for block in message["content"]
        if "reasoningText" in block.get("reasoningContent", {})
    ]
    texts.append("".join(block["text"] for block in message["content"] if "text" in block))
    return "\n".join(text for text in texts if text)


def _event(source: Source, moment: Moment, kind: Type, status: Status, **fields: Any) -> TraceEvent:
    event = {
        "timestamp": iso8601(moment.at),
        "traceId": moment.trace_id,
        "sessionId": source.session_id,
        "turnId": source.turn_id,
        "agentId": source.agent_id,
        "agentVersion": source.agent_version,
        "memoryId": source.memory_id or None,
        "consolidationId": source.consolidation_id or None,
        "step": moment.step,
        "type": kind,
        "status": status,
        **fields,
    }
    return {name: value for name, value in event.items() if value is not None}


def _model(call: ModelCall) -> dict[str, Any]:
    return {
        "model": call.model,
        "attempt": call.attempt,
        "prompt": call.prompt,
        "inferenceConfiguration": call.inference,
    }


def _tool(call: ToolCall) -> dict[str, Any]:
    return {
        "toolName": call.name,
        "toolUseId": call.tool_use_id,
        "index": call.index,
        "arguments": call.arguments,
    }


def _failure(failure: Failure | None) -> dict[str, Any]:
    return {"errorCode": failure.code, "errorMessage": failure.message} if failure else {}


def _memory(
    source: Source,
    moment: Moment,
    kind: Type,
    namespace: str,
    records: Sequence[Mapping[str, Any]],
    duration_ms: int | None,
    status: Status,
    failure: Failure | None,
    **fields: Any,
) -> TraceEvent:
    return _event(
        source,
        moment,
        kind,
        status,
        namespace=namespace,
        **fields,
        records=_json_text(list(records)),
        recordCount=len(records),
        durationMs=duration_ms,
        **_failure(failure),
    )


def _memory_id(actor: str) -> str:
    return "" if actor == keys.NO_ACTOR else actor
