"""Load Session: what a consolidation has to do, cut into parts that one model call each can do."""

from typing import Any

from turnwright.memory.consolidation.consolidating import Consolidating
from turnwright.memory.consolidation.load_session import load
from turnwright.memory.session_ends.consolidations import Consolidation
from turnwright.storage.documents import documents
from turnwright.storage.table import table
from turnwright.tracing.handler_errors import with_safe_errors
from turnwright.tracing.log import logger_for


@with_safe_errors
def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """`{"consolidation": the execution's input}` -> the plan (`load_session.load`), short whatever the session's
    length.
    """
    store = table()
    consolidation = Consolidation.decode(event["consolidation"])
    plan = load(Consolidating(store, documents(), consolidation))
    logger_for(consolidation.log_fields).info(
        "session loaded", chunks=len(plan["chunks"]), extractions=len(plan["extractions"]), **store.consumed.fields()
    )
    return plan
