"""What redaction costs, counted in steps, and that what it does not look at is not shown."""

import json

import pytest

from local.bench.hostile_texts import hostile_texts
from turnwright.tracing.redaction import MASK, READ, STEPS, Redaction, Work

REDACTION = Redaction.of(["password", "pin"], [r"\b\d{16}\b"])
SECRET = "hunter2"


def steps(text: str) -> int:
    work = Work()
    REDACTION.text(text, work)
    return work.steps


@pytest.mark.parametrize("what", [what for what, _ in hostile_texts(1)])
def test_twice_the_text_is_at_most_twice_the_work(what: str) -> None:
    small, large = dict(hostile_texts(1_500)), dict(hostile_texts(3_000))
    if what in small and what in large:
        assert steps(large[what]) <= 2 * steps(small[what]) + 100


def test_the_work_of_any_text_is_bounded() -> None:
    for what, text in hostile_texts(2**20):
        work = Work()
        REDACTION.text(text, work)
        assert work.steps <= STEPS + 200, what
        assert work.unescaped <= 4 * READ, what


@pytest.mark.parametrize(
    "text",
    [
        f"password={SECRET}\n" * STEPS,
        "\\n" * STEPS + f"p\\u0061ssword={SECRET}",
        json.dumps([{"password": SECRET}] * STEPS),
        json.dumps([{"a": [SECRET, {"password": SECRET}]}] * (STEPS // 9) + [{"name": "password", "value": SECRET}]),
        json.dumps(["x"] * (STEPS - 10) + [json.dumps({"password": SECRET})]),
        "a\\\\\\\\\\\\\\\\b" + "y" * (READ - 100) + f" p\\\\\\\\u0061ssword={SECRET}",
        f"{4111111111111111} " * STEPS + f"password={SECRET}",
    ],
)
def test_what_the_work_does_not_suffice_for_is_not_shown(text: str) -> None:
    redacted = REDACTION.text(text)
    assert f"password={SECRET}" not in redacted
    assert f'"password":"{SECRET}"' not in redacted.replace(" ", "").replace("\\", "")
    assert "4111" not in redacted
    assert MASK in redacted


def test_of_a_value_that_is_too_large_the_rest_is_taken_out() -> None:
    redacted = REDACTION.value([1] * STEPS + [SECRET])
    assert redacted[:2] == [1, 1]
    assert redacted[-1] == MASK


def test_of_a_long_text_the_beginning_is_read_and_shown() -> None:
    text = "x" * READ + SECRET
    assert REDACTION.text(text) == f"{'x' * READ}\n[cut: {READ} of {len(text)} characters are shown]"
    assert REDACTION.text(text[:READ]) == text[:READ]


def test_a_secret_on_the_border_of_what_is_read_is_recognized() -> None:
    number = "4" * 16
    for before in range(READ - 17, READ + 1):
        assert (
            "4"
            not in REDACTION.text(f"{'x' * before} {number} {'y' * READ}").replace(str(READ), "").partition("[cut")[0]
        )


def test_values_that_are_too_deep_are_taken_out() -> None:
    value: object = "x"
    for _ in range(5_000):
        value = [value]
    assert REDACTION.value(value) == MASK
    deep = '{"a":' * 600 + f'{{"password":"{SECRET}"}}' + "}" * 600
    assert SECRET not in REDACTION.text(deep)


def test_a_value_does_not_hide_behind_another_of_its_name() -> None:
    assert SECRET not in REDACTION.text(f'{{"password":"{SECRET}","password":"{MASK}"}}')
    assert "4111" not in REDACTION.text('{"a":"4111111111111111","a":1}')
