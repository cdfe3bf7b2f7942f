"""EventBridge's and Lambda's part between an execution that ended, or a schedule that is due, and the function that
a rule names for it.

EventBridge matches the event against the rules, or makes one when a rule's schedule is due, and hands it to Lambda,
which takes it at once and tries the function again, twice by default, when it fails. What cannot be delivered goes to
the dead-letter queue of the rule (EventBridge could not hand it over) or to the function's on-failure destination (the
function kept failing). On AWS the tries are a minute and two minutes apart; here `retry_delays` are short, since
somebody is watching.
"""

import json
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from moto.events.models import EventPattern

from local.deployment.deploy import LAMBDA_DEFAULT, Delivery, Rule
from local.deployment.sam_yaml import REGION
from local.deployment.schedules import next_due
from local.gateway.proxy_integration import ACCOUNT_ID
from local.invocations import Functions, Invocation
from local.moto_patches.hooks import ExecutionChange

LARGEST_EVENT_DATA = 248 * 1024
"""Input and output together; above, EventBridge's event says `included: false` instead of holding them."""
_REDRIVABLE = frozenset({"FAILED", "TIMED_OUT", "ABORTED"})
_LONGEST_PAUSE_SECONDS = 30.0
"""A clock that was set, or a machine that slept, is noticed after this."""


@dataclass(frozen=True, slots=True)
class _Handover:
    rule: Rule
    event: Mapping[str, Any]


def execution_event(change: ExecutionChange) -> dict[str, Any]:
    """The event `Step Functions Execution Status Change` for an execution that began or ended.

    Source of the shape: "Automating event delivery with EventBridge" in the Step Functions guide. Times are in ms.
    """
    texts = [change.input, change.output]
    included = sum(len(text.encode()) for text in texts if text) <= LARGEST_EVENT_DATA
    details = [{"included": included} if text is not None else None for text in texts]
    running = change.status == "RUNNING"
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": "Step Functions Execution Status Change",
        "source": "aws.states",
        "account": ACCOUNT_ID,
        "time": _timestamp(change.stop_date or change.start_date),
        "region": REGION,
        "resources": [change.execution_arn],
        "detail": {
            "executionArn": change.execution_arn,
            "stateMachineArn": change.state_machine_arn,
            "name": change.name,
            "status": change.status,
            "startDate": _milliseconds(change.start_date),
            "stopDate": _milliseconds(change.stop_date) if change.stop_date else None,
            "input": change.input if included else None,
            "output": change.output if included else None,
            "inputDetails": details[0],
            "outputDetails": details[1],
            "error": change.error,
            "cause": change.cause,
            "stateMachineVersionArn": None,
            "stateMachineAliasArn": None,
            "redriveCount": change.redrive_count,
            "redriveDate": _milliseconds(change.redrive_date) if change.redrive_date else None,
            "redriveStatus": "REDRIVABLE" if change.status in _REDRIVABLE else "NOT_REDRIVABLE",
            "redriveStatusReason": "Execution is RUNNING and cannot be redriven" if running else None,
        },
    }


def scheduled_event(rule: Rule, at: datetime) -> dict[str, Any]:
    """The event `Scheduled Event` of a rule whose schedule is due.

    Source of the shape: "EventBridge events detail reference" in the EventBridge user guide.
    """
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": ACCOUNT_ID,
        "time": _timestamp(at),
        "region": REGION,
        "resources": [rule.arn],
        "detail": {},
    }


