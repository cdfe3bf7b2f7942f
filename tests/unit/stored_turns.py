"""A table and a bucket in moto with an agent in them, and shorthand for what the states of a turn do to them."""

import copy
import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from moto.core import DEFAULT_ACCOUNT_ID
from moto.dynamodb.models import dynamodb_backends
from moto.dynamodb.models.utilities import dynamo_to_dict
from moto.s3.models import s3_backends

from turnwright.agents.definitions import Agent, Definition
from turnwright.agents.versions import load, publish, resolve
from turnwright.costs.metering import Meter
from turnwright.costs.spending import Spent
from turnwright.sessions.history import History, Window
from turnwright.sessions.journal import Journal
from turnwright.sessions.turns import Turns
from turnwright.sessions.values import Header, Step, Turn, TurnRequest
from turnwright.storage import keys
from turnwright.storage.documents import STATE_BYTES, Documents
from turnwright.storage.keys import SessionId
from turnwright.storage.table import Item, Table
from turnwright.turn.load_memory import begin
from turnwright.turn.write_memory import Bill, commit

START = 1_790_000_000_000
"""The moment, in milliseconds, at which the tests' clock stands at first."""

STOP_DATE = datetime.fromtimestamp(START / 1000, UTC)
"""When an execution has ended, as Step Functions describes it."""

AGENT: Mapping[str, Any] = {
    "agentId": "BANK",
    "agentName": "bank",
    "instruction": "Answer questions about bank accounts in a friendly way.",
    "foundationModels": ["model-1", "model-2"],
    "actionGroups": [
        {
            "actionGroupName": "Banking",
            "actionGroupExecutor": {"lambda": "arn:aws:lambda:us-east-1:123456789012:function:bank"},
            "functionSchema": {"functions": [{"name": "balance", "description": "The balance of an account."}]},
        }
    ],
    "memoryConfiguration": {"storageDays": 7, "history": {"maxTurns": 3, "maxCharacters": 2_000}},
}

A, B, C = "a" * 32, "b" * 32, "c" * 32
"""Turn ids."""

SESSION = SessionId("BANK-turnwright", "user-1", "s-1")

WRITES = ("put_item", "update_item", "delete_item", "transact_write_items")


class Interrupted(BaseException):
    """The process dies here: like a kill, nothing of the runtime catches it."""


def die() -> None:
    raise Interrupted


@dataclass(slots=True)
class StandingClock:
    """Stands for the module `time` in `turnwright.storage.clock`."""

    ms: int = START

    def time_ns(self) -> int:
        return self.ms * 1_000_000


