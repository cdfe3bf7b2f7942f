"""The attempts of a turn's tool calls, read from the history of its execution: each is a visit of Invoke Tool.

`tool_calls` gives them as data, `render_attempt` one as a line:

    step 3 get_account_balance attempt 1 FAILED THROTTLING 5003 ms, retry in 400 ms
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from local.commands.executions import Execution, StateVisit
from local.terminal.colours import Paint, plain

_ATTEMPTS = ("Invoke Tool", "Look Up Tool Result")
_TOOL_STEP = "Run Tools"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt. `code` is None if it went well; `retry_in_ms` is how long after it the next one began.

    `milliseconds` is what Step Functions waited for the gateway, without the delay that the gateway slept before.
    `retry_after_seconds` is when an open circuit expects the tool back.
    """

    number: int
    code: str | None
    milliseconds: float
    retry_in_ms: int | None = None
    retry_after_seconds: int | None = None


@dataclass(slots=True)
class ToolCall:
    """One tool call of a step (from 1), by its place among the step's calls. `result` is what the model was given."""

    step: int
    index: int
    attempts: list[Attempt] = field(default_factory=list)
    result: str | None = None


def tool_calls(execution: Execution) -> list[ToolCall]:
    """The calls in order. One of a tool that the agent does not have has no attempts."""
    calls: dict[tuple[int, int], ToolCall] = {}
    step = 0
    for visit in execution.visits:
        if visit.name == _TOOL_STEP:
            step += 1
        if visit.iteration is None:
            continue
        call = calls.setdefault((step, visit.iteration), ToolCall(step, visit.iteration))
        if visit.name in _ATTEMPTS:
            call.attempts.append(_attempt(visit, call.attempts))
        if isinstance(visit.output, Mapping) and "toolUseId" in visit.output and "result" in visit.output:
            call.result = _text(visit.output["result"])
    return [calls[place] for place in sorted(calls)]


def render_attempt(step: int, tool: str, attempt: Attempt, paint: Paint = plain) -> str:
    """The attempt in one line."""
    outcome = paint("SUCCESS", "green") if attempt.code is None else paint(f"FAILED {attempt.code}", "red")
    line = f"step {step} {tool} attempt {attempt.number} {outcome} {attempt.milliseconds:.0f} ms"
    if attempt.retry_in_ms is not None:
        return f"{line}, retry in {attempt.retry_in_ms} ms"
    if attempt.retry_after_seconds is not None:
        return f"{line}, not called for {attempt.retry_after_seconds} s"
    return line


def _attempt(visit: StateVisit, before: Sequence[Attempt]) -> Attempt:
    slept = (before[-1].retry_in_ms or 0) % 1000 if before else 0  # the whole seconds are Back Off's
    took = max(0.0, (visit.duration_ms or 0.0) - slept)
    if visit.error is None:
        return Attempt(len(before) + 1, None, took)
    report = _report(visit.cause)
    return Attempt(
        len(before) + 1,
        report.get("errorCode", visit.error),
        took,
        report.get("retryInMs"),
        report.get("retryAfterSeconds"),
    )


def _report(cause: str | None) -> Mapping[str, Any]:
    """The gateway's report in the cause of ToolAttemptFailed; empty for any other error."""
    try:
        report = json.loads(json.loads(cause or "")["errorMessage"])
    except (ValueError, KeyError, TypeError):
        return {}
    return report if isinstance(report, dict) else {}


def _text(stowed: Mapping[str, Any]) -> str:
    """A stowed result (`turnwright.storage.documents`)."""
    if "inline" in stowed:
        return str(stowed["inline"]["text"])
    return f"({stowed['bytes']} bytes, kept in the bucket)"
