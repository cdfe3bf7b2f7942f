"""How a turn ends well: its messages become one event of the session."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from turnwright import keys, prices
from turnwright.agents import Agent
from turnwright.converse import characters
from turnwright.costs import WRITE_MEMORY, Cost, Spent
from turnwright.documents import ITEM_BYTES, Documents
from turnwright.errors import TurnAlreadyEnded
from turnwright.journal import Journal, Step
from turnwright.log import logger
from turnwright.metering import Meter
from turnwright.receipts import ModelCall, receipt
from turnwright.step import attributes_after, turn_messages
from turnwright.table import Table
from turnwright.traces import Traces
from turnwright.turns import Header, Outcome, Status, Turn, Turns

_COMMITTED_ITEMS = 3
"""The session's event, the session and the header."""


@dataclass(frozen=True, slots=True)
class Bill:
    """What the turn's receipt is made of beside its journal: what was spent up to Write Memory, the states that were
    entered with it, what is known to be missing, and the meter of this invocation.
    """

    spent: Spent
    transitions: int
    meter: Meter
    incomplete: tuple[str, ...] = ()

    def receipt(self, calls: list[ModelCall], own: Cost, units: int) -> dict[str, Any]:
        """`own` is what Write Memory cost before the commit, `units` what the commit will consume."""
        own = replace(own, write_units=own.write_units + units, item_writes=own.item_writes + _COMMITTED_ITEMS)
        spent = self.spent.plus(WRITE_MEMORY, own)
        return receipt(spent, calls, self.transitions, prices.current(), self.incomplete)


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
    answer = steps[-1].text()
    usage = _total(step.usage for step in steps)
    Traces(table, documents, turn).final_response(
        steps[-1].number, request["inputText"], answer, usage, header.fields["startedAt"]
    )
    calls = _model_calls(steps)
    own, before = bill.meter.cost(), table.consumed.write_units
    expected: list[int] = []

    def make_receipt(units: int) -> dict[str, Any]:
        expected[:] = [units]
        return bill.receipt(calls, own, units)

    committed = turns.commit(
        header,
        Outcome(
            messages=documents.stow(messages, lambda digest: keys.session_object(turn.session, digest), ITEM_BYTES),
            characters=characters(messages),
            answer=documents.stow(answer, lambda digest: keys.turn_object(turn.turnId, digest), ITEM_BYTES),
            usage=usage,
            session_attributes=session_attributes,
            memory=agent.memory,
            receipt=make_receipt,
        ),
    )
    reported = table.consumed.write_units - before
    if reported and reported != expected[0]:  # nothing is reported of a commit that another one was faster with
        logger().warning(
            "the receipt differs from what DynamoDB reported of the commit", computed=expected[0], reported=reported
        )
    return committed


def _model_calls(steps: Iterable[Step]) -> list[ModelCall]:
    return [ModelCall(step.model, step.usage) for step in steps]


def _total(usages: Iterable[Mapping[str, int]]) -> Mapping[str, int]:
    total: Counter[str] = Counter()
    for usage in usages:
        total.update(usage)  # a sum of counters would leave out what is zero
    return total
