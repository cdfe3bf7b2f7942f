"""How a turn ends badly: recorded, its session freed, the turn dead-lettered with what is needed to repeat it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from turnwright import failed_costs, keys, prices
from turnwright.agent_versions import load, resolve
from turnwright.documents import Documents, json_text
from turnwright.errors import ActorErased, NotFound
from turnwright.failed_costs import FailedCosts
from turnwright.journal import Journal
from turnwright.keys import SessionId
from turnwright.log import logger
from turnwright.receipts import of_header, receipt
from turnwright.requests import TurnRequest
from turnwright.sessions import Sessions
from turnwright.settings import settings
from turnwright.table import Table
from turnwright.trace_events import Source
from turnwright.traces import Traces
from turnwright.turns import Status, Turns

_UNSUCCESSFUL = ("FAILED", "TIMED_OUT", "ABORTED")

_REFUSALS = ("ActorErased", "InvalidRequest", "SessionBusy", "TurnAlreadyEnded")
"""Not dead-lettered when the turn never began, since the caller was told; a redriven turn can meet them too."""

_CAUSE_CHARACTERS = 4_000


class Recorded(Enum):
    """What became of a turn whose execution failed."""

    DEAD_LETTERED = "dead-lettered"
    REFUSED = "refused"
    COMMITTED_BEFORE = "committed before"


@dataclass(frozen=True, slots=True)
class ExecutionFailure:
    """An execution that did not succeed, as Step Functions describes it."""

    execution_arn: str
    turn_id: str
    request: Mapping[str, Any]
    status: str
    error: str
    cause: str
    state: str | None
    costs: FailedCosts = field(default_factory=FailedCosts)

    @property
    def source(self) -> Source:
        """Whose trace events those of a turn are that never began."""
        request = TurnRequest.decode(self.request)
        return Source(request.session_id, request.agent_id, "", self.turn_id, request.memory_id or "")

    @property
    def summary(self) -> dict[str, Any]:
        """What the turn's header keeps."""
        summary = {"error": self.error, "cause": self.cause, "executionStatus": self.status}
        return summary | ({"state": self.state} if self.state else {})


def read_failure(client: Any, execution_arn: str, *, find_state: bool) -> ExecutionFailure | None:
    """The failure as it stands now; None if the execution runs (it was redriven) or has succeeded since.

    `find_state` looks up in which state it failed and what it has cost, for which its history must be read.
    """
    execution = client.describe_execution(executionArn=execution_arn)
    if execution["status"] not in _UNSUCCESSFUL:
        return None
    history = failed_costs.read_history(client, execution_arn) if find_state else []
    return ExecutionFailure(
        execution_arn=execution_arn,
        turn_id=execution["name"],
        request=json.loads(execution["input"]),
        status=execution["status"],
        error=execution.get("error") or execution["status"],
        cause=settings().payloads.error(_message(execution.get("cause") or ""))[:_CAUSE_CHARACTERS],
        state=_failed_state(history),
        costs=failed_costs.of_history(history),
    )


def record(table: Table, documents: Documents, queue: Any, queue_url: str, failure: ExecutionFailure) -> Recorded:
    """Frees the turn's session, marks the turn FAILED and dead-letters it, unless it was refused.

    In this order, so that a caller who is told of the failure finds the session free. Each part may be repeated. A turn
    that is committed stays committed: its execution failed after that, and nothing is lost. Of a turn that an erasure
    of its actor stopped, or kept from beginning, nothing is written anew.
    """
    header = Turns(table).read(failure.turn_id)
    began = header is not None and "memoryStore" in header.fields
    session_id = header.turn.session if header and began else _session(table, failure)
    if session_id:
        Sessions(table).release(session_id, failure.turn_id)
    if failure.error == ActorErased.__name__:
        return Recorded.REFUSED
    bill = _receipt(table, documents, failure) if began else None
    if not Turns(table).fail(failure.turn_id, failure.summary, session_id=session_id, receipt=bill):
        return Recorded.COMMITTED_BEFORE
    refused = failure.error in _REFUSALS and not began
    traces = Traces(table, documents, header.turn) if header and began else Traces.logged(failure.source)
    traces.turn_failed(failure.summary, refused=refused)
    if header and bill:
        failed = replace(header, fields={**header.fields, "receipt": json_text(bill)}, status=Status.FAILED)
        logger().info("turn failed", turnId=failure.turn_id, receipt=of_header(failed))
    if refused:
        return Recorded.REFUSED
    letter = {
        "turnId": failure.turn_id,
        "executionArn": failure.execution_arn,
        "failure": failure.summary,
        "input": failure.request if settings().payloads.full else _without_texts(documents, failure.request),
    }
    queue.send_message(QueueUrl=queue_url, MessageBody=json_text(letter))
    return Recorded.DEAD_LETTERED


def _receipt(table: Table, documents: Documents, failure: ExecutionFailure) -> dict[str, Any]:
    """As far as it is known: what the journal says was paid for, and what the execution's history tells."""
    calls = Journal(table, documents, failure.turn_id).calls()
    return receipt(failure.costs.spent, calls, failure.costs.transitions, prices.current())


def _without_texts(documents: Documents, request: Mapping[str, Any]) -> dict[str, Any]:
    """The execution's input with what was asked in the bucket, as a turn takes it too."""
    turn_id, body = request["turnId"], documents.fetch(request["request"])
    return {**request, "request": documents.stow(body, lambda digest: keys.turn_object(turn_id, digest), bound=0)}


def _session(table: Table, failure: ExecutionFailure) -> SessionId | None:
    """The session of a turn without a header; None if it cannot have claimed one, since its agent was never found."""
    request = TurnRequest.decode(failure.request)
    try:
        version = resolve(table, request.agent_id, request.agent_alias_id)
    except NotFound:
        return None
    return request.session(load(table, request.agent_id, version).memory_store)


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
