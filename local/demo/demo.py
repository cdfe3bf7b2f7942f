"""`make demo`: a short conversation with the banking agent, held as any caller would hold it.

The requests are the files in `events/`, in the order of their names. They go over HTTP through an unmodified boto3
client; what is shown of a turn comes from its trace events and from Step Functions' history of its execution, and what
is shown of memory from where it is kept (`remembering.py`).
"""

import json
import shutil
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from local.commands.executions import Execution, StateVisit, read_execution
from local.commands.tool_attempts import ToolCall, render_attempt, tool_calls
from local.demo import remembering
from local.stack import LocalStack, LocalStackOptions
from local.terminal.colours import Paint, paint_for

RECOVERY_SECONDS = 2
"""How long an open circuit is left alone here, at most."""

_WIDTH = 110
_LABEL = 10
_END_SECONDS = 10


class DemoFailed(Exception):
    """A turn did not end as the demonstration says it does."""


@dataclass(slots=True)
class Told:
    """What a caller is told of one turn. `calls` are the tools that each step called, as (name, arguments)."""

    answer: str = ""
    turn_id: str = ""
    calls: dict[int, list[tuple[str, str]]] = field(default_factory=dict)
    input_tokens: int = 0
    output_tokens: int = 0

    def take(self, part: Mapping[str, Any]) -> None:
        """Reads one trace event (Bedrock's TracePart)."""
        trace = part["trace"].get("orchestrationTrace", {})
        step = 0
        for body in trace.values():
            step = int(body["traceId"].rpartition("-")[2])
        usage = trace.get("modelInvocationOutput", {}).get("metadata", {}).get("usage", {})
        self.input_tokens += usage.get("inputTokens", 0)
        self.output_tokens += usage.get("outputTokens", 0)
        call = trace.get("invocationInput", {}).get("actionGroupInvocationInput")
        if call:
            arguments = ", ".join(f"{entry['name']}={entry['value']}" for entry in call.get("parameters", ()))
            self.calls.setdefault(step, []).append((call.get("function") or call["apiPath"], arguments))


@dataclass(frozen=True, slots=True)
class Scenario:
    """One file of `events/`. `pauses` are the seconds before each of its turns, all with the same request."""

    title: str
    request: Mapping[str, Any]
    pauses: Sequence[float]
    faults: Path | None


def run(model: str, events: Path, faults: Path | None = None) -> int:
    """Holds the conversation and prints it. Returns the exit status.

    With `faults` the conversation has those faults; what shows faults of its own is left out.
    """
    paint = paint_for(sys.stdout)
    with TemporaryDirectory(prefix="turnwright-demo-") as folder:
        recoveries = _copy_project(events.parent, Path(folder))
        options = LocalStackOptions(
            port=0,
            aws_port=0,
            model=model,
            template=Path(folder) / "template.yaml",
            faults=faults,
            quiet=True,
        )
        with LocalStack(options) as stack:
            print(_introduction(model, stack.url, paint), flush=True)
            for number, scenario in enumerate(_scenarios(events, model, faults), start=1):
                print(f"\n{paint(f'{number}  {scenario.title}', 'bold')}", flush=True)
                _play(stack, scenario, recoveries, paint)
    print(f"\n{paint('Next', 'bold')}: make up serves the same on 127.0.0.1:3000 for your own client (README.md).")
    return 0


def _copy_project(root: Path, folder: Path) -> list[int]:
    """A copy of the project in which circuits recover soon enough to be watched: only its agent files are others.

    Returns the recovery times, in seconds, that stand in the project's own.
    """
    for name in ("functions", "statemachines"):
        (folder / name).symlink_to(root / name, target_is_directory=True)
    shutil.copy(root / "template.yaml", folder)
    shutil.copytree(root / "agents", folder / "agents")
    recoveries: list[int] = []

    def shorten(fields: dict[str, Any]) -> dict[str, Any]:
        if isinstance(fields.get("recoveryTimeSeconds"), int):
            recoveries.append(fields["recoveryTimeSeconds"])
            fields["recoveryTimeSeconds"] = min(RECOVERY_SECONDS, fields["recoveryTimeSeconds"])
        return fields

    for file in (folder / "agents").glob("*.json"):
        if file.name != "agent.schema.json":
            with suppress(ValueError):  # the stack says what is wrong with the file
                file.write_text(json.dumps(json.loads(file.read_text(), object_hook=shorten)))
    return recoveries


