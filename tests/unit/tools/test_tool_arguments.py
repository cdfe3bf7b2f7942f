"""The arguments of a tool call: how what models write is read, checked, and refused."""

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.tool_turns import tool
from turnwright.models.converse import UNREADABLE_INPUT
from turnwright.tools import tool_arguments
from turnwright.tools.tool_arguments import ArgumentsUnchecked
from turnwright.tools.tool_failures import ToolFailure

INTEGER, NUMBER, BOOLEAN, STRING = ({"type": kind} for kind in ("integer", "number", "boolean", "string"))
ARRAY, OBJECT = {"type": "array", "items": INTEGER}, {"type": "object", "properties": {"n": INTEGER}}
STILL_MATCHED = f'after 0.2 s "{"a" * 40}" was still being matched with the pattern'
BACKTRACKING = r"^([a-z]+[._-]?)+@x$"


def read(properties: Mapping[str, Any], arguments: Mapping[str, Any], *required: str, **schema: Any) -> Any:
    """The arguments as a tool with these properties gets them, as JSON: 5 is not 5.0, and true is not 1."""
    whole = {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}
    read = tool_arguments.read(replace(tool(name="search"), input_schema={**whole, **schema}), arguments)
    return json.dumps(read)


def refused(properties: Mapping[str, Any], arguments: Mapping[str, Any], *required: str, **schema: Any) -> str:
    """Why the arguments are refused."""
    with pytest.raises(ToolFailure) as failure:
        read(properties, arguments, *required, **schema)
    assert (failure.value.code, failure.value.invoked) == ("INVALID_ARGUMENTS", False)
    return failure.value.message.removeprefix("the arguments of search break its schema: ")


@pytest.mark.parametrize(
    ("schema", "written", "meant"),
    [
        (INTEGER, "5", 5),
        (INTEGER, " -5 ", -5),
        (INTEGER, "5.0", 5),
        (INTEGER, "1e3", 1000),
        (INTEGER, 1e23, 10**23),
        (INTEGER, "1e23", 10**23),
        (INTEGER, 5.0, 5),
        (INTEGER, "12345678901234567890", 12345678901234567890),
        (NUMBER, "19.99", 19.99),
        (NUMBER, 5.0, 5.0),
        (BOOLEAN, "true", True),
        (ARRAY, '["1", 2.0]', [1, 2]),
        (ARRAY, ["1", 2.0], [1, 2]),
        (OBJECT, '{"n": "1"}', {"n": 1}),
        (OBJECT, {"n": None}, {}),
        ({"type": ["integer", "null"]}, "null", None),
        ({"type": ["integer", "null"]}, None, None),
        ({"type": ["integer", "null"]}, 5.0, 5),
        ({"type": ["integer", "string"]}, "5", "5"),
        ({"enum": [1, 2]}, "2", 2),
        ({"type": "integer", "enum": [1, 2]}, "2", 2),
        ({"const": True}, "true", True),
        ({}, "5", "5"),
        ({}, None, None),
        (STRING, "null", "null"),
        ({"anyOf": [INTEGER, {"type": "null"}]}, "5", 5),
        ({"anyOf": [INTEGER, {"type": "null"}]}, 5.0, 5),
        ({"anyOf": [INTEGER, STRING]}, "5", "5"),
        ({"oneOf": [OBJECT, BOOLEAN]}, '{"n": "1"}', {"n": 1}),
        ({"allOf": [INTEGER, {"minimum": 3}]}, "5", 5),
        ({"type": "object", "additionalProperties": INTEGER}, {"a": "1"}, {"a": 1}),
        ({"type": "object", "patternProperties": {"^n": INTEGER}}, {"n1": "1", "x": "1"}, {"n1": 1, "x": "1"}),
        ({"type": "array", "prefixItems": [BOOLEAN], "items": INTEGER}, ["true", "5"], [True, 5]),
    ],
    ids=repr,
)
def test_what_is_unambiguous_is_read_as_its_schema_means_it(schema: Any, written: Any, meant: Any) -> None:
    assert read({"a": schema}, {"a": written}, "a") == json.dumps({"a": meant})


