"""What memory costs as it grows: counted, for `make bench`.

The bounds are issue 4's: a turn's reads and writes grow neither with the session's age nor with the number of the
actor's sessions, and a consolidation is linear in its session alone. Every turn has the same content, so that only the
age differs. Turns and sessions by the hundred are copies of one that was really held, put beside it in the table.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from local.bench import largest_memory
from local.bench.measuring import Bench, Measured, TurnCost, added_up, new_session, session_of
from local.commands.executions import Execution, read_execution
from local.stack import CONSOLIDATION
from turnwright.api.agentcore.event_operations import Events
from turnwright.api.agentcore.operations import operations
from turnwright.api.agentcore.routes import answer
from turnwright.storage import keys
from turnwright.storage.documents import Documents
from turnwright.storage.keys import Key, SessionId
from turnwright.storage.table import Item, Put, Table, Update

_OLD = 1_000
_SESSIONS = 200
_ANSWER = "the same answer each time"
_LONG_ANSWER = "the same long answer each time " * 60
_LENGTHS = (20, 80, 320)
_WAIT_SECONDS = 60.0
_RECEIPTS = ("session loaded", "records extracted", "records merged", "session summarized", "consolidation written")


@dataclass(frozen=True, slots=True)
class Cost:
    """What was read and written. `states` are those of an execution, if it was one."""

    read_units: float
    write_units: float
    item_writes: int
    states: int = 0


def measure(bench: Bench) -> Iterator[Measured]:
    yield from _session_age(bench)
    yield from _session_lengths(bench)
    yield from _actor_sessions(bench)
    yield from _created_events(bench)
    yield from _largest_memories(bench)


def _session_age(bench: Bench) -> Iterator[Measured]:
    session, actor = new_session(), f"actor-{new_session()}"
    costs = [bench.turn(session, calls=0, answer=_ANSWER, actor=actor) for _ in range(40)]
    _wait_for_consolidations(bench, session)
    _age(bench, session_of(session, actor), _OLD - 50)
    costs += [bench.turn(session, calls=0, answer=_ANSWER, actor=actor) for _ in range(10)]
    _wait_for_consolidations(bench, session)
    turns = {1: costs[0], 20: costs[19], 40: costs[39], _OLD: costs[-1]}
    yield from _curve(f"turns 1, 20, 40 and {_OLD:,} of a session", list(turns.values()))


def _actor_sessions(bench: Bench) -> Iterator[Measured]:
    """The first turn of a session, and the consolidation of one of 20 turns, of an actor with more and more sessions.

    The first actor has as many summaries already as a turn is shown.
    """
    actor = f"actor-{new_session()}"
    turns: list[TurnCost] = []
    consolidations: list[Cost] = []
    had: list[int] = []
    _repeat(bench, actor, 10)
    sessions = 11
    for copies in (0, _SESSIONS):
        _repeat(bench, actor, copies)
        sessions += copies + 1
        had.append(sessions)
        session, _ = _held(bench, actor)
        turns.append(bench.turn(new_session(), calls=0, answer=_ANSWER, actor=actor))
        consolidations.append(_consolidate(bench, session, actor, turns=20))
        sessions += 2
    numbers = " and ".join(map(str, had))
    yield from _curve(f"a session's first turn after {numbers} sessions", turns)
    yield from _curve(f"consolidating 20 turns after {numbers} sessions", consolidations)


def _created_events(bench: Bench) -> Iterator[Measured]:
    """CreateEvent from its request to its answer, as its function does it."""
    session = session_of(new_session(), f"actor-{new_session()}")
    costs = [_create_event(bench, session) for _ in range(20)]
    _age(bench, session, _OLD - 21)
    costs.append(_create_event(bench, session))
    yield from _curve(f"events 1, 20 and {_OLD:,} created in a session", [costs[0], costs[19], costs[20]])


def _largest_memories(bench: Bench) -> Iterator[Measured]:
    """A search of 580 ms of CPU takes 2 s in a function of 512 MB."""
    for memory, load_ms, search_ms in largest_memory.cpu_ms(bench.stack):
        yield Measured(f"CPU of Load Memory, {memory}", load_ms, "ms", 300)
        yield Measured(f"CPU of a search, {memory}", search_ms, "ms", 580)


def _create_event(bench: Bench, session: SessionId) -> Cost:
    table = Table(bench.stack.client("dynamodb"), bench.stack.outputs["TableName"])
    documents = Documents(bench.stack.client("s3"), bench.stack.outputs["BucketName"])
    body = {
        "actorId": session.actor,
        "sessionId": session.session,
        "eventTimestamp": int(time.time()),
        "payload": [{"conversational": {"role": "USER", "content": {"text": _ANSWER}}}],
        "clientToken": str(uuid4()),
    }
    request = {
        "pathParameters": {"memoryId": session.store},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "body": json.dumps(body),
        "isBase64Encoded": False,
    }
    made = answer(operations()["CreateEvent"], Events(table, documents).create, request)
    if made.status != operations()["CreateEvent"].status:
        raise RuntimeError(f"CreateEvent answered {made.status}: {made.body}")
    consumed = table.consumed
    return Cost(consumed.read_units, consumed.write_units, consumed.item_writes)


def _repeat(bench: Bench, actor: str, copies: int) -> None:
    """Holds one session of the actor, ends it, and adds copies of it."""
    session, _ = _held(bench, actor)
    _consolidate(bench, session, actor, turns=1)
    _repeat_session(bench, session_of(session, actor), copies)


def _session_lengths(bench: Bench) -> Iterator[Measured]:
    """Sessions of long answers, so that most are consolidated in several parts."""
    costs = []
    for turns in _LENGTHS:
        session, actor = _held(bench, f"actor-{new_session()}", _LONG_ANSWER)
        costs.append(_consolidate(bench, session, actor, turns=turns))
    what = f"consolidating {', '.join(map(str, _LENGTHS[:-1]))} and {_LENGTHS[-1]} turns, for each turn"
    for name in ("states", "read_units", "write_units"):
        values = [round(getattr(cost, name) / turns, 3) for cost, turns in zip(costs, _LENGTHS, strict=True)]
        unit = "entries" if name == "states" else "units"
        yield Measured(f"{_spelled(name)} of {what}", values[-1], f"{unit}/turn", values[0], tuple(values[:-1]))


def _curve(what: str, costs: Sequence[TurnCost | Cost]) -> Iterator[Measured]:
    """The last may cost what the one before it did."""
    for name in ("read_units", "write_units", "item_writes"):
        values = [float(getattr(cost, name)) for cost in costs]
        unit = "items" if name == "item_writes" else "units"
        yield Measured(f"{_spelled(name)} of {what}", values[-1], unit, values[-2], tuple(values[:-1]))


def _spelled(name: str) -> str:
    return name.replace("_", " ").replace("states", "state entries")


def _held(bench: Bench, actor: str, answer: str = _ANSWER) -> tuple[str, str]:
    """A session of one turn."""
    session = new_session()
    bench.turn(session, calls=0, answer=answer, actor=actor)
    return session, actor


def _consolidate(bench: Bench, session: str, actor: str, *, turns: int) -> Cost:
    """Lets a session of one turn grow to so many turns, ends it, and counts."""
    if turns > 1:
        _age(bench, session_of(session, actor), turns - 1)
    began_at = time.time_ns() // 1_000_000
    bench.end(session, actor)
    [execution] = _wait_for_consolidations(bench, session, "SESSION_END")
    if execution.status != "SUCCEEDED":
        raise RuntimeError(f"the consolidation {execution.name} ended as {execution.status}: {execution.cause}")
    invocations = sum(visit.type == "Task" for visit in execution.visits)
    total = added_up(bench.receipts(execution.name, began_at, _RECEIPTS, invocations))
    return Cost(total["readUnits"], total["writeUnits"], int(total["itemWrites"]), len(execution.visits))


def _age(bench: Bench, session: SessionId, turns: int) -> None:
    """Adds copies of the session's newest event behind it. Digests count them as digested."""
    event = bench.newest_event(session)
    moment, _, suffix = str(event["eventId"]).partition("#")
    copies: list[tuple[Key, Item]] = []
    for number in range(1, turns + 1):
        event_id = f"{int(moment) + number:016d}#{suffix}"
        copies.append((keys.session_event(session, event_id), {**event, "eventId": event_id}))
    _put_all(bench, copies)
    newest = copies[-1][1]["eventId"]
    stored = bench.table.get(keys.session(session)) or {}
    digested = ", digestedTo = :newest" if "digestedTo" in stored else ""
    bench.table.update(
        Update(keys.session(session), f"SET lastEventId = :newest{digested}", values={":newest": newest})
    )


