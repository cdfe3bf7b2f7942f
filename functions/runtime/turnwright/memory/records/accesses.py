"""What a turn, or a consolidation, read from memory and wrote to it, as its trace events tell it.

An access is of one namespace, by its whole path. What a memory tool accessed is told by its answer, which is recorded
with what it wrote: a gateway that finds the answer recorded tells the same as the one that was lost.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from turnwright.agents.definitions import Agent
from turnwright.agents.memory_configuration import Namespace
from turnwright.agents.memory_tool_schemas import FORGET, SEARCH
from turnwright.memory.records.records import Record
from turnwright.memory.records.session_summaries import SessionSummary
from turnwright.sessions.values import Turn
from turnwright.storage.keys import NO_ACTOR
from turnwright.tracing.trace_events import Failure, MemoryAccess
from turnwright.tracing.traces import Traces

_ABOUT_THE_CALL = ("remembered", "forgotten", "because", "namespace")


def summaries_path(actor: str) -> str:
    """The path by which events name the summaries of an actor's ended sessions, which are in no namespace."""
    return f"/session_summary/{actor}/"


def told_record(record: Record, score: float | None = None) -> dict[str, Any]:
    told = {"recordId": record.record_id, "text": record.text}
    if record.key:
        told["key"] = record.key
    return told if score is None else told | {"score": round(score, 3)}


def told_summary(summary: SessionSummary) -> dict[str, Any]:
    return {"sessionId": summary.session_id, "text": summary.text}


def searchable(agent: Agent, turn: Turn) -> list[Namespace]:
    """The namespaces that a search without one looks into: those that the agent may read, and that are there."""
    return [each for each in agent.memory.namespaces if each.readable_by(turn.agentId) and is_there(each, turn)]


def is_there(namespace: Namespace, turn: Turn) -> bool:
    """Without an actor there are only the namespaces of the session."""
    return namespace.of_session or turn.actor != NO_ACTOR


class CallAccesses:
    """The trace of what one attempt of a memory tool's call accessed."""

    def __init__(self, traces: Traces, agent: Agent, turn: Turn, step: int, call: str) -> None:
        self._traces = traces
        self._agent = agent
        self._turn = turn
        self._step = step
        self._call = call

    def carried_out(self, name: str, arguments: Mapping[str, Any], answer: str, latency_ms: int | None) -> None:
        """`answer` is the call's whole answer; `latency_ms` is None if nobody knows any more when the call began."""
        told = json.loads(answer)
        if name == SEARCH:
            named = self._agent.memory.namespace(arguments.get("namespace", ""))
            for namespace in [named] if named else searchable(self._agent, self._turn):
                found = [_without(record, "namespace") for record in told["records"] if _is_of(namespace, record)]
                access = self._access(namespace, found, latency_ms, arguments["query"])
                self._traces.memory_retrieval(replace(access, left_out=told.get("leftOut", "")))
            return
        written = self._agent.memory.namespace(arguments["namespace"])
        if written is None:
            return
        record = _without(told, *_ABOUT_THE_CALL)
        if record:
            record["operation"] = "DELETE" if name == FORGET else "PUT"
        records = [record] if record else []  # none if the namespace keeps what it has
        self._traces.memory_write(self._access(written, records, latency_ms))

    def failed(self, name: str, arguments: Mapping[str, Any], failure: Failure, latency_ms: int) -> None:
        """A call that was refused by the access policy, or failed; nothing if it names no namespace that there is."""
        given = arguments.get("namespace")
        namespace = self._agent.memory.namespace(given) if isinstance(given, str) else None
        if namespace is None:
            return
        if name == SEARCH:
            query = str(arguments.get("query", ""))
            self._traces.memory_retrieval(self._access(namespace, [], latency_ms, query, failure))
        else:
            self._traces.memory_write(self._access(namespace, [], latency_ms, failure=failure))

    def _access(
        self,
        namespace: Namespace,
        records: Sequence[Mapping[str, Any]],
        latency_ms: int | None,
        query: str | None = None,
        failure: Failure | None = None,
    ) -> MemoryAccess:
        path = namespace.path(self._turn.actor, self._turn.sessionId)
        return MemoryAccess(path, records, latency_ms, query, failure, self._step, self._call)


def _is_of(namespace: Namespace, record: Mapping[str, Any]) -> bool:
    return bool(record["namespace"] == namespace.name)


def _without(record: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in names}
