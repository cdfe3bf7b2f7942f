"""How a turn ends well: its messages become one event of the session."""

from collections import Counter
from collections.abc import Iterable, Mapping

from turnwright import keys
from turnwright.agents import Agent
from turnwright.converse import characters
from turnwright.documents import ITEM_BYTES, Documents
from turnwright.errors import TurnAlreadyEnded
from turnwright.journal import Journal
from turnwright.step import attributes_after, turn_messages
from turnwright.table import Table
from turnwright.traces import Traces
from turnwright.turns import Header, Outcome, Status, Turn, Turns


def commit(table: Table, documents: Documents, turn: Turn, agent: Agent) -> Header:
    """Commits the turn from its journal. A repeat after the commit answers what was committed and writes nothing."""
    turns = Turns(table)
    header = turns.read(turn.turnId)
    if header is None:
        raise TurnAlreadyEnded(f"turn {turn.turnId} has no header; its items are gone")
    if header.status is Status.COMMITTED:
        return header
    steps = Journal(table, documents, turn.turnId).steps()
    request = documents.fetch(header.request)
    messages = turn_messages(documents, request["inputText"], steps)
    session_attributes, _ = attributes_after(
        documents, header, request, [result for step in steps for result in step.tool_results]
    )
    answer = steps[-1].text()
    usage = _total(step.usage for step in steps)
    Traces(table, documents, turn).final_response(
        steps[-1].number, request["inputText"], answer, usage, header.fields["startedAt"]
    )
    return turns.commit(
        header,
        Outcome(
            messages=documents.stow(messages, lambda digest: keys.session_object(turn.session, digest), ITEM_BYTES),
            characters=characters(messages),
            answer=documents.stow(answer, lambda digest: keys.turn_object(turn.turnId, digest), ITEM_BYTES),
            usage=usage,
            session_attributes=session_attributes,
            memory=agent.memory,
        ),
    )


def _total(usages: Iterable[Mapping[str, int]]) -> Mapping[str, int]:
    total: Counter[str] = Counter()
    for usage in usages:
        total.update(usage)  # a sum of counters would leave out what is zero
    return total
