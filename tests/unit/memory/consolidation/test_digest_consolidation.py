"""The digest of a session that goes on, and the namespaces of its scope."""

import json
from typing import Any

import pytest

from tests.unit.stored_memory import ACTOR, STORE, StoredMemory, element
from tests.unit.stored_turns import SESSION, A, step, text
from turnwright.memory.consolidation.digest_records import digest_path
from turnwright.memory.records.actors import Actors
from turnwright.memory.records.records import Records
from turnwright.memory.session_ends.consolidations import Consolidation, Kind, consolidation
from turnwright.storage import keys
from turnwright.storage.clock import told_moment
from turnwright.storage.keys import NO_ACTOR, SessionId


def digest_of(memory: StoredMemory, session: SessionId = SESSION) -> Consolidation:
    """The digest that is due behind the session's last turn."""
    item = memory.stored.session(session)
    actor = Actors(memory.stored.table).read(session.store, session.actor)
    return consolidation(
        Kind.DIGEST,
        session,
        item["digestedTo"],
        item["lastEventId"],
        agent_id="BANK",
        agent_version=item["agentVersion"],
        actor_epoch=actor.epoch if actor else "",
    )


def digests(memory: StoredMemory, session: SessionId = SESSION) -> list[str]:
    found = Records(memory.stored.table).of_namespace(session.store, session.actor, digest_path(session))
    return [record.text for record in found]


def counts(memory: StoredMemory, session: SessionId = SESSION) -> tuple[str, int, int]:
    item = memory.stored.session(session)
    return item["digestedTo"], item["undigestedTurns"], item["undigestedCharacters"]


