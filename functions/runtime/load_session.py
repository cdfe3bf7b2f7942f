"""Load Session: what a consolidation has to do, cut into parts that one model call each can do."""

from typing import Any

from turnwright.documents import documents
from turnwright.log import consolidation_logger
from turnwright.memory.consolidating import Consolidating
from turnwright.memory.consolidation import Consolidation
from turnwright.table import table


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """`{"consolidation": the execution's input}` -> the plan (`Consolidating.load`), short whatever the session's
    length.
    """
    store = table()
    consolidation = Consolidation.decode(event["consolidation"])
    plan = Consolidating(store, documents(), consolidation).load()
    consolidation_logger(consolidation).info(
        "session loaded", chunks=len(plan["chunks"]), extractions=len(plan["extractions"]), **store.consumed.fields()
    )
    return plan
