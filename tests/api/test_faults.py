"""Faults on purpose in the running stack: what clients of Lambda, Step Functions and tools' callers get of them."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.aws.faults import Faults, Use
from local.bedrock.scripted_model import ScriptedModel
from local.stack import LocalStack
from tests.api.test_make_up import Up, answer, start
from tests.paths import ROOT
from tests.waiting import patient
from tests.workflow.turns import ask, calls, execution_of, says

__all__ = ["start"]

TOOL = "MisbehavingToolFunction"
DEMO_SECONDS = 120


@pytest.fixture
def faults(stack: LocalStack) -> Iterator[Faults]:
    yield stack.faults
    stack.faults.replace([])


def invoke(stack: LocalStack, **event: Any) -> dict[str, Any]:
    name = stack.function_name(TOOL)
    response: dict[str, Any] = stack.client("lambda").invoke(FunctionName=name, Payload=json.dumps(event).encode())
    return response


@pytest.mark.parametrize(
    ("fault", "status", "name"),
    [("throttle", 429, "TooManyRequestsException"), ("service_error", 500, "ServiceException")],
)
def test_a_client_of_lambda_is_refused_as_by_lambda(
    fault: str, status: int, name: str, stack: LocalStack, faults: Faults
) -> None:
    faults.replace([{"function": TOOL, "fault": fault, "message": "not now"}])
    with pytest.raises(ClientError) as refused:
        invoke(stack)
    assert refused.value.response["Error"] == {"Code": name, "Message": "not now"}
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == status


@pytest.mark.parametrize(
    ("fault", "error_type"),
    [("crash", "Runtime.ExitError"), ("out_of_memory", "Runtime.OutOfMemory"), ("hang", "Sandbox.Timedout")],
)
def test_a_client_of_lambda_gets_a_function_error(
    fault: str, error_type: str, stack: LocalStack, faults: Faults
) -> None:
    name = stack.function_name(TOOL)
    stack.client("lambda").update_function_configuration(FunctionName=name, Timeout=1)
    try:
        faults.replace([{"function": TOOL, "fault": fault}])
        response = invoke(stack)
    finally:
        stack.client("lambda").update_function_configuration(FunctionName=name, Timeout=30)
    assert (response["StatusCode"], response["FunctionError"]) == (200, "Unhandled")
    assert json.loads(response["Payload"].read())["errorType"] == error_type


def test_step_functions_meets_the_faults_too(
    stack: LocalStack, model: ScriptedModel, agent_client: Any, faults: Faults
) -> None:
    faults.replace(
        [
            {"function": "InvokeModelFunction", "times": 1, "fault": "service_error"},
            {"function": "WriteMemoryFunction", "times": 1, "fault": "crash"},
        ]
    )
    model.replace([says("Hello.")])
    told = ask(agent_client, "hi")
    assert told.answer == "Hello."
    tries = {visit.name: [each.error for each in visit.tries] for visit in execution_of(stack, told).visits}
    assert tries["Invoke Model"] == ["Lambda.ServiceException", None]
    assert tries["Write Memory"] == ["Runtime.ExitError", None]
    assert faults.uses == (
        Use(0, "InvokeModelFunction", "service_error"),
        Use(1, "WriteMemoryFunction", "crash"),
    )


def test_a_tool_that_was_not_touched_fails_and_recovers(
    stack: LocalStack, model: ScriptedModel, agent_client: Any, faults: Faults, tool_calls: Path
) -> None:
    faults.replace(
        [
            {"function": TOOL, "when": {"function": "echo"}, "times": 1, "fault": "throttle"},
            {"function": TOOL, "when": {"function": "echo"}, "times": 1, "fault": "service_error"},
            {"function": TOOL, "when": {"function": "remember"}, "fault": "crash"},
        ]
    )
    model.replace([calls(("echo", {"text": "ping"}), step=1), says("It said ping.")])
    told = ask(agent_client, "echo")
    assert told.answer == "It said ping."
    assert [use.fault for use in faults.uses] == ["throttle", "service_error"]
    assert execution_of(stack, told).states.count("Invoke Tool") == 3
    ran = [line for path in tool_calls.iterdir() for line in path.read_text().splitlines() if told.turn_id in line]
    assert len(ran) == 1


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"fault": "throttle"}, "THROTTLING"),
        ({"fault": "service_error"}, "SERVICE_UNAVAILABLE"),
        ({"fault": "hang"}, "TIMEOUT"),
        ({"fault": "slow", "seconds": 3}, "TIMEOUT"),
        ({"fault": "crash"}, "TOOL_CRASHED"),
        ({"fault": "out_of_memory"}, "OUT_OF_MEMORY"),
        ({"fault": "garbage"}, "INVALID_RESPONSE"),
        ({"fault": "error", "errorType": "KeyError"}, "TOOL_ERROR"),
        ({"fault": "error", "errorType": "ThrottlingException"}, "THROTTLING"),
    ],
    ids=lambda value: value["fault"] if isinstance(value, dict) else value,
)
def test_the_model_is_told_of_each_fault_by_its_code(
    fault: dict[str, Any], code: str, model: ScriptedModel, agent_client: Any, faults: Faults
) -> None:
    faults.replace([{"function": TOOL, **fault}])
    model.replace([calls(("echo", {"text": "ping"}), step=1), says("It failed.")])
    assert ask(agent_client, "echo").answer == "It failed."
    [result] = model.requests[-1].body["messages"][-1]["content"]
    assert json.loads(result["toolResult"]["content"][0]["text"])["errorCode"] == code


@pytest.mark.whole
def test_up_makes_functions_fail_as_its_file_says_and_tells_each_use(start: Callable[..., Up]) -> None:
    up = start("--faults", str(ROOT / "events" / "faults" / "throttled_tool.json"))
    assert "48,392.50" in answer(up.client("bedrock-agent-runtime"), "What is the balance of account 12345?")
    assert "fault throttle of BankingToolsFunction (faults[0], use 1 of 2)" in up.error_line("fault ")
    assert "fault throttle of" in up.error_line("use 2 of 2")


@pytest.mark.whole
def test_up_refuses_a_broken_file_with_one_line_that_names_file_and_place(tmp_path: Path) -> None:
    file = tmp_path / "faults.json"
    file.write_text('{"faults": [{"function": "BankingTools", "fault": "hang"}]}')
    ended = run_local("up", "--port", "0", "--aws-port", "0", "--faults", str(file))
    assert (ended.returncode, ended.stdout) == (1, "")
    [line] = ended.stderr.splitlines()
    assert line.startswith(
        f"turnwright: {file}: faults[0].function: the template has no function 'BankingTools' (it has "
    )
    assert "BankingToolsFunction" in line


def run_local(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "local", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=patient(DEMO_SECONDS))
