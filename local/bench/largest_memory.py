"""What a memory costs that holds more than is read at once, for `make bench`: the CPU time of Load Memory's turn and of
a call of `search_memory`, in one process of their own.

Run by `cpu_ms` as `python -m local.bench.largest_memory` in the environment that the functions have. A function of
512 MB has 0.29 of a virtual CPU (1,769 MB have a whole one: "Configure Lambda function memory" in Lambda's developer
guide), so that it takes 3.5 times the CPU time that is counted here.
"""

import json
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import median
from uuid import uuid4

from local.bench.own_process import as_functions
from local.stack import LocalStack
from turnwright.agents import versions
from turnwright.agents.definitions import Agent
from turnwright.agents.memory_configuration import RECORD_BYTES, Injection
from turnwright.memory.memory_tools import MemoryTools
from turnwright.memory.records.records import Provenance, Record, added
from turnwright.models.embeddings import TITAN_DIMENSIONS
from turnwright.sessions.turns import Turns
from turnwright.sessions.values import Turn, TurnRequest
from turnwright.storage.clock import now_ms
from turnwright.storage.documents import documents
from turnwright.storage.table import Table, table
from turnwright.turn.load_memory import begin

_ALPHABETS = ((0x61, 0x7B), (0x430, 0x450), (0x905, 0x93A), (0x4E00, 0x9FA0), (0xE01, 0xE2F), (0xAC00, 0xD7A4))
_BATCH_BYTES = 2_000_000
_TIMES = 3
_EMBEDDING_MODEL = "amazon.titan-embed-text-v2:0"
_QUERY = "which currency does she report in, and since when?"


@dataclass(frozen=True, slots=True)
class Memory:
    """So many namespaces with so many records each, of so many bytes, all chosen by relevance."""

    name: str
    namespaces: int
    records: int
    record_bytes: int
    embeddings: bool


MEMORIES = (
    Memory("1,000 records of 16 KB", 1, 1_000, RECORD_BYTES, embeddings=False),
    Memory("200 records of 16 KB", 1, 200, RECORD_BYTES, embeddings=False),
    Memory("2,000 records in 20 namespaces", 20, 100, 200, embeddings=False),
    Memory("1,600 records with embeddings", 2, 800, 200, embeddings=True),
)


def cpu_ms(stack: LocalStack) -> Iterator[tuple[str, float, float]]:
    """Of each of `MEMORIES` its name, and the CPU time in ms of Load Memory and of a search, medians."""
    told = as_functions(stack, "local.bench.largest_memory", ["LoadMemoryFunction", "InvokeToolFunction"])
    for memory, (load, search) in zip(MEMORIES, json.loads(told), strict=True):
        yield memory.name, load, search


def _main() -> None:
    store = table()
    agent = versions.load(store, "BANKASSIST", versions.resolve(store, "BANKASSIST", "live"))
    costs = [_costs(store, agent, memory) for memory in MEMORIES]
    print(json.dumps(costs), file=sys.stderr)


def _costs(store: Table, agent: Agent, memory: Memory) -> tuple[float, float]:
    actor = f"actor-{uuid4().hex[:12]}"
    some = next(each for each in agent.memory.namespaces if not each.of_session)
    namespaces = tuple(
        replace(
            some,
            name=f"n{number}",
            template=f"/n{number}/{{actorId}}/",
            max_records=memory.records,
            inject=Injection(relevance=True),
        )
        for number in range(memory.namespaces)
    )
    model = _EMBEDDING_MODEL if memory.embeddings else None
    agent = replace(agent, memory=replace(agent.memory, namespaces=namespaces, embedding_model=model))
    _fill(store, agent, actor, memory)
    loads, searches = [], []
    for _ in range(1 + _TIMES):
        started = time.process_time()
        turn = _begin(store, agent, actor)
        loads.append(time.process_time() - started)
        header = Turns(store).read(turn.turnId)
        if header is None:
            raise RuntimeError(f"the turn {turn.turnId} has no header")
        started = time.process_time()
        found = MemoryTools(store, agent, header).use("search_memory", {"query": _QUERY}, "call")
        searches.append(time.process_time() - started)
        if not json.loads(found.text)["records"]:
            raise RuntimeError(f"nothing was found among {memory.name}")
    return round(1_000 * median(loads[1:]), 1), round(1_000 * median(searches[1:]), 1)


def _begin(store: Table, agent: Agent, actor: str) -> Turn:
    request = TurnRequest(
        turn_id=uuid4().hex,
        agent_id=agent.agent_id,
        agent_alias_id="live",
        session_id=uuid4().hex,
        memory_id=actor,
        caller="",
        trace=False,
        body={"inline": {"inputText": _QUERY}},
    )
    return begin(store, documents(), agent, request, "bench", redrive=0)


def _fill(store: Table, agent: Agent, actor: str, memory: Memory) -> None:
    chance = random.Random(memory.name)
    at_once = max(1, min(50, _BATCH_BYTES // memory.record_bytes))
    for namespace in agent.memory.namespaces:
        records = [
            Record(
                store=agent.memory_store,
                actor=actor,
                namespace=namespace.path(actor, ""),
                record_id=f"mem-{uuid4()}",
                text=_text(chance, memory.record_bytes),
                provenance=Provenance("CONSOLIDATION", session_id=uuid4().hex, turn_id=uuid4().hex),
                strategy=namespace.name,
                key=f"key_{number}",
                updated_at=now_ms() + number,
                timestamp=now_ms(),
                embedding=tuple(chance.uniform(-1, 1) for _ in range(TITAN_DIMENSIONS)) if memory.embeddings else None,
                embedding_model=_EMBEDDING_MODEL if memory.embeddings else "",
            )
            for number in range(memory.records)
        ]
        for start in range(0, len(records), at_once):
            store.transact([added(record) for record in records[start : start + at_once]])


def _text(chance: random.Random, size: int) -> str:
    """Words of one script and a word of the query, of so many bytes of UTF-8 at most."""
    first, last = chance.choice(_ALPHABETS)
    words = ["currency"]
    for _ in range(size // 3):
        words.append("".join(chr(chance.randrange(first, last)) for _ in range(chance.randint(2, 9))))
    return " ".join(words).encode()[:size].decode(errors="ignore")


if __name__ == "__main__":
    _main()
