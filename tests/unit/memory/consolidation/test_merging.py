from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwright.agents.memory_configuration import MergeRule, Namespace
from turnwright.memory.consolidation.extraction import Fact
from turnwright.memory.consolidation.merging import Change, Merge, Target, embedded
from turnwright.memory.records.nearness import normalized
from turnwright.memory.records.records import MOST_REPLACED, Provenance, Record
from turnwright.memory.session_ends.consolidations import Consolidation, Kind
from turnwright.storage.clock import expiry

NOW = 1_790_000_000_000
EVERYONE = frozenset("*")
WORK = Consolidation("c" * 32, Kind.SESSION_END, "store", "user-1", "s-1", "", "9", "BANK", "1", "epoch")


def namespace(rule: MergeRule, max_records: int = 200) -> Namespace:
    return Namespace("n", "/n/{actorId}/", "", rule, "", 30, max_records, EVERYONE, EVERYONE, None)


def target(rule: MergeRule, *, max_records: int = 200, work: Consolidation = WORK, now: int = NOW) -> Target:
    return Target(work, namespace(rule, max_records), "version", now)


def merged(into: Target, existing: Sequence[Record], facts: Sequence[Fact]) -> tuple[list[Change], list[Record]]:
    """The changes, and the records as they are after them."""
    merge = Merge(into, existing)
    merge.add(facts)
    changes = merge.changes()
    after = {record.record_id: record for record in existing}
    for change in changes:
        if change.after is None:
            del after[change.record.record_id]
        else:
            assert change.before == after.get(change.record.record_id)
            after[change.record.record_id] = change.after
    return changes, list(after.values())


def record(text: str, key: str = "", *, said_at: int = 0, updated_at: int = 0, number: int = 0) -> Record:
    return Record(
        "store",
        "user-1",
        "/n/user-1/",
        f"mem-{key}-{text}-{number}",
        text,
        Provenance("TOOL", session_id="before", turn_id="turn-0"),
        key=key,
        timestamp=said_at,
        updated_at=updated_at,
        created_at=updated_at,
        expires_at=1,
    )


def facts(*given: tuple[str, str], said_at: int = 5) -> list[Fact]:
    return [Fact(text, key, f"event-{n}", f"turn-{n}", said_at + n, f"0.{n}") for n, (key, text) in enumerate(given)]


texts = st.sampled_from(["USD", "usd.", "EUR", "GBP", "the euro", "euros", "5 EUR", "6 EUR", "not EUR"])
names = st.sampled_from(["currency", "Currency", "risk", "home-town", "home town"])
some_facts = st.lists(st.tuples(names, texts), max_size=12).map(lambda given: facts(*given))
rules = st.sampled_from([MergeRule.REPLACE, MergeRule.KEEP_FIRST, MergeRule.APPEND])


# ---- Every rule ----


@given(rules, some_facts, some_facts)
def test_merging_the_same_facts_again_adds_nothing_and_changes_no_text(
    rule: MergeRule, before: list[Fact], again: list[Fact]
) -> None:
    _, existing = merged(target(rule), [], before)
    other = replace(WORK, consolidationId="d" * 32)
    _, once = merged(target(rule, work=other), existing, again)
    changes, twice = merged(target(rule, work=other), once, again)
    assert {r.record_id: r.text for r in twice} == {r.record_id: r.text for r in once}
    assert all(change.before and change.after for change in changes)


@given(rules, some_facts)
def test_the_same_merge_makes_the_same_records(rule: MergeRule, given_facts: list[Fact]) -> None:
    assert merged(target(rule), [], given_facts) == merged(target(rule), [], given_facts)


@given(rules, some_facts, st.integers(min_value=1, max_value=4))
def test_a_namespace_never_has_more_than_its_most_records(rule: MergeRule, given_facts: list[Fact], most: int) -> None:
    existing = [record(f"old {n}", f"old{n}", updated_at=n, number=n) for n in range(6)]
    _, after = merged(target(rule, max_records=most), existing, given_facts)
    assert len(after) <= most


