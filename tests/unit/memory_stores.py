"""A memory store in moto, and what callers of the memory API do to it."""

import json
from dataclasses import dataclass, field
from typing import Any

from tests.unit.stored_turns import StoredTurns
from turnwright.api.agentcore.event_operations import Events
from turnwright.api.agentcore.listings import Listings
from turnwright.api.agentcore.record_operations import MemoryRecords
from turnwright.api.agentcore.store_erasure import StoreErasure
from turnwright.api.agentcore.store_operations import Defaults, Memories, Place
from turnwright.memory.erasure.erase_memory import Erasure, Progress
from turnwright.memory.erasure.erasures import Erasures

FACTS = {"semanticMemoryStrategy": {"name": "facts", "namespaces": ["/facts/{actorId}/"]}}
SUMMARIES = {"summaryMemoryStrategy": {"name": "sums", "namespaces": ["/sums/{actorId}/{sessionId}/"]}}


MACHINE = "arn:aws:states:us-east-1:123456789012:stateMachine:erasures"
TURN_MACHINE = "arn:aws:states:us-east-1:123456789012:stateMachine:turns"


@dataclass(slots=True, repr=False)
class Deletions:
    """Step Functions with the machine that erases: `finish` does what its executions do."""

    stored: StoredTurns
    started: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)

    def start_execution(self, **arguments: str) -> None:
        assert arguments["stateMachineArn"] == MACHINE
        request = json.loads(arguments["input"])
        assert request.keys() == {"memoryStore"}
        self.started.append(request["memoryStore"])

    def stop_execution(self, **arguments: str) -> None:
        self.stopped.append(arguments["executionArn"].rpartition(":")[2])

    def look(self, store_id: str) -> Progress:
        """One invocation of the machine's function."""
        table, documents = self.stored.table, self.stored.documents

        def of_actor(actor: str, erasure_id: str) -> Erasure:
            return Erasure(table, documents, self, TURN_MACHINE, store_id, actor, erasure_id)

        return StoreErasure(table, store_id, of_actor).run()

    def finish(self) -> None:
        for store_id in self.started:
            while not (progress := self.look(store_id)).done:
                self.stored.clock.ms += progress.waitSeconds * 1000


@dataclass(slots=True, repr=False)
class Store:
    """The operations, bound to one store."""

    stored: StoredTurns
    memories: Memories
    events: Events
    listings: Listings
    records: MemoryRecords
    memory: dict[str, Any]
    deletions: Deletions

    @property
    def id(self) -> str:
        return str(self.memory["id"])

    def create_event(self, text: str = "Hi", *, actor: str = "a", session: str = "s", **more: Any) -> dict[str, Any]:
        fields = {
            "memoryId": self.id,
            "actorId": actor,
            "sessionId": session,
            "eventTimestamp": self.stored.clock.ms / 1000,
            "payload": [{"conversational": {"role": "USER", "content": {"text": text}}}],
            **more,
        }
        event: dict[str, Any] = self.events.create(fields)["event"]
        return event

    def ingest(self, *payload: dict[str, Any], actor: str = "a", session: str = "s", **more: Any) -> str:
        """The session's id."""
        fields = {
            "memoryId": self.id,
            "actorId": actor,
            "sessionId": session,
            "contentTimestamp": self.stored.clock.ms / 1000,
            "source": {"inline": {"payload": list(payload)}},
            **more,
        }
        return str(self.events.ingest({name: value for name, value in fields.items() if value})["sessionId"])

    def list_events(self, *, actor: str = "a", session: str = "s", **more: Any) -> dict[str, Any]:
        return self.events.page({"memoryId": self.id, "actorId": actor, "sessionId": session, **more})

    def texts(self, **more: Any) -> list[str]:
        """What was said, newest first."""
        return [
            entry["conversational"]["content"]["text"]
            for event in self.list_events(**more)["events"]
            for entry in event["payload"]
        ]

    def remember(self, path: str, *texts: str, **more: Any) -> list[str]:
        """Creates records and returns their ids."""
        entries = [
            {
                "requestIdentifier": str(number),
                "namespaces": [path],
                "content": {"text": text},
                "timestamp": self.stored.clock.ms / 1000,
                **more,
            }
            for number, text in enumerate(texts)
        ]
        answer = self.records.create({"memoryId": self.id, "records": entries})
        assert answer["failedRecords"] == []
        return [entry["memoryRecordId"] for entry in answer["successfulRecords"]]

    def recalled(self, path: str, *, exact: bool = False, **more: Any) -> list[str]:
        """The texts of the records that a path means."""
        field = "namespace" if exact else "namespacePath"
        answer = self.records.page({"memoryId": self.id, field: path, "maxResults": 100, **more})
        return [record["content"]["text"] for record in answer["memoryRecordSummaries"]]


def new_store(stored: StoredTurns, *strategies: Any, name: str = "Store", days: int = 30) -> Store:
    deletions = Deletions(stored)
    memories = Memories(
        stored.table,
        Place("aws", "us-east-1", "123456789012"),
        Defaults(("model-1",), None),
        Erasures(deletions, MACHINE, "r"),
    )
    fields = {"name": name, "eventExpiryDuration": days, "memoryStrategies": json.loads(json.dumps(strategies))}
    memory = memories.create(fields)["memory"]
    table, documents = stored.table, stored.documents
    return Store(
        stored,
        memories,
        Events(table, documents, pause=lambda _: None),
        Listings(table),
        MemoryRecords(table, pause=lambda _: None),
        memory,
        deletions,
    )
