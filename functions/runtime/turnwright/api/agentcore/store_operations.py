"""What CreateMemory, GetMemory, ListMemories, UpdateMemory and DeleteMemory do, and the operations on memories' tags.

A store is made and changed in one transaction each, so that it is ACTIVE at once. It is DELETING from the moment of its
deletion on, until an execution of the machine that erases has removed all that is in it.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from turnwright.agents.memory_configuration import MergeRule
from turnwright.api.agentcore import paging, strategies
from turnwright.api.agentcore.operations import seconds
from turnwright.api.agentcore.refusals import Conflict, NotThere, Reason, Throttled, invalid
from turnwright.api.agentcore.stores import ACTIVE, DELETING, Store, Stores, users
from turnwright.errors import CommitConflict
from turnwright.memory.erasure.erasures import Erasures
from turnwright.storage import keys
from turnwright.storage.clock import expiry, now_ms
from turnwright.storage.documents import json_text
from turnwright.storage.table import ConditionFailed, Item, Put, Table, TransactionRefused, Update

IDLE_SECONDS = 30
"""After which a session of a store that CreateMemory made has ended: its clients end none, and wait for its records."""

TOKEN_DAYS = 7
"""How long a clientToken is remembered."""

_DEFAULT_RESULTS = 20
_MOST_INDEXED_KEYS = 10
_MOST_TAGS = 50
_MOST_TRIES = 10


@dataclass(frozen=True, slots=True)
class Place:
    """Where this runtime is: what an ARN begins with."""

    partition: str
    region: str
    account: str

    def arn(self, store_id: str) -> str:
        return f"arn:{self.partition}:bedrock-agentcore:{self.region}:{self.account}:memory/{store_id}"


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the stores that CreateMemory makes are remembered with."""

    models: tuple[str, ...]
    embedding_model: str | None


