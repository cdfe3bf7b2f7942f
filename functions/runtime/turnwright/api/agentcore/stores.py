"""The memory stores: those that CreateMemory made, and those of agents, which their files describe.

An agent's own store is named after it (`agents/memory_defaults.py`); several agents may share one. What an answer says
of such a store is what the files say, so that only a new deployment changes it.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from turnwright.agents.memory_configuration import MemoryConfiguration, Namespace
from turnwright.agents.memory_defaults import OWN_STORE_SUFFIX
from turnwright.agents.versions import listed, load
from turnwright.api.agentcore.refusals import NotThere
from turnwright.api.agentcore.strategies import Stored
from turnwright.memory.records.store_configuration import of_store
from turnwright.storage import keys
from turnwright.storage.table import Check, Item, Table

ACTIVE = "ACTIVE"
DELETING = "DELETING"


@dataclass(frozen=True, slots=True)
class Store:
    """A memory store. `item` is None for one of agents; `agent_id` and `agent_version` are "" for another one.

    Of several agents that share a store the first by its id stands for all, with the namespaces of all.
    """

    store_id: str
    configuration: MemoryConfiguration
    item: Item | None = field(default=None, repr=False)
    agent_id: str = ""
    agent_version: str = ""

    @property
    def strategies(self) -> list[Stored]:
        """Of a store that CreateMemory made."""
        strategies: list[Stored] = json.loads((self.item or {}).get("strategies", "[]"))
        return strategies

    @property
    def status(self) -> str:
        return str(self.item["status"]) if self.item else ACTIVE

    @property
    def still_there(self) -> Check | None:
        """Holds as long as the store is not being deleted: what comes to be in it depends on that. None for a store of
        agents, which cannot be deleted.
        """
        if self.item is None:
            return None
        return Check(keys.store(self.store_id), "#status = :active", {"#status": "status"}, {":active": ACTIVE})

    def strategy_id(self, name: str) -> str:
        """The id by which the wire knows a namespace of the configuration; "" for a record of none."""
        return f"{name}{OWN_STORE_SUFFIX}" if name and self.item is None else name

    def namespace(self, strategy_id: str) -> Namespace:
        """The namespace of a strategy. Raises NotThere."""
        for namespace in self.configuration.namespaces:
            if self.strategy_id(namespace.name) == strategy_id:
                return namespace
        raise NotThere(f"memory {self.store_id} has no strategy {strategy_id}")


class Stores:
    """The stores of a table."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def find(self, store_id: str) -> Store | None:
        """A store, also one that is being deleted."""
        return self.of_item(store_id, self._table.get(keys.store(store_id)))

    def of_item(self, store_id: str, item: Item | None) -> Store | None:
        """The store whose item was read already."""
        if item is not None:
            return Store(store_id, of_store(item), item)
        if store_id.endswith(OWN_STORE_SUFFIX):
            agent_id = store_id.removesuffix(OWN_STORE_SUFFIX)
            draft = self._table.get(keys.agent_draft(agent_id))
            agent = load(self._table, agent_id, str(draft["version"])) if draft else None
            if agent is not None and agent.memory_store == store_id:
                return Store(store_id, agent.memory, agent_id=agent_id, agent_version=agent.version)
        return next((store for store in self.of_agents() if store.store_id == store_id), None)

    def require(self, store_id: str) -> Store:
        """A store that may be used. Raises NotThere."""
        return self.usable(store_id, self._table.get(keys.store(store_id)))

    def usable(self, store_id: str, item: Item | None) -> Store:
        """The same of an item that was read already."""
        store = self.of_item(store_id, item)
        if store is None or store.status == DELETING:
            raise NotThere(f"there is no memory {store_id}")
        return store

    def of_agents(self) -> list[Store]:
        """The stores of published agents, by their ids."""
        stores: dict[str, Store] = {}
        for item in listed(self._table):
            agent = load(self._table, item["agentId"], str(item["version"]))
            known = stores.get(agent.memory_store)
            stores[agent.memory_store] = (
                Store(agent.memory_store, agent.memory, agent_id=agent.agent_id, agent_version=agent.version)
                if known is None
                else replace(known, configuration=_together(known.configuration, agent.memory))
            )
        return [stores[store_id] for store_id in sorted(stores)]

    def made(self, after: str | None) -> Iterator[Store]:
        """The stores that CreateMemory made and that come behind the id `after`, by their ids."""
        first = keys.listed_store(after or "").sk
        behind = self._table.query(
            keys.STORE_LISTING,
            keys.listed_store("").sk,
            keys.listed_store("").sk + keys.END,
            after=first if after else None,
        )
        for entry in behind:
            item = self._table.get(keys.store(entry["memoryStore"]))
            if item is not None:
                yield Store(item["memoryStore"], of_store(item), item)


def _together(one: MemoryConfiguration, other: MemoryConfiguration) -> MemoryConfiguration:
    names = {namespace.name for namespace in one.namespaces}
    return replace(
        one,
        namespaces=one.namespaces + tuple(new for new in other.namespaces if new.name not in names),
        storage_days=max(one.storage_days, other.storage_days),
    )


def users(table: Table, store_id: str) -> Sequence[str]:
    """The ids of the published agents that use a store."""
    agents = (load(table, item["agentId"], str(item["version"])) for item in listed(table))
    return [agent.agent_id for agent in agents if agent.memory_store == store_id]
