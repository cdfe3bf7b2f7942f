"""Invoke Tool: one attempt of one tool call, through the gateway."""

import time
from typing import Any

from turnwright import agent_versions
from turnwright.documents import documents
from turnwright.errors import ToolAttemptFailed, TurnAlreadyEnded
from turnwright.gateway import Call, Gateway
from turnwright.journal import Journal
from turnwright.log import turn_logger
from turnwright.table import table
from turnwright.traces import Traces
from turnwright.turns import Turn, Turns


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """`{"turn", "step", "call", "attempt", "sleepMs", "redriveCount"}` -> a tool result (`journal.ToolResult`)."""
    store, bucket = table(), documents()
    turn, call = Turn.decode(event["turn"]), Call.decode(event["call"])
    log = turn_logger(turn, step=event["step"], toolUseId=call.toolUseId, attempt=event["attempt"])
    if event["redriveCount"] > 0:
        Turns(store).resume(turn)
    time.sleep(event["sleepMs"] / 1000)
    header = Turns(store).read(turn.turnId)
    if header is None:
        raise TurnAlreadyEnded(f"turn {turn.turnId} has no header; its items are gone")
    agent = agent_versions.load(store, turn.agentId, turn.agentVersion)
    gateway = Gateway(turn, header, agent, Journal(store, bucket, turn.turnId), bucket, Traces(store, bucket, turn))
    try:
        result = gateway.attempt(event["step"], call, event["attempt"])
    except ToolAttemptFailed as failure:
        log.warning("tool attempt failed", failure=str(failure), **store.consumed.fields())
        raise
    log.info("tool invoked", status=result["status"], **store.consumed.fields())
    return result
