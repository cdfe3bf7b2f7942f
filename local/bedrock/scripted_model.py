"""A model that answers from a script: for tests, and for showing one exact situation.

```json
{"replies": [
  {"when": {"text": "balance", "step": 1}, "times": 2,
   "error": {"status": 429, "type": "ThrottlingException", "message": "Too many requests"}},
  {"when": {"text": "balance", "step": 1},
   "reply": {"toolUse": [{"name": "get_account_balance", "input": {"account_id": "12345"}}]}},
  {"when": {"lastToolResult": "48392"}, "delayMs": 50, "reply": {"text": "48,392.50 USD"}}
]}
```

The first rule that matches and has uses left answers. `when` is a conjunction: `text` and `lastToolResult` are regular
expressions searched in the turn's user text and in the newest tool results (as text), `step` is the number of the model
call in its turn from 1, `model` the exact model id, `forcedTool` the tool that toolChoice demands by name, or the
system texts of a model that takes no such choice (as memory does), "" for none; `has` a field that stands in the
request (`inferenceConfig.temperature`), with which a rule refuses what a model does not take; without `when` a rule
matches everything. `times` bounds the uses. `reply` has `text`, `toolUse` (a list), `stopReason` and `usage`; `error`
answers with an HTTP error; `breakAfter` sends so many events of the reply and then an exception frame, of `error` if
there is one. A request that nothing matches is refused with a ValidationException that tells what was asked, so that a
test fails loudly.
"""

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from local.bedrock.conversation import Turn, current_turn
from local.bedrock.model_backend import (
    ConverseRequest,
    JsonObject,
    ModelError,
    StreamEvent,
    estimated_usage,
    message_events,
    tool_use_id,
)

_LONGEST_PAUSE_SECONDS = 120
_BROKEN_STREAM = {
    "status": 424,
    "type": "ModelStreamErrorException",
    "message": "The script broke the stream.",
}


_T = TypeVar("_T")


class ScriptError(ValueError):
    """The script breaks its format. The message begins with the place, a line or a path: `replies[2].when.text`."""


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """A request that a scripted model got. `received_at` is in seconds since the epoch."""

    model_id: str
    body: JsonObject
    is_stream: bool
    received_at: float


@dataclass(frozen=True, slots=True)
class _Rule:
    text: re.Pattern[str] | None
    last_tool_result: re.Pattern[str] | None
    step: int | None
    model_id: str | None
    forced_tool: str | None
    has: str | None
    times: int | None
    delay_seconds: float
    break_after: int | None
    reply: JsonObject | None
    error: JsonObject | None

    def matches(self, request: ConverseRequest, turn: Turn) -> bool:
        return (
            (self.step is None or self.step == turn.step)
            and (self.model_id is None or self.model_id == request.model_id)
            and (self.forced_tool is None or self.forced_tool == (request.demanded_tool or ""))
            and (self.has is None or _has(request.body, self.has))
            and (self.text is None or self.text.search(turn.text) is not None)
            and (self.last_tool_result is None or _found(self.last_tool_result, turn))
        )


