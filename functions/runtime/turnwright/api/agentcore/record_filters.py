"""Which records a query wants: the expressions over their metadata.

Source of what an operator compares with: "Structured metadata for long-term memories" in AgentCore's developer guide,
and the table of `MemoryRecordOperatorType` in the package `bedrock-agentcore`, which differ over CONTAINS.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from turnwright.api.agentcore.operations import seconds
from turnwright.api.agentcore.refusals import invalid
from turnwright.memory.records.records import Record

_KINDS = {
    "BEFORE": ("dateTimeValue",),
    "AFTER": ("dateTimeValue",),
    "CONTAINS": ("stringValue", "stringListValue"),
    "GREATER_THAN": ("numberValue",),
    "GREATER_THAN_OR_EQUALS": ("numberValue",),
    "LESS_THAN": ("numberValue",),
    "LESS_THAN_OR_EQUALS": ("numberValue",),
}
"""The kind of value that an operator compares with; EQUALS_TO takes any."""

_PRESENCE = ("EXISTS", "NOT_EXISTS")

RESERVED = "x-amz-agentcore-memory-"
"""What the names of the metadata begin with that is not the caller's."""

CREATED_AT, UPDATED_AT = f"{RESERVED}createdAt", f"{RESERVED}updatedAt"
"""The reserved metadata that every record has here. Nothing declares it."""


def check(filters: Sequence[Mapping[str, Any]], place: str) -> None:
    """Raises Invalid for a value that the operator does not take."""
    for index, expression in enumerate(filters):
        operator, where = expression["operator"], f"{place}[{index}].right"
        right = expression.get("right")
        if (right is None) != (operator in _PRESENCE):
            raise invalid(where, "is missing" if right is None else f"is given, but {operator} takes none")
        if right is not None and operator in _KINDS and _kind(right["metadataValue"]) not in _KINDS[operator]:
            raise invalid(where, f"has no {' or '.join(_KINDS[operator])}, with which {operator} compares")
        key = expression["left"]["metadataKey"]
        if key.startswith(RESERVED) and key not in (CREATED_AT, UPDATED_AT):
            raise invalid(
                f"{place}[{index}].left.metadataKey", f"is reserved, and neither {CREATED_AT} nor {UPDATED_AT}"
            )


def holds(filters: Sequence[Mapping[str, Any]], record: Record) -> bool:
    """Whether all expressions hold of a record's metadata."""
    moments = {CREATED_AT: record.created_at, UPDATED_AT: record.updated_at}
    own = {key: {"dateTimeValue": seconds(moment)} for key, moment in moments.items()}
    return all(_holds(expression, {**record.metadata, **own}) for expression in filters)


def _holds(expression: Mapping[str, Any], metadata: Mapping[str, Any]) -> bool:
    found = metadata.get(expression["left"]["metadataKey"])
    operator = expression["operator"]
    if operator in _PRESENCE or found is None:
        return bool((found is not None) == (operator == "EXISTS")) if operator in _PRESENCE else False
    wanted = expression["right"]["metadataValue"]
    kind, value = _kind(found), _value(found)
    if operator == "CONTAINS":
        texts = _value(wanted) if _kind(wanted) == "stringListValue" else [_value(wanted)]
        return kind in ("stringValue", "stringListValue") and any(text in value for text in texts)
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
