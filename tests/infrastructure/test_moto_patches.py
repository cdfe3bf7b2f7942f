"""The contract of local/moto_patches: a test for each behaviour, so that an upgrade of moto shows what it broke."""

import base64
import io
import json
import re
import socket
import subprocess
import sys
import threading
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
import moto
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from local import moto_patches
from local.aws.aws_server import AwsServer, FunctionCode, PortTaken
from local.lambda_workers import LambdaWorkers
from local.moto_patches import ExecutionChange, UnsupportedMoto
from local.moto_patches.capacity import item_size
from tests.paths import ROOT
from tests.waiting import eventually

HANDLERS = """
import os, pathlib, time

class ToolAttemptFailed(Exception):
    pass

def handler(event, context):
    if "raise" in event:
        raise ToolAttemptFailed(event["raise"])
    if "exit" in event:
        os._exit(event["exit"])
    if "fail_until" in event:
        tries = pathlib.Path(event["fail_until"])
        tries.write_text((tries.read_text() if tries.exists() else "") + "x")
        if len(tries.read_text()) < 3:
            raise ToolAttemptFailed("again")
    if "count" in event:
        with open(event["count"], "a") as counted:
            counted.write("x")
    if "sleep" in event:
        time.sleep(event["sleep"])
    print("logged", event)
    return {"echo": event, "trace": os.environ["_X_AMZN_TRACE_ID"], "extra": os.environ["EXTRA"],
            "own": os.environ["OWN"], "layer": pathlib.Path("/opt").exists()}
"""

TWO_SERVERS = """
import json
import boto3
from local.aws.aws_server import AwsServer
from local.lambda_workers import LambdaWorkers

workers = LambdaWorkers(lambda spec, line: None)
definition = {"StartAt": "S", "States": {"S": {"Type": "Wait", "Seconds": 600, "End": True}}}
for number in range(2):
    server = AwsServer(workers, on_execution_status=lambda change: print(change.status))
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    client = boto3.client("stepfunctions", endpoint_url=server.url, **keys)
    if number == 0:
        role = "arn:aws:iam::123456789012:role/role"
        created = client.create_state_machine(name="m", definition=json.dumps(definition), roleArn=role)
        client.start_execution(stateMachineArn=created["stateMachineArn"])
    print(len(client.list_state_machines()["stateMachines"]))
    server.stop()
workers.close()
"""

TRUST = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": "*"}]}
LAMBDA_INVOKE = "arn:aws:states:::lambda:invoke"


class Aws:
    """The server, and short ways to ask it for things. Everything that a test makes has a name of its own."""

    def __init__(self, directory: Path) -> None:
        self.changes: list[ExecutionChange] = []
        self.log: list[str] = []
        self.code = directory / "code"
        self.code.mkdir()
        (self.code / "handlers.py").write_text(HANDLERS)
        self.workers = LambdaWorkers(lambda spec, line: self.log.append(line), max_concurrency=4)
        self.server = AwsServer(self.workers, on_execution_status=self.changes.append, async_retry_seconds=(0.01, 0.01))
        self.server.extra_environment["EXTRA"] = "from the stack"
        self._clients: dict[str, Any] = {}
        self.role = self.client("iam").create_role(RoleName="role", AssumeRolePolicyDocument=json.dumps(TRUST))["Role"][
            "Arn"
        ]
        self.function_arn = self.function("function", timeout=20)

    def client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = boto3.client(
                service,
                endpoint_url=self.server.url,
                region_name="us-east-1",
                aws_access_key_id="test",
                aws_secret_access_key="test",
                config=Config(retries={"total_max_attempts": 1}, max_pool_connections=32),
            )
        return self._clients[service]

    def function(self, name: str, timeout: int) -> str:
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as files:
            files.writestr("unused.py", "")
        created = self.client("lambda").create_function(
            FunctionName=name,
            Runtime="python3.13",
            Role=self.role,
            Handler="handlers.handler",
            Code={"ZipFile": archive.getvalue()},
            Timeout=timeout,
            Environment={"Variables": {"OWN": "from the template"}},
        )
        self.server.functions[name] = FunctionCode(self.code)
        return str(created["FunctionArn"])

    def machine(self, states: dict[str, Any], **fields: Any) -> str:
        definition = {"QueryLanguage": "JSONata", "StartAt": next(iter(states)), "States": states, **fields}
        created = self.client("stepfunctions").create_state_machine(
            name=unique(), definition=json.dumps(definition), roleArn=self.role
        )
        return str(created["stateMachineArn"])

    def start(self, machine: str, given: Any = None, **options: Any) -> str:
        started = self.client("stepfunctions").start_execution(
            stateMachineArn=machine, input=json.dumps({} if given is None else given), **options
        )
        return str(started["executionArn"])

    def describe(self, execution: str) -> dict[str, Any]:
        described: dict[str, Any] = self.client("stepfunctions").describe_execution(executionArn=execution)
        return described

    def end_of(self, execution: str) -> dict[str, Any]:
        eventually(lambda: self.describe(execution)["status"] != "RUNNING")
        return self.describe(execution)

    def run(self, states: dict[str, Any], given: Any = None, **fields: Any) -> dict[str, Any]:
        return self.end_of(self.start(self.machine(states, **fields), given))

    def output(self, states: dict[str, Any], given: Any = None) -> Any:
        described = self.run(states, given)
        assert described["status"] == "SUCCEEDED", described
        return json.loads(described["output"])

    def value(self, expression: str, given: Any = None) -> Any:
        return self.output({"S": {"Type": "Pass", "Output": f"{{% {expression} %}}", "End": True}}, given)

    def history(self, execution: str) -> list[dict[str, Any]]:
        client = self.client("stepfunctions")
        pages = client.get_paginator("get_execution_history").paginate(executionArn=execution)
        return [event for page in pages for event in page["events"]]

    def statuses(self, execution: str) -> list[str]:
        return [change.status for change in self.changes if change.execution_arn == execution]

    def table(self, **projections: dict[str, Any]) -> str:
        """A table with an index for each of `projections`; the keys of the index `Owned` are OwnedPK and OwnedSK."""
        name = unique()
        prefixes = ["", *projections]
        self.client("dynamodb").create_table(
            TableName=name,
            AttributeDefinitions=[
                {"AttributeName": f"{prefix}{key}", "AttributeType": "S"} for prefix in prefixes for key in ("PK", "SK")
            ],
            KeySchema=key_schema(""),
            BillingMode="PAY_PER_REQUEST",
            **{
                "GlobalSecondaryIndexes": [
                    {"IndexName": index, "KeySchema": key_schema(index), "Projection": projection}
                    for index, projection in projections.items()
                ]
            }
            if projections
            else {},
        )
        return name


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    aws = Aws(tmp_path_factory.mktemp("aws"))
    yield aws
    aws.server.stop()
    aws.workers.close()


def key_schema(prefix: str) -> list[dict[str, str]]:
    return [
        {"AttributeName": f"{prefix}PK", "KeyType": "HASH"},
        {"AttributeName": f"{prefix}SK", "KeyType": "RANGE"},
    ]


def unique() -> str:
    return f"n{uuid.uuid4().hex[:12]}"


def error_code(call: Callable[..., Any], **parameters: Any) -> str:
    with pytest.raises(ClientError) as raised:
        call(**parameters)
    return str(raised.value.response["Error"]["Code"])


def invoke(aws: Aws, payload: Any, **changes: Any) -> dict[str, Any]:
    return {
        "Type": "Task",
        "Resource": LAMBDA_INVOKE,
        "Arguments": {"FunctionName": aws.function_arn, "Payload": payload},
        "End": True,
        **changes,
    }


RETRY_TWICE = {"ErrorEquals": ["States.ALL"], "IntervalSeconds": 1, "MaxAttempts": 2}
PASS = {"S": {"Type": "Pass", "End": True}}
WAIT = {"S": {"Type": "Wait", "Seconds": 600, "End": True}}


# The server


def test_another_version_of_moto_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moto, "__version__", "5.2.6")
    with pytest.raises(UnsupportedMoto, match=r"needs moto 5\.2\.5 exactly.*5\.2\.6 is installed"):
        moto_patches.apply()


def test_a_taken_port_is_named(aws: Aws) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=f"Port {port} on 127.0.0.1 is taken"):
            AwsServer(aws.workers, port=port)


def test_a_second_server_at_the_same_time_is_refused(aws: Aws) -> None:
    with pytest.raises(RuntimeError, match="Another offline AWS runs in this process"):
        AwsServer(aws.workers)