class ScriptedModel:
    """Answers by a list of rules, which may be replaced while it is used, and records what it was asked."""

    name = "script"

    def __init__(self, replies: Sequence[JsonObject]) -> None:
        """Raises ScriptError."""
        self._condition = threading.Condition()
        self._is_paused = False
        self._requests: list[RecordedRequest] = []
        self._uses: Counter[int] = Counter()
        self._rules = _rules(replies)

    @classmethod
    def from_file(cls, path: Path) -> "ScriptedModel":
        """Raises ScriptError for a wrong format and OSError for an unreadable file."""
        return cls(_replies_of(path.read_text("utf-8")))

    @property
    def requests(self) -> tuple[RecordedRequest, ...]:
        """What was asked so far, oldest first; the refused included."""
        with self._condition:
            return tuple(self._requests)

    def replace(self, replies: Sequence[JsonObject]) -> None:
        """Begins a new script: its rules have all their uses and no request is recorded. Raises ScriptError."""
        rules = _rules(replies)
        with self._condition:
            self._rules = rules
            self._uses.clear()
            self._requests.clear()

    def pause(self) -> None:
        """Holds every answer back, before its first event, until `resume`; two minutes at most."""
        with self._condition:
            self._is_paused = True

    def resume(self) -> None:
        with self._condition:
            self._is_paused = False
            self._condition.notify_all()

    def wait_for_requests(self, count: int, timeout_seconds: float) -> None:
        """Returns when `count` requests are recorded. Raises TimeoutError."""
        with self._condition:
            if not self._condition.wait_for(lambda: len(self._requests) >= count, timeout_seconds):
                raise TimeoutError(f"{len(self._requests)} of {count} requests in {timeout_seconds} s")

    def converse(self, request: ConverseRequest) -> Iterator[StreamEvent]:
        turn = current_turn(request.messages)
        with self._condition:
            self._requests.append(RecordedRequest(request.model_id, request.body, request.is_stream, time.time()))
            self._condition.notify_all()
            rule = self._use_rule(request, turn)
            self._condition.wait_for(lambda: not self._is_paused, _LONGEST_PAUSE_SECONDS)
        time.sleep(rule.delay_seconds)
        if rule.reply is None:
            raise _model_error(rule.error or {})
        events = _reply_events(request, rule.reply)
        if rule.break_after is None:
            yield from events
        else:
            yield from islice(events, rule.break_after)
            raise _model_error(rule.error or _BROKEN_STREAM)

    def _use_rule(self, request: ConverseRequest, turn: Turn) -> _Rule:
        for index, rule in enumerate(self._rules):
            has_uses = rule.times is None or self._uses[index] < rule.times
            if has_uses and rule.matches(request, turn):
                self._uses[index] += 1
                return rule
        raise ModelError(400, "ValidationException", _no_reply(request, turn, len(self._rules)))


def _has(body: Any, path: str) -> bool:
    for name in path.split("."):
        if not isinstance(body, Mapping) or name not in body:
            return False
        body = body[name]
    return True


def _found(pattern: re.Pattern[str], turn: Turn) -> bool:
    return bool(turn.steps) and pattern.search(_last_results(turn)) is not None


def _last_results(turn: Turn) -> str:
    blocks = [block for outcome in turn.steps[-1] for block in outcome.content]
    return "\n".join(block["text"] if "text" in block else json.dumps(block, ensure_ascii=False) for block in blocks)


def _no_reply(request: ConverseRequest, turn: Turn, rules: int) -> str:
    results = f", last tool result {_last_results(turn)!r}" if turn.steps else ""
    return (
        f"The script has no reply left for text {turn.text!r}, step {turn.step}, "
        f"model {request.model_id!r}{results} (rules: {rules})."
    )


def _model_error(error: JsonObject) -> ModelError:
    return ModelError(error["status"], error["type"], error.get("message", f"The script answers {error['type']}."))


def _reply_events(request: ConverseRequest, reply: JsonObject) -> Iterator[StreamEvent]:
    uses = reply.get("toolUse", [])
    content: list[JsonObject] = [{"text": reply["text"]}] if reply.get("text") else []
    content += [{"toolUse": _tool_use(request, index, use)} for index, use in enumerate(uses)]
    stop_reason = reply.get("stopReason", "tool_use" if uses else "end_turn")
    return message_events(content, stop_reason, reply.get("usage") or estimated_usage(request, content))


def _tool_use(request: ConverseRequest, index: int, use: JsonObject) -> JsonObject:
    arguments = use.get("input", {})
    name = use["name"]
    return {
        "toolUseId": use.get("toolUseId") or tool_use_id(request, index, name, arguments),
        "name": name,
        "input": arguments,
    }


