"""The merge rules: what becomes of a namespace's records when facts are added to them. Pure.

| rule | a fact |
| --- | --- |
| REPLACE | takes the place of the record with its key, unless that was said later; the record keeps what it replaced |
| KEEP_FIRST | is left out if there is a record with its key |
| APPEND | is left out if a record says the same in the same words |
| MODEL | is judged by a model (`model_merging.py`), whose operations are applied here |

A fact that is said again gives its record new life (REPLACE, APPEND). Merging the same facts again changes no text and
adds nothing. Beyond the namespace's `max_records` the records go that were not written for longest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any
from uuid import UUID, uuid5

from turnwright.agents.memory_configuration import MergeRule, Namespace
from turnwright.memory.consolidation.extraction import Fact
from turnwright.memory.records import nearness, records
from turnwright.memory.records.records import MOST_REPLACED, Provenance, Record
from turnwright.memory.session_ends.consolidations import SOURCES, Consolidation
from turnwright.models.embeddings import Embedding
from turnwright.storage.clock import expiry
from turnwright.storage.table import Delete, Put

_RECORD_IDS = UUID("7a6f0d4e-5d0c-4a8e-9c57-0d3c1a1f4b52")

Vectors = Mapping[str, Embedding]
"""The embeddings of texts."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where facts are merged into, by which consolidation, and when (ms)."""

    consolidation: Consolidation
    namespace: Namespace
    prompt_version: str
    now: int

    @property
    def path(self) -> str:
        return self.consolidation.path(self.namespace)

    def record_id(self, ordinal: str) -> str:
        """The same for the same fact however often it is merged."""
        return f"mem-{uuid5(_RECORD_IDS, f'{self.consolidation.consolidationId} {self.path} {ordinal}')}"


@dataclass(frozen=True, slots=True)
class Change:
    """A record before and after; `before` is None for a new one, `after` for one that goes."""

    before: Record | None
    after: Record | None

    @property
    def record(self) -> Record:
        record = self.after or self.before
        if record is None:
            raise ValueError("a change is of a record before or after it")
        return record

    @property
    def write(self) -> Put | Delete:
        if self.before is None:
            return records.added(self.record)
        return records.changed(self.before, self.after) if self.after else records.removed(self.before)

    def encode(self) -> dict[str, Any]:
        return {name: asdict(record) if record else None for name, record in self._parts()}

    @classmethod
    def decode(cls, fields: Mapping[str, Any]) -> "Change":
        return cls(_record_of(fields["before"]), _record_of(fields["after"]))

    def _parts(self) -> tuple[tuple[str, Record | None], ...]:
        return ("before", self.before), ("after", self.after)


@dataclass(frozen=True, slots=True)
class Operation:
    """What a model decided, checked: ADD and UPDATE have a text, UPDATE and DELETE a record's id."""

    operation: str
    fact: Fact
    record_id: str = ""
    key: str = ""
    text: str = ""


