"""Words, references and currencies, as far as the rule model reads English."""

import re

_STOP_WORDS = frozenset(
    """
    a an the is are was were be been to of for with on in at from by and or can could would you your it its my me i we
    our please do does did this that these those their get show list find give tell what whats which how has have had
    will there here now right some any as into out about many much all one let us want need see lets also then
    """.split()  # noqa: SIM905 - a word list is read as text
)
_REFERENCE = re.compile(r"\b(?:that|it|its|this|those|these|them|same)\b", re.IGNORECASE)
_ELLIPSIS = re.compile(r"^\W*(?:and|what about|how about|same for|also)\b", re.IGNORECASE)
_COURTESY = re.compile(r"^\W*(?:thanks|thank you|thx|cheers)\b", re.IGNORECASE)
_GREETING = re.compile(r"^\W*(?:hello|hi|hey|good (?:morning|afternoon|evening))\b", re.IGNORECASE)

CURRENCIES = frozenset(
    """
    USD EUR GBP JPY CHF AUD CAD NZD CNY INR SEK NOK DKK PLN CZK HUF RON BGN TRY ILS ZAR BRL MXN ARS CLP COP KRW SGD HKD
    THB IDR MYR PHP VND AED SAR EGP NGN KES UAH
    """.split()  # noqa: SIM905
)
CURRENCY_NAMES = {
    "usd": "USD", "eur": "EUR", "gbp": "GBP", "jpy": "JPY", "chf": "CHF",
    "dollar": "USD", "dollars": "USD", "euro": "EUR", "euros": "EUR", "pound": "GBP", "pounds": "GBP",
    "yen": "JPY", "franc": "CHF", "francs": "CHF",
    "$": "USD", "€": "EUR", "£": "GBP", "¥": "JPY",
}  # fmt: skip
SMALL_NUMBERS = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6,
    "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11, "twelve": 12,
}  # fmt: skip


def words(text: str) -> list[str]:
    """The words of a name or a text: split at case and underscores, lower case, singular, without stop words."""
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", text).replace("_", " ").lower()
    return [_stem(word) for word in re.findall(r"[a-z0-9]+", spaced) if word not in _STOP_WORDS]


def all_words(name: str) -> list[str]:
    """The words of a name as they are, in the singular: `from_currency` keeps its `from`, `converted` its ending."""
    return [_singular(word) for word in re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower().split("_") if word]


def refers_back(text: str) -> bool:
    """Whether a clause means something said before: "what is that in EUR", "and in GBP?"."""
    return has_pronoun(text) or is_elliptical(text)


def has_pronoun(text: str) -> bool:
    return bool(_REFERENCE.search(text))


def is_elliptical(text: str) -> bool:
    return bool(_ELLIPSIS.match(text))


def is_thanks(text: str) -> bool:
    return bool(_COURTESY.match(text))


def is_greeting(text: str) -> bool:
    return bool(_GREETING.match(text))


def _stem(word: str) -> str:
    for ending in ("ing", "ed"):
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word[: -len(ending)]
    return _singular(word)


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 3 else word
