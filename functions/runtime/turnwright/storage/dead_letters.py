"""Dead letters: what was given up, with everything that is needed to look into it and to repeat it."""

from collections.abc import Mapping
from typing import Any

from turnwright.storage import clients
from turnwright.storage.documents import json_text
from turnwright.storage.settings import settings


class DeadLetters:
    """The dead letters of one queue."""

    def __init__(self, client: Any, queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url

    def send(self, letter: Mapping[str, Any]) -> None:
        """Sends a letter, as JSON. Whoever repeats what failed sends it again: a letter may come twice."""
        self._client.send_message(QueueUrl=self._queue_url, MessageBody=json_text(letter))


def dead_letters() -> DeadLetters:
    """Those of executions, and of parts of consolidations."""
    return DeadLetters(clients.sqs(), settings().dead_letter_queue_url)


def tool_dead_letters() -> DeadLetters:
    """Those of tool calls."""
    return DeadLetters(clients.sqs(), settings().tool_dead_letter_queue_url)
