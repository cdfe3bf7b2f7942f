"""GetAgentMemory and DeleteAgentMemory as callers know them: an unmodified boto3 client against the running stack."""

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.__main__ import main
from local.stack import LocalStack
from tests.stacks import Agent, Stack
from tests.waiting import eventually
from tests.workflow.turns import ask, new_session
from turnwright.memory.erasure.belongings import Belongings
from turnwright.memory.records.session_summaries import SessionSummary
from turnwright.storage.clock import now_ms
from turnwright.storage.documents import Documents
from turnwright.storage.table import Table

STORE = "BANKASSIST-turnwright"


@pytest.fixture
def table(stack: Stack) -> Table:
    return Table(stack.client("dynamodb"), stack.outputs["TableName"])


def summarize(table: Table, actor: str, session: str) -> None:
    table.put(SessionSummary(STORE, actor, session, now_ms() - 60_000, now_ms(), f"About {session}.").written())


def listed(client: Any, agent: Agent, actor: str) -> list[str]:
    pages = client.get_paginator("get_agent_memory").paginate(
        **agent, memoryId=actor, memoryType="SESSION_SUMMARY", PaginationConfig={"PageSize": 1}
    )
    return [entry["sessionSummary"]["summaryText"] for page in pages for entry in page["memoryContents"]]


def test_summaries_are_paged_deleted_one_by_one_and_all_at_once_with_all_that_the_actor_said(
    stack: Stack, agent_client: Any, banking_assistant: Agent, table: Table
) -> None:
    actor, other, session = new_session(), new_session(), new_session()
    for each in (actor, other):
        assert ask(agent_client, "Hi", session, memoryId=each, **banking_assistant).answer
        for name in ("s-1", "s-2"):
            summarize(table, each, name)
    assert listed(agent_client, banking_assistant, actor) == ["About s-2.", "About s-1."]

    deleted = agent_client.delete_agent_memory(**banking_assistant, memoryId=actor, sessionId="s-2")
    assert deleted["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert listed(agent_client, banking_assistant, actor) == ["About s-1."]

    documents = Documents(stack.client("s3"), stack.outputs["BucketName"])
    belongings = Belongings(table, documents, STORE, actor)
    assert list(belongings.items())

    agent_client.delete_agent_memory(**banking_assistant, memoryId=actor)
    eventually(lambda: not list(belongings.items()), "all of the actor is erased")
    assert list(belongings.objects()) == []
    assert listed(agent_client, banking_assistant, actor) == []
    assert listed(agent_client, banking_assistant, other) == ["About s-2.", "About s-1."]
    assert ask(agent_client, "Hi", session, memoryId=actor, **banking_assistant).answer


def test_the_command_line_shows_exports_and_erases_a_memory(
    stack: LocalStack,
    agent_client: Any,
    banking_assistant: Agent,
    table: Table,
    capsys: pytest.CaptureFixture[str],
) -> None:
    actor = new_session()
    ask(agent_client, "Hi", new_session(), memoryId=actor, **banking_assistant)
    summarize(table, actor, "s-1")
    belongings = Belongings(table, Documents(stack.client("s3"), stack.outputs["BucketName"]), STORE, actor)
    where = ["--aws-url", stack.aws_url]

    assert main(["memory", actor, *where]) == 0
    assert "About s-1." in capsys.readouterr().out
    assert main(["memory", actor, "--store", STORE, "--export", *where]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == len(list(belongings.items())) + len(list(belongings.objects())) > 4
    assert main(["memory", actor, "--erase", *where]) == 0
    assert f"nothing of {actor} is left in {STORE}" in capsys.readouterr().out
    assert main(["memory", actor, *where]) == 1
    assert f"nothing is known of {actor}" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["get_agent_memory", "delete_agent_memory"])
def test_refusals_have_bedrocks_names(agent_client: Any, banking_assistant: Agent, method: str) -> None:
    more = {"memoryType": "SESSION_SUMMARY"} if method.startswith("get") else {}
    with pytest.raises(ClientError) as unknown:
        getattr(agent_client, method)(agentId="NOBODY", agentAliasId="live", memoryId="user-1", **more)
    assert unknown.value.response["Error"]["Code"] == "ResourceNotFoundException"
    with pytest.raises(ClientError) as refused:
        getattr(agent_client, method)(**banking_assistant, memoryId="a b", **more)
    assert refused.value.response["Error"]["Code"] == "ValidationException"
    assert "memoryId" in refused.value.response["Error"]["Message"]
