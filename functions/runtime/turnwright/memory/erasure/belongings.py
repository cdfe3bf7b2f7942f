"""All that there is of an actor in a store: what an export gives out and an erasure takes away, enumerated once.

The actor's partition has its records and summaries. The index `Owned` leads to the partitions of its sessions (events,
segments, consolidations) and of its turns (journal, calls, trace), and to the namespaces that are known of it. Texts
too long for the table lie in the bucket under names that begin with the actor's or a turn's.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from turnwright.storage import keys
from turnwright.storage.documents import Documents
from turnwright.storage.keys import NO_ACTOR, Key
from turnwright.storage.table import Item, Table


@dataclass(frozen=True, slots=True)
class Belonging:
    """A partition of which everything is the actor's, with the objects that only it leads to.

    `head` is the item by which the partition is found: it has to go last. None for the partition that needs none.
    """

    partition: str
    head: str | None
    objects: tuple[str, ...] = ()

    @classmethod
    def of_turn(cls, turn_id: str) -> "Belonging":
        header = keys.turn_header(turn_id)
        return cls(header.pk, header.sk, (keys.turn_objects(turn_id),))


class Belongings:
    """The belongings of an actor, read afresh by each method. The index may be some milliseconds behind."""

    def __init__(self, table: Table, documents: Documents, store: str, actor: str) -> None:
        if actor == NO_ACTOR:
            raise ValueError("sessions without an actor belong to nobody")
        self._table = table
        self._documents = documents
        self._store = store
        self._actor = actor

    def turns(self) -> Iterator[Belonging]:
        for key in self._owned(keys.TURN_PREFIX):
            yield Belonging.of_turn(keys.turn_of(key.pk))

    def sessions(self) -> Iterator[Belonging]:
        for key in self._owned(keys.SESSION_PREFIX):
            yield Belonging(key.pk, key.sk)

    def memory(self) -> Belonging:
        """The records and summaries, and the objects of all sessions."""
        objects = keys.actor_objects(self._store, self._actor)
        partition = keys.actor_partition(self._store, self._actor)
        return Belonging(partition, None, (objects, keys.LASTING_PREFIX + objects))

    def namespaces(self) -> Iterator[Key]:
        return self._owned(keys.NAMESPACE_PREFIX)

    def items(self) -> Iterator[Item]:
        """Every item, but the actor's own is the last."""
        for belonging in (*self.turns(), *self.sessions(), self.memory()):
            yield from self._table.query(belonging.partition, " ", keys.END)
        for key in (*self.namespaces(), keys.actor(self._store, self._actor)):
            item = self._table.get(key)
            if item:
                yield item

    def objects(self) -> Iterator[str]:
        """The name of every object."""
        for belonging in (*self.turns(), self.memory()):
            for prefix in belonging.objects:
                for names in self._documents.names(prefix):
                    yield from names

    def _owned(self, prefix: str) -> Iterator[Key]:
        owner = keys.actor_partition(self._store, self._actor)
        for key, _ in self._table.query_index(keys.OWNED_INDEX, owner, prefix, prefix + keys.END):
            yield key
