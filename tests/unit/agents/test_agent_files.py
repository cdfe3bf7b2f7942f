import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tests.paths import ROOT
from turnwright.agents import openapi
from turnwright.agents.agent_files import (
    LARGEST_DEFINITION,
    SCHEMA_FILE,
    AgentFilesBroken,
    ObjectUnreadable,
    Problem,
    api_schema,
    check,
)
from turnwright.agents.agent_files import read as read_files
from turnwright.agents.definitions import Definition, parse
from turnwright.tools.tool_failures import CODES

AGENTS = ROOT / "agents"
ARN = "arn:aws:lambda:us-east-1:123456789012:function:tools"
OWN = "arn:aws:bedrock:us-east-1:123456789012:{}"
BUCKET = "turnwright-bucket"
SUBSTITUTIONS = {"ToolsFunctionArn": ARN, "BucketName": BUCKET}

AGENT: dict[str, Any] = {
    "$schema": "./agent.schema.json",
    "agentId": "AGENT1",
    "agentName": "first-agent",
    "instruction": "Answer questions about the weather in a friendly way.",
    "foundationModels": ["us.amazon.nova-pro-v1:0"],
    "actionGroups": [
        {
            "actionGroupName": "Weather",
            "actionGroupExecutor": {"lambda": "${ToolsFunctionArn}"},
            "functionSchema": {
                "functions": [{"name": "forecast", "parameters": {"city": {"type": "string", "required": True}}}]
            },
        }
    ],
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    shutil.copy(AGENTS / SCHEMA_FILE, tmp_path)
    return tmp_path


def at(place: str, value: object) -> Callable[[dict[str, Any]], None]:
    """A change of a document: the value at a JSON pointer is set, or appended where the pointer ends in "-"."""

    def change(document: Any) -> None:
        *parents, last = (step.replace("~1", "/") for step in place.removeprefix("/").split("/"))
        for step in parents:
            document = document[int(step)] if isinstance(document, list) else document.setdefault(step, {})
        if last == "-":
            document.append(value)
        elif isinstance(document, list):
            document[int(last)] = value
        else:
            document[last] = value

    return change


def write(directory: Path, *changes: Callable[[dict[str, Any]], None], name: str = "weather.json") -> None:
    document = copy.deepcopy(AGENT)
    for change in changes:
        change(document)
    (directory / name).write_text(json.dumps(document))


def problems(directory: Path) -> list[str]:
    return [str(problem) for problem in check(directory, SUBSTITUTIONS)]


def read(directory: Path, substitutions: dict[str, str], **objects: bytes) -> list[Definition]:
    """Reads the files, with objects in the bucket whose keys are `schemas/<name>.json`."""

    def read_object(key: str) -> bytes:
        name = key.removeprefix("schemas/").removesuffix(".json")
        if name not in objects:
            raise ObjectUnreadable("NoSuchKey")
        return objects[name]

    return read_files(directory, substitutions, read_object)


def test_the_agents_of_the_repository_can_be_published() -> None:
    known = {"BankingToolsFunctionArn": ARN, "BucketName": BUCKET, "ModelPrefix": "eu."}

    assert check(AGENTS, known) == []
    assert [definition.agent_id for definition in read(AGENTS, known)] == ["BANKASSIST", "SMALLTALK"]


def test_every_field_of_the_schema_is_described() -> None:
    schema = json.loads((AGENTS / SCHEMA_FILE).read_text())
    Draft202012Validator.check_schema(schema)

    def undescribed(part: Any, place: str = "") -> list[str]:
        found = []
        for name, field in part.get("properties", {}).items() if isinstance(part, dict) else ():
            if not field.get("description", "").endswith((".", "Weather.")):
                found.append(f"{place}/{name}")
            found += undescribed(field, f"{place}/{name}")
        return found

    roots = {"": schema, **{f"/$defs/{name}": part for name, part in schema["$defs"].items()}}
    assert [place for root, part in roots.items() for place in undescribed(part, root)] == []


def test_every_object_of_the_schema_is_closed() -> None:
    schema = json.loads((AGENTS / SCHEMA_FILE).read_text())

    def objects(part: Any) -> list[Any]:
        own = [part] if isinstance(part, dict) and part.get("type") == "object" else []
        parts = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
        return own + [found for inner in parts for found in objects(inner)]

    assert len(objects(schema)) > 10
    assert [part for part in objects(schema) if "additionalProperties" not in part] == []


def test_the_schema_offers_only_error_codes_that_a_tool_call_can_have() -> None:
    schema = json.loads((AGENTS / SCHEMA_FILE).read_text())
    retry_policy = schema["$defs"]["executionConfig"]["properties"]["retryPolicy"]["properties"]

    offered = set(retry_policy["retryableErrorCodes"]["items"]["enum"])
    never_retried = {"INVALID_ARGUMENTS", "UNKNOWN_TOOL", "TOO_MANY_CALLS", "REPROMPT", "CIRCUIT_OPEN"}
    assert offered == CODES - never_retried, "what a model has to correct, and an open circuit, no attempt would mend"


def test_a_file_is_read_with_its_substitutions_made(directory: Path) -> None:
    write(directory, at("/instruction", "Say that your tools are in ${ToolsFunctionArn}, ${not this} and $this."))
    expected = copy.deepcopy(AGENT)
    expected["instruction"] = f"Say that your tools are in {ARN}, ${{not this}} and $this."
    expected["actionGroups"][0]["actionGroupExecutor"]["lambda"] = ARN

    assert read(directory, SUBSTITUTIONS) == [Definition.of(expected)]


def test_files_are_read_in_the_order_of_their_names_and_hidden_ones_are_not(directory: Path) -> None:
    write(directory, at("/agentId", "B"), name="2.json")
    write(directory, at("/agentId", "A"), name="1.json")
    (directory / ".#1.json").write_text("what an editor leaves")

    assert [definition.agent_id for definition in read(directory, SUBSTITUTIONS)] == ["A", "B"]


def test_a_problem_names_its_file_its_place_and_the_rule(directory: Path) -> None:
    write(directory, at("/actionGroups/0/functionSchema/functions/-", {"name": "x y"}))

    assert check(directory, SUBSTITUTIONS) == [
        Problem(
            "agents/weather.json",
            "/actionGroups/0/functionSchema/functions/1/name",
            "'x y' does not match '^[a-zA-Z0-9_-]{1,64}$': use 1 to 64 letters, digits, '_' and '-', "
            "as models allow for a tool",
        )
    ]
    assert problems(directory)[0].startswith(
        "agents/weather.json: /actionGroups/0/functionSchema/functions/1/name: 'x y' does not match"
    )


GROUP = "/actionGroups/0"
CONFIG = "/actionGroupExecutionConfig"
TOO_MANY_FUNCTIONS = [{"name": f"f{number}"} for number in range(60)]


def second_group(**fields: object) -> dict[str, Any]:
    group = {**copy.deepcopy(AGENT["actionGroups"][0]), "actionGroupName": "Second", **fields}
    group["functionSchema"]["functions"][0]["name"] = "second"
    return group


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        ("/agentId", "A\n", r"/agentId: 'A\n' does not match '^[0-9a-zA-Z_-]{1,100}$': use 1 to 100 letters, "),
        ("/agentId", 7, "/agentId: 7 is not of type 'string'"),
        ("/agentId", None, "/agentId: null is not of type 'string'"),
        ("/agentName", "two words", "/agentName: 'two words' does not match "),
        ("/description", "", "/description: has 0 characters, at least 1 are needed"),
        ("/instruction", "Talk.", "/instruction: has 5 characters, at least 40 are needed"),
        ("/instruction", "x" * 20_001, "/instruction: has 20001 characters, at most 20000 are allowed"),
        ("/foundationModels", [], "/foundationModels: has 0 entries, at least 1 are needed"),
        ("/foundationModels", list("abcdef"), "/foundationModels: has 6 entries, at most 5 are allowed"),
        ("/foundationModels", ["a", "a"], '/foundationModels: ["a", "a"] has non-unique elements'),
        ("/foundationModels/0", "my model", "/foundationModels/0: 'my model' is not the id of a Bedrock model or i"),
        ("/foundationModels/0", "global/model", "/foundationModels/0: 'global/model' is not the id of a Bedrock mo"),
        ("/foundationModels/0", ARN, f"/foundationModels/0: '{ARN}' is not the id of"),
        (
            "/foundationModels/0",
            OWN.format("prompt/A1B2"),
            f"/foundationModels/0: '{OWN.format('prompt/A1B2')}' is not ",
        ),
        ("/foundationModels/0", OWN.format("foundation-model/a.b"), "/foundationModels/0: 'arn:aws:bedrock:us-east-1:"),
        (
            "/foundationModels/0",
            "arn:aws:bedrock:us-east-1::inference-profile/a.b",
            "/foundationModels/0: 'arn:aws:bed",
        ),
        ("/memoryConfiguration/modelId", "my model", "/memoryConfiguration/modelId: 'my model' is not the id of a"),
        ("/foundationModel", "a", "/foundationModel: is not a field that is supported here; did you mean found"),
        ("/inferenceConfiguration/temperature", 1.1, "/inferenceConfiguration/temperature: 1.1 is greater than"),
        ("/inferenceConfiguration/topP", -1, "/inferenceConfiguration/topP: -1 is less than the minimum of 0"),
        ("/inferenceConfiguration/maximumLength", 0, "/inferenceConfiguration/maximumLength: 0 is less than"),
        ("/inferenceConfiguration/stopSequences", [""], "/inferenceConfiguration/stopSequences/0: has 0 charact"),
        ("/inferenceConfiguration/topK", 5, "/inferenceConfiguration/topK: is not a field that is supported her"),
        ("/limits/maxSteps", 0, "/limits/maxSteps: 0 is less than the minimum of 1"),
        ("/limits/maxSteps", 51, "/limits/maxSteps: 51 is greater than the maximum of 50"),
        ("/limits/maxSteps", "10", "/limits/maxSteps: '10' is not of type 'integer'"),
        ("/limits/maxSteps", True, "/limits/maxSteps: true is not of type 'integer'"),
        ("/limits/maxParallelTools", 17, "/limits/maxParallelTools: 17 is greater than the maximum of 16"),
        ("/limits/modelTimeoutSeconds", 4, "/limits/modelTimeoutSeconds: 4 is less than the minimum of 5"),
        ("/limits/modelTimeoutSeconds", 291, "/limits/modelTimeoutSeconds: 291 is greater than the maximum of 2"),
        ("/memoryConfiguration/storageDays", 366, "/memoryConfiguration/storageDays: 366 is greater than the max"),
        ("/memoryConfiguration/storageDays", 0, "/memoryConfiguration/storageDays: 0 is less than the minimum o"),
        ("/memoryConfiguration/history/maxTurns", 101, "/memoryConfiguration/history/maxTurns: 101 is greater t"),
        ("/memoryConfiguration/history/maxCharacters", 999, "/memoryConfiguration/history/maxCharacters: 999 is"),
        (f"{CONFIG}/fallback", {}, f"{CONFIG}/fallback: is not a field that is supported here; the "),
        (f"{CONFIG}/circuitBreaker/failureThreshold", 0, f"{CONFIG}/circuitBreaker/failureThreshold: 0 is less than"),
        (
            f"{CONFIG}/circuitBreaker/recoveryTimeSeconds",
            3601,
            f"{CONFIG}/circuitBreaker/recoveryTimeSeconds: 3601 is ",
        ),
        (
            f"{CONFIG}/circuitBreaker/halfOpen",
            1,
            f"{CONFIG}/circuitBreaker/halfOpen: is not a field that is supported ",
        ),
        (f"{CONFIG}/resultConfig/maxCharacters", 99, f"{CONFIG}/resultConfig/maxCharacters: 99 is less than the mini"),
        (f"{CONFIG}/retryPolicy/jitter", "HALF", f"{CONFIG}/retryPolicy/jitter: 'HALF' is not one of ['NONE', 'FULL']"),
        (f"{CONFIG}/retryPolicy/maxAttempts", 11, f"{CONFIG}/retryPolicy/maxAttempts: 11 is greater than the ma"),
        (f"{CONFIG}/retryPolicy/backoffStrategy", "LINEAR", f"{CONFIG}/retryPolicy/backoffStrategy: 'LINEAR' is"),
        (f"{CONFIG}/retryPolicy/initialDelayMs", -1, f"{CONFIG}/retryPolicy/initialDelayMs: -1 is less than"),
        (f"{CONFIG}/retryPolicy/maxDelayMs", 60_001, f"{CONFIG}/retryPolicy/maxDelayMs: 60001 is greater than"),
        (
            f"{CONFIG}/retryPolicy/retryableErrorCodes",
            ["THROTLING"],
            f"{CONFIG}/retryPolicy/retryableErrorCodes/0: 'THROTLING' is not one of ['THROTTLING', ",
        ),
        (
            f"{CONFIG}/retryPolicy/initialDelayMs",
            30_000,
            f"{CONFIG}/retryPolicy: initialDelayMs, 30000, is more than maxDelayMs, 20000; raise maxDelayMs or ",
        ),
        (
            f"{GROUP}/actionGroupExecutionConfig/retryPolicy/maxDelayMs",
            100,
            f"{GROUP}/actionGroupExecutionConfig/retryPolicy: initialDelayMs, 200, is more than maxDelayMs, 100; ",
        ),
        (f"{CONFIG}/timeoutSeconds", 301, f"{CONFIG}/timeoutSeconds: 301 is greater than the maximum of 300"),
        (
            f"{CONFIG}",
            {"timeoutSeconds": 5, "timeoutConfig": {"timeoutSeconds": 6}},
            f"{CONFIG}/timeoutConfig/timeoutSeconds: 6 is given twice, here and as timeoutSeconds beside timeoutCo",
        ),
        (f"{CONFIG}/timeoutConfig/onTimeoutBehavior", "RETRY", f"{CONFIG}/timeoutConfig/onTimeoutBehavior: 'RETR"),
        (f"{GROUP}/apiSchemas", {}, f"{GROUP}/apiSchemas: is not a field that is supported here; did you mean apiS"),
        (f"{GROUP}/actionGroupState", "OFF", f"{GROUP}/actionGroupState: 'OFF' is not one of ['ENABLED', "),
        (f"{GROUP}/functionSchema/functions", [], f"{GROUP}/functionSchema/functions: has 0 entries, at least 1 "),
        (
            f"{GROUP}/functionSchema/functions/0/parameters/a b",
            {"type": "string"},
            f"{GROUP}/functionSchema/functions/0/parameters/a b: 'a b' does not match ",
        ),
        (
            f"{GROUP}/functionSchema/functions/0/parameters/day",
            {"type": "date"},
            f"{GROUP}/functionSchema/functions/0/parameters/day/type: 'date' is not one of ['string', ",
        ),
        (
            f"{GROUP}/functionSchema/functions/0/parameters/day",
            {"type": "string", "required": "yes"},
            f"{GROUP}/functionSchema/functions/0/parameters/day/required: 'yes' is not of type 'boolean'",
        ),
        (
            f"{GROUP}/functionSchema/functions/0/parameters",
            {f"p{number}": {"type": "string"} for number in range(51)},
            f"{GROUP}/functionSchema/functions/0/parameters: has 51 fields, at most 50 are allowed",
        ),
        (
            f"{GROUP}/functionSchema/functions/-",
            {"name": "forecast"},
            f"{GROUP}/functionSchema/functions/1/name: 'forecast' is used at {GROUP}/functionSchema",
        ),
        (
            "/actionGroups/-",
            second_group(actionGroupName="Weather"),
            f"/actionGroups/1/actionGroupName: 'Weather' is used at {GROUP}/actionGroupName too; it must be unique",
        ),
        (
            f"{GROUP}/functionSchema/functions/0/description",
            "x" * 1201,
            f"{GROUP}/functionSchema/functions/0/description: has 1201 characters, at most 1200 are allowed",
        ),
        (
            f"{GROUP}/actionGroupExecutor/lambda",
            "my-function",
            f"{GROUP}/actionGroupExecutor/lambda: 'my-function' is not the ARN of a Lambda function; give one, or ",
        ),
        (
            f"{GROUP}/actionGroupExecutor/lambda",
            "${ToolFunctionArn}",
            f"{GROUP}/actionGroupExecutor/lambda: ${{ToolFunctionArn}} has no value; known are: ${{BucketName}}, ",
        ),
        (
            f"{GROUP}/actionGroupExecutor/lambda",
            "${ToolsFunctionArn}/more",
            f"{GROUP}/actionGroupExecutor/lambda: '{ARN}/more' is not the ARN of a Lambda function; ",
        ),
        ("/a~b/c", 1, "/a~0b: is not a field that is supported here; "),
        ("/instruction", f"\ud800{'x' * 40}", "/instruction: has half of a surrogate pair "),
    ],
)
def test_a_broken_field_is_named_with_the_rule(directory: Path, place: str, value: object, problem: str) -> None:
    write(directory, at(place, value))

    (found,) = problems(directory)
    assert found.startswith(f"agents/weather.json: {problem}")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("/limits", {"maxSteps": 50, "maxParallelTools": 16, "modelTimeoutSeconds": 290}),
        ("/limits", {"maxSteps": 1, "maxParallelTools": 1, "modelTimeoutSeconds": 5}),
        ("/memoryConfiguration", {"storageDays": 365, "history": {"maxTurns": 100, "maxCharacters": 400_000}}),
        (f"{CONFIG}", {"timeoutSeconds": 300, "retryPolicy": {"maxAttempts": 10, "initialDelayMs": 0}}),
        (f"{CONFIG}", {"retryPolicy": {"initialDelayMs": 60_000, "maxDelayMs": 60_000}}),
        ("/agentId", "EXISTING_AGENT_ID"),
        (f"{GROUP}/actionGroupExecutor/lambda", "arn:aws-us-gov:lambda:us-gov-west-1:123456789012:function:a-b_c:live"),
        ("/foundationModels/0", "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.amazon.nova-pro-v1:0"),
        ("/foundationModels/0", "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3d4e5f6"),
        ("/foundationModels/0", "arn:aws-us-gov:bedrock:us-gov-west-1:123456789012:provisioned-model/a1b2c3d4e5f6"),
        ("/foundationModels/0", "arn:aws:bedrock:us-east-1:123456789012:custom-model-deployment/a1b2c3d4e5f6"),
        ("/foundationModels/0", "arn:aws:bedrock:us-east-1:123456789012:imported-model/a1b2c3d4e5f6"),
        ("/foundationModels/0", "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-3-haiku-20240307-v1:0"),
        ("/actionGroups/-", second_group()),
        ("/actionGroups", []),
    ],
)
def test_a_value_at_the_edge_of_what_is_allowed_is_allowed(directory: Path, place: str, value: object) -> None:
    write(directory, at(place, value))

    assert problems(directory) == []


