"""Summarize Session: the ended session's summary, or the digest of one that goes on; nothing is visible yet."""

from typing import Any

from turnwright import clients
from turnwright.documents import documents
from turnwright.handler_errors import with_safe_errors
from turnwright.log import consolidation_logger
from turnwright.memory.configuration import SUMMARY
from turnwright.memory.consolidating import Consolidating, Letters
from turnwright.memory.consolidation import Consolidation
from turnwright.memory.transcript import Chunk
from turnwright.settings import settings
from turnwright.table import table


@with_safe_errors
def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """`{"consolidation", "execution", "chunks", "summarize", "attempt"}` -> `{"skipped"}`; the text is in the journal.

    `attempt` counts the state's retries from 0. A summary that breaks its schema is skipped and dead-lettered; the
    others, in the styles that strategies want, are not.
    """
    store = table()
    consolidation = Consolidation.decode(event["consolidation"])
    if not event["summarize"]:
        return {"skipped": False}
    chunks = [Chunk.decode(chunk) for chunk in event["chunks"]]
    summaries = Consolidating(store, documents(), consolidation).summarize(chunks, event["attempt"])
    log = consolidation_logger(consolidation)
    broken = {name: entry["broken"] for name, entry in summaries.items() if "broken" in entry}
    for name, breach in broken.items():
        letters = Letters(clients.sqs(), settings().dead_letter_queue_url)
        fault = settings().payloads.error(breach)
        letters.send(consolidation, event["execution"], "summary" if name == SUMMARY else name, fault)
        log.error("summary skipped", summary=name, fault=fault)
    characters = sum(len(entry.get("text", "")) for entry in summaries.values())
    log.info("session summarized", characters=characters, **store.consumed.fields())
    return {"skipped": bool(broken)}
