"""How sessions of a store that CreateMemory made are consolidated: by its strategies, with their prompts and models."""

from typing import Any

import pytest

from tests.unit.memory_stores import FACTS, SUMMARIES, Store, new_store
from tests.unit.stored_memory import StoredMemory, element
from turnwright.errors import ModelThrottled
from turnwright.memory.erasure.belongings import Belongings
from turnwright.memory.erasure.erase_memory import Erasure
from turnwright.memory.records.actors import Actors
from turnwright.memory.records.records import Record, Records
from turnwright.memory.records.session_summaries import SessionSummaries
from turnwright.memory.session_ends.consolidations import Consolidation
from turnwright.memory.session_ends.session_ends import SessionEnds
from turnwright.storage.keys import NO_ACTOR, SessionId

SHARED = {"userPreferenceMemoryStrategy": {"name": "house", "namespaces": ["/house/"]}}
OWN_MODELS = {
    "customMemoryStrategy": {
        "name": "own",
        "namespaceTemplates": ["/own/{actorId}/"],
        "configuration": {
            "semanticOverride": {
                "extraction": {"appendToPrompt": "Only ships.", "modelId": "model-e"},
                "consolidation": {"appendToPrompt": "Never delete ships.", "modelId": "model-m"},
            }
        },
    }
}
OWN_SUMMARY = {
    "customMemoryStrategy": {
        "name": "short",
        "namespaceTemplates": ["/short/{actorId}/{sessionId}/"],
        "configuration": {
            "summaryOverride": {"consolidation": {"appendToPrompt": "Three words only.", "modelId": "model-s"}}
        },
    }
}


def end(store: Store, actor: str = "a", session: str = "s") -> Consolidation:
    segment = SessionEnds(store.stored.table).end(SessionId(store.id, actor, session))
    assert segment is not None
    return segment.consolidation


def recorded(store: Store, path: str, owner: str = "a") -> list[Record]:
    return Records(store.stored.table).of_namespace(store.id, owner, path)


def asked(memory: StoredMemory) -> list[tuple[str, str]]:
    """Each model call as (tool, model)."""
    return [(name, model) for (name, _), model in zip(memory.model.asked, memory.model.models, strict=True)]


def told(memory: StoredMemory, name: str) -> list[str]:
    return [prompt for tool, prompt in memory.model.asked if tool == name]


# ---- Prompts and models ----


def test_an_overrides_prompts_and_models_are_those_of_its_step(memory: StoredMemory) -> None:
    store = new_store(memory.stored, OWN_MODELS, OWN_SUMMARY)
    store.create_event("ship: Fram")
    assert memory.consolidate(end(store))["status"] == "WRITTEN"

    assert asked(memory) == [
        ("record_facts", "model-e"),
        ("merge_records", "model-m"),
        ("summarize_session", "model-s"),
    ]
    assert told(memory, "record_facts")[0].count("\nOnly ships.") == 1
    assert told(memory, "merge_records")[0].count("\nNever delete ships.") == 1
    assert told(memory, "summarize_session")[0].count("\nThree words only.") == 1


def test_the_next_try_asks_the_memorys_own_model(memory: StoredMemory) -> None:
    store = new_store(memory.stored, OWN_MODELS, OWN_SUMMARY)
    store.create_event("ship: Fram")
    for tool in ("record_facts", "merge_records", "summarize_session"):
        memory.model.answers[tool] = [ModelThrottled("slow down")]
    for state in memory.states(end(store)):
        try:
            state()
        except ModelThrottled:
            (event,) = state.__defaults__  # type: ignore[misc]
            event["attempt"] = 1
            state()
    assert [model for _, model in asked(memory)] == ["model-e", "model-1", "model-m", "model-1", "model-s", "model-1"]
    assert [record.text for record in recorded(store, "/own/a/")] == ["ship: Fram"]


def test_a_strategy_without_an_override_asks_the_memorys_models_alone(memory: StoredMemory) -> None:
    store = new_store(memory.stored, FACTS, SUMMARIES)
    store.create_event("ship: Fram")
    memory.consolidate(end(store))
    assert {model for _, model in asked(memory)} == {"model-1"}


