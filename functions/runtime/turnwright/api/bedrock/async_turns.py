"""Turns for callers that cannot hold a stream: started, and looked at until they have ended.

Only who started a turn may look at it; to anyone else it is not there. Errors have Bedrock's names, as InvokeAgent's.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from botocore.exceptions import ClientError

from turnwright.api.bedrock import wire_errors
from turnwright.api.bedrock.front_door import FrontDoor
from turnwright.api.bedrock.requests import read_turn_request
from turnwright.api.request_bodies import decoded_body
from turnwright.costs.receipts import of_header
from turnwright.errors import InvalidRequest, NotFound, SessionBusy, TraceNotEnabled, TurnNotFound
from turnwright.sessions.sessions import LONGEST_TURN_SECONDS
from turnwright.sessions.turns import Turns
from turnwright.sessions.values import Header, Status, TurnRequest
from turnwright.storage import keys
from turnwright.storage.clock import now_ms
from turnwright.storage.documents import Documents, json_text
from turnwright.storage.table import Table
from turnwright.tracing.execution_failures import read_failure, unrecorded_end
from turnwright.tracing.log import logger

_TURN_ID = re.compile(r"[0-9a-f]{32}")

_LONGEST_TURN_MS = LONGEST_TURN_SECONDS * 1000
"""A turn that is younger is not asked for in Step Functions, whose API is throttled for the whole account: callers ask
again and again, and what ended sooner is found by Record Failure, or by the sweep.
"""

_PAGE_BYTES = 4 * 1024 * 1024
"""How much of a trace one answer holds: Lambda takes 6 MB."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer; `body` is JSON."""

    status: int
    body: str
    error: str | None = None


@dataclass(frozen=True, slots=True)
class _Seen:
    """A turn as its caller may see it. Without a header it was started a moment ago, or its beginning failed."""

    turn_id: str
    status: str
    trace: bool
    header: Header | None
    failure: Mapping[str, Any] | None


class AsyncTurns:
    """The turns of one table, and the state machine that runs them."""

    def __init__(self, table: Table, documents: Documents, stepfunctions: Any, machine_arn: str) -> None:
        self._table = table
        self._documents = documents
        self._stepfunctions = stepfunctions
        self._machine_arn = machine_arn

    def read(self, turn_id: str, caller: str) -> dict[str, Any]:
        """`{"turnId", "status", "answer"?, "receipt"?, "failure"?}`. Raises TurnNotFound."""
        seen = self._find(turn_id, caller)
        shown: dict[str, Any] = {"turnId": turn_id, "status": seen.status}
        if seen.failure:
            shown["failure"] = seen.failure
        if seen.header:
            if seen.header.status is Status.COMMITTED:
                shown["answer"] = self._documents.fetch(seen.header.answer)
            receipt = of_header(seen.header)
            if receipt:
                shown["receipt"] = receipt
        return shown

    def trace(self, turn_id: str, caller: str, token: str | None) -> dict[str, Any]:
        """`{"turnId", "status", "events", "nextToken"?}`: the events up to now, as `trace_event.schema.json` has them.

        Raises TurnNotFound, TraceNotEnabled, and InvalidRequest for a token that is none.
        """
        seen = self._find(turn_id, caller)
        if not seen.trace:
            raise TraceNotEnabled(f"turn {turn_id} was started without enableTrace, so its events were not kept")
        events: list[Any] = []
        size, last = 0, None
        partition, prefix = keys.turn_partition(turn_id), keys.TRACE_PREFIX
        for item in self._table.query(partition, prefix, prefix + keys.END, after=_read_token(token)):
            event = self._documents.fetch_text(item["event"])
            size += len(json_text(event).encode())
            if events and size > _PAGE_BYTES:
                return {**_page(seen, events), "nextToken": base64.urlsafe_b64encode(str(last).encode()).decode()}
            events.append(event)
            last = item["SK"]
        return _page(seen, events)

    def _find(self, turn_id: str, caller: str) -> _Seen:
        if not _TURN_ID.fullmatch(turn_id):
            raise TurnNotFound(f"there is no turn {turn_id}")
        header = Turns(self._table).read(turn_id)
        if header and "caller" in header.fields:
            if header.caller != caller:
                raise TurnNotFound(f"there is no turn {turn_id}")
            if header.status is Status.RUNNING and now_ms() - header.fields["startedAt"] > _LONGEST_TURN_MS:
                return self._overdue(header)
            return _as_told(header)
        return self._not_begun(turn_id, caller, header)

    def _overdue(self, header: Header) -> _Seen:
        """A turn that runs for longer than one may: its execution was redriven, or ended without the header having been
        told.
        """
        turn_id = header.turn.turnId
        failure = unrecorded_end(self._stepfunctions, self._execution_arn(turn_id), has_begun=True)
        newest = Turns(self._table).read(turn_id) or header
        if failure is None or newest.status is not Status.RUNNING:
            return _as_told(newest)
        logger().warning("the end of a turn was not recorded", turnId=turn_id, failure=failure)
        return _Seen(turn_id, Status.FAILED, header.turn.trace, newest, failure)

    def _execution_arn(self, turn_id: str) -> str:
        return f"{self._machine_arn.replace(':stateMachine:', ':execution:')}:{turn_id}"

    def _not_begun(self, turn_id: str, caller: str, header: Header | None) -> _Seen:
        """A turn whose header does not say whose it is: its execution does."""
        execution_arn = self._execution_arn(turn_id)
        try:
            execution = self._stepfunctions.describe_execution(executionArn=execution_arn)
        except ClientError as error:
            if error.response["Error"]["Code"] == "ExecutionDoesNotExist":
                raise TurnNotFound(f"there is no turn {turn_id}") from error
            raise
        request = TurnRequest.decode(json.loads(execution["input"]))
        if request.caller != caller:
            raise TurnNotFound(f"there is no turn {turn_id}")
        if header:
            return _Seen(turn_id, header.status, request.trace, None, header.failure)
        failed = read_failure(self._stepfunctions, execution_arn, find_state=False)
        status = Status.FAILED if failed else Status.RUNNING
        return _Seen(turn_id, status, request.trace, None, failed.summary if failed else None)


