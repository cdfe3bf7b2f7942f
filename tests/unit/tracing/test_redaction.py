import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwright.tracing.redaction import MASK, BrokenPattern, Redaction, split_list

SECRET = 'pä"ss\n😀\\wörd'
REDACTION = Redaction.of(["password", "cardNumber"], ['pä"ss\\n.\\\\wörd', r"\b\d{3}-\d{2}-\d{4}\b", r"\b\d{16}\b"])


def spelled(levels: int, *, ascii_only: bool) -> str:
    """The secret in a text that is JSON in JSON in ..., each level escaped once more."""
    text = SECRET
    for _ in range(levels):
        text = json.dumps(text, ensure_ascii=ascii_only)
    return text


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("levels", range(5))
@pytest.mark.parametrize("around", ["{}", "the tool said {} at 14:03", '{{"a": {}, cut', "[{}", "Error: {{'x': {}}}"])
def test_a_secret_is_found_however_often_json_has_escaped_it(around: str, levels: int, *, ascii_only: bool) -> None:
    text = around.format(spelled(levels, ascii_only=ascii_only))

    redacted = REDACTION.text(text)

    assert MASK in redacted
    assert "rd" not in redacted.replace("word", "")
    assert "😀" not in redacted
    assert "ud83d" not in redacted
    left, _, right = redacted.partition(MASK)
    assert (text.startswith(left), text.endswith(right)) == (True, True), "nothing else is changed"


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ('{"password": "hunter2", "user": "ann"}', f'{{"password":"{MASK}","user":"ann"}}'),
        ('{"a": [{"PassWord": {"old": 1, "new": 2}}]}', f'{{"a":[{{"PassWord":"{MASK}"}}]}}'),
        ('{"card_number": 12, "x": 1}', f'{{"card_number":"{MASK}","x":1}}'),
        (
            '{"parameters": [{"name": "cardNumber", "type": "string", "value": "12"}]}',
            f'{{"parameters":[{{"name":"cardNumber","type":"string","value":"{MASK}"}}]}}',
        ),
        ('{"body": "{\\"password\\": \\"hun\\\\\\"ter2\\"}"}', f'{{"body":"{{\\"password\\":\\"{MASK}\\"}}"}}'),
        ('it said {"password": "hun\\"ter2", "x": 1} twice', f'it said {{"password": "{MASK}", "x": 1}} twice'),
        ('it said {\\"password\\": \\"hun\\\\\\"ter2\\"}', f'it said {{\\"password\\": \\"{MASK}\\"}}'),
        ('[cut] "password": {"old": "hunter2", "ne', f'[cut] "password": {MASK}'),
        ('"password": ["hunter2", "x"], "y": 1', f'"password": {MASK}, "y": 1'),
        ("{'password': 'hunter2', 'x': 1}", f"{{'password': '{MASK}', 'x': 1}}"),
        ("password=hunter2&x=1", f"password={MASK}&x=1"),
        ("Password: hunter2", f"Password: {MASK}"),
        ('{"password": "hunter2', f'{{"password": "{MASK}'),
        ("the password is what you know; my_password_hint=cat", "the password is what you know; my_password_hint=cat"),
        ('{"ssn": "123-45-6789"}', f'{{"ssn":"{MASK}"}}'),
        ('{"card": 4111111111111111}', f'{{"card":"{MASK}"}}'),
        ('{"123-45-6789": 1}', f'{{"{MASK}":1}}'),
        ("123-45-6789123-45-6789, 123-45-6789", f"123-45-6789123-45-6789, {MASK}"),
        ('{"amount":  5.0}', '{"amount":  5.0}'),
        ("", ""),
    ],
)
def test_named_fields_and_patterns_are_taken_out_and_nothing_else_is_changed(text: str, redacted: str) -> None:
    assert REDACTION.text(text) == redacted


def test_values_are_redacted_at_any_depth_and_their_types_kept() -> None:
    value = {"a": [1, True, None, 1.5, {"password": ["x"]}, f"say {SECRET}"], "n": 4111111111111111}
    assert REDACTION.value(value) == {"a": [1, True, None, 1.5, {"password": MASK}, f"say {MASK}"], "n": MASK}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.just(SECRET),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.just("password"), inner, max_size=3),
    max_leaves=8,
)


@given(json_values, st.integers(0, 3), st.booleans())
def test_no_text_that_holds_json_keeps_a_secret_and_a_second_time_changes_nothing(
    value: Any, levels: int, ascii_only: bool
) -> None:
    text = json.dumps({"said": value, "by": SECRET}, ensure_ascii=ascii_only)
    for _ in range(levels):
        text = json.dumps(text, ensure_ascii=ascii_only)

    redacted = REDACTION.text(text)

    assert "wörd" not in redacted
    assert "w\\u00f6rd" not in redacted
    assert REDACTION.text(redacted) == redacted


@given(st.text(alphabet='\\u"{}[]ad8c0df,:password \n'))
def test_any_text_can_be_redacted(text: str) -> None:
    assert isinstance(REDACTION.text(text), str)


def test_deeply_nested_json_is_searched_as_text() -> None:
    assert "wörd" not in REDACTION.text("[" * 100_000 + SECRET)


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("", []),
        ("a, b ,,c", ["a", "b", "c"]),
        (r"\d{2,3}, [,;]x, (a,b)", [r"\d{2,3}", "[,;]x", "(a,b)"]),
        (r"a\,b,c", [r"a\,b", "c"]),
        (r"\(a,b\)", [r"\(a", r"b\)"]),
        ("a),b", ["a)", "b"]),
    ],
)
def test_commas_in_brackets_do_not_separate_patterns(text: str, entries: list[str]) -> None:
    assert split_list(text) == entries


@pytest.mark.parametrize(("pattern", "said"), [("(", "is not a regular expression"), ("a*", "matches an empty text")])
def test_a_pattern_that_cannot_be_used_is_refused(pattern: str, said: str) -> None:
    with pytest.raises(BrokenPattern, match=said):
        Redaction.of([], [pattern])


def test_without_fields_no_value_is_taken_out_by_name() -> None:
    assert Redaction.of([], ["x{3}"]).text("password: xxx, : y") == f"password: {MASK}, : y"