def test_a_later_server_starts_empty_and_hears_nothing_of_the_one_before() -> None:
    first = subprocess.run([sys.executable, "-c", TWO_SERVERS], cwd=ROOT, capture_output=True, text=True, timeout=180)
    assert first.stdout.split() == ["RUNNING", "1", "0"], first.stderr


# JSONata


def test_strings_travel_through_expressions_and_variables_unchanged(aws: Aws) -> None:
    text = 'he said "hi"\n\\ {% $x %} ; $boom := 1 \U0001f600'
    states = {
        "A": {"Type": "Pass", "Assign": {"kept": "{% $states.input.text %}"}, "Next": "B"},
        "B": {"Type": "Pass", "Output": ["{% $kept %}", "{% $kept & '!' %}"], "End": True},
    }
    assert aws.output(states, {"text": text}) == [text, f"{text}!"]


def test_null_is_a_value_and_undefined_is_an_error(aws: Aws) -> None:
    assert aws.value("[$states.input.nothing, $states.input.list]", {"nothing": None, "list": [None]}) == [None, None]
    described = aws.run({"S": {"Type": "Pass", "Output": "{% $states.input.missing %}", "End": True}})
    assert (described["status"], described["error"]) == ("FAILED", "States.QueryEvaluationError")
    assert "returned nothing (undefined)" in described["cause"]


def test_null_in_a_variable_stays_null(aws: Aws) -> None:
    states = {
        "A": {"Type": "Pass", "Assign": {"none": None}, "Next": "B"},
        "B": {"Type": "Pass", "Output": {"none": "{% $none %}", "exists": "{% $exists($none) %}"}, "End": True},
    }
    assert aws.output(states) == {"none": None, "exists": True}


def test_a_broken_expression_can_be_caught(aws: Aws) -> None:
    catch = [{"ErrorEquals": ["States.QueryEvaluationError"], "Output": "{% $states.errorOutput.Error %}", "Next": "C"}]
    states = {"S": invoke(aws, {"x": "{% 1 + 'a' %}"}, Catch=catch), "C": {"Type": "Pass", "End": True}}
    assert aws.output(states) == "States.QueryEvaluationError"


def test_a_function_is_no_result(aws: Aws) -> None:
    described = aws.run({"S": {"Type": "Pass", "Output": "{% $sum %}", "End": True}})
    assert described["error"] == "States.QueryEvaluationError"


def test_whole_numbers_have_no_fraction(aws: Aws) -> None:
    assert json.dumps(aws.value("[$states.input.n / 2, 1 / 2, 7.0, $floor(3.7)]", {"n": 4})) == "[2, 0.5, 7, 3]"


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("$partition([1,2,3,4,5], 2)", [[1, 2], [3, 4], [5]]),
        ("$range(1, 5, 2)", [1, 3, 5]),
        ("$hash('a', 'SHA-256')", "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"),
        ("$parse('{\"a\": [1, null]}')", {"a": [1, None]}),
        ("$length($uuid())", 36),
        ("[$states.input.list[kind = 'x'].name]", ["one"]),
        ("[$states.input.list[kind = 'z']]", []),
    ],
)
def test_step_functions_own_functions_work(aws: Aws, expression: str, value: Any) -> None:
    given = {"list": [{"kind": "x", "name": "one"}, {"kind": "y", "name": "two"}]}
    assert aws.value(expression, given) == value


def test_assigned_strings_are_json_in_the_history(aws: Aws) -> None:
    execution = aws.start(aws.machine({"S": {"Type": "Pass", "Assign": {"v": 'a "b"'}, "End": True}}))
    aws.end_of(execution)
    manager = aws_execution(execution).exec_worker.env.event_manager
    [exited] = [event for event in manager.get_event_history() if event["type"] == "PassStateExited"]
    assert exited["stateExitedEventDetails"]["assignedVariables"] == {"v": '"a \\"b\\""'}


def aws_execution(arn: str) -> Any:
    from moto.stepfunctions.parser.models import stepfunctions_parser_backends

    return stepfunctions_parser_backends["123456789012"]["us-east-1"].describe_execution(arn)


def test_string_literals_of_a_definition_are_json(aws: Aws) -> None:
    text = 'a "b" \n \\ / \U0001f600'
    states = {
        'The "first"': {"Type": "Pass", "Assign": {"kept": text}, "Next": "B"},
        "B": {
            "Type": "Pass",
            "Output": {'"key"': text, "kept": "{% $kept %}", "quoted": "{% \"x\" & '\U0001f600' %}"},
            "End": True,
        },
    }
    assert aws.output(states) == {'"key"': text, "kept": text, "quoted": "x\U0001f600"}


# The context object


def test_the_context_object_is_complete(aws: Aws) -> None:
    execution = aws.start(
        aws.machine({"S": {"Type": "Pass", "Output": "{% $states.context %}", "End": True}}), name=(name := unique())
    )
    context = json.loads(aws.end_of(execution)["output"])
    assert context["Execution"]["Id"] == execution
    assert context["Execution"]["Name"] == name
    assert context["Execution"]["RedriveCount"] == 0
    assert context["Execution"]["RoleArn"] == aws.role
    assert context["State"]["Name"] == "S"
    assert context["State"]["RetryCount"] == 0
    for moment in (context["Execution"]["StartTime"], context["State"]["EnteredTime"]):
        assert len(moment) == len("2026-01-31T12:34:56.789Z")
        assert moment.endswith("Z")


def test_the_retry_count_goes_up_with_each_retry(aws: Aws, tmp_path: Path) -> None:
    retry = [{"ErrorEquals": ["ToolAttemptFailed"], "IntervalSeconds": 1, "MaxAttempts": 3, "BackoffRate": 1}]
    payload = {"fail_until": str(tmp_path / "tries"), "count": "{% $states.context.State.RetryCount %}"}
    state = invoke(aws, payload, Retry=retry, Output="{% $states.result.Payload.echo.count %}")
    assert aws.output({"S": state}) == 2


# Executions


# Redrives


def redrive(aws: Aws, execution: str, **options: Any) -> None:
    aws.client("stepfunctions").redrive_execution(executionArn=execution, **options)


def types_of(aws: Aws, execution: str) -> list[str]:
    return [event["type"] for event in aws.history(execution)]


def entered_states(aws: Aws, execution: str) -> list[str]:
    details = [event.get("stateEnteredEventDetails") for event in aws.history(execution)]
    return [each["name"] for each in details if each]


def test_a_redrive_goes_on_at_the_state_that_failed_with_its_variables(aws: Aws, tmp_path: Path) -> None:
    count = "{% $states.context.Execution.RedriveCount %}"
    states = {
        "A": {"Type": "Pass", "Assign": {"kept": "{% $states.context.State.EnteredTime %}", "n": 1}, "Next": "B"},
        "B": invoke(aws, {"fail_until": str(tmp_path / "tries")}, Assign={"n": "{% $n + 1 %}"}, Next="C"),
        "C": {"Type": "Pass", "Output": {"kept": "{% $kept %}", "n": "{% $n %}", "redrives": count}, "End": True},
    }
    del states["B"]["End"]
    execution = aws.start(aws.machine(states))
    assert aws.end_of(execution)["status"] == "FAILED"
    before = aws.history(execution)
    for redrives in (1, 2):
        assert aws.describe(execution)["redriveStatus"] == "REDRIVABLE"
        redrive(aws, execution)
        described = aws.end_of(execution)
        assert described["redriveCount"] == redrives
        assert described["redriveDate"] < described["stopDate"]
    assert described["status"] == "SUCCEEDED"
    assert "error" not in described
    assert json.loads(described["output"])["n"] == 2
    assert json.loads(described["output"])["redrives"] == 2
    history = aws.history(execution)
    assert history[: len(before)] == before
    assert [event["id"] for event in history] == list(range(1, len(history) + 1))
    assert entered_states(aws, execution) == ["A", "B", "C"]
    assert [event["type"] for event in history].count("ExecutionRedriven") == 2
    assert history[len(before)]["executionRedrivenEventDetails"] == {"redriveCount": 1}
    assert aws.statuses(execution) == ["RUNNING", "FAILED"] * 2 + ["RUNNING", "SUCCEEDED"]
    assert [change.redrive_count for change in aws.changes if change.execution_arn == execution] == [0, 0, 1, 1, 2, 2]


