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
| | `EVENT#<eventId>` | one committed turn, or one CreateEvent |
| | `SEGMENT#<eventId>` | an ended part of the session, up to that event, and whether it is consolidated |
| | `TOKEN#<clientToken>` | the event that a CreateEvent with that token made |
| | `BRANCH#<name>` | a branch of the session that CreateEvent began |
| | `CONSOLIDATION#<id>#…` | the journal of a consolidation of the session |
| | `OBJECT#<digest>` | an object of that journal that was about to be written |
| `ACTOR#<store>#<actor>` | `RECORD#<namespace>#<recordId>` | a memory record |
| | `SUMMARY#<ended at>#<session>` | the summary of an ended session |
| `STORE#<store>` | `STORE` | a memory store made by CreateMemory |
| | `ACTOR#<actor>` | an actor that has sessions or records |
| | `NAMESPACE#<namespace>` | a namespace that has records, and whose they are |
| | `ERASURE#<id>` | an erasure of an actor that is over; nothing of the actor |
| | `TOKEN#<clientToken>` | the records that a BatchCreateMemoryRecords with that token made |
| `BREAKER#<agentId>#<tool>` | `BREAKER` | failures in a row, the probe |
| `AGENT#<agentId>` | `DRAFT`, `VERSION#<n>`, `ALIAS#<aliasId>` | agent definitions |
| `AGENTS` | `AGENT#<agentId>` | the agents that are published |
| `STORES` | `STORE#<store>` | the memory stores made by CreateMemory |
| | `NAME#<name>` | the store that has this name |
| | `TOKEN#<clientToken>` | the store that a CreateMemory with that token made |
| `EXECUTION#<machine>:<name>` | `FAILURE` | until when its failures are recorded |
| `MACHINES` | `MACHINE#<machine>` | how far Sweep Executions has looked for failures |

Two indexes, both eventually consistent and without attributes but the keys:

| index | PK | SK | whose |
| --- | --- | --- | --- |
| `Owned` (`ownerPK`, `ownerSK`) | `ACTOR#<store>#<actor>` | `SESSION#<session>` | session items |
| | `ACTOR#<store>#<actor>`, without an actor `SESSION#…` | `TURN#<started at>#<turnId>` | turn headers |
| | `ACTOR#<store>#<actor>` | `NAMESPACE#<namespace>` | known namespaces |
| | `RECORD#<store>#<recordId>` | `RECORD` | memory records |
| `Due` (`duePK`, `dueSK`) | `DUE#<shard>` | `<ms>#<partition>` | sessions that will have been idle too long, |
| | | | segments that are not consolidated |
"""

import hashlib
from typing import NamedTuple
from urllib.parse import quote, unquote

NO_ACTOR = "-"
"""The actor of a session without a memoryId: one character, which no memoryId can be (they have at least two)."""

JOURNAL_PREFIX = "STEP#"
EVENT_PREFIX = "EVENT#"
TRACE_PREFIX = "TRACE#"
RECORD_PREFIX = "RECORD#"
SESSION_PREFIX = "SESSION#"
SUMMARY_PREFIX = "SUMMARY#"
SEGMENT_PREFIX = "SEGMENT#"
OBJECT_PREFIX = "OBJECT#"
NAMESPACE_PREFIX = "NAMESPACE#"
ACTOR_PREFIX = "ACTOR#"
TURN_PREFIX = "TURN#"

OWNED_INDEX = "Owned"
DUE_INDEX = "Due"
END = "\x7f"
"""Sorts after every character that a key can have: behind a prefix, the end of a range."""
NEXT = "!"
"""Sorts before every character that a key can have: behind a whole key, the beginning of what comes after it."""

LASTING_PREFIX = "lasting/"
"""What the names of the objects begin with that the bucket keeps for longer than `LONGEST_STORAGE_DAYS`."""

LONGEST_STORAGE_DAYS = 365
"""How long what the bucket has under `sessions/` is kept at least."""

DUE_SHARDS = 4
"""Partitions that the index of what is due is spread over, so that its writes do not meet in one."""


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

    @property
    def owner(self) -> str:
        """The partition of the index `Owned` in which this session's turns are."""
        return self.partition if self.actor == NO_ACTOR else actor_partition(self.store, self.actor)


