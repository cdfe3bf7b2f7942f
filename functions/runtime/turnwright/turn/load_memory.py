"""How a turn begins: its session is claimed, and what it works with is pinned for all its steps."""

from collections.abc import Sequence
from dataclasses import replace

from turnwright.agents.definitions import Agent
from turnwright.errors import ActorErased, InvalidRequest, SessionBusy, TurnAlreadyEnded, TurnwrightError
from turnwright.memory import injection
from turnwright.memory.records.actors import Actors
from turnwright.memory.session_ends.session_ends import SessionEnds
from turnwright.sessions.attributes import check_session
from turnwright.sessions.history import History, Window
from turnwright.sessions.sessions import Session, Sessions
from turnwright.sessions.turns import Beginning, Turns
from turnwright.sessions.values import Status, Turn, TurnRequest
from turnwright.storage import keys
from turnwright.storage.clock import now_ms
from turnwright.storage.documents import STATE_BYTES, Documents, Stowed
from turnwright.storage.keys import NO_ACTOR, SessionId
from turnwright.storage.settings import settings
from turnwright.storage.table import Table
from turnwright.tracing.trace_events import MemoryAccess
from turnwright.tracing.traces import Traces


def begin(
    table: Table,
    documents: Documents,
    agent: Agent,
    request: TurnRequest,
    execution_arn: str,
    *,
    redrive: int,
    definition_version: str = "",
) -> Turn:
    """Claims the session and writes the turn's header; a repeat finds both and gets the same turn.

    A session that was idle for too long is ended first, so that the turn starts a new one of its id.

    Raises SessionBusy, at once, if another turn runs in the session, which is left untouched. Without holding the
    session it raises TurnAlreadyEnded for a repeat that comes after the turn's end, InvalidRequest for session
    attributes that are too long with those of the session, and ActorErased while the actor's memory is being erased.
    """
    turns, sessions = Turns(table), Sessions(table)
    session_id = request.session(agent.memory_store)

    def refuse(refusal: TurnwrightError) -> None:
        failure = {"error": type(refusal).__name__, "cause": str(refusal), "state": "Load Memory"}
        turns.fail(request.turn_id, failure, unless_failed=True, session_id=session_id)

    try:
        session = sessions.claim(session_id, request.turn_id)
    except SessionBusy as busy:
        refuse(busy)
        raise
    if request.actor != NO_ACTOR:
        try:
            # After the claim: an erasure that begins later finds the session.
            Actors(table).require(agent.memory_store, request.actor)
        except ActorErased as erased:
            sessions.forget(session_id, request.turn_id)
            refuse(erased)
            raise
    if session.idle(now_ms(), agent.memory.idle_seconds) and not _has_begun(turns, request.turn_id):
        session = SessionEnds(table).end_idle(session_id, request.turn_id, session)
    body = documents.fetch(request.body)
    session_attributes = session.current_attributes | body.get("sessionAttributes", {})
    try:
        check_session(session_attributes)
    except InvalidRequest as refusal:
        sessions.release(session_id, request.turn_id)
        refuse(refusal)
        raise
    window = _window(table, documents, agent, session_id, session, body.get("previousConversationTurnsToInclude"))
    turn = Turn(
        turnId=request.turn_id,
        agentId=agent.agent_id,
        agentAliasId=request.agent_alias_id,
        agentVersion=agent.version,
        memoryStore=agent.memory_store,
        actor=request.actor,
        sessionId=request.session_id,
        sessionVersion=session.version,
        historyFrom=window.first,
        historyTo=window.last,
        trace=request.trace,
    )
    injected, retrievals = _injected(table, documents, agent, turn, session, window, body["inputText"])
    beginning = Beginning(
        turn=turn,
        event_id=session.new_event_id(request.turn_id, now_ms()),
        history_floor=session.first_event_id,
        request=request.body,
        session_attributes=session_attributes,
        execution_arn=execution_arn,
        caller=request.caller,
        injected=injected,
        trace_id=settings().trace_id,
        definition_version=definition_version,
    )
    try:
        header = turns.begin(beginning, redrive=redrive)
    except TurnAlreadyEnded:
        sessions.release(session_id, request.turn_id)
        raise
    if header.injected == injected:  # not what a repeat has read that came after a change of memory
        traces = Traces.of_turn(table, documents, header.turn)
        for each in retrievals:
            traces.memory_retrieval(each)
    return header.turn


def _window(
    table: Table, documents: Documents, agent: Agent, session_id: SessionId, session: Session, turns: int | None
) -> Window:
    """What the turn is shown of its session: what the agent says, or fewer `turns` if the caller wants fewer. Who does
    wants no digest of the others either, so that the window counts as whole.
    """
    if turns == 0:
        return Window(whole=True)
    is_limited = turns is not None and turns < agent.history.max_turns
    bounds = replace(agent.history, max_turns=turns) if turns and is_limited else agent.history
    window = History(table, documents).window(session_id, session.first_event_id, bounds)
    return replace(window, whole=True) if is_limited else window


def _has_begun(turns: Turns, turn_id: str) -> bool:
    """Whether this is a repeat of a turn that runs: it began when the session was not idle yet, and goes on with it."""
    header = turns.read(turn_id)
    return header is not None and header.status is Status.RUNNING


def _injected(
    table: Table, documents: Documents, agent: Agent, turn: Turn, session: Session, window: Window, input_text: str
) -> tuple[Stowed | None, Sequence[MemoryAccess]]:
    """What the turn's model calls are shown of memory, and how it was read."""
    if not agent.memory.remembers:
        return None, ()
    remembered = injection.remembered(table, agent, turn.session, session, window, input_text)
    text = injection.prefix(remembered, agent.memory.prompt_characters)
    if not text:
        return None, remembered.retrievals
    stowed = documents.stow(text, lambda digest: keys.turn_object(turn.turnId, digest), STATE_BYTES)
    return stowed, remembered.retrievals
