"""A memory store in moto, and what callers of the memory API do to it."""

import json
from dataclasses import dataclass
from typing import Any

from tests.unit.stored_turns import StoredTurns
from turnwright.agentcore.control import Defaults, Memories, Place
from turnwright.agentcore.events import Events
from turnwright.agentcore.listings import Listings
from turnwright.agentcore.records import MemoryRecords

FACTS = {"semanticMemoryStrategy": {"name": "facts", "namespaces": ["/facts/{actorId}/"]}}
SUMMARIES = {"summaryMemoryStrategy": {"name": "sums", "namespaces": ["/sums/{actorId}/{sessionId}/"]}}


@dataclass(slots=True, repr=False)
class Store:
    """The operations, bound to one store."""

    stored: StoredTurns
    memories: Memories
    events: Events
    listings: Listings
    records: MemoryRecords
    memory: dict[str, Any]

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
    memories = Memories(
        stored.table,
        stored.documents,
        Place("aws", "us-east-1", "123456789012"),
        Defaults(("model-1",), None),
        lambda: 29_000,
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
    )
