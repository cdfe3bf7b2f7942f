"""What `make check` says of functions that would not find a module, and of tools that would not be invoked."""

import json
from pathlib import Path
from typing import Any

import pytest

from local.deployment.check import main
from local.deployment.imports import check_imports
from local.deployment.parameters import check_parameters, overrides
from local.deployment.sam_yaml import TemplateError, load_template, transform
from local.deployment.tool_permissions import check_tool_permissions
from tests.paths import ROOT

pytestmark = pytest.mark.usefixtures("linted_once")

HANDLER = "def handler(event, context): ...\n"


class Project:
    """A small project: a function Work, with code/requirements.txt, and a gateway that may invoke it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("code/work.py", HANDLER)
        self.write("code/requirements.txt", "jsonschema==4.26.0\n")
        self.write("gateway/invoke.py", HANDLER)
        self.resources: dict[str, Any] = {
            "Work": self.function("code", "work.handler"),
            "InvokeToolFunction": self.function("gateway", "invoke.handler"),
            "PublishedAgents": {
                "Type": "Custom::PublishedAgents",
                "Properties": {
                    "ServiceToken": "none",
                    "Substitutions": {"WorkArn": {"Fn::GetAtt": ["Work", "Arn"]}, "BucketName": {"Ref": "Bucket"}},
                },
            },
            "Bucket": {"Type": "AWS::S3::Bucket"},
        }
        self.allow({"Fn::GetAtt": ["Work", "Arn"]})
        self.more: dict[str, Any] = {}

    def function(self, code: str, handler: str) -> dict[str, Any]:
        properties = {"CodeUri": code, "Handler": handler, "Runtime": "python3.13"}
        return {"Type": "AWS::Serverless::Function", "Properties": properties}

    def layer(self, folder: str) -> dict[str, Any]:
        metadata = {"BuildMethod": "makefile"}
        return {"Type": "AWS::Serverless::LayerVersion", "Metadata": metadata, "Properties": {"ContentUri": folder}}

    def allow(self, *resources: Any, action: Any = "lambda:InvokeFunction", effect: str = "Allow") -> None:
        statement = {"Effect": effect, "Action": action, "Resource": [*resources]}
        policies = self.resources["InvokeToolFunction"]["Properties"].setdefault("Policies", [])
        policies.append({"Statement": [statement]})

    def forbid(self) -> None:
        self.resources["InvokeToolFunction"]["Properties"]["Policies"] = []

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def template(self) -> Path:
        document = {"Transform": "AWS::Serverless-2016-10-31", "Resources": self.resources, **self.more}
        self.write("template.json", json.dumps(document, indent=1))
        return self.folder / "template.json"

    def imports(self) -> list[str]:
        """What is said of modules, the project's folder left out."""
        template = load_template(self.template())
        return [line.replace(f"{self.folder}/", "") for line in check_imports(template, transform(template))]

    def permissions(self, *executors: str) -> list[str]:
        """What is said of an agent with these executors."""
        template = load_template(self.template())
        agent = {"actionGroups": [{"actionGroupExecutor": {"lambda": executor}} for executor in executors]}
        document = transform(template, overrides(self.folder))
        return list(check_tool_permissions(template, document, {"agents/a.json": agent}))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


NOT_REQUIRED = (
    "is neither in Python 3.13 and boto3, as Lambda has them, nor required: add its package to code/requirements.txt"
)


@pytest.mark.parametrize(
    "text",
    [
        "import json, boto3, botocore.config, jsonschema, attrs, referencing.jsonschema",
        "from urllib import request\nfrom boto3.session import Session",
        "import near, near.inner.more\nfrom near.inner import more, ANSWER\nfrom near import inner",
        "try:\n    import ujson\nexcept ImportError:\n    import json as ujson",
        "try:\n    import ujson\nexcept (AttributeError, ModuleNotFoundError):\n    ujson = None",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import moto",
        "import typing\nif typing.TYPE_CHECKING:\n    import moto",
    ],
)
def test_what_a_function_may_import(project: Project, text: str) -> None:
    project.write("code/near/__init__.py", "from . import inner\nfrom .inner import ANSWER\n")
    project.write("code/near/inner/__init__.py", "from .. import inner\nANSWER = 42\n")
    project.write("code/near/inner/more.py", "")
    project.write("code/work.py", f"{text}\n{HANDLER}")
    assert project.imports() == []


