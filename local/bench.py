"""`make bench`: what a turn costs, counted: state entries, item writes, read and write units, milliseconds, imports.

Units are what DynamoDB reports (offline: moto, by the developer guide's rules); the functions log them. Times are
medians on this machine, printed beside their bound, which no test asserts. Exits 1 if a bound does not hold.
"""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

from local import tracing_cost
from local.bedrock.scripted_model import ScriptedModel
from local.colours import paint_for
from local.executions import read_execution
from local.stack import LocalStack, LocalStackOptions

_ROOT = Path(__file__).resolve().parent.parent
_RUNTIME = _ROOT / "functions" / "runtime"
_CALL = {"name": "get_account_balance", "input": {"account_id": "12345"}}
_WARM_TURNS = 20
_IMPORT_RUNS = 7
_WAIT_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Measured:
    """One line: what was measured, and the bound that it must keep, if it has one."""

    what: str
    value: float
    unit: str
    at_most: float | None = None

    @property
    def holds(self) -> bool:
        return self.at_most is None or self.value <= self.at_most


@dataclass(frozen=True, slots=True)
class TurnCost:
    """A turn's cost, summed over the functions that ran in its execution. `wall_ms` is what the caller saw."""

    states: int
    item_writes: int
    read_units: float
    write_units: float
    requests: int
    model_ms: float
    wall_ms: float


class Bench:
    """Turns of the banking agent with a scripted model, and their receipts from the functions' log."""

    def __init__(self, stack: LocalStack, model: ScriptedModel) -> None:
        self._stack = stack
        self._model = model
        self._caller = stack.caller()

    def turn(self, session: str, *, calls: int, answer: str = "done") -> TurnCost:
        """One turn with `calls` parallel tool calls and an answer."""
        self.script(calls=calls, answer=answer)
        began_at = time.time_ns() // 1_000_000
        started = time.perf_counter()
        stream = self._caller.invoke_agent(
            agentId="BANKASSIST", agentAliasId="live", sessionId=session, inputText=f"bench {uuid4()}"
        )
        for _ in stream["completion"]:
            pass
        wall_ms = (time.perf_counter() - started) * 1000
        return self._cost(session, began_at, wall_ms)

    def script(self, *, calls: int, answer: str) -> None:
        """What the model says in each turn from now on."""
        asked = {"when": {"step": 1}, "reply": {"toolUse": [_CALL] * calls}}
        self._model.replace([*([asked] if calls else []), {"reply": {"text": answer}}])

    def tool_ms(self) -> float:
        """The median of a warm invocation of the tool function by itself."""
        client, name = self._stack.client("lambda"), self._stack.function_name("BankingToolsFunction")
        event = {
            "messageVersion": "1.0",
            "agent": {"name": "bench", "id": "BANKASSIST", "alias": "live", "version": "1"},
            "inputText": "",
            "sessionId": "bench",
            "actionGroup": "BankingTools",
            "function": _CALL["name"],
            "parameters": [{"name": "account_id", "type": "string", "value": "12345"}],
            "sessionAttributes": {},
            "promptSessionAttributes": {},
        }
        times = []
        for _ in range(10):
            started = time.perf_counter()
            client.invoke(FunctionName=name, Payload=json.dumps(event).encode())["Payload"].read()
            times.append((time.perf_counter() - started) * 1000)
        return median(times)

    def _cost(self, session: str, began_at: int, wall_ms: float) -> TurnCost:
        turn_id = self._last_turn(session)
        execution = read_execution(self._stack.client("stepfunctions"), self._stack.execution_arn(turn_id))
        invocations = sum(visit.type == "Task" for visit in execution.visits)
        lines = self._receipts(turn_id, began_at, invocations)
        total: Counter[str] = Counter()
        for line in lines:
            total.update({name: line[name] for name in ("itemWrites", "readUnits", "writeUnits", "tableRequests")})
        return TurnCost(
            states=len(execution.visits),
            item_writes=total["itemWrites"],
            read_units=total["readUnits"],
            write_units=total["writeUnits"],
            requests=total["tableRequests"],
            model_ms=sum(line.get("latencyMs", 0) for line in lines),
            wall_ms=wall_ms,
        )

    def _last_turn(self, session: str) -> str:
        """The turn that the session's newest event is of."""
        response = self._stack.client("dynamodb").query(
            TableName=self._stack.outputs["TableName"],
            KeyConditionExpression="PK = :session AND begins_with(SK, :event)",
            ExpressionAttributeValues={
                ":session": {"S": f"SESSION#BANKASSIST#-#{session}"},
                ":event": {"S": "EVENT#"},
            },
            ScanIndexForward=False,
            Limit=1,
            ConsistentRead=True,
        )
        return str(response["Items"][0]["turnId"]["S"])

    def _receipts(self, turn_id: str, began_at: int, invocations: int) -> list[Mapping[str, Any]]:
        """The log line of each invocation in the turn's states. Logs come a moment later than the answer."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while True:
            lines = [line for line in self._log(turn_id, began_at) if line.get("message") in _RECEIPTS]
            if len(lines) == invocations:
                return lines
            if time.monotonic() > deadline:
                raise RuntimeError(f"turn {turn_id}: {len(lines)} of {invocations} invocations are in the log")
            time.sleep(0.05)

    def _log(self, turn_id: str, began_at: int) -> Iterator[Mapping[str, Any]]:
        pages = self._stack.client("logs").get_paginator("filter_log_events")
        for page in pages.paginate(logGroupName=self._stack.outputs["RuntimeLogGroup"], startTime=began_at):
            for event in page["events"]:
                if turn_id in event["message"]:
                    yield json.loads(event["message"])


_RECEIPTS = ("turn begun", "model invoked", "tool invoked", "turn committed")


def run() -> int:
    """Measures and prints. Returns the exit status."""
    paint = paint_for(sys.stdout)
    failed = 0
    for measured in _measure():
        bound = "" if measured.at_most is None else f"at most {measured.at_most:g}"
        verdict = "" if measured.at_most is None else paint("ok", "green") if measured.holds else paint("OVER", "red")
        print(f"{measured.what:62} {measured.value:10.6g} {measured.unit:12} {bound:14} {verdict}", flush=True)
        failed += not measured.holds
    return 1 if failed else 0


def _measure() -> Iterator[Measured]:
    model = ScriptedModel([])
    with LocalStack(LocalStackOptions(port=0, aws_port=0, model=model, quiet=True)) as stack:
        bench = Bench(stack, model)
        yield from _states(bench)
        yield from _growth(bench)
        yield from _content(bench)
        yield from _overhead(bench)
        bench.script(calls=1, answer="done")
        share = tracing_cost.share_of_cpu(stack)
        yield Measured("CPU of tracing, of the functions of a one-tool turn", 100 * share, "%", 15)
    yield from _imports()


def _states(bench: Bench) -> Iterator[Measured]:
    for calls, bound in ((0, 4), (1, 9), (3, 13)):
        cost = bench.turn(_session(), calls=calls)
        yield Measured(f"state entries of a turn with {calls} tool calls", cost.states, "entries", bound)
        if calls == 1:
            yield Measured("item writes of a turn with 1 tool call", cost.item_writes, "items", 8)
            yield Measured("write units of the same", cost.write_units, "units")
            yield Measured("read units of the same", cost.read_units, "units")
            yield Measured("requests to the table of the same", cost.requests, "requests")


def _growth(bench: Bench) -> Iterator[Measured]:
    """Every turn has the same content, so that only the session's age differs."""
    session = _session()
    costs = [bench.turn(session, calls=0, answer="the same answer each time") for _ in range(200)]
    at_40, at_200 = costs[39], costs[199]
    yield Measured("read units of turn 40 of a session", at_40.read_units, "units")
    yield Measured("read units of turn 200 of the session", at_200.read_units, "units", at_40.read_units)
    yield Measured("write units of turn 40 of the session", at_40.write_units, "units")
    yield Measured("write units of turn 200 of the session", at_200.write_units, "units", at_40.write_units)