@pytest.mark.parametrize("schema", [INTEGER, STRING, ARRAY, OBJECT, {"anyOf": [INTEGER, STRING]}, {"enum": ["x"]}])
def test_null_for_what_may_be_left_out_counts_as_left_out(schema: Any) -> None:
    assert read({"a": schema, "b": INTEGER}, {"a": None, "b": 1}, "b") == '{"b": 1}'
    assert "/a: null " in refused({"a": schema}, {"a": None}, "a")


@pytest.mark.parametrize(
    ("schema", "written"),
    [
        (INTEGER, "5.5"),
        (INTEGER, "05"),
        (INTEGER, "5 EUR"),
        (INTEGER, ""),
        (INTEGER, "true"),
        (INTEGER, True),
        (INTEGER, "9007199254740993.0"),
        (INTEGER, "9" * 5_000),
        (NUMBER, "0.1000000000000000000001"),
        (NUMBER, "1e999"),
        (NUMBER, "1e-99999999999999999999"),
        (NUMBER, "NaN"),
        (BOOLEAN, "True"),
        (BOOLEAN, "yes"),
        (BOOLEAN, 1),
        (STRING, 5),
        (STRING, True),
        (ARRAY, "1, 2"),
        (ARRAY, '{"n": 1}'),
        (ARRAY, "[" * 100_000),
        (OBJECT, '{"n": 1, "n": 2}'),
        (OBJECT, '"{}"'),
        ({"enum": [1, "auto"]}, "1"),
        ({"oneOf": [{"type": "array"}, {"type": "array", "items": INTEGER}]}, '["1"]'),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_nothing_is_guessed(schema: Any, written: Any) -> None:
    assert refused({"a": schema}, {"a": written}, "a").startswith("/a: ")


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "integer": st.integers(),
            "number": st.floats(allow_nan=False, allow_infinity=False),
            "boolean": st.booleans(),
            "array": st.lists(st.integers()),
            "object": st.dictionaries(st.sampled_from("nm"), st.integers()),
        },
    )
)
def test_what_is_valid_stays_and_its_json_text_means_the_same(arguments: dict[str, Any]) -> None:
    properties = {name: {"type": name} for name in ("integer", "number", "boolean", "array", "object")}
    texts = {name: json.dumps(value) for name, value in arguments.items()}
    assert read(properties, arguments) == read(properties, texts) == json.dumps(arguments)


@pytest.mark.parametrize("price", [19.99, 0.07, 1.1, 100, 1e16, 123456789.01, "19.99"])
def test_a_multiple_is_one_of_decimals(price: Any) -> None:
    schema = {"price": {"type": "number", "multipleOf": 0.01}}
    assert read(schema, {"price": price}) == json.dumps({"price": float(price) if isinstance(price, str) else price})
    assert refused(schema, {"price": 19.995}) == "/price: 19.995 is not a multiple of 0.01"


