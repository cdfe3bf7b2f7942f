"""Summarize Session: the ended session's summary, or the digest of one that goes on; nothing is visible yet."""

from typing import Any

from turnwright import clients
from turnwright.documents import documents
from turnwright.log import consolidation_logger
from turnwright.memory.consolidating import Consolidating, Letters
from turnwright.memory.consolidation import Consolidation
from turnwright.memory.transcript import Chunk
from turnwright.settings import settings
from turnwright.table import table


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """`{"consolidation", "execution", "chunks", "summarize", "attempt"}` -> `{"skipped"}`; the text is in the journal.

    `attempt` counts the state's retries from 0. A summary that breaks its schema is skipped and dead-lettered.
    """
    store = table()
    consolidation = Consolidation.decode(event["consolidation"])
    if not event["summarize"]:
        return {"skipped": False}
    chunks = [Chunk.decode(chunk) for chunk in event["chunks"]]
    entry = Consolidating(store, documents(), consolidation).summarize(chunks, event["attempt"])
    log = consolidation_logger(consolidation)
    if "broken" in entry:
        letters = Letters(clients.sqs(), settings().dead_letter_queue_url)
        letters.send(consolidation, event["execution"], "summary", entry["broken"])
        log.error("summary skipped", fault=entry["broken"])
        return {"skipped": True}
    log.info("session summarized", characters=len(entry.get("text", "")), **store.consumed.fields())
    return {"skipped": False}
