from typing import Any

import pytest

from tests.unit.stored_turns import A, B, StoredTurns, step, text, tool_result, tool_use
from turnwright.costs.metering import Meter
from turnwright.costs.prices import Prices, current
from turnwright.costs.receipts import PassedOver, added, of_header, receipt
from turnwright.costs.spending import INVOKE_MODEL, LOAD_MEMORY, Cost, Spent
from turnwright.sessions.values import PaidCall
from turnwright.storage.item_sizes import attribute_bytes, item_bytes, transaction_units, write_units
from turnwright.turn.write_memory import Bill, commit

PRICES = Prices("2026-01-01", "us-east-1", 0.00002, 0.0000002, 0.00003, 0.0000002, 0.000001, {
    "model-1": {"inputTokens": 3.0, "outputTokens": 15.0, "cacheReadInputTokens": 0.3},
})  # fmt: skip
SPENT = Spent().plus(LOAD_MEMORY, Cost(1, 100, 512, 2.5, 4, 2)).plus(INVOKE_MODEL, Cost(2, 1000, 1024, 4, 2, 2))
CALLS = [PaidCall("model-1", {"inputTokens": 1000, "outputTokens": 100, "totalTokens": 1100})]


def test_a_receipt_says_what_was_used_and_what_it_costs_by_dated_prices() -> None:
    made = receipt(SPENT.attempted(models=1, tools=2), CALLS, 9, PRICES)

    assert made == {
        "tokens": {"inputTokens": 1000, "outputTokens": 100},
        "models": {"model-1": {"calls": 1, "dollars": 0.0045}},
        "modelsPassedOver": [],
        "modelCalls": 1,
        "modelAttempts": 1,
        "toolAttempts": 2,
        "stateTransitions": 9,
        "stateRetries": 0,
        "lambda": {
            "LoadMemory": {"invocations": 1, "ms": 100, "memoryMb": 512},
            "InvokeModel": {"invocations": 2, "ms": 1000, "memoryMb": 1024},
        },
        "readUnits": 6.5,
        "writeUnits": 6,
        "estimatedWriteUnits": 0,
        "itemWrites": 4,
        "dollars": {
            "models": 0.0045,
            "lambda": 0.0000216,
            "stepFunctions": 0.00027,
            "dynamodb": 0.0000073,
            "total": 0.0047989,
        },
        "prices": "us-east-1 2026-01-01",
        "incomplete": [],
    }


def test_a_model_without_a_price_has_none_and_the_receipt_says_so() -> None:
    made = receipt(SPENT, [*CALLS, PaidCall("model-2", {"inputTokens": 1, "outputTokens": 1})], 4, PRICES)

    assert made["models"]["model-2"] == {"calls": 1, "dollars": None}
    assert (made["dollars"]["models"], made["dollars"]["total"]) == (None, None)
    assert made["dollars"]["stepFunctions"] == 0.00012
    assert made["incomplete"] == ["dollars of model-2: no price in us-east-1 2026-01-01"]


def test_tokens_of_a_kind_without_a_price_are_not_taken_to_be_free() -> None:
    usage = {"inputTokens": 1, "outputTokens": 1}
    assert PRICES.of_model("model-1", {**usage, "cacheReadInputTokens": 1_000_000}) == 0.300018
    assert PRICES.of_model("model-1", {**usage, "cacheWriteInputTokens": 1}) is None
    assert PRICES.of_model("model-1", {**usage, "cacheWriteInputTokens": 0}) == 0.000018


def test_what_told_no_cost_is_said_to_be_missing() -> None:
    made = receipt(SPENT.missing(INVOKE_MODEL, 2, retries=2), CALLS, 4, PRICES, ["embeddings"])

    assert made["incomplete"] == [
        "2 invocations of InvokeModel: failed or retried without telling a cost",
        "embeddings",
    ]
    assert made["dollars"]["stepFunctions"] == 0.00018, "a retry is billed as a transition"


def test_the_price_file_says_its_date_region_and_sources() -> None:
    prices = current()
    assert prices.name == "us-east-1 2026-11-28"
    assert prices.of_model("us.amazon.nova-pro-v1:0", {"inputTokens": 1_000_000, "outputTokens": 1_000_000}) == 4.0


