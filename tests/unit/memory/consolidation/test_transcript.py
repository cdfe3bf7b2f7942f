import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwright.memory.consolidation.transcript import (
    CHUNK_CHARACTERS,
    MOST_EXTRACTIONS,
    Chunk,
    Event,
    bound_for,
    chunks,
    text,
)

lengths = st.lists(st.integers(min_value=0, max_value=300), max_size=40)


def sized(numbers: list[int]) -> list[tuple[str, int]]:
    return [(f"{place:016d}#aaaaaaaa", length) for place, length in enumerate(numbers)]


@given(lengths, st.integers(min_value=10, max_value=400), st.integers(min_value=-1, max_value=40))
def test_chunks_hold_every_event_once_in_order_within_the_bound_and_on_one_side_of_the_border(
    numbers: list[int], bound: int, border: int
) -> None:
    events = sized(numbers)
    digested_to = f"{border:016d}#aaaaaaaa" if border >= 0 else ""
    cut = chunks(events, bound, digested_to)
    assert [chunk.number for chunk in cut] == list(range(len(cut)))
    covered: list[str] = []
    for chunk in cut:
        inside = [(event, length) for event, length in events if chunk.first <= event <= chunk.last]
        if chunk.characters:
            (only,) = inside
            assert only[1] > bound == chunk.characters
            if chunk.start == 0:
                covered.append(only[0])
        else:
            assert sum(length for _, length in inside) <= bound
            covered += [event for event, _ in inside]
        assert len({event <= digested_to for event, _ in inside}) == 1
    assert covered == [event for event, _ in events]


@given(lengths, st.integers(min_value=10, max_value=400))
def test_the_chunks_of_a_session_are_in_proportion_to_its_length(numbers: list[int], bound: int) -> None:
    most = sum(-(-length // (bound - bound // 10)) for length in numbers if length > bound)
    rest = sum(length for length in numbers if length <= bound)
    runs = 1 + sum(length > bound for length in numbers)
    assert len(chunks(sized(numbers), bound)) <= most + 2 * rest // bound + runs


@given(st.integers(min_value=0, max_value=10**9), st.integers(min_value=1, max_value=20))
def test_a_session_of_any_length_makes_a_bounded_number_of_extractions(characters: int, namespaces: int) -> None:
    bound = bound_for(characters, namespaces)
    assert bound >= CHUNK_CHARACTERS
    most_chunks = 2 * characters // bound + 1
    assert namespaces * most_chunks <= MOST_EXTRACTIONS + 3 * namespaces


def event(*messages: dict[str, Any]) -> Event:
    return Event("0000000000000001#aaaaaaaa", "turn", 1, messages)


def said(*words: str) -> Event:
    return event(*({"role": "user", "content": [{"text": word}]} for word in words))


def lines(events: list[Event], chunk: Chunk) -> list[Any]:
    return [json.loads(line) for line in text(events, chunk).splitlines()]


WHOLE = Chunk(0, "a", "b")


@given(st.text(max_size=60))
def test_nothing_that_was_said_ends_the_element_or_the_line_and_nothing_is_changed(words: str) -> None:
    told = text([said(words)], WHOLE)
    assert "<" not in told
    assert lines([said(words)], WHOLE) == (
        [{"event": "0000000000000001#aaaaaaaa", "at": "1970-01-01 Thursday 00:00 UTC", "said": [{"user": words}]}]
        if words.strip()
        else []
    )


def test_tool_calls_are_told_shortly_those_of_memory_not_at_all() -> None:
    calls = {
        "role": "assistant",
        "content": [
            {"toolUse": {"toolUseId": "1", "name": "balance", "input": {"account": "x" * 2_000}}},
            {"toolUse": {"toolUseId": "2", "name": "search_memory", "input": {"query": "secret"}}},
        ],
    }
    results = {
        "role": "user",
        "content": [
            {"toolResult": {"toolUseId": "1", "status": "success", "content": [{"text": "5 USD"}]}},
            {"toolResult": {"toolUseId": "2", "status": "success", "content": [{"text": "secret"}]}},
            {"image": {"format": "png"}},
        ],
    }
    told = text([event(calls, results)], WHOLE, ["search_memory"])
    line = json.loads(told)
    called, result = line["said"]
    assert called["called"].startswith('balance {"account": "xxx')
    assert len(called["called"]) == 1_002
    assert result == {"result": "5 USD"}


def test_each_line_says_on_which_day_of_the_week_and_when_it_was_said() -> None:
    events = [replace(said("Tomorrow."), at=at) for at in (1_772_460_300_000, 1_772_495_999_999)]
    moments = ["2026-03-02 Monday 14:05 UTC", "2026-03-02 Monday 23:59 UTC"]
    assert [line["at"] for line in lines(events, WHOLE)] == moments
    assert [line["at"] for line in lines(events[:1], Chunk(0, "a", "a", 2, 5))] == moments[:1]


@pytest.mark.parametrize("length", [1, 99, 100, 101, 350])
def test_the_parts_of_a_long_event_are_all_of_it_and_overlap(length: int) -> None:
    words = "".join(chr(0x4E00 + place) for place in range(length))
    whole = event(
        {"role": "user", "content": [{"text": words[: length // 2]}]},
        {"role": "assistant", "content": [{"text": words[length // 2 :]}]},
    )
    parts: list[str] = []
    for chunk in chunks([("a", length)], 100):
        entries = [entry for line in lines([whole], chunk) for entry in line["said"]]
        parts.append("".join(part for entry in entries for part in entry.values()))
    joined = parts[0]
    for former, part in pairwise(parts):
        assert former.endswith(part[:10]) or len(part) < 10
        joined += part[10:]
    assert joined == words


def test_a_chunk_in_which_nothing_was_said_has_no_text() -> None:
    assert text([event()], WHOLE) == ""
    assert text([said("hello")], Chunk(1, "a", "a", start=100, characters=100)) == ""
