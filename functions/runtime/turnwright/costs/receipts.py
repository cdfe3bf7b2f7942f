"""The receipt of a turn: what it cost, as far as it is known, and what is not.

It counts what the turn's own execution did, up to and with its commit. Beside it are the front door, the tools' own
functions, embeddings, the bucket, logs, and what memory does after the commit.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from turnwright.costs.prices import TOKEN_KINDS, Prices, rounded
from turnwright.costs.spending import Spent, whole
from turnwright.sessions.values import Header, PaidCall


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A model that failed for good, whose next one was asked then, and the name of the error."""

    model: str
    error: str


def receipt(
    spent: Spent,
    calls: Sequence[PaidCall],
    transitions: int,
    prices: Prices,
    incomplete: Iterable[str] = (),
    estimated_write_units: int = 0,
    passed_over: Sequence[PassedOver] | None = (),
) -> dict[str, Any]:
    """What the header keeps. A part of `dollars` without a price is None, and so is the total then.

    `stateTransitions` are the states that were entered; Step Functions bills `stateRetries` like these. Of the
    `writeUnits` the last `estimatedWriteUnits` are those of the commit that writes the receipt itself; all others are
    what DynamoDB reported. `incomplete` says what else is missing. `modelsPassedOver` has each model that failed for
    good, why, and how often, in the order in which it was first; None if that is not known.
    """
    total = spent.total
    models = _models(calls, prices)
    missing = [
        *(
            f"{count} invocation{'s' * (count > 1)} of {name}: failed or retried without telling a cost"
            for name, count in sorted(spent.unknown.items())
        ),
        *(f"dollars of {model}: no price in {prices.name}" for model, use in models.items() if use["dollars"] is None),
        *incomplete,
    ]
    return {
        "tokens": _tokens(calls),
        "models": models,
        "modelsPassedOver": None if passed_over is None else _passed_over(passed_over),
        "modelCalls": len(calls),
        "modelAttempts": max(spent.model_attempts, len(calls)),
        "toolAttempts": spent.tool_attempts,
        "stateTransitions": transitions,
        "stateRetries": spent.retries,
        "lambda": {
            name: {"invocations": cost.invocations, "ms": cost.ms, "memoryMb": cost.memory_mb}
            for name, cost in spent.functions.items()
        },
        "readUnits": whole(total.read_units),
        "writeUnits": whole(total.write_units),
        "estimatedWriteUnits": estimated_write_units,
        "itemWrites": total.item_writes,
        "dollars": _dollars(spent, models, transitions, prices),
        "prices": prices.name,
        "incomplete": missing,
    }


def _passed_over(models: Sequence[PassedOver]) -> list[dict[str, Any]]:
    return [{"model": each.model, "error": each.error, "times": times} for each, times in Counter(models).items()]


def of_header(header: Header) -> dict[str, Any] | None:
    """The receipt as it is shown: with whose turn it is. None for a turn without one, that runs or never began."""
    stored = header.receipt
    if stored is None:
        return None
    fields = header.fields
    identity = ("turnId", "sessionId", "agentId", "agentVersion", "definitionVersion", "caller", "traceId")
    return {**{name: fields[name] for name in identity if name in fields}, "status": header.status, **stored}


def added(receipts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The totals of many turns. Dollars that one of them does not know make the total an at-least: see `unpriced`."""
    tokens: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    reads = writes = dollars = 0.0
    turns = unpriced = incomplete = 0
    for each in receipts:
        turns += 1
        tokens.update(each["tokens"])
        counts.update({name: each[name] for name in _COUNTED})
        counts["lambdaMs"] += sum(function["ms"] for function in each["lambda"].values())
        reads += each["readUnits"]
        writes += each["writeUnits"]
        parts = [value for name, value in each["dollars"].items() if name != "total"]
        dollars += sum(value for value in parts if value is not None)
        unpriced += None in parts
        incomplete += bool(each["incomplete"])
    return {
        "turns": turns,
        "tokens": dict(tokens),
        **{name: counts[name] for name in (*_COUNTED, "lambdaMs")},
        "readUnits": whole(reads),
        "writeUnits": whole(writes),
        "dollars": rounded(dollars),
        "unpriced": unpriced,
        "incomplete": incomplete,
    }


_COUNTED = ("modelCalls", "modelAttempts", "toolAttempts", "stateTransitions", "stateRetries", "itemWrites")


def _tokens(calls: Sequence[PaidCall]) -> dict[str, int]:
    total: Counter[str] = Counter(dict.fromkeys(("inputTokens", "outputTokens"), 0))
    for call in calls:
        total.update({kind: call.usage[kind] for kind in TOKEN_KINDS if call.usage.get(kind)})
    return dict(total)


def _models(calls: Sequence[PaidCall], prices: Prices) -> dict[str, dict[str, Any]]:
    models: dict[str, dict[str, Any]] = {}
    for call in calls:
        use = models.setdefault(call.model, {"calls": 0, "dollars": 0.0})
        use["calls"] += 1
        if call.left_out:
            use["leftOut"] = sorted({*use.get("leftOut", ()), *call.left_out})
        dollars = prices.of_model(call.model, call.usage)
        use["dollars"] = None if dollars is None or use["dollars"] is None else rounded(use["dollars"] + dollars)
    return models


def _dollars(
    spent: Spent, models: Mapping[str, Mapping[str, Any]], transitions: int, prices: Prices
) -> dict[str, float | None]:
    total = spent.total
    of_models = [use["dollars"] for use in models.values()]
    parts: dict[str, float | None] = {
        "models": None if None in of_models else rounded(sum(of_models)),
        "lambda": rounded(
            sum(
                cost.ms / 1000 * cost.memory_mb / 1024 * prices.per_gb_second + cost.invocations * prices.per_request
                for cost in spent.functions.values()
            )
        ),
        "stepFunctions": rounded((transitions + spent.retries) * prices.per_transition),
        "dynamodb": rounded(total.read_units * prices.per_read_unit + total.write_units * prices.per_write_unit),
    }
    known = [part for part in parts.values() if part is not None]
    return {**parts, "total": rounded(sum(known)) if len(known) == len(parts) else None}
