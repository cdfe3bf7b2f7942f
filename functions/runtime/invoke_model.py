"""Invoke Model: one step, answered from the journal if it is there, otherwise by the model and recorded."""

from typing import Any

from turnwright import agent_versions, metrics
from turnwright.costs import INVOKE_MODEL, Spent, tools_spent, without_costs
from turnwright.documents import documents
from turnwright.errors import ModelError, ModelsExhausted
from turnwright.handler_errors import with_safe_errors
from turnwright.log import turn_logger
from turnwright.metering import Meter
from turnwright.step import Asked, take_step, tool_calls
from turnwright.table import table
from turnwright.turns import Turn, Turns


@with_safe_errors
def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """`{"turn", "step", "model", "toolResults", "mayUseTools", "attempt", "redriveCount", "spent"}` -> `{"toolCalls",
    "spent"}`: the Map's items, and what the turn has cost up to now.
    """
    store, bucket = table(), documents()
    meter = Meter(store)
    turn = Turn.decode(event["turn"])
    log = turn_logger(turn, step=event["step"])
    if event["redriveCount"] > 0:
        Turns(store).resume(turn)
    agent = agent_versions.load(store, turn.agentId, turn.agentVersion)
    asked = Asked(
        event["step"],
        event["model"],
        without_costs(event["toolResults"]),
        event["mayUseTools"],
        event.get("attempt", 1),  # an execution that began before it was told has a definition that does not send it
        event["redriveCount"],
    )
    try:
        step = take_step(store, bucket, turn, agent, asked)
    except (ModelError, ModelsExhausted) as failure:
        metrics.model_failed(turn.agentId, type(failure).__name__)
        raise
    log.info(
        "model invoked",
        model=step.model,
        stopReason=step.stop_reason,
        usage=step.usage,
        latencyMs=step.latency_ms,
        **store.consumed.fields(),
    )
    metrics.model_answered(turn.agentId, step.latency_ms)
    spent = tools_spent(Spent.decode(event.get("spent")), event["toolResults"])
    spent = spent.missing(INVOKE_MODEL, asked.attempt - 1, retries=asked.attempt - 1 - asked.model)
    spent = spent.attempted(models=asked.attempt).plus(INVOKE_MODEL, meter.cost())
    return {"toolCalls": tool_calls(step, agent), "spent": spent.encode()}
