"""Load Memory: claims the session, pins the agent version and the history window, writes the turn's header."""

from typing import Any

from turnwright import agent_versions
from turnwright.beginning import begin
from turnwright.costs import LOAD_MEMORY, Spent
from turnwright.documents import documents
from turnwright.handler_errors import with_safe_errors
from turnwright.log import turn_logger
from turnwright.metering import Meter
from turnwright.requests import TurnRequest
from turnwright.table import table


@with_safe_errors
def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """`{"request": the execution's input, "execution": ARN, "redriveCount", "retryCount", "definitionVersion"}` ->
    `{"turn", "limits", "spent"}`, all short.
    """
    store = table()
    meter = Meter(store)
    request = TurnRequest.decode(event["request"])
    version = agent_versions.resolve(store, request.agent_id, request.agent_alias_id)
    agent = agent_versions.load(store, request.agent_id, version)
    turn = begin(
        store,
        documents(),
        agent,
        request,
        event["execution"],
        redriven=event["redriveCount"] > 0,
        definition_version=event.get("definitionVersion", ""),
    )
    if turn.agentVersion != agent.version:
        agent = agent_versions.load(store, turn.agentId, turn.agentVersion)
    retries = event.get("retryCount", 0)
    spent = Spent().plus(LOAD_MEMORY, meter.cost()).missing(LOAD_MEMORY, retries, retries=retries)
    turn_logger(turn).info(
        "turn begun", historyFrom=turn.historyFrom, historyTo=turn.historyTo, **store.consumed.fields()
    )
    return {
        "turn": turn.encode(),
        "limits": {
            "maxSteps": agent.limits.max_steps,
            "maxParallelTools": agent.limits.max_parallel_tools,
            "modelTimeoutSeconds": agent.limits.model_timeout_seconds,
        },
        "spent": spent.encode(),
    }
