"""Extract Records: what a model extracts from a part of a session, in the journal before it counts."""

from turnwright.agents.memory_configuration import Namespace
from turnwright.memory.consolidation import extraction, summarizing, transcript
from turnwright.memory.consolidation.consolidating import Consolidating
from turnwright.memory.consolidation.consolidation_journal import Entry
from turnwright.memory.consolidation.transcript import Chunk
from turnwright.memory.records.reading import MERGE, Reading
from turnwright.models.asking import BrokenAnswer, ask


def extract(work: Consolidating, name: str, chunk: Chunk, attempt: int) -> Entry:
    """What a model extracts from a chunk for a namespace, or its part of a summary: `{"facts"}`, `{"text"}`, or
    `{"broken": why}` if the model's answer breaks the schema twice. Raises a ModelError or ActorErased.
    """
    key = work.journal.extraction(name, chunk.number)
    found = work.journal.find(key)
    if found is not None:
        return found
    events = work.events.read(chunk.first, chunk.last)
    text = transcript.text(events, chunk, work.memory_tools())
    configuration = work.configuration()
    style = work.styles(configuration).get(name)
    if style is not None:
        told = summarizing.conversation_prompt(text)
        return work.journal.record(key, work.summarized(configuration, style, told, attempt) if text else {})
    namespace = configuration.namespace(name)
    if not text or namespace is None or namespace.holds_summaries:
        return work.journal.record(key, {"facts": []})
    asked = extraction.form(namespace)
    data = extraction.data_prompt(text, _known_keys(work, namespace))
    try:
        models = configuration.models_from(namespace.model)
        answer = ask(models, attempt, extraction.system_prompt(namespace), data, asked, work.traces)
    except BrokenAnswer as broken:
        return work.journal.record(key, {"broken": str(broken)})
    facts = extraction.facts(answer.value, chunk.number, events)
    entry = {
        "facts": [fact.encode() for fact in facts],
        "promptVersion": extraction.prompt_version(namespace),
        "model": answer.model,
        "usage": answer.usage,
    }
    return work.journal.record(key, entry)


def _known_keys(work: Consolidating, namespace: Namespace) -> list[str]:
    consolidation = work.consolidation
    owner, path = consolidation.owner_of(namespace), consolidation.path(namespace)
    found = Reading(work.table, MERGE, consistent=False).seen(consolidation.memoryStore, owner, path)
    return [record.key for record in found.records]