@pytest.mark.parametrize(
    ("text", "line", "module"),
    [
        ("import moto", 1, "moto"),
        ("import json, yaml", 1, "yaml"),
        ("import json\nfrom moto.core import config", 2, "moto.core"),
        ("def handler(event, context):\n    import pytest", 2, "pytest"),
        ("class A:\n    if True:\n        import pytest", 3, "pytest"),
        ("try:\n    import moto\nexcept ValueError:\n    pass", 2, "moto"),
        ("try:\n    pass\nexcept ImportError:\n    pass\nelse:\n    import moto", 6, "moto"),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    pass\nelse:\n    import moto", 5, "moto"),
        ("import telnetlib", 1, "telnetlib"),
        ("import nowhere", 1, "nowhere"),
        ("import requirements", 1, "requirements"),
    ],
)
def test_a_module_that_nothing_brings_is_named_with_its_line(
    project: Project, text: str, line: int, module: str
) -> None:
    project.write("code/work.py", f"{text}\n{HANDLER}")
    assert project.imports() == [f"code/work.py:{line}: the module {module} {NOT_REQUIRED}"]


def test_a_module_is_named_wherever_it_is_imported_from_the_handler_on_and_nowhere_else(project: Project) -> None:
    project.write("code/work.py", f"import near.inner\n{HANDLER}")
    project.write("code/near/__init__.py", "from . import beside\n")
    project.write("code/near/beside.py", "import moto\nimport moto.core\n")
    project.write("code/near/inner.py", "from ..near import moto_too\nimport yaml\n")
    project.write("code/near/moto_too.py", "import moto\n")
    project.write("code/unused.py", "import moto\n")
    project.resources["Again"] = project.function("code", "work.handler")
    assert sorted(project.imports()) == [
        f"code/near/beside.py:1: the module moto {NOT_REQUIRED}",
        f"code/near/inner.py:2: the module yaml {NOT_REQUIRED}",
        f"code/near/moto_too.py:1: the module moto {NOT_REQUIRED}",
    ]


def test_a_package_that_only_this_python_needs_is_not_there_on_lambda(project: Project) -> None:
    project.write("code/requirements.txt", 'PyYAML; python_version < "3.13"\njmespath; platform_machine == "aarch64"\n')
    project.write("code/work.py", f"import jmespath\nimport yaml\n{HANDLER}")
    assert project.imports() == [f"code/work.py:2: the module yaml {NOT_REQUIRED}"]


def test_a_function_without_requirements_is_told_where_they_belong(project: Project) -> None:
    project.write("gateway/invoke.py", f"import jsonschema\n{HANDLER}")
    assert project.imports() == [
        f"gateway/invoke.py:1: the module jsonschema {NOT_REQUIRED.replace('code/', 'gateway/')}"
    ]


def test_the_requirements_of_a_layer_count_for_the_functions_that_have_it(project: Project) -> None:
    project.write("code/work.py", f"import jsonschema\n{HANDLER}")
    project.write("gateway/invoke.py", f"import jsonschema\n{HANDLER}")
    project.resources["Dependencies"] = project.layer("code")
    project.resources["InvokeToolFunction"]["Properties"]["Layers"] = [{"Ref": "Dependencies"}]
    (problem,) = project.imports()
    assert problem == (
        "code/work.py:1: the module jsonschema is not there for Work, which has no layer Dependencies: "
        "add it to the function's Layers"
    )
    project.resources["Work"]["Properties"]["Layers"] = [{"Ref": "Dependencies"}]
    assert project.imports() == []


def test_the_files_of_a_layer_that_is_not_built_are_looked_into(project: Project) -> None:
    project.write("files/python/shared.py", "import moto\n")
    project.write("code/work.py", f"import shared\n{HANDLER}")
    project.resources["Files"] = {"Type": "AWS::Serverless::LayerVersion", "Properties": {"ContentUri": "files"}}
    project.resources["Work"]["Properties"]["Layers"] = [{"Ref": "Files"}]
    assert project.imports() == [f"files/python/shared.py:1: the module moto {NOT_REQUIRED}"]


def test_what_somebody_elses_layer_has_is_not_guessed(project: Project) -> None:
    project.write("code/work.py", f"import pandas\n{HANDLER}")
    project.resources["Work"]["Properties"]["Layers"] = ["arn:aws:lambda:us-east-1:336392948345:layer:pandas:1"]
    assert project.imports() == []


def test_a_requirement_a_handler_and_a_file_that_cannot_be_used_are_named(project: Project) -> None:
    project.write("code/requirements.txt", "jsonschema\nno-such-package\n")
    project.write("gateway/invoke.py", "def handler(:\n")
    project.resources["Lost"] = project.function("code", "lost.handler")
    lines = project.imports()
    assert "code/requirements.txt:2: no-such-package is not installed here" in lines[0]
    assert lines[1] == "gateway/invoke.py:1: is not Python: invalid syntax"
    line = project.template().read_text().splitlines().index('  "Lost": {') + 1
    assert lines[2] == f"template.json:{line}: Lost: the handler lost.handler is not in code"


