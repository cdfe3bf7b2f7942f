import json
from typing import Any

import pytest
from botocore.eventstream import ParserError
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.samples import messages_of
from turnwright.api import event_stream

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(names, st.text(max_size=300), max_size=6), st.binary(max_size=5_000))
def test_botocore_reads_any_frame_back(headers: dict[str, str], payload: bytes) -> None:
    assert messages_of(event_stream.frame(headers, payload)) == [(headers, payload)]


@given(st.lists(st.tuples(st.dictionaries(names, st.text(), max_size=3), st.binary()), max_size=5))
def test_frames_follow_each_other_without_anything_between(frames: list[tuple[dict[str, str], bytes]]) -> None:
    assert messages_of(b"".join(event_stream.frame(*frame) for frame in frames)) == frames


@given(st.dictionaries(st.text(), json_values))
def test_an_event_has_its_name_and_its_body_as_json(body: dict[str, Any]) -> None:
    ((headers, payload),) = messages_of(event_stream.event("trace", body))

    assert headers == {":message-type": "event", ":event-type": "trace", ":content-type": "application/json"}
    assert json.loads(payload) == body


def test_an_exception_has_its_name_and_its_body_as_json() -> None:
    ((headers, payload),) = messages_of(event_stream.exception("throttlingException", {"message": "später – 😀"}))

    assert headers == {
        ":message-type": "exception",
        ":exception-type": "throttlingException",
        ":content-type": "application/json",
    }
    assert json.loads(payload) == {"message": "später – 😀"}


def test_the_longest_header_that_the_encoding_has_is_read_back() -> None:
    headers = {"n" * 255: "v" * 32_767}

    assert messages_of(event_stream.frame(headers, b"")) == [(headers, b"")]


def test_a_frame_of_many_megabytes_is_read_back() -> None:
    payload = b"0123456789abcdef" * (1024 * 1024)

    assert messages_of(event_stream.frame({}, payload)) == [({}, payload)]


@pytest.mark.parametrize("changed", [0, 5, 9, 14, -5, -1])
def test_a_frame_in_which_a_byte_changed_is_not_taken(changed: int) -> None:
    frame = bytearray(event_stream.event("chunk", {"bytes": "aGVsbG8="}))
    frame[changed] ^= 1

    try:
        read = messages_of(bytes(frame))
    except ParserError:
        read = []  # nothing is read either when the length says that more is to come

    assert read == []
