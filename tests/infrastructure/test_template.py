import ast
import gzip
import importlib.metadata
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import botocore
import pytest

from local.deployment.definitions import Definition, used_substitutions
from local.deployment.intrinsics import Resolver
from local.deployment.sam_yaml import LOCAL_BUCKET, Template, TemplateError, load_template, transform
from local.lambda_workers.packages import requirements_of
from tests.paths import ROOT
from turnwright.api.agentcore.operations import operations
from turnwright.costs import prices
from turnwright.costs.receipts import receipt
from turnwright.costs.spending import Spent
from turnwright.memory.erasure.erase_memory import LATE_WRITE_SECONDS
from turnwright.models.asking import MODEL_SECONDS

STATE_MACHINE = "AgentTurnStateMachine"
CONSOLIDATION = "ConsolidateMemoryStateMachine"
ERASURE = "EraseMemoryStateMachine"
STATE_MACHINES = {
    STATE_MACHINE: "StateMachineLogGroup",
    CONSOLIDATION: "ConsolidationLogGroup",
    ERASURE: "ErasureLogGroup",
}
INVOKE_AGENT_PATH = "/agents/{agentId}/agentAliases/{agentAliasId}/sessions/{sessionId}/text"


@cache
def template() -> Template:
    return load_template(ROOT / "template.yaml")


@cache
def resources(**parameters: str) -> dict[str, Any]:
    """What `sam deploy` would give CloudFormation, with its conditions decided by the parameters."""
    document = transform(template(), parameters)
    values: dict[str, Any] = {}
    for name, parameter in template()["Parameters"].items():
        value = parameters.get(name, parameter["Default"])
        values[name] = value.split(",") if parameter["Type"] == "CommaDelimitedList" else value
    resolver = Resolver(values, document["Conditions"])
    return {
        name: resolver.resolve(resource)
        for name, resource in document["Resources"].items()
        if "Condition" not in resource or resolver.holds(resource["Condition"])
    }


def of_type(kind: str, **parameters: str) -> dict[str, Any]:
    """The properties of all resources of a type, by logical id."""
    return {
        name: resource["Properties"] for name, resource in resources(**parameters).items() if resource["Type"] == kind
    }


def functions(**parameters: str) -> dict[str, Any]:
    return of_type("AWS::Lambda::Function", **parameters)


def invoke_agent_operation(**parameters: str) -> dict[str, Any]:
    """The operation InvokeAgent in the API's definition."""
    paths: dict[str, Any] = resources(**parameters)["Api"]["Properties"]["Body"]["paths"]
    operation: dict[str, Any] = paths[INVOKE_AGENT_PATH]["post"]
    return operation


# ---- Handlers ----


def attributes_of(module: Path) -> set[str]:
    """The names that a module defines or imports at its top level, found without running it."""
    names: set[str] = set()
    for node in ast.parse(module.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Assign):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return names


@pytest.mark.parametrize("stream", ["true", "false"])
def test_every_handler_is_a_function_in_a_file_of_its_folder(stream: str) -> None:
    for name, function in functions(StreamResponses=stream).items():
        assert function["Code"]["S3Bucket"] == LOCAL_BUCKET
        module, _, attribute = function["Handler"].partition(".")
        file = ROOT / function["Code"]["S3Key"] / f"{module}.py"
        assert file.is_file(), f"{name}: {file} is missing"
        assert attribute in attributes_of(file), f"{name}: {file} has no {attribute}"


def test_a_runtime_function_is_named_after_its_handler() -> None:
    for name, function in functions(StreamResponses="false").items():
        words = function["Handler"].partition(".")[0].split("_")
        assert name == "".join(word.capitalize() for word in words) + "Function"


def test_a_runtime_function_has_the_layer_of_its_dependencies_and_a_tool_brings_its_own() -> None:
    (layer,) = [name for name in of_type("AWS::Lambda::LayerVersion") if name.startswith("DependenciesLayer")]
    layered = {name for name, function in functions().items() if {"Ref": layer} in function.get("Layers", ())}
    assert layered == functions().keys() - {"BankingToolsFunction"}


def test_every_setting_that_a_module_reads_is_given_to_some_function() -> None:
    settings = (ROOT / "functions/runtime/turnwright/storage/settings.py").read_text()
    wanted = set(re.findall(r'_required\("([A-Z_]+)"\)', settings))
    variables = {name for function in functions().values() for name in function["Environment"]["Variables"]}
    assert wanted
    assert wanted <= variables


def test_a_function_outlives_the_longest_call_that_an_agent_file_may_ask_of_it() -> None:
    schema = json.loads((ROOT / "agents/agent.schema.json").read_text())
    longest = {"modelTimeoutSeconds": 0, "timeoutSeconds": 0}

    def visit(node: Any) -> None:
        if isinstance(node, dict):
            for key in longest.keys() & node.keys():
                if isinstance(node[key], dict):
                    longest[key] = max(longest[key], node[key].get("maximum", 0))
            for item in node.values():
                visit(item)
        elif isinstance(node, list):
            for item in node:
                visit(item)

    visit(schema)
    definition = (ROOT / "statemachines/agent_turn.asl.json").read_text()
    (margin,) = re.findall(r"\$limits.modelTimeoutSeconds \+ (\d+)", definition)
    assert longest["modelTimeoutSeconds"] + int(margin) == functions()["InvokeModelFunction"]["Timeout"]
    assert 0 < longest["timeoutSeconds"] < functions()["InvokeToolFunction"]["Timeout"]


# ---- The state machines ----


def definition(machine: str) -> Definition:
    location = resources()[machine]["Properties"]["DefinitionS3Location"]
    return Definition.read(ROOT / location["Key"])


def test_the_machines_are_the_turn_the_consolidation_and_the_erasure() -> None:
    assert of_type("AWS::StepFunctions::StateMachine").keys() == STATE_MACHINES.keys()
    files = {path.name for path in (ROOT / "statemachines").iterdir()}
    assert files == {Path(definition(machine).file).name for machine in STATE_MACHINES}


@pytest.mark.parametrize("machine", STATE_MACHINES)
def test_every_substitution_is_used_and_every_placeholder_is_substituted(machine: str) -> None:
    substitutions = resources()[machine]["Properties"]["DefinitionSubstitutions"]
    assert used_substitutions(definition(machine)) == substitutions.keys()
    assert substitutions.pop("Partition") == {"Ref": "AWS::Partition"}
    assert substitutions == {f"{name[: -len('Arn')]}Arn": get_att(name[: -len("Arn")]) for name in substitutions}


@pytest.mark.parametrize("machine", STATE_MACHINES)
def test_a_state_machine_may_invoke_exactly_the_functions_in_its_definition(machine: str) -> None:
    substitutions = resources()[machine]["Properties"]["DefinitionSubstitutions"]
    functions_called = [value for name, value in substitutions.items() if name != "Partition"]
    allowed = [
        as_list(statement["Resource"])
        for statement in statements(f"{machine}Role")
        if statement["Action"] == "lambda:InvokeFunction"
    ]
    assert sorted(map(spell, allowed[0])) == sorted(map(spell, functions_called))
    assert len(allowed) == 1


@pytest.mark.parametrize(
    ("parameters", "with_data"),
    [
        ({}, False),
        ({"LogExecutionData": "true"}, True),
        ({"LogExecutionData": "true", "TracePayloads": "REDACTED"}, False),
        ({"LogExecutionData": "true", "TracePayloads": "METADATA"}, False),
    ],
)
@pytest.mark.parametrize("name", STATE_MACHINES)
def test_a_state_machine_is_standard_traced_and_logs_every_event_but_texts_only_if_asked(
    name: str, parameters: dict[str, str], with_data: bool
) -> None:
    machine = resources(**parameters)[name]["Properties"]
    assert machine["StateMachineType"] == "STANDARD"
    assert machine["TracingConfiguration"] == {"Enabled": True}
    assert machine["LoggingConfiguration"] == {
        "Level": "ALL",
        "IncludeExecutionData": with_data,
        "Destinations": [{"CloudWatchLogsLogGroup": {"LogGroupArn": get_att(STATE_MACHINES[name])}}],
    }


