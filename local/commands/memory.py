"""`python -m local memory ACTOR`: what is remembered of an actor and where it came from; its export; its erasure.

Everything is read from the running stack's table and bucket, by the runtime's own modules.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any
from urllib.parse import unquote

from local.terminal.colours import Paint
from turnwright.agents.versions import LIVE_ALIAS, load, resolve
from turnwright.errors import NotFound
from turnwright.memory.erasure.belongings import Belongings
from turnwright.memory.erasure.erasures import Erasures
from turnwright.memory.records.records import Record, Records
from turnwright.memory.records.session_summaries import SessionSummaries, SessionSummary
from turnwright.storage import keys
from turnwright.storage.clock import iso8601
from turnwright.storage.documents import Documents
from turnwright.storage.keys import Key
from turnwright.storage.table import Item, Table

_MOST_SUMMARIES = 1_000
_ENDED = ("SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED")


class NoMemory(Exception):
    """There is no such actor or store, or it is not clear which. The message is one line."""


class NotErased(Exception):
    """The erasure has not ended well. The message is one line."""


@dataclass(frozen=True, slots=True)
class Session:
    """A session as its item has it; times in ms, 0 if there is none."""

    session_id: str
    status: str
    created_at: int
    last_event_at: int
    agent: str

    @classmethod
    def decode(cls, item: Item) -> "Session":
        return cls(
            session_id=item["sessionId"],
            status=item["status"],
            created_at=item.get("createdAt", 0),
            last_event_at=int(item.get("lastEventId", "0").partition("#")[0]),
            agent=" ".join(str(item[name]) for name in ("agentId", "agentVersion") if name in item),
        )


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered of an actor in a store: records by namespace, summaries and sessions newest first."""

    store: str
    actor: str
    records: Sequence[Record]
    summaries: Sequence[SessionSummary]
    sessions: Sequence[Session]


def store_of(table: Table, actor: str, store: str | None) -> str:
    """The store that is named, or the one that knows the actor. Raises NoMemory."""
    stores = sorted(_stores(table))
    if store is not None:
        if store not in stores:
            raise NoMemory(f"there is no memory store {store}; {_list(stores)}")
        return store
    knowing = [each for each in stores if table.get(keys.actor(each, actor))]
    if len(knowing) != 1:
        problem = f"{_list(knowing)} know {actor}: name one with --store" if knowing else f"nothing is known of {actor}"
        raise NoMemory(problem)
    return knowing[0]


def read(table: Table, documents: Documents, store: str, actor: str) -> Memory:
    belongings = Belongings(table, documents, store, actor)
    places = [Key(session.partition, session.head or "") for session in belongings.sessions()]
    items = (table.get(place) for place in places)
    sessions = sorted((Session.decode(item) for item in items if item), key=lambda each: -each.last_event_at)
    records = sorted(Records(table).of_actor(store, actor), key=lambda each: (each.namespace, -each.updated_at))
    return Memory(store, actor, records, SessionSummaries(table).latest(store, actor, _MOST_SUMMARIES), sessions)


def as_json(memory: Memory) -> str:
    document = asdict(memory)
    for record in document["records"]:
        del record["embedding"]
    return json.dumps(document, indent=2, ensure_ascii=False)


def exported(table: Table, documents: Documents, store: str, actor: str) -> Iterator[str]:
    """All that an erasure would erase, as JSON lines: `{"item": ...}` as the table has it, `{"object", "document"}`."""
    belongings = Belongings(table, documents, store, actor)
    for item in belongings.items():
        yield json.dumps({"item": item}, ensure_ascii=False)
    for name in belongings.objects():
        yield json.dumps({"object": name, "document": documents.fetch({"object": name})}, ensure_ascii=False)


