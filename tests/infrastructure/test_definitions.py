import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from local.deployment.check import main
from local.deployment.definitions import (
    Definition,
    DefinitionError,
    check_definition,
    check_template,
    definition_version,
    lint_definition,
)
from local.deployment.sam_yaml import load_template
from tests.paths import ROOT

pytestmark = pytest.mark.usefixtures("linted_once")

SOUND: dict[str, Any] = {
    "Comment": "Arithmetic in a comment is fine: {% 1 + ${Any} arn:aws:lambda:",
    "QueryLanguage": "JSONata",
    "StartAt": "Fetch Order",
    "States": {
        "Fetch Order": {
            "Type": "Task",
            "Resource": "arn:${Partition}:states:::lambda:invoke",
            "Arguments": {"FunctionName": "${FetchOrderFunctionArn}", "Payload": "{% $states.input %}"},
            "TimeoutSeconds": "{% $states.input.seconds %}",
            "Retry": [{"ErrorEquals": ["States.Timeout"], "MaxAttempts": 2}],
            "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Give Up"}],
            "Next": "Any Items?",
        },
        "Any Items?": {
            "Type": "Choice",
            "Choices": [{"Condition": "{% $count($states.input.items) > 0 %}", "Next": "Pack Items"}],
            "Default": "Give Up",
        },
        "Pack Items": {
            "Type": "Map",
            "Items": "{% $states.input.items %}",
            "MaxConcurrency": "{% $states.input.width %}",
            "ItemProcessor": {
                "ProcessorConfig": {"Mode": "INLINE"},
                "StartAt": "Pack Item",
                "States": {"Pack Item": {"Type": "Pass", "End": True}},
            },
            "Next": "Ship And Bill",
        },
        "Ship And Bill": {
            "Type": "Parallel",
            "Branches": [
                {"StartAt": "Ship", "States": {"Ship": {"Type": "Pass", "End": True}}},
                {"StartAt": "Bill", "States": {"Bill": {"Type": "Pass", "End": True}}},
            ],
            "End": True,
        },
        "Give Up": {"Type": "Fail", "Error": "OrderNotPacked"},
    },
}
LITERAL = "an ARN is written out: use a substitution"
SUBSTITUTIONS = ["FetchOrderFunctionArn", "Partition"]

Change = Callable[[dict[str, Any]], None]


def definition_of(document: Any) -> Definition:
    return Definition("order.asl.json", json.dumps(document, indent=2))


def problems_of(change: Change) -> list[str]:
    document = deepcopy(SOUND)
    change(document["States"])
    return [f"{problem.place}: {problem.rule}" for problem in check_definition(definition_of(document), SUBSTITUTIONS)]


def test_the_definitions_of_this_project_have_no_problem() -> None:
    assert check_template(load_template(ROOT / "template.yaml")) == []


def test_a_sound_definition_has_no_problem() -> None:
    definition = definition_of(SOUND)
    assert check_definition(definition, SUBSTITUTIONS) == []
    assert lint_definition(definition) == []


def put(*path_and_value: Any) -> Change:
    """A change that sets the value at the end at the path before it."""
    *path, key, value = path_and_value

    def change(states: dict[str, Any]) -> None:
        node: Any = states
        for part in path:
            node = node[part]
        node[key] = value

    return change


def drop(*path: Any) -> Change:
    *parents, key = path

    def change(states: dict[str, Any]) -> None:
        node: Any = states
        for part in parents:
            node = node[part]
        del node[key]

    return change


