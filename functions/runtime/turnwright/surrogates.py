"""Halves of surrogate pairs: JSON can spell them (`"\\ud83d"`), Python keeps them, and no UTF-8 text can hold them.

A model's stream may cut an emoji between two events, and a tool at some length; each is mended where it is read.
"""

from typing import Any


def mended(text: str) -> str:
    """The text with its pairs joined; a half without its partner becomes the replacement character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def mended_json(value: Any) -> Any:
    """A JSON value with every text in it mended, keys too."""
    match value:
        case str():
            return mended(value)
        case list():
            return [mended_json(entry) for entry in value]
        case dict():
            return {mended(name): mended_json(entry) for name, entry in value.items()}
        case _:
            return value
