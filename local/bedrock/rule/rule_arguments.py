"""The arguments of a tool call: what a clause states, by each parameter's kind, and what it leaves unsaid."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from local.bedrock.rule.rule_facts import QUANTITY_WORDS, Facts, Quantity
from local.bedrock.rule.rule_patterns import first_match
from local.bedrock.rule.rule_tools import Kind, Parameter, Tool
from local.bedrock.rule.rule_words import CURRENCIES, CURRENCY_NAMES, SMALL_NUMBERS, refers_back

Value = str | int | float | bool

_IDENTIFIER = r"[A-Za-z]*[-_]?\d[\w-]*"
_BARE_IDENTIFIER = re.compile(r"(?<![\w$€£¥.,-])(?:[A-Za-z][\w-]*\d[\w-]*|#?\d{4,})(?![\w%-]|[.,]\d)")
_NUMBER = re.compile(r"(?<![\w.-])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\w-]|\.\d)")
_COUNT_WORD = r"(?:last|first|top|next|latest|recent|past|previous|newest|oldest|limit|max(?:imum)?|up to)"
_COUNT = re.compile(rf"\b{_COUNT_WORD}\s+(?:of\s+)?(\d+|{'|'.join(SMALL_NUMBERS)})\b", re.IGNORECASE)
_COUNTED_NOUN = re.compile(rf"\b(\d{{1,4}}|{'|'.join(SMALL_NUMBERS)})\s+(?:\w+\s+)?[a-z]+s\b", re.IGNORECASE)
_SPOKEN_CURRENCY = "|".join(name for name in CURRENCY_NAMES if name.isalpha())
_CURRENCY = re.compile(rf"\b(?:{'|'.join(sorted(CURRENCIES))})\b|\b(?i:{_SPOKEN_CURRENCY})\b|[$€£¥]")
_EXPRESSION = re.compile(r"[\d(][\d\s+\-*/().^%]*[+\-*/^%][\d\s+\-*/().^%]*[\d)]")
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_DATE = re.compile(r"\d{4}-\d\d-\d\d|\b(?:today|tomorrow|yesterday)\b", re.IGNORECASE)
_PLACE = re.compile(r"\b(?:in|for|at|to|near|from)\s+((?:[A-Z][\w'-]+\s?)+)")
_QUOTED = re.compile(r"[\"“]([^\"”]+)[\"”]")
_NAMED_QUANTITY = re.compile(rf"\b(?:the|its|my)\s+({'|'.join(QUANTITY_WORDS)})\b", re.IGNORECASE)
_FROM_WORDS = {"from", "source", "base"}
_TO_WORDS = {"to", "target", "quote", "destination"}


@dataclass(frozen=True)
class Resolved:
    """The arguments that are known, and the required parameters that are not."""

    arguments: Mapping[str, Value]
    missing: tuple[Parameter, ...]


def stated_arguments(tool: Tool, clause: str, nouns: frozenset[str]) -> dict[str, Value]:
    """What a clause itself says. `nouns` are the words that stand before identifiers, whose digits are no amounts."""
    stated = {parameter.name: _stated(parameter, clause, nouns) for parameter in tool.parameters}
    return {name: value for name, value in stated.items() if value is not None}


def resolve_arguments(
    tool: Tool,
    clause: str,
    carried: Mapping[str, Value],
    turn_text: str,
    facts: Sequence[Facts],
    nouns: frozenset[str],
) -> Resolved:
    """What the clause states, else what it takes over from an earlier call, else what the conversation knows."""
    arguments = {**carried, **stated_arguments(tool, clause, nouns)}
    quantity = _meant_quantity(clause, facts)
    has_own_quantity = any(p.kind is Kind.QUANTITY and p.name in arguments for p in tool.parameters)
    for parameter in tool.required:
        if parameter.name in arguments:
            continue
        value: Value | None
        if parameter.kind is Kind.QUANTITY:
            value = quantity.value if quantity else None
        elif parameter.kind is Kind.CURRENCY:
            value = quantity.currency if quantity and not has_own_quantity else None
        else:
            value = _meant_value(parameter, clause, turn_text, facts)
        if value is not None:
            arguments[parameter.name] = value
    missing = [parameter for parameter in tool.required if parameter.name not in arguments]
    ordered = {p.name: arguments[p.name] for p in tool.parameters if p.name in arguments}
    return Resolved(ordered, tuple(missing))


def identifier_nouns(tools: Iterable[Tool]) -> frozenset[str]:
    return frozenset(
        noun
        for tool in tools
        for parameter in tool.parameters
        if parameter.kind is Kind.IDENTIFIER
        for noun in parameter.nouns
    )


def _meant_quantity(clause: str, facts: Sequence[Facts]) -> Quantity | None:
    """The newest quantity of the name that the clause has ("the balance"), else the newest of any if it says "that"."""
    for name in _NAMED_QUANTITY.findall(clause):
        named = next((quantity for fact in facts if (quantity := fact.quantity_named(name.lower()))), None)
        if named:
            return named
    if refers_back(clause) or _NAMED_QUANTITY.search(clause):
        return next((quantity for fact in facts if (quantity := fact.quantity)), None)
    return None


def _meant_value(parameter: Parameter, clause: str, turn_text: str, facts: Sequence[Facts]) -> Value | None:
    if parameter.kind is Kind.IDENTIFIER:
        named = _named_identifier(parameter, turn_text)
        known = (fact.named(parameter.nouns) for fact in facts)
        found = named or next((value for value in known if value is not None), None)
        return _converted(parameter, found)
    if refers_back(clause):
        known = (fact.named(parameter.words) for fact in facts)
        return _converted(parameter, next((value for value in known if value is not None), None))
    return None


def _stated(parameter: Parameter, clause: str, nouns: frozenset[str]) -> Value | None:
    explicit = re.search(rf"\b{re.escape(parameter.name)}\s*[=:]\s*(\"[^\"]*\"|[^\s,;]+)", clause)
    if explicit:
        return _converted(parameter, explicit.group(1).strip('"'))
    return _converted(parameter, _found(parameter, clause, nouns))


def _found(parameter: Parameter, clause: str, nouns: frozenset[str]) -> Any:
    match parameter.kind:
        case Kind.CHOICE:
            return _choice(parameter, clause)
        case Kind.FLAG:
            spoken = " ".join(parameter.words)
            return True if re.search(rf"\b{re.escape(spoken)}\b", clause, re.IGNORECASE) else None
        case Kind.CURRENCY:
            return _currency(parameter, clause)
        case Kind.COUNT:
            return _count(clause)
        case Kind.QUANTITY:
            return _quantity(clause, nouns)
        case Kind.IDENTIFIER:
            return _named_identifier(parameter, clause) or _bare_identifier(clause)
        case Kind.PATTERN:
            return _patterned(str(parameter.schema["pattern"]), clause)
        case Kind.EMAIL:
            return _first(_EMAIL, clause)
        case Kind.DATE:
            return _first(_DATE, clause)
        case Kind.EXPRESSION:
            return _first(_EXPRESSION, clause)
        case Kind.PLACE:
            place = _PLACE.search(clause)
            return place.group(1).strip() if place else None
        case Kind.FREE_TEXT:
            quoted = _QUOTED.search(clause)
            return quoted.group(1) if quoted else clause.strip() or None
        case Kind.OTHER:
            quoted = _QUOTED.search(clause)
            return quoted.group(1) if quoted else None


def _first(pattern: re.Pattern[str], clause: str) -> str | None:
    found = pattern.search(clause)
    return found.group(0).strip() if found else None


def _patterned(pattern: str, clause: str) -> str | None:
    """A word of the clause that has the pattern."""
    return first_match(pattern, tuple(word.rstrip(".?!") for word in re.findall(r"[^\s,;]+", clause)))


def _choice(parameter: Parameter, clause: str) -> Any:
    choices = parameter.schema["enum"]
    return next((c for c in choices if re.search(rf"\b{re.escape(str(c))}\b", clause, re.IGNORECASE)), None)


def _named_identifier(parameter: Parameter, text: str) -> str | None:
    for noun in sorted(parameter.nouns):
        found = re.search(
            rf"\b{re.escape(noun)}s?\b(?:\s+(?:id|number|no\.?|is))*\s*[:#]?\s*({_IDENTIFIER})\b",
            text,
            re.IGNORECASE,
        )
        if found:
            return found.group(1)
    return None


def _bare_identifier(clause: str) -> str | None:
    for found in _BARE_IDENTIFIER.finditer(clause):
        is_money = _CURRENCY.match(clause[found.end() :].lstrip())
        if not is_money and not _DATE.match(clause, found.start()):
            return found.group(0).lstrip("#")
    return None


def _count(clause: str) -> int | None:
    found = _COUNT.search(clause) or _COUNTED_NOUN.search(clause)
    if not found:
        return None
    text = found.group(1).lower()
    return SMALL_NUMBERS.get(text) or int(text)


def _quantity(clause: str, nouns: frozenset[str]) -> str | None:
    """A number with a currency, else the first number that neither counts nor identifies."""
    counted = {found.start(1) for found in _COUNT.finditer(clause)}
    plain: list[str] = []
    for found in _NUMBER.finditer(clause):
        before, after = clause[: found.start()].rstrip(), clause[found.end() :].lstrip()
        if re.search(r"[$€£¥]$", before) or _CURRENCY.match(after):
            return found.group(0)
        last_word = re.search(r"(\w+)(?:\s+(?:id|number|no\.?))?\s*[:#]?$", before)
        is_identifier = last_word is not None and last_word.group(1).lower().removesuffix("s") in nouns
        if not is_identifier and found.start() not in counted and not _DATE.match(clause, found.start()):
            plain.append(found.group(0))
    return plain[0] if plain else None


def _currency(parameter: Parameter, clause: str) -> str | None:
    """A currency by its role: "from USD" and "100 USD" are where it comes from, "to EUR" and "in EUR" where it goes."""
    incoming: list[str] = []
    outgoing: list[str] = []
    for found in _CURRENCY.finditer(clause):
        code = CURRENCY_NAMES.get(found.group(0).lower(), found.group(0))
        before = clause[: found.start()].rstrip()
        is_symbol = not found.group(0).isalpha()
        is_incoming = is_symbol or re.search(r"(?:\bfrom|\d)$", before, re.IGNORECASE)
        (incoming if is_incoming else outgoing).append(code)
    if set(parameter.words) & _FROM_WORDS:
        return incoming[0] if incoming else None
    if set(parameter.words) & _TO_WORDS:
        return outgoing[0] if outgoing else None
    return next(iter(incoming + outgoing), None)


def _converted(parameter: Parameter, value: Any) -> Value | None:
    """A value in the parameter's own type; nothing if it has no such form."""
    if value is None or parameter.kind is Kind.CHOICE:
        return value  # type: ignore[no-any-return]
    try:
        match parameter.type:
            case "integer":
                return int(float(str(value).replace(",", "")))
            case "number":
                number = float(str(value).replace(",", ""))
                return int(number) if number.is_integer() else number
            case "boolean":
                return value if isinstance(value, bool) else str(value).lower() in ("true", "yes", "1")
            case "string":
                return str(value)
            case _:
                return None
    except ValueError:
        return None
