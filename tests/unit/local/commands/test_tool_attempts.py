"""The attempts of tool calls, as they are read from an execution's history."""

import json
from datetime import UTC, datetime
from typing import Any

from local.commands.executions import Execution, StateVisit, Try
from local.commands.tool_attempts import Attempt, ToolCall, render_attempt, tool_calls

NOW = datetime(2025, 11, 14, tzinfo=UTC)


def visit(
    name: str, milliseconds: float = 0, iteration: int | None = None, error: Any = None, output: Any = None
) -> StateVisit:
    """A visit; `error` is the gateway's report of a failed attempt, or the name of another error."""
    cause = json.dumps({"errorType": "ToolAttemptFailed", "errorMessage": json.dumps(error)})
    named = error if isinstance(error, str) else "ToolAttemptFailed"
    tries = (Try(NOW, milliseconds, named, cause if named != error else "lost") if error else Try(NOW, milliseconds),)
    return StateVisit(name, "Task", NOW, milliseconds, "succeeded", tries, iteration, output=output)


def result(text: str) -> dict[str, Any]:
    return {"toolUseId": "t", "status": "success", "result": {"inline": {"text": text}}}


def calls_of(*visits: StateVisit) -> list[ToolCall]:
    return tool_calls(Execution("arn", "turn", "SUCCEEDED", NOW, NOW, {}, {}, None, None, visits))


def test_attempts_belong_to_their_call_and_the_slept_delay_is_none_of_their_time() -> None:
    throttled = {"errorCode": "THROTTLING", "retryInMs": 200}
    unavailable = {"errorCode": "SERVICE_UNAVAILABLE", "retryInMs": 1400}
    assert calls_of(
        visit("Load Memory", 30),
        visit("Run Tools"),
        visit("Invoke Tool", 30, 0, throttled),
        visit("Invoke Tool", 50, 1, output=result("second")),
        visit("Invoke Tool", 235, 0, unavailable),
        visit("Back Off", 1000, 0),
        visit("Invoke Tool", 440, 0, output=result("first")),
        visit("Run Tools"),
        visit("Invoke Tool", 20, 0, {"errorCode": "CIRCUIT_OPEN", "retryAfterSeconds": 60}),
        visit("Return Error To Agent", 0, 0, output=result("open")),
    ) == [
        ToolCall(
            1,
            0,
            [Attempt(1, "THROTTLING", 30, 200), Attempt(2, "SERVICE_UNAVAILABLE", 35, 1400), Attempt(3, None, 40)],
            "first",
        ),
        ToolCall(1, 1, [Attempt(1, None, 50)], "second"),
        ToolCall(2, 0, [Attempt(1, "CIRCUIT_OPEN", 20, None, 60)], "open"),
    ]


def test_a_lost_gateway_is_an_attempt_with_the_name_of_its_error() -> None:
    [call] = calls_of(visit("Run Tools"), visit("Invoke Tool", 30, 0, "Runtime.ExitError"))
    assert call == ToolCall(1, 0, [Attempt(1, "Runtime.ExitError", 30)])


def test_a_call_of_a_tool_that_is_not_there_has_no_attempt() -> None:
    [call] = calls_of(
        visit("Run Tools"), visit("Which Handler?", 0, 0), visit("Return Error To Agent", 0, 0, output=result("none"))
    )
    assert call == ToolCall(1, 0, [], "none")


def test_a_long_result_is_named_by_its_length() -> None:
    stowed = {"toolUseId": "t", "status": "success", "result": {"object": "turns/t/x.json", "bytes": 70_000}}
    [call] = calls_of(visit("Run Tools"), visit("Invoke Tool", 30, 0, output=stowed))
    assert call.result == "(70000 bytes, kept in the bucket)"


def test_an_attempt_is_one_line() -> None:
    lines = [
        render_attempt(3, "get_account_balance", attempt)
        for attempt in (
            Attempt(1, "THROTTLING", 5003.2, 400),
            Attempt(2, None, 31),
            Attempt(1, "CIRCUIT_OPEN", 1, None, 60),
            Attempt(1, "TIMEOUT", 900),
        )
    ]
    assert lines == [
        "step 3 get_account_balance attempt 1 FAILED THROTTLING 5003 ms, retry in 400 ms",
        "step 3 get_account_balance attempt 2 SUCCESS 31 ms",
        "step 3 get_account_balance attempt 1 FAILED CIRCUIT_OPEN 1 ms, not called for 60 s",
        "step 3 get_account_balance attempt 1 FAILED TIMEOUT 900 ms",
    ]