def test_a_redriven_map_runs_what_had_not_succeeded_from_where_it_stood(aws: Aws, tmp_path: Path) -> None:
    mark = invoke(aws, {"fail_until": "{% $states.input.ran %}"}, Retry=[RETRY_TWICE], Output="{% $states.input %}")
    failing = invoke(aws, {"fail_until": "{% $states.input.fails %}"}, Output="{% $states.context.Map.Item.Index %}")
    processor: dict[str, Any] = {
        "StartAt": "Mark",
        "States": {
            "Mark": {**mark, "Next": "Fails?"},
            "Fails?": {
                "Type": "Choice",
                "Choices": [{"Condition": "{% $exists($states.input.fails) %}", "Next": "Fail"}],
                "Default": "Succeed",
            },
            "Fail": failing,
            "Succeed": {"Type": "Pass", "Output": "{% $states.context.Map.Item.Index %}", "End": True},
        },
    }
    del processor["States"]["Mark"]["End"]
    items = [{"ran": str(tmp_path / "0")}, {"ran": str(tmp_path / "1"), "fails": str(tmp_path / "fails")}]
    states = {"M": {"Type": "Map", "MaxConcurrency": 1, "Items": items, "ItemProcessor": processor, "End": True}}
    execution = aws.start(aws.machine(states))
    assert aws.end_of(execution)["status"] == "FAILED"
    redrive(aws, execution)
    assert aws.end_of(execution)["status"] == "FAILED"
    redrive(aws, execution)
    described = aws.end_of(execution)
    assert (described["status"], described.get("output")) == ("SUCCEEDED", "[0,1]")
    assert [(tmp_path / name).read_text() for name in ("0", "1", "fails")] == ["xxx", "xxx", "xxx"]
    entered = [
        event["stateEnteredEventDetails"]["name"] for event in aws.history(execution) if "Entered" in event["type"]
    ]
    assert entered == ["M", "Mark", "Fails?", "Succeed", "Mark", "Fails?", "Fail"]


def test_a_map_that_is_retried_after_a_redrive_runs_as_a_whole(aws: Aws, tmp_path: Path) -> None:
    retry = {"ErrorEquals": ["States.ALL"], "IntervalSeconds": 1, "MaxAttempts": 1}
    once, later = invoke(aws, {"count": str(tmp_path / "once")}), invoke(aws, {"fail_until": str(tmp_path / "later")})
    choice = {
        "Type": "Choice",
        "Choices": [{"Condition": "{% $states.context.Map.Item.Index = 0 %}", "Next": "Once"}],
        "Default": "Later",
    }
    processor = {"StartAt": "First?", "States": {"First?": choice, "Once": once, "Later": later}}
    states = {"M": {"Type": "Map", "MaxConcurrency": 1, "Items": [1, 2], "ItemProcessor": processor, "End": True}}
    states["M"]["Retry"] = [retry]
    execution = aws.start(aws.machine(states))
    assert aws.end_of(execution)["status"] == "FAILED"
    assert (tmp_path / "once").read_text() == "xx"
    redrive(aws, execution)
    assert aws.end_of(execution)["status"] == "SUCCEEDED"
    assert (tmp_path / "once").read_text() == "xx"


def test_a_stopped_execution_goes_on_and_what_it_left_running_says_nothing_in_it(aws: Aws, tmp_path: Path) -> None:
    tries = tmp_path / "tries"
    execution = aws.start(aws.machine({"S": invoke(aws, {"sleep": 0.6, "count": str(tries)})}))
    eventually(tries.exists)
    aws.client("stepfunctions").stop_execution(executionArn=execution)
    redrive(aws, execution)
    assert aws.end_of(execution)["status"] == "SUCCEEDED"
    assert tries.read_text() == "xx"
    assert types_of(aws, execution).count("TaskSucceeded") == 1


def test_what_runs_or_succeeded_or_is_unknown_is_not_redriven(aws: Aws) -> None:
    client = aws.client("stepfunctions")
    running, ended = aws.start(aws.machine(WAIT)), aws.start(aws.machine(PASS))
    for execution, status in ((running, "RUNNING"), (ended, "SUCCEEDED")):
        assert status == "RUNNING" or aws.end_of(execution)["status"] == status
        assert error_code(client.redrive_execution, executionArn=execution) == "ExecutionNotRedrivable"
        described = aws.describe(execution)
        assert described["redriveStatus"] == "NOT_REDRIVABLE"
        assert described["redriveStatusReason"] == f"Execution is {status} and cannot be redriven"
    assert error_code(client.redrive_execution, executionArn=ended + "x") == "ExecutionDoesNotExist"
    client.stop_execution(executionArn=running)


def test_the_same_client_token_redrives_once(aws: Aws) -> None:
    execution = aws.start(aws.machine({"S": {"Type": "Fail", "Error": "Own.Error", "Cause": "why"}}))
    aws.end_of(execution)
    for _ in range(3):
        redrive(aws, execution, clientToken="one")
        assert aws.end_of(execution)["redriveCount"] == 1


def test_of_redrives_at_the_same_time_one_wins(aws: Aws) -> None:
    execution = aws.start(aws.machine(WAIT))
    aws.client("stepfunctions").stop_execution(executionArn=execution)

    def attempt(_: int) -> bool:
        with suppress(ClientError):
            redrive(aws, execution)
            return True
        return False

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(attempt, range(8))) == 1
    aws.client("stepfunctions").stop_execution(executionArn=execution)
    assert aws.statuses(execution) == ["RUNNING", "ABORTED", "RUNNING", "ABORTED"]


def test_an_execution_without_a_name_gets_one_of_its_own(aws: Aws) -> None:
    machine = aws.machine(PASS)
    names = {aws.describe(aws.start(machine))["name"] for _ in range(2)}
    assert len(names) == 2
    assert "None" not in names


def test_a_name_with_a_bad_character_is_refused(aws: Aws) -> None:
    start = aws.client("stepfunctions").start_execution
    assert error_code(start, stateMachineArn=aws.machine(PASS), name="a b") == "InvalidName"


@pytest.mark.parametrize("value", ["text", None, 1, [1], {"a": 1}])
def test_any_output_is_json(aws: Aws, value: Any) -> None:
    assert aws.output({"S": {"Type": "Pass", "Output": value, "End": True}}) == value


def test_the_same_name_and_input_is_the_same_execution_while_it_runs(aws: Aws) -> None:
    machine, name = aws.machine(WAIT), unique()
    start = aws.client("stepfunctions").start_execution
    first = aws.start(machine, {"a": 1}, name=name)
    assert aws.start(machine, {"a": 1}, name=name) == first
    assert error_code(start, stateMachineArn=machine, name=name, input='{"a": 2}') == "ExecutionAlreadyExists"
    aws.client("stepfunctions").stop_execution(executionArn=first)
    assert error_code(start, stateMachineArn=machine, name=name, input='{"a": 1}') == "ExecutionAlreadyExists"


def test_a_name_that_is_started_at_the_same_time_runs_once(aws: Aws) -> None:
    machine, name = aws.machine(WAIT), unique()
    with ThreadPoolExecutor(8) as threads:
        arns = {call.result() for call in [threads.submit(aws.start, machine, name=name) for _ in range(16)]}
    assert len(arns) == 1
    assert len(aws.client("stepfunctions").list_executions(stateMachineArn=machine)["executions"]) == 1
    aws.client("stepfunctions").stop_execution(executionArn=arns.pop())


def test_executions_are_listed_by_when_they_ended_and_in_pages(aws: Aws) -> None:
    machine, client = aws.machine(WAIT), aws.client("stepfunctions")
    first, second, third = (aws.start(machine, {"a": number}) for number in range(3))
    for execution in (second, third, first):
        client.stop_execution(executionArn=execution)
    pages = client.get_paginator("list_executions").paginate(
        stateMachineArn=machine, statusFilter="ABORTED", PaginationConfig={"PageSize": 2}
    )
    assert [[each["executionArn"] for each in page["executions"]] for page in pages] == [[first, third], [second]]


def test_status_changes_are_told_in_order(aws: Aws) -> None:
    execution = aws.start(aws.machine(PASS), {"a": 1})
    aws.end_of(execution)
    eventually(lambda: len(aws.statuses(execution)) == 2)
    running, succeeded = [change for change in aws.changes if change.execution_arn == execution]
    assert (running.status, running.stop_date, running.output) == ("RUNNING", None, None)
    assert (succeeded.status, succeeded.input, succeeded.output) == ("SUCCEEDED", '{"a": 1}', '{"a":1}')
    assert succeeded.stop_date is not None
    assert succeeded.state_machine_arn.endswith(execution.split(":")[6])


