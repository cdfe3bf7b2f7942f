"""What makes up for lost events: Step Functions tells EventBridge of an execution's end on a best-effort basis.

Step Functions lists what ended badly, newest first by the moment of its end, redriven executions too. What of that is
not recorded some minutes later is handed to the function that the event would have gone to. That has the same tries
and the same dead-letter queue as for an event, and asks Step Functions first how the execution stands. So nothing is
written for an execution that goes well, and one that runs is left alone, for however long.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from turnwright.errors import TurnwrightError
from turnwright.executions.recorded_failures import RecordedFailures, Stopped
from turnwright.storage import keys
from turnwright.storage.clock import milliseconds, now_ms
from turnwright.storage.documents import json_text
from turnwright.storage.table import SCHEMA_VERSION, ConditionFailed, Table, Update
from turnwright.tracing.execution_failures import UNSUCCESSFUL
from turnwright.tracing.log import logger

EVENT_MS = 5 * 60_000
"""So long an event may take, with the tries of a function that fails at first: a minute and two minutes apart."""

LISTED_LATE_MS = 60 * 60_000
"""So much later than it ended an execution may be listed: ListExecutions is eventually consistent, without a bound."""

_FIRST_MS = 10 * 60_000
"""How far back the first run of a stack looks. Of what failed before nobody noted whether it was recorded."""

_SPARE_SECONDS = 5
_PAGE = 1000


class OutOfTime(Exception):
    """The rest of the lost failures has to wait for the next run."""


class SweepExecutions:
    """Looks for failures that nobody recorded. Two runs at once may hand over the same one.

    `hand_over` gives the function of a name an event, and raises if it did not take it.
    """

    def __init__(
        self,
        table: Table,
        stepfunctions: Any,
        hand_over: Callable[[str, dict[str, Any]], None],
        seconds_left: Callable[[], float],
    ) -> None:
        self._table = table
        self._stepfunctions = stepfunctions
        self._hand_over = hand_over
        self._seconds_left = seconds_left
        self._failures = RecordedFailures(table)

    def run(self, recorders: Mapping[str, str]) -> int:
        """Hands the failures that are not recorded to the functions that record them, which stand by the ARN of their
        state machine; how many there were.

        Raises what kept it from looking at all of a machine's failures, when it has looked at those of the others. The
        next run looks at the same again.
        """
        lost, troubles = 0, list[Exception]()
        for machine_arn, recorder in recorders.items():
            try:
                lost += self._sweep(machine_arn, recorder)
            except (BotoCoreError, ClientError, OutOfTime, TurnwrightError) as trouble:
                logger().exception("failures were not looked at", stateMachineArn=machine_arn)
                troubles.append(trouble)
        if troubles:
            raise troubles[0]
        return lost

    def _sweep(self, machine_arn: str, recorder: str) -> int:
        until = now_ms() - EVENT_MS
        since = self._since(machine_arn, until)
        stopped = [each for status in UNSUCCESSFUL for each in self._stopped(machine_arn, status, since)]
        in_order = sorted((each for each in stopped if each.at <= until), key=lambda each: each.at)
        # Pages shift while they are read, and a redriven execution may stand in two lists: the last failure counts.
        lost = self._failures.untold(list({each.execution_arn: each for each in in_order}.values()))
        for each in lost:
            self._require_time()
            logger().warning("a failure was not recorded: its event was lost", executionArn=each.execution_arn)
            self._hand_over(recorder, _event(machine_arn, each))
            self._failures.handed_over(each)
        if stopped:
            self._look_from(machine_arn, until - LISTED_LATE_MS)
        return len(lost)

    def _since(self, machine_arn: str, until: int) -> int:
        """From when on failures are looked at."""
        item = self._table.get(keys.swept_machine(machine_arn))
        if item:
            return int(item["lookFrom"])
        self._look_from(machine_arn, until - _FIRST_MS)
        return until - _FIRST_MS

    def _look_from(self, machine_arn: str, moment: int) -> None:
        update = Update(
            keys.swept_machine(machine_arn),
            "SET lookFrom = :moment, schemaVersion = :schema",
            condition="attribute_not_exists(lookFrom) OR lookFrom < :moment",
            values={":moment": moment, ":schema": SCHEMA_VERSION},
        )
        try:
            self._table.update(update)
        except ConditionFailed:
            return  # another run was here, or not enough time has passed

    def _stopped(self, machine_arn: str, status: str, since: int) -> Iterator[Stopped]:
        arguments: dict[str, Any] = {"stateMachineArn": machine_arn, "statusFilter": status, "maxResults": _PAGE}
        while True:
            self._require_time()
            page = self._stepfunctions.list_executions(**arguments)
            for execution in page["executions"]:
                at = milliseconds(execution["stopDate"])
                if at < since:
                    return
                yield Stopped(execution["executionArn"], status, at)
            if not page.get("nextToken"):
                return
            arguments["nextToken"] = page["nextToken"]

    def _require_time(self) -> None:
        if self._seconds_left() < _SPARE_SECONDS:
            raise OutOfTime("failures are left to look at; the next run goes on")


def invoker(client: Any) -> Callable[[str, dict[str, Any]], None]:
    """Hands events to Lambda functions, asynchronously, as EventBridge does."""

    def hand_over(function: str, event: dict[str, Any]) -> None:
        client.invoke(FunctionName=function, InvocationType="Event", Payload=json_text(event).encode())

    return hand_over


def _event(machine_arn: str, stopped: Stopped) -> dict[str, Any]:
    """As much of the event `Step Functions Execution Status Change` as tells which execution it is about."""
    return {
        "detail-type": "Step Functions Execution Status Change",
        "source": "turnwright.sweep",
        "detail": {
            "executionArn": stopped.execution_arn,
            "stateMachineArn": machine_arn,
            "name": stopped.execution_arn.rpartition(":")[2],
            "status": stopped.status,
            "error": None,
        },
    }