PACK_ITEM = ("Pack Items", "ItemProcessor", "States", "Pack Item")
BRANCH = ("Ship And Bill", "Branches", 1)
PASS = {"Type": "Pass", "End": True}
NO_STATE = "there is no state 'Nowhere' here"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (put("Fetch Order", "Catch", 0, "Next", "Nowhere"), [f"Fetch Order / Catch / 0 / Next: {NO_STATE}"]),
        (
            put("Any Items?", "Choices", 0, "Next", "Ship And Bill"),
            ["Pack Items: no state leads here"],
        ),
        (put("Any Items?", "Default", "Nowhere"), [f"Any Items? / Default: {NO_STATE}"]),
        (
            put("Pack Items", "ItemProcessor", "StartAt", "Nowhere"),
            [
                f"Pack Items / StartAt: {NO_STATE}",
                "Pack Items / Pack Item: no state leads here",
            ],
        ),
        (
            put(*BRANCH, "States", "Bill", {"Type": "Pass", "Next": "Give Up"}),
            ["Ship And Bill / Branches / 1 / Bill / Next: there is no state 'Give Up' here"],
        ),
        (
            drop("Any Items?", "Choices", 0, "Next"),
            [
                "Any Items? / Choices / 0: there is no state None here",
                "Pack Items: no state leads here",
                "Ship And Bill: no state leads here",
            ],
        ),
        (put(*PACK_ITEM, {"Type": "Pass"}), ["Pack Items / Pack Item: the state has neither Next nor End"]),
        (
            drop("Fetch Order", "TimeoutSeconds"),
            ["Fetch Order: a Task needs TimeoutSeconds: without it, it may wait a year"],
        ),
        (
            put("Fetch Order", "Comment", "The comment stands behind Next"),
            [
                (
                    "Fetch Order: its keys are in another order than Type, Comment, Resource, Arguments, "
                    "TimeoutSeconds, Retry, Catch, Next"
                )
            ],
        ),
        (
            put(*PACK_ITEM, "Output", "{% $states.input. %}"),
            [
                (
                    "Pack Items / Pack Item / Output: the JSONata expression does not parse: "
                    "Unexpected end of expression at character 16"
                )
            ],
        ),
        (
            put(*PACK_ITEM, "Output", {"a": ["{% /* no end %}"]}),
            [
                (
                    "Pack Items / Pack Item / Output / a / 0: the JSONata expression does not parse: "
                    "Unexpected end of expression"
                )
            ],
        ),
        (
            put(*PACK_ITEM, "Output", "item {% $states.input %}"),
            ["Pack Items / Pack Item / Output: JSONata fills a whole string, from {% to %}: this would stay text"],
        ),
        (
            put("Fetch Order", "Arguments", "FunctionName", "${FetchFunctionArn}"),
            ["Fetch Order / Arguments / FunctionName: the template has no substitution for ${FetchFunctionArn}"],
        ),
        (
            put("Fetch Order", "Resource", "arn:aws:lambda:us-east-1:123456789012:function:fetch"),
            [f"Fetch Order / Resource: {LITERAL}"],
        ),
        (
            put("Fetch Order", "Arguments", "Payload", "arn:aws-cn:sqs:cn-north-1:123456789012:orders"),
            [f"Fetch Order / Arguments / Payload: {LITERAL}"],
        ),
        (
            put("Fetch Order", "Next", "any items?"),
            [
                "Fetch Order / Next: there is no state 'any items?' here",
                "Any Items?: no state leads here",
                "Pack Items: no state leads here",
                "Ship And Bill: no state leads here",
            ],
        ),
        (
            put("Pack Items", "ItemProcessor", {"StartAt": "packItem", "States": {"packItem": PASS}}),
            ["Pack Items / packItem: a state's name is words in Title Case"],
        ),
        (
            put("Pack Items", "ItemProcessor", {"StartAt": "Pack Item?", "States": {"Pack Item?": PASS}}),
            ["Pack Items / Pack Item?: a Choice is a question, and nothing else is: its name ends with ?"],
        ),
        (
            put("Pack Items", "ItemProcessor", {"StartAt": "Bill", "States": {"Bill": PASS}}),
            ["Ship And Bill / Branches / 1 / Bill: the name stands at Pack Items / Bill too"],
        ),
    ],
)
def test_a_broken_rule_is_named_with_its_place(change: Change, expected: list[str]) -> None:
    assert sorted(problems_of(change)) == sorted(expected)


def test_what_only_cfn_lint_knows_is_found_at_its_line() -> None:
    document = deepcopy(SOUND)
    document["States"]["Fetch Order"]["Retry"][0]["MaxAttempts"] = "twice"
    definition = definition_of(document)
    (problem,) = lint_definition(definition)
    line = next(n for n, text in enumerate(json.dumps(document, indent=2).splitlines(), 1) if "twice" in text)
    assert str(problem) == (
        f"order.asl.json:{line}: Fetch Order / Retry / 0 / MaxAttempts: 'twice' is not of type 'number' (E3601)"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{\n  "States": {\n    "A": {}\n    "B": {}\n  }\n}', "order.asl.json:4: is not valid JSON: "),
        ('{"Seconds": ${Seconds}}', "order.asl.json:1: is not valid JSON: "),
        ("[]", "order.asl.json:1: is not a JSON object"),
        ('{\n "A": 1,\n "A": 2\n}', "order.asl.json:3: A: the key stands in line 2 too"),
    ],
)
def test_a_definition_that_is_not_one_json_object_is_named_with_its_line(text: str, expected: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        Definition("order.asl.json", text)
    assert str(caught.value).startswith(expected)


def project(folder: Path, change: Callable[[str], str], *, template: Callable[[str], str] = str) -> Path:
    """A copy of the template and its definition, both changed as text."""
    definitions = folder / "statemachines"
    shutil.copytree(ROOT / "statemachines", definitions)
    file = definitions / "agent_turn.asl.json"
    file.write_text(change(file.read_text()))
    shutil.copytree(ROOT / "agents", folder / "agents")
    (folder / "functions").symlink_to(ROOT / "functions")
    copied = folder / "template.yaml"
    copied.write_text(template((ROOT / "template.yaml").read_text()))
    return copied


def test_the_command_names_file_line_place_and_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    template = project(tmp_path, lambda text: text.replace('"Next": "Tools Requested?"', '"Next": "Tools?"'))
    definition = tmp_path / "statemachines/agent_turn.asl.json"
    assert main([str(template)]) == 1
    lines = capsys.readouterr().out.splitlines()
    wrong = next(n for n, text in enumerate(definition.read_text().splitlines(), 1) if '"Tools?"' in text)
    assert f"{definition}:{wrong}: Invoke Model / Next: there is no state 'Tools?' here" in lines


def test_the_command_is_content_with_this_project(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(ROOT / "template.yaml")]) == 0
    assert capsys.readouterr().out == ""