@pytest.mark.parametrize("field", ["agentId", "agentName", "instruction", "foundationModels"])
def test_a_missing_field_is_named(directory: Path, field: str) -> None:
    write(directory, lambda document: document.pop(field))

    assert problems(directory) == [f"agents/weather.json: '{field}' is a required property"]


def test_an_agent_has_at_most_a_hundred_functions(directory: Path) -> None:
    write(
        directory,
        at(f"{GROUP}/functionSchema/functions", TOO_MANY_FUNCTIONS),
        at("/actionGroups/-", second_group(functionSchema={"functions": [{"name": f"g{n}"} for n in range(41)]})),
    )

    assert problems(directory) == ["agents/weather.json: /actionGroups: has 101 functions, at most 100 are allowed"]


@pytest.mark.parametrize("value", ["DISABLED", "ENABLED"])
def test_a_function_may_say_that_nobody_is_asked_before_it_is_called(directory: Path, value: str) -> None:
    write(directory, at(f"{GROUP}/functionSchema/functions/0/requireConfirmation", value))

    place = f"{GROUP}/functionSchema/functions/0/requireConfirmation"
    rule = "'ENABLED' is not supported: nothing would ask the user; leave it out, or write DISABLED"
    assert problems(directory) == ([] if value == "DISABLED" else [f"agents/weather.json: {place}: {rule}"])


