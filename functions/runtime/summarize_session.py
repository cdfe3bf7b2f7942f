"""Summarize Session: the ended session's summary, or the digest of one that goes on; nothing is visible yet."""

from typing import Any

from turnwright.agents.memory_configuration import SUMMARY
from turnwright.memory.consolidation.consolidating import Consolidating
from turnwright.memory.consolidation.summarize_session import summarize
from turnwright.memory.consolidation.transcript import Chunk
from turnwright.memory.session_ends.consolidations import Consolidation
from turnwright.storage.dead_letters import dead_letters
from turnwright.storage.documents import documents
from turnwright.storage.table import table
from turnwright.tracing.handler_errors import with_safe_errors
from turnwright.tracing.log import logger_for
from turnwright.tracing.payloads import payloads


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
    summaries = summarize(Consolidating(store, documents(), consolidation), chunks, event["attempt"])
    log = logger_for(consolidation.log_fields)
    broken = {name: entry["broken"] for name, entry in summaries.items() if "broken" in entry}
    for name, breach in broken.items():
        fault = payloads().error(breach)
        part = "summary" if name == SUMMARY else name
        dead_letters().send(consolidation.skipped_letter(event["execution"], part, fault))
        log.error("summary skipped", summary=name, fault=fault)
    characters = sum(len(entry.get("text", "")) for entry in summaries.values())
    log.info("session summarized", characters=characters, **store.consumed.fields())
    return {"skipped": bool(broken)}