def _replies_of(text: str) -> Sequence[JsonObject]:
    try:
        script = json.loads(text)
    except json.JSONDecodeError as error:
        raise ScriptError(f"line {error.lineno}, column {error.colno}: {error.msg}") from error
    if not isinstance(script, dict) or not isinstance(script.get("replies"), list):
        raise ScriptError('it must be an object with the list "replies"')
    replies: Sequence[JsonObject] = script["replies"]
    return replies


def _rules(replies: Sequence[JsonObject]) -> list[_Rule]:
    return [_rule(_Fields(reply, f"replies[{index}]")) for index, reply in enumerate(replies)]


def _rule(fields: "_Fields") -> _Rule:
    fields.allow("when", "times", "reply", "error", "breakAfter", "delayMs")
    when = fields.nested("when", "text", "step", "model", "lastToolResult", "forcedTool", "has") or _Fields({}, "")
    reply = fields.nested("reply", "text", "toolUse", "stopReason", "usage")
    error = fields.nested("error", "status", "type", "message")
    break_after = fields.value("breakAfter", int)
    if reply is not None:
        _check_reply(reply)
    if error is not None:
        error.required("status", int)
        error.required("type", str)
        error.value("message", str)
    _check_outcome(fields, reply, error, break_after)
    return _Rule(
        text=when.pattern("text"),
        last_tool_result=when.pattern("lastToolResult"),
        step=when.value("step", int),
        model_id=when.value("model", str),
        forced_tool=when.value("forcedTool", str),
        has=when.value("has", str),
        times=fields.value("times", int),
        delay_seconds=(fields.value("delayMs", int) or 0) / 1000,
        break_after=break_after,
        reply=reply.values if reply else None,
        error=error.values if error else None,
    )


def _check_outcome(
    fields: "_Fields", reply: "_Fields | None", error: "_Fields | None", break_after: int | None
) -> None:
    if break_after is None:
        if (reply is None) == (error is None):
            raise fields.wrong("has to have either reply or error")
    elif reply is None:
        raise fields.wrong("breakAfter needs the reply that it breaks")


def _check_reply(reply: "_Fields") -> None:
    reply.value("text", str)
    reply.value("stopReason", str)
    reply.value("usage", dict)
    for index, use in enumerate(reply.value("toolUse", list) or []):
        fields = _Fields(use, f"{reply.path}.toolUse[{index}]")
        fields.allow("name", "input", "toolUseId")
        fields.required("name", str)
        fields.value("input", dict)
        fields.value("toolUseId", str)


class _Fields:
    """An object of the script with its path, for messages."""

    def __init__(self, values: Any, path: str) -> None:
        self.path = path
        if not isinstance(values, Mapping):
            raise self.wrong("must be an object")
        self.values: JsonObject = values

    def wrong(self, rule: str) -> ScriptError:
        return ScriptError(f"{self.path}: {rule}")

    def allow(self, *names: str) -> None:
        for name in self.values:
            if name not in names:
                raise self.wrong(f"unknown field {name!r} (known: {', '.join(names)})")

    def nested(self, name: str, *names: str) -> "_Fields | None":
        if name not in self.values:
            return None
        nested = _Fields(self.values[name], f"{self.path}.{name}")
        nested.allow(*names)
        return nested

    def value(self, name: str, kind: type[_T]) -> _T | None:
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self.wrong(f"{name} must be {_NAMES[kind]}")
        return value

    def required(self, name: str, kind: type[_T]) -> _T:
        value = self.value(name, kind)
        if value is None:
            raise self.wrong(f"{name} is missing")
        return value

    def pattern(self, name: str) -> re.Pattern[str] | None:
        text = self.value(name, str)
        if text is None:
            return None
        try:
            return re.compile(text)
        except re.error as error:
            raise ScriptError(f"{self.path}.{name}: not a regular expression: {error}") from error


_NAMES: dict[type, str] = {int: "a whole number", str: "a string", list: "a list", dict: "an object"}
