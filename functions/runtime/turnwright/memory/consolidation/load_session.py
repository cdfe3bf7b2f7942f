"""Load Session: what a consolidation has to do."""

from collections.abc import Mapping, Sequence
from typing import Any

from turnwright.memory.consolidation import transcript
from turnwright.memory.consolidation.consolidating import Consolidating
from turnwright.memory.consolidation.digest_records import DigestRecord
from turnwright.memory.consolidation.transcript import Chunk
from turnwright.memory.session_ends.consolidations import Kind
from turnwright.memory.session_ends.segments import Segments, SegmentStatus


def load(work: Consolidating) -> dict[str, Any]:
    """What has to be done, as the state machine's items; all of it is short. Raises ActorErased.

    `{"chunks", "extractions": [{"namespace", "chunk"}], "namespaces", "summarize", "startedAt", "endedAt",
    "turns", "characters"}`: the last two count what a digest covers. There is nothing to do if the consolidation
    was written already, or its segment is gone.
    """
    consolidation = work.consolidation
    work.journal.require_owner()
    ended_at = 0
    if consolidation.kind is Kind.SESSION_END:
        segment = Segments(work.table).read(consolidation.session, consolidation.toEvent)
        if segment is None or segment.status is SegmentStatus.DONE:
            return _plan([], [], [], summarize=False)
        ended_at = segment.ended_at
    configuration = work.configuration()
    namespaces = consolidation.namespaces(configuration)
    summarizes = consolidation.kind is Kind.DIGEST or configuration.summarizes
    summaries = work.styles(configuration) if summarizes else {}
    sizes = work.events.sizes(consolidation.fromEvent, consolidation.toEvent)
    digested_to = _digested_to(work)
    bound = transcript.bound_for(sum(size.characters for size in sizes), len(namespaces) + len(summaries))
    chunks = transcript.chunks(((size.event_id, size.characters) for size in sizes), bound, digested_to)
    extractions = [
        {"namespace": namespace.name, "chunk": chunk.number}
        for namespace in namespaces
        for chunk in chunks
        if not (namespace.of_session and chunk.last <= digested_to)
    ]
    if len(chunks) > 1:
        extractions += [{"namespace": name, "chunk": chunk.number} for name in summaries for chunk in chunks]
    turns = [size for size in sizes if size.is_turn]
    return _plan(
        chunks,
        extractions,
        [namespace.name for namespace in namespaces] if chunks else [],
        summarize=summarizes and bool(chunks),
        startedAt=sizes[0].at if sizes else 0,
        endedAt=ended_at,
        turns=len(turns),
        characters=sum(size.characters for size in turns),
    )


def _plan(
    chunks: Sequence[Chunk],
    extractions: Sequence[Mapping[str, Any]],
    namespaces: Sequence[str],
    *,
    summarize: bool,
    **numbers: int,
) -> dict[str, Any]:
    counted = {"startedAt": 0, "endedAt": 0, "turns": 0, "characters": 0} | numbers
    return {
        "chunks": [chunk.encode() for chunk in chunks],
        "extractions": list(extractions),
        "namespaces": list(namespaces),
        "summarize": summarize,
        **counted,
    }


def _digested_to(work: Consolidating) -> str:
    """Up to which of an ended session's events the namespaces of session scope have been served by digests."""
    consolidation = work.consolidation
    if consolidation.kind is Kind.DIGEST:
        return ""
    digest = DigestRecord(work.table, consolidation).read()
    event = digest.provenance.event_id if digest else ""
    return event if consolidation.fromEvent < event <= consolidation.toEvent else ""
