"""`make demo`: a short conversation with the banking agent, held as any caller would hold it.

The requests are the files in `events/`, in the order of their names. They go over HTTP through an unmodified boto3
client; what is shown of a turn comes from its trace events and from Step Functions' history of its execution.
"""

import json
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local.colours import Paint, paint_for
from local.executions import Execution, StateVisit, read_execution
from local.stack import LocalStack, LocalStackOptions

_WIDTH = 110
_LABEL = 9


class DemoFailed(Exception):
    """A turn did not end as the demonstration says it does."""


@dataclass(slots=True)
class Told:
    """What a caller is told of one turn."""

    answer: str = ""
    turn_id: str = ""
    calls: list[str] = field(default_factory=list)
    results: list[str] = field(default_factory=list)
    input_tokens: int = 0
    output_tokens: int = 0

    def take(self, part: Mapping[str, Any]) -> None:
        """Reads one trace event (Bedrock's TracePart)."""
        trace = part["trace"].get("orchestrationTrace", {})
        for body in trace.values():
            self.turn_id = body["traceId"].rpartition("-")[0]
        usage = trace.get("modelInvocationOutput", {}).get("metadata", {}).get("usage", {})
        self.input_tokens += usage.get("inputTokens", 0)
        self.output_tokens += usage.get("outputTokens", 0)
        call = trace.get("invocationInput", {}).get("actionGroupInvocationInput")
        if call:
            arguments = ", ".join(f"{entry['name']}={entry['value']}" for entry in call["parameters"])
            self.calls.append(f"{call['function']}({arguments})")
        output = trace.get("observation", {}).get("actionGroupInvocationOutput")
        if output:
            self.results.append(output["text"])


def run(model: str, events: Path) -> int:
    """Holds the conversation and prints it. Returns the exit status."""
    paint = paint_for(sys.stdout)
    with LocalStack(LocalStackOptions(port=0, aws_port=0, model=model, quiet=True)) as stack:
        print(_introduction(model, stack.url, paint), flush=True)
        caller = stack.caller()
        for number, (title, request) in enumerate(_scenarios(events, model), start=1):
            print(f"\n{paint(f'{number}  {title}', 'bold')}", flush=True)
            _say("you", request["inputText"], paint)
            told = _converse(caller, request)
            execution = read_execution(stack.client("stepfunctions"), stack.execution_arn(told.turn_id))
            _show(told, execution, paint)
    print(f"\n{paint('Next', 'bold')}: make up serves the same on 127.0.0.1:3000 for your own client (README.md).")
    return 0


def _converse(caller: Any, request: Mapping[str, Any]) -> Told:
    told = Told()
    for event in caller.invoke_agent(**request)["completion"]:
        if "trace" in event:
            told.take(event["trace"])
        elif "chunk" in event:
            told.answer += event["chunk"]["bytes"].decode()
    if not told.answer or not told.turn_id:
        raise DemoFailed(f"no answer to {request['inputText']!r}")
    return told


def _show(told: Told, execution: Execution, paint: Paint) -> None:
    for call, result in zip(told.calls, told.results, strict=True):
        _say("tool", f"{call} -> {result}", paint)
    _say("agent", told.answer, paint)
    _say("states", " > ".join(_visits(execution.visits, paint)), paint)
    model_tries = sum(visit.attempts for visit in execution.visits if visit.name == "Invoke Model")
    tool_tries = sum(visit.attempts for visit in execution.visits if visit.name == "Invoke Tool")
    parts = [
        f"{len(execution.visits)} states",
        f"{execution.duration_ms:.0f} ms",
        f"{model_tries} model attempts",
        f"{tool_tries} tool attempts",
        f"{told.input_tokens} tokens in, {told.output_tokens} out",
    ]
    _say("total", ", ".join(parts), paint)
    if execution.status != "SUCCEEDED":
        raise DemoFailed(f"the execution {execution.name} ended as {execution.status}")


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
    colours = {"you": "bold", "agent": "green", "tool": "cyan"}
    indent = " " * (_LABEL + 3)
    lines = [
        line
        for paragraph in text.splitlines() or [""]
        for line in textwrap.wrap(paragraph, _WIDTH, break_long_words=False, break_on_hyphens=False) or [""]
    ]
    head = paint(f"   {label:{_LABEL}}", colours.get(label, "dim"))  # type: ignore[arg-type]
    print(head + f"\n{indent}".join(lines), flush=True)


def _scenarios(events: Path, model: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(events.glob("*.json")):
        scenario = json.loads(path.read_text())
        only = scenario.get("onlyForModel")
        if only and only != model:
            print(f"\n(left out for this model: {scenario['title']})")
            continue
        yield scenario["title"], scenario["request"]


def _introduction(model: str, url: str, paint: Paint) -> str:
    lines = [
        paint("Turnwright: one agent turn is one Step Functions execution", "bold"),
        "template.yaml, its state machine and its handlers run here, offline; moto plays AWS. boto3 calls " + url,
    ]
    if model == "rule":
        lines.append(
            paint("The model is a rule, not an LLM: it matches words to tools. ", "yellow")
            + "For a real one: make demo MODEL=openai:http://127.0.0.1:11434/v1#MODEL (Ollama, llama.cpp, vLLM)"
            + " or MODEL=bedrock"
        )
    else:
        lines.append(f"The model is {model}")
    return "\n".join(lines)
