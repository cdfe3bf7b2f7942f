"""Log lines on their way to a person and to CloudWatch Logs."""

import io
import json
import threading
import time
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.aws.log_delivery import LogDelivery, readable
from local.terminal.colours import Colour, plain
from local.terminal.trace_rows import render, summary
from tests.waiting import eventually

NOON = time.mktime((2026, 1, 2, 12, 0, 1, 0, 0, -1)) + 0.25
POWERTOOLS = {
    "level": "WARNING",
    "location": "handler:12",
    "message": "tool throttled",
    "timestamp": "2026-01-02 12:00:01,250+0000",
    "service": "turnwright",
    "function_request_id": "r1",
    "turnId": "t1",
    "attempt": 2,
    "reason": "slow down",
    "usage": {"inputTokens": 3},
}


@dataclass(frozen=True)
class Function:
    name: str
    log_group: str = "group"


class FakeLogs:
    """CloudWatch Logs with one group that is there already; `put_log_events` may be told to fail."""

    def __init__(self) -> None:
        self.streams: dict[tuple[str, str], list[str]] = {}
        self.batches: list[int] = []
        self.fails = False

    def create_log_group(self, logGroupName: str) -> None:  # noqa: N803  boto3's spelling
        raise ClientError({"Error": {"Code": "ResourceAlreadyExistsException"}}, "CreateLogGroup")

    def create_log_stream(self, logGroupName: str, logStreamName: str) -> None:  # noqa: N803
        self.streams[logGroupName, logStreamName] = []

    def put_log_events(self, logGroupName: str, logStreamName: str, logEvents: list[dict[str, Any]]) -> None:  # noqa: N803
        if self.fails:
            raise ClientError({"Error": {"Code": "ServiceUnavailable"}}, "PutLogEvents")
        self.streams[logGroupName, logStreamName] += [event["message"] for event in logEvents]
        self.batches.append(sum(len(event["message"]) for event in logEvents))


def test_a_powertools_line_is_shown_with_its_keys() -> None:
    clock, level, name, text, below = readable(json.dumps(POWERTOOLS), "InvokeTool", NOON)
    assert (clock, level, name, below) == ("12:00:01.250", "WARNING", "InvokeTool", [])
    assert text == 'tool throttled turnId=t1 attempt=2 reason="slow down" usage={"inputTokens":3}'


def test_a_traceback_stands_below_its_line() -> None:
    entry = {"level": "ERROR", "message": "broken", "exception": "Traceback\n  File x", "exception_name": "KeyError"}
    assert readable(json.dumps(entry), "InvokeTool", NOON)[3:] == ("broken", ["Traceback", "  File x"])


@pytest.mark.parametrize("line", ["plain text", "{not json", '{"neither": "level nor message"}'])
def test_any_other_line_is_shown_as_it_is(line: str) -> None:
    assert readable(line, "InvokeTool", NOON)[1:] == ("", "InvokeTool", line, ())


RECEIPT = {
    "agentId": "BANKASSIST",
    "agentVersion": "3",
    "sessionId": "my session",
    "tokens": {"inputTokens": 3456, "outputTokens": 74},
    "modelCalls": 2,
    "toolAttempts": 1,
    "stateTransitions": 9,
    "dollars": {"total": 0.012910585},
}
OWN = {"service": "turnwright", "level": "INFO"}
LINES = {
    "begun": json.dumps({**OWN, "message": "turn begun"}),
    "event": json.dumps({**OWN, "message": "trace", "debug": True}),
    "metrics": json.dumps({"_aws": {"CloudWatchMetrics": []}, "service": "turnwright"}),
    "committed": json.dumps({**OWN, "message": "turn committed", "turnId": "t1", "receipt": RECEIPT}),
    "warning": json.dumps(POWERTOOLS),
    "tool": json.dumps({"service": "banking-tools", "level": "INFO", "message": "a tool's own"}),
    "tool's metrics": json.dumps({"_aws": {"CloudWatchMetrics": []}, "service": "banking-tools"}),
    "printed": "printed by a tool",
}