def test_an_erasure_waits_longer_than_any_function_of_a_stopped_turn_runs_on() -> None:
    substitutions = resources()[STATE_MACHINE]["Properties"]["DefinitionSubstitutions"]
    timeouts = [functions()[name.removesuffix("Arn")]["Timeout"] for name in substitutions if name != "Partition"]
    assert max(timeouts) < LATE_WRITE_SECONDS


# ---- Tracing and logs ----


@pytest.mark.parametrize("name", functions())
def test_a_function_runs_on_arm_is_traced_and_logs_json_to_a_group_with_retention(name: str) -> None:
    function = functions()[name]
    assert function["Runtime"] == "python3.13"
    assert function["Architectures"] == ["arm64"]
    assert function["TracingConfig"] == {"Mode": "Active"}
    assert function["LoggingConfig"]["LogFormat"] == "JSON"
    assert function["LoggingConfig"]["LogGroup"] == {"Ref": "RuntimeLogGroup"}
    assert "RuntimeLogGroup" in of_type("AWS::Logs::LogGroup")


def test_every_log_group_has_the_retention_that_the_parameter_says() -> None:
    groups = of_type("AWS::Logs::LogGroup", LogRetentionDays="7")
    assert groups.keys() == {"RuntimeLogGroup", *STATE_MACHINES.values(), "ApiLogGroup"}
    assert {name: str(group["RetentionInDays"]) for name, group in groups.items()} == dict.fromkeys(groups, "7")


def test_every_function_is_told_what_it_may_write_and_a_change_of_that_is_checked_by_the_deployment() -> None:
    changed = {"TracePayloads": "REDACTED", "TraceRedactFields": "pin", "TraceRedactPatterns": r"\d{4,9}"}
    for function in functions(**changed).values():
        variables = function["Environment"]["Variables"]
        assert variables["TRACE_PAYLOADS"] == "REDACTED"
        assert variables["TRACE_REDACT_FIELDS"] == "pin"
        assert variables["TRACE_REDACT_PATTERNS"] == r"\d{4,9}"
    published = [resources(**given)["PublishedAgents"]["Properties"]["TracePayloads"] for given in ({}, changed)]
    assert published[0] != published[1]


def test_a_question_is_saved_for_each_thing_that_one_asks_of_the_log() -> None:
    queries = of_type("AWS::Logs::QueryDefinition")
    receipts = queries["ReceiptsByAgentQuery"]
    assert sorted(query["Name"]["Fn::Sub"].partition("/")[2] for query in queries.values()) == [
        "Audit trail of a turn",
        "Chain of a session",
        "Failures by code",
        "Memory refusals",
        "Receipts by agent",
        "Retries",
        "Slowest tools",
        "Tokens and cost by agent",
    ]
    schema = json.loads((ROOT / "schemas/trace_event.schema.json").read_text())
    fields = {name for kind in schema["properties"]["type"]["enum"] for name in schema["$defs"][kind]["properties"]}
    words = r"\b(fields|filter|stats|sort|limit|and|or|in|as|by|asc|desc|count|sum|max|pct|coalesce|ispresent)\b"
    for query in queries.values():
        assert query["LogGroupNames"] == [{"Ref": "RuntimeLogGroup"}]
        if query is receipts:  # of another line than events have
            continue
        text = re.sub(r'"[^"]*"', "", query["QueryString"])
        aliases = set(re.findall(r"\bas (\w+)", text))
        used = set(re.findall(r"(?<!@)\b[A-Za-z]\w*", re.sub(words, "", text)))
        assert used - aliases <= fields, f"{query['Name']} asks for fields that no event has"


def test_the_query_of_receipts_asks_for_what_they_have() -> None:
    query = of_type("AWS::Logs::QueryDefinition")["ReceiptsByAgentQuery"]["QueryString"]
    made = {"agentId": "A", "agentVersion": "1", **receipt(Spent(), [], 4, prices.current())}
    for path in re.findall(r"receipt\.([A-Za-z.]+)", query):
        value: Any = made
        for name in path.split("."):
            assert name in value, f"a receipt has no {path}"
            value = value[name]


def metrics_of(alarm: dict[str, Any]) -> list[dict[str, Any]]:
    """The metrics that an alarm watches, as `{"Namespace", "MetricName", "Dimensions"}`."""
    if "Metrics" in alarm:
        return [entry["MetricStat"]["Metric"] for entry in alarm["Metrics"] if "MetricStat" in entry]
    return [alarm]


def test_each_alarm_watches_this_stack_and_says_what_to_do() -> None:
    alarms = of_type("AWS::CloudWatch::Alarm")
    operations = (ROOT / "docs/operations.md").read_text()
    assert alarms.keys() == {
        "FailedTurnsAlarm",
        "DeadLettersAlarm",
        "ToolDeadLettersAlarm",
        "ThrottlesAlarm",
        "ModelThrottlesAlarm",
        "ModelAccessAlarm",
        "ModelRejectionsAlarm",
        "SlowTurnsAlarm",
        "OpenCircuitsAlarm",
        "SweepExecutionsAlarm",
    }
    for name, alarm in alarms.items():
        section = alarm["AlarmDescription"].rpartition("docs/operations.md#")[2]
        assert f"## {section.replace('-', ' ')}" in operations.lower(), f"{name}: operations.md has no {section}"
        assert alarm["TreatMissingData"] == "notBreaching"
        assert alarm["AlarmActions"] == []
        for metric in metrics_of(alarm):
            values = [dimension["Value"] for dimension in metric["Dimensions"]]
            assert values[0] == {"Ref": "AWS::StackName"} or {"Ref", "Fn::GetAtt"} & values[0].keys()
    told = of_type("AWS::CloudWatch::Alarm", AlarmTopicArn="arn:aws:sns:us-east-1:123456789012:alarms")
    assert all(len(alarm["AlarmActions"]) == len(alarm["OKActions"]) == 1 for alarm in told.values())


def test_every_function_of_a_turn_is_watched_for_throttles() -> None:
    watched = metrics_of(of_type("AWS::CloudWatch::Alarm")["ThrottlesAlarm"])
    assert [metric["Dimensions"][0]["Value"]["Ref"] for metric in watched] == [
        "InvokeAgentFunction",
        "AsyncTurnsFunction",
        "LoadMemoryFunction",
        "InvokeModelFunction",
        "InvokeToolFunction",
        "WriteMemoryFunction",
        "RecordFailureFunction",
    ]


def test_the_dashboard_is_json_and_shows_metrics_that_the_functions_publish() -> None:
    body, values = of_type("AWS::CloudWatch::Dashboard")["Dashboard"]["DashboardBody"]["Fn::Sub"]
    filled = re.sub(r"\$\{(AWS::)?(\w+)\}", r"\2", body)
    dashboard = json.loads(filled)
    assert set(re.findall(r"\$\{(\w+)\}", body)) == values.keys()
    names = set(re.findall(r'"Turnwright", "(\w+)"', filled)) | set(re.findall(r'MetricName=\\"(\w+)', filled))
    source = (ROOT / "functions/runtime/turnwright/tracing/metrics.py").read_text()
    assert names, "no metric of the runtime"
    assert [name for name in sorted(names) if f'"{name}"' not in source] == []
    places = [(widget["x"], widget["y"]) for widget in dashboard["widgets"]]
    assert len(set(places)) == len(places)