def _content(bench: Bench) -> Iterator[Measured]:
    """The answer is written to the journal, and by the transaction (which costs double) to the event and the header."""
    small = bench.turn(_session(), calls=0, answer="x" * 1_000).write_units
    for kilobytes in (10, 30, 60):
        grown = bench.turn(_session(), calls=0, answer="x" * kilobytes * 1_000).write_units - small
        what = f"write units for each KB of an answer of {kilobytes} KB"
        yield Measured(what, grown / (kilobytes - 1), "units/KB", 5.5)


def _overhead(bench: Bench) -> Iterator[Measured]:
    session = _session()
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
    """CPU time in fresh processes, in turns with the baseline, so that a machine that slows down slows both."""
    baseline = "import boto3; boto3.client('dynamodb', region_name='us-east-1')"
    for path in sorted(_RUNTIME.glob("*.py")):
        ratios = []
        for _ in range(_IMPORT_RUNS):
            ratios.append(_cpu_seconds(f"import {path.stem}") / _cpu_seconds(baseline))
        yield Measured(f"importing {path.stem}, of boto3 and a client", median(ratios), "times", 1.3)


def _cpu_seconds(statement: str) -> float:
    script = f"{statement}\nimport time; print(time.process_time())"
    environment = {"PYTHONPATH": str(_RUNTIME), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def _session() -> str:
    return f"bench-{uuid4().hex[:12]}"
