"""Where secrets stand in a text that is no JSON: the values of names that are said to be secret, and credentials that
are known by their form.

A value in quotes ends with them, and a JSON value where it ends. Where a bare value ends nobody can know: it takes the
line, except where an `&` separates the fields of a query, and within a JSON string, which the text may be a piece of.

Each function goes through the text once: quantifiers are bounded, or what they took is not looked at again.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

Span = tuple[int, int]

_DECODER = json.JSONDecoder()

_SHORT_NAME = 6
"""A name of fewer letters counts as a word of its own only: `pin` is no part of `shipping`, nor `token` of `tokens`."""

_LONGEST_KEY = 200
_BOUNDARY_BEFORE = 64
_BETWEEN = "[-_ ]?"
_SUFFIXES = ("value", "text", "string", "str", "plain", "raw")
_SUFFIX = rf"(?:[-_ ]?(?:{'|'.join(_SUFFIXES)}|\d{{1,3}}))?"
_ASSIGNS = re.compile(r"[\s=:：(,>]")
"""Without any of these no name has a value."""

_SUFFIX_OF_KEY = re.compile(rf"(?:{'|'.join(_SUFFIXES)}|\d{{1,3}})\Z")
_SEPARATORS = re.compile(r"[\W_]+")
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+")
_CLOSERS = r"[\\\"'`*_\])}]{0,80}"
_AFTER_NAME = (
    rf"(?P<closers>{_CLOSERS})(?:"
    r"(?:[ \t]{1,16}(?:is|was))?[ \t]{0,16}(?P<assign>[?+:]?=[=>~]?|:{1,2}|->|：)"
    r"|(?P<call>\([ \t]{0,4}(?=[bru]{0,2}\\{0,63}[\"']))"
    r"|[ \t]{1,16}(?P<told>(?:is|was)[ \t]{1,16})"
    r"|[ \t]{0,4}(?P<pair>,[ \t]{0,4}(?=[bru]{0,2}\\{0,63}[\"']))"
    r"|(?P<space>[ \t]{1,16})"
    r")"
)
_QUOTE = re.compile(r"[bBrRuU]{0,2}(\\{0,63})([\"'])")
_LITERAL = re.compile(r"(?:-?\d[\d.eE+-]*|[tT]rue|[fF]alse|null|None)(?=\s*(?:[,}\])]|$))")
_CALL = re.compile(r"[\w.]{1,80}\(")
_BRACKET = re.compile(r"[\[\](){}]")
_BLANKS = re.compile(r"[ \t]*")
_SPACE = re.compile(r"\s*")
_UP_TO_A_TAG = re.compile(r"[^<\n]*")
_LINE = re.compile(r"(?:[^\n]*\\\n)*[^\n]*(?<![\r \t])")
_OF_QUERY = re.compile(r"[^\s&\"\\]{0,500}+(?=&(?:amp;)?[\w.~%\[\]-]{1,100}=)")
_GOES_ON = re.compile(r"[\"'][\w\\\"']")
"""Behind a value in quotes: a shell puts such pieces together."""

_WORD = re.compile(r"(?:[^\s\\]|\\.)+", re.DOTALL)
_BLOCK = re.compile(r"(?:[>|][-+\d]{0,2}[ \t]*(?:#[^\n]*)?)?\r?(?=\n)")
_INDENT = re.compile(r"[ \t]*(?:-[ \t]+)*")
_END_OF_STRING = re.compile(r'(?<!\\)(?:\\\\)*(\\r|\\n|")|(?<!\\)(\n)|(\Z)')
_REQUIRED = re.compile(r"(?:this )?(?:field |value )?(?:is )?required\b[.]?\s*$", re.IGNORECASE)
_OPTION = re.compile(r"(?:^|[\s\"'`(=\[])--?[\w-]*\Z")
_NO_VALUE_AFTER = re.compile(r"(?:[uU]nexpected |:secretsmanager:[\w-]*:\d*:)\Z")
"""What is said of a parser's token, and of a secret's name in an ARN."""

_FIRST_OF_LIST = re.compile(r"[\[(][ \t]*[bru]?\\*[\"'][\w.-]*\Z")
_LAST_OF_LIST = re.compile(r"\\{0,63}[\"'][ \t]*[\])]|\Z")
_TOLD_SECRET = re.compile(r"[A-Za-z]\S*\d|\d\S*[A-Za-z]|\d{4}|[@#$%^&*+=~_!]")
"""What words about passwords do not look like."""


@dataclass(frozen=True, slots=True)
class Names:
    """Names whose values are secret, without regard to case, `_` and `-`, and also where they end a longer name."""

    plain: frozenset[str]
    short: tuple[str, ...]
    long: tuple[str, ...]
    in_text: re.Pattern[str] | None
    element: re.Pattern[str] | None
    member: re.Pattern[str] | None
    member_before: re.Pattern[str] | None

    @classmethod
    def of(cls, names: Iterable[str]) -> "Names":
        plain = frozenset(_plain(name) for name in names) - {""}
        if not plain:
            return cls(plain, (), (), None, None, None, None)
        long = tuple(each for name in plain if len(name) >= _SHORT_NAME for each in (name, f"{name}s"))
        naming = r"(?:name|key|field|header|parameter)\\{0,63}[\"']?\s{0,8}[:=]\s{0,8}\\{0,63}[\"'][\w.-]{0,40}?"
        name = f"(?P<name>{_any_of({*plain, *long})}){_SUFFIX}"
        return cls(
            plain,
            tuple(plain - set(long)),
            long,
            in_text=re.compile(name + _AFTER_NAME),
            element=re.compile(rf"<(?:[\w.-]{{1,40}}:)?[\w.-]{{0,40}}?{name}(?:\s[^<>]{{0,100}})?>"),
            member=re.compile(
                rf"{naming}{name}\\{{0,63}}[\"'][^{{}}<>]{{0,80}}?"
                r"(?:(?<!\w)(?:string)?values?\\{0,63}[\"']?\s{0,8}[:=]\s{0,8}|/?>(?!\s*<))"
            ),
            member_before=re.compile(
                r"values?\\{0,63}[\"']?\s{0,8}[:=]\s{0,8}\\{0,63}[\"'](?P<value>[^\"'{}]{0,400}?)\\{0,63}[\"'],?\s{0,8}"
                rf"\\{{0,63}}[\"']?{naming}{name}\\{{0,63}}[\"']"
            ),
        )

    def hold(self, name: str) -> bool:
        """Whether a field of this name is secret."""
        name = name[-_LONGEST_KEY:]
        plain = _plain(name)
        whole = _SUFFIX_OF_KEY.sub("", plain)
        if plain in self.plain or whole in self.plain or plain.endswith(self.long) or whole.endswith(self.long):
            return True
        if not whole.endswith(self.short):
            return False
        words = [_folded(word) for word in _WORDS.findall(name)]
        if len(words) > 1 and words[-1] in _SUFFIXES:
            del words[-1]
        return bool(words) and words[-1] in self.plain

    def values_in(self, text: str) -> Iterator[Span]:
        """The values of these names. What is yielded may be empty: something was looked at."""
        if not (self.in_text and self.element and self.member and self.member_before and _ASSIGNS.search(text)):
            return
        folded = _folded(text)
        line = _Line(text)
        at = 0
        while match := self.in_text.search(folded, at):
            span = _value_of(text, match, line) if _begins_a_word(text, match) else None
            at = max(match.end(), span[1]) if span else match.end("name")
            yield span or (at, at)
        at = 0
        while match := self.element.search(folded, at):
            inside = text.find("]]>", match.end()) if text.startswith("<![CDATA[", match.end()) else match.end()
            end = text.find("</", inside) if inside >= 0 else -1
            at = len(text) if end < 0 else end
            yield match.end(), at
        for match in self.member_before.finditer(folded):
            yield match.span("value")
        at = 0
        while match := self.member.search(folded, at):
            value = _delimited(text, match.end()) or (match.end(), _end(_UP_TO_A_TAG, text, match.end()))
            at = max(match.end(), value[1])
            yield value


def _any_of(names: Iterable[str]) -> str:
    """A pattern of the names, the longest first, in which a beginning that several share is looked at once."""
    rests: dict[str, list[str]] = {}
    for name in names:
        rests.setdefault(name[:1], []).append(name[1:])
    ends_here = rests.pop("", None)
    branches = "|".join(re.escape(letter) + _more_of(rest) for letter, rest in rests.items())
    return (f"(?:{branches})?" if ends_here else f"(?:{branches})") if branches else ""


def _more_of(rests: list[str]) -> str:
    rest = _any_of(rests)
    optional = rest.endswith("?")
    return f"(?:{_BETWEEN}{rest[:-1]})?" if optional else f"{_BETWEEN}{rest}" if rest else ""


class _Line:
    """Whether a place is within a JSON string that began on its line. Places are asked for in their order."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._quotes = 0

    def within_string(self, place: int) -> bool:
        newline = self._text.rfind("\n", self._at, place)
        if newline >= 0:
            self._at, self._quotes = newline, 0
        self._quotes += self._text.count('"', self._at, place) - self._text.count('\\"', self._at, place)
        self._at = place
        return self._quotes % 2 == 1


