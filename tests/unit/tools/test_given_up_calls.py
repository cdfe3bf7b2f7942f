"""Letters against SQS and S3, as moto has them."""

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.unit import samples
from tests.unit.conftest import mocked_client
from tests.unit.stored_turns import StoredTurns
from tests.unit.tool_turns import tool
from turnwright.storage.dead_letters import DeadLetters
from turnwright.tools import given_up_calls

REPORT = {"errorCode": "THROTTLING", "errorMessage": "slow down", "attempts": 3, "tryAgainNow": False}
QUEUE_BYTES = 256 * 1024
"""What SQS takes in one message, at the least."""


@pytest.fixture
def queue_url(stored: StoredTurns) -> str:
    return str(mocked_client("sqs").create_queue(QueueName="tools")["QueueUrl"])


def send(stored: StoredTurns, queue_url: str, event: dict[str, Any], report: dict[str, Any] = REPORT) -> None:
    queue = mocked_client("sqs")
    given_up_calls.send(
        DeadLetters(queue, queue_url), stored.documents, samples.turn(), tool(), 2, event, report, "use-1"
    )


def letters(queue_url: str) -> list[str]:
    received = mocked_client("sqs").receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10)
    return [message["Body"] for message in received.get("Messages", [])]


def test_a_letter_says_what_failed_and_how_to_repeat_it(stored: StoredTurns, queue_url: str) -> None:
    event = {"idempotencyKey": "turn/2/use-1", "inputText": "Kontostand? €"}

    send(stored, queue_url, event)

    (letter,) = letters(queue_url)
    assert json.loads(letter) == {
        "turnId": "0123456789abcdef0123456789abcdef",
        "sessionId": "session-1",
        "agentId": "BANKASSIST",
        "agentVersion": "3",
        "step": 2,
        "toolUseId": "use-1",
        "toolName": "get_account_balance",
        "actionGroup": "BankingTools",
        "functionArn": samples.BANK_FUNCTION,
        "attempts": 3,
        "errorCode": "THROTTLING",
        "errorMessage": "slow down",
        "idempotencyKey": "turn/2/use-1",
        "failedAt": "2026-09-21T14:13:20.000Z",
        "event": {"inline": event},
    }


@pytest.mark.parametrize("length", [60_000, 70_000, 1_000_000])
def test_a_letter_fits_into_the_queue_however_long_the_event(stored: StoredTurns, queue_url: str, length: int) -> None:
    event = {"idempotencyKey": "turn/2/use-1", "inputText": "x" * length}

    send(stored, queue_url, event, {**REPORT, "errorMessage": "\x01" * 2_000})

    (letter,) = letters(queue_url)
    assert len(letter.encode()) < QUEUE_BYTES
    stowed = json.loads(letter)["event"]
    assert ("inline" in stowed) == (length == 60_000)
    assert stored.documents.fetch(stowed) == event


def test_a_letter_that_the_queue_does_not_take_is_a_fault(stored: StoredTurns, queue_url: str) -> None:
    with pytest.raises(ClientError, match="NonExistentQueue"):
        send(stored, queue_url + "-of-nobody", {"idempotencyKey": "k"})
