"""The operations on memory records, and that no path shows one actor what is another's."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.unit.memory_stores import FACTS, SUMMARIES, Store, new_store
from tests.unit.stored_turns import StoredTurns
from turnwright.agents.memory_configuration import MemoryConfiguration
from turnwright.api.agentcore.record_paths import below
from turnwright.api.agentcore.refusals import Invalid, NotThere
from turnwright.memory.records.store_configuration import of_store
from turnwright.storage import keys


@pytest.fixture
def store(stored: StoredTurns) -> Store:
    return new_store(stored, FACTS, SUMMARIES)


def strategy_id(store: Store, name: str) -> str:
    return next(str(entry["strategyId"]) for entry in store.memory["strategies"] if entry["name"] == name)


def test_a_record_is_read_as_it_was_written(store: Store) -> None:
    (record_id,) = store.remember("/facts/a/", "likes tea", metadata={"n": {"numberValue": 1.5}})
    now = store.stored.clock.ms / 1000
    record = store.records.get({"memoryId": store.id, "memoryRecordId": record_id})["memoryRecord"]
    assert {name: value for name, value in record.items() if name != "provenance"} == {
        "memoryRecordId": record_id,
        "content": {"text": "likes tea"},
        "memoryStrategyId": strategy_id(store, "facts"),
        "namespaces": ["/facts/a/"],
        "createdAt": now,
        "timestamp": now,
        "metadata": {"n": {"numberValue": 1.5}},
    }
    assert record["provenance"]["source"] == "API"
    with pytest.raises(NotThere, match="has no record"):
        store.records.get({"memoryId": store.id, "memoryRecordId": record_id, "namespace": "/facts/b/"})


def test_namespace_is_one_path_and_namespace_path_all_under_it(store: Store) -> None:
    store.remember("/sums/a/s1/", "one")
    store.remember("/sums/a/s2", "two")
    store.remember("/sums/ab/s1/", "three")
    assert store.recalled("/sums/a") == ["one", "two"]
    assert store.recalled("/sums/a", exact=True) == ["one", "two"]  # there is no such namespace, and there cannot be
    assert store.recalled("/sums/a/s", exact=True) == []  # a strategy could write it
    assert store.recalled("/su", exact=True) == []
    assert store.recalled("/sums/a/s2", exact=True) == ["two"]
    assert store.recalled("/sums/") == ["one", "two", "three"]
    assert store.recalled("/su") == []
    assert sorted(store.recalled("/")) == ["one", "three", "two"]


def test_pages_hold_every_record_once(store: Store) -> None:
    for actor in ("a", "b", "c"):
        store.remember(f"/facts/{actor}/", *(f"{actor}{number}" for number in range(4)))
    found: list[str] = []
    token: dict[str, str] = {}
    while True:
        answer = store.records.page({"memoryId": store.id, "namespacePath": "/facts/", "maxResults": 3, **token})
        found += [record["content"]["text"] for record in answer["memoryRecordSummaries"]]
        if "nextToken" not in answer:
            break
        token = {"nextToken": answer["nextToken"]}
    assert sorted(found) == sorted(f"{actor}{number}" for actor in "abc" for number in range(4))
    with pytest.raises(Invalid, match="nextToken"):
        store.records.page({"memoryId": store.id, "namespacePath": "/facts/a/", **token})


@pytest.mark.parametrize("exact", [True, False])
def test_no_actors_path_shows_the_records_of_one_with_a_similar_id(store: Store, *, exact: bool) -> None:
    actors = ["a", "a/", "a//", "a//b", "a/b", "a:b", "a-", "A", "aa"]
    for actor in actors:
        store.create_event(actor=actor)
        store.remember(f"/facts/{actor}/", f"of <{actor}>")
    for actor in actors:
        assert store.recalled(f"/facts/{actor}/", exact=exact) == [f"of <{actor}>"]
    owners = {
        text: item["PK"]["S"] for item in store.stored.items().values() if (text := item.get("text", {}).get("S"))
    }
    assert owners == {f"of <{actor}>": keys.actor_partition(store.id, actor) for actor in actors}


def test_a_search_is_best_first_with_scores_and_pages_of_the_top_k(store: Store) -> None:
    store.remember("/facts/a/", "likes green tea", "lives in Oslo", "drinks tea daily")
    asked: dict[str, Any] = {
        "memoryId": store.id,
        "namespacePath": "/facts/a/",
        "searchCriteria": {"searchQuery": "green tea", "topK": 2},
        "maxResults": 1,
    }
    first = store.records.retrieve(asked)
    second = store.records.retrieve({**asked, "nextToken": first["nextToken"]})
    (best,), (next_best,) = first["memoryRecordSummaries"], second["memoryRecordSummaries"]
    assert best["content"]["text"] == "likes green tea"
    assert next_best["content"]["text"] == "drinks tea daily"
    assert 1 >= best["score"] > next_best["score"] > 0
    assert "nextToken" not in second


def test_when_a_record_was_made_and_changed_needs_no_declaration(store: Store) -> None:
    (old,) = store.remember("/facts/a/", "old")
    made = store.stored.clock.ms / 1000
    store.stored.clock.ms += 60_000
    store.remember("/facts/a/", "new")
    store.stored.clock.ms += 60_000
    changed = store.stored.clock.ms / 1000
    entry = {"memoryRecordId": old, "timestamp": changed, "content": {"text": "renewed"}}
    assert store.records.update({"memoryId": store.id, "records": [entry]})["failedRecords"] == []

    def wanted(key: str, operator: str, *moment: float) -> list[str]:
        right = {"right": {"metadataValue": {"dateTimeValue": moment[0]}}} if moment else {}
        left = {"metadataKey": f"x-amz-agentcore-memory-{key}"}
        return sorted(store.recalled("/", metadataFilters=[{"left": left, "operator": operator, **right}]))

    assert wanted("createdAt", "BEFORE", made + 1) == ["renewed"]
    assert wanted("createdAt", "AFTER", made) == ["new"]
    assert wanted("updatedAt", "AFTER", changed - 1) == ["renewed"]
    assert wanted("updatedAt", "BEFORE", changed) == ["new"]
    assert wanted("updatedAt", "EXISTS") == ["new", "renewed"]
    with pytest.raises(Invalid, match=r"metadataFilters\[0\]\.left\.metadataKey: is reserved, and neither x-amz"):
        wanted("recordType", "EXISTS")


def test_nobody_writes_metadata_of_a_reserved_name(store: Store) -> None:
    key = "x-amz-agentcore-memory-createdAt"
    with pytest.raises(Invalid, match=rf"records\[0\]\.metadata\.{key}: begins with x-amz-agentcore-memory-, which"):
        store.remember("/facts/a/", "old", metadata={key: {"dateTimeValue": 1}})


def test_a_strategy_and_metadata_narrow_a_query(store: Store) -> None:
    facts = strategy_id(store, "facts")
    store.remember("/facts/a/", "low", metadata={"n": {"numberValue": 1}, "tags": {"stringListValue": ["x", "y"]}})
    store.stored.clock.ms += 1
    store.remember("/facts/a/", "high", metadata={"n": {"numberValue": 9}, "at": {"dateTimeValue": 5}})
    store.remember("/free/", "free")

    def wanted(operator: str, key: str, **value: Any) -> list[str]:
        right = {"right": {"metadataValue": value}} if value else {}
        condition = {"left": {"metadataKey": key}, "operator": operator, **right}
        return store.recalled("/", metadataFilters=[condition])

    assert wanted("GREATER_THAN", "n", numberValue=1) == ["high"]
    assert sorted(wanted("GREATER_THAN_OR_EQUALS", "n", numberValue=1)) == ["high", "low"]
    assert wanted("LESS_THAN", "n", numberValue=9) == ["low"]
    assert wanted("EQUALS_TO", "n", numberValue=9) == ["high"]
    assert wanted("EQUALS_TO", "n", stringValue="9") == []
    assert wanted("CONTAINS", "tags", stringValue="y") == ["low"]
    assert wanted("CONTAINS", "tags", stringListValue=["z", "y"]) == ["low"]
    assert wanted("CONTAINS", "tags", stringListValue=["z"]) == []
    with pytest.raises(Invalid, match=r"\.right: has no stringValue or stringListValue"):
        wanted("CONTAINS", "tags", numberValue=1)
    assert wanted("BEFORE", "at", dateTimeValue=6) == ["high"]
    assert wanted("AFTER", "at", dateTimeValue=6) == []
    assert sorted(wanted("NOT_EXISTS", "n")) == ["free"]
    with pytest.raises(Invalid, match=r"metadataFilters\[0\]\.right: has no numberValue"):
        wanted("LESS_THAN", "n", stringValue="9")
    assert sorted(store.recalled("/", memoryStrategyId=facts)) == ["high", "low"]
    with pytest.raises(NotThere, match="has no strategy none"):
        store.recalled("/", memoryStrategyId="none")


@pytest.mark.parametrize(
    ("fields", "finding"),
    [
        ({}, "exactly one of them has to be there"),
        ({"namespace": "/a/", "namespacePath": "/a/"}, "exactly one of them has to be there"),
        ({"namespacePath": "/a/*/"}, "has a wildcard"),
    ],
)
def test_a_query_means_one_path(store: Store, fields: dict[str, str], finding: str) -> None:
    with pytest.raises(Invalid, match=finding):
        store.records.page({"memoryId": store.id, **fields})


def test_a_record_over_sixteen_kibibytes_is_refused_by_the_limit(store: Store) -> None:
    with pytest.raises(Invalid, match=r"records\[0\]\.content\.text: has 16386 bytes; at most 16384 are taken"):
        store.remember("/facts/a/", "ß" * 8_193)
    assert store.recalled("/") == []


def test_a_repeated_batch_makes_no_record_twice_also_at_once_and_after_a_deletion(store: Store) -> None:
    def create(seconds: float) -> dict[str, Any]:
        entry = {
            "requestIdentifier": "r",
            "namespaces": ["/facts/a/"],
            "content": {"text": "tea"},
            "timestamp": seconds,
        }
        return store.records.create({"memoryId": store.id, "records": [entry], "clientToken": "t"})

    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(create, (1, 2, 3)))
    assert answers == [answers[0]] * 3
    assert store.recalled("/facts/a/") == ["tea"]
    (made,) = answers[0]["successfulRecords"]
    store.records.delete({"memoryId": store.id, "memoryRecordId": made["memoryRecordId"]})
    assert create(4) == answers[0]
    assert store.recalled("/facts/a/") == []


def test_a_batchs_token_keeps_nothing_of_an_actor_and_is_good_for_its_records_alone(store: Store) -> None:
    def create(*identifiers: str) -> dict[str, Any]:
        entries = [
            {"requestIdentifier": name, "namespaces": ["/facts/alice/"], "content": {"text": "tea"}, "timestamp": 1}
            for name in identifiers
        ]
        return store.records.create({"memoryId": store.id, "records": entries, "clientToken": "alice-tea"})

    create("alice", "tea")
    (token,) = [item for (pk, sk), item in store.stored.items().items() if pk == f"STORE#{store.id}" and "TOKEN#" in sk]
    assert not any(word in json.dumps(token) for word in ("alice", "tea"))
    for others in (("alice",), ("alice", "coffee"), ("alice", "tea", "x")):
        with pytest.raises(Invalid, match="clientToken: was used for other records"):
            create(*others)


@pytest.mark.parametrize("number", range(6))
def test_a_batch_that_dies_anywhere_can_be_repeated(store: Store, number: int) -> None:
    from tests.unit.stored_turns import Interrupted, die

    entries = [
        {"requestIdentifier": path[1], "namespaces": [path], "content": {"text": path}, "timestamp": 1}
        for path in ("/facts/a/", "/x/")
    ]
    fields = {"memoryId": store.id, "records": entries, "clientToken": "t"}
    store.stored.dynamodb.forget()
    store.stored.dynamodb.after[number] = die
    with pytest.raises(Interrupted):
        store.records.create(fields)
    answer = store.records.create(fields)
    assert answer["failedRecords"] == []
    assert sorted(store.recalled("/")) == ["/facts/a/", "/x/"]


def test_an_update_changes_what_it_names_keeps_what_was_and_may_move_a_record(store: Store) -> None:
    (record_id,) = store.remember("/facts/a/", "old", metadata={"k": {"stringValue": "v"}})
    store.stored.clock.ms += 1_000
    change = {
        "memoryRecordId": record_id,
        "timestamp": 5,
        "content": {"text": "new"},
        "namespaces": ["/facts/b/"],
    }
    gone = {"memoryRecordId": "mem-" + "0" * 36, "timestamp": 5}
    answer = store.records.update({"memoryId": store.id, "records": [change, gone]})
    assert answer["successfulRecords"] == [{"memoryRecordId": record_id, "status": "SUCCEEDED"}]
    (failed,) = answer["failedRecords"]
    assert (failed["memoryRecordId"], failed["errorCode"]) == (gone["memoryRecordId"], 404)

    record = store.records.get({"memoryId": store.id, "memoryRecordId": record_id})["memoryRecord"]
    assert (record["content"]["text"], record["namespaces"], record["timestamp"]) == ("new", ["/facts/b/"], 5)
    assert record["metadata"] == {"k": {"stringValue": "v"}}
    assert [old["text"] for old in record["provenance"]["replaced"]] == ["old"]
    assert store.recalled("/facts/a/") == []


def test_records_expire_when_they_were_told_to_and_not_later(store: Store) -> None:
    entry = {"requestIdentifier": "r", "namespaces": ["/x/"], "content": {"text": "x"}, "timestamp": 1}
    specification = {"recordExpiryDurationDays": 31}
    store.records.create({"memoryId": store.id, "records": [entry], "recordExpirySpecification": specification})
    (kept,) = store.remember("/x/", "kept")
    store.stored.clock.ms += 32 * 86_400_000
    assert store.recalled("/x/") == ["kept"]
    update = {"memoryRecordId": kept, "timestamp": 1}
    store.records.update({"memoryId": store.id, "records": [update], "recordExpirySpecification": specification})
    store.records.update({"memoryId": store.id, "records": [update], "recordExpirySpecification": {"action": "REMOVE"}})
    store.stored.clock.ms += 32 * 86_400_000
    assert store.recalled("/x/") == ["kept"]


def test_deleting_twice_is_told_and_the_others_of_a_batch_are_deleted(store: Store) -> None:
    one, two = store.remember("/facts/a/", "1", "2")
    store.records.delete({"memoryId": store.id, "memoryRecordId": one})
    with pytest.raises(NotThere):
        store.records.delete({"memoryId": store.id, "memoryRecordId": one})
    answer = store.records.batch_delete(
        {"memoryId": store.id, "records": [{"memoryRecordId": one}, {"memoryRecordId": two}]}
    )
    assert [entry["memoryRecordId"] for entry in answer["successfulRecords"]] == [two]
    assert [entry["errorCode"] for entry in answer["failedRecords"]] == [404]


def test_an_actor_below_another_one_is_neither_shown_to_it_nor_shown_it(store: Store) -> None:
    store.remember("/facts/a/", "of a")
    store.remember("/facts/a/b/", "of a/b")
    store.remember("/sums/a/b/", "of a in b")
    store.remember("/sums/a/b/s/", "of a/b in s")
    assert store.recalled("/facts/a/") == ["of a"]
    assert store.recalled("/facts/a/b/") == ["of a/b"]
    assert store.recalled("/sums/a/") == ["of a in b"]
    assert store.recalled("/sums/a/b/") == ["of a/b in s"]
    assert store.recalled("/sums/a/b/", exact=True) == ["of a in b"]


IDS = st.text(alphabet="ab/:#%._-~ \u00e9\u4e2d", min_size=1, max_size=6).filter(
    lambda actor: actor != keys.NO_ACTOR and not actor.startswith("/") and not actor.endswith("/") and "//" not in actor
)


@settings(phases=[Phase.generate])
@given(actors=st.lists(IDS, min_size=2, max_size=4, unique=True), session=st.sampled_from(["s", "a", "b"]))
def test_no_choice_of_actor_ids_shows_a_record_of_one_to_another(store: Store, actors: list[str], session: str) -> None:
    for actor in actors:
        store.remember(f"/facts/{actor}/", f"facts of {actor}")
        store.remember(f"/sums/{actor}/{session}/", f"sums of {actor}")
    for actor in actors:
        assert set(store.recalled(f"/facts/{actor}/")) == {f"facts of {actor}"}
        assert set(store.recalled(f"/sums/{actor}/")) == {f"sums of {actor}"}
        assert set(store.recalled(f"/facts/{actor}/", exact=True)) == {f"facts of {actor}"}


def test_a_path_of_no_strategy_is_nobodys_alone(store: Store) -> None:
    item = store.stored.table.get(keys.store(store.id))
    assert item is not None
    configuration: MemoryConfiguration = of_store(item)
    assert below("/shared/", "/shared/x/", keys.NO_ACTOR, configuration, lambda _: True)
    assert not below("/shared/x/", "/shared/y/", keys.NO_ACTOR, configuration, lambda _: False)
