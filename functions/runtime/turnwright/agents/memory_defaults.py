"""An agent file's `memoryConfiguration` as the values that memory works with; the schema documents the defaults."""

from collections.abc import Mapping
from typing import Any

from turnwright.agents.memory_configuration import EVERYONE, Injection, MemoryConfiguration, MergeRule, Namespace

DEFAULT_STORAGE_DAYS = 30
DEFAULT_IDLE_SECONDS = 1_800
"""When a session ends that leaves something behind, if its agent does not say."""

OWN_STORE_SUFFIX = "-turnwright"
"""A memoryId has ten characters behind its last dash (AgentCore Memory's form, which botocore checks in part)."""

_TEMPLATES = {"ACTOR": "/{name}/{{actorId}}/", "SESSION": "/{name}/{{actorId}}/{{sessionId}}/"}


def store_of(definition: Mapping[str, Any]) -> str:
    """The memory store of an agent: the one that its file names, or its own."""
    memory = definition.get("memoryConfiguration", {})
    return str(memory.get("memoryStore") or f"{definition['agentId']}{OWN_STORE_SUFFIX}")


def configuration(definition: Mapping[str, Any]) -> MemoryConfiguration:
    """The memory configuration of a definition that keeps its schema."""
    memory = definition.get("memoryConfiguration", {})
    default = MemoryConfiguration(store_of(definition))
    storage_days = int(memory.get("storageDays", DEFAULT_STORAGE_DAYS))
    namespaces = tuple(
        namespace(fields, definition["agentId"], storage_days) for fields in memory.get("namespaces", ())
    )
    summarizes = "SESSION_SUMMARY" in memory.get("enabledMemoryTypes", ())
    consolidates = MemoryConfiguration(default.store, namespaces, summarizes).consolidates
    idle_seconds = memory.get("idleSessionTTLInSeconds", DEFAULT_IDLE_SECONDS if consolidates else None)
    summaries = memory.get("sessionSummaryConfiguration", {})
    return MemoryConfiguration(
        store=default.store,
        namespaces=namespaces,
        summarizes=summarizes,
        recent_summaries=int(summaries.get("maxRecentSessions", default.recent_summaries)),
        storage_days=storage_days,
        idle_seconds=None if idle_seconds is None else int(idle_seconds),
        models=(memory["modelId"],) if "modelId" in memory else tuple(definition["foundationModels"]),
        embedding_model=memory.get("embeddingModelId"),
        prompt_characters=int(memory.get("inject", {}).get("maxCharacters", default.prompt_characters)),
    )


def namespace(fields: Mapping[str, Any], agent_id: str, storage_days: int) -> Namespace:
    """A namespace of the file of `agent_id`."""
    name = fields["name"]
    description = fields.get("description", name.replace("_", " "))
    access = fields.get("access", {})
    return Namespace(
        name=name,
        template=_TEMPLATES[fields.get("scope", "ACTOR")].format(name=name),
        description=description,
        merge_rule=MergeRule(fields.get("mergeRule", MergeRule.REPLACE)),
        extraction_prompt=fields.get("extractionPrompt") or default_extraction_prompt(name, description),
        ttl_days=int(fields.get("ttlDays", storage_days)),
        max_records=int(fields.get("maxRecords", 200)),
        readers=frozenset(access.get("read", (EVERYONE,))),
        writers=frozenset(access.get("write", (agent_id,))),
        inject=_injection(fields.get("inject", {})),
    )


def default_extraction_prompt(name: str, description: str) -> str:
    """For a namespace that has no prompt of its own."""
    return (
        f'Extract from the conversation what belongs to "{name}": {description}\n'
        "Take only what the user said or confirmed and what will still hold in another conversation: no small talk, no "
        "question that was merely asked, nothing that a tool can look up again. Write each fact as one short sentence "
        "about the user in the third person, complete in itself, with dates instead of words like today. Give facts "
        "that can replace each other, such as a preferred currency, one key: a noun in snake_case. If there is "
        "nothing, extract nothing."
    )


def _injection(fields: Mapping[str, Any] | bool) -> Injection | None:
    if isinstance(fields, bool):  # the schema lets only false through
        return None
    default = Injection()
    return Injection(int(fields.get("topK", default.top_k)), bool(fields.get("relevance", default.relevance)))
