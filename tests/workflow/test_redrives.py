"""A redrive of the real state machines: what was done is not done again, and the rest is."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from local.aws.faults import Faults
from local.bedrock.scripted_model import ScriptedModel
from local.commands.executions import read_execution
from local.stack import LocalStack
from tests.waiting import eventually
from tests.workflow.test_consolidate_memory import Memory, extracts, summarizes
from tests.workflow.turns import Told, ask, calls, execution_of, new_session, says
from turnwright.storage import keys
from turnwright.storage.table import Table

BUG = {"fault": "error", "errorType": "Bug", "message": "on purpose"}


@pytest.fixture
def faults(stack: LocalStack) -> Iterator[Faults]:
    yield stack.faults
    stack.faults.replace([])


def redrive(stack: LocalStack, execution_arn: str) -> None:
    stack.client("stepfunctions").redrive_execution(executionArn=execution_arn)


def header_status(stack: LocalStack, told: Told) -> str:
    header = Table(stack.client("dynamodb"), stack.outputs["TableName"]).get(keys.turn_header(told.turn_id))
    assert header is not None
    return str(header["status"])


def redriven(stack: LocalStack, told: Told) -> None:
    eventually(lambda: header_status(stack, told) == "FAILED", "the failure is recorded")
    redrive(stack, stack.execution_arn(told.turn_id))
    eventually(lambda: execution_of(stack, told).status == "SUCCEEDED", "the redriven turn succeeds")
    assert header_status(stack, told) == "COMMITTED"


def ran(tool_calls: Path, told: Told) -> list[str]:
    """The idempotency keys of the turn's calls, once for each time that the tool ran."""
    noted = [line for path in tool_calls.iterdir() for line in path.read_text().splitlines()]
    return [line for line in noted if line.startswith(told.turn_id)]


@pytest.mark.parametrize("function", ["InvokeModelFunction", "WriteMemoryFunction"])
def test_a_redriven_turn_takes_its_session_back_and_neither_pays_nor_acts_twice(
    stack: LocalStack, model: ScriptedModel, agent_client: Any, faults: Faults, tool_calls: Path, function: str
) -> None:
    session = new_session()
    model.replace([calls(("misbehave", {"how": "throttle", "times": 0}), step=1), says("It went well.")])
    faults.replace([{"function": function, "when": {"step": 2} if function == "InvokeModelFunction" else {}, **BUG}])
    told = ask(agent_client, "go", session)
    assert told.error == "internalServerException"
    asked = len(model.requests)
    faults.replace([])
    redriven(stack, told)
    assert len(model.requests) - asked == (1 if function == "InvokeModelFunction" else 0)
    assert len(ran(tool_calls, told)) == 1
    model.replace([says("after")])
    ask(agent_client, "next", session)
    shown = [message["content"][-1].get("text") for message in model.requests[-1].body["messages"]]
    assert shown[0] == "go"
    assert shown[-2:] == ["It went well.", "next"]


def test_of_a_step_s_tools_the_one_that_failed_the_turn_runs_again(
    stack: LocalStack, model: ScriptedModel, agent_client: Any, faults: Faults, tool_calls: Path
) -> None:
    model.replace([calls(("echo", {"text": "ping"}), ("strict", {"how": "well"}), step=1), says("Both went well.")])
    faults.replace([{"function": "MisbehavingToolFunction", "when": {"function": "strict"}, "fault": "hang"}])
    told = ask(agent_client, "go")
    assert told.error is not None
    faults.replace([])
    redriven(stack, told)
    results = [block["toolResult"] for block in model.requests[-1].body["messages"][-1]["content"]]
    assert [(result["status"], result["content"][0]["text"]) for result in results] == [
        ("success", "ping"),
        ("success", "well"),
    ]
    assert execution_of(stack, told).states.count("Invoke Tool") == 2
    assert len(ran(tool_calls, told)) == 2


def test_a_redriven_consolidation_goes_on_behind_what_it_has_journalled(
    stack: LocalStack, model: ScriptedModel, agent_client: Any, faults: Faults
) -> None:
    memory = Memory(stack, agent_client)
    model.replace([extracts("The user lives in Rome"), summarizes("They spoke of Rome."), says("Noted.")])
    faults.replace([{"function": "WriteRecordsFunction", **BUG}])
    memory.say("I live in Rome")
    memory.end()
    failed = memory.consolidated("FAILED")
    eventually(lambda: memory.segments()[0]["status"] == "FAILED", "the failure is recorded")
    asked = len(model.requests)
    faults.replace([])
    redrive(stack, failed.arn)
    ended = partial(read_execution, stack.client("stepfunctions"), failed.arn)
    eventually(lambda: ended().status == "SUCCEEDED", "the redriven consolidation succeeds")
    assert len(model.requests) == asked
    assert [segment["status"] for segment in memory.segments()] == ["DONE"]
    assert "The user lives in Rome" in [text for _, text in memory.texts()]
