"""Merge Records: what the facts of a namespace change in its records, in the journal before it counts."""

from collections.abc import Sequence

from turnwright.agents.memory_configuration import MemoryConfiguration, MergeRule
from turnwright.memory.consolidation import model_merging
from turnwright.memory.consolidation.consolidating import Consolidating
from turnwright.memory.consolidation.consolidation_journal import Entry
from turnwright.memory.consolidation.extraction import Fact
from turnwright.memory.consolidation.merging import Merge, Target, embedded
from turnwright.memory.records.reading import MERGE, Reading
from turnwright.models.asking import BrokenAnswer, ask
from turnwright.models.embeddings import Embedding, embed
from turnwright.storage.clock import now_ms
from turnwright.tracing.log import logger

_NOTHING: Entry = {"seen": 0, "changes": []}


def merge(work: Consolidating, name: str, chunks: Sequence[int], merge_attempt: int, attempt: int) -> Entry:
    """What becomes of a namespace's records: `{"seen", "changes"}`, or `{"skipped": why}` if an answer of a model
    was broken. Raises a ModelError or ActorErased.

    `seen` is the count of the namespace's changes up to which other writers' were looked at.
    """
    key = work.journal.merge(name, merge_attempt)
    found = work.journal.find(key)
    if found is not None:
        return found
    configuration = work.configuration()
    namespace = configuration.namespace(name)
    if namespace is None:  # a store's strategy that was deleted meanwhile
        return work.journal.record(key, _NOTHING)
    extracted = work.journal.find_all([work.journal.extraction(name, chunk) for chunk in chunks])
    broken = [entry["broken"] for entry in extracted if "broken" in entry]
    if broken:
        return work.journal.record(key, {"skipped": broken[0]})
    target = Target(
        work.consolidation,
        namespace,
        next((entry["promptVersion"] for entry in extracted if "promptVersion" in entry), ""),
        now_ms(),
    )
    written = work.journal.progress().added if merge_attempt > 1 else frozenset()
    facts = [
        fact
        for entry in extracted
        for fact in map(Fact.decode, entry["facts"])
        if target.record_id(fact.ordinal) not in written
    ]
    if not facts:
        return work.journal.record(key, _NOTHING)
    try:
        return work.journal.record(key, _merged(work, target, facts, configuration, merge_attempt, attempt))
    except BrokenAnswer as fault:
        return work.journal.record(key, {"skipped": str(fault)})


def _merged(
    work: Consolidating,
    target: Target,
    facts: Sequence[Fact],
    configuration: MemoryConfiguration,
    merge_attempt: int,
    attempt: int,
) -> Entry:
    consolidation, model = work.consolidation, configuration.embedding_model
    by_model = target.namespace.merge_rule is MergeRule.MODEL
    vectors = _embedded([fact.text for fact in facts], model) if by_model else {}
    seen = work.records.changes(consolidation.memoryStore, target.path)  # before the records, or one may be missed
    owner = consolidation.owner_of(target.namespace)
    part = Reading(work.table, MERGE).whole(consolidation.memoryStore, owner, target.path)
    if not part.whole:
        logger().warning(
            "a namespace has more records than a merge reads; facts are compared with those that were read",
            consolidationId=consolidation.consolidationId,
            namespace=target.namespace.name,
            recordsRead=len(part.records),
        )
    merge = Merge(target, part.records)
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
                work.traces,
            )
            merge.apply(model_merging.operations(answer.value, some), f"{merge_attempt}.{start}")
    else:
        merge.add(facts)
    changes = merge.changes()
    if model:
        texts = {change.after.text for change in changes if change.after} - vectors.keys()
        changes = embedded(changes, vectors | _embedded(sorted(texts), model), model)
    return {"seen": seen, "changes": [change.encode() for change in changes]}


def _embedded(texts: Sequence[str], model: str | None) -> dict[str, Embedding]:
    if model is None or not texts:
        return {}
    different = list(dict.fromkeys(texts))
    return dict(zip(different, embed(different, model), strict=True))