def test_receipts_add_up_and_an_unknown_price_is_counted() -> None:
    priced = receipt(SPENT, CALLS, 4, PRICES)
    unpriced = receipt(SPENT, [PaidCall("model-2", {"inputTokens": 5, "outputTokens": 5})], 9, PRICES)

    total = added([priced, unpriced])

    assert (total["turns"], total["unpriced"], total["incomplete"]) == (2, 1, 1)
    assert total["tokens"] == {"inputTokens": 1005, "outputTokens": 105}
    assert (total["stateTransitions"], total["readUnits"], total["lambdaMs"]) == (13, 13, 2200)
    known = (value for name, value in unpriced["dollars"].items() if name != "total" and value is not None)
    assert total["dollars"] == pytest.approx(priced["dollars"]["total"] + sum(known))


def test_no_receipts_are_no_turns() -> None:
    assert added([])["turns"] == 0


def test_a_commit_puts_the_receipt_into_the_header_without_another_request(stored: StoredTurns) -> None:
    turn = stored.begin(A)
    stored.journal(turn, step(1, tool_use()), step(2, text("5 USD"), tool_result()))
    agent = stored.agent()
    stored.dynamodb.forget()

    committed = commit(stored.table, stored.documents, turn, agent, Bill(SPENT, 9, Meter(stored.table)))

    assert stored.dynamodb.operations == ["get_item", "query", "transact_write_items"]
    shown = of_header(stored.header(A))
    assert shown == of_header(committed)
    assert shown
    assert (shown["turnId"], shown["caller"], shown["agentVersion"], shown["status"]) == (
        A,
        "arn:aws:iam::123456789012:user/alice",
        "1",
        "COMMITTED",
    )
    assert (shown["modelCalls"], shown["tokens"]["inputTokens"], shown["stateTransitions"]) == (2, 20, 9)
    assert shown["itemWrites"] == SPENT.total.item_writes + stored.table.consumed.item_writes


def test_a_running_turn_has_no_receipt(stored: StoredTurns) -> None:
    stored.begin(A)
    assert of_header(stored.header(A)) is None


def test_a_repeated_commit_keeps_the_first_receipt(stored: StoredTurns) -> None:
    stored.run(A)
    first = stored.header(A).receipt

    other = Bill(SPENT, 99, Meter(stored.table))
    again = commit(stored.table, stored.documents, stored.header(A).turn, stored.agent(), other)

    assert again.receipt == first == stored.header(A).receipt


def test_turns_are_found_by_their_owner(stored: StoredTurns) -> None:
    first = stored.run(A)
    stored.clock.ms += 1
    stored.run(B)

    owner = first.turn.session.owner
    found = stored.table.query_index("Owned", owner, "TURN#", "TURN#~")

    assert [key.pk for key, _ in found] == [f"TURN#{A}", f"TURN#{B}"]


@pytest.mark.parametrize(
    ("value", "size"),
    [("é", 2), (True, 1), (0, 1), (12, 2), (123, 3), (-5, 3), (1000, 2), (["a", "bc"], 8), ({"k": "v"}, 6)],
)
def test_a_value_is_as_large_as_dynamodb_takes_it_to_be(value: Any, size: int) -> None:
    assert item_bytes({"n": value}) == 1 + size
    assert attribute_bytes("n", value) == 1 + size


@pytest.mark.parametrize(("size", "units"), [(0, 1), (1, 1), (1024, 1), (1025, 2), (10_240, 10)])
def test_a_write_costs_a_unit_for_each_kilobyte_begun_and_double_in_a_transaction(size: int, units: int) -> None:
    assert (write_units(size), transaction_units(size)) == (units, 2 * units)


def test_a_receipt_says_what_a_model_was_not_asked_of_all_its_calls() -> None:
    usage = {"inputTokens": 1, "outputTokens": 1}
    calls = [PaidCall("a", usage, ("topP",)), PaidCall("a", usage), PaidCall("a", usage, ("temperature",)), *CALLS]

    models = receipt(SPENT, calls, 4, PRICES)["models"]

    assert models["a"] == {"calls": 3, "leftOut": ["temperature", "topP"], "dollars": None}
    assert "leftOut" not in models["model-1"]


def test_a_receipt_names_each_model_that_was_passed_over_why_and_how_often() -> None:
    denied, throttled = PassedOver("model-0", "ModelAccessDenied"), PassedOver("model-0", "ModelThrottled")

    made = receipt(SPENT, CALLS, 4, PRICES, passed_over=[denied, throttled, denied])

    assert made["modelsPassedOver"] == [
        {"model": "model-0", "error": "ModelAccessDenied", "times": 2},
        {"model": "model-0", "error": "ModelThrottled", "times": 1},
    ]
