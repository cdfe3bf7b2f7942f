"""Every AWS request of an API's function fails: the caller is told in a way that SDKs repeat, and the repeat works."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import pytest

import agent_memory
import async_turns
import memory_events
from tests.unit.stored_turns import SESSION, START, A, Requests, StoredTurns
from turnwright.api.agentcore.operations import operations
from turnwright.errors import StorageUnavailable
from turnwright.memory.records.actors import Actors
from turnwright.storage import keys
from turnwright.storage.keys import SessionId
from turnwright.storage.settings import settings

Event = dict[str, Any]

LONG = "long " * 20_000
RETRIED = {429: {"ThrottledException", "ThrottlingException"}, 500: {"InternalServerException", "ServiceException"}}


class Executions:
    """Step Functions, which starts an execution of a name once."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def start_execution(self, *, name: str, **_: Any) -> None:
        self.names.add(name)


@dataclass(slots=True)
class Api:
    """The storage behind the functions."""

    stored: StoredTurns
    executions: Executions
    clients: Mapping[str, Requests]


@pytest.fixture
def api(stored: StoredTurns, monkeypatch: pytest.MonkeyPatch) -> Api:
    executions = Executions()
    clients = {"dynamodb": stored.dynamodb, "s3": stored.s3, "stepfunctions": Requests(executions)}
    monkeypatch.setattr("turnwright.storage.clients.stepfunctions", lambda: clients["stepfunctions"])
    monkeypatch.setattr("turnwright.storage.availability._PAUSE_SECONDS", ())
    for name in ("STATE_MACHINE_ARN", "ERASE_MEMORY_STATE_MACHINE_ARN"):
        monkeypatch.setenv(name, "arn:aws:states:us-east-1:123456789012:stateMachine:m")
    settings.cache_clear()
    Actors(stored.table).require(SESSION.store, SESSION.actor)
    return Api(stored, executions, clients)


def proxy(method: str, resource: str, body: Any = None, query: Mapping[str, str] | None = None, **path: str) -> Event:
    return {
        "resource": resource,
        "path": resource.format(**path),
        "httpMethod": method,
        "headers": {"idempotency-key": "k" * 33, "amz-sdk-invocation-id": "i-1"},
        "multiValueHeaders": {},
        "pathParameters": path,
        "queryStringParameters": dict(query) if query else None,
        "multiValueQueryStringParameters": {name: [value] for name, value in (query or {}).items()} or None,
        "requestContext": {"requestId": "r-1", "identity": {"userArn": "arn:aws:iam::123456789012:user/alice"}},
        "body": None if body is None else json.dumps(body),
        "isBase64Encoded": False,
    }


def start_turn(api: Api, case: str) -> Event:
    turn = {"agentId": "BANK", "agentAliasId": "live", "sessionId": case, "inputText": LONG}
    return proxy("POST", "/turns", turn)


def read_turn(api: Api, case: str) -> Event:
    return proxy("GET", f"/turns/{A}")


def create_event(api: Api, case: str) -> Event:
    payload = [{"conversational": {"role": "USER", "content": {"text": LONG}}}]
    event = {"actorId": SESSION.actor, "sessionId": case, "eventTimestamp": START // 1000, "payload": payload}
    path = operations()["CreateEvent"].path
    return proxy("POST", path, {**event, "clientToken": "t" * 33}, memoryId=SESSION.store)


def list_events(api: Api, case: str) -> Event:
    path = operations()["ListEvents"].path
    return proxy("POST", path, {}, memoryId=SESSION.store, actorId=SESSION.actor, sessionId="s-1")


PATH = "/agents/{agentId}/agentAliases/{agentAliasId}/memories"


def delete_session(api: Api, case: str) -> Event:
    session = SessionId(SESSION.store, SESSION.actor, case)
    api.stored.run(sha256(case.encode()).hexdigest()[:32], session=case)
    assert api.stored.table.get(keys.session(session))
    query = {"memoryId": SESSION.actor, "sessionId": case}
    return proxy("DELETE", PATH, query=query, agentId="BANK", agentAliasId="live")


def delete_memory(api: Api, case: str) -> Event:
    query = {"memoryId": SESSION.actor}
    return proxy("DELETE", PATH, query=query, agentId="BANK", agentAliasId="live")


CALLS: list[tuple[Any, Callable[[Api, str], Event], int]] = [
    (async_turns, start_turn, 202),
    (async_turns, read_turn, 200),
    (memory_events, create_event, 201),
    (memory_events, list_events, 200),
    (agent_memory, delete_session, 202),
    (agent_memory, delete_memory, 202),
]


@pytest.mark.parametrize(("module", "make", "status"), CALLS, ids=[make.__name__ for _, make, _ in CALLS])
def test_a_fault_is_told_as_one_that_is_repeated_and_the_repeat_does_it_once(
    api: Api, module: Any, make: Callable[[Api, str], Event], status: int
) -> None:
    api.stored.run(A, words=LONG, answer=LONG)

    def ask(event: Event) -> tuple[int, str]:
        answer = module.handler(event, None)
        return answer["statusCode"], json.loads(answer["body"] or "{}").get("__type", "")

    event = make(api, "good")
    for client in api.clients.values():
        client.forget()
    assert ask(event) == (status, "")
    made = {name: len(client.made) for name, client in api.clients.items()}
    assert sum(made.values()) > 1
    places = [(name, number) for name, count in made.items() for number in range(count)]
    for throttled, when in [(True, "before"), (False, "after")]:
        for name, number in places:
            case = f"{when}-{name}-{number}"
            event = make(api, case)
            for client in api.clients.values():
                client.forget()

            def fail(throttled: bool = throttled) -> None:
                raise StorageUnavailable("no", throttled=throttled)

            getattr(api.clients[name], when)[number] = fail
            answered, error = ask(event)
            assert (answered, error in RETRIED[answered]) == (429 if throttled else 500, True), case
            assert ask(event) == (status, ""), case
            session = SessionId(SESSION.store, SESSION.actor, case)
            events = list(api.stored.table.query(session.partition, keys.EVENT_PREFIX, keys.EVENT_PREFIX + keys.END))
            assert len(events) == (make is create_event), case
    if make in (start_turn, delete_memory):
        assert len(api.executions.names) == (1 + 2 * len(places) if make is start_turn else 1)
