"""One consolidation: which events of which session are remembered, by which agent's configuration.

It travels as the input of its execution and as the variable `consolidation` of the state machine; all of it is short.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from turnwright.keys import NO_ACTOR, SessionId
from turnwright.memory.actors import Actor
from turnwright.memory.configuration import MemoryConfiguration, Namespace
from turnwright.trace_events import Source


class Kind(StrEnum):
    """What is remembered: an ended part of a session, or what a running session's window is about to lose."""

    SESSION_END = "SESSION_END"
    DIGEST = "DIGEST"


SOURCES = {Kind.SESSION_END: "CONSOLIDATION", Kind.DIGEST: "DIGEST"}
"""A record's `Provenance.source`."""


@dataclass(frozen=True, slots=True)
class Consolidation:
    """`fromEvent` is not covered any more, `toEvent` still is; an empty `fromEvent` is the session's beginning.

    `actorEpoch` is the actor's when the segment was made, "" for a session without an actor.
    """

    consolidationId: str
    kind: Kind
    memoryStore: str
    actor: str
    sessionId: str
    fromEvent: str
    toEvent: str
    agentId: str
    agentVersion: str
    actorEpoch: str

    @property
    def session(self) -> SessionId:
        return SessionId(self.memoryStore, self.actor, self.sessionId)

    @property
    def source(self) -> Source:
        """Whose trace events those of the consolidation are."""
        return Source.of_session(self.session, self.agentId, self.agentVersion, self.consolidationId)

    @property
    def owner(self) -> Actor | None:
        """The actor as every write has to find it; None for a session without one."""
        return None if self.actor == NO_ACTOR else Actor(self.memoryStore, self.actor, self.actorEpoch)

    def namespaces(self, configuration: MemoryConfiguration) -> list[Namespace]:
        """The namespaces that it extracts for: those that its agent may write to, for a digest those of the session.

        A session that no agent took part in writes to all of its store's.
        """
        return [
            namespace
            for namespace in configuration.namespaces
            if not namespace.holds_summaries
            and (namespace.of_session or self.kind is Kind.SESSION_END)
            and (not self.agentId or namespace.writable_by(self.agentId))
        ]

    def path(self, namespace: Namespace) -> str:
        return namespace.path(self.actor, self.sessionId)

    def owner_of(self, namespace: Namespace) -> str:
        """In whose partition the namespace's records are: the actor's, or nobody's if its path is shared."""
        return namespace.owner(self.actor)

    def encode(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def decode(cls, fields: Mapping[str, Any]) -> "Consolidation":
        values = {name: fields[name] for name in cls.__dataclass_fields__}
        return cls(**{**values, "kind": Kind(values["kind"])})
