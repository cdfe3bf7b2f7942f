"""Taking named fields, patterns and credentials out of texts and JSON values, before they are written where others read
them.

A text may hold JSON, whose strings may hold JSON again: each level of escaping splits a secret that has a quote, a line
end or a letter beyond ASCII in it. A text that is JSON is therefore redacted as a value. Any other text, cut JSON too,
is searched as it is and as it reads with one, two, ... levels of escapes undone, JSON's and those of HTML; what is
found is replaced where it stands (`secrets_in_text.py` says what is found). Base64, percent-encoding and secrets cut in
two by an earlier bound are not seen through.

The work is bounded whatever the text is, since a turn waits for it: of a text `READ` characters are read and the rest
is not shown, and after `STEPS` values, escapes and findings all that follows is taken out.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from turnwright.tracing.secrets_in_text import (
    Names,
    Span,
    credentials,
    is_named_by_its_neighbour,
    is_option_of_credentials,
    names_its_neighbour,
)

MASK = "[REDACTED]"

READ = 128 * 1024
"""Of a longer text so many characters are shown."""

STEPS = 5_000
"""A step is a microsecond or two: a value of a JSON text, an escape undone."""

_FINDING = 5
"""A finding is several, and so is searching a text once more, with its escapes undone."""

_OVERLAP = 4 * 1024
"""So far is read beyond what is shown, so that a secret on the border is recognized."""

_READ_AGAIN = 2 * (READ + _OVERLAP)
"""So many characters are searched with escapes undone."""

_LEVELS = 6
"""So often JSON may be in JSON."""

_ESCAPE = re.compile(
    r"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|([\"'\\/bfnrt]))"
    r"|&(quot|apos|lt|gt|amp|#34|#39|#x22|#x27);"
)
_ESCAPED = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_ENTITIES = {
    **dict.fromkeys(("quot", "#34", "#x22"), '"'),
    **dict.fromkeys(("apos", "#39", "#x27"), "'"),
    "lt": "<",
    "gt": ">",
    "amp": "&",
}
_LEADING_SPACE = 256

_LISTS_OF_NAMES = frozenset({"required", "enum"})
"""Members of JSON Schema; elsewhere a list of two strings may be a header and its value."""


class _Number(str):
    """A number of a JSON text as it is written there: `1e2` and 400 digits stay what they are."""

    __slots__ = ()


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raises ValueError for a name that is there twice: a value would hide behind the last one."""
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a name is there twice")
    return members


_DECODER = json.JSONDecoder(object_pairs_hook=_members, parse_int=_Number, parse_float=_Number)


class BrokenPattern(ValueError):
    """A pattern is not a regular expression, or matches an empty text and so would match everywhere."""


class Work:
    """Counts the steps of redacting one text or value."""

    def __init__(self) -> None:
        self.steps = 0
        self.unescaped = 0
        """Characters of texts with escapes undone, each of which is searched like the text itself."""

    def step(self, steps: int = 1) -> bool:
        """Takes steps. False if all were taken before."""
        if self.steps <= STEPS:
            self.steps += steps
        return self.steps <= STEPS

    def read_again(self, characters: int) -> bool:
        """False if as much was read again as is allowed."""
        self.unescaped += characters
        return self.unescaped <= _READ_AGAIN

    @property
    def left(self) -> int:
        return max(0, STEPS - self.steps)


