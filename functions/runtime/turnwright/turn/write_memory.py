"""How a turn ends well: its messages become one event of the session."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from turnwright.agents.definitions import Agent
from turnwright.costs import prices
from turnwright.costs.metering import Meter
from turnwright.costs.receipts import PassedOver, receipt
from turnwright.costs.spending import WRITE_MEMORY, Cost, Spent
from turnwright.errors import TurnAlreadyEnded
from turnwright.models.converse import characters
from turnwright.models.stop_reasons import noted
from turnwright.sessions.journal import Journal
from turnwright.sessions.turns import Outcome, Turns
from turnwright.sessions.values import Header, PaidCall, Status, Step, Turn
from turnwright.storage import keys
from turnwright.storage.documents import ITEM_BYTES, Documents
from turnwright.storage.table import Table
from turnwright.tracing.traces import Traces
from turnwright.turn.invoke_model import attributes_after, turn_messages

_COMMITTED_ITEMS = 3
"""The session's event, the session and the header."""


@dataclass(frozen=True, slots=True)
class Bill:
    """What the turn's receipt is made of beside its journal: what was spent up to Write Memory, the states that were
    entered with it, the meter of this invocation, what is known to be missing, and the models that were passed over.
    """

    spent: Spent
    transitions: int
    meter: Meter
    incomplete: tuple[str, ...] = ()
    passed_over: tuple[PassedOver, ...] = ()

    def receipt(self, calls: list[PaidCall], stop_reason: str, own: Cost, units: int) -> dict[str, Any]:
        """`stop_reason` says how the answer ended, `own` is what Write Memory cost before the commit, `units` what the
        commit will consume, an estimate.
        """
        own = replace(own, write_units=own.write_units + units, item_writes=own.item_writes + _COMMITTED_ITEMS)
        spent = self.spent.plus(WRITE_MEMORY, own)
        costs = receipt(spent, calls, self.transitions, prices.current(), self.incomplete, units, self.passed_over)
        return {"stopReason": stop_reason, **costs}


def passed_over(told: str, agent: Agent) -> tuple[PassedOver, ...]:
    """The models that failed for good, as the state machine tells them: `0 ModelThrottled;1 ModelAccessDenied;` has
    their places in the agent's list, and the errors. Behind the last stands the first, which is tried once more.
    """
    entries = (entry.split(" ", 1) for entry in told.split(";") if entry)
    models = dict(enumerate(agent.models))
    return tuple(PassedOver(models.get(int(place), agent.models[0]), error) for place, error in entries)


def commit(table: Table, documents: Documents, turn: Turn, agent: Agent, bill: Bill) -> Header:
    """Commits the turn from its journal, with its receipt. A repeat after the commit answers what was committed and
    writes nothing.
    """
    turns = Turns(table)
    header = turns.read(turn.turnId)
    if header is None:
        raise TurnAlreadyEnded(f"turn {turn.turnId} has no header; its items are gone")
    if header.status is Status.COMMITTED:
        return header
    steps = Journal(table, documents, turn.turnId).steps()
    if not steps:
        raise TurnAlreadyEnded(f"turn {turn.turnId} has no journal; its items are gone")
    request = documents.fetch(header.request)
    messages = turn_messages(documents, request["inputText"], steps)
    session_attributes, _ = attributes_after(
        documents, header, request, [result for step in steps for result in step.tool_results]
    )
    last = steps[-1]
    answer = noted(_answer(steps), last.stop_reason)
    usage = _total(step.usage for step in steps)
    Traces.of_turn(table, documents, turn).final_response(
        last.number, request["inputText"], answer, usage, header.fields["startedAt"], last.stop_reason
    )
    calls = _model_calls(steps)
    own = bill.meter.cost()
    return turns.commit(
        header,
        Outcome(
            messages=documents.stow(messages, lambda digest: keys.session_object(turn.session, digest), ITEM_BYTES),
            characters=characters(messages),
            answer=documents.stow(answer, lambda digest: keys.turn_object(turn.turnId, digest), ITEM_BYTES),
            usage=usage,
            session_attributes=session_attributes,
            memory=agent.memory,
            receipt=lambda units: bill.receipt(calls, last.stop_reason, own, units),
        ),
    )


def _answer(steps: Sequence[Step]) -> str:
    """What the last step says; if it ends the turn without a word, what the model said last before it."""
    return next((text for step in reversed(steps) if (text := step.text()).strip()), "")


def _model_calls(steps: Iterable[Step]) -> list[PaidCall]:
    return [PaidCall(step.model, step.usage, step.left_out) for step in steps]


def _total(usages: Iterable[Mapping[str, int]]) -> Mapping[str, int]:
    total: Counter[str] = Counter()
    for usage in usages:
        total.update(usage)  # a sum of counters would leave out what is zero
    return total
