"""DynamoDB's promises about requests at the same time."""

import base64
import copy
import json
import threading
import time
from functools import cache, lru_cache
from typing import Any

from moto.core.exceptions import JsonRESTError
from moto.core.responses import ActionResult
from moto.dynamodb.exceptions import ItemSizeTooLarge
from moto.dynamodb.models import DynamoDBBackend
from moto.dynamodb.models.dynamo_type import DynamoType, Item
from moto.dynamodb.models.table import Table
from moto.dynamodb.parsing.ast_nodes import DepthFirstTraverser, Node
from moto.dynamodb.parsing.expressions import UpdateExpressionParser
from moto.dynamodb.parsing.validators import (
    ActionCountValidator,
    OverlappingPathsValidator,
    UpdateExpressionValidator,
)
from moto.dynamodb.responses import DynamoHandler, DynamoResult

from local.moto_patches.replacing import replace, replace_class_method

_TOKEN_SECONDS = 600.0
"""How long AWS remembers the ClientRequestToken of a transaction."""

_KEPT_EXPRESSIONS = 1000
_OF_EXPRESSIONS = (ActionCountValidator, OverlappingPathsValidator)
"""What finds fault with an expression and its names, whatever the values and the item are."""
_LARGEST_ITEM = 405_000
"""Bytes, as moto has it: between the 400 KB that AWS documents and the 409 KB that it takes."""

lock = threading.RLock()
_in_transaction = threading.local()


class IdempotentParameterMismatch(JsonRESTError):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__(
            "IdempotentParameterMismatchException",
            "The request was already made with this ClientRequestToken and other parameters",
        )


def serve_one_request_at_a_time() -> None:
    """Stock moto reads, checks and writes in several steps without a lock under a threaded server: of two
    conditional updates both may succeed, and a read may see half of a transaction.
    """

    def make(original: Any) -> Any:
        def call_action(handler: Any) -> Any:
            with lock:
                return original(handler)

        return call_action

    replace(DynamoHandler, "call_action", make)


def undo_only_what_a_transaction_touched() -> None:
    """Stock moto copies whole tables before each transaction, so that turn 1,000 takes far longer than turn
    20, and puts the copies in the place of the tables when it fails.
    """

    def make_transact(original: Any) -> Any:
        def transact_write_items(backend: Any, transact_items: list[dict[str, Any]]) -> None:
            before = [
                (table, hash_key, range_key, copy.deepcopy(table.get_item(hash_key, range_key)))
                for table, hash_key, range_key in touched(backend, transact_items)
            ]
            _in_transaction.is_set = True
            try:
                original(backend, transact_items)
            except Exception:
                for table, hash_key, range_key, item in before:
                    _put_back(table, hash_key, range_key, item)
                raise
            finally:
                _in_transaction.is_set = False

        return transact_write_items

    def deep_copy(table: Any, memo: dict[int, Any]) -> Any:
        if getattr(_in_transaction, "is_set", False):
            return table
        clone = table.__class__.__new__(table.__class__)
        memo[id(table)] = clone
        clone.__dict__.update(copy.deepcopy(table.__dict__, memo))
        return clone

    replace(DynamoDBBackend, "transact_write_items", make_transact)
    Table.__deepcopy__ = deep_copy


def touched(backend: Any, transact_items: list[dict[str, Any]]) -> list[tuple[Any, Any, Any]]:
    """(table, hash key, range key) of every item that a transaction names and whose table and keys are valid."""
    found = []
    for entry in transact_items:
        for operation in entry.values():
            table = backend.tables.get(operation.get("TableName"))
            keys = operation.get("Key") or operation.get("Item") or {}
            if table is not None and all(name in keys for name in table.table_key_attrs):
                found.append((table, *backend.get_keys_value(table, keys)))
    return found


def _put_back(table: Any, hash_key: Any, range_key: Any, item: Any) -> None:
    if item is None:
        table.delete_item(hash_key, range_key)
    elif range_key is not None:
        table.items[hash_key][range_key] = item
    else:
        table.items[hash_key] = item


def remember_transaction_tokens() -> None:
    """Stock moto ignores ClientRequestToken: a transaction that boto3 repeats after a lost answer is applied
    twice or fails its own condition. On AWS the repetition within ten minutes does nothing and succeeds.
    """

    def make(original: Any) -> Any:
        def transact_write_items(handler: Any) -> Any:
            token = handler.body.get("ClientRequestToken")
            if not token:
                return original(handler)
            now = time.monotonic()
            # A reset of the backend forgets its attributes, and with them the tokens.
            tokens: dict[str, tuple[float, str]] = vars(handler.dynamodb_backend).setdefault("tokens", {})
            for old in [name for name, (until, _) in tokens.items() if until < now]:
                del tokens[old]
            request = json.dumps(handler.body["TransactItems"], default=repr, sort_keys=True)
            if token in tokens:
                if tokens[token][1] != request:
                    raise IdempotentParameterMismatch
                handler.repeats_transaction = True
                return ActionResult({"ItemCollectionMetrics": {}})
            result = original(handler)
            tokens[token] = (now + _TOKEN_SECONDS, request)
            return result

        return transact_write_items

    replace(DynamoHandler, "transact_write_items", make)


