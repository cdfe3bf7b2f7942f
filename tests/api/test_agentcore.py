"""AgentCore Memory's API as boto3 callers know it: unmodified clients that only know the endpoint."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.stacks import Agent, Caller, Stack, signing
from tests.waiting import eventually
from tests.workflow.turns import ask, new_session
from turnwright.storage import keys
from turnwright.storage.keys import SessionId

ACTOR = "user/1:x"


@pytest.fixture
def clients(stack: Stack, credentials: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """The data plane's and the control plane's clients, found by the environment alone."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_AGENTCORE", stack.url)
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_AGENTCORE_CONTROL", f"{stack.url}/")
    session = boto3.session.Session()
    data, control = (session.client(f"bedrock-agentcore{plane}") for plane in ("", "-control"))
    return signing(stack, data), signing(stack, control)


@pytest.fixture
def memory(clients: tuple[Any, Any]) -> Iterator[dict[str, Any]]:
    _, control = clients
    created = control.create_memory(
        name=f"M{uuid4().hex[:8]}",
        eventExpiryDuration=7,
        memoryStrategies=[{"semanticMemoryStrategy": {"name": "facts", "namespaces": ["/facts/{actorId}/"]}}],
    )["memory"]
    yield created
    assert control.delete_memory(memoryId=created["id"])["status"] == "DELETING"
    eventually(lambda: created["id"] not in listed(control), "the deletion", seconds=40)
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        control.get_memory(memoryId=created["id"])


def listed(control: Any) -> list[str]:
    pages = control.get_paginator("list_memories").paginate()
    return [memory["id"] for page in pages for memory in page["memories"]]


def said(text: str) -> list[dict[str, Any]]:
    return [{"conversational": {"role": "USER", "content": {"text": text}}}]


def test_events_are_made_read_listed_and_deleted_with_ids_in_paths(
    clients: tuple[Any, Any], memory: dict[str, Any]
) -> None:
    data, _ = clients
    place = {"memoryId": memory["arn"], "actorId": ACTOR, "sessionId": "s-1"}
    now = datetime.now(UTC)
    made = [data.create_event(**place, eventTimestamp=now, payload=said(text))["event"] for text in ("one", "two")]

    assert data.get_event(**place, eventId=made[0]["eventId"])["event"] == made[0]
    assert data.list_events(**place)["events"] == [made[1], made[0]]
    pages = data.get_paginator("list_events").paginate(**place, PaginationConfig={"PageSize": 1})
    assert [len(page["events"]) for page in pages] == [1, 1]
    assert data.list_actors(memoryId=memory["id"])["actorSummaries"] == [{"actorId": ACTOR}]
    (session,) = data.list_sessions(memoryId=memory["id"], actorId=ACTOR)["sessionSummaries"]
    assert (session["sessionId"], session["actorId"]) == ("s-1", ACTOR)
    assert data.delete_event(**place, eventId=made[0]["eventId"])["eventId"] == made[0]["eventId"]
    assert data.list_events(**place)["events"] == [made[1]]


def test_an_event_of_five_megabytes_comes_back_whole(clients: tuple[Any, Any], memory: dict[str, Any]) -> None:
    data, _ = clients
    place = {"memoryId": memory["id"], "actorId": "a", "sessionId": "s"}
    payload = [{"blob": "x" * 5_000_000}]
    event = data.create_event(**place, eventTimestamp=datetime.now(UTC), payload=payload)["event"]
    assert data.get_event(**place, eventId=event["eventId"])["event"]["payload"] == payload


def test_events_made_at_once_in_a_session_are_all_listed(clients: tuple[Any, Any], memory: dict[str, Any]) -> None:
    data, _ = clients
    place = {"memoryId": memory["id"], "actorId": "a", "sessionId": "s"}
    with ThreadPoolExecutor(6) as pool:
        made = pool.map(
            lambda number: data.create_event(
                **place, eventTimestamp=datetime.now(UTC), payload=said(str(number)), clientToken=f"token-{number % 6}"
            )["event"]["eventId"],
            range(12),
        )
    assert {event["eventId"] for event in data.list_events(**place)["events"]} == set(made)
    assert len(data.list_events(**place)["events"]) == 6


