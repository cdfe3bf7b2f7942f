"""Where the functions' log lines go: to one readable stream for a person, and to CloudWatch Logs for `aws
logs`.

A JSON line as Powertools writes it is shown as `12:01:07.345 INFO  InvokeTool  message key=value`, a trace event with
the beginnings of its texts, a receipt as what it adds up to; metrics are not shown, and any other line as it is. Of the
runtime's own lines people are shown one for each turn and what is a warning or worse, unless they want all. CloudWatch
Logs gets the lines untouched, in batches, in the function's log group and a stream of the function's own.
"""

import json
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TextIO

from botocore.exceptions import BotoCoreError, ClientError

from local.terminal.colours import Colour, Paint, paint_for, plain
from local.terminal.trace_rows import is_event, summary

_FLUSH_SECONDS = 0.5
_LARGEST_BATCH = 1_000
_LARGEST_BATCH_BYTES = 900_000
_EVENT_OVERHEAD_BYTES = 26
_KEPT_PROBLEMS = 200
_LEVEL_COLOURS: Mapping[str, Colour] = {
    "DEBUG": "dim",
    "INFO": "green",
    "WARN": "yellow",
    "WARNING": "yellow",
    "ERROR": "red",
    "CRITICAL": "red",
    "FATAL": "red",
}
_NOT_SHOWN = frozenset(
    {
        "level",
        "message",
        "timestamp",
        "location",
        "service",
        "cold_start",
        "function_name",
        "function_memory_size",
        "function_arn",
        "function_request_id",
        "requestId",
        "logger",
        "xray_trace_id",
        "sampling_rate",
        "exception",
        "exception_name",
        "stack_trace",
        "stackTrace",
    }
)
"""What every line carries, or what is shown below the line."""
_ROUTINE = ("TRACE", "DEBUG", "INFO")


class LoggingFunction(Protocol):
    """What a line's function must tell about itself."""

    @property
    def name(self) -> str: ...
    @property
    def log_group(self) -> str: ...


@dataclass(frozen=True, slots=True)
class _Line:
    group: str
    stream: str
    time_ms: int
    text: str

    @property
    def size(self) -> int:
        return len(self.text.encode()) + _EVENT_OVERHEAD_BYTES


_STOP: Final = None


class LogDelivery:
    """Takes lines from any thread until `close`.

    `stream` is where people read, or None. `logs` makes the boto3 `logs` client, when the first line comes.
    `prefix` is what the functions' names have in common (the stack's name), which people do not need to read, and the
    service that the runtime's own lines name. `verbose` shows people all of these.
    """

    def __init__(
        self, stream: TextIO | None, logs: Callable[[], Any], prefix: str = "", *, verbose: bool = False
    ) -> None:
        self._stream = stream
        self._verbose = verbose
        self._paint = plain if stream is None else paint_for(stream)
        self._logs = logs
        self._prefix = prefix
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[_Line | None] = queue.SimpleQueue()
        self._known: set[tuple[str, str]] = set()
        self.hidden: set[str] = set()
        """Names of functions whose lines are not shown; CloudWatch Logs gets them."""
        self.problems: deque[str] = deque(maxlen=_KEPT_PROBLEMS)
        self._thread = threading.Thread(target=self._deliver, name="logs", daemon=True)
        self._thread.start()

    def line(self, function: LoggingFunction, text: str) -> None:
        """A line that a function logged, without its line end."""
        if not text.strip():
            return
        now = time.time()
        date = datetime.fromtimestamp(now, UTC).strftime("%Y/%m/%d")
        self._queue.put(_Line(function.log_group, f"{date}/{function.name}[$LATEST]", int(now * 1000), text))
        if function.name not in self.hidden and self._is_shown(text):
            self._show(readable(text, short_name(function.name, self._prefix), now))

    def problem(self, text: str) -> None:
        """Something that the offline stack itself has to say, in one line."""
        self.problems.append(text)
        self._show((_clock(time.time()), "ERROR", "stack", text, ()))

    def note(self, text: str) -> None:
        """Something that the offline stack did, in one line."""
        self._show((_clock(time.time()), "INFO", "stack", text, ()))

    def close(self, timeout_seconds: float = 3.0) -> None:
        """Delivers what is left."""
        self._queue.put(_STOP)
        self._thread.join(timeout_seconds)

    def _is_shown(self, text: str) -> bool:
        entry = _entry(text)
        if entry is None or is_metrics(text):
            return entry is None
        is_own = entry.get("service") == self._prefix or is_event(entry)
        routine = is_own and entry.get("level") in _ROUTINE and "receipt" not in entry
        return self._verbose or not routine

    def _show(self, parts: tuple[str, str, str, str, Sequence[str]]) -> None:
        if self._stream is None:
            return
        text = render(parts, self._paint) + "\n"
        with self._lock:
            self._stream.write(text)
            self._stream.flush()

    def _deliver(self) -> None:
        stopping = False
        while not stopping:
            batch: list[_Line] = []
            first = self._queue.get()
            stopping = first is _STOP
            if first is not None:
                batch.append(first)
            deadline = time.monotonic() + _FLUSH_SECONDS
            while not stopping and len(batch) < _LARGEST_BATCH:
                try:
                    line = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
                except queue.Empty:
                    break
                if line is None:
                    stopping = True
                else:
                    batch.append(line)
            for lines in _grouped(batch):
                self._put(lines)

    def _put(self, lines: Sequence[_Line]) -> None:
        group, stream = lines[0].group, lines[0].stream
        events = [{"timestamp": line.time_ms, "message": line.text} for line in lines]
        try:
            client = self._logs()
            if (group, stream) not in self._known:
                _create_missing(client, group, stream)
                self._known.add((group, stream))
            client.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)
        except (BotoCoreError, ClientError) as error:
            self.problem(f"{len(lines)} log lines did not reach the log group {group}: {error}")