def _folded(text: str) -> str:
    """In small letters, and as long as before."""
    return text.replace("\u0130", "i").replace("\u017f", "s").lower()


def _plain(name: str) -> str:
    return _SEPARATORS.sub("", _folded(name))


def _begins_a_word(text: str, match: re.Match[str]) -> bool:
    """Whether the name stands by itself, if it is short; `text` in its own spelling, with its camelCase."""
    start, end = match.span("name")
    if start == 0 or end - start >= _SHORT_NAME:
        return True
    before = text[start - 1]
    return not before.isalnum() or (text[start].isupper() and not before.isupper())


def _value_of(text: str, match: re.Match[str], line: _Line) -> Span | None:
    start = match.end()
    before = text[max(0, match.start() - _BOUNDARY_BEFORE) : match.start()]
    if match["assign"]:
        return None if _NO_VALUE_AFTER.search(before) else _assigned(text, match, line)
    if match["call"]:
        return _quoted(text, start)
    if match["pair"]:
        span = _quoted(text, start)
        if span is None or _OPTION.search(before):
            return span
        is_pair = _FIRST_OF_LIST.search(before) and _LAST_OF_LIST.match(text, span[1])
        return span if is_pair else None
    is_option = _OPTION.search(before) is not None
    if is_option or match["told"] or len(match["name"]) >= _SHORT_NAME:
        quoted = _quoted(text, start)
        if quoted:
            return quoted
    word = _WORD.match(text, start)
    if word is None:
        return None
    if match["told"]:
        return word.span() if _TOLD_SECRET.search(word[0][:_LONGEST_KEY].rstrip(".,;:!?)")) else None
    return word.span() if is_option and not word[0].startswith("-") else None


