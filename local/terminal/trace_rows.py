"""Trace events for a person in a terminal: aligned rows, failures in red, what was refused in yellow.

14:03:05.123  step 1  TOOL_INVOCATION   get_account_balance  attempt 1  FAILED   31 ms  THROTTLING, retry in 200 ms: …
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from local.terminal.colours import Colour, Paint
from turnwright.tracing.trace_events import Status, Type

_DETAIL_CHARACTERS = 160
_COLOURS: Mapping[str, Colour] = {Status.FAILED: "red", Status.REFUSED: "yellow", Status.STARTED: "dim"}

Event = Mapping[str, Any]


def is_event(entry: Event) -> bool:
    """Whether a line of the log is a trace event."""
    return entry.get("type") in Type.__members__ and "step" in entry


def render(events: Sequence[Event], paint: Paint) -> str:
    """The rows, under a line for each turn (or consolidation) that they belong to."""
    rows = [_cells(event) for event in events]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(7)]
    lines: list[str] = []
    group: tuple[str, str] | None = None
    for event, row in zip(events, rows, strict=True):
        if (owner := (event["turnId"], event.get("consolidationId", ""))) != group:
            group = owner
            lines.append(paint(_owner(event), "bold"))
        text = "  ".join(
            cell.rjust(width) if column == 6 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        line = f"{text}  {detail(event)}".rstrip()
        colour = _COLOURS.get(event["status"])
        lines.append(paint(line, colour) if colour else line)
    return "\n".join(lines)


def summary(event: Event) -> str:
    """An event in one line, without what stands on every line of a log."""
    cells = (cell for cell in _cells(event)[1:] if cell and cell != event["type"])
    return "  ".join([*cells, detail(event)]).rstrip()


def detail(event: Event) -> str:
    """What is particular about an event, in few words. Texts may be missing (TracePayloads) or in the bucket."""
    return _one_line(", ".join(_details(event)))


def _details(event: Event) -> Iterator[str]:
    if event["status"] in (Status.FAILED, Status.REFUSED):
        yield from _failure(event)
        return
    match event["type"]:
        case Type.MODEL_INVOCATION if event["status"] == Status.SUCCESS:
            yield f"{event['stopReason']}, {event['inputTokens']}+{event['outputTokens']} tokens"
            yield from _texts(event, "responseText")
        case Type.TOOL_SELECTION:
            yield from _texts(event, "arguments", "reasoning")
        case Type.TOOL_INVOCATION:
            if event.get("circuitState") == "HALF_OPEN":
                yield "probes the circuit"
            yield from _texts(event, "result")
        case Type.MEMORY_RETRIEVAL | Type.MEMORY_WRITE:
            yield f"{event['recordCount']} records"
            yield from _texts(event, "query", "records")
        case Type.FINAL_RESPONSE:
            yield from _texts(event, "answer")


def _failure(event: Event) -> Iterator[str]:
    code = event.get("errorCode") or event.get("error") or ""
    if event["type"] == Type.TURN_FAILED and "state" in event:
        code = f"{code} in {event['state']}"
    if event.get("circuitState") == "OPEN":
        code = f"{code}, nothing was invoked"
    if "retryScheduledInMs" in event:
        code = f"{code}, retry in {event['retryScheduledInMs']} ms"
    message = event.get("errorMessage") or event.get("cause")
    yield f"{code}: {message}" if message else code


def _texts(event: Event, *names: str) -> Iterator[str]:
    for name in names:
        if event.get(name):
            yield str(event[name])
        elif f"{name}Bytes" in event:
            yield f"{name} of {event[f'{name}Bytes']} bytes"


def _cells(event: Event) -> list[str]:
    name = event.get("toolName") or event.get("model") or event.get("namespace") or ""
    if event.get("index"):
        name = f"{name} [{event['index']}]"
    return [
        event["timestamp"][11:23],
        f"step {event['step']}" if event["step"] else "",
        event["type"],
        _one_line(name),
        f"attempt {event['attempt']}" if "attempt" in event else "",
        event["status"],
        f"{event['durationMs']} ms" if "durationMs" in event else "",
    ]


def _owner(event: Event) -> str:
    if event["turnId"]:
        owner = f"turn {event['turnId']}"
    else:
        owner = f"consolidation {event['consolidationId']}" if "consolidationId" in event else "outside of turns"
    agent = f"{event['agentId']}:{event['agentVersion']}".rstrip(":")
    actor = f", actor {event['memoryId']}" if "memoryId" in event else ""
    trace = f", X-Ray {event['traceId']}" if event["traceId"] else ""
    return _one_line(f"{owner} (agent {agent}, session {event['sessionId']}{actor}{trace})", bound=400)


def _one_line(text: str, bound: int = _DETAIL_CHARACTERS) -> str:
    """What a model or tool wrote, without anything that could move the cursor or colour the terminal."""
    shown = "".join(_visible(text[: bound + 1]))
    return shown if len(text) <= bound else f"{shown[:bound]}…"


def _visible(text: str) -> Iterable[str]:
    for character in text:
        yield character if character.isprintable() else {"\n": "⏎", "\t": " "}.get(character, "�")
