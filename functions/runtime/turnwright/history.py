"""Which of a session's committed turns the model is shown.

Whole turns, the newest first, as many as fit both bounds of the agent's `history`; a turn that does not fit ends the
window, so that what the model sees has no gap. If not even the newest one fits, it is shown shortened: its question and
its answer, each cut, without its tool calls. The bounds do not depend on the session's age.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from turnwright import keys
from turnwright.agents import HistoryWindow
from turnwright.clock import now_ms
from turnwright.documents import Documents
from turnwright.keys import SessionId
from turnwright.table import Item, Table

_LAST_EVENT = "~"
"""Sorts after every event id, which begin with a digit."""


@dataclass(frozen=True, slots=True)
class Window:
    """The first and the last event id that are shown, both included; both empty when nothing is."""

    first: str = ""
    last: str = ""


def fit(newest_first: Iterable[tuple[str, int]], bounds: HistoryWindow) -> Window:
    """The window over events, given as (event id, characters). The newest one is always in it."""
    first = last = ""
    characters = 0
    for turns, (event_id, length) in enumerate(newest_first, start=1):
        characters += length
        if turns > bounds.max_turns or (characters > bounds.max_characters and turns > 1):
            break
        first, last = event_id, last or event_id
    return Window(first, last)


def shortened(messages: Sequence[Mapping[str, Any]], bounds: HistoryWindow) -> list[dict[str, Any]]:
    """The question and the answer of a turn that is too long, together within the bound on characters."""
    return [
        {"role": message["role"], "content": [{"text": _cut(message, bounds.max_characters // 2)}]}
        for message in (messages[0], messages[-1])
    ]


def _cut(message: Mapping[str, Any], limit: int) -> str:
    text = "".join(block["text"] for block in message["content"] if "text" in block)
    note = f"\n[cut: the text has {len(text)} characters]"
    return text if len(text) <= limit else text[: max(0, limit - len(note))] + note


class History:
    """The committed turns of a table."""

    def __init__(self, table: Table, documents: Documents) -> None:
        self._table = table
        self._documents = documents

    def window(self, session_id: SessionId, first_event_id: str, bounds: HistoryWindow) -> Window:
        """The window as it stands now. Reads at most `max_turns` events, none before `first_event_id`.

        An event that has expired ends it, since DynamoDB deletes within days and not at once.
        """
        now = now_ms() // 1000
        events = self._table.query(
            session_id.partition,
            keys.EVENT_PREFIX + first_event_id,
            keys.EVENT_PREFIX + _LAST_EVENT,
            newest_first=True,
            limit=bounds.max_turns,
        )
        alive = takewhile(lambda event: event["expiresAt"] > now, events)
        return fit(((event["eventId"], event["characters"]) for event in alive), bounds)

    def messages(self, session_id: SessionId, window: Window, bounds: HistoryWindow) -> list[dict[str, Any]]:
        """The Converse messages of the window's turns, in order."""
        if not window.first:
            return []
        events: Sequence[Item] = list(
            self._table.query(session_id.partition, keys.EVENT_PREFIX + window.first, keys.EVENT_PREFIX + window.last)
        )
        turns = [self._documents.fetch_text(event["messages"]) for event in events]
        if sum(event["characters"] for event in events) > bounds.max_characters:
            turns = [shortened(turn, bounds) for turn in turns]
        return [message for turn in turns for message in turn]
