"""The receipts of turns, found and added up: of an actor or a session by the index `Owned`, of an agent by the log."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from turnwright.agents.versions import load, resolve
from turnwright.costs.receipts import added, of_header
from turnwright.sessions.values import Header
from turnwright.storage import keys
from turnwright.storage.table import Table

Receipt = Mapping[str, Any]

_BATCH = 100


@dataclass(frozen=True, slots=True)
class ReceiptReader:
    """Reads from `table`, in a running stack or on AWS."""

    table: Table

    def owned(self, agent_id: str, store: str | None, actor: str | None, session: str | None) -> list[Receipt]:
        """Of an actor's turns with the agent, in the order in which they began; of one session if it is named.

        Without an actor they are those of the session without one. Raises NotFound for an unknown agent.
        """
        if store is None:
            store = load(self.table, agent_id, resolve(self.table, agent_id, "live")).memory_store
        owner = keys.SessionId(store, actor or keys.NO_ACTOR, session or "").owner
        prefix = keys.TURN_PREFIX
        found = [key for key, _ in self.table.query_index(keys.OWNED_INDEX, owner, prefix, prefix + keys.END)]
        headers = [Header.decode(item) for some in _batches(found) for item in self.table.get_many(some) if item]
        return [
            receipt
            for header in headers
            if header.fields["agentId"] == agent_id and session in (None, header.fields["sessionId"])
            if (receipt := of_header(header))
        ]

    def logged(self, logs: Any, log_group: str, agent_id: str) -> list[Receipt]:
        """Of all turns of an agent that the log still has; on AWS the query "Receipts by agent" adds these up."""
        pages = logs.get_paginator("filter_log_events").paginate(logGroupName=log_group, filterPattern='"receipt"')
        receipts: dict[str, Receipt] = {}
        for page in pages:
            for event in page["events"]:
                receipt = _receipt_of(event["message"])
                if receipt and receipt["agentId"] == agent_id:
                    receipts[receipt["turnId"]] = receipt  # a repeat tells the same, and a redriven turn its last one
        return list(receipts.values())


def render(receipts: Sequence[Receipt]) -> str:
    """A row a turn and their sum, for people."""
    heads = ("turn", "status", "tokens", "tools", "states", "reads", "writes", "Lambda ms", "dollars")
    rows = [heads, *map(_row, receipts)]
    total = added(receipts)
    rows.append(
        (
            f"{total['turns']} turns",
            "",
            str(sum(total["tokens"].values())),
            str(total["toolAttempts"]),
            str(total["stateTransitions"]),
            str(total["readUnits"]),
            str(total["writeUnits"]),
            str(total["lambdaMs"]),
            f"{total['dollars']:.6f}" + (" at least" if total["unpriced"] else ""),
        )
    )
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if total["unpriced"]:
        lines.append(f"{total['unpriced']} of them used something without a price: --json says what")
    return "\n".join(lines)


def _batches(found: Sequence[keys.Key]) -> list[Sequence[keys.Key]]:
    return [found[start : start + _BATCH] for start in range(0, len(found), _BATCH)]


def _row(receipt: Receipt) -> tuple[str, ...]:
    dollars = receipt["dollars"]["total"]
    return (
        str(receipt["turnId"]),
        str(receipt["status"]),
        str(sum(receipt["tokens"].values())),
        str(receipt["toolAttempts"]),
        str(receipt["stateTransitions"]),
        str(receipt["readUnits"]),
        str(receipt["writeUnits"]),
        str(sum(function["ms"] for function in receipt["lambda"].values())),
        "unknown" if dollars is None else f"{dollars:.6f}",
    )


def _receipt_of(line: str) -> Receipt | None:
    try:
        receipt = json.loads(line).get("receipt")
    except (ValueError, AttributeError):
        return None
    return receipt if isinstance(receipt, dict) and "stateTransitions" in receipt else None
