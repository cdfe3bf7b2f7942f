"""Extract Records: the facts of one part of a session for one namespace, from the journal or from a model."""

from typing import Any

from turnwright.memory.consolidation.consolidating import Consolidating
from turnwright.memory.consolidation.extract_records import extract
from turnwright.memory.consolidation.transcript import Chunk
from turnwright.memory.session_ends.consolidations import Consolidation
from turnwright.storage.documents import documents
from turnwright.storage.table import table
from turnwright.tracing.handler_errors import with_safe_errors
from turnwright.tracing.log import logger_for
from turnwright.tracing.payloads import payloads


@with_safe_errors
def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """`{"consolidation", "namespace", "chunk", "attempt"}` -> `{"broken": bool}`; the facts are in the journal.

    `attempt` counts the state's retries from 0: each asks the next of the configuration's models.
    """
    store = table()
    consolidation, chunk = Consolidation.decode(event["consolidation"]), Chunk.decode(event["chunk"])
    entry = extract(Consolidating(store, documents(), consolidation), event["namespace"], chunk, event["attempt"])
    log = logger_for(consolidation.log_fields, namespace=event["namespace"], chunk=chunk.number)
    if "broken" in entry:
        log.warning(
            "the model's answer broke its schema twice",
            fault=payloads().error(entry["broken"]),
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
