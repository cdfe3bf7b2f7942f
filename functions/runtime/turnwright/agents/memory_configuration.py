"""What is remembered, for how long, by whom: a memory configuration as the values that the runtime works with.

It comes from an agent file's `memoryConfiguration` or from the strategies of a store that CreateMemory made; nothing
behind this module knows which. A namespace of the configuration is one strategy in AgentCore Memory's words.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from turnwright.storage.keys import NO_ACTOR

EVERYONE = "*"
"""In an access list: every agent of the store."""

ACTOR_VARIABLE = "actorId"
SESSION_VARIABLE = "sessionId"

RECORD_BYTES = 16 * 1024
"""The longest text of a record, in bytes of UTF-8."""

SUMMARY = "~summary"
"""In a namespace's place: the summary of a session. No namespace is called so."""

DIGEST_NAMESPACE = "session_digest"
"""The namespace of session scope in which a long session's digest is kept; every configuration has it."""

_DIGEST_TEMPLATE = f"/{DIGEST_NAMESPACE}/{{actorId}}/{{sessionId}}/"

_VARIABLE = re.compile(r"\{([a-zA-Z][a-zA-Z0-9]*)\}")


class MergeRule(StrEnum):
    """What becomes of an extracted fact whose namespace has records already."""

    REPLACE = "REPLACE"
    KEEP_FIRST = "KEEP_FIRST"
    APPEND = "APPEND"
    MODEL = "MODEL"


@dataclass(frozen=True, slots=True)
class Injection:
    """How many records of a namespace a prompt gets: the newest, or with `relevance` those nearest to the input."""

    top_k: int = 10
    relevance: bool = False


@dataclass(frozen=True, slots=True)
class Namespace:
    """A named part of an actor's memory.

    `template` is its path with `{actorId}` and, if it is of session scope, `{sessionId}`. `readers` and `writers` are
    agent ids or `EVERYONE`. A namespace without `inject` is only searched. Beyond `max_records` the records that were
    not written for longest go. `merge_prompt` is what the model of MODEL is told besides. `model` is asked before the
    configuration's own to extract, `merge_model` to merge. One that `holds_summaries` gets the summaries of ended
    sessions as records, and nothing is extracted for it: its `extraction_prompt` is what the model that summarizes is
    told besides, its `model` the one that is asked first.
    """

    name: str
    template: str
    description: str
    merge_rule: MergeRule
    extraction_prompt: str
    ttl_days: int
    max_records: int
    readers: frozenset[str]
    writers: frozenset[str]
    inject: Injection | None
    merge_prompt: str = ""
    model: str = ""
    merge_model: str = ""
    holds_summaries: bool = False

    @property
    def of_session(self) -> bool:
        return f"{{{SESSION_VARIABLE}}}" in self.template

    def path(self, actor: str, session: str) -> str:
        """The namespace's path for an actor's session: what its records are stored under."""
        return filled(self.template, {ACTOR_VARIABLE: actor, SESSION_VARIABLE: session})

    def owner(self, actor: str) -> str:
        """Whose the records of the actor's path are: a path without `{actorId}` is shared, and nobody's alone."""
        return actor if f"{{{ACTOR_VARIABLE}}}" in self.template else NO_ACTOR

    def readable_by(self, agent_id: str) -> bool:
        return not self.readers.isdisjoint((agent_id, EVERYONE))

    def writable_by(self, agent_id: str) -> bool:
        return not self.writers.isdisjoint((agent_id, EVERYONE))


@dataclass(frozen=True, slots=True)
class SummaryStyle:
    """How ended sessions are summarized: what the model is told besides, and which model is asked first."""

    prompt: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class MemoryConfiguration:
    """What the sessions of an agent, or of a store, are remembered by.

    `models` extract and summarize, in order. `embedding_model` None means lexical search. With `idle_seconds` None a
    session never ends by being idle. `recent_summaries` of the actor's ended sessions are shown to a turn; all that is
    shown of memory has at most `prompt_characters`.
    """

    store: str
    namespaces: tuple[Namespace, ...] = ()
    summarizes: bool = False
    recent_summaries: int = 5
    storage_days: int = 30
    idle_seconds: int | None = None
    models: tuple[str, ...] = ()
    embedding_model: str | None = None
    prompt_characters: int = 8_000

    @property
    def remembers(self) -> bool:
        """Whether anything is remembered but the session's own turns: without it there are no digests either."""
        return self.summarizes or bool(self.namespaces)

    @property
    def consolidates(self) -> bool:
        """Whether an ended session leaves anything behind."""
        return self.summarizes or any(not namespace.of_session for namespace in self.namespaces)

    @property
    def summary_styles(self) -> Mapping[str, SummaryStyle]:
        """All styles in which a session is summarized, the session's own under `SUMMARY`.

        A namespace that wants its summaries in another style has it under its name; all others get the session's own.
        """
        wanted = {n.name: SummaryStyle(n.extraction_prompt, n.model) for n in self.namespaces if n.holds_summaries}
        plain = SummaryStyle()
        own = plain if plain in wanted.values() else next(iter(wanted.values()), plain)
        return {SUMMARY: own} | {name: style for name, style in wanted.items() if style != own}

    def models_from(self, first: str) -> tuple[str, ...]:
        """The models to ask, in order; `first`, unless it is "", before the others."""
        return tuple(dict.fromkeys(model for model in (first, *self.models) if model))

    def namespace(self, name: str) -> Namespace | None:
        return next((namespace for namespace in self.namespaces if namespace.name == name), None)

    def of_path(self, path: str) -> tuple[Namespace, Mapping[str, str]] | None:
        """The namespace that a path belongs to, and the variables in it; None for a path of no namespace."""
        for namespace in self.namespaces:
            variables = matched(namespace.template, path)
            if variables is not None:
                return namespace, variables
        return None


def digest_path(actor: str, session: str) -> str:
    """The path of the namespace that a session's digest is in."""
    return filled(_DIGEST_TEMPLATE, {ACTOR_VARIABLE: actor, SESSION_VARIABLE: session})


def filled(template: str, variables: Mapping[str, str]) -> str:
    """The path of a template; a variable without a value stays as it is."""
    return _VARIABLE.sub(lambda match: variables.get(match[1], match[0]), template)


def matched(template: str, path: str) -> dict[str, str] | None:
    """The variables with which the template becomes the path, or None.

    Of the variables only an actor id may have slashes in it, so that a path can be read in one way alone.
    """
    parts = _VARIABLE.split(template)
    values = {part: ".+" if part == ACTOR_VARIABLE else "[^/]+" for part in parts[1::2]}
    pattern = "".join(
        f"(?P<{part}>{values[part]})" if index % 2 else re.escape(part) for index, part in enumerate(parts)
    )
    found = re.fullmatch(pattern, path)
    return found.groupdict() if found else None
