"""The trace events: one for each thing that happened, flat, so that CloudWatch Logs Insights knows its fields by name.

`schemas/trace_event.schema.json` says what each type has. The same event is written to the log, kept for a caller who
asked for the trace, and shown on the page. Times are milliseconds; nested values are JSON texts. Here are the values
that events are made of; `traces.py` says which type has which. What may be written of them, `payloads.py` decides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from turnwright.sessions.values import Turn
from turnwright.storage import keys
from turnwright.storage.clock import iso8601

TraceEvent = Mapping[str, Any]


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

    def fields(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "attempt": self.attempt,
            "prompt": self.prompt,
            "inferenceConfiguration": self.inference,
        }


@dataclass(frozen=True, slots=True)
class ToolCall:
    """What the model asked for: the call's place among those of its step (from 0), its arguments as JSON text."""

    name: str
    tool_use_id: str
    index: int
    arguments: str

    def fields(self) -> dict[str, Any]:
        return {
            "toolName": self.name,
            "toolUseId": self.tool_use_id,
            "index": self.index,
            "arguments": self.arguments,
        }


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something failed: a code that can be counted, and a message for people."""

    code: str
    message: str


def failure_fields(failure: Failure | None) -> dict[str, Any]:
    return {"errorCode": failure.code, "errorMessage": failure.message} if failure else {}


@dataclass(frozen=True, slots=True)
class MemoryAccess:
    """Records that were read from a namespace (its whole path) or written to it, or why not.

    `records` are JSON values such as `{"recordId", "text", "score"}`; one that was removed has an `operation` that says
    so. `latency_ms` is None if nobody knows how long it took, `query` where records were not searched. `call` tells
    apart several accesses of one namespace in one step, the same when the handler is repeated: a tool use's id, say.
    """

    namespace: str
    records: Sequence[Mapping[str, Any]]
    latency_ms: int | None
    query: str | None = None
    failure: Failure | None = None
    step: int = 0
    call: str = ""
    left_out: str = ""
    """Of a namespace that was not looked at as a whole: what was left out."""

    @property
    def status(self) -> Status:
        """REFUSED by the namespace's access policy, or FAILED for any other reason."""
        if self.failure is None:
            return Status.SUCCESS
        return Status.REFUSED if self.failure.code == "ACCESS_DENIED" else Status.FAILED


def trace_event(source: Source, moment: Moment, kind: Type, status: Status, fields: Mapping[str, Any]) -> TraceEvent:
    """The event with the fields of its type; what is None is left out."""
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


def reasoning_of(message: Mapping[str, Any]) -> str:
    """What a model said beside its tool calls: its reasoning, where the model shows that, and its text."""
    texts = [
        block["reasoningContent"]["reasoningText"]["text"]
        for block in message["content"]
        if "reasoningText" in block.get("reasoningContent", {})
    ]
    texts.append("".join(block["text"] for block in message["content"] if "text" in block))
    return "\n".join(text for text in texts if text)


def _memory_id(actor: str) -> str:
    return "" if actor == keys.NO_ACTOR else actor
