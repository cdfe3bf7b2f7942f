"""The action group BankingTools: a sample bank with three accounts, as an ordinary Powertools resolver.

Its data and rates are fixed, so that a conversation about them can be repeated. A request that the bank
cannot serve is answered with `{"error": ...}`, which the agent can explain to the customer, not raised.
"""

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any

from aws_lambda_powertools.event_handler import BedrockAgentFunctionResolver

app = BedrockAgentFunctionResolver()


@dataclass(frozen=True, slots=True)
class Transaction:
    """`date` is ISO 8601; a negative `amount` left the account."""

    date: str
    description: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Account:
    """`transactions` stand newest first."""

    currency: str
    balance: Decimal
    transactions: tuple[Transaction, ...]


ACCOUNTS = {
    "12345": Account(
        currency="USD",
        balance=Decimal("48392.50"),
        transactions=(
            Transaction("2025-11-14", "Salary, Northwind Traders", Decimal("6250.00")),
            Transaction("2025-11-12", "Grocery store", Decimal("-86.40")),
            Transaction("2025-11-10", "Electric utility", Decimal("-142.15")),
            Transaction("2025-11-03", "Rent", Decimal("-2100.00")),
            Transaction("2025-11-01", "Interest", Decimal("38.05")),
        ),
    ),
    "67890": Account(
        currency="EUR",
        balance=Decimal("1250.00"),
        transactions=(
            Transaction("2025-11-13", "Railway ticket", Decimal("-59.90")),
            Transaction("2025-11-02", "Transfer from savings", Decimal("500.00")),
        ),
    ),
    "24680": Account(currency="GBP", balance=Decimal("0.00"), transactions=()),
}

USD_PER_UNIT = {"USD": Decimal("1"), "EUR": Decimal("1.10"), "GBP": Decimal("1.25"), "CHF": Decimal("1.12")}
"""Indicative rates, fixed: what one unit of each currency is worth in US dollars."""

MOST_TRANSACTIONS = 50
LARGEST_AMOUNT = Decimal("1e12")


@app.tool(description="Returns the current balance of one account")
def get_account_balance(account_id: str) -> dict[str, Any]:
    """The balance of an account: `{"balance": 48392.5, "currency": "USD"}`."""
    account = ACCOUNTS.get(account_id)
    if account is None:
        return _unknown_account(account_id)
    return {"balance": float(account.balance), "currency": account.currency}


@app.tool(description="Returns the latest transactions of one account, newest first")
def list_transactions(account_id: str, limit: int = 10) -> dict[str, Any]:
    """The account's latest `limit` (1 to 50) transactions, newest first, and their currency."""
    account = ACCOUNTS.get(account_id)
    if account is None:
        return _unknown_account(account_id)
    if not isinstance(limit, int) or not 1 <= limit <= MOST_TRANSACTIONS:
        return {"error": f"limit must be a whole number from 1 to {MOST_TRANSACTIONS}, not {limit}."}
    return {
        "currency": account.currency,
        "transactions": [
            {"date": entry.date, "description": entry.description, "amount": float(entry.amount)}
            for entry in account.transactions[:limit]
        ],
    }


@app.tool(description="Converts an amount from one currency to another at the bank's indicative rate")
def convert_currency(amount: float, from_currency: str, to_currency: str) -> dict[str, Any]:
    """`amount` in the other currency, rounded half up to 0.01, with the rate that it was multiplied by."""
    source, target = from_currency.strip().upper(), to_currency.strip().upper()
    for currency in (source, target):
        if currency not in USD_PER_UNIT:
            return {"error": f"There is no rate for {currency}. Supported currencies: {', '.join(USD_PER_UNIT)}."}
    exact = _decimal(amount)
    if exact is None or abs(exact) > LARGEST_AMOUNT:
        return {"error": f"{amount} is not an amount that can be converted."}
    rate = USD_PER_UNIT[source] / USD_PER_UNIT[target]
    converted = (exact * rate).quantize(Decimal("0.01"), ROUND_HALF_UP)
    return {
        "amount": float(exact),
        "currency": source,
        "converted_amount": float(converted),
        "converted_currency": target,
        "rate": round(float(rate), 6),
    }


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answers one call of a function of the action group."""
    return app.resolve(event, context)


def _unknown_account(account_id: str) -> dict[str, Any]:
    return {"error": f"There is no account {account_id}. Check the account number with the customer."}


def _decimal(amount: object) -> Decimal | None:
    """The number that was meant, or None for what is none. By way of its text: Decimal(0.145) is
    0.14499999...
    """
    try:
        exact = Decimal(str(amount))
    except InvalidOperation:
        return None
    return exact if exact.is_finite() else None
