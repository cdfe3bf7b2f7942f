"""DynamoDB's consumed capacity.

Stock moto reports constants: 0.5 for any GetItem, 1 for any Query, nothing for TransactWriteItems. Here the
units are counted from item sizes as the DynamoDB developer guide describes ("Read and write operations",
"Item sizes and formats"):

- a read costs one unit for each started 4 KiB, half of it when eventually consistent, double in a transaction; Query
  and Scan add up what they looked at (before filters and projections) and round once, at least one unit's worth;
- a write costs one unit for each started KiB of the larger of the old and the new item, double in a transaction;
- a repeated transaction (same ClientRequestToken) costs the reads of its items.

Indexes have units of their own ("Using Global Secondary Indexes", "Provisioned throughput considerations"):

- a write whose item gets into an index, leaves it or changes a projected attribute in it costs one more write, of the
  index entry's size; one that changes a key of the index costs two, a delete and a put; one that changes nothing that
  the index has costs nothing there;
- a query of an index costs the sizes of the index's entries, not of the items;
- TOTAL includes indexes, INDEXES tells them apart. An index is written behind the table, once: a transaction does not
  double it.

A request that fails reports nothing, as on AWS.
"""

import base64
import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moto.core.responses import ActionResult
from moto.dynamodb.models.table import GlobalSecondaryIndex, Table
from moto.dynamodb.models.utilities import dynamo_to_dict
from moto.dynamodb.responses import DynamoHandler

from local.moto_patches.dynamodb import touched
from local.moto_patches.replacing import replace

_READ_UNIT = 4096
_WRITE_UNIT = 1024

_looked_at = threading.local()


def item_size(attributes: Mapping[str, Mapping[str, Any]]) -> int:
    """Bytes of an item in wire form, `{"name": {"S": "text"}}`: names and values in UTF-8."""
    return sum(len(name.encode()) + _value_size(value) for name, value in attributes.items())


def _value_size(value: Mapping[str, Any]) -> int:
    [(kind, content)] = value.items()
    match kind:
        case "S":
            return len(content.encode())
        case "N":
            return _number_size(content)
        case "B":
            return _binary_size(content)
        case "SS":
            return sum(len(member.encode()) for member in content)
        case "NS":
            return sum(_number_size(member) for member in content)
        case "BS":
            return sum(_binary_size(member) for member in content)
        case "L":  # 3 bytes for the list and one for each member
            return 3 + sum(1 + _value_size(member) for member in content)
        case "M":
            return 3 + sum(1 + len(name.encode()) + _value_size(member) for name, member in content.items())
        case _:  # BOOL, NULL
            return 1


def _number_size(text: str) -> int:
    """About one byte for two significant digits, and one more; another for a minus."""
    digits = text.lstrip("-+").lower().split("e")[0].replace(".", "").strip("0")
    return (len(digits) + 1) // 2 + 1 + text.startswith("-")


def _binary_size(content: Any) -> int:
    return len(content) if isinstance(content, bytes) else len(base64.b64decode(content))


