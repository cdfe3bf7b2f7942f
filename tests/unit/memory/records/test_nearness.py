import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwright.memory.records.nearness import normalized, normalized_key, same_meaning, same_words

ALIKE = [
    ("The user works on Project Phoenix", "works on project  Phoenix."),
    ("User reports in USD", "The user report in USD!"),
    ("Has a dog", "has dogs"),
    ("Ｕser likes tea", "user likes tea"),
]
DIFFERENT = [
    ("Has a budget of 5 million", "Has a budget of 6 million"),
    ("Alice reports to Bob", "Bob reports to Alice"),
    ("Likes C++", "Likes C#"),
    ("It is -5 degrees there", "It is 5 degrees there"),
    ("The ratio is 1.5", "The ratio is 15"),
    ("Wants $5", "Wants €5"),
    ("Eats meat", "Does not eat meat"),
    ("Is a teacher", "Was a teacher"),
    ("x > y", "x < y"),
    ("Works on Phoenix", "Works on Phoenix since May"),
    ("!!!", "???"),
    ("Is away until 2026-01-02", "Is away until 2026-01-03"),
]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_texts_that_differ_in_form_alone_have_the_same_words(one: str, other: str) -> None:
    assert same_words(one, other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_what_says_something_else_is_not_the_same_by_words_nor_by_meaning(one: str, other: str) -> None:
    assert not same_words(one, other)
    assert normalized(one) != normalized(other)


CONFUSED = [(one, other) for one, other in DIFFERENT if one not in ("Is a teacher", "Works on Phoenix", "!!!")]


@pytest.mark.parametrize(("one", "other"), CONFUSED)
def test_texts_that_differ_in_numbers_names_symbols_or_negations_differ_whatever_their_embeddings(
    one: str, other: str
) -> None:
    vector = (0.6, 0.8)
    assert not same_meaning(one, other, vector, vector)


def test_embeddings_count_when_they_are_nearly_the_same_and_comparable() -> None:
    one, other = "Takes moderate risks", "Accepts a moderate level of risk"
    assert same_meaning(one, other, (0.6, 0.8), (0.61, 0.79))
    assert not same_meaning(one, other, (0.6, 0.8), (0.8, 0.6))
    assert not same_meaning(one, other, (0.6, 0.8), (0.6, 0.8, 0.0))
    assert not same_meaning(one, other, None, (0.6, 0.8))
    assert not same_meaning(one, other, (0.0, 0.0), (0.0, 0.0))


@given(st.text(), st.text())
def test_it_does_not_matter_which_text_comes_first(one: str, other: str) -> None:
    assert same_words(one, other) == same_words(other, one)
    assert same_words(one, one)


@given(st.text())
def test_normalizing_is_done_after_one_time(text: str) -> None:
    assert normalized(normalized(text)) == normalized(text)


def test_a_key_is_the_same_in_every_spelling() -> None:
    spellings = ["reporting_currency", "Reporting Currency", "reporting-currency", " REPORTING  currency "]
    assert {normalized_key(key) for key in spellings} == {"reporting_currency"}
    assert normalized_key("!") == "!"
    assert normalized_key("währung") != normalized_key("wahrung")
