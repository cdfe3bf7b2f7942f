import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from turnwright.memory.records.nearness import normalized, normalized_key

ALIKE = [
    ("The user works on Project Phoenix", "works on  Project Phoenix."),
    ("User reports in USD", "The user reports in USD!"),
    ("Ｕser likes tea", "user likes tea"),
    ("Mag Kaffee", "mag Kaffee"),
    ("京都に行く。", "京都に行く"),
    ("मांस खाता है।", "मांस खाता है"),
    ("Zoe\u0308 sings", "Zoë sings"),
    ("\u200fאוכל בשר", "אוכל בשר"),
    ("ﻻ يأكل", "لا يأكل"),
    ("ｶﾞｽ", "ガス"),
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
    ("Has blood type A+", "Has blood type A-"),
    ("Has hepatitis A", "Has hepatitis"),
    ("Has a dog", "Has dogs"),
    ("Likes polish", "Likes Polish"),
    ("Trinkt in Maßen", "Trinkt in Massen"),
    ("दिन", "दान"),
    ("คน", "คืน"),
    ("عَلِمَ", "عُلِمَ"),
]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_texts_that_differ_in_what_has_no_meaning_are_the_same(one: str, other: str) -> None:
    assert normalized(one) == normalized(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_what_says_something_else_is_not_the_same(one: str, other: str) -> None:
    assert normalized(one) != normalized(other)


@given(st.text())
@example("x\u1ffd")
def test_normalizing_is_done_after_one_time(text: str) -> None:
    assert normalized(normalized(text)) == normalized(text)
    assert normalized_key(normalized_key(text)) == normalized_key(text)


def test_a_key_is_the_same_in_every_spelling() -> None:
    spellings = [
        "reporting_currency",
        "Reporting Currency",
        "reporting-currency",
        " REPORTING  currency ",
        "_Reporting‐currency_",
    ]
    assert {normalized_key(key) for key in spellings} == {"reporting_currency"}
    assert normalized_key("दिन-रात") == normalized_key("दिन_रात")
    assert normalized_key("ｗährung") == normalized_key("wa\u0308hrung")
    assert normalized_key("!") == "!"


@pytest.mark.parametrize(
    "different",
    [
        ["skill_c", "skill_c++", "skill_c#", "skill_c+"],
        ["blood_type_a", "blood_type_a+", "blood_type_a-"],
        [".net", "net"],
        ["5", "-5", "+5", "temp_-5", "temp_5", "5%", "$5", "€5", "<5", ">5", "1.5", "15", "1-5", "1/5"],
        ["r&d", "r_d", "rd"],
        ["likes_👍", "likes_👎", "likes"],
        ["maße", "masse"],
        ["währung", "wahrung"],
        ["दिन", "दान", "दन", "दीन"],
        ["คน", "คืน", "คุณ", "คัน"],
        ["ខ្មែរ", "ខមរ"],
        ["عِلم", "عَلَم", "علم"],
        ["か", "が"],
        ["area_m²", "area_m2"],
        ["a-_b", "a_b"],
    ],
)
def test_signs_and_vowels_tell_keys_apart(different: list[str]) -> None:
    assert len({normalized_key(key) for key in different}) == len(different)


def test_a_long_run_of_marks_is_not_put_in_order_as_a_whole() -> None:
    marks = "\u0301\u0323" * 200

    assert normalized("e" + marks) == normalized("E" + marks)
    assert normalized("e" + marks) != normalized("e" + marks + "\u0301")


def test_a_text_longer_than_a_fact_is_the_same_as_itself_alone() -> None:
    assert normalized("Tea. " * 300) != normalized("tea.  " * 300)
    assert normalized("Tea. " * 300) == "Tea. " * 300
