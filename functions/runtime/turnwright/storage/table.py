"""The one DynamoDB table, as plain Python values.

Attributes are strings, integers, booleans, string lists and string maps; a nested or long document is stored as JSON
text in one attribute (`documents.py`), so that a float comes back as it went in and decoding costs little. Each item
carries `schemaVersion`; an item of another version raises, since guessing at a stored item's meaning loses data.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from botocore.exceptions import ClientError

from turnwright.errors import CommitConflict, StorageUnavailable, UnknownSchemaVersion
from turnwright.storage import availability, clients, keys
from turnwright.storage.keys import Key
from turnwright.storage.settings import settings

SCHEMA_VERSION = 1
Item = dict[str, Any]

_THROTTLED = {"ThrottlingError", "ProvisionedThroughputExceeded"}
"""Why DynamoDB cancels a transaction that it has no capacity for."""


class ConditionFailed(Exception):
    """A conditional write found the item in another state. `item` is what it found, or None if there was none."""

    def __init__(self, item: Item | None) -> None:
        super().__init__("the condition of a write did not hold")
        self.item = item


class TransactionRefused(Exception):
    """A transaction was cancelled because a condition did not hold. Nothing of it was written.

    `reasons` stands in the order of the writes: the cancellation code of each, "None" for one that was not at fault.
    """

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__(f"a transaction was cancelled: {', '.join(reasons)}")
        self.reasons = tuple(reasons)


@dataclass(frozen=True, slots=True)
class Update:
    """An update of one item: an expression with its names and values, and the condition under which it holds."""

    key: Key
    expression: str
    condition: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Put:
    """A whole item to write; `only_if_absent` refuses to replace one, `condition` one of which it does not hold."""

    key: Key
    item: Item
    only_if_absent: bool = False
    condition: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Delete:
    """An item to remove; removing one that is not there does nothing, unless `condition` refuses it."""

    key: Key
    condition: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Check:
    """An item that a transaction does not write, but of which `condition` must hold."""

    key: Key
    condition: str
    names: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)


Write = Put | Update | Delete | Check

MOST_BATCH_WRITES = 25
"""The most items that one batch of writes may hold."""

MOST_TRANSACTION_WRITES = 100
"""The most items that one transaction may hold."""


@dataclass(slots=True)
class Consumed:
    """What DynamoDB reported of the requests that succeeded, in its units, and how many items were written."""

    requests: int = 0
    read_units: float = 0.0
    write_units: float = 0.0
    item_writes: int = 0

    def fields(self) -> dict[str, Any]:
        """For the log: an invocation's receipt."""
        return {
            "tableRequests": self.requests,
            "readUnits": self.read_units,
            "writeUnits": self.write_units,
            "itemWrites": self.item_writes,
        }


