"""What an execution of a state machine did, state by state, read from its history.

`read_execution` gives it as data, `render_execution` as text. Both work on AWS as well: they use
GetExecutionHistory only.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, cast

from local.terminal.colours import Colour, Paint, plain

Outcome = Literal["succeeded", "caught", "failed", "running"]

_FAILURES = ("Failed", "TimedOut", "Aborted")
_ENDS = ("ExecutionSucceeded", "ExecutionFailed", "ExecutionTimedOut", "ExecutionAborted")
_HISTORY_PAGE = 1000
_NEWEST_PAGE = 100
_NOT_A_TRY = ("Execution", "MapIteration", "MapRun")


class UnknownExecution(Exception):
    """No execution, or more than one, is meant by what the caller wrote."""


@dataclass(frozen=True, slots=True)
class Try:
    """One try of a state's work. A state has several when its Retry repeats it; `error` is None if the try
    went well. `arguments` is the JSON text that the integration was given, `result` the one that it answered.
    """

    started_at: datetime
    duration_ms: float | None
    error: str | None = None
    cause: str | None = None
    arguments: str | None = field(default=None, compare=False, repr=False)
    result: str | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class StateVisit:
    """One time that an execution was in a state.

    `duration_ms` is None while it is there. `iteration` is the index in the enclosing Map (None outside of
    one), `depth` how many Maps or Parallels enclose it. `caught` means that its last try failed and a Catch
    went on from there. `output` is the document that it left behind, None while it is there. `id` is the history
    event with which it began, `parent` that of the enclosing Map's or Parallel's visit, `pending` what the try that
    is under way was given, as JSON text.
    """

    name: str
    type: str
    entered_at: datetime
    duration_ms: float | None
    outcome: Outcome
    tries: tuple[Try, ...]
    iteration: int | None = None
    depth: int = 0
    output: Any = None
    id: int = field(default=0, compare=False)
    parent: int | None = field(default=None, compare=False)
    input: str | None = field(default=None, compare=False, repr=False)
    pending: str | None = field(default=None, compare=False, repr=False)

    @property
    def attempts(self) -> int:
        return max(len(self.tries), 1)

    @property
    def error(self) -> str | None:
        """The error of the last try, if it failed."""
        return self.tries[-1].error if self.tries else None

    @property
    def cause(self) -> str | None:
        return self.tries[-1].cause if self.tries else None


@dataclass(frozen=True, slots=True)
class Execution:
    """An execution as DescribeExecution has it, with the states it was in, in the order in which it entered
    them.
    """

    arn: str
    name: str
    status: str
    started_at: datetime
    stopped_at: datetime | None
    input: Any
    output: Any
    error: str | None
    cause: str | None
    visits: tuple[StateVisit, ...]

    @property
    def duration_ms(self) -> float | None:
        return _milliseconds(self.started_at, self.stopped_at)

    @property
    def states(self) -> list[str]:
        """The names of the visited states, in order, once for each visit."""
        return [visit.name for visit in self.visits]


@dataclass(slots=True)
class _OpenVisit:
    """A visit while its events are read. `pending` is when the try began that has not ended, `arguments` what it was
    given.
    """

    name: str
    type: str
    entered: Mapping[str, Any]
    iteration: int | None
    parent: "_OpenVisit | None"
    exited: Mapping[str, Any] | None = None
    tries: list[Try] = field(default_factory=list)
    pending: datetime | None = None
    arguments: str | None = None

    @property
    def depth(self) -> int:
        return 0 if self.parent is None else self.parent.depth + 1

    @property
    def left_at(self) -> datetime | None:
        """When it was left, or when the Map or Parallel around it was, which ends what is still running in
        it.
        """
        if self.exited is not None:
            return cast("datetime", self.exited["timestamp"])
        return None if self.parent is None else self.parent.left_at


def read_execution(client: Any, arn: str, known: list[Mapping[str, Any]] | None = None) -> Execution:
    """Describes the execution `arn` through a boto3 `stepfunctions` client.

    `known` are the events of its history that were read before, in order; those that are new are put behind them. Who
    follows a running execution so reads each event once.
    """
    described = client.describe_execution(executionArn=arn)
    events: list[Mapping[str, Any]] = [] if known is None else known
    events += _history(client, arn, events[-1]["id"] if events else 0)
    return Execution(
        arn=arn,
        name=described["name"],
        status=described["status"],
        started_at=described["startDate"],
        stopped_at=described.get("stopDate"),
        input=_document(described.get("input")),
        output=_document(described.get("output")),
        error=described.get("error"),
        cause=described.get("cause"),
        visits=state_visits(events),
    )


def _history(client: Any, arn: str, last: int) -> list[Mapping[str, Any]]:
    """The events behind the one with the id `last`, in order. The newest come first where few are expected."""
    size = _NEWEST_PAGE if last else _HISTORY_PAGE
    pages = client.get_paginator("get_execution_history").paginate(
        executionArn=arn, reverseOrder=last > 0, maxResults=size
    )
    found: dict[int, Mapping[str, Any]] = {}  # a page of a history that grows may have events of the page before
    for page in pages:
        found |= {event["id"]: event for event in page["events"]}
        if last and any(event["id"] <= last for event in page["events"]):
            break
    return [found[number] for number in sorted(found) if number > last]


def state_visits(events: Iterable[Mapping[str, Any]]) -> tuple[StateVisit, ...]:
    """The visits in the events of an execution's history.

    Every event names the one it follows (`previousEventId`), also inside a Map whose iterations run side by
    side: the visit that an event belongs to is the nearest one on its way back that has not been left.
    """
    by_id: dict[int, Mapping[str, Any]] = {}
    visits: dict[int, _OpenVisit] = {}
    for event in events:
        by_id[event["id"]] = event
        kind = str(event["type"])
        if kind.endswith("StateEntered"):
            visits[event["id"]] = _entered(event, by_id, visits)
        elif kind.endswith("StateExited"):
            name = event["stateExitedEventDetails"]["name"]
            visit = _visit_of(event, by_id, visits, name=name)
            if visit is not None:
                visit.exited = event
        elif not kind.startswith(_NOT_A_TRY):
            container = next((kind_of for kind_of in ("Map", "Parallel") if kind.startswith(f"{kind_of}State")), None)
            visit = _visit_of(event, by_id, visits, container=container)
            if visit is not None:
                _note(visit, kind, event)
    for visit in visits.values():
        _explain_container(visit, visits.values())
    end = next((event for event in by_id.values() if event["type"] in _ENDS), None)
    return tuple(_finished(visit, end) for visit in visits.values())


def find_execution(client: Any, named: str) -> str:
    """The ARN of the execution that `named` means: its ARN, its name (a turn's id) or the name's unique
    beginning.

    Executions of two state machines may have one name: then `<state machine>:<name>` says which. Raises
    UnknownExecution.
    """
    if named.startswith("arn:"):
        return named
    listed = list(list_executions(client))
    machine, separator, name = named.rpartition(":")
    if separator:
        listed, named = [entry for entry in listed if _machine_of(entry) == machine], name
    for candidates in (
        [entry for entry in listed if entry["name"] == named],
        [entry for entry in listed if entry["name"].startswith(named)],
    ):
        if len(candidates) == 1:
            return str(candidates[0]["executionArn"])
        if len(candidates) > 1:
            by_machine = len({entry["name"] for entry in candidates}) < len(candidates)
            names = sorted(
                f"{_machine_of(entry)}:{entry['name']}" if by_machine else entry["name"] for entry in candidates
            )
            raise UnknownExecution(f"{named} means more than one execution: {', '.join(names[:5])}")
    raise UnknownExecution(f"there is no execution {named}; `python -m local history` lists them")


def list_executions(client: Any, limit: int | None = None) -> list[Mapping[str, Any]]:
    """The executions of every state machine, newest first, as ListExecutions describes them."""
    found: list[Mapping[str, Any]] = []
    for machines in client.get_paginator("list_state_machines").paginate():
        for machine in machines["stateMachines"]:
            pages = client.get_paginator("list_executions").paginate(stateMachineArn=machine["stateMachineArn"])
            found += [entry for page in pages for entry in page["executions"]]
    found.sort(key=lambda entry: entry["startDate"], reverse=True)
    return found[:limit]


def render_execution(execution: Execution, paint: Paint = plain) -> str:
    """A table of the visited states: a line for each visit, and one more for each try before its last."""
    rows: list[tuple[str, str, str, str, str, Colour]] = []
    for visit in execution.visits:
        label = "  " * visit.depth + visit.name
        if visit.iteration is not None:
            label += f" [{visit.iteration}]"
        for number, attempt in enumerate(visit.tries[:-1], start=1):
            when, took = _clock(attempt.started_at), _duration(attempt.duration_ms)
            rows.append((label, when, took, str(number), _fault(attempt), "yellow"))
        last = visit.tries[-1] if visit.attempts > 1 else None
        when = _clock(last.started_at if last else visit.entered_at)
        took = _duration(last.duration_ms if last else visit.duration_ms)
        outcome, colour = _outcome(visit)
        rows.append((label, when, took, str(visit.attempts), outcome, colour))
    width = max([len(row[0]) for row in rows] + [5])
    lines = [
        f"{paint(execution.name, 'bold')}  {paint(execution.status, _status_colour(execution.status))}",
        paint(f"{'STATE':{width}}  {'ENTERED':12}  {'MS':>8}  TRY  OUTCOME", "dim"),
        *(
            f"{label:{width}}  {entered:12}  {duration:>8}  {number:>3}  {paint(outcome, colour)}"
            for label, entered, duration, number, outcome, colour in rows
        ),
    ]
    lines.append(f"{len(execution.visits)} states, {_duration(execution.duration_ms)} ms")
    if execution.error:
        lines.append(paint(f"{execution.error}: {_readable_cause(execution.cause)}", "red"))
    return "\n".join(lines)


def render_executions(entries: Sequence[Mapping[str, Any]], paint: Paint = plain) -> str:
    """A line for each execution that ListExecutions described; which state machine's, where there are several."""
    if not entries:
        return "no executions yet"
    machines = {_machine_of(entry) for entry in entries}
    width = max(map(len, machines)) if len(machines) > 1 else 0
    return "\n".join(
        f"{_clock(entry['startDate'])}  {paint(entry['status'].ljust(9), _status_colour(entry['status']))}  "
        f"{_duration(_milliseconds(entry['startDate'], entry.get('stopDate'))):>8} ms  "
        + (f"{_machine_of(entry):{width}}  " if width else "")
        + str(entry["name"])
        for entry in entries
    )


def _machine_of(entry: Mapping[str, Any]) -> str:
    """The state machine's name in an execution's ARN."""
    return str(entry["executionArn"]).split(":")[6]


def _entered(
    event: Mapping[str, Any], by_id: Mapping[int, Mapping[str, Any]], visits: Mapping[int, _OpenVisit]
) -> _OpenVisit:
    """The new visit, with its place: beside the state that was left before it, or as the first one in a Map
    or Parallel.
    """
    before = by_id.get(event.get("previousEventId") or 0)
    iteration: int | None = None
    parent: _OpenVisit | None = None
    if before is not None and str(before["type"]).endswith("StateExited"):
        sibling = next(visit for visit in visits.values() if visit.exited is before)
        iteration, parent = sibling.iteration, sibling.parent
    else:
        parent = _visit_of(event, by_id, visits)
        if before is not None and before["type"] == "MapIterationStarted":
            iteration = before["mapIterationStartedEventDetails"]["index"]
    return _OpenVisit(
        name=event["stateEnteredEventDetails"]["name"],
        type=str(event["type"]).removesuffix("StateEntered"),
        entered=event,
        iteration=iteration,
        parent=parent,
    )


def _visit_of(
    event: Mapping[str, Any],
    by_id: Mapping[int, Mapping[str, Any]],
    visits: Mapping[int, _OpenVisit],
    *,
    name: str | None = None,
    container: str | None = None,
) -> _OpenVisit | None:
    """The nearest visit on the way back that has not been left; of that name, or of that type, if one is
    given.
    """
    for ancestor in _ancestors(event, by_id):
        visit = visits.get(ancestor["id"])
        if visit is None or visit.exited is not None:
            continue
        if name in (None, visit.name) and container in (None, visit.type):
            return visit
    return None


def _ancestors(event: Mapping[str, Any], by_id: Mapping[int, Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    previous = event.get("previousEventId")
    while previous and previous in by_id:
        yield by_id[previous]
        previous = by_id[previous].get("previousEventId")


def _note(visit: _OpenVisit, kind: str, event: Mapping[str, Any]) -> None:
    """A try begins with ...Scheduled (or, for a Map, ...Started), and ends well or with a failure."""
    if kind.endswith("Scheduled") or (kind.endswith("StateStarted") and visit.pending is None):
        visit.pending = event["timestamp"]
        visit.arguments = _details(event).get("parameters")
        return
    if kind.endswith(_FAILURES):
        visit.tries.append(_failed_try(visit, kind, event))
    elif kind.endswith("Succeeded"):
        started = visit.pending or visit.entered["timestamp"]
        took = _milliseconds(started, event["timestamp"])
        visit.tries.append(Try(started, took, arguments=visit.arguments, result=_details(event).get("output")))
    else:
        return
    visit.pending = visit.arguments = None


def _explain_container(visit: _OpenVisit, visits: Iterable[_OpenVisit]) -> None:
    """The event of a failed Map or Parallel does not say why: it was the first failure inside that nothing
    caught.
    """
    if not visit.tries or visit.tries[-1].error not in ("MapStateFailed", "ParallelStateFailed"):
        return
    inner = [other for other in visits if other.parent is visit and other.exited is None and other.tries]
    reasons = [other.tries[-1] for other in inner if other.tries[-1].error is not None]
    if reasons:
        visit.tries[-1] = replace(visit.tries[-1], error=reasons[0].error, cause=reasons[0].cause)


def _failed_try(visit: _OpenVisit, kind: str, event: Mapping[str, Any]) -> Try:
    started = visit.pending or visit.entered["timestamp"]
    details = _details(event)
    error = details.get("error") or ("States.Timeout" if kind.endswith("TimedOut") else kind)
    took = _milliseconds(started, event["timestamp"])
    return Try(started, took, error, details.get("cause"), arguments=visit.arguments)


def _finished(visit: _OpenVisit, end: Mapping[str, Any] | None) -> StateVisit:
    """The visit as it is known now. `end` is the event that ended the execution, and with it what was still
    open.
    """
    tries = list(visit.tries)
    failed = bool(tries) and tries[-1].error is not None
    outcome: Outcome
    left_at = visit.left_at
    if visit.exited is not None:
        outcome = "caught" if failed else "succeeded"
    elif left_at is None and end is None:
        outcome = "running"
    else:
        outcome = "failed"
        if left_at is None and end is not None:
            left_at = end["timestamp"]
            if not failed:
                tries.append(_failed_try(visit, str(end["type"]), end))
    entered_at = visit.entered["timestamp"]
    return StateVisit(
        name=visit.name,
        type=visit.type,
        entered_at=entered_at,
        duration_ms=_milliseconds(entered_at, left_at),
        outcome=outcome,
        tries=tuple(tries),
        iteration=visit.iteration,
        depth=visit.depth,
        output=None if visit.exited is None else _document(visit.exited["stateExitedEventDetails"].get("output")),
        id=visit.entered["id"],
        parent=None if visit.parent is None else visit.parent.entered["id"],
        input=visit.entered["stateEnteredEventDetails"].get("input"),
        pending=visit.arguments if outcome == "running" else None,
    )


def _details(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """The one entry of a history event that holds what happened (`taskFailedEventDetails`, ...)."""
    found = [value for key, value in event.items() if key.endswith("EventDetails") and isinstance(value, dict)]
    return found[0] if found else {}


def _document(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _milliseconds(start: datetime, stop: datetime | None) -> float | None:
    return None if stop is None else round((stop - start).total_seconds() * 1000, 3)


def _clock(moment: datetime) -> str:
    return moment.astimezone().strftime("%H:%M:%S.%f")[:-3]


def _duration(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else f"{milliseconds:.0f}"


def _outcome(visit: StateVisit) -> tuple[str, Colour]:
    if visit.outcome == "succeeded":
        return "succeeded", "green"
    if visit.outcome == "running":
        return "running", "cyan"
    return f"{visit.outcome}: {_fault(visit.tries[-1])}", "yellow" if visit.outcome == "caught" else "red"


def _fault(attempt: Try) -> str:
    cause = _readable_cause(attempt.cause)
    return f"{attempt.error}: {cause}" if cause else str(attempt.error)


def _readable_cause(cause: str | None) -> str:
    """A Lambda function's cause is JSON with the exception's message in it; any other is shown as it is."""
    if not cause:
        return ""
    message = cause
    try:
        document = json.loads(cause)
    except ValueError:
        document = None
    if isinstance(document, dict) and isinstance(document.get("errorMessage"), str):
        message = document["errorMessage"]
    line = " ".join(message.split())
    return line if len(line) <= 160 else f"{line[:157]}..."


def _status_colour(status: str) -> Colour:
    match status:
        case "SUCCEEDED":
            return "green"
        case "RUNNING":
            return "cyan"
        case _:
            return "red"