@dataclass(frozen=True, slots=True)
class Redaction:
    """What to take out. `fields` are names, without regard to case, `_` and `-`, and also where they end a longer name
    (`client_secret`, `dbPassword`); their whole values go.

    A name also counts where Bedrock's events have it as `{"name": ..., "value": ...}`.
    """

    fields: Names
    patterns: tuple[re.Pattern[str], ...]

    @classmethod
    def of(cls, fields: list[str], patterns: list[str]) -> "Redaction":
        """Raises BrokenPattern."""
        return cls(Names.of(fields), tuple(_compiled(pattern) for pattern in patterns))

    def names(self, name: str) -> bool:
        """Whether the field of this name is taken out."""
        return self.fields.hold(name)

    def value(self, value: Any, work: Work | None = None) -> Any:
        """A copy of a JSON value without what is to be taken out."""
        try:
            return self._value(value, work or Work(), 0)
        except RecursionError:
            return MASK

    def text(self, text: str, work: Work | None = None) -> str:
        """The text without what is to be taken out. JSON stays JSON: patterns see each of its strings and numbers."""
        return self._text(text, work or Work(), 0)

    def _value(self, value: Any, work: Work, level: int) -> Any:
        if not work.step():
            return MASK
        match value:
            case _Number():
                return MASK if self._hides(value) else value
            case str():
                return self._text(value, work, level)
            case Mapping():
                return self._mapping(value, work, level)
            case list() | tuple():
                return self._list(value, work, level)
            case bool() | None:
                return value
            case int() | float():
                return MASK if self._hides(json.dumps(value)) else value
            case _:
                return self._text(str(value), work, level)

    def _mapping(self, value: Mapping[Any, Any], work: Work, level: int) -> dict[str, Any]:
        names_a_secret = any(
            isinstance(entry, str) and names_its_neighbour(str(key)) and self.names(entry)
            for key, entry in value.items()
        )
        return {
            self._searched(str(key), work): MASK
            if not _is_nothing(entry)
            and (self.names(str(key)) or (names_a_secret and is_named_by_its_neighbour(str(key))))
            else [self._value(each, work, level) for each in entry]
            if isinstance(entry, list) and str(key).lower() in _LISTS_OF_NAMES
            else self._value(entry, work, level)
            for key, entry in value.items()
        }

    def _list(self, value: Sequence[Any], work: Work, level: int) -> list[Any]:
        redacted = [self._value(entry, work, level) for entry in value]
        for index, (entry, following) in enumerate(pairwise(value)):
            if not isinstance(entry, str) or not isinstance(following, str | int | float) or _is_nothing(following):
                continue
            named = (len(value) == 2 or entry.startswith("-")) and self.names(entry)
            if named or (is_option_of_credentials(entry) and ":" in str(following)):
                redacted[index + 1] = MASK
        return redacted

    def _hides(self, number: str) -> bool:
        return any(pattern.search(number) for pattern in self.patterns)

    def _text(self, text: str, work: Work, level: int) -> str:
        if level < _LEVELS and self._can_be_taken_apart(text, work):
            try:
                value = _DECODER.decode(text)
                redacted = self._value(value, work, level + 1)
                if redacted == value:
                    return text
                return _written(redacted)
            except (ValueError, RecursionError):
                pass  # no JSON after all, or none that can be kept: a text like any other
        return self._searched(text, work)

    def _can_be_taken_apart(self, text: str, work: Work) -> bool:
        """Whether it looks like JSON of no more values than there are steps left. Signs in its strings count too."""
        if len(text) > READ or text[:_LEADING_SPACE].lstrip()[:1] not in ("{", "["):
            return False
        return sum(map(text.count, ",:[{")) <= work.left

    def _searched(self, text: str, work: Work) -> str:
        read = text[: READ + _OVERLAP]
        spans = list(self._found(read, work))
        level, origins = read, _Origins()
        for _ in range(_LEVELS if "\\" in read or "&" in read else 0):
            unescaped = origins.unescape(level, work)
            if unescaped == level:
                break
            if not (work.step(_FINDING) and work.read_again(len(unescaped))):
                spans.append((origins.first, len(read)))
                break
            level = unescaped
            spans += [(origins.of(start), origins.of(end)) for start, end in self._found(level, work)]
        if origins.read_to is not None:
            spans.append((origins.read_to, len(read)))
        shown = _without(read, spans, min(len(text), READ))
        return shown if len(text) <= READ else f"{shown}\n[cut: {READ} of {len(text)} characters are shown]"

    def _found(self, text: str, work: Work) -> Iterator[Span]:
        """What is to be taken out of this reading of the text; where the steps end, all that follows."""
        for finding in (self._matches(text), self.fields.values_in(text), credentials(text)):
            for start, end in finding:
                if not work.step(_FINDING):
                    yield start, len(text)
                    break
                if end > start:
                    yield start, end

    def _matches(self, text: str) -> Iterator[Span]:
        for pattern in self.patterns:
            for match in pattern.finditer(text):
                yield match.span()


class _Origins:
    """Where the characters of an unescaped text began in the text that was read."""

    def __init__(self) -> None:
        self.read_to: int | None = None
        """Where the steps ended, so that nothing behind was unescaped."""
        self.first = 0
        """Where the first of the escapes stood that were undone last."""
        self._levels: list[tuple[list[int], list[int]]] = []

    def of(self, position: int) -> int:
        for starts, origins in reversed(self._levels):
            part = bisect_right(starts, position) - 1
            position = origins[part] + position - starts[part]
        return position

    def unescape(self, text: str, work: Work) -> str:
        """The text with one level of JSON escapes undone, as far as there are steps left."""
        pieces: list[str] = []
        starts, origins = [0], [0]
        at = length = 0
        stopped: int | None = None
        for match in _ESCAPE.finditer(text):
            if not work.step():
                stopped = match.start()
                break
            high, low, unit, character, entity = match.groups()
            if entity:
                undone = _ENTITIES[entity]
            elif high:
                undone = chr(0x10000 + ((int(high, 16) - 0xD800) << 10) + int(low, 16) - 0xDC00)
            else:
                undone = chr(int(unit, 16)) if unit else _ESCAPED.get(character, character)
            pieces += (text[at : match.start()], undone)
            length += match.start() - at + 1
            at = match.end()
            starts.append(length)
            origins.append(at)
        if len(starts) > 1:
            self.first = self.of(starts[1] - 1)
        pieces.append(text[at : len(text) if stopped is None else stopped])
        if stopped is not None:
            self.read_to = self.of(stopped) if self.read_to is None else min(self.read_to, self.of(stopped))
        self._levels.append((starts, origins))
        return "".join(pieces)


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


def _is_nothing(value: Any) -> bool:
    """Whether it is a null or a boolean, which are no secret whatever their name is."""
    return value is None or isinstance(value, bool)


def _written(value: Any) -> str:
    """The JSON text of a value, without blanks."""
    match value:
        case dict():
            return f"{{{','.join(f'{_written(name)}:{_written(entry)}' for name, entry in value.items())}}}"
        case list():
            return f"[{','.join(map(_written, value))}]"
        case _Number():
            return value
        case _:
            return json.dumps(value, ensure_ascii=False)


def _without(text: str, spans: list[Span], shown: int) -> str:
    """The first `shown` characters of the text without the spans."""
    pieces: list[str] = []
    at = 0
    for start, end in sorted(spans):
        if start >= shown:
            break
        if start >= at:
            pieces += [text[at:start], MASK]
        at = max(at, end)
    return "".join([*pieces, text[at:shown]]) if pieces else text[:shown]