def test_the_api_is_traced_and_logs_each_request_as_one_json_line() -> None:
    (stage,) = of_type("AWS::ApiGateway::Stage").values()
    assert stage["StageName"] == "v1"
    assert stage["TracingEnabled"] is True
    assert stage["AccessLogSetting"]["DestinationArn"] == get_att("ApiLogGroup")
    assert json.loads(stage["AccessLogSetting"]["Format"])["requestId"] == "$context.requestId"


def test_the_access_log_has_no_field_that_holds_an_id_of_a_session_or_an_actor() -> None:
    """A path has them, and so has the message of a refused request: it quotes the path, or the resource's ARN."""
    (stage,) = of_type("AWS::ApiGateway::Stage").values()
    logged = json.loads(stage["AccessLogSetting"]["Format"])
    assert logged["route"] == "$context.resourcePath"
    assert logged["error"] == "$context.error.responseType"
    quoting = ("$context.path", "$context.error.message", "$context.error.messageString", "$context.authorize.error")
    assert not {*quoting, "$context.requestOverride.path"} & set(logged.values())


# ---- Policies ----


def statements(role: str, **parameters: str) -> Iterator[dict[str, Any]]:
    for policy in resources(**parameters)[role]["Properties"].get("Policies", ()):
        yield from policy["PolicyDocument"]["Statement"]


def spell(resource: Any) -> str:
    """`Table`, `Bucket/turns/*`, `AgentTurnStateMachine`, or the text of an ARN pattern."""
    match resource:
        case {"Fn::GetAtt": [name, "Arn"]} | {"Ref": name}:
            return str(name)
        case {"Fn::Sub": str(text)} | str(text):
            return re.sub(r"\$\{(\w+)\.Arn\}", r"\1", text.replace("${AWS::Partition}", "aws"))
    raise AssertionError(f"not a form that a policy should name a resource in: {resource}")


def granted(role: str, **parameters: str) -> set[tuple[str, str]]:
    """What the role may do: pairs of an action and a resource."""
    pairs: set[tuple[str, str]] = set()
    for statement in statements(role, **parameters):
        assert statement["Effect"] == "Allow"
        actions, named = statement["Action"], statement["Resource"]
        for action in [actions] if isinstance(actions, str) else actions:
            for resource in named if isinstance(named, list) else [named]:
                pairs.add((action, spell(resource)))
    return pairs


def on(resource: str, *actions: str) -> set[tuple[str, str]]:
    return {(action, resource) for action in actions}


EXECUTIONS = "arn:aws:states:${AWS::Region}:${AWS::AccountId}:execution:${AgentTurnStateMachine.Name}:*"
READ, WRITE = ("dynamodb:GetItem", "dynamodb:Query"), ("dynamodb:PutItem", "dynamodb:UpdateItem")
CHECK = "dynamodb:ConditionCheckItem"
GET, PUT = "s3:GetObject", "s3:PutObject"
CONSOLIDATIONS = EXECUTIONS.replace(STATE_MACHINE, CONSOLIDATION)
ERASURES = EXECUTIONS.replace(STATE_MACHINE, ERASURE)
JOURNAL = {*on("Table", *READ, "dynamodb:PutItem", CHECK), *on("Bucket/sessions/*/~memory/*", PUT, "s3:DeleteObject")}
OWN_MODELS = (
    "inference-profile",
    "application-inference-profile",
    "provisioned-model",
    "custom-model-deployment",
    "imported-model",
)
EMBEDDING = {
    *on("arn:aws:bedrock:*::foundation-model/*", "bedrock:InvokeModel"),
    *(("bedrock:InvokeModel", f"arn:aws:bedrock:${{AWS::Region}}:${{AWS::AccountId}}:{kind}/*") for kind in OWN_MODELS),
}
MODELS = EMBEDDING | {("bedrock:InvokeModelWithResponseStream", resource) for _, resource in EMBEDDING}
STORED = {
    *on("Table", *READ, *WRITE, "dynamodb:BatchGetItem", "dynamodb:DeleteItem"),
    *on("Table/index/Owned", "dynamodb:Query"),
}
DELETE = "s3:DeleteObject"
GRANTED = {
    "AgentMemoryFunction": {
        *on("Table", *READ, "dynamodb:UpdateItem", "dynamodb:DeleteItem", "dynamodb:BatchWriteItem"),
        *on("Bucket", "s3:ListBucket"),
        *on("Bucket/sessions/*", "s3:DeleteObject"),
        *on("Bucket/lasting/*", "s3:DeleteObject"),
        *on("EraseMemoryStateMachine", "states:StartExecution"),
    },
    "EraseMemoryFunction": {
        *on("Table", *READ, *WRITE, "dynamodb:DeleteItem", "dynamodb:ConditionCheckItem"),
        *on("Table", "dynamodb:BatchGetItem", "dynamodb:BatchWriteItem"),
        *on("Table/index/Owned", "dynamodb:Query"),
        *on("Bucket", "s3:ListBucket"),
        *on("Bucket/sessions/*", "s3:DeleteObject"),
        *on("Bucket/lasting/*", "s3:DeleteObject"),
        *on("Bucket/turns/*", "s3:DeleteObject"),
        *on(EXECUTIONS, "states:StopExecution"),
    },
    "InvokeAgentFunction": {
        *on("Table", *READ, *WRITE, "dynamodb:BatchGetItem", CHECK),
        *on("Bucket/turns/*", GET, PUT),
        *on("AgentTurnStateMachine", "states:StartExecution"),
        *on("ConsolidateMemoryStateMachine", "states:StartExecution"),
        *on(EXECUTIONS, "states:DescribeExecution"),
    },
    "AsyncTurnsFunction": {
        *on("Table", *READ, "dynamodb:BatchGetItem"),
        *on("Bucket/turns/*", GET, PUT),
        *on("AgentTurnStateMachine", "states:StartExecution"),
        *on(EXECUTIONS, "states:DescribeExecution"),
    },
    "LoadMemoryFunction": {
        *on("Table", *READ, *WRITE, "dynamodb:DeleteItem", CHECK),
        *on("Bucket/turns/*", GET, PUT),
        *EMBEDDING,
    },
    "InvokeModelFunction": {
        *on("Table", *READ, *WRITE),
        *on("Bucket/turns/*", GET, PUT),
        *on("Bucket/sessions/*", GET),
        *on("Bucket/lasting/*", GET),
        *MODELS,
    },
    "InvokeToolFunction": {
        *on("Table", *READ, *WRITE, "dynamodb:BatchGetItem", "dynamodb:DeleteItem", CHECK),
        *EMBEDDING,
        *on("Bucket/turns/*", GET, PUT),
        *on("ToolDeadLetterQueue", "sqs:SendMessage"),
        *on("BankingToolsFunction", "lambda:InvokeFunction"),
    },
    "WriteMemoryFunction": {
        *on("Table", *READ, *WRITE),
        *on("Bucket/turns/*", GET, PUT),
        *on("Bucket/sessions/*", PUT),
        *on("ConsolidateMemoryStateMachine", "states:StartExecution"),
    },
    "RecordFailureFunction": {
        *on("Table", *READ, *WRITE),
        *on("Bucket/turns/*", GET, PUT),
        *on("DeadLetterQueue", "sqs:SendMessage"),
        *on(EXECUTIONS, "states:DescribeExecution", "states:GetExecutionHistory"),
    },
    "LoadSessionFunction": on("Table", *READ),
    "ExtractRecordsFunction": {*JOURNAL, *on("Bucket/sessions/*", GET), *on("Bucket/lasting/*", GET), *MODELS},
    "MergeRecordsFunction": {
        *JOURNAL,
        *on("Table", "dynamodb:BatchGetItem"),
        *on("Bucket/sessions/*", GET),
        *on("Bucket/lasting/*", GET),
        *MODELS,
        *on("DeadLetterQueue", "sqs:SendMessage"),
    },
    "SummarizeSessionFunction": {
        *JOURNAL,
        *on("Table", "dynamodb:BatchGetItem"),
        *on("Bucket/sessions/*", GET),
        *on("Bucket/lasting/*", GET),
        *MODELS,
        *on("DeadLetterQueue", "sqs:SendMessage"),
    },
    "WriteRecordsFunction": {
        *on("Table", *READ, *WRITE, "dynamodb:DeleteItem", CHECK),
        *on("Bucket/sessions/*/~memory/*", GET),
    },
    "SweepSessionsFunction": {
        *on("Table", "dynamodb:GetItem", *WRITE, CHECK),
        *on("Table/index/Due", "dynamodb:Query"),
        *on("ConsolidateMemoryStateMachine", "states:StartExecution"),
    },
    "SweepExecutionsFunction": {
        *on("Table", "dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:UpdateItem"),
        *on("AgentTurnStateMachine", "states:ListExecutions"),
        *on("ConsolidateMemoryStateMachine", "states:ListExecutions"),
        *on("EraseMemoryStateMachine", "states:ListExecutions"),
        *on("RecordFailureFunction", "lambda:InvokeFunction"),
        *on("RecordConsolidationFailureFunction", "lambda:InvokeFunction"),
        *on("RecordErasureFailureFunction", "lambda:InvokeFunction"),
    },
    "UnsupportedOperationsFunction": set(),
    "RecordConsolidationFailureFunction": {
        *on("Table", "dynamodb:GetItem", "dynamodb:UpdateItem"),
        *on("DeadLetterQueue", "sqs:SendMessage"),
        *on(CONSOLIDATIONS, "states:DescribeExecution", "states:GetExecutionHistory"),
    },
    "RecordErasureFailureFunction": {
        *on("Table", "dynamodb:GetItem", "dynamodb:UpdateItem"),
        *on("DeadLetterQueue", "sqs:SendMessage"),
        *on(ERASURES, "states:DescribeExecution", "states:GetExecutionHistory"),
    },
    "PublishAgentsFunction": {
        *on("Table", *READ, *WRITE, "dynamodb:DeleteItem"),
        *on("Bucket/schemas/*", GET),
    },
    "MemoryEventsFunction": {
        *STORED,
        *on("Table", CHECK),
        *on("Bucket/sessions/*", GET, PUT, DELETE),
        *on("Bucket/lasting/*", GET, PUT, DELETE),
    },
    "MemoryRecordsFunction": {*STORED, *on("Table", CHECK), *EMBEDDING},
    "MemoryControlFunction": {
        *on("Table", *READ, *WRITE, "dynamodb:BatchGetItem"),
        *on("EraseMemoryStateMachine", "states:StartExecution"),
    },
    "BankingToolsFunction": set(),
}


