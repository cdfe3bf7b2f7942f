"""How a turn ends badly: recorded, its session freed, the turn dead-lettered with what is needed to repeat it."""

from collections.abc import Mapping
from dataclasses import replace
from enum import Enum
from typing import Any

from turnwright.agents.versions import load, newest, resolve
from turnwright.costs import prices
from turnwright.costs.receipts import of_header, receipt
from turnwright.errors import ActorErased, NotFound
from turnwright.sessions.journal import Journal
from turnwright.sessions.sessions import Sessions
from turnwright.sessions.turns import Turns
from turnwright.sessions.values import Header, Status, TurnRequest
from turnwright.storage import keys
from turnwright.storage.dead_letters import DeadLetters
from turnwright.storage.documents import Documents, json_text
from turnwright.storage.keys import SessionId
from turnwright.storage.table import Table
from turnwright.tracing.execution_failures import ExecutionFailure
from turnwright.tracing.log import logger
from turnwright.tracing.payloads import payloads
from turnwright.tracing.trace_events import Source
from turnwright.tracing.traces import Traces

_MOST_VERSIONS = 20
"""More than anybody publishes while one turn runs."""

_FIRST_STATE = "Load Memory"
"""The state that writes the header: a turn that was in a later one has had its header."""

_REFUSALS = ("ActorErased", "InvalidRequest", "SessionBusy", "TurnAlreadyEnded")
"""Not dead-lettered when the turn never began, since the caller was told; a redriven turn can meet them too."""


class Recorded(Enum):
    """What became of a turn whose execution failed."""

    DEAD_LETTERED = "dead-lettered"
    REFUSED = "refused"
    COMMITTED_BEFORE = "committed before"
    ERASED = "erased"
    RUNS_AGAIN = "runs again"


def record(table: Table, documents: Documents, letters: DeadLetters, failure: ExecutionFailure) -> Recorded:
    """Frees the turn's session, marks the turn FAILED and dead-letters it, unless it was refused.

    In this order, so that a caller who is told of the failure finds the session free. Each part may be repeated. A turn
    that is committed stays committed: its execution failed after that, and nothing is lost. One that runs again, since
    its execution was redriven, goes on. Of a turn that an erasure of its actor stopped, kept from beginning, or removed
    since, nothing is written anew.
    """
    header = Turns(table).read(failure.turn_id)
    began = header is not None and "memoryStore" in header.fields
    session_id = None if header and began else _release_claimed(table, failure)
    if failure.error == ActorErased.__name__:
        if header and began:
            Sessions(table).release(header.turn.session, failure.turn_id)
        return Recorded.REFUSED
    if header is None and failure.state not in (None, _FIRST_STATE):
        return Recorded.ERASED
    bill = _receipt(table, documents, failure) if began else None
    if header and began:
        is_failed = Turns(table).fail_begun(header.turn, failure.summary, failure.redrive, bill)
    else:
        is_failed = Turns(table).fail(failure.turn_id, failure.summary, session_id=session_id, receipt=bill)
    if not is_failed:
        return _why_not_failed(Turns(table).read(failure.turn_id))
    refused = failure.error in _REFUSALS and not began
    traces = Traces.of_turn(table, documents, header.turn) if header and began else Traces(_source(failure))
    traces.turn_failed(failure.summary, refused=refused)
    if header and bill:
        failed = replace(header, fields={**header.fields, "receipt": json_text(bill)}, status=Status.FAILED)
        logger().info("turn failed", turnId=failure.turn_id, receipt=of_header(failed))
    if refused:
        return Recorded.REFUSED
    request = failure.request if payloads().full else _without_texts(documents, failure.request)
    letters.send(failure.letter("turnId", request))
    return Recorded.DEAD_LETTERED


def _why_not_failed(header: Header | None) -> Recorded:
    if header is None:
        return Recorded.ERASED
    return Recorded.COMMITTED_BEFORE if header.status is Status.COMMITTED else Recorded.RUNS_AGAIN


def _source(failure: ExecutionFailure) -> Source:
    """Whose trace events those of a turn are that never began."""
    request = TurnRequest.decode(failure.request)
    return Source(request.session_id, request.agent_id, "", failure.turn_id, request.memory_id or "")


def _receipt(table: Table, documents: Documents, failure: ExecutionFailure) -> dict[str, Any]:
    """As far as it is known: what the journal says was paid for, and what the execution's history tells."""
    calls = Journal(table, documents, failure.turn_id).calls()
    return receipt(failure.costs.spent, calls, failure.costs.transitions, prices.current(), passed_over=None)


def _without_texts(documents: Documents, request: Mapping[str, Any]) -> dict[str, Any]:
    """The execution's input with what was asked in the bucket, as a turn takes it too."""
    turn_id, body = request["turnId"], documents.fetch(request["request"])
    return {**request, "request": documents.stow(body, lambda digest: keys.turn_object(turn_id, digest), bound=0)}


def _release_claimed(table: Table, failure: ExecutionFailure) -> SessionId | None:
    """Frees the session that a turn without a header has claimed, and returns it. It is in the memory store of the
    version that the alias named then, which may not be the one that it names now.

    Without a claim the session is returned that it would be now, None if the agent is not found.
    """
    request = TurnRequest.decode(failure.request)

    def session(version: str) -> SessionId:
        return request.session(load(table, request.agent_id, version).memory_store)

    try:
        current: SessionId | None = session(resolve(table, request.agent_id, request.agent_alias_id))
    except NotFound:
        current = None
    if current and Sessions(table).release(current, failure.turn_id):
        return current
    if failure.error not in _REFUSALS:  # a refused turn has claimed nothing, or given it back
        for other in dict.fromkeys(map(session, newest(table, request.agent_id, _MOST_VERSIONS))):
            if other != current and Sessions(table).release(other, failure.turn_id):
                return other
    return current
