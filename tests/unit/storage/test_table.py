from collections.abc import Mapping
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.unit.stored_turns import StoredTurns
from turnwright.errors import CommitConflict, StorageUnavailable, UnknownSchemaVersion
from turnwright.storage.keys import Key
from turnwright.storage.table import ConditionFailed, Delete, Item, Put, Table, TransactionRefused, Update

ONE, TWO = Key("P", "1"), Key("P", "2")


def filed(key: Key, **item: Any) -> Item:
    return {**item, "PK": key.pk, "SK": key.sk, "schemaVersion": 1}


class Refusing:
    """A client whose every request ends with the same error."""

    def __init__(self, code: str, **response: Any) -> None:
        self._error = ClientError({"Error": {"Code": code, "Message": "no"}, **response}, "Request")

    def _refuse(self, **_arguments: Any) -> Mapping[str, Any]:
        raise self._error

    put_item = update_item = transact_write_items = _refuse


def test_an_item_comes_back_as_it_was_put(table: Table) -> None:
    item = {
        "text": "€",
        "empty": "",
        "number": 2**53,
        "flag": False,
        "nothing": None,
        "list": ["a", "b"],
        "map": {"n": "v"},
    }

    table.put(Put(ONE, item))

    assert table.get(ONE) == filed(ONE, **item)
    assert table.get(TWO) is None


def test_put_only_if_absent_keeps_what_is_there_and_says_what_it_is(table: Table) -> None:
    table.put(Put(ONE, {"n": 1}, only_if_absent=True))

    with pytest.raises(ConditionFailed) as refused:
        table.put(Put(ONE, {"n": 2}, only_if_absent=True))

    assert refused.value.item == filed(ONE, n=1)
    assert table.get(ONE) == filed(ONE, n=1)


def test_an_update_answers_the_whole_new_item(table: Table) -> None:
    table.put(Put(ONE, {"n": 1, "kept": "k"}))

    assert table.update(Update(ONE, "SET n = n + :one", condition="n = :one", values={":one": 1})) == filed(
        ONE, n=2, kept="k"
    )


@pytest.mark.parametrize("before", [None, 7])
def test_an_update_whose_condition_fails_says_what_it_found_and_changes_nothing(
    table: Table, before: int | None
) -> None:
    if before is not None:
        table.put(Put(ONE, {"n": before}))

    with pytest.raises(ConditionFailed) as refused:
        table.update(Update(ONE, "SET n = :one", condition="n = :one", values={":one": 1}))

    expected = None if before is None else filed(ONE, n=before)
    assert refused.value.item == expected
    assert table.get(ONE) == expected


@pytest.mark.parametrize("version", [None, 0, 2, "1"])
def test_an_item_of_an_unknown_schema_version_is_never_read(stored: StoredTurns, version: object) -> None:
    table = stored.table
    values = {":one": 1} if version is None else {":one": 1, ":version": version}
    table.update(Update(TWO, "SET n = :one, schemaVersion = :one", values={":one": 1}))
    expression = "SET n = :one" if version is None else "SET n = :one, schemaVersion = :version"
    with pytest.raises(UnknownSchemaVersion):
        table.update(Update(ONE, expression, values=values))

    def query() -> None:
        list(table.query("P", "0", "9"))

    for read in (
        lambda: table.get(ONE),
        lambda: table.get_many([TWO, ONE]),
        query,
        lambda: table.put(Put(ONE, {}, only_if_absent=True)),
        lambda: table.update(Update(ONE, "SET n = :one", condition="n <> :one", values={":one": 1})),
    ):
        with pytest.raises(UnknownSchemaVersion, match=r"the item P / 1 has schemaVersion"):
            read()


def test_a_transaction_writes_all_or_nothing_and_says_which_condition_failed(stored: StoredTurns) -> None:
    stored.table.put(Put(ONE, {"n": 1}))
    before = stored.items()

    with pytest.raises(TransactionRefused) as refused:
        stored.table.transact([Put(TWO, {"n": 2}), Put(ONE, {"n": 3}, only_if_absent=True), Delete(Key("P", "3"))])

    assert refused.value.reasons == ("None", "ConditionalCheckFailed", "None")
    assert stored.items() == before
    stored.table.transact([Put(TWO, {"n": 2}), Update(ONE, "SET n = :n", values={":n": 3}), Delete(Key("P", "3"))])
    assert stored.table.get_many([ONE, TWO]) == [filed(ONE, n=3), filed(TWO, n=2)]


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        ("TransactionConflict", CommitConflict),
        ("ThrottlingError", StorageUnavailable),
        ("ProvisionedThroughputExceeded", StorageUnavailable),
    ],
)
def test_a_transaction_that_met_another_one_or_no_capacity_is_to_be_tried_again(
    reason: str, error: type[Exception]
) -> None:
    client = Refusing("TransactionCanceledException", CancellationReasons=[{"Code": "None"}, {"Code": reason}])

    with pytest.raises(error, match=reason):
        Table(client, "t").transact([Put(ONE, {})])


