"""Faults on purpose: a file says how functions fail, and it happens at the Lambda layer, without touching their code.

```json
{"faults": [
  {"function": "BankingToolsFunction", "when": {"function": "get_account_balance"}, "times": 2, "fault": "throttle"},
  {"function": "BankingToolsFunction", "fault": "slow", "seconds": 3}
]}
```

The first rule that matches and has uses left applies. `function` is the function's logical id in the template; `when`
names top-level fields of the event and the values that they must have; `times` bounds the uses.

| fault | what Invoke answers |
| --- | --- |
| throttle | 429 TooManyRequestsException (`message`); the function does not run |
| service_error | 500 ServiceException (`message`); the function does not run |
| hang | the function's own time-out, after its whole time; it does not run |
| crash | the function error Runtime.ExitError; it does not run |
| out_of_memory | the function error Runtime.OutOfMemory; it does not run |
| error | the function error `errorType` (`message`); it does not run |
| garbage | an answer that does not have the form of an action group's; the function does not run |
| slow | what the function answers, `seconds` later; its own time-out if that is not sooner |

They apply to Lambda's Invoke, which the tool gateway, Step Functions and every other client call; not to what API
Gateway, EventBridge and CloudFormation invoke here.
"""

import json
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from local.lambda_workers import FunctionSpec, InvocationError, InvokeResult

JsonObject = Mapping[str, Any]

_GARBAGE = b'{"garbage": "a fault on purpose"}'
_MESSAGE = "a fault on purpose"
_LONGEST_SECONDS = 900
_COMMON_FIELDS = ("function", "when", "times", "fault")
_FIELDS_OF: Mapping[str, tuple[str, ...]] = {
    "throttle": ("message",),
    "service_error": ("message",),
    "hang": (),
    "crash": (),
    "out_of_memory": (),
    "error": ("errorType", "message"),
    "garbage": (),
    "slow": ("seconds",),
}
"""The kinds of faults, each with the fields that only some have."""

_T = TypeVar("_T")


class FaultsError(ValueError):
    """The faults break their format. The message begins with the place: file, line or `faults[2].when`."""


