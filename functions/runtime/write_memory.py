"""Write Memory: commits the whole turn in one transaction and gives the session back."""

from typing import Any

from turnwright.agents import versions
from turnwright.agents.definitions import Agent
from turnwright.costs.metering import Meter
from turnwright.costs.receipts import of_header
from turnwright.costs.spending import WRITE_MEMORY, Spent
from turnwright.memory.session_ends.digests import start_digest
from turnwright.sessions.turns import Turns
from turnwright.sessions.values import Turn
from turnwright.storage import clients
from turnwright.storage.documents import documents
from turnwright.storage.settings import settings
from turnwright.storage.table import table
from turnwright.tracing import metrics
from turnwright.tracing.handler_errors import with_safe_errors
from turnwright.tracing.log import logger_for
from turnwright.turn.write_memory import Bill, commit, passed_over


@with_safe_errors
def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """`{"turn", "step", "redriveCount", "retryCount", "spent", "passedOver", "entered"}` -> the execution's output
    `{"turnId", "status", "answer", "usage"}`.
    """
    store = table()
    meter = Meter(store)
    turn = Turn.decode(event["turn"])
    if event["redriveCount"] > 0:
        Turns(store).resume(turn, event["redriveCount"])
    agent = versions.load(store, turn.agentId, turn.agentVersion)
    header = commit(store, documents(), turn, agent, _bill(event, agent, meter))
    log = logger_for(turn.log_fields, step=event["step"])
    log.info("turn committed", receipt=of_header(header), **store.consumed.fields())
    if header.receipt and store.consumed.item_writes:  # not for a repeat that found the turn committed
        latency_ms = header.fields["endedAt"] - header.fields["startedAt"]
        metrics.turn_committed(turn.agentId, latency_ms, header.receipt)
    if agent.memory.remembers:
        upkeep = table()
        start_digest(upkeep, clients.stepfunctions(), settings().consolidation_state_machine_arn, agent, header)
        log.info("digest considered", **upkeep.consumed.fields())
    return {"turnId": turn.turnId, "status": header.status, "answer": header.answer, "usage": header.usage}


def _bill(event: dict[str, Any], agent: Agent, meter: Meter) -> Bill:
    retries = event.get("retryCount", 0)
    incomplete = []
    if "spent" not in event:
        incomplete.append("the execution began under a definition that did not count")
    if event["redriveCount"] > 0:
        incomplete.append("what failed before the execution was redriven")
    if agent.memory.remembers and agent.memory.embedding_model:
        incomplete.append("embeddings")
    spent = Spent.decode(event.get("spent")).missing(WRITE_MEMORY, retries, retries=retries)
    return Bill(
        spent, event.get("entered", 0), meter, tuple(incomplete), passed_over(event.get("passedOver", ""), agent)
    )