@given(rules, some_facts)
def test_a_change_survives_its_journal(rule: MergeRule, given_facts: list[Fact]) -> None:
    existing = [record("USD", "currency"), record("old", "old")]
    changes, _ = merged(target(rule, max_records=2), existing, given_facts)
    import json

    assert [Change.decode(json.loads(json.dumps(change.encode()))) for change in changes] == changes


def test_the_records_that_were_not_written_for_longest_go() -> None:
    existing = [record("a", updated_at=3), record("b", updated_at=1), record("c", updated_at=2)]
    changes, after = merged(target(MergeRule.APPEND, max_records=2), existing, facts(("", "d")))
    assert sorted(r.text for r in after) == ["a", "d"]
    assert [change.record.text for change in changes if change.after is None] == ["b", "c"]


def test_what_is_said_again_is_written_again_and_so_stays() -> None:
    existing = [record("a", updated_at=1), record("b", updated_at=2)]
    _, after = merged(target(MergeRule.APPEND, max_records=2), existing, facts(("", "A."), ("", "c")))
    assert sorted(r.text for r in after) == ["a", "c"]
    renewed = next(r for r in after if r.text == "a")
    assert (renewed.expires_at, renewed.timestamp) == (expiry(NOW, 30), 5)
    assert renewed.provenance == existing[0].provenance


# ---- REPLACE ----


@given(some_facts)
def test_replace_has_one_record_a_key_with_what_was_said_last(given_facts: list[Fact]) -> None:
    _, after = merged(target(MergeRule.REPLACE), [], given_facts)
    latest = {fact.key.casefold().replace("-", " "): fact.text for fact in given_facts}
    assert {r.key.casefold().replace("-", " "): r.text for r in after} == latest
    assert len(after) == len(latest)


@given(st.lists(st.tuples(st.just("k"), texts), min_size=1, max_size=6, unique=True), st.randoms())
def test_replace_comes_to_the_same_in_whatever_order_sessions_are_consolidated(
    given_facts: list[tuple[str, str]], order: object
) -> None:
    sessions = [[fact] for fact in facts(*given_facts)]
    shuffled = list(enumerate(sessions))
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    existing: list[Record] = []
    for number, session in shuffled:
        work = replace(WORK, consolidationId=f"{number:032d}")
        _, existing = merged(target(MergeRule.REPLACE, work=work), existing, session)
    (only,) = existing
    assert normalized(only.text) == normalized(sessions[-1][0].text)


def test_a_replaced_text_is_kept_with_where_it_came_from_the_latest_last_and_only_some() -> None:
    existing = [record("0", "k")]
    for number in range(1, MOST_REPLACED + 3):
        work = replace(WORK, consolidationId=f"{number:032d}", sessionId=f"s-{number}")
        _, existing = merged(target(MergeRule.REPLACE, work=work), existing, facts(("K", str(number)), said_at=number))
    (only,) = existing
    assert [former["text"] for former in only.provenance.replaced] == ["2", "3", "4", "5", "6"]
    assert only.provenance.replaced[-1] == {"text": "6", "sessionId": "s-6", "turnId": "turn-0", "at": 6}
    assert only.record_id == "mem-k-0-0"


DIFFERENT_KEYS = [
    ("skill_c++", "skill_c#"),
    ("skill_c++", "skill_c"),
    ("blood_type_a+", "blood_type_a-"),
    ("framework_.net", "framework_net"),
    ("-5", "5"),
    ("budget_$", "budget_€"),
    ("share_50%", "share_50"),
    ("दिन", "दान"),
    ("ปี", "ปู"),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT_KEYS)
def test_a_fact_of_another_key_replaces_nothing(one: str, other: str) -> None:
    for first, second in ((one, other), (other, one)):
        _, after = merged(target(MergeRule.REPLACE), [record("old", first)], facts((second, "new")))
        assert [r.text for r in after] == ["old", "new"]
        _, both = merged(target(MergeRule.REPLACE), [], facts((first, "a"), (second, "b")))
        assert [r.text for r in both] == ["a", "b"]


