"""Whether two texts say the same, and whether two keys are one. In doubt they differ: better a fact that is kept twice
than one that is lost.

No list of negations is complete in every language, and embeddings put a sentence beside its opposite. So texts are the
same only if nothing differs but what carries no meaning in any language; whether two sentences mean the same is for a
model to judge (the merge rule MODEL).
"""

import re
import unicodedata
from functools import lru_cache

from turnwright.memory.records.terms import MOST_MARKS

_TO_NOTHING = dict.fromkeys(
    map(ord, "\u00ad\u061c\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff")
)
"""What is not seen and not spoken: marks of direction, of where a line may break. Joiners are spelling and stay."""

_TELLING = ("<super>", "<sub>", "<fraction>", "<circle>", "<square>", "<font>")
"""Compatibility forms that say more than their letters: m² is not m2."""

_SUBJECT = re.compile(r"(?:(?:the )?user )+", re.IGNORECASE)
_ENDS = ".!;, \u3002\u0964\u06d4"
"""Marks at a sentence's end, those of Chinese and Japanese, Hindi and Urdu too; no question mark and no sign."""

_LONG_RUN = re.compile(rf"[^\w\s\x00-\x7f]{{{MOST_MARKS + 1},}}")
_JOINER = "\u034f"
"""The combining grapheme joiner, which is not seen: no mark is ordered across it."""

_KEY_SEPARATOR = re.compile(r"[\s_]+")
_HYPHENS = "-\u2010\u2011"


MOST_COMPARED = 1_000
"""Characters. A fact is a short sentence; a longer text is the same as another only if each character of it is, since
a new fact is compared with all records of its namespace.
"""


def normalized(text: str) -> str:
    """The text without what changes nothing: white space, the mark at its end, the case of its first letter, the words
    "the user" that it begins with, the form of a letter.
    """
    return text if len(text) > MOST_COMPARED else _normalized(text)


@lru_cache(maxsize=4_096)
def _normalized(text: str) -> str:
    plain = " ".join(_plain(text).split())
    plain = plain.rstrip(_ENDS) or plain
    plain = _SUBJECT.sub("", plain, count=1) if _SUBJECT.match(plain) else plain
    return unicodedata.normalize("NFC", plain[:1].lower() + plain[1:])


@lru_cache(maxsize=4_096)
def normalized_key(key: str) -> str:
    """`Reporting Currency`, `reporting-currency` and `reporting_currency` are one key.

    A hyphen parts words only between two letters; before a digit and at the end it is a sign. Every other sign, accent
    and vowel sign stays: `c++`, `c#` and `c`, `.net` and `net`, `-5` and `5`, `a+` and `a-` are keys of their own.
    """
    plain = unicodedata.normalize("NFC", _plain(key).lower())
    spaced = "".join(" " if _parts_words(plain, place) else letter for place, letter in enumerate(plain))
    return "_".join(filter(None, _KEY_SEPARATOR.split(spaced))) or key


def _parts_words(text: str, place: int) -> bool:
    return text[place] in _HYPHENS and _is_letter(text[place - 1 : place]) and _is_letter(text[place + 1 : place + 2])


def _is_letter(character: str) -> bool:
    """Whether it is a letter or a mark upon one."""
    return character != "" and unicodedata.category(character)[0] in "LM"


def _plain(text: str) -> str:
    """The text in one form of its letters: composed, of usual width, without what is not seen.

    To put marks into their order takes the square of their number, so that long runs of them are parted, as in
    Unicode's Stream-Safe Text Format (UAX #15).
    """
    if text.isascii():
        return text
    composed = unicodedata.normalize("NFC", _LONG_RUN.sub(_parted, text.translate(_TO_NOTHING)))
    forms = {ord(character): form for character in set(composed) if (form := _usual_form(character)) != character}
    return unicodedata.normalize("NFC", composed.translate(forms)) if forms else composed


def _parted(run: re.Match[str]) -> str:
    marks = run[0]
    return _JOINER.join(marks[start : start + MOST_MARKS] for start in range(0, len(marks), MOST_MARKS))


@lru_cache(maxsize=4_096)
def _usual_form(character: str) -> str:
    form = unicodedata.decomposition(character)
    if form.startswith("<") and not form.startswith(_TELLING):
        return unicodedata.normalize("NFKC", character)
    return character