def read_units(size: int, *, consistent: bool) -> float:
    return max(1, -(-size // _READ_UNIT)) * (1.0 if consistent else 0.5)


def write_units(size: int) -> float:
    return float(max(1, -(-size // _WRITE_UNIT)))


@dataclass(slots=True)
class _Units:
    """What a request consumed of one table: by the table itself, and by its indexes."""

    table: float = 0.0
    indexes: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    @property
    def total(self) -> float:
        return self.table + sum(self.indexes.values())

    def add_write(self, table: Any, before: Mapping[str, Any], after: Mapping[str, Any], factor: int = 1) -> None:
        """`before` and `after` are items in wire form, empty where there is none."""
        self.table += factor * write_units(max(item_size(before), item_size(after)))
        for index in table.all_indexes():
            self.indexes[index.name] += _index_write_units(table, index, before, after)


def _index_write_units(table: Any, index: Any, before: Mapping[str, Any], after: Mapping[str, Any]) -> float:
    old, new = _index_entry(table, index, before), _index_entry(table, index, after)
    if old == new:
        return 0.0
    keys = index.schema_key_attrs
    if old and new and any(old[name] != new[name] for name in keys):
        return write_units(item_size(old)) + write_units(item_size(new))
    return write_units(max(item_size(old), item_size(new)))


def _index_entry(table: Any, index: Any, item: Mapping[str, Any]) -> Mapping[str, Any]:
    """What an index has of an item; empty when it lacks a key of the index."""
    if not all(name in item for name in index.schema_key_attrs):
        return {}
    projection = index.projection or {}
    if projection.get("ProjectionType") == "ALL":
        return item
    names = {*table.table_key_attrs, *index.schema_key_attrs, *projection.get("NonKeyAttributes", ())}
    return {name: value for name, value in item.items() if name in names}


def _stored(table: Any, keys: Mapping[str, Any], backend: Any) -> dict[str, Any]:
    """The item in wire form, empty if there is none."""
    return _wire(table.get_item(*backend.get_keys_value(table, keys)))


def _wire(item: Any) -> dict[str, Any]:
    wire: dict[str, Any] = dynamo_to_dict(item.attrs) if item else {}
    return wire


def _report(result: Any, handler: Any, units: Mapping[str, _Units], kind: str | None = None) -> None:
    """Writes `units`, by table name and with the kind ("ReadCapacityUnits") that transactions name, into a
    result.
    """
    wanted = handler.body.get("ReturnConsumedCapacity", "NONE")
    body = result.result
    body.pop("ConsumedCapacity", None)
    if wanted not in ("TOTAL", "INDEXES"):
        return

    def counted(amount: float) -> dict[str, Any]:
        return {"CapacityUnits": amount, **({kind: amount} if kind else {})}

    several = "TransactItems" in handler.body or "RequestItems" in handler.body
    reports = []
    for name, consumed in units.items():
        report: dict[str, Any] = {"TableName": name, **counted(consumed.total)}
        if wanted == "INDEXES":
            report["Table"] = counted(consumed.table)
            for index in handler.dynamodb_backend.get_table(name).all_indexes():
                if amount := consumed.indexes[index.name]:
                    is_global = isinstance(index, GlobalSecondaryIndex)
                    group = "GlobalSecondaryIndexes" if is_global else "LocalSecondaryIndexes"
                    report.setdefault(group, {})[index.name] = counted(amount)
        reports.append(report)
    body["ConsumedCapacity"] = reports if several else reports[0]


def _count_single_writes() -> None:
    def make(original: Any) -> Any:
        def write(handler: Any) -> ActionResult:
            backend = handler.dynamodb_backend
            table = backend.get_table(handler.body["TableName"])
            keys = handler.body.get("Key") or handler.body["Item"]
            complete = all(name in keys for name in table.table_key_attrs)
            before = _stored(table, keys, backend) if complete else {}
            result: ActionResult = original(handler)
            consumed = _Units()
            consumed.add_write(table, before, _stored(table, keys, backend))
            _report(result, handler, {table.name: consumed})
            return result

        return write

    for name in ("put_item", "update_item", "delete_item"):
        replace(DynamoHandler, name, make)


def _count_batches() -> None:
    def make_write(original: Any) -> Any:
        def batch_write_item(handler: Any) -> ActionResult:
            backend = handler.dynamodb_backend
            written = []
            for name, requests in handler.body["RequestItems"].items():
                for request in requests:
                    [content] = request.values()
                    table = backend.get_table(name)
                    keys = content.get("Key") or content["Item"]
                    written.append((table, keys, _stored(table, keys, backend)))
            result: ActionResult = original(handler)
            units: dict[str, _Units] = {}
            for table, keys, before in written:
                units.setdefault(table.name, _Units()).add_write(table, before, _stored(table, keys, backend))
            _report(result, handler, units)
            return result

        return batch_write_item

    def make_get(original: Any) -> Any:
        def batch_get_item(handler: Any) -> ActionResult:
            backend = handler.dynamodb_backend
            result: ActionResult = original(handler)
            units: dict[str, _Units] = {}
            for name, request in handler.body["RequestItems"].items():
                table = backend.get_table(name)
                consistent = bool(request.get("ConsistentRead"))
                sizes = [item_size(_stored(table, keys, backend)) for keys in request["Keys"]]
                units[table.name] = _Units(sum(read_units(size, consistent=consistent) for size in sizes))
            _report(result, handler, units)
            return result

        return batch_get_item

    replace(DynamoHandler, "batch_write_item", make_write)
    replace(DynamoHandler, "batch_get_item", make_get)


def _count_transactions() -> None:
    def items_of(handler: Any) -> list[tuple[Any, dict[str, Any]]]:
        named = touched(handler.dynamodb_backend, handler.body["TransactItems"])
        return [(table, _wire(table.get_item(hash_key, range_key))) for table, hash_key, range_key in named]

    def reads(items: list[tuple[Any, dict[str, Any]]]) -> dict[str, _Units]:
        units: dict[str, _Units] = {}
        for table, item in items:
            units.setdefault(table.name, _Units()).table += 2 * read_units(item_size(item), consistent=True)
        return units

    def make_write(original: Any) -> Any:
        def transact_write_items(handler: Any) -> ActionResult:
            before = items_of(handler)
            result: ActionResult = original(handler)
            after = items_of(handler)
            if getattr(handler, "repeats_transaction", False):
                _report(result, handler, reads(after), "ReadCapacityUnits")
                return result
            units: dict[str, _Units] = {}
            for (table, old), (_, new) in zip(before, after, strict=True):
                units.setdefault(table.name, _Units()).add_write(table, old, new, factor=2)
            _report(result, handler, units, "WriteCapacityUnits")
            return result

        return transact_write_items

    def make_get(original: Any) -> Any:
        def transact_get_items(handler: Any) -> ActionResult:
            result: ActionResult = original(handler)
            _report(result, handler, reads(items_of(handler)), "ReadCapacityUnits")
            return result

        return transact_get_items

    replace(DynamoHandler, "transact_write_items", make_write)
    replace(DynamoHandler, "transact_get_items", make_get)


def _count_get_item() -> None:
    def make(original: Any) -> Any:
        def get_item(handler: Any) -> ActionResult:
            result: ActionResult = original(handler)
            table = handler.dynamodb_backend.get_table(handler.body["TableName"])
            size = item_size(_stored(table, handler.body["Key"], handler.dynamodb_backend))
            units = read_units(size, consistent=bool(handler.body.get("ConsistentRead")))
            _report(result, handler, {table.name: _Units(units)})
            return result

        return get_item

    replace(DynamoHandler, "get_item", make)


def _count_queries() -> None:
    """What a Query or Scan looked at is only known inside, before its filter and projection: these are done
    here. Of an index it looks at what the index has of the items.
    """

    def looked_at(items: list[Any], filter_expression: Any, projection: Any) -> list[Any]:
        _looked_at.bytes = sum(item_size(dynamo_to_dict(item.attrs)) for item in items)
        if filter_expression is not None:
            items = [item for item in items if filter_expression.expr(item)]
        return [item.project(projection) for item in items] if projection else items

    def make_query(original: Any) -> Any:
        def query(
            table: Any,
            hash_key: Any,
            range_comparison: Any,
            range_objs: Any,
            limit: Any,
            exclusive_start_key: Any,
            scan_index_forward: Any,
            projection_expressions: Any,
            index_name: str | None = None,
            consistent_read: bool = False,
            filter_expression: Any = None,
            **rest: Any,
        ) -> Any:
            items, count, last = original(
                table,
                hash_key,
                range_comparison,
                range_objs,
                limit,
                exclusive_start_key,
                scan_index_forward,
                None,
                index_name,
                consistent_read,
                None,
                **rest,
            )
            return looked_at(items, filter_expression, projection_expressions), count, last

        return query

    def make_scan(original: Any) -> Any:
        def scan(
            table: Any,
            filters: Any,
            limit: Any,
            exclusive_start_key: Any,
            filter_expression: Any = None,
            index_name: str | None = None,
            consistent_read: bool = False,
            projection_expression: Any = None,
            segments: Any = (None, None),
        ) -> Any:
            items, count, last = original(
                table, filters, limit, exclusive_start_key, None, index_name, consistent_read, None, segments
            )
            return looked_at(items, filter_expression, projection_expression), count, last

        return scan

    def make_handler(original: Any) -> Any:
        def search(handler: Any) -> ActionResult:
            _looked_at.bytes = 0
            result: ActionResult = original(handler)
            table = handler.dynamodb_backend.get_table(handler.body["TableName"])
            units = read_units(_looked_at.bytes, consistent=bool(handler.body.get("ConsistentRead")))
            index = handler.body.get("IndexName")
            consumed = _Units()
            if index:
                consumed.indexes[index] = units
            else:
                consumed.table = units
            _report(result, handler, {table.name: consumed})
            return result

        return search

    replace(Table, "query", make_query)
    replace(Table, "scan", make_scan)
    replace(DynamoHandler, "query", make_handler)
    replace(DynamoHandler, "scan", make_handler)


def apply() -> None:
    _count_single_writes()
    _count_batches()
    _count_transactions()
    _count_get_item()
    _count_queries()
