"""The handlers of a turn's states as the state machine calls them, and a model that says what the test has it say."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

import invoke_model
import invoke_tool
import load_memory
import write_memory
from local.bedrock.request_rules import check_request
from tests.unit.stored_turns import A, StoredTurns
from turnwright.sessions.values import ToolResult

EXECUTION = f"arn:aws:states:us-east-1:123456789012:execution:turns:{A}"

USE = "tooluse_a2b72e5f1181f92f16609d"
"""The id of the first call of A's first step, whatever the model calls it. Turns that are running know it by this."""


@dataclass(slots=True)
class Model:
    """Bedrock's runtime: answers with the replies in turn, each a message or an error code, what Bedrock would take."""

    replies: list[dict[str, Any] | str]
    asked: list[dict[str, Any]] = field(default_factory=list)

    def converse_stream(self, **arguments: Any) -> dict[str, Any]:
        self.asked.append(arguments)
        check_request(arguments["modelId"], {name: value for name, value in arguments.items() if name != "modelId"})
        return {"stream": self._events(self._reply())}

    def converse(self, **arguments: Any) -> dict[str, Any]:
        self.asked.append(arguments)
        message = self._reply()
        usage = {"inputTokens": 10, "outputTokens": 2, "totalTokens": 12}
        return {"output": {"message": message}, "stopReason": message.get("stopReason", "end_turn"), "usage": usage}

    def _reply(self) -> dict[str, Any]:
        reply = self.replies.pop(0)
        if isinstance(reply, str):
            raise ClientError({"Error": {"Code": reply, "Message": "no"}}, "ConverseStream")
        return reply

    def _events(self, message: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for index, block in enumerate(message["content"]):
            if "toolUse" in block:
                use = {name: block["toolUse"][name] for name in ("toolUseId", "name")}
                yield {"contentBlockStart": {"contentBlockIndex": index, "start": {"toolUse": use}}}
                if block["toolUse"]["input"]:
                    piece = json.dumps(block["toolUse"]["input"])
                    yield {"contentBlockDelta": {"contentBlockIndex": index, "delta": {"toolUse": {"input": piece}}}}
            elif "reasoningContent" in block:
                for name, piece in block["reasoningContent"]["reasoningText"].items():
                    yield {
                        "contentBlockDelta": {"contentBlockIndex": index, "delta": {"reasoningContent": {name: piece}}}
                    }
            else:
                yield {"contentBlockDelta": {"contentBlockIndex": index, "delta": {"text": block["text"]}}}
        yield {"messageStop": {"stopReason": message.get("stopReason", "end_turn")}}
        yield {"metadata": {"usage": {"inputTokens": 10, "outputTokens": 2, "totalTokens": 12}}}


def load(stored: StoredTurns, turn_id: str = A, *, redrives: int = 0, **request: Any) -> dict[str, Any]:
    """Load Memory."""
    event = {
        "request": stored.request(turn_id, **request).encode(),
        "execution": EXECUTION,
        "redriveCount": redrives,
    }
    return load_memory.handler(event, None)


def invoke(
    turn: dict[str, Any],
    step: int = 1,
    *results: dict[str, Any],
    model: int = 0,
    redrives: int = 0,
    **fields: Any,
) -> list[dict[str, Any]]:
    """Invoke Model."""
    answered = invoke_model.handler(
        {
            "turn": turn,
            "step": step,
            "model": model,
            "toolResults": list(results),
            "mayUseTools": True,
            "redriveCount": redrives,
            **fields,
        },
        None,
    )
    assert answered.keys() == {"toolCalls", "spent"}
    calls: list[dict[str, Any]] = answered["toolCalls"]
    return calls


def run_tool(
    turn: dict[str, Any],
    call: dict[str, Any],
    attempt: int = 1,
    *,
    step: int = 1,
    sleep_ms: int = 0,
    lost: bool = False,
    redrives: int = 0,
) -> ToolResult:
    """Invoke Tool, without what it cost; `lost` is Look Up Tool Result."""
    answered = invoke_tool.handler(
        {
            "turn": turn,
            "step": step,
            "call": call,
            "attempt": attempt,
            "sleepMs": sleep_ms,
            "lost": lost,
            "redriveCount": redrives,
        },
        None,
    )
    assert answered["cost"]["invocations"] == 1
    return {name: value for name, value in answered.items() if name != "cost"}


def write(turn: dict[str, Any], step: int = 1, *, redrives: int = 0, **fields: Any) -> dict[str, Any]:
    """Write Memory."""
    return write_memory.handler({"turn": turn, "step": step, "redriveCount": redrives, **fields}, None)