def test_a_record_without_a_key_that_says_the_same_gets_the_key() -> None:
    changes, after = merged(
        target(MergeRule.REPLACE), [record("Reports in USD")], facts(("currency", "reports in USD."))
    )
    assert [(r.key, r.text) for r in after] == [("currency", "Reports in USD")]
    assert len(changes) == 1


def test_a_changed_text_loses_its_embedding_and_what_is_written_gets_one() -> None:
    old = replace(record("USD", "currency"), embedding=(1.0,), embedding_model="m")
    changes, _ = merged(target(MergeRule.REPLACE), [old], facts(("currency", "EUR"), ("risk", "low")))
    assert [change.record.embedding for change in changes] == [None, None]
    made = embedded(changes, {"EUR": (0.5,), "low": (0.2,)}, "m")
    assert [(c.record.text, c.record.embedding, c.record.embedding_model) for c in made] == [
        ("EUR", (0.5,), "m"),
        ("low", (0.2,), "m"),
    ]


# ---- KEEP_FIRST ----


@given(some_facts)
def test_keep_first_has_one_record_a_key_with_what_was_said_first(given_facts: list[Fact]) -> None:
    _, after = merged(target(MergeRule.KEEP_FIRST), [], given_facts)
    first = {fact.key.casefold().replace("-", " "): fact.text for fact in reversed(given_facts)}
    assert {r.key.casefold().replace("-", " "): r.text for r in after} == first


def test_keep_first_writes_nothing_for_a_key_that_is_known() -> None:
    changes, _ = merged(target(MergeRule.KEEP_FIRST), [record("USD", "currency")], facts(("Currency", "EUR")))
    assert changes == []


# ---- APPEND ----


@given(some_facts)
def test_append_loses_no_fact_and_says_none_twice(given_facts: list[Fact]) -> None:
    _, after = merged(target(MergeRule.APPEND), [], given_facts)
    for fact in given_facts:
        assert sum(normalized(fact.text) == normalized(r.text) for r in after) == 1


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ("The user eats meat.", "The user does not eat meat."),
        ("Der Nutzer isst Fleisch.", "Der Nutzer isst kein Fleisch."),
        ("Der Nutzer fliegt gern.", "Der Nutzer fliegt nicht gern."),
        ("L'utente mangia carne.", "L'utente non mangia carne."),
        ("Пользователь ест мясо.", "Пользователь не ест мясо."),
        ("المستخدم يأكل اللحم.", "المستخدم لا يأكل اللحم."),
        ("De gebruiker eet vlees.", "De gebruiker eet geen vlees."),
        ("利用者は肉を食べる。", "利用者は肉を食べない。"),
        ("उपयोगकर्ता मांस खाता है।", "उपयोगकर्ता मांस नहीं खाता है।"),
        ("Käyttäjä syö lihaa.", "Käyttäjä ei syö lihaa."),
        ("Kullanıcı et yer.", "Kullanıcı et yemez."),
        ("The user likes coffee.", "The user dislikes coffee."),
        ("The user has hepatitis.", "The user has hepatitis A."),
        ("The user is a teacher.", "The user was a teacher."),
        ("The user drinks in Maßen.", "The user drinks in Massen."),
        ("The user likes Apple.", "The user likes apple."),
        ("The room has 5 m².", "The room has 5 m2."),
    ],
)
def test_append_takes_nothing_for_known_that_says_something_else_whatever_the_language(known: str, said: str) -> None:
    into = target(MergeRule.APPEND)
    for first, second in ((known, said), (said, known)):
        _, after = merged(into, [record(first)], facts(("", second)))
        assert [r.text for r in after] == [first, second]


def test_a_fact_whose_record_is_there_changed_by_somebody_is_not_added_again() -> None:
    (change,), (written,) = merged(target(MergeRule.APPEND), [], facts(("", "a")))
    changes, after = merged(target(MergeRule.APPEND), [replace(written, text="corrected")], facts(("", "a")))
    assert changes == []
    assert [r.text for r in after] == ["corrected"]
    assert change.before is None
