"""What ListSessions and ListActors do."""

from collections.abc import Iterator, Mapping
from typing import Any

from turnwright.api.agentcore import paging
from turnwright.api.agentcore.event_operations import DEFAULT_RESULTS, Event
from turnwright.api.agentcore.operations import memory_id, seconds
from turnwright.api.agentcore.stores import Stores
from turnwright.memory.records.actors import Actor
from turnwright.sessions.event_messages import is_ingested
from turnwright.storage import keys
from turnwright.storage.clock import now_ms
from turnwright.storage.keys import SessionId
from turnwright.storage.table import Item, Table


class Listings:
    """Each operation takes checked fields and returns the answer."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._stores = Stores(table)

    def sessions(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """An actor's sessions, by their ids. The index that has them is some milliseconds behind the table."""
        store = self._stores.require(memory_id(fields))
        limit = fields.get("maxResults", DEFAULT_RESULTS)
        only_with_events = (fields.get("filter") or {}).get("eventFilter") is not None
        # Of a session that is nothing but ingested content nobody is told.
        position = paging.position("ListSessions", fields, 1)
        page: list[Item] = []
        for item in self._sessions(store.store_id, fields["actorId"], position[0] if position else None, limit + 1):
            if (only_with_events or is_ingested(item)) and not self._has_events(item):
                continue
            if len(page) == limit:
                last = page[-1]["sessionId"]
                return {**_summaries(page), "nextToken": paging.token("ListSessions", fields, [last])}
            page.append(item)
        return _summaries(page)

    def actors(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The actors that have sessions or records, by their ids."""
        store = self._stores.require(memory_id(fields))
        limit = fields.get("maxResults", DEFAULT_RESULTS)
        position = paging.position("ListActors", fields, 1)
        after = keys.actor(store.store_id, position[0]).sk if position else None
        page: list[str] = []
        partition = keys.store_partition(store.store_id)
        for item in self._table.query(partition, keys.ACTOR_PREFIX, keys.ACTOR_PREFIX + keys.END, after=after):
            actor = Actor.decode(item)
            if actor.erasing:
                continue
            if len(page) == limit:
                return {**_actors(page), "nextToken": paging.token("ListActors", fields, [page[-1]])}
            page.append(actor.actor)
        return _actors(page)

    def _sessions(self, store_id: str, actor: str, after: str | None, chunk: int) -> Iterator[Item]:
        """The items of the actor's sessions behind the session id `after`, read `chunk` at a time."""
        first = keys.SESSION_PREFIX
        if after is not None:
            first = keys.owned_session(SessionId(store_id, actor, after))["ownerSK"] + keys.NEXT
        partition = keys.actor_partition(store_id, actor)
        while True:
            found = list(
                self._table.query_index(
                    keys.OWNED_INDEX, partition, first, keys.SESSION_PREFIX + keys.END, limit=min(chunk, 100)
                )
            )
            now = now_ms()
            for item in self._table.get_many([key for key, _ in found]) if found else []:
                if item is not None and item["expiresAt"] * 1000 > now and "lastEventId" in item:
                    yield item
            if len(found) < min(chunk, 100):
                return
            first = found[-1][1] + keys.NEXT

    def _has_events(self, session: Item) -> bool:
        events = self._table.query(session["PK"], keys.EVENT_PREFIX, keys.EVENT_PREFIX + keys.END, newest_first=True)
        now = now_ms()
        return any(Event.decode(item).alive(now) and not is_ingested(item) for item in events)


def _summaries(items: list[Item]) -> dict[str, Any]:
    return {
        "sessionSummaries": [
            {
                "sessionId": item["sessionId"],
                "actorId": item["actor"],
                "createdAt": seconds(int(item.get("createdAt") or item.get("updatedAt") or 0)),
            }
            for item in items
        ]
    }


def _actors(actors: list[str]) -> dict[str, Any]:
    return {"actorSummaries": [{"actorId": actor} for actor in actors]}
