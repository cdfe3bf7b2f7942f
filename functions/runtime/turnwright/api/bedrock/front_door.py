"""InvokeAgent's way through the runtime: check, start or join the turn, follow it, tell the caller.

A repeat of a request (the SDK retries 500, 504, 429 and read time-outs under one `amz-sdk-invocation-id`) has the
same turn id and joins the running turn, or is told how it ended. A caller that goes away does not stop its turn.
"""

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from botocore.exceptions import BotoCoreError, ClientError

from turnwright.agents.memory_configuration import MemoryConfiguration
from turnwright.agents.versions import load, resolve
from turnwright.api import event_stream
from turnwright.api.bedrock import wire_errors
from turnwright.api.bedrock.following import followed
from turnwright.api.bedrock.requests import Invocation, read_invocation
from turnwright.api.request_bodies import decoded_body
from turnwright.errors import InvalidRequest, NotFound, SessionBusy, StorageUnavailable
from turnwright.memory.session_ends import consolidations
from turnwright.memory.session_ends.session_ends import SessionEnds
from turnwright.sessions.attributes import check_session
from turnwright.sessions.sessions import Session
from turnwright.sessions.values import Header, TurnRequest
from turnwright.storage import keys
from turnwright.storage.clock import now_ms
from turnwright.storage.documents import STATE_BYTES, Documents, json_text
from turnwright.storage.keys import SessionId
from turnwright.storage.settings import Settings
from turnwright.storage.table import Table
from turnwright.tracing.log import logger
from turnwright.tracing.payloads import payloads

SESSION_ENDED = "Session is terminated as 'endSession' flag is set in request."
"""Bedrock's own words for a request that ends a session; such a request runs no turn."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer whose body comes in pieces."""

    status: int
    headers: Mapping[str, str]
    body: Iterable[bytes]