def _play(stack: LocalStack, scenario: Scenario, recoveries: Sequence[int], paint: Paint) -> None:
    if scenario.faults:
        stack.faults.load(scenario.faults)
        for fault in json.loads(scenario.faults.read_text())["faults"]:
            _say("fault", " ".join(f"{name}={_plain(value)}" for name, value in fault.items()), paint)
    caller = stack.caller()
    if scenario.request.get("endSession"):
        _end_session(stack, caller, scenario.request, paint)
        return
    for pause in scenario.pauses:
        if pause:
            usual = ", ".join(f"{seconds} s" for seconds in sorted(set(recoveries)))
            _say("pause", f"{pause} s, the recovery time here; the agent's file says {usual}", paint)
            time.sleep(pause)
        _say("you", scenario.request["inputText"], paint)
        told = _converse(caller, scenario.request)
        execution = _ended_execution(stack, told.turn_id)
        if execution.status != "SUCCEEDED":
            raise DemoFailed(f"the execution {execution.name} ended as {execution.status}")
        if len(scenario.pauses) > 1:
            _show_attempts(told, tool_calls(execution), paint)
            _say("agent", told.answer, paint)
        else:
            _say_all(remembering.shown_lines(remembering.injected(stack, told.turn_id)), paint)
            _show(told, execution, paint)
    if scenario.faults:
        stack.faults.replace([])


def _end_session(stack: LocalStack, caller: Any, request: Mapping[str, Any], paint: Paint) -> None:
    """Ends the session as its caller, and shows what is remembered of it. The caller does not wait for that."""
    _say("you", f"endSession of {request['sessionId']}", paint)
    for _ in caller.invoke_agent(**request)["completion"]:
        pass
    try:
        done = remembering.consolidated(stack, request["sessionId"])
    except remembering.NothingConsolidated as error:
        raise DemoFailed(str(error)) from error
    if done.execution.status != "SUCCEEDED":
        raise DemoFailed(f"the consolidation {done.execution.name} ended as {done.execution.status}")
    _say_all(remembering.lines(done), paint)
    _say("states", " > ".join(_visits(done.execution.visits, paint)), paint)
    _say("total", f"{len(done.execution.visits)} states, {done.execution.duration_ms:.0f} ms", paint)


def _say_all(lines: Iterable[tuple[str, str]], paint: Paint) -> None:
    before = ""
    for label, text in lines:
        _say("" if label == before else label, text, paint)
        before = label


def _ended_execution(stack: LocalStack, turn_id: str) -> Execution:
    """The turn's execution. The caller has its answer when it is committed, a moment before the execution ends."""
    deadline = time.monotonic() + _END_SECONDS
    while True:
        execution = read_execution(stack.client("stepfunctions"), stack.execution_arn(turn_id))
        if execution.status != "RUNNING" or time.monotonic() > deadline:
            return execution
        time.sleep(0.05)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _converse(caller: Any, request: Mapping[str, Any]) -> Told:
    told = Told()
    response = caller.invoke_agent(**request)
    told.turn_id = response["ResponseMetadata"]["HTTPHeaders"]["x-turnwright-turn-id"]
    for event in response["completion"]:
        if "trace" in event:
            told.take(event["trace"])
        elif "chunk" in event:
            told.answer += event["chunk"]["bytes"].decode()
    if not told.answer:
        raise DemoFailed(f"no answer to {request['inputText']!r}")
    return told


