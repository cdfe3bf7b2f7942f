"""Merge Records: what the facts of a namespace change in its records, by its merge rule; nothing is visible yet."""

from typing import Any

from turnwright import clients
from turnwright.documents import documents
from turnwright.log import consolidation_logger
from turnwright.memory.consolidating import Consolidating, Letters
from turnwright.memory.consolidation import Consolidation
from turnwright.settings import settings
from turnwright.table import table


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """`{"consolidation", "execution", "namespace", "chunks", "merge", "attempt"}` -> `{"changes", "skipped"}`.

    `chunks` are the numbers of those that were extracted, `merge` counts the tries to write from 1, `attempt` the
    state's retries from 0. A namespace of which a model's answer was broken is skipped and dead-lettered.
    """
    store = table()
    consolidation = Consolidation.decode(event["consolidation"])
    entry = Consolidating(store, documents(), consolidation).merge(
        event["namespace"], event["chunks"], event["merge"], event["attempt"]
    )
    log = consolidation_logger(consolidation, namespace=event["namespace"], merge=event["merge"])
    if "skipped" in entry:
        letters = Letters(clients.sqs(), settings().dead_letter_queue_url)
        letters.send(consolidation, event["execution"], event["namespace"], entry["skipped"])
        log.error("namespace skipped", fault=entry["skipped"])
        return {"changes": 0, "skipped": True}
    log.info("records merged", changes=len(entry["changes"]), **store.consumed.fields())
    return {"changes": len(entry["changes"]), "skipped": False}
