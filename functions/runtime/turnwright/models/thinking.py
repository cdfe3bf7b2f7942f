"""`<thinking>…</thinking>` in a model's text, which is its reasoning: Amazon Nova writes it so when it has tools.

Source: "Invoking tools" in the Amazon Nova user guide. The tags are read where a model thinks, and left alone where it
speaks of them:

- at the beginning of a text: all elements there are reasoning; one without an end is, to the end of the text;
- further on: an element is reasoning whose beginning begins a line and whose end ends one, outside of fenced code; and,
  in a text that was cut, what begins a line so and has no end;
- everywhere else (in a sentence, in `code`, in fenced code, without an end): text like any other.

An element ends where as many have ended as began in it. At the beginning of a text, where that is nowhere, the next end
counts: a model may name the tag while it thinks. Upper and lower case are the same. Reasoning keeps its tags, as the
model that wrote it is shown it again in its turn.
"""

import re
from bisect import bisect_right

_OPENING = "<thinking>"

_TAG = re.compile(r"<(/?)thinking>", re.IGNORECASE)

_FIRST = re.compile(rf"\s*({_OPENING})", re.IGNORECASE)

_LATER = re.compile(
    rf"""
    ^\ {{0,3}}(?P<fence>`{{3,}}|~{{3,}})[^`\n]*$ (?: .*?\n\ {{0,3}}(?P=fence)[`~]*[ \t]*$ | .*\Z )  # code, or the rest
    | ^[ \t]* (?P<opening> {_OPENING} )
    """,
    re.IGNORECASE | re.DOTALL | re.MULTILINE | re.VERBOSE,
)

_LINE_END = re.compile(r"[ \t]*$", re.MULTILINE)

_GAP = re.compile(r"[ \t]*(?:\r?\n)*")
"""What is between a thought and what is said behind it."""


def is_thought(text: str) -> bool:
    """Whether reasoning is what this module has split off a text."""
    return text[: len(_OPENING)].lower() == _OPENING


def split(text: str, *, cut: bool = False) -> list[str]:
    """The text in its parts, in order: thoughts, each with its tags, and what is said. Blank parts are left out. `cut`
    says that the model was stopped before it ended.
    """
    ends, all_ends = _ends(text)
    parts, said_from = [], 0
    while first := _FIRST.match(text, said_from):
        start = first.start(1)
        next_end = bisect_right(all_ends, start)
        said_from = ends.get(start) or (all_ends[next_end] if next_end < len(all_ends) else len(text))
        parts.append(text[start:said_from])
    place = said_from
    while later := _LATER.search(text, place):
        place = later.end()
        if not later["opening"]:
            continue
        start = later.start("opening")
        is_open = cut and (not all_ends or start > all_ends[-1])
        end = ends.get(start, len(text) if is_open else -1)
        line_end = _LINE_END.match(text, end) if end >= 0 else None
        if line_end:
            parts += [text[said_from : later.start()], text[start:end]]
            said_from = place = line_end.end()
    parts.append(text[said_from:])
    return [_GAP.sub("", part, count=1) if number else part for number, part in enumerate(parts) if part.strip()]


def _ends(text: str) -> tuple[dict[int, int], list[int]]:
    """Where the element ends that begins at a place, if it ends; and all ends in order."""
    ends: dict[int, int] = {}
    all_ends: list[int] = []
    begun: list[int] = []
    for tag in _TAG.finditer(text):
        if not tag[1]:
            begun.append(tag.start())
            continue
        all_ends.append(tag.end())
        if begun:
            ends[begun.pop()] = tag.end()
    return ends, all_ends
