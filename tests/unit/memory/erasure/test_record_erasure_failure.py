"""An erasure that fails keeps its actor closed: it is dead-lettered, and what is sent again finishes it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import record_erasure_failure
from local.commands.dead_letters import Letter, Sender
from tests.unit.memory_stores import FACTS, new_store
from tests.unit.stored_memory import StoredMemory
from tests.unit.stored_turns import SESSION, STOP_DATE, Interrupted, StoredTurns, die
from turnwright.memory.erasure.erase_memory import Erasure
from turnwright.memory.records.actors import Actors
from turnwright.storage.documents import json_text

ARN = "arn:aws:states:us-east-1:123456789012:execution:erasures:e-1"
ONE_ACTOR = {"memoryStore": SESSION.store, "actor": SESSION.actor}


@dataclass(slots=True)
class Executions:
    """Step Functions with one execution that has ended, and those that are started."""

    request: dict[str, Any]
    status: str = "FAILED"
    stopped: datetime = STOP_DATE
    started: list[dict[str, Any]] = field(default_factory=list)

    def describe_execution(self, **_arguments: str) -> dict[str, Any]:
        return {
            "name": "e-1",
            "status": self.status,
            "input": json_text(self.request),
            "error": "NotAllDeleted",
            "stopDate": self.stopped,
        }

    def get_execution_history(self, **_arguments: Any) -> dict[str, Any]:
        return {"events": []}

    def start_execution(self, **arguments: Any) -> dict[str, str]:
        self.started.append(arguments)
        return {"executionArn": "arn"}


def fail(monkeypatch: pytest.MonkeyPatch, executions: Executions) -> None:
    monkeypatch.setattr("turnwright.storage.clients.stepfunctions", lambda: executions)
    record_erasure_failure.handler({"detail": {"executionArn": ARN}}, None)


def erasure(stored: StoredTurns) -> Erasure:
    return Erasure(stored.table, stored.documents, None, "", SESSION.store, SESSION.actor, "e-1")


def interrupt(stored: StoredTurns) -> None:
    """Begins an erasure, which dies after its first write."""
    Actors(stored.table).require(SESSION.store, SESSION.actor)
    stored.dynamodb.forget()
    stored.dynamodb.after[1] = die
    with pytest.raises(Interrupted):
        erasure(stored).run()


def finish(stored: StoredTurns) -> None:
    while not (progress := erasure(stored).run()).done:
        stored.clock.ms += progress.waitSeconds * 1000


@pytest.mark.parametrize("status", ["FAILED", "TIMED_OUT", "ABORTED"])
def test_a_failed_erasure_is_dead_lettered(memory: StoredMemory, monkeypatch: pytest.MonkeyPatch, status: str) -> None:
    interrupt(memory.stored)
    fail(monkeypatch, Executions(ONE_ACTOR, status))
    assert memory.queue.letters == [
        {
            "erasureId": "e-1",
            "executionArn": ARN,
            "failure": {"error": "NotAllDeleted", "cause": "", "executionStatus": status},
            "input": ONE_ACTOR,
        }
    ]


@pytest.mark.parametrize("status", ["RUNNING", "SUCCEEDED"])
def test_one_that_runs_again_or_has_succeeded_is_not(
    memory: StoredMemory, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    interrupt(memory.stored)
    fail(monkeypatch, Executions(ONE_ACTOR, status))
    assert memory.queue.letters == []


def test_nor_is_one_that_another_has_finished(memory: StoredMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(memory.stored)
    finish(memory.stored)
    fail(monkeypatch, Executions(ONE_ACTOR))
    assert memory.queue.letters == []


def test_the_failed_erasure_of_a_store_is_dead_lettered_until_the_store_is_gone(
    memory: StoredMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = new_store(memory.stored, FACTS)
    store.memories.delete({"memoryId": store.id})
    fail(monkeypatch, Executions({"memoryStore": store.id}))
    assert [letter["input"] for letter in memory.queue.letters] == [{"memoryStore": store.id}]
    store.deletions.finish()
    fail(monkeypatch, Executions({"memoryStore": store.id}, stopped=STOP_DATE + timedelta(hours=1)))
    assert len(memory.queue.letters) == 1


@dataclass(slots=True)
class Queue:
    """SQS, as far as a letter that is sent again needs it."""

    deleted: list[str] = field(default_factory=list)

    def change_message_visibility(self, **_arguments: Any) -> None: ...

    def delete_message(self, **arguments: str) -> None:
        self.deleted.append(arguments["ReceiptHandle"])


def send_again(stored: StoredTurns, request: dict[str, Any]) -> tuple[str, Executions, Queue]:
    body = {"erasureId": "e-1", "executionArn": ARN, "failure": {"error": "NotAllDeleted"}, "input": request}
    letter = Letter("turns", datetime.now(UTC), "-", "NotAllDeleted", None, "e-1", "e-1", body, "receipt")
    executions, queue = Executions(request), Queue()
    sender = Sender(queue, None, executions, stored.table, stored.documents)
    return sender.send_again([letter], "url").summary, executions, queue


def test_a_letter_that_is_sent_again_starts_the_erasure_again(stored: StoredTurns) -> None:
    interrupt(stored)
    summary, executions, queue = send_again(stored, ONE_ACTOR)
    (started,) = executions.started
    assert started["stateMachineArn"] == "arn:aws:states:us-east-1:123456789012:stateMachine:erasures"
    assert started["input"] == json_text(ONE_ACTOR)
    assert summary.startswith(f"the erasure e-1 was started again as execution {started['name']}")
    assert queue.deleted == ["receipt"]


def of_actor(stored: StoredTurns) -> dict[str, Any]:
    interrupt(stored)
    finish(stored)
    Actors(stored.table).require(SESSION.store, SESSION.actor)
    return ONE_ACTOR


def of_store(stored: StoredTurns) -> dict[str, Any]:
    return {"memoryStore": new_store(stored, FACTS).id}


@pytest.mark.parametrize("lives_again", [of_actor, of_store])
def test_a_letter_of_an_erasure_that_is_over_takes_nothing_of_what_came_afterwards(
    stored: StoredTurns, lives_again: Callable[[StoredTurns], dict[str, Any]]
) -> None:
    summary, executions, queue = send_again(stored, lives_again(stored))
    assert summary == "the erasure e-1 was finished since; its letter is deleted"
    assert (executions.started, queue.deleted) == ([], ["receipt"])
