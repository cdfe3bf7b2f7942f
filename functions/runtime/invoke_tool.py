"""Invoke Tool: one attempt of a tool call, through the gateway; and Look Up Tool Result, after a lost gateway."""

import json
import time
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from turnwright.agents import versions
from turnwright.costs.metering import Meter
from turnwright.errors import GatewayFault, StorageUnavailable, ToolAttemptFailed
from turnwright.sessions.turns import Turns
from turnwright.sessions.values import ToolResult, Turn
from turnwright.storage.dead_letters import tool_dead_letters
from turnwright.storage.documents import documents, json_text
from turnwright.storage.table import table
from turnwright.tracing.handler_errors import with_safe_errors
from turnwright.tracing.log import logger_for
from turnwright.turn.invoke_tool import Call, Gateway


@with_safe_errors
def handler(event: dict[str, Any], context: object) -> ToolResult:
    """`{"turn", "step", "call", "attempt", "sleepMs", "lost", "redriveCount"}` -> a tool result (`journal.ToolResult`)
    with the invocation's `cost`, which the message of ToolAttemptFailed has too.

    Raises GatewayFault when an AWS service that the gateway itself needs fails: the state machine then looks up whether
    a result was recorded, and does not call the tool again. But for StorageUnavailable before any tool was invoked,
    with which it invokes the gateway again.
    """
    store, bucket = table(), documents()
    meter = Meter(store)
    turn, call = Turn.decode(event["turn"]), Call.decode(event["call"])
    log = logger_for(turn.log_fields, toolUseId=call.toolUseId, sleptMs=event["sleepMs"])
    time.sleep(event["sleepMs"] / 1000)
    started = time.monotonic()
    gateway: Gateway | None = None
    try:
        if event["redriveCount"] > 0:
            Turns(store).resume(turn, event["redriveCount"])
        agent = versions.load(store, turn.agentId, turn.agentVersion)
        gateway = Gateway(store, bucket, turn, agent, tool_dead_letters())
        result = gateway.attempt(event["step"], call, event["attempt"], lost=event["lost"])
    except ToolAttemptFailed as failure:
        log.info("tool attempt failed", **_cost(started), **store.consumed.fields())
        report = json.loads(str(failure))
        raise ToolAttemptFailed(json_text({**report, "cost": meter.cost().encode()})) from failure
    except StorageUnavailable as error:
        if gateway is None or not gateway.invoked:
            raise
        raise GatewayFault(str(error)) from error
    except (BotoCoreError, ClientError) as error:
        raise GatewayFault(str(error)) from error
    log.info("tool invoked", **_cost(started), **store.consumed.fields())
    return {**result, "cost": meter.cost().encode()}


def _cost(started: float) -> dict[str, Any]:
    return {"durationMs": round((time.monotonic() - started) * 1000)}