def _repeat_session(bench: Bench, session: SessionId, copies: int) -> None:
    """Adds copies of an ended session, and of its summary, to its actor."""
    item = bench.table.get(keys.session(session)) or {}
    partition = keys.actor_partition(session.store, session.actor)
    [summary] = [
        found
        for found in bench.table.query(partition, keys.SUMMARY_PREFIX, keys.SUMMARY_PREFIX + keys.END)
        if found["sessionId"] == session.session
    ]
    written: list[tuple[Key, Item]] = []
    for number in range(copies):
        copy = SessionId(session.store, session.actor, f"{session.session}-{number}")
        written.append((keys.session(copy), {**item, "sessionId": copy.session, **keys.owned_session(copy)}))
        key = keys.session_summary(copy.store, copy.actor, summary["endedAt"] - number, copy.session)
        written.append((key, {**summary, "sessionId": copy.session, "endedAt": summary["endedAt"] - number}))
    _put_all(bench, written)


def _put_all(bench: Bench, items: Sequence[tuple[Key, Item]]) -> None:
    for start in range(0, len(items), 100):
        bench.table.transact([Put(key, _without_key(item)) for key, item in items[start : start + 100]])


def _without_key(item: Mapping[str, Any]) -> Item:
    return {name: value for name, value in item.items() if name not in ("PK", "SK", "schemaVersion")}


def _wait_for_consolidations(bench: Bench, session: str, kind: str | None = None) -> list[Execution]:
    """The session's consolidations, all ended."""
    client = bench.stack.client("stepfunctions")
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        pages = client.get_paginator("list_executions").paginate(stateMachineArn=bench.stack.resources[CONSOLIDATION])
        executions = [
            execution
            for page in pages
            for entry in page["executions"]
            if (execution := read_execution(client, entry["executionArn"])).input["sessionId"] == session
            and kind in (None, execution.input["kind"])
        ]
        if all(execution.status != "RUNNING" for execution in executions) and (executions or kind is None):
            return executions
        if time.monotonic() > deadline:
            raise RuntimeError(f"the consolidations of session {session} did not end in {_WAIT_SECONDS:g} s")
        time.sleep(0.05)
