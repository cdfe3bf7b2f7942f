"""A session's events as a consolidation reads them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from turnwright.memory.consolidation.transcript import Event
from turnwright.sessions import event_messages
from turnwright.storage import keys
from turnwright.storage.clock import now_ms
from turnwright.storage.documents import Documents
from turnwright.storage.keys import SessionId
from turnwright.storage.table import Item, Table


@dataclass(frozen=True, slots=True)
class EventSize:
    """An event without what was said in it. `is_turn` tells a committed turn from what CreateEvent made."""

    event_id: str
    characters: int
    at: int
    is_turn: bool


class SessionEvents:
    """The events of a session's main branch. One that has expired is not there, also before DynamoDB has deleted it."""

    def __init__(self, table: Table, documents: Documents, session: SessionId) -> None:
        self._table = table
        self._documents = documents
        self._session = session

    def sizes(self, behind: str, to: str) -> list[EventSize]:
        """The events behind `behind` up to `to`, in order."""
        return [
            EventSize(item["eventId"], _length(item), _moment(item), "turnId" in item)
            for item in self._items(behind, to)
            if item["eventId"] > behind
        ]

    def read(self, first: str, last: str) -> list[Event]:
        """The events from `first` to `last`, both included, with what was said."""
        return [
            Event(
                item["eventId"], item.get("turnId", ""), _moment(item), event_messages.messages(item, self._documents)
            )
            for item in self._items(first, last)
        ]

    def _items(self, first: str, last: str) -> Iterator[Item]:
        now = now_ms() // 1000
        items = self._table.query(self._session.partition, keys.EVENT_PREFIX + first, keys.EVENT_PREFIX + last)
        return (
            item for item in items if item["expiresAt"] > now and event_messages.in_main_branch(item) and _is_read(item)
        )


def _is_read(item: Item) -> bool:
    """CreateEvent may say that an event is not to be remembered."""
    return item.get("extractionMode") != "SKIP"


def _moment(item: Item) -> int:
    """When the event happened, in ms: its id begins with it."""
    return int(item["eventId"].partition("#")[0])


def _length(item: Item) -> int:
    """At least as many characters as what was said has."""
    if "characters" in item:
        return event_messages.characters(item)
    stowed = json.loads(item["payload"])
    return int(stowed["bytes"]) if "object" in stowed else len(item["payload"])
