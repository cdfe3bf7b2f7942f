"""What happened, told where it is read: a line in the log for each event, and for a caller who enabled the trace an
item in the turn's partition, which the stream (`api/bedrock/following.py`), the API and the console read.

Without that caller nothing is written to the table. An item's sort key is the event's step and its place within the
step, so that a repeated handler writes the same item again and no second one; the log may have a repeated event twice.
An event that AWS cannot take just now is in the log alone: a trace costs no turn its answer.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from turnwright.costs import prices
from turnwright.errors import ModelAccessDenied, ModelError, ModelRejected, ModelThrottled, StorageUnavailable
from turnwright.sessions.values import JOURNAL_DAYS, Step, Turn
from turnwright.storage import keys
from turnwright.storage.clock import expiry, now_ms
from turnwright.storage.documents import STATE_BYTES, Documents, json_text
from turnwright.storage.settings import settings
from turnwright.storage.table import Put, Table
from turnwright.tracing.log import log_event, logger
from turnwright.tracing.payloads import PAYLOAD_FIELDS, payloads
from turnwright.tracing.trace_events import (
    CircuitState,
    Failure,
    MemoryAccess,
    ModelCall,
    Moment,
    Source,
    Status,
    ToolCall,
    TraceEvent,
    Type,
    failure_fields,
    reasoning_of,
    trace_event,
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

    @property
    def agent_id(self) -> str:
        """Whose events these are; "" for a store that no agent has."""
        return self._source.agent_id

    # ---- Models ----

    def model_started(self, step: int, redrive: int, call: ModelCall) -> None:
        """Kept and not logged: the caller sees the prompt while the model works, the log has it with the answer."""
        if self._kept:
            order, moment = _model_order(redrive, call), self._moment(step)
            self._keep(order, self._shown(moment, Type.MODEL_INVOCATION, Status.STARTED, **call.fields()))

    def model_answered(self, redrive: int, call: ModelCall, step: Step, refusals: Sequence[Failure | None]) -> None:
        """The answer with what it cost by the price file, and a selection for each of its tool calls that has an entry
        in `refusals`, which says why it is not made, or None.
        """
        moment = self._moment(step.number)
        self._answered(redrive, moment, call, step, dollars=prices.current().of_model(step.model, step.usage))
        reasoning = reasoning_of(step.message)
        for index, (tool_use, refusal) in enumerate(zip(step.tool_uses(), refusals, strict=False)):
            self._tell(
                f"{_SELECTION}#{index:03d}",
                moment,
                Type.TOOL_SELECTION,
                Status.FAILED if refusal else Status.SUCCESS,
                **tool_call(index, tool_use).fields(),
                reasoning=reasoning,
                **failure_fields(refusal),
            )

    def model_failed(self, step: int, redrive: int, call: ModelCall, error: ModelError, duration_ms: int) -> None:
        self._tell(
            _model_order(redrive, call),
            self._moment(step),
            Type.MODEL_INVOCATION,
            Status.FAILED,
            **call.fields(),
            **failure_fields(Failure(_model_error_code(error), str(error))),
            durationMs=duration_ms,
        )

    def asked(self, call: ModelCall, answer: Step) -> None:
        """The answer to a call outside of a turn's steps: whatever tool it names is the form of the answer."""
        self._answered(0, self._moment(_NO_STEP_YET), call, answer, dollars=None)

    def _answered(self, redrive: int, moment: Moment, call: ModelCall, step: Step, *, dollars: float | None) -> None:
        self._tell(
            _model_order(redrive, call),
            moment,
            Type.MODEL_INVOCATION,
            Status.SUCCESS,
            **call.fields(),
            response=json_text(step.message),
            responseText=step.text(),
            stopReason=step.stop_reason,
            inputTokens=step.usage.get("inputTokens", 0),
            outputTokens=step.usage.get("outputTokens", 0),
            cacheReadInputTokens=step.usage.get("cacheReadInputTokens", 0),
            cacheWriteInputTokens=step.usage.get("cacheWriteInputTokens", 0),
            durationMs=step.latency_ms,
            estimatedDollars=dollars,
            leftOut=", ".join(step.left_out) or None,
        )

    # ---- Tools ----

    def tool_attempted(
        self,
        step: int,
        call: ToolCall,
        attempt: int,
        result: str,
        started: int | None,
        circuit: CircuitState | None = None,
        failure: Failure | None = None,
        retry_in_ms: int | None = None,
    ) -> None:
        """One attempt, and the result that it gave; `started` is None if nobody knows any more when it began.

        After a failure, `result` is what the model is told if no other attempt follows, which is after `retry_in_ms`.
        """
        moment = self._moment(step)
        self._tell(
            f"{_INVOCATION}#{call.index:03d}#{attempt:03d}",
            moment,
            Type.TOOL_INVOCATION,
            Status.FAILED if failure else Status.SUCCESS,
            **call.fields(),
            attempt=attempt,
            durationMs=None if started is None else moment.at - started,
            circuitState=circuit,
            **failure_fields(failure),
            retryScheduledInMs=retry_in_ms,
            result=result,
        )

    # ---- Memory ----

    def memory_retrieval(self, access: MemoryAccess) -> None:
        self._accessed(Type.MEMORY_RETRIEVAL, "R", access)

    def memory_write(self, access: MemoryAccess) -> None:
        """Records that were written, or would have been."""
        self._accessed(Type.MEMORY_WRITE, "W", access)

    def _accessed(self, kind: Type, letter: str, access: MemoryAccess) -> None:
        self._tell(
            f"{_MEMORY}#{letter}#{_part(access.namespace)}#{_part(access.call)}",
            self._moment(access.step),
            kind,
            access.status,
            namespace=access.namespace,
            query=access.query,
            records=json_text(list(access.records)),
            recordCount=len(access.records),
            durationMs=access.latency_ms,
            leftOut=access.left_out or None,
            **failure_fields(access.failure),
        )

    # ---- The turn's end ----

    def final_response(
        self, step: int, prompt: str, answer: str, usage: Mapping[str, int], started: int, stop_reason: str
    ) -> None:
        """Told before the commit, behind which nobody reads on. Should the commit fail, TURN_FAILED follows.

        `usage` and `started` are the whole turn's, `stop_reason` is its last reply's.
        """
        moment = self._moment(step)
        self._tell(
            _FINAL,
            moment,
            Type.FINAL_RESPONSE,
            Status.SUCCESS,
            prompt=prompt,
            answer=answer,
            stopReason=stop_reason,
            turnInputTokens=usage.get("inputTokens", 0),
            turnOutputTokens=usage.get("outputTokens", 0),
            durationMs=moment.at - started,
        )

    def turn_failed(self, failure: Mapping[str, Any], *, refused: bool = False) -> None:
        """The turn ended without a commit; `refused` says that it never began, since a rule forbade it.

        `failure` is `{"error", "cause", "executionStatus"?, "state"?}`, as the turn's header keeps it.
        """
        self._tell(
            _FAILED,
            self._moment(_NO_STEP_YET),
            Type.TURN_FAILED,
            Status.REFUSED if refused else Status.FAILED,
            error=failure["error"],
            cause=failure["cause"],
            state=failure.get("state"),
            executionStatus=failure.get("executionStatus"),
        )

    # ---- Writing ----

    def _moment(self, step: int) -> Moment:
        return Moment(now_ms(), settings().trace_id, step)

    def _shown(self, moment: Moment, kind: Type, status: Status, /, **fields: Any) -> TraceEvent:
        return payloads().event(trace_event(self._source, moment, kind, status, fields))

    def _tell(self, order: str, moment: Moment, kind: Type, status: Status, /, **fields: Any) -> None:
        shown = self._shown(moment, kind, status, **fields)
        log_event(self._short_enough(shown))
        if self._kept:
            self._keep(order, shown)

    def _keep(self, order: str, event: TraceEvent) -> None:
        if self._store is None:
            return
        table, documents = self._store
        turn_id = self._source.turn_id
        step = _AFTER_ALL_STEPS if order == _FAILED else event["step"]
        try:
            stowed = documents.stow(event, lambda digest: keys.turn_object(turn_id, digest), STATE_BYTES)
            item = {"event": json_text(stowed), "status": event["status"], "expiresAt": expiry(now_ms(), JOURNAL_DAYS)}
            table.put(Put(keys.trace_event(turn_id, step, order), item))
        except StorageUnavailable:
            logger().exception("a trace event is in the log alone", turnId=turn_id, step=step, order=order)

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
                short[name] = _cut(text)
                continue
            _, documents = self._store
            try:
                stowed = documents.stow(text, lambda digest: keys.turn_object(self._source.turn_id, digest), bound=0)
            except StorageUnavailable:
                logger().exception("a long text of a trace event is cut", turnId=self._source.turn_id, field=name)
                short[name] = _cut(text)
                continue
            short.pop(name)
            short[f"{name}Bytes"], short[f"{name}Object"] = stowed["bytes"], stowed["object"]
        return short


def _cut(text: str) -> str:
    return f"{text[:_LONG_TEXT]}\n[cut: {_LONG_TEXT} of {len(text)} characters are shown]"


def tool_call(index: int, tool_use: Mapping[str, Any]) -> ToolCall:
    """A `toolUse` block, at its place in the step."""
    return ToolCall(tool_use["name"], tool_use["toolUseId"], index, json_text(tool_use["input"]))


def _model_order(redrive: int, call: ModelCall) -> str:
    """A redriven state counts its retries from the beginning."""
    return f"{_MODEL}#{redrive:03d}#{call.attempt:03d}"


def _model_error_code(error: ModelError) -> str:
    match error:
        case ModelThrottled():
            return "THROTTLING"
        case ModelAccessDenied():
            return "MODEL_ACCESS_DENIED"
        case ModelRejected():
            return "MODEL_REJECTED"
        case _:
            return "SERVICE_UNAVAILABLE"


def _part(text: str) -> str:
    return quote(text, safe="")
