"""Write Memory: commits the whole turn in one transaction and gives the session back."""

from typing import Any

from turnwright import agent_versions, clients
from turnwright.commit import commit
from turnwright.documents import documents
from turnwright.handler_errors import with_safe_errors
from turnwright.log import turn_logger
from turnwright.memory.digests import start_digest
from turnwright.settings import settings
from turnwright.table import table
from turnwright.turns import Turn, Turns


@with_safe_errors
def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """`{"turn", "step", "redriveCount"}` -> the execution's output `{"turnId", "status", "answer", "usage"}`."""
    store = table()
    turn = Turn.decode(event["turn"])
    if event["redriveCount"] > 0:
        Turns(store).resume(turn)
    agent = agent_versions.load(store, turn.agentId, turn.agentVersion)
    header = commit(store, documents(), turn, agent)
    if agent.memory.remembers:
        start_digest(store, clients.stepfunctions(), settings().consolidation_state_machine_arn, agent, header)
    turn_logger(turn, step=event["step"]).info("turn committed", usage=header.usage, **store.consumed.fields())
    return {
        "turnId": turn.turnId,
        "status": header.status,
        "answer": header.answer,
        "usage": header.usage,
    }
