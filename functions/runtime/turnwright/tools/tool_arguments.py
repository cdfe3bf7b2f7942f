"""The arguments of a tool call: what a model wrote, read and checked by the tool's schema before anything is invoked.

What keeps its schema stays as it is. What does not is read by one rule, which changes no meaning:

- a string, where the schema takes no string, is the value that it is as JSON: "5", "true", "[1, 2]", "null";
- null, as a property that may be left out and takes no null, is left out;
- 5.0, where an integer is wanted, is 5, as JSON Schema has it.

Nothing else is guessed: a number is no string, and neither "True" nor "5 EUR" nor "" is JSON. Under anyOf and oneOf a
value is read only if every alternative that then takes it reads the same. What was read is checked again, whole.

A schema comes from a user, and arguments from a model: a pattern that backtracks, alternatives within alternatives or
uniqueItems of many objects can take longer than any tool. So the check has a clock of its own. It interrupts `re`
where it is, and so keeps the patterns that a linear engine does not know (lookahead, back references).

What can be checked was seen when the agent was published. A version that an older release has stored may hold what
cannot, or an unknown type or reference: its calls are not made, and the failure says which rule is broken.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from functools import cache
from itertools import islice
from typing import Any

from turnwright.agents import patterns
from turnwright.agents.definitions import Tool
from turnwright.deadline import interrupted
from turnwright.models.converse import UNREADABLE_INPUT, repeated_name, without_repetition
from turnwright.surrogates import mended_json
from turnwright.tools.tool_failures import ToolFailure

CHECK_SECONDS = 2.0
"""Well within the ten seconds that the state machine gives a gateway beside its tool."""

DEEPEST = 100
"""Levels of nesting; at some hundreds Python can neither compare a value nor write it as JSON."""

_MOST_FAULTS = 10
_LONGEST_QUOTE = 100

Schema = Mapping[str, Any]


class ArgumentsUnchecked(ToolFailure):
    """The check took too long and was given up, or the schema is none: whether the arguments keep it is not known."""

    def __init__(self, tool: str, reason: str) -> None:
        message = f"the arguments of {tool} could not be checked, so it was not called: {reason}"
        super().__init__("INVALID_ARGUMENTS", message, invoked=False)


def read(tool: Tool, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments as the tool's schema has them.

    Raises ToolFailure INVALID_ARGUMENTS, in words that let the model correct itself. To be called in the main thread.
    """
    if UNREADABLE_INPUT in given:
        repeated = repeated_name(str(given[UNREADABLE_INPUT]))
        fault = "were not a JSON object; send them whole"
        if repeated is not None:
            fault = f"have the name {_quoted(repeated)} more than once in one object; send each name once"
        raise _refused(f"the arguments of {tool.name} {fault}")
    if _is_too_deep(given):
        raise _refused(f"the arguments of {tool.name} are nested more than {DEEPEST} levels deep; send less")
    dialect, registry = _dialect()

    def checked() -> tuple[Mapping[str, Any], list[str]]:
        validator = dialect(tool.input_schema, registry=registry)
        arguments: Mapping[str, Any] = _read(validator, tool.input_schema, given)
        return arguments, list(islice(_faults(validator.iter_errors(arguments)), _MOST_FAULTS))

    try:
        arguments, faults = interrupted(CHECK_SECONDS, checked)
    except _SlowPattern as slow:
        place = next((place for place, value in _places(given) if value is slow.value), "")
        still = f"{_quoted(slow.value)} was still being matched with the pattern {slow.pattern}"
        raise ArgumentsUnchecked(tool.name, f"{place}: after {CHECK_SECONDS:g} s {still}; send less") from slow
    except TimeoutError as error:
        raise ArgumentsUnchecked(
            tool.name, f"its schema takes longer than {CHECK_SECONDS:g} s on so many values; send fewer"
        ) from error
    except Exception as error:  # whatever jsonschema stumbles over in a schema that is none
        rule = _broken_rule(tool.input_schema, error)
        if rule is None:
            raise
        raise ArgumentsUnchecked(tool.name, f"its schema is broken, whatever they are: {rule}") from error
    if faults:
        raise _refused(f"the arguments of {tool.name} break its schema: {'; '.join(faults)}")
    return arguments


def _refused(message: str) -> ToolFailure:
    return ToolFailure("INVALID_ARGUMENTS", message, invoked=False)


def _is_too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST):
        level = [
            entry
            for each in level
            if isinstance(each, dict | list)
            for entry in (each.values() if isinstance(each, dict) else each)
        ]
    return any(isinstance(each, dict | list) for each in level)


