"""GetAgentMemory and DeleteAgentMemory: the events of API Gateway in, answers that botocore parses out."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

import agent_memory
from tests.unit.followed_turns import client_error
from tests.unit.stored_turns import SESSION, START, A, StoredTurns
from turnwright.errors import StorageUnavailable
from turnwright.memory.erasure.erase_memory import Erasure
from turnwright.memory.records.actors import Actors
from turnwright.memory.records.session_summaries import SessionSummaries, SessionSummary
from turnwright.storage import keys
from turnwright.storage.settings import settings

MACHINE = "arn:aws:states:us-east-1:123456789012:stateMachine:erase"
PATH = "/agents/{}/agentAliases/{}/memories"
STORE, ACTOR = SESSION.store, SESSION.actor


@dataclass(slots=True)
class Executions:
    started: list[dict[str, Any]] = field(default_factory=list)
    failure: Exception | None = None

    def start_execution(self, **arguments: Any) -> None:
        if self.failure:
            raise self.failure
        if arguments["name"] in [each["name"] for each in self.started]:
            raise ClientError({"Error": {"Code": "ExecutionAlreadyExists", "Message": "no"}}, "StartExecution")
        self.started.append(arguments)


@pytest.fixture
def executions(stored: StoredTurns, monkeypatch: pytest.MonkeyPatch) -> Executions:
    monkeypatch.setenv("ERASE_MEMORY_STATE_MACHINE_ARN", MACHINE)
    settings.cache_clear()
    fake = Executions()
    monkeypatch.setattr("turnwright.storage.clients.stepfunctions", lambda: fake)
    return fake


def call(
    method: str,
    query: Mapping[str, str],
    agent_id: str = "BANK",
    alias: str = "live",
    invocation: str | None = "i-1",
    before: Mapping[str, list[str]] | None = None,
) -> tuple[int, Any, dict[str, str]]:
    """Status, body and headers of the answer. The query has the values of `before` too."""
    every = {name: [*(before or {}).get(name, []), value] for name, value in query.items()}
    headers = {"amz-sdk-invocation-id": invocation} if invocation else {}
    event = {
        "resource": PATH.format("{agentId}", "{agentAliasId}"),
        "path": PATH.format(quote(agent_id, safe=""), quote(alias, safe="")),
        "httpMethod": method,
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": dict(query) or None,
        "multiValueQueryStringParameters": every or None,
        "pathParameters": {"agentId": agent_id, "agentAliasId": alias},
        "requestContext": {"requestId": "r-1", "identity": {"userArn": "arn:aws:iam::123456789012:user/alice"}},
        "body": None,
        "isBase64Encoded": False,
    }
    answer = agent_memory.handler(event, None)
    told = {name: values[0] for name, values in (answer.get("multiValueHeaders") or {}).items()}
    return answer["statusCode"], json.loads(answer["body"]), told


def get(**query: str) -> tuple[int, Any]:
    return call("GET", {"memoryId": ACTOR, "memoryType": "SESSION_SUMMARY", **query})[:2]


def summary(number: int, **fields: Any) -> SessionSummary:
    base = SessionSummary(STORE, ACTOR, f"s-{number}", START + number, START + 1_000 + number, f"About {number}.")
    return replace(base, **fields)


def written(stored: StoredTurns, *summaries: SessionSummary) -> None:
    for each in summaries:
        stored.table.put(each.written())


# ---- The summaries ----


def test_a_summary_comes_back_as_it_went_in(stored: StoredTurns) -> None:
    whole = summary(
        1,
        topics=[{"name": "accounts"}],
        agent_id="BANK",
        agent_version="2",
        consolidation_id="c-1",
        prompt_version="p-1",
        expires_at=START // 1000 + 60,
    )
    written(stored, whole, whole, summary(2))
    assert SessionSummaries(stored.table).latest(STORE, ACTOR, 5) == [summary(2), whole]


def test_an_expired_summary_is_not_there_and_takes_no_place_on_a_page(stored: StoredTurns) -> None:
    alive = [summary(number) for number in (1, 3, 9)]
    expired = [summary(number, expires_at=START // 1000) for number in (0, 2, 4, 5, 6, 7, 8)]
    written(stored, *alive, *expired)
    summaries = SessionSummaries(stored.table)

    first = summaries.page(STORE, ACTOR, 2)
    second = summaries.page(STORE, ACTOR, 2, first.after)

    assert [each.session_id for each in (*first.summaries, *second.summaries)] == ["s-9", "s-3", "s-1"]
    assert second.after is None
    assert summaries.page(STORE, ACTOR, 3).after is None
    assert [each.session_id for each in summaries.of_session(STORE, ACTOR, "s-4")] == ["s-4"]


@given(st.lists(st.text("ab#/%:.~é\U0001f600 ", min_size=1, max_size=5), min_size=2, max_size=3, unique=True))
def test_no_actor_is_shown_the_summary_of_another(stored: StoredTurns, actors: list[str]) -> None:
    for actor in actors:
        written(stored, summary(1, actor=actor, text=f"About {actor}"))
    for actor in actors:
        found = SessionSummaries(stored.table).latest(STORE, actor, 9)
        assert [each.text for each in found] == [f"About {actor}"]


# ---- GetAgentMemory ----


def test_the_summaries_of_a_memory_are_listed_newest_first_in_bedrocks_shape(
    stored: StoredTurns, executions: Executions
) -> None:
    written(stored, summary(1, expires_at=1_790_000_060), summary(2))
    assert get() == (
        200,
        {
            "memoryContents": [
                {
                    "sessionSummary": {
                        "memoryId": "user-1",
                        "sessionId": "s-2",
                        "sessionStartTime": "2026-09-21T14:13:20.002Z",
                        "summaryText": "About 2.",
                    }
                },
                {
                    "sessionSummary": {
                        "memoryId": "user-1",
                        "sessionId": "s-1",
                        "sessionStartTime": "2026-09-21T14:13:20.001Z",
                        "summaryText": "About 1.",
                        "sessionExpiryTime": "2026-09-21T14:14:20.000Z",
                    }
                },
            ]
        },
    )


def test_pages_hold_as_many_as_asked_and_lead_through_all_of_them(stored: StoredTurns, executions: Executions) -> None:
    written(stored, *[summary(number) for number in range(5)])
    seen: list[str] = []
    more: dict[str, str] = {}
    for expected in (2, 2, 1):
        status, page = get(maxItems="2", **more)
        assert status == 200
        assert len(page["memoryContents"]) == expected
        seen += [entry["sessionSummary"]["sessionId"] for entry in page["memoryContents"]]
        more = {"nextToken": page["nextToken"]} if "nextToken" in page else {}
    assert seen == ["s-4", "s-3", "s-2", "s-1", "s-0"]
    assert more == {}


def test_a_memory_that_is_not_there_is_empty_and_so_is_one_that_is_being_erased(
    stored: StoredTurns, executions: Executions
) -> None:
    assert get() == (200, {"memoryContents": []})
    Actors(stored.table).require(STORE, ACTOR)
    written(stored, summary(1))
    assert len(get()[1]["memoryContents"]) == 1
    interrupted = Erasure(
        stored.table, stored.documents, executions, MACHINE, STORE, ACTOR, "e-1", has_time=lambda: False
    )
    assert not interrupted.run().done
    assert get() == (200, {"memoryContents": []})


@pytest.mark.parametrize(
    ("method", "query", "message"),
    [
        ("GET", {}, "memoryId: is required"),
        ("GET", {"memoryId": "a"}, "memoryId: "),
        ("GET", {"memoryId": "a/b"}, "memoryId: "),
        ("GET", {"memoryId": "user-1"}, "memoryType: is required and can only be SESSION_SUMMARY"),
        ("GET", {"memoryId": "user-1", "memoryType": "FACTS"}, "memoryType: is required and can only be"),
        ("GET", {"maxItems": "0"}, "maxItems: must be a whole number from 1 to 1000"),
        ("GET", {"maxItems": "1001"}, "maxItems: must be a whole number from 1 to 1000"),
        ("GET", {"maxItems": "+5"}, "maxItems: must be a whole number from 1 to 1000"),
        ("GET", {"maxItems": "²"}, "maxItems: must be a whole number from 1 to 1000"),
        ("GET", {"nextToken": "?"}, "nextToken: is not one that an earlier answer gave"),
        ("GET", {"nextToken": "UkVDT1JEIw=="}, "nextToken: is not one that an earlier answer gave"),
        ("GET", {"nextToken": "A" * 2_049}, "nextToken: has more than 2048 characters"),
        ("GET", {"sessionId": "s-1"}, "sessionId: is not a field of this request"),
        ("DELETE", {}, "memoryId: is required"),
        ("DELETE", {"memoryId": "user-1", "sessionId": "s"}, "sessionId: "),
        ("DELETE", {"memoryId": "user-1", "memoryType": "SESSION_SUMMARY"}, "memoryType: is not a field"),
    ],
)
def test_a_request_that_breaks_a_rule_is_refused_with_the_field_and_the_rule(
    stored: StoredTurns, executions: Executions, method: str, query: dict[str, str], message: str
) -> None:
    whole = {"memoryId": "user-1", "memoryType": "SESSION_SUMMARY"}
    completed = whole | query if method == "GET" and query and "memoryId" not in query else query
    status, body, headers = call(method, completed)
    assert (status, body["__type"]) == (400, "ValidationException")
    assert headers["x-amzn-ErrorType"] == "ValidationException"
    assert body["message"].startswith(message)
    assert executions.started == []


@pytest.mark.parametrize(
    ("method", "name"), [("GET", "memoryId"), ("GET", "memoryType"), ("DELETE", "memoryId"), ("DELETE", "sessionId")]
)
def test_a_parameter_that_is_in_the_query_twice_is_refused(
    stored: StoredTurns, executions: Executions, method: str, name: str
) -> None:
    more = {"memoryType": "SESSION_SUMMARY"} if method == "GET" else {"sessionId": "session-1"}
    query = {"memoryId": "user-1", **more}
    status, body, _ = call(method, query, before={name: [query[name]]})
    assert (status, body["__type"]) == (400, "ValidationException")
    assert body["message"] == f"{name}: is in the query 2 times; give it once"
    assert executions.started == []


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize(("agent_id", "alias"), [("NOBODY", "live"), ("BANK", "gone")])
def test_an_unknown_agent_or_alias_is_not_found(
    stored: StoredTurns, executions: Executions, method: str, agent_id: str, alias: str
) -> None:
    query = {"memoryId": "user-1"} | ({"memoryType": "SESSION_SUMMARY"} if method == "GET" else {})
    status, body, _ = call(method, query, agent_id, alias)
    assert (status, body["__type"]) == (404, "ResourceNotFoundException")
    assert call(method, query, "BANK%2F", alias)[0] == 400


# ---- DeleteAgentMemory ----


def test_a_memory_is_deleted_by_one_erasure_however_often_the_sdk_repeats_the_request(
    stored: StoredTurns, executions: Executions
) -> None:
    for _ in range(3):
        assert call("DELETE", {"memoryId": ACTOR})[:2] == (202, {})
    (started,) = executions.started
    assert started["stateMachineArn"] == MACHINE
    assert json.loads(started["input"]) == {"memoryStore": STORE, "actor": ACTOR}
    assert len(started["name"]) == 32

    call("DELETE", {"memoryId": ACTOR}, invocation="i-2")
    call("DELETE", {"memoryId": "user-2"})
    call("DELETE", {"memoryId": ACTOR}, invocation=None)
    call("DELETE", {"memoryId": ACTOR}, invocation=None)
    assert len({each["name"] for each in executions.started}) == 5


def test_one_session_is_deleted_at_once_without_an_erasure(stored: StoredTurns, executions: Executions) -> None:
    stored.run(A, answer="Hi")
    written(stored, summary(1), summary(2))
    for _ in range(2):
        assert call("DELETE", {"memoryId": ACTOR, "sessionId": "s-1"})[:2] == (202, {})
    assert [entry["sessionSummary"]["sessionId"] for entry in get()[1]["memoryContents"]] == ["s-2"]
    assert list(stored.table.keys(SESSION.partition)) == []
    assert executions.started == []


def test_a_session_in_which_a_turn_runs_is_a_conflict(stored: StoredTurns, executions: Executions) -> None:
    stored.begin(A)
    status, body, _ = call("DELETE", {"memoryId": ACTOR, "sessionId": "s-1"})
    assert (status, body["__type"]) == (409, "ConflictException")
    assert stored.table.get(keys.session(SESSION)) is not None


@pytest.mark.parametrize(
    ("failure", "status", "name"),
    [
        (StorageUnavailable("slow down", throttled=True), 429, "ThrottlingException"),
        (StorageUnavailable("not reached"), 500, "InternalServerException"),
        (client_error("InvalidArn", "StartExecution"), 500, "InternalServerException"),
    ],
    ids=["throttled", "unreachable", "refused"],
)
def test_an_erasure_that_could_not_be_started_is_told(
    stored: StoredTurns, executions: Executions, failure: Exception, status: int, name: str
) -> None:
    executions.failure = failure
    answered, body, headers = call("DELETE", {"memoryId": ACTOR})
    assert (answered, body["__type"], headers["x-amzn-ErrorType"]) == (status, name, name)
