"""A session's events as the text that a model extracts from, and its cut into chunks.

A chunk is read by one model call for each namespace, so that a consolidation costs in proportion to its session. What
memory itself gave to the agent is not in a transcript: what was injected is never in a stored message, and the calls of
the memory tools are left out here.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from turnwright.storage.clock import told_moment

CHUNK_CHARACTERS = 40_000
"""How much of a session one model call reads: about 10,000 tokens."""

MOST_EXTRACTIONS = 1_000
"""Entries of the Map over namespaces and chunks; each makes some ten of the 25,000 events of an execution's history.
The chunks of a session that would need more are longer.
"""

WHEN = """\
- A line's "at" is when it was said, in UTC; the user's own time zone is not known unless the user says where they \
are. Write no time that counts from the day on which it was said, in whatever language: of "tomorrow", "next week", \
"two years ago", "my daughter is 3" make the date, the week, the year, the age with its day (2026-03-03; in the week \
of 2026-03-09; in 2024; was 3 on 2026-03-02). What cannot be counted out keeps its words with the day behind them: \
(said on 2026-03-02).
"""
"""What a model is told about the time of what it reads here, a rule of its prompt."""

_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<\x85\u2028\u2029"}

_TOOL_CHARACTERS = 1_000
"""As much of a tool's arguments and of its result is told; facts about the user are in what was said."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a session. `at` is when it happened, in ms; `turn_id` is "" for one that CreateEvent made."""

    event_id: str
    turn_id: str
    at: int
    messages: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Chunk:
    """The events from `first` to `last`, both included. Of an event that is longer than a chunk `characters` from
    `start` on; it is the only one then. With `characters` 0 the events are whole.
    """

    number: int
    first: str
    last: str
    start: int = 0
    characters: int = 0

    def encode(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def decode(cls, fields: Mapping[str, Any]) -> "Chunk":
        return cls(**{name: fields[name] for name in cls.__dataclass_fields__})


def chunks(events: Iterable[tuple[str, int]], bound: int = CHUNK_CHARACTERS, border: str = "") -> list[Chunk]:
    """Cuts events, given as (event id, characters), into chunks of at most `bound` characters.

    No chunk holds events of both sides of `border`, the last event of a digest.
    """
    cut: list[Chunk] = []
    first = last = ""
    characters = 0

    def close() -> None:
        nonlocal first, last, characters
        if first:
            cut.append(Chunk(len(cut), first, last))
        first, last, characters = "", "", 0

    for event_id, length in events:
        if first and (characters + length > bound or last <= border < event_id):
            close()
        if length > bound:
            overlap = bound // 10  # so that what is said at a border is read whole
            for start in range(0, length, bound - overlap):
                cut.append(Chunk(len(cut), event_id, event_id, start, bound))
            continue
        first, last, characters = first or event_id, event_id, characters + length
    close()
    return cut


def bound_for(characters: int, namespaces: int) -> int:
    """How long the chunks of a session of so many characters are."""
    most_chunks = max(1, MOST_EXTRACTIONS // max(1, namespaces) // 2)
    return max(CHUNK_CHARACTERS, -(-characters // most_chunks))


def text(events: Sequence[Event], chunk: Chunk, memory_tools: Collection[str] = ()) -> str:
    """What a model reads of a chunk: a line of JSON for each event, in order, with the moment at which it was said; ""
    if nothing was said in it.

    Calls of `memory_tools` are left out. `<` is escaped as JSON allows, so that nothing that was said can end the
    element that the text stands in.
    """
    if not chunk.characters:
        return "\n".join(line for event in events if (line := _line(event, _said(event, memory_tools))))
    start, end = chunk.start, chunk.start + chunk.characters
    return "\n".join(_line(event, list(_part(_said(event, memory_tools), start, end))) for event in events)


def escaped(value: Any) -> str:
    """A JSON value as data in a prompt: on one line, whatever is called a line, and without a `<`."""
    return json.dumps(value, ensure_ascii=False).translate(_ESCAPES)


def _line(event: Event, said: Sequence[Mapping[str, str]]) -> str:
    return escaped({"event": event.event_id, "at": told_moment(event.at), "said": said}) if said else ""


def _part(said: Iterable[Mapping[str, str]], start: int, end: int) -> Iterator[Mapping[str, str]]:
    """What lies between two characters of what was said, each entry counting as many as it has."""
    position = 0
    for entry in said:
        for who, words in entry.items():
            part = words[max(0, start - position) : max(0, end - position)]
            position += len(words)
            if part:
                yield {who: part}


def _said(event: Event, memory_tools: Collection[str]) -> list[dict[str, str]]:
    hidden = {
        block["toolUse"]["toolUseId"]
        for message in event.messages
        for block in message["content"]
        if "toolUse" in block and block["toolUse"]["name"] in memory_tools
    }
    return [
        entry
        for message in event.messages
        for block in message["content"]
        if (entry := _entry(message["role"], block, hidden))
    ]


def _entry(role: str, block: Mapping[str, Any], hidden: set[str]) -> dict[str, str]:
    match block:
        case {"text": words} if words.strip():
            return {role: words}
        case {"toolUse": {"toolUseId": identifier, "name": name, "input": arguments}} if identifier not in hidden:
            return {"called": _cut(f"{name} {json.dumps(arguments, ensure_ascii=False)}")}
        case {"toolResult": {"toolUseId": identifier, "content": content}} if identifier not in hidden:
            return {"result": _cut("\n".join(part["text"] for part in content if "text" in part))}
        case _:
            return {}


def _cut(words: str) -> str:
    return words if len(words) <= _TOOL_CHARACTERS else words[:_TOOL_CHARACTERS] + " …"
