"""Where secrets stand in a text that is no JSON: the values of names that are said to be secret, and credentials that
are known by their form.

A text is searched for names once, and what surrounds a name says where its value is: behind a separator, as the next
of a list or an option's argument, in the element, or beside the name in a member called `value`. One function says
where a value ends: one in quotes with them, one in brackets with those. Where a bare value ends nobody can know: it
takes the line and what is indented below it, except where an `&` separates the fields of a query, and within a JSON
string, which the text may be a piece of.

A character is looked at a bounded number of times: quantifiers are bounded, or what they took is not looked at again.
"""

import re
import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

Span = tuple[int, int]

_SHORT_NAME = 6
"""A name of fewer letters counts as a word of its own only: `pin` is no part of `shipping`, nor `token` of `tokens`."""

_SIGNS = 10_000
"""So many brackets and quotes within values are looked at; behind them all that follows is taken."""

_LONGEST_KEY = 200
_BEFORE = 128
_LONGEST_NAMING = 80
_MOST_SLASHES = 128
_FROM_VALUE_TO_NAME = 400
_FAR = 2_000
_DEEP = 32
_ASSIGNS = re.compile(r"[\s=:：(,>]")
"""Without any of these no name has a value."""

_B = r"(?:[ \t]|\\\r?\n)"
"""A blank. In a shell a line goes on behind a backslash."""

_Q = r"\\{0,63}[\"']"
_IS = r"\s{0,8}[:=]\s{0,8}"
_SEPARATORS = re.compile(r"[\W_]+")
_SUFFIX = r"(?:[-_ ]?(?:value|text|string|str|plain|raw|\d{1,3}))?(?:\[[^\[\]\n]{1,32}\]){0,3}"
_AFTER_NAME = (
    r"(?![^\W_])(?P<closers>[\\\"'`*_\])}]{0,80}+)(?:"
    rf"(?:{_B}{{1,16}}(?:is|was))?{_B}{{0,16}}(?P<assign>[?+:!]?=[=>~]?|:{{1,2}}|->|：)"
    rf"|(?P<call>\(\s{{0,16}}(?=[bruf]{{0,2}}{_Q}))"
    rf"|{_B}{{1,16}}(?P<told>(?:is|was){_B}{{1,16}})"
    rf"|[ \t]{{0,4}}(?P<pair>,\s{{0,8}}(?=[bru]{{0,2}}{_Q}|[\d-]))"
    rf"|(?P<space>{_B}{{1,16}})"
    r"|(?=[\s<>/;&,]|\Z))"
)
_NAMING_WORDS = ("name", "key", "field", "header", "parameter")
"""Members that name what their neighbour `value` is, as in Bedrock's parameters and in AWS's tags."""

_NAMING = re.compile(rf"(?:(?:{'|'.join(_NAMING_WORDS)})(?:{_Q})?{_IS}|<(?:name|key)>\s{{0,8}})(?:{_Q})?\Z")
_TAG_BEFORE = re.compile(r"<(?:[\w.-]{1,40}:)?\Z")
_NEIGHBOUR = re.compile(
    rf"(?P<between>[^{{}}<>]{{0,160}}?)values?(?P<closer>{_Q})?{_IS}"
    r"|[^{}<>]{0,160}?(?<!/)>(?P<inside>)"
    r"|</[^<>]{1,80}>\s{0,80}<[^<>/]{1,80}>"
)
_ENTRY = re.compile(r"\n[ \t]*-[ \t]")
_VALUE_BEFORE = re.compile(
    rf"values?(?:{_Q})?{_IS}(?:{_Q})?(?P<value>[^{{}}<>]*?)(?:{_Q})?[,;\s]{{0,40}}(?:{_Q})?[\w.-]{{0,40}}\Z"
)
_TAG = re.compile(r"<([\w.:-]{1,80})")
_WITHIN_TAG = re.compile(r"\s*(?:<[^<>/][^<>]{0,80}>\s*)?")
_UP_TO_A_TAG = re.compile(r"[^<\n]*")
_VOID = ("input", "meta", "param")
"""Elements of HTML that nothing is within."""

