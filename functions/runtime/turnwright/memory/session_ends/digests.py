"""When the digest of a long session is brought up to date: while the turns that it misses are still in the window.

A commit counts turns and characters that no digest covers yet. Each time one of the counts passes half of what the
window of history holds, a consolidation of kind DIGEST is started behind the turn. It reads those turns and takes what
it has covered off the counts. One that could not be started, or failed, is made up for by the next.
"""

from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from turnwright.agents.definitions import Agent, HistoryWindow
from turnwright.errors import StorageUnavailable
from turnwright.memory.records.actors import Actors
from turnwright.memory.session_ends.consolidations import Kind, consolidation, start
from turnwright.sessions.sessions import Session, Sessions
from turnwright.sessions.values import Header
from turnwright.storage.keys import NO_ACTOR
from turnwright.storage.table import Table
from turnwright.tracing.log import logger


def wanted(session: Session, characters: int, window: HistoryWindow) -> bool:
    """Whether the last turn, of so many characters, has brought a count past a multiple of half the window."""
    turns = max(1, window.max_turns // 2)
    length = max(1, window.max_characters // 2)
    before = session.undigested_characters - characters
    return session.undigested_turns % turns == 0 or session.undigested_characters // length > before // length


def start_digest(table: Table, stepfunctions: Any, machine_arn: str, agent: Agent, header: Header) -> bool:
    """Starts the digest if the committed turn makes one due; True if it was started.

    A repeat starts the same execution, unless the session has gone on or was ended since: then it starts none. A fault
    of AWS costs the turn nothing, which is committed.
    """
    try:
        return _start_digest(table, stepfunctions, machine_arn, agent, header)
    except (BotoCoreError, ClientError, StorageUnavailable):
        logger().exception("a digest was not started", turnId=header.turn.turnId, toEvent=header.event_id)
        return False


def _start_digest(table: Table, stepfunctions: Any, machine_arn: str, agent: Agent, header: Header) -> bool:
    turn = header.turn
    session = Sessions(table).read(turn.session)
    if session is None or session.version != turn.sessionVersion + 1 or not session.undigested_turns:
        return False
    if not wanted(session, header.fields.get("characters", 0), agent.history):
        return False
    epoch = ""
    if turn.actor != NO_ACTOR:
        actor = Actors(table).read(turn.memoryStore, turn.actor)
        if actor is None or actor.erasing:
            return False
        epoch = actor.epoch
    work = consolidation(
        Kind.DIGEST,
        turn.session,
        session.digested_to,
        header.event_id,
        agent_id=turn.agentId,
        agent_version=turn.agentVersion,
        actor_epoch=epoch,
    )
    start(stepfunctions, machine_arn, work)
    return True
