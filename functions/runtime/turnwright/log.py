"""Structured logs: one JSON object a line, with the ids of the turn on each."""

from functools import cache
from typing import Any

from aws_lambda_powertools import Logger

from turnwright.memory.consolidation import Consolidation
from turnwright.turns import Turn


@cache
def logger() -> Logger:
    """The process's logger; POWERTOOLS_SERVICE_NAME and POWERTOOLS_LOG_LEVEL configure it."""
    return Logger()


def turn_logger(turn: Turn, **fields: Any) -> Logger:
    """The logger with the turn's ids, instead of those of the turn before."""
    log = logger()
    log.structure_logs(
        append=False,
        turnId=turn.turnId,
        sessionId=turn.sessionId,
        agentId=turn.agentId,
        agentVersion=turn.agentVersion,
        **fields,
    )
    return log


def consolidation_logger(consolidation: Consolidation, **fields: Any) -> Logger:
    """The logger with the consolidation's ids, instead of those of what was done before."""
    log = logger()
    log.structure_logs(
        append=False,
        consolidationId=consolidation.consolidationId,
        kind=consolidation.kind,
        sessionId=consolidation.sessionId,
        agentId=consolidation.agentId,
        agentVersion=consolidation.agentVersion,
        **fields,
    )
    return log
