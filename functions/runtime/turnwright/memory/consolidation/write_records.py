"""The last state of a consolidation: what was merged becomes visible.

All of it is one transaction, which is refused the second time. What does not fit into one is written in batches, each
of which says in the journal that it is written, in its own transaction: a repeat goes on behind the last one. The
segment is DONE, or the digest moves on, with the last batch.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from turnwright.agents.memory_configuration import SUMMARY, MemoryConfiguration, Namespace
from turnwright.errors import RecordsChanged, RecordsKeepChanging
from turnwright.memory.consolidation.consolidation_journal import ConsolidationJournal, Entry
from turnwright.memory.consolidation.digest_records import DigestRecord, digest_id, digest_path
from turnwright.memory.consolidation.merging import Change
from turnwright.memory.records.accesses import summaries_path, told_record
from turnwright.memory.records.records import Provenance, Record, known
from turnwright.memory.records.session_summaries import SessionSummary
from turnwright.memory.records.store_configuration import configuration_of
from turnwright.memory.session_ends import segments
from turnwright.memory.session_ends.consolidations import SOURCES, Consolidation, Kind
from turnwright.memory.session_ends.segments import Segments, SegmentStatus
from turnwright.storage import keys
from turnwright.storage.clock import expiry, now_ms
from turnwright.storage.documents import Documents, json_text
from turnwright.storage.table import MOST_TRANSACTION_WRITES, Put, Table, TransactionRefused, Update, Write
from turnwright.tracing.trace_events import MemoryAccess
from turnwright.tracing.traces import Traces

MOST_MERGES = 5
"""How often a consolidation is merged again because others wrote meanwhile, before it fails; a redrive as often again.
"""

MOST_BATCH_BYTES = 2_000_000
"""A transaction takes 4 MB; sizes are estimated by the records' JSON."""

_RESERVED = 20
"""Entries of a batch besides records: the actor, the progress, and those of the end, where a summary may be a record in
six namespaces.
"""


class Written(StrEnum):
    """How a consolidation ended well."""

    WRITTEN = "WRITTEN"
    NOTHING_TO_DO = "NOTHING_TO_DO"
    """It was written before, or its session's part is gone."""
    OVERTAKEN = "OVERTAKEN"
    """A digest whose session has ended or has another digest by now."""


@dataclass(slots=True)
class Batch:
    """Writes of one transaction. `seen` has whose each path is that it writes to, and its count of changes."""

    writes: list[Write] = field(default_factory=list)
    seen: dict[str, tuple[str, int]] = field(default_factory=dict)
    added: list[str] = field(default_factory=list)
    bytes: int = 0
    changes: dict[str, list[Change]] = field(default_factory=dict)

    @property
    def items(self) -> int:
        return len(self.writes) + len(self.seen)

    def has_room_for(self, change: Change, path: str, size: int) -> bool:
        more = 1 if path in self.seen else 2
        fits = self.items + more <= MOST_TRANSACTION_WRITES - _RESERVED and self.bytes + size <= MOST_BATCH_BYTES
        return fits or not self.writes

    def add(self, change: Change, path: str, seen: int, size: int) -> None:
        self.writes.append(change.write)
        self.changes.setdefault(path, []).append(change)
        self.seen.setdefault(path, (change.record.actor, seen))
        self.bytes += size
        if change.before is None:
            self.added.append(change.record.record_id)


def batches(merged: Mapping[str, tuple[int, Sequence[Change]]]) -> list[Batch]:
    """The changes of each path, given with the count of changes that was seen, as transactions; one at least."""
    cut = [Batch()]
    for path, (seen, changes) in merged.items():
        counted = seen
        for change in changes:
            size = len(json_text(change.record.encode()).encode())
            if not cut[-1].has_room_for(change, path, size):
                counted += path in cut[-1].seen
                cut.append(Batch())
            cut[-1].add(change, path, counted, size)
    return cut


