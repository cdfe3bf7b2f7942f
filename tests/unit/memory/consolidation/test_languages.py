"""What is said in many languages, from the session in which it is said to the turn that is shown it: times that count
from the day, corrections and negations.

The model here knows the sentences and counts from the moment of each message, which it has from the prompt alone.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import pytest

from tests.unit.stored_memory import StatementModel, StoredMemory, element
from turnwright.memory.records.search import Compared

DAY_MS = 86_400_000
NAMESPACES = [{"name": "travel", "ttlDays": 90}, {"name": "food", "mergeRule": "APPEND", "ttlDays": 90}]


@dataclass(frozen=True, slots=True)
class Language:
    """What is said on a Monday, and on the Wednesday after it. `{}` in a fact is the day behind the one on which the
    sentence before it was said.
    """

    flies: tuple[str, str]
    flies_elsewhere: tuple[str, str]
    eats: str
    does_not_eat: str
    asks_for_flight: str
    asks_for_food: str


LANGUAGES = {
    "English": Language(
        ("I fly to Rome tomorrow.", "Flies to Rome on {}."),
        ("No, not to Rome: I fly to Oslo tomorrow.", "Flies to Oslo on {}."),
        "Eats meat.",
        "Does not eat meat.",
        "flight to Oslo",
        "meat",
    ),
    "German": Language(
        ("Morgen fliege ich nach Rom.", "Fliegt am {} nach Rom."),
        ("Nein, nicht nach Rom: morgen fliege ich nach Köln.", "Fliegt am {} nach Köln."),
        "Isst Fleisch.",
        "Isst kein Fleisch.",
        "Flug nach Koln",
        "Fleisch",
    ),
    "Italian": Language(
        ("Domani volo a Roma.", "Vola a Roma il {}."),
        ("No, non a Roma: domani volo a Bari.", "Vola a Bari il {}."),
        "Mangia carne.",
        "Non mangia carne.",
        "volo per Bari",
        "carne",
    ),
    "Dutch": Language(
        ("Morgen vlieg ik naar Rome.", "Vliegt op {} naar Rome."),
        ("Nee, niet naar Rome: morgen vlieg ik naar Wenen.", "Vliegt op {} naar Wenen."),
        "Eet vlees.",
        "Eet geen vlees.",
        "vlucht naar Wenen",
        "vlees",
    ),
    "Russian": Language(
        ("Завтра я лечу в Рим.", "Летит в Рим {}."),
        ("Нет, не в Рим: завтра я лечу в Баку.", "Летит в Баку {}."),
        "Ест мясо.",
        "Не ест мясо.",
        "рейс в Баку",
        "мясо",
    ),
    "Arabic": Language(
        ("أسافر غدًا إلى روما.", "يسافر إلى روما في {}."),
        ("لا، ليس إلى روما: أسافر غدًا إلى دبي.", "يسافر إلى دُبَيّ في {}."),
        "يأكل اللحم.",
        "لا يأكل اللحم.",
        "رحلة دبي",
        "لَحْم",
    ),
    "Hebrew": Language(
        ("אני טס מחר לרומא.", "טס לרומא ב-{}."),
        ("לא, לא לרומא: אני טס מחר לפריז.", "טס לפריז ב-{}."),
        "אוכל בָּשָׂר.",
        "לא אוכל בָּשָׂר.",
        "טיסה לפריז",
        "בשר",
    ),
    "Hindi": Language(
        ("मैं कल रोम जा रहा हूँ।", "{} को रोम जाएगा।"),
        ("नहीं, रोम नहीं: मैं कल पुणे जा रहा हूँ।", "{} को पुणे जाएगा।"),
        "मांस खाता है।",
        "मांस नहीं खाता है।",
        "पुणे कब?",
        "मांस",
    ),
    "Japanese": Language(
        ("明日ローマへ行きます。", "{}にローマへ行く。"),
        ("いいえ、ローマではなく、明日津へ行きます。", "{}に津へ行く。"),
        "肉を食べる。",
        "肉を食べない。",
        "津",
        "肉",
    ),
    "Thai": Language(
        ("พรุ่งนี้ฉันบินไปโรม", "บินไปโรมวันที่ {}"),
        ("ไม่ใช่โรม พรุ่งนี้ฉันบินไปตาก", "บินไปตากวันที่ {}"),
        "กินปู",
        "ไม่กินปู",
        "ตาก",
        "ปู",
    ),
}


@dataclass(slots=True)
class KnowingModel(StatementModel):
    """Extracts the fact of each sentence that it knows, by namespace. An obedient one puts the date into it; one that
    is not repeats the sentence.
    """

    known: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    is_obedient: bool = True

    def _record_facts(self, text: str) -> dict[str, Any]:
        namespace = json.loads(element(text, "namespace"))["name"]
        return {"records": [self._fact(line, said) for line, said in self._lines(text) if self._of(said) == namespace]}

    def _lines(self, text: str) -> list[tuple[dict[str, Any], str]]:
        lines = map(json.loads, element(text, "conversation").splitlines())
        return [(line, entry["user"]) for line in lines for entry in line["said"] if "user" in entry]

    def _of(self, said: str) -> str:
        return self.known[said][0]

    def _fact(self, line: Mapping[str, Any], said: str) -> dict[str, str]:
        namespace, fact = self.known[said]
        day = date.fromisoformat(line["at"].split()[0]) + timedelta(days=1)
        text = fact.format(day) if self.is_obedient else said
        return {"key": namespace, "text": text, "eventId": line["event"]}


@pytest.fixture(params=[True, False], ids=["obedient", "disobedient"])
def is_obedient(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.parametrize("name", LANGUAGES)
def test_what_was_said_is_remembered_merged_found_and_shown_with_its_day(
    memory: StoredMemory, monkeypatch: pytest.MonkeyPatch, name: str, is_obedient: bool
) -> None:
    language = LANGUAGES[name]
    known = {said: ("travel", fact) for said, fact in (language.flies, language.flies_elsewhere)}
    known |= {said: ("food", said) for said in (language.eats, language.does_not_eat)}
    model = KnowingModel(known=known, is_obedient=is_obedient)
    monkeypatch.setattr("turnwright.models.model_calls.converse", model.converse)
    memory.configure(namespaces=NAMESPACES)

    memory.say(language.flies[0], language.eats)
    memory.consolidate(memory.end())
    memory.stored.clock.ms += 2 * DAY_MS
    memory.say(language.flies_elsewhere[0], language.does_not_eat, session="s-2")
    memory.consolidate(memory.end("s-2"))

    flight, former = language.flies_elsewhere[0], language.flies[0]
    if is_obedient:
        flight, former = language.flies_elsewhere[1].format("2026-09-24"), language.flies[1].format("2026-09-22")
    (travel,) = memory.records("travel")
    assert (travel.text, travel.provenance.replaced[-1]["text"]) == (flight, former)
    assert memory.texts("food") == sorted([language.eats, language.does_not_eat])

    if is_obedient:
        assert Compared(memory.records()).rank(language.asks_for_flight)[0][0].text == flight
    found = [record.text for record, score in Compared(memory.records()).rank(language.asks_for_food) if score > 0]
    assert {*found[:2]} == {language.eats, language.does_not_eat}

    memory.stored.clock.ms += 30 * DAY_MS
    turn = memory.stored.begin("f" * 32, words="?", session="s-3")
    injected = memory.stored.header(turn.turnId).injected
    assert injected is not None
    shown = memory.stored.documents.fetch(injected)
    assert "Now it is 2026-10-23 Friday 14:13 UTC." in shown
    assert json.loads(element(shown, "memory"))["facts"] == {
        "travel": [{"fact": flight, "saidOn": "2026-09-23"}],
        "food": [
            {"fact": language.does_not_eat, "saidOn": "2026-09-23"},
            {"fact": language.eats, "saidOn": "2026-09-21"},
        ],
    }


def test_extraction_and_summary_are_told_the_moment_of_each_message_and_to_write_dates(memory: StoredMemory) -> None:
    memory.say("currency: USD")
    memory.stored.clock.ms += 20 * 60_000
    memory.say("project: Phoenix")
    memory.consolidate(memory.end())

    assert [name for name, _ in memory.model.asked] == ["record_facts", "record_facts", "summarize_session"]
    for _, text in memory.model.asked:
        moments = [json.loads(line)["at"] for line in element(text, "conversation").splitlines()]
        assert moments == ["2026-09-21 Monday 14:13 UTC", "2026-09-21 Monday 14:33 UTC"]
        assert "Write no time that counts from the day on which it was said" in text


def test_a_merging_model_is_told_when_facts_and_records_were_said(memory: StoredMemory) -> None:
    memory.configure(namespaces=[{"name": "projects", "mergeRule": "MODEL"}], enabledMemoryTypes=[])
    memory.say("project: Phoenix")
    memory.consolidate(memory.end())
    memory.stored.clock.ms += DAY_MS
    memory.say("project: Hydra", session="s-2")
    memory.consolidate(memory.end("s-2"))

    asked = [text for name, text in memory.model.asked if name == "merge_records"][-1]
    assert json.loads(element(asked, "facts"))[0]["saidAt"] == "2026-09-22 Tuesday 14:13 UTC"
    assert json.loads(element(asked, "records"))[0]["saidAt"] == "2026-09-21 Monday 14:13 UTC"
    assert 'counted from the "saidAt" of what says it' in asked