def test_records_are_made_found_changed_and_deleted(clients: tuple[Any, Any], memory: dict[str, Any]) -> None:
    data, _ = clients
    now = datetime.now(UTC)
    path = f"/facts/{ACTOR}/"
    entries = [
        {"requestIdentifier": str(number), "namespaces": [path], "content": {"text": text}, "timestamp": now}
        for number, text in enumerate(("likes tea", "lives in Oslo"))
    ]
    made = data.batch_create_memory_records(memoryId=memory["id"], records=entries)["successfulRecords"]
    found = data.retrieve_memory_records(
        memoryId=memory["id"], namespacePath="/facts/", searchCriteria={"searchQuery": "where does the user live: Oslo"}
    )["memoryRecordSummaries"]
    assert found[0]["content"]["text"] == "lives in Oslo"
    assert found[0]["memoryStrategyId"] == memory["strategies"][0]["strategyId"]

    change = {"memoryRecordId": made[0]["memoryRecordId"], "timestamp": now, "content": {"text": "likes coffee"}}
    data.batch_update_memory_records(memoryId=memory["id"], records=[change])
    record = data.get_memory_record(memoryId=memory["id"], memoryRecordId=made[0]["memoryRecordId"], namespace=path)
    assert record["memoryRecord"]["content"]["text"] == "likes coffee"
    data.delete_memory_record(memoryId=memory["id"], memoryRecordId=made[0]["memoryRecordId"])
    answer = data.batch_delete_memory_records(
        memoryId=memory["id"], records=[{"memoryRecordId": entry["memoryRecordId"]} for entry in made]
    )
    assert [entry["errorCode"] for entry in answer["failedRecords"]] == [404]
    assert data.list_memory_records(memoryId=memory["id"], namespace=path)["memoryRecordSummaries"] == []


def test_a_turn_is_listed_and_an_event_is_in_the_next_turns_history(
    agent_client: Any, small_talk: Agent, clients: tuple[Any, Any]
) -> None:
    data, control = clients
    store, session = f"{small_talk['agentId']}-turnwright", new_session()
    place = {"memoryId": store, "actorId": "alice", "sessionId": session}

    first = ask(agent_client, "I am Alice", session, memoryId="alice", **small_talk)
    (event,) = data.list_events(**place)["events"]
    assert [entry["conversational"]["content"]["text"] for entry in event["payload"]] == ["I am Alice", first.answer]
    data.create_event(**place, eventTimestamp=datetime.now(UTC), payload=said("By the way, it rains"))
    second = ask(agent_client, "Does it rain?", session, memoryId="alice", **small_talk)
    assert "By the way, it rains" in second.of("modelInvocationInput")[0]["text"]
    assert len(data.list_events(**place)["events"]) == 3
    assert control.get_memory(memoryId=store)["memory"]["id"] == store
    assert store in listed(control)


def test_what_is_said_in_events_is_found_after_the_sweep(
    stack: Stack, any_model: None, clients: tuple[Any, Any]
) -> None:
    data, control = clients
    memory = control.create_memory(
        name=f"M{uuid4().hex[:8]}",
        eventExpiryDuration=7,
        memoryStrategies=[
            {"semanticMemoryStrategy": {"name": "facts"}},
            {"userPreferenceMemoryStrategy": {"name": "likes", "namespaces": ["/likes/{actorId}/"]}},
            {"summaryMemoryStrategy": {"name": "sums", "namespaces": ["/sums/{actorId}/{sessionId}/"]}},
        ],
    )["memory"]
    place = {"memoryId": memory["id"], "actorId": ACTOR, "sessionId": "s-1"}
    for text in ("I live in Oslo and drive an old Volvo.", "I prefer window seats. Which train is next?"):
        payload = [*said(text), {"conversational": {"role": "ASSISTANT", "content": {"text": "I live nowhere."}}}]
        data.create_event(**place, eventTimestamp=datetime.now(UTC), payload=payload)
    make_due(stack, SessionId(memory["id"], ACTOR, "s-1"))
    stack.client("lambda").invoke(FunctionName=stack.resources["SweepSessionsFunction"])

    def found(path: str, query: str) -> list[str]:
        answer = data.retrieve_memory_records(
            memoryId=memory["id"], namespacePath=path, searchCriteria={"searchQuery": query, "topK": 1}
        )
        return [record["content"]["text"] for record in answer["memoryRecordSummaries"]]

    facts = f"/strategies/{memory['strategies'][0]['strategyId']}/actors/{ACTOR}/"
    eventually(lambda: found(facts, "Which car does the user drive? A Volvo?") != [], "the session is consolidated", 60)
    assert "Volvo" in found(facts, "Which car does the user drive? A Volvo?")[0]
    assert "Oslo" in found(facts, "Where does the user live? In Oslo?")[0]
    assert "window" in found(f"/likes/{ACTOR}", "Does the user prefer window seats?")[0]
    (summary,) = found(f"/sums/{ACTOR}/s-1", "Which train was asked for?")
    assert "train" in summary
    control.delete_memory(memoryId=memory["id"])