def turn_partition(turn_id: str) -> str:
    return f"TURN#{_part(turn_id)}"


def turn_of(partition: str) -> str:
    """The turn whose partition this is."""
    return unquote(partition.removeprefix(TURN_PREFIX))


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


def segment(session_id: SessionId, last_event_id: str) -> Key:
    return Key(session_id.partition, f"{SEGMENT_PREFIX}{last_event_id}")


def client_token(session_id: SessionId, token: str) -> Key:
    return Key(session_id.partition, f"TOKEN#{_part(token)}")


def branch(session_id: SessionId, name: str) -> Key:
    return Key(session_id.partition, f"BRANCH#{_part(name)}")


def announced_object(session_id: SessionId, digest: str) -> Key:
    return Key(session_id.partition, f"{OBJECT_PREFIX}{digest}")


def actor_partition(store: str, actor: str) -> str:
    return f"{ACTOR_PREFIX}{_part(store)}#{_part(actor)}"


def record(store: str, actor: str, namespace: str, record_id: str) -> Key:
    """`namespace` is a namespace's whole path, with its variables filled in."""
    return Key(actor_partition(store, actor), f"{records_prefix(namespace)}{_part(record_id)}")


def records_prefix(namespace: str) -> str:
    """What the sort keys of the records of just this namespace begin with."""
    return f"{RECORD_PREFIX}{_part(namespace)}#"


def session_summary(store: str, actor: str, ended_at: int, session_name: str) -> Key:
    return Key(actor_partition(store, actor), f"{SUMMARY_PREFIX}{ended_at:016d}#{_part(session_name)}")


def extraction(session_id: SessionId, consolidation_id: str, namespace: str, chunk: int) -> Key:
    return _consolidation(session_id, consolidation_id, f"EXTRACTION#{_part(namespace)}#{chunk:03d}")


def merge(session_id: SessionId, consolidation_id: str, attempt: int, namespace: str) -> Key:
    return _consolidation(session_id, consolidation_id, f"MERGE#{attempt:03d}#{_part(namespace)}")


def consolidation_summary(session_id: SessionId, consolidation_id: str, namespace: str = "") -> Key:
    """`namespace` is one that has the session's summary in a style of its own."""
    return _consolidation(session_id, consolidation_id, f"SUMMARY#{_part(namespace)}" if namespace else "SUMMARY")


def consolidation_progress(session_id: SessionId, consolidation_id: str) -> Key:
    return _consolidation(session_id, consolidation_id, "PROGRESS")


def _consolidation(session_id: SessionId, consolidation_id: str, entry: str) -> Key:
    return Key(session_id.partition, f"CONSOLIDATION#{_part(consolidation_id)}#{entry}")


def store(store_id: str) -> Key:
    return Key(store_partition(store_id), "STORE")


def store_partition(store_id: str) -> str:
    return f"STORE#{_part(store_id)}"


STORE_LISTING = "STORES"


def listed_store(store_id: str) -> Key:
    return Key(STORE_LISTING, f"STORE#{_part(store_id)}")


def store_name(name: str) -> Key:
    return Key(STORE_LISTING, f"NAME#{_part(name)}")


def store_token(token: str) -> Key:
    return Key(STORE_LISTING, f"TOKEN#{_part(token)}")


def batch_token(store_id: str, token: str) -> Key:
    return Key(store_partition(store_id), f"TOKEN#{_part(token)}")


def actor(store_id: str, actor_id: str) -> Key:
    return Key(store_partition(store_id), f"{ACTOR_PREFIX}{_part(actor_id)}")


def ended_erasure(store_id: str, erasure_id: str) -> Key:
    return Key(store_partition(store_id), f"ERASURE#{_part(erasure_id)}")


def namespace(store_id: str, path: str) -> Key:
    return Key(store_partition(store_id), f"{NAMESPACE_PREFIX}{_part(path)}")


