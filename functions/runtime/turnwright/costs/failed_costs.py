"""What a turn has cost that was never committed, read from its execution's history.

The functions' answers are in the history as they are in the states: the newest sum that Load Memory or Invoke Model
answered, and the tool calls after it. A failure that told no cost is counted as unknown.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from turnwright.costs.spending import INVOKE_MODEL, INVOKE_TOOL, LOAD_MEMORY, WRITE_MEMORY, Cost, Spent

_FUNCTIONS = {
    "Load Memory": LOAD_MEMORY,
    "Invoke Model": INVOKE_MODEL,
    "Invoke Tool": INVOKE_TOOL,
    "Look Up Tool Result": INVOKE_TOOL,
    "Write Memory": WRITE_MEMORY,
}

_MOST_PAGES = 25
"""A history has at most 25,000 events."""


@dataclass(frozen=True, slots=True)
class FailedCosts:
    """`transitions` are the states that were entered."""

    spent: Spent = field(default_factory=Spent)
    transitions: int = 0


def read_history(client: Any, execution_arn: str) -> list[dict[str, Any]]:
    """All events of an execution, the newest first."""
    events: list[dict[str, Any]] = []
    arguments: dict[str, Any] = {
        "executionArn": execution_arn,
        "reverseOrder": True,
        "maxResults": 1000,
        "includeExecutionData": True,
    }
    for _ in range(_MOST_PAGES):
        page = client.get_execution_history(**arguments)
        events += page["events"]
        if not page.get("nextToken"):
            break
        arguments["nextToken"] = page["nextToken"]
    return events


def of_history(newest_first: Iterable[Mapping[str, Any]]) -> FailedCosts:
    events = list(newest_first)[::-1]
    by_id = {event["id"]: event for event in events}
    spent = Spent()
    entered = tasks = 0
    tried: Counter[str] = Counter()
    for event in events:
        kind = event["type"]
        if kind.endswith("StateEntered"):
            entered += 1
            tasks += kind == "TaskStateEntered"
        elif kind == "TaskScheduled":
            tried[_function(event, by_id)] += 1
        elif kind == "TaskSucceeded":
            spent = _answered(spent, json.loads(event["taskSucceededEventDetails"].get("output") or "{}"))
        elif kind in ("TaskFailed", "TaskTimedOut"):
            spent = _failed(spent, event, _function(event, by_id))
    return FailedCosts(
        replace(
            spent,
            retries=max(0, tried.total() - tasks),
            model_attempts=tried[INVOKE_MODEL],
            tool_attempts=tried[INVOKE_TOOL],
        ),
        entered,
    )


def _answered(spent: Spent, output: Any) -> Spent:
    payload = output.get("Payload") if isinstance(output, dict) else None
    if not isinstance(payload, dict):
        return spent
    if "spent" in payload:  # the sum up to there, in which everything before it is
        return Spent.decode(payload["spent"])
    return spent.plus(INVOKE_TOOL, Cost.decode(payload["cost"])) if "cost" in payload else spent


def _failed(spent: Spent, event: Mapping[str, Any], function: str) -> Spent:
    cost = _told(event.get("taskFailedEventDetails", {}).get("cause"))
    return spent.plus(function, cost) if cost else spent.missing(function, 1)


def _told(cause: str | None) -> Cost | None:
    """The cost in the message of an error document, if there is one."""
    try:
        return Cost.decode(json.loads(json.loads(cause or "")["errorMessage"])["cost"])
    except (ValueError, KeyError, TypeError):
        return None


def _function(event: Mapping[str, Any], by_id: Mapping[int, Mapping[str, Any]]) -> str:
    """The function of the state that an event belongs to."""
    found: Mapping[str, Any] | None = event
    while found and "stateEnteredEventDetails" not in found:
        found = by_id.get(found.get("previousEventId", 0))
    name = str(found["stateEnteredEventDetails"]["name"]) if found else "an unknown state"
    return _FUNCTIONS.get(name, name)