@pytest.mark.parametrize(
    ("verbose", "names"),
    [
        (False, ["committed", "warning", "tool", "printed"]),
        (True, ["begun", "event", "committed", "warning", "tool", "printed"]),
    ],
)
def test_a_person_is_shown_a_line_a_turn_and_what_is_not_routine_unless_all_is_asked_for(
    verbose: bool, names: list[str]
) -> None:
    shown, logs = io.StringIO(), FakeLogs()
    delivery = LogDelivery(shown, lambda: logs, prefix="turnwright", verbose=verbose)
    for text in LINES.values():
        delivery.line(Function("turnwright-WriteMemoryFunction"), text)
    delivery.close()
    assert len(shown.getvalue().splitlines()) == len(names)
    assert [name for name in names if readable(LINES[name], "", NOON)[3] not in shown.getvalue()] == []
    [stream] = logs.streams.values()
    assert stream == list(LINES.values()), "CloudWatch Logs gets all"


def test_a_receipt_is_shown_as_what_it_adds_up_to() -> None:
    assert readable(LINES["committed"], "WriteMemory", NOON)[3] == (
        'turn committed turnId=t1 BANKASSIST:3 session="my session" 2 model calls, 1 tool attempts, '
        "3456+74 tokens, $0.0129"
    )
    unknown = LINES["committed"].replace("0.012910585", "null")
    assert readable(unknown, "WriteMemory", NOON)[3].endswith(", of unknown price")


def test_lines_reach_the_stream_under_a_short_name_unless_they_are_hidden() -> None:
    shown = io.StringIO()
    delivery = LogDelivery(shown, FakeLogs, prefix="turnwright")
    delivery.hidden.add("turnwright-PublishAgentsFunction")
    delivery.line(Function("turnwright-InvokeToolFunction"), json.dumps(POWERTOOLS))
    delivery.line(Function("turnwright-PublishAgentsFunction"), json.dumps(POWERTOOLS))
    delivery.problem("something broke")
    delivery.close()
    first, second = shown.getvalue().splitlines()
    assert first.split()[1:4] == ["WARNING", "InvokeTool", "tool"]
    assert second.split()[1:] == ["ERROR", "stack", "something", "broke"]
    assert list(delivery.problems) == ["something broke"]


