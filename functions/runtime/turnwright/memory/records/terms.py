"""How a text is cut into what search compares: words, and n-grams of their letters. Pure, and the one place of it.

A word is a run of letters, digits and the marks that stand upon or around letters, since in Hindi, Thai or Khmer a
vowel is such a mark. What may as well be left unwritten is left out, in texts and in queries alike: case, accents, the
vowel points of Arabic and Hebrew. `C++`, `C#` and `A+` are words of their own beside their letters.

| script | n-grams |
| --- | --- |
| with spaces between words | trigrams of each word with its ends: `^te`, `tea`, `ea$` |
| Chinese, Japanese: none, and words of one or two characters | pairs, and each ideograph |
| Thai, Lao, Khmer, Burmese: none, and words of several letters | pairs and trigrams |
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

_NOT_ASCII = re.compile(r"[^\w\x00-\x7f]")
_WORD = re.compile(r"([^\x00-\x2f\x3a-\x40\x5b-\x5e\x60\x7b-\x7f]+)([+#]*)")
"""A word and the signs behind it, of a text in which every sign beyond ASCII that parts words is a space."""

MOST_MARKS = 30
"""Marks upon one letter that are looked at: no language has more (Unicode, UAX #15, Stream-Safe Text Format)."""

_LONG_RUN = re.compile(rf"([^\w\s\x00-\x7f]{{{MOST_MARKS}}})[^\w\s\x00-\x7f]+")
_MOST_LETTERS = 4
"""That one character is taken apart into, on the average of a word: U+FDFA alone are 18."""

_IDENTIFIER = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|\d+")
_JOINERS = "\u200c\u200d"
_PARTING = "\u200b"
"""The space without width, which Khmer and Thai texts put between words."""

_STRETCHING = "\u0640"
"""Lengthens a line of Arabic letters and says nothing."""

_WRITTEN_MARKS = frozenset({0, 8, 9, 84, 91, 103, 107, 118, 122, 129, 130, 132})
"""The canonical combining classes of marks that are written like letters: vowel signs and tones of Indic and Southeast
Asian scripts, kana's voicing. Accents and points have others (Unicode, UnicodeData.txt).
"""

_IDEOGRAPHIC = (
    r"\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3038-\u303c\u3041-\u30ff\u3105-\u312f\u31a0-\u31ff\u3400-\u4dbf"
    r"\u4e00-\u9fff\ua000-\ua4cf\uf900-\ufaff\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
_SOUTHEAST_ASIAN = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\ua9e0-\ua9ff\uaa60-\uaadf"
_RUN = re.compile(
    rf"(?P<ideographic>[{_IDEOGRAPHIC}]+)|(?P<southeast_asian>[{_SOUTHEAST_ASIAN}]+)"
    rf"|(?P<spaced>[^{_IDEOGRAPHIC}{_SOUTHEAST_ASIAN}]+)"
)
_KANA = re.compile(r"[\u3041-\u30ff\u3105-\u312f\u31a0-\u31ff]")


def words(text: str) -> list[str]:
    """The words without case and accents; the parts of an identifier (`favouriteColour`, `risk_level`) too."""
    plain = text
    if not text.isascii():
        plain = _NOT_ASCII.sub(lambda match: _within_words(match[0]), _LONG_RUN.sub(r"\1", text))
    found = _WORD.findall(plain)
    spelled = [word for word, _ in found] + [word + signs for word, signs in found if signs]
    parts = [part for word, _ in found for part in _parts(word)]
    return [folded for word in spelled if (folded := _folded(word))] + parts


def trigrams(text: str) -> list[str]:
    """The n-grams of the words' letters, as each script has them."""
    found: list[str] = []
    for word in words(text):
        if word.isascii():
            found += _trigrams(word)
        else:
            found += (term for run in _RUN.finditer(word) for term in _terms(run))
    return found


def _terms(run: re.Match[str]) -> Iterator[str]:
    letters = run[0]
    if run.lastgroup == "ideographic":
        yield from _grams(letters, 2)
        yield from (letter for letter in letters if len(letters) > 1 and not _KANA.match(letter))
    elif run.lastgroup == "southeast_asian":
        yield from _grams(letters, 2)
        yield from _grams(letters, 3) if len(letters) > 2 else ()
    else:  # the syllables of Korean as the letters that they are made of: a particle then hides no word
        yield from _trigrams(unicodedata.normalize("NFD", letters))


def _trigrams(word: str) -> list[str]:
    marked = f"^{word}$"
    return [marked[start : start + 3] for start in range(len(word))]


def _grams(letters: str, size: int) -> Iterator[str]:
    return (letters[start : start + size] for start in range(max(1, len(letters) - size + 1)))


@lru_cache(maxsize=4_096)
def _within_words(character: str) -> str:
    """What becomes of a character beyond ASCII that is no letter: a mark stays, a sign parts words."""
    category = unicodedata.category(character)
    if category[0] == "M" or character in _JOINERS:
        return character
    return "" if category == "Cf" and character != _PARTING else " "


def _folded(word: str) -> str:
    """The word as it is compared; "" if it has no letter."""
    if word.isascii():
        return word.lower()
    decomposed = unicodedata.normalize("NFKD", word.casefold())[: _MOST_LETTERS * len(word)]
    plain = "".join(
        letter
        for letter in decomposed
        if unicodedata.combining(letter) in _WRITTEN_MARKS and letter not in _JOINERS and letter != _STRETCHING
    )
    return unicodedata.normalize("NFC", plain) if re.search(r"\w", plain) else ""


def _parts(word: str) -> Iterator[str]:
    found = [part.lower() for piece in word.split("_") for part in _IDENTIFIER.findall(piece)]
    if len(found) > 1:
        yield from found
