"""Patterns of JSON Schema mean what they mean in ECMA-262. What is expected here, V8 answers with the flag `u`."""

import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwright.agents import patterns
from turnwright.agents.patterns import Untranslatable

ARABIC_FIVE, LONG_S, NO_BREAK_SPACE, BYTE_ORDER_MARK, SMILE = "\u0665", "\u017f", "\u00a0", "\ufeff", "\U0001f600"


@pytest.mark.parametrize(
    ("pattern", "found", "not_found"),
    [
        (r"^a$", ["a"], ["a\n", "a\r", "b\na"]),
        (r"a$|b", ["xa", "bx"], ["a\n"]),
        (r"^\d+$", ["05"], [ARABIC_FIVE, "5\n"]),
        (r"^\D$", [ARABIC_FIVE, "a"], ["5"]),
        (r"^\w+$", ["aZ_9"], ["é", LONG_S, ARABIC_FIVE]),
        (r"^[\W]$", ["é", LONG_S], ["_"]),
        (r"\bcat\b", ["écaté", "a cat"], ["cats"]),
        (r"^\B$", [""], ["a"]),
        (r"\Ba", ["ba"], ["a", "éa"]),
        (r"^\s$", [" ", "\n", NO_BREAK_SPACE, BYTE_ORDER_MARK, "\u2028"], ["\x1c", "\x85", "a"]),
        (r"^[\S]$", ["\x1c", "\x85", "a"], [" ", NO_BREAK_SPACE, "\u3000"]),
        (r"^.$", ["a", SMILE, "\x85"], ["\n", "\r", "\u2028", "\u2029"]),
        (r"^[^]$", ["\n", SMILE], [""]),
        (r"^(?:a|[])$", ["a"], ["]"]),
        (r"^\p{L}+$", ["añЖ中"], ["a1", "_"]),
        (r"^[\p{Lu}\p{gc=Nd}-]+$", ["ÄЖ5-", ARABIC_FIVE], ["ä"]),
        (r"^\P{L}$", ["1", SMILE], ["é"]),
        (r"^[^\P{L}a]$", ["é"], ["a", "1"]),
        (r"^(?<year>\d{4})-\k<year>$", ["2024-2024"], ["2024-2025"]),
        (r"^(?:(a)|b)\1$", ["aa", "b"], ["a"]),
        (r"^(?!.*(.)\1).*$", ["abc", ""], ["abb"]),
        (r"^(?=.*\d)(?<!x)[a-c]+?\d{1,2}$", ["ab1"], ["d1"]),
        (r"^\u0041\x42\u{1F600}\ud83d\ude00\cJ\0$", [f"AB{SMILE}{SMILE}\n\0"], ["AB"]),
        (r"^[\b\-\]\\^]+$", ["\b-]\\^"], ["b"]),
        (r"^[\w.-]+\/\-\@\ $", ["a.b-c/-@ "], ["a/"]),
        (r"^[\w-.]$", ["-", ".", "a"], ["!"]),
        (r"^[+--]+$", ["+,-"], ["."]),
        (r"^[[&&~~||-]+$", ["[&~|-"], ["a"]),
        (r"^{a}]$", ["{a}]"], ["a"]),
        (r"#x y", ["#x y"], ["#xy"]),
        (r"", ["", "a"], []),
    ],
)
def test_a_pattern_means_what_it_means_in_ecma_262(pattern: str, found: list[str], not_found: list[str]) -> None:
    assert [text for text in [*found, *not_found] if patterns.search(pattern, text)] == found


@pytest.mark.parametrize(
    ("pattern", "rule"),
    [
        (r"^a\Z", r"character 3, \Z: is no escape of ECMA-262; the end is $"),
        (r"\Aa", r"character 1, \Aa: is no escape of ECMA-262; the beginning is ^"),
        (r"\_", r"character 1, \_: is no escape"),
        (r"\x4", r"character 1, \x4: is no escape"),
        (r"\ud83d", "is no character"),
        (r"\u{110000}", "is no character"),
        ("a\\", "nothing is behind the backslash"),
        (r"\p{Script=Latin}", r"only general categories by their short names are known: \p{L}"),
        (r"\p{Letter}", "only general categories"),
        (r"\p{}", "only general categories"),
        (r"\pL", "only general categories"),
        (r"(?P<a>b)", "character 1, (?P<a>b): is no group of ECMA-262; one with a name is (?<name>...)"),
        (r"(?i)a", "is no group of ECMA-262"),
        (r"(?>a)", "is no group of ECMA-262"),
        (r"(?#a)", "is no group of ECMA-262"),
        (r"(?<a>b)(?<a>c)", "two groups have this name"),
        (r"(a", "character 1, (a: the group has no end"),
        (r"a)", "character 2, ): ends no group"),
        (r"[a", "character 1, [a: the class has no end"),
        (r"[b-a]", "character 2, b-a]: the range is out of order"),
        (r"a**", "character 3, *: repeats nothing"),
        (r"a*+", "repeats nothing"),
        (r"|+", "repeats nothing"),
        (r"a{,2}", "does not say how often at least"),
        (r"a{2,1}", "the numbers are out of order"),
        (r"^*", "repeats what has no length"),
        (r"(?=a)+", "repeats what has no length"),
        (r"\1(a)", "refers to no group that has ended before it"),
        (r"(a\1)", "refers to no group that has ended before it"),
        (r"\k<a>", "refers to no group that has ended before it"),
        (r"(?:(a)|b)*\1", "character 1, (?:(a)|b)*\\1: a reference leads into this group"),
        (r"(?!(a))\1", "a reference leads into this group"),
        (r"(?<=(a)b)\1", "a reference leads into this group"),
        (r"(?<=a+)b", "cannot be checked: look-behind requires fixed-width pattern"),
        (r"a{99999999999}", "cannot be checked: "),
        ("(" * 5_000 + ")" * 5_000, "cannot be checked: "),
    ],
    ids=lambda value: value[:20],
)
def test_what_has_no_meaning_there_or_no_translation_is_refused_with_its_place(pattern: str, rule: str) -> None:
    with pytest.raises(Untranslatable) as refused:
        patterns.compiled(pattern)
    assert rule in str(refused.value)
    assert refused.value.pattern == pattern


def test_the_categories_are_unicodes() -> None:
    known = {name: sum(last - first + 1 for first, last in found) for name, found in patterns._categories().items()}

    assert known == Counter(map(unicodedata.category, map(chr, range(0x110000))))


@given(
    st.lists(st.sampled_from([*r"ab1()[]{}|*+?^$.\-,<>=!:dDwWsSbBkpPux0", "(?", r"\p{L}", r"\1", "[^"]), max_size=12)
)
def test_any_text_has_a_meaning_or_is_refused(pieces: list[str]) -> None:
    pattern = "".join(pieces)
    try:
        found = patterns.search(pattern, "ab1")
    except Untranslatable:
        return
    assert found in (True, False)
