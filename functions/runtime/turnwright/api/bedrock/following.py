"""Following a running turn from outside: its trace events as they are written, and its end, as event stream frames.

The turn's own partition is read, not Step Functions' history, whose API is throttled for everyone at a few requests a
second. Only a turn whose header has not changed for a while is looked up there, since an execution can end without
any state having told the header (`record_failure` does, but it comes by way of EventBridge). What AWS cannot read at
once is asked for again for a while: the turn runs, and its caller need not know.
"""

import base64
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from turnwright.agents.definitions import Tool
from turnwright.agents.versions import load
from turnwright.api import event_stream
from turnwright.api.bedrock.requests import Invocation
from turnwright.api.bedrock.trace_parts import failure_trace, trace_id_of, trace_parts
from turnwright.api.bedrock.wire_errors import failure_reason, frame_of_failure
from turnwright.costs.receipts import of_header
from turnwright.errors import StorageUnavailable
from turnwright.sessions.values import Header, Status
from turnwright.storage import keys
from turnwright.storage.availability import patiently
from turnwright.storage.clock import iso8601, now_ms
from turnwright.storage.documents import Documents, json_text
from turnwright.storage.table import Item, Table
from turnwright.tracing.execution_failures import unrecorded_end

_FIRST_WAIT_SECONDS = 0.02
_LONGEST_WAIT_SECONDS = 0.4
_WAIT_GROWTH = 1.2

_QUIET_SECONDS = 5.0
"""After so long without any change, Step Functions is asked whether the execution still runs."""

_LAST_MS = 3_000
"""With less than this left of the function's time, the caller is told to come back."""


CHUNK_BYTES = 1_000_000
"""The longest chunk: `PartBody` in botocore's service model."""


@dataclass(slots=True)
class _Follower:
    table: Table
    documents: Documents
    turn_id: str
    trace: bool
    agent_alias_id: str
    step: int = 0
    seen: dict[str, tuple[str, int]] = field(default_factory=dict)
    """The items by sort key: the status they had, and how many parts of them were handed out."""

    def look(self, *, consistent: bool = False) -> tuple[list[Mapping[str, Any]], Header | None]:
        """The trace events that are new, and the header.

        The events of the newest step are read again each time, since parallel tools do not write in the order of
        their keys.
        """
        if not self.trace:
            item = patiently(lambda: self.table.get(keys.turn_header(self.turn_id), consistent=consistent))
            return [], Header.decode(item) if item else None
        first, last = f"{keys.TRACE_PREFIX}{self.step:03d}", keys.turn_header(self.turn_id).sk
        items = patiently(
            lambda: list(
                self.table.query(keys.turn_partition(self.turn_id), first, last, consistent=consistent),
            )
        )
        header = Header.decode(items.pop()) if items and items[-1]["SK"] == "TURN" else None
        return [part for item in items for part in self._new_parts(item)], header

    def _new_parts(self, item: Item) -> Sequence[Mapping[str, Any]]:
        """A model call's item is there twice: when it has started, and when it has ended."""
        status, handed_out = self.seen.get(item["SK"], ("", 0))
        if item["status"] == status:
            return ()
        event = patiently(lambda: self.documents.fetch_text(item["event"]))
        parts = trace_parts(event, self.agent_alias_id, lambda name: self._tool(event, name))
        self.seen[item["SK"]] = item["status"], max(handed_out, len(parts))
        self.step = max(self.step, event["step"])
        return parts[handed_out:]

    def _tool(self, event: Mapping[str, Any], name: str) -> Tool | None:
        return patiently(lambda: load(self.table, event["agentId"], event["agentVersion"])).tool(name)


