"""The dead letters: failed turns, consolidations and erasures, what consolidations skipped, and tool calls
that were given up. Shows them without losing any, and sends one again.

A letter is received and put back: while it is looked at, nobody else sees it. Works with clients of AWS as well.
"""

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from botocore.exceptions import BotoCoreError, ClientError

from local.terminal.colours import Paint
from turnwright.agents import versions
from turnwright.agents.definitions import Tool
from turnwright.api.agentcore.stores import DELETING
from turnwright.errors import NotFound
from turnwright.memory.records.actors import Actor
from turnwright.sessions.values import Status
from turnwright.storage import keys
from turnwright.storage.documents import Documents, json_text
from turnwright.storage.table import Table
from turnwright.tools.action_groups import read_response
from turnwright.tools.tool_failures import ToolFailure

Queue = Literal["turns", "tools"]
QUEUES: tuple[Queue, ...] = get_args(Queue)
LOGICAL_IDS: Mapping[Queue, str] = {"turns": "DeadLetterQueue", "tools": "ToolDeadLetterQueue"}
"""The queues' resources in the template."""

_HELD_SECONDS = 60
_SENDING_SECONDS = 960
"""Longer than a function may run."""

_BATCH = 10
_UNKNOWN = "-"


class NotSentAgain(Exception):
    """The letter was not sent again, or that failed once more; it is in its queue as before. One line."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter. `what` is the tool, the state in which an execution failed, or what a consolidation skipped; `id`
    the idempotency key, the turn, the consolidation or the erasure, which stands in `turn_id` too.

    `body` is the whole message; `attempts` is None for an execution.
    """

    queue: Queue
    sent_at: datetime
    what: str
    error: str
    attempts: int | None
    turn_id: str
    id: str
    body: Any
    receipt: str


@dataclass(frozen=True, slots=True)
class SentAgain:
    """What sending a letter again did, in one line, and the tool's answer, if there is one."""

    summary: str
    answer: str | None = None


@contextmanager
def held(sqs: Any, urls: Mapping[Queue, str]) -> Iterator[list[Letter]]:
    """The letters of the queues (their URLs), oldest first; what is still in its queue afterwards is put back."""
    letters: list[Letter] = []
    try:
        for queue, url in urls.items():
            letters += _receive(sqs, queue, url)
        yield sorted(letters, key=lambda letter: letter.sent_at)
    finally:
        for queue, url in urls.items():
            _put_back(sqs, url, [letter for letter in letters if letter.queue == queue])


def choose(letters: Sequence[Letter], named: str) -> list[Letter]:
    """The letter whose id, or whose turn, is `named`, or begins with it; and the copies of it, which are possible.

    Raises NotSentAgain if there is none or more than one.
    """
    readable = [letter for letter in letters if letter.id != _UNKNOWN]
    for fitting in (
        [letter for letter in readable if letter.id == named],
        [letter for letter in readable if letter.turn_id == named],
        [letter for letter in readable if letter.id.startswith(named)],
    ):
        found = {(letter.queue, letter.id) for letter in fitting}
        if len(found) > 1:
            raise NotSentAgain(f"{named} means more than one letter: {', '.join(sorted(name for _, name in found))}")
        if found:
            return fitting
    raise NotSentAgain(f"there is no letter of {named}")


