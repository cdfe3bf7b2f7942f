"""By which configuration a session is remembered: its last agent's, or its memory store's.

A session in which an agent's turn was committed is that agent's, in the version of that turn. A session that has only
events of CreateEvent is the store's: the item `STORE` of the store, which CreateMemory writes, has

| attribute | what it is |
| --- | --- |
| `strategies` | JSON, a list of objects; `namespace` of one is `namespace_fields` of the strategy's namespace |
| `summarizes` | whether ended sessions are summarized |
| `storageDays` | for sessions, and for records whose namespace does not say |
| `idleSeconds` | after which a session has ended; missing for never |
| `models`, `embeddingModel` | ids of models, in order; missing for none |
"""

import json
from collections.abc import Mapping
from typing import Any

from turnwright.agents.memory_configuration import Injection, MemoryConfiguration, MergeRule, Namespace
from turnwright.agents.memory_defaults import DEFAULT_STORAGE_DAYS
from turnwright.agents.versions import load
from turnwright.storage import keys
from turnwright.storage.table import Item, Table


def configuration_of(table: Table, store: str, agent_id: str, agent_version: str) -> MemoryConfiguration:
    """The configuration for a session of the store whose last agent is `agent_id`, "" for none.

    A store that is neither an agent's nor made by CreateMemory remembers nothing but events. Raises AgentNotFound for a
    version that is not there.
    """
    if agent_id:
        return load(table, agent_id, agent_version).memory
    item = table.get(keys.store(store))
    return of_store(item) if item else MemoryConfiguration(store)


def of_store(item: Item) -> MemoryConfiguration:
    """The configuration that the item of a store holds."""
    strategies = json.loads(item.get("strategies", "[]"))
    return MemoryConfiguration(
        store=item["memoryStore"],
        namespaces=tuple(namespace_of(entry["namespace"]) for entry in strategies if "namespace" in entry),
        summarizes=item.get("summarizes", False),
        storage_days=item.get("storageDays", DEFAULT_STORAGE_DAYS),
        idle_seconds=item.get("idleSeconds"),
        models=tuple(item.get("models", ())),
        embedding_model=item.get("embeddingModel"),
    )


def namespace_fields(namespace: Namespace) -> dict[str, Any]:
    """A namespace as JSON has it."""
    return {
        "name": namespace.name,
        "template": namespace.template,
        "description": namespace.description,
        "mergeRule": namespace.merge_rule,
        "extractionPrompt": namespace.extraction_prompt,
        "ttlDays": namespace.ttl_days,
        "maxRecords": namespace.max_records,
        "read": sorted(namespace.readers),
        "write": sorted(namespace.writers),
        "inject": {"topK": namespace.inject.top_k, "relevance": namespace.inject.relevance}
        if namespace.inject
        else None,
        "mergePrompt": namespace.merge_prompt,
        "model": namespace.model,
        "mergeModel": namespace.merge_model,
        "holdsSummaries": namespace.holds_summaries,
    }


def namespace_of(fields: Mapping[str, Any]) -> Namespace:
    """The namespace that `namespace_fields` wrote."""
    inject = fields["inject"]
    return Namespace(
        name=fields["name"],
        template=fields["template"],
        description=fields["description"],
        merge_rule=MergeRule(fields["mergeRule"]),
        extraction_prompt=fields["extractionPrompt"],
        ttl_days=fields["ttlDays"],
        max_records=fields["maxRecords"],
        readers=frozenset(fields["read"]),
        writers=frozenset(fields["write"]),
        inject=Injection(inject["topK"], inject["relevance"]) if inject else None,
        merge_prompt=fields.get("mergePrompt", ""),
        model=fields.get("model", ""),
        merge_model=fields.get("mergeModel", ""),
        holds_summaries=fields.get("holdsSummaries", False),
    )