def erase(
    table: Table,
    documents: Documents,
    erasures: Erasures,
    store: str,
    actor: str,
    wait: Callable[[], None] = lambda: time.sleep(0.5),
) -> str:
    """Starts an erasure, waits for its end, looks for what is left, and says so. Raises NotErased."""
    belongings = Belongings(table, documents, store, actor)
    items, objects = _count(belongings)
    erasure_id = erasures.start(store, actor)
    execution = f"{erasures.machine_arn.replace(':stateMachine:', ':execution:')}:{erasure_id}"
    while (status := erasures.stepfunctions.describe_execution(executionArn=execution)["status"]) not in _ENDED:
        wait()
    if status != "SUCCEEDED":
        raise NotErased(f"the erasure {erasure_id} has {status}; see python -m local describe {erasure_id}")
    left = _count(belongings)
    if any(left):
        raise NotErased(f"{left[0]} items and {left[1]} objects of {actor} are there again: somebody writes on")
    return f"erased {items} items and {objects} objects; nothing of {actor} is left in {store}"


def render(memory: Memory, paint: Paint) -> str:
    lines = [f"{paint(memory.actor, 'bold')} in {memory.store}"]
    for namespace, records in groupby(memory.records, key=lambda record: record.namespace):
        lines += ["", paint(namespace, "bold"), *_records(list(records), paint)]
    if memory.summaries:
        rows = [(_time(each.ended_at), each.session_id, _one_line(each.text)) for each in memory.summaries]
        lines += ["", paint("summaries", "bold"), *_table(rows)]
    if memory.sessions:
        sessions = [
            (
                each.session_id,
                each.status,
                f"begun {_time(each.created_at)}",
                f"last {_time(each.last_event_at)}",
                each.agent,
            )
            for each in memory.sessions
        ]
        lines += ["", paint("sessions", "bold"), *_table(sessions)]
    if len(lines) == 1:
        lines.append("nothing is remembered")
    return "\n".join(lines)


def _stores(table: Table) -> set[str]:
    """Those that CreateMemory made and those of published agents."""
    stores = {unquote(item["SK"].removeprefix("STORE#")) for item in table.query(keys.STORE_LISTING, " ", keys.END)}
    for item in table.query(keys.AGENT_LISTING, " ", keys.END):
        try:
            version = resolve(table, item["agentId"], LIVE_ALIAS)
            stores.add(load(table, item["agentId"], version).memory_store)
        except NotFound:
            continue  # removed since it was listed
    return stores


def _count(belongings: Belongings) -> tuple[int, int]:
    return sum(1 for _ in belongings.items()), sum(1 for _ in belongings.objects())


def _records(records: Sequence[Record], paint: Paint) -> Iterator[str]:
    width = max(len(record.key) for record in records)
    margin = " " * (width + 4 if width else 2)
    for record in records:
        key = f"{record.key:{width}}  " if width else ""
        yield f"  {key}{_one_line(record.text)}"
        yield margin + paint(_provenance(record), "dim")
        for replaced in record.provenance.replaced:
            yield margin + paint(f"replaced {_one_line(replaced['text'])!r} {_source(replaced)}".rstrip(), "dim")


def _provenance(record: Record) -> str:
    source = record.provenance
    parts = [
        source.source.lower(),
        source.session_id and f"session {source.session_id}",
        source.turn_id and f"turn {source.turn_id[:8]}",
        _time(record.timestamp or record.updated_at),
        source.agent_id and f"agent {source.agent_id} {source.agent_version}".rstrip(),
        source.prompt_version and f"prompt {source.prompt_version[:8]}",
        "" if record.expires_at is None else f"until {_time(record.expires_at * 1000)}",
        record.record_id,
    ]
    return ", ".join(part for part in parts if part)


def _source(replaced: Mapping[str, Any]) -> str:
    parts = [
        replaced.get("sessionId") and f"session {replaced['sessionId']}",
        replaced.get("turnId") and f"turn {replaced['turnId'][:8]}",
        replaced.get("at") and _time(replaced["at"]),
    ]
    told = ", ".join(part for part in parts if part)
    return f"({told})" if told else ""


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  " + "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def _time(milliseconds: int) -> str:
    return iso8601(milliseconds)[:16].replace("T", " ") if milliseconds else "-"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _list(names: Sequence[str]) -> str:
    return f"there are {', '.join(names)}" if names else "there is none"
