"""Memory records in the table: one remembered fact an item, with where it came from.

Every write is on the condition that the record is what the writer saw (`version`), so that of two writers at once one
has to look again. A record that has expired is not there, also before DynamoDB has deleted it.
"""

import base64
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from turnwright.models.embeddings import Embedding
from turnwright.storage import keys
from turnwright.storage.clock import now_ms
from turnwright.storage.documents import json_text
from turnwright.storage.table import SCHEMA_VERSION, Delete, Item, Put, Table, Update


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a record comes from.

    `source` is CONSOLIDATION (an ended session), DIGEST (a session under way), TOOL (`remember`) or API
    (BatchCreateMemoryRecords). `prompt_version` is the digest of the extraction prompt. `event_id` and `turn_id` name
    the turn that the fact was said in, as far as that is known. `replaced` are the texts that this one took the place
    of, the latest last, each `{"text", "sessionId", "turnId", "at"}`, at most `MOST_REPLACED` of them.
    """

    source: str
    session_id: str = ""
    turn_id: str = ""
    event_id: str = ""
    agent_id: str = ""
    agent_version: str = ""
    consolidation_id: str = ""
    prompt_version: str = ""
    replaced: tuple[Mapping[str, Any], ...] = ()


MOST_REPLACED = 5


@dataclass(frozen=True, slots=True)
class Record:
    """A fact that is remembered. Times are in ms, `expires_at` in seconds, None for never.

    `key` is what REPLACE and KEEP_FIRST go by ("currency"); "" if the fact has none. `namespace` is the whole path,
    `strategy` the name of the configuration's namespace, "" for a path of none. `timestamp` is when the fact was said.
    `embedding_model` tells which model `embedding` is of: vectors of different models cannot be compared.
    """

    store: str
    actor: str
    namespace: str
    record_id: str
    text: str
    provenance: Provenance
    strategy: str = ""
    key: str = ""
    created_at: int = 0
    updated_at: int = 0
    timestamp: int = 0
    expires_at: int | None = None
    version: int = 1
    metadata: Mapping[str, Any] = field(default_factory=dict)
    embedding: Embedding | None = None
    embedding_model: str = ""

    @property
    def item_key(self) -> keys.Key:
        return keys.record(self.store, self.actor, self.namespace, self.record_id)

    def alive(self, now: int) -> bool:
        return self.expires_at is None or self.expires_at * 1000 > now

    def encode(self) -> Item:
        item: Item = {
            **keys.owned_record(self.store, self.record_id),
            "memoryStore": self.store,
            "actor": self.actor,
            "namespace": self.namespace,
            "recordId": self.record_id,
            "text": self.text,
            "strategy": self.strategy,
            "key": self.key,
            "provenance": json_text(asdict(self.provenance)),
            "createdAt": self.created_at,
            "updatedAt": self.updated_at,
            "timestamp": self.timestamp,
            "version": self.version,
        }
        if self.expires_at is not None:
            item["expiresAt"] = self.expires_at
        if self.metadata:
            item["metadata"] = json_text(self.metadata)
        if self.embedding is not None:
            item |= {"embedding": _packed(self.embedding), "embeddingModel": self.embedding_model}
        return item

    @classmethod
    def decode(cls, item: Item) -> "Record":
        provenance = json.loads(item["provenance"])
        return cls(
            store=item["memoryStore"],
            actor=item["actor"],
            namespace=item["namespace"],
            record_id=item["recordId"],
            text=item["text"],
            provenance=Provenance(**{**provenance, "replaced": tuple(provenance["replaced"])}),
            strategy=item["strategy"],
            key=item["key"],
            created_at=item["createdAt"],
            updated_at=item["updatedAt"],
            timestamp=item["timestamp"],
            expires_at=item.get("expiresAt"),
            version=item["version"],
            metadata=json.loads(item.get("metadata", "{}")),
            embedding=_unpacked(item["embedding"]) if "embedding" in item else None,
            embedding_model=item.get("embeddingModel", ""),
        )


def _packed(embedding: Embedding) -> str:
    """Its numbers as little-endian floats of 32 bits, in Base64: half as long as JSON, and read in much less time."""
    return base64.b64encode(struct.pack(f"<{len(embedding)}f", *embedding)).decode()


def _unpacked(text: str) -> Embedding:
    """Records of earlier releases have a JSON list."""
    if text.startswith("["):
        return tuple(json.loads(text))
    packed = base64.b64decode(text)
    return struct.unpack(f"<{len(packed) // 4}f", packed)


def added(record: Record) -> Put:
    """The write of a record that is not there yet. Whoever writes it also has to make its namespace known (`known`)."""
    return Put(record.item_key, record.encode(), only_if_absent=True)


def changed(before: Record, after: Record) -> Put:
    """The write of `after` in the place of `before`, on the condition that nobody else changed it."""
    return Put(
        before.item_key,
        replace(after, version=before.version + 1).encode(),
        condition="version = :version",
        values={":version": before.version},
    )


def removed(record: Record) -> Delete:
    """The removal of a record, on the condition that nobody changed it."""
    return Delete(record.item_key, condition="version = :version", values={":version": record.version})


def known(store: str, actor: str, namespace: str, *, changes: int | None = None) -> Update:
    """The write that makes a namespace's records findable by a path, and counts that records were added or changed.

    `changes` is what `Records.changes` said before the namespace was read: the write then holds only if nobody has
    added or changed one since, whatever its id.
    """
    values: dict[str, Any] = {} if not changes else {":changes": changes}
    condition = "attribute_not_exists(changes)" if changes == 0 else "changes = :changes" if changes else None
    return Update(
        keys.namespace(store, namespace),
        "SET memoryStore = :store, actor = :actor, #namespace = :namespace, schemaVersion = :schema, "
        "ownerPK = :ownerPK, ownerSK = :ownerSK ADD changes :one",
        condition=condition,
        names={"#namespace": "namespace"},
        values={
            ":store": store,
            ":actor": actor,
            ":namespace": namespace,
            ":schema": SCHEMA_VERSION,
            ":one": 1,
            **{f":{name}": value for name, value in keys.owned_namespace(store, actor, namespace).items()},
            **values,
        },
    )


def since(record: Record, floor: str) -> bool:
    """Whether a record of session scope is of the session that began at `floor`, and not of an ended one of its id."""
    if not floor or not record.provenance.event_id:
        return not floor or record.updated_at >= int(floor.partition("#")[0])
    return record.provenance.event_id > floor


class Records:
    """The records of a table. What is read is alive at that moment."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def of_namespace(self, store: str, actor: str, namespace: str) -> list[Record]:
        """The records of just this path, however many they are; `reading.py` reads within bounds."""
        prefix = keys.records_prefix(namespace)
        items = self._table.query(keys.actor_partition(store, actor), prefix, prefix + keys.END)
        return self._alive(items)

    def changes(self, store: str, namespace: str) -> int:
        """How often records were added to the namespace or changed in it, to be read before they are; see `known`."""
        item = self._table.get(keys.namespace(store, namespace))
        return int(item["changes"]) if item else 0

    def of_actor(self, store: str, actor: str) -> list[Record]:
        """The records of all the actor's namespaces."""
        items = self._table.query(keys.actor_partition(store, actor), keys.RECORD_PREFIX, keys.RECORD_PREFIX + keys.END)
        return self._alive(items)

    def at(self, store: str, actor: str, namespace: str, record_id: str) -> Record | None:
        """The record with this id in just this path."""
        item = self._table.get(keys.record(store, actor, namespace, record_id))
        return next(iter(self._alive([item] if item else [])), None)

    def find(self, store: str, record_id: str, namespace: str | None = None) -> Record | None:
        """A record by its id; with its namespace's path without the index's delay."""
        if namespace is not None:
            owner = self._table.get(keys.namespace(store, namespace))
            places = [keys.record(store, owner["actor"], namespace, record_id)] if owner else []
        else:
            owned = keys.owned_record(store, record_id)
            found = self._table.query_index(keys.OWNED_INDEX, owned["ownerPK"], owned["ownerSK"], owned["ownerSK"])
            places = [key for key, _ in found]
        items = (self._table.get(place) for place in places)
        return next(iter(self._alive(item for item in items if item)), None)

    def namespaces(self, store: str, prefix: str) -> Iterator[tuple[str, str]]:
        """The known namespaces whose paths begin with `prefix`, as (path, actor)."""
        first = keys.namespaces_prefix(prefix)
        for item in self._table.query(keys.store_partition(store), first, first + keys.END):
            yield item["namespace"], item["actor"]

    @staticmethod
    def _alive(items: Iterator[Item] | Sequence[Item]) -> list[Record]:
        now = now_ms()
        return [record for record in map(Record.decode, items) if record.alive(now)]