_QUOTE = re.compile(r"[bBrRuUfF]{0,2}(\\{0,63})([\"'])")
_LITERAL = re.compile(r"-?\d[\d.eE+-]*(?=\s*(?:[,}\])]|$))")
_NOTHING = re.compile(r"(?i:true|false|null|none|nil|undefined)(?=[ \t]*(?:[\r\n,;&<})\]\"'\\]|\Z))")
_CALL = re.compile(r"[\w.]{1,80}\(")
_SIGN = re.compile(r"\\.|\"(?:[^\"\\]|\\.)*+\"?|(?<!\w)'(?:[^'\\\n]|\\.)*+'|[\[\](){}]", re.DOTALL)
_BLANKS = re.compile(rf"{_B}*")
_SPACE = re.compile(r"\s*")
_LINE = re.compile(r"(?:[^\n\\]+|\\\r?\n|\\)*+")
_OF_QUERY = re.compile(r"[^\s&\"\\]*+(?=&(?:amp;)?[\w.~%\[\]-]{1,100}=)")
_GOES_ON = re.compile(r"\\*(?:\"{3}|'{3}|[\"'])[\w\\\"']")
"""Behind a value in quotes: a shell puts such pieces together."""

_JOINED = re.compile(
    r"[ \t]{0,80}(?:\+\s{0,80}|(?:\.|&|\|\||\\\r?\n)\s{0,80}(?=[bruf]?[\"']))|[ \t]{1,8}(?=[\"']\w)"
    r"|(?:\"'\"|\\')(?=')"
)
"""Between two pieces of a value that are in quotes; last the `'` that a shell cannot have within them."""

_MASKED = r"\[[A-Z]+\]"
"""What was taken out before, which stays as it is."""

_WORD = re.compile(rf"{_MASKED}|(?:[^\s\\]|\\.)+", re.DOTALL)
_BLOCK = re.compile(r"[ \t]*(?:[>|][-+\d]{0,2}[ \t]*|[!&][^\s]*[ \t]*){0,3}(?:#[^\n]*)?\r?(?=\n)")
"""What YAML has on the line of a name whose value is below."""

_INDENT = re.compile(r"[ \t]*(?:-[ \t]+)*")
_END_OF_STRING = re.compile(r'(?<!\\)(?:\\\\)*(\\r|\\n|")|(?<!\\)(\n)|(\Z)')
_DIAGNOSIS = re.compile(
    r"(?i:(?:un)?expected\b|(?:(?:this|the) )?(?:(?:field|value) )?(?:"
    r"(?:must|should|cannot|may)(?: not)? (?:be|have|contain|match)\b"
    r"|(?:(?:is|was) )?(?:missing|required|invalid|expired|empty|not (?:known|set|given|found|provided))"
    r"(?=[.;,:)]{0,2}(?:[\s\"'<&]|\\[nrt\"']|\Z))))"
)
"""What is said of a field, such as a tool's argument, where its value would stand."""

_NOT_FOUND = re.compile(r"(?i:[a-z./_-]{1,128} (?:(?:is|was) )?not found\b)")
"""What is said of a secret that has a name."""

_PREFIX = f"{string.ascii_lowercase}{string.digits}_-./"
_BEFORE_OPTION = ("", *" \t\r\n\"'`(=[")
_NO_VALUE_AFTER = re.compile(r"(?:unexpected |:secretsmanager:[\w-]*:\d*:)\Z")
"""What is said of a parser's token, and of a secret's name in an ARN."""

_FIRST_OF_LIST = re.compile(rf"[\[(]\s*[bru]?{_Q}\Z")
_LAST_OF_LIST = re.compile(rf"(?:{_Q})?\s*[\])]|\Z")
_TOLD_SECRET = re.compile(r"[A-Za-z]\S*\d|\d\S*[A-Za-z]|\d{3}|[@#$%^&*+=~_!]")
"""What words about passwords do not look like."""