def test_a_failure_is_told_with_error_and_cause(aws: Aws) -> None:
    described = aws.run({"S": {"Type": "Fail", "Error": "Own.Error", "Cause": "why"}})
    assert (described["status"], described["error"], described["cause"]) == ("FAILED", "Own.Error", "why")
    eventually(lambda: aws.statuses(described["executionArn"]) == ["RUNNING", "FAILED"])
    assert (aws.changes[-1].error, aws.changes[-1].cause) == ("Own.Error", "why")


def test_a_stopped_execution_is_aborted_at_once_while_a_function_runs_on(aws: Aws) -> None:
    execution = aws.start(aws.machine({"S": invoke(aws, {"sleep": 1.0})}))
    eventually(lambda: any(event["type"] == "TaskStarted" for event in aws.history(execution)))
    aws.client("stepfunctions").stop_execution(executionArn=execution, error="Own.Stop", cause="enough")
    described = aws.describe(execution)
    assert (described["status"], described["error"], described["cause"]) == ("ABORTED", "Own.Stop", "enough")
    assert aws.history(execution)[-1]["executionAbortedEventDetails"] == {"error": "Own.Stop", "cause": "enough"}
    assert aws.statuses(execution) == ["RUNNING", "ABORTED"]
    events = len(aws.history(execution))
    eventually(lambda: not any(process.busy for process in aws.workers.processes()))
    time.sleep(0.05)
    assert len(aws.history(execution)) == events
    assert aws.describe(execution)["status"] == "ABORTED"


def test_an_execution_can_be_stopped_right_after_its_start(aws: Aws) -> None:
    execution = aws.start(aws.machine(WAIT))
    aws.client("stepfunctions").stop_execution(executionArn=execution)
    assert aws.describe(execution)["status"] == "ABORTED"


def test_a_machine_that_takes_too_long_times_out(aws: Aws) -> None:
    described = aws.run({"S": invoke(aws, {"sleep": 2.5})}, TimeoutSeconds=1)
    assert described["status"] == "TIMED_OUT"
    assert described["stopDate"] > described["startDate"]
    assert aws.history(described["executionArn"])[-1]["type"] == "ExecutionTimedOut"
    eventually(lambda: aws.statuses(described["executionArn"]) == ["RUNNING", "TIMED_OUT"])


def test_the_history_is_paged_and_can_be_reversed(aws: Aws) -> None:
    execution = aws.start(aws.machine(PASS))
    aws.end_of(execution)
    get = aws.client("stepfunctions").get_execution_history
    first = get(executionArn=execution, maxResults=3)
    rest = get(executionArn=execution, maxResults=3, nextToken=first["nextToken"])
    assert [event["id"] for event in first["events"] + rest["events"]] == [1, 2, 3, 4]
    assert "nextToken" not in rest
    assert get(executionArn=execution, maxResults=1, reverseOrder=True)["events"][0]["type"] == "ExecutionSucceeded"


def test_an_execution_keeps_its_trace_header(aws: Aws) -> None:
    execution = aws.start(aws.machine(PASS), traceHeader="Root=1-5759e988-bd862e3fe1be46a994272793")
    assert aws.end_of(execution)["traceHeader"] == "Root=1-5759e988-bd862e3fe1be46a994272793"