def test_each_function_may_do_what_it_does_and_nothing_else() -> None:
    assert {name: granted(f"{name}Role") for name in functions()} == GRANTED


def test_tools_outside_the_stack_may_be_invoked_when_the_deployer_names_them() -> None:
    named = "arn:aws:lambda:us-east-1:123456789012:function:a,arn:aws:lambda:us-east-1:123456789012:function:b"
    more = granted("InvokeToolFunctionRole", ToolFunctionArns=named) - GRANTED["InvokeToolFunction"]
    assert more == {("lambda:InvokeFunction", arn) for arn in named.split(",")}


def test_a_star_for_a_resource_is_only_where_the_service_has_nothing_narrower() -> None:
    roles = of_type("AWS::IAM::Role")
    stars = {
        (role, statement["Sid"])
        for role in roles
        for statement in statements(role)
        if any(spell(named).strip("*") == "" for named in as_list(statement["Resource"]))
    }
    assert stars == {(f"{machine}Role", "DeliverLogs") for machine in STATE_MACHINES}
    actions = {action for role in roles for action, _ in granted(role)}
    assert not {action for action in actions if "*" in action}


def test_roles_use_no_managed_policies_but_those_for_logs_and_traces() -> None:
    attached = {
        spell(policy).rpartition("/")[2]
        for role in of_type("AWS::IAM::Role").values()
        for policy in role.get("ManagedPolicyArns", ())
    }
    assert attached == {
        "AWSLambdaBasicExecutionRole",
        "AWSXrayWriteOnlyAccess",
        "AmazonAPIGatewayPushToCloudWatchLogs",
    }


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def get_att(name: str) -> dict[str, Any]:
    return {"Fn::GetAtt": [name, "Arn"]}


# ---- The key ----

KEY = "arn:aws:kms:us-east-1:123456789012:key/a"
KEPT_ENCRYPTED: dict[str, Callable[[dict[str, Any]], object]] = {
    "AWS::DynamoDB::Table": lambda table: table["SSESpecification"],
    "AWS::S3::Bucket": lambda bucket: bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"],
    "AWS::SQS::Queue": lambda queue: (queue.get("KmsMasterKeyId"), queue.get("SqsManagedSseEnabled")),
    "AWS::Logs::LogGroup": lambda group: group.get("KmsKeyId"),
    "AWS::StepFunctions::StateMachine": lambda machine: machine.get("EncryptionConfiguration"),
}
KEEPS_NO_DATA = {
    "AWS::ApiGateway::Account",
    "AWS::ApiGateway::Deployment",
    "AWS::ApiGateway::RestApi",
    "AWS::ApiGateway::Stage",
    "AWS::CloudWatch::Alarm",
    "AWS::CloudWatch::Dashboard",
    "AWS::Events::Rule",
    "AWS::IAM::Role",
    "AWS::Lambda::EventInvokeConfig",
    "AWS::Lambda::Function",
    "AWS::Lambda::LayerVersion",
    "AWS::Lambda::Permission",
    "AWS::Logs::QueryDefinition",
    "AWS::S3::BucketPolicy",
    "AWS::SQS::QueuePolicy",
    "Custom::PublishedAgents",
}
TABLE_READS = {"dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:Query", CHECK}
TABLE_KEY = {"kms:Encrypt", "kms:GenerateDataKey", "kms:ReEncryptFrom", "kms:ReEncryptTo"}
DECRYPT, DATA_KEY = "kms:Decrypt", "kms:GenerateDataKey"
STATE_MACHINE_ARNS = "arn:${AWS::Partition}:states:${AWS::Region}:${AWS::AccountId}:stateMachine:*"
OF_EXECUTIONS = json.dumps(
    {"ArnLike": {"kms:EncryptionContext:aws:states:stateMachineArn": {"Fn::Sub": STATE_MACHINE_ARNS}}}
)
OF_LOG_DELIVERY = json.dumps(
    {
        "StringEquals": {
            "kms:EncryptionContext:SourceArn": {
                "Fn::Sub": "arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:*"
            }
        }
    }
)


def through(service: str) -> str:
    """The condition under which a role may use the key by way of a service alone."""
    text = f"{service}.${{AWS::Region}}.${{AWS::URLSuffix}}"
    return json.dumps({"StringEquals": {"kms:ViaService": {"Fn::Sub": text}}})


def key_uses(role: str) -> dict[str, set[str]]:
    """What a role may do with the key, by the condition under which it may."""
    uses: dict[str, set[str]] = {}
    for statement in statements(role, KmsKeyArn=KEY):
        actions = set(as_list(statement["Action"]))
        if any(action.startswith("kms:") for action in actions):
            assert (statement["Effect"], statement["Resource"]) == ("Allow", KEY)
            condition = json.dumps(statement["Condition"])
            assert condition not in uses, f"{role} has two statements of {condition}"
            uses[condition] = actions
    return uses