def test_a_definition_that_an_item_cannot_hold_is_refused(directory: Path) -> None:
    parameters = {f"p{number}": {"type": "string", "description": "ü" * 500} for number in range(8)}
    functions = [{"name": f"f{number}", "parameters": parameters} for number in range(50)]
    write(directory, at(f"{GROUP}/functionSchema/functions", functions))

    (found,) = problems(directory)
    assert found.startswith("agents/weather.json: has 4")
    assert found.endswith(" bytes without white space, at most 350000 are allowed")


def test_a_long_value_is_not_repeated_at_length(directory: Path) -> None:
    write(directory, at("/agentName", "x " * 1000))

    (found,) = problems(directory)
    assert len(found) < 400
    assert "'x x x" in found


def test_all_problems_of_all_files_are_found_at_once(directory: Path) -> None:
    write(directory, at("/agentName", "two words"), at("/limits/maxSteps", 0), name="a.json")
    write(directory, at("/agentId", ""), name="b.json")
    (directory / "c.json").write_text("{")

    places = [(problem.file, problem.pointer) for problem in check(directory, SUBSTITUTIONS)]
    assert places == [
        ("agents/a.json", "/agentName"),
        ("agents/a.json", "/limits/maxSteps"),
        ("agents/b.json", "/agentId"),
        ("agents/c.json", ""),
    ]


