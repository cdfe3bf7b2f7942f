"""Runs a turn against the stack as a caller does, and looks at what it did."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from botocore.exceptions import EventStreamError

from local.commands.executions import Execution, read_execution
from tests.project import TEST_AGENT
from tests.stacks import Stack


@dataclass(slots=True)
class Told:
    """What the caller was told: the answer, the traces as (kind, body), and the exception frame, if there was one.

    The body of what memory did is its event.
    """

    turn_id: str = ""
    answer: str = ""
    traces: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    error: str | None = None
    message: str = ""
    receipt: dict[str, Any] = field(default_factory=dict)

    def take(self, trace: Mapping[str, Any]) -> None:
        custom = json.loads(trace.get("customOrchestrationTrace", {"event": {"text": "{}"}})["event"]["text"])
        if custom.get("type") == "RECEIPT":
            self.receipt = custom
        elif custom:
            told_as = trace["customOrchestrationTrace"]["traceId"]
            self.traces.append(("customOrchestrationTrace", {**custom, "traceId": told_as}))
        elif "failureTrace" in trace:
            self.traces.append(("failureTrace", trace["failureTrace"]))
        else:
            self.traces += trace.get("orchestrationTrace", {}).items()

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [body for name, body in self.traces if name == kind]


def new_session() -> str:
    return f"session-{uuid4().hex[:12]}"


def ask(client: Any, text: str, session: str | None = None, **request: Any) -> Told:
    """One turn of the test agent, with its trace."""
    told = Told()
    response = client.invoke_agent(
        **{
            "agentId": TEST_AGENT,
            "agentAliasId": "live",
            "sessionId": session or new_session(),
            "inputText": text,
            "enableTrace": True,
            **request,
        }
    )
    told.turn_id = response["ResponseMetadata"]["HTTPHeaders"].get("x-turnwright-turn-id", "")  # none where none runs
    try:
        for event in response["completion"]:
            if "chunk" in event:
                told.answer += event["chunk"]["bytes"].decode()
            else:
                told.take(event["trace"]["trace"])
    except EventStreamError as error:
        told.error = error.response["Error"]["Code"]
        told.message = error.response["Error"]["Message"]
    return told


def execution_of(stack: Stack, told: Told) -> Execution:
    return read_execution(stack.client("stepfunctions"), stack.execution_arn(told.turn_id))


def says(text: str, /, **when: Any) -> dict[str, Any]:
    """A reply of the scripted model."""
    return {"when": when, "reply": {"text": text}}


def calls(*tools: tuple[str, Mapping[str, Any]], **when: Any) -> dict[str, Any]:
    """A reply of the scripted model that asks for tools."""
    uses = [{"name": name, "input": dict(arguments)} for name, arguments in tools]
    return {"when": when, "reply": {"toolUse": uses}}


def fails(kind: str, status: int, **rule: Any) -> dict[str, Any]:
    """An error of the scripted model; `times` bounds it."""
    return {**rule, "error": {"status": status, "type": kind, "message": "scripted"}}