def _show(told: Told, execution: Execution, paint: Paint) -> None:
    calls = tool_calls(execution)
    if any(attempt.code for call in calls for attempt in call.attempts):
        _show_attempts(told, calls, paint)
    for call, (name, arguments) in _named(told, calls):
        _say("tool", f"{name}({arguments}) -> {call.result}", paint)
    _say("agent", told.answer, paint)
    _say("states", " > ".join(_visits(execution.visits, paint)), paint)
    model_tries = sum(visit.attempts for visit in execution.visits if visit.name == "Invoke Model")
    parts = [
        f"{len(execution.visits)} states",
        f"{execution.duration_ms:.0f} ms",
        f"{model_tries} model attempts",
        f"{sum(len(call.attempts) for call in calls)} tool attempts",
        f"{told.input_tokens} tokens in, {told.output_tokens} out",
    ]
    _say("total", ", ".join(parts), paint)


def _show_attempts(told: Told, calls: Sequence[ToolCall], paint: Paint) -> None:
    label = "attempts"
    for call, (name, _) in _named(told, calls):
        for attempt in call.attempts:
            print(paint(f"   {label:{_LABEL}}", "dim") + render_attempt(call.step, name, attempt, paint), flush=True)
            label = ""


def _named(told: Told, calls: Sequence[ToolCall]) -> Iterator[tuple[ToolCall, tuple[str, str]]]:
    """The calls that were attempted, with what the trace says of them: both leave out tools that are not there."""
    for step, named in told.calls.items():
        attempted = [call for call in calls if call.step == step and call.attempts]
        yield from zip(attempted, named, strict=True)


def _visits(visits: Sequence[StateVisit], paint: Paint) -> Iterator[str]:
    for visit in visits:
        name = f"{visit.name} [{visit.iteration}]" if visit.iteration is not None else visit.name
        for failed in visit.tries[:-1]:
            yield paint(f"{name} {failed.duration_ms:.0f} ms {failed.error}, retried", "yellow")
        if visit.type == "Task":
            yield f"{name} {paint(f'{visit.tries[-1].duration_ms or 0:.0f} ms', 'cyan')}"
        else:
            yield paint(name, "dim")


def _say(label: str, text: str, paint: Paint) -> None:
    colours = {"you": "bold", "agent": "green", "tool": "cyan", "fault": "yellow", "pause": "yellow"}
    indent = " " * (_LABEL + 3)
    lines = [
        line
        for paragraph in text.splitlines() or [""]
        for line in textwrap.wrap(paragraph, _WIDTH, break_long_words=False, break_on_hyphens=False) or [""]
    ]
    head = paint(f"   {label:{_LABEL}}", colours.get(label, "dim"))  # type: ignore[arg-type]
    print(head + f"\n{indent}".join(lines), flush=True)


def _scenarios(events: Path, model: str, faults: Path | None) -> Iterator[Scenario]:
    for path in sorted(events.glob("*.json")):
        fields = json.loads(path.read_text())
        only, own_faults = fields.get("onlyForModel"), fields.get("faults")
        if only and only != model:
            print(f"\n(left out for this model: {fields['title']})")
            continue
        if own_faults and faults:
            print(f"\n(left out with other faults: {fields['title']})")
            continue
        yield Scenario(
            fields["title"],
            fields["request"],
            fields.get("pauseSecondsBeforeTurns", [0]),
            events / own_faults if own_faults else None,
        )


def _introduction(model: str, url: str, paint: Paint) -> str:
    lines = [
        paint("Turnwright: one agent turn is one Step Functions execution", "bold"),
        "template.yaml, its state machine and its handlers run here, offline; moto plays AWS. boto3 calls " + url,
    ]
    if model == "rule":
        lines.append(
            paint("The model is a rule, not an LLM: it matches words to tools. ", "yellow")
            + "What memory keeps, it extracts by rules too. "
            + "For a real one: make demo MODEL=openai:http://127.0.0.1:11434/v1#MODEL (Ollama, llama.cpp, vLLM)"
            + " or MODEL=bedrock"
        )
    else:
        lines.append(f"The model is {model}")
    return "\n".join(lines)