@dataclass(frozen=True, slots=True)
class Names:
    """Names whose values are secret, without regard to case, `_` and `-`, and also where they end a longer name."""

    in_text: re.Pattern[str] | None
    at_end: re.Pattern[str] | None

    @classmethod
    def of(cls, names: Iterable[str]) -> "Names":
        plain = {_SEPARATORS.sub("", _folded(name)) for name in names} - {""}
        if not plain:
            return cls(None, None)
        plurals = {f"{name}s" for name in plain if len(name) >= _SHORT_NAME}
        name = f"(?P<name>{_any_of(plain | plurals)}){_SUFFIX}"
        return cls(re.compile(name + _AFTER_NAME), re.compile(rf"{name}[\W_]{{0,16}}\Z"))

    def hold(self, name: str) -> bool:
        """Whether a field of this name is secret."""
        name = name[-_LONGEST_KEY:]
        match = self.at_end.search(_folded(name)) if self.at_end else None
        return match is not None and _begins_a_word(name, match)

    def values_in(self, text: str) -> Iterator[Span]:
        """The values of these names. What is yielded may be empty: something was looked at."""
        if not (self.in_text and _ASSIGNS.search(text)):
            return
        folded = _folded(text)
        reading, at = None, 0
        while match := self.in_text.search(folded, at):
            at = match.end("name")
            reading = reading or _Reading(text, folded)
            span = reading.value_of(match) if _begins_a_word(text, match) else None
            if span:
                at = max(at, span[1])
            yield span or (at, at)


def names_its_neighbour(key: str) -> bool:
    """Whether a member of this name says what its neighbour is: `ParameterKey`, `name`."""
    return _folded(key).endswith(_NAMING_WORDS)


def is_named_by_its_neighbour(key: str) -> bool:
    """Whether it is the other's value: `ParameterValue`, `values`."""
    return _folded(key).endswith(("value", "values"))


def _any_of(names: Iterable[str]) -> str:
    """A pattern of the names, the longest first, in which a beginning that several share is looked at once."""
    rests: dict[str, list[str]] = {}
    for name in names:
        rests.setdefault(name[:1], []).append(name[1:])
    ends_here = rests.pop("", None)
    branches = "|".join(re.escape(letter) + _more_of(rest) for letter, rest in sorted(rests.items()))
    return (f"(?:{branches})?" if ends_here else f"(?:{branches})") if branches else ""


def _more_of(rests: list[str]) -> str:
    rest = _any_of(rests)
    optional = rest.endswith("?")
    between = "[-_ ]{0,2}+"
    return f"(?:{between}{rest[:-1]})?" if optional else f"{between}{rest}" if rest else ""


def _folded(text: str) -> str:
    """In small letters, and as long as before."""
    return text.lower() if text.isascii() else text.replace("\u0130", "i").replace("\u017f", "s").lower()


def _begins_a_word(text: str, match: re.Match[str]) -> bool:
    """Whether the name stands by itself, if it is short; `text` in its own spelling, with its camelCase."""
    start, end = match.span("name")
    if start == 0 or end - start >= _SHORT_NAME:
        return True
    before = text[start - 1]
    return not before.isalnum() or (text[start].isupper() and not before.isupper())


