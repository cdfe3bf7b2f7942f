"""The summaries of an actor's ended sessions, newest first. One that has expired is not there, also before DynamoDB
has deleted it.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from turnwright.errors import InvalidRequest
from turnwright.storage import keys
from turnwright.storage.clock import now_ms
from turnwright.storage.documents import json_text
from turnwright.storage.table import Item, Put, Table


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """What an ended session was about. Times are in ms, `expires_at` in seconds, None for never.

    `topics` is JSON of any shape, None if the summary has none. `prompt_version` is the digest of the prompt that the
    summary was made with.
    """

    store: str
    actor: str
    session_id: str
    session_started_at: int
    ended_at: int
    text: str
    topics: Any = None
    agent_id: str = ""
    agent_version: str = ""
    consolidation_id: str = ""
    prompt_version: str = ""
    expires_at: int | None = None

    @property
    def item_key(self) -> keys.Key:
        return keys.session_summary(self.store, self.actor, self.ended_at, self.session_id)

    def alive(self, now: int) -> bool:
        return self.expires_at is None or self.expires_at * 1000 > now

    def written(self) -> Put:
        """The write of the summary. A repeat of the same consolidation replaces it by itself."""
        return Put(self.item_key, self.encode())

    def encode(self) -> Item:
        item: Item = {
            "memoryStore": self.store,
            "actor": self.actor,
            "sessionId": self.session_id,
            "sessionStartedAt": self.session_started_at,
            "endedAt": self.ended_at,
            "text": self.text,
            "agentId": self.agent_id,
            "agentVersion": self.agent_version,
            "consolidationId": self.consolidation_id,
            "promptVersion": self.prompt_version,
        }
        if self.topics is not None:
            item["topics"] = json_text(self.topics)
        if self.expires_at is not None:
            item["expiresAt"] = self.expires_at
        return item

    @classmethod
    def decode(cls, item: Item) -> "SessionSummary":
        return cls(
            store=item["memoryStore"],
            actor=item["actor"],
            session_id=item["sessionId"],
            session_started_at=item["sessionStartedAt"],
            ended_at=item["endedAt"],
            text=item["text"],
            topics=json.loads(item["topics"]) if "topics" in item else None,
            agent_id=item["agentId"],
            agent_version=item["agentVersion"],
            consolidation_id=item["consolidationId"],
            prompt_version=item["promptVersion"],
            expires_at=item.get("expiresAt"),
        )


@dataclass(frozen=True, slots=True)
class SummaryPage:
    """Some summaries, newest first. `after` is where the next page begins, None behind the last one."""

    summaries: tuple[SessionSummary, ...]
    after: str | None


class SessionSummaries:
    """The session summaries of a table."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def latest(self, store: str, actor: str, limit: int) -> list[SessionSummary]:
        return list(self.page(store, actor, limit).summaries)

    def page(self, store: str, actor: str, limit: int, after: str | None = None) -> SummaryPage:
        """At most `limit` (1 or more) summaries behind `after`. Raises InvalidRequest if `after` is of no page."""
        if after is not None and not keys.SUMMARY_PREFIX <= after < keys.SUMMARY_PREFIX + keys.END:
            raise InvalidRequest("nextToken", "is not one that an earlier answer gave")
        now = now_ms()
        page: list[SessionSummary] = []
        for summary in self._newest_first(store, actor, limit + 1, after):
            if not summary.alive(now):
                continue
            if len(page) == limit:
                return SummaryPage(tuple(page), page[-1].item_key.sk)
            page.append(summary)
        return SummaryPage(tuple(page), None)

    def of_session(self, store: str, actor: str, session_id: str) -> list[SessionSummary]:
        """All summaries of the sessions that had this id, one for each time it ended."""
        return [summary for summary in self._newest_first(store, actor, None) if summary.session_id == session_id]

    def _newest_first(
        self, store: str, actor: str, page: int | None, after: str | None = None
    ) -> Iterator[SessionSummary]:
        """`page` is how many are read at a time: not all that is read is alive, but most of it is."""
        while True:
            items = self._table.query(
                keys.actor_partition(store, actor),
                keys.SUMMARY_PREFIX,
                keys.SUMMARY_PREFIX + keys.END,
                newest_first=True,
                limit=page,
                after=after,
            )
            read = 0
            for item in items:
                read += 1
                after = item["SK"]
                yield SessionSummary.decode(item)
            if page is None or read < page:
                return