class FrontDoor:
    """Takes its adapters as functions, so that a request that breaks a rule needs none of them."""

    def __init__(
        self,
        table: Callable[[], Table],
        documents: Callable[[], Documents],
        stepfunctions: Callable[[], Any],
        settings: Callable[[], Settings],
    ) -> None:
        self._table = table
        self._documents = documents
        self._stepfunctions = stepfunctions
        self._settings = settings

    def invoke_agent(self, event: Mapping[str, Any], remaining_ms: Callable[[], int]) -> Answer:
        """An API Gateway proxy event -> the answer. `remaining_ms` is how long this function may still run."""
        request_id = event["requestContext"]["requestId"]
        try:
            invocation = _read(event)
            return self._admit(invocation, remaining_ms)
        except (InvalidRequest, NotFound, SessionBusy) as refusal:
            return _refused(wire_errors.of_exception(refusal, request_id))
        except Exception as error:  # the edge: whatever it was, the caller gets a typed error and the log the rest
            return self._failed(error, request_id)

    def _admit(self, invocation: Invocation, remaining_ms: Callable[[], int]) -> Answer:
        table = self._table()
        version = resolve(table, invocation.agent_id, invocation.agent_alias_id)
        memory = load(table, invocation.agent_id, version).memory
        session_id = invocation.session(memory.store)
        if invocation.end_session:
            self._end(table, session_id)
            return _streamed(invocation, [_chunk(SESSION_ENDED)])
        self._start_or_join(table, invocation, session_id, memory)
        return _streamed(invocation, self._follow(invocation, remaining_ms))

    def start_or_join(self, invocation: Invocation) -> Header | None:
        """Starts the turn; the header of one that was started before, as far as it has one.

        Raises InvalidRequest, NotFound and SessionBusy, and StorageUnavailable.
        """
        table = self._table()
        version = resolve(table, invocation.agent_id, invocation.agent_alias_id)
        memory = load(table, invocation.agent_id, version).memory
        return self._start_or_join(table, invocation, invocation.session(memory.store), memory)

    def _start_or_join(
        self, table: Table, invocation: Invocation, session_id: SessionId, memory: MemoryConfiguration
    ) -> Header | None:
        turn_id = invocation.turn_id
        logger().structure_logs(append=False, turnId=turn_id)
        header, session_item = table.get_many([keys.turn_header(turn_id), keys.session(session_id)])
        if header is None:
            now = now_ms()
            session = (Session.decode(session_item) if session_item else Session()).as_of(now)
            if session.held_by_another(turn_id, now):
                raise SessionBusy(f"session {invocation.session_id} runs turn {session.lease_owner}; wait for its end")
            kept = {} if session.idle(now, memory.idle_seconds) else session.current_attributes
            check_session(kept | invocation.body.get("sessionAttributes", {}))
            self._start(invocation)
            logger().info("turn started", agentId=invocation.agent_id)
            return None
        logger().info("turn joined", agentId=invocation.agent_id)
        return Header.decode(header)

    def _end(self, table: Table, session_id: SessionId) -> None:
        """Ends the session and starts its consolidation, if the sweep is not to be waited for, which starts it too."""
        segment = SessionEnds(table).end(session_id)
        if segment is None:
            return
        machine = self._settings().consolidation_state_machine_arn
        try:
            consolidations.start(self._stepfunctions(), machine, segment.consolidation)
        except (BotoCoreError, ClientError, StorageUnavailable):
            logger().exception("the consolidation was not started; the sweep does it", sessionId=session_id.session)

    def _start(self, invocation: Invocation) -> None:
        turn_id = invocation.turn_id
        # An execution's input is in the dead letter of its turn, and in the event that says that it failed.
        bound = STATE_BYTES if payloads().full else 0
        request = TurnRequest(
            turn_id=turn_id,
            agent_id=invocation.agent_id,
            agent_alias_id=invocation.agent_alias_id,
            session_id=invocation.session_id,
            memory_id=invocation.memory_id,
            caller=invocation.caller,
            trace=invocation.enable_trace,
            body=self._documents().stow(invocation.body, lambda digest: keys.turn_object(turn_id, digest), bound),
        )
        settings = self._settings()
        arguments = {
            "stateMachineArn": settings.state_machine_arn,
            "name": turn_id,
            "input": json_text(request.encode()),
        }
        if settings.trace_header:
            arguments["traceHeader"] = settings.trace_header
        try:
            self._stepfunctions().start_execution(**arguments)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ExecutionAlreadyExists":
                raise

    def _follow(self, invocation: Invocation, remaining_ms: Callable[[], int]) -> Iterator[bytes]:
        try:
            yield from followed(
                self._table(),
                self._documents(),
                self._stepfunctions(),
                self._settings().state_machine_arn,
                invocation,
                remaining_ms,
            )
        except Exception:  # the stream has begun: only a frame can tell the caller
            logger().exception("following a turn failed")
            yield event_stream.exception(
                "internalServerException",
                {"message": f"following turn {invocation.turn_id} failed; repeat the request to join it"},
            )

    def _failed(self, error: Exception, request_id: str) -> Answer:
        logger().exception("the request failed", requestId=request_id)
        return _refused(wire_errors.of_exception(error, request_id))


def _read(event: Mapping[str, Any]) -> Invocation:
    headers = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
    if "x-amz-source-arn" in headers:
        raise InvalidRequest("sourceArn", "is not a field that this runtime supports")
    identity = event["requestContext"].get("identity") or {}
    return read_invocation(
        event["pathParameters"],
        decoded_body(event.get("body"), bool(event.get("isBase64Encoded"))),
        invocation_id=headers.get("amz-sdk-invocation-id") or str(uuid4()),
        caller=identity.get("userArn") or "",
    )


def _streamed(invocation: Invocation, body: Iterable[bytes]) -> Answer:
    headers = {
        "Content-Type": event_stream.CONTENT_TYPE,
        "x-amzn-bedrock-agent-content-type": "application/json",
        "x-amz-bedrock-agent-session-id": invocation.session_id,
    }
    if not invocation.end_session:
        headers["x-turnwright-turn-id"] = invocation.turn_id
    if invocation.memory_id:
        headers["x-amz-bedrock-agent-memory-id"] = invocation.memory_id
    return Answer(200, headers, body)


def _refused(error: wire_errors.WireError) -> Answer:
    return Answer(error.status, error.headers, [error.body])


def _chunk(text: str) -> bytes:
    return event_stream.event("chunk", {"bytes": base64.b64encode(text.encode()).decode()})
