"""Every key of the one table, and every object name of the bucket.

An identifier that comes from outside is percent-encoded where it enters a key, so that no identifier can reach into
another one's partition or sort order, whatever characters a later interface allows in it.

| PK | SK | item |
| --- | --- | --- |
| `TURN#<turnId>` | `TURN` | the turn's header |
| | `CALL#<nnn>#<nnn>` | the result of a tool call, by step and place in it |
| | `STEP#<nnn>` | the journal: one model call |
| | `TRACE#<nnn>#<order>` | a trace event, only when the caller asked for them |
| `SESSION#<store>#<actor>#<session>` | `SESSION` | lease, version, status, attributes |
| | `EVENT#<eventId>` | one committed turn |
| `BREAKER#<agentId>#<tool>` | `BREAKER` | failures in a row, the probe |
| `AGENT#<agentId>` | `DRAFT`, `VERSION#<n>`, `ALIAS#<aliasId>` | agent definitions |
| `AGENTS` | `AGENT#<agentId>` | the agents that are published |
"""

from typing import NamedTuple
from urllib.parse import quote

NO_ACTOR = "-"
"""The actor of a session without a memoryId: one character, which no memoryId can be (they have at least two)."""

JOURNAL_PREFIX = "STEP#"
EVENT_PREFIX = "EVENT#"
TRACE_PREFIX = "TRACE#"


class Key(NamedTuple):
    """A primary key of the table."""

    pk: str
    sk: str


class SessionId(NamedTuple):
    """What identifies a session: the memory store, the actor and the caller's session id."""

    store: str
    actor: str
    session: str

    @property
    def partition(self) -> str:
        return f"SESSION#{_part(self.store)}#{_part(self.actor)}#{_part(self.session)}"


def turn_partition(turn_id: str) -> str:
    return f"TURN#{_part(turn_id)}"


def turn_header(turn_id: str) -> Key:
    return Key(turn_partition(turn_id), "TURN")


def journal_step(turn_id: str, step: int) -> Key:
    return Key(turn_partition(turn_id), f"{JOURNAL_PREFIX}{step:03d}")


def call_record(turn_id: str, step: int, index: int) -> Key:
    return Key(turn_partition(turn_id), f"CALL#{step:03d}#{index:03d}")


def trace_event(turn_id: str, step: int, order: str) -> Key:
    """`order` sorts the events of one step; see `traces.py`."""
    return Key(turn_partition(turn_id), f"{TRACE_PREFIX}{step:03d}#{order}")


def session(session_id: SessionId) -> Key:
    return Key(session_id.partition, "SESSION")


def session_event(session_id: SessionId, event_id: str) -> Key:
    return Key(session_id.partition, f"{EVENT_PREFIX}{event_id}")


def breaker(agent_id: str, tool: str) -> Key:
    return Key(f"BREAKER#{_part(agent_id)}#{_part(tool)}", "BREAKER")


def agent_draft(agent_id: str) -> Key:
    return Key(f"AGENT#{_part(agent_id)}", "DRAFT")


def agent_version(agent_id: str, version: str) -> Key:
    return Key(f"AGENT#{_part(agent_id)}", f"VERSION#{_part(version)}")


def agent_alias(agent_id: str, alias_id: str) -> Key:
    return Key(f"AGENT#{_part(agent_id)}", f"ALIAS#{_part(alias_id)}")


AGENT_LISTING = "AGENTS"


def listed_agent(agent_id: str) -> Key:
    return Key(AGENT_LISTING, f"AGENT#{_part(agent_id)}")


def turn_object(turn_id: str, digest: str) -> str:
    """The bucket object of a text that belongs to a turn; it lives as long as the turn's journal."""
    return f"turns/{_folder(turn_id)}/{digest}.json"


def session_object(session_id: SessionId, digest: str) -> str:
    """The bucket object of a text that belongs to a session; it lives as long as the longest storageDays."""
    folders = "/".join(_folder(part) for part in session_id)
    return f"sessions/{folders}/{digest}.json"


def _part(identifier: str) -> str:
    return quote(identifier, safe="._:-")


def _folder(identifier: str) -> str:
    """A part of an object's name. Names become URL paths, in which `.` and `..` would mean another folder."""
    part = _part(identifier)
    return part if part.strip(".") else part.replace(".", "%2E")
