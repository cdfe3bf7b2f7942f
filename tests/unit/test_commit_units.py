"""The receipt counts the commit's own write units before DynamoDB reports them: item by item, by its documented rules.

What is expected here comes from the items as they are stored before and after, in the wire's form, by way of the
offline stack's own counting, which knows nothing of the runtime's.
"""

import math
from collections.abc import Mapping
from typing import Any

import pytest

from local.moto_patches.capacity import item_size, write_units
from tests.unit.stored_turns import SESSION, A, B, StoredTurns, step, text
from turnwright import keys
from turnwright.commit import Bill, commit
from turnwright.costs import Spent
from turnwright.metering import Meter
from turnwright.table import Table
from turnwright.turns import Header, Turn

REMEMBERS: Mapping[str, Any] = {
    "namespaces": [{"name": "facts", "description": "What is true of the actor.", "mergeRule": "APPEND"}],
    "idleSessionTTLInSeconds": 600,
    "storageDays": 7,
}

Wire = dict[tuple[str, str], dict[str, Any]]


def committed(stored: StoredTurns, turn: Turn) -> tuple[Header, Wire, Wire]:
    """The turn's header, and all items before and after its commit."""
    table = Table(stored.dynamodb, stored.table.name)
    before = stored.items()
    header = commit(table, stored.documents, turn, stored.agent(), Bill(Spent(), 4, Meter(table)))
    return header, before, stored.items()


def due_units(before: Mapping[str, Any], after: Mapping[str, Any]) -> int:
    """The index `Due`: a delete for the entry that was there, a put for the one that is."""
    if before.get("dueSK") == after.get("dueSK"):
        return 0
    return ("dueSK" in before) + ("dueSK" in after)


def consumed(before: Wire, after: Wire) -> float:
    """What the transaction between the two consumed."""
    changed = [key for key in after if before.get(key) != after[key]]
    assert len(changed) == 3
    return math.fsum(
        2 * write_units(max(item_size(before.get(key, {})), item_size(after[key])))
        + due_units(before.get(key, {}), after[key])
        for key in changed
    )


@pytest.mark.parametrize("memory", [None, REMEMBERS], ids=["without memory", "with memory"])
@pytest.mark.parametrize("note", ["", "x" * 300, "x" * 1_100, "é" * 3_000])
@pytest.mark.parametrize("answer", ["Hi", "y" * 5_000, "y" * 90_000])
def test_the_receipt_has_the_units_of_its_own_commit(
    stored: StoredTurns, memory: Mapping[str, Any] | None, note: str, answer: str
) -> None:
    if memory:
        stored.publish(memoryConfiguration=memory)
    attributes = {"note": note}
    for number, turn_id in enumerate((A, B)):
        turn = stored.begin(turn_id, sessionAttributes=attributes if number == 0 else {"note": "short"})
        stored.journal(turn, step(1, text(answer)))

        header, before, after = committed(stored, turn)

        assert header.receipt
        assert header.receipt["writeUnits"] == consumed(before, after)
        assert header.receipt["itemWrites"] == 3
        stored.clock.ms += 1_000


def test_it_has_them_when_the_turn_begins_a_new_session_of_an_idle_one(stored: StoredTurns) -> None:
    stored.publish(memoryConfiguration=REMEMBERS)
    stored.run(A, answer="x" * 900, sessionAttributes={"note": "x" * 700})
    stored.clock.ms += 601_000
    turn = stored.begin(B)
    stored.journal(turn, step(1, text("Hi")))

    header, before, after = committed(stored, turn)

    assert header.receipt
    assert header.receipt["writeUnits"] == consumed(before, after)


def test_it_has_them_whatever_length_brings_an_item_over_a_kilobyte(stored: StoredTurns) -> None:
    """The session's item grows byte by byte past two whole KiB."""
    for length in range(1_716, 1_756):
        turn_id = f"{length:032x}"
        turn = stored.begin(turn_id, sessionAttributes={"note": "x" * length})
        stored.journal(turn, step(1, text("Hi")))

        header, before, after = committed(stored, turn)

        assert header.receipt
        assert header.receipt["writeUnits"] == consumed(before, after), f"{length} characters"
    assert 2_048 < item_size(stored.items()[keys.session(SESSION)]) < 2_048 + 40
