"""Taking named fields and patterns out of texts and JSON values, before they are written where others read them.

A text may hold JSON, whose strings may hold JSON again: each level of escaping splits a secret that has a quote, a line
end or a letter beyond ASCII in it. A text that is JSON is therefore redacted as a value. Any other text, cut JSON too,
is searched as it is and as it reads with one, two, ... levels of JSON escapes undone; what is found is replaced where
it stands. Base64, percent-encoding and secrets cut in two by an earlier bound are not seen through.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MASK = "[REDACTED]"

_ESCAPE_LEVELS = 6
_ESCAPE = re.compile(
    r"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|([\"'\\/bfnrt]))"
)
_SEPARATOR = re.compile(r"(?:=>|[:=])\s*")
_NAME_BEFORE = re.compile(r"(?<![\w-])([\w-]+)[\"']?\s*\Z")
_LONGEST_NAME = 200
_ESCAPED = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_DOUBLE_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)', re.DOTALL)
_SINGLE_QUOTED = re.compile(r"'((?:[^'\\]|\\.)*)", re.DOTALL)
_BARE = re.compile(r"([^\s,;&}\])\"']+)")
_DECODER = json.JSONDecoder()

Span = tuple[int, int]


class BrokenPattern(ValueError):
    """A pattern is not a regular expression, or matches an empty text and so would match everywhere."""


@dataclass(frozen=True, slots=True)
class Redaction:
    """What to take out. `fields` are names, without regard to case, `_` and `-`; their whole values go.

    A name also counts where Bedrock's events have it as `{"name": ..., "value": ...}`.
    """

    fields: frozenset[str]
    patterns: tuple[re.Pattern[str], ...]

    @classmethod
    def of(cls, fields: list[str], patterns: list[str]) -> "Redaction":
        """Raises BrokenPattern."""
        return cls(frozenset(_name(name) for name in fields), tuple(_compiled(pattern) for pattern in patterns))

    def names(self, name: str) -> bool:
        """Whether the field of this name is taken out."""
        return _name(name) in self.fields

    def value(self, value: Any) -> Any:
        """A copy of a JSON value without what is to be taken out."""
        match value:
            case str():
                return self.text(value)
            case Mapping():
                return self._mapping(value)
            case list() | tuple():
                return [self.value(entry) for entry in value]
            case bool() | None:
                return value
            case int() | float():
                return MASK if any(pattern.search(json.dumps(value)) for pattern in self.patterns) else value
            case _:
                return self.text(str(value))

    def text(self, text: str) -> str:
        """The text without what is to be taken out. JSON stays JSON: patterns see each of its strings and numbers."""
        if text.lstrip()[:1] in ("{", "["):
            try:
                value = json.loads(text)
            except (ValueError, RecursionError):
                return self._searched(text)
            redacted = self.value(value)
            return text if redacted == value else json.dumps(redacted, ensure_ascii=False, separators=(",", ":"))
        return self._searched(text)

    def _mapping(self, value: Mapping[Any, Any]) -> dict[str, Any]:
        named = value.get("name")
        hidden = {"value"} if isinstance(named, str) and self.names(named) else set()
        return {
            self._searched(str(key)): MASK if key in hidden or self.names(str(key)) else self.value(entry)
            for key, entry in value.items()
        }

    def _searched(self, text: str) -> str:
        spans: list[Span] = []
        level, places = text, None
        for _ in range(_ESCAPE_LEVELS):
            for start, end in [*self._matches(level), *self._named_values(level)]:
                spans.append((start, end) if places is None else (places[start], places[end]))
            if "\\" not in level:
                break
            unescaped, origins = _unescaped(level)
            if unescaped == level:
                break
            places = origins if places is None else [places[origin] for origin in origins]
            level = unescaped
        return _without(text, spans)

    def _matches(self, text: str) -> Iterator[Span]:
        for pattern in self.patterns:
            for match in pattern.finditer(text):
                if match.end() > match.start():
                    yield match.span()

    def _named_values(self, text: str) -> Iterator[Span]:
        if not self.fields:
            return
        for separator in _SEPARATOR.finditer(text):
            before = _NAME_BEFORE.search(text[max(0, separator.start() - _LONGEST_NAME) : separator.start()])
            span = _value_at(text, separator.end()) if before and self.names(before[1]) else None
            if span:
                yield span


def split_list(text: str) -> list[str]:
    """The entries of a comma-delimited list. A comma in brackets of any kind, or behind a backslash, separates nothing,
    so that `\\d{2,3}` and `[,;]` are whole.
    """
    entries, entry, depth, escaped = [], "", 0, False
    for character in text:
        if character == "," and depth <= 0 and not escaped:
            entries.append(entry)
            entry = ""
            continue
        if not escaped and character in "([{":
            depth += 1
        elif not escaped and character in ")]}":
            depth -= 1
        escaped = character == "\\" and not escaped
        entry += character
    entries.append(entry)
    return [stripped for stripped in (entry.strip() for entry in entries) if stripped]


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise BrokenPattern(f"{pattern} is not a regular expression: {error}") from error
    if compiled.search(""):
        raise BrokenPattern(f"{pattern} matches an empty text")
    return compiled


def _name(name: str) -> str:
    return re.sub(r"[-_\s]", "", name).lower()


def _value_at(text: str, start: int) -> Span | None:
    """Where the value stands that begins at `start`: quoted, a JSON container (to the text's end if it was cut), or a
    word. None where it was taken out before.
    """
    if text.startswith(MASK, start):
        return None
    match text[start : start + 1]:
        case '"':
            found = _DOUBLE_QUOTED.match(text, start)
        case "'":
            found = _SINGLE_QUOTED.match(text, start)
        case "{" | "[":
            try:
                return start, _DECODER.raw_decode(text, start)[1]
            except (ValueError, RecursionError):
                return start, len(text)
        case _:
            found = _BARE.match(text, start)
    return found.span(1) if found and found[1] else None


def _unescaped(text: str) -> tuple[str, list[int]]:
    """The text with one level of JSON escapes undone, and where in `text` each of its characters began, and its end."""
    pieces: list[str] = []
    origins: list[int] = []
    at = 0
    for match in _ESCAPE.finditer(text):
        pieces.append(text[at : match.start()])
        origins.extend(range(at, match.start()))
        high, low, unit, character = match.groups()
        if high:
            pieces.append(chr(0x10000 + ((int(high, 16) - 0xD800) << 10) + int(low, 16) - 0xDC00))
        else:
            pieces.append(chr(int(unit, 16)) if unit else _ESCAPED.get(character, character))
        origins.append(match.start())
        at = match.end()
    pieces.append(text[at:])
    origins.extend(range(at, len(text) + 1))
    return "".join(pieces), origins


def _without(text: str, spans: list[Span]) -> str:
    pieces: list[str] = []
    at = 0
    for start, end in sorted(spans):
        if start >= at:
            pieces += [text[at:start], MASK]
        at = max(at, end)
    return "".join([*pieces, text[at:]]) if pieces else text