@pytest.mark.parametrize("imported", ["no_such_package", "another_name.of_it"])
def test_a_module_that_a_package_may_bring_which_is_not_installed_here_is_not_said_to_be_required_by_nothing(
    project: Project, imported: str
) -> None:
    project.write("code/requirements.txt", "jsonschema\nno-such-package==1.0\n")
    project.write("code/work.py", f"import {imported}\n{HANDLER}")

    first, second = project.imports()

    assert "code/requirements.txt:2: no-such-package is not installed here" in first
    rule = "is in nothing that is installed here; no-such-package may bring it, and is not installed"
    assert second == f"code/work.py:1: the module {imported} {rule}"


# ---- Permissions ----

OUTSIDE = "arn:aws:lambda:eu-west-1:210987654321:function:claims"
PLACE = "agents/a.json: /actionGroups/0/actionGroupExecutor/lambda: InvokeToolFunction may not invoke "
TO_ALLOW = "add lambda:InvokeFunction on !GetAtt Work.Arn to its Policies in template.yaml"


def test_a_function_that_the_gateway_may_invoke(project: Project) -> None:
    assert project.permissions("${WorkArn}") == []


def test_a_function_that_the_gateway_may_not_invoke_is_named_with_what_to_add(project: Project) -> None:
    project.forbid()
    assert project.permissions("${WorkArn}") == [f"{PLACE}${{WorkArn}}: {TO_ALLOW}"]


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("lambda:InvokeFunction", "*"),
        ("lambda:*", {"Fn::GetAtt": ["Work", "Arn"]}),
        (["sqs:SendMessage", "lambda:invokefunction"], {"Fn::Sub": "${Work.Arn}"}),
        ("*", {"Fn::Sub": "arn:${AWS::Partition}:lambda:${AWS::Region}:${AWS::AccountId}:function:Wor?"}),
    ],
)
def test_a_policy_may_say_it_in_other_words(project: Project, action: Any, resource: Any) -> None:
    project.forbid()
    project.allow(resource, action=action)
    assert project.permissions("${WorkArn}") == []


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("lambda:InvokeFunctionUrl", "*"),
        ("lambda:GetFunction", {"Fn::GetAtt": ["Work", "Arn"]}),
        ("lambda:InvokeFunction", {"Fn::GetAtt": ["InvokeToolFunction", "Arn"]}),
        ("lambda:InvokeFunction", {"Fn::Sub": "${Work.Arn}:live"}),
        ("lambda:InvokeFunction", "arn.aws:lambda:us-east-1:123456789012:function:Work"),
    ],
)
def test_a_policy_for_something_else_does_not_do(project: Project, action: Any, resource: Any) -> None:
    project.forbid()
    project.allow(resource, action=action)
    assert project.permissions("${WorkArn}") == [f"{PLACE}${{WorkArn}}: {TO_ALLOW}"]


def test_a_statement_that_denies_wins(project: Project) -> None:
    project.allow("*", effect="Deny")
    assert project.permissions("${WorkArn}") != []


def test_an_alias_of_a_function_has_an_arn_of_its_own(project: Project) -> None:
    project.resources["Work"]["Properties"]["AutoPublishAlias"] = "live"
    substitutions = project.resources["PublishedAgents"]["Properties"]["Substitutions"]
    substitutions["WorkArn"] = {"Ref": "Work.Alias"}
    assert len(project.permissions("${WorkArn}")) == 1
    project.allow({"Ref": "Work.Alias"})
    assert project.permissions("${WorkArn}") == []


def test_sams_own_policy_and_one_beside_the_function_count(project: Project) -> None:
    project.forbid()
    properties = project.resources["InvokeToolFunction"]["Properties"]
    properties["Policies"] = [{"LambdaInvokePolicy": {"FunctionName": {"Ref": "Work"}}}]
    assert project.permissions("${WorkArn}") == []
    project.forbid()
    document = {"Statement": [{"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": "*"}]}
    project.resources["Beside"] = {
        "Type": "AWS::IAM::Policy",
        "Properties": {
            "PolicyName": "beside",
            "PolicyDocument": document,
            "Roles": [{"Ref": "InvokeToolFunctionRole"}],
        },
    }
    assert project.permissions("${WorkArn}") == []


def test_each_of_an_agents_tools_is_looked_at(project: Project) -> None:
    places = [line.split(": ")[1] for line in project.permissions(OUTSIDE, "${WorkArn}", OUTSIDE)]
    assert places == [f"/actionGroups/{position}/actionGroupExecutor/lambda" for position in (0, 2)]