def make_due(stack: Stack, session: SessionId) -> None:
    """As if the session had been idle for long: moves its place in the index `Due`."""
    due = keys.due(session, round(datetime.now(UTC).timestamp() * 1000) - 1_000)
    key = keys.session(session)
    stack.client("dynamodb").update_item(
        TableName=stack.outputs["TableName"],
        Key={"PK": {"S": key.pk}, "SK": {"S": key.sk}},
        UpdateExpression="SET duePK = :partition, dueSK = :at",
        ExpressionAttributeValues={":partition": {"S": due["duePK"]}, ":at": {"S": due["dueSK"]}},
    )


def test_content_is_ingested_without_an_event(clients: tuple[Any, Any], memory: dict[str, Any]) -> None:
    data, _ = clients
    payload = [*said("I live in Oslo."), {"json": {"content": {"seat": "aisle"}}}]
    answer = data.ingest_data(
        memoryId=memory["id"],
        actorId=ACTOR,
        contentTimestamp=datetime.now(UTC),
        source={"inline": {"payload": payload}},
    )
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 202
    session = {"memoryId": memory["id"], "actorId": ACTOR, "sessionId": answer["sessionId"]}
    assert data.list_events(**session)["events"] == []
    assert data.list_sessions(memoryId=memory["id"], actorId=ACTOR)["sessionSummaries"] == []


def test_tags_of_a_memory_are_written_read_and_removed(clients: tuple[Any, Any], memory: dict[str, Any]) -> None:
    _, control = clients
    for answer in (
        control.tag_resource(resourceArn=memory["arn"], tags={"team": "a", "cost center": "1/2"}),
        control.untag_resource(resourceArn=memory["arn"], tagKeys=["cost center", "none"]),
    ):
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert control.list_tags_for_resource(resourceArn=memory["arn"])["tags"] == {"team": "a"}
    with pytest.raises(control.exceptions.ResourceNotFoundException):
        control.list_tags_for_resource(resourceArn=memory["arn"].replace(":memory/", ":runtime/"))


def test_refusals_have_agentcores_names_and_fields(clients: tuple[Any, Any], memory: dict[str, Any]) -> None:
    data, control = clients
    place = {"memoryId": memory["id"], "actorId": "a", "sessionId": "s"}
    with pytest.raises(data.exceptions.ValidationException) as refused:
        data.create_event(**{**place, "actorId": "#"}, eventTimestamp=datetime.now(UTC), payload=[])
    assert refused.value.response["reason"] == "FieldValidationFailed"
    assert [field["name"] for field in refused.value.response["fieldList"]] == ["actorId"]
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    with pytest.raises(data.exceptions.ResourceNotFoundException, match="there is no memory None-0123456789"):
        data.list_events(**{**place, "memoryId": "None-0123456789"})
    with pytest.raises(control.exceptions.ConflictException, match="agent file"):
        control.delete_memory(memoryId="BANKASSIST-turnwright")
    with pytest.raises(data.exceptions.ValidationException, match="not supported"):
        data.list_memory_extraction_jobs(memoryId=memory["id"])


@pytest.mark.parametrize("path", ["/memories", "/memories/"])
def test_a_path_is_as_good_with_a_trailing_slash_as_without(caller: Caller, path: str) -> None:
    status, body = caller.send("POST", path, {"maxResults": 0})
    assert (status, body["__type"]) == (400, "ValidationException")
    assert caller.headers["x-amzn-ErrorType"] == "ValidationException"
    assert body["fieldList"] == [{"name": "maxResults", "message": "is less than 1"}]
