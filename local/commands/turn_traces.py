"""The trace events of a turn or a session in a running stack: the kept ones of a turn that was traced, else those in
the log, which has the events of all turns.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from local.terminal.trace_rows import is_event
from turnwright.storage import keys
from turnwright.storage.documents import Documents
from turnwright.storage.table import Table

Event = Mapping[str, Any]

_BEGINNING = 6
"""How many characters of a turn's id are enough, if no other turn's begins so."""


class NoTrace(Exception):
    """Nothing is known by that name. The message is one line."""


@dataclass(frozen=True, slots=True)
class TraceReader:
    """`logs` is a client of CloudWatch Logs, `log_group` the group of the functions."""

    logs: Any
    log_group: str
    table: Table
    documents: Documents

    def read(self, named: str) -> list[Event]:
        """The events, in order, of a turn (its id, a beginning of it, or `last`) or of a session (its id).

        Raises NoTrace.
        """
        kept = self._kept(named)
        if kept:
            return kept
        logged = list(self._logged())
        turn_ids = list(dict.fromkeys(event["turnId"] for event in logged if event["turnId"]))
        if named == "last" and turn_ids:
            return self._of_turn(turn_ids[-1], logged)
        if any(event["sessionId"] == named for event in logged):
            return self._of_session(named, logged)
        begun = [turn_id for turn_id in turn_ids if turn_id.startswith(named)] if len(named) >= _BEGINNING else []
        if len(begun) > 1:
            raise NoTrace(f"{len(begun)} turns begin with {named}; give more of the id")
        if not begun:
            raise NoTrace(f"there is no trace of a turn or session {named}")
        return self._of_turn(begun[0], logged)

    def _of_turn(self, turn_id: str, logged: list[Event]) -> list[Event]:
        return self._kept(turn_id) or [event for event in logged if event["turnId"] == turn_id]

    def _of_session(self, session_id: str, logged: list[Event]) -> list[Event]:
        """The turns in the order in which they began; a session of that id may be several actors'."""
        mine = [event for event in logged if event["sessionId"] == session_id]
        events: list[Event] = []
        for turn_id in dict.fromkeys(event["turnId"] for event in mine):
            outside = [event for event in mine if not event["turnId"]]
            events += self._of_turn(turn_id, mine) if turn_id else outside
        return events

    def _kept(self, turn_id: str) -> list[Event]:
        items = self.table.query(keys.turn_partition(turn_id), keys.TRACE_PREFIX, keys.TRACE_PREFIX + keys.END)
        return _in_order(self.documents.fetch_text(item["event"]) for item in items)

    def _logged(self) -> list[Event]:
        pages = self.logs.get_paginator("filter_log_events").paginate(logGroupName=self.log_group)
        lines = (event["message"] for page in pages for event in page["events"])
        return _in_order(event for event in map(_event, lines) if event)


def _in_order(events: Iterator[Event]) -> list[Event]:
    return sorted(events, key=lambda event: event["timestamp"])


def _event(line: str) -> Event | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    if not isinstance(entry, dict) or not is_event(entry):
        return None
    return {name: value for name, value in entry.items() if name not in ("level", "message")}