def test_a_definition_is_parsed_once_for_all_its_executions(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser

    machine = aws.machine({"S": {"Type": "Pass", "Comment": unique(), "End": True}})
    aws.end_of(aws.start(machine))
    monkeypatch.delattr(AmazonStateLanguageParser, "parse")
    assert aws.end_of(aws.start(machine))["status"] == "SUCCEEDED"


def test_executions_of_one_definition_do_not_share_retries_or_variables(aws: Aws, tmp_path: Path) -> None:
    retry = [{"ErrorEquals": ["ToolAttemptFailed"], "IntervalSeconds": 1, "MaxAttempts": 2, "BackoffRate": 1}]
    state = invoke(aws, {"fail_until": "{% $states.input.file %}"}, Retry=retry, Output="{% $states.input.file %}")
    machine = aws.machine({"S": state})
    files = [str(tmp_path / name) for name in ("a", "b", "c")]
    executions = [aws.start(machine, {"file": file}) for file in files]
    assert [json.loads(aws.end_of(execution)["output"]) for execution in executions] == files


# Errors of tasks


def failing(aws: Aws, payload: Any, error: str, function: str | None = None) -> dict[str, Any]:
    """States that end with what a Catch of `error` alone was given."""
    catch = [{"ErrorEquals": [error], "Output": "{% $states.errorOutput %}", "Next": "C"}]
    arguments = {"FunctionName": function or aws.function_arn, "Payload": payload}
    return {"S": invoke(aws, payload, Arguments=arguments, Catch=catch), "C": {"Type": "Pass", "End": True}}


def test_an_exception_class_is_an_error_name(aws: Aws) -> None:
    caught = aws.output(failing(aws, {"raise": "slow"}, "ToolAttemptFailed"))
    assert json.loads(caught["Cause"])["errorMessage"] == "slow"


def test_a_crash_is_called_runtime_exit_error(aws: Aws) -> None:
    assert aws.output(failing(aws, {"exit": 1}, "Runtime.ExitError"))["Error"] == "Runtime.ExitError"


def test_a_function_timeout_is_called_sandbox_timedout(aws: Aws) -> None:
    aws.function(name := unique(), timeout=1)
    assert aws.output(failing(aws, {"sleep": 5}, "Sandbox.Timedout", name))["Error"] == "Sandbox.Timedout"


def test_an_error_without_a_type_is_lambda_unknown(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    from local.lambda_workers import InvokeResult

    monkeypatch.setattr(aws.workers, "invoke", lambda *_, **__: InvokeResult(b'"no type"', "Unhandled"))
    caught = aws.output(failing(aws, {}, "Lambda.Unknown"))
    assert caught["Cause"].endswith('Returned payload: "no type"')


def test_a_missing_function_is_named_after_the_refusal(aws: Aws) -> None:
    caught = aws.output(failing(aws, {}, "Lambda.ResourceNotFoundException", "missing"))
    assert caught["Error"] == "Lambda.ResourceNotFoundException"


@pytest.mark.parametrize(
    ("payload", "error"), [({"raise": "x"}, "ToolAttemptFailed"), ({"exit": 1}, "Runtime.ExitError")]
)
def test_a_function_called_by_its_arn_fails_by_the_same_names(aws: Aws, payload: Any, error: str) -> None:
    state = {"Type": "Task", "Resource": aws.function_arn, "Arguments": payload, "End": True}
    assert aws.run({"S": state})["error"] == error


def test_states_all_does_not_catch_the_payload_limit(aws: Aws) -> None:
    catch = [{"ErrorEquals": ["States.ALL"], "Next": "C"}]
    large = invoke(aws, "{% {'a': $join([1..60000].('abcdef'))} %}", Catch=catch)
    described = aws.run({"S": large, "C": {"Type": "Pass", "End": True}})
    assert (described["status"], described["error"]) == ("FAILED", "States.DataLimitExceeded")


def test_states_all_catches_a_custom_error(aws: Aws) -> None:
    assert aws.output(failing(aws, {"raise": "x"}, "States.ALL"))["Error"] == "ToolAttemptFailed"


def test_a_nested_execution_is_started_with_step_functions_spelling(aws: Aws) -> None:
    child = aws.machine(
        {"S": {"Type": "Pass", "Output": {"answer": "{% $states.input.question & '!' %}"}, "End": True}}
    )
    states = {
        "S": {
            "Type": "Task",
            "Resource": "arn:aws:states:::states:startExecution.sync:2",
            "Arguments": {"StateMachineArn": child, "Input": {"question": "why"}},
            "Output": "{% $states.result.Output %}",
            "End": True,
        }
    }
    assert aws.output(states) == {"answer": "why!"}


def test_tasks_share_a_client_for_each_service(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    aws.output({"S": invoke(aws, {"a": 1})})

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a new client was made")

    monkeypatch.setattr(boto3.session.Session, "client", refuse)
    assert aws.output({"S": invoke(aws, {"a": 1})})["Payload"]["echo"] == {"a": 1}


# State machines


def test_cloudformation_makes_machines_that_execute(aws: Aws) -> None:
    definition = {"StartAt": "S", "States": {"S": {"Type": "Pass", "Result": "${First}-${Second}", "End": True}}}
    machine = {
        "Type": "AWS::StepFunctions::StateMachine",
        "Properties": {
            "DefinitionString": json.dumps(definition),
            "DefinitionSubstitutions": {"First": "one", "Second": {"Ref": "AWS::Region"}},
            "RoleArn": aws.role,
            "LoggingConfiguration": {"Level": "ALL", "IncludeExecutionData": True},
            "TracingConfiguration": {"Enabled": True},
        },
    }
    outputs = {"Arn": {"Value": {"Fn::GetAtt": ["Machine", "Arn"]}}, "Ref": {"Value": {"Ref": "Machine"}}}
    cloudformation, stack = aws.client("cloudformation"), unique()
    template = {"Resources": {"Machine": machine}, "Outputs": outputs}
    cloudformation.create_stack(StackName=stack, TemplateBody=json.dumps(template))
    described = {
        output["OutputKey"]: output["OutputValue"]
        for output in cloudformation.describe_stacks(StackName=stack)["Stacks"][0]["Outputs"]
    }
    assert described["Arn"] == described["Ref"]
    assert json.loads(aws.end_of(aws.start(described["Arn"]))["output"]) == "one-us-east-1"
    configured = aws.client("stepfunctions").describe_state_machine(stateMachineArn=described["Arn"])
    assert configured["loggingConfiguration"] == {"level": "ALL", "includeExecutionData": True}
    assert configured["tracingConfiguration"] == {"enabled": True}

    machine["Properties"]["DefinitionSubstitutions"] = {"First": "two", "Second": "three"}  # type: ignore[index]
    cloudformation.update_stack(StackName=stack, TemplateBody=json.dumps(template))
    assert json.loads(aws.end_of(aws.start(described["Arn"]))["output"]) == "two-three"


def test_versions_and_aliases_can_be_published_and_started(aws: Aws) -> None:
    client = aws.client("stepfunctions")

    def definition(output: int) -> str:
        states = {"S": {"Type": "Pass", "Output": output, "End": True}}
        return json.dumps({"QueryLanguage": "JSONata", "StartAt": "S", "States": states})

    machine = aws.machine(PASS)
    client.update_state_machine(stateMachineArn=machine, definition=definition(1))
    version = client.publish_state_machine_version(stateMachineArn=machine)["stateMachineVersionArn"]
    client.update_state_machine(stateMachineArn=machine, definition=definition(2))
    alias = client.create_state_machine_alias(
        name="live", routingConfiguration=[{"stateMachineVersionArn": version, "weight": 100}]
    )["stateMachineAliasArn"]
    by_version, by_alias, newest = (aws.end_of(aws.start(arn)) for arn in (version, alias, machine))
    assert [ended["output"] for ended in (by_version, by_alias, newest)] == ["1", "1", "2"]
    assert by_version["stateMachineVersionArn"] == version
    assert by_alias["stateMachineAliasArn"] == alias
    assert {ended["stateMachineArn"] for ended in (by_version, by_alias, newest)} == {machine}


# Functions


def test_a_function_is_invoked_over_http(aws: Aws) -> None:
    answer = aws.client("lambda").invoke(FunctionName="function", Payload=b'{"a": 1}', LogType="Tail")
    payload = json.load(answer["Payload"])
    assert (answer["StatusCode"], payload["echo"]) == (200, {"a": 1})
    assert (payload["own"], payload["extra"]) == ("from the template", "from the stack")
    assert base64.b64decode(answer["LogResult"]).decode() == "logged {'a': 1}\n"
    assert "FunctionError" not in answer


def test_a_function_error_is_unhandled(aws: Aws) -> None:
    answer = aws.client("lambda").invoke(FunctionName=aws.function_arn, Payload=b'{"raise": "x"}')
    assert answer["FunctionError"] == "Unhandled"
    assert json.load(answer["Payload"])["errorType"] == "ToolAttemptFailed"


def test_a_payload_that_is_no_object_reaches_the_function(aws: Aws) -> None:
    answer = aws.client("lambda").invoke(FunctionName="function", Payload=b'["a"]')
    assert json.load(answer["Payload"])["echo"] == ["a"]


def test_an_asynchronous_invocation_is_tried_three_times(aws: Aws, tmp_path: Path) -> None:
    tries = tmp_path / "tries"
    answer = aws.client("lambda").invoke(
        FunctionName="function", InvocationType="Event", Payload=json.dumps({"fail_until": str(tries)}).encode()
    )
    assert answer["StatusCode"] == 202
    eventually(lambda: f"logged {{'fail_until': '{tries}'}}" in aws.log)
    assert tries.read_text() == "xxx"


def test_an_asynchronous_invocation_is_given_up_in_the_end(aws: Aws) -> None:
    aws.client("lambda").invoke(FunctionName="function", InvocationType="Event", Payload=b'{"raise": "never"}')
    eventually(lambda: "The asynchronous event was given up after 3 failed attempts" in aws.log)


def test_a_trace_header_reaches_the_function_with_its_own_segment_as_parent(aws: Aws) -> None:
    client = boto3.session.Session().client(
        "lambda",
        endpoint_url=aws.server.url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )

    def add(request: Any, **_: Any) -> None:
        request.headers["X-Amzn-Trace-Id"] = "Root=1-2-3;Sampled=1"

    client.meta.events.register("before-sign.lambda.Invoke", add)
    given = json.load(client.invoke(FunctionName="function", Payload=b"{}")["Payload"])["trace"]
    assert re.fullmatch(r"Root=1-2-3;Parent=[0-9a-f]{16};Sampled=1", given)


# DynamoDB


def key(pk: str = "p", sk: str = "s") -> dict[str, Any]:
    return {"PK": {"S": pk}, "SK": {"S": sk}}


def add_one(dynamodb: Any, table: str) -> bool:
    """Reads a number, and writes the next one unless somebody else has."""
    item = dynamodb.get_item(TableName=table, Key=key(), ConsistentRead=True)["Item"]
    try:
        dynamodb.update_item(
            TableName=table,
            Key=key(),
            UpdateExpression="SET #n = #n + :one",
            ConditionExpression="#n = :seen",
            ExpressionAttributeNames={"#n": "number"},
            ExpressionAttributeValues={":one": {"N": "1"}, ":seen": item["number"]},
        )
    except dynamodb.exceptions.ConditionalCheckFailedException:
        return False
    return True


def test_conditional_updates_of_sixteen_threads_lose_nothing(aws: Aws) -> None:
    dynamodb, table = aws.client("dynamodb"), aws.table()
    dynamodb.put_item(TableName=table, Item={**key(), "number": {"N": "0"}})
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # let threads take turns in the middle of everything
    try:
        with ThreadPoolExecutor(16) as threads:
            successes = sum(threads.map(lambda _: add_one(dynamodb, table), range(160)))
    finally:
        sys.setswitchinterval(interval)
    number = int(dynamodb.get_item(TableName=table, Key=key())["Item"]["number"]["N"])
    assert number == successes
    assert successes >= 1


def test_an_object_that_many_write_and_read_at_once_is_always_whole(aws: Aws) -> None:
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="busy")
    bodies = {bytes([letter]) * 100_000 for letter in b"abcd"}
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def write_and_read(body: bytes) -> bytes:
        s3.put_object(Bucket="busy", Key="object", Body=body)
        read: bytes = s3.get_object(Bucket="busy", Key="object")["Body"].read()
        return read

    try:
        with ThreadPoolExecutor(8) as threads:
            read = set(threads.map(write_and_read, [body for _ in range(8) for body in sorted(bodies)]))
    finally:
        sys.setswitchinterval(interval)
    assert read <= bodies


def test_moto_s_own_folder_is_not_listed_for_every_request(aws: Aws) -> None:
    assert moto.backends.list_of_moto_modules() is moto.backends.list_of_moto_modules()


def test_a_reader_sees_all_of_a_transaction_or_nothing(aws: Aws) -> None:
    dynamodb, table = aws.client("dynamodb"), aws.table()
    done = threading.Event()
    torn: list[Any] = []

    def write() -> None:
        for number in range(60):
            puts = [{**key(sk=sk), "number": {"N": str(number)}} for sk in ("a", "b")]
            dynamodb.transact_write_items(TransactItems=[{"Put": {"TableName": table, "Item": item}} for item in puts])
        done.set()

    def read() -> None:
        while not done.is_set():
            items = dynamodb.query(
                TableName=table,
                KeyConditionExpression="PK = :p",
                ExpressionAttributeValues={":p": {"S": "p"}},
                ConsistentRead=True,
            )["Items"]
            if len({item["number"]["N"] for item in items}) > 1:
                torn.append(items)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            for call in [threads.submit(write), *(threads.submit(read) for _ in range(3))]:
                call.result()
    finally:
        sys.setswitchinterval(interval)
    assert torn == []


def test_a_failed_transaction_changes_nothing_and_says_which_condition_failed(aws: Aws) -> None:
    dynamodb, table = aws.client("dynamodb"), aws.table()
    before = {**key(sk="old"), "v": {"S": "kept"}}
    dynamodb.put_item(TableName=table, Item=before)
    dynamodb.put_item(TableName=table, Item=key(sk="deleted"))
    items = [
        {"Put": {"TableName": table, "Item": key(sk="new")}},
        {
            "Update": {
                "TableName": table,
                "Key": key(sk="old"),
                "UpdateExpression": "SET v = :v",
                "ExpressionAttributeValues": {":v": {"S": "changed"}},
            }
        },
        {"Delete": {"TableName": table, "Key": key(sk="deleted")}},
        {
            "ConditionCheck": {
                "TableName": table,
                "Key": key(sk="absent"),
                "ConditionExpression": "attribute_exists(PK)",
            }
        },
    ]
    with pytest.raises(dynamodb.exceptions.TransactionCanceledException) as raised:
        dynamodb.transact_write_items(TransactItems=items)
    reasons = [reason["Code"] for reason in raised.value.response["CancellationReasons"]]
    assert reasons == ["None", "None", "None", "ConditionalCheckFailed"]
    stored = dynamodb.scan(TableName=table)["Items"]
    assert sorted(stored, key=lambda item: item["SK"]["S"]) == [key(sk="deleted"), before]


def test_a_transaction_does_not_copy_the_table(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    from moto.dynamodb.models.dynamo_type import Item

    dynamodb, table = aws.client("dynamodb"), aws.table()
    for number in range(5):
        dynamodb.put_item(TableName=table, Item=key(sk=str(number)))
    copies: list[Any] = []
    original = Item.__deepcopy__

    def counted(item: Any, memo: Any) -> Any:
        copies.append(item)
        return original(item, memo)

    monkeypatch.setattr(Item, "__deepcopy__", counted)
    dynamodb.transact_write_items(TransactItems=[{"Put": {"TableName": table, "Item": key(sk="0")}}])
    assert len(copies) == 1


def test_a_repeated_transaction_token_does_nothing_and_succeeds(aws: Aws) -> None:
    dynamodb, table, token = aws.client("dynamodb"), aws.table(), unique()
    put = {"Put": {"TableName": table, "Item": key(), "ConditionExpression": "attribute_not_exists(PK)"}}
    for _ in range(2):
        dynamodb.transact_write_items(TransactItems=[put], ClientRequestToken=token)
    other = {"Put": {"TableName": table, "Item": key(sk="other")}}
    code = error_code(dynamodb.transact_write_items, TransactItems=[other], ClientRequestToken=token)
    assert code == "IdempotentParameterMismatchException"
    assert error_code(dynamodb.transact_write_items, TransactItems=[put]) == "TransactionCanceledException"


def test_a_query_looks_at_its_own_partition_only(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    from moto.dynamodb.models.table import Table

    dynamodb, table = aws.client("dynamodb"), aws.table()
    for pk, sk in (("p", "1"), ("p", "2"), ("q", "1")):
        dynamodb.put_item(TableName=table, Item=key(pk, sk))
    monkeypatch.delattr(Table, "all_items")
    values = {":p": {"S": "p"}}
    query = {"TableName": table, "KeyConditionExpression": "PK = :p", "ExpressionAttributeValues": values}
    assert dynamodb.query(**query, Limit=1, ScanIndexForward=False)["Items"] == [key("p", "2")]
    assert dynamodb.query(**query)["Items"] == [key("p", "1"), key("p", "2")]
    assert dynamodb.query(**{**query, "ExpressionAttributeValues": {":p": {"S": "none"}}})["Items"] == []


def test_a_query_begins_behind_a_key_that_need_not_exist(aws: Aws) -> None:
    dynamodb, table = aws.client("dynamodb"), aws.table()
    for sk in "bdf":
        dynamodb.put_item(TableName=table, Item=key(sk=sk))

    def behind(sk: str, *, forward: bool) -> list[str]:
        found = dynamodb.query(
            TableName=table,
            KeyConditionExpression="PK = :p AND SK BETWEEN :first AND :last",
            ExpressionAttributeValues={":p": {"S": "p"}, ":first": {"S": "a"}, ":last": {"S": "z"}},
            ExclusiveStartKey=key(sk=sk),
            ScanIndexForward=forward,
        )
        return [item["SK"]["S"] for item in found["Items"]]

    assert [behind(sk, forward=True) for sk in "abcdf"] == [["b", "d", "f"], ["d", "f"], ["d", "f"], ["f"], []]
    assert [behind(sk, forward=False) for sk in "bcdg"] == [[], ["b"], ["b"], ["f", "d", "b"]]


def test_a_refused_delete_says_what_is_there(aws: Aws) -> None:
    dynamodb, table = aws.client("dynamodb"), aws.table()
    item = {**key(), "v": {"S": "kept"}}
    dynamodb.put_item(TableName=table, Item=item)
    delete = {
        "TableName": table,
        "ConditionExpression": "v = :v",
        "ExpressionAttributeValues": {":v": {"S": "other"}},
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }
    with pytest.raises(dynamodb.exceptions.ConditionalCheckFailedException) as raised:
        dynamodb.delete_item(**delete, Key=key())
    assert raised.value.response["Item"] == item
    with pytest.raises(dynamodb.exceptions.ConditionalCheckFailedException) as raised:
        dynamodb.delete_item(**delete, Key=key(sk="absent"))
    assert "Item" not in raised.value.response
    dynamodb.delete_item(**{**delete, "ExpressionAttributeValues": {":v": {"S": "kept"}}}, Key=key())
    assert dynamodb.scan(TableName=table)["Items"] == []


def test_a_transaction_checks_an_item_that_it_does_not_write(aws: Aws) -> None:
    dynamodb, table = aws.client("dynamodb"), aws.table()
    dynamodb.put_item(TableName=table, Item={**key(sk="actor"), "epoch": {"N": "1"}})

    def write(sk: str, epoch: str) -> None:
        check = {
            "TableName": table,
            "Key": key(sk="actor"),
            "ConditionExpression": "attribute_not_exists(PK) OR epoch = :e",
            "ExpressionAttributeValues": {":e": {"N": epoch}},
        }
        items = [{"ConditionCheck": check}, {"Put": {"TableName": table, "Item": key(sk=sk)}}]
        dynamodb.transact_write_items(TransactItems=items)

    write("written", "1")
    with pytest.raises(dynamodb.exceptions.TransactionCanceledException):
        write("refused", "2")
    assert sorted(item["SK"]["S"] for item in dynamodb.scan(TableName=table)["Items"]) == ["actor", "written"]


def test_a_transaction_may_name_an_item_once_only(aws: Aws) -> None:
    dynamodb, table = aws.client("dynamodb"), aws.table()
    items = [
        {"ConditionCheck": {"TableName": table, "Key": key(), "ConditionExpression": "attribute_not_exists(PK)"}},
        {"Put": {"TableName": table, "Item": key()}},
    ]
    assert error_code(dynamodb.transact_write_items, TransactItems=items) == "ValidationException"
    many = [{"Put": {"TableName": table, "Item": key(sk=str(number))}} for number in range(101)]
    assert error_code(dynamodb.transact_write_items, TransactItems=many) == "ValidationException"
    assert dynamodb.scan(TableName=table)["Items"] == []


# Indexes

KEYS_ONLY = {"ProjectionType": "KEYS_ONLY"}


def owned(sk: str, owner: str | None, order: str = "0") -> dict[str, Any]:
    """An item in the index `Owned` of `owner`; without one it is not in the index."""
    return {**key(sk=sk), **({"OwnedPK": {"S": owner}, "OwnedSK": {"S": order}} if owner else {}), "v": {"S": "text"}}


def in_index(aws: Aws, table: str, owner: str, **options: Any) -> list[str]:
    """The sort keys of the items that the index has of `owner` between "0" and "5", page by page."""
    query = {
        "TableName": table,
        "IndexName": "Owned",
        "KeyConditionExpression": "OwnedPK = :o AND OwnedSK BETWEEN :first AND :last",
        "ExpressionAttributeValues": {":o": {"S": owner}, ":first": {"S": "0"}, ":last": {"S": "5"}},
        **options,
    }
    pages = aws.client("dynamodb").get_paginator("query").paginate(**query)
    return [item["SK"]["S"] for page in pages for item in page["Items"]]


def test_an_index_has_the_items_with_its_keys_in_its_order(aws: Aws) -> None:
    dynamodb, table = aws.client("dynamodb"), aws.table(Owned=KEYS_ONLY)
    for item in (owned("a", "x", "3"), owned("b", "x", "1"), owned("c", "y"), owned("d", None), owned("e", "x", "7")):
        dynamodb.put_item(TableName=table, Item=item)
    assert in_index(aws, table, "x") == ["b", "a"]
    assert in_index(aws, table, "x", ScanIndexForward=False) == ["a", "b"]
    assert in_index(aws, table, "x", PaginationConfig={"PageSize": 1}) == ["b", "a"]
    assert in_index(aws, table, "nobody") == []
    consistent = {
        "TableName": table,
        "IndexName": "Owned",
        "KeyConditionExpression": "OwnedPK = :o",
        "ExpressionAttributeValues": {":o": {"S": "x"}},
        "ConsistentRead": True,
    }
    assert error_code(dynamodb.query, **consistent) == "ValidationException"


def test_items_of_one_index_key_are_paged_through_without_loss(aws: Aws) -> None:
    dynamodb, table = aws.client("dynamodb"), aws.table(Owned=KEYS_ONLY)
    for sk in "abcde":
        dynamodb.put_item(TableName=table, Item=owned(sk, "x"))
    assert in_index(aws, table, "x", PaginationConfig={"PageSize": 2}) == list("abcde")
    assert in_index(aws, table, "x", PaginationConfig={"PageSize": 2}, ScanIndexForward=False) == list("edcba")


def test_an_index_gives_only_what_it_projects(aws: Aws) -> None:
    dynamodb, table = aws.client("dynamodb"), aws.table(Owned=KEYS_ONLY)
    dynamodb.put_item(TableName=table, Item=owned("a", "x"))
    found = dynamodb.query(
        TableName=table,
        IndexName="Owned",
        KeyConditionExpression="OwnedPK = :o",
        ExpressionAttributeValues={":o": {"S": "x"}},
    )
    assert found["Items"] == [{**key(sk="a"), "OwnedPK": {"S": "x"}, "OwnedSK": {"S": "0"}}]


def test_an_index_follows_transactions(aws: Aws) -> None:
    dynamodb, table = aws.client("dynamodb"), aws.table(Owned=KEYS_ONLY)
    for sk in ("leaves", "moves", "deleted"):
        dynamodb.put_item(TableName=table, Item=owned(sk, "x"))

    def update(sk: str, expression: str, **values: str) -> dict[str, Any]:
        named = {"TableName": table, "Key": key(sk=sk), "UpdateExpression": expression}
        if values:
            named["ExpressionAttributeValues"] = {f":{name}": {"S": value} for name, value in values.items()}
        return {"Update": named}

    items = [
        {"Put": {"TableName": table, "Item": owned("comes", "x")}},
        update("leaves", "REMOVE OwnedPK, OwnedSK"),
        update("moves", "SET OwnedPK = :y", y="y"),
        {"Delete": {"TableName": table, "Key": key(sk="deleted")}},
    ]
    dynamodb.transact_write_items(TransactItems=items)
    assert in_index(aws, table, "x") == ["comes"]
    assert in_index(aws, table, "y") == ["moves"]
    refused = {"TableName": table, "Key": key(sk="absent"), "ConditionExpression": "attribute_exists(PK)"}
    with pytest.raises(dynamodb.exceptions.TransactionCanceledException):
        dynamodb.transact_write_items(
            TransactItems=[update("comes", "REMOVE OwnedPK, OwnedSK"), {"ConditionCheck": refused}]
        )
    assert in_index(aws, table, "x") == ["comes"]


# Consumed capacity


def units(response: dict[str, Any]) -> float:
    return float(response["ConsumedCapacity"]["CapacityUnits"])


def sized(size: int, sk: str = "s") -> dict[str, Any]:
    """An item of exactly `size` bytes."""
    item = {**key(sk=sk), "v": {"S": ""}}
    return {**item, "v": {"S": "x" * (size - item_size(item))}}


@pytest.mark.parametrize(
    ("item", "size"),
    [
        ({"a": {"S": "é"}}, 3),
        ({"a": {"N": "-12345"}}, 1 + 3 + 1 + 1),
        ({"a": {"B": b"xyz"}}, 4),
        ({"a": {"BOOL": True}, "b": {"NULL": True}}, 4),
        ({"a": {"L": [{"S": "xx"}, {"S": "y"}]}}, 1 + 3 + 3 + 2),
        ({"a": {"M": {"bb": {"S": "c"}}}}, 1 + 3 + 1 + 2 + 1),
        ({"a": {"SS": ["x", "yy"]}}, 4),
    ],
)
def test_an_item_is_as_large_as_its_names_and_values(item: dict[str, Any], size: int) -> None:
    assert item_size(item) == size


@pytest.mark.parametrize(("size", "expected"), [(100, 1.0), (1024, 1.0), (1025, 2.0), (10_240, 10.0)])
def test_a_write_costs_a_unit_for_each_kilobyte(aws: Aws, size: int, expected: float) -> None:
    dynamodb, table = aws.client("dynamodb"), aws.table()
    assert units(dynamodb.put_item(TableName=table, Item=sized(size), ReturnConsumedCapacity="TOTAL")) == expected


def test_a_write_costs_the_larger_of_the_old_and_the_new_item(aws: Aws) -> None:
    dynamodb, table = aws.client("dynamodb"), aws.table()
    named = {"TableName": table, "ReturnConsumedCapacity": "TOTAL"}
    dynamodb.put_item(TableName=table, Item=sized(3000))
    update = {
        "Key": key(),
        "UpdateExpression": "SET v = :v",
        "ExpressionAttributeValues": {":v": {"S": "short"}},
    }
    assert units(dynamodb.update_item(**named, **update)) == 3
    assert units(dynamodb.update_item(**named, **update)) == 1
    dynamodb.put_item(TableName=table, Item=sized(3000))
    assert units(dynamodb.delete_item(**named, Key=key())) == 3
    assert units(dynamodb.delete_item(**named, Key=key())) == 1


@pytest.mark.parametrize(("size", "expected"), [(100, 1.0), (4096, 1.0), (4097, 2.0)])
def test_a_read_costs_a_unit_for_each_four_kilobytes_and_half_when_eventually_consistent(
    aws: Aws, size: int, expected: float
) -> None:
    dynamodb, table = aws.client("dynamodb"), aws.table()
    dynamodb.put_item(TableName=table, Item=sized(size))
    get = {"TableName": table, "Key": key(), "ReturnConsumedCapacity": "TOTAL", "ProjectionExpression": "PK"}
    assert units(dynamodb.get_item(**get, ConsistentRead=True)) == expected
    assert units(dynamodb.get_item(**get)) == expected / 2


def test_a_query_costs_what_it_looks_at_before_filter_and_projection(aws: Aws) -> None:
    dynamodb, table = aws.client("dynamodb"), aws.table()
    for number in range(6):
        dynamodb.put_item(TableName=table, Item=sized(2000, sk=str(number)))
    query = {
        "TableName": table,
        "KeyConditionExpression": "PK = :p AND SK < :s",
        "FilterExpression": "v = :none",
        "ProjectionExpression": "PK",
        "ExpressionAttributeValues": {":p": {"S": "p"}, ":s": {"S": "5"}, ":none": {"S": "none"}},
        "ReturnConsumedCapacity": "TOTAL",
        "ConsistentRead": True,
    }
    whole, limited = dynamodb.query(**query), dynamodb.query(**query, Limit=2)
    assert (units(whole), whole["Count"], whole["ScannedCount"]) == (3, 0, 5)  # 10,000 bytes
    assert units(limited) == 1
    assert units(dynamodb.query(**{**query, "ConsistentRead": False})) == 1.5
    assert units(dynamodb.scan(TableName=table, ReturnConsumedCapacity="TOTAL", ConsistentRead=True)) == 3


def test_a_filter_and_a_projection_still_apply(aws: Aws) -> None:
    dynamodb, table = aws.client("dynamodb"), aws.table()
    for number in range(3):
        dynamodb.put_item(TableName=table, Item={**key(sk=str(number)), "n": {"N": str(number)}})
    found = dynamodb.query(
        TableName=table,
        KeyConditionExpression="PK = :p",
        FilterExpression="n > :n",
        ProjectionExpression="n",
        ExpressionAttributeValues={":p": {"S": "p"}, ":n": {"N": "0"}},
    )
    assert found["Items"] == [{"n": {"N": "1"}}, {"n": {"N": "2"}}]


def test_a_transaction_costs_double_and_a_repetition_its_reads(aws: Aws) -> None:
    dynamodb, table, token = aws.client("dynamodb"), aws.table(), unique()
    items = [
        {"Put": {"TableName": table, "Item": sized(1500, sk="a")}},
        {"Put": {"TableName": table, "Item": sized(100, sk="b")}},
    ]
    write = {"TransactItems": items, "ClientRequestToken": token, "ReturnConsumedCapacity": "TOTAL"}
    written = dynamodb.transact_write_items(**write)["ConsumedCapacity"]
    assert written == [{"TableName": table, "CapacityUnits": 6.0, "WriteCapacityUnits": 6.0}]
    repeated = dynamodb.transact_write_items(**write)["ConsumedCapacity"]
    assert repeated == [{"TableName": table, "CapacityUnits": 4.0, "ReadCapacityUnits": 4.0}]
    read = dynamodb.transact_get_items(
        TransactItems=[{"Get": {"TableName": table, "Key": key(sk=sk)}} for sk in ("a", "b", "missing")],
        ReturnConsumedCapacity="TOTAL",
    )["ConsumedCapacity"]
    assert read == [{"TableName": table, "CapacityUnits": 6.0, "ReadCapacityUnits": 6.0}]


@pytest.mark.parametrize(
    ("change", "table_units", "index_units"),
    [
        ("SET v = :v", 1, 0),  # nothing that the index has
        ("SET OwnedSK = :v", 1, 2),  # a delete and a put
        ("REMOVE OwnedPK", 1, 1),
        ("SET p = :v", 1, 1),  # projected, no key
    ],
)
def test_a_write_costs_its_index_what_changes_there(
    aws: Aws, change: str, table_units: float, index_units: float
) -> None:
    projection = {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["p"]}
    dynamodb, table = aws.client("dynamodb"), aws.table(Owned=projection)
    asked = {"TableName": table, "ReturnConsumedCapacity": "INDEXES"}
    put = dynamodb.put_item(**asked, Item={**owned("a", "x"), "p": {"S": "projected"}})
    assert put["ConsumedCapacity"] == {
        "TableName": table,
        "CapacityUnits": 2.0,
        "Table": {"CapacityUnits": 1.0},
        "GlobalSecondaryIndexes": {"Owned": {"CapacityUnits": 1.0}},
    }
    update: dict[str, Any] = {"Key": key(sk="a"), "UpdateExpression": change}
    if ":v" in change:
        update["ExpressionAttributeValues"] = {":v": {"S": "new"}}
    reported = dynamodb.update_item(**asked, **update)["ConsumedCapacity"]
    by_index = {"GlobalSecondaryIndexes": {"Owned": {"CapacityUnits": index_units}}} if index_units else {}
    assert reported == {
        "TableName": table,
        "CapacityUnits": table_units + index_units,
        "Table": {"CapacityUnits": table_units},
        **by_index,
    }
    again = dynamodb.update_item(TableName=table, ReturnConsumedCapacity="TOTAL", **update)
    assert units(again) == 1  # it changes nothing any more


def test_an_index_entry_costs_its_own_size(aws: Aws) -> None:
    dynamodb, table = aws.client("dynamodb"), aws.table(Owned=KEYS_ONLY, All={"ProjectionType": "ALL"})
    asked = {"TableName": table, "ReturnConsumedCapacity": "INDEXES"}
    large = {**owned("a", "x"), "AllPK": {"S": "x"}, "AllSK": {"S": "0"}, "v": {"S": "x" * 2500}}
    put = dynamodb.put_item(**asked, Item=large)["ConsumedCapacity"]
    assert put["GlobalSecondaryIndexes"] == {"Owned": {"CapacityUnits": 1.0}, "All": {"CapacityUnits": 3.0}}
    assert put["CapacityUnits"] == 7
    assert units(dynamodb.put_item(**asked, Item=owned("b", None))) == 1
    assert units(dynamodb.delete_item(**asked, Key=key(sk="a"))) == 7
    assert units(dynamodb.delete_item(**asked, Key=key(sk="b"))) == 1


def test_a_transaction_costs_the_table_double_and_its_indexes_once(aws: Aws) -> None:
    dynamodb, table = aws.client("dynamodb"), aws.table(Owned=KEYS_ONLY)
    check = {"TableName": table, "Key": key(sk="absent"), "ConditionExpression": "attribute_not_exists(PK)"}
    items = [
        {"Put": {"TableName": table, "Item": owned("a", "x")}},
        {"Put": {"TableName": table, "Item": owned("b", None)}},
        {"ConditionCheck": check},
    ]
    written = dynamodb.transact_write_items(TransactItems=items, ReturnConsumedCapacity="INDEXES")
    assert written["ConsumedCapacity"] == [
        {
            "TableName": table,
            "CapacityUnits": 7.0,
            "WriteCapacityUnits": 7.0,
            "Table": {"CapacityUnits": 6.0, "WriteCapacityUnits": 6.0},
            "GlobalSecondaryIndexes": {"Owned": {"CapacityUnits": 1.0, "WriteCapacityUnits": 1.0}},
        }
    ]


def test_a_query_of_an_index_costs_what_the_index_has(aws: Aws) -> None:
    dynamodb, table = aws.client("dynamodb"), aws.table(Owned=KEYS_ONLY, All={"ProjectionType": "ALL"})
    for sk in "abc":
        both = {**owned(sk, "x"), "AllPK": {"S": "x"}, "AllSK": {"S": "0"}, "v": {"S": "x" * 3000}}
        dynamodb.put_item(TableName=table, Item=both)

    def query(index: str, **options: Any) -> dict[str, Any]:
        answer = dynamodb.query(
            TableName=table,
            IndexName=index,
            KeyConditionExpression=f"{index}PK = :x",
            ExpressionAttributeValues={":x": {"S": "x"}},
            ReturnConsumedCapacity="INDEXES",
            **options,
        )
        reported: dict[str, Any] = answer["ConsumedCapacity"]
        return reported

    assert query("Owned") == {
        "TableName": table,
        "CapacityUnits": 0.5,
        "Table": {"CapacityUnits": 0.0},
        "GlobalSecondaryIndexes": {"Owned": {"CapacityUnits": 0.5}},
    }
    assert query("All")["CapacityUnits"] == 1.5  # 9 KB
    assert query("All", Limit=1)["CapacityUnits"] == 0.5


def test_a_batch_costs_the_sum_of_its_items(aws: Aws) -> None:
    dynamodb, table = aws.client("dynamodb"), aws.table()
    puts = [{"PutRequest": {"Item": sized(1500, sk=sk)}} for sk in ("a", "b")]
    written = dynamodb.batch_write_item(RequestItems={table: puts}, ReturnConsumedCapacity="TOTAL")
    assert written["ConsumedCapacity"] == [{"TableName": table, "CapacityUnits": 4.0}]
    keys = [key(sk="a"), key(sk="b"), key(sk="missing")]
    read = dynamodb.batch_get_item(RequestItems={table: {"Keys": keys}}, ReturnConsumedCapacity="TOTAL")
    assert read["ConsumedCapacity"] == [{"TableName": table, "CapacityUnits": 1.5}]


def test_capacity_is_reported_only_when_asked_for(aws: Aws) -> None:
    dynamodb, table = aws.client("dynamodb"), aws.table()
    update = {"Key": key(), "UpdateExpression": "SET v = :v", "ExpressionAttributeValues": {":v": {"S": "x"}}}
    assert "ConsumedCapacity" not in dynamodb.update_item(TableName=table, **update)
    by_index = dynamodb.update_item(TableName=table, **update, ReturnConsumedCapacity="INDEXES")
    assert by_index["ConsumedCapacity"] == {
        "TableName": table,
        "CapacityUnits": 1.0,
        "Table": {"CapacityUnits": 1.0},
    }