@dataclass(frozen=True, slots=True)
class Sender:
    """Sends letters again. The first three are clients of SQS, Lambda and Step Functions."""

    sqs: Any
    functions: Any
    stepfunctions: Any
    table: Table
    documents: Documents

    def send_again(self, copies: Sequence[Letter], url: str) -> SentAgain:
        """Repeats the tool call, the turn, the consolidation or the erasure of a letter in the queue `url`; deletes the
        letter if that went well.

        Raises NotSentAgain.
        """
        letter = copies[0]
        for copy in copies:
            self.sqs.change_message_visibility(
                QueueUrl=url, ReceiptHandle=copy.receipt, VisibilityTimeout=_SENDING_SECONDS
            )
        sent = self._call_tool(letter) if letter.queue == "tools" else self._start_execution(letter)
        for copy in copies:
            self.sqs.delete_message(QueueUrl=url, ReceiptHandle=copy.receipt)
        return sent

    def _call_tool(self, letter: Letter) -> SentAgain:
        tool = self._tool(letter)
        event = self.documents.fetch(letter.body["event"])
        try:
            response = self.functions.invoke(FunctionName=tool.function_arn, Payload=json_text(event).encode())
            payload: bytes = response["Payload"].read()
            if "FunctionError" in response:
                raise NotSentAgain(_failed_again(letter, payload.decode("utf-8", "replace")))
            return SentAgain(
                f"{letter.what} was called again and answered; its letter is deleted", read_response(payload, tool).text
            )
        except (ClientError, BotoCoreError) as error:
            raise NotSentAgain(_failed_again(letter, str(error))) from error
        except ToolFailure as failure:
            raise NotSentAgain(_failed_again(letter, f"{failure.code}: {failure.message}")) from failure

    def _tool(self, letter: Letter) -> Tool:
        agent_id, version = letter.body["agentId"], letter.body["agentVersion"]
        try:
            tool = versions.load(self.table, agent_id, version).tool(letter.what)
        except NotFound as error:
            raise NotSentAgain(f"its agent is gone: {error}") from error
        if tool is None:
            raise NotSentAgain(f"version {version} of agent {agent_id} has no tool {letter.what}")
        return tool

    def _start_execution(self, letter: Letter) -> SentAgain:
        """Starts an execution of the same input under a new name, which a turn is told of: a name can be used only
        once.
        """
        if "skipped" in letter.body:
            raise NotSentAgain(
                f"the consolidation {letter.id} was written without {letter.what} and is not made again; "
                "the letter stays"
            )
        body = letter.body
        failed = body["executionArn"] if "failure" in body else _event_detail(body)["executionArn"]
        request = body["input"] if _has_whole_input(body) else self._input_of(failed)
        name = uuid.uuid4().hex
        is_turn, kind = "turnId" in request, "consolidation" if "consolidationId" in request else "erasure"
        if is_turn and self._is_committed(request["turnId"], is_recorded="failure" in body):
            return SentAgain(f"the turn {letter.turn_id} was committed since; its letter is deleted")
        if not is_turn and kind == "erasure" and not self._is_erasing(request):
            return SentAgain(f"the erasure {letter.id} was finished since; its letter is deleted")
        started = self.stepfunctions.start_execution(
            stateMachineArn=failed.rpartition(":")[0].replace(":execution:", ":stateMachine:"),
            name=name,
            input=json_text({**request, "turnId": name} if is_turn else request),
        )
        again = (
            f"the request of turn {letter.turn_id} was started again as turn {name}"
            if is_turn
            else f"the {kind} {letter.id} was started again as execution {name}"
        )
        return SentAgain(
            f"{again} ({started['executionArn']}); its letter is deleted, and a new failure sends a new one"
        )

    def _input_of(self, execution_arn: str) -> Any:
        """Step Functions keeps it for 90 days, longer than the queue keeps the letter."""
        try:
            return json.loads(self.stepfunctions.describe_execution(executionArn=execution_arn)["input"])
        except ClientError as error:
            if error.response["Error"]["Code"] != "ExecutionDoesNotExist":
                raise
            raise NotSentAgain(f"its execution {execution_arn} is gone, and with it what was asked") from error

    def _is_committed(self, turn_id: str, *, is_recorded: bool) -> bool:
        """Whether a turn was redriven, with success, since it failed. Raises NotSentAgain if it runs again, and for a
        turn whose failure was recorded and whose header is gone: then its actor was erased since.
        """
        header = self.table.get(keys.turn_header(turn_id))
        if header is None and is_recorded:
            raise NotSentAgain(f"the turn {turn_id} was erased since and is not made again; the letter stays")
        if header is not None and header["status"] == Status.RUNNING and is_recorded:
            raise NotSentAgain(f"the turn {turn_id} runs again, since it was redriven; the letter stays")
        return header is not None and header["status"] == Status.COMMITTED

    def _is_erasing(self, request: Mapping[str, Any]) -> bool:
        """Whether an erasure is still to be done: one that is sent again later would take what came afterwards."""
        store, actor = request["memoryStore"], request.get("actor")
        if actor is None:
            item = self.table.get(keys.store(store))
            return item is not None and item["status"] == DELETING
        item = self.table.get(keys.actor(store, actor))
        return item is not None and Actor.decode(item).erasing


