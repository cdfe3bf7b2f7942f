"""DynamoDB's consumed capacity.

Stock moto reports constants: 0.5 for any GetItem, 1 for any Query, nothing for TransactWriteItems. Here the
units are counted from item sizes as the DynamoDB developer guide describes ("Read and write operations",
"Item sizes and formats"):

- a read costs one unit for each started 4 KiB, half of it when eventually consistent, double in a transaction; Query
  and Scan add up what they looked at (before filters and projections) and round once, at least one unit's worth;
- a write costs one unit for each started KiB of the larger of the old and the new item, double in a transaction;
- a repeated transaction (same ClientRequestToken) costs the reads of its items.

Units of indexes are not counted: the project's table has none. A request that fails reports nothing, as on
AWS.
"""

import base64
import threading
from collections.abc import Callable, Mapping
from typing import Any

from moto.core.responses import ActionResult
from moto.dynamodb.models.table import Table
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


def _stored_size(table: Any, keys: Mapping[str, Any], backend: Any) -> int:
    item = table.get_item(*backend.get_keys_value(table, keys))
    return item_size(dynamo_to_dict(item.attrs)) if item else 0


def _report(result: Any, handler: Any, units: Mapping[str, tuple[float, str | None]]) -> None:
    """Writes `units`, by table name and with the kind ("ReadCapacityUnits") that transactions name, into a
    result.
    """
    wanted = handler.body.get("ReturnConsumedCapacity", "NONE")
    body = result.result
    body.pop("ConsumedCapacity", None)
    if wanted not in ("TOTAL", "INDEXES"):
        return
    several = "TransactItems" in handler.body or "RequestItems" in handler.body
    reports = []
    for table, (amount, kind) in units.items():
        counted = {"CapacityUnits": amount, **({kind: amount} if kind else {})}
        report: dict[str, Any] = {"TableName": table, **counted}
        if wanted == "INDEXES":
            report["Table"] = counted
        reports.append(report)
    body["ConsumedCapacity"] = reports if several else reports[0]


def _count_single_writes() -> None:
    def make(original: Any) -> Any:
        def write(handler: Any) -> ActionResult:
            backend = handler.dynamodb_backend
            table = backend.get_table(handler.body["TableName"])
            keys = handler.body.get("Key") or handler.body["Item"]
            complete = all(name in keys for name in table.table_key_attrs)
            before = _stored_size(table, keys, backend) if complete else 0
            result: ActionResult = original(handler)
            size = max(before, _stored_size(table, keys, backend))
            _report(result, handler, {table.name: (write_units(size), None)})
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
                    written.append((table, keys, _stored_size(table, keys, backend)))
            result: ActionResult = original(handler)
            units: dict[str, tuple[float, str | None]] = {}
            for table, keys, before in written:
                size = max(before, _stored_size(table, keys, backend))
                units[table.name] = (units.get(table.name, (0.0, None))[0] + write_units(size), None)
            _report(result, handler, units)
            return result

        return batch_write_item

    def make_get(original: Any) -> Any:
        def batch_get_item(handler: Any) -> ActionResult:
            backend = handler.dynamodb_backend
            result: ActionResult = original(handler)
            units: dict[str, tuple[float, str | None]] = {}
            for name, request in handler.body["RequestItems"].items():
                table = backend.get_table(name)
                consistent = bool(request.get("ConsistentRead"))
                sizes = [_stored_size(table, keys, backend) for keys in request["Keys"]]
                amount = sum(read_units(size, consistent=consistent) for size in sizes)
                units[table.name] = (amount, None)
            _report(result, handler, units)
            return result

        return batch_get_item

    replace(DynamoHandler, "batch_write_item", make_write)
    replace(DynamoHandler, "batch_get_item", make_get)


def _count_transactions() -> None:
    def sizes_of(handler: Any) -> list[tuple[str, int]]:
        items = touched(handler.dynamodb_backend, handler.body["TransactItems"])
        found = [(table.name, table.get_item(hash_key, range_key)) for table, hash_key, range_key in items]
        return [(name, item_size(dynamo_to_dict(item.attrs)) if item else 0) for name, item in found]

    def add_up(sizes: list[tuple[str, int]], cost: Callable[[int], float], kind: str) -> Any:
        units: dict[str, tuple[float, str | None]] = {}
        for name, size in sizes:
            units[name] = (units.get(name, (0.0, None))[0] + 2 * cost(size), kind)
        return units

    def read_cost(size: int) -> float:
        return read_units(size, consistent=True)

    def make_write(original: Any) -> Any:
        def transact_write_items(handler: Any) -> ActionResult:
            before = sizes_of(handler)
            result: ActionResult = original(handler)
            after = sizes_of(handler)
            if getattr(handler, "repeats_transaction", False):
                units = add_up(after, read_cost, "ReadCapacityUnits")
            else:
                larger = [(name, max(old, new)) for (name, old), (_, new) in zip(before, after, strict=True)]
                units = add_up(larger, write_units, "WriteCapacityUnits")
            _report(result, handler, units)
            return result

        return transact_write_items

    def make_get(original: Any) -> Any:
        def transact_get_items(handler: Any) -> ActionResult:
            result: ActionResult = original(handler)
            _report(result, handler, add_up(sizes_of(handler), read_cost, "ReadCapacityUnits"))
            return result

        return transact_get_items

    replace(DynamoHandler, "transact_write_items", make_write)
    replace(DynamoHandler, "transact_get_items", make_get)


def _count_get_item() -> None:
    def make(original: Any) -> Any:
        def get_item(handler: Any) -> ActionResult:
            result: ActionResult = original(handler)
            table = handler.dynamodb_backend.get_table(handler.body["TableName"])
            size = _stored_size(table, handler.body["Key"], handler.dynamodb_backend)
            units = read_units(size, consistent=bool(handler.body.get("ConsistentRead")))
            _report(result, handler, {table.name: (units, None)})
            return result

        return get_item

    replace(DynamoHandler, "get_item", make)


def _count_queries() -> None:
    """What a Query or Scan looked at is only known inside, before its filter and projection: these are done
    here.
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
            _report(result, handler, {table.name: (units, None)})
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
