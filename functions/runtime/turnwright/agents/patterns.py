r"""The patterns of JSON Schema, which are ECMA-262's regular expressions, matched by Python's `re`.

`re` reads them otherwise: its `$` lets a line end follow, its `\d`, `\w` and `\b` know the letters of all scripts, and
what it does not know (`\p{L}`, `(?<name>...)`, `\cJ`, `[^]`) raises. So each pattern is translated, part by part, into
one that means to `re` what it means to ECMA-262 with the flag `u`, which JSON Schema recommends. What is no pattern
there, or has no translation, raises Untranslatable: when an agent is published, so that no call finds it.

Three things are read that the flag `u` forbids, and that mean the same wherever they are allowed: a needless backslash
(`\-`), a `]`, `}` or `{` that stands for itself, and a `-` that does so beside a set (`[\w-.]`).

Source: "Patterns" and "RegExp (Regular Expression) Objects" in ECMA-262; "Regular Expressions" in JSON Schema 2020-12.
"""

import re
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import groupby

_SPACES = "\\t\\n\\v\\f\\r \\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000\\ufeff"
_NO_SPACES = (
    "\\x00-\\x08\\x0e-\\x1f\\x21-\\x9f\\u00a1-\\u167f\\u1681-\\u1fff\\u200b-\\u2027\\u202a-\\u202e\\u2030-\\u205e"
    "\\u2060-\\u2fff\\u3001-\\ufefe\\uff00-\\U0010ffff"
)
_CLASSES = {"d": r"\d", "D": r"\D", "w": r"\w", "W": r"\W", "s": _SPACES, "S": _NO_SPACES}
"""As members of a class under `re.ASCII`: its digits and word characters are ECMA-262's, its white space is not."""

