"""Execution events and their way to the functions and queues that rules name."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from local.aws import event_delivery
from local.aws.event_delivery import LARGEST_EVENT_DATA, EventDelivery, execution_event
from local.deployment.deploy import Delivery, Rule
from local.moto_patches import ExecutionChange
from tests.waiting import eventually, patient

ACCOUNT = "us-east-1:123456789012"
DEAD_LETTERS = f"arn:aws:sqs:{ACCOUNT}:dead-letters"
WAIT_SECONDS = 10

FAILED = ExecutionChange(
    execution_arn=f"arn:aws:states:{ACCOUNT}:execution:turn:t1",
    state_machine_arn=f"arn:aws:states:{ACCOUNT}:stateMachine:turn",
    name="t1",
    status="FAILED",
    start_date=datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC),
    stop_date=datetime(2026, 1, 2, 3, 4, 6, 789000, tzinfo=UTC),
    input='{"turnId": "t1"}',
    output=None,
    error="ToolFailedTurn",
    cause="late",
)


@dataclass
class Invoked:
    payload: bytes = b"null"
    function_error: str | None = None


@dataclass
class World:
    """What stands around the delivery: a function, queues, and whoever hears of problems."""

    run: Callable[[int], Invoked] = lambda attempt: Invoked()
    invoked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    deliveries: list[EventDelivery] = field(default_factory=list)

    def invoke(self, function: str, payload: bytes, trace_header: str | None = None) -> Invoked:
        self.invoked.append((function, json.loads(payload)))
        return self.run(len(self.invoked))

    def invoke_streaming(self, function: str, payload: bytes, trace_header: str | None = None) -> Any:
        raise AssertionError("an event is not streamed")

    def start(
        self, *rules: Rule, asynchronous: dict[str, Delivery] | None = None, schedules: bool = True
    ) -> EventDelivery:
        delivery = EventDelivery(
            rules,
            asynchronous or {},
            self,
            lambda queue, text: self.messages.append((queue, json.loads(text))),
            self.problems.append,
            retry_delays=(0.01,),
            schedules=schedules,
        )
        self.deliveries.append(delivery)
        return delivery


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    for delivery in world.deliveries:
        delivery.close()


RULE = Rule("Rule", "record", {"source": ["aws.states"]})


def test_an_execution_event_has_eventbridges_shape() -> None:
    event = execution_event(FAILED)
    assert event == {
        "version": "0",
        "id": event["id"],
        "detail-type": "Step Functions Execution Status Change",
        "source": "aws.states",
        "account": "123456789012",
        "time": "2026-01-02T03:04:06Z",
        "region": "us-east-1",
        "resources": [FAILED.execution_arn],
        "detail": {
            "executionArn": FAILED.execution_arn,
            "stateMachineArn": FAILED.state_machine_arn,
            "name": "t1",
            "status": "FAILED",
            "startDate": 1767323045678,
            "stopDate": 1767323046789,
            "input": '{"turnId": "t1"}',
            "output": None,
            "inputDetails": {"included": True},
            "outputDetails": None,
            "error": "ToolFailedTurn",
            "cause": "late",
            "stateMachineVersionArn": None,
            "stateMachineAliasArn": None,
            "redriveCount": 0,
            "redriveDate": None,
            "redriveStatus": "REDRIVABLE",
            "redriveStatusReason": None,
        },
    }


def test_input_and_output_that_are_too_long_are_left_out_and_it_says_so() -> None:
    detail = execution_event(replace(FAILED, input='"' + "x" * LARGEST_EVENT_DATA + '"'))["detail"]
    assert (detail["input"], detail["inputDetails"]) == (None, {"included": False})


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ({"source": ["aws.states"], "detail": {"status": ["FAILED", "ABORTED"]}}, True),
        ({"detail": {"status": ["SUCCEEDED"]}}, False),
        ({"detail": {"name": [{"prefix": "t"}]}}, True),
        ({"detail": {"status": [{"anything-but": ["FAILED"]}]}}, False),
        ({"detail": {"error": [{"exists": True}], "nothing": [{"exists": False}]}}, True),
    ],
)
def test_a_rule_gets_the_events_that_its_pattern_matches(world: World, pattern: Any, matches: bool) -> None:
    delivery = world.start(replace(RULE, pattern=pattern))
    event = execution_event(FAILED)
    assert delivery.publish(event) == int(matches)
    assert delivery.drain(WAIT_SECONDS)
    assert world.invoked == ([("record", event)] if matches else [])


def test_the_function_of_every_rule_gets_the_event(world: World) -> None:
    delivery = world.start(RULE, Rule("Other", "tell", {"source": ["aws.states"]}))
    event = execution_event(FAILED)
    assert delivery.publish(event) == 2
    assert delivery.drain(WAIT_SECONDS)
    assert sorted(function for function, _ in world.invoked) == ["record", "tell"]
    assert [told for _, told in world.invoked] == [event, event]


def test_a_function_that_fails_is_tried_again(world: World) -> None:
    world.run = lambda attempt: Invoked(b"{}", "Unhandled") if attempt < 3 else Invoked()
    delivery = world.start(RULE)
    delivery.publish(execution_event(FAILED))
    assert delivery.drain(WAIT_SECONDS)
    assert (len(world.invoked), world.problems) == (3, [])


def test_a_function_that_keeps_failing_leaves_the_event_in_its_failure_queue(world: World) -> None:
    world.run = lambda attempt: Invoked(b'{"errorType": "KeyError"}', "Unhandled")
    delivery = world.start(RULE, asynchronous={"record": Delivery(1, 60, DEAD_LETTERS)})
    event = execution_event(FAILED)
    delivery.publish(event)
    assert delivery.drain(WAIT_SECONDS)
    [(queue, record)] = world.messages
    assert queue == DEAD_LETTERS
    assert record["requestPayload"] == event
    assert record["requestContext"]["approximateInvokeCount"] == 2
    assert record["responsePayload"] == {"errorType": "KeyError"}
    [problem] = world.problems
    assert "FAILED of t1" in problem
    assert "KeyError" in problem


def test_a_target_that_cannot_be_reached_leaves_the_event_in_the_rules_queue(world: World) -> None:
    def missing(attempt: int) -> Invoked:
        raise LookupError("No function 'record' is deployed")

    world.run = missing
    event = execution_event(FAILED)
    delivery = world.start(replace(RULE, delivery=Delivery(1, 60, DEAD_LETTERS)))
    delivery.publish(event)
    assert delivery.drain(WAIT_SECONDS)
    assert world.messages == [(DEAD_LETTERS, event)]
    assert "No function 'record' is deployed" in world.problems[0]


def test_publishing_does_not_wait_for_the_function(world: World) -> None:
    release = threading.Event()

    def slow(attempt: int) -> Invoked:
        release.wait(timeout=patient(WAIT_SECONDS))
        return Invoked()

    world.run = slow
    delivery = world.start(RULE)
    assert delivery.publish(execution_event(FAILED)) == 1
    assert not delivery.drain(0.01)
    release.set()
    assert delivery.drain(WAIT_SECONDS)


def test_closing_delivers_what_waits_and_tells_what_is_lost(world: World) -> None:
    release = threading.Event()

    def stuck(attempt: int) -> Invoked:
        release.wait(timeout=patient(WAIT_SECONDS))
        return Invoked()

    world.run = stuck
    delivery = world.start(RULE)
    delivery.publish(execution_event(FAILED))
    delivery.close(0.05)
    assert delivery.publish(execution_event(FAILED)) == 0
    release.set()
    assert [problem.rpartition(": ")[2] for problem in world.problems] == [
        "the stack stopped before it was delivered",
        "the stack is stopping",
    ]


RULE_ARN = f"arn:aws:events:{ACCOUNT}:rule/turnwright-Sweep"
SWEEP = Rule("Sweep", "record", every=timedelta(milliseconds=10), arn=RULE_ARN)


def clocks() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "schedules"]


def test_a_schedule_makes_an_event_each_time_it_is_due(world: World) -> None:
    world.start(SWEEP)
    eventually(lambda: len(world.invoked) >= 3, "the schedule")
    event = world.invoked[0][1]
    assert event == {
        "version": "0",
        "id": event["id"],
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": "123456789012",
        "time": event["time"],
        "region": "us-east-1",
        "resources": [RULE_ARN],
        "detail": {},
    }
    assert datetime.fromisoformat(event["time"]).tzinfo == UTC
    assert len({called["id"] for _, called in world.invoked[:3]}) == 3


def test_a_schedule_rests_until_it_is_due_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[datetime, timedelta, datetime]] = []

    def tomorrow(due: datetime, every: timedelta, now: datetime) -> datetime:
        asked.append((due, every, now))
        return now + timedelta(days=1)

    monkeypatch.setattr(event_delivery, "next_due", tomorrow)
    delivery = world.start(SWEEP)
    eventually(lambda: len(world.invoked) >= 1, "the schedule")
    delivery.close()
    assert len(world.invoked) == 1
    [(due, every, now)] = asked
    assert (every, due <= now) == (SWEEP.every, True)


def test_a_schedule_can_be_made_due_at_once_and_rests_otherwise(world: World) -> None:
    delivery = world.start(SWEEP, schedules=False)
    assert delivery.fire("Sweep") == 1
    assert delivery.drain(WAIT_SECONDS)
    assert [event["detail-type"] for _, event in world.invoked] == ["Scheduled Event"]
    assert not clocks()
    with pytest.raises(LookupError, match=r"no rule Sweeper has a schedule \(Sweep\)"):
        delivery.fire("Sweeper")


def test_a_scheduled_function_that_fails_is_tried_again(world: World) -> None:
    world.run = lambda attempt: Invoked(b"{}", "Unhandled") if attempt < 3 else Invoked()
    delivery = world.start(SWEEP, schedules=False)
    delivery.fire("Sweep")
    assert delivery.drain(WAIT_SECONDS)
    assert (len(world.invoked), world.problems) == (3, [])


def test_a_rule_with_a_schedule_alone_hears_no_other_events(world: World) -> None:
    delivery = world.start(SWEEP, schedules=False)
    assert delivery.publish(execution_event(FAILED)) == 0


def test_closing_stops_schedules(world: World) -> None:
    delivery = world.start(SWEEP)
    eventually(lambda: len(world.invoked) >= 1, "the schedule")
    delivery.close()
    calls = len(world.invoked)
    assert not clocks()
    assert delivery.fire("Sweep") == 0
    assert len(world.invoked) == calls