def _assigned(text: str, match: re.Match[str], line: _Line) -> Span | None:
    is_key = match["closers"][-1:] in ('"', "'")
    start = _end(_SPACE if is_key else _BLANKS, text, match.end())
    if is_key:
        if delimited := _delimited(text, start):
            return delimited
        if literal := _LITERAL.match(text, start):
            return literal.span()
        if call := _CALL.match(text, start):
            return start, _balanced(text, call.end() - 1)
    quoted = _quoted(text, start)
    if quoted and not _GOES_ON.match(text, quoted[1]):
        return quoted
    if match["assign"] == "=" and (field := _OF_QUERY.match(text, match.end())):
        return field.span()
    if match["assign"] == ":" and (block := _BLOCK.match(text, start)):
        indent = _INDENT.match(text, text.rfind("\n", max(0, match.start() - _LONGEST_KEY), match.start()) + 1)
        within = _indented(min(len(indent[0]) if indent else 0, _LONGEST_KEY) + 1).match(text, block.end())
        return (start, within.end()) if within and within[0].strip() else None
    if _REQUIRED.match(text, start, start + 60):
        return None
    if line.within_string(match.start()):
        closing = _END_OF_STRING.search(text, start)
        return start, closing.start(closing.lastindex or 0) if closing else len(text)
    end = _delimited(text, start)
    return start, _end(_LINE, text, end[1] if end else start)


def _delimited(text: str, start: int) -> Span | None:
    """A value that says itself where it ends: in quotes, or in brackets (cut off: all that follows)."""
    if text[start : start + 1] not in ("{", "["):
        return _quoted(text, start)
    try:
        return start, _DECODER.raw_decode(text, start)[1]
    except (ValueError, RecursionError):
        return start, _balanced(text, start)


