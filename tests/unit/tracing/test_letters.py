"""The identifiers in dead letters, which name sessions, actors and callers as trace events do."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.commands.dead_letters import Letter, NotSentAgain, Sender
from tests.unit.stored_turns import A, StoredTurns
from tests.unit.tool_turns import FakeLambda, ToolTurn, raised
from turnwright.memory.session_ends.consolidations import Kind, consolidation
from turnwright.sessions.turns import Turns
from turnwright.storage.keys import SessionId
from turnwright.storage.settings import settings
from turnwright.storage.table import Table
from turnwright.tracing.execution_failures import ExecutionFailure

ARN = f"arn:aws:states:us-east-1:123456789012:execution:turns:{A}"
SESSION, ACTOR, CALLER = "session-of-4711", "ann-4711", "arn:aws:iam::123456789012:user/ann-4711"
TURN = {
    "turnId": A,
    "agentId": "BANK",
    "sessionId": SESSION,
    "memoryId": ACTOR,
    "caller": CALLER,
    "request": {"bytes": 1},
}
MASKED = {
    "sessionId": "session-of-[REDACTED]",
    "memoryId": "ann-[REDACTED]",
    "actor": "ann-[REDACTED]",
    "caller": "arn:aws:iam::123456789012:user/ann-[REDACTED]",
}


@pytest.fixture(params=["FULL", "METADATA", "REDACTED"])
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TRACE_PAYLOADS", request.param)
    monkeypatch.setenv("TRACE_REDACT_PATTERNS", r"4711|session-1\b")
    settings.cache_clear()
    yield request.param
    settings.cache_clear()


def turn_letter(request: dict[str, Any]) -> dict[str, Any]:
    return ExecutionFailure(ARN, A, request, "FAILED", "ModelsExhausted", "", None).letter("turnId", request)


def test_a_letter_of_an_execution_has_the_identifiers_that_its_level_allows(level: str) -> None:
    work = consolidation(
        Kind.SESSION_END, SessionId("BANK", ACTOR, SESSION), "", "e", agent_id="BANK", agent_version="1", actor_epoch=""
    )
    erasure: dict[str, Any] = {"memoryStore": "BANK", "actor": ACTOR}
    letters = [turn_letter(TURN), turn_letter(erasure), work.skipped_letter(ARN, "facts", "")]

    for letter, request in zip(letters, [TURN, erasure, work.encode()], strict=True):
        if level != "REDACTED":
            assert letter["input"] == request
            assert "inputIsRedacted" not in letter
            continue
        assert "4711" not in json.dumps(letter)
        assert letter["inputIsRedacted"] is True
        shown = {name: value for name, value in MASKED.items() if name in request}
        assert letter["input"] == {**request, **shown}


def test_an_input_in_which_nothing_is_hidden_can_be_started_again_as_it_is(level: str) -> None:
    request = {**TURN, "sessionId": "s", "memoryId": None, "caller": ""}
    letter = turn_letter(request)
    assert (letter["input"], "inputIsRedacted" in letter) == (request, False)


def test_an_identifier_can_be_taken_out_by_the_name_of_its_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACE_PAYLOADS", "REDACTED")
    monkeypatch.setenv("TRACE_REDACT_FIELDS", "sessionId, memory_id")
    settings.cache_clear()
    shown = turn_letter(TURN)["input"]
    settings.cache_clear()
    assert shown == {**TURN, "sessionId": "[REDACTED]", "memoryId": "[REDACTED]"}


def test_the_letter_of_a_tool_call_names_its_session_as_its_level_allows(
    level: str, table: Table, fake_lambda: FakeLambda
) -> None:
    turn = ToolTurn(table)
    fake_lambda.answers = [raised("KeyError", "'a'")]
    turn.failure()
    (letter,) = turn.queue.letters
    assert letter["sessionId"] == ("[REDACTED]" if level == "REDACTED" else "session-1")
    assert letter["toolName"] == "get_account_balance", "by which it is sent again"
    if level == "REDACTED":
        assert turn.documents.fetch(letter["event"])["sessionId"] == "session-1", "what is sent again is what was sent"


class Executions:
    """Step Functions, which has the execution or has it no more."""

    def __init__(self, request: dict[str, Any] | None) -> None:
        self.request = request
        self.started: list[dict[str, Any]] = []

    def describe_execution(self, **_: Any) -> dict[str, Any]:
        if self.request is None:
            raise ClientError({"Error": {"Code": "ExecutionDoesNotExist", "Message": ""}}, "DescribeExecution")
        return {"input": json.dumps(self.request)}

    def start_execution(self, **arguments: Any) -> dict[str, Any]:
        self.started.append(arguments)
        return {"executionArn": "arn"}


class Queue:
    def __init__(self) -> None:
        self.deleted: list[str] = []

    def change_message_visibility(self, **_: Any) -> None: ...

    def delete_message(self, **arguments: str) -> None:
        self.deleted.append(arguments["ReceiptHandle"])


def send_again(stored: StoredTurns, body: dict[str, Any], executions: Executions, queue: Queue) -> str:
    Turns(stored.table).fail(A, {"error": "ModelsExhausted"})
    letter = Letter("turns", datetime.now(UTC), "-", "ModelsExhausted", None, A, A, body, "receipt")
    return Sender(queue, None, executions, stored.table, stored.documents).send_again([letter], "url").summary


def test_a_letter_that_is_sent_again_starts_what_was_asked_whatever_the_letter_shows(
    level: str, stored: StoredTurns
) -> None:
    executions, queue = Executions(TURN), Queue()
    assert A in send_again(stored, turn_letter(TURN), executions, queue)
    (started,) = executions.started
    assert json.loads(started["input"]) == {**TURN, "turnId": started["name"]}
    assert queue.deleted == ["receipt"]


def test_a_letter_whose_execution_is_gone_is_sent_again_only_if_it_is_whole(level: str, stored: StoredTurns) -> None:
    executions, queue = Executions(None), Queue()
    if level != "REDACTED":
        send_again(stored, turn_letter(TURN), executions, queue)
        assert len(executions.started) == 1
        return
    with pytest.raises(NotSentAgain, match="is gone, and with it what was asked"):
        send_again(stored, turn_letter(TURN), executions, queue)
    assert (executions.started, queue.deleted) == ([], [])