def query_one_partition() -> None:
    """Stock moto walks through the whole table for each Query, so that a query gets slower as other
    partitions grow.
    """

    def make(original: Any) -> Any:
        def query(table: Any, hash_key: Any, *args: Any, **kwargs: Any) -> Any:
            if index_name_of(args, kwargs) is not None or hash_key is None or not table.has_range_key:
                return original(table, hash_key, *args, **kwargs)
            partition = list(table.items[hash_key].values()) if hash_key in table.items else []
            table.all_items = lambda: partition
            try:
                return original(table, hash_key, *args, **kwargs)
            finally:
                del table.all_items

        return query

    replace(Table, "query", make)


def index_name_of(args: Any, kwargs: Any) -> Any:
    """The `index_name` of a call of Table.query, which moto passes by position."""
    return args[6] if len(args) > 6 else kwargs.get("index_name")


def answer_items_as_they_are() -> None:
    """Stock moto takes apart and puts together each value of an answer by the service model, a quarter of the time that
    the whole stack needs for a turn. The answers about items are in wire form already, but for binary values.
    """

    def make(original: Any) -> Any:
        def execute_result(result: Any, context: Any) -> Any:
            fields = {name: value for name, value in result.result.items() if value is not None}
            try:
                body = json.dumps(fields, default=_base64)
            except TypeError:  # a date, in the description of a table
                return original(result, context)
            return 200, {"Content-Type": "application/x-amz-json-1.0"}, body

        return execute_result

    replace(DynamoResult, "execute_result", make)


def take_expressions_apart_once() -> None:
    """Stock moto asks of every node of an update expression, ten times over, which of a list of abstract classes it is
    of: a fifth of the time of an update. And it parses the same few expressions again and again; what makes of the
    parsed one what a request needs works on a copy.
    """

    @cache
    def is_node(kind: Any) -> bool:
        return issubclass(kind, Node)

    @cache
    def looks_at_children(kind: Any) -> bool:
        return bool(kind.pre_processing_of_child is not DepthFirstTraverser.pre_processing_of_child)

    processed_as: dict[tuple[type, type], Any] = {}

    def traverse(traverser: Any, node: Any, child_id: int = -1) -> Any:
        kinds: Any = type(traverser), type(node)
        if not is_node(kinds[1]):
            return node
        parent, looks = node.parent, looks_at_children(kinds[0])
        for place, child in enumerate(node.children or ()):
            if looks:
                traverser.pre_processing_of_child(node, place)
            traverse(traverser, child, place)
        if kinds not in processed_as:
            processed_as[kinds] = next((kind for kind in traverser._processing_map() if isinstance(node, kind)), None)
        if (kind := processed_as[kinds]) is not None:
            node = traverser._processing_map()[kind](node)
            node.parent = parent
            if parent:
                parent.children[child_id] = node
        return node

    def deep_copy(node: Any, memo: dict[int, Any]) -> Any:
        clone = memo[id(node)] = object.__new__(type(node))
        for name, value in vars(node).items():
            vars(clone)[name] = value if isinstance(value, str) else copy.deepcopy(value, memo)
        return clone

    found_right: set[tuple[Node, frozenset[tuple[str, str]]]] = set()

    def make_validator(original: Any) -> Any:
        def init(validator: Any, expression: Any, expression_attribute_names: Any, *args: Any, **kwargs: Any) -> None:
            original(validator, expression, expression_attribute_names, *args, **kwargs)
            validator.checked = expression, frozenset((expression_attribute_names or {}).items())

        return init

    def make_validate(original: Any) -> Any:
        def validate(validator: Any) -> Any:
            if validator.checked in found_right:
                validator.processors = [one for one in validator.processors if not isinstance(one, _OF_EXPRESSIONS)]
            result = original(validator)
            if len(found_right) >= _KEPT_EXPRESSIONS:
                found_right.clear()
            found_right.add(validator.checked)
            return result

        return validate

    replace(DepthFirstTraverser, "traverse_node_recursively", lambda _: traverse)
    Node.__deepcopy__ = deep_copy
    replace(UpdateExpressionValidator, "__init__", make_validator)
    replace(UpdateExpressionValidator, "validate", make_validate)
    replace_class_method(UpdateExpressionParser, "make", lru_cache(_KEPT_EXPRESSIONS))


def measure_a_new_item_once() -> None:
    """Stock moto measures the whole item again for each attribute that is put into it."""

    def make(original: Any) -> Any:
        def init(item: Any, hash_key: Any, range_key: Any, attrs: dict[str, Any]) -> None:
            original(item, hash_key, range_key, {})
            for name, value in attrs.items():
                dict.__setitem__(item.attrs, name, DynamoType(value))
            if item.size() > _LARGEST_ITEM:
                raise ItemSizeTooLarge

        return init

    replace(Item, "__init__", make)


def _base64(value: Any) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} has no wire form here")


@cache
def apply() -> None:
    answer_items_as_they_are()
    take_expressions_apart_once()
    measure_a_new_item_once()
    serve_one_request_at_a_time()
    undo_only_what_a_transaction_touched()
    remember_transaction_tokens()
    query_one_partition()
