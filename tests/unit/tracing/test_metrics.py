"""The lines in embedded metric format that the functions write."""

import json
from typing import Any

import pytest

from turnwright.costs.prices import current
from turnwright.costs.receipts import receipt
from turnwright.costs.spending import Spent
from turnwright.sessions.values import PaidCall
from turnwright.tracing import metrics

SERVICE = "turnwright"


def published(output: str) -> list[dict[str, Any]]:
    """`{"names", "dimensions", **values}` of each line."""
    lines = [json.loads(line) for line in output.splitlines()]
    told = []
    for line in lines:
        [directive] = line.pop("_aws")["CloudWatchMetrics"]
        assert directive["Namespace"] == "Turnwright"
        told.append(
            {
                **line,
                "names": {metric["Name"]: metric["Unit"] for metric in directive["Metrics"]},
                "dimensions": directive["Dimensions"],
            }
        )
    return told


def test_a_turn_is_counted_for_the_stack_and_its_agent(capsys: pytest.CaptureFixture[str]) -> None:
    calls = [PaidCall("us.amazon.nova-pro-v1:0", {"inputTokens": 100, "outputTokens": 10})]
    metrics.turn_committed("BANK", 1500, receipt(Spent(), calls, 4, current()))

    assert published(capsys.readouterr().out) == [
        {
            "names": {
                "Turns": "Count",
                "TurnLatency": "Milliseconds",
                "InputTokens": "Count",
                "OutputTokens": "Count",
                "Dollars": "None",
            },
            "dimensions": [["service"], ["service", "agent"]],
            "service": SERVICE,
            "agent": "BANK",
            "Turns": [1.0],
            "TurnLatency": [1500.0],
            "InputTokens": [100.0],
            "OutputTokens": [10.0],
            "Dollars": [0.000212],
        }
    ]


def test_dollars_that_are_not_known_are_not_counted_as_none(capsys: pytest.CaptureFixture[str]) -> None:
    calls = [PaidCall("unknown", {"inputTokens": 1, "outputTokens": 1})]
    metrics.turn_committed("BANK", 1, receipt(Spent(), calls, 4, current()))

    assert "Dollars" not in published(capsys.readouterr().out)[0]["names"]


def test_a_failed_turn_is_counted_by_cause_and_a_refused_one_apart(capsys: pytest.CaptureFixture[str]) -> None:
    metrics.turn_failed("BANK", "ModelsExhausted", refused=False)
    metrics.turn_failed("", "SessionBusy", refused=True)

    failed, refused = published(capsys.readouterr().out)
    assert failed["dimensions"] == [["service"], ["service", "agent"], ["service", "cause"]]
    assert (failed["names"], failed["cause"]) == ({"TurnsFailed": "Count"}, "ModelsExhausted")
    assert (refused["names"], refused["agent"]) == ({"TurnsRefused": "Count"}, "unknown")


def test_tool_attempts_are_counted_by_outcome_and_an_open_circuit_apart(capsys: pytest.CaptureFixture[str]) -> None:
    metrics.tool_attempted("BANK", "balance", "THROTTLING", 40)
    metrics.tool_attempted("BANK", "balance", "CIRCUIT_OPEN", 1)

    attempts, latency, refused = published(capsys.readouterr().out)
    assert attempts["dimensions"] == [["service"], ["service", "outcome"], ["service", "agent", "tool", "outcome"]]
    assert (attempts["outcome"], attempts["ToolAttempts"]) == ("THROTTLING", [1.0])
    assert latency["dimensions"] == [["service"], ["service", "agent", "tool"]]
    assert (refused["names"], refused["tool"]) == ({"CircuitOpenRefusals": "Count"}, "balance")


def test_one_metric_does_not_leak_into_the_next(capsys: pytest.CaptureFixture[str]) -> None:
    metrics.model_failed("A", "ModelThrottled")
    metrics.model_answered("B", 5)

    failed, answered = published(capsys.readouterr().out)
    assert answered["names"] == {"ModelLatency": "Milliseconds"}
    assert answered["dimensions"] == [["service"], ["service", "agent"]]
    assert (failed["cause"], "cause" in answered) == ("ModelThrottled", False)