_CONTROLS = {"f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_GROUPS = ("(?:", "(?=", "(?!", "(?<=", "(?<!")
_LIKE_A_QUANTIFIER = re.compile(r"\{[0-9]*,?[0-9]*\}")
_NUMBER = re.compile(r"[1-9][0-9]*")
_QUANTIFIER = re.compile(r"[*+?]|\{([0-9]+)(?:,([0-9]*))?\}")
_HEXADECIMAL = re.compile(r"x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|u\{([0-9a-fA-F]+)\}")
_LOW_HALF = re.compile(r"\\u([dD][c-fC-F][0-9a-fA-F]{2})")
_NAME = re.compile(r"<([A-Za-z_$][A-Za-z0-9_$]*)>")
_PROPERTY = re.compile(r"\{(?:(?:gc|General_Category)=)?([^}]*)\}")


class Untranslatable(ValueError):
    """`pattern` is none of ECMA-262, or one without a translation; the message says where and why."""

    def __init__(self, pattern: str, rule: str) -> None:
        super().__init__(rule)
        self.pattern = pattern


def search(pattern: str, text: str) -> bool:
    """Whether the pattern, which is not anchored, is anywhere in the text. Raises Untranslatable."""
    return compiled(pattern).search(text) is not None


@lru_cache(maxsize=1_000)
def compiled(pattern: str) -> re.Pattern[str]:
    """The pattern's translation. Raises Untranslatable."""
    translated = _Translation(pattern).whole()
    try:
        return re.compile(translated, re.ASCII)
    except (re.error, OverflowError, RecursionError) as error:
        raise Untranslatable(pattern, f"cannot be checked: {error}") from error


@dataclass(slots=True)
class _Group:
    """A group, the one around it, and whether it is repeated. `opening` tells its kind, "(" that it captures."""

    opening: str
    start: int
    parent: "_Group | None"
    ended: bool = False
    repeated: bool = False

    @property
    def looks_around(self) -> bool:
        return self.opening not in ("(", "(?:")


class _Translation:
    """One pattern, read from its beginning to its end."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._group: _Group | None = None
        self._numbered: list[_Group] = []
        self._named: dict[str, int] = {}
        self._references: list[tuple[_Group, _Group | None]] = []

    def whole(self) -> str:
        parts: list[str] = []
        while self._at < len(self._pattern):
            start = self._at
            sign = self._next()
            closed: _Group | None = None
            has_length = True
            if sign in "(|":
                parts.append(self._opened(start) if sign == "(" else "|")
                continue
            if sign == ")":
                closed = self._closed(start)
                has_length = not closed.looks_around
                parts.append(")")
            elif sign in "^$":
                has_length = False
                parts.append("^" if sign == "^" else r"\Z")
            elif sign == ".":
                parts.append("[^\\n\\r\\u2028\\u2029]")
            elif sign == "[":
                parts.append(self._class(start))
            elif sign == "\\" and self._peek() in ("b", "B"):
                has_length = False
                parts.append(r"\b" if self._next() == "b" else r"(?!\b)")  # Python's \B is not in an empty text
            elif sign == "\\":
                parts.append(self._escape(start))
            elif sign in "*+?" or _LIKE_A_QUANTIFIER.match(self._pattern, start):
                raise self._refused(start, "repeats nothing, or does not say how often at least")
            else:
                parts.append(_member(sign))
            parts.append(self._quantifier(closed, has_length))
        if self._group is not None:
            raise self._refused(self._group.start, "the group has no end")
        self._check_references()
        return "".join(parts)

    # ---- Reading ----

    def _peek(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _next(self) -> str:
        sign = self._peek()
        self._at += 1
        return sign

    def _taken(self, expression: re.Pattern[str]) -> re.Match[str] | None:
        found = expression.match(self._pattern, self._at)
        if found:
            self._at = found.end()
        return found

    def _refused(self, start: int, rule: str) -> Untranslatable:
        return Untranslatable(self._pattern, f"character {start + 1}, {self._pattern[start : start + 20]}: {rule}")

    # ---- Groups and quantifiers ----

    def _opened(self, start: int) -> str:
        opening = next((each for each in _GROUPS if self._pattern.startswith(each, start)), "(")
        self._at = start + len(opening)
        if opening == "(" and self._peek() == "?":
            self._at += 1
            name = self._taken(_NAME)
            if not name:
                raise self._refused(start, "is no group of ECMA-262; one with a name is (?<name>...)")
            if name[1] in self._named:
                raise self._refused(start, "two groups have this name")
            self._named[name[1]] = len(self._numbered) + 1
        self._group = _Group(opening, start, self._group)
        if opening == "(":
            self._numbered.append(self._group)
        return opening

    def _closed(self, start: int) -> _Group:
        group = self._group
        if group is None:
            raise self._refused(start, "ends no group")
        group.ended = True
        self._group = group.parent
        return group

    def _quantifier(self, closed: _Group | None, has_length: bool) -> str:
        """What repeats the part before, which is the group `closed`, or no group."""
        start = self._at
        found = self._taken(_QUANTIFIER)
        if not found:
            return ""
        if not has_length:
            raise self._refused(start, "repeats what has no length")
        if found[2] and int(found[2]) < int(found[1]):
            raise self._refused(start, "the numbers are out of order")
        if closed and found[0] != "?":
            closed.repeated = True
        return found[0] + (self._next() if self._peek() == "?" else "")

    def _reference(self, start: int, number: int) -> str:
        """A group that took no part is an empty text to ECMA-262, and no match to `re`."""
        if number > len(self._numbered) or not self._numbered[number - 1].ended:
            raise self._refused(start, "refers to no group that has ended before it")
        self._references.append((self._numbered[number - 1], self._group))
        return rf"(?({number})\{number}|)"

    def _check_references(self) -> None:
        """ECMA-262 forgets a group in each repetition of what is around it, and what only was not to match; and it
        looks behind backwards. `re` does neither.
        """
        for referred, place in self._references:
            inside = set(map(id, _around(place)))
            for group in _around(referred):
                forgotten = group.opening == "(?!" and id(group) not in inside
                if group.repeated or forgotten or group.opening in ("(?<=", "(?<!"):
                    raise self._refused(group.start, "a reference leads into this group, which cannot be checked")

    # ---- Characters and classes ----

    def _escape(self, start: int) -> str:
        """What stands behind a backslash, outside of a class."""
        if number := self._taken(_NUMBER):
            return self._reference(start, int(number[0]))
        if self._peek() == "k":
            self._at += 1
            name = self._taken(_NAME)
            return self._reference(start, self._named.get(name[1], sys.maxsize) if name else sys.maxsize)
        found = self._set(start)
        return f"[{found}]" if found else _member(self._character(start))

    def _class(self, start: int) -> str:
        is_negated = self._peek() == "^"
        self._at += is_negated
        members: list[str] = []
        while self._peek() != "]":
            if not self._peek():
                raise self._refused(start, "the class has no end")
            place = self._at
            member, low = self._class_member()
            members.append(member)
            if self._peek() == "-" and self._pattern[self._at + 1 : self._at + 2] not in ("]", ""):
                self._at += 1
                member, high = self._class_member()
                if not low or not high:  # a set begins or ends no range: [\w-.] has the sign - itself
                    members += [_member("-"), member]
                elif high < low:
                    raise self._refused(place, "the range is out of order")
                else:
                    members[-1] += f"-{member}"
        self._at += 1
        if not members:
            return "(?s:.)" if is_negated else "(?!)"
        return f"[{'^' if is_negated else ''}{''.join(members)}]"

    def _class_member(self) -> tuple[str, str]:
        """The next member of a class as `re` has it, and the character that it is, "" of a set of characters."""
        start = self._at
        character = self._next()
        if character == "\\":
            if found := self._set(start):
                return found, ""
            if self._peek() == "b":
                self._at += 1
                character = "\b"
            else:
                character = self._character(start)
        return _member(character), character

    def _set(self, start: int) -> str:
        r"""`\d`, `\p{L}` and their like, behind the backslash, as members of a class of `re`; "" if there is none."""
        sign = self._peek()
        if sign in _CLASSES:
            self._at += 1
            return _CLASSES[sign]
        if sign not in ("p", "P"):
            return ""
        self._at += 1
        name = self._taken(_PROPERTY)
        ranges = _of_category(name[1], within=sign == "p") if name else ""
        if not ranges:
            raise self._refused(start, r"of properties only general categories by their short names are known: \p{L}")
        return ranges

    def _character(self, start: int) -> str:
        """The one character that stands behind a backslash."""
        if found := self._taken(_HEXADECIMAL):
            code = int(found[1] or found[2] or found[3], 16)
            if 0xD800 <= code < 0xDC00 and found[2] and (low := self._taken(_LOW_HALF)):
                code = 0x10000 + (code - 0xD800) * 0x400 + int(low[1], 16) - 0xDC00
            if code > sys.maxunicode or 0xD800 <= code < 0xE000:
                raise self._refused(start, "is no character")
            return chr(code)
        sign = self._next()
        if sign in _CONTROLS:
            return _CONTROLS[sign]
        if sign == "0" and not self._peek().isdecimal():
            return "\0"
        if sign == "c" and re.fullmatch("[A-Za-z]", self._peek()):
            return chr(ord(self._next()) % 32)
        if not sign:
            raise self._refused(start, "nothing is behind the backslash")
        if sign.isalnum() or sign == "_":
            hint = {"A": "; the beginning is ^", "Z": "; the end is $", "z": "; the end is $"}.get(sign, "")
            raise self._refused(start, f"is no escape of ECMA-262{hint}")
        return sign


def _member(character: str) -> str:
    """A character as `re` has it in a class and outside of one."""
    return character if character.isascii() and character.isalnum() else f"\\U{ord(character):08x}"


def _around(group: _Group | None) -> Iterator[_Group]:
    """The group and all that it stands in."""
    while group is not None:
        yield group
        group = group.parent


def _of_category(name: str, *, within: bool) -> str:
    """The characters of a general category (`Lu`, or `L` for all of them), or all others; "" if there is none."""
    if not name or not any(category.startswith(name) for category in _categories()):
        return ""
    wanted = [
        each for category, found in _categories().items() if category.startswith(name) is within for each in found
    ]
    return "".join(f"\\U{low:08x}-\\U{high:08x}" for low, high in wanted)


@cache
def _categories() -> dict[str, list[tuple[int, int]]]:
    """The ranges of characters, first and last, of each general category: so much is asked of Unicode's tables as takes
    a tenth of a second. What is left out has no characters, or private ones.
    """
    ranges: dict[str, list[tuple[int, int]]] = {
        "Cn": [(0x40000, 0xDFFFF), (0xE1000, 0xEFFFF), (0xFFFFE, 0xFFFFF), (0x10FFFE, 0x10FFFF)],
        "Co": [(0xF0000, 0xFFFFD), (0x100000, 0x10FFFD)],
    }
    for block in (range(0x40000), range(0xE0000, 0xE1000)):
        first = block.start
        for category, neighbours in groupby(map(unicodedata.category, map(chr, block))):
            last = first + sum(1 for _ in neighbours) - 1
            ranges.setdefault(category, []).append((first, last))
            first = last + 1
    return ranges
