"""The configured tools as the rule model sees them: words, and for every parameter the kind of its value."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property
from typing import Any

from local.bedrock.model_backend import JsonObject
from local.bedrock.rule.rule_words import CURRENCIES, all_words, words

_COUNT_WORDS = {"limit", "count", "max", "maximum", "top", "size", "day", "page", "number"}
_IDENTIFIER_WORDS = {"id", "identifier", "number", "code", "sku", "ref", "reference", "key"}
_PLACE_WORDS = {"city", "location", "place", "country", "town", "destination", "address"}
_FREE_TEXT_WORDS = {
    "query",
    "q",
    "text",
    "question",
    "message",
    "input",
    "prompt",
    "content",
    "topic",
    "search",
}


class Kind(Enum):
    CHOICE = auto()
    FLAG = auto()
    CURRENCY = auto()
    COUNT = auto()
    QUANTITY = auto()
    IDENTIFIER = auto()
    PATTERN = auto()
    EMAIL = auto()
    DATE = auto()
    EXPRESSION = auto()
    PLACE = auto()
    FREE_TEXT = auto()
    OTHER = auto()


@dataclass(frozen=True)
class Parameter:
    name: str
    schema: JsonObject
    is_required: bool

    @property
    def type(self) -> str:
        """The JSON type; the first that is not null where there are several."""
        types = self.schema.get("type", "string")
        if isinstance(types, list):
            return next((str(name) for name in types if name != "null"), "string")
        return str(types)

    @cached_property
    def words(self) -> list[str]:
        return all_words(self.name)

    @cached_property
    def nouns(self) -> frozenset[str]:
        """What an identifier identifies: `account` for `account_id`."""
        return frozenset(word for word in self.words if word not in _IDENTIFIER_WORDS)

    @cached_property
    def kind(self) -> Kind:
        if "enum" in self.schema:
            return Kind.CHOICE
        if self.type == "boolean":
            return Kind.FLAG
        if "currency" in self.words:
            return Kind.CURRENCY
        if self._names_an_identifier():
            return Kind.IDENTIFIER
        if self.type in ("integer", "number"):
            return Kind.COUNT if _COUNT_WORDS & set(self.words) else Kind.QUANTITY
        return self._string_kind()

    def _names_an_identifier(self) -> bool:
        is_named = bool(self.words) and self.words[-1] in _IDENTIFIER_WORDS
        return is_named and (bool(self.nouns) or self.type == "string")

    def _string_kind(self) -> Kind:
        names = set(self.words)
        if "pattern" in self.schema:
            return Kind.PATTERN
        if "email" in names or self.schema.get("format") == "email":
            return Kind.EMAIL
        if "date" in names or self.schema.get("format") == "date":
            return Kind.DATE
        if names & {"expression", "expr", "formula"}:
            return Kind.EXPRESSION
        if names & _PLACE_WORDS:
            return Kind.PLACE
        return Kind.FREE_TEXT if names & _FREE_TEXT_WORDS else Kind.OTHER


@dataclass(frozen=True)
class Tool:
    name: str
    description: str
    parameters: tuple[Parameter, ...]

    @property
    def required(self) -> list[Parameter]:
        return [parameter for parameter in self.parameters if parameter.is_required]

    @cached_property
    def name_words(self) -> frozenset[str]:
        return frozenset(words(self.name))

    @cached_property
    def description_words(self) -> frozenset[str]:
        """Without currencies: that a description lists some does not make each a word for the tool."""
        return frozenset(word for word in words(self.description) if word.upper() not in CURRENCIES)

    @cached_property
    def parameter_words(self) -> frozenset[str]:
        return frozenset(word for parameter in self.parameters for word in words(parameter.name))

    @cached_property
    def choice_words(self) -> frozenset[str]:
        choices = [choice for parameter in self.parameters for choice in parameter.schema.get("enum", [])]
        return frozenset(word for choice in choices for word in words(str(choice)))


def read_tools(specifications: Sequence[JsonObject]) -> list[Tool]:
    return [_tool(specification) for specification in specifications]


def _tool(specification: JsonObject) -> Tool:
    schema: dict[str, Any] = specification["inputSchema"].get("json", {})
    required = schema.get("required", [])
    return Tool(
        name=specification["name"],
        description=specification.get("description", ""),
        parameters=tuple(
            Parameter(name, details, name in required) for name, details in schema.get("properties", {}).items()
        ),
    )
