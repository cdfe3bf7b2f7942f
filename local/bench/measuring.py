"""Turns of an agent with what they cost, for `make bench`: counted by the functions, read from their log."""

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any
from uuid import uuid4

from local.bedrock.scripted_model import ScriptedModel
from local.commands.executions import read_execution
from local.stack import LocalStack
from turnwright.agents.memory_defaults import OWN_STORE_SUFFIX
from turnwright.storage import keys
from turnwright.storage.keys import NO_ACTOR, SessionId
from turnwright.storage.table import Item, Table

_FORCED = (
    {
        "when": {"forcedTool": "record_facts"},
        "reply": {
            "toolUse": [
                {"name": "record_facts", "input": {"records": [{"key": "tone", "text": "Likes short answers."}]}}
            ]
        },
    },
    {
        "when": {"forcedTool": "summarize_session"},
        "reply": {"toolUse": [{"name": "summarize_session", "input": {"summary": "The same summary each time."}}]},
    },
    {
        "when": {"forcedTool": "digest_session"},
        "reply": {"toolUse": [{"name": "digest_session", "input": {"digest": "The same digest each time."}}]},
    },
)
"""What memory asks, and what it is answered: always the same, so that only what it is asked of differs."""

_CALL = {"name": "get_account_balance", "input": {"account_id": "12345"}}
_WAIT_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Measured:
    """One line: what was measured, and the bound that it must keep, if it has one. `before` are earlier values of the
    same curve.
    """

    what: str
    value: float
    unit: str
    at_most: float | None = None
    before: tuple[float, ...] = ()

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
        self.stack = stack
        self._model = model
        self._caller = stack.caller()
        self.table = Table(stack.client("dynamodb"), stack.outputs["TableName"])

    def turn(self, session: str, *, calls: int, answer: str = "done", actor: str = NO_ACTOR) -> TurnCost:
        """One turn with `calls` parallel tool calls and an answer."""
        self.script(calls=calls, answer=answer)
        began_at = time.time_ns() // 1_000_000
        started = time.perf_counter()
        memory = {} if actor == NO_ACTOR else {"memoryId": actor}
        stream = self._caller.invoke_agent(
            agentId="BANKASSIST", agentAliasId="live", sessionId=session, inputText=f"bench {uuid4()}", **memory
        )
        for _ in stream["completion"]:
            pass
        wall_ms = (time.perf_counter() - started) * 1000
        return self._cost(session_of(session, actor), began_at, wall_ms)

    def script(self, *, calls: int, answer: str) -> None:
        """What the model says in each turn from now on."""
        asked = {"when": {"step": 1, "forcedTool": ""}, "reply": {"toolUse": [_CALL] * calls}}
        free = {"when": {"forcedTool": ""}, "reply": {"text": answer}}
        self._model.replace([*([asked] if calls else []), free, *_FORCED])

    def end(self, session: str, actor: str) -> None:
        stream = self._caller.invoke_agent(
            agentId="BANKASSIST", agentAliasId="live", sessionId=session, memoryId=actor, endSession=True
        )
        for _ in stream["completion"]:
            pass

    def tool_ms(self) -> float:
        """The median of a warm invocation of the tool function by itself."""
        client, name = self.stack.client("lambda"), self.stack.function_name("BankingToolsFunction")
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

    def newest_event(self, session: SessionId) -> Item:
        prefix = keys.EVENT_PREFIX
        return next(self.table.query(session.partition, prefix, prefix + keys.END, newest_first=True, limit=1))

    def receipts(
        self, identifier: str, began_at: int, messages: Sequence[str], invocations: int
    ) -> list[Mapping[str, Any]]:
        """The log line, with one of `messages`, of each invocation for a turn or a consolidation. Logs come a moment
        later than the answer.
        """
        deadline = time.monotonic() + _WAIT_SECONDS
        while True:
            lines = [line for line in self._log(identifier, began_at) if line.get("message") in messages]
            if len(lines) == invocations:
                return lines
            if time.monotonic() > deadline:
                raise RuntimeError(f"{identifier}: {len(lines)} of {invocations} invocations are in the log")
            time.sleep(0.05)

    def _cost(self, session: SessionId, began_at: int, wall_ms: float) -> TurnCost:
        turn_id = str(self.newest_event(session)["turnId"])
        execution = read_execution(self.stack.client("stepfunctions"), self.stack.execution_arn(turn_id))
        invocations = sum(visit.type == "Task" for visit in execution.visits)
        lines = self.receipts(turn_id, began_at, _RECEIPTS, invocations)
        total = added_up(lines)
        return TurnCost(
            states=len(execution.visits),
            item_writes=int(total["itemWrites"]),
            read_units=total["readUnits"],
            write_units=total["writeUnits"],
            requests=int(total["tableRequests"]),
            model_ms=sum(line.get("latencyMs", 0) for line in lines),
            wall_ms=wall_ms,
        )

    def _log(self, identifier: str, began_at: int) -> Iterator[Mapping[str, Any]]:
        pages = self.stack.client("logs").get_paginator("filter_log_events")
        for page in pages.paginate(logGroupName=self.stack.outputs["RuntimeLogGroup"], startTime=began_at):
            for event in page["events"]:
                if identifier in event["message"]:
                    yield json.loads(event["message"])


def session_of(session: str, actor: str = NO_ACTOR) -> SessionId:
    return SessionId(f"BANKASSIST{OWN_STORE_SUFFIX}", actor, session)


def added_up(lines: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """The sums of what invocations logged."""
    total: Counter[str] = Counter()
    for line in lines:
        total.update({name: line[name] for name in ("itemWrites", "readUnits", "writeUnits", "tableRequests")})
    return total


_RECEIPTS = ("turn begun", "model invoked", "tool invoked", "turn committed")


def new_session() -> str:
    return f"bench-{uuid4().hex[:12]}"
