"""The actors of a memory store, and the erasure of one.

An actor's item is there as soon as a session or a record of the actor is. Its `epoch` is new each time the actor comes
to be: whoever writes to an actor's memory late (a consolidation) does so on the condition that the actor is still the
one it read, so that nothing that was erased comes back. While `erasing` nothing new is begun.
"""

from dataclasses import dataclass
from uuid import uuid4

from turnwright.errors import ActorErased
from turnwright.storage import keys
from turnwright.storage.clock import now_ms
from turnwright.storage.table import Check, ConditionFailed, Item, Put, Table


@dataclass(frozen=True, slots=True)
class Actor:
    """An actor of a store."""

    store: str
    actor: str
    epoch: str
    erasing: bool = False

    def unchanged(self) -> Check:
        """Holds while the actor is this one and is not being erased: an entry of every late transaction."""
        return Check(
            keys.actor(self.store, self.actor),
            "epoch = :epoch AND attribute_not_exists(erasingSince)",
            values={":epoch": self.epoch},
        )

    @classmethod
    def decode(cls, item: Item) -> "Actor":
        return cls(item["memoryStore"], item["actor"], item["epoch"], "erasingSince" in item)


class Actors:
    """The actors of a table."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def read(self, store: str, actor: str, *, consistent: bool = True) -> Actor | None:
        item = self._table.get(keys.actor(store, actor), consistent=consistent)
        return Actor.decode(item) if item else None

    def require(self, store: str, actor: str) -> Actor:
        """The actor, which comes to be if it is new. Raises ActorErased while the actor's memory is being erased."""
        return self.required(store, actor, self._table.get(keys.actor(store, actor)))

    def required(self, store: str, actor: str, item: Item | None, in_store: Check | None = None) -> Actor:
        """The same of an item that was read already. A new actor comes to be only while `in_store` holds of its store;
        otherwise TransactionRefused is raised.
        """
        found = Actor.decode(item) if item else self._create(store, actor, in_store)
        if found.erasing:
            raise ActorErased("this memory is being erased; try again when it is gone")
        return found

    def _create(self, store: str, actor: str, in_store: Check | None) -> Actor:
        item: Item = {"memoryStore": store, "actor": actor, "epoch": uuid4().hex, "createdAt": now_ms()}
        put = Put(keys.actor(store, actor), item, only_if_absent=True)
        if in_store is not None:
            self._table.transact([put, in_store])
            return Actor.decode(item)
        try:
            self._table.put(put)
        except ConditionFailed as refused:
            if refused.item is None:
                raise
            return Actor.decode(refused.item)
        return Actor.decode(item)