def test_a_transaction_that_can_never_be_written_is_not_called_a_conflict() -> None:
    """For example because an item has more than 400 KB: trying again would not help, and its name would mislead."""
    client = Refusing("TransactionCanceledException", CancellationReasons=[{"Code": "ValidationError"}])

    with pytest.raises(ClientError):
        Table(client, "t").transact([Put(ONE, {})])


def test_a_failed_condition_counts_more_than_a_conflict_beside_it() -> None:
    reasons = [{"Code": "TransactionConflict"}, {"Code": "ConditionalCheckFailed"}]

    with pytest.raises(TransactionRefused):
        Table(Refusing("TransactionCanceledException", CancellationReasons=reasons), "t").transact([Put(ONE, {})])


def test_a_single_write_that_meets_a_transaction_is_a_conflict_to_try_again() -> None:
    table = Table(Refusing("TransactionConflictException"), "t")

    with pytest.raises(CommitConflict):
        table.put(Put(ONE, {}))
    with pytest.raises(CommitConflict):
        table.update(Update(ONE, "SET n = :n", values={":n": 1}))


def test_an_error_that_no_condition_explains_escapes_as_it_is() -> None:
    table = Table(Refusing("AccessDeniedException"), "t")

    with pytest.raises(ClientError, match="AccessDeniedException"):
        table.put(Put(ONE, {}))
    with pytest.raises(ClientError, match="AccessDeniedException"):
        table.transact([Put(ONE, {})])


def test_get_many_keeps_the_keys_order_and_asks_again_for_what_dynamodb_left_over() -> None:
    class Partial:
        """Answers one key a request, the last one first."""

        def __init__(self) -> None:
            self.consistent: list[bool] = []

        def batch_get_item(self, RequestItems: Any, **_arguments: Any) -> Any:  # noqa: N803 (its name)
            asked = RequestItems["t"]
            self.consistent.append(asked["ConsistentRead"])
            *rest, last = asked["Keys"]
            item = {**last, "schemaVersion": {"N": "1"}}
            left = {"t": {**asked, "Keys": rest}} if rest else {}
            return {"Responses": {"t": [item] if last["SK"]["S"] != "2" else []}, "UnprocessedKeys": left}

    client = Partial()
    keys = [ONE, TWO, Key("P", "3")]

    assert Table(client, "t").get_many(keys) == [filed(ONE), None, filed(Key("P", "3"))]
    assert client.consistent == [True, True, True]


@pytest.mark.parametrize("operation", ["get_many", "delete_many"])
def test_what_dynamodb_keeps_leaving_over_is_given_up_after_pauses_that_grow(
    monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    class Busy:
        """Answers that there is no room for anything now."""

        asked = 0

        def batch_get_item(self, RequestItems: Any, **_arguments: Any) -> Any:  # noqa: N803 (its name)
            self.asked += 1
            return {"Responses": {}, "UnprocessedKeys": RequestItems}

        def batch_write_item(self, RequestItems: Any, **_arguments: Any) -> Any:  # noqa: N803 (its name)
            self.asked += 1
            return {"UnprocessedItems": RequestItems}

    def half(_: float, bound: float) -> float:
        bounds.append(bound)
        return bound / 2

    client, bounds, slept = Busy(), list[float](), list[float]()
    monkeypatch.setattr("turnwright.storage.availability.random.uniform", half)
    monkeypatch.setattr("turnwright.storage.availability.time.sleep", slept.append)

    with pytest.raises(StorageUnavailable, match="left 2 of 2") as unavailable:
        getattr(Table(client, "t"), operation)([ONE, TWO])

    assert unavailable.value.throttled
    assert client.asked == 1 + len(bounds) > 5
    assert bounds == sorted(bounds)
    assert slept == [bound / 2 for bound in bounds]


def test_a_query_reads_page_by_page_no_more_than_its_limit(stored: StoredTurns) -> None:
    """Items of 300 KB, since a page ends at 1 MB."""
    for number in range(9):
        stored.table.put(Put(Key("P", str(number)), {"text": "x" * 300_000}))

    def read(**arguments: Any) -> tuple[str, int]:
        stored.dynamodb.forget()
        found = "".join(item["SK"] for item in stored.table.query("P", "1", "7", **arguments))
        assert stored.dynamodb.read == len(found)
        return found, stored.dynamodb.operations.count("query")

    assert read() == ("1234567", 3)
    assert read(newest_first=True) == ("7654321", 3)
    assert read(newest_first=True, limit=5) == ("76543", 2)
    assert read(limit=2) == ("12", 1)
    assert read(limit=0) == ("", 0)


def test_reads_are_strongly_consistent_unless_said(stored: StoredTurns) -> None:
    list(stored.table.query("P", "1", "2"))
    stored.table.get(ONE)
    list(stored.table.query("P", "1", "2", consistent=False))
    stored.table.get(ONE, consistent=False)

    assert [arguments["ConsistentRead"] for _, arguments in stored.dynamodb.made] == [True, True, False, False]