class InvocationRefused(Exception):
    """Lambda's API refuses an Invoke: the HTTP status and the name of the exception that a client gets."""

    def __init__(self, status: int, name: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.name = name
        self.message = message


@dataclass(frozen=True, slots=True)
class Use:
    """One use of a rule: its index, and the fault that the function (its logical id) had."""

    rule: int
    function: str
    fault: str


@dataclass(frozen=True, slots=True)
class _Rule:
    function: str
    when: JsonObject
    times: int | None
    fault: str
    seconds: float
    error_type: str
    message: str

    def matches(self, function: str, payload: bytes) -> bool:
        if function != self.function:
            return False
        if not self.when:
            return True
        try:
            event = json.loads(payload)
        except ValueError:
            return False
        return isinstance(event, dict) and all(
            name in event and event[name] == value for name, value in self.when.items()
        )


class Faults:
    """Applies a list of rules, which may be replaced while functions are invoked. Thread-safe.

    `on_use` is told each use of a rule in one line.
    """

    def __init__(self, on_use: Callable[[str], None]) -> None:
        self._on_use = on_use
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._logical_ids: dict[str, str] = {}
        self._rules: list[_Rule] = []
        self._counts: Counter[int] = Counter()
        self._uses: list[Use] = []

    @property
    def uses(self) -> tuple[Use, ...]:
        """The uses of the present rules, oldest first."""
        with self._lock:
            return tuple(self._uses)

    def know(self, logical_ids: Mapping[str, str]) -> None:
        """Says which functions there are: their logical ids by function name. Rules can name no others."""
        self._logical_ids = dict(logical_ids)

    def load(self, file: Path) -> None:
        """Replaces the rules by those of a file. Raises FaultsError naming file and place."""
        try:
            document = json.loads(file.read_text("utf-8"))
        except OSError as error:
            raise FaultsError(f"{file}: cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise FaultsError(f"{file}: is not UTF-8 at byte {error.start}") from error
        except json.JSONDecodeError as error:
            raise FaultsError(f"{file}:{error.lineno}: {error.msg} (column {error.colno})") from error
        if not isinstance(document, dict) or document.keys() != {"faults"} or not isinstance(document["faults"], list):
            raise FaultsError(f'{file}: must be an object with the list "faults" and nothing else')
        try:
            self.replace(document["faults"])
        except FaultsError as error:
            raise FaultsError(f"{file}: {error}") from error

    def replace(self, faults: Sequence[JsonObject]) -> None:
        """Begins with new rules, which have all their uses; without any, everything works. Raises FaultsError."""
        rules = [_rule(_Fields(fault, f"faults[{index}]"), self._logical_ids) for index, fault in enumerate(faults)]
        with self._lock:
            self._rules = rules
            self._counts.clear()
            self._uses.clear()

    def stop(self) -> None:
        """Ends every wait of `hang` and `slow`."""
        self._stopping.set()

    def run(self, spec: FunctionSpec, payload: bytes, really: Callable[[], InvokeResult]) -> InvokeResult:
        """What Invoke answers: `really()`, unless a rule has something else to say.

        Raises InvocationRefused for a fault of Lambda's API.
        """
        rule = self._use_rule(spec.name, payload)
        return really() if rule is None else self._apply(rule, spec, really)

    def _use_rule(self, function_name: str, payload: bytes) -> _Rule | None:
        with self._lock:
            logical_id = self._logical_ids.get(function_name, "")
            for index, rule in enumerate(self._rules):
                has_uses = rule.times is None or self._counts[index] < rule.times
                if has_uses and rule.matches(logical_id, payload):
                    self._counts[index] += 1
                    self._uses.append(Use(index, logical_id, rule.fault))
                    count = f"{self._counts[index]} of {rule.times}" if rule.times else str(self._counts[index])
                    break
            else:
                return None
        self._on_use(f"fault {rule.fault} of {logical_id} (faults[{index}], use {count})")
        return rule

    def _apply(self, rule: _Rule, spec: FunctionSpec, really: Callable[[], InvokeResult]) -> InvokeResult:
        match rule.fault:
            case "throttle":
                raise InvocationRefused(429, "TooManyRequestsException", rule.message)
            case "service_error":
                raise InvocationRefused(500, "ServiceException", rule.message)
            case "hang":
                return self._time_out(spec)
            case "crash":
                return _died("Runtime.ExitError", "exit status 1")
            case "out_of_memory":
                return _died("Runtime.OutOfMemory", "signal: killed")
            case "garbage":
                return InvokeResult(_GARBAGE, None)
            case "slow":
                if rule.seconds >= spec.timeout_seconds:
                    return self._time_out(spec)
                self._stopping.wait(rule.seconds)
                return really()
            case _:
                return _failed(rule.error_type, rule.message)

    def _time_out(self, spec: FunctionSpec) -> InvokeResult:
        self._stopping.wait(spec.timeout_seconds)
        return _failed(
            "Sandbox.Timedout",
            f"RequestId: {uuid.uuid4()} Error: Task timed out after {spec.timeout_seconds:.2f} seconds",
        )


def _died(error_type: str, reason: str) -> InvokeResult:
    return _failed(error_type, f"RequestId: {uuid.uuid4()} Error: Runtime exited with error: {reason}")


def _failed(error_type: str, message: str) -> InvokeResult:
    return InvokeResult(InvocationError.of(error_type, message).body, "Unhandled")


def _rule(fields: "_Fields", logical_ids: Mapping[str, str]) -> _Rule:
    function = fields.required("function", str)
    known = sorted(logical_ids.values())
    if function not in known:
        raise fields.wrong("function", f"the template has no function {function!r} (it has {', '.join(known)})")
    fault = fields.required("fault", str)
    if fault not in _FIELDS_OF:
        raise fields.wrong("fault", f"there is no fault {fault!r} (there are {', '.join(_FIELDS_OF)})")
    allowed = (*_COMMON_FIELDS, *_FIELDS_OF[fault])
    for name in fields.values:
        if name not in allowed:
            raise fields.wrong(name, f"{fault} has no such field (it has {', '.join(allowed)})")
    times = fields.value("times", int)
    if times is not None and times < 1:
        raise fields.wrong("times", "must be 1 or more")
    seconds = fields.required("seconds", float) if fault == "slow" else 0.0
    if fault == "slow" and not 0 < seconds <= _LONGEST_SECONDS:
        raise fields.wrong("seconds", f"must be more than 0 and at most {_LONGEST_SECONDS}")
    return _Rule(
        function=function,
        when=fields.value("when", dict) or {},
        times=times,
        fault=fault,
        seconds=seconds,
        error_type=fields.required("errorType", str) if fault == "error" else "",
        message=fields.value("message", str) or _MESSAGE,
    )


class _Fields:
    """An object of the list with its place, for messages."""

    def __init__(self, values: Any, place: str) -> None:
        if not isinstance(values, Mapping):
            raise FaultsError(f"{place}: must be an object")
        self._place = place
        self.values: JsonObject = values

    def wrong(self, name: str, rule: str) -> FaultsError:
        return FaultsError(f"{self._place}.{name}: {rule}")

    def value(self, name: str, kind: type[_T]) -> _T | None:
        if name not in self.values:
            return None
        value = self.values[name]
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self.wrong(name, f"must be {_NAMES[kind]}")
        return value

    def required(self, name: str, kind: type[_T]) -> _T:
        value = self.value(name, kind)
        if value is None:
            raise FaultsError(f"{self._place}: {name} is missing; it must be {_NAMES[kind]}")
        return value


_NAMES: Mapping[type, str] = {int: "a whole number", float: "a number", str: "a string", dict: "an object"}
