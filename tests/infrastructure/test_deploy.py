"""Deploying into the offline stack, against moto in this process and a function that lives in the test."""

import json
import shutil
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from local.deployment.custom_resources import CustomResourceFailed
from local.deployment.deploy import (
    CARRIED_BY_MOTO,
    HANDLED_HERE,
    Delivery,
    DeployedFunction,
    Deployment,
    DeploymentError,
    Rule,
    deploy,
)
from local.deployment.sam_yaml import TemplateError
from local.gateway.routes import Route, Throttle
from tests.paths import ROOT

INVOKE_AGENT_PATH = "/agents/{agentId}/agentAliases/{agentAliasId}/sessions/{sessionId}/text"
FUNCTION_ARN = "arn:aws:lambda:us-east-1:123456789012:function:"


@dataclass
class Invoked:
    payload: bytes = b"null"
    function_error: str | None = None


@dataclass
class FakeFunctions:
    """Answers custom resource requests as `reply` says (None: not at all), and keeps them."""

    reply: Mapping[str, Any] | None = field(
        default_factory=lambda: {"Status": "SUCCESS", "PhysicalResourceId": "one", "Data": {"Agents": "A:1"}}
    )
    invoked: Invoked = field(default_factory=Invoked)
    requests: list[dict[str, Any]] = field(default_factory=list)

    def invoke(self, function: str, payload: bytes, trace_header: str | None = None) -> Invoked:
        request = json.loads(payload)
        self.requests.append({**request, "function": function})
        if self.reply is not None:
            same = {name: request[name] for name in ("StackId", "RequestId", "LogicalResourceId")}
            answer = json.dumps({**same, **self.reply}).encode()
            urllib.request.urlopen(urllib.request.Request(request["ResponseURL"], answer, method="PUT")).close()
        return self.invoked

    def invoke_streaming(self, function: str, payload: bytes, trace_header: str | None = None) -> Any:
        raise AssertionError("a deployment streams nothing")

    def forget(self) -> list[dict[str, Any]]:
        requests, self.requests = self.requests, []
        return requests


@dataclass
class Deployer:
    """Deploys into an empty moto."""

    functions: FakeFunctions = field(default_factory=FakeFunctions)
    registered: dict[str, DeployedFunction] = field(default_factory=dict)
    deployments: list[Deployment] = field(default_factory=list)

    def deploy(self, template: Path, **parameters: str) -> Deployment:
        deployment = deploy(
            template, client=self.client, functions=self.functions, register=self._register, parameters=parameters
        )
        self.deployments.append(deployment)
        return deployment

    def client(self, service: str) -> Any:
        return boto3.client(service, region_name="us-east-1")

    def _register(self, function: DeployedFunction) -> None:
        self.registered[function.logical_id] = function


@contextmanager
def deploying() -> Iterator[Deployer]:
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        deployer = Deployer()
        yield deployer
        for deployment in deployer.deployments:
            deployment.close()


@pytest.fixture
def deployer() -> Iterator[Deployer]:
    with deploying() as deployer:
        yield deployer


@pytest.fixture(scope="class")
def deployed() -> Iterator[Deployer]:
    """It has deployed template.yaml as it is, which takes longer than to look at what came of it."""
    with deploying() as deployer:
        deployer.deploy(ROOT / "template.yaml")
        yield deployer


