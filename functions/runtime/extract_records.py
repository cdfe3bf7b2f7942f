"""Extract Records: the facts of one part of a session for one namespace, from the journal or from a model."""

from typing import Any

from turnwright.documents import documents
from turnwright.handler_errors import with_safe_errors
from turnwright.log import consolidation_logger
from turnwright.memory.consolidating import Consolidating
from turnwright.memory.consolidation import Consolidation
from turnwright.memory.transcript import Chunk
from turnwright.settings import settings
from turnwright.table import table


@with_safe_errors
def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """`{"consolidation", "namespace", "chunk", "attempt"}` -> `{"broken": bool}`; the facts are in the journal.

    `attempt` counts the state's retries from 0: each asks the next of the configuration's models.
    """
    store = table()
    consolidation, chunk = Consolidation.decode(event["consolidation"]), Chunk.decode(event["chunk"])
    entry = Consolidating(store, documents(), consolidation).extract(event["namespace"], chunk, event["attempt"])
    log = consolidation_logger(consolidation, namespace=event["namespace"], chunk=chunk.number)
    if "broken" in entry:
        log.warning(
            "the model's answer broke its schema twice",
            fault=settings().payloads.error(entry["broken"]),
            **store.consumed.fields(),
        )
    else:
        log.info(
            "records extracted",
            facts=len(entry.get("facts", ())),
            usage=entry.get("usage", {}),
            **store.consumed.fields(),
        )
    return {"broken": "broken" in entry}
