"""CreateMemory, GetMemory, ListMemories, UpdateMemory and DeleteMemory."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from tests.unit.memory_stores import FACTS, SUMMARIES, Store, new_store
from tests.unit.stored_turns import A, B, Interrupted, StoredTurns, die
from turnwright.agents.memory_configuration import MergeRule
from turnwright.api.agentcore.operations import operations
from turnwright.api.agentcore.refusals import Conflict, Invalid, NotThere
from turnwright.api.agentcore.strategies import meet
from turnwright.errors import StoreNotDeleting
from turnwright.memory.records.store_configuration import configuration_of
from turnwright.storage import keys
from turnwright.storage.table import Delete

OVERRIDE = {
    "customMemoryStrategy": {
        "name": "own",
        "namespaceTemplates": ["/own/{actorId}/"],
        "configuration": {
            "semanticOverride": {
                "extraction": {"appendToPrompt": "Only names.", "modelId": "model-9"},
                "consolidation": {"appendToPrompt": "Keep both.", "modelId": "model-8"},
            }
        },
    }
}


@pytest.fixture
def store(stored: StoredTurns) -> Store:
    return new_store(stored, FACTS, SUMMARIES, OVERRIDE)


def test_strategies_become_namespaces(store: Store) -> None:
    configuration = configuration_of(store.stored.table, store.id, "", "")
    facts, sums, own = configuration.namespaces
    ids = [entry["strategyId"] for entry in store.memory["strategies"]]

    assert [namespace.name for namespace in configuration.namespaces] == ids
    assert [entry["type"] for entry in store.memory["strategies"]] == ["SEMANTIC", "SUMMARIZATION", "CUSTOM"]
    assert (facts.template, facts.merge_rule) == ("/facts/{actorId}/", MergeRule.MODEL)
    assert (sums.of_session, sums.merge_rule) == (True, MergeRule.APPEND)
    assert own.extraction_prompt.endswith("\nOnly names.")
    assert (own.merge_prompt, own.model, own.merge_model) == ("Keep both.", "model-9", "model-8")
    assert configuration.consolidates
    assert configuration.summarizes
    assert (configuration.models, configuration.storage_days, configuration.idle_seconds) == (("model-1",), 30, 30)


def test_a_strategy_without_a_namespace_has_its_own_by_its_id(stored: StoredTurns) -> None:
    store = new_store(stored, {"userPreferenceMemoryStrategy": {"name": "likes"}})
    (strategy,) = store.memory["strategies"]
    assert strategy["namespaces"] == ["/strategies/{memoryStrategyId}/actors/{actorId}/"]
    configuration = configuration_of(stored.table, store.id, "", "")
    assert configuration.namespaces[0].path("a", "s") == f"/strategies/{strategy['strategyId']}/actors/a/"


def test_a_repeat_with_its_client_token_makes_no_second_memory_also_at_once(store: Store) -> None:
    def create(_number: int) -> Any:
        return store.memories.create({"name": "Once", "eventExpiryDuration": 3, "clientToken": "t"})["memory"]

    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(create, range(3)))
    assert made == [made[0]] * 3
    with pytest.raises(Invalid) as refused:
        store.memories.create({"name": "Other", "eventExpiryDuration": 3, "clientToken": "t"})
    assert refused.value.reason == "IdempotentParameterMismatchException"
    with pytest.raises(Invalid, match="a memory with name Once already exists"):
        store.memories.create({"name": "Once", "eventExpiryDuration": 3})


def strategy(**fields: Any) -> dict[str, Any]:
    return {"semanticMemoryStrategy": {"name": "more", **fields}}


@pytest.mark.parametrize(
    ("added", "finding"),
    [
        (strategy(name="facts", namespaces=["/z/{actorId}/"]), "is the name of another strategy: facts"),
        (strategy(namespaces=["/facts/{actorId}/x/"]), "has templates that can mean the same path"),
        (strategy(namespaces=["/{actorId}/"]), "has templates that can mean the same path"),
        (strategy(namespaces=["/z/{userId}/"]), "has an unknown variable: {userId}"),
        (strategy(namespaces=["/z/{actorId}/{actorId}/"]), "has a variable twice"),
        (strategy(namespaces=["/z/x{actorId}/"]), "does not stand alone between slashes"),
        (strategy(namespaces=["/z//{actorId}/"]), "has nothing between two slashes"),
        (strategy(namespaces=["/z/"], namespaceTemplates=["/y/"]), "differs from namespaceTemplates"),
        ({"summaryMemoryStrategy": {"name": "z", "namespaces": ["/z/{actorId}/"]}}, "has no {sessionId}"),
        ({"customMemoryStrategy": {"name": "z"}}, "configuration: is missing"),
    ],
)
def test_a_strategy_that_would_not_work_is_refused(store: Store, added: dict[str, Any], finding: str) -> None:
    changes = {"memoryStrategies": {"addMemoryStrategies": [added]}}
    with pytest.raises(Invalid) as refused:
        store.memories.update({"memoryId": store.id, **changes})
    assert finding in str(refused.value)
    assert store.memories.get({"memoryId": store.id})["memory"] == store.memory


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("memoryStrategies", [{"episodicMemoryStrategy": {"name": "e"}}]),
        (
            "memoryStrategies",
            [{"customMemoryStrategy": {"name": "e", "configuration": {"selfManagedConfiguration": {}}}}],
        ),
        ("encryptionKeyArn", "arn:aws:kms:us-east-1:123456789012:key/k"),
        ("streamDeliveryResources", {"resources": []}),
        ("namespaceKeys", []),
    ],
)
def test_what_is_not_supported_is_refused_by_its_name(field: str, value: Any) -> None:
    body = json.dumps({"name": "M", "eventExpiryDuration": 3, field: value})
    with pytest.raises(Invalid, match=f"{field}.* not supported"):
        operations()["CreateMemory"].read({"body": body})


def test_an_update_adds_changes_and_removes_strategies_once(store: Store) -> None:
    facts, sums, own = (entry["strategyId"] for entry in store.memory["strategies"])
    changes = {
        "addMemoryStrategies": [strategy(namespaces=["/more/{actorId}/"])],
        "modifyMemoryStrategies": [
            {"memoryStrategyId": facts, "description": "Facts.", "namespaceTemplates": ["/known/{actorId}/"]},
            {
                "memoryStrategyId": own,
                "configuration": {
                    "extraction": {
                        "customExtractionConfiguration": {
                            "semanticExtractionOverride": {"appendToPrompt": "Only dates.", "modelId": "model-8"}
                        }
                    }
                },
            },
        ],
        "deleteMemoryStrategies": [{"memoryStrategyId": sums}],
    }
    fields = {"memoryId": store.id, "memoryStrategies": changes, "eventExpiryDuration": 9, "clientToken": "t"}
    first = store.memories.update(fields)["memory"]
    assert store.memories.update(fields)["memory"] == first
    assert [entry["name"] for entry in first["strategies"]] == ["facts", "own", "more"]
    assert first["eventExpiryDuration"] == 9
    known, own_namespace, _ = configuration_of(store.stored.table, store.id, "", "").namespaces
    assert (known.template, known.description) == ("/known/{actorId}/", "Facts.")
    assert own_namespace.extraction_prompt.endswith("\nOnly dates.")
    assert own_namespace.merge_prompt == "Keep both."
    with pytest.raises(NotThere, match=f"no strategy {sums}"):
        store.memories.update(
            {"memoryId": store.id, "memoryStrategies": {"deleteMemoryStrategies": changes["deleteMemoryStrategies"]}}
        )


def test_an_agents_store_is_shown_and_only_its_file_changes_it(store: Store) -> None:
    own = "BANK-turnwright"
    memory = store.memories.get({"memoryId": own})["memory"]
    assert (memory["id"], memory["name"], memory["eventExpiryDuration"], memory["status"]) == (own, "BANK", 7, "ACTIVE")
    assert memory["arn"] == f"arn:aws:bedrock-agentcore:us-east-1:123456789012:memory/{own}"
    for refuse in (store.memories.update, store.memories.delete):
        with pytest.raises(Conflict, match="agent file"):
            refuse({"memoryId": own})


def test_an_agents_namespaces_are_its_stores_strategies(stored: StoredTurns) -> None:
    namespaces = [{"name": "likes", "ttlDays": 9}, {"name": "work", "mergeRule": "APPEND", "scope": "SESSION"}]
    stored.publish(memoryConfiguration={"namespaces": namespaces})
    store = new_store(stored)
    strategies = store.memories.get({"memoryId": "BANK-turnwright"})["memory"]["strategies"]
    assert [(entry["strategyId"], entry["namespaceTemplates"]) for entry in strategies] == [
        ("likes-turnwright", ["/likes/{actorId}/"]),
        ("work-turnwright", ["/work/{actorId}/{sessionId}/"]),
    ]


def test_all_memories_are_listed_page_by_page(store: Store) -> None:
    others = [new_store(store.stored, name=f"M{number}").id for number in range(3)]
    found: list[str] = []
    token: dict[str, str] = {}
    while True:
        answer = store.memories.page({"maxResults": 2, **token})
        found += [entry["id"] for entry in answer["memories"]]
        if "nextToken" not in answer:
            break
        token = {"nextToken": answer["nextToken"]}
    assert sorted(found) == sorted([store.id, *others, "BANK-turnwright"])
    assert found[-1] == "BANK-turnwright"


@pytest.mark.parametrize("number", range(0, 48, 6))
def test_a_deletion_that_dies_anywhere_is_gone_on_with_and_leaves_nothing(store: Store, number: int) -> None:
    other = new_store(store.stored, name="Kept")
    other.create_event(actor="a")
    for actor in ("a", "a/b"):
        store.create_event(actor=actor, payload=[{"blob": "x" * 90_000}], clientToken="t")
        store.remember(f"/facts/{actor}/", "fact")
    store.remember("/shared/", "shared")
    store.memories.delete({"memoryId": store.id})
    store.stored.dynamodb.forget()
    store.stored.dynamodb.after[number] = die
    with suppress(Interrupted):
        store.deletions.finish()
    store.stored.dynamodb.forget()
    with pytest.raises(NotThere):
        store.create_event(actor="new")
    store.deletions.finish()
    with pytest.raises(NotThere, match="there is no memory"):
        store.memories.get({"memoryId": store.id})
    left = [key for key in store.stored.items() if store.id in "".join(key)]
    assert left == []
    assert "Contents" not in store.stored.s3.client.list_objects_v2(Bucket=store.stored.bucket)
    assert len(other.texts()) == 1


def test_a_deletion_stops_turns_and_takes_their_journals_and_objects(stored: StoredTurns) -> None:
    store = new_store(stored, FACTS)
    stored.publish(memoryConfiguration={"memoryStore": store.id, "namespaces": [{"name": "likes"}]})
    stored.run(A, answer="a long answer " * 9_000)
    stored.begin(B, session="s-2")
    stored.table.delete(Delete(keys.listed_agent("BANK")))
    store.memories.delete({"memoryId": store.id})
    store.deletions.finish()
    assert set(store.deletions.stopped) == {B}
    assert [key for key in stored.items() if store.id in "".join(key) or key[0].startswith("TURN#")] == []
    assert stored.objects() == {}


@pytest.mark.parametrize(
    "write",
    [
        lambda store: store.create_event(actor="new"),
        lambda store: store.remember("/facts/new/", "late"),
        lambda store: store.remember("/shared/", "late"),
    ],
    ids=["event", "record", "record of nobody"],
)
def test_what_comes_to_a_store_while_it_is_deleted_leaves_nothing(
    stored: StoredTurns, write: Callable[[Store], object]
) -> None:
    for number in range(20):
        store = new_store(stored, FACTS, name=f"S{number}")

        def delete_it(store: Store = store) -> None:
            store.memories.delete({"memoryId": store.id})
            store.deletions.finish()

        stored.dynamodb.forget()
        stored.dynamodb.before[number] = delete_it
        with suppress(NotThere, AssertionError):  # a batch says of each record that it has failed
            write(store)
        if stored.dynamodb.before:
            assert number > 2
            return
        assert [key for key in stored.items() if store.id in "".join(key)] == []
    raise AssertionError("more requests than expected")


def test_a_store_that_nobody_deleted_is_not_erased(store: Store) -> None:
    store.create_event()
    with pytest.raises(StoreNotDeleting, match="is ACTIVE"):
        store.deletions.look(store.id)
    assert store.texts() == ["Hi"]


def test_a_memory_is_deleting_until_all_of_it_is_gone(stored: StoredTurns) -> None:
    store = new_store(stored, FACTS)
    store.create_event()
    assert store.memories.delete({"memoryId": store.id}) == {"memoryId": store.id, "status": "DELETING"}
    assert store.deletions.started == [store.id]
    assert store.memories.get({"memoryId": store.id})["memory"]["status"] == "DELETING"
    with pytest.raises(NotThere):
        store.list_events()
    with pytest.raises(Conflict, match="is being deleted"):
        store.memories.update({"memoryId": store.id, "description": "x"})


@pytest.mark.parametrize(
    ("one", "other", "they_do"),
    [
        ("/a/{actorId}/", "/a/{actorId}/{sessionId}/", True),
        ("/a/{actorId}/", "/b/{actorId}/", False),
        ("/u/{actorId}/x/", "/u/{actorId}/y/", False),
        ("/u/{actorId}/", "/u/{actorId}/y/", True),
        ("/{actorId}/x/", "/x/{actorId}/", True),
        ("/a/", "/a", True),
        ("/a/{sessionId}/", "/a/b/c/", False),
        ("/a/{sessionId}/", "/a/b/", True),
        ("/{actorId}/", "/{actorId}/", True),
    ],
)
def test_templates_meet_if_a_path_can_be_of_both(one: str, other: str, they_do: bool) -> None:
    assert meet(one, other) is they_do
    assert meet(other, one) is they_do


# ---- Tags ----


def tags(store: Store) -> dict[str, str]:
    found: dict[str, str] = store.memories.tags({"resourceArn": store.memory["arn"]})["tags"]
    return found


def test_tags_are_read_back_changed_and_taken_away(stored: StoredTurns) -> None:
    store = new_store(stored, FACTS)
    arn = store.memory["arn"]
    assert tags(store) == {}
    for _ in range(2):
        assert store.memories.tag({"resourceArn": arn, "tags": {"team": "a", "cost": "1"}}) == {}
    assert store.memories.tag({"resourceArn": arn, "tags": {"team": "b"}}) == {}
    assert tags(store) == {"team": "b", "cost": "1"}
    for _ in range(2):
        assert store.memories.untag({"resourceArn": arn, "tagKeys": ["cost", "none"]}) == {}
    assert tags(store) == {"team": "b"}
    store.memories.update({"memoryId": store.id, "description": "Now with words."})
    assert tags(store) == {"team": "b"}


def test_tags_of_the_creation_are_there(store: Store) -> None:
    made = store.memories.create({"name": "Tagged", "eventExpiryDuration": 3, "tags": {"team": "a"}})["memory"]
    assert store.memories.tags({"resourceArn": made["arn"]}) == {"tags": {"team": "a"}}


def test_tags_of_many_at_once_and_of_an_update_are_all_kept(store: Store) -> None:
    def change(number: int) -> None:
        if number:
            store.memories.tag({"resourceArn": store.memory["arn"], "tags": {f"k{number}": "v"}})
        else:
            store.memories.update({"memoryId": store.id, "description": "Changed."})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(change, range(4)))
    assert tags(store) == {"k1": "v", "k2": "v", "k3": "v"}
    assert store.memories.get({"memoryId": store.id})["memory"]["description"] == "Changed."


def test_a_memory_has_at_most_fifty_tags(store: Store) -> None:
    arn = store.memory["arn"]
    store.memories.tag({"resourceArn": arn, "tags": {f"k{number}": "v" for number in range(50)}})
    store.memories.tag({"resourceArn": arn, "tags": {"k1": "w"}})
    with pytest.raises(Invalid, match="tags: makes 51 tags; a memory has at most 50"):
        store.memories.tag({"resourceArn": arn, "tags": {"more": "v"}})
    assert len(tags(store)) == 50


def test_nothing_but_the_memories_of_this_place_has_tags(store: Store) -> None:
    arn = store.memory["arn"]
    for other in (arn + "x", arn.replace("us-east-1", "us-west-2"), arn.replace(":memory/", ":runtime/")):
        for operation in (store.memories.tags, store.memories.tag, store.memories.untag):
            with pytest.raises(NotThere, match="nothing else has tags here"):
                operation({"resourceArn": other, "tags": {}, "tagKeys": []})


def test_an_agents_memory_has_no_tags(store: Store) -> None:
    arn = store.memory["arn"].replace(store.id, "BANK-turnwright")
    assert store.memories.tags({"resourceArn": arn}) == {"tags": {}}
    with pytest.raises(Invalid, match="resourceArn: is the memory of agent BANK, whose file has no tags"):
        store.memories.tag({"resourceArn": arn, "tags": {"a": "b"}})