def _quoted(text: str, start: int) -> Span | None:
    """What stands in the quotes that begin at `start`, which JSON may have escaped; without an end, all that follows.

    Each level of escaping makes `"` of n backslashes one of 2n + 1: what closes is a quote with as many backslashes as
    the one that opens, apart from escaped backslashes, which are the text's.
    """
    opening = _QUOTE.match(text, start)
    if opening is None:
        return None
    depth, quote = len(opening[1]), opening[2]
    inside = opening.end()
    for closing in _closers(quote).finditer(text, inside):
        slashes = len(closing[1])
        if slashes < depth or slashes % (2 * depth + 2) == depth:
            return inside, closing.end() - 1 - min(slashes, depth)
    return inside, len(text)


@cache
def _closers(quote: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\\)(\\*){quote}")


@cache
def _indented(spaces: int) -> re.Pattern[str]:
    return re.compile(rf"(?:\n(?:[ \t]{{{spaces},}}[^\n]*|[ \t]*\r?(?=\n)))*")


def _end(pattern: re.Pattern[str], text: str, start: int) -> int:
    """Where the pattern's match at `start` ends, which may be empty."""
    match = pattern.match(text, start)
    return match.end() if match else start


def _balanced(text: str, start: int) -> int:
    """Behind the bracket that closes the one at `start`; the text's end if none does."""
    depth = 0
    for bracket in _BRACKET.finditer(text, start):
        depth += 1 if bracket[0] in "[({" else -1
        if depth == 0:
            return bracket.end()
    return len(text)


_CREDENTIALS: tuple[tuple[tuple[str, ...], re.Pattern[str]], ...] = (
    (
        ("PRIVATE KEY",),
        re.compile(
            r"(-----BEGIN [A-Z0-9 ]{0,40}?PRIVATE KEY(?: BLOCK)?-----[\s\S]*?(?:-----END [A-Z0-9 ]{0,60}-----|\Z))"
        ),
    ),
    (("eyJ",), re.compile(r"(eyJ(?<![\w-]eyJ)[\w-]{5,}\.[\w-]{4,}(?:\.[\w-]*)*)")),
    (
        ("AKIA", "ASIA"),
        re.compile(
            r"(A[KS]IA(?<![A-Z0-9]A[KS]IA)[A-Z0-9]{16}(?![A-Z0-9])"
            r"(?:[\s,:;|\"'/]{1,8}[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+]))?)"
        ),
    ),
    (("://",), re.compile(r"://[^\s/?#@:\"'<>]{0,128}:([^\s/?#\"'<>]{1,256})@")),
    (
        ("earer", "EARER"),
        re.compile(
            r"B(?<!\wB)(?:earer|EARER)[ \t]{1,8}(?!(?:tokens?|of|auth\w*|scheme|is|realm)\b)([^\s\"'\\,;<>)]+)"
            r"|b(?<!\wb)earer[ \t]{1,8}((?=[A-Za-z._~+/-]{0,64}\d)[\w.~+/=-]{4,}|[\w.~+/=-]{20,})"
        ),
    ),
    (
        ("asic ", "ASIC "),
        re.compile(
            r"[Bb](?<!\w[Bb])(?:asic|ASIC)[ \t]{1,8}"
            r"((?=[a-z+/]{0,64}[A-Z0-9])(?:[\w+/]{4}){2,}(?:[\w+/]{2,3}={1,2})?)(?![\w+/])"
        ),
    ),
    (
        ("dentified", "DENTIFIED"),
        re.compile(
            r"[iI](?<!\w[iI])(?i:dentified\b[^\n'\";]{0,60}?\bby)[ \t]{1,8}(?i:(?:values?|password)[ \t]{1,8})?"
            r"([^\s;]{1,256})"
        ),
    ),
    (("-u ", "--user"), re.compile(r"-(?<![\w-]-)(?:u|-user)[ =]{1,8}[\"']?[^\s:\"']{1,128}:([^\s\"']+)")),
)
# What must be in the text, and what to look for then, whose group is the secret. A pattern begins with a letter of its
# own, and looks behind from there: that is found ten times as fast as a place that looks like a beginning.
_HINTS = re.compile("|".join(hint for hints, _ in _CREDENTIALS for hint in hints))


def credentials(text: str) -> Iterator[Span]:
    """Credentials by their form: private keys in PEM, JSON Web Tokens, AWS access keys, HTTP authorization, passwords
    in URLs, of curl, and in SQL.
    """
    if not _HINTS.search(text):
        return
    for hints, pattern in _CREDENTIALS:
        if any(hint in text for hint in hints):
            for match in pattern.finditer(text):
                span = match.span(match.lastindex or 0)
                yield _quoted(text, span[0]) or span