@pytest.mark.parametrize("step", ["extraction", "consolidation"])
def test_another_prompt_of_an_override_is_another_prompt_version(memory: StoredMemory, step: str) -> None:
    versions = set()
    for number, words in enumerate(("Only ships.", "Only boats.")):
        steps = {step: {"appendToPrompt": words, "modelId": "model-e"}}
        strategy = {"name": "own", "namespaces": ["/own/{actorId}/"], "configuration": {"semanticOverride": steps}}
        store = new_store(memory.stored, {"customMemoryStrategy": strategy}, name=f"Store{number}")
        store.create_event("ship: Fram")
        memory.consolidate(end(store))
        versions |= {record.provenance.prompt_version for record in recorded(store, "/own/a/")}
    assert len(versions) == 2


# ---- What IngestData adds ----


def test_ingested_content_is_remembered_with_the_session_it_is_of(memory: StoredMemory) -> None:
    store = new_store(memory.stored, FACTS, SUMMARIES)
    store.create_event("ship: Fram")
    memory.stored.clock.ms += 1_000
    store.ingest(
        {"conversational": {"role": "USER", "content": {"text": "captain: Nansen"}}},
        {"json": {"content": {"port": ["Oslo", 1893, None]}}},
    )
    assert memory.consolidate(end(store))["status"] == "WRITTEN"

    prompt = told(memory, "record_facts")[0]
    assert "ship: Fram" in prompt
    assert "captain: Nansen" in prompt
    assert "Oslo" in prompt
    assert "captain: Nansen" in " ".join(record.text for record in recorded(store, "/facts/a/"))
    assert len(recorded(store, "/sums/a/s/")) == 1


def test_a_session_of_ingested_content_alone_ends_and_is_remembered(memory: StoredMemory) -> None:
    store = new_store(memory.stored, FACTS)
    session = store.ingest({"json": {"content": "ship: Fram"}}, session="")
    assert memory.consolidate(end(store, session=session))["status"] == "WRITTEN"
    assert "ship: Fram" in told(memory, "record_facts")[0]


# ---- Summaries ----


def test_each_summary_strategy_has_its_own_summary_and_those_without_a_prompt_one_together(
    memory: StoredMemory,
) -> None:
    more = {"summaryMemoryStrategy": {"name": "more", "namespaces": ["/more/{actorId}/{sessionId}/"]}}
    store = new_store(memory.stored, OWN_SUMMARY, SUMMARIES, more)
    store.create_event("ship: Fram")
    memory.model.answers["summarize_session"] = [{"summary": "All of it."}, {"summary": "Ship named Fram."}]
    assert memory.consolidate(end(store))["summarized"]

    assert asked(memory) == [("summarize_session", "model-1"), ("summarize_session", "model-s")]
    texts = [recorded(store, path)[0].text for path in ("/sums/a/s/", "/more/a/s/", "/short/a/s/")]
    assert texts == ["All of it.", "All of it.", "Ship named Fram."]
    assert SessionSummaries(memory.stored.table).latest(store.id, "a", 5)[0].text == "All of it."
    plain, short = (recorded(store, path)[0].provenance.prompt_version for path in ("/sums/a/s/", "/short/a/s/"))
    assert plain != short


def test_a_broken_summary_of_one_strategy_keeps_none_from_the_others(memory: StoredMemory) -> None:
    store = new_store(memory.stored, SUMMARIES, OWN_SUMMARY)
    name = store.memory["strategies"][1]["strategyId"]
    store.create_event("ship: Fram")
    memory.model.answers["summarize_session"] = [{"summary": "All of it."}, {}, {}]
    output = memory.consolidate(end(store))
    assert (output["summarized"], output["skipped"]) == (True, [name])
    assert [letter["skipped"] for letter in memory.queue.letters] == [name]
    assert [record.text for record in recorded(store, "/sums/a/s/")] == ["All of it."]
    assert recorded(store, "/short/a/s/") == []


