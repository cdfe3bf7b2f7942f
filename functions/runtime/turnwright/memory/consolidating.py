"""The states of a consolidation but the last: what is read and asked, each answer in the journal before it counts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from turnwright.agent_versions import load
from turnwright.clock import now_ms
from turnwright.documents import Documents, json_text
from turnwright.memory import extraction, model_merging, summarizing, tool_schemas, transcript
from turnwright.memory.asking import BrokenAnswer, ask
from turnwright.memory.configuration import SUMMARY, MemoryConfiguration, MergeRule, Namespace, SummaryStyle
from turnwright.memory.consolidation import Consolidation, Kind
from turnwright.memory.digest_records import DigestRecord
from turnwright.memory.embeddings import embed
from turnwright.memory.extraction import Fact
from turnwright.memory.journal import ConsolidationJournal, Entry
from turnwright.memory.merging import Merge, Target, embedded
from turnwright.memory.plans import configuration_of
from turnwright.memory.records import Embedding, Records
from turnwright.memory.segments import Segments, SegmentStatus
from turnwright.memory.session_events import SessionEvents
from turnwright.memory.transcript import Chunk
from turnwright.table import Table
from turnwright.traces import Traces

_NOTHING: Entry = {"seen": 0, "changes": []}

_PLAIN: Mapping[str, SummaryStyle] = {SUMMARY: SummaryStyle()}


@dataclass(frozen=True, slots=True)
class Letters:
    """The dead-letter queue."""

    queue: Any
    queue_url: str

    def send(self, consolidation: Consolidation, execution_arn: str, part: str, fault: str) -> None:
        """Of a part of a consolidation, a namespace or the summary, that was skipped. It may come twice.

        `fault` is as TracePayloads lets it be written; the input holds ids alone.
        """
        letter = {
            "consolidationId": consolidation.consolidationId,
            "executionArn": execution_arn,
            "skipped": part,
            "failure": {"error": "BrokenAnswer", "cause": fault},
            "input": consolidation.encode(),
        }
        self.queue.send_message(QueueUrl=self.queue_url, MessageBody=json_text(letter))


class Consolidating:
    """The work of one consolidation."""

    def __init__(self, table: Table, documents: Documents, consolidation: Consolidation) -> None:
        self._table = table
        self._consolidation = consolidation
        self._journal = ConsolidationJournal(table, documents, consolidation)
        self._events = SessionEvents(table, documents, consolidation.session)
        self._records = Records(table)
        self._traces = Traces.logged(consolidation.source)

    def load(self) -> dict[str, Any]:
        """What has to be done, as the state machine's items; all of it is short. Raises ActorErased.

        `{"chunks", "extractions": [{"namespace", "chunk"}], "namespaces", "summarize", "startedAt", "endedAt",
        "turns", "characters"}`: the last two count what a digest covers. There is nothing to do if the consolidation
        was written already, or its segment is gone.
        """
        consolidation = self._consolidation
        self._journal.require_owner()
        ended_at = 0
        if consolidation.kind is Kind.SESSION_END:
            segment = Segments(self._table).read(consolidation.session, consolidation.toEvent)
            if segment is None or segment.status is SegmentStatus.DONE:
                return _plan([], [], [], summarize=False)
            ended_at = segment.ended_at
        configuration = self._configuration()
        namespaces = consolidation.namespaces(configuration)
        summarizes = consolidation.kind is Kind.DIGEST or configuration.summarizes
        summaries = self._styles(configuration) if summarizes else {}
        sizes = self._events.sizes(consolidation.fromEvent, consolidation.toEvent)
        digested_to = self._digested_to()
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

    def extract(self, name: str, chunk: Chunk, attempt: int) -> Entry:
        """What a model extracts from a chunk for a namespace, or its part of a summary: `{"facts"}`, `{"text"}`, or
        `{"broken": why}` if the model's answer breaks the schema twice. Raises a ModelError or ActorErased.
        """
        key = self._journal.extraction(name, chunk.number)
        found = self._journal.find(key)
        if found is not None:
            return found
        events = self._events.read(chunk.first, chunk.last)
        text = transcript.text(events, chunk, self._memory_tools())
        configuration = self._configuration()
        style = self._styles(configuration).get(name)
        if style is not None:
            told = summarizing.conversation_prompt(text)
            return self._journal.record(key, self._summarized(configuration, style, told, attempt) if text else {})
        namespace = configuration.namespace(name)
        if not text or namespace is None or namespace.holds_summaries:
            return self._journal.record(key, {"facts": []})
        asked = extraction.form(namespace)
        data = extraction.data_prompt(text, self._known_keys(namespace))
        try:
            models = configuration.models_from(namespace.model)
            answer = ask(models, attempt, extraction.system_prompt(namespace), data, asked, self._traces)
        except BrokenAnswer as broken:
            return self._journal.record(key, {"broken": str(broken)})
        facts = extraction.facts(answer.value, chunk.number, events)
        entry = {
            "facts": [fact.encode() for fact in facts],
            "promptVersion": extraction.prompt_version(namespace),
            "model": answer.model,
            "usage": answer.usage,
        }
        return self._journal.record(key, entry)

    def merge(self, name: str, chunks: Sequence[int], merge_attempt: int, attempt: int) -> Entry:
        """What becomes of a namespace's records: `{"seen", "changes"}`, or `{"skipped": why}` if an answer of a model
        was broken. Raises a ModelError or ActorErased.

        `seen` is the count of the namespace's changes up to which other writers' were looked at.
        """
        key = self._journal.merge(name, merge_attempt)
        found = self._journal.find(key)
        if found is not None:
            return found
        configuration = self._configuration()
        namespace = configuration.namespace(name)
        if namespace is None:  # a store's strategy that was deleted meanwhile
            return self._journal.record(key, _NOTHING)
        extracted = self._journal.find_all([self._journal.extraction(name, chunk) for chunk in chunks])
        broken = [entry["broken"] for entry in extracted if "broken" in entry]
        if broken:
            return self._journal.record(key, {"skipped": broken[0]})
        target = Target(
            self._consolidation,
            namespace,
            next((entry["promptVersion"] for entry in extracted if "promptVersion" in entry), ""),
            now_ms(),
            configuration.embedding_model,
        )
        written = self._journal.progress().added if merge_attempt > 1 else frozenset()
        facts = [
            fact
            for entry in extracted
            for fact in map(Fact.decode, entry["facts"])
            if target.record_id(fact.ordinal) not in written
        ]
        if not facts:
            return self._journal.record(key, _NOTHING)
        try:
            return self._journal.record(key, self._merged(target, facts, configuration, merge_attempt, attempt))
        except BrokenAnswer as fault:
            return self._journal.record(key, {"skipped": str(fault)})

    def summarize(self, chunks: Sequence[Chunk], attempt: int) -> dict[str, Entry]:
        """The session's summaries in all their styles, or its new digest: `{"text", "promptVersion"}` of each, or
        `{"broken": why}`.

        Raises a ModelError or ActorErased.
        """
        configuration = self._configuration()
        summaries: dict[str, Entry] = {}
        for name, style in self._styles(configuration).items():
            key = self._journal.summary(name)
            found = self._journal.find(key)
            if found is None:
                found = self._journal.record(key, self._whole_summary(configuration, name, style, chunks, attempt))
            summaries[name] = found
        return summaries

    def _merged(
        self,
        target: Target,
        facts: Sequence[Fact],
        configuration: MemoryConfiguration,
        merge_attempt: int,
        attempt: int,
    ) -> Entry:
        consolidation, model = self._consolidation, configuration.embedding_model
        by_model = target.namespace.merge_rule is MergeRule.MODEL
        compares = by_model or target.namespace.merge_rule is MergeRule.APPEND
        vectors = _embedded([fact.text for fact in facts], model) if compares else {}
        seen = self._records.changes(consolidation.memoryStore, target.path)  # before the records, or one may be missed
        owner = consolidation.owner_of(target.namespace)
        existing = self._records.of_namespace(consolidation.memoryStore, owner, target.path)
        merge = Merge(target, existing, vectors)
        if by_model:
            for start in range(0, len(facts), model_merging.FACTS_AT_A_TIME):
                some = facts[start : start + model_merging.FACTS_AT_A_TIME]
                shown = model_merging.nearest(some, merge.records, vectors, model)
                answer = ask(
                    configuration.models_from(target.namespace.merge_model),
                    attempt,
                    model_merging.system_prompt(target.namespace),
                    model_merging.data_prompt(some, shown),
                    model_merging.form(some, shown),
                    self._traces,
                )
                merge.apply(model_merging.operations(answer.value, some), f"{merge_attempt}.{start}")
        else:
            merge.add(facts)
        changes = merge.changes()
        if model:
            texts = {change.after.text for change in changes if change.after} - vectors.keys()
            changes = embedded(changes, vectors | _embedded(sorted(texts), model), model)
        return {"seen": seen, "changes": [change.encode() for change in changes]}

    def _styles(self, configuration: MemoryConfiguration) -> Mapping[str, SummaryStyle]:
        """A digest has one style: it is for the agent itself."""
        return configuration.summary_styles if self._consolidation.kind is Kind.SESSION_END else _PLAIN

    def _whole_summary(
        self,
        configuration: MemoryConfiguration,
        name: str,
        style: SummaryStyle,
        chunks: Sequence[Chunk],
        attempt: int,
    ) -> Entry:
        if len(chunks) == 1:
            events = self._events.read(chunks[0].first, chunks[0].last)
            told = transcript.text(events, chunks[0], self._memory_tools())
            return self._told(configuration, style, summarizing.conversation_prompt(told), attempt) if told else {}
        # Found in the journal, unless the strategies were changed meanwhile.
        parts = [self.extract(name, chunk, attempt) for chunk in chunks]
        broken = next((part for part in parts if "broken" in part), None)
        if broken:
            return broken
        texts = [part["text"] for part in parts if "text" in part]
        while len(texts) > len(summarizing.groups(texts)) > 1:
            combined = [
                self._summarized(configuration, style, summarizing.parts_prompt(group), attempt)
                for group in summarizing.groups(texts)
            ]
            broken = next((part for part in combined if "broken" in part), None)
            if broken:
                return broken
            texts = [part["text"] for part in combined]
        return self._told(configuration, style, summarizing.parts_prompt(texts), attempt) if texts else {}

    def _told(self, configuration: MemoryConfiguration, style: SummaryStyle, told: str, attempt: int) -> Entry:
        """The summary of all that is told, or the digest of the former one and that."""
        if self._consolidation.kind is Kind.SESSION_END:
            return self._summarized(configuration, style, told, attempt)
        data = summarizing.digest_prompt(DigestRecord(self._table, self._consolidation).former(), told)
        return _asked(configuration.models, attempt, summarizing.DIGEST_RULES, data, "digest", self._traces)

    def _summarized(self, configuration: MemoryConfiguration, style: SummaryStyle, data: str, attempt: int) -> Entry:
        models = configuration.models_from(style.model)
        return _asked(models, attempt, summarizing.summary_rules(style.prompt), data, "summary", self._traces)

    def _memory_tools(self) -> list[str]:
        """The names of the memory tools, but for those by which the agent calls tools of its own."""
        consolidation = self._consolidation
        if not consolidation.agentId:
            return list(tool_schemas.NAMES)
        agent = load(self._table, consolidation.agentId, consolidation.agentVersion)
        own = {tool.name for tool in agent.tools if not tool.is_memory}
        return [name for name in tool_schemas.NAMES if name not in own]

    def _known_keys(self, namespace: Namespace) -> list[str]:
        consolidation = self._consolidation
        records = self._records.of_namespace(
            consolidation.memoryStore,
            consolidation.owner_of(namespace),
            consolidation.path(namespace),
            consistent=False,
        )
        return [record.key for record in records]

    def _digested_to(self) -> str:
        """Up to which of an ended session's events the namespaces of session scope have been served by digests."""
        consolidation = self._consolidation
        if consolidation.kind is Kind.DIGEST:
            return ""
        digest = DigestRecord(self._table, consolidation).read()
        event = digest.provenance.event_id if digest else ""
        return event if consolidation.fromEvent < event <= consolidation.toEvent else ""

    def _configuration(self) -> MemoryConfiguration:
        consolidation = self._consolidation
        return configuration_of(
            self._table, consolidation.memoryStore, consolidation.agentId, consolidation.agentVersion
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


def _asked(models: Sequence[str], attempt: int, system: str, data: str, field: str, traces: Traces) -> Entry:
    form = summarizing.digest_form() if field == "digest" else summarizing.summary_form()
    try:
        answer = ask(models, attempt, system, data, form, traces)
    except BrokenAnswer as broken:
        return {"broken": str(broken)}
    return {"text": answer.value[field].strip(), "promptVersion": extraction.version_of(system, form)}


def _embedded(texts: Sequence[str], model: str | None) -> dict[str, Embedding]:
    if model is None or not texts:
        return {}
    different = list(dict.fromkeys(texts))
    return dict(zip(different, embed(different, model), strict=True))