class Memories:
    """Each operation takes checked fields and returns the answer."""

    def __init__(
        self,
        table: Table,
        place: Place,
        defaults: Defaults,
        erasures: Erasures,
    ) -> None:
        self._table = table
        self._stores = Stores(table)
        self._place = place
        self._defaults = defaults
        self._erasures = erasures

    def create(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """A repeat with the same clientToken is answered with the store that is there."""
        name = fields["name"]
        token_key = keys.store_token(_hashed(fields.get("clientToken") or strategies.random_part(40)))
        for _ in range(_MOST_TRIES):
            token, named = self._table.get_many([token_key, keys.store_name(name)])
            if token is not None:
                return {"memory": self._made_before(token, name)}
            if named is not None:
                raise invalid("name", f"is taken: a memory with name {name} already exists", Reason.CONFLICT)
            item = self._new(fields)
            store_id = item["memoryStore"]
            try:
                self._table.transact(
                    [
                        Put(
                            token_key,
                            {"memoryStore": store_id, "name": name, "expiresAt": expiry(now_ms(), TOKEN_DAYS)},
                            only_if_absent=True,
                        ),
                        Put(keys.store_name(name), {"memoryStore": store_id}, only_if_absent=True),
                        Put(keys.store(store_id), item, only_if_absent=True),
                        Put(keys.listed_store(store_id), {"memoryStore": store_id}, only_if_absent=True),
                    ]
                )
            except (TransactionRefused, CommitConflict):
                continue  # a repeat, or another of this name, was faster: see which
            return {"memory": self._wire(self._require(store_id))}
        raise Throttled(f"others keep making memories of the name {name}; repeat the request")

    def get(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {"memory": self._wire(self._require(fields["memoryId"]))}

    def page(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The stores that CreateMemory made, then those of agents, both by their ids."""
        position = paging.position("ListMemories", fields, 2)
        kind, after = position or ["made", ""]
        limit = fields.get("maxResults", _DEFAULT_RESULTS)
        page: list[tuple[str, Store]] = []
        if kind == "made":
            for store in self._stores.made(after or None):
                page.append(("made", store))
                if len(page) > limit:
                    break
            after = ""
        if len(page) <= limit:
            page += [
                ("agents", store)
                for store in self._stores.of_agents()
                if store.store_id > after and self._table.get(keys.store(store.store_id)) is None
            ]
        answer: dict[str, Any] = {"memories": [self._summary(store) for _, store in page[:limit]]}
        if len(page) > limit:
            kind, last = page[limit - 1]
            answer["nextToken"] = paging.token("ListMemories", fields, [kind, last.store_id])
        return answer

    def update(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """A repeat of the last update with its clientToken changes nothing."""
        token = _hashed(fields["clientToken"]) if fields.get("clientToken") else ""
        for _ in range(_MOST_TRIES):
            store = self._require(fields["memoryId"])
            if store.item is None:
                raise Conflict(f"memory {store.store_id} is agent {store.agent_id}'s: its agent file says what it is")
            if store.status == DELETING:
                raise Conflict(f"memory {store.store_id} is being deleted")
            if token and store.item.get("lastToken") == token:
                return {"memory": self._wire(store)}
            item = self._changed(store.item, fields, token)
            try:
                self._table.put(
                    Put(
                        keys.store(store.store_id),
                        item,
                        condition="version = :version AND #status = :active",
                        names={"#status": "status"},
                        values={":version": store.item["version"], ":active": ACTIVE},
                    )
                )
            except (ConditionFailed, CommitConflict):
                continue  # another update was faster
            return {"memory": self._wire(self._require(store.store_id))}
        raise Throttled(f"others keep changing memory {fields['memoryId']}; repeat the request")

    def delete(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """All that is in the store goes, after the answer. Another request joins that, or makes up for its failure."""
        store = self._require(fields["memoryId"])
        if store.item is None:
            raise Conflict(
                f"memory {store.store_id} is agent {store.agent_id}'s: it is there as long as its agent file"
            )
        agents = users(self._table, store.store_id)
        if agents:
            raise Conflict(f"memory {store.store_id} is used by {', '.join(agents)}: their agent files name it")
        try:
            self._table.update(
                Update(
                    keys.store(store.store_id),
                    "SET #status = :deleting",
                    condition="attribute_exists(PK)",
                    names={"#status": "status"},
                    values={":deleting": DELETING},
                )
            )
        except ConditionFailed as refused:
            raise NotThere(f"there is no memory {store.store_id}") from refused
        self._erasures.start(store.store_id, None)
        return {"memoryId": store.store_id, "status": DELETING}

    def tags(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {"tags": _tags(self._named(fields["resourceArn"]))}

    def tag(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """A tag that is there gets the new value."""
        return self._retag(fields["resourceArn"], lambda tags: {**tags, **fields["tags"]})

    def untag(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """A tag that is not there is gone already."""
        gone = fields["tagKeys"]
        return self._retag(fields["resourceArn"], lambda tags: {key: tags[key] for key in tags if key not in gone})

    def _retag(self, arn: str, change: Callable[[dict[str, str]], dict[str, str]]) -> dict[str, Any]:
        """The store has another version with its new tags, so that no update at the same moment undoes them."""
        for _ in range(_MOST_TRIES):
            store = self._named(arn)
            if store.item is None:
                raise invalid("resourceArn", f"is the memory of agent {store.agent_id}, whose file has no tags")
            tags = change(_tags(store))
            if len(tags) > _MOST_TAGS:
                raise invalid("tags", f"makes {len(tags)} tags; a memory has at most {_MOST_TAGS}")
            try:
                self._table.update(
                    Update(
                        keys.store(store.store_id),
                        "SET tags = :tags, version = :next",
                        condition="version = :version",
                        values={
                            ":tags": json_text(tags),
                            ":next": store.item["version"] + 1,
                            ":version": store.item["version"],
                        },
                    )
                )
            except (ConditionFailed, CommitConflict):
                continue  # another change was faster, or the store is gone
            return {}
        raise Throttled(f"others keep changing {arn}; repeat the request")

    def _named(self, arn: str) -> Store:
        store = self._stores.find(arn.rpartition("/")[2])
        if store is None or self._place.arn(store.store_id) != arn:
            raise NotThere(f"there is no memory {arn}, and nothing else has tags here")
        return store

    def _require(self, store_id: str) -> Store:
        """Also a store that is being deleted."""
        store = self._stores.find(store_id)
        if store is None:
            raise NotThere(f"there is no memory {store_id}")
        return store

    def _made_before(self, token: Item, name: str) -> dict[str, Any]:
        if token["name"] != name:
            raise invalid("clientToken", f"was used to make the memory {token['name']}", Reason.TOKEN)
        store = self._stores.find(token["memoryStore"])
        if store is None:
            raise Conflict(f"memory {token['memoryStore']}, which this clientToken made, is deleted")
        return self._wire(store)

    def _new(self, fields: Mapping[str, Any]) -> Item:
        now = now_ms()
        stored = strategies.added([], fields.get("memoryStrategies", []), "memoryStrategies", now)
        item: Item = {
            "memoryStore": f"{fields['name']}-{strategies.random_part()}",
            "name": fields["name"],
            "status": ACTIVE,
            "version": 1,
            "createdAt": now,
            "updatedAt": now,
            "storageDays": fields["eventExpiryDuration"],
            "models": list(self._defaults.models),
            "indexedKeys": json_text(_indexed([], fields.get("indexedKeys", []))),
            "tags": json_text(fields.get("tags", {})),
            **_strategy_fields(stored),
        }
        if self._defaults.embedding_model:
            item["embeddingModel"] = self._defaults.embedding_model
        return item | _texts(fields)

    def _changed(self, item: Item, fields: Mapping[str, Any], token: str) -> Item:
        now = now_ms()
        changes = fields.get("memoryStrategies") or {}
        stored: list[strategies.Stored] = json.loads(item["strategies"])
        place = "memoryStrategies"
        deleted = [entry["memoryStrategyId"] for entry in changes.get("deleteMemoryStrategies") or []]
        stored = strategies.removed(stored, deleted)
        modified = changes.get("modifyMemoryStrategies") or []
        stored = strategies.modified(stored, modified, f"{place}.modifyMemoryStrategies", now)
        new = changes.get("addMemoryStrategies") or []
        stored = strategies.added(stored, new, f"{place}.addMemoryStrategies", now)
        kept = {name: value for name, value in item.items() if name not in ("PK", "SK", "idleSeconds", "lastToken")}
        indexed = _indexed(json.loads(item["indexedKeys"]), fields.get("addIndexedKeys", []))
        return {
            **kept,
            **_texts(fields),
            **_strategy_fields(stored),
            "storageDays": fields.get("eventExpiryDuration", item["storageDays"]),
            "indexedKeys": json_text(indexed),
            "version": item["version"] + 1,
            "updatedAt": now,
            **({"lastToken": token} if token else {}),
        }

    def _summary(self, store: Store) -> dict[str, Any]:
        item = store.item or {}
        return {
            "arn": self._place.arn(store.store_id),
            "id": store.store_id,
            "status": store.status,
            "createdAt": seconds(item.get("createdAt", 0)),
            "updatedAt": seconds(item.get("updatedAt", 0)),
        }

    def _wire(self, store: Store) -> dict[str, Any]:
        answer = {
            **self._summary(store),
            "name": store.item["name"] if store.item else store.agent_id,
            "eventExpiryDuration": store.configuration.storage_days,
        }
        if store.item is None:
            namespaces = store.configuration.namespaces
            return {**answer, "strategies": [_agents_strategy(store, namespace.name) for namespace in namespaces]}
        answer["strategies"] = [strategies.wire(strategy) for strategy in store.strategies]
        if indexed := json.loads(store.item["indexedKeys"]):
            answer["indexedKeys"] = indexed
        return answer | {
            name: store.item[name] for name in ("description", "memoryExecutionRoleArn") if name in store.item
        }


def _agents_strategy(store: Store, name: str) -> dict[str, Any]:
    """A namespace of an agent file in AgentCore's words: a custom strategy that overrides what facts are extracted."""
    strategy_id = store.strategy_id(name)
    namespace = store.namespace(strategy_id)
    prompt = {"appendToPrompt": namespace.extraction_prompt, "modelId": next(iter(store.configuration.models), "")}
    is_preference = namespace.merge_rule in (MergeRule.REPLACE, MergeRule.KEEP_FIRST)
    override = "userPreference" if is_preference else "semantic"
    return {
        "strategyId": strategy_id,
        "name": name,
        "description": namespace.description,
        "type": "CUSTOM",
        "configuration": {
            "type": "USER_PREFERENCE_OVERRIDE" if is_preference else "SEMANTIC_OVERRIDE",
            "extraction": {"customExtractionConfiguration": {f"{override}ExtractionOverride": prompt}},
        },
        "namespaces": [namespace.template],
        "namespaceTemplates": [namespace.template],
        "status": ACTIVE,
    }


def _strategy_fields(stored: list[strategies.Stored]) -> Item:
    fields: Item = {"strategies": json_text(stored), "summarizes": strategies.summarizes(stored)}
    if stored:
        fields["idleSeconds"] = IDLE_SECONDS
    return fields


def _texts(fields: Mapping[str, Any]) -> Item:
    return {name: fields[name] for name in ("description", "memoryExecutionRoleArn") if name in fields}


def _indexed(known: list[dict[str, str]], new: list[dict[str, str]]) -> list[dict[str, str]]:
    after = [*known]
    for entry in new:
        same = next((other for other in after if other["key"] == entry["key"]), None)
        if same is not None and same["type"] != entry["type"]:
            raise invalid("indexedKeys", f"has {entry['key']} as {entry['type']}; it is {same['type']}")
        if same is None:
            after.append(entry)
    if len(after) > _MOST_INDEXED_KEYS:
        raise invalid("indexedKeys", f"makes {len(after)} keys; a memory has at most {_MOST_INDEXED_KEYS}")
    return after


def _tags(store: Store) -> dict[str, str]:
    tags: dict[str, str] = json.loads((store.item or {}).get("tags", "{}"))
    return tags


def _hashed(token: str) -> str:
    return sha256(token.encode()).hexdigest()
