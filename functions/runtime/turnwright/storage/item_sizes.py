"""How large DynamoDB takes an item to be, and what writing it consumes, by the rules of its developer guide.

Sources: "DynamoDB item sizes and formats" and "DynamoDB read and write operations". DynamoDB calls its own rule for
numbers approximate, so that a size may be a byte or two from the one that it counts.
"""

from collections.abc import Mapping
from typing import Any

_WRITE_UNIT = 1024


def item_bytes(item: Mapping[str, Any]) -> int:
    """The size of an item of plain values (`table.py` says which): of its attributes' names and values."""
    return sum(attribute_bytes(name, value) for name, value in item.items())


def attribute_bytes(name: str, value: Any) -> int:
    return len(name.encode()) + _value_bytes(value)


def write_units(size: int) -> int:
    """The units of one write of an item of so many bytes, of which the larger of before and after counts."""
    return max(1, -(-size // _WRITE_UNIT))


def transaction_units(size: int) -> int:
    """In a transaction each item is written twice, to prepare and to commit."""
    return 2 * write_units(size)


def _value_bytes(value: Any) -> int:
    match value:
        case bool() | None:
            return 1
        case str():
            return len(value.encode())
        case int():
            digits = str(abs(value)).strip("0")
            return (len(digits) + 1) // 2 + 1 + (value < 0)
        case Mapping():
            return 3 + sum(1 + attribute_bytes(name, entry) for name, entry in value.items())
        case list() | tuple():
            return 3 + sum(1 + _value_bytes(entry) for entry in value)
        case _:
            raise TypeError(f"an item holds no {type(value).__name__}")
