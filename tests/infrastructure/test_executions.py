"""Reading what an execution did from its history, as Step Functions writes it."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from local.commands.executions import (
    Execution,
    StateVisit,
    UnknownExecution,
    find_execution,
    read_execution,
    render_execution,
    render_executions,
    state_visits,
)

BEGIN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ARN = "arn:aws:states:us-east-1:123456789012:execution:turn:"


class History:
    """Writes events with the ids and times that Step Functions would give; each follows the one before unless said."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def add(self, kind: str, at_ms: float, after: int | None = None, **details: Any) -> int:
        number = len(self.events) + 1
        detail_name = {"Entered": "stateEntered", "Exited": "stateExited"}.get(kind.split("State")[-1])
        name = f"{detail_name or kind[0].lower() + kind[1:]}EventDetails"
        self.events.append(
            {
                "id": number,
                "previousEventId": number - 1 if after is None else after,
                "type": kind,
                "timestamp": BEGIN + timedelta(milliseconds=at_ms),
                name: details,
            }
        )
        return number

    def state(self, kind: str, name: str, enter_ms: float, exit_ms: float, after: int | None = None) -> int:
        self.add(f"{kind}StateEntered", enter_ms, after, name=name)
        return self.add(f"{kind}StateExited", exit_ms, name=name)


def summary(visit: StateVisit) -> tuple[str, float | None, str, int, str | None, int | None, int]:
    return (
        visit.name,
        visit.duration_ms,
        visit.outcome,
        visit.attempts,
        visit.error,
        visit.iteration,
        visit.depth,
    )


def test_retries_of_a_state_are_its_tries() -> None:
    history = History()
    history.add("ExecutionStarted", 0)
    history.add("TaskStateEntered", 0, name="Invoke Model")
    history.add("TaskScheduled", 1)
    history.add("TaskStarted", 1)
    history.add("TaskFailed", 5, error="ModelThrottled", cause="slow down")
    history.add("TaskScheduled", 105)
    history.add("TaskSucceeded", 115)
    history.add("TaskStateExited", 116, name="Invoke Model")
    history.add("ExecutionSucceeded", 117)
    [visit] = state_visits(history.events)
    assert summary(visit) == ("Invoke Model", 116, "succeeded", 2, None, None, 0)
    assert [(attempt.duration_ms, attempt.error, attempt.cause) for attempt in visit.tries] == [
        (4, "ModelThrottled", "slow down"),
        (10, None, None),
    ]


def test_a_failure_that_a_catch_handles_is_caught() -> None:
    history = History()
    history.add("TaskStateEntered", 0, name="Invoke Model")
    history.add("TaskScheduled", 1)
    history.add("TaskTimedOut", 31)
    history.add("TaskStateExited", 32, name="Invoke Model")
    history.state("Pass", "Use Next Model", 33, 34)
    assert [summary(visit) for visit in state_visits(history.events)] == [
        ("Invoke Model", 32, "caught", 1, "States.Timeout", None, 0),
        ("Use Next Model", 1, "succeeded", 1, None, None, 0),
    ]


def test_iterations_of_a_map_that_run_side_by_side_are_told_apart() -> None:
    history = History()
    history.add("MapStateEntered", 0, name="Run Tools")
    started = history.add("MapStateStarted", 1, length=2)
    first = history.add("MapIterationStarted", 1, started, name="Run Tools", index=0)
    second = history.add("MapIterationStarted", 1, started, name="Run Tools", index=1)
    first_tool = history.add("TaskStateEntered", 2, first, name="Invoke Tool")
    second_tool = history.add("TaskStateEntered", 3, second, name="Invoke Tool")
    scheduled = history.add("TaskScheduled", 4, first_tool)
    history.add("TaskScheduled", 5, second_tool)
    history.add("TaskSucceeded", 6)
    second_end = history.add("TaskStateExited", 7, name="Invoke Tool")
    failed = history.add("TaskFailed", 14, scheduled, error="ToolAttemptFailed")
    first_end = history.add("TaskStateExited", 15, failed, name="Invoke Tool")
    history.state("Wait", "Back Off", 16, 26, first_end)
    last = history.add("MapIterationSucceeded", 27, name="Run Tools", index=0)
    history.add("MapIterationSucceeded", 8, second_end, name="Run Tools", index=1)
    history.add("MapStateSucceeded", 28, last)
    history.add("MapStateExited", 29, last, name="Run Tools")
    history.state("Task", "Write Memory", 30, 31)
    assert [summary(visit) for visit in state_visits(history.events)] == [
        ("Run Tools", 29, "succeeded", 1, None, None, 0),
        ("Invoke Tool", 13, "caught", 1, "ToolAttemptFailed", 0, 1),
        ("Invoke Tool", 4, "succeeded", 1, None, 1, 1),
        ("Back Off", 10, "succeeded", 1, None, 0, 1),
        ("Write Memory", 1, "succeeded", 1, None, None, 0),
    ]