def test_nothing_is_read_if_one_file_is_broken(directory: Path) -> None:
    write(directory, name="a.json")
    (directory / "b.json").write_text("[]")

    with pytest.raises(AgentFilesBroken) as caught:
        read(directory, SUBSTITUTIONS)

    assert str(caught.value) == "agents/b.json: [] is not of type 'object'"
    assert caught.value.problems == (Problem("agents/b.json", "", "[] is not of type 'object'"),)


def test_two_files_may_not_define_the_same_agent(directory: Path) -> None:
    write(directory, name="a.json")
    write(directory, name="b.json")

    assert problems(directory) == [
        "agents/b.json: /agentId: 'AGENT1' is the agentId of agents/a.json too; every agent needs its own"
    ]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "line 1, column 1: is not JSON: Expecting value"),
        (b'{\n  "agentId": "A",,\n}', "line 2, column 18: is not JSON: "),
        (b'{"agentId": "A"} x', "line 1, column 18: is not JSON: Extra data"),
        (b"\xef\xbb\xbf{}", "begins with a byte order mark; save the file as UTF-8 without one"),
        (b'{\n"agentId": "\xe4"}', "line 2: is not UTF-8; save the file as UTF-8"),
        (b'{"limits": NaN}', "has the number NaN, which JSON does not have"),
        (b"[" * 100_000, "is nested too deeply"),
        (b"[" * 600 + b"]" * 600, "is nested too deeply"),
        (b"null", "null is not of type 'object'"),
        (b'{"a": {"b": [{"c": 1, "d": 2, "c": 3}]}}', "/a/b/0/c: appears more than once in its object; keep one"),
        (rb'{"\ud800": 1}', r"has half of a surrogate pair (\ud800 to \udfff), which is no character"),
    ],
)
def test_a_file_that_is_not_json_is_refused(directory: Path, content: bytes, problem: str) -> None:
    (directory / "weather.json").write_bytes(content)

    (found,) = problems(directory)
    assert found.startswith(f"agents/weather.json: {problem}")


