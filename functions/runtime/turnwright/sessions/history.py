"""Which of a session's committed turns the model is shown.

Whole turns, the newest first, as many as fit both bounds of the agent's `history`; a turn that does not fit ends the
window, so that what the model sees has no gap. If not even the newest one fits, it is shown shortened: its question and
its answer, each cut, without its tool calls. The bounds do not depend on the session's age. An event of CreateEvent
counts as a turn; one of another branch than the main one is not seen, nor what IngestData added.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import Any

from turnwright.agents.definitions import HistoryWindow
from turnwright.sessions import event_messages
from turnwright.storage import keys
from turnwright.storage.clock import now_ms
from turnwright.storage.documents import Documents
from turnwright.storage.keys import SessionId
from turnwright.storage.table import Item, Table

_MOST_PAGES = 4
"""So many times the window's turns are read at most where events that are not shown lie between them."""

_LAST_EVENT = "~"
"""Sorts after every event id, which begin with a digit."""


@dataclass(frozen=True, slots=True)
class Window:
    """The first and the last event id that are shown, both included; both empty when nothing is. `whole` says that they
    are known to be all events of the session.
    """

    first: str = ""
    last: str = ""
    whole: bool = field(default=False, compare=False)


def fit(newest_first: Iterable[tuple[str, int]], bounds: HistoryWindow) -> Window:
    """The window over events, given as (event id, characters). The newest one is always in it."""
    first = last = ""
    characters = turns = 0
    for turns, (event_id, length) in enumerate(newest_first, start=1):
        characters += length
        if turns > bounds.max_turns or (characters > bounds.max_characters and turns > 1):
            return Window(first, last)
        first, last = event_id, last or event_id
    return Window(first, last, whole=turns < bounds.max_turns)


def shortened(messages: Sequence[Mapping[str, Any]], bounds: HistoryWindow) -> list[dict[str, Any]]:
    """The question and the answer of a turn that is too long, together within the bound on characters.

    The answer is what was said last: a tool's result may follow it, with which the turn ended without a word more.
    """
    said = [message for message in messages if any("text" in block for block in message["content"])]
    ends = [said[0], said[-1]] if len(said) > 1 else said
    return [
        {"role": message["role"], "content": [{"text": _cut(message, bounds.max_characters // 2)}]} for message in ends
    ]


def _cut(message: Mapping[str, Any], limit: int) -> str:
    text = "".join(block["text"] for block in message["content"] if "text" in block)
    note = f"\n[cut: the text has {len(text)} characters]"
    return text if len(text) <= limit else text[: max(0, limit - len(note))] + note


class History:
    """The committed turns and the events of a table."""

    def __init__(self, table: Table, documents: Documents) -> None:
        self._table = table
        self._documents = documents

    def window(self, session_id: SessionId, first_event_id: str, bounds: HistoryWindow) -> Window:
        """The window as it stands now. Reads `max_turns` events, none before `first_event_id`, and a bounded number
        more where there are events that are not shown.

        An event that has expired ends it, since DynamoDB deletes within days and not at once.
        """
        now = now_ms() // 1000
        newest_first = self._newest_first(session_id, first_event_id, bounds.max_turns)
        alive = takewhile(lambda event: event["expiresAt"] > now, newest_first)
        lengths = ((event["eventId"], event_messages.characters(event)) for event in islice(alive, bounds.max_turns))
        return fit(lengths, bounds)

    def messages(self, session_id: SessionId, window: Window, bounds: HistoryWindow) -> list[dict[str, Any]]:
        """The Converse messages of the window's turns, in order."""
        if not window.first:
            return []
        items = self._table.query(
            session_id.partition, keys.EVENT_PREFIX + window.first, keys.EVENT_PREFIX + window.last
        )
        shown: Sequence[Item] = [item for item in items if event_messages.is_shown(item)]
        turns = [event_messages.messages(item, self._documents) for item in shown]
        if sum(map(event_messages.characters, shown)) > bounds.max_characters:
            turns = [shortened(turn, bounds) for turn in turns]
        return [message for turn in turns for message in turn]

    def _newest_first(self, session_id: SessionId, first_event_id: str, page: int) -> Iterator[Item]:
        """The events that are shown."""
        after: str | None = None
        for _ in range(_MOST_PAGES):
            read = 0
            for item in self._table.query(
                session_id.partition,
                keys.EVENT_PREFIX + first_event_id,
                keys.EVENT_PREFIX + _LAST_EVENT,
                newest_first=True,
                limit=page,
                after=after,
            ):
                read, after = read + 1, item["SK"]
                if event_messages.is_shown(item):
                    yield item
            if read < page:
                return
