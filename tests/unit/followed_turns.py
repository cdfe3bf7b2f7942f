"""A turn in a table as its states leave it, for tests of those who look at it from outside."""

import json
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from tests.unit import samples
from tests.unit.stored_turns import STOP_DATE
from turnwright.storage import keys
from turnwright.storage.clock import now_ms
from turnwright.storage.documents import Documents
from turnwright.storage.table import Put, Table
from turnwright.tracing.trace_events import ToolCall
from turnwright.tracing.traces import Traces

STATE_MACHINE = "arn:aws:states:us-east-1:123456789012:stateMachine:AgentTurn"


def client_error(code: str, operation: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "because"}}, operation)


@dataclass
class FakeStepFunctions:
    """Keeps what it is asked to start. `refusal` is raised by either call; executions are described by `execution`."""

    execution: dict[str, Any] | None = None
    refusal: Exception | None = None
    started: list[dict[str, Any]] = field(default_factory=list)
    described: list[str] = field(default_factory=list)

    def start_execution(self, **arguments: Any) -> dict[str, Any]:
        self.started.append(arguments)
        if self.refusal:
            raise self.refusal
        return {"executionArn": f"arn:aws:states:us-east-1:123456789012:execution:AgentTurn:{arguments['name']}"}

    def describe_execution(self, *, executionArn: str) -> dict[str, Any]:  # noqa: N803
        self.described.append(executionArn)
        if self.refusal:
            raise self.refusal
        if self.execution is None:
            raise client_error("ExecutionDoesNotExist", "DescribeExecution")
        return {"input": "{}", "stopDate": STOP_DATE, "name": executionArn.rpartition(":")[2], **self.execution}


class StoredTurn:
    """One turn's header and trace events, written as its states do."""

    def __init__(self, table: Table, documents: Documents, turn_id: str) -> None:
        self.turn = samples.turn(turnId=turn_id)
        self._table = table
        self._documents = documents
        self.traces = Traces.of_turn(table, documents, self.turn)

    def _header(self, status: str, **fields: Any) -> None:
        key = keys.turn_header(self.turn.turnId)
        self._table.put(Put(key, {**self.turn.encode(), "status": status, **fields}))

    def run(self) -> None:
        self._header("RUNNING")

    def commit(self, answer: str) -> None:
        key = keys.turn_object(self.turn.turnId, "answer")
        self._header("COMMITTED", answer=json.dumps(self._documents.stow(answer, lambda digest: key, 1_000)))

    def answer(self, text: str) -> None:
        """Commits with the last trace event that a commit writes."""
        self.told(3, text)
        self.commit(text)

    def told(self, step: int, text: str) -> None:
        self.traces.final_response(step, "Hi", text, {}, now_ms(), "end_turn")

    def tool(self, step: int, index: int, text: str) -> None:
        """The first attempt of a tool call."""
        self.traces.tool_attempted(step, ToolCall("search", "t-1", index, "{}"), 1, text, now_ms())

    def fail(self, error: str, cause: str = "", state: str = "Invoke Model") -> None:
        self._header("FAILED", failure=json.dumps({"error": error, "cause": cause, "state": state}))
