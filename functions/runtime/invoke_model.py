"""Invoke Model: one step, answered from the journal if it is there, otherwise by the model and recorded."""

from typing import Any

from turnwright.agents import versions
from turnwright.costs.metering import Meter
from turnwright.costs.spending import INVOKE_MODEL, Spent, tools_spent, without_costs
from turnwright.errors import ModelError, ModelsExhausted
from turnwright.sessions.turns import Turns
from turnwright.sessions.values import Turn
from turnwright.storage.documents import documents
from turnwright.storage.table import table
from turnwright.tracing import metrics
from turnwright.tracing.handler_errors import with_safe_errors
from turnwright.tracing.log import logger_for
from turnwright.turn.invoke_model import Asked, take_step, tool_calls


@with_safe_errors
def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """`{"turn", "step", "model", "toolResults", "mayUseTools", "attempt", "redriveCount", "spent"}` -> `{"toolCalls",
    "spent"}`: the Map's items, and what the turn has cost up to now.
    """
    store, bucket = table(), documents()
    meter = Meter(store)
    turn = Turn.decode(event["turn"])
    log = logger_for(turn.log_fields, step=event["step"])
    if event["redriveCount"] > 0:
        Turns(store).resume(turn, event["redriveCount"])
    agent = versions.load(store, turn.agentId, turn.agentVersion)
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
    spent = spent.attempted(models=asked.attempt + step.repeats).plus(INVOKE_MODEL, meter.cost())
    return {"toolCalls": tool_calls(step, agent), "spent": spent.encode()}