def test_an_arn_of_one_partition_is_named(tmp_path: Path) -> None:
    template = project(tmp_path, lambda text: text.replace("${Partition}", "aws", 1))
    places = [problem.place for problem in check_template(load_template(template)) if "${Partition}" in problem.rule]
    assert places == ["Load Memory / Resource"]


def test_a_substitution_that_nothing_uses_is_named(tmp_path: Path) -> None:
    unused = "DefinitionSubstitutions:\n        UnusedFunctionArn: x"
    template = project(tmp_path, str, template=lambda text: text.replace("DefinitionSubstitutions:", unused, 1))
    (problem,) = check_template(load_template(template))
    assert problem.file == str(template)
    assert problem.rule == "agent_turn.asl.json has no ${UnusedFunctionArn}"
    assert problem.line == template.read_text().splitlines().index("        UnusedFunctionArn: x") + 1


def test_every_definition_of_the_template_is_checked_and_one_without_a_state_machine_is_named(tmp_path: Path) -> None:
    template = project(tmp_path, str)
    second = tmp_path / "statemachines/order.asl.json"
    document = deepcopy(SOUND)
    document["States"]["Give Up"]["Next"] = "Nowhere"
    second.write_text(json.dumps(document, indent=2))
    assert [(problem.file, problem.rule) for problem in check_template(load_template(template))] == [
        (str(second), "no state machine of template.yaml has this definition")
    ]
    machine = (
        "  OrderStateMachine:\n    Type: AWS::Serverless::StateMachine\n    Properties:\n"
        "      DefinitionUri: statemachines/order.asl.json\n"
        "      DefinitionSubstitutions: {FetchOrderFunctionArn: x, Partition: aws}\n"
    )
    template.write_text(template.read_text().replace("Resources:\n", f"Resources:\n{machine}", 1))
    rules = [problem.rule for problem in check_template(load_template(template)) if problem.file == str(second)]
    assert "there is no state 'Nowhere' here" in rules


def test_a_missing_definition_and_a_missing_template_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    template = project(tmp_path, str)
    definition = tmp_path / "statemachines/agent_turn.asl.json"
    definition.unlink()
    assert main([str(template)]) == 1
    assert capsys.readouterr().out == f"{definition}: cannot be read: No such file or directory\n"
    template.unlink()
    assert main([str(template)]) == 1
    assert capsys.readouterr().out == f"{template}: cannot be read: No such file or directory\n"


def test_a_changed_definition_must_say_its_new_version() -> None:
    file = ROOT / "statemachines/agent_turn.asl.json"
    document = json.loads(file.read_text())
    written = document["States"]["Load Memory"]["Arguments"]["Payload"]["definitionVersion"]
    assert written == definition_version(document)
    document["TimeoutSeconds"] = 901
    assert definition_version(document) != written


NOTHING_RAN = {"CommitConflict", "StorageUnavailable", "Lambda.TooManyRequestsException"}
"""After these a task may always be run again."""

PLATFORM = {
    "Lambda.AWSLambdaException",
    "Lambda.ClientExecutionTimeoutException",
    "Lambda.SdkClientException",
    "Lambda.ServiceException",
    "Lambda.Unknown",
    "Runtime.ExitError",
    "Runtime.OutOfMemory",
    "Sandbox.Timedout",
    "States.Timeout",
}
"""Lambda's own faults, after which the task may have run. Source: "Handle Lambda service exceptions" in the guide of
Step Functions, and how Lambda names what becomes of a function.
"""


def tasks(states: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, state in states.items():
        if state["Type"] == "Task":
            yield name, state
        if state["Type"] == "Map":
            yield from tasks(state["ItemProcessor"]["States"])


def test_every_task_is_run_again_after_what_passes_but_a_tool_after_what_may_have_come_behind_it() -> None:
    seen = set()
    for file in sorted((ROOT / "statemachines").glob("*.json")):
        for name, state in tasks(json.loads(file.read_text())["States"]):
            retried = {error for entry in state["Retry"] for error in entry["ErrorEquals"]}
            caught = {error for entry in state.get("Catch", ()) for error in entry["ErrorEquals"]}
            assert retried >= NOTHING_RAN, name
            assert "StorageUnavailable" not in caught, name
            if name == "Invoke Tool":
                assert not retried & PLATFORM
                assert caught >= PLATFORM
            else:
                assert retried >= PLATFORM, name
            seen.add(name)
    assert len(seen) == 11