def test_a_directory_without_agents_is_refused(directory: Path) -> None:
    assert problems(directory) == ["agents: has no agent file; add one, such as my_agent.json"]
    assert problems(directory / "missing") == problems(directory)


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        (None, "is missing; it belongs beside the agent files"),
        ('{"type": 1}', "/type: 1 is not valid under any of the given schemas"),
        ("{", "line 1, column 2: is not JSON: "),
    ],
)
def test_a_schema_that_cannot_be_used_is_named(directory: Path, schema: str | None, problem: str) -> None:
    write(directory)
    if schema is None:
        (directory / SCHEMA_FILE).unlink()
    else:
        (directory / SCHEMA_FILE).write_text(schema)

    (found,) = problems(directory)
    assert found.startswith(f"agents/agent.schema.json: {problem}")


def test_a_value_that_names_another_value_is_not_resolved_twice(directory: Path) -> None:
    write(directory)

    (problem,) = check(directory, {"ToolsFunctionArn": "${Other}", "Other": ARN})
    assert problem.pointer == f"{GROUP}/actionGroupExecutor/lambda"
    assert problem.rule.startswith("${Other} has no value; ")


API: dict[str, Any] = {
    "openapi": "3.0.3",
    "info": {"title": "Claims", "version": "1"},
    "paths": {
        "/claims/{id}": {
            "get": {
                "operationId": "get_claim",
                "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}],
            }
        }
    },
}
GET_CLAIM = "/paths/~1claims~1{id}/get"
SCHEMA = f"{GROUP}/apiSchema"
IN_BUCKET = {"s3": {"s3BucketName": "${BucketName}", "s3ObjectKey": "schemas/claims.json"}}


def with_api(schema: object) -> Callable[[dict[str, Any]], None]:
    """A change of an agent: its group has an apiSchema instead of functions."""

    def change(document: dict[str, Any]) -> None:
        group = document["actionGroups"][0]
        del group["functionSchema"]
        group["apiSchema"] = schema

    return change


def broken_api(place: str, value: object) -> dict[str, Any]:
    document = copy.deepcopy(API)
    at(place, value)(document)
    return document


@pytest.mark.parametrize(
    "schema",
    [{"payload": API}, {"payload": json.dumps(API, indent=2)}, IN_BUCKET],
    ids=["object", "text", "object of the bucket"],
)
def test_an_api_schema_is_kept_as_its_operations_wherever_it_stands(directory: Path, schema: dict[str, Any]) -> None:
    write(directory, with_api(schema))
    expected = copy.deepcopy(AGENT)
    expected["actionGroups"][0] = {
        "actionGroupName": "Weather",
        "actionGroupExecutor": {"lambda": ARN},
        "apiSchema": api_schema(API)[0],
    }

    (definition,) = read(directory, SUBSTITUTIONS, claims=json.dumps(API).encode())

    assert definition == Definition.of(expected)
    assert [tool.name for tool in parse(json.loads(definition.text), "1").tools] == ["get_claim"]


def test_substitutions_are_made_in_an_api_schema_of_the_file(directory: Path) -> None:
    api = broken_api(f"{GET_CLAIM}/description", "${BucketName}")
    for payload in (api, json.dumps(api)):
        write(directory, with_api({"payload": payload}))

        (definition,) = read(directory, SUBSTITUTIONS)
        assert f'"description":"{BUCKET}"' in definition.text


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (f"{GET_CLAIM}/description", "Reads a claim."),
        (f"{GET_CLAIM}/parameters/0/schema/maxLength", 9),
        ("/info/version", "2"),
    ],
)
def test_any_change_of_an_api_schema_is_another_definition(directory: Path, place: str, value: object) -> None:
    write(directory, with_api(IN_BUCKET))

    (one,), (same,), (other,) = (
        read(directory, SUBSTITUTIONS, claims=json.dumps(api).encode()) for api in (API, API, broken_api(place, value))
    )

    assert one == same
    assert one.digest != other.digest


