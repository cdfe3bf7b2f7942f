"""A turn whose model has asked for tools, and a Lambda that says what the test has it say."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.unit import samples
from turnwright.agents.definitions import Agent, Tool
from turnwright.errors import ToolAttemptFailed
from turnwright.sessions.journal import Journal
from turnwright.sessions.values import Step, ToolResult
from turnwright.storage import keys
from turnwright.storage.dead_letters import DeadLetters
from turnwright.storage.documents import json_text
from turnwright.storage.table import Put, Table
from turnwright.turn.invoke_tool import Call, Gateway

BALANCE: Mapping[str, Any] = {"name": "get_account_balance", "input": {"account_id": "12345"}}
QUEUE_URL = "https://queue/tools"


@dataclass(frozen=True, slots=True)
class Raised:
    """The error document of a function that raised."""

    payload: bytes | Mapping[str, Any]

    def encode(self) -> bytes:
        return self.payload if isinstance(self.payload, bytes) else json.dumps(self.payload).encode()


class FakeLambda:
    """Answers each Invoke with the next of `answers`, or with what `answer` says: a response document, `Raised`, an
    exception, or a function that makes one of these.
    """

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.answer: Callable[[dict[str, Any]], Any] = lambda event: self.answers.pop(0)
        self.invoked: list[tuple[str, dict[str, Any]]] = []
        self.seconds: list[int] = []

    def client(self, timeout_seconds: int) -> "FakeLambda":
        self.seconds.append(timeout_seconds)
        return self

    def invoke(self, *, FunctionName: str, Payload: bytes) -> dict[str, Any]:  # noqa: N803
        event = json.loads(Payload)
        self.invoked.append((FunctionName, event))
        answer = self.answer(event)
        if callable(answer):
            answer = answer()
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, Raised):
            return {"StatusCode": 200, "FunctionError": "Unhandled", "Payload": BytesIO(answer.encode())}
        payload = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        return {"StatusCode": 200, "Payload": BytesIO(payload)}


def answered(text: str, *, state: str | None = None, **attributes: Any) -> dict[str, Any]:
    """Bedrock's response of a function."""
    response: dict[str, Any] = {"responseBody": {"TEXT": {"body": text}}}
    if state:
        response["responseState"] = state
    return {"response": {"functionResponse": response}, **attributes}


def raised(error_type: str, message: str = "because") -> Raised:
    return Raised({"errorType": error_type, "errorMessage": message})


def client_error(code: str, status: int, operation: str = "Invoke") -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": "because"}, "ResponseMetadata": {"HTTPStatusCode": status}}, operation
    )


@dataclass(slots=True)
class FakeQueue:
    """SQS: keeps the letters, or fails."""

    fault: Exception | None = None
    letters: list[dict[str, Any]] = field(default_factory=list)

    def send_message(self, *, QueueUrl: str, MessageBody: str) -> None:  # noqa: N803
        assert QueueUrl == QUEUE_URL
        if self.fault:
            raise self.fault
        self.letters.append(json.loads(MessageBody))


def with_policy(**configuration: Any) -> Agent:
    return samples.agent(actionGroupExecutionConfig=configuration)


def tool(agent: Agent | None = None, name: str = "get_account_balance") -> Tool:
    found = (agent or samples.agent()).tool(name)
    assert found is not None
    return found


class ToolTurn:
    """A turn whose model asks, in step 1, for `tool_uses`; their ids are t-0, t-1, ..."""

    def __init__(
        self,
        table: Table,
        agent: Agent | None = None,
        *tool_uses: Mapping[str, Any],
        turn_id: str = samples.turn().turnId,
        trace: bool = True,
        session: Mapping[str, str] | None = None,
        prompt: Mapping[str, str] | None = None,
        input_text: str = "My balance?",
    ) -> None:
        self.table = table
        self.documents = samples.documents()
        self.queue = FakeQueue()
        self.agent = agent or samples.agent()
        self.turn = samples.turn(turnId=turn_id, trace=trace)
        request = {"inputText": input_text, "promptSessionAttributes": prompt or {}}
        header = {
            "status": "RUNNING",
            "request": json_text({"inline": request}),
            "sessionAttributes": json_text(session or {}),
        }
        table.put(Put(keys.turn_header(turn_id), header))
        self.ask(1, *(tool_uses or [BALANCE]))

    def ask(self, step: int, *tool_uses: Mapping[str, Any], results: list[ToolResult] | None = None) -> None:
        content = [{"toolUse": {"toolUseId": f"t-{index}", **use}} for index, use in enumerate(tool_uses)]
        message = {"role": "assistant", "content": content}
        journal = Journal(self.table, self.documents, self.turn.turnId)
        journal.record(Step(step, results or [], message, "tool_use", samples.MODEL, {}, 5))

    def gateway(self, table: Table | None = None) -> Gateway:
        return Gateway(table or self.table, self.documents, self.turn, self.agent, DeadLetters(self.queue, QUEUE_URL))

    def attempt(
        self, number: int = 1, *, step: int = 1, index: int = 0, inline_bytes: int = 16_384, lost: bool = False
    ) -> dict[str, Any]:
        """The result of one attempt."""
        return dict(self.gateway().attempt(step, Call(f"t-{index}", index, inline_bytes), number, lost=lost))

    def failure(self, number: int = 1, **where: Any) -> dict[str, Any]:
        """The report of an attempt that fails."""
        with pytest.raises(ToolAttemptFailed) as failed:
            self.attempt(number, **where)
        report: dict[str, Any] = json.loads(str(failed.value))
        return report

    def traced(self) -> list[str]:
        """The texts of the traced tool outputs, by attempt."""
        partition = keys.turn_partition(self.turn.turnId)
        items = self.table.query(partition, keys.TRACE_PREFIX, keys.TRACE_PREFIX + "~")
        return [self.documents.fetch_text(item["event"])["result"] for item in items]