def needed_of_the_key(actions: set[str]) -> dict[str, set[str]]:
    """What actions on encrypted resources need of their key: docs/encryption.md."""

    def of(service: str) -> set[str]:
        return {action for action in actions if action.startswith(f"{service}:")}

    needed: dict[str, set[str]] = {}
    if of("dynamodb"):
        needed[through("dynamodb")] = {DECRYPT, "kms:DescribeKey"} | (
            TABLE_KEY if of("dynamodb") - TABLE_READS else set()
        )
    if of("s3") & {GET, PUT}:
        needed[through("s3")] = {DECRYPT} | ({DATA_KEY} if PUT in actions else set())
    if of("sqs"):
        needed[through("sqs")] = {DECRYPT, DATA_KEY}
    if of("states") - {"states:ListExecutions"}:  # whose answer has nothing of what an execution was given
        needed[OF_EXECUTIONS] = {DECRYPT, DATA_KEY}
    return needed


def test_all_that_keeps_data_is_encrypted_with_the_deployers_key_if_there_is_one() -> None:
    assert {resource["Type"] for resource in resources().values()} == KEPT_ENCRYPTED.keys() | KEEPS_NO_DATA
    expected: dict[str, tuple[object, object]] = {
        "AWS::DynamoDB::Table": (
            {"SSEEnabled": True},
            {"SSEEnabled": True, "SSEType": "KMS", "KMSMasterKeyId": KEY},
        ),
        "AWS::S3::Bucket": (
            [{"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}],
            [
                {
                    "ServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": KEY},
                    "BucketKeyEnabled": True,
                }
            ],
        ),
        "AWS::SQS::Queue": ((None, True), (KEY, None)),
        "AWS::Logs::LogGroup": (None, KEY),
        "AWS::StepFunctions::StateMachine": (None, {"Type": "CUSTOMER_MANAGED_KMS_KEY", "KmsKeyId": KEY}),
    }
    for kind, read in KEPT_ENCRYPTED.items():
        without, with_key = expected[kind]
        assert [read(each) for each in of_type(kind).values()] == [without] * len(of_type(kind))
        assert [read(each) for each in of_type(kind, KmsKeyArn=KEY).values()] == [with_key] * len(of_type(kind))


def test_without_a_key_nothing_speaks_of_one() -> None:
    assert "kms" not in json.dumps(resources()).lower()


@pytest.mark.parametrize("name", functions())
def test_a_function_may_use_the_key_as_far_as_what_it_calls_is_encrypted_with_it(name: str) -> None:
    actions = {action for action, _ in granted(f"{name}Role")}
    assert key_uses(f"{name}Role") == needed_of_the_key(actions)


@pytest.mark.parametrize("machine", STATE_MACHINES)
def test_a_state_machine_may_use_the_key_for_its_executions_and_for_what_it_logs(machine: str) -> None:
    assert key_uses(f"{machine}Role") == {OF_EXECUTIONS: {DECRYPT, DATA_KEY}, OF_LOG_DELIVERY: {DATA_KEY}}


def test_the_key_policy_of_the_docs_is_one_and_lets_in_who_has_no_role_of_the_stack() -> None:
    text = (ROOT / "docs/encryption.md").read_text()
    policy = json.loads(text.partition("```json\n")[2].partition("```")[0])
    principals = [statement["Principal"] for statement in policy["Statement"]]
    assert principals == [
        {"AWS": "arn:aws:iam::ACCOUNT:root"},
        {"Service": "logs.REGION.amazonaws.com"},
        {"Service": "delivery.logs.amazonaws.com"},
        {"Service": "events.amazonaws.com"},
    ]
    assert all(statement["Resource"] == "*" for statement in policy["Statement"]), "in a key's policy: this key"


def test_the_key_and_tools_of_others_are_named_by_whole_arns() -> None:
    parameters = template()["Parameters"]
    function = "arn:aws:lambda:us-east-1:123456789012:function:claims"
    accepted = {
        "KmsKeyArn": ["", KEY, "arn:aws-us-gov:kms:us-gov-west-1:123456789012:key/mrk-0a1b"],
        "ToolFunctionArns": ["", function, f"{function}:7", f"{function}:live", f"{function}:$LATEST"],
    }
    refused = {
        "KmsKeyArn": ["*", "a", KEY.replace("key/a", "alias/a"), KEY.replace("key/a", "key/*")],
        "ToolFunctionArns": [
            "*",
            "claims",
            function.replace("claims", "*"),
            f"{function}-*",
            f"{function}:*",
            function.replace("us-east-1", "*"),
            function.replace("123456789012", "*"),
            function.replace("claims", "cla?ms"),
        ],
    }
    for name, values in accepted.items():
        assert [value for value in values if not re.fullmatch(parameters[name]["AllowedPattern"], value)] == []
    for name, values in refused.items():
        assert [value for value in values if re.fullmatch(parameters[name]["AllowedPattern"], value)] == []


# ---- How much at once ----


def test_each_method_is_throttled_and_those_that_start_turns_have_limits_of_their_own() -> None:
    (stage,) = of_type("AWS::ApiGateway::Stage", RequestsPerSecond="7", TurnsPerSecond="3").values()
    limits = {
        (setting["HttpMethod"], setting["ResourcePath"].replace("~1", "/").replace("//", "/")): (
            setting["ThrottlingRateLimit"],
            setting["ThrottlingBurstLimit"],
        )
        for setting in stage["MethodSettings"]
    }
    assert limits == {
        ("*", "/*"): ("7", "7"),
        ("POST", INVOKE_AGENT_PATH): ("3", "3"),
        ("POST", "/turns"): ("3", "3"),
    }
    starting = {name for name in functions() if ("states:StartExecution", STATE_MACHINE) in granted(f"{name}Role")}
    assert starting == {"InvokeAgentFunction", "AsyncTurnsFunction"}, "whose routes these are"


def test_open_streams_are_bounded_if_the_deployer_says_so_and_no_function_is_blocked_otherwise() -> None:
    reserved = "ReservedConcurrentExecutions"
    assert not any(reserved in function for function in functions().values())
    bounded = {
        name: function[reserved] for name, function in functions(MaxOpenStreams="40").items() if reserved in function
    }
    assert bounded == {"InvokeAgentFunction": "40"}


# ---- The API ----


def botocore_model(service: str) -> dict[str, Any]:
    (path,) = Path(botocore.__file__).parent.glob(f"data/{service}/*/service-2.json*")
    raw = path.read_bytes()
    model: dict[str, Any] = json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
    return model


ROUTED = {
    "bedrock-agent-runtime": ["InvokeAgent", "GetAgentMemory", "DeleteAgentMemory"],
} | {
    service: [name for name, operation in operations().items() if operation.service == service]
    for service in ("bedrock-agentcore", "bedrock-agentcore-control")
}


def test_the_routes_are_those_that_botocore_calls_and_those_of_turns_without_a_stream() -> None:
    own = {
        ("StartTurn", "POST", "/turns"),
        ("ReadTurn", "GET", "/turns/{turnId}"),
        ("ReadTurnTrace", "GET", "/turns/{turnId}/trace"),
    }
    called = own | {
        (name, http["method"], http["requestUri"].rstrip("/"))
        for service, names in ROUTED.items()
        for name, http in ((name, botocore_model(service)["operations"][name]["http"]) for name in names)
    }
    routes = resources()["Api"]["Properties"]["Body"]["paths"]
    assert called == {
        (operation["operationId"], method.upper(), route)
        for route, methods in routes.items()
        for method, operation in methods.items()
        if method != "parameters" and route != "/{proxy+}"
    }


def test_every_route_has_the_same_authorizer_and_names_its_path_parameters() -> None:
    for parameters in ({}, {"AuthorizationType": "NONE"}):
        routes = resources(**parameters)["Api"]["Properties"]["Body"]["paths"]
        for route, methods in routes.items():
            for method in methods.keys() - {"parameters"}:
                operation = methods[method]
                assert operation["security"] == invoke_agent_operation(**parameters)["security"]
                declared = operation.get("parameters", methods.get("parameters", []))
                assert [entry["name"] for entry in declared] == re.findall(r"{(\w+)\+?}", route)


def test_what_has_no_route_goes_to_the_function_that_refuses_it() -> None:
    route = resources()["Api"]["Properties"]["Body"]["paths"]["/{proxy+}"]
    assert [*route] == ["x-amazon-apigateway-any-method"]
    uri = spell(route["x-amazon-apigateway-any-method"]["x-amazon-apigateway-integration"]["uri"])
    assert "UnsupportedOperationsFunction" in uri


def test_the_gateways_own_refusals_are_errors_of_the_services_form() -> None:
    responses = resources()["Api"]["Properties"]["Body"]["x-amazon-apigateway-gateway-responses"]
    assert {"DEFAULT_4XX", "DEFAULT_5XX"} < {*responses}
    for response in responses.values():
        template = response["responseTemplates"]["application/json"]
        body = json.loads(template.replace("$context.error.messageString", '"told"'))
        assert f"'{body['__type']}'" == response["responseParameters"]["gatewayresponse.header.x-amzn-ErrorType"]
        assert body["message"]


def test_a_streamed_answer_goes_through_the_runtime_loop_for_as_long_as_the_function_lives() -> None:
    function = functions(StreamResponses="true")["InvokeAgentFunction"]
    assert function["Handler"] == "invoke_agent.stream_handler"
    assert function["Environment"]["Variables"]["AWS_LAMBDA_EXEC_WRAPPER"] == "/var/task/stream_responses"
    assert invoke_agent_operation(StreamResponses="true")["x-amazon-apigateway-integration"] == {
        "type": "aws_proxy",
        "httpMethod": "POST",
        "uri": {
            "Fn::Sub": "arn:${AWS::Partition}:apigateway:${AWS::Region}:lambda:path/2021-11-15/functions/"
            "${InvokeAgentFunction.Arn}/response-streaming-invocations"
        },
        "responseTransferMode": "STREAM",
        "timeoutInMillis": function["Timeout"] * 1000,
    }


def test_a_buffered_answer_goes_through_lambdas_own_runtime_as_binary() -> None:
    function = functions(StreamResponses="false")["InvokeAgentFunction"]
    assert function["Handler"] == "invoke_agent.handler"
    assert "AWS_LAMBDA_EXEC_WRAPPER" not in function["Environment"]["Variables"]
    assert invoke_agent_operation(StreamResponses="false")["x-amazon-apigateway-integration"] == {
        "type": "aws_proxy",
        "httpMethod": "POST",
        "uri": {
            "Fn::Sub": "arn:${AWS::Partition}:apigateway:${AWS::Region}:lambda:path/2015-03-31/functions/"
            "${InvokeAgentFunction.Arn}/invocations"
        },
        "responseTransferMode": "BUFFERED",
        "timeoutInMillis": 29_000,
    }
    binary = "x-amazon-apigateway-binary-media-types"
    assert resources(StreamResponses="false")["Api"]["Properties"]["Body"][binary] == ["*/*"]
    assert resources(StreamResponses="true")["Api"]["Properties"]["Body"][binary] == []


def test_callers_sign_their_requests_unless_the_deployer_decides_otherwise() -> None:
    assert invoke_agent_operation()["security"] == [{"AWS_IAM": []}]
    assert invoke_agent_operation(AuthorizationType="NONE")["security"] == []
    schemes = resources()["Api"]["Properties"]["Body"]["components"]["securitySchemes"]
    assert schemes["AWS_IAM"]["x-amazon-apigateway-authtype"] == "awsSigv4"


def test_a_changed_parameter_reaches_the_stage() -> None:
    """SAM names a deployment after the API's text, in which a parameter's value does not stand."""
    assert template()["Resources"]["Api"]["Properties"]["AlwaysDeploy"] is True


def test_the_api_is_regional_and_its_stage_waits_for_the_role_that_logs() -> None:
    api = resources()["Api"]
    assert api["Properties"]["EndpointConfiguration"] == {"Types": ["REGIONAL"]}
    assert api["DependsOn"] == "ApiGatewayAccount"
    assert "ApiGatewayAccount" not in resources(CreateApiGatewayLogRole="false")


def test_the_wrapper_is_executable_and_starts_a_file_that_is_there() -> None:
    wrapper = ROOT / "functions/runtime/stream_responses"
    assert wrapper.stat().st_mode & 0o777 == 0o755
    started = re.search(r'exec "\$1" "\$LAMBDA_TASK_ROOT/(.+)"', wrapper.read_text())
    assert started
    assert (wrapper.parent / started[1]).is_file()


# ---- Failed turns and consolidations ----

RECORDED_BY = {
    STATE_MACHINE: "RecordFailure",
    CONSOLIDATION: "RecordConsolidationFailure",
    ERASURE: "RecordErasureFailure",
}


@pytest.mark.parametrize(("machine", "recorder"), RECORDED_BY.items())
def test_every_way_an_execution_can_fail_reaches_who_records_it(machine: str, recorder: str) -> None:
    rule = resources()[f"{recorder}FunctionExecutionFailed"]["Properties"]
    assert rule["EventPattern"] == {
        "source": ["aws.states"],
        "detail-type": ["Step Functions Execution Status Change"],
        "detail": {"stateMachineArn": [{"Ref": machine}], "status": ["FAILED", "TIMED_OUT", "ABORTED"]},
    }
    (target,) = rule["Targets"]
    assert target["Arn"] == get_att(f"{recorder}Function")
    assert target["DeadLetterConfig"] == {"Arn": get_att("DeadLetterQueue")}
    assert target["RetryPolicy"] == {"MaximumRetryAttempts": 10, "MaximumEventAgeInSeconds": 3600}
    assert resources()[f"{recorder}FunctionExecutionFailedPermission"]["Properties"] == {
        "Action": "lambda:InvokeFunction",
        "FunctionName": {"Ref": f"{recorder}Function"},
        "Principal": "events.amazonaws.com",
        "SourceArn": get_att(f"{recorder}FunctionExecutionFailed"),
    }


def test_a_failure_that_cannot_be_recorded_is_kept_too() -> None:
    for recorder in RECORDED_BY.values():
        asynchronous = resources()[f"{recorder}FunctionEventInvokeConfig"]["Properties"]
        assert asynchronous["DestinationConfig"] == {"OnFailure": {"Destination": get_att("DeadLetterQueue")}}
    (statement,) = resources()["DeadLetterQueuePolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert statement == {
        "Effect": "Allow",
        "Principal": {"Service": "events.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": get_att("DeadLetterQueue"),
        "Condition": {
            "ArnEquals": {
                "aws:SourceArn": [get_att(f"{recorder}FunctionExecutionFailed") for recorder in RECORDED_BY.values()]
            }
        },
    }


@pytest.mark.parametrize("function", ["SweepSessionsFunction", "SweepExecutionsFunction"])
def test_sessions_and_executions_are_swept_every_minute(function: str) -> None:
    rule = resources()[f"{function}EveryMinute"]["Properties"]
    assert rule["ScheduleExpression"] == "rate(1 minute)"
    (target,) = rule["Targets"]
    assert (target["Arn"], target["RetryPolicy"]) == (get_att(function), {"MaximumRetryAttempts": 0})
    assert resources()[f"{function}EveryMinutePermission"]["Properties"] == {
        "Action": "lambda:InvokeFunction",
        "FunctionName": {"Ref": function},
        "Principal": "events.amazonaws.com",
        "SourceArn": get_att(f"{function}EveryMinute"),
    }
    assert functions()[function]["Timeout"] < 60


def test_a_lost_event_goes_to_who_would_have_got_it() -> None:
    variables = functions()["SweepExecutionsFunction"]["Environment"]["Variables"]
    handed_to = {"": STATE_MACHINE, "CONSOLIDATE_": CONSOLIDATION, "ERASE_MEMORY_": ERASURE}
    for prefix, machine in handed_to.items():
        assert variables[f"{prefix}STATE_MACHINE_ARN"] == {"Ref": machine}
        recorder = f"{RECORDED_BY[machine]}Function"
        assert {"Ref": recorder} in variables.values()
        assert variables[f"{re.sub(r'(?<!^)(?=[A-Z])', '_', recorder).upper()}"] == {"Ref": recorder}


def test_a_function_that_asks_a_model_for_memory_outlives_two_calls_and_ends_before_its_state() -> None:
    timeouts = {
        name: state["TimeoutSeconds"]
        for _, _, state in definition(CONSOLIDATION).states()
        if state["Type"] == "Task"
        for name in re.findall(r"\$\{(\w+)Arn\}", state["Arguments"]["FunctionName"])
    }
    assert len(timeouts) == 5
    for name, seconds in timeouts.items():
        assert functions()[name]["Timeout"] <= seconds
    asking = {"ExtractRecordsFunction", "MergeRecordsFunction", "SummarizeSessionFunction"}
    assert all(functions()[name]["Timeout"] > 2 * MODEL_SECONDS for name in asking)


def test_the_dead_letter_queue_is_encrypted_and_keeps_a_turn_as_long_as_it_can_be_redriven() -> None:
    queue = resources()["DeadLetterQueue"]["Properties"]
    assert queue == {"MessageRetentionPeriod": 14 * 24 * 3600, "SqsManagedSseEnabled": True}


def test_tool_calls_that_were_given_up_have_an_encrypted_queue_of_their_own_which_the_gateway_is_told() -> None:
    queue = resources()["ToolDeadLetterQueue"]["Properties"]
    assert queue == {"MessageRetentionPeriod": 14 * 24 * 3600, "SqsManagedSseEnabled": True}
    told = {
        name: function["Environment"]["Variables"]["TOOL_DEAD_LETTER_QUEUE_URL"]
        for name, function in functions().items()
        if "TOOL_DEAD_LETTER_QUEUE_URL" in function["Environment"]["Variables"]
    }
    assert told == {"InvokeToolFunction": {"Ref": "ToolDeadLetterQueue"}}


# ---- Agents ----


def test_a_changed_agent_file_is_published_by_the_next_deployment() -> None:
    published = resources()["PublishedAgents"]["Properties"]
    (agents_layer,) = [name for name in of_type("AWS::Lambda::LayerVersion") if name.startswith("AgentsLayer")]
    assert published["AgentFiles"] == {"Ref": agents_layer}
    assert published["ServiceToken"] == get_att("PublishAgentsFunction")
    publisher = functions()["PublishAgentsFunction"]
    assert {"Ref": agents_layer} in publisher["Layers"]
    assert publisher["Environment"]["Variables"]["AGENT_FILES_DIRECTORY"] == "/opt"


def test_every_placeholder_in_an_agent_file_is_substituted_by_the_template() -> None:
    substitutions = resources()["PublishedAgents"]["Properties"]["Substitutions"]
    files = [path for path in (ROOT / "agents").glob("*.json") if path.name != "agent.schema.json"]
    placeholders = {name for path in files for name in re.findall(r"\$\{(\w+)\}", path.read_text())}
    assert files
    assert placeholders | {"BucketName"} == substitutions.keys(), "the bucket is for whoever keeps API schemas in it"
    assert substitutions["BucketName"] == {"Ref": "Bucket"}


def test_api_schemas_are_kept_in_the_bucket_for_ever() -> None:
    rules = resources()["Bucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    expiring = [rule["Prefix"] for rule in rules if "ExpirationInDays" in rule]
    assert sorted(expiring) == ["lasting/", "sessions/", "turns/"]


def test_the_agents_layer_holds_json_files_and_nothing_else() -> None:
    layer = template()["Resources"]["AgentsLayer"]["Properties"]
    folder = ROOT / layer["ContentUri"]
    assert {path.suffix for path in folder.rglob("*")} == {".json"}, "all files here are deployed: remove the others"


# ---- Data ----


@pytest.mark.parametrize("name", ["Table", "Bucket"])
def test_data_outlives_the_stack_unless_the_deployer_decides_otherwise(name: str) -> None:
    for retain, policy in (("true", "Retain"), ("false", "Delete")):
        resource = resources(RetainData=retain)[name]
        assert (resource["DeletionPolicy"], resource["UpdateReplacePolicy"]) == (policy, policy)
    assert template()["Parameters"]["RetainData"]["Default"] == "true"


def test_the_table_is_paid_by_request_forgets_by_itself_and_can_be_restored() -> None:
    table = resources()["Table"]["Properties"]
    assert table == {
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [
            {"AttributeName": "PK", "AttributeType": "S"},
            {"AttributeName": "SK", "AttributeType": "S"},
            {"AttributeName": "ownerPK", "AttributeType": "S"},
            {"AttributeName": "ownerSK", "AttributeType": "S"},
            {"AttributeName": "duePK", "AttributeType": "S"},
            {"AttributeName": "dueSK", "AttributeType": "S"},
        ],
        "KeySchema": [
            {"AttributeName": "PK", "KeyType": "HASH"},
            {"AttributeName": "SK", "KeyType": "RANGE"},
        ],
        "GlobalSecondaryIndexes": [
            {
                "IndexName": index,
                "KeySchema": [
                    {"AttributeName": f"{name}PK", "KeyType": "HASH"},
                    {"AttributeName": f"{name}SK", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            }
            for index, name in (("Owned", "owner"), ("Due", "due"))
        ],
        "TimeToLiveSpecification": {"AttributeName": "expiresAt", "Enabled": True},
        "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True},
        "SSESpecification": {"SSEEnabled": True},
    }


def test_the_bucket_is_private_encrypted_and_refuses_plain_http() -> None:
    bucket = resources()["Bucket"]["Properties"]
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    assert "BucketEncryption" in bucket
    (statement,) = resources()["BucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert statement["Effect"] == "Deny"
    assert statement["Principal"] == "*"
    assert statement["Action"] == "s3:*"
    assert [spell(resource) for resource in statement["Resource"]] == ["Bucket", "Bucket/*"]
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_the_bucket_forgets_each_prefix_that_keys_are_made_of() -> None:
    rules = resources()["Bucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    keys = (ROOT / "functions/runtime/turnwright/storage/keys.py").read_text()
    expiring = {rule["Prefix"]: rule["ExpirationInDays"] for rule in rules if "Prefix" in rule}
    assert expiring == {"turns/": 35, "sessions/": 400, "lasting/": 3_700}
    assert set(re.findall(r'"([a-z]+/)', keys)) == expiring.keys()
    assert {"DaysAfterInitiation": 1} in [rule.get("AbortIncompleteMultipartUpload") for rule in rules]


# ---- The template as a whole ----


def test_nothing_has_a_name_that_two_stacks_would_share() -> None:
    names = {
        (name, key)
        for name, resource in resources().items()
        for key, value in resource.get("Properties", {}).items()
        if key.endswith("Name") and key not in ("StageName", "FunctionName", "MetricName") and isinstance(value, str)
    }
    assert names == set()
    assert not any("FunctionName" in function for function in functions().values())


def test_every_output_and_parameter_is_described() -> None:
    for part in ("Outputs", "Parameters"):
        for name, value in template()[part].items():
            assert value.get("Description"), f"{part} {name} has no description"
    assert template()["Outputs"].keys() >= {
        "ApiUrl",
        "StateMachineArn",
        "TableName",
        "BucketName",
        "DeadLetterQueueUrl",
        "ToolDeadLetterQueueUrl",
        "RuntimeLogGroup",
        "StateMachineLogGroup",
        "ConsolidationStateMachineArn",
        "ConsolidationLogGroup",
    }


# ---- Building ----


def make(target: str, artifacts: Path, *variables: str, folder: str = "functions/runtime") -> str:
    command = ["make", "-C", str(ROOT / folder), target, f"ARTIFACTS_DIR={artifacts}", *variables]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def built_with_make() -> list[tuple[str, str]]:
    runtime = template()["Globals"]["Function"]["CodeUri"]
    return [
        (name, properties.get("ContentUri") or properties.get("CodeUri", runtime))
        for name, resource in template()["Resources"].items()
        if resource.get("Metadata") == {"BuildMethod": "makefile"} or name == "DependenciesLayer"
        for properties in [resource["Properties"]]
    ]


def test_every_resource_that_is_built_has_a_target_that_installs_requirements_by_the_layer_or_else_by_its_functions(
    tmp_path: Path,
) -> None:
    """What `requirements_of` takes for granted, and the offline stack and `make check` with it."""
    targets = built_with_make()
    assert {name for name, _ in targets} == {*functions(), "DependenciesLayer"}
    layers = [ROOT / folder for name, folder in targets if name not in functions()]
    for name, folder in targets:
        recipe = make(f"build-{name}", tmp_path, "COMPILER=", "--dry-run", folder=folder)
        brings = name not in functions() or requirements_of(ROOT / folder, (), layers) != ()
        assert ("--requirement requirements.txt" in recipe) == brings, name


def test_a_runtime_artifact_is_the_handlers_the_package_and_the_wrapper(tmp_path: Path) -> None:
    source = ROOT / "functions/runtime"
    output = make("build-LoadMemoryFunction", tmp_path, "COMPILER=")
    assert "no Python 3.13 here" in output
    patterns = ("*.py", "turnwright/**/*.py", "turnwright/**/*.json")
    expected = {path.relative_to(source) for pattern in patterns for path in source.glob(pattern)}
    built = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    assert built == {*expected, Path("stream_responses")}
    assert (tmp_path / "stream_responses").stat().st_mode & 0o777 == 0o755


def test_bytecode_is_never_compared_with_its_source(tmp_path: Path) -> None:
    make("build-LoadMemoryFunction", tmp_path, f"COMPILER={sys.executable}")
    (compiled,) = tmp_path.glob("__pycache__/load_memory.*.pyc")
    content = compiled.read_bytes()
    assert int.from_bytes(content[4:8], "little") == 0b01  # PEP 552: by hash, not checked
    assert b"/var/task/load_memory.py" in content


@pytest.mark.parametrize("folder", ["functions/runtime", "functions/banking_tools"])
def test_dependencies_are_built_for_the_platform_that_the_template_deploys_to(folder: str) -> None:
    makefile = (ROOT / folder / "Makefile").read_text()
    globals_ = template()["Globals"]["Function"]
    assert f"PYTHON_VERSION := {globals_['Runtime'].removeprefix('python')}\n" in makefile
    assert globals_["Architectures"] == ["arm64"]
    assert "PLATFORM := manylinux2014_aarch64\n" in makefile


@pytest.mark.parametrize("folder", ["functions/runtime", "functions/banking_tools"])
def test_tests_run_with_the_versions_that_are_deployed(folder: str) -> None:
    lines = (ROOT / folder / "requirements.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    for name in pinned.keys() & {"aws-lambda-powertools", "jsonschema"}:
        assert importlib.metadata.version(name) == pinned[name]
    assert "aws-lambda-powertools" in pinned


# ---- Reading the template ----


def broken(tmp_path: Path, text: str) -> TemplateError:
    file = tmp_path / "template.yaml"
    file.write_text(text)
    with pytest.raises(TemplateError) as caught:
        transform(load_template(file))
    assert caught.value.file == str(file)
    return caught.value


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("Resources:\n  A: [1\n", 3, "did not find expected ',' or ']'"),
        ("Resources:\n  A: {}\n  A: {}\n", 3, "A stands here and in line 2"),
        ("Parameters: {}\n", 1, "is not a template: it has no Resources"),
        (
            (
                "Resources:\n  B:\n    Type: AWS::SQS::Queue\n"
                "  A:\n    Type: AWS::Serverless::Function\n    Properties: {CodeUri: x, Handler: a.b}\n"
            ),
            4,
            (
                "Resource with id [A] is invalid. "
                "Runtime and Handler needs to be present when PackageType is of type `Zip`"
            ),
        ),
    ],
)
def test_a_broken_template_is_named_with_its_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    error = broken(tmp_path, text)
    assert (error.line, error.message) == (line, message)
    assert str(error) == f"{tmp_path / 'template.yaml'}:{line}: {message}"


def test_a_missing_template_is_named(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r"none\.yaml: cannot be read: No such file or directory"):
        load_template(tmp_path / "none.yaml")


def test_short_forms_mean_what_cloudformation_says(tmp_path: Path) -> None:
    file = tmp_path / "template.yaml"
    file.write_text(
        "Resources:\n"
        "  A: &A {ref: !Ref X, att: !GetAtt X.Y.Z, sub: !Sub '${X}', cond: !Condition C,\n"
        "         if: !If [C, 1, !Ref D]}\n"
        "  B: *A\n"
        "  C: {date: 2012-10-17}\n"
    )
    read: Mapping[str, Any] = load_template(file)["Resources"]
    assert read["A"] == {
        "ref": {"Ref": "X"},
        "att": {"Fn::GetAtt": ["X", "Y.Z"]},
        "sub": {"Fn::Sub": "${X}"},
        "cond": {"Condition": "C"},
        "if": {"Fn::If": ["C", 1, {"Ref": "D"}]},
    }
    assert read["B"] == read["A"]
    assert read["B"] is not read["A"]
    assert read["C"] == {"date": "2012-10-17"}


@pytest.mark.parametrize(
    ("parameters", "prefix", "memory"),
    [
        ({}, "global.", "global.anthropic.claude-sonnet-5-5,global.amazon.nova-2-lite-v1:0"),
        ({"ModelGeography": "eu"}, "eu.", "eu.anthropic.claude-sonnet-5-5,eu.amazon.nova-2-lite-v1:0"),
        ({"ModelGeography": ""}, "", "anthropic.claude-sonnet-5-5,amazon.nova-2-lite-v1:0"),
        ({"ModelGeography": "eu", "MemoryModelIds": "a.b,c.d"}, "eu.", "a.b,c.d"),
    ],
)
def test_the_models_are_those_of_the_geography(parameters: dict[str, str], prefix: str, memory: str) -> None:
    found = resources(**parameters)

    variables = found["MemoryControlFunction"]["Properties"]["Environment"]["Variables"]
    assert variables["MEMORY_MODEL_IDS"] == memory
    assert found["PublishedAgents"]["Properties"]["Substitutions"]["ModelPrefix"] == prefix


def test_no_file_that_is_deployed_names_a_geography() -> None:
    """But the price list, which has them all. A model of one geography is none in another Region."""
    deployed = [*ROOT.glob("agents/*.json"), ROOT / "template.yaml"]
    named = re.compile(r"(?<![a-z])(us|eu|apac|jp|au|global|us-gov)\.(anthropic|amazon|meta|cohere|mistral)\.")
    assert [path.name for path in deployed if named.search(path.read_text())] == []


def test_the_default_models_have_a_price_wherever_it_is_known() -> None:
    listed = prices.current().models
    for name in ("banking_assistant", "small_talk"):
        for model in json.loads((ROOT / f"agents/{name}.json").read_text())["foundationModels"]:
            assert {
                model.replace("${ModelPrefix}", f"{place}.") for place in ("global", "us", "eu", "jp")
            } <= listed.keys()