def test_the_parts_of_a_long_session_are_summarized_in_each_style(
    memory: StoredMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turnwright.memory.consolidation.transcript.CHUNK_CHARACTERS", 200)
    store = new_store(memory.stored, SUMMARIES, OWN_SUMMARY)
    for number in range(3):
        memory.stored.clock.ms += 1_000
        store.create_event(f"ship {number}: Fram" + " x" * 60)
    memory.consolidate(end(store))
    prompts = told(memory, "summarize_session")
    in_style = [prompt for prompt in prompts if "Three words only." in prompt]
    assert len(in_style) == len(prompts) / 2
    assert [bool(element(prompt, "parts")) for prompt in in_style] == [False] * (len(in_style) - 1) + [True]
    (record,) = recorded(store, "/short/a/s/")
    assert all(f"ship {number}: " in record.text for number in range(3))


def test_a_summary_strategy_that_comes_while_a_session_is_consolidated_gets_the_sessions_own(
    memory: StoredMemory,
) -> None:
    store = new_store(memory.stored, SUMMARIES)
    store.create_event("ship: Fram")
    for state in memory.states(end(store)):
        if state.__name__ == "write":
            strategies = {"addMemoryStrategies": [OWN_SUMMARY]}
            store.memories.update({"memoryId": store.id, "memoryStrategies": strategies})
        state()
    assert [record.text for record in recorded(store, "/short/a/s/")] == ["ship: Fram"]


# ---- Namespaces that actors share ----


@pytest.fixture
def shared(memory: StoredMemory) -> Store:
    return new_store(memory.stored, SHARED, FACTS)


def test_actors_write_to_a_shared_namespace_together(memory: StoredMemory, shared: Store) -> None:
    for actor, words in (("a", "lamp: red"), ("b", "door: green"), ("a", "lamp: blue")):
        memory.stored.clock.ms += 1_000
        shared.create_event(words, actor=actor)
        memory.consolidate(end(shared, actor))

    assert sorted(shared.recalled("/house/")) == ["door: green", "lamp: blue"]
    assert sorted(shared.recalled("/house/", exact=True)) == ["door: green", "lamp: blue"]
    assert {record.actor for record in recorded(shared, "/house/", NO_ACTOR)} == {NO_ACTOR}
    assert shared.recalled("/facts/b/") == ["door: green"]
    shared.remember("/house/", "roof: old")
    assert sorted(shared.recalled("/house/")) == ["door: green", "lamp: blue", "roof: old"]
    known_keys = [element(prompt, "known_keys") for prompt in told(memory, "record_facts")[-2:]]
    assert '["door", "lamp"]' in known_keys


def test_actors_that_write_to_a_shared_namespace_at_once_lose_nothing_of_each_other(
    memory: StoredMemory, shared: Store
) -> None:
    shared.create_event("lamp: red", actor="a")
    shared.create_event("door: green", actor="b")
    first, second = end(shared, "a"), end(shared, "b")
    outcomes: list[Any] = []
    for state in memory.states(first):
        if state.__name__ == "write" and not outcomes:
            memory.consolidate(second)
        outcome = state()
        if state.__name__ == "write":
            outcomes.append(outcome)
    assert outcomes[0] == {"again": "RecordsChanged"}
    assert outcomes[1]["status"] == "WRITTEN"
    assert sorted(shared.recalled("/house/")) == ["door: green", "lamp: red"]


def test_the_erasure_of_an_actor_leaves_a_shared_namespace_as_it_is(memory: StoredMemory, shared: Store) -> None:
    for actor, words in (("b", "door: green"), ("a", "lamp: red")):
        shared.create_event(words, actor=actor)
        memory.consolidate(end(shared, actor))
    shared.create_event("roof: old", actor="a", session="later")
    late = end(shared, "a", "later")

    stored = memory.stored
    belongings = Belongings(stored.table, stored.documents, shared.id, "a")
    assert not any("house" in str(item.get("namespace", "")) for item in belongings.items())
    erasure = Erasure(stored.table, stored.documents, None, "", shared.id, "a", "erasure-1")
    for _ in range(10):
        progress = erasure.run()
        stored.clock.ms += progress.waitSeconds * 1_000
    assert progress.done

    assert sorted(shared.recalled("/house/")) == ["door: green", "lamp: red"]
    assert shared.recalled("/facts/a/") == []
    assert shared.recalled("/facts/b/") == ["door: green"]
    assert memory.consolidate(late) == {"status": "ACTOR_ERASED"}
    assert Actors(stored.table).read(shared.id, "a") is None
    assert sorted(shared.recalled("/house/")) == ["door: green", "lamp: red"]
