"""The digest of a running session: one record in a namespace of session scope that every configuration has."""

from dataclasses import replace
from uuid import UUID, uuid5

from turnwright.agents.memory_configuration import DIGEST_NAMESPACE
from turnwright.memory.records import records
from turnwright.memory.records.records import Provenance, Record
from turnwright.memory.session_ends.consolidations import SOURCES, Consolidation
from turnwright.storage.clock import expiry, now_ms
from turnwright.storage.keys import NO_ACTOR, SessionId
from turnwright.storage.table import Table, Write

DIGEST_KEY = "digest"

_RECORD_IDS = UUID("c0e1b6a2-3c5f-4d0f-8f2c-6d3a5a9b7e11")


def digest_path(session: SessionId) -> str:
    return f"/{DIGEST_NAMESPACE}/{session.actor}/{session.session}/"


def digest_id(session: SessionId) -> str:
    """The id of a session's digest, of which there is one at most."""
    return f"mem-{uuid5(_RECORD_IDS, session.partition)}"


class DigestRecord:
    """The digest of a consolidation's session."""

    def __init__(self, table: Table, consolidation: Consolidation) -> None:
        self._table = table
        self._consolidation = consolidation
        self._path = digest_path(consolidation.session)

    def read(self) -> Record | None:
        session = self._consolidation.session
        return records.Records(self._table).at(session.store, session.actor, self._path, digest_id(session))

    def former(self) -> str:
        """The digest that this one continues; "" if the one that is there covers something else: it is of an earlier
        session of the same id.
        """
        record = self.read()
        return record.text if record and record.provenance.event_id == self._consolidation.fromEvent else ""

    def writes(self, text: str, prompt_version: str, storage_days: int) -> list[Write]:
        """The writes of the new digest, on the condition that the one that was there is not changed."""
        work, now = self._consolidation, now_ms()
        session = work.session
        before = self.read()
        after = Record(
            store=session.store,
            actor=session.actor,
            namespace=self._path,
            record_id=digest_id(session),
            text=text,
            provenance=Provenance(
                source=SOURCES[work.kind],
                session_id=session.session,
                event_id=work.toEvent,
                agent_id=work.agentId,
                agent_version=work.agentVersion,
                consolidation_id=work.consolidationId,
                prompt_version=prompt_version,
            ),
            strategy=DIGEST_NAMESPACE,
            key=DIGEST_KEY,
            created_at=before.created_at if before else now,
            updated_at=now,
            timestamp=int(work.toEvent.partition("#")[0]),
            expires_at=expiry(now, storage_days),
        )
        write = records.changed(before, replace(after)) if before else records.added(after)
        if session.actor == NO_ACTOR:
            return [write]
        return [write, records.known(session.store, session.actor, self._path)]
