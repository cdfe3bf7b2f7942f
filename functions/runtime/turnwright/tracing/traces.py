"""What happened, told where it is read: a line in the log for each event, and for a caller who enabled the trace an
item in the turn's partition, which the stream (`following.py`), the API and the page read.

Without that caller nothing is written to the table. An item's sort key is the event's step and its place within the
step, so that a repeated handler writes the same item again and no second one; the log may have a repeated event twice.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from turnwright.agents.definitions import Agent
from turnwright.costs import prices
from turnwright.errors import ModelError, ModelRejected, ModelThrottled
from turnwright.sessions.values import JOURNAL_DAYS, Step, Turn
from turnwright.storage import keys
from turnwright.storage.clock import expiry, now_ms
from turnwright.storage.documents import STATE_BYTES, Documents, json_text
from turnwright.storage.settings import settings
from turnwright.storage.table import Put, Table
from turnwright.tracing import trace_events
from turnwright.tracing.log import log_event
from turnwright.tracing.payloads import PAYLOAD_FIELDS, payloads
from turnwright.tracing.trace_events import (
    CircuitState,
    Failure,
    ModelCall,
    Moment,
    Source,
    Status,
    ToolCall,
    TraceEvent,
)

LINE_BYTES = 200 * 1024
"""The bound of a log line. Lambda and its log shippers have bounds near 256 KiB, and cut what is longer in two."""

_LONG_TEXT = 4_000
"""In a line that is too long, texts of more characters go to the bucket, and the line names the object."""

_MODEL, _SELECTION, _MEMORY, _INVOCATION, _FINAL, _FAILED = "1", "2", "3", "4", "5", "6"
_NO_STEP_YET, _AFTER_ALL_STEPS = 0, 999


class Traces:
    """The trace events of one turn; those that have none (a consolidation, a memory API) are in the log alone."""

    def __init__(self, source: Source, store: tuple[Table, Documents] | None = None, *, kept: bool = False) -> None:
        """Without a store for what happens outside of a turn (`Source.of_session`), or in one that never began."""
        self._source = source
        self._store = store
        self._kept = kept

    @classmethod
    def of_turn(cls, table: Table, documents: Documents, turn: Turn) -> "Traces":
        return cls(Source.of_turn(turn), (table, documents), kept=turn.trace)

    # ---- Models ----

    def model_started(self, step: int, redrive: int, call: ModelCall) -> None:
        """Kept and not logged: the caller sees the prompt while the model works, the log has it with the answer."""
        if self._kept:
            self._keep(
                trace_events.model_started(self._source, self._moment(step), call), _model_order(redrive, call.attempt)
            )

    def model_answered(self, redrive: int, call: ModelCall, step: Step, agent: Agent) -> None:
        """The answer, and a selection for each tool call in it."""
        moment, dollars = self._moment(step.number), prices.current().of_model(step.model, step.usage)
        answered = trace_events.model_answered(self._source, moment, call, step, dollars)
        self._tell(answered, _model_order(redrive, call.attempt))
        reasoning = trace_events.reasoning_of(step.message)
        for index, tool_use in enumerate(step.tool_uses()):
            name = tool_use["name"]
            refusal = None if agent.tool(name) else Failure("UNKNOWN_TOOL", f"the agent has no tool {name}")
            selected = trace_events.tool_selection(self._source, moment, tool_call(index, tool_use), reasoning, refusal)
            self._tell(selected, f"{_SELECTION}#{index:03d}")

    def model_failed(self, step: int, redrive: int, call: ModelCall, error: ModelError, duration_ms: int) -> None:
        failure = Failure(_model_error_code(error), str(error))
        self._tell(
            trace_events.model_failed(self._source, self._moment(step), call, failure, duration_ms),
            _model_order(redrive, call.attempt),
        )

    def asked(self, call: ModelCall, answer: Step) -> None:
        """The answer to a call outside of a turn's steps: whatever tool it names is the form of the answer."""
        moment = self._moment(_NO_STEP_YET)
        self._tell(trace_events.model_answered(self._source, moment, call, answer), _model_order(0, call.attempt))

    # ---- Tools ----

    def tool_succeeded(
        self,
        step: int,
        call: ToolCall,
        attempt: int,
        result: str,
        started: int | None,
        circuit: CircuitState | None = None,
    ) -> None:
        """One attempt that gave the result; `started` is None if nobody knows any more when it began."""
        moment = self._moment(step)
        duration_ms = None if started is None else moment.at - started
        self._tell(
            trace_events.tool_succeeded(self._source, moment, call, attempt, result, duration_ms, circuit),
            _invocation_order(call, attempt),
        )

    def tool_failed(
        self,
        step: int,
        call: ToolCall,
        attempt: int,
        failure: Failure,
        result: str,
        started: int,
        retry_in_ms: int | None,
        circuit: CircuitState | None = None,
    ) -> None:
        """One attempt that failed; `result` is the report that the model gets if it was the last."""
        moment = self._moment(step)
        self._tell(
            trace_events.tool_failed(
                self._source, moment, call, attempt, failure, result, moment.at - started, retry_in_ms, circuit
            ),
            _invocation_order(call, attempt),
        )

    # ---- Memory ----

    def memory_retrieval(
        self,
        namespace: str,
        records: Sequence[Mapping[str, Any]],
        latency_ms: int | None,
        *,
        step: int = _NO_STEP_YET,
        status: Status = Status.SUCCESS,
        query: str | None = None,
        failure: Failure | None = None,
        call: str = "",
    ) -> None:
        """Records that were read from a namespace (its whole path), or why not: REFUSED by its access policy, FAILED.

        `records` are JSON values such as `{"recordId", "text", "score"}`. `call` tells apart several retrievals of one
        namespace in one step, the same when the handler is repeated: a tool use's id, say.
        """
        self._tell(
            trace_events.memory_retrieval(
                self._source, self._moment(step), namespace, records, latency_ms, status, query, failure
            ),
            f"{_MEMORY}#R#{_part(namespace)}#{_part(call)}",
        )

    def memory_write(
        self,
        namespace: str,
        records: Sequence[Mapping[str, Any]],
        latency_ms: int | None,
        *,
        step: int = _NO_STEP_YET,
        status: Status = Status.SUCCESS,
        failure: Failure | None = None,
        call: str = "",
    ) -> None:
        """Records that were written to a namespace, or would have been; as `memory_retrieval`. A record that was
        removed has an `operation` that says so."""
        self._tell(
            trace_events.memory_write(
                self._source, self._moment(step), namespace, records, latency_ms, status, failure
            ),
            f"{_MEMORY}#W#{_part(namespace)}#{_part(call)}",
        )

    # ---- The turn's end ----

    def final_response(self, step: int, prompt: str, answer: str, usage: Mapping[str, int], started: int) -> None:
        """Told before the commit, behind which nobody reads on. Should the commit fail, TURN_FAILED follows."""
        moment = self._moment(step)
        self._tell(
            trace_events.final_response(self._source, moment, prompt, answer, usage, moment.at - started), _FINAL
        )

    def turn_failed(self, failure: Mapping[str, Any], *, refused: bool = False) -> None:
        """The turn ended without a commit; `refused` says that it never began, since a rule forbade it."""
        status = Status.REFUSED if refused else Status.FAILED
        event = trace_events.turn_failed(self._source, self._moment(_NO_STEP_YET), status, failure)
        self._tell(event, _FAILED, sorted_as=_AFTER_ALL_STEPS)

    # ---- Writing ----

    def _moment(self, step: int) -> Moment:
        return Moment(now_ms(), settings().trace_id, step)

    def _tell(self, event: TraceEvent, order: str, *, sorted_as: int | None = None) -> None:
        shown = payloads().event(event)
        log_event(self._short_enough(shown))
        if self._kept:
            self._put(shown, order, sorted_as)

    def _keep(self, event: TraceEvent, order: str) -> None:
        self._put(payloads().event(event), order, None)

    def _put(self, event: TraceEvent, order: str, sorted_as: int | None) -> None:
        if self._store is None:
            return
        table, documents = self._store
        turn_id = self._source.turn_id
        stowed = documents.stow(event, lambda digest: keys.turn_object(turn_id, digest), STATE_BYTES)
        item = {
            "event": json_text(stowed),
            "status": event["status"],
            "expiresAt": expiry(now_ms(), JOURNAL_DAYS),
        }
        table.put(Put(keys.trace_event(turn_id, event["step"] if sorted_as is None else sorted_as, order), item))

    def _short_enough(self, event: TraceEvent) -> TraceEvent:
        """The event, or one whose long texts are in the bucket; without a turn, whose objects expire, they are cut."""
        if sum(len(value) for value in event.values() if isinstance(value, str)) * 4 <= LINE_BYTES:
            return event
        if len(json_text(event).encode()) <= LINE_BYTES:
            return event
        short = dict(event)
        for name in PAYLOAD_FIELDS & event.keys():
            text = event[name]
            if len(text) <= _LONG_TEXT:
                continue
            if self._store is None or not self._source.turn_id:
                short[name] = f"{text[:_LONG_TEXT]}\n[cut: {_LONG_TEXT} of {len(text)} characters are shown]"
                continue
            _, documents = self._store
            stowed = documents.stow(text, lambda digest: keys.turn_object(self._source.turn_id, digest), bound=0)
            short.pop(name)
            short[f"{name}Bytes"], short[f"{name}Object"] = stowed["bytes"], stowed["object"]
        return short


def tool_call(index: int, tool_use: Mapping[str, Any]) -> ToolCall:
    """A `toolUse` block, at its place in the step."""
    return ToolCall(tool_use["name"], tool_use["toolUseId"], index, json_text(tool_use["input"]))


def _model_order(redrive: int, attempt: int) -> str:
    """A redriven state counts its retries from the beginning."""
    return f"{_MODEL}#{redrive:03d}#{attempt:03d}"


def _invocation_order(call: ToolCall, attempt: int) -> str:
    return f"{_INVOCATION}#{call.index:03d}#{attempt:03d}"


def _model_error_code(error: ModelError) -> str:
    match error:
        case ModelThrottled():
            return "THROTTLING"
        case ModelRejected():
            return "MODEL_REJECTED"
        case _:
            return "SERVICE_UNAVAILABLE"


def _part(text: str) -> str:
    return quote(text, safe="")
