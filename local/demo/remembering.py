"""What memory did, shown: what a turn was given of it, and what a consolidation extracted, merged and wrote.

It is read where it is kept: the turn's header, the execution's history, the consolidation's journal.
"""

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from local.commands.executions import Execution, read_execution
from local.stack import CONSOLIDATION, LocalStack
from turnwright.agents.memory_configuration import SUMMARY
from turnwright.memory.consolidation.consolidation_journal import ConsolidationJournal
from turnwright.memory.consolidation.extraction import Fact
from turnwright.memory.consolidation.merging import Change
from turnwright.memory.records.store_configuration import configuration_of
from turnwright.memory.session_ends.consolidations import Consolidation
from turnwright.sessions.turns import Turns
from turnwright.storage.documents import Documents
from turnwright.storage.table import Table

_MEMORY = re.compile(r"<memory>(.*)</memory>", re.DOTALL)
_END_SECONDS = 300
"""A small model on a small machine takes its time; waiting ends when the consolidation does."""


class NothingConsolidated(Exception):
    """No consolidation of the session ended in time. The message is one line."""


@dataclass(frozen=True, slots=True)
class Consolidated:
    """A consolidation that has ended. `facts` and `changes` are in the order of its namespaces, by their names."""

    execution: Execution
    facts: Sequence[tuple[str, Fact]]
    changes: Sequence[tuple[str, Change]]
    summary: str


def injected(stack: LocalStack, turn_id: str) -> Mapping[str, Any]:
    """What the turn's model calls were shown of memory: `facts` by namespace, `earlierConversations`, or nothing."""
    header = Turns(_table(stack)).read(turn_id)
    if header is None or header.injected is None:
        return {}
    found = _MEMORY.search(_documents(stack).fetch(header.injected))
    shown: dict[str, Any] = json.loads(found[1]) if found else {}
    return shown


def consolidated(stack: LocalStack, session: str) -> Consolidated:
    """The newest consolidation of an ended session, after its end. Raises NothingConsolidated."""
    deadline = time.monotonic() + _END_SECONDS
    while time.monotonic() < deadline:
        execution = _newest(stack, session)
        if execution is not None and execution.status != "RUNNING":
            return _read(stack, execution)
        time.sleep(0.05)
    raise NothingConsolidated(f"no consolidation of the session {session} ended within {_END_SECONDS} s")


def lines(done: Consolidated) -> Iterator[tuple[str, str]]:
    """The consolidation for a reader, as (label, text)."""
    for name, fact in done.facts:
        key = f"{fact.key}: " if fact.key else ""
        yield "extracted", f"{name}  {key}{fact.text}" + (f" (turn {fact.turn_id[:8]})" if fact.turn_id else "")
    for name, change in done.changes:
        yield "merged", f"{name}  {_change(change)}"
    if done.summary:
        yield "summary", " ".join(done.summary.split())


def shown_lines(shown: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What was injected for a reader, as (label, text)."""
    for name, facts in shown.get("facts", {}).items():
        told = [f"{fact['fact']} (said on {fact['saidOn']})" for fact in facts]
        yield "injected", f"{name}  {' '.join(told)}"
    for entry in shown.get("earlierConversations", ()):
        yield "injected", f"earlier conversation, {entry['endedAt']}  {' '.join(entry['summary'].split())}"
    if "earlierInThisConversation" in shown:
        yield "injected", f"digest  {' '.join(shown['earlierInThisConversation']['digest'].split())}"


def _change(change: Change) -> str:
    before, after = change.before, change.after
    if before is None and after is not None:
        return f"+ {after.text}"
    if after is None:
        return f"- {change.record.text}"
    if before is not None and before.text != after.text:
        return f"~ {after.text} (instead of: {before.text})"
    return f"= {after.text}"


def _newest(stack: LocalStack, session: str) -> Execution | None:
    client = stack.client("stepfunctions")
    pages = client.get_paginator("list_executions").paginate(stateMachineArn=stack.resources[CONSOLIDATION])
    entries = [entry for page in pages for entry in page["executions"]]
    for entry in sorted(entries, key=lambda entry: entry["startDate"], reverse=True):
        execution = read_execution(client, entry["executionArn"])
        if execution.input["sessionId"] == session and execution.input["kind"] == "SESSION_END":
            return execution
    return None


def _read(stack: LocalStack, execution: Execution) -> Consolidated:
    table, documents = _table(stack), _documents(stack)
    work = Consolidation.decode(execution.input)
    journal = ConsolidationJournal(table, documents, work)
    attempts = max(1, execution.states.count("Merge Records"))
    facts: list[tuple[str, Fact]] = []
    changes: list[tuple[str, Change]] = []
    for namespace in work.namespaces(configuration_of(table, work.memoryStore, work.agentId, work.agentVersion)):
        for chunk in count():
            extracted = journal.find(journal.extraction(namespace.name, chunk))
            if extracted is None:
                break
            facts += [(namespace.name, Fact.decode(fields)) for fields in extracted.get("facts", ())]
        merged = journal.find(journal.merge(namespace.name, attempts)) or {}
        changes += [(namespace.name, Change.decode(fields)) for fields in merged.get("changes", ())]
    summary = journal.find(journal.summary(SUMMARY)) or {}
    return Consolidated(execution, facts, changes, str(summary.get("text", "")))


def _table(stack: LocalStack) -> Table:
    return Table(stack.client("dynamodb"), stack.outputs["TableName"])


def _documents(stack: LocalStack) -> Documents:
    return Documents(stack.client("s3"), stack.outputs["BucketName"])