class Table:
    """Reads and writes of the table `name`, through a low-level client. Reads are strongly consistent unless said.

    All raise StorageUnavailable when DynamoDB cannot take them just now; a write may have been made all the same.
    """

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self.name = name
        self.consumed = Consumed()

    def get(self, key: Key, *, consistent: bool = True) -> Item | None:
        response = self._read(
            self._client.get_item, TableName=self.name, Key=_encode_key(key), ConsistentRead=consistent
        )
        return _decode(response["Item"]) if "Item" in response else None

    def get_many(self, keys: Sequence[Key], *, consistent: bool = True) -> list[Item | None]:
        """The items of up to 100 keys, in the keys' order, None for one that is not there."""
        pending: dict[str, Any] = {
            self.name: {"Keys": [_encode_key(key) for key in keys], "ConsistentRead": consistent}
        }
        found: dict[Key, Item] = {}
        left, paused = len(keys), availability.pauses()
        while pending:
            response = self._read(self._client.batch_get_item, RequestItems=pending)
            for item in map(_decode, response["Responses"].get(self.name, ())):
                found[Key(item["PK"], item["SK"])] = item
            pending = response.get("UnprocessedKeys") or {}
            if not pending:
                break
            before, left = left, len(pending[self.name]["Keys"])
            if left < before:  # perhaps just more than the 16 MB of an answer: patience is for an answer without any
                paused = availability.pauses()
            if not next(paused, False):
                raise StorageUnavailable(f"DynamoDB left {left} of {len(keys)} keys unread", throttled=True)
        return [found.get(key) for key in keys]

    def query(
        self,
        partition: str,
        first: str,
        last: str,
        *,
        newest_first: bool = False,
        limit: int | None = None,
        consistent: bool = True,
        after: str | None = None,
    ) -> Iterator[Item]:
        """The items of a partition whose sort keys lie between `first` and `last` (both included), page by page.

        `after` is a sort key behind which to begin, in the direction of reading; its item need not be there any more.
        """
        for items, _ in self.pages(
            partition, first, last, newest_first=newest_first, limit=limit, consistent=consistent, after=after
        ):
            yield from items

    def pages(
        self,
        partition: str,
        first: str,
        last: str,
        *,
        newest_first: bool = False,
        limit: int | None = None,
        consistent: bool = True,
        after: str | None = None,
        attributes: Sequence[str] = (),
    ) -> Iterator[tuple[Iterator[Item], bool]]:
        """The items that `query` has, a request at a time, of 1 MB at most; each page with whether there may be more.

        With `attributes` an item has those alone, which costs as many read units; `schemaVersion` is one of them.
        """
        arguments: dict[str, Any] = {
            "TableName": self.name,
            "KeyConditionExpression": "PK = :partition AND SK BETWEEN :first AND :last",
            "ExpressionAttributeValues": _encode_values({":partition": partition, ":first": first, ":last": last}),
            "ScanIndexForward": not newest_first,
            "ConsistentRead": consistent,
        }
        if after is not None:
            arguments["ExclusiveStartKey"] = _encode_key(Key(partition, after))
        if attributes:
            names = {f"#{name}": name for name in attributes}  # some of them are words of the expressions' language
            arguments |= {"ProjectionExpression": ", ".join(names), "ExpressionAttributeNames": names}
        remaining = limit
        while remaining is None or remaining > 0:
            if remaining is not None:
                arguments["Limit"] = remaining
            page = self._read(self._client.query, **arguments)
            yield map(_decode, page["Items"]), "LastEvaluatedKey" in page
            if "LastEvaluatedKey" not in page:
                return
            arguments["ExclusiveStartKey"] = page["LastEvaluatedKey"]
            if remaining is not None:
                remaining -= len(page["Items"])

    def query_index(
        self, index: str, partition: str, first: str, last: str, *, newest_first: bool = False, limit: int | None = None
    ) -> Iterator[tuple[Key, str]]:
        """The keys of the items that an index (of `keys.py`) has between `first` and `last`, both included, each with
        its sort key in the index. An index follows the table with some milliseconds' delay.
        """
        name = {keys.OWNED_INDEX: "owner", keys.DUE_INDEX: "due"}[index]
        arguments: dict[str, Any] = {
            "TableName": self.name,
            "IndexName": index,
            "KeyConditionExpression": f"{name}PK = :partition AND {name}SK BETWEEN :first AND :last",
            "ExpressionAttributeValues": _encode_values({":partition": partition, ":first": first, ":last": last}),
            "ScanIndexForward": not newest_first,
        }
        remaining = limit
        while remaining is None or remaining > 0:
            if remaining is not None:
                arguments["Limit"] = remaining
            page = self._read(self._client.query, **arguments)
            for item in page["Items"]:
                yield Key(item["PK"]["S"], item["SK"]["S"]), item[f"{name}SK"]["S"]
            if "LastEvaluatedKey" not in page:
                return
            arguments["ExclusiveStartKey"] = page["LastEvaluatedKey"]
            if remaining is not None:
                remaining -= len(page["Items"])

    def put(self, write: Put) -> None:
        """Raises ConditionFailed, with the item that is there, if it may not be replaced."""
        arguments = self._put_arguments(write)
        with _Conditional():
            self._write(self._client.put_item, **arguments, ReturnValuesOnConditionCheckFailure="ALL_OLD")

    def update(self, write: Update) -> Item:
        """Applies the update and returns the whole new item. Raises ConditionFailed with the item as it is."""
        with _Conditional():
            response = self._write(
                self._client.update_item,
                **self._update_arguments(write),
                ReturnValues="ALL_NEW",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        return _decode(response["Attributes"])

    def delete(self, write: Delete) -> None:
        """Raises ConditionFailed, with the item that is there, if it may not be removed."""
        with _Conditional():
            self._write(
                self._client.delete_item,
                **self._delete_arguments(write),
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )

    def keys(self, partition: str) -> Iterator[Key]:
        """The keys of all items of a partition, in order."""
        arguments: dict[str, Any] = {
            "TableName": self.name,
            "KeyConditionExpression": "PK = :partition",
            "ExpressionAttributeValues": _encode_values({":partition": partition}),
            "ProjectionExpression": "PK, SK",
            "ConsistentRead": True,
        }
        while True:
            page = self._read(self._client.query, **arguments)
            for item in page["Items"]:
                yield Key(item["PK"]["S"], item["SK"]["S"])
            if "LastEvaluatedKey" not in page:
                return
            arguments["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    def delete_many(self, keys: Sequence[Key]) -> None:
        """Removes at most `MOST_BATCH_WRITES` items, whatever is in them."""
        pending = [{"DeleteRequest": {"Key": _encode_key(key)}} for key in keys]
        paused = availability.pauses()
        while pending:
            response = self._write(self._client.batch_write_item, items=len(pending), RequestItems={self.name: pending})
            pending = (response.get("UnprocessedItems") or {}).get(self.name, [])
            if pending and not next(paused, False):
                message = f"DynamoDB left {len(pending)} of {len(keys)} items undeleted"
                raise StorageUnavailable(message, throttled=True)

    def transact(self, writes: Sequence[Write]) -> None:
        """All writes or none. Raises TransactionRefused when a condition did not hold, CommitConflict when another
        transaction was at one of the items at that moment (try again)."""
        entries = [self._transaction_entry(write) for write in writes]
        try:
            self._write(self._client.transact_write_items, items=len(entries), TransactItems=entries)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code == "TransactionInProgressException":
                raise CommitConflict("another transaction is writing these items") from error
            if code != "TransactionCanceledException":
                raise
            reasons = [reason.get("Code", "None") for reason in error.response.get("CancellationReasons", ())]
            if "ConditionalCheckFailed" in reasons:
                raise TransactionRefused(reasons) from error
            message = f"the transaction was cancelled: {', '.join(reasons)}"
            if "TransactionConflict" in reasons:
                raise CommitConflict(message) from error
            if not _THROTTLED.isdisjoint(reasons):
                raise StorageUnavailable(message, throttled=True) from error
            raise  # another reason, an item that is too large, would come again

    def _read(self, request: Callable[..., Any], **arguments: Any) -> Any:
        response = request(**arguments, ReturnConsumedCapacity="TOTAL")
        self.consumed.requests += 1
        self.consumed.read_units += _units(response)
        return response

    def _write(self, request: Callable[..., Any], *, items: int = 1, **arguments: Any) -> Any:
        response = request(**arguments, ReturnConsumedCapacity="TOTAL")
        self.consumed.requests += 1
        self.consumed.write_units += _units(response)
        self.consumed.item_writes += items
        return response

    def _transaction_entry(self, write: Write) -> dict[str, Any]:
        match write:
            case Put():
                return {"Put": self._put_arguments(write)}
            case Update():
                return {"Update": self._update_arguments(write)}
            case Delete():
                return {"Delete": self._delete_arguments(write)}
            case Check():
                arguments = {
                    "TableName": self.name,
                    "Key": _encode_key(write.key),
                    "ConditionExpression": write.condition,
                }
                return {"ConditionCheck": arguments | _expression_attributes(write)}

    def _put_arguments(self, write: Put) -> dict[str, Any]:
        item = {**write.item, "PK": write.key.pk, "SK": write.key.sk, "schemaVersion": SCHEMA_VERSION}
        arguments: dict[str, Any] = {"TableName": self.name, "Item": _encode_values(item)}
        if write.only_if_absent:
            arguments["ConditionExpression"] = "attribute_not_exists(PK)"
        elif write.condition:
            arguments["ConditionExpression"] = write.condition
        return arguments | _expression_attributes(write)

    def _update_arguments(self, write: Update) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "TableName": self.name,
            "Key": _encode_key(write.key),
            "UpdateExpression": write.expression,
        }
        if write.condition:
            arguments["ConditionExpression"] = write.condition
        return arguments | _expression_attributes(write)

    def _delete_arguments(self, write: Delete) -> dict[str, Any]:
        arguments: dict[str, Any] = {"TableName": self.name, "Key": _encode_key(write.key)}
        if write.condition:
            arguments["ConditionExpression"] = write.condition
        return arguments | _expression_attributes(write)


def table() -> Table:
    """The table that the environment names."""
    return Table(clients.dynamodb(), settings().table_name)


class _Conditional:
    """Turns DynamoDB's ConditionalCheckFailedException into ConditionFailed."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if not isinstance(error, ClientError):
            return
        code = error.response["Error"]["Code"]
        if code == "ConditionalCheckFailedException":
            item: Any = error.response.get("Item")
            raise ConditionFailed(_decode(item) if item else None) from error
        if code == "TransactionConflictException":
            raise CommitConflict("a transaction is writing this item") from error


def _units(response: Mapping[str, Any]) -> float:
    """One request reports a document, or a list of one for each table; a request of nothing reports nothing."""
    reported = response.get("ConsumedCapacity") or []
    entries = [reported] if isinstance(reported, dict) else reported
    return sum((float(entry["CapacityUnits"]) for entry in entries), 0.0)


_serializer = TypeSerializer()
_deserializer = TypeDeserializer()


def _expression_attributes(write: Write) -> dict[str, Any]:
    """DynamoDB refuses empty ones."""
    arguments: dict[str, Any] = {}
    if write.names:
        arguments["ExpressionAttributeNames"] = dict(write.names)
    if write.values:
        arguments["ExpressionAttributeValues"] = _encode_values(write.values)
    return arguments


def _encode_key(key: Key) -> dict[str, Any]:
    return {"PK": {"S": key.pk}, "SK": {"S": key.sk}}


def _encode_values(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _serializer.serialize(value) for name, value in values.items()}


def _decode(item: Mapping[str, Any]) -> Item:
    decoded: Item = {
        name: value["S"] if "S" in value else _plain(_deserializer.deserialize(value)) for name, value in item.items()
    }
    version = decoded.get("schemaVersion")
    if version != SCHEMA_VERSION:
        raise UnknownSchemaVersion(
            f"the item {decoded.get('PK')} / {decoded.get('SK')} has schemaVersion {version}, "
            f"this release reads {SCHEMA_VERSION}"
        )
    return decoded


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value)
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    return value