class _Reading:
    """One way through a text. Names are asked for in their order."""

    def __init__(self, text: str, folded: str) -> None:
        self.text = text
        self.folded = folded
        self._signs = _SIGNS
        self._counted_to = 0
        self._quotes = 0

    def value_of(self, match: re.Match[str]) -> Span | None:
        """The value of the name that was found."""
        name, start = match.start(), match.end()
        before = self.folded[max(0, name - _BEFORE) : name]
        if match["assign"]:
            if _NO_VALUE_AFTER.search(before):
                return None
            if match["name"] in ("secret", "secrets") and _NOT_FOUND.match(self.text, _end(_BLANKS, self.text, start)):
                return None
            return self._value(name, start, is_key=match["closers"][-1:] in ('"', "'"), assign=match["assign"])
        outside = before.rstrip(_PREFIX)
        if neighbour := self._neighbour(match, outside[-_LONGEST_NAMING:]):
            return neighbour
        if match["call"]:
            return self.quoted(start)
        is_option = before[len(outside) :].startswith("-") and outside[-1:] in _BEFORE_OPTION
        if match["pair"]:
            span = self.quoted(start) or _span(_LITERAL, self.text, start)
            if span is None or is_option:
                return span
            return span if _FIRST_OF_LIST.search(outside) and _LAST_OF_LIST.match(self.text, span[1]) else None
        if is_option or match["told"] or len(match["name"]) >= _SHORT_NAME:
            quoted = self.quoted(start)
            if quoted:
                return quoted
        word = _WORD.match(self.text, start) if is_option or match["told"] else None
        if word is None:
            return None
        if match["told"]:
            return word.span() if _TOLD_SECRET.search(word[0][:_LONGEST_KEY].rstrip(".,;:!?)")) else None
        return None if word[0].startswith("-") else word.span()

    def _neighbour(self, match: re.Match[str], outside: str) -> Span | None:
        """The value where the name is a value itself, or an element's: `"key": "password", "value": "x"`."""
        is_tag = _TAG_BEFORE.search(outside) is not None
        naming = None if is_tag else _NAMING.search(outside)
        if not is_tag and naming is None:
            return None
        found = _NEIGHBOUR.match(self.folded, match.end("closers"))
        if found is None or _ENTRY.search(found["between"] or ""):
            return self._value_before(self.folded.rfind(naming[0], 0, match.start())) if naming else None
        if found["between"] is None:
            opened = max(0, match.start() - _BEFORE) if found["inside"] is not None else match.end()
            return self._content(self.folded.rfind("<", opened, found.end()), found.end(), is_tag)
        return self._value(match.start(), found.end(), is_key=bool(found["closer"]), assign="=")

    def _value_before(self, naming: int) -> Span | None:
        first = max(0, naming - _FROM_VALUE_TO_NAME)
        value = self.folded.rfind("value", first, naming)
        found = _VALUE_BEFORE.match(self.folded, value, naming) if value >= 0 else None
        return found.span("value") if found else None

    def _content(self, tag: int, start: int, is_own: bool) -> Span | None:
        """What is within the element whose tag begins at `tag` and ends at `start`."""
        opened = _TAG.match(self.folded, tag) if tag >= 0 else None
        if opened is None or opened[1] in _VOID:
            return None
        cdata = self.text.find("]]>", start) if self.text.startswith("<![CDATA[", start) else start
        if cdata < 0:
            return start, len(self.text)
        end = self.folded.find(f"</{opened[1]}", cdata, len(self.text) if is_own else cdata + _FAR)
        if end < 0:
            end = len(self.text) if is_own else _end(_UP_TO_A_TAG, self.text, _end(_WITHIN_TAG, self.text, start))
        return start, end

    def _value(self, name: int, start: int, *, is_key: bool, assign: str) -> Span | None:
        """The value that begins behind the blanks at `start`, of a name (a JSON key, or a bare word) at `name`."""
        text = self.text
        begin = _end(_SPACE if is_key else _BLANKS, text, start)
        if _NOTHING.match(text, begin):
            return None
        value = self._bracketed(begin) or self.quoted(begin)
        if is_key:
            if value or (value := _span(_LITERAL, text, begin)):
                return value
            begin = _end(_BLANKS, text, start)
        elif value and value[0] > begin and not _GOES_ON.match(text, value[1]):
            return value
        if "=" in assign and (field := _OF_QUERY.match(text, start)):
            return field.span()
        if _DIAGNOSIS.match(text, begin):
            return None
        below = _BLOCK.match(text, begin)
        if self._is_within_string(name) and not below:
            closing = _END_OF_STRING.search(text, value[1] if value else begin)
            end = closing.start(closing.lastindex or 0) if closing else len(text)
        else:
            end = _end(_LINE, text, value[1] if value else begin)
        far = max(0, name - _LONGEST_KEY)
        line = max(far, text.rfind("\n", far, name) + 1)
        indent = _INDENT.match(text, line, name)
        end = _end(_indented(min(len(indent[0]) if indent else 0, _DEEP), below is not None), text, end)
        end = begin + len(text[begin:end].rstrip())
        return (begin, end) if end > begin else None

    def _bracketed(self, start: int) -> Span | None:
        """A value in brackets, and a call (cut off: all that follows)."""
        if self.text[start : start + 1] in ("{", "[", "("):
            return start, self._balanced(start)
        call = _CALL.match(self.text, start)
        return (start, self._balanced(call.end() - 1)) if call else None

    def _balanced(self, start: int) -> int:
        """Behind the bracket that closes the one at `start`; the text's end if none does."""
        depth = 0
        for sign in _SIGN.finditer(self.text, start):
            self._signs -= 1
            if self._signs <= 0:
                break
            first = sign[0][0]
            depth += 1 if first in "[({" else -1 if first in "])}" else 0
            if depth == 0:
                return sign.end()
        return len(self.text)

    def quoted(self, start: int) -> Span | None:
        """What stands in the quotes that begin at `start`, and in those that are joined to it."""
        string = self._string(start)
        if string is None:
            return None
        inside, end, behind = string
        while joined := _JOINED.match(self.text, behind):
            piece = self._string(joined.end())
            if piece is None:
                return start, _end(_LINE, self.text, behind)
            _, end, behind = piece
        return inside, end

    def _string(self, start: int) -> tuple[int, int, int] | None:
        """Where the string at `start` begins within its quotes, which JSON may have escaped, where it ends within them,
        and behind them; without an end, all that follows.

        Each level of escaping makes `"` of n backslashes one of 2n + 1: what closes is a quote with as many backslashes
        as the one that opens, apart from escaped backslashes, which are the text's.
        """
        opening = _QUOTE.match(self.text, start)
        if opening is None:
            return None
        depth, quote = len(opening[1]), opening[2]
        inside, size = opening.end(), len(self.text)
        mark = opening[1] + quote
        if self.text.startswith(mark * 2, inside):
            inside += 2 * len(mark)
            end = self.text.find(mark * 3, inside)
            return (inside, end, end + 3 * len(mark)) if end >= 0 else (inside, size, size)
        at = self.text.find(quote, inside)
        while at >= 0 and self._signs > 0:
            self._signs -= 1
            before = self.text[max(inside, at - _MOST_SLASHES) : at]
            slashes = len(before) - len(before.rstrip("\\"))
            if quote == "'" and not slashes and at > inside and self.text.startswith("''", at):
                at += 1  # SQL and YAML double it
            elif slashes < depth or (slashes < _MOST_SLASHES and slashes % (2 * depth + 2) == depth):
                return inside, at - min(slashes, depth), at + 1
            at = self.text.find(quote, at + 1)
        return inside, size, size

    def _is_within_string(self, place: int) -> bool:
        """Whether a place is within a JSON string that began on its line."""
        newline = self.text.rfind("\n", self._counted_to, place)
        if newline >= 0:
            self._counted_to, self._quotes = newline, 0
        between = self.text.count('"', self._counted_to, place) - self.text.count('\\"', self._counted_to, place)
        self._quotes += between
        self._counted_to = place
        return self._quotes % 2 == 1


