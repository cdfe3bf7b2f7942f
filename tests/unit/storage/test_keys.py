import re
from itertools import combinations, product
from urllib.parse import unquote

from hypothesis import example, given
from hypothesis import strategies as st

from turnwright.storage import keys
from turnwright.storage.keys import Key, SessionId

IDENTIFIERS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.text("#/%.~-:\0 a", max_size=6)
NAMES = st.lists(IDENTIFIERS, min_size=2, max_size=4, unique=True)
STEPS = st.integers(1, 999)


def every_key(first: str, second: str, third: str) -> dict[str, Key]:
    """One key of each kind, made of the same identifiers."""
    session_id = SessionId(first, second, third)
    return {
        "turn header": keys.turn_header(first),
        "journal step": keys.journal_step(first, 1),
        "call record": keys.call_record(first, 1, 0),
        "trace event": keys.trace_event(first, 1, "1"),
        "session": keys.session(session_id),
        "session event": keys.session_event(session_id, "0000000000000001#aaaaaaaa"),
        "breaker": keys.breaker(first, second),
        "agent draft": keys.agent_draft(first),
        "agent version": keys.agent_version(first, second),
        "agent alias": keys.agent_alias(first, second),
        "listed agent": keys.listed_agent(first),
    }


@given(IDENTIFIERS, IDENTIFIERS, IDENTIFIERS)
def test_no_two_kinds_of_item_share_a_key(first: str, second: str, third: str) -> None:
    found = every_key(first, second, third)

    assert len(set(found.values())) == len(found)


@given(NAMES)
@example(["a#b", "a", "b"])
@example(["a", "a#"])
@example(["%23", "#"])
def test_different_identifiers_never_make_one_session(names: list[str]) -> None:
    sessions = [SessionId(*parts) for parts in product(names, repeat=3)]

    assert len({session.partition for session in sessions}) == len(sessions)
    assert len({keys.session_object(session, "digest") for session in sessions}) == len(sessions)


@given(NAMES)
def test_different_turns_share_neither_partition_nor_object(names: list[str]) -> None:
    assert len({keys.turn_partition(name) for name in names}) == len(names)
    assert len({keys.turn_object(name, "digest") for name in names}) == len(names)


@given(NAMES)
def test_different_agents_versions_and_aliases_have_different_keys(names: list[str]) -> None:
    pairs = list(product(names, repeat=2))

    assert len({keys.agent_draft(name) for name in names}) == len(names)
    assert len({keys.listed_agent(name) for name in names}) == len(names)
    assert len({keys.breaker(*pair) for pair in pairs}) == len(pairs)
    assert len({keys.agent_version(*pair) for pair in pairs}) == len(pairs)
    assert len({keys.agent_alias(*pair) for pair in pairs}) == len(pairs)


@given(IDENTIFIERS, IDENTIFIERS, IDENTIFIERS)
@example("..", "..", "..")
@example(".", "a/..", "/")
def test_no_identifier_walks_out_of_its_folder_of_the_bucket(first: str, second: str, third: str) -> None:
    """Clients, proxies and servers resolve the segments `.` and `..` of a path, which S3 object names become."""
    name = keys.session_object(SessionId(first, second, third), "digest")
    segments = name.split("/")

    assert [unquote(segment) for segment in segments] == ["sessions", first, second, third, "digest.json"]
    assert not {".", ".."} & set(segments)
    assert len(keys.turn_object(first, "digest").split("/")) == 3
    assert not {".", ".."} & set(keys.turn_object(first, "digest").split("/"))


@given(IDENTIFIERS, IDENTIFIERS)
@example("a", "a/b")
@example("a", "a/..")
def test_no_object_lies_in_the_folder_of_another_turn_or_session(first: str, second: str) -> None:
    for one, other in combinations([(first, second), (second, first)], 2):
        if one == other:
            continue
        folder = keys.session_object(SessionId("store", *one), "").removesuffix(".json")
        assert not keys.session_object(SessionId("store", *other), "digest").startswith(folder)
        if first != second:
            folder = keys.turn_object(first, "").removesuffix(".json")
            assert not keys.turn_object(second, "digest").startswith(folder)


@given(STEPS, STEPS)
def test_steps_sort_as_they_are_numbered(one: int, other: int) -> None:
    assert (keys.journal_step("t", one) < keys.journal_step("t", other)) == (one < other)
    assert (keys.trace_event("t", one, "9") < keys.trace_event("t", other, "1")) == (one < other)


@given(st.sets(st.tuples(STEPS, st.integers(0, 999)), min_size=2, max_size=5))
@example({(1, 2), (1, 3)})
@example({(1, 2), (2, 2)})
@example({(1, 12), (11, 2)})
def test_every_call_of_a_turn_has_a_record_of_its_own(calls: set[tuple[int, int]]) -> None:
    assert len({keys.call_record("t", *call) for call in calls}) == len(calls)


@given(STEPS, IDENTIFIERS, IDENTIFIERS, IDENTIFIERS)
def test_the_journals_range_holds_nothing_but_the_journal(step: int, first: str, second: str, third: str) -> None:
    low, high = keys.JOURNAL_PREFIX, keys.JOURNAL_PREFIX + "~"

    assert low <= keys.journal_step(first, step).sk <= high
    inside = {kind for kind, key in every_key(first, second, third).items() if low <= key.sk <= high}
    assert inside == {"journal step"}


@given(IDENTIFIERS, IDENTIFIERS, IDENTIFIERS, st.integers(0, 10**16 - 1))
def test_the_events_range_holds_nothing_but_events(first: str, second: str, third: str, at: int) -> None:
    low, high = keys.EVENT_PREFIX, keys.EVENT_PREFIX + "~"

    assert low <= keys.session_event(SessionId(first, second, third), f"{at:016d}#aaaaaaaa").sk <= high
    inside = {kind for kind, key in every_key(first, second, third).items() if low <= key.sk <= high}
    assert inside == {"session event"}


def test_no_memory_id_is_the_actor_of_sessions_without_one() -> None:
    """Bedrock's rule for a memoryId."""
    assert re.fullmatch(r"[0-9a-zA-Z._:-]{2,100}", keys.NO_ACTOR) is None
