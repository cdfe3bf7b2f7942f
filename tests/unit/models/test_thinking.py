import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwright.models.thinking import is_thought, split


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("<thinking>Hm.</thinking>\n\nIt is 5.", ["<thinking>Hm.</thinking>", "It is 5."]),
        ("<thinking> Hm. </thinking> It is 5.", ["<thinking> Hm. </thinking>", "It is 5."]),
        ("\n <THINKING>Hm.</Thinking>It is 5.", ["<THINKING>Hm.</Thinking>", "It is 5."]),
        ("<thinking>a\n\nb</thinking>\n    code()", ["<thinking>a\n\nb</thinking>", "    code()"]),
        ("<thinking>a</thinking>\n<thinking>b</thinking> c", ["<thinking>a</thinking>", "<thinking>b</thinking>", "c"]),
        ("<thinking>Only that.</thinking>\n", ["<thinking>Only that.</thinking>"]),
        ("<thinking>It never ends.\n\nNo?", ["<thinking>It never ends.\n\nNo?"]),
        ("<thinking>a</thinking>\n<thinking>b", ["<thinking>a</thinking>", "<thinking>b"]),
        ("One.\n\n<thinking>Hm.</thinking>\n\nTwo.", ["One.\n\n", "<thinking>Hm.</thinking>", "Two."]),
        ("One.\n\n  <Thinking>a\nb</THINKING>  \nTwo.", ["One.\n\n", "<Thinking>a\nb</THINKING>", "Two."]),
        ("One.\n<thinking>Hm.</thinking>", ["One.\n", "<thinking>Hm.</thinking>"]),
        ("<thinking>a<thinking>b</thinking>c</thinking>d", ["<thinking>a<thinking>b</thinking>c</thinking>", "d"]),
        (
            "<Thinking>\na\n<thinking>b</thinking>\n<thinking>c</THINKING>\n</thinking>\nd",
            ["<Thinking>\na\n<thinking>b</thinking>\n<thinking>c</THINKING>\n</thinking>", "d"],
        ),
        ("<thinking>Close <thinking> soon.</thinking>a", ["<thinking>Close <thinking> soon.</thinking>", "a"]),
        (
            "One.\n<thinking>a\n<thinking>b</thinking>\nc</thinking>\nTwo.",
            ["One.\n", "<thinking>a\n<thinking>b</thinking>\nc</thinking>", "Two."],
        ),
        (
            "```xml\n<thinking>a</thinking>\n```\n<thinking>b</thinking>\nc",
            ["```xml\n<thinking>a</thinking>\n```\n", "<thinking>b</thinking>", "c"],
        ),
    ],
)
def test_where_a_model_thinks_it_is_reasoning(text: str, parts: list[str]) -> None:
    assert split(text) == parts
    assert any(map(is_thought, parts))


@pytest.mark.parametrize(
    "text",
    [
        "Nothing of the kind.",
        "Nova writes `<thinking>a</thinking>` before it answers.",
        "`<thinking>` begins it, `</thinking>` ends it.",
        "Use <thinking>a</thinking> in the prompt.",
        "Write:\n\n```xml\n<thinking>\na\n</thinking>\n```\nand no more.",
        "Write:\n~~~~\n<thinking>a</thinking>\n~~~\n<thinking>b</thinking>\n~~~~\n",
        "```\n<thinking>a</thinking>",
        "One.\n<thinking> has to be closed.",
        "One.\n<thinking>a</thinking> is a line of its own, or not.",
        "</thinking> stands alone.",
        "<thinkings>a</thinkings>",
        "<thinking mode='x'>a</thinking>",
    ],
)
def test_where_a_model_speaks_of_the_tags_its_text_stays_as_it_is(text: str) -> None:
    assert split(text) == [text]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("<thinking>It never", ["<thinking>It never"]),
        ("One.\n\n<thinking>Two or\nthr", ["One.\n\n", "<thinking>Two or\nthr"]),
        ("One.\n<thinking>a</thinking>\n<thinking>b", ["One.\n", "<thinking>a</thinking>", "<thinking>b"]),
        ("In a <thinking> element", ["In a <thinking> element"]),
        ("```\n<thinking>a", ["```\n<thinking>a"]),
        ("One.\n<thinking>a</thinking> is", ["One.\n<thinking>a</thinking> is"]),
    ],
)
def test_what_a_model_thought_when_it_was_stopped_is_reasoning_too(text: str, parts: list[str]) -> None:
    assert split(text, cut=True) == parts


@given(st.lists(st.sampled_from(["<thinking>", "</thinking>", "```", "~~~", "\n", " ", "a", "    ", "<"]), max_size=30))
def test_nothing_is_lost_but_blanks_between_the_parts(pieces: list[str]) -> None:
    text = "".join(pieces)

    for cut in (False, True):
        assert "".join("".join(split(text, cut=cut)).split()) == "".join(text.split())


@pytest.mark.parametrize("piece", ["\n<thinking>", "\n```\n", "\n<thinking>a", "\n~~~", "\n</thinking>", "\n\n \t"])
def test_a_long_text_of_tags_without_an_end_is_read_once_and_stays(piece: str) -> None:
    text = "a" + piece * 100_000

    assert split(text) == [text]
