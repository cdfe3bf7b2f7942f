"""The erasure of a memory store that CreateMemory made: of each of its actors (`memory/erasure/`), then of the rest.

The store is DELETING from the request on, so that nothing is begun in it and no actor comes to be. It can be
interrupted anywhere, and any number of erasures may run at once: what is left says what is still to be done, and the
store's own item goes last.
"""

from collections.abc import Callable, Iterable
from hashlib import sha256

from turnwright.api.agentcore.stores import DELETING
from turnwright.errors import StoreNotDeleting
from turnwright.memory.erasure.erase_memory import Erasure, Progress
from turnwright.storage import keys
from turnwright.storage.keys import NO_ACTOR, Key
from turnwright.storage.table import MOST_BATCH_WRITES, Delete, Item, Table

_ActorErasure = Callable[[str, str], Erasure]
"""An actor and the id of its erasure -> that erasure."""


class StoreErasure:
    """The erasure of the store `store_id`. `run` is called until it is done; `has_time` says whether to go on."""

    def __init__(
        self, table: Table, store_id: str, actor_erasure: _ActorErasure, has_time: Callable[[], bool] = lambda: True
    ) -> None:
        self._table = table
        self._store_id = store_id
        self._actor_erasure = actor_erasure
        self._has_time = has_time
        self._erased = 0

    def run(self) -> Progress:
        """Erases as much as there is time for. Raises StoreNotDeleting, and touches nothing, unless it was deleted."""
        self._erased = 0
        store = self._table.get(keys.store(self._store_id))
        if store is None:
            return Progress(done=True)
        if store["status"] != DELETING:
            raise StoreNotDeleting(f"memory {self._store_id} is {store['status']}: DeleteMemory has to come first")
        waits: list[int] = []
        for item in self._actors():
            if not self._has_time():
                return Progress(done=False, erased=self._erased)
            progress = self._actor_erasure(item["actor"], self._erasure_id(item)).run()
            self._erased += progress.erased
            if not progress.done:
                waits.append(progress.waitSeconds)
        if waits:
            return Progress(False, min(waits), self._erased)
        if not self._erase_rest():
            return Progress(done=False, erased=self._erased)
        self._table.transact(
            [
                Delete(keys.listed_store(self._store_id)),
                Delete(keys.store_name(store["name"])),
                Delete(keys.store(self._store_id)),
            ]
        )
        return Progress(done=True, erased=self._erased)

    def _actors(self) -> list[Item]:
        partition = keys.store_partition(self._store_id)
        return list(self._table.query(partition, keys.ACTOR_PREFIX, keys.ACTOR_PREFIX + keys.END))

    def _erasure_id(self, actor: Item) -> str:
        """The same for each erasure of the store, so that they join, and another one should the actor come back."""
        return sha256(f"{self._store_id} {actor['actor']} {actor['epoch']}".encode()).hexdigest()[:32]

    def _erase_rest(self) -> bool:
        """Removes the records that are nobody's alone, then what the store's own item leads to; False without time."""
        own = keys.store(self._store_id)
        nobodys = self._table.keys(keys.actor_partition(self._store_id, NO_ACTOR))
        rest = (key for key in self._table.keys(own.pk) if key != own)
        return self._remove(nobodys) and self._remove(rest)

    def _remove(self, found: Iterable[Key]) -> bool:
        pending = list(found)
        for start in range(0, len(pending), MOST_BATCH_WRITES):
            if not self._has_time():
                return False
            batch = pending[start : start + MOST_BATCH_WRITES]
            self._table.delete_many(batch)
            self._erased += len(batch)
        return True
