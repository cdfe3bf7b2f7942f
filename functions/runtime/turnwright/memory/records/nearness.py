"""Whether two texts say the same. In doubt they differ: better a fact that is kept twice than one that is lost."""

import math
import re
import unicodedata
from functools import lru_cache

from turnwright.models.embeddings import Embedding

SAME_MEANING = 0.97
"""The cosine from which two embeddings are of one meaning, if the texts agree in what embeddings confuse."""

_TOKEN = re.compile(r"[-+]?\d+(?:[.,:/-]\d+)*%?|[^\W\d_][\w]*(?:['’]\w+)?[+#]*|[^\s\w.,;:!?'\"’()-]")
_EMPTY = frozenset({"the", "a", "an", "user", "user's", "users"})
_NEGATIONS = frozenset({"not", "no", "never", "none", "nothing", "without", "neither", "nor", "cannot", "longer"})


@lru_cache(maxsize=4_096)
def normalized(text: str) -> str:
    """The text without what changes nothing: case, white space, the mark at its end."""
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return folded.rstrip(".!;, ") or folded


def normalized_key(key: str) -> str:
    """`Reporting Currency`, `reporting-currency` and `reporting_currency` are one key."""
    return "_".join(re.findall(r"\w+", unicodedata.normalize("NFKC", key).casefold().replace("_", " "))) or key


def same_words(one: str, other: str) -> bool:
    """Whether the texts have the same words in the same order, but for articles and a plural's or a verb's s."""
    return _words(one) == _words(other)


def same_meaning(one: str, other: str, first: Embedding | None, second: Embedding | None) -> bool:
    """Whether the texts' embeddings, of one model, are nearly the same, and the texts agree in their numbers, names,
    symbols and negations.
    """
    if first is None or second is None or len(first) != len(second):
        return False
    lengths = math.hypot(*first) * math.hypot(*second)
    cosine = sum(map(float.__mul__, first, second)) / lengths if lengths else 0.0
    return cosine >= SAME_MEANING and _marks(one) == _marks(other)


@lru_cache(maxsize=4_096)
def _words(text: str) -> tuple[str, ...]:
    words = (token.casefold() for token in _tokens(text))
    return tuple(_stem(word) for word in words if word not in _EMPTY) or (normalized(text),)


def _stem(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


@lru_cache(maxsize=4_096)
def _marks(text: str) -> tuple[str, ...]:
    tokens = _tokens(text)
    return tuple(token for place, token in enumerate(tokens) if _is_mark(token, is_first=place == 0))


def _is_mark(token: str, *, is_first: bool) -> bool:
    word = token.casefold()
    if not token[0].isalpha():
        return True
    if word in _NEGATIONS or word.endswith(("n't", "n’t")):
        return True
    return any(letter.isupper() for letter in (token[1:] if is_first else token))


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(unicodedata.normalize("NFKC", text))