class EventDelivery:
    """Delivers events on threads of its own until `close`, and scheduled ones when they are due.

    `functions` runs what rules name; `send_message` puts a text into the queue of an ARN; `on_problem` is told, in one
    line, about each event that could not be delivered or that was still on its way at the end. With `schedules` false
    nothing is ever due: only `fire` makes scheduled events, when a test wants one.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        asynchronous: Mapping[str, Delivery],
        functions: Functions,
        send_message: Callable[[str, str], None],
        on_problem: Callable[[str], None],
        *,
        retry_delays: Sequence[float] = (1.0, 2.0),
        workers: int = 4,
        schedules: bool = True,
    ) -> None:
        self._rules = [(rule, EventPattern(None, dict(rule.pattern))) for rule in rules if rule.pattern is not None]
        self._scheduled = {rule.name: (rule, rule.every) for rule in rules if rule.every is not None}
        self._asynchronous = asynchronous
        self._functions = functions
        self._send_message = send_message
        self._on_problem = on_problem
        self._retry_delays = retry_delays
        self._queue: queue.SimpleQueue[_Handover | None] = queue.SimpleQueue()
        self._pending: dict[int, _Handover] = {}
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, name=f"events {number}", daemon=True) for number in range(workers)
        ]
        self._clock = threading.Thread(target=self._keep_schedules, name="schedules", daemon=True)
        if schedules and self._scheduled:
            self._clock.start()
        for thread in self._threads:
            thread.start()

    def publish(self, event: Mapping[str, Any]) -> int:
        """Hands the event to the function of every rule that matches; returns to how many. Does not wait for them."""
        return self._enqueue(
            [_Handover(rule, event) for rule, pattern in self._rules if pattern.matches_event(dict(event))]
        )

    def fire(self, logical_id: str) -> int:
        """Hands a scheduled event to the function of the rule, as when its schedule is due; returns to how many.

        Raises LookupError when no enabled rule of that logical id has a schedule.
        """
        if logical_id not in self._scheduled:
            known = ", ".join(sorted(self._scheduled)) or "none has one"
            raise LookupError(f"no rule {logical_id} has a schedule ({known})")
        rule, _ = self._scheduled[logical_id]
        return self._fire(rule, datetime.now(UTC))

    def _fire(self, rule: Rule, at: datetime) -> int:
        return self._enqueue([_Handover(rule, scheduled_event(rule, at))])

    def _enqueue(self, handovers: list[_Handover]) -> int:
        if self._closing.is_set():
            for handover in handovers:
                self._lost(handover, "the stack is stopping")
            return 0
        with self._changed:
            self._pending.update({id(handover): handover for handover in handovers})
        for handover in handovers:
            self._queue.put(handover)
        return len(handovers)

    def _keep_schedules(self) -> None:
        """Fires each rule when it is due."""
        now = datetime.now(UTC)
        due = {name: now + every for name, (_, every) in self._scheduled.items()}
        while not self._closing.wait(min((min(due.values()) - now).total_seconds(), _LONGEST_PAUSE_SECONDS)):
            now = datetime.now(UTC)
            for name, (rule, every) in self._scheduled.items():
                if due[name] <= now:
                    self._fire(rule, due[name])
                    due[name] = next_due(due[name], every, now)

    def drain(self, timeout_seconds: float) -> bool:
        """Waits until everything published so far is delivered or given up; whether that came to pass in
        time.
        """
        with self._changed:
            return self._changed.wait_for(lambda: not self._pending, timeout_seconds)

    def close(self, timeout_seconds: float = 5.0) -> None:
        """Tries what is left at once, without waiting between tries, for at most `timeout_seconds`; tells
        what is lost.
        """
        self._closing.set()
        if self._clock.is_alive():
            self._clock.join()
        self.drain(timeout_seconds)
        with self._changed:
            for handover in self._pending.values():
                self._lost(handover, "the stack stopped before it was delivered")
            self._pending.clear()
        for _ in self._threads:
            self._queue.put(None)

    def _work(self) -> None:
        while (handover := self._queue.get()) is not None:
            try:
                self._deliver(handover)
            except Exception as error:
                self._lost(handover, f"{type(error).__name__}: {error}")
            finally:
                with self._changed:
                    self._pending.pop(id(handover), None)
                    self._changed.notify_all()

    def _hand_over(self, handover: _Handover) -> Invocation | None:
        """EventBridge's own tries: only for a function that cannot be reached, of which there is no invocation."""
        delivery = handover.rule.delivery
        last = "it is older than MaximumEventAgeInSeconds"
        for _ in self._tries(delivery, len(self._retry_delays)):
            try:
                return self._functions.invoke(handover.rule.function, json.dumps(handover.event).encode())
            except Exception as error:
                last = f"{type(error).__name__}: {error}"
        if delivery.dead_letter_arn:
            self._send_message(delivery.dead_letter_arn, json.dumps(handover.event))
        self._lost(handover, last, delivery.dead_letter_arn)
        return None

    def _deliver(self, handover: _Handover) -> None:
        """Lambda's asynchronous invocation: tried again when the function fails."""
        function = handover.rule.function
        delivery = self._asynchronous.get(function, LAMBDA_DEFAULT)
        made = 0
        result: Invocation | None = None
        for _ in self._tries(delivery, delivery.maximum_retries):
            made += 1
            result = self._hand_over(handover)
            if result is None or result.function_error is None:
                return
        if delivery.dead_letter_arn and result is not None:
            record = _failure_record(handover, made, result)
            self._send_message(delivery.dead_letter_arn, json.dumps(record))
        reason = result.payload.decode(errors="replace")[:300] if result else "it is too old"
        self._lost(handover, f"{function} failed {made} times, last with {reason}", delivery.dead_letter_arn)

    def _tries(self, delivery: Delivery, retries: int) -> Iterable[int]:
        """Numbers the tries and waits between them; if the stack is stopping they follow at once."""
        began = time.monotonic()
        for number in range(min(retries, delivery.maximum_retries) + 1):
            if number and self._retry_delays:
                self._closing.wait(self._retry_delays[min(number, len(self._retry_delays)) - 1])
            if number and time.monotonic() - began > delivery.maximum_age_seconds:
                return
            yield number

    def _lost(self, handover: _Handover, reason: str, kept_in: str | None = None) -> None:
        detail = handover.event.get("detail") or {}
        status = detail.get("status", handover.event.get("detail-type", "event"))
        name = detail.get("name", handover.event["id"])
        place = f"; it is in the queue {kept_in.rpartition(':')[2]}" if kept_in else ""
        self._on_problem(f"the event {status} of {name} did not reach {handover.rule.name}'s target: {reason}{place}")


def _failure_record(handover: _Handover, tries: int, result: Invocation) -> dict[str, Any]:
    """What Lambda sends to an on-failure destination."""
    payload = result.payload.decode(errors="replace")
    try:
        response = json.loads(payload)
    except ValueError:
        response = payload
    return {
        "version": "1.0",
        "timestamp": _timestamp(datetime.now(UTC), milliseconds=True),
        "requestContext": {
            "requestId": str(uuid.uuid4()),
            "functionArn": f"arn:aws:lambda:{REGION}:{ACCOUNT_ID}:function:{handover.rule.function}:$LATEST",
            "condition": "RetriesExhausted",
            "approximateInvokeCount": tries,
        },
        "requestPayload": handover.event,
        "responseContext": {
            "statusCode": 200,
            "executedVersion": "$LATEST",
            "functionError": result.function_error,
        },
        "responsePayload": response,
    }


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _timestamp(moment: datetime, *, milliseconds: bool = False) -> str:
    universal = moment.astimezone(UTC)
    return universal.isoformat(timespec="milliseconds" if milliseconds else "seconds").replace("+00:00", "Z")
