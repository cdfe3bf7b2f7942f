import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.stored_turns import StoredTurns
from turnwright.storage.documents import ITEM_BYTES, Documents, json_text

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("aé€😀", max_size=3), inner, max_size=3),
    max_leaves=8,
)


class Objects:
    """As much of S3 as `Documents` uses."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, ContentType: str) -> None:  # noqa: N803 (S3's names)
        self.bodies[Key] = Body

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803
        content = self.bodies[Key]

        class Body:
            read: Callable[[], bytes] = staticmethod(lambda: content)

        return {"Body": Body}


def name(digest: str) -> str:
    return f"folder/{digest}"


@given(JSON, st.integers(0, 40))
def test_what_was_stowed_comes_back_as_it_was(value: object, bound: int) -> None:
    objects = Objects()
    documents = Documents(objects, "bucket")

    stowed = documents.stow(value, name, bound)

    assert documents.fetch(json.loads(json.dumps(stowed))) == value
    assert documents.fetch_text(json_text(stowed)) == value
    assert bool(objects.bodies) == (len(json_text(value).encode()) > bound) == ("object" in stowed)


@pytest.mark.parametrize(("letters", "is_inline"), [(6, True), (7, False)])
def test_the_bound_counts_bytes_of_json_and_not_characters(letters: int, is_inline: bool) -> None:
    """`€` has three bytes, and the quotation marks count."""
    stowed = Documents(Objects(), "bucket").stow("€" * letters, name, 20)

    assert ("inline" in stowed) == is_inline


def test_an_object_is_named_by_its_content_so_that_two_writers_that_differ_keep_both() -> None:
    objects = Objects()
    documents = Documents(objects, "bucket")

    first, second, again = (documents.stow(value, name, 0) for value in ("one", "two", "one"))

    assert first == again
    assert [documents.fetch(stowed) for stowed in (first, second)] == ["one", "two"]
    assert len(objects.bodies) == 2


@pytest.mark.parametrize("value", [None, False, 0, "", [], {}])
def test_a_value_that_is_nothing_is_told_from_a_reference(value: object) -> None:
    documents = Documents(Objects(), "bucket")

    assert documents.fetch(documents.stow(value, name, 100)) == value
    assert documents.fetch(documents.stow(value, name, 0)) == value


@pytest.mark.parametrize("value", [{"inline": 1}, {"object": "folder/x", "bytes": 1}])
def test_a_value_that_looks_like_a_reference_is_not_taken_for_one(value: object) -> None:
    documents = Documents(Objects(), "bucket")

    assert documents.fetch(documents.stow(value, name, 100)) == value
    assert documents.fetch(documents.stow(value, name, 0)) == value


def test_a_document_of_a_mebibyte_goes_to_the_bucket_and_comes_back_whole(stored: StoredTurns) -> None:
    value = "0123456789abcde€" * (64 * 1024)

    stowed = stored.documents.stow(value, name, ITEM_BYTES)

    assert stowed.keys() == {"object", "bytes"}
    assert stowed["bytes"] == len(value.encode()) + 2
    assert stored.documents.fetch(stowed) == value
    assert stored.dynamodb.made == []
