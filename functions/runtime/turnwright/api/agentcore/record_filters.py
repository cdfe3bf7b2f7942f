"""Which records a query wants: the expressions over their metadata."""

from collections.abc import Mapping, Sequence
from typing import Any

from turnwright.api.agentcore.refusals import invalid

_KINDS = {
    "BEFORE": ("dateTimeValue",),
    "AFTER": ("dateTimeValue",),
    "CONTAINS": ("stringValue",),
    "GREATER_THAN": ("numberValue",),
    "GREATER_THAN_OR_EQUALS": ("numberValue",),
    "LESS_THAN": ("numberValue",),
    "LESS_THAN_OR_EQUALS": ("numberValue",),
}
"""The kind of value that an operator compares with; EQUALS_TO takes any."""

_PRESENCE = ("EXISTS", "NOT_EXISTS")


def check(filters: Sequence[Mapping[str, Any]], place: str) -> None:
    """Raises Invalid for a value that the operator does not take."""
    for index, expression in enumerate(filters):
        operator, where = expression["operator"], f"{place}[{index}].right"
        right = expression.get("right")
        if (right is None) != (operator in _PRESENCE):
            raise invalid(where, "is missing" if right is None else f"is given, but {operator} takes none")
        if right is not None and operator in _KINDS and _kind(right["metadataValue"]) not in _KINDS[operator]:
            raise invalid(where, f"has no {_KINDS[operator][0]}, with which {operator} compares")


def holds(filters: Sequence[Mapping[str, Any]], metadata: Mapping[str, Any]) -> bool:
    """Whether all expressions hold of a record's metadata."""
    return all(_holds(expression, metadata) for expression in filters)


def _holds(expression: Mapping[str, Any], metadata: Mapping[str, Any]) -> bool:
    found = metadata.get(expression["left"]["metadataKey"])
    operator = expression["operator"]
    if operator in _PRESENCE or found is None:
        return bool((found is not None) == (operator == "EXISTS")) if operator in _PRESENCE else False
    wanted = expression["right"]["metadataValue"]
    kind, value = _kind(found), _value(found)
    if operator == "CONTAINS":
        return kind in ("stringValue", "stringListValue") and _value(wanted) in value
    if kind != _kind(wanted):
        return False
    match operator:
        case "EQUALS_TO":
            return bool(value == _value(wanted))
        case "BEFORE" | "LESS_THAN":
            return bool(value < _value(wanted))
        case "AFTER" | "GREATER_THAN":
            return bool(value > _value(wanted))
        case "LESS_THAN_OR_EQUALS":
            return bool(value <= _value(wanted))
        case _:
            return bool(value >= _value(wanted))


def _kind(value: Mapping[str, Any]) -> str:
    return next(name for name, given in value.items() if given is not None)


def _value(value: Mapping[str, Any]) -> Any:
    return value[_kind(value)]