def test_other_tools_of_the_same_api_schema_are_another_definition(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(directory, with_api({"payload": API}))
    (one,) = read(directory, SUBSTITUTIONS)
    (operation,), _ = openapi.read(API)

    monkeypatch.setattr(
        openapi, "read", lambda _: ([replace(operation, description="As a later release reads it.")], [])
    )

    (other,) = read(directory, SUBSTITUTIONS)
    assert one.digest != other.digest


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({}, f"{SCHEMA}: {{}} has to have either payload or s3"),
        ({"payload": API, **IN_BUCKET}, f"{SCHEMA}: {{"),
        ({"payload": 1}, f"{SCHEMA}/payload: 1 is no OpenAPI document; give it as an object, or as the text of one"),
        ({"payload": API, "url": "x"}, f"{SCHEMA}/url: is not a field that is supported here; "),
        ({"payload": {"swagger": "2.0"}}, f"{SCHEMA}/payload/openapi: is swagger 2.0; OpenAPI 3.0 and 3.1 are read"),
        (
            {"payload": broken_api("/paths/claims", {})},
            f"{SCHEMA}/payload/paths/claims: is no path; a path begins with '/'",
        ),
        (
            {"payload": json.dumps({**API, "paths": {"/a~b/c": {"get": {}}}})},
            f"{SCHEMA}/payload: #/paths/~1a~0b~1c/get: has no operationId, which is the tool's name",
        ),
        ({"payload": "{}"}, f"{SCHEMA}/payload: #/openapi: is null; OpenAPI 3.0 and 3.1 are read"),
        (
            {"payload": "openapi: 3.0.3\npaths:"},
            f"{SCHEMA}/payload: line 1, column 1: is not JSON: Expecting value. A schema in YAML has to be made JSON",
        ),
        (
            {"payload": '{"openapi": "3.0.3", "openapi": "3.1.0"}'},
            f"{SCHEMA}/payload: #/openapi: appears more than once in its object; keep one",
        ),
        (
            {"s3": {"s3BucketName": "another-bucket", "s3ObjectKey": "schemas/claims.json"}},
            f"{SCHEMA}/s3/s3BucketName: 'another-bucket' is not the stack's bucket, the only one it reads: write ${{B",
        ),
        (
            {"s3": {"s3BucketName": "${BucketName}", "s3ObjectKey": "turns/claims.json"}},
            f"{SCHEMA}/s3/s3ObjectKey: 'turns/claims.json' does not match '^schemas/.{{1,1000}}$': use a key that ",
        ),
    ],
    ids=range(12),
)
def test_a_broken_api_schema_is_named_with_its_place_and_the_rule(
    directory: Path, schema: dict[str, Any], problem: str
) -> None:
    write(directory, with_api(schema))

    (found,) = problems(directory)
    assert found.startswith(f"agents/weather.json: {problem}")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "'schemas/claims.json' cannot be read: NoSuchKey"),
        (b"openapi: 3.0.3", "line 1, column 1: is not JSON: Expecting value. A schema in YAML has to be made JSON"),
        (b"\xff", "line 1: is not UTF-8; save the file as UTF-8. A schema in YAML has to be made JSON"),
        (b"[]", "is not an OpenAPI document: it is no object"),
        (b'{"openapi": "3.0.3"}', "#/paths: is missing; it has the operations that become tools"),
    ],
    ids=["missing", "yaml", "binary", "list", "no paths"],
)
def test_an_object_that_is_no_api_schema_is_found_when_it_is_published(
    directory: Path, content: bytes | None, problem: str
) -> None:
    write(directory, with_api(IN_BUCKET))

    with pytest.raises(AgentFilesBroken) as caught:
        read(directory, SUBSTITUTIONS, **({} if content is None else {"claims": content}))

    assert str(caught.value) == f"agents/weather.json: {SCHEMA}/s3/s3ObjectKey: {problem}"
    assert problems(directory) == [], "a check does not look into the bucket"


def test_no_bucket_is_read_where_the_deployment_names_none(directory: Path) -> None:
    write(directory, with_api({"s3": {"s3BucketName": "x", "s3ObjectKey": "schemas/a"}}))

    (problem,) = check(directory, {"ToolsFunctionArn": ARN})
    assert problem.pointer == f"{SCHEMA}/s3/s3BucketName"


@pytest.mark.parametrize("has_both", [True, False])
def test_a_group_has_either_functions_or_an_api(directory: Path, has_both: bool) -> None:
    functions = copy.deepcopy(AGENT["actionGroups"][0]["functionSchema"])
    if has_both:
        write(directory, with_api({"payload": API}), at(f"{GROUP}/functionSchema", functions))
    else:
        write(directory, lambda document: document["actionGroups"][0].pop("functionSchema"))

    (found,) = problems(directory)
    assert found.startswith(f"agents/weather.json: {GROUP}: {{")
    assert found.endswith(" has to have either functionSchema or apiSchema")


def test_an_operation_may_not_have_the_name_of_another_tool(directory: Path) -> None:
    operation = {"operationId": "forecast"}
    api = {**API, "paths": {"/a": {"get": operation, "put": {"operationId": "other"}}, "/b": {"get": operation}}}
    write(directory, at("/actionGroups/-", {**second_group(), "apiSchema": {"payload": api}}), drop_functions(1))

    place = "/actionGroups/1/apiSchema/payload/paths"
    first = f"{GROUP}/functionSchema/functions/0/name"
    assert problems(directory) == [
        f"agents/weather.json: {place}/{path}/get/operationId: 'forecast' is used at {first} too; it must be unique in "
        "the agent"
        for path in ("~1a", "~1b")
    ]


def drop_functions(position: int) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["actionGroups"][position].pop("functionSchema")


def test_a_schema_that_no_validator_takes_is_refused(directory: Path) -> None:
    api = copy.deepcopy(API)
    api["paths"]["/claims/{id}"]["get"]["parameters"][0]["schema"]["minLength"] = "two"
    write(directory, with_api({"payload": api}))

    place = f"{SCHEMA}/payload/paths/~1claims~1{{id}}/get"
    rule = "makes a schema that is none: /properties/id/minLength: 'two' is not of type 'integer'"
    assert problems(directory) == [f"agents/weather.json: {place}: {rule}"]


def test_an_api_schema_that_an_item_cannot_hold_is_refused(directory: Path) -> None:
    api = broken_api(f"{GET_CLAIM}/description", "x" * LARGEST_DEFINITION)
    write(directory, with_api(IN_BUCKET))

    with pytest.raises(AgentFilesBroken, match=f"at most {LARGEST_DEFINITION} are allowed"):
        read(directory, SUBSTITUTIONS, claims=json.dumps(api).encode())