def _as_told(header: Header) -> _Seen:
    """A turn as its header tells it."""
    failure = header.failure if header.status is Status.FAILED else None
    return _Seen(header.turn.turnId, header.status, header.turn.trace, header, failure)


def start(door: FrontDoor, event: Mapping[str, Any]) -> dict[str, Any]:
    """Starts the turn that an API Gateway proxy event asks for, or finds the one that a repeat asks for again."""
    headers = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
    key = headers.get("idempotency-key") or headers.get("amz-sdk-invocation-id") or str(uuid4())
    body = decoded_body(event.get("body"), bool(event.get("isBase64Encoded")))
    invocation = read_turn_request(body, invocation_id=key, caller=caller_of(event))
    header = door.start_or_join(invocation)
    return {"turnId": invocation.turn_id, "status": header.status if header else Status.RUNNING}


def caller_of(event: Mapping[str, Any]) -> str:
    return (event["requestContext"].get("identity") or {}).get("userArn") or ""


def refused(error: Exception, request_id: str) -> Answer:
    """What a caller is told of an exception."""
    wire: wire_errors.WireError
    match error:
        case TraceNotEnabled():
            wire = wire_errors.WireError(409, "ConflictException", str(error))
        case InvalidRequest() | NotFound() | SessionBusy():
            wire = wire_errors.of_exception(error, request_id)
        case _:
            logger().exception("the request failed", requestId=request_id)
            wire = wire_errors.of_exception(error, request_id)
    return Answer(wire.status, wire.body.decode(), wire.name)


def _page(seen: _Seen, events: list[Any]) -> dict[str, Any]:
    return {"turnId": seen.turn_id, "status": seen.status, "events": events}


def _read_token(token: str | None) -> str | None:
    if not token:
        return None
    try:
        after = base64.urlsafe_b64decode(token.encode()).decode()
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest("nextToken", "is not a token of this operation") from error
    if not after.startswith(keys.TRACE_PREFIX):
        raise InvalidRequest("nextToken", "is not a token of this operation")
    return after
