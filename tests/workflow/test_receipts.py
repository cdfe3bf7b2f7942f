"""Receipts add up: what the header says is what DynamoDB reported, and what the execution's history has."""

import json
from collections.abc import Mapping
from typing import Any

from local.bedrock.scripted_model import ScriptedModel
from local.commands.executions import Execution
from local.commands.receipts import ReceiptReader, render
from local.stack import LocalStack
from tests.stacks import Agent, Stack
from tests.waiting import eventually
from tests.workflow.turns import Told, ask, calls, execution_of, fails, new_session, says
from turnwright.costs.receipts import of_header
from turnwright.sessions.turns import Turns
from turnwright.sessions.values import Header
from turnwright.storage.table import Table

THREE = [("echo", {"text": text}) for text in "abc"]


def header_of(stack: Stack, told: Told) -> Header:
    header = Turns(Table(stack.client("dynamodb"), stack.outputs["TableName"])).read(told.turn_id)
    assert header
    return header


def receipt_of(stack: Stack, told: Told) -> dict[str, Any]:
    receipt = of_header(header_of(stack, told))
    assert receipt
    return receipt


def metered_lines(stack: Stack, turn_id: str) -> list[Mapping[str, Any]]:
    """The lines in which the turn's functions say what DynamoDB reported to them."""
    pages = stack.client("logs").get_paginator("filter_log_events")
    lines = [
        json.loads(event["message"])
        for page in pages.paginate(logGroupName=stack.outputs["RuntimeLogGroup"], filterPattern=f'"{turn_id}"')
        for event in page["events"]
    ]
    return [line for line in lines if "readUnits" in line and line["message"] != "digest considered"]


def assert_adds_up(stack: Stack, told: Told, execution: Execution, *, lines: int, off: int = 2) -> dict[str, Any]:
    """The receipt; `lines` invocations have logged what they consumed.

    The commit's own part is an estimate: two units are an index entry, or an item near a whole KB.
    """
    eventually(lambda: len(metered_lines(stack, told.turn_id)) == lines, "the functions' log lines", 60)
    logged = metered_lines(stack, told.turn_id)
    receipt = receipt_of(stack, told)
    assert receipt["readUnits"] == sum(line["readUnits"] for line in logged)
    assert abs(receipt["writeUnits"] - sum(line["writeUnits"] for line in logged)) <= off
    assert 0 < receipt["estimatedWriteUnits"] < receipt["writeUnits"]
    assert receipt["itemWrites"] == sum(line["itemWrites"] for line in logged)
    assert receipt["stateTransitions"] == len(execution.visits)
    assert receipt["stateRetries"] == sum(visit.attempts - 1 for visit in execution.visits)
    assert sum(function["invocations"] for function in receipt["lambda"].values()) == lines
    return receipt


def test_the_receipt_of_a_plain_turn_adds_up(stack: Stack, agent_client: Any, small_talk: Agent) -> None:
    told = ask(agent_client, "hi", **small_talk)
    receipt = assert_adds_up(stack, told, execution_of(stack, told), lines=3)

    assert receipt["stateTransitions"] == 4
    assert (receipt["turnId"], receipt["modelCalls"], receipt["toolAttempts"]) == (told.turn_id, 1, 0)
    assert receipt["caller"].startswith("arn:aws:")
    assert len(receipt["definitionVersion"]) == 8
    assert receipt["traceId"].startswith("1-")
    assert told.receipt == {"type": "RECEIPT", **receipt}


def test_it_adds_up_with_parallel_tools_in_a_session_with_attributes_of_any_length(
    stack: LocalStack, model: ScriptedModel, agent_client: Any
) -> None:
    session = new_session()
    for words in ("first", "x" * 20_000, "x" * 3_000):
        model.replace([calls(*THREE, step=1), says(words)])
        told = ask(
            agent_client,
            words,
            session,
            sessionState={"sessionAttributes": {"note": words[:6_000]}},
            memoryId="receipts-actor",
        )
        # Attributes that are replaced by shorter ones cost as much as they were long, which the receipt does not know.
        receipt = assert_adds_up(stack, told, execution_of(stack, told), lines=7, off=8)
        assert (receipt["stateTransitions"], receipt["toolAttempts"]) == (13, 3)


