import inspect
import json
from typing import Any

import pytest

import banking_tools
from tests.paths import ROOT

AGENT = ROOT / "agents" / "banking_assistant.json"
TYPES = {"account_id": "string", "limit": "integer", "amount": "number"}


def event(function: str, **arguments: str) -> dict[str, Any]:
    """The event that Bedrock sends for a function of an action group: every value is a string."""
    return {
        "messageVersion": "1.0",
        "agent": {"name": "banking-assistant", "id": "BANKASSIST", "alias": "live", "version": "1"},
        "inputText": "What is my balance?",
        "sessionId": "session-1",
        "actionGroup": "BankingTools",
        "function": function,
        "parameters": [
            {"name": name, "type": TYPES.get(name, "string"), "value": value} for name, value in arguments.items()
        ],
        "sessionAttributes": {"tenant": "north"},
        "promptSessionAttributes": {},
    }


def answer(function: str, **arguments: str) -> Any:
    response = banking_tools.handler(event(function, **arguments), None)
    return json.loads(response["response"]["functionResponse"]["responseBody"]["TEXT"]["body"])


def test_the_response_has_bedrocks_form() -> None:
    assert banking_tools.handler(event("get_account_balance", account_id="12345"), None) == {
        "messageVersion": "1.0",
        "response": {
            "actionGroup": "BankingTools",
            "function": "get_account_balance",
            "functionResponse": {"responseBody": {"TEXT": {"body": '{"balance": 48392.5, "currency": "USD"}'}}},
        },
        "sessionAttributes": {"tenant": "north"},
        "promptSessionAttributes": {},
    }


@pytest.mark.parametrize(
    ("account_id", "balance"),
    [
        ("12345", {"balance": 48392.50, "currency": "USD"}),
        ("67890", {"balance": 1250.00, "currency": "EUR"}),
        ("24680", {"balance": 0.00, "currency": "GBP"}),
    ],
)
def test_an_account_has_a_balance(account_id: str, balance: dict[str, Any]) -> None:
    assert answer("get_account_balance", account_id=account_id) == balance


@pytest.mark.parametrize("function", ["get_account_balance", "list_transactions"])
def test_an_unknown_account_is_answered_with_an_error_that_says_what_to_do(function: str) -> None:
    assert answer(function, account_id="99999") == {
        "error": "There is no account 99999. Check the account number with the customer."
    }


def test_the_latest_transactions_come_first() -> None:
    assert answer("list_transactions", account_id="12345", limit="2") == {
        "currency": "USD",
        "transactions": [
            {"date": "2025-11-14", "description": "Salary, Northwind Traders", "amount": 6250.0},
            {"date": "2025-11-12", "description": "Grocery store", "amount": -86.4},
        ],
    }


@pytest.mark.parametrize("account", banking_tools.ACCOUNTS.values())
def test_the_ledger_is_in_order(account: banking_tools.Account) -> None:
    dates = [entry.date for entry in account.transactions]

    assert dates == sorted(dates, reverse=True)


def test_ten_transactions_are_the_default_and_an_account_may_have_none() -> None:
    assert len(answer("list_transactions", account_id="12345")["transactions"]) == 5
    assert answer("list_transactions", account_id="24680") == {"currency": "GBP", "transactions": []}


@pytest.mark.parametrize("limit", ["0", "51", "many"])
def test_a_limit_outside_its_range_is_answered_with_an_error(limit: str) -> None:
    assert answer("list_transactions", account_id="12345", limit=limit) == {
        "error": f"limit must be a whole number from 1 to 50, not {limit}."
    }


@pytest.mark.parametrize(
    ("amount", "source", "target", "converted", "rate"),
    [
        ("100", "EUR", "USD", 110.0, 1.1),
        ("100", "usd", " eur ", 90.91, 0.909091),
        ("0.145", "USD", "USD", 0.15, 1.0),
        ("-10.5", "GBP", "EUR", -11.93, 1.136364),
        ("0", "CHF", "GBP", 0.0, 0.896),
    ],
)
def test_an_amount_is_converted_and_rounded_to_cents(
    amount: str, source: str, target: str, converted: float, rate: float
) -> None:
    assert answer("convert_currency", amount=amount, from_currency=source, to_currency=target) == {
        "amount": float(amount),
        "currency": source.strip().upper(),
        "converted_amount": converted,
        "converted_currency": target.strip().upper(),
        "rate": rate,
    }


@pytest.mark.parametrize("amount", ["nan", "inf", "1e300", "a lot"])
def test_what_is_no_amount_is_answered_with_an_error(amount: str) -> None:
    answered = answer("convert_currency", amount=amount, from_currency="USD", to_currency="EUR")

    assert list(answered) == ["error"]
    assert "is not an amount that can be converted" in answered["error"]


def test_a_currency_without_a_rate_is_answered_with_those_that_have_one() -> None:
    assert answer("convert_currency", amount="1", from_currency="USD", to_currency="XYZ") == {
        "error": "There is no rate for XYZ. Supported currencies: USD, EUR, GBP, CHF."
    }


def test_the_agent_file_offers_exactly_the_functions_that_are_there() -> None:
    groups = json.loads(AGENT.read_text())["actionGroups"]
    (group,) = [group for group in groups if group["actionGroupName"] == "BankingTools"]
    offered = {
        function["name"]: {name: parameter.get("required", False) for name, parameter in function["parameters"].items()}
        for function in group["functionSchema"]["functions"]
    }
    tools = (banking_tools.get_account_balance, banking_tools.list_transactions, banking_tools.convert_currency)

    assert offered == {
        tool.__name__: {
            name: parameter.default is inspect.Parameter.empty
            for name, parameter in inspect.signature(tool).parameters.items()
        }
        for tool in tools
    }
