"""How an execution failed: its error, the state that it happened in, and what was spent until then."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from turnwright.costs import failed_costs
from turnwright.costs.failed_costs import FailedCosts
from turnwright.storage.clock import milliseconds
from turnwright.tracing.payloads import payloads

UNSUCCESSFUL = ("FAILED", "TIMED_OUT", "ABORTED")
"""The statuses of an execution that ended badly."""

_CAUSE_CHARACTERS = 4_000


@dataclass(frozen=True, slots=True)
class ExecutionFailure:
    """An execution that did not succeed, as Step Functions describes it.

    `stopped_at`, in ms, tells its failures apart: one that is redriven and fails again has stopped at another moment.
    `redrive` is how often it had been redriven by then.
    """

    execution_arn: str
    turn_id: str
    request: Mapping[str, Any]
    status: str
    error: str
    cause: str
    state: str | None
    costs: FailedCosts = field(default_factory=FailedCosts)
    stopped_at: int = 0
    redrive: int = 0

    @property
    def summary(self) -> dict[str, Any]:
        """What the turn's header keeps."""
        summary = {"error": self.error, "cause": self.cause, "executionStatus": self.status}
        return summary | ({"state": self.state} if self.state else {})

    def letter(self, id_field: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """The dead letter; `id_field` names what the execution was of, `request` is its input without texts."""
        return {
            id_field: self.turn_id,
            "executionArn": self.execution_arn,
            "failure": self.summary,
            **safe_input(request),
        }


def safe_input(request: Mapping[str, Any]) -> dict[str, Any]:
    """The `input` of a letter. Where its identifiers may not be written, `inputIsRedacted` says that the execution's
    own input, and not this one, can be started again.
    """
    safe = payloads().identified(request)
    return {"input": safe} if safe == request else {"input": safe, "inputIsRedacted": True}


def read_failure(client: Any, execution_arn: str, *, find_state: bool) -> ExecutionFailure | None:
    """The failure as it stands now; None if the execution runs (it was redriven) or has succeeded since.

    `find_state` looks up in which state it failed and what it has cost, for which its history must be read.
    """
    execution = client.describe_execution(executionArn=execution_arn)
    if execution["status"] not in UNSUCCESSFUL:
        return None
    history = failed_costs.read_history(client, execution_arn) if find_state else []
    return _failure(execution_arn, execution, history)


def unrecorded_end(client: Any, execution_arn: str, *, has_begun: bool) -> dict[str, Any] | None:
    """How the execution of a turn has ended whose header does not say so, as `ExecutionFailure.summary`; None while it
    runs, or while it may be too new to be found.

    It may have been recorded, or committed, since the header was read: the header has to be read again, and goes first.
    """
    try:
        execution = client.describe_execution(executionArn=execution_arn)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ExecutionDoesNotExist":
            raise
        return {"error": "ExecutionDoesNotExist", "cause": "its state machine was deleted"} if has_begun else None
    if execution["status"] == "RUNNING":
        return None
    if execution["status"] not in UNSUCCESSFUL:
        # Cannot be, since the commit is in the last state, unless the turn was erased behind it.
        cause = "its execution succeeded, and nothing of the turn is kept"
        return {"error": "TurnNotKept", "cause": cause, "executionStatus": execution["status"]}
    return _failure(execution_arn, execution, []).summary


def _failure(
    execution_arn: str, execution: Mapping[str, Any], history: Sequence[Mapping[str, Any]]
) -> ExecutionFailure:
    return ExecutionFailure(
        execution_arn=execution_arn,
        turn_id=execution["name"],
        request=json.loads(execution["input"]),
        status=execution["status"],
        error=execution.get("error") or execution["status"],
        cause=payloads().error(_message(execution.get("cause") or ""))[:_CAUSE_CHARACTERS],
        state=_failed_state(history),
        costs=failed_costs.of_history(history),
        stopped_at=milliseconds(execution["stopDate"]),
        redrive=execution.get("redriveCount", 0),
    )


def _failed_state(newest_first: Sequence[Mapping[str, Any]]) -> str | None:
    """The state that the newest failure happened in; the one entered last, if none failed (it was stopped)."""
    by_id = {event["id"]: event for event in newest_first}
    failures = (
        event
        for event in newest_first
        if event["type"].endswith(("Failed", "TimedOut")) and not event["type"].startswith(("Execution", "Map"))
    )
    event = next(failures, newest_first[0] if newest_first else None)
    while event and "stateEnteredEventDetails" not in event:
        event = by_id.get(event.get("previousEventId", 0))
    if event is None:
        event = next((entry for entry in newest_first if "stateEnteredEventDetails" in entry), None)
    return str(event["stateEnteredEventDetails"]["name"]) if event else None


def _message(cause: str) -> str:
    """The message in a Lambda function's error document, or the cause as it is."""
    try:
        document = json.loads(cause)
    except ValueError:
        return cause
    return str(document.get("errorMessage", cause)) if isinstance(document, dict) else cause
