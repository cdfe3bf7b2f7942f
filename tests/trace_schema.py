"""The schema of trace events, as a check that any test can make of an event."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator

from tests.paths import ROOT

SCHEMA = ROOT / "schemas" / "trace_event.schema.json"

_ADDED_BY_THE_LOG = ("level", "message", "@timestamp", "@message")


@cache
def validator() -> Draft202012Validator:
    schema = json.loads(SCHEMA.read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@cache
def types() -> frozenset[str]:
    return frozenset(json.loads(SCHEMA.read_text())["properties"]["type"]["enum"])


def check(event: Mapping[str, Any]) -> None:
    """Raises AssertionError with all that is wrong with an event, as it was written."""
    written = json.loads(json.dumps(event))
    faults = [
        f"{'/'.join(map(str, error.absolute_path))}: {error.message}" for error in validator().iter_errors(written)
    ]
    assert not faults, f"{written}\n{faults}"


def event_of(line: Mapping[str, Any]) -> dict[str, Any] | None:
    """The event that a line of the log is, or None."""
    if line.get("type") not in types():
        return None
    return {name: value for name, value in line.items() if name not in _ADDED_BY_THE_LOG}
