"""Every AWS request of a turn's states fails once, twice, for ever, before it was carried out or when it was.

The states are run as the state machine runs them: by the names in their Retry and Catch.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import pytest

import record_failure
from tests.paths import ROOT
from tests.thorough import some
from tests.unit.stored_turns import STOP_DATE, A, Requests, StoredTurns, step, text, tool_use
from tests.unit.tool_turns import QUEUE_URL, FakeLambda, answered, raised
from tests.unit.turn_states import Model, invoke, load, run_tool, write
from turnwright.errors import GatewayFault, StorageUnavailable, ToolAttemptFailed
from turnwright.sessions.values import Status, Turn
from turnwright.storage.documents import json_text
from turnwright.storage.keys import SessionId
from turnwright.storage.settings import settings

LONG = "long " * 4_000
"""Goes to the bucket, wherever it is kept."""

FOR_EVER = 1_000
MACHINE = json.loads((ROOT / "statemachines/agent_turn.asl.json").read_text())
STATES = MACHINE["States"] | MACHINE["States"]["Run Tools"]["ItemProcessor"]["States"]


def unavailable() -> None:
    raise StorageUnavailable("no", throttled=True)


def retried(state: str, work: Callable[[], Any]) -> Any:
    """The state's answer, after the retries that its Retry allows."""
    tries: dict[int, int] = {}
    while True:
        try:
            return work()
        except Exception as error:
            name = type(error).__name__
            entries = STATES[state]["Retry"]
            place = next((n for n, entry in enumerate(entries) if name in entry["ErrorEquals"]), None)
            if place is None or tries.get(place, 0) == entries[place]["MaxAttempts"]:
                raise
            tries[place] = tries.get(place, 0) + 1


class Queue:
    """SQS."""

    def __init__(self) -> None:
        self.letters: list[dict[str, Any]] = []

    def send_message(self, *, QueueUrl: str, MessageBody: str) -> None:  # noqa: N803 (SQS's names)
        assert QueueUrl
        self.letters.append(json.loads(MessageBody))


class Executions:
    """Step Functions with a failed execution of any name."""

    request: dict[str, Any]

    def describe_execution(self, *, executionArn: str) -> dict[str, Any]:  # noqa: N803 (Step Functions' name)
        return {
            "name": executionArn.rpartition(":")[2],
            "status": "FAILED",
            "error": "E",
            "cause": "c",
            "input": json_text(self.request),
            "stopDate": STOP_DATE,
        }

    def get_execution_history(self, **_: Any) -> dict[str, Any]:
        return {"events": []}


@dataclass(frozen=True, slots=True)
class Fault:
    """A request of a run that can be made to fail."""

    place: str
    client: Requests
    when: str
    number: int

    def fail(self, times: int) -> None:
        """So many requests in a row."""
        getattr(self.client, self.when).update(dict.fromkeys(range(self.number, self.number + times), unavailable))

    def heal(self) -> int:
        """How many requests there were."""
        made = len(self.client.made)
        self.client.forget()
        return made

    @contextmanager
    def named(self) -> Iterator[None]:
        """Says which one it was."""
        try:
            yield
        except BaseException as error:
            error.add_note(self.place)
            raise


class AskingModel(Model):
    """Asks for the tool until it has its result."""

    def converse_stream(self, **arguments: Any) -> dict[str, Any]:
        has_result = any("toolResult" in block for block in arguments["messages"][-1]["content"])
        self.replies = [text(f"answer {LONG}") if has_result else tool_use("use-1")]
        return Model.converse_stream(self, **arguments)


@dataclass(slots=True)
class Storage:
    """All that the handlers ask of AWS but models and tools."""

    stored: StoredTurns
    model: Model
    tools: FakeLambda
    queue: Queue
    executions: Executions
    clients: dict[str, Requests]
    turns: int = 0

    def next(self) -> tuple[str, str]:
        """A turn and a session that nobody has."""
        self.turns += 1
        self.stored.clock.ms += 3_600_000  # a circuit that opened lets one call through
        return f"{self.turns:08x}" + A[8:], f"s-{self.turns}"

    def forget(self) -> None:
        self.model.asked.clear()
        self.tools.invoked.clear()
        self.queue.letters.clear()
        for client in self.clients.values():
            client.forget()

    def faults(self, work: Callable[[], object]) -> Iterator[Fault]:
        """Each request that `work` makes in a good run: what it asks for has been done when it fails, or not."""
        self.forget()
        work()
        made = {name: client.operations for name, client in self.clients.items()}
        for name, operations in made.items():
            client = self.clients[name]
            for number, when in some(product(range(len(operations)), ("before", "after"))):
                self.forget()
                yield Fault(f"{when} {name} {number} ({operations[number]})", client, when, number)


@pytest.fixture
def storage(stored: StoredTurns, fake_lambda: FakeLambda, monkeypatch: pytest.MonkeyPatch) -> Storage:
    model, queue, executions = AskingModel([]), Queue(), Executions()
    clients = {
        "dynamodb": stored.dynamodb,
        "s3": stored.s3,
        "sqs": Requests(queue),
        "stepfunctions": Requests(executions),
    }
    monkeypatch.setattr("turnwright.storage.clients.sqs", lambda: clients["sqs"])
    monkeypatch.setattr("turnwright.storage.clients.stepfunctions", lambda: clients["stepfunctions"])
    monkeypatch.setattr("turnwright.storage.clients.bedrock_runtime", lambda _timeout_seconds: model)
    monkeypatch.setattr("turnwright.storage.availability._PAUSE_SECONDS", (0.0, 0.0))
    monkeypatch.setenv("TOOL_DEAD_LETTER_QUEUE_URL", QUEUE_URL)
    settings.cache_clear()
    fake_lambda.answer = lambda _event: answered(f"5 USD {LONG}")
    stored.publish(actionGroupExecutionConfig={"circuitBreaker": {"enabled": True}})
    storage = Storage(stored, model, fake_lambda, queue, executions, clients)
    whole(storage)  # what is done once, for an actor or a process, is done
    return storage


