"""`make bench`: what a turn costs, counted: state entries, item writes, read and write units, milliseconds, imports.

Units are what DynamoDB reports (offline: moto, by the developer guide's rules); the functions log them. Times are
medians on this machine, printed beside their bound, which no test asserts. A line with several values is a curve; its
bound is on the last. Exits 1 if a bound does not hold. What memory costs is in `memory_bench.py`.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from local.bedrock.scripted_model import ScriptedModel
from local.bench import memory_bench, tracing_cost
from local.bench.hostile_texts import hostile_texts
from local.bench.measuring import Bench, Measured, new_session
from local.deployment.sam_yaml import load_template
from local.stack import LocalStack, LocalStackOptions
from local.terminal.colours import paint_for
from turnwright.tracing.redaction import Redaction, split_list

_ROOT = Path(__file__).resolve().parents[2]
_RUNTIME = _ROOT / "functions" / "runtime"
_WARM_TURNS = 20
_IMPORT_ROUNDS = 3


def run() -> int:
    """Measures and prints. Returns the exit status."""
    paint = paint_for(sys.stdout)
    failed = 0
    for measured in _measure():
        bound = "" if measured.at_most is None else f"at most {measured.at_most:g}"
        verdict = "" if measured.at_most is None else paint("ok", "green") if measured.holds else paint("OVER", "red")
        values = " ".join(f"{value:.4g}" for value in (*measured.before, measured.value))
        print(f"{measured.what:68} {values:>18} {measured.unit:12} {bound:13} {verdict}", flush=True)
        failed += not measured.holds
    return 1 if failed else 0


def _measure() -> Iterator[Measured]:
    model = ScriptedModel([])
    options = LocalStackOptions(port=0, aws_port=0, model=model, quiet=True, schedules=False)
    with LocalStack(options) as stack:
        bench = Bench(stack, model)
        yield from _states(bench)
        yield from memory_bench.measure(bench)
        yield from _content(bench)
        yield from _overhead(bench)
        bench.script(calls=1, answer="done")
        share = tracing_cost.share_of_cpu(stack)
        yield Measured("CPU of tracing, of the functions of a one-tool turn", 100 * share, "%", 15)
    yield _redaction()
    yield from _imports()


def _states(bench: Bench) -> Iterator[Measured]:
    for calls, bound in ((0, 4), (1, 9), (3, 13)):
        cost = bench.turn(new_session(), calls=calls)
        yield Measured(f"state entries of a turn with {calls} tool calls", cost.states, "entries", bound)
        if calls == 1:
            yield Measured("item writes of a turn with 1 tool call", cost.item_writes, "items", 8)
            yield Measured("write units of the same", cost.write_units, "units")
            yield Measured("read units of the same", cost.read_units, "units")
            yield Measured("requests to the table of the same", cost.requests, "requests")


def _redaction() -> Measured:
    fields = split_list(load_template(_ROOT / "template.yaml")["Parameters"]["TraceRedactFields"]["Default"])
    redaction = Redaction.of(fields, [])
    slowest = 0.0
    for _, text in hostile_texts(2**20):
        started = time.thread_time()
        redaction.text(text)
        slowest = max(slowest, time.thread_time() - started)
    return Measured("CPU of redacting 1 MiB, the slowest of many texts", 1000 * slowest, "ms", 50)


def _content(bench: Bench) -> Iterator[Measured]:
    """The answer is written to the journal, and by the transaction (which costs double) to the event and the header."""
    small = bench.turn(new_session(), calls=0, answer="x" * 1_000).write_units
    for kilobytes in (10, 30, 60):
        grown = bench.turn(new_session(), calls=0, answer="x" * kilobytes * 1_000).write_units - small
        what = f"write units for each KB of an answer of {kilobytes} KB"
        yield Measured(what, grown / (kilobytes - 1), "units/KB", 5.5)


def _overhead(bench: Bench) -> Iterator[Measured]:
    session = new_session()
    for _ in range(3):
        bench.turn(session, calls=1)
    tool_ms = bench.tool_ms()
    costs = [bench.turn(session, calls=1) for _ in range(_WARM_TURNS)]
    wall = median(cost.wall_ms for cost in costs)
    beyond = median(cost.wall_ms - cost.model_ms - tool_ms for cost in costs)
    yield Measured("a one-tool turn, warm, as the caller sees it", wall, "ms")
    yield Measured("the tool by itself", tool_ms, "ms")
    yield Measured("the turn beyond its model and tool", beyond, "ms", 300)


def _imports() -> Iterator[Measured]:
    """CPU time in fresh processes, in rounds with the baseline, so that a machine that slows down slows all."""
    baseline = "import boto3; boto3.client('dynamodb', region_name='us-east-1')"
    ratios: dict[str, list[float]] = {path.stem: [] for path in sorted(_RUNTIME.glob("*.py"))}
    for _ in range(_IMPORT_ROUNDS):
        basis = _cpu_seconds(baseline)
        for handler, measured in ratios.items():
            measured.append(_cpu_seconds(f"import {handler}") / basis)
    slowest = max(ratios, key=lambda handler: median(ratios[handler]))
    what = f"importing {slowest}, the slowest of {len(ratios)}, of boto3 and a client"
    yield Measured(what, round(median(ratios[slowest]), 3), "times", 1.3)


def _cpu_seconds(statement: str) -> float:
    script = f"{statement}\nimport time; print(time.process_time())"
    environment = {"PYTHONPATH": str(_RUNTIME), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)
