"""Sessions that are consolidated, state by state as the machine does it, with a model that understands `key: value`."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import extract_records
import load_session
import merge_records
import summarize_session
import write_records
from tests.unit.stored_turns import A, StoredTurns
from turnwright.errors import ActorErased, RecordsChanged
from turnwright.memory.records import records
from turnwright.memory.records.actors import Actors
from turnwright.memory.records.records import Provenance, Record, Records
from turnwright.memory.records.session_summaries import SessionSummaries, SessionSummary
from turnwright.memory.session_ends.consolidations import Consolidation
from turnwright.memory.session_ends.session_ends import SessionEnds
from turnwright.models.converse import Reply
from turnwright.storage import keys
from turnwright.storage.documents import json_text
from turnwright.storage.keys import SessionId
from turnwright.storage.table import Table

STORE, ACTOR = "BANK-turnwright", "user-1"
EXECUTION = "arn:aws:states:us-east-1:123456789012:execution:consolidations:one"

MEMORY: Mapping[str, Any] = {
    "storageDays": 7,
    "enabledMemoryTypes": ["SESSION_SUMMARY"],
    "history": {"maxTurns": 3, "maxCharacters": 2_000},
    "namespaces": [
        {"name": "preferences", "description": "what the user prefers", "ttlDays": 365},
        {"name": "projects", "mergeRule": "APPEND"},
    ],
}
"""Two namespaces and summaries."""

Arguments = Mapping[str, Any]


def prompt(arguments: Arguments) -> str:
    """All that the model is told."""
    blocks = [*arguments["system"], *(block for message in arguments["messages"] for block in message["content"])]
    return "\n".join(block["text"] for block in blocks)


def element(text: str, name: str) -> str:
    found = re.search(rf"<{name}>\s*(.*?)\s*</{name}>", text, re.DOTALL)
    return found[1] if found else ""


def said(text: str) -> Iterator[tuple[str, str]]:
    """(event id, the user's words) of a prompt's conversation."""
    for line in element(text, "conversation").splitlines():
        event = json.loads(line)
        yield from ((event["event"], entry["user"]) for entry in event["said"] if "user" in entry)


@dataclass(slots=True)
class StatementModel:
    """Extracts each line `key: value` that the user said, merges by ADD, summarizes by what the user said.

    `answers` replace the answer of a tool: each time it is asked the next one, which is the tool's input or an error.
    """

    answers: dict[str, list[Any]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    before: Callable[[], object] = lambda: None

    def converse(self, arguments: Arguments, _timeout_seconds: int) -> Reply:
        self.before()
        name = arguments["toolConfig"]["toolChoice"]["tool"]["name"]
        text = prompt(arguments)
        self.asked.append((name, text))
        self.models.append(arguments["modelId"])
        planned = self.answers.get(name)
        answer = planned.pop(0) if planned else getattr(self, f"_{name}")(text)
        if isinstance(answer, Exception):
            raise answer
        content = [{"toolUse": {"toolUseId": "use-1", "name": name, "input": answer}}] if answer is not None else []
        return Reply({"role": "assistant", "content": [{"text": "Here."}, *content]}, "tool_use", {"inputTokens": 10})

    def _record_facts(self, text: str) -> dict[str, Any]:
        return {
            "records": [
                {"key": line.partition(":")[0], "text": line, "eventId": event}
                for event, words in said(text)
                for line in words.splitlines()
                if ":" in line
            ]
        }

    def _merge_records(self, text: str) -> dict[str, Any]:
        facts = json.loads(element(text, "facts"))
        return {"operations": [{"operation": "ADD", "fact": f["fact"], "text": f["text"]} for f in facts]}

    def _summarize_session(self, text: str) -> dict[str, Any]:
        parts = [json.loads(line)["summary"] for line in element(text, "parts").splitlines()]
        return {"summary": " / ".join([*parts, *(words for _, words in said(text))])[:2_000]}

    def _digest_session(self, text: str) -> dict[str, Any]:
        former = json.loads(element(text, "digest"))
        parts = [json.loads(line)["summary"] for line in element(text, "parts").splitlines()]
        return {"digest": " / ".join(filter(None, [former, *parts, *(words for _, words in said(text))]))[:4_000]}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The storage at a moment."""

    items: Mapping[tuple[str, str], Any]
    objects: Mapping[str, Any]


@dataclass(slots=True)
class Queue:
    """The dead-letter queue."""

    letters: list[dict[str, Any]] = field(default_factory=list)

    def send_message(self, *, QueueUrl: str, MessageBody: str) -> None:  # noqa: N803 (SQS's names)
        assert QueueUrl == "https://queue"
        self.letters.append(json.loads(MessageBody))


@dataclass(slots=True)
class StoredMemory:
    """The storage with a model and a dead-letter queue, and what one does with them."""

    stored: StoredTurns
    model: StatementModel
    queue: Queue
    turns: int = 0

    def configure(self, **memory: Any) -> None:
        self.stored.publish(memoryConfiguration={**MEMORY, **memory})

    def say(self, *words: str, session: str = "s-1", answer: str = "I see.") -> None:
        """A turn for each of the words, a second apart."""
        for text in words:
            self.turns += 1
            self.stored.clock.ms += 1_000
            self.stored.run(f"{self.turns:08x}" + A[8:], words=text, session=session, answer=answer)

    def end(self, session: str = "s-1") -> Consolidation:
        segment = SessionEnds(self.stored.table).end(SessionId(STORE, ACTOR, session))
        assert segment is not None, f"{session} leaves nothing to consolidate"
        return segment.consolidation

    def states(self, work: Consolidation) -> Iterator[Callable[[], Any]]:
        """The tasks of the machine in order, each a call of its handler; a task may be called again."""
        given = {"consolidation": work.encode(), "execution": EXECUTION, "attempt": 0}
        plan: dict[str, Any] = {}
        outcome: dict[str, Any] = {}

        def load() -> dict[str, Any]:
            plan.update(load_session.handler({"consolidation": work.encode()}, None))
            return plan

        def write() -> dict[str, Any]:
            try:
                written = write_records.handler(
                    {
                        "consolidation": work.encode(),
                        "plan": {k: v for k, v in plan.items() if k not in ("chunks", "extractions")},
                        "merge": merge,
                        "redriveCount": 0,
                    },
                    None,
                )
            except RecordsChanged as changed:
                written = {"again": type(changed).__name__}
            outcome.clear()
            outcome.update(written)
            return written

        yield load
        for extraction in plan["extractions"]:
            chunk = plan["chunks"][extraction["chunk"]]
            event = {**given, "namespace": extraction["namespace"], "chunk": chunk}
            yield lambda event=event: extract_records.handler(event, None)  # type: ignore[misc]
        merge = 0
        while "status" not in outcome:
            assert outcome.get("again") != "RecordsKeepChanging"
            merge += 1
            if plan["chunks"]:
                for name in plan["namespaces"]:
                    numbers = [e["chunk"] for e in plan["extractions"] if e["namespace"] == name]
                    event = {**given, "namespace": name, "chunks": numbers, "merge": merge}
                    yield lambda event=event: merge_records.handler(event, None)  # type: ignore[misc]
                event = {**given, "chunks": plan["chunks"], "summarize": plan["summarize"]}
                yield lambda event=event: summarize_session.handler(event, None)  # type: ignore[misc]
            yield write

    def consolidate(self, work: Consolidation) -> dict[str, Any]:
        """Runs the machine; its output."""
        outcome: Any = None
        try:
            for state in self.states(work):
                outcome = state()
        except ActorErased:
            return {"status": "ACTOR_ERASED"}
        assert isinstance(outcome, dict)
        return outcome

    def records(self, namespace: str | None = None) -> list[Record]:
        found = Records(self.stored.table).of_actor(STORE, ACTOR)
        return [record for record in found if namespace in (None, record.strategy)]

    def texts(self, namespace: str | None = None) -> list[str]:
        return sorted(record.text for record in self.records(namespace))

    def summaries(self) -> list[SessionSummary]:
        return SessionSummaries(self.stored.table).latest(STORE, ACTOR, 100)

    def snapshot(self) -> Snapshot:
        """All items, and all objects."""
        return Snapshot(self.stored.items(), self.stored.objects())

    def visible(self, snapshot: Snapshot | None = None) -> dict[tuple[str, str], Any]:
        """What a turn can see of the actor's memory, now or then."""
        items = self.stored.items() if snapshot is None else snapshot.items
        return {key: item for key, item in items.items() if key[0] == keys.actor_partition(STORE, ACTOR)}

    def restore(self, snapshot: Snapshot) -> None:
        """Makes the storage what it was, writing no more than differs."""
        now = self.stored.items()
        self.stored.write_together(
            delete=now.keys() - snapshot.items.keys(),
            put=[item for key, item in snapshot.items.items() if now.get(key) != item],
        )
        s3, bucket = self.stored.s3.client, self.stored.bucket
        objects = self.stored.objects()
        for path in objects.keys() - snapshot.objects.keys():
            s3.delete_object(Bucket=bucket, Key=path)
        for path in snapshot.objects.keys() - objects.keys():
            s3.put_object(Bucket=bucket, Key=path, Body=json_text(snapshot.objects[path]).encode())

    def quiet(self) -> "StoredMemory":
        """The same storage for somebody else, whose requests are not counted."""
        table = Table(self.stored.dynamodb.client, self.stored.table.name)
        return replace(self, stored=replace(self.stored, table=table))


def stored_record(memory: StoredMemory, text: str, *, key: str = "", namespace: str = "projects") -> Record:
    """A record that somebody else writes, as `remember` does."""
    path = f"/{namespace}/{ACTOR}/"
    record = Record(STORE, ACTOR, path, f"mem-{uuid4()}", text, Provenance("TOOL"), namespace, key)
    actor = Actors(memory.stored.table).require(STORE, ACTOR)
    memory.stored.table.transact([records.added(record), records.known(STORE, ACTOR, path), actor.unchanged()])
    return record
