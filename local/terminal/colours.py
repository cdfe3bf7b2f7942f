"""Colour for people: on a terminal only, and not where NO_COLOR is set (https://no-color.org)."""

import os
from collections.abc import Callable
from typing import Literal, TextIO

Colour = Literal["bold", "dim", "red", "green", "yellow", "blue", "cyan"]
Paint = Callable[[str, Colour], str]

_CODES: dict[Colour, str] = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "cyan": "36",
}


def paint_for(stream: TextIO) -> Paint:
    """A function that colours a text for `stream`, or leaves it as it is where colour is not wanted."""
    wanted = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return _coloured if wanted else plain


def plain(text: str, _colour: Colour) -> str:
    return text


def _coloured(text: str, colour: Colour) -> str:
    return f"\033[{_CODES[colour]}m{text}\033[0m"