def test_a_failed_attempt_brings_its_cost_and_a_hidden_one_is_said_to_be_missing(
    stack: LocalStack, model: ScriptedModel, agent_client: Any
) -> None:
    throttled = fails("ThrottlingException", 429, when={"step": 2}, times=1)
    model.replace([calls(("misbehave", {"how": "throttle", "times": 2}), step=1), throttled, says("recovered")])
    told = ask(agent_client, "go")
    assert told.answer == "recovered"
    receipt = assert_adds_up(stack, told, execution_of(stack, told), lines=7)

    assert (receipt["toolAttempts"], receipt["modelCalls"], receipt["modelAttempts"]) == (3, 2, 3)
    assert "1 invocation of InvokeModel: failed or retried without telling a cost" in receipt["incomplete"]


def test_a_failed_turn_has_a_receipt_of_what_is_known(
    stack: LocalStack, model: ScriptedModel, agent_client: Any
) -> None:
    model.replace([calls(*THREE, step=1), fails("ValidationException", 400)])
    told = ask(agent_client, "go")
    assert told.error == "dependencyFailedException"
    eventually(lambda: header_of(stack, told).receipt is not None, "the failed turn's receipt")
    receipt = receipt_of(stack, told)
    execution = execution_of(stack, told)

    assert receipt["status"] == "FAILED"
    assert receipt["stateTransitions"] == len(execution.visits)
    assert (receipt["modelCalls"], receipt["toolAttempts"]) == (1, 3)
    assert receipt["lambda"].keys() == {"LoadMemory", "InvokeModel", "InvokeTool"}
    invocations = sum(function["invocations"] for function in receipt["lambda"].values())
    eventually(lambda: len(metered_lines(stack, told.turn_id)) == invocations, "the functions' log lines")
    assert receipt["readUnits"] == sum(line["readUnits"] for line in metered_lines(stack, told.turn_id))
    assert any("of InvokeModel" in text for text in receipt["incomplete"])


def test_receipts_are_found_by_actor_by_session_and_by_agent_and_add_up(
    stack: Stack, agent_client: Any, small_talk: Agent
) -> None:
    agent, somebody = small_talk["agentId"], new_session()
    one, other = new_session(), new_session()
    asked = [(one, somebody), (one, somebody), (other, somebody), (one, None)]
    turns = [
        ask(agent_client, f"turn {number}", session, **small_talk, **({"memoryId": actor} if actor else {})).turn_id
        for number, (session, actor) in enumerate(asked)
    ]
    reader = ReceiptReader(Table(stack.client("dynamodb"), stack.outputs["TableName"]))

    def owned(actor: str | None, session: str | None) -> list[Any]:
        return [receipt["turnId"] for receipt in reader.owned(agent, None, actor, session)]

    assert owned(somebody, None) == turns[:3]
    assert owned(somebody, one) == turns[:2]
    assert owned(None, one) == turns[3:]
    logs, group = stack.client("logs"), stack.outputs["RuntimeLogGroup"]
    eventually(
        lambda: set(turns) <= {receipt["turnId"] for receipt in reader.logged(logs, group, agent)},
        "the receipts in the log",
        seconds=60,
    )
    logged = {receipt["turnId"]: receipt for receipt in reader.logged(logs, group, agent)}
    receipts = reader.owned(agent, None, somebody, None)
    assert [logged[turn_id] for turn_id in turns[:3]] == receipts
    assert reader.logged(logs, group, "NOBODY") == []
    total = render(receipts).splitlines()[4].split()
    assert total[:2] == ["3", "turns"]
    assert total[4] == "12"
