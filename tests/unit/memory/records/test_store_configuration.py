import pytest

from tests.unit.stored_turns import StoredTurns
from turnwright.agents.memory_configuration import Injection, MemoryConfiguration, MergeRule, Namespace
from turnwright.errors import AgentNotFound
from turnwright.memory.records.store_configuration import configuration_of, namespace_fields
from turnwright.storage import keys
from turnwright.storage.documents import json_text
from turnwright.storage.table import Put

STORE = "memory-0123456789"
FACTS = Namespace(
    name="facts",
    template="/strategies/facts/{actorId}/",
    description="Facts.",
    merge_rule=MergeRule.MODEL,
    extraction_prompt="Extract facts.",
    ttl_days=90,
    max_records=10,
    readers=frozenset({"*"}),
    writers=frozenset({"*"}),
    inject=Injection(3, True),
)
QUIET = Namespace("quiet", "/q/{actorId}/", "", MergeRule.APPEND, "", 1, 2, frozenset(), frozenset({"A"}), None)


def test_a_session_of_an_agent_is_remembered_by_that_agents_version(stored: StoredTurns) -> None:
    stored.publish(memoryConfiguration={"namespaces": [{"name": "facts"}]})

    versions = [configuration_of(stored.table, "BANK-turnwright", "BANK", version) for version in ("1", "2")]

    assert [[namespace.name for namespace in version.namespaces] for version in versions] == [[], ["facts"]]
    with pytest.raises(AgentNotFound):
        configuration_of(stored.table, "BANK-turnwright", "BANK", "3")


def test_a_session_without_an_agent_is_remembered_by_its_store(stored: StoredTurns) -> None:
    strategies = [{"name": "facts", "namespace": namespace_fields(FACTS)}, {"namespace": namespace_fields(QUIET)}, {}]
    item = {
        "memoryStore": STORE,
        "strategies": json_text(strategies),
        "summarizes": True,
        "storageDays": 90,
        "idleSeconds": 600,
        "models": ["model-1"],
        "embeddingModel": "embedder",
    }
    stored.table.put(Put(keys.store(STORE), item))

    assert configuration_of(stored.table, STORE, "", "") == MemoryConfiguration(
        store=STORE,
        namespaces=(FACTS, QUIET),
        summarizes=True,
        storage_days=90,
        idle_seconds=600,
        models=("model-1",),
        embedding_model="embedder",
    )


def test_a_store_that_nobody_made_remembers_nothing_but_events(stored: StoredTurns) -> None:
    configuration = configuration_of(stored.table, STORE, "", "")

    assert configuration == MemoryConfiguration(STORE)
    assert not configuration.remembers