@pytest.mark.parametrize(
    "written",
    [
        f'"ToolFunctionArns={OUTSIDE} LogLevel=INFO"',
        f"\"LogLevel=INFO ToolFunctionArns='{OUTSIDE}:1,{OUTSIDE}'\"",
        f'["LogLevel=INFO", "ToolFunctionArns={OUTSIDE},{OUTSIDE}:1"]',
        f'"ToolFunctionArns={OUTSIDE.replace("claims", "*")}"',
    ],
)
def test_a_function_outside_is_invoked_when_the_deployment_names_it(project: Project, written: str) -> None:
    project.more = {"Parameters": {"ToolFunctionArns": {"Type": "CommaDelimitedList", "Default": ""}}}
    project.more["Conditions"] = {
        "Others": {"Fn::Not": [{"Fn::Equals": [{"Fn::Join": ["", {"Ref": "ToolFunctionArns"}]}, ""]}]}
    }
    policy = {"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": {"Ref": "ToolFunctionArns"}}
    project.resources["InvokeToolFunction"]["Properties"]["Policies"] = [
        {"Statement": [{"Fn::If": ["Others", policy, {"Ref": "AWS::NoValue"}]}]}
    ]
    (problem,) = project.permissions(OUTSIDE)
    assert problem == (
        f"{PLACE}{OUTSIDE}: deploy with ToolFunctionArns={OUTSIDE}, which belongs into parameter_overrides of "
        "[default.deploy.parameters] in samconfig.toml"
    )
    project.write("samconfig.toml", f"version = 0.1\n[default.deploy.parameters]\nparameter_overrides = {written}\n")
    assert project.permissions(OUTSIDE) == []


def test_a_file_of_parameters_that_cannot_be_read_is_named(project: Project) -> None:
    project.write("samconfig.toml", "version = \n")
    with pytest.raises(TemplateError, match=r"samconfig\.toml: is not TOML: Invalid value \(at line 1"):
        overrides(project.folder)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (f"ToolFunctionArns={OUTSIDE},{OUTSIDE}:*", f"ToolFunctionArns is {OUTSIDE}:*; each is the whole ARN"),
        ("KmsKeyArn=alias/mine", "KmsKeyArn is alias/mine; it is the ARN of a key"),
        ("LogLevel=LOUD", "LogLevel is LOUD; allowed are DEBUG, INFO, WARN, ERROR"),
        ("MaxOpenStreams=-1", "MaxOpenStreams is -1; it is outside of its MinValue or MaxValue"),
        ("TurnsPerSecond=many", "TurnsPerSecond is many; it must be a number"),
        ("KmsKey=x", "KmsKey is no parameter of template.yaml"),
        (f"ToolFunctionArns={OUTSIDE} KmsKeyArn= MaxOpenStreams=40", None),
    ],
)
def test_parameters_that_the_deployment_would_refuse_or_drop_are_named(
    tmp_path: Path, given: str, told: str | None
) -> None:
    (tmp_path / "template.yaml").symlink_to(ROOT / "template.yaml")
    config = tmp_path / "samconfig.toml"
    config.write_text(f'version = 0.1\n[default.deploy.parameters]\nparameter_overrides = "{given}"\n')
    found = list(check_parameters(load_template(tmp_path / "template.yaml")))
    assert len(found) == (told is not None)
    assert all(line.startswith(f"{config}: parameter_overrides: {told}") for line in found)


def test_the_command_says_all_of_this_projects_template(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("functions", "statemachines"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "agents").mkdir()
    for path in (ROOT / "agents").iterdir():
        text = path.read_text().replace("${BankingToolsFunctionArn}", "${OtherArn}")
        (tmp_path / "agents" / path.name).write_text(text)
    other = "OtherArn: !GetAtt PublishAgentsFunction.Arn\n        BankingToolsFunctionArn:"
    text = (ROOT / "template.yaml").read_text().replace("BankingToolsFunctionArn:", other)
    template = tmp_path / "template.yaml"
    template.write_text(text.replace("      CodeUri: functions/banking_tools\n", "      CodeUri: banking\n"))
    (tmp_path / "banking").mkdir()
    (tmp_path / "banking" / "banking_tools.py").write_text(f"import moto\n{HANDLER}")
    config = tmp_path / "samconfig.toml"
    config.write_text('[default.deploy.parameters]\nparameter_overrides = "LogKmsKeyArn=x"\n')
    assert main([str(template)]) == 1
    parameter, module, permission = capsys.readouterr().out.splitlines()
    assert parameter == f"{config}: parameter_overrides: LogKmsKeyArn is no parameter of template.yaml"
    assert module.startswith(f"{tmp_path}/banking/banking_tools.py:1: the module moto is ")
    assert module.endswith(f": add its package to {tmp_path}/banking/requirements.txt")
    assert permission == (
        "agents/banking_assistant.json: /actionGroups/0/actionGroupExecutor/lambda: InvokeToolFunction may not invoke "
        "${OtherArn}: add lambda:InvokeFunction on !GetAtt PublishAgentsFunction.Arn to its Policies in template.yaml"
    )
