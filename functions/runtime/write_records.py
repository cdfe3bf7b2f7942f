"""Write Records: what was merged and summarized becomes visible, all of it or nothing."""

from typing import Any

from turnwright.documents import documents
from turnwright.log import consolidation_logger
from turnwright.memory.consolidation import Consolidation
from turnwright.memory.writing import Writing
from turnwright.table import table


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """`{"consolidation", "plan", "merge", "redriveCount"}` -> the execution's output (`Writing.write`).

    `plan` is Load Session's, without its chunks; `merge` counts the tries from 1. Raises ActorErased and
    RecordsChanged, which the state machine catches.
    """
    store = table()
    consolidation = Consolidation.decode(event["consolidation"])
    outcome = Writing(store, documents(), consolidation).write(event["plan"], event["merge"], event["redriveCount"])
    consolidation_logger(consolidation, merge=event["merge"]).info(
        "consolidation written", outcome=outcome, **store.consumed.fields()
    )
    return {"consolidationId": consolidation.consolidationId, **outcome}