def followed(
    table: Table,
    documents: Documents,
    stepfunctions: Any,
    state_machine_arn: str,
    invocation: Invocation,
    remaining_ms: Callable[[], int],
) -> Iterator[bytes]:
    """The frames of the turn's stream. The last one is its chunk or an exception."""
    follower = _Follower(table, documents, invocation.turn_id, invocation.enable_trace, invocation.agent_alias_id)
    execution_arn = f"{state_machine_arn.replace(':stateMachine:', ':execution:')}:{invocation.turn_id}"
    wait, quiet_since = _FIRST_WAIT_SECONDS, time.monotonic()
    while True:
        parts, header = follower.look()
        for part in parts:
            yield event_stream.event("trace", part)
        if header and header.status is not Status.RUNNING:
            parts, header = follower.look(consistent=True)
            for part in parts:
                yield event_stream.event("trace", part)
            if header and header.status is not Status.RUNNING:
                yield from _end(documents, invocation, header)
                return
        if remaining_ms() < _LAST_MS:
            yield event_stream.exception("internalServerException", {"message": _still_running(invocation.turn_id)})
            return
        if parts:
            wait, quiet_since = _FIRST_WAIT_SECONDS, time.monotonic()
        if time.monotonic() - quiet_since > _QUIET_SECONDS:
            quiet_since = time.monotonic()
            failure = _unrecorded_end(stepfunctions, execution_arn, header)
            if failure:
                parts, header = follower.look(consistent=True)
                for part in parts:
                    yield event_stream.event("trace", part)
                if header and header.status is not Status.RUNNING:
                    yield from _end(documents, invocation, header)
                else:
                    yield from _failure(invocation, header, failure)
                return
        time.sleep(wait)
        wait = min(wait * _WAIT_GROWTH, _LONGEST_WAIT_SECONDS)


def _end(documents: Documents, invocation: Invocation, header: Header) -> Iterator[bytes]:
    """A caller who enabled the trace gets the receipt as its last part; Bedrock has no field for it."""
    receipt = of_header(header) if invocation.enable_trace else None
    if receipt:
        text = json_text({"type": "RECEIPT", **receipt})
        trace = {"customOrchestrationTrace": {"traceId": trace_id_of(invocation.turn_id), "event": {"text": text}}}
        yield event_stream.event("trace", _part(invocation, header, trace))
    if header.status is Status.FAILED:
        yield from _failure(invocation, header, header.failure)
    else:
        answer: str = patiently(lambda: documents.fetch(header.answer))
        for piece in _pieces(answer):
            yield event_stream.event("chunk", {"bytes": base64.b64encode(piece).decode()})


def _pieces(answer: str) -> Iterator[bytes]:
    """The answer in chunks as long as the model allows, none of which ends within a character: clients decode each."""
    encoded = answer.encode()
    start = 0
    while True:
        end = start + CHUNK_BYTES
        while end < len(encoded) and encoded[end] & 0xC0 == 0x80:  # not the first byte of a character
            end -= 1
        yield encoded[start:end]
        if end >= len(encoded):
            return
        start = end


def _failure(invocation: Invocation, header: Header | None, failure: Mapping[str, Any]) -> Iterator[bytes]:
    if invocation.enable_trace:
        trace = failure_trace(invocation.turn_id, failure_reason(invocation.turn_id, failure))
        yield event_stream.event("trace", _part(invocation, header, trace))
    yield event_stream.exception(*frame_of_failure(invocation.turn_id, failure))


def _part(invocation: Invocation, header: Header | None, trace: Mapping[str, Any]) -> dict[str, Any]:
    """A TracePart of what is told about a turn from outside."""
    part = {
        "agentId": invocation.agent_id,
        "agentAliasId": invocation.agent_alias_id,
        "sessionId": invocation.session_id,
        "eventTime": iso8601(now_ms()),
        "trace": trace,
    }
    if header and "agentVersion" in header.fields:
        part["agentVersion"] = header.fields["agentVersion"]
    return part


def _unrecorded_end(stepfunctions: Any, execution_arn: str, header: Header | None) -> Mapping[str, Any] | None:
    try:
        return unrecorded_end(stepfunctions, execution_arn, has_begun=header is not None)
    except StorageUnavailable:
        return None


def _still_running(turn_id: str) -> str:
    return f"turn {turn_id} still runs, and this response cannot stay open longer; repeat the request to join it"
