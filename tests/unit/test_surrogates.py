import json

from hypothesis import given
from hypothesis import strategies as st

from turnwright.surrogates import mended, mended_json


def test_two_halves_that_meet_become_one_character() -> None:
    assert mended("good \ud83d" + "\ude00 day") == "good 😀 day"


def test_a_half_without_its_partner_becomes_the_replacement_character() -> None:
    assert mended("a\ud83d") == "a\ufffd"
    assert mended("\ude00\ud83d") == "\ufffd\ufffd"


def test_every_text_of_a_json_value_is_mended_keys_too() -> None:
    value = json.loads(r'{"\ud83d": ["\ude00", 1, null, true, {"k": "ok"}]}')

    assert mended_json(value) == {"\ufffd": ["\ufffd", 1, None, True, {"k": "ok"}]}


@given(st.text())
def test_a_text_that_utf8_can_hold_is_left_as_it_is(text: str) -> None:
    assert mended(text) == text


@given(st.text(st.characters(categories=["Cs", "L", "So"])))
def test_whatever_was_there_the_result_can_be_written_as_utf8(text: str) -> None:
    assert mended(text).encode().decode() == mended(text)