@pytest.mark.parametrize(
    ("schema", "value", "message"),
    [
        (INTEGER, None, "/a: null is not of type integer"),
        (STRING, True, "/a: true is not of type string"),
        (STRING, {"x": None}, '/a: {"x": null} is not of type string'),
        ({"type": ["integer", "null"]}, "x", '/a: "x" is not of type integer or null'),
        ({"enum": ["x", None]}, False, '/a: false is not one of "x", null'),
        ({"const": None}, 1, "/a: 1 breaks const null"),
        ({"pattern": "^[0-9]+$"}, "x", '/a: "x" does not match the pattern ^[0-9]+$'),
        ({"minimum": 3}, 1, "/a: 1 breaks minimum 3"),
        ({"maxLength": 3}, "x" * 200, f'/a: "{"x" * 99}... breaks maxLength 3'),
        ({"uniqueItems": True}, [1, 1.0], "/a: [1, 1.0] breaks uniqueItems true"),
        ({"not": {"type": "null"}}, None, '/a: null breaks not {"type": "null"}'),
        (ARRAY, [1, "x"], '/a/1: "x" is not of type integer'),
        ({"properties": {"b/c": INTEGER}}, {"b/c": "x"}, '/a/b~1c: "x" is not of type integer'),
        ({"required": ["b", "c"]}, {}, "/a/b: is missing; /a/c: is missing"),
        ({"properties": {}, "additionalProperties": False}, {"b": 1}, "/a/b: is not known; known are: none"),
        (
            {"patternProperties": {"^x": {}}, "additionalProperties": False},
            {"x1": 1, "b": 1},
            "/a/b: is not known; known are: ^x",
        ),
        (
            {"anyOf": [INTEGER, {"type": "object", "required": ["b"]}]},
            {},
            "/a: {} is none of the alternatives: /a: {} is not of type integer / /a/b: is missing",
        ),
        ({"oneOf": [{"minimum": 1}, {"minimum": 2}]}, 3, "/a: 3 is more than one of the alternatives"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_refusal_names_the_place_and_the_rule_in_the_words_of_json(schema: Any, value: Any, message: str) -> None:
    assert refused({"a": schema}, {"a": value}, "a") == message


def test_rules_of_the_whole_are_told_without_a_place_and_many_faults_are_cut() -> None:
    assert refused({}, {}, minProperties=1) == "{} breaks minProperties 1"
    assert refused({"a": ARRAY}, {"a": ["x"] * 10_000}).count("; ") == 9
    unread = refused({}, {UNREADABLE_INPUT: "{"})
    assert unread == "the arguments of search were not a JSON object; send them whole"


@pytest.mark.parametrize("text", ['{"a": 1, "a": 1}', '{"b": [{"a": 1, "a": 2}]}'])
def test_a_name_that_is_there_twice_is_told(text: str) -> None:
    assert refused({}, {UNREADABLE_INPUT: text}) == (
        'the arguments of search have the name "a" more than once in one object; send each name once'
    )


@pytest.mark.parametrize(
    ("schema", "valid", "invalid"),
    [
        ({"pattern": r"^\d+$"}, "5", ["5\n", "\u0665"]),
        ({"pattern": r"^(?<a>\p{L})\k<a>$"}, "ЖЖ", ["ab", "11"]),
        ({"propertyNames": {"pattern": r"^\w$"}}, {"a": 1}, [{"é": 1}, {"a\n": 1}]),
        ({"patternProperties": {r"^\w$": INTEGER}, "additionalProperties": STRING}, {"a": "1", "é": "1"}, [{"é": 1}]),
        ({"patternProperties": {r"^\d$": {}}, "additionalProperties": False}, {"1": 1}, [{"\u0665": 1}, {"1\n": 1}]),
    ],
    ids=["pattern", "category", "names", "others", "no others"],
)
def test_patterns_are_those_of_ecma_262(schema: Any, valid: Any, invalid: list[Any]) -> None:
    assert read({"a": schema}, {"a": valid})
    for value in invalid:
        assert refused({"a": schema}, {"a": value}).startswith("/a")


@pytest.mark.filterwarnings("error::DeprecationWarning")
@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        ({"pattern": "(?P<a>b)"}, '"(?P<a>b)" is not a pattern that can be checked: character 1, (?P<a>b): '),
        ({"patternProperties": {r"\Z": {}}}, '"\\\\Z" is not a pattern that can be checked: '),
        ({"patternProperties": {r"\Z": {}}, "additionalProperties": False}, '"\\\\Z" is not a pattern that can be '),
        ({"$ref": "#/$defs/x"}, '"/$defs/x" leads to nothing'),
        ({"$ref": "http://127.0.0.1:9/schema.json"}, '"http://127.0.0.1:9/schema.json" leads to nothing'),
        ({"$ref": "#/properties/a"}, "it contains itself"),
        ({"type": "text"}, "/properties/a/type: 'text' is not valid under any of the given schemas"),
        ({"type": 5}, "/properties/a/type: 5 is not valid under any of the given schemas"),
        ({"items": 5}, "/properties/a/items: 5 is not of type 'object', 'boolean'"),
        ({"required": 5}, "/properties/a/required: 5 is not of type 'array'"),
        ({"anyOf": 5}, "/properties/a/anyOf: 5 is not of type 'array'"),
        ({"multipleOf": 0}, "/properties/a/multipleOf: 0 is less than or equal to the minimum of 0"),
        ({"pattern": 5}, "/properties/a/pattern: 5 is not of type 'string'"),
        ({"$id": 5}, "/properties/a/$id: 5 is not of type 'string'"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_stored_schema_that_is_none_fails_the_call_with_its_rule_and_names_the_tool(broken: Any, rule: str) -> None:
    values: list[Any] = ["x", {"x": 1}, ["x"], 5]
    told = []
    for value in values:
        try:
            read({"a": broken}, {"a": value})
        except ArgumentsUnchecked as failure:
            told.append(failure.message)
    assert told
    for message in told:
        assert message.startswith(
            "the arguments of search could not be checked, so it was not called: "
            f"its schema is broken, whatever they are: {rule}"
        )


def test_an_error_that_no_schema_is_to_blame_for_is_no_failure_of_the_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(tool_arguments, "_faults", broken)
    with pytest.raises(ZeroDivisionError):
        read({"a": INTEGER}, {"a": 1})


@pytest.mark.parametrize("schema", [{}, {"type": "string"}, {"enum": [1]}, {"items": {"items": {}}}])
def test_arguments_nested_too_deeply_are_refused(schema: Any) -> None:
    nested: Any = 1
    for _ in range(tool_arguments.DEEPEST - 1):
        nested = [nested]
    if schema in ({}, {"items": {"items": {}}}):
        assert read({"a": schema}, {"a": nested}) == json.dumps({"a": nested})
    for _ in range(5_000):
        nested = [nested]
    assert refused({"a": schema}, {"a": nested}) == (
        "the arguments of search are nested more than 100 levels deep; send less"
    )


SWALLOWED = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""An interruption may fall into a callback of the garbage collector, which swallows it; the next one follows."""


@SWALLOWED
@pytest.mark.parametrize(
    ("schema", "value", "reason"),
    [
        ({"pattern": BACKTRACKING}, "a" * 40, f"/a: {STILL_MATCHED} {BACKTRACKING}; send less"),
        ({"items": {"anyOf": [{"pattern": BACKTRACKING}]}}, ["a" * 40], f"/a/0: {STILL_MATCHED}"),
        ({"not": {"pattern": BACKTRACKING}}, "a" * 40, "/a: "),
        ({"patternProperties": {BACKTRACKING: {}}}, {"a" * 40: 1}, "its schema takes longer than 0.2 s"),
        ({"propertyNames": {"pattern": BACKTRACKING}}, {"a" * 40: 1}, ": "),
        ({"uniqueItems": True}, [{"n": n} for n in range(10_000)], "its schema takes longer than 0.2 s"),
        ({"uniqueItems": True}, [[[n]] for n in range(10_000)] + [{}], "its schema takes longer than 0.2 s"),
    ],
    ids=["pattern", "nested", "not", "names", "propertyNames", "objects", "mixed"],
)
def test_a_check_that_would_not_end_is_given_up_and_the_call_is_not_made(
    schema: Any, value: Any, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool_arguments, "CHECK_SECONDS", 0.2)
    with pytest.raises(ArgumentsUnchecked) as given_up:
        read({"a": schema}, {"a": value})
    assert (given_up.value.code, given_up.value.invoked) == ("INVALID_ARGUMENTS", False)
    told = given_up.value.message.removeprefix("the arguments of search could not be checked, so it was not called: ")
    assert told.startswith(reason)


@SWALLOWED
def test_alternatives_within_alternatives_are_given_up_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_arguments, "CHECK_SECONDS", 0.2)
    schema: Any = INTEGER
    for _ in range(15):
        schema = {"anyOf": [{"properties": {"a": schema}, "minProperties": n} for n in (0, 1, 2)]}
    value: Any = "x"
    for _ in range(15):
        value = {"a": value}
    with pytest.raises(ArgumentsUnchecked, match="takes longer than"):
        read({"a": schema}, {"a": value})
    time.sleep(0.15)  # the clock is stopped: nothing comes later


def test_patterns_keep_what_a_linear_engine_does_not_know() -> None:
    schema = {"a": {"pattern": r"^(?=.*\d)(?!0)(.)\1"}}
    assert read(schema, {"a": "aa1"}) == '{"a": "aa1"}'
    assert "does not match" in refused(schema, {"a": "aa"})
