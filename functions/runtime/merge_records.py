"""Merge Records: what the facts of a namespace change in its records, by its merge rule; nothing is visible yet."""

from typing import Any

from turnwright.memory.consolidation.consolidating import Consolidating
from turnwright.memory.consolidation.merge_records import merge
from turnwright.memory.session_ends.consolidations import Consolidation
from turnwright.storage.dead_letters import dead_letters
from turnwright.storage.documents import documents
from turnwright.storage.table import table
from turnwright.tracing.handler_errors import with_safe_errors
from turnwright.tracing.log import logger_for
from turnwright.tracing.payloads import payloads


@with_safe_errors
def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """`{"consolidation", "execution", "namespace", "chunks", "merge", "attempt"}` -> `{"changes", "skipped"}`.

    `chunks` are the numbers of those that were extracted, `merge` counts the tries to write from 1, `attempt` the
    state's retries from 0. A namespace of which a model's answer was broken is skipped and dead-lettered.
    """
    store = table()
    consolidation = Consolidation.decode(event["consolidation"])
    entry = merge(
        Consolidating(store, documents(), consolidation),
        event["namespace"],
        event["chunks"],
        event["merge"],
        event["attempt"],
    )
    log = logger_for(consolidation.log_fields, namespace=event["namespace"], merge=event["merge"])
    if "skipped" in entry:
        fault = payloads().error(entry["skipped"])
        dead_letters().send(consolidation.skipped_letter(event["execution"], event["namespace"], fault))
        log.error("namespace skipped", fault=fault)
        return {"changes": 0, "skipped": True}
    log.info("records merged", changes=len(entry["changes"]), **store.consumed.fields())
    return {"changes": len(entry["changes"]), "skipped": False}