def test_what_no_tool_needs_of_an_api_schema_takes_no_room(directory: Path) -> None:
    write(directory, with_api({"payload": broken_api("/info/description", "x" * LARGEST_DEFINITION)}))

    (definition,) = read(directory, SUBSTITUTIONS)
    assert len(definition.text) < 1_000


def test_an_agent_has_at_most_a_hundred_functions_and_operations(directory: Path) -> None:
    paths = {f"/{number}": {"get": {"operationId": f"op{number}"}} for number in range(100)}
    write(
        directory,
        at("/actionGroups/-", {**second_group(), "apiSchema": {"payload": {**API, "paths": paths}}}),
        drop_functions(1),
    )

    assert problems(directory) == ["agents/weather.json: /actionGroups: has 101 functions, at most 100 are allowed"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.sampled_from(
    [
        "/agentId",
        "/instruction",
        "/foundationModels",
        "/inferenceConfiguration",
        "/actionGroups",
        "/actionGroups/0",
        f"{GROUP}/actionGroupExecutor",
        f"{GROUP}/functionSchema/functions/0",
        f"{GROUP}/functionSchema/functions/0/parameters",
        f"{GROUP}/functionSchema/functions/0/parameters/city",
        CONFIG,
        f"{CONFIG}/retryPolicy",
        "/limits",
        "/memoryConfiguration/history",
    ]
)


@given(place=FIELDS, value=JSON)
def test_any_value_anywhere_is_either_a_problem_or_an_agent(directory: Path, place: str, value: object) -> None:
    write(directory, at(place, value))

    found = check(directory, SUBSTITUTIONS)
    if not found:
        (definition,) = read(directory, SUBSTITUTIONS)
        assert parse(json.loads(definition.text), "1").version == "1"
    assert all(problem.rule for problem in found)


def memory(*namespaces: dict[str, Any], **fields: Any) -> Callable[[dict[str, Any]], None]:
    return at("/memoryConfiguration", {"namespaces": list(namespaces), **fields})


def test_a_memory_configuration_with_every_field_is_taken(directory: Path) -> None:
    preferences = {
        "name": "user_preferences",
        "description": "What the user wants.",
        "scope": "ACTOR",
        "ttlDays": 365,
        "maxRecords": 100,
        "mergeRule": "REPLACE",
        "extractionPrompt": "Extract preferences.",
        "access": {"read": ["*"], "write": ["AGENT1"]},
        "inject": {"topK": 10, "relevance": False},
    }
    write(
        directory,
        memory(
            preferences,
            {"name": "hidden", "inject": False},
            enabledMemoryTypes=["SESSION_SUMMARY"],
            storageDays=30,
            sessionSummaryConfiguration={"maxRecentSessions": 5},
            idleSessionTTLInSeconds=1800,
            memoryStore="shared-0123456789",
            modelId="us.amazon.nova-lite-v1:0",
            embeddingModelId="amazon.titan-embed-text-v2:0",
            inject={"maxCharacters": 4000},
            history={"maxTurns": 20, "maxCharacters": 60000},
        ),
    )

    assert problems(directory) == []


@pytest.mark.parametrize(
    ("place", "value", "rule"),
    [
        ("/namespaces/0/name", "session_digest", "'session_digest' is the namespace in which the digests"),
        ("/namespaces/0/name", "a-b", "use a letter, then letters, digits and '_'"),
        ("/namespaces/0/inject", True, "true is neither false nor an object"),
        ("/namespaces/0/inject/topk", 3, "did you mean topK?"),
        ("/namespaces/0/mergeRule", "NEWEST", "'NEWEST' is not one of"),
        ("/namespaces/0/access/write", ["a b"], "give an agentId, or * for all agents"),
        ("/namespaces/0/path", "/x/", "is not a field that is supported here"),
        ("/memoryStore", "shared", "use a letter, then letters, digits, '_' and '-', and at the end '-' and 10"),
        ("/idleSessionTTLInSeconds", 5, "5 is less than the minimum of 60"),
        ("/enabledMemoryTypes", ["SEMANTIC"], "'SEMANTIC' is not one of"),
        ("/modelId", "", "'' is not the id of a Bedrock model or inference profile"),
    ],
)
def test_a_broken_memory_configuration_is_told_with_its_place_and_rule(
    directory: Path, place: str, value: object, rule: str
) -> None:
    write(directory, memory({"name": "facts", "inject": {}, "access": {}}), at(f"/memoryConfiguration{place}", value))

    (problem,) = problems(directory)

    assert problem.startswith(f"agents/weather.json: /memoryConfiguration{place}")
    assert rule in problem


def test_two_namespaces_of_one_name_are_refused(directory: Path) -> None:
    write(directory, memory({"name": "facts"}, {"name": "facts", "scope": "SESSION"}))

    (problem,) = problems(directory)

    assert problem == (
        "agents/weather.json: /memoryConfiguration/namespaces/1/name: 'facts' is used at "
        "/memoryConfiguration/namespaces/0/name too; it must be unique in the agent"
    )


@pytest.mark.parametrize(
    ("fields", "different"),
    [
        ({"mergeRule": "APPEND"}, "mergeRule"),
        ({"ttlDays": 3, "access": {"write": ["*"]}}, "ttlDays, access.write"),
        ({"scope": "SESSION"}, "scope"),
        ({"extractionPrompt": "Other."}, "extractionPrompt"),
        ({"maxRecords": 1}, "maxRecords"),
        ({"access": {"read": ["AGENT1"]}}, "access.read"),
    ],
)
def test_agents_that_share_a_store_have_to_declare_a_namespace_alike(
    directory: Path, fields: dict[str, Any], different: str
) -> None:
    store = "shared-0123456789"
    write(directory, memory({"name": "facts"}, memoryStore=store))
    write(directory, at("/agentId", "AGENT2"), memory({"name": "facts", **fields}, memoryStore=store), name="x.json")

    (problem,) = problems(directory)

    assert problem == (
        "agents/x.json: /memoryConfiguration/namespaces/0: 'facts' differs from that of agents/weather.json in "
        f"{different}; both are in the store {store}"
    )


def test_agents_that_share_a_store_may_show_its_namespaces_differently(directory: Path) -> None:
    write(directory, memory({"name": "facts", "access": {"write": ["AGENT1"]}}))
    write(
        directory,
        at("/agentId", "AGENT2"),
        memory({"name": "facts", "access": {"write": ["AGENT1"]}, "inject": False}, memoryStore="AGENT1-turnwright"),
        name="other.json",
    )

    assert problems(directory) == []


def test_agents_with_stores_of_their_own_need_not_agree(directory: Path) -> None:
    write(directory, memory({"name": "facts"}))
    write(directory, at("/agentId", "AGENT2"), memory({"name": "facts", "scope": "SESSION"}), name="other.json")

    assert problems(directory) == []


MEMORY_GROUP = {"actionGroupName": "Memory", "parentActionGroupSignature": "TURNWRIGHT.Memory"}


def test_an_agent_file_switches_the_memory_tools_on(directory: Path) -> None:
    write(directory, at("/actionGroups/-", MEMORY_GROUP), memory({"name": "facts"}))

    assert problems(directory) == []
    (definition,) = read(directory, SUBSTITUTIONS)
    agent = parse(json.loads(definition.text), "1")
    assert [tool.name for tool in agent.tools] == ["forecast", "search_memory", "remember", "forget"]


@pytest.mark.parametrize(
    ("group", "place", "rule"),
    [
        ({"functionSchema": {"functions": [{"name": "f"}]}}, "", "has a parentActionGroupSignature, which brings its"),
        ({"actionGroupExecutor": {"lambda": ARN}}, "", "has a parentActionGroupSignature, which brings its"),
        (
            {"parentActionGroupSignature": "AMAZON.UserInput"},
            "/parentActionGroupSignature",
            "'AMAZON.UserInput' is not one of ['TURNWRIGHT.Memory']",
        ),
    ],
)
def test_a_memory_group_has_nothing_of_its_own(directory: Path, group: dict[str, Any], place: str, rule: str) -> None:
    write(directory, at("/actionGroups/-", {**MEMORY_GROUP, **group}), memory({"name": "facts"}))

    (problem,) = problems(directory)

    assert problem.startswith(f"agents/weather.json: /actionGroups/1{place}: ")
    assert rule in problem


def test_a_group_without_an_executor_or_a_signature_is_refused(directory: Path) -> None:
    write(
        directory, at("/actionGroups/-", {"actionGroupName": "Other", "functionSchema": {"functions": [{"name": "f"}]}})
    )

    assert problems(directory) == ["agents/weather.json: /actionGroups/1: 'actionGroupExecutor' is a required property"]


def test_the_memory_tools_need_a_namespace_that_the_agent_may_use(directory: Path) -> None:
    others = {"name": "facts", "access": {"read": ["OTHER"], "write": ["OTHER"]}}
    for namespaces in ([], [others]):
        write(directory, at("/actionGroups/-", MEMORY_GROUP), memory(*namespaces))

        (problem,) = problems(directory)
        assert problem == (
            "agents/weather.json: /actionGroups/1/parentActionGroupSignature: needs a namespace in memoryConfiguration "
            "that this agent may read or write"
        )


def test_a_function_may_not_have_the_name_of_a_memory_tool(directory: Path) -> None:
    remember = {
        "actionGroupName": "Own",
        "actionGroupExecutor": {"lambda": ARN},
        "functionSchema": {"functions": [{"name": "remember"}]},
    }
    write(directory, at("/actionGroups/-", MEMORY_GROUP), at("/actionGroups/-", remember), memory({"name": "facts"}))

    (problem,) = problems(directory)

    assert "'remember' is used at /actionGroups/1/parentActionGroupSignature too" in problem


def test_a_session_must_be_able_to_end_before_it_expires(directory: Path) -> None:
    write(directory, memory({"name": "facts"}, storageDays=1, idleSessionTTLInSeconds=86_400))

    (problem,) = problems(directory)

    assert problem.startswith("agents/weather.json: /memoryConfiguration/idleSessionTTLInSeconds: 86400 is not less")


def test_an_embedding_model_that_nobody_can_ask_is_refused(directory: Path) -> None:
    write(directory, memory(embeddingModelId="us.amazon.nova-pro-v1:0"))

    (problem,) = problems(directory)

    assert "'us.amazon.nova-pro-v1:0' is not supported; Titan Text Embeddings V2" in problem


def test_the_geography_of_the_models_is_the_deployments(directory: Path) -> None:
    """A version of the agent has the ids: whoever changes the parameter makes new versions, and changes none."""
    write(directory, at("/foundationModels", ["${ModelPrefix}anthropic.claude-sonnet-5-5"]))

    def models(**values: str) -> list[str]:
        (definition,) = read(directory, {**SUBSTITUTIONS, **values})
        found: list[str] = json.loads(definition.text)["foundationModels"]
        return found

    assert models(ModelPrefix="eu.") == ["eu.anthropic.claude-sonnet-5-5"]
    assert models(ModelPrefix="") == ["anthropic.claude-sonnet-5-5"]
    with pytest.raises(AgentFilesBroken, match=r"/foundationModels/0: \$\{ModelPrefix\} has no value; known are: "):
        models()
