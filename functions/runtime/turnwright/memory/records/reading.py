"""How much of an actor's memory is read and compared at once: so much that whoever waits does not wait long, whatever
the memory holds. What was left out is told to whom the records are told.

A namespace is read in its records' order of keys, which says nothing of their age. So a namespace within its share is
read whole, and the newest of it, or the nearest to a query, are exact. Of one beyond its share only a part is looked
at, always the same one. `docs/memory.md` has the limits, `make bench` what they cost.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice

from turnwright.memory.records.records import Provenance, Record
from turnwright.storage import keys
from turnwright.storage.clock import now_ms
from turnwright.storage.documents import json_text
from turnwright.storage.table import Item, Table


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is read at once: `records`, and `pages` of DynamoDB, of 1 MB each, one of each namespace at least; and how
    many bytes (UTF-8) of the records' keys and texts are compared with a query.
    """

    records: int
    pages: int
    compared_bytes: int


TURN = Bounds(records=1_000, pages=8, compared_bytes=48 * 1024)
"""Load Memory, before a turn's first model call: all namespaces that are shown, together."""

SEARCH = Bounds(records=1_500, pages=20, compared_bytes=128 * 1024)
"""A call of `search_memory` or `remember`."""

MERGE = Bounds(records=2_000, pages=40, compared_bytes=256 * 1024)
"""Merge Records, for which nobody waits: one namespace."""

_SEEN = ("recordId", "text", "key", "updatedAt", "timestamp", "expiresAt", "schemaVersion")
"""What is told of a record and compared. DynamoDB's answers cost by the attributes that they have."""


def told_left_out(*, whole: bool, reach: int | None) -> str:
    """What a model and a trace are told where not all was looked at; "" where all was."""
    parts = [] if whole else ["the memory holds more records than are read at once, some were not looked at"]
    if reach is not None:
        parts.append(f"of each record only the first {reach} bytes were compared")
    return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class Part:
    """The records that were read of a namespace; if it is not the `whole`, there are more."""

    records: list[Record]
    whole: bool


class Reading:
    """Reads so many namespaces within bounds. Each gets an equal share of what those before it left."""

    def __init__(self, table: Table, bounds: Bounds, namespaces: int = 1, *, consistent: bool = True) -> None:
        self._table = table
        self._records = bounds.records
        self._pages = bounds.pages
        self._left = namespaces
        self._consistent = consistent

    def seen(self, store: str, actor: str, path: str, *, provenance: bool = False, embeddings: bool = False) -> Part:
        """The records of just this path with what is told of them and compared.

        They have version 0, which no stored record has: no write of one holds.
        """
        attributes = [*_SEEN, *(["provenance"] if provenance else [])]
        attributes += ["embedding", "embeddingModel"] if embeddings else []
        items, whole = self._read(store, actor, path, attributes)
        seen = [
            Record.decode(
                {
                    "memoryStore": store,
                    "actor": actor,
                    "namespace": path,
                    "strategy": "",
                    "createdAt": 0,
                    "version": 0,
                    "provenance": _UNREAD,
                    **item,
                }
            )
            for item in items
        ]
        return _alive(seen, whole=whole)

    def whole(self, store: str, actor: str, path: str) -> Part:
        """The records of just this path with all that they have, to be changed."""
        items, whole = self._read(store, actor, path, ())
        return _alive(map(Record.decode, items), whole=whole)

    def _read(self, store: str, actor: str, path: str, attributes: Sequence[str]) -> tuple[list[Item], bool]:
        records, pages = -(-self._records // self._left), max(1, -(-self._pages // self._left))
        self._left -= 1
        prefix = keys.records_prefix(path)
        answers = self._table.pages(
            keys.actor_partition(store, actor),
            prefix,
            prefix + keys.END,
            limit=records + 1,  # one more tells whether there are more
            consistent=self._consistent,
            attributes=attributes,
        )
        found: list[Item] = []
        whole = False
        for items, more in islice(answers, pages):
            found += items
            whole = not more
            self._pages -= 1
        self._records -= min(records, len(found))
        return found, whole


_UNREAD = json_text(asdict(Provenance("")))


def _alive(records: Iterable[Record], *, whole: bool) -> Part:
    now = now_ms()
    return Part([record for record in records if record.alive(now)], whole)
