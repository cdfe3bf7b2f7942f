"""What is read of an actor's memory at once, and what is told of what was not."""

import json
from typing import Any

import pytest

from tests.unit.memory.test_memory_tools import GROUP, Memory
from tests.unit.stored_turns import SESSION, A, B, StoredTurns
from tests.unit.tool_turns import FakeLambda
from turnwright.agents.memory_configuration import RECORD_BYTES
from turnwright.memory.records import reading
from turnwright.memory.records.reading import Bounds, Reading
from turnwright.memory.records.records import Provenance, Record, added

SMALL = Bounds(records=12, pages=4, compared_bytes=600)


def keep(stored: StoredTurns, namespace: str, texts: list[str]) -> None:
    for number, text in enumerate(texts):
        record = Record(
            SESSION.store,
            SESSION.actor,
            f"/{namespace}/{SESSION.actor}/",
            f"mem-{number:04d}",
            text,
            Provenance("TOOL"),
            updated_at=number,
        )
        stored.table.transact([added(record)])


def agent_of(stored: StoredTurns, *names: str, **inject: Any) -> None:
    namespaces = [{"name": name, "mergeRule": "APPEND", "inject": {"topK": 3, **inject}} for name in names]
    stored.publish(actionGroups=[GROUP], memoryConfiguration={"namespaces": namespaces})


def texts(part: reading.Part) -> list[str]:
    return [record.text for record in part.records]


def test_namespaces_share_what_is_read_and_a_full_one_leaves_the_others_their_share(stored: StoredTurns) -> None:
    keep(stored, "a", ["only one"])
    keep(stored, "b", [f"b {number}" for number in range(30)])
    keep(stored, "c", [f"c {number}" for number in range(5)])
    parts = Reading(stored.table, SMALL, 3)

    a, b, c = (parts.seen(SESSION.store, SESSION.actor, f"/{name}/{SESSION.actor}/") for name in "abc")

    assert (len(a.records), a.whole) == (1, True)
    assert (len(b.records), b.whole) == (7, False)
    assert (texts(c), c.whole) == ([f"c {number}" for number in range(5)], True)


def test_a_namespace_of_just_as_many_records_as_are_read_is_whole(stored: StoredTurns) -> None:
    keep(stored, "a", ["text"] * SMALL.records)

    part = Reading(stored.table, SMALL).whole(SESSION.store, SESSION.actor, f"/a/{SESSION.actor}/")

    assert (len(part.records), part.whole) == (SMALL.records, True)


def test_of_long_records_no_more_pages_are_read_than_the_bound(stored: StoredTurns) -> None:
    keep(stored, "a", ["x" * RECORD_BYTES] * 130)
    stored.dynamodb.forget()

    part = Reading(stored.table, Bounds(1_000, 2, 1_000)).seen(SESSION.store, SESSION.actor, f"/a/{SESSION.actor}/")

    assert stored.dynamodb.operations == ["query", "query"]
    assert not part.whole
    assert 100 < len(part.records) < 130


def test_what_was_seen_cannot_be_written(stored: StoredTurns) -> None:
    keep(stored, "a", ["text"])

    (record,) = Reading(stored.table, SMALL).seen(SESSION.store, SESSION.actor, f"/a/{SESSION.actor}/").records

    assert record.version == 0


@pytest.mark.parametrize("relevance", [False, True])
def test_an_actor_whose_memory_is_beyond_the_bounds_has_its_turn_and_is_told(
    stored: StoredTurns, monkeypatch: pytest.MonkeyPatch, relevance: bool
) -> None:
    monkeypatch.setattr("turnwright.memory.injection.TURN", SMALL)
    agent_of(stored, "a", "b", relevance=relevance)
    keep(stored, "a", [f"Tea number {number}. " + "x" * 500 for number in range(30)])
    stored.dynamodb.forget()

    turn = stored.begin(A, words="Which tea?", trace=True)

    assert stored.dynamodb.operations.count("query") <= 3 + 1, "a and b, a page each, and the history"
    injected = stored.header(turn.turnId).injected
    assert injected is not None
    shown = json.loads(stored.documents.fetch(injected).partition("<memory>")[2].removesuffix("</memory>"))
    assert len(shown["facts"]["a"]) == 3
    assert "more records than are read at once" in shown["leftOut"]
    assert ("bytes were compared" in shown["leftOut"]) == relevance


def test_a_memory_within_the_bounds_says_nothing_of_them(stored: StoredTurns) -> None:
    agent_of(stored, "a", relevance=True)
    keep(stored, "a", ["Tea."] * 30)

    turn = stored.begin(A, words="Which tea?")

    injected = stored.header(turn.turnId).injected
    assert injected is not None
    assert "leftOut" not in stored.documents.fetch(injected)


def test_a_search_and_what_is_remembered_after_it_work_beyond_the_bounds(
    stored: StoredTurns, fake_lambda: FakeLambda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turnwright.memory.memory_tools.BOUNDS", SMALL)
    agent_of(stored, "a")
    keep(stored, "a", ["Tea. " + "x" * 100] * 30)
    memory = Memory(stored, stored.begin(B), stored.agent())

    answer = memory.call("search_memory", query="tea")

    assert len(answer["records"]) == 5
    assert "more records than are read at once" in answer["leftOut"]
    assert "first 46 bytes" in answer["leftOut"]
    assert memory.call("remember", namespace="a", text="Coffee.")["remembered"]
    assert memory.call("forget", namespace="a", record_id="mem-0029")["forgotten"], "which no search has read"
    assert memory.refusal("forget", namespace="a", record_id="語" * 100)[0] == "FAILURE"
