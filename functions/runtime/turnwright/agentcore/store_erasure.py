"""The erasure of a memory store that CreateMemory made, with all its actors. It can be interrupted anywhere: what is
left says what is still to be done, and the store's own item goes last.
"""

from collections.abc import Callable, Iterable

from turnwright import keys
from turnwright.clock import now_ms
from turnwright.documents import Documents
from turnwright.keys import NO_ACTOR, Key
from turnwright.table import ConditionFailed, Delete, Item, Table, Update

_STOP_MS = 5_000
"""So long before the function's end the erasure stops by itself."""

_AT_ONCE = 25


class OutOfTime(Exception):
    """The function is about to end."""


class StoreErasure:
    """The erasure of the store `item`, which is DELETING already, so that nothing new is begun in it."""

    def __init__(self, table: Table, documents: Documents, item: Item, remaining_ms: Callable[[], int]) -> None:
        self._table = table
        self._documents = documents
        self._store_id: str = item["memoryStore"]
        self._name: str = item["name"]
        self._remaining_ms = remaining_ms

    def run(self) -> bool:
        """Whether nothing is left."""
        try:
            self._erase()
        except OutOfTime:
            return False
        return True

    def _erase(self) -> None:
        partition = keys.store_partition(self._store_id)
        for item in self._table.query(partition, keys.ACTOR_PREFIX, keys.ACTOR_PREFIX + keys.END):
            self._erase_actor(item["actor"])
        self._remove_partition(keys.actor_partition(self._store_id, NO_ACTOR))  # the records that are nobody's alone
        own = keys.store(self._store_id)
        self._remove(Key(partition, sk) for sk in self._sort_keys(partition) if sk != own.sk)
        self._table.transact(
            [Delete(keys.listed_store(self._store_id)), Delete(keys.store_name(self._name)), Delete(own)]
        )

    def _erase_actor(self, actor: str) -> None:
        """The actor's item goes last: until then it keeps whoever is late from writing."""
        own = keys.actor(self._store_id, actor)
        try:
            self._table.update(
                Update(
                    own,
                    "SET erasingSince = if_not_exists(erasingSince, :now)",
                    condition="attribute_exists(PK)",
                    values={":now": now_ms()},
                )
            )
        except ConditionFailed:
            return  # another erasure was faster
        partition = keys.actor_partition(self._store_id, actor)
        sessions = {
            key.pk
            for key, _ in self._table.query_index(
                keys.OWNED_INDEX, partition, keys.SESSION_PREFIX, keys.SESSION_PREFIX + keys.END
            )
        }
        for session in sessions:
            self._remove_partition(session)
        self._remove_partition(partition)
        objects = keys.actor_objects(self._store_id, actor)
        for prefix in (objects, keys.LASTING_PREFIX + objects):
            self._in_time()
            self._documents.remove_all(prefix)
        self._table.delete(Delete(own))

    def _remove_partition(self, partition: str) -> None:
        self._remove(Key(partition, sk) for sk in self._sort_keys(partition))

    def _sort_keys(self, partition: str) -> list[str]:
        return [item["SK"] for item in self._table.query(partition, keys.NEXT, keys.END)]

    def _remove(self, found: Iterable[Key]) -> None:
        pending = list(found)
        for start in range(0, len(pending), _AT_ONCE):
            self._in_time()
            self._table.transact([Delete(key) for key in pending[start : start + _AT_ONCE]])

    def _in_time(self) -> None:
        if self._remaining_ms() < _STOP_MS:
            raise OutOfTime
