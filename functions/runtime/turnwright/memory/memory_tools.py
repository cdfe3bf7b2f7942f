"""What the tools of the memory action group do: search, remember and forget, within the access policy.

They run inside the gateway. A use says what is to be written and writes nothing itself: the gateway does that in one
transaction with the call's record, so that a call that is repeated, late or lost is carried out once. What a use reads
it reads strongly, so that the next call finds what this one remembered. A record that is remembered stays, also if its
turn is never committed.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from turnwright.agents.definitions import Agent
from turnwright.agents.memory_configuration import RECORD_BYTES, MergeRule, Namespace
from turnwright.agents.memory_tool_schemas import DEFAULT_RESULTS, FORGET, REMEMBER, SEARCH
from turnwright.errors import ModelError
from turnwright.memory.consolidation.extraction import Fact
from turnwright.memory.consolidation.merging import Change, Merge, Target
from turnwright.memory.records import search
from turnwright.memory.records.accesses import is_there, searchable
from turnwright.memory.records.actors import Actors
from turnwright.memory.records.reading import SEARCH as BOUNDS
from turnwright.memory.records.reading import Part, Reading, told_left_out
from turnwright.memory.records.records import Record, Records, known, removed, since
from turnwright.memory.session_ends.consolidations import Consolidation, Kind
from turnwright.models import embeddings
from turnwright.models.embeddings import Embedding
from turnwright.sessions.values import Header
from turnwright.storage.clock import iso8601, now_ms
from turnwright.storage.documents import json_text
from turnwright.storage.keys import NO_ACTOR
from turnwright.storage.table import Check, Table, Write
from turnwright.tools.tool_failures import ToolFailure
from turnwright.tracing.log import logger
from turnwright.tracing.payloads import payloads

SOURCE = "TOOL"

_MOST_EVICTED = 50
"""A namespace whose `maxRecords` was lowered may have many records too many; a transaction takes 100 writes."""


_RECORD_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Use:
    """What a call answers, and what it writes if it is carried out: nothing of it or all."""

    text: str
    writes: tuple[Write, ...] = ()


class MemoryTools:
    """The memory tools in one turn of an agent."""

    def __init__(self, table: Table, agent: Agent, header: Header) -> None:
        self._table = table
        self._records = Records(table)
        self._agent = agent
        self._turn = header.turn
        self._event_id = header.event_id
        self._floor = str(header.fields["historyFloor"])
        self._embedded: dict[str, Embedding | None] = {}

    def use(self, name: str, arguments: Mapping[str, Any], call_key: str) -> Use:
        """Reads what the call needs. `call_key` is the same in every attempt of the call.

        Raises ToolFailure: ACCESS_DENIED for what the agent may not read or write, INVALID_ARGUMENTS for what the model
        can correct, FAILURE for what is not there.
        """
        match name:
            case "search_memory":
                return self._search(arguments)
            case "remember":
                return self._remember(arguments, call_key)
            case "forget":
                return self._forget(arguments)
        raise ValueError(f"{name} is no memory tool")

    # ---- Search ----

    def _search(self, arguments: Mapping[str, Any]) -> Use:
        if "namespace" in arguments:
            searched = [self._namespace(arguments["namespace"], SEARCH)]
        else:
            searched = searchable(self._agent, self._turn)
        query, model = arguments["query"], self._agent.memory.embedding_model
        reading = Reading(self._table, BOUNDS, len(searched))
        parts = [self._seen(reading, namespace) for namespace in searched]
        found = [record for part in parts for record in part.records]
        embedding = self._embedding(query, is_query=True) if found else None
        reach = search.reach(found, BOUNDS.compared_bytes)
        ranked = search.Compared(found, reach).rank(query, embedding, embedding_model=model)
        left_out = told_left_out(whole=all(part.whole for part in parts), reach=reach)
        best = [(record, score) for record, score in ranked if score > 0]
        names = {self._path(namespace): namespace.name for namespace in searched}
        return Use(
            json_text(
                {
                    "records": [
                        _told(record) | {"namespace": names[record.namespace], "score": round(score, 3)}
                        for record, score in best[: arguments.get("max_results", DEFAULT_RESULTS)]
                    ],
                    **({"leftOut": left_out} if left_out else {}),
                }
            )
        )

    # ---- Remember ----

    def _remember(self, arguments: Mapping[str, Any], call_key: str) -> Use:
        namespace = self._namespace(arguments["namespace"], REMEMBER)
        text, key = arguments["text"].strip(), arguments.get("key", "").strip()
        if not text:
            raise ToolFailure("INVALID_ARGUMENTS", "the text is blank", invoked=False)
        size = len(text.encode())
        if size > RECORD_BYTES:
            raise ToolFailure(
                "INVALID_ARGUMENTS", f"the text has {size} bytes; a record has at most {RECORD_BYTES}", invoked=False
            )
        path = self._path(namespace)
        changes = self._records.changes(self._turn.memoryStore, path)  # before the records, so that it tells of others
        existing = self._in(namespace)
        embedding = self._embedding(text, is_query=False)
        fact = Fact(text, key, self._event_id, self._turn.turnId, now_ms(), "0")
        target = self._target(_ruled(namespace, key), call_key)
        merge = Merge(target, existing)
        merge.add([fact])
        changed = merge.changes()
        evicted = [change for change in changed if change.after is None][:_MOST_EVICTED]
        written = [self._of_tool(change, text, embedding) for change in changed if change.after] + evicted
        kept = next((c.after for c in written if c.after and c.after.text == text), None)
        if kept is None:
            return Use(json_text({"remembered": False, "because": _known_already(namespace, key)}))
        return Use(
            json_text({"remembered": True, **_told(kept)}),
            (
                *(change.write for change in written),
                known(self._turn.memoryStore, self._turn.actor, path, changes=changes),
                *self._owner(),
            ),
        )

    def _target(self, namespace: Namespace, call_key: str) -> Target:
        turn = self._turn
        call = Consolidation(
            consolidationId=call_key,
            kind=Kind.DIGEST,
            memoryStore=turn.memoryStore,
            actor=turn.actor,
            sessionId=turn.sessionId,
            fromEvent="",
            toEvent="",
            agentId=turn.agentId,
            agentVersion=turn.agentVersion,
            actorEpoch="",
        )
        return Target(call, namespace, "", now_ms())

    def _of_tool(self, change: Change, text: str, embedding: Embedding | None) -> Change:
        """The change as a tool makes it: where the new text comes from, and its embedding."""
        after = change.after
        if after is None or after.text != text or (change.before and change.before.text == text):
            return change
        provenance = replace(after.provenance, source=SOURCE, consolidation_id="")
        after = replace(after, provenance=provenance)
        if embedding is not None:
            after = replace(after, embedding=embedding, embedding_model=self._agent.memory.embedding_model or "")
        return Change(change.before, after)

    # ---- Forget ----

    def _forget(self, arguments: Mapping[str, Any]) -> Use:
        namespace = self._namespace(arguments["namespace"], FORGET)
        record_id = arguments["record_id"]
        turn = self._turn
        record = None
        if _RECORD_ID.fullmatch(record_id):  # a model may say anything, a key is bounded
            record = self._records.at(turn.memoryStore, turn.actor, self._path(namespace), record_id)
        if record is None or not self._of_now(namespace, record):
            raise ToolFailure("FAILURE", f"there is no record {record_id} in {namespace.name}")
        told = _told(record) if self._may_read(namespace) else {"recordId": record_id}
        return Use(json_text({"forgotten": True, **told}), (removed(record), *self._owner()))

    # ---- Access ----

    def _namespace(self, name: str, tool: str) -> Namespace:
        memory, agent_id = self._agent.memory, self._turn.agentId
        namespace = memory.namespace(name)
        if namespace is None:
            names = ", ".join(n.name for n in memory.namespaces)
            raise ToolFailure(
                "INVALID_ARGUMENTS", f"there is no namespace {name}; the namespaces are: {names}", invoked=False
            )
        verb, allowed = ("read", self._may_read(namespace))
        if tool != SEARCH:
            verb, allowed = "write", namespace.writable_by(agent_id)
        if not allowed:
            raise ToolFailure(
                "ACCESS_DENIED", f"the agent {agent_id} may not {verb} the namespace {name}", invoked=False
            )
        if not is_there(namespace, self._turn):
            raise ToolFailure(
                "ACCESS_DENIED",
                f"nothing is kept in {name}, since the request names no user (it has no memoryId)",
                invoked=False,
            )
        return namespace

    def _may_read(self, namespace: Namespace) -> bool:
        return namespace.readable_by(self._turn.agentId)

    def _owner(self) -> Sequence[Check]:
        """The condition that the actor is there and is not being erased when this is written."""
        if self._turn.actor == NO_ACTOR:
            return ()
        actor = Actors(self._table).read(self._turn.memoryStore, self._turn.actor)
        if actor is None or actor.erasing:
            raise ToolFailure("FAILURE", "the memory of this user is being erased")
        return (actor.unchanged(),)

    # ---- Records ----

    def _path(self, namespace: Namespace) -> str:
        return namespace.path(self._turn.actor, self._turn.sessionId)

    def _in(self, namespace: Namespace) -> list[Record]:
        """The records of the actor, or of this session, in a namespace."""
        reading = Reading(self._table, BOUNDS)
        part = reading.whole(self._turn.memoryStore, self._turn.actor, self._path(namespace))
        return [record for record in part.records if self._of_now(namespace, record)]

    def _seen(self, reading: Reading, namespace: Namespace) -> Part:
        """The same with what a search needs."""
        turn = self._turn
        part = reading.seen(
            turn.memoryStore,
            turn.actor,
            self._path(namespace),
            provenance=namespace.of_session,
            embeddings=self._agent.memory.embedding_model is not None,
        )
        return replace(part, records=[record for record in part.records if self._of_now(namespace, record)])

    def _of_now(self, namespace: Namespace, record: Record) -> bool:
        return not namespace.of_session or since(record, self._floor)

    def _embedding(self, text: str, *, is_query: bool) -> Embedding | None:
        """None without an embedding model, or if it fails: then the record is found, and compared, by its words."""
        model = self._agent.memory.embedding_model
        if model is None:
            return None
        if text not in self._embedded:
            try:
                self._embedded[text] = embeddings.embed([text], model, is_query=is_query)[0]
            except ModelError as error:
                logger().warning("a text was not embedded", model=model, error=payloads().error(str(error)))
                self._embedded[text] = None
        return self._embedded[text]


def _ruled(namespace: Namespace, key: str) -> Namespace:
    """MODEL is a consolidation's rule, for which no user waits: here a key replaces, a fact without one is added."""
    if namespace.merge_rule is not MergeRule.MODEL:
        return namespace
    return replace(namespace, merge_rule=MergeRule.REPLACE if key else MergeRule.APPEND)


def _known_already(namespace: Namespace, key: str) -> str:
    return f"{namespace.name} keeps what it has" + (f" for the key {key}" if key else "")


def _told(record: Record) -> dict[str, Any]:
    told = {"recordId": record.record_id, "namespace": record.strategy, "text": record.text}
    if record.key:
        told["key"] = record.key
    return told | {"saidAt": iso8601(record.timestamp)}
