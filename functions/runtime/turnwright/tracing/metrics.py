"""What is counted for the dashboard and the alarms, as lines of the log in CloudWatch's embedded metric format.

One namespace, `Turnwright`. Each metric is there for the whole stack (dimension `service`, its name) and once more
by the dimensions that its function below names; these are few, since each combination is a metric that costs. A line is
written when its event is told, so that a function that dies between the two leaves one out, and a repeat may write one
twice: receipts are for counting, metrics are for looking.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit

from turnwright.storage.settings import settings

NAMESPACE = "Turnwright"

_COUNT, _MILLISECONDS, _NONE = MetricUnit.Count, MetricUnit.Milliseconds, MetricUnit.NoUnit

Measured = Mapping[str, tuple[MetricUnit, float]]


def turn_committed(agent_id: str, latency_ms: int, receipt: Mapping[str, Any]) -> None:
    """`Turns`, `TurnLatency`, `InputTokens`, `OutputTokens` and, where every part has a price, `Dollars`; by agent."""
    tokens, dollars = receipt["tokens"], receipt["dollars"]["total"]
    measured: dict[str, tuple[MetricUnit, float]] = {
        "Turns": (_COUNT, 1),
        "TurnLatency": (_MILLISECONDS, latency_ms),
        "InputTokens": (_COUNT, tokens["inputTokens"]),
        "OutputTokens": (_COUNT, tokens["outputTokens"]),
    }
    if dollars is not None:
        measured["Dollars"] = (_NONE, dollars)
    _publish(measured, {"agent": agent_id})


def turn_failed(agent_id: str, cause: str, *, refused: bool) -> None:
    """`TurnsFailed`, or `TurnsRefused` for one that never began since a rule forbade it; by agent, and by cause."""
    name = "TurnsRefused" if refused else "TurnsFailed"
    _publish({name: (_COUNT, 1)}, {"agent": agent_id}, {"cause": cause})


def model_answered(agent_id: str, latency_ms: int) -> None:
    """`ModelLatency`, by agent."""
    _publish({"ModelLatency": (_MILLISECONDS, latency_ms)}, {"agent": agent_id})


def model_failed(agent_id: str, cause: str) -> None:
    """`ModelFailures`, by agent, and by cause: one for each attempt."""
    _publish({"ModelFailures": (_COUNT, 1)}, {"agent": agent_id}, {"cause": cause})


def tool_attempted(agent_id: str, tool: str, outcome: str, latency_ms: int) -> None:
    """`ToolAttempts`, by outcome (SUCCESS, or the error's code), and by agent, tool and outcome; `ToolLatency`, by
    agent and tool. A call that an open circuit refused is one of `CircuitOpenRefusals` instead, by agent and tool.
    """
    of_tool = {"agent": agent_id, "tool": tool}
    if outcome == "CIRCUIT_OPEN":
        _publish({"CircuitOpenRefusals": (_COUNT, 1)}, of_tool)
        return
    _publish({"ToolAttempts": (_COUNT, 1)}, {"outcome": outcome}, {**of_tool, "outcome": outcome})
    _publish({"ToolLatency": (_MILLISECONDS, latency_ms)}, of_tool)


def _publish(measured: Measured, *dimensions: Mapping[str, str]) -> None:
    service = settings().service
    metrics = EphemeralMetrics(namespace=NAMESPACE, service=service)
    for name, (unit, value) in measured.items():
        metrics.add_metric(name=name, unit=unit, value=value)
    for each in _filled(dimensions):
        metrics.add_dimensions(service=service, **each)
    metrics.flush_metrics()


def _filled(dimensions: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """CloudWatch takes no empty value and at most 1,024 characters of it."""
    return [{name: (value or "unknown")[:1024] for name, value in each.items()} for each in dimensions]