def test_a_map_fails_with_the_failure_inside_and_ends_what_runs_beside_it() -> None:
    history = History()
    history.add("MapStateEntered", 0, name="Run Tools")
    started = history.add("MapStateStarted", 1)
    first = history.add("MapIterationStarted", 1, started, name="Run Tools", index=0)
    second = history.add("MapIterationStarted", 1, started, name="Run Tools", index=1)
    history.add("TaskStateEntered", 2, second, name="Invoke Tool")
    history.add("TaskScheduled", 3)
    first_tool = history.add("TaskStateEntered", 2, first, name="Invoke Tool")
    history.add("TaskScheduled", 3, first_tool)
    history.add("TaskFailed", 13, error="ToolFailedTurn", cause='{"errorMessage": "late"}')
    history.add("MapIterationFailed", 14, name="Run Tools", index=0)
    history.add("MapStateFailed", 15)
    history.add("ExecutionFailed", 16, error="ToolFailedTurn", cause="late")
    assert [summary(visit) for visit in state_visits(history.events)] == [
        ("Run Tools", 16, "failed", 1, "ToolFailedTurn", None, 0),
        ("Invoke Tool", 14, "failed", 1, "ToolFailedTurn", 1, 1),
        ("Invoke Tool", 14, "failed", 1, "ToolFailedTurn", 0, 1),
    ]


@pytest.mark.parametrize(
    ("kind", "details", "error"),
    [("ExecutionAborted", {"error": "Operator"}, "Operator"), ("ExecutionTimedOut", {}, "States.Timeout")],
)
def test_what_ends_the_execution_ends_the_state_that_it_is_in(kind: str, details: dict[str, Any], error: str) -> None:
    history = History()
    history.add("TaskStateEntered", 0, name="Invoke Model")
    history.add("TaskScheduled", 1)
    [running] = state_visits(history.events)
    assert summary(running) == ("Invoke Model", None, "running", 1, None, None, 0)
    history.add(kind, 9, **details)
    [ended] = state_visits(history.events)
    assert summary(ended) == ("Invoke Model", 9, "failed", 1, error, None, 0)


class FakeStepFunctions:
    """Two executions, and the history of one in pages of two events."""

    def __init__(self, events: list[dict[str, Any]]) -> None:
        self._events = events

    def describe_execution(self, executionArn: str) -> dict[str, Any]:  # noqa: N803  boto3's spelling
        return {
            "executionArn": executionArn,
            "name": executionArn.rpartition(":")[2],
            "status": "FAILED",
            "startDate": BEGIN,
            "stopDate": BEGIN + timedelta(seconds=2),
            "input": '{"a": 1}',
            "error": "ModelsExhausted",
            "cause": '{"errorType": "ModelsExhausted", "errorMessage": "both models failed"}',
        }

    def get_paginator(self, operation: str) -> Any:
        pages = {
            "get_execution_history": [
                {"events": self._events[start : start + 2]} for start in range(0, len(self._events), 2)
            ],
            "list_state_machines": [{"stateMachines": [{"stateMachineArn": "machine"}]}],
            "list_executions": [
                {"executions": [{"executionArn": ARN + name, "name": name, "startDate": BEGIN}]}
                for name in ("turn-1", "turn-2")
            ],
        }[operation]

        class Paginator:
            def paginate(self, **_: Any) -> list[dict[str, Any]]:
                return pages

        return Paginator()


@pytest.fixture
def failed() -> Execution:
    history = History()
    history.add("ExecutionStarted", 0)
    history.add("TaskStateEntered", 1, name="Invoke Model")
    for begin in (1, 1001):
        history.add("TaskScheduled", begin)
        history.add("TaskFailed", begin + 10, error="ModelsExhausted", cause="both models failed")
    history.add("ExecutionFailed", 2000, error="ModelsExhausted")
    return read_execution(FakeStepFunctions(history.events), ARN + "turn-1")


def test_an_execution_is_read_whole(failed: Execution) -> None:
    assert (failed.name, failed.status, failed.duration_ms, failed.input) == ("turn-1", "FAILED", 2000, {"a": 1})
    assert failed.states == ["Invoke Model"]
    assert failed.visits[0].attempts == 2


