"""Request shapes and their rules, as botocore's service models write them, and the check of a request against them.

botocore checks lengths and ranges in part, patterns and enums not at all; other clients check nothing. So everything
is checked here, and a field that a shape does not have is refused. A field that is null counts as absent.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

from turnwright.api.agentcore.refusals import Finding, Invalid

LATEST_SECONDS = 253_402_300_799
"""The last second of the year 9999, behind which clients cannot read a timestamp."""


class Shape(Protocol):
    """What a value has to be."""

    def findings(self, value: Any, place: str) -> list[Finding]:
        """The rules that the value breaks. `place` is the value's path in the request."""
        ...


@dataclass(frozen=True, slots=True)
class Text:
    """A string. Lengths are in characters; `choices` are all values that there are."""

    min: int = 0
    max: int | None = None
    pattern: str | None = None
    choices: tuple[str, ...] = ()

    def findings(self, value: Any, place: str) -> list[Finding]:
        if not isinstance(value, str):
            return [Finding(place, "is not a string")]
        rule = _length_rule(len(value), self.min, self.max, "characters")
        if rule is None and self.choices and value not in self.choices:
            rule = f"is not one of {', '.join(self.choices)}"
        if rule is None and self.pattern is not None and not _compiled(self.pattern).fullmatch(value):
            rule = f"does not match the pattern {self.pattern}"
        return [Finding(place, rule)] if rule else []


@dataclass(frozen=True, slots=True)
class Whole:
    """An integer."""

    min: int | None = None
    max: int | None = None

    def findings(self, value: Any, place: str) -> list[Finding]:
        if not isinstance(value, int) or isinstance(value, bool):
            return [Finding(place, "is not an integer")]
        if self.min is not None and value < self.min:
            return [Finding(place, f"is less than {self.min}")]
        if self.max is not None and value > self.max:
            return [Finding(place, f"is greater than {self.max}")]
        return []


@dataclass(frozen=True, slots=True)
class Real:
    """A number."""

    def findings(self, value: Any, place: str) -> list[Finding]:
        return [] if _is_number(value) else [Finding(place, "is not a number")]


@dataclass(frozen=True, slots=True)
class Moment:
    """Seconds since the epoch, with fractions."""

    def findings(self, value: Any, place: str) -> list[Finding]:
        if not _is_number(value):
            return [Finding(place, "is not a number of seconds since 1970")]
        if not 0 <= value <= LATEST_SECONDS:
            return [Finding(place, f"is not between 0 and {LATEST_SECONDS} seconds since 1970")]
        return []


@dataclass(frozen=True, slots=True)
class Flag:
    """A boolean."""

    def findings(self, value: Any, place: str) -> list[Finding]:
        return [] if isinstance(value, bool) else [Finding(place, "is not a boolean")]


@dataclass(frozen=True, slots=True)
class Document:
    """Any JSON."""

    def findings(self, value: Any, place: str) -> list[Finding]:
        return []


@dataclass(frozen=True, slots=True)
class Listing:
    """A list."""

    entry: Shape
    min: int = 0
    max: int | None = None

    def findings(self, value: Any, place: str) -> list[Finding]:
        if not isinstance(value, list):
            return [Finding(place, "is not a list")]
        rule = _length_rule(len(value), self.min, self.max, "entries")
        if rule:
            return [Finding(place, rule)]
        return [
            finding for index, entry in enumerate(value) for finding in self.entry.findings(entry, f"{place}[{index}]")
        ]


@dataclass(frozen=True, slots=True)
class Dictionary:
    """An object whose keys are the caller's own."""

    key: Shape
    entry: Shape
    min: int = 0
    max: int | None = None

    def findings(self, value: Any, place: str) -> list[Finding]:
        if not isinstance(value, dict):
            return [Finding(place, "is not an object")]
        rule = _length_rule(len(value), self.min, self.max, "entries")
        if rule:
            return [Finding(place, rule)]
        found = [finding for key in value for finding in self.key.findings(key, f"{place} key {key!r:.140}")]
        return found + [
            finding for key, entry in value.items() for finding in self.entry.findings(entry, f"{place}.{key}")
        ]


@dataclass(frozen=True, slots=True)
class Structure:
    """An object of named fields; of a `union` exactly one is there."""

    fields: Mapping[str, Shape]
    required: tuple[str, ...] = ()
    union: bool = False
    unsupported: Mapping[str, str] = field(default_factory=dict)
    """Fields of AgentCore's that this runtime does not have, and why."""

    def findings(self, value: Any, place: str) -> list[Finding]:
        if not isinstance(value, dict):
            return [Finding(place or "body", "is not an object")]
        given = {name: entry for name, entry in value.items() if entry is not None}
        found = [Finding(_join(place, name), "is missing") for name in self.required if name not in given]
        if self.union and len(given) != 1:
            found.append(Finding(place, f"has not exactly one of {', '.join(self.fields)}"))
        for name, entry in given.items():
            where = _join(place, name)
            if name in self.unsupported:
                found.append(Finding(where, self.unsupported[name]))
            elif name in self.fields:
                found += self.fields[name].findings(entry, where)
            else:
                found.append(Finding(where, "is not a field of this request"))
        return found

    def read(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """The fields that are there. Raises Invalid with every rule that is broken."""
        found = self.findings(value, "")
        if found:
            raise Invalid(found[:_MOST_FINDINGS])
        return {name: entry for name, entry in value.items() if entry is not None}


_MOST_FINDINGS = 20


def union(**fields: Shape) -> Structure:
    return Structure(fields, union=True)


def milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def seconds(milliseconds: int) -> float:
    """A moment as the wire has it."""
    return milliseconds / 1000


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.ASCII)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _length_rule(length: int, least: int, most: int | None, unit: str) -> str | None:
    if length < least:
        return f"has {length} {unit}; at least {least} must be there"
    if most is not None and length > most:
        return f"has {length} {unit}; at most {most} are taken"
    return None


def _join(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name or '""'


Reader = Callable[[Mapping[str, Any]], dict[str, Any]]