@cache
def _indented(spaces: int, is_block: bool) -> re.Pattern[str]:
    """The lines that are indented by more; and below a line that has only a name, the entries of a list."""
    entry = rf"|[ \t]{{{spaces}}}-[ \t\r\n][^\n]*" if is_block else ""
    return re.compile(rf"(?:\n(?:[ \t]{{{spaces + 1},}}[^\n]*{entry}|[ \t]*\r?(?=\n)))*")


def _end(pattern: re.Pattern[str], text: str, start: int) -> int:
    """Where the pattern's match at `start` ends, which may be empty."""
    match = pattern.match(text, start)
    return match.end() if match else start


def _span(pattern: re.Pattern[str], text: str, start: int) -> Span | None:
    match = pattern.match(text, start)
    return match.span() if match else None


_CREDENTIALS = tuple(
    (hint, re.compile(pattern))
    for hints, pattern in (
        (
            ("PRIVATE KEY",),
            r"(-----BEGIN [A-Z0-9 ]{0,40}?PRIVATE KEY(?: BLOCK)?-----[\s\S]*?(?:-----END [A-Z0-9 ]{0,60}-----|\Z))",
        ),
        (("eyJ",), r"(eyJ(?<![\w-]eyJ)[\w-]{5,}\.[\w-]{4,}(?:\.[\w-]*)*)"),
        (
            ("AKIA", "ASIA"),
            (
                r"(A[KS]IA(?<![A-Z0-9]A[KS]IA)[A-Z0-9]{16}(?![A-Z0-9])"
                r"(?:[\s,:;|\"'/]{1,8}[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+]))?)"
            ),
        ),
        (
            ("://",),
            (
                r"://(?:(?i:(?<=http://)|(?<=https://))([^\s/?#@:\"'<>]{20,}:[^\s/?#\"'<>]+|[^\s/?#@:\"'<>]+)@"
                r"|[^\s/?#@:\"'<>]*:([^\s/?#\"'<>]+)@)"
            ),
        ),
        (
            ("earer", "EARER"),
            (
                r"B(?<!\wB)(?:earer|EARER)[ \t]{1,8}(?!(?i:tokens?|of|auth\w*|scheme|is|realm)\b)"
                rf"((?:{_Q})?[^\s\"'\\,;<>)]+)"
                rf"|b(?<!\wb)earer[ \t]{{1,8}}({_Q}[^\s\"'\\,;<>)]+|(?=[A-Za-z._~+/-]{{0,64}}\d)[\w.~+/=-]{{4,}}"
                r"|[\w.~+/=-]{20,})"
            ),
        ),
        (
            ("asic ", "ASIC "),
            (
                r"[Bb](?<!\w[Bb])(?:asic|ASIC)[ \t]{1,8}"
                rf"((?:{_Q})?(?=[a-z+/]{{0,64}}[A-Z0-9])(?:[\w+/]{{4}}){{2,}}(?:[\w+/]{{2,3}}={{1,2}})?)(?![\w+/])"
            ),
        ),
        (
            ("dentified", "DENTIFIED"),
            (
                r"[iI](?<!\w[iI])(?i:dentified\s{1,8}+(?:with\s{1,8}+\S{1,64}+\s{1,8}+)?(?:by|as)\s{1,8}+"
                rf"(?:(?:values?|password)[ \t]{{1,8}})?)"
                rf"({_MASKED}|{_Q}[^\s;]|(?=\S{{0,64}}\d)[^\s;,]+|(?:(?<=BY )|(?<=AS ))[^\s;]+)"
            ),
        ),
        (
            ("dentified",),
            r"(?i:user[ \t]{1,8}\S{1,128}\s{1,8}identified[ \t]{1,8}by)[ \t]{1,8}([^\s;]+)",
        ),
        (
            ("-u", "-U"),
            (
                r"-(?<![^\s\"'`(\[,=]-)"
                r"(?:[uU][ =\t\"',\\]{0,16}|-(?i:(?:proxy-)?user)[ =\t\"',\\]{1,16})"
                r"(?!\d+:\d+(?![^\s\"'])|\w+://)"
                rf"(?:(?<=[\"'])[^\s:\"'`(\[,=+]{{1,128}}:([^\"'\\]+)|[^\s:\"'`(\[,=+]{{1,128}}:({_MASKED}|[^\s\"'\\]+))"
            ),
        ),
    )
    for hint in hints
)
"""What must be in the text, and what to look for then, whose group is the secret. A pattern begins with a letter of its
own, and looks behind from there: that is found ten times as fast as a place that looks like a beginning."""


def is_option_of_credentials(argument: str) -> bool:
    """Whether the next argument is `user:password`."""
    return argument in ("-u", "-U", "--user", "--proxy-user")


def credentials(text: str) -> Iterator[Span]:
    """Credentials by their form: private keys in PEM, JSON Web Tokens, AWS access keys, HTTP authorization, what stands
    before a URL's host, and passwords of curl and in SQL.
    """
    searched = None
    for hint, pattern in _CREDENTIALS:
        if hint in text and pattern != searched:
            searched = pattern
            for match in pattern.finditer(text):
                span = match.span(match.lastindex or 0)
                yield _Reading(text, "").quoted(span[0]) or span