class PagedHistory:
    """GetExecutionHistory, page by page, and what was asked of it: (reverseOrder, events that were given)."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.asked: list[tuple[bool, int]] = []

    def describe_execution(self, **_: Any) -> dict[str, Any]:
        return {"name": "turn", "status": "RUNNING", "startDate": BEGIN}

    def get_paginator(self, _: str) -> "PagedHistory":
        return self

    def paginate(self, **request: Any) -> Iterator[dict[str, Any]]:
        newest_first, size = request["reverseOrder"], request["maxResults"]
        events = self.history.events[:: -1 if newest_first else 1]
        for start in range(0, max(len(events), 1), size):
            page = events[start : start + size]
            self.asked.append((newest_first, len(page)))
            yield {"events": [dict(event) for event in page]}


def test_a_history_that_grows_while_it_is_paged_is_read_without_repetition() -> None:
    history = History()
    history.state("Pass", "early", 0, 1)
    client = PagedHistory(history)
    known: list[Mapping[str, Any]] = []
    read_execution(client, ARN, known)
    for number in range(120):
        history.state("Pass", f"late {number}", number, number + 1)
    shifted = PagedHistory(history)
    paginate = shifted.paginate

    def growing(**request: Any) -> Iterator[dict[str, Any]]:
        pages = list(paginate(**request))
        yield pages[0]
        yield {"events": [*pages[0]["events"][-7:], *pages[1]["events"]]}
        yield from pages[2:]

    shifted.paginate = growing  # type: ignore[method-assign]
    assert read_execution(shifted, ARN, known).visits == state_visits(history.events)
    assert [event["id"] for event in known] == list(range(1, 243))


@pytest.mark.parametrize("more", [0, 1, 49, 50, 51, 120])
def test_who_follows_an_execution_reads_each_event_once(more: int) -> None:
    history = History()
    for number in range(300):
        history.state("Pass", f"early {number}", number, number + 1)
    client = PagedHistory(history)
    known: list[Mapping[str, Any]] = []
    read_execution(client, ARN, known)
    for number in range(more):
        history.state("Pass", f"late {number}", 300 + number, 301 + number)
    client.asked.clear()
    execution = read_execution(client, ARN, known)
    assert execution.visits == state_visits(history.events)
    assert known == history.events
    assert all(newest_first for newest_first, _ in client.asked)
    assert sum(events for _, events in client.asked) <= 2 * more + 100


def test_an_execution_is_shown_with_every_try_and_why_it_failed(failed: Execution) -> None:
    lines = render_execution(failed).splitlines()
    assert lines[0] == "turn-1  FAILED"
    assert [line.split()[3:5] for line in lines[2:4]] == [["10", "1"], ["10", "2"]]
    assert lines[3].endswith("failed: ModelsExhausted: both models failed")
    assert lines[4:] == ["1 states, 2000 ms", "ModelsExhausted: both models failed"]


def listed(machine: str, name: str) -> dict[str, Any]:
    arn = f"arn:aws:states:us-east-1:123456789012:execution:{machine}:{name}"
    return {
        "executionArn": arn,
        "name": name,
        "status": "SUCCEEDED",
        "startDate": BEGIN,
        "stopDate": BEGIN + timedelta(milliseconds=1),
    }


def test_a_list_says_whose_executions_they_are_when_there_are_several_machines() -> None:
    turns = [listed("AgentTurn", "t1"), listed("AgentTurn", "t2")]
    assert [line.split()[3:] for line in render_executions(turns).splitlines()] == [["ms", "t1"], ["ms", "t2"]]
    both = [*turns, listed("Consolidate", "c1")]
    assert [line.split()[4:] for line in render_executions(both).splitlines()] == [
        ["AgentTurn", "t1"],
        ["AgentTurn", "t2"],
        ["Consolidate", "c1"],
    ]


def test_executions_of_one_name_are_told_apart_by_their_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [listed("AgentTurn", "same"), listed("Consolidate", "same")]
    monkeypatch.setattr("local.commands.executions.list_executions", lambda client: entries)
    with pytest.raises(UnknownExecution, match="more than one execution: AgentTurn:same, Consolidate:same"):
        find_execution(None, "same")
    assert find_execution(None, "Consolidate:sa") == entries[1]["executionArn"]


def test_an_execution_is_found_by_name_beginning_or_arn() -> None:
    client = FakeStepFunctions([])
    assert find_execution(client, "turn-2") == ARN + "turn-2"
    assert find_execution(client, ARN + "turn-9") == ARN + "turn-9"
    with pytest.raises(UnknownExecution, match="more than one execution: turn-1, turn-2"):
        find_execution(client, "turn")
    with pytest.raises(UnknownExecution, match="there is no execution t9"):
        find_execution(client, "t9")