def test_a_digest_continues_the_one_before_and_takes_what_it_covers_off_the_counts(memory: StoredMemory) -> None:
    memory.say("a: 1", "b: 2")
    first = digest_of(memory)
    assert memory.consolidate(first)["status"] == "WRITTEN"
    assert (digests(memory), counts(memory)) == (["a: 1 / b: 2"], (first.toEvent, 0, 0))
    memory.say("c: 3")
    second = digest_of(memory)
    assert second.fromEvent == first.toEvent
    memory.say("d: 4")
    _, _, characters = counts(memory)
    memory.consolidate(second)
    assert digests(memory) == ["a: 1 / b: 2 / c: 3"]
    assert counts(memory) == (second.toEvent, 1, characters // 2)


def test_a_digest_is_told_when_each_turn_was_and_has_the_time_of_the_last(memory: StoredMemory) -> None:
    memory.say("a: 1", "b: 2")
    work = digest_of(memory)
    last = int(work.toEvent.partition("#")[0])
    memory.stored.clock.ms += 3_600_000
    memory.consolidate(work)
    (_, asked) = memory.model.asked[-1]
    assert [json.loads(line)["at"] for line in element(asked, "conversation").splitlines()] == [told_moment(last)] * 2
    assert "Write no time that counts from the day on which it was said" in asked
    (digest,) = Records(memory.stored.table).of_namespace(STORE, ACTOR, digest_path(SESSION))
    assert digest.timestamp == last


def test_a_digest_writes_once_and_disturbs_no_turn(memory: StoredMemory) -> None:
    memory.say("a: 1", "b: 2")
    work = digest_of(memory)
    turn = memory.stored.begin("e" * 32, words="c: 3")
    memory.consolidate(work)
    visible = memory.visible()
    assert memory.consolidate(work)["status"] == "NOTHING_TO_DO"
    assert memory.visible() == visible
    memory.stored.journal(turn, step(1, text("Yes.")))
    memory.stored.commit(turn)
    assert counts(memory)[:2] == (work.toEvent, 1)


def test_a_later_session_of_the_same_id_begins_a_digest_of_its_own(memory: StoredMemory) -> None:
    memory.say("a: 1", "b: 2")
    memory.consolidate(digest_of(memory))
    memory.end()
    memory.say("c: 3", "d: 4")
    memory.consolidate(digest_of(memory))
    assert digests(memory) == ["c: 3 / d: 4"]


def test_a_digest_that_breaks_its_schema_writes_nothing_and_the_next_covers_its_turns(memory: StoredMemory) -> None:
    memory.configure(namespaces=[{"name": "notes", "scope": "SESSION", "mergeRule": "APPEND"}])
    memory.model.answers["digest_session"] = [{"digest": " "}, {}]
    memory.say("a: 1")
    before = memory.visible()
    output = memory.consolidate(digest_of(memory))
    assert (output["status"], output["skipped"]) == ("NOTHING_TO_DO", ["summary"])
    assert memory.visible() == before
    memory.say("b: 2")
    memory.consolidate(digest_of(memory))
    assert (digests(memory), memory.texts("notes")) == (["a: 1 / b: 2"], ["a: 1", "b: 2"])


def test_a_digest_serves_the_namespaces_of_session_scope_and_the_end_the_rest(memory: StoredMemory) -> None:
    notes = {"name": "notes", "scope": "SESSION", "mergeRule": "APPEND"}
    memory.configure(namespaces=[{"name": "preferences"}, notes])
    memory.say("a: 1", "b: 2")
    memory.consolidate(digest_of(memory))
    assert (memory.texts("notes"), memory.texts("preferences")) == (["a: 1", "b: 2"], [])
    memory.say("c: 3")
    memory.model.asked.clear()
    memory.consolidate(memory.end())
    assert (memory.texts("notes"), memory.texts("preferences")) == (["a: 1", "b: 2", "c: 3"], ["a: 1", "b: 2", "c: 3"])
    for_notes = [told for name, told in memory.model.asked if name == "record_facts" and '"name": "notes"' in told]
    assert len(for_notes) == 1
    assert "a: 1" not in for_notes[0]
    (record,) = [record for record in memory.records("notes") if record.text == "a: 1"]
    assert record.namespace == f"/notes/{ACTOR}/s-1/"
    assert record.provenance.source == "DIGEST"


def test_a_session_without_an_actor_has_a_digest_and_no_namespace_that_a_query_finds(memory: StoredMemory) -> None:
    nobody = SessionId(STORE, NO_ACTOR, "s-1")
    for number, words in enumerate(("a: 1", "b: 2")):
        _turn_of_nobody(memory, f"{number:x}" + A[1:], words)
    work = digest_of(memory, nobody)
    assert (work.actorEpoch, memory.consolidate(work)["status"]) == ("", "WRITTEN")
    assert digests(memory, nobody) == ["a: 1 / b: 2"]
    assert not any(sk.startswith((keys.NAMESPACE_PREFIX, keys.ACTOR_PREFIX)) for _, sk in memory.stored.items())


def _turn_of_nobody(memory: StoredMemory, turn_id: str, words: str) -> None:
    from dataclasses import replace

    from turnwright.turn.load_memory import begin

    stored: Any = memory.stored
    stored.clock.ms += 1_000
    request = replace(stored.request(turn_id, words=words), memory_id=None)
    turn = begin(stored.table, stored.documents, stored.agent(), request, "arn", redrive=0)
    stored.journal(turn, step(1, text("I see.")))
    stored.commit(turn)


@pytest.mark.parametrize("race", ["turn", "end"])
def test_a_digest_whose_session_went_on_meanwhile_loses_nothing(memory: StoredMemory, race: str) -> None:
    memory.say("a: 1", "b: 2")
    work = digest_of(memory)
    output: Any = None
    for state in memory.states(work):
        if state.__name__ == "write":
            if race == "turn":
                memory.say("c: 3")
            else:
                memory.end()
        output = state()
    if race == "turn":
        assert (output["status"], counts(memory)[1]) == ("WRITTEN", 1)
    else:
        assert (output["status"], digests(memory)) == ("OVERTAKEN", [])
