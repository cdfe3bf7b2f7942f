"""Summarize Session: the summaries of an ended session, or the digest of one that goes on."""

from collections.abc import Sequence

from turnwright.agents.memory_configuration import MemoryConfiguration, SummaryStyle
from turnwright.memory.consolidation import summarizing, transcript
from turnwright.memory.consolidation.consolidating import Consolidating, asked_for_text
from turnwright.memory.consolidation.consolidation_journal import Entry
from turnwright.memory.consolidation.digest_records import DigestRecord
from turnwright.memory.consolidation.extract_records import extract
from turnwright.memory.consolidation.transcript import Chunk
from turnwright.memory.session_ends.consolidations import Kind


def summarize(work: Consolidating, chunks: Sequence[Chunk], attempt: int) -> dict[str, Entry]:
    """The session's summaries in all their styles, or its new digest: `{"text", "promptVersion"}` of each, or
    `{"broken": why}`.

    Raises a ModelError or ActorErased.
    """
    configuration = work.configuration()
    summaries: dict[str, Entry] = {}
    for name, style in work.styles(configuration).items():
        key = work.journal.summary(name)
        found = work.journal.find(key)
        if found is None:
            found = work.journal.record(key, _whole_summary(work, configuration, name, style, chunks, attempt))
        summaries[name] = found
    return summaries


def _whole_summary(
    work: Consolidating,
    configuration: MemoryConfiguration,
    name: str,
    style: SummaryStyle,
    chunks: Sequence[Chunk],
    attempt: int,
) -> Entry:
    if len(chunks) == 1:
        events = work.events.read(chunks[0].first, chunks[0].last)
        told = transcript.text(events, chunks[0], work.memory_tools())
        return _told(work, configuration, style, summarizing.conversation_prompt(told), attempt) if told else {}
    # Found in the journal, unless the strategies were changed meanwhile.
    parts = [extract(work, name, chunk, attempt) for chunk in chunks]
    broken = next((part for part in parts if "broken" in part), None)
    if broken:
        return broken
    texts = [part["text"] for part in parts if "text" in part]
    while len(texts) > len(summarizing.groups(texts)) > 1:
        combined = [
            work.summarized(configuration, style, summarizing.parts_prompt(group), attempt)
            for group in summarizing.groups(texts)
        ]
        broken = next((part for part in combined if "broken" in part), None)
        if broken:
            return broken
        texts = [part["text"] for part in combined]
    return _told(work, configuration, style, summarizing.parts_prompt(texts), attempt) if texts else {}


def _told(
    work: Consolidating, configuration: MemoryConfiguration, style: SummaryStyle, told: str, attempt: int
) -> Entry:
    """The summary of all that is told, or the digest of the former one and that."""
    if work.consolidation.kind is Kind.SESSION_END:
        return work.summarized(configuration, style, told, attempt)
    data = summarizing.digest_prompt(DigestRecord(work.table, work.consolidation).former(), told)
    return asked_for_text(configuration.models, attempt, summarizing.DIGEST_RULES, data, "digest", work.traces)
