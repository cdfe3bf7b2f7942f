"""What a conversation has established: named values, the newest first, which "that" or "the account" may mean."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from local.bedrock.conversation import ToolOutcome, Turn
from local.bedrock.rule.rule_words import CURRENCIES, all_words

Scalar = str | int | float | bool

QUANTITY_WORDS = ("converted", "result", "total", "balance", "amount", "value", "price", "cost", "sum")
_OUTGOING = {"converted", "result", "total", "to"}
_AMOUNT = re.compile(r"(-?\d[\d,]*(?:\.\d+)?)\s*([A-Z]{3})\b")
_IDENTIFIED = re.compile(r"\b([a-z]+)\s+(?:(?:number|id|no\.?)\s+)?#?([A-Za-z]*[-_]?\d[\w-]{2,})\b", re.IGNORECASE)


@dataclass(frozen=True)
class Quantity:
    value: int | float
    currency: str | None


@dataclass(frozen=True)
class Facts:
    """The named values of one source: a tool's result, its arguments, or a text."""

    values: tuple[tuple[str, Scalar], ...]

    def named(self, words: Iterable[str]) -> Scalar | None:
        """The value whose name has one of the words."""
        wanted = set(words)
        return next((value for name, value in self.values if wanted & set(all_words(name))), None)

    @property
    def quantity(self) -> Quantity | None:
        """The number that this is about: a balance, an amount, ... and never a count, a rate or one of a list."""
        return next((quantity for word in QUANTITY_WORDS if (quantity := self.quantity_named(word))), None)

    def quantity_named(self, word: str) -> Quantity | None:
        """The number whose name has the word, if there is just one of that name."""
        numbers = [
            (name, value)
            for name, value in self.values
            if isinstance(value, (int, float)) and not isinstance(value, bool) and word in all_words(name)
        ]
        if not numbers or [name for name, _ in self.values].count(numbers[0][0]) > 1:
            return None
        name, value = numbers[0]
        return Quantity(value, self._currency_of(name))

    def _currency_of(self, name: str) -> str | None:
        currencies = {key: value for key, value in self.values if "currency" in all_words(key)}
        is_outgoing = bool(_OUTGOING & set(all_words(name)))
        role = {"to", "target", "converted"} if is_outgoing else {"from", "source"}
        matching = next((value for key, value in currencies.items() if role & set(all_words(key))), None)
        found = matching or currencies.get("currency")
        return found if isinstance(found, str) else None


def known_facts(turns: Sequence[Turn]) -> list[Facts]:
    """What the turns established, the newest first."""
    return [facts for turn in reversed(turns) for facts in _turn_facts(turn) if facts.values]


def text_facts(text: str) -> Facts:
    """The amounts with a currency ("48,392.50 USD") and the named identifiers ("account 12345") of a text."""
    values: list[tuple[str, Scalar]] = []
    for number, code in _AMOUNT.findall(text):
        if code in CURRENCIES:
            values += [("amount", float(number.replace(",", ""))), ("currency", code)]
    values += [(noun.lower(), identifier) for noun, identifier in _IDENTIFIED.findall(text)]
    return Facts(tuple(values))


def result_value(outcome: ToolOutcome) -> Any:
    """A result as JSON: its JSON block, its text parsed, or the text itself."""
    for block in outcome.content:
        if "json" in block:
            return block["json"]
    try:
        return json.loads(outcome.text)
    except ValueError:
        return outcome.text


def failure_reason(outcome: ToolOutcome) -> str | None:
    """Why a call failed, or None: an error status, a text "Error: ...", or an answer that is nothing but an error."""
    value = result_value(outcome)
    if isinstance(value, dict) and list(value) == ["error"]:
        return str(value["error"])
    if isinstance(value, str) and value.startswith("Error:"):
        return value.removeprefix("Error:").strip()
    if outcome.is_error:
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return None


def _turn_facts(turn: Turn) -> Iterator[Facts]:
    for outcome in reversed(turn.outcomes):
        if failure_reason(outcome) is None:
            yield Facts(tuple(_leaves("", result_value(outcome))))
        yield Facts(tuple(_leaves("", outcome.arguments)))
    if not turn.outcomes:
        yield text_facts(turn.answer)
    yield text_facts(turn.text)


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Scalar]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(key, item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(name, item)
    elif isinstance(value, (str, int, float)) and name:
        yield name, value