@dataclass(slots=True)
class Run:
    """A turn that asks for a tool once, from state to state. What failed is gone on with as a redrive does it."""

    storage: Storage
    turn_id: str
    session: str
    turn: dict[str, Any] | None = None
    lost: bool = False

    def go(self, redrives: int = 0) -> None:
        if self.turn is None:
            request = {"session": self.session, "words": LONG, "trace": True}
            loaded = retried(
                "Load Memory", lambda: load(self.storage.stored, self.turn_id, redrives=redrives, **request)
            )
            self.turn = loaded["turn"]
        turn = self.turn
        (call,) = retried("Invoke Model", lambda: invoke(turn, redrives=redrives))
        result = self._tool(turn, call, redrives)
        assert retried("Invoke Model", lambda: invoke(turn, 2, result, redrives=redrives)) == []
        retried("Write Memory", lambda: write(turn, 2, redrives=redrives))

    def _tool(self, turn: dict[str, Any], call: dict[str, Any], redrives: int) -> dict[str, Any]:
        def attempt() -> dict[str, Any]:
            return dict(run_tool(turn, call, lost=self.lost, redrives=redrives))

        try:
            if not self.lost:
                try:
                    return dict(retried("Invoke Tool", attempt))
                except GatewayFault:
                    self.lost = True
            return dict(retried("Look Up Tool Result", attempt))
        except ToolAttemptFailed as failed:
            report = json.loads(str(failed))
            assert "retryInMs" not in report
            return {
                "toolUseId": call["toolUseId"],
                "status": "error",
                "result": {"inline": {"text": report["errorCode"]}},
            }

    def is_committed(self) -> None:
        """All is there, and once: the turn, its event, its answer; the tool was invoked once."""
        stored = self.storage.stored
        header = stored.header(self.turn_id)
        assert header.status is Status.COMMITTED
        assert stored.documents.fetch(header.answer) == f"answer {LONG}"
        session = SessionId(header.turn.memoryStore, header.turn.actor, self.session)
        assert "leaseOwner" not in stored.session(session)
        events = [sk for pk, sk in stored.items() if pk == session.partition and sk.startswith("EVENT#")]
        assert len(events) == 1
        assert len(self.storage.tools.invoked) == 1


def whole(storage: Storage) -> Run:
    run = Run(storage, *storage.next())
    run.go()
    return run


def test_a_turn_of_which_any_request_fails_for_a_moment_is_committed_and_nothing_is_done_twice(
    storage: Storage,
) -> None:
    """Once or twice in a row, in turn."""
    for number, fault in enumerate(storage.faults(lambda: whole(storage))):
        fault.fail(1 + number // 2 % 2)
        with fault.named():
            run = whole(storage)
            assert fault.heal() > fault.number
            run.is_committed()
            _, second = storage.model.asked
            (result,) = second["messages"][-1]["content"]
            assert result["toolResult"]["content"] == [{"text": f"5 USD {LONG}"}]
    assert number > 9


def test_a_tool_that_is_given_up_is_invoked_once_and_its_letter_is_sent_whatever_request_fails(
    storage: Storage,
) -> None:
    storage.tools.answer = lambda _event: raised("ValueError")
    for number, fault in enumerate(storage.faults(lambda: whole(storage))):
        fault.fail(1 + number // 2 % 2)
        with fault.named():
            run = whole(storage)
            assert fault.heal() > fault.number
            run.is_committed()
            assert {letter["errorCode"] for letter in storage.queue.letters} <= {"TOOL_ERROR", "OUTCOME_UNKNOWN"}
            assert storage.queue.letters
    assert "sqs" in fault.place


def test_a_turn_whose_storage_stays_away_fails_by_its_name_and_a_redrive_finishes_it(storage: Storage) -> None:
    for fault in storage.faults(lambda: whole(storage)):
        fault.fail(FOR_EVER)
        run = Run(storage, *storage.next())
        with fault.named():
            try:
                run.go()
            except StorageUnavailable:
                fault.heal()
                storage.executions.request = storage.stored.request(run.turn_id, session=run.session).encode()
                record_failure.handler({"detail": {"executionArn": f"arn:execution:{run.turn_id}"}}, None)
                run.go(redrives=1)
            fault.heal()
            run.is_committed()


def test_a_failure_is_recorded_by_an_event_that_comes_again(storage: Storage) -> None:
    """Lambda hands an event over again whose function failed."""
    stored = storage.stored

    def begun() -> Turn:
        turn_id, session = storage.next()
        turn = stored.begin(turn_id, session=session, trace=True, words=LONG)
        stored.journal(turn, step(1, text("Hi")))
        storage.executions.request = stored.request(turn_id, session=session, words=LONG).encode()
        storage.forget()
        return turn

    def recorded(turn: Turn) -> None:
        for _ in range(3):
            with suppress(StorageUnavailable):
                record_failure.handler({"detail": {"executionArn": f"arn:execution:{turn.turnId}"}}, None)
                return
        raise AssertionError("it failed three times")

    for fault in storage.faults(partial(recorded, begun())):
        turn = begun()
        fault.fail(2)
        with fault.named():
            recorded(turn)
            assert fault.heal() > fault.number
            header = stored.header(turn.turnId)
            assert (header.status, header.failure["error"]) == (Status.FAILED, "E")
            assert "leaseOwner" not in stored.session(turn.session)
            assert {letter["turnId"] for letter in storage.queue.letters} == {turn.turnId}
