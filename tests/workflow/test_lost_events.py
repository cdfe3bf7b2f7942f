"""Step Functions tells EventBridge of nothing, and the sweep makes up for it: real machines, functions and rules."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from moto.core import DEFAULT_ACCOUNT_ID
from moto.stepfunctions.parser.models import stepfunctions_parser_backends

from local.bedrock.scripted_model import ScriptedModel
from local.commands.dead_letters import held
from local.stack import LocalStack
from tests.api.test_console_site import data
from tests.project import REMEMBERING_AGENT, TEST_AGENT
from tests.stacks import Caller
from tests.waiting import eventually
from tests.workflow.turns import ask, fails, new_session, says

MINUTES = 6


@pytest.fixture
def swept(stack: LocalStack, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Events are lost. What is returned sweeps, as if an execution (its ARN) had ended some minutes ago."""
    monkeypatch.setattr(stack.events, "publish", lambda event: 0)

    def sweep(execution_arn: str) -> None:
        backend = stepfunctions_parser_backends[DEFAULT_ACCOUNT_ID]["us-east-1"]
        backend.describe_execution(execution_arn).stop_date -= timedelta(minutes=MINUTES)
        assert stack.events.fire("SweepExecutionsFunctionEveryMinute") == 1

    return sweep


def letters(stack: LocalStack, name: str) -> list[dict[str, Any]]:
    """The letters of an execution that are in the queue now."""
    with held(stack.client("sqs"), {"turns": stack.outputs["DeadLetterQueueUrl"]}) as found:
        return [letter.body for letter in found if letter.id == name]


def ended(stack: LocalStack, execution_arn: str) -> None:
    client = stack.client("stepfunctions")
    eventually(
        lambda: client.describe_execution(executionArn=execution_arn)["status"] == "FAILED", "the execution failed", 60
    )


def test_a_turn_whose_event_is_lost_is_ended_by_the_sweep(
    stack: LocalStack, model: ScriptedModel, caller: Caller, agent_client: Any, swept: Callable[[str], None]
) -> None:
    model.replace([fails("AccessDeniedException", 403, times=3), says("Here I am.")])
    session = new_session()
    body = {"agentId": TEST_AGENT, "agentAliasId": "live", "sessionId": session, "inputText": "go"}
    turn_id = caller.send("POST", "/turns", body)[1]["turnId"]
    execution = stack.execution_arn(turn_id)
    ended(stack, execution)
    assert caller.send("GET", f"/turns/{turn_id}")[1]["status"] == "RUNNING"
    assert data(stack, "turns", turn_id)["status"] == "FAILED", "the console has looked at the execution"
    with pytest.raises(agent_client.exceptions.ConflictException):
        ask(agent_client, "hello", session)

    swept(execution)

    told = caller.ended(turn_id)
    assert (told["status"], told["failure"]["error"]) == ("FAILED", "ModelsExhausted")
    eventually(lambda: len(letters(stack, turn_id)) == 1, "the letter is in the queue")
    assert letters(stack, turn_id)[0]["failure"]["state"] == "Invoke Model"
    assert ask(agent_client, "hello", session).answer == "Here I am."


def test_a_consolidation_whose_event_is_lost_is_dead_lettered_by_the_sweep(
    stack: LocalStack, model: ScriptedModel, agent_client: Any, swept: Callable[[str], None]
) -> None:
    """The machines of consolidations and of erasures are swept as that of turns is."""
    machine = stack.resources["ConsolidateMemoryStateMachine"]
    client = stack.client("stepfunctions")
    before = {each["name"] for each in client.list_executions(stateMachineArn=machine)["executions"]}
    model.replace([says("Noted.", forcedTool=""), fails("AccessDeniedException", 403)])
    remembered = {"agentId": REMEMBERING_AGENT, "memoryId": new_session(), "session": new_session()}
    assert ask(agent_client, "I report in USD", **remembered).answer == "Noted."
    ask(agent_client, "", **remembered, endSession=True)
    listed = client.list_executions(stateMachineArn=machine)["executions"]
    (name,) = {each["name"] for each in listed} - before
    execution = stack.execution_arn(name, "ConsolidateMemoryStateMachine")
    ended(stack, execution)

    swept(execution)

    eventually(lambda: len(letters(stack, name)) == 1, "the letter is in the queue")
    assert letters(stack, name)[0]["executionArn"] == execution
