"""`<thinking>…</thinking>` in a model's text, which is its reasoning: Amazon Nova writes it so when it has tools.

Source: "Invoking tools" in the Amazon Nova user guide. The tags are read where a model thinks, and left alone where it
speaks of them:

- at the beginning of a text: all elements there are reasoning; one without an end is, to the end of the text;
- further on: an element is reasoning whose beginning begins a line and whose end ends one, outside of fenced code;
- everywhere else (in a sentence, in `code`, in fenced code, without an end): text like any other.

Upper and lower case are the same. Reasoning keeps its tags, as the model that wrote it is shown it again in its turn.
"""

import re

_OPENING, _CLOSING = "<thinking>", "</thinking>"

_FIRST = re.compile(rf"\s*{_OPENING}.*?(?:{_CLOSING}|\Z)", re.IGNORECASE | re.DOTALL)

_LATER = re.compile(
    rf"""
    ^\ {{0,3}}(?P<fence>`{{3,}}|~{{3,}})[^`\n]*$ (?: .*?\n\ {{0,3}}(?P=fence)[`~]*[ \t]*$ | .*\Z )  # code, or the rest
    | ^[ \t]* (?P<thought> {_OPENING} (?: (?!{_OPENING}) . )*? {_CLOSING} ) [ \t]*$
    """,
    re.IGNORECASE | re.DOTALL | re.MULTILINE | re.VERBOSE,
)

_GAP = re.compile(r"[ \t]*(?:\r?\n)*")
"""What is between a thought and what is said behind it."""


def is_thought(text: str) -> bool:
    """Whether reasoning is what this module has split off a text."""
    return text[: len(_OPENING)].lower() == _OPENING


def split(text: str) -> list[str]:
    """The text in its parts, in order: thoughts, each with its tags, and what is said. Blank parts are left out."""
    parts, said_from = [], 0
    while first := _FIRST.match(text, said_from):
        parts.append(first.group().lstrip())
        said_from = first.end()
    for later in _LATER.finditer(text, said_from):
        if later["thought"]:
            parts += [text[said_from : later.start()], later["thought"]]
            said_from = later.end()
    parts.append(text[said_from:])
    return [_GAP.sub("", part, count=1) if number else part for number, part in enumerate(parts) if part.strip()]
