"""`python -m local memory`: what it shows, exports and erases."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from local.commands.memory import Memory, NoMemory, NotErased, as_json, erase, exported, read, render, store_of
from local.terminal.colours import plain
from tests.unit.stored_turns import SESSION, START, A, StoredTurns
from turnwright.memory.erasure.erase_memory import Erasure
from turnwright.memory.erasure.erasures import Erasures
from turnwright.memory.records.actors import Actors
from turnwright.memory.records.records import Provenance, Record, added, known
from turnwright.memory.records.session_summaries import SessionSummary
from turnwright.storage import keys
from turnwright.storage.table import Put

STORE, ACTOR = SESSION.store, SESSION.actor
TURN_MACHINE = "arn:aws:states:us-east-1:123456789012:stateMachine:turns"
MACHINE = "arn:aws:states:us-east-1:123456789012:stateMachine:erase"


def remember(stored: StoredTurns, key: str, text: str, record_id: str, provenance: Provenance, **fields: Any) -> None:
    namespace = f"/preferences/{ACTOR}/"
    times = {"created_at": START, "updated_at": START, "timestamp": START, **fields}
    record = Record(STORE, ACTOR, namespace, record_id, text, provenance, strategy="preferences", key=key, **times)
    stored.table.transact([added(record), known(STORE, ACTOR, namespace)])


def live(stored: StoredTurns) -> None:
    stored.run(A, answer="x" * 70_000)
    provenance = Provenance(
        "CONSOLIDATION",
        session_id="s-1",
        turn_id=A,
        agent_id="BANK",
        agent_version="2",
        prompt_version="0123456789abcdef",
        replaced=({"text": "Reports\nin EUR.", "sessionId": "s-0", "turnId": "b" * 32, "at": START - 60_000},),
    )
    remember(stored, "currency", "Reports in USD.", "mem-1", provenance, expires_at=START // 1000 + 86_400)
    remember(stored, "risk", "Takes moderate risks.", "mem-2", Provenance("TOOL"), updated_at=START - 1)
    remember(stored, "old", "Gone.", "mem-3", Provenance("TOOL"), expires_at=START // 1000)
    summary = SessionSummary(STORE, ACTOR, "s-1", START - 9, START, "About  accounts.")
    stored.table.put(summary.written())


def shown(stored: StoredTurns) -> Memory:
    return read(stored.table, stored.documents, STORE, ACTOR)


def test_records_are_shown_with_where_they_came_from_and_what_they_replaced(stored: StoredTurns) -> None:
    live(stored)
    the_rest = "prompt 01234567, until 2026-09-22 14:13, mem-1"
    assert render(shown(stored), plain).splitlines() == [
        "user-1 in BANK-turnwright",
        "",
        "/preferences/user-1/",
        "  currency  Reports in USD.",
        f"            consolidation, session s-1, turn aaaaaaaa, 2026-09-21 14:13, agent BANK 2, {the_rest}",
        "            replaced 'Reports in EUR.' (session s-0, turn bbbbbbbb, 2026-09-21 14:12)",
        "  risk      Takes moderate risks.",
        "            tool, 2026-09-21 14:13, mem-2",
        "",
        "summaries",
        "  2026-09-21 14:13  s-1  About accounts.",
        "",
        "sessions",
        "  s-1  OPEN  begun 2026-09-21 14:13  last 2026-09-21 14:13  BANK 1",
    ]


def test_the_json_has_all_fields_but_the_vectors(stored: StoredTurns) -> None:
    live(stored)
    document = json.loads(as_json(shown(stored)))
    assert [record["record_id"] for record in document["records"]] == ["mem-1", "mem-2"]
    assert document["records"][0]["provenance"]["replaced"][0]["text"] == "Reports\nin EUR."
    assert "embedding" not in document["records"][0]
    assert document["summaries"][0]["session_id"] == document["sessions"][0]["session_id"] == "s-1"


def test_an_actor_without_memory_is_shown_as_one(stored: StoredTurns) -> None:
    Actors(stored.table).require(STORE, ACTOR)
    assert render(shown(stored), plain) == "user-1 in BANK-turnwright\nnothing is remembered"


def test_an_export_has_every_item_and_object_on_a_line_of_its_own(stored: StoredTurns) -> None:
    live(stored)
    lines = [json.loads(line) for line in exported(stored.table, stored.documents, STORE, ACTOR)]
    places = {(line["item"]["PK"], line["item"]["SK"]) for line in lines if "item" in line}
    assert places == {key for key in stored.items() if not key[0].startswith("AGENT")}
    assert {line["object"]: line["document"] for line in lines if "object" in line} == stored.objects()
    assert len(stored.objects()) >= 2


def test_the_store_is_found_by_the_actor_unless_it_is_not_clear(stored: StoredTurns) -> None:
    with pytest.raises(NoMemory, match="nothing is known of user-1"):
        store_of(stored.table, ACTOR, None)
    Actors(stored.table).require(STORE, ACTOR)
    assert store_of(stored.table, ACTOR, None) == STORE
    assert store_of(stored.table, "nobody", STORE) == STORE
    stored.table.put(Put(keys.listed_store("made-by/CreateMemory"), {}))
    Actors(stored.table).require("made-by/CreateMemory", ACTOR)
    with pytest.raises(NoMemory, match="BANK-turnwright, made-by/CreateMemory know user-1: name one with --store"):
        store_of(stored.table, ACTOR, None)
    assert store_of(stored.table, ACTOR, "made-by/CreateMemory") == "made-by/CreateMemory"
    with pytest.raises(NoMemory, match="there is no memory store BANK"):
        store_of(stored.table, ACTOR, "BANK")


@dataclass(slots=True)
class Machine:
    """The machine that erases: one invocation of its function each time it is looked at."""

    stored: StoredTurns
    outcome: str = "SUCCEEDED"
    started: dict[str, Any] = field(default_factory=dict)

    def start_execution(self, **arguments: Any) -> None:
        self.started = arguments

    def describe_execution(self, *, executionArn: str) -> dict[str, str]:  # noqa: N803 - boto3's own name
        assert executionArn == f"{MACHINE.replace('stateMachine', 'execution')}:{self.started['name']}"
        if self.outcome != "SUCCEEDED":
            return {"status": self.outcome}
        table, documents = self.stored.table, self.stored.documents
        actor = json.loads(self.started["input"])
        name = self.started["name"]
        erasure = Erasure(table, documents, self, TURN_MACHINE, actor["memoryStore"], actor["actor"], name)
        progress = erasure.run()
        self.stored.clock.ms += progress.waitSeconds * 1000
        return {"status": "SUCCEEDED" if progress.done else "RUNNING"}


def test_an_erasure_is_waited_for_and_verified(stored: StoredTurns) -> None:
    live(stored)
    items = len([key for key in stored.items() if not key[0].startswith("AGENT")])
    objects = len(stored.objects())
    looks: list[int] = []
    erasures = Erasures(Machine(stored), MACHINE, "r-1")

    told = erase(stored.table, stored.documents, erasures, STORE, ACTOR, wait=lambda: looks.append(1))

    assert told == f"erased {items} items and {objects} objects; nothing of user-1 is left in BANK-turnwright"
    assert looks == [1]
    assert stored.objects() == {}


def test_an_erasure_that_fails_or_is_written_into_is_said_to_have(stored: StoredTurns) -> None:
    failing = Erasures(Machine(stored, "FAILED"), MACHINE, "r-1")
    with pytest.raises(NotErased, match=r"has FAILED; see python -m local describe [0-9a-f]{32}"):
        erase(stored.table, stored.documents, failing, STORE, ACTOR, wait=lambda: None)

    class Talkative(Machine):
        def describe_execution(self, *, executionArn: str) -> dict[str, str]:  # noqa: N803 - boto3's own name
            answer = Machine.describe_execution(self, executionArn=executionArn)
            if answer["status"] == "SUCCEEDED":
                Actors(self.stored.table).require(STORE, ACTOR)
            return answer

    with pytest.raises(NotErased, match="1 items and 0 objects of user-1 are there again"):
        erase(stored.table, stored.documents, Erasures(Talkative(stored), MACHINE, "r-2"), STORE, ACTOR, lambda: None)
