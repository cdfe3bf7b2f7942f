"""The dead letter of a tool call that was given up: everything that is needed to look into it and to repeat it."""

from collections.abc import Mapping
from typing import Any

from turnwright.agents.definitions import Tool
from turnwright.sessions.values import Turn
from turnwright.storage import keys
from turnwright.storage.clock import iso8601, now_ms
from turnwright.storage.dead_letters import DeadLetters
from turnwright.storage.documents import ITEM_BYTES, Documents
from turnwright.tracing.payloads import payloads

CORRECTABLE = frozenset({"FAILURE", "INVALID_ARGUMENTS", "UNKNOWN_TOOL", "TOO_MANY_CALLS", "REPROMPT"})
"""The tool answered, or was not asked: given back to the model, which may ask for something else."""


def send(
    letters: DeadLetters,
    documents: Documents,
    turn: Turn,
    tool: Tool,
    step: int,
    event: Mapping[str, Any],
    report: Mapping[str, Any],
    tool_use_id: str,
) -> None:
    """Sends the letter. To repeat the call, invoke `functionArn` with `event`, whose idempotencyKey is the same.

    The event is what the tool got; unless TracePayloads is FULL it is in the bucket alone. The letter may come twice,
    with the same idempotencyKey, when the gateway is repeated.
    """
    level = payloads()
    letter = {
        "turnId": turn.turnId,
        "sessionId": turn.sessionId,
        "agentId": turn.agentId,
        "agentVersion": turn.agentVersion,
        "step": step,
        "toolUseId": tool_use_id,
        "toolName": tool.name,
        "actionGroup": tool.action_group,
        "functionArn": tool.function_arn,
        "attempts": report["attempts"],
        "errorCode": report["errorCode"],
        "errorMessage": report["errorMessage"],
        "idempotencyKey": event["idempotencyKey"],
        "failedAt": iso8601(now_ms()),
        "event": documents.stow(
            event, lambda digest: keys.turn_object(turn.turnId, digest), ITEM_BYTES if level.full else 0
        ),
    }
    letters.send(level.identified(letter))