class Writing:
    """The last state of one consolidation."""

    def __init__(self, table: Table, documents: Documents, consolidation: Consolidation) -> None:
        self._table = table
        self._consolidation = consolidation
        self._journal = ConsolidationJournal(table, documents, consolidation)
        self._traces = Traces(consolidation.source)

    def write(self, plan: Mapping[str, Any], attempt: int, redrives: int) -> dict[str, Any]:
        """Writes what the merge `attempt` came to.

        Answers `{"status", "added", "changed", "removed", "summarized", "skipped"}`. Raises ActorErased; RecordsChanged
        if the merge has to be made again, RecordsKeepChanging if that was done too often; and CommitConflict if just
        this has to be tried again.
        """
        entries = {name: self._journal.find(self._journal.merge(name, attempt)) or {} for name in plan["namespaces"]}
        configuration = self._configuration()
        summaries = self._summaries(configuration) if plan["summarize"] else {}
        summary = summaries.get(SUMMARY, {})
        skipped = [name for name, entry in entries.items() if "skipped" in entry]
        broken = [name for name, entry in summaries.items() if "broken" in entry]
        skipped += ["summary" if name == SUMMARY else name for name in broken]
        merged: dict[str, tuple[int, Sequence[Change]]] = {}
        for name, entry in entries.items():
            namespace = configuration.namespace(name)
            if namespace and entry.get("changes"):
                changes = [Change.decode(fields) for fields in entry["changes"]]
                merged[self._consolidation.path(namespace)] = (entry["seen"], changes)
        is_digest = self._consolidation.kind is Kind.DIGEST
        if is_digest and "text" not in summary:
            status = Written.NOTHING_TO_DO  # a later digest covers the same turns, and writes their records too
            merged = {}
        else:
            end = self._digest_end(plan, summary) if is_digest else self._session_end(plan, configuration, summaries)
            status = self._write(batches(merged), end, attempt, redrives)
            if status is Written.WRITTEN or self._wrote_before():
                self._tell_summaries(configuration, summaries)
        changes = [change for _, some in merged.values() for change in some]
        return {
            "status": status,
            "added": sum(change.before is None for change in changes),
            "changed": sum(change.before is not None and change.after is not None for change in changes),
            "removed": sum(change.after is None for change in changes),
            "summarized": any("text" in entry for entry in summaries.values()),
            "skipped": skipped,
        }

    def _write(self, cut: Sequence[Batch], end: Sequence[Write], attempt: int, redrives: int) -> Written:
        counts = len(cut) > 1 or attempt > 1
        progress = self._journal.progress() if counts else None
        done = progress.batches if progress and progress.attempt == attempt else 0
        if done:  # by a delivery that may have been lost before it told the trace
            self._tell(cut[done - 1], None)
        for number in range(done, len(cut)):
            batch = cut[number]
            is_last = number == len(cut) - 1
            writes = [*self._owner(), *(end if is_last else ()), *batch.writes, *self._known(batch)]
            if progress and len(cut) > 1:
                writes.append(self._journal.advanced(progress, attempt, number + 1, batch.added))
            started = now_ms()
            try:
                self._table.transact(writes)
            except TransactionRefused as refused:
                status = self._after_refusal(refused, attempt, redrives)
                if self._wrote_before():
                    self._tell(batch, None)
                return status
            self._tell(batch, now_ms() - started)
            progress = self._journal.progress() if progress and not is_last else progress
        return Written.WRITTEN

    def _wrote_before(self) -> bool:
        """Whether all was visible already: a repeat tells the trace again, which the first may not have come to."""
        work = self._consolidation
        if work.kind is Kind.SESSION_END:
            segment = Segments(self._table).read(work.session, work.toEvent)
            return segment is not None and segment.status is SegmentStatus.DONE
        session = self._table.get(keys.session(work.session)) or {}
        return bool(session.get("digestedTo") == work.toEvent)

    def _tell(self, batch: Batch, latency_ms: int | None) -> None:
        """`latency_ms` is None for a batch that an earlier delivery wrote."""
        for path, changes in batch.changes.items():
            self._traces.memory_write(MemoryAccess(path, _told_changes(changes), latency_ms))

    def _tell_summaries(self, configuration: MemoryConfiguration, summaries: Mapping[str, Entry]) -> None:
        """The digest, or the summary, also in each namespace that holds summaries."""
        work, own = self._consolidation, summaries.get(SUMMARY, {})
        if work.kind is Kind.DIGEST:
            digest = {"recordId": digest_id(work.session), "text": own["text"], "operation": "PUT"}
            self._traces.memory_write(MemoryAccess(digest_path(work.session), [digest], None))
            return
        if "text" in own:
            told = {"sessionId": work.sessionId, "text": own["text"], "operation": "PUT"}
            self._traces.memory_write(MemoryAccess(summaries_path(work.actor), [told], None))
        for _, path, summary in self._kept_summaries(configuration, summaries):
            told = {"recordId": self._summary_record_id(path), "text": summary["text"], "operation": "PUT"}
            self._traces.memory_write(MemoryAccess(path, [told], None))

    def _after_refusal(self, refused: TransactionRefused, attempt: int, redrives: int) -> Written:
        """Why a transaction was refused, by what is there now."""
        work = self._consolidation
        self._journal.require_owner()
        if work.kind is Kind.SESSION_END:
            segment = Segments(self._table).read(work.session, work.toEvent)
            if segment is None or segment.status is SegmentStatus.DONE:
                return Written.NOTHING_TO_DO
        else:
            session = self._table.get(keys.session(work.session)) or {}
            if session.get("digestedTo") == work.toEvent:
                return Written.NOTHING_TO_DO
            if session.get("digestedTo") != work.fromEvent:
                return Written.OVERTAKEN
        again = RecordsKeepChanging if attempt >= MOST_MERGES * (1 + redrives) else RecordsChanged
        raise again(f"records were written by others since merge {attempt} of {work.consolidationId}") from refused

    def _owner(self) -> Iterator[Write]:
        owner = self._consolidation.owner
        if owner:
            yield owner.unchanged()

    def _known(self, batch: Batch) -> Iterator[Write]:
        work = self._consolidation
        for path, (owner, seen) in batch.seen.items():
            yield known(work.memoryStore, owner, path, changes=seen)

    def _summaries(self, configuration: MemoryConfiguration) -> dict[str, Entry]:
        """The session's summaries in all the styles that there are in the journal."""
        is_digest = self._consolidation.kind is Kind.DIGEST
        names = [SUMMARY] if is_digest else configuration.summary_styles
        found = {name: self._journal.find(self._journal.summary(name)) for name in names}
        return {name: entry for name, entry in found.items() if entry is not None}

    def _session_end(
        self, plan: Mapping[str, Any], configuration: MemoryConfiguration, summaries: Mapping[str, Entry]
    ) -> list[Write]:
        work = self._consolidation
        done: list[Write] = [segments.done(work.session, work.toEvent)]
        own = summaries.get(SUMMARY, {})
        if "text" in own:
            done.append(self._summary(plan, own))
        for namespace, path, summary in self._kept_summaries(configuration, summaries):
            done += self._summary_record(plan, namespace, path, summary)
        return done

    def _kept_summaries(
        self, configuration: MemoryConfiguration, summaries: Mapping[str, Entry]
    ) -> Iterator[tuple[Namespace, str, Entry]]:
        """Each namespace that holds summaries, its path, and the summary that goes there."""
        for namespace in configuration.namespaces:
            summary = summaries.get(namespace.name, summaries.get(SUMMARY, {}))
            if namespace.holds_summaries and "text" in summary:
                yield namespace, self._consolidation.path(namespace), summary

    def _summary_record(
        self, plan: Mapping[str, Any], namespace: Namespace, path: str, summary: Entry
    ) -> Sequence[Write]:
        """The summary as a record; a repeat would write the same."""
        work = self._consolidation
        now, owner = now_ms(), work.owner_of(namespace)
        record = Record(
            store=work.memoryStore,
            actor=owner,
            namespace=path,
            record_id=self._summary_record_id(path),
            text=summary["text"],
            provenance=Provenance(
                SOURCES[work.kind],
                session_id=work.sessionId,
                agent_id=work.agentId,
                agent_version=work.agentVersion,
                consolidation_id=work.consolidationId,
                prompt_version=summary["promptVersion"],
            ),
            strategy=namespace.name,
            created_at=now,
            updated_at=now,
            timestamp=plan["endedAt"],
            expires_at=expiry(now, namespace.ttl_days),
        )
        return Put(record.item_key, record.encode()), known(work.memoryStore, owner, path)

    def _summary_record_id(self, path: str) -> str:
        return f"mem-{uuid5(NAMESPACE_URL, f'{self._consolidation.consolidationId}/{path}')}"

    def _summary(self, plan: Mapping[str, Any], summary: Entry) -> Put:
        work = self._consolidation
        return SessionSummary(
            store=work.memoryStore,
            actor=work.actor,
            session_id=work.sessionId,
            session_started_at=plan["startedAt"],
            ended_at=plan["endedAt"],
            text=summary["text"],
            agent_id=work.agentId,
            agent_version=work.agentVersion,
            consolidation_id=work.consolidationId,
            prompt_version=summary["promptVersion"],
            expires_at=expiry(now_ms(), self._configuration().storage_days),
        ).written()

    def _digest_end(self, plan: Mapping[str, Any], summary: Entry) -> list[Write]:
        work = self._consolidation
        moved = Update(
            keys.session(work.session),
            "SET digestedTo = :to ADD undigestedTurns :turns, undigestedCharacters :characters",
            condition="digestedTo = :from",
            values={
                ":from": work.fromEvent,
                ":to": work.toEvent,
                ":turns": -plan["turns"],
                ":characters": -plan["characters"],
            },
        )
        days = self._configuration().storage_days
        return [moved, *DigestRecord(self._table, work).writes(summary["text"], summary["promptVersion"], days)]

    def _configuration(self) -> MemoryConfiguration:
        work = self._consolidation
        return configuration_of(self._table, work.memoryStore, work.agentId, work.agentVersion)


def _told_changes(changes: Iterable[Change]) -> list[dict[str, Any]]:
    """What became of the records of a namespace, each with its `operation`."""
    return [told_record(change.record) | {"operation": _operation(change)} for change in changes]


def _operation(change: Change) -> str:
    if change.after is None:
        return "DELETE"
    return "ADD" if change.before is None else "UPDATE"
