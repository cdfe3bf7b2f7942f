from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import pytest

import record_consolidation_failure
from tests.unit.stored_memory import StoredMemory
from tests.unit.stored_turns import STOP_DATE
from turnwright.memory.session_ends.consolidations import Consolidation, Kind
from turnwright.memory.session_ends.segments import Segments, SegmentStatus
from turnwright.storage import keys
from turnwright.storage.documents import json_text

ARN = "arn:aws:states:us-east-1:123456789012:execution:consolidations:one"


@dataclass(slots=True)
class Executions:
    """Step Functions with one execution."""

    work: Consolidation
    status: str = "FAILED"
    stopped: datetime = STOP_DATE

    def describe_execution(self, *, executionArn: str) -> dict[str, Any]:  # noqa: N803 (Step Functions' name)
        assert executionArn == ARN
        return {
            "name": self.work.consolidationId,
            "status": self.status,
            "input": json_text(self.work.encode()),
            "error": "ModelRejected",
            "cause": '{"errorMessage": "no such model"}',
            "stopDate": self.stopped,
        }

    def get_execution_history(self, **_arguments: Any) -> dict[str, Any]:
        return {"events": []}


def fail(monkeypatch: pytest.MonkeyPatch, work: Consolidation, status: str = "FAILED") -> None:
    monkeypatch.setattr("turnwright.storage.clients.stepfunctions", lambda: Executions(work, status))
    record_consolidation_failure.handler({"detail": {"executionArn": ARN}}, None)


def segment_status(memory: StoredMemory, work: Consolidation) -> SegmentStatus:
    segment = Segments(memory.stored.table).read(work.session, work.toEvent)
    assert segment is not None
    return segment.status


@pytest.mark.parametrize("status", ["FAILED", "TIMED_OUT", "ABORTED"])
def test_a_failed_consolidation_is_marked_due_no_more_and_dead_lettered(
    memory: StoredMemory, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    memory.say("currency: USD")
    work = memory.end()
    fail(monkeypatch, work, status)
    assert segment_status(memory, work) is SegmentStatus.FAILED
    assert "duePK" not in memory.stored.items()[keys.segment(work.session, work.toEvent)]
    assert memory.queue.letters == [
        {
            "consolidationId": work.consolidationId,
            "executionArn": ARN,
            "failure": {"error": "ModelRejected", "cause": "no such model", "executionStatus": status},
            "input": work.encode(),
        }
    ]


def test_a_failed_consolidation_that_is_redriven_is_written(
    memory: StoredMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.say("currency: USD")
    work = memory.end()
    fail(monkeypatch, work)
    assert memory.consolidate(work)["status"] == "WRITTEN"
    assert segment_status(memory, work) is SegmentStatus.DONE
    assert memory.texts("preferences") == ["currency: USD"]


@pytest.mark.parametrize("status", ["RUNNING", "SUCCEEDED"])
def test_an_execution_that_runs_again_or_has_succeeded_is_left_alone(
    memory: StoredMemory, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    memory.say("currency: USD")
    work = memory.end()
    fail(monkeypatch, work, status)
    assert (segment_status(memory, work), memory.queue.letters) == (SegmentStatus.PENDING, [])


def test_what_was_written_all_the_same_is_no_failure(memory: StoredMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.say("currency: USD")
    work = memory.end()
    memory.consolidate(work)
    fail(monkeypatch, work)
    assert (segment_status(memory, work), memory.queue.letters) == (SegmentStatus.DONE, [])


def test_of_an_erased_actor_there_is_no_letter(memory: StoredMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.say("currency: USD")
    gone = replace(memory.end(), toEvent="0001790000099000#ffffffff")
    fail(monkeypatch, gone)
    assert memory.queue.letters == []


def test_a_failed_digest_is_dead_lettered_and_touches_no_segment(
    memory: StoredMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.say("currency: USD")
    ended = memory.end()
    fail(monkeypatch, replace(ended, kind=Kind.DIGEST))
    assert segment_status(memory, ended) is SegmentStatus.PENDING
    assert len(memory.queue.letters) == 1