# ---- Reading ----


def _read(validator: Any, schema: Any, value: Any) -> Any:
    """The value as the schema means it, or as it is where that is not clear; whether it is valid is not looked at."""
    if not isinstance(schema, Mapping):
        return value
    types = _types(schema)
    if isinstance(value, str) and types and "string" not in types:
        value = _of_text(validator, types, value)
    if isinstance(value, float) and value.is_integer() and "integer" in types and "number" not in types:
        value = int(Decimal(repr(value)))  # as it is written: the binary value of 1e23 is another number
    if isinstance(value, dict):
        value = _object(validator, schema, value)
    elif isinstance(value, list):
        first = schema.get("prefixItems", [])
        rest = schema.get("items")
        value = [
            _read(validator, first[index] if index < len(first) else rest, entry) for index, entry in enumerate(value)
        ]
    for part in schema.get("allOf", []):
        value = _read(validator, part, value)
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            value = _of_alternatives(validator, schema[keyword], value)
    return value


def _types(schema: Schema) -> set[str]:
    """The types that a schema takes as it says itself; none if it does not."""
    if "type" in schema:
        kinds = schema["type"]
        return {kinds} if isinstance(kinds, str) else set(kinds)
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    return {json_type(value) for value in values}


def json_type(value: Any) -> str:
    """The type of JSON Schema that a value has, the narrower one of integer and number."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def _of_text(validator: Any, types: set[str], text: str) -> Any:
    """What the text is as JSON, if that has one of the types; else the text."""
    try:
        value = mended_json(
            json.loads(text, parse_float=_exact, parse_constant=_no_constant, object_pairs_hook=without_repetition)
        )
    except (ValueError, ArithmeticError, RecursionError):
        return text
    if _is_too_deep(value) or not any(validator.is_type(value, kind) for kind in types):
        return text
    return value


def _exact(text: str) -> float:
    """Raises ValueError or ArithmeticError for a number that would become another one."""
    value = float(text)
    if not math.isfinite(value) or Decimal(repr(value)) != Decimal(text):
        raise ValueError(f"{text} is no number that a float can hold")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _object(validator: Any, schema: Schema, fields: Mapping[str, Any]) -> dict[str, Any]:
    required = schema.get("required", [])
    result = dict(fields)
    for name in fields:
        parts = list(_property_schemas(schema, name))
        for part in parts:
            result[name] = _read(validator, part, result[name])
        if result[name] is None and name not in required and not all(_takes(validator, part, None) for part in parts):
            del result[name]
    return result


def _property_schemas(schema: Schema, name: str) -> Iterator[Schema]:
    found = [schema["properties"][name]] if name in schema.get("properties", {}) else []
    found += [part for pattern, part in schema.get("patternProperties", {}).items() if patterns.search(pattern, name)]
    found = found or [schema.get("additionalProperties")]
    return (part for part in found if isinstance(part, Mapping))


def _takes(validator: Any, schema: Any, value: Any) -> bool:
    return bool(validator.evolve(schema=schema).is_valid(value))


def _of_alternatives(validator: Any, schemas: Sequence[Any], value: Any) -> Any:
    as_it_is = [schema for schema in schemas if _takes(validator, schema, value)]
    readings = {}
    for schema in as_it_is or schemas:
        reading = _read(validator, schema, value)
        if _takes(validator, schema, reading):
            readings[json.dumps(reading, sort_keys=True)] = reading
    return next(iter(readings.values())) if len(readings) == 1 else value


# ---- Checking ----


class _SlowPattern(Exception):
    def __init__(self, pattern: str, value: str) -> None:
        super().__init__(pattern)
        self.pattern = pattern
        self.value = value


@cache
def _dialect() -> tuple[Any, Any]:
    """JSON Schema 2020-12, in which 19.99 is a multiple of 0.01 and a pattern is one of ECMA-262; and a registry from
    which no reference leads out of a schema. To import it takes 100 ms, which only a tool call needs, and which the
    check's clock does not count.
    """
    from jsonschema import Draft202012Validator, ValidationError, validators
    from referencing import Registry

    def multiple_of(validator: Any, factor: Any, value: Any, _schema: Schema) -> Iterator[ValidationError]:
        if validator.is_type(value, "number") and (_fraction(value) / _fraction(factor)).denominator != 1:
            yield ValidationError("")

    def required(validator: Any, names: list[str], value: Any, _schema: Schema) -> Iterator[ValidationError]:
        if validator.is_type(value, "object") and not all(name in value for name in names):
            yield ValidationError("")  # one for all names that are missing

    def pattern(validator: Any, expression: str, value: Any, _schema: Schema) -> Iterator[ValidationError]:
        if not validator.is_type(value, "string"):
            return
        try:
            found = patterns.search(expression, value)
        except TimeoutError as error:
            raise _SlowPattern(expression, value) from error
        if not found:
            yield ValidationError("")

    def pattern_properties(validator: Any, named: Schema, value: Any, _schema: Schema) -> Iterator[ValidationError]:
        for name in value if validator.is_type(value, "object") else ():
            for expression, part in named.items():
                if patterns.search(expression, name):
                    yield from validator.descend(value[name], part, path=name, schema_path=expression)

    def additional_properties(validator: Any, rule: Any, value: Any, schema: Schema) -> Iterator[ValidationError]:
        others = _additional(schema, value) if validator.is_type(value, "object") else []
        if rule is False and others:
            yield ValidationError("")
        for name in others if isinstance(rule, Mapping) else ():
            yield from validator.descend(value[name], rule, path=name)

    extend: Any = validators.extend
    keywords = {
        "additionalProperties": additional_properties,
        "multipleOf": multiple_of,
        "pattern": pattern,
        "patternProperties": pattern_properties,
        "required": required,
    }
    return extend(Draft202012Validator, keywords), Registry()


def _additional(schema: Schema, names: Iterable[str]) -> list[str]:
    """Those of an object's names that the schema has neither in `properties` nor in `patternProperties`."""
    named, expressions = schema.get("properties", {}), schema.get("patternProperties", {})
    return [
        name
        for name in names
        if name not in named and not any(patterns.search(expression, name) for expression in expressions)
    ]