@dataclass(slots=True)
class Requests:
    """An AWS client that keeps what it was asked, answers one request at a time (as DynamoDB does for one item), and
    can be told to do something `before` or `after` the request of a number that counts from 0."""

    client: Any
    made: list[tuple[str, dict[str, Any]]] = field(default_factory=list, repr=False)
    answers: list[Any] = field(default_factory=list, repr=False)
    before: dict[int, Callable[[], object]] = field(default_factory=dict)
    after: dict[int, Callable[[], object]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        if operation.startswith("_"):
            raise AttributeError(operation)  # what printers and copiers ask for

        def request(**arguments: Any) -> Any:
            number = len(self.made)
            _check_expressions(arguments)
            self.made.append((operation, copy.deepcopy({k: v for k, v in arguments.items() if k != "Body"})))
            self.before.pop(number, lambda: None)()
            with self._lock:
                answer = getattr(self.client, operation)(**arguments)
            self.answers.append(answer)
            self.after.pop(number, lambda: None)()
            return answer

        return request

    def forget(self) -> None:
        self.made.clear()
        self.answers.clear()
        self.before.clear()
        self.after.clear()

    @property
    def operations(self) -> list[str]:
        return [operation for operation, _ in self.made]

    @property
    def written(self) -> int:
        """Item writes: each entry of a transaction counts one."""
        return sum(
            len(arguments["TransactItems"]) if operation == "transact_write_items" else operation in WRITES
            for operation, arguments in self.made
        )

    @property
    def read(self) -> int:
        """Items that came back."""
        return sum(
            len(answer.get("Items", ())) + ("Item" in answer)
            for (operation, _), answer in zip(self.made, self.answers, strict=True)
            if operation in ("query", "get_item")
        )


def _check_expressions(arguments: Mapping[str, Any]) -> None:
    """DynamoDB refuses names and values that no expression uses, and two writes of one item in a transaction; moto does
    not always."""
    entries = [write for entry in arguments.get("TransactItems", ()) for write in entry.values()]
    keys_written = [json.dumps([w.get("Key") or [w["Item"]["PK"], w["Item"]["SK"]]], sort_keys=True) for w in entries]
    assert len(set(keys_written)) == len(keys_written)
    for request in (arguments, *entries):
        expressions = " ".join(text for name, text in request.items() if name.endswith("Expression"))
        for name, form in (("ExpressionAttributeValues", r":\w+"), ("ExpressionAttributeNames", r"#\w+")):
            assert set(request.get(name, ())) == set(re.findall(form, expressions))


def text(words: str) -> dict[str, Any]:
    """A model's message that is its answer."""
    return {"role": "assistant", "content": [{"text": words}]}


def tool_use(identifier: str = "use-1", name: str = "balance", **arguments: Any) -> dict[str, Any]:
    """A model's message that asks for a tool."""
    return {
        "role": "assistant",
        "content": [{"toolUse": {"toolUseId": identifier, "name": name, "input": arguments}}],
    }


def tool_result(identifier: str = "use-1", words: str = "5 USD", **changed: Any) -> dict[str, Any]:
    """A tool's result as it travels in state."""
    return {"toolUseId": identifier, "status": "success", "result": {"inline": {"text": words, **changed}}}


def step(number: int, message: Mapping[str, Any], *results: Mapping[str, Any], **fields: Any) -> Step:
    return Step(
        **{
            "number": number,
            "tool_results": list(results),
            "message": message,
            "stop_reason": "end_turn",
            "model": "model-1",
            "usage": {"inputTokens": 10, "outputTokens": 2, "totalTokens": 12},
            "latency_ms": 5,
            **fields,
        }
    )


@dataclass(slots=True)
class StoredTurns:
    """The storage, and what one does with it. `dynamodb` and `s3` count and can interrupt."""

    table: Table
    documents: Documents
    dynamodb: Requests
    s3: Requests
    clock: StandingClock
    bucket: str

    def publish(self, **changes: Any) -> Agent:
        publish(self.table, [Definition.of({**AGENT, **changes})])
        return self.agent()

    def agent(self) -> Agent:
        return load(self.table, "BANK", resolve(self.table, "BANK", "live"))

    def request(
        self, turn_id: str, *, words: str = "Hello", session: str = "s-1", trace: bool = False, **body: Any
    ) -> TurnRequest:
        """The execution's input as the front door makes it."""
        return TurnRequest(
            turn_id=turn_id,
            agent_id="BANK",
            agent_alias_id="live",
            session_id=session,
            memory_id="user-1",
            caller="arn:aws:iam::123456789012:user/alice",
            trace=trace,
            body=self.documents.stow(
                {"inputText": words, **body}, lambda digest: keys.turn_object(turn_id, digest), STATE_BYTES
            ),
        )

    def begin(self, turn_id: str, *, redriven: bool = False, **request: Any) -> Turn:
        execution = f"arn:aws:states:us-east-1:123456789012:execution:turns:{turn_id}"
        turn_request = self.request(turn_id, **request)
        return begin(self.table, self.documents, self.agent(), turn_request, execution, redrive=int(redriven))

    def journal(self, turn: Turn, *steps: Step) -> None:
        for each in steps:
            Journal(self.table, self.documents, turn.turnId).record(each)

    def commit(self, turn: Turn) -> Header:
        return commit(self.table, self.documents, turn, self.agent(), Bill(Spent(), 4, Meter(self.table)))

    def run(self, turn_id: str, *steps: Step, answer: str = "Hi", **request: Any) -> Header:
        """A whole turn, which by default only answers."""
        turn = self.begin(turn_id, **request)
        self.journal(turn, *(steps or (step(1, text(answer)),)))
        return self.commit(turn)

    def header(self, turn_id: str) -> Header:
        header = Turns(self.table).read(turn_id)
        assert header is not None, f"no header of {turn_id}"
        return header

    def session(self, session_id: SessionId = SESSION) -> Item:
        item = self.table.get(keys.session(session_id))
        assert item is not None, f"no item of {session_id}"
        return item

    def seen(self, turn: Turn) -> list[str]:
        """The texts of the history that a turn's model is shown."""
        bounds = load(self.table, turn.agentId, turn.agentVersion).history
        window = Window(turn.historyFrom, turn.historyTo)
        messages = History(self.table, self.documents).messages(turn.session, window, bounds)
        return [block["text"] for message in messages for block in message["content"] if "text" in block]

    def items(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Every item of the table, as DynamoDB holds it; from where moto keeps them, since many tests look often."""
        kept = dynamodb_backends[DEFAULT_ACCOUNT_ID]["us-east-1"].get_table(self.table.name).all_items()
        items = [dynamo_to_dict(item.attrs) for item in kept]
        return {(item["PK"]["S"], item["SK"]["S"]): item for item in items}

    def write_together(self, *, delete: Iterable[tuple[str, str]], put: Iterable[dict[str, Any]] = ()) -> None:
        """Deletes the items of these keys and puts others as `items` shows them, in few requests, not counted."""
        writes: list[dict[str, Any]] = [
            *({"DeleteRequest": {"Key": {"PK": {"S": pk}, "SK": {"S": sk}}}} for pk, sk in delete),
            *({"PutRequest": {"Item": item}} for item in put),
        ]
        for start in range(0, len(writes), 25):
            self.dynamodb.client.batch_write_item(RequestItems={self.table.name: writes[start : start + 25]})

    def memory(self) -> dict[tuple[str, str], dict[str, Any]]:
        """The items of sessions, without who holds them and until when: what later turns can see."""
        hidden = ("leaseOwner", "leaseExpiresAt")
        return {
            key: {name: value for name, value in item.items() if name not in hidden}
            for key, item in self.items().items()
            if key[0].startswith("SESSION#")
        }

    def objects(self) -> dict[str, Any]:
        """The name and content of every object of the bucket; from where moto keeps them."""
        kept = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[self.bucket].keys
        return {name: json.loads(kept[name].value) for name in kept}