class Merge:
    """The records of a namespace while facts are merged into them."""

    def __init__(self, target: Target, existing: Sequence[Record]) -> None:
        self._target = target
        self._before = {record.record_id: record for record in existing}
        self._now = dict(self._before)

    @property
    def records(self) -> list[Record]:
        """The records as they would be now."""
        return list(self._now.values())

    def add(self, facts: Sequence[Fact]) -> None:
        """Merges facts, in order, by the namespace's rule, which is not MODEL."""
        rule = {
            MergeRule.REPLACE: self._replace,
            MergeRule.KEEP_FIRST: self._keep_first,
            MergeRule.APPEND: self._append,
        }[self._target.namespace.merge_rule]
        for fact in _latest_of_each_key(facts) if rule == self._replace else facts:
            rule(fact)

    def apply(self, operations: Sequence[Operation], ordinal: str) -> None:
        """Applies what a model decided. `ordinal` tells one decision of the consolidation from another."""
        for place, operation in enumerate(operations):
            fact = replace(operation.fact, text=operation.text, key=operation.key, ordinal=f"{ordinal}.{place}")
            match operation.operation:
                case "ADD":
                    if self._same_text(fact) is None:
                        self._new(fact)
                case "UPDATE":
                    record = self._now[operation.record_id]
                    self._change(record, replace(fact, key=operation.key or record.key))
                case "DELETE":
                    del self._now[operation.record_id]

    def changes(self) -> list[Change]:
        """What has to be written, in an order that is the same each time."""
        self._evict()
        ids = dict.fromkeys([*self._before, *self._now])
        return [
            Change(before, after)
            for record_id in ids
            for before, after in [(self._before.get(record_id), self._now.get(record_id))]
            if before != after
        ]

    def _replace(self, fact: Fact) -> None:
        record = self._of_key(fact)
        if record is None:
            self._new(fact)
        elif nearness.normalized(record.text) == nearness.normalized(fact.text):
            self._renew(record, fact)
        elif fact.said_at >= record.timestamp:
            self._change(record, fact)

    def _keep_first(self, fact: Fact) -> None:
        if self._of_key(fact) is None:
            self._new(fact)

    def _append(self, fact: Fact) -> None:
        record = self._same_text(fact)
        if record is None:
            self._new(fact)
        else:
            self._renew(record, fact)

    def _of_key(self, fact: Fact) -> Record | None:
        """The record with the fact's key; else one without a key that says the same."""
        key = nearness.normalized_key(fact.key)
        same = (record for record in self.records if record.key and nearness.normalized_key(record.key) == key)
        text = nearness.normalized(fact.text)
        keyless = (r for r in self.records if not r.key and nearness.normalized(r.text) == text)
        return max(same, key=lambda record: (record.timestamp, record.record_id), default=next(keyless, None))

    def _same_text(self, fact: Fact) -> Record | None:
        text = nearness.normalized(fact.text)
        return next((record for record in self.records if nearness.normalized(record.text) == text), None)

    def _new(self, fact: Fact) -> None:
        """Adds the fact's record, unless it is there: written by an earlier try and changed by somebody since."""
        target = self._target
        record = Record(
            store=target.consolidation.memoryStore,
            actor=target.consolidation.owner_of(target.namespace),
            namespace=target.path,
            record_id=target.record_id(fact.ordinal),
            text=fact.text,
            provenance=self._provenance(fact, ()),
            strategy=target.namespace.name,
            key=fact.key,
            created_at=target.now,
            updated_at=target.now,
            timestamp=fact.said_at,
            expires_at=expiry(target.now, target.namespace.ttl_days),
        )
        self._now.setdefault(record.record_id, record)
        self._evict()

    def _change(self, record: Record, fact: Fact) -> None:
        former = {
            "text": record.text,
            "sessionId": record.provenance.session_id,
            "turnId": record.provenance.turn_id,
            "at": record.timestamp,
        }
        replaced = (*record.provenance.replaced, former)[-MOST_REPLACED:]
        self._now[record.record_id] = replace(
            record,
            text=fact.text,
            key=fact.key,
            provenance=self._provenance(fact, replaced),
            strategy=self._target.namespace.name,
            updated_at=self._target.now,
            timestamp=fact.said_at,
            expires_at=expiry(self._target.now, self._target.namespace.ttl_days),
            embedding=None,
            embedding_model="",
        )

    def _renew(self, record: Record, fact: Fact) -> None:
        """The record lives on from now, and takes the fact's key if it has none. Its text stays, and its provenance."""
        if record.provenance.consolidation_id == self._target.consolidation.consolidationId:
            self._now[record.record_id] = replace(record, timestamp=max(record.timestamp, fact.said_at))
            return
        self._now[record.record_id] = replace(
            record,
            key=record.key or fact.key,
            updated_at=self._target.now,
            timestamp=max(record.timestamp, fact.said_at),
            expires_at=expiry(self._target.now, self._target.namespace.ttl_days),
        )

    def _provenance(self, fact: Fact, replaced: tuple[Mapping[str, Any], ...]) -> Provenance:
        consolidation = self._target.consolidation
        return Provenance(
            source=SOURCES[consolidation.kind],
            session_id=consolidation.sessionId,
            turn_id=fact.turn_id,
            event_id=fact.event_id,
            agent_id=consolidation.agentId,
            agent_version=consolidation.agentVersion,
            consolidation_id=consolidation.consolidationId,
            prompt_version=self._target.prompt_version,
            replaced=replaced,
        )

    def _evict(self) -> None:
        """At once, so that a fact is never compared with more records than the namespace may have."""
        if len(self._now) <= self._target.namespace.max_records:
            return
        place = {record_id: number for number, record_id in enumerate(self._now)}
        oldest_first = sorted(self._now.values(), key=lambda r: (r.updated_at, r.timestamp, place[r.record_id]))
        for record in oldest_first[: len(oldest_first) - self._target.namespace.max_records]:
            del self._now[record.record_id]


def embedded(changes: Sequence[Change], vectors: Vectors, model: str) -> list[Change]:
    """The changes with the embedding of each text that is written; all texts must be in `vectors`."""
    return [
        Change(change.before, replace(change.after, embedding=vectors[change.after.text], embedding_model=model))
        if change.after
        else change
        for change in changes
    ]


def _latest_of_each_key(facts: Sequence[Fact]) -> list[Fact]:
    """What was corrected within the conversation was never remembered, so nothing replaces it."""
    latest: dict[str, Fact] = {}
    for fact in facts:
        key = nearness.normalized_key(fact.key)
        if key not in latest or fact.said_at >= latest[key].said_at:
            latest[key] = fact
    return list(latest.values())


def _record_of(fields: Mapping[str, Any] | None) -> Record | None:
    if fields is None:
        return None
    provenance = fields["provenance"]
    embedding = fields["embedding"]
    return Record(
        **{
            **fields,
            "provenance": Provenance(**{**provenance, "replaced": tuple(provenance["replaced"])}),
            "embedding": None if embedding is None else tuple(embedding),
        }
    )
