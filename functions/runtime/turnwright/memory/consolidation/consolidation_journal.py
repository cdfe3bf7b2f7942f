"""The journal of a consolidation: what models answered and what was merged, each written once.

A repeated state finds its entry here and pays no model again; of two writers the second takes over what the first
wrote. The entries are in the session's partition and are seen by nothing but the consolidation. No entry is written for
an actor whose memory is being erased, or was: it would bring back what was said. An entry's object, which no condition
can keep from being written late, is announced first, on that condition: whoever erases waits for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from turnwright.agents.memory_configuration import SUMMARY
from turnwright.errors import ActorErased, CommitConflict, StorageUnavailable
from turnwright.memory.records.actors import Actors
from turnwright.memory.session_ends.consolidations import Consolidation
from turnwright.sessions.values import JOURNAL_DAYS
from turnwright.storage import keys
from turnwright.storage.availability import patiently
from turnwright.storage.clock import expiry, now_ms
from turnwright.storage.documents import ITEM_BYTES, Documents, json_text
from turnwright.storage.keys import Key
from turnwright.storage.table import (
    SCHEMA_VERSION,
    ConditionFailed,
    Item,
    Put,
    Table,
    TransactionRefused,
    Update,
    Write,
)

Entry = Mapping[str, Any]

_MOST_KEYS = 100

_NOT_AT_FAULT = "None"


@dataclass(frozen=True, slots=True)
class Progress:
    """How much of a consolidation is written that needs several transactions: so many batches of the merge `attempt`,
    and the ids of the records that were added, in any attempt.
    """

    attempt: int = 0
    batches: int = 0
    added: frozenset[str] = frozenset()


class ConsolidationJournal:
    """The journal of one consolidation."""

    def __init__(self, table: Table, documents: Documents, consolidation: Consolidation) -> None:
        self._table = table
        self._documents = documents
        self._consolidation = consolidation

    def extraction(self, namespace: str, chunk: int) -> Key:
        return keys.extraction(self._session, self._consolidation.consolidationId, namespace, chunk)

    def merge(self, namespace: str, attempt: int) -> Key:
        return keys.merge(self._session, self._consolidation.consolidationId, attempt, namespace)

    def summary(self, name: str) -> Key:
        """`name` is one of the configuration's `summary_styles`."""
        namespace = "" if name == SUMMARY else name
        return keys.consolidation_summary(self._session, self._consolidation.consolidationId, namespace)

    def find(self, key: Key) -> Entry | None:
        item = self._table.get(key)
        return self._decode(item) if item else None

    def find_all(self, wanted: Sequence[Key]) -> list[Entry]:
        """The entries of all keys, in their order. Raises ActorErased or KeyError for one that is not there."""
        entries: list[Entry] = []
        for start in range(0, len(wanted), _MOST_KEYS):
            some = wanted[start : start + _MOST_KEYS]
            for key, item in zip(some, self._table.get_many(some), strict=True):
                if item is None:
                    self.require_owner()
                    raise KeyError(f"the journal has no {key.sk}")
                entries.append(self._decode(item))
        return entries

    def require_owner(self) -> None:
        """Raises ActorErased unless the actor is the one that the consolidation is for, and is not being erased."""
        owner = self._consolidation.owner
        if owner and Actors(self._table).read(owner.store, owner.actor) != owner:
            raise ActorErased(f"the memory of {owner.actor} is being erased, or was since this began")

    def record(self, key: Key, entry: Entry) -> Entry:
        """Writes the entry and returns it; if another writer was first, what that one wrote.

        Raises ActorErased, and CommitConflict after some tries.
        """
        stowed = patiently(lambda: self._documents.stow(entry, self._announced, ITEM_BYTES))
        now = now_ms()
        item: Item = {"entry": json_text(stowed), "recordedAt": now, "expiresAt": expiry(now, JOURNAL_DAYS)}
        try:
            return self._put(Put(key, item, only_if_absent=True)) or entry
        except ActorErased:
            self._documents.discard(stowed)
            raise

    def progress(self) -> Progress:
        item = self._table.get(self._progress_key)
        return Progress(item["attempt"], item["batches"], frozenset(item["added"])) if item else Progress()

    def advanced(self, before: Progress, attempt: int, batches: int, added: Sequence[str]) -> Update:
        """The write, in a batch's transaction, that says that the batch is written; it is refused the second time."""
        unchanged = "attempt = :formerAttempt AND batches = :formerBatches" if before.attempt else ""
        former = {":formerAttempt": before.attempt, ":formerBatches": before.batches} if before.attempt else {}
        return Update(
            self._progress_key,
            "SET attempt = :attempt, batches = :batches, added = list_append(if_not_exists(added, :none), :added), "
            "expiresAt = :expires, schemaVersion = :schema",
            condition=unchanged or "attribute_not_exists(PK)",
            values={
                **former,
                ":attempt": attempt,
                ":batches": batches,
                ":none": [],
                ":added": list(added),
                ":expires": expiry(now_ms(), JOURNAL_DAYS),
                ":schema": SCHEMA_VERSION,
            },
        )

    @property
    def _session(self) -> keys.SessionId:
        return self._consolidation.session

    @property
    def _progress_key(self) -> Key:
        return keys.consolidation_progress(self._session, self._consolidation.consolidationId)

    def _announced(self, digest: str) -> str:
        """The name of an object that is then written. Raises ActorErased."""
        now = now_ms()
        item: Item = {"announcedAt": now, "expiresAt": expiry(now, JOURNAL_DAYS)}
        self._put(Put(keys.announced_object(self._session, digest), item))
        return keys.memory_object(self._consolidation.memoryStore, self._consolidation.actor, digest)

    def _put(self, write: Put) -> Entry | None:
        """Writes the item; the entry that is there instead, if it was not the first.

        Entries of one consolidation are written at the same time, and each transaction is at the actor's item: neither
        a conflict nor a throttled table is a reason to ask a model again, so it is tried again here.
        """
        return patiently(lambda: self._put_once(write), (CommitConflict, StorageUnavailable))

    def _put_once(self, write: Put) -> Entry | None:
        owner = self._consolidation.owner
        writes: list[Write] = [write, owner.unchanged()] if owner else [write]
        try:
            self._table.transact(writes)
        except TransactionRefused as refused:
            if owner and refused.reasons[1] != _NOT_AT_FAULT:
                raise ActorErased(f"the memory of {owner.actor} was erased since this began") from refused
            item = self._table.get(write.key)
            if item is None:
                raise ConditionFailed(None) from refused
            return self._decode(item)
        return None

    def _decode(self, item: Item) -> Entry:
        entry: Entry = self._documents.fetch_text(item["entry"])
        return entry