class Project:
    """A small project: a function, its agent files and a custom resource, to be changed by a test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.template = folder / "template.json"
        (folder / "code").mkdir()
        (folder / "code" / "work.py").write_text("def handler(event, context): ...\n")
        (folder / "files").mkdir()
        (folder / "files" / "a.json").write_text("{}")
        self.resources: dict[str, Any] = {
            "Work": {
                "Type": "AWS::Serverless::Function",
                "Properties": {
                    "CodeUri": "code",
                    "Handler": "work.handler",
                    "Runtime": "python3.13",
                    "Layers": [{"Ref": "Files"}],
                },
            },
            "Files": {"Type": "AWS::Serverless::LayerVersion", "Properties": {"ContentUri": "files"}},
            "Published": {
                "Type": "Custom::Published",
                "Properties": {
                    "ServiceToken": {"Fn::GetAtt": ["Work", "Arn"]},
                    "Files": {"Ref": "Files"},
                    "Wanted": {"Number": 3, "Truth": True, "List": [1, {"Fn::Sub": "${AWS::StackName}-${Work}"}]},
                },
            },
        }

    def write(self, **more: Any) -> Path:
        self.template.write_text(
            json.dumps({"Transform": "AWS::Serverless-2016-10-31", "Resources": self.resources, **more}, indent=1)
        )
        return self.template


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


class TestTheProject:
    """template.yaml itself."""

    def test_the_api_is_what_the_template_says(self, deployed: Deployer) -> None:
        [deployment] = deployed.deployments
        name = deployed.registered["InvokeAgentFunction"].name
        assert Route("POST", INVOKE_AGENT_PATH, name, True, "AWS_IAM", 900, Throttle(50, 50)) in deployment.api.routes
        assert {route.throttle for route in deployment.api.routes} == {Throttle(50, 50), Throttle(500, 500)}
        assert deployment.api.stage == "v1"

    def test_a_failed_turn_goes_to_the_function_that_records_it(self, deployed: Deployer) -> None:
        [deployment] = deployed.deployments
        [rule] = [rule for rule in deployment.rules if rule.name == "RecordFailureFunctionExecutionFailed"]
        name = deployed.registered["RecordFailureFunction"].name
        assert rule.function == name
        assert rule.pattern is not None
        assert rule.pattern["detail"]["stateMachineArn"] == [deployment.outputs["StateMachineArn"]]
        queue = rule.delivery.dead_letter_arn
        assert queue is not None
        assert queue.startswith("arn:aws:sqs:us-east-1:123456789012:turnwright-DeadLetterQueue")
        assert rule.delivery == Delivery(10, 3600, queue)
        assert deployment.asynchronous[name] == Delivery(2, 3600, queue)

    def test_functions_run_from_their_folders_and_log_where_the_template_says(self, deployed: Deployer) -> None:
        [deployment] = deployed.deployments
        runtime, agents = ROOT / "functions" / "runtime", ROOT / "agents"
        assert deployed.registered["PublishAgentsFunction"] == DeployedFunction(
            "PublishAgentsFunction",
            "turnwright-PublishAgentsFunction",
            runtime,
            (agents,),
            deployment.outputs["RuntimeLogGroup"],
            (runtime / "requirements.txt",),
        )
        assert deployed.registered["InvokeToolFunction"].layers == ()

    def test_a_tool_has_the_requirements_of_its_folder(self, deployed: Deployer) -> None:
        tool = deployed.registered["BankingToolsFunction"]
        assert tool.requirements == (ROOT / "functions" / "banking_tools" / "requirements.txt",)

    def test_the_agents_are_published_by_the_function_that_cloudformation_would_call(self, deployed: Deployer) -> None:
        [request] = deployed.functions.requests
        assert request["function"] == "turnwright-PublishAgentsFunction"
        assert (request["RequestType"], request["ResourceType"]) == ("Create", "Custom::PublishedAgents")
        substitutions = request["ResourceProperties"]["Substitutions"]
        assert substitutions["BankingToolsFunctionArn"] == FUNCTION_ARN + "turnwright-BankingToolsFunction"


class TestDeployments:
    """Each of its own."""

    def test_everything_that_moto_leaves_out_is_there(self, deployer: Deployer) -> None:
        deployment = deployer.deploy(ROOT / "template.yaml", LogRetentionDays="7")
        outputs = deployment.outputs
        time_to_live = deployer.client("dynamodb").describe_time_to_live(TableName=outputs["TableName"])
        assert time_to_live["TimeToLiveDescription"] == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expiresAt"}
        groups = deployer.client("logs").describe_log_groups()["logGroups"]
        retention = {group["logGroupName"]: group["retentionInDays"] for group in groups}
        assert retention[outputs["RuntimeLogGroup"]] == 7
        assert retention[outputs["StateMachineLogGroup"]] == 7
        queue = deployer.client("sqs").get_queue_attributes(
            QueueUrl=outputs["DeadLetterQueueUrl"], AttributeNames=["Policy"]
        )
        assert "events.amazonaws.com" in queue["Attributes"]["Policy"]

    def test_parameters_decide(self, deployer: Deployer) -> None:
        deployment = deployer.deploy(ROOT / "template.yaml", StreamResponses="false", AuthorizationType="NONE")
        [route] = [route for route in deployment.api.routes if route.path == INVOKE_AGENT_PATH]
        assert (route.streaming, route.authorization, route.timeout_seconds) == (False, "NONE", 29)
        assert deployment.api.binary_media_types == {"*/*"}
        name = deployer.registered["InvokeAgentFunction"].name
        function = deployer.client("lambda").get_function_configuration(FunctionName=name)
        assert function["Handler"] == "invoke_agent.handler"
        assert "AWS_LAMBDA_EXEC_WRAPPER" not in function["Environment"]["Variables"]

    @pytest.mark.parametrize("has_layer", [True, False])
    def test_what_a_layer_is_built_from_is_required_by_the_functions_that_have_the_layer(
        self, deployer: Deployer, project: Project, has_layer: bool
    ) -> None:
        file = project.folder / "code" / "requirements.txt"
        file.write_text("boto3\n")
        project.resources["Files"] |= {"Metadata": {"BuildMethod": "makefile"}}
        project.resources["Files"]["Properties"]["ContentUri"] = "code"
        if not has_layer:
            del project.resources["Work"]["Properties"]["Layers"]
        deployer.deploy(project.write())
        assert deployer.registered["Work"].requirements == ((file,) if has_layer else ())


class TestCustomResources:
    def test_a_request_is_cloudformations_own(self, deployer: Deployer, project: Project) -> None:
        deployment = deployer.deploy(project.write())
        [request] = deployer.functions.requests
        assert request["ResourceProperties"] == {
            "ServiceToken": FUNCTION_ARN + "turnwright-Work",
            "Files": "arn:aws:lambda:us-east-1:123456789012:layer:Files:1",
            "Wanted": {"Number": "3", "Truth": "true", "List": ["1", "turnwright-turnwright-Work"]},
        }
        assert request["StackId"] == deployment.stack_id
        assert deployment.resources["Published"] == "one"

    def test_its_attributes_reach_the_outputs(self, deployer: Deployer, project: Project) -> None:
        deployer.functions.reply = {"Status": "SUCCESS", "PhysicalResourceId": "one", "Data": {"Agents": "a b"}}
        outputs = {"All": {"Value": {"Fn::Sub": "${Published}: ${Published.Agents}"}}}
        assert deployer.deploy(project.write(Outputs=outputs)).outputs == {"All": "one: a b"}

    @pytest.mark.parametrize(
        ("reply", "invoked", "message"),
        [
            ({"Status": "FAILED", "Reason": "a.json: /limits: too many"}, Invoked(), "a.json: /limits: too many"),
            ({"Status": "SUCCESS"}, Invoked(), "the answer has no PhysicalResourceId"),
            (
                {"Status": "SUCCESS", "PhysicalResourceId": "one", "RequestId": "another"},
                Invoked(),
                "the answer's RequestId is not the request's",
            ),
            (None, Invoked(b'{"errorType": "KeyError", "errorMessage": "x"}', "Unhandled"), "KeyError: x"),
        ],
        ids=["failed", "no id", "another's", "crash"],
    )
    def test_a_failure_fails_the_deployment_with_its_reason(
        self,
        deployer: Deployer,
        project: Project,
        reply: Mapping[str, Any] | None,
        invoked: Invoked,
        message: str,
    ) -> None:
        deployer.functions.reply, deployer.functions.invoked = reply, invoked
        with pytest.raises(DeploymentError) as failed:
            deployer.deploy(project.write())
        assert str(failed.value) == f"Published: {message}"

    def test_a_saved_file_updates_what_depends_on_it(self, deployer: Deployer, project: Project) -> None:
        deployment = deployer.deploy(project.write())
        [created] = deployer.functions.forget()
        assert deployment.refresh() == []
        (project.folder / "files" / "a.json").write_text('{"a": 1}')
        assert [resource.logical_id for resource in deployment.refresh()] == ["Published"]
        [updated] = deployer.functions.forget()
        assert updated["RequestType"] == "Update"
        assert updated["PhysicalResourceId"] == "one"
        assert updated["OldResourceProperties"] == created["ResourceProperties"]
        assert updated["ResourceProperties"]["Files"].endswith(":layer:Files:2")
        assert deployment.refresh() == []

    def test_a_refused_update_changes_nothing_and_is_told_once(self, deployer: Deployer, project: Project) -> None:
        deployment = deployer.deploy(project.write())
        [created] = deployer.functions.forget()
        good = deployer.functions.reply
        deployer.functions.reply = {"Status": "FAILED", "Reason": "broken"}
        (project.folder / "files" / "a.json").write_text("broken")
        with pytest.raises(CustomResourceFailed, match="broken"):
            deployment.refresh()
        assert deployment.refresh() == []
        deployer.functions.reply = good
        (project.folder / "files" / "b.json").write_text("{}")
        assert [resource.logical_id for resource in deployment.refresh()] == ["Published"]
        assert deployer.functions.requests[-1]["OldResourceProperties"] == created["ResourceProperties"]

    def test_a_new_physical_id_deletes_the_old_one(self, deployer: Deployer, project: Project) -> None:
        deployment = deployer.deploy(project.write())
        deployer.functions.forget()
        deployer.functions.reply = {"Status": "SUCCESS", "PhysicalResourceId": "two"}
        (project.folder / "files" / "a.json").unlink()
        deployment.refresh()
        asked = [(request["RequestType"], request["PhysicalResourceId"]) for request in deployer.functions.requests]
        assert asked == [("Update", "one"), ("Delete", "one")]
        assert deployment.resources["Published"] == "two"

    def test_what_editors_leave_behind_is_no_change(self, deployer: Deployer, project: Project) -> None:
        deployment = deployer.deploy(project.write())
        for name in (".a.json.swp", "a.json~"):
            (project.folder / "files" / name).write_text("x")
        assert deployment.refresh() == []


class TestRules:
    def test_a_schedule_of_a_function_is_a_rule_that_is_due_so_often(
        self, deployer: Deployer, project: Project
    ) -> None:
        schedule = {"Type": "Schedule", "Properties": {"Schedule": "rate(1 minute)"}}
        project.resources["Work"]["Properties"]["Events"] = {"Often": schedule}
        deployment = deployer.deploy(project.write())
        name = deployment.resources["WorkOften"]
        arn = f"arn:aws:events:us-east-1:123456789012:rule/{name}"
        every = timedelta(minutes=1)
        assert deployment.rules == (Rule("WorkOften", "turnwright-Work", None, every, arn, Delivery(185, 86400)),)
        assert deployer.client("events").describe_rule(Name=name)["ScheduleExpression"] == "rate(1 minute)"

    def test_a_disabled_rule_does_nothing(self, deployer: Deployer, project: Project) -> None:
        schedule = {"Type": "Schedule", "Properties": {"Schedule": "rate(1 minute)", "State": "DISABLED"}}
        project.resources["Work"]["Properties"]["Events"] = {"Often": schedule}
        assert deployer.deploy(project.write()).rules == ()


class TestIndexes:
    def test_the_table_has_the_indexes_of_the_template(self, deployer: Deployer) -> None:
        deployment = deployer.deploy(ROOT / "template.yaml")
        table = deployer.client("dynamodb").describe_table(TableName=deployment.outputs["TableName"])["Table"]
        indexes = {index["IndexName"]: index for index in table["GlobalSecondaryIndexes"]}
        assert {name: [key["AttributeName"] for key in index["KeySchema"]] for name, index in indexes.items()} == {
            "Owned": ["ownerPK", "ownerSK"],
            "Due": ["duePK", "dueSK"],
        }
        assert {index["Projection"]["ProjectionType"] for index in indexes.values()} == {"KEYS_ONLY"}


class TestRefusals:
    def refused(self, deployer: Deployer, project: Project, **more: Any) -> str:
        with pytest.raises((DeploymentError, TemplateError)) as refusal:
            deployer.deploy(project.write(**more))
        message = str(refusal.value)
        assert "\n" not in message
        assert str(project.folder) in message
        return message

    def line_of(self, project: Project, text: str) -> int:
        lines = project.template.read_text().splitlines()
        return next(number for number, line in enumerate(lines, start=1) if text in line)

    def test_a_resource_that_the_offline_stack_does_not_know(self, deployer: Deployer, project: Project) -> None:
        project.resources["Stream"] = {"Type": "AWS::Kinesis::Stream", "Properties": {}}
        message = self.refused(deployer, project)
        assert message.endswith("the offline stack does not know AWS::Kinesis::Stream (Stream)")
        line = self.line_of(project, '"Stream"')
        assert f":{line}:" in message

    def test_a_folder_that_is_not_there(self, deployer: Deployer, project: Project) -> None:
        project.resources["Work"]["Properties"]["CodeUri"] = "nowhere"
        message = self.refused(deployer, project)
        assert message.endswith(f":{self.line_of(project, 'CodeUri')}: Work: CodeUri nowhere is not there")

    @pytest.mark.parametrize(
        ("line", "rule"),
        [
            (
                "no-such-package==1",
                "no-such-package is not installed here: add it to the group offline of pyproject.toml",
            ),
            ("-r other.txt", "'-r other.txt' is not the name of a package with its version"),
        ],
    )
    def test_a_requirement_whose_packages_are_not_known(
        self, deployer: Deployer, project: Project, line: str, rule: str
    ) -> None:
        file = project.folder / "code" / "requirements.txt"
        file.write_text(f"# What it needs.\nboto3==1.44.5\n{line}\n")
        assert f"Work: {file}:3: {rule}" in self.refused(deployer, project)

    def test_a_layer_of_somebody_else(self, deployer: Deployer, project: Project) -> None:
        arn = "arn:aws:lambda:us-east-1:210987654321:layer:theirs:1"
        project.resources["Work"]["Properties"]["Layers"] = [arn]
        assert f"Work: the layer {arn} is not in the template" in self.refused(deployer, project)

    def test_a_handler_that_is_not_there(self, deployer: Deployer, project: Project) -> None:
        project.resources["Work"]["Properties"]["Handler"] = "rest.handler"
        assert "the handler rest.handler is not in " in self.refused(deployer, project)

    def test_an_intrinsic_function_that_is_not_known(self, deployer: Deployer, project: Project) -> None:
        project.resources["Work"]["Properties"]["Description"] = {"Fn::ImportValue": "x"}
        assert "Work: the offline stack does not know the intrinsic function Fn::ImportValue" in self.refused(
            deployer, project
        )

    @pytest.mark.parametrize(
        "reference",
        [
            {"Ref": "Wrok"},
            {"Fn::GetAtt": ["Wrok", "Arn"]},
            {"Fn::Sub": "a/${Wrok.Arn}"},
            {"Fn::Join": ["", ["a", {"Ref": "Wrok"}]]},
        ],
        ids=["ref", "getatt", "sub", "join"],
    )
    def test_a_reference_to_what_is_not_there(
        self, deployer: Deployer, project: Project, reference: dict[str, Any]
    ) -> None:
        project.resources["Work"]["Properties"]["Environment"] = {"Variables": {"OF_THE_MISTAKE": reference}}
        message = self.refused(deployer, project)
        assert message.endswith("there is no parameter or resource Wrok")
        lines = range(self.line_of(project, "OF_THE_MISTAKE"), self.line_of(project, "OF_THE_MISTAKE") + 8)
        assert any(f":{line}:" in message for line in lines)

    def test_a_reference_that_stands_in_the_globals(self, deployer: Deployer, project: Project) -> None:
        variables = {"Function": {"Environment": {"Variables": {"NAME": {"Ref": "Tabel"}}}}}
        message = self.refused(deployer, project, Globals=variables)
        assert message.endswith(f":{self.line_of(project, 'NAME')}: there is no parameter or resource Tabel")

    def test_a_condition_that_is_not_there(self, deployer: Deployer, project: Project) -> None:
        project.resources["Work"]["DeletionPolicy"] = {"Fn::If": ["Kept", "Retain", "Delete"]}
        message = self.refused(deployer, project)
        assert message.endswith(f":{self.line_of(project, 'DeletionPolicy')}: there is no condition Kept")
        project.resources["Work"]["DeletionPolicy"] = "Retain"
        project.resources["Work"]["Condition"] = "Wanted"
        assert self.refused(deployer, project).endswith("there is no condition Wanted")

    @pytest.mark.parametrize(
        ("name", "value", "fault"),
        [
            ("Timeout", "many", "Timeout is many, and not a whole number above 0"),
            ("MemorySize", "lots", "MemorySize is lots, and not a whole number above 0"),
            ("Runtime", "nodejs22.x", "the offline stack runs functions in Python only, not nodejs22.x"),
        ],
    )
    def test_a_function_that_cannot_run(
        self, deployer: Deployer, project: Project, name: str, value: str, fault: str
    ) -> None:
        project.resources["Work"]["Properties"][name] = value
        message = self.refused(deployer, project)
        assert message.endswith(f":{self.line_of(project, name)}: Work: {fault}")

    def test_a_resource_without_a_type_and_a_word_for_a_number(self, deployer: Deployer, project: Project) -> None:
        project.resources["Logs"] = {"Type": "AWS::Logs::LogGroup", "Properties": {"RetentionInDays": "x"}}
        message = self.refused(deployer, project)
        assert f":{self.line_of(project, 'Logs')}: Logs: " in message
        assert "'x'" in message
        project.resources["Logs"] = {"Properties": {}}
        message = self.refused(deployer, project)
        assert message.endswith(f":{self.line_of(project, 'Logs')}: Logs: lacks 'Type'")

    @pytest.mark.parametrize(
        ("expression", "fault"),
        [
            ("rate(1 days)", "a value of 1 has a singular unit"),
            ("cron(0 3 ? * 2#1 *)", "is not rate(VALUE UNIT), the only schedule that the offline stack keeps"),
        ],
    )
    def test_a_schedule_that_is_not_kept(
        self, deployer: Deployer, project: Project, expression: str, fault: str
    ) -> None:
        schedule = {"Type": "Schedule", "Properties": {"Schedule": expression}}
        project.resources["Work"]["Properties"]["Events"] = {"Daily": schedule}
        message = self.refused(deployer, project)
        assert f"WorkDaily: {expression}" in message
        assert fault in message
        assert f":{self.line_of(project, 'Properties')}:" in message

    @pytest.mark.parametrize(
        ("targets", "fault"),
        [
            ([{"Id": "a", "Arn": {"Fn::GetAtt": ["Work", "Arn"]}, "Input": "{}"}], "does not know a target's Input"),
            ([{"Id": "a", "Arn": {"Fn::GetAtt": ["Queue", "Arn"]}}], "knows rules with one target only"),
            ([], "knows rules with one target only"),
        ],
        ids=["input", "queue", "none"],
    )
    def test_a_rule_that_needs_more_than_to_hand_the_event_to_a_function(
        self, deployer: Deployer, project: Project, targets: list[dict[str, Any]], fault: str
    ) -> None:
        properties = {"EventPattern": {"source": ["x"]}, "Targets": targets}
        project.resources["Queue"] = {"Type": "AWS::SQS::Queue", "Properties": {}}
        project.resources["Rule"] = {"Type": "AWS::Events::Rule", "Properties": properties}
        message = self.refused(deployer, project)
        assert f"Rule: the offline stack {fault}" in message
        assert f":{self.line_of(project, 'Targets')}:" in message

    def test_an_integration_that_is_no_proxy(self, deployer: Deployer, project: Project) -> None:
        body = {
            "openapi": "3.0.1",
            "info": {"title": "x", "version": "1"},
            "paths": {"/a": {"get": {"x-amazon-apigateway-integration": {"type": "mock"}}}},
        }
        project.resources["Api"] = {
            "Type": "AWS::Serverless::Api",
            "Properties": {"StageName": "v1", "DefinitionBody": body},
        }
        assert "GET /a: the offline stack knows Lambda proxy integrations only" in self.refused(deployer, project)

    def test_a_parameter_without_a_value_or_with_a_wrong_one(self, deployer: Deployer, project: Project) -> None:
        parameters = {"Size": {"Type": "String", "AllowedValues": ["s", "m"]}}
        assert "the parameter Size has no value" in self.refused(deployer, project, Parameters=parameters)
        parameters["Size"]["Default"] = "xl"
        assert "Size is xl; allowed are s, m" in self.refused(deployer, project, Parameters=parameters)
        with pytest.raises(DeploymentError, match="there is no parameter Sise"):
            deployer.deploy(project.write(Parameters=parameters), Sise="s")

    @pytest.mark.parametrize(
        ("declaration", "value", "told"),
        [
            ({"Type": "String", "AllowedPattern": "a+"}, "ab", "Size is ab; it must match a+"),
            ({"Type": "CommaDelimitedList", "AllowedPattern": "a+"}, "a,b", "Size is b; it must match a+"),
            ({"Type": "CommaDelimitedList", "AllowedPattern": "a+"}, "", "Size is ; it must match a+"),
            ({"Type": "Number", "MinValue": 1}, "0", "Size is 0; it is outside of its MinValue or MaxValue"),
            ({"Type": "Number", "MaxValue": 9}, "9.5", "Size is 9.5; it is outside of its MinValue or MaxValue"),
            ({"Type": "String", "AllowedPattern": "a", "ConstraintDescription": "one a"}, "b", "Size is b; one a"),
        ],
    )
    def test_a_parameter_outside_of_its_pattern_or_bounds(
        self, deployer: Deployer, project: Project, declaration: dict[str, Any], value: str, told: str
    ) -> None:
        with pytest.raises(DeploymentError) as refusal:
            deployer.deploy(project.write(Parameters={"Size": declaration}), Size=value)
        assert str(refusal.value).endswith(told)

    @pytest.mark.parametrize(
        ("break_it", "message"),
        [
            (lambda text: text.replace('"Next": "Invoke Model"', '"Next": "Forget Model"'), "there is no state"),
            (lambda text: text.replace("${InvokeToolFunctionArn}", "${InvokeTollFunctionArn}"), "no substitution"),
            (lambda text: text[:-20], "agent_turn.asl.json:"),
            (lambda text: text.replace('"Type": "Wait"', '"Type": "Wiat"'), '"Wiat"'),
            (lambda text: text.replace('"MaxAttempts": 4', '"MaxAttempts": "four"'), '"four"'),
            (lambda text: text.replace('"ItemProcessor"', '"ItemProcesso"'), '"ItemProcesso"'),
        ],
        ids=["next", "substitution", "syntax", "type", "number", "field"],
    )
    def test_a_broken_definition(
        self, deployer: Deployer, tmp_path: Path, break_it: Callable[[str], str], message: str
    ) -> None:
        shutil.copy(ROOT / "template.yaml", tmp_path)
        for name in ("functions", "agents"):
            (tmp_path / name).symlink_to(ROOT / name, target_is_directory=True)
        shutil.copytree(ROOT / "statemachines", tmp_path / "statemachines")
        definition = tmp_path / "statemachines" / "agent_turn.asl.json"
        definition.write_text(break_it(definition.read_text()))
        with pytest.raises(DeploymentError, match=r"agent_turn\.asl\.json:\d+") as refusal:
            deployer.deploy(tmp_path / "template.yaml")
        assert message in str(refusal.value)


def test_every_resource_type_is_in_one_table_only() -> None:
    assert not CARRIED_BY_MOTO & HANDLED_HERE.keys()