def test_lines_reach_cloudwatch_untouched_in_the_functions_group_and_a_stream_of_its_own() -> None:
    logs = FakeLogs()
    delivery = LogDelivery(None, lambda: logs)

    def write(name: str) -> None:
        for number in range(50):
            delivery.line(Function(name), f"{name} {number}")

    threads = [threading.Thread(target=write, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    delivery.close()
    assert {stream.rpartition("/")[2]: lines for (_, stream), lines in logs.streams.items()} == {
        f"{name}[$LATEST]": [f"{name} {i}" for i in range(50)] for name in ("one", "two")
    }
    assert len(logs.batches) < 20


def test_a_batch_is_no_larger_than_cloudwatch_allows() -> None:
    logs = FakeLogs()
    delivery = LogDelivery(None, lambda: logs)
    for _ in range(6):
        delivery.line(Function("one"), "x" * 250_000)
    delivery.close()
    assert sum(logs.batches) == 1_500_000
    assert max(logs.batches) < 1_048_576


def test_lines_that_cloudwatch_refuses_are_a_problem_and_not_the_end() -> None:
    logs = FakeLogs()
    logs.fails = True
    delivery = LogDelivery(None, lambda: logs)
    delivery.line(Function("one"), "lost")
    eventually(lambda: delivery.problems, "the problem")
    logs.fails = False
    delivery.line(Function("one"), "kept")
    delivery.close()
    assert list(logs.streams.values()) == [["kept"]]
    [problem] = delivery.problems
    assert problem.startswith("1 log lines did not reach the log group group")


EVENT = {
    "level": "WARNING",
    "message": "TOOL_INVOCATION",
    "timestamp": "2026-01-02T12:00:01.250Z",
    "traceId": "1-67891233-abcdef012345678912345678",
    "sessionId": "s-1",
    "turnId": "t1",
    "agentId": "BANK",
    "agentVersion": "3",
    "memoryId": "ann",
    "step": 2,
    "type": "TOOL_INVOCATION",
    "status": "FAILED",
    "toolName": "balance",
    "toolUseId": "u",
    "index": 1,
    "arguments": "{}",
    "attempt": 1,
    "durationMs": 31,
    "errorCode": "THROTTLING",
    "errorMessage": "slow\ndown\x1b[31m \u202e" + "x" * 500,
    "retryScheduledInMs": 200,
    "result": "{}",
}


def test_a_trace_event_is_shown_without_the_length_of_its_texts_and_without_control_characters() -> None:
    _, level, name, text, _ = readable(json.dumps(EVENT), "InvokeTool", NOON)

    assert (level, name) == ("WARNING", "InvokeTool")
    assert text.startswith(
        "TOOL_INVOCATION  step 2  balance [1]  attempt 1  FAILED  31 ms  THROTTLING, retry in 200 ms: slow⏎down�[31m �x"
    )
    assert text.endswith("x…")
    assert len(text) < 260


def test_events_are_aligned_under_their_turn_and_failures_are_red() -> None:
    selected = {**EVENT, "type": "TOOL_SELECTION", "status": "SUCCESS", "reasoningBytes": 12, "argumentsBytes": 2}
    without = {"attempt", "durationMs", "arguments", "errorCode", "errorMessage", "retryScheduledInMs", "result"}
    selected = {name: value for name, value in selected.items() if name not in without}
    coloured: list[tuple[str, Colour]] = []

    def paint(text: str, colour: Colour) -> str:
        coloured.append((text, colour))
        return text

    head, first, second = render([selected, {**EVENT, "errorMessage": "no"}], paint).splitlines()

    assert head == "turn t1 (agent BANK:3, session s-1, actor ann, X-Ray 1-67891233-abcdef012345678912345678)"
    assert first == (
        "12:00:01.250  step 2  TOOL_SELECTION   balance [1]             SUCCESS         "
        "arguments of 2 bytes, reasoning of 12 bytes"
    )
    assert second == (
        "12:00:01.250  step 2  TOOL_INVOCATION  balance [1]  attempt 1  FAILED   31 ms  THROTTLING, retry in 200 ms: no"
    )
    assert coloured == [(head, "bold"), (second, "red")]
    assert render([], plain) == ""


def test_every_kind_of_event_says_what_is_particular_about_it() -> None:
    model = {**EVENT, "type": "MODEL_INVOCATION", "status": "SUCCESS", "model": "m", "stopReason": "end_turn"}
    model |= {"inputTokens": 3, "outputTokens": 2, "responseText": "Hi"}
    memory = {
        **EVENT,
        "type": "MEMORY_RETRIEVAL",
        "status": "SUCCESS",
        "namespace": "/n/",
        "recordCount": 2,
        "query": "q",
    }
    failed = {**EVENT, "type": "TURN_FAILED", "error": "ABORTED", "state": "Invoke Model", "cause": "by hand"}
    for name in ("toolName", "errorCode", "errorMessage", "retryScheduledInMs", "attempt", "index"):
        for event in (model, memory, failed):
            event.pop(name, None)

    assert summary(model) == "step 2  m  SUCCESS  31 ms  end_turn, 3+2 tokens, Hi"
    assert summary(memory) == "step 2  /n/  SUCCESS  31 ms  2 records, q"
    assert summary(failed) == "step 2  FAILED  31 ms  ABORTED in Invoke Model: by hand"
    assert summary({**EVENT, "circuitState": "OPEN", "errorMessage": ""}).endswith(
        "THROTTLING, nothing was invoked, retry in 200 ms"
    )