def namespaces_prefix(path: str) -> str:
    """What the sort keys of the namespaces begin with whose paths begin with `path`."""
    return f"{NAMESPACE_PREFIX}{_part(path)}"


def owned_session(session_id: SessionId) -> dict[str, str]:
    """The attributes with which a session is in the index `Owned`; empty for a session without an actor."""
    if session_id.actor == NO_ACTOR:
        return {}
    return {"ownerPK": session_id.owner, "ownerSK": f"{SESSION_PREFIX}{_part(session_id.session)}"}


def owned_turn(session_id: SessionId, started_at: int, turn_id: str) -> dict[str, str]:
    return {"ownerPK": session_id.owner, "ownerSK": f"{TURN_PREFIX}{started_at:016d}#{_part(turn_id)}"}


def owned_namespace(store_id: str, actor_id: str, path: str) -> dict[str, str]:
    return {"ownerPK": actor_partition(store_id, actor_id), "ownerSK": namespaces_prefix(path)}


def owned_record(store_id: str, record_id: str) -> dict[str, str]:
    return {"ownerPK": f"{RECORD_PREFIX}{_part(store_id)}#{_part(record_id)}", "ownerSK": "RECORD"}


def due(session_id: SessionId, at: int) -> dict[str, str]:
    """The attributes with which a session or a segment is in the index `Due` from the moment `at` (milliseconds) on."""
    shard = int(hashlib.sha256(session_id.partition.encode()).hexdigest()[:8], 16) % DUE_SHARDS
    return {"duePK": due_partition(shard), "dueSK": f"{at:016d}#{session_id.partition}"}


def due_later(due_sk: str, at: int) -> str:
    """The sort key in the index `Due` of an item that has `due_sk` there, for another moment."""
    return f"{at:016d}#{due_sk.partition('#')[2]}"


def due_partition(shard: int) -> str:
    return f"DUE#{shard}"


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


def execution_failure(execution_arn: str) -> Key:
    """Lies outside of what the execution worked on, so that it outlives an erasure of that; it tells nothing of it."""
    return Key(f"EXECUTION#{_part(execution_arn.partition(':execution:')[2])}", "FAILURE")


def swept_machine(machine_arn: str) -> Key:
    return Key("MACHINES", f"MACHINE#{_part(machine_arn.rpartition(':')[2])}")


def turn_object(turn_id: str, digest: str) -> str:
    """The bucket object of a text that belongs to a turn; it lives as long as the turn's journal."""
    return f"turns/{_folder(turn_id)}/{digest}.json"


def session_object(session_id: SessionId, digest: str) -> str:
    """The bucket object of a text that belongs to a session; it lives as long as the longest storageDays."""
    return f"{session_objects(session_id)}{digest}.json"


def session_objects(session_id: SessionId) -> str:
    """What the names of all objects of a session begin with, but for `LASTING_PREFIX`."""
    return f"sessions/{'/'.join(_folder(part) for part in session_id)}/"


def event_object(session_id: SessionId, days: int, digest: str) -> str:
    """The bucket object of a CreateEvent's payload; it lives as long as the longest eventExpiryDuration."""
    name = session_object(session_id, digest)
    return name if days <= LONGEST_STORAGE_DAYS else LASTING_PREFIX + name


def actor_objects(store_id: str, actor_id: str) -> str:
    """What the names of all objects of an actor's sessions begin with, but for `LASTING_PREFIX`."""
    return f"sessions/{_folder(store_id)}/{_folder(actor_id)}/"


def turn_objects(turn_id: str) -> str:
    """What the names of all objects of a turn begin with."""
    return f"turns/{_folder(turn_id)}/"


def memory_object(store_id: str, actor_id: str, digest: str) -> str:
    """The bucket object of a text in an actor's memory or in a consolidation's journal; it is erased with the actor."""
    return f"{actor_objects(store_id, actor_id)}~memory/{digest}.json"


def _part(identifier: str) -> str:
    return quote(identifier, safe="._:-")


def _folder(identifier: str) -> str:
    """A part of an object's name. Names become URL paths, in which `.` and `..` would mean another folder."""
    part = _part(identifier)
    return part if part.strip(".") else part.replace(".", "%2E")
