"""Consolidations: which events of which session are remembered, by which agent's configuration.

Each is one execution of Consolidate Memory, however often it is started. It travels as the execution's input and as the
variable `consolidation` of the state machine; all of it is short.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from botocore.exceptions import ClientError

from turnwright.agents.memory_configuration import MemoryConfiguration, Namespace
from turnwright.memory.records.actors import Actor
from turnwright.storage.documents import json_text
from turnwright.storage.keys import NO_ACTOR, SessionId
from turnwright.tracing.execution_failures import safe_input
from turnwright.tracing.trace_events import Source


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

    @property
    def log_fields(self) -> dict[str, str]:
        """Which lines of the log are the consolidation's."""
        return {"consolidationId": self.consolidationId, "kind": self.kind}

    def skipped_letter(self, execution_arn: str, part: str, fault: str) -> dict[str, Any]:
        """The dead letter of a part, a namespace or the summary, that was skipped. It may come twice.

        `fault` is as TracePayloads lets it be written; the input holds ids alone.
        """
        return {
            "consolidationId": self.consolidationId,
            "executionArn": execution_arn,
            "skipped": part,
            "failure": {"error": "BrokenAnswer", "cause": fault},
            **safe_input(self.encode()),
        }

    def encode(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def decode(cls, fields: Mapping[str, Any]) -> "Consolidation":
        values = {name: fields[name] for name in cls.__dataclass_fields__}
        return cls(**{**values, "kind": Kind(values["kind"])})


def consolidation(
    kind: Kind,
    session: SessionId,
    from_event: str,
    to_event: str,
    *,
    agent_id: str,
    agent_version: str,
    actor_epoch: str,
) -> Consolidation:
    """The consolidation of the events behind `from_event` up to `to_event`; the same again has the same id."""
    identity = json_text([kind, session.partition, from_event, to_event])
    return Consolidation(
        consolidationId=hashlib.sha256(identity.encode()).hexdigest()[:32],
        kind=kind,
        memoryStore=session.store,
        actor=session.actor,
        sessionId=session.session,
        fromEvent=from_event,
        toEvent=to_event,
        agentId=agent_id,
        agentVersion=agent_version,
        actorEpoch=actor_epoch,
    )


def start(stepfunctions: Any, machine_arn: str, work: Consolidation) -> None:
    """Starts the execution, whose name is the consolidation's id: starting twice is one execution.

    Raises StorageUnavailable, or botocore's errors, when Step Functions does not take it; the sweep starts it again.
    """
    try:
        stepfunctions.start_execution(
            stateMachineArn=machine_arn, name=work.consolidationId, input=json_text(work.encode())
        )
    except ClientError as error:
        if error.response["Error"]["Code"] != "ExecutionAlreadyExists":
            raise
