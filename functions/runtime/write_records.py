"""Write Records: what was merged and summarized becomes visible, all of it or nothing."""

from typing import Any

from turnwright.memory.consolidation.write_records import Writing
from turnwright.memory.session_ends.consolidations import Consolidation
from turnwright.storage.documents import documents
from turnwright.storage.table import table
from turnwright.tracing.handler_errors import with_safe_errors
from turnwright.tracing.log import logger_for


@with_safe_errors
def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """`{"consolidation", "plan", "merge", "redriveCount"}` -> the execution's output (`Writing.write`).

    `plan` is Load Session's, without its chunks; `merge` counts the tries from 1. Raises ActorErased and
    RecordsChanged, which the state machine catches.
    """
    store = table()
    consolidation = Consolidation.decode(event["consolidation"])
    outcome = Writing(store, documents(), consolidation).write(event["plan"], event["merge"], event["redriveCount"])
    logger_for(consolidation.log_fields, merge=event["merge"]).info(
        "consolidation written", outcome=outcome, **store.consumed.fields()
    )
    return {"consolidationId": consolidation.consolidationId, **outcome}
