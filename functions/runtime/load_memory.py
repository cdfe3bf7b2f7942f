"""Load Memory: claims the session, pins the agent version and the history window, writes the turn's header."""

from typing import Any

from turnwright.agents import versions
from turnwright.costs.metering import Meter
from turnwright.costs.spending import LOAD_MEMORY, Spent
from turnwright.sessions.values import TurnRequest
from turnwright.storage.documents import documents
from turnwright.storage.table import table
from turnwright.tracing.handler_errors import with_safe_errors
from turnwright.tracing.log import logger_for
from turnwright.turn.load_memory import begin


@with_safe_errors
def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """`{"request": the execution's input, "execution": ARN, "redriveCount", "retryCount", "definitionVersion"}` ->
    `{"turn", "limits", "spent"}`, all short.
    """
    store = table()
    meter = Meter(store)
    request = TurnRequest.decode(event["request"])
    version = versions.resolve(store, request.agent_id, request.agent_alias_id)
    agent = versions.load(store, request.agent_id, version)
    turn = begin(
        store,
        documents(),
        agent,
        request,
        event["execution"],
        redrive=event["redriveCount"],
        definition_version=event.get("definitionVersion", ""),
    )
    if turn.agentVersion != agent.version:
        agent = versions.load(store, turn.agentId, turn.agentVersion)
    retries = event.get("retryCount", 0)
    spent = Spent().plus(LOAD_MEMORY, meter.cost()).missing(LOAD_MEMORY, retries, retries=retries)
    logger_for(turn.log_fields).info(
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
