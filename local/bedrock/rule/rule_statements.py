"""What a person says of themselves, as a rule reads English: "I report in USD and take moderate risks".

Only plain statements in the first person with a verb that lasts are read ("I work on", "my budget is"), never a
question, a wish of the moment ("I need", "I want") or a word to the assistant ("you must"). A language model finds
much more; this finds the simple ones and invents none.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from local.bedrock.rule.rule_dates import undated
from local.bedrock.rule.rule_words import CURRENCIES, CURRENCY_NAMES, words

_LASTING_VERBS = frozenset(
    """
    accept avoid belong buy dislike drink drive earn eat enjoy fly follow hate have hold invest keep lead like live love
    manage own pay plan play prefer read report run save sell speak study support take teach tolerate trade travel use
    work write
    """.split()  # noqa: SIM905 - a word list is read as text
)
_SENTENCE = re.compile(r"[^.!?;\n]+(?:\.(?=\d)[^.!?;\n]+)*[.!?;]?")
_CLAUSE = re.compile(r"\s*,\s*(?:(?:and|but)\s+)?|\s+(?:and|but)\s+", re.IGNORECASE)
_OPENING = re.compile(
    r"(?:(?:hello|hi|hey|thanks|thank you|well|okay|ok|so|also|and|but|by the way|btw|for the record|please"
    r"|(?:remember|note|keep in mind)(?:\s+that)?)\b[\s,:!]*)+",
    re.IGNORECASE,
)
_SUBJECT = re.compile(r"(?:I'm|I am|we're|we are|I've|we've|I|we)\b\s*", re.IGNORECASE)
_POSSESSED = re.compile(r"(?:my|our)\s+(.+?)\s+(is|are)\s+(.+)", re.IGNORECASE)
_NEGATION = r"don't|do not|never"
_ADVERBS = "also|always|usually|mostly|mainly|only|often|currently|generally|really|still"
_PREDICATE = re.compile(
    rf"((?:(?:{_NEGATION}|{_ADVERBS})\s+)*)([a-z]+)\b(.*)",
    re.IGNORECASE,
)
_IS = {"i'm": "is", "i am": "is", "we're": "is", "we are": "is", "i've": "has", "we've": "has"}
_PRONOUNS = {
    "i": "they", "me": "them", "my": "their", "mine": "theirs", "myself": "themselves",
    "we": "they", "us": "them", "our": "their", "ours": "theirs", "ourselves": "themselves",
}  # fmt: skip
_AMOUNT = re.compile(r"[$€£¥]?\d[\d,.]*(?:\s*(?:k|thousand|million|billion))?(?:\s*[A-Z]{3}\b)?")
_PRONOUN = re.compile(rf"\b({'|'.join(_PRONOUNS)})\b", re.IGNORECASE)
_LANGUAGES = frozenset(
    "english german french spanish italian portuguese dutch polish japanese chinese hindi".split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True)
class Statement:
    """A fact about the user, in the third person. `topics` are its words and what they are instances of; `about` names
    what it states, so that a later statement about the same can replace it.
    """

    text: str
    topics: frozenset[str]
    about: str


def statements(text: str) -> list[Statement]:
    """What the text states about the person who wrote it, in order."""
    return [statement for sentence in _SENTENCE.findall(text) for statement in _of_sentence(sentence.strip())]


def asked(text: str) -> list[str]:
    """The questions in a text."""
    return [sentence.strip() for sentence in _SENTENCE.findall(text) if sentence.strip().endswith("?")]


def topics(text: str) -> frozenset[str]:
    """The words of a text, and what they are instances of."""
    return frozenset([*words(text), *_kinds(text)])


def _of_sentence(sentence: str) -> Iterator[Statement]:
    if sentence.endswith("?"):
        return
    opening = _OPENING.match(sentence)
    said = sentence[opening.end() if opening else 0 :].rstrip(".!; ")
    subject = ""
    for clause in _clauses(said):
        if possessed := _POSSESSED.fullmatch(clause):
            subject = ""
            yield _possession(*possessed.groups())
            continue
        own = _SUBJECT.match(clause)
        if own is None and not subject:
            return
        subject = own[0].strip().lower() if own else "i"
        if statement := _predication(subject, clause[own.end() if own else 0 :]):
            yield statement


def _clauses(said: str) -> list[str]:
    """Cut at commas and "and" where a new statement begins: with a subject, or a verb of the one before."""
    clauses: list[str] = []
    begin = 0
    for separator in _CLAUSE.finditer(said):
        if _begins(said[separator.end() :]):
            clauses.append(said[begin : separator.start()])
            begin = separator.end()
    return [clause for clause in [*clauses, said[begin:]] if clause]


def _begins(rest: str) -> bool:
    if _SUBJECT.match(rest) or _POSSESSED.match(rest):
        return True
    predicate = _PREDICATE.match(rest)
    return predicate is not None and predicate[2].lower() in _LASTING_VERBS


def _possession(thing: str, verb: str, value: str) -> Statement:
    return _statement(f"The user's {_third_person(thing)} {verb} {_third_person(value)}", thing)


def _predication(subject: str, clause: str) -> Statement | None:
    if subject in _IS:
        rest = _third_person(clause)
        return _statement(f"The user {_IS[subject]} {rest}", clause) if rest.strip() else None
    predicate = _PREDICATE.fullmatch(clause)
    if predicate is None or predicate[2].lower() not in _LASTING_VERBS:
        return None
    adverbs, verb, rest = predicate.groups()
    negated = re.search(r"don't|do not", adverbs, re.IGNORECASE)
    spoken = re.sub(r"don't|do not", "does not", adverbs, flags=re.IGNORECASE)
    finite = verb.lower() if negated else _third_person_verb(verb.lower())
    return _statement(f"The user {spoken}{finite}{_third_person(rest)}", f"{verb} {rest}")


def _statement(text: str, about: str) -> Statement:
    about = undated(about)
    content = words(about)
    name = next(_kinds(about), None) or "_".join(dict.fromkeys([*content[:1], *content[-1:]])) or "fact"
    return Statement(" ".join(text.split()) + ".", topics(text), name)


def _kinds(text: str) -> Iterator[str]:
    """What words of the text are instances of. A currency behind an amount is a part of the amount."""
    for word in re.findall(r"\w+|[$€£¥]", _AMOUNT.sub("", text)):
        if word in CURRENCIES or word.lower() in CURRENCY_NAMES or word.lower() in ("currency", "currencies"):
            yield "currency"
        elif word.lower() in ("risk", "risks", "cautious", "speculative"):
            yield "risk"
        elif word.lower() in _LANGUAGES:
            yield "language"


def _third_person(text: str) -> str:
    return _PRONOUN.sub(lambda match: _PRONOUNS[match[1].lower()], text)


def _third_person_verb(verb: str) -> str:
    if verb == "have":
        return "has"
    if verb.endswith(("s", "sh", "ch", "x", "o")):
        return f"{verb}es"
    return f"{verb[:-1]}ies" if verb.endswith("y") and verb[-2] not in "aeou" else f"{verb}s"