def short_name(function: str, prefix: str) -> str:
    """`InvokeTool` for `turnwright-InvokeToolFunction`, if `prefix` is `turnwright`."""
    return function.removeprefix(f"{prefix}-").removesuffix("Function")


def readable(text: str, name: str, now: float) -> tuple[str, str, str, str, Sequence[str]]:
    """A log line for a person: clock, level, function, message with its keys, lines of a traceback."""
    clock = _clock(now)
    entry = _entry(text)
    if entry is None or not {"level", "message"} & entry.keys():
        return clock, "", name, text, ()
    if is_event(entry):
        return clock, str(entry.get("level", "")), name, f"{entry['type']}  {summary(entry)}", ()
    message = entry.get("message", "")
    shown = message if isinstance(message, str) else json.dumps(message, ensure_ascii=False)
    extras = [_extra(key, value) for key, value in entry.items() if key not in _NOT_SHOWN]
    traceback = entry.get("exception") or entry.get("stackTrace") or ()
    below = traceback.splitlines() if isinstance(traceback, str) else [str(line).rstrip() for line in traceback]
    return clock, str(entry.get("level", "")), name, " ".join([shown, *extras]), below


def is_metrics(text: str) -> bool:
    """Whether a line is metrics, in CloudWatch's embedded metric format."""
    return "_aws" in (_entry(text) or {})


def render(parts: tuple[str, str, str, str, Sequence[str]], paint: Paint) -> str:
    """The parts of a line as text, without the last line end."""
    clock, level, name, text, below = parts
    shown = paint(level.ljust(5), _LEVEL_COLOURS.get(level, "dim"))
    first = f"{paint(clock, 'dim')} {shown} {paint(name.ljust(12), 'cyan')}  {text}"
    return "\n".join([first, *(paint(f"    {line}", "dim") for line in below)])


def _entry(text: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(text) if text.lstrip().startswith("{") else None
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _extra(name: str, value: Any) -> str:
    if name == "receipt" and isinstance(value, dict) and "stateTransitions" in value:
        return _spent(value)
    return f"{name}={_value(value)}"


def _spent(receipt: Mapping[str, Any]) -> str:
    """A receipt in a line."""
    agent, session, tokens = f"{receipt['agentId']}:{receipt['agentVersion']}", receipt["sessionId"], receipt["tokens"]
    dollars = receipt["dollars"]["total"]
    price = "of unknown price" if dollars is None else f"${dollars:.4f}"
    return (
        f"{agent} session={_value(session)} {receipt['modelCalls']} model calls, "
        f"{receipt['toolAttempts']} tool attempts, {tokens['inputTokens']}+{tokens['outputTokens']} tokens, {price}"
    )


def _value(value: Any) -> str:
    if isinstance(value, str):
        return value if value and " " not in value and "\n" not in value else json.dumps(value, ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _clock(moment: float) -> str:
    return datetime.fromtimestamp(moment).strftime("%H:%M:%S.%f")[:-3]


def _grouped(batch: Iterable[_Line]) -> Iterable[list[_Line]]:
    """Splits a batch by log stream, each in the order of time and no larger than PutLogEvents allows."""
    streams: dict[tuple[str, str], list[_Line]] = {}
    for line in batch:
        streams.setdefault((line.group, line.stream), []).append(line)
    for lines in streams.values():
        part: list[_Line] = []
        size = 0
        for line in sorted(lines, key=lambda entry: entry.time_ms):
            if part and size + line.size > _LARGEST_BATCH_BYTES:
                yield part
                part, size = [], 0
            part.append(line)
            size += line.size
        yield part


def _create_missing(client: Any, group: str, stream: str) -> None:
    for create, arguments in (
        (client.create_log_group, {"logGroupName": group}),
        (client.create_log_stream, {"logGroupName": group, "logStreamName": stream}),
    ):
        try:
            create(**arguments)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceAlreadyExistsException":
                raise
