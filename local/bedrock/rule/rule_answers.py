"""Tool results and questions in words that a person reads at a glance."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from local.bedrock.conversation import ToolOutcome
from local.bedrock.rule.rule_facts import Facts, failure_reason, result_value
from local.bedrock.rule.rule_tools import Parameter, Tool
from local.bedrock.rule.rule_words import all_words

LABEL = "[offline rule model, not an LLM]"

_MONEY_WORDS = {"balance", "amount", "total", "price", "cost", "sum", "converted", "value"}
_LONGEST_LIST = 20


def labelled(text: str) -> str:
    return LABEL + ("" if text.startswith("\n") else " ") + text


def results_text(outcomes: Sequence[ToolOutcome]) -> str:
    """One line for a single result; a list with a line each for several."""
    lines = [_outcome_text(outcome) for outcome in outcomes]
    return lines[0] if len(lines) == 1 else "\n" + "\n".join(f"- {line}" for line in lines)


def question_text(tool: Tool, missing: Iterable[Parameter]) -> str:
    described = [f"{_name(p.name)} ({_description(p)})" if _description(p) else _name(p.name) for p in missing]
    return f"To call {tool.name} I need: {', '.join(described)}. What is it?"


def capabilities_text(tools: Sequence[Tool]) -> str:
    if not tools:
        return "No tools are configured, and a rule model without tools knows nothing."
    return f"I can call these tools: {', '.join(tool.name for tool in tools)}."


def _outcome_text(outcome: ToolOutcome) -> str:
    reason = failure_reason(outcome)
    if reason is not None:
        return f"{outcome.name} failed: {reason or 'it gave no reason'}"
    return f"{outcome.name}: {_value_text(result_value(outcome)) or 'done, without a result'}"


def _value_text(value: Any) -> str:
    if isinstance(value, dict):
        return _object_text(value)
    if isinstance(value, list):
        return _list_text(value)
    return _scalar_text("", value)


def _object_text(value: dict[str, Any]) -> str:
    """`balance 48,392.50 USD`: names and values, a currency behind the amount that it belongs to."""
    money = _money_currencies(value)
    shown_currencies = {currency_name for currency_name, _ in money.values()}
    parts = []
    for name, item in value.items():
        if name in money:
            parts.append(f"{_name(name)} {item:,.2f} {money[name][1]}")
        elif name not in shown_currencies:
            parts.append(
                f"{_name(name)} {_value_text(item) if isinstance(item, (dict, list)) else _scalar_text(name, item)}"
            )
    return ", ".join(parts)


def _money_currencies(value: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """For each amount of money the name of its currency's field and the currency."""
    currencies = [(n, c) for n, c in value.items() if isinstance(c, str) and "currency" in all_words(n)]
    found: dict[str, tuple[str, str]] = {}
    for name, item in value.items():
        if _is_number(item) and _MONEY_WORDS & set(all_words(name)):
            quantity = Facts(((name, item), *currencies)).quantity
            matching = [pair for pair in currencies if quantity and pair[1] == quantity.currency]
            if matching:
                found[name] = matching[0]
    return found


def _list_text(values: list[Any]) -> str:
    if not values:
        return "none"
    shown = [f"    {_row_text(value)}" for value in values[:_LONGEST_LIST]]
    more = [f"    ... and {len(values) - _LONGEST_LIST} more"] if len(values) > _LONGEST_LIST else []
    return f"{len(values)}:\n" + "\n".join(shown + more)


def _row_text(value: Any) -> str:
    if isinstance(value, dict) and not any(isinstance(item, (dict, list)) for item in value.values()):
        return " · ".join(_scalar_text(name, item) for name, item in value.items())
    return _value_text(value)


def _scalar_text(name: str, value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if _is_number(value):
        return f"{value:,.2f}" if _MONEY_WORDS & set(all_words(name)) else f"{value:,}"
    return str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _name(name: str) -> str:
    return re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name).replace("_", " ").lower()


def _description(parameter: Parameter) -> str:
    return str(parameter.schema.get("description", "")).rstrip(".")
