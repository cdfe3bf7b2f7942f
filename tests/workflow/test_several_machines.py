"""A template with two state machines, an execution event rule for one of them, and a schedule, run by the stack."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.commands.executions import find_execution, list_executions, read_execution, render_executions
from local.stack import LocalStack, LocalStackOptions
from tests.waiting import eventually

WAIT_SECONDS = 30

WORK = """
import json, os, pathlib, uuid

import boto3


def start(event, context):
    client = boto3.client("stepfunctions")
    arguments = {"stateMachineArn": os.environ["SECOND_ARN"], "name": event["start"], "input": json.dumps(event)}
    try:
        return client.start_execution(**arguments)["executionArn"]
    except client.exceptions.ExecutionAlreadyExists:
        return "exists"


def work(event, context):
    if event.get("fail"):
        raise ValueError("on purpose")
    return event


def note(event, context):
    (pathlib.Path(os.environ["NOTES"]) / f"{uuid.uuid4()}.json").write_text(json.dumps(event))
"""


def function(handler: str, **variables: Any) -> dict[str, Any]:
    properties = {"CodeUri": "code", "Handler": f"work.{handler}", "Runtime": "python3.13", "Timeout": 20}
    return {
        "Type": "AWS::Serverless::Function",
        "Properties": {**properties, "Environment": {"Variables": variables}},
    }


def machine(definition: str, function_id: str) -> dict[str, Any]:
    return {
        "Type": "AWS::Serverless::StateMachine",
        "Properties": {
            "DefinitionUri": f"statemachines/{definition}.asl.json",
            "DefinitionSubstitutions": {"WorkArn": {"Fn::GetAtt": [function_id, "Arn"]}},
        },
    }


def one_task(name: str) -> dict[str, Any]:
    task = {
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke",
        "Arguments": {"FunctionName": "${WorkArn}", "Payload": "{% $states.input %}"},
        "TimeoutSeconds": 20,
        "Output": "{% $states.result.Payload %}",
        "End": True,
    }
    return {"QueryLanguage": "JSONata", "StartAt": name, "States": {name: task}}


def rule(**properties: Any) -> dict[str, Any]:
    target = {"Id": "note", "Arn": {"Fn::GetAtt": ["NoteFunction", "Arn"]}}
    return {"Type": "AWS::Events::Rule", "Properties": {**properties, "Targets": [target]}}


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notes")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, notes: Path) -> Iterator[LocalStack]:
    folder = tmp_path_factory.mktemp("project")
    (folder / "code").mkdir()
    (folder / "code" / "work.py").write_text(WORK)
    (folder / "statemachines").mkdir()
    for name in ("First", "Second"):
        definition = folder / "statemachines" / f"{name.lower()}.asl.json"
        definition.write_text(json.dumps(one_task(f"Work {name}")))
    ended = {
        "source": ["aws.states"],
        "detail": {"stateMachineArn": [{"Ref": "SecondStateMachine"}], "status": ["FAILED", "TIMED_OUT", "ABORTED"]},
    }
    resources = {
        "StartFunction": function("start", SECOND_ARN={"Ref": "SecondStateMachine"}),
        "WorkFunction": function("work"),
        "NoteFunction": function("note", NOTES=str(notes)),
        "FirstStateMachine": machine("first", "StartFunction"),
        "SecondStateMachine": machine("second", "WorkFunction"),
        "SecondFailed": rule(EventPattern=ended),
        "SweepRule": rule(ScheduleExpression="rate(1 minute)"),
    }
    template = folder / "template.yaml"
    template.write_text(json.dumps({"Transform": "AWS::Serverless-2016-10-31", "Resources": resources}))
    options = LocalStackOptions(port=0, aws_port=0, template=template, quiet=True, schedules=False)
    with LocalStack(options) as stack:
        yield stack


@pytest.fixture(autouse=True)
def no_notes(notes: Path) -> None:
    for file in notes.iterdir():
        file.unlink()


def run(stack: LocalStack, machine_id: str, name: str, **given: Any) -> str:
    """Runs an execution to its end and returns its ARN."""
    client = stack.client("stepfunctions")
    client.start_execution(stateMachineArn=stack.resources[machine_id], name=name, input=json.dumps(given))
    arn = stack.execution_arn(name, machine_id)
    eventually(lambda: read_execution(client, arn).status != "RUNNING")
    return arn


def noted(notes: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in notes.glob("*.json")]


def test_a_function_starts_an_execution_of_another_machine_by_its_arn(running: LocalStack) -> None:
    client = running.client("stepfunctions")
    first = read_execution(client, run(running, "FirstStateMachine", "one", start="started"))
    second = running.execution_arn("started", "SecondStateMachine")
    assert (first.status, first.output, first.states) == ("SUCCEEDED", second, ["Work First"])
    eventually(lambda: read_execution(client, second).status == "SUCCEEDED")
    assert read_execution(client, second).states == ["Work Second"]
    again = read_execution(client, run(running, "FirstStateMachine", "two", start="started"))
    assert again.output == "exists"


def test_both_machines_executions_are_listed_and_found(running: LocalStack) -> None:
    run(running, "FirstStateMachine", "alike", start="other")
    run(running, "SecondStateMachine", "alike")
    client = running.client("stepfunctions")
    lines = [line.split()[4:] for line in render_executions(list_executions(client)).splitlines()]
    assert ["turnwright-FirstStateMachine", "alike"] in lines
    assert ["turnwright-SecondStateMachine", "alike"] in lines
    found = find_execution(client, "turnwright-SecondStateMachine:alike")
    assert read_execution(client, found).states == ["Work Second"]


def test_a_rule_hears_of_its_own_machine_only(running: LocalStack, notes: Path) -> None:
    run(running, "FirstStateMachine", "broken")  # without a name to start: a KeyError
    failed = run(running, "SecondStateMachine", "broken", fail=True)
    eventually(lambda: noted(notes))
    assert running.events.drain(WAIT_SECONDS)
    [event] = noted(notes)
    assert (event["detail"]["executionArn"], event["detail"]["status"]) == (failed, "FAILED")
    assert event["detail"]["stateMachineArn"] == running.resources["SecondStateMachine"]


def test_a_schedule_is_made_due_by_hand(running: LocalStack, notes: Path) -> None:
    assert running.events.fire("SweepRule") == 1
    assert running.events.drain(WAIT_SECONDS)
    [event] = noted(notes)
    assert (event["source"], event["detail-type"], event["detail"]) == ("aws.events", "Scheduled Event", {})
    assert event["resources"] == [f"arn:aws:events:us-east-1:123456789012:rule/{running.resources['SweepRule']}"]
