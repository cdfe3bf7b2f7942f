"""How much of what people, models and tools say is written where operators read it: logs, trace events, dead letters,
and what a handler raises, which Lambda logs and Step Functions keeps.

| TracePayloads | texts, arguments, prompts, results, records, error messages |
| --- | --- |
| FULL | as they are |
| METADATA | left out; their size and digest say whether two are the same |
| REDACTED | without the named fields and patterns (`redaction.py`) |

The journal and the session hold what was really said, since the turn works with it.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

from turnwright.errors import (
    CommitConflict,
    InvalidRequest,
    LeaseLost,
    NotFound,
    ToolAttemptFailed,
    ToolFailedTurn,
    TurnRefused,
    UnknownSchemaVersion,
)
from turnwright.storage.settings import settings
from turnwright.tracing.redaction import MASK, BrokenPattern, Redaction, split_list

PAYLOAD_FIELDS = frozenset(
    {
        "answer",
        "arguments",
        "cause",
        "errorMessage",
        "prompt",
        "query",
        "reasoning",
        "records",
        "response",
        "responseText",
        "result",
    }
)
"""The fields of trace events, of any type, that hold what somebody said."""

_CALLERS_IDS = ("sessionId", "memoryId", "namespace", "toolName")
"""Identifiers that somebody chose, and might have chosen to be a secret. The others are made here."""

_IDS_IN_LETTERS = ("sessionId", "memoryId", "actor", "caller")
"""Those of the letters; the tool that one names is the agent's."""

_NOT_A_TEXT = frozenset(
    {
        "agentId",
        "agentVersion",
        "consolidationId",
        "erasureId",
        "level",
        "location",
        "service",
        "timestamp",
        "toolUseId",
        "turnId",
        "xray_trace_id",
    }
)
_HIDDEN = re.compile(r"\[\d+ characters\]")

_OWN_WORDS = (
    CommitConflict,
    InvalidRequest,
    LeaseLost,
    NotFound,
    ToolFailedTurn,
    TurnRefused,
    UnknownSchemaVersion,
)
"""Exceptions whose messages are made of identifiers and rules, or were made safe before."""


class Level(StrEnum):
    FULL = "FULL"
    METADATA = "METADATA"
    REDACTED = "REDACTED"


class InvalidPayloads(Exception):
    """A parameter of the stack that says what is written is wrong. The message names it."""


@dataclass(frozen=True, slots=True)
class Payloads:
    """The level, and what REDACTED takes out."""

    level: Level
    redaction: Redaction

    @property
    def full(self) -> bool:
        return self.level is Level.FULL

    def event(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """The trace event as it may be written."""
        match self.level:
            case Level.FULL:
                return dict(event)
            case Level.METADATA:
                return _measured(event)
            case Level.REDACTED:
                return {name: self._field(name, value) for name, value in event.items()}

    def identified(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a letter, which names sessions, actors and callers as an event does."""
        if self.level is not Level.REDACTED:
            return dict(fields)
        return {name: self._shown(name, value) if name in _IDS_IN_LETTERS else value for name, value in fields.items()}

    def redacted(self, text: str) -> str:
        """The text without what REDACTED takes out. It is redacted before it is cut: half a secret matches nothing."""
        return self.redaction.text(text) if self.level is Level.REDACTED else text

    def error(self, text: str) -> str:
        """An error message as it may be raised, logged and kept."""
        if self.level is Level.METADATA:
            return text if _HIDDEN.fullmatch(text) else f"[{len(text)} characters]"
        return self.redacted(text)

    def error_of(self, error: Exception) -> str:
        """The message with which a handler may raise the exception."""
        if isinstance(error, ToolAttemptFailed):
            return str(error)  # a report that the gateway has made safe, and that the state machine parses
        if self.level is Level.METADATA and isinstance(error, _OWN_WORDS):
            return str(error)
        return self.error(str(error))

    def log_record(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        """A line of the log that is not a trace event."""
        match self.level:
            case Level.FULL:
                return record
            case Level.METADATA:
                shown = {name: value for name, value in record.items() if name != "exception"}
                trace = shown.get("stack_trace")
                if isinstance(trace, Mapping):
                    shown["stack_trace"] = {**trace, "value": self.error(str(trace.get("value", "")))}
                return shown
            case Level.REDACTED:
                return {
                    name: value if name in _NOT_A_TEXT else self.redaction.value({name: value}).get(name, MASK)
                    for name, value in record.items()
                }

    def _field(self, name: str, value: Any) -> Any:
        return self._shown(name, value) if name in PAYLOAD_FIELDS or name in _CALLERS_IDS else value

    def _shown(self, name: str, value: str | None) -> str | None:
        if value is None:
            return None
        return MASK if self.redaction.names(name) else self.redaction.text(value)


def _measured(event: Mapping[str, Any]) -> dict[str, Any]:
    measured: dict[str, Any] = {}
    for name, value in event.items():
        if name in PAYLOAD_FIELDS:
            encoded = value.encode()
            measured[f"{name}Bytes"] = len(encoded)
            measured[f"{name}Digest"] = hashlib.sha256(encoded).hexdigest()
        else:
            measured[name] = value
    return measured


def payloads() -> Payloads:
    """What the environment of this function says. Raises InvalidPayloads for parameters that contradict each other:
    better no turn than one in the clear.
    """
    configured = settings()
    return read(
        configured.trace_payloads or Level.FULL, configured.trace_redact_fields, configured.trace_redact_patterns
    )


@lru_cache(maxsize=8)
def read(level: str, fields: str, patterns: str) -> Payloads:
    """From the parameters TracePayloads, TraceRedactFields and TraceRedactPatterns. Raises InvalidPayloads."""
    if level not in Level.__members__:
        raise InvalidPayloads(f"TracePayloads: {level} is none of {', '.join(Level)}")
    names, expressions = split_list(fields), split_list(patterns)
    if level == Level.REDACTED and not names and not expressions:
        raise InvalidPayloads(
            "TracePayloads: REDACTED takes out TraceRedactFields and TraceRedactPatterns; both are empty"
        )
    try:
        return Payloads(Level(level), Redaction.of(names, expressions))
    except BrokenPattern as error:
        raise InvalidPayloads(f"TraceRedactPatterns: {error}") from error
