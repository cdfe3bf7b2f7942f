"""The check of a request against its JSON Schema, and the words for a rule that it breaks.

botocore checks lengths and ranges in part, patterns and enums not at all; other clients check nothing. So everything
is checked here, and a field that a structure does not have is refused. A field that is null counts as absent.

The schemas are read as botocore means its models: a pattern is of a whole string and of ASCII, 1.0 is no integer, and
what is in a list or dictionary that has too many entries is not looked at.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from turnwright.api.agentcore.refusals import Finding, Invalid

Schema = dict[str, Any]

NOTHING: Schema = {"not": {}}
"""The schema of a field that is not supported. An error under `false` would not say of which field it is."""

_MOST_FINDINGS = 20
_TYPES = {
    "array": "a list",
    "boolean": "a boolean",
    "integer": "an integer",
    "number": "a number",
    "object": "an object",
    "string": "a string",
}
_UNITS = {"string": "characters", "array": "entries", "object": "entries"}


class Check:
    """The check against one schema; `unsupported` says why the fields whose schema is NOTHING are refused."""

    def __init__(self, schema: Schema, unsupported: Mapping[str, str]) -> None:
        self._schema = schema
        self._unsupported = unsupported
        self._validator = _dialect()(schema)

    def read(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """The fields that are there. Raises Invalid with the first rule that each field breaks."""
        fields: dict[str, Any] = _present(value, self._schema)
        found: dict[str, str] = {}
        try:
            for error in self._validator.iter_errors(fields):
                for place, rule in self._broken(error):
                    found.setdefault(place, rule)
                if len(found) >= _MOST_FINDINGS:
                    break
        except RecursionError as error:  # jsonschema spells out each value that breaks a rule
            raise Invalid([Finding("body", "is nested too deeply")]) from error
        if found:
            raise Invalid([Finding(*finding) for finding in found.items()][:_MOST_FINDINGS])
        return fields

    def _broken(self, error: Any) -> Iterator[tuple[str, str]]:
        """The places of the request that break a rule, each with the rule, of jsonschema's ValidationError."""
        place = _place(error.absolute_path)
        keyword, rule, value, schema = error.validator, error.validator_value, error.instance, error.schema
        if "propertyNames" in error.absolute_schema_path:
            place = f"{place} key {value!r:.140}"
        match keyword:
            case "required":
                yield from ((_join(place, name), "is missing") for name in rule if name not in value)
            case "additionalProperties":
                unknown = (name for name in value if name not in schema["properties"])
                yield from ((_join(place, name), "is not a field of this request") for name in unknown)
            case "not":
                yield place, self._unsupported[error.absolute_path[-1]]
            case _:
                yield place, _rule(keyword, rule, value, schema)


def _rule(keyword: str, rule: Any, value: Any, schema: Schema) -> str:
    unit = schema.get("description")
    match keyword:
        case "type":
            return f"is not {_TYPES[rule]}{f' of {unit}' if unit else ''}"
        case "enum":
            return f"is not one of {', '.join(rule)}"
        case "pattern":
            return f"does not match the pattern {rule}"
        case "minimum" | "maximum" if unit:
            return f"is not between {schema['minimum']} and {schema['maximum']} {unit}"
        case "minimum":
            return f"is less than {rule}"
        case "maximum":
            return f"is greater than {rule}"
        case "minProperties" | "maxProperties" if "properties" in schema:
            names = (name for name, field in schema["properties"].items() if field != NOTHING)
            return f"has not exactly one of {', '.join(names)}"
        case _:
            bound = f"at least {rule} must be there" if keyword.startswith("min") else f"at most {rule} are taken"
            return f"has {len(value)} {_UNITS[schema['type']]}; {bound}"


def _place(path: Iterable[str | int]) -> str:
    place = ""
    for step in path:
        place = f"{place}[{step}]" if isinstance(step, int) else _join(place, step)
    return place


def _join(place: str, name: str) -> str:
    return f"{place}.{name:.140}" if place else f"{name:.140}" or '""'


def _present(value: Any, schema: Schema) -> Any:
    """The value without the fields of its structures that are null. What is in a document stays."""
    match value:
        case dict() if "properties" in schema:
            fields = schema["properties"]
            return {name: _present(entry, fields.get(name, {})) for name, entry in value.items() if entry is not None}
        case dict() if "additionalProperties" in schema:
            return {key: _present(entry, schema["additionalProperties"]) for key, entry in value.items()}
        case list() if "items" in schema:
            return [_present(entry, schema["items"]) for entry in value]
        case _:
            return value


@cache
def _dialect() -> Any:
    """The class of validators that read schemas as botocore means its models."""
    from jsonschema import Draft202012Validator, ValidationError, validators  # 100 ms, which no import has to wait for

    def pattern(_validator: Any, rule: str, value: Any, _schema: Schema) -> Iterator[ValidationError]:
        if isinstance(value, str) and not re.fullmatch(rule, value, re.ASCII):
            yield ValidationError(rule)

    def unless_too_many(keyword: str) -> Any:
        standard = Draft202012Validator.VALIDATORS[keyword]

        def check(validator: Any, rule: Any, value: Any, schema: Schema) -> Any:
            most = schema.get("maxItems") or schema.get("maxProperties") or math.inf
            if rule is False or not isinstance(value, list | dict) or len(value) <= most:
                yield from standard(validator, rule, value, schema) or ()

        return check

    entries = {keyword: unless_too_many(keyword) for keyword in ("items", "propertyNames", "additionalProperties")}
    types = Draft202012Validator.TYPE_CHECKER.redefine_many({"integer": _is_integer, "number": _is_number})
    extend: Any = validators.extend
    return extend(Draft202012Validator, {"pattern": pattern, **entries}, type_checker=types)


def _is_integer(_checker: Any, value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(_checker: Any, value: Any) -> bool:
    """JSON has no infinity, but 1e999 is read as one."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -math.inf < value < math.inf