def _has_whole_input(body: Mapping[str, Any]) -> bool:
    """Not an event that should have been made a letter, nor a letter whose identifiers may not be written."""
    return "failure" in body and not body.get("inputIsRedacted", False)


def _failed_again(letter: Letter, why: str) -> str:
    return f"{letter.what} failed again, and its letter stays: {' '.join(why.split())[:1000]}"


def render(letters: Sequence[Letter], paint: Paint) -> str:
    """The letters as aligned rows."""
    if not letters:
        return "no dead letters"
    head = ("when", "queue", "tool or state", "error", "attempts", "turn, consolidation, erasure or idempotency key")
    rows = [
        (
            letter.sent_at.astimezone().strftime("%Y-%m-%d %H:%M:%S"),
            letter.queue,
            letter.what,
            letter.error,
            "-" if letter.attempts is None else str(letter.attempts),
            letter.id if letter.queue == "tools" else letter.turn_id,
        )
        for letter in letters
    ]
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    ]
    return "\n".join([paint(lines[0], "bold"), *lines[1:]])


def as_json(letters: Sequence[Letter]) -> str:
    """The letters with everything that they hold."""
    return json.dumps(
        [
            {"queue": letter.queue, "sentAt": letter.sent_at.isoformat(timespec="milliseconds"), "letter": letter.body}
            for letter in letters
        ],
        indent=2,
        ensure_ascii=False,
    )


# ---- The queues ----


def _receive(sqs: Any, queue: Queue, url: str) -> Iterator[Letter]:
    seen: set[str] = set()
    while True:
        response = sqs.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=_BATCH,
            VisibilityTimeout=_HELD_SECONDS,
            WaitTimeSeconds=1,
            MessageSystemAttributeNames=["SentTimestamp"],
        )
        fresh = [message for message in response.get("Messages", ()) if message["MessageId"] not in seen]
        if not fresh:
            return
        seen.update(message["MessageId"] for message in fresh)
        yield from (_letter(queue, message) for message in fresh)


def _put_back(sqs: Any, url: str, letters: Sequence[Letter]) -> None:
    """SQS takes a letter that was deleted meanwhile for a failed entry of the batch."""
    for start in range(0, len(letters), _BATCH):
        entries = [
            {"Id": str(index), "ReceiptHandle": letter.receipt, "VisibilityTimeout": 0}
            for index, letter in enumerate(letters[start : start + _BATCH])
        ]
        sqs.change_message_visibility_batch(QueueUrl=url, Entries=entries)


def _letter(queue: Queue, message: Mapping[str, Any]) -> Letter:
    try:
        body = json.loads(message["Body"])
    except ValueError:
        body = message["Body"]
    try:
        what, error, attempts, turn_id, letter_id = _tool_facts(body) if queue == "tools" else _turn_facts(body)
    except (KeyError, TypeError, AttributeError):
        what, error, attempts, turn_id, letter_id = _UNKNOWN, _UNKNOWN, None, _UNKNOWN, _UNKNOWN
    return Letter(
        queue=queue,
        sent_at=datetime.fromtimestamp(int(message["Attributes"]["SentTimestamp"]) / 1000, UTC),
        what=what,
        error=error,
        attempts=attempts,
        turn_id=turn_id,
        id=letter_id,
        body=body,
        receipt=message["ReceiptHandle"],
    )


Facts = tuple[str, str, int | None, str, str]
"""What, error, attempts, turn id and id of a letter."""


def _tool_facts(body: Any) -> Facts:
    return body["toolName"], body["errorCode"], body["attempts"], body["turnId"], body["idempotencyKey"]


def _turn_facts(body: Any) -> Facts:
    """The letter of a failed turn or consolidation, or the event that should have been made one of and could not."""
    if "failure" in body:
        failure = body["failure"]
        what = body.get("skipped") or failure.get("state", _UNKNOWN)
        name = body.get("consolidationId") or body.get("erasureId") or body["turnId"]
        return what, failure["error"], None, name, name
    detail = _event_detail(body)
    return _UNKNOWN, detail["error"] or detail["status"], None, detail["name"], detail["name"]


def _event_detail(body: Any) -> Mapping[str, Any]:
    """EventBridge keeps the event itself, Lambda keeps it in a record of the failed invocation."""
    event = body.get("requestPayload", body)
    detail: Mapping[str, Any] = event["detail"]
    return detail