def _broken_rule(schema: Schema, error: Exception) -> str | None:
    """What of the schema is to blame for the error; None if nothing is."""
    from jsonschema import Draft202012Validator, SchemaError
    from referencing.exceptions import Unresolvable

    match error:
        case patterns.Untranslatable():
            return f"{_quoted(error.pattern)} is not a pattern that can be checked: {error}"
        case Unresolvable():
            return f"{_quoted(error.ref)} leads to nothing"
        case RecursionError():
            return "it contains itself"
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as broken:
        return f"{_pointer(broken.absolute_path)}: {broken.message}".removeprefix(": ")
    return None


def _fraction(number: int | float) -> Fraction:
    """The number as it is written, not the binary one that is closest to it."""
    return Fraction(number) if isinstance(number, int) else Fraction(repr(number))


def _faults(errors: Iterator[Any]) -> Iterator[str]:
    """The places of the arguments that break a rule, each with the rule, of jsonschema's ValidationErrors."""
    for error in errors:
        place, rule, value = _pointer(error.absolute_path), error.validator_value, error.instance
        match error.validator:
            case "required":
                yield from (f"{place}{_pointer([name])}: is missing" for name in rule if name not in value)
            case "additionalProperties" if rule is False:
                known = [*error.schema.get("properties", {}), *error.schema.get("patternProperties", {})]
                yield from (
                    f"{place}{_pointer([name])}: is not known; known are: {', '.join(known) or 'none'}"
                    for name in _additional(error.schema, value)
                )
            case "anyOf" | "oneOf" if error.context:
                reasons = " / ".join(islice(_faults(iter(error.context)), _MOST_FAULTS))
                yield f"{place}: {_quoted(value)} is none of the alternatives: {reasons}".removeprefix(": ")
            case keyword:
                yield f"{place}: {_quoted(value)} {_broken(keyword, rule)}".removeprefix(": ")


def _broken(keyword: str, rule: Any) -> str:
    match keyword:
        case "type":
            return f"is not of type {rule if isinstance(rule, str) else ' or '.join(rule)}"
        case "enum":
            return f"is not one of {', '.join(map(_quoted, rule))}"
        case "pattern":
            return f"does not match the pattern {rule}"
        case "multipleOf":
            return f"is not a multiple of {rule}"
        case "oneOf":
            return "is more than one of the alternatives"
        case _:
            return f"breaks {keyword} {_quoted(rule)}"


def _quoted(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}..."


def _pointer(steps: Any) -> str:
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in steps)


def _places(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every value with the pointer to it."""
    yield place, value
    entries: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, entry in entries:
        yield from _places(entry, place + _pointer([name]))
