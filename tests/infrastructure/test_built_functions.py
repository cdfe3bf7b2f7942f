"""What the Makefiles build, started as Lambda starts it: artifacts in /var/task, the layers in /opt, nothing else.

`sam build` runs the same targets, for the platform of the template; here they are built for this machine, whose Python
has to be able to import them.
"""

import json
import platform
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.deployment.parameters import resolver_for
from local.deployment.sam_yaml import load_template, transform
from local.lambda_workers import FunctionSpec, LambdaWorkers
from tests.paths import ROOT
from tests.waiting import eventually

pytestmark = pytest.mark.whole


def this_platform() -> str:
    """As pip names it."""
    if sys.platform == "linux":
        return f"manylinux2014_{platform.machine()}"
    return re.sub("[-.]", "_", sysconfig.get_platform())


class Built:
    """The template's functions, from what is built, one artifact for all that have the same code."""

    def __init__(self, folder: Path) -> None:
        self.log: list[str] = []
        self.workers = LambdaWorkers(lambda spec, line: self.log.append(f"{spec.name}: {line}"))
        template = load_template(ROOT / "template.yaml")
        document = transform(template)
        resolver = resolver_for(template, document)
        self._layer = self._made(folder, "DependenciesLayer", "functions/runtime")
        artifacts: dict[str, Path] = {}
        self.functions: dict[str, FunctionSpec] = {}
        for name, resource in document["Resources"].items():
            if resource["Type"] != "AWS::Lambda::Function":
                continue
            properties = resolver.resolve(resource["Properties"])
            code = properties["Code"]["S3Key"]
            if code not in artifacts:
                artifacts[code] = self._made(folder, name, code)
            variables = properties["Environment"]["Variables"]
            self.functions[name] = FunctionSpec(
                name=name,
                arn=f"arn:aws:lambda:us-east-1:123456789012:function:{name}",
                handler=properties["Handler"],
                code_root=artifacts[code],
                environment={key: value if isinstance(value, str) else "none" for key, value in variables.items()},
                timeout_seconds=30,
                memory_mb=512,
                log_group="/test/functions",
                layers=tuple(self._content(layer["Ref"], document) for layer in properties.get("Layers", ())),
            )

    def _content(self, layer: str, document: dict[str, Any]) -> Path:
        if layer.startswith("DependenciesLayer"):
            return self._layer
        return ROOT / str(document["Resources"][layer]["Properties"]["Content"]["S3Key"])

    def _made(self, folder: Path, resource: str, source: str) -> Path:
        artifact = folder / resource
        artifact.mkdir()
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        variables = (f"PYTHON={sys.executable}", f"PYTHON_VERSION={version}", f"PLATFORM={this_platform()}")
        command = ["make", "-C", str(ROOT / source), f"build-{resource}", f"ARTIFACTS_DIR={artifact}", *variables]
        subprocess.run(command, check=True, capture_output=True)
        return artifact


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    built = Built(tmp_path_factory.mktemp("built"))
    yield built
    built.workers.close()


def test_every_function_starts(built: Built) -> None:
    for spec in built.functions.values():
        built.workers.warm(spec)
    eventually(lambda: not built.workers.starting(), "the end of each start", 120)
    started = {process.name for process in built.workers.processes()}
    assert started == built.functions.keys(), built.log


def test_a_tool_answers(built: Built) -> None:
    event = {
        "messageVersion": "1.0",
        "agent": {"name": "a", "id": "A", "alias": "live", "version": "1"},
        "inputText": "",
        "sessionId": "s",
        "actionGroup": "BankingTools",
        "function": "get_account_balance",
        "parameters": [{"name": "account_id", "type": "string", "value": "12345"}],
        "sessionAttributes": {},
        "promptSessionAttributes": {},
    }
    result = built.workers.invoke(built.functions["BankingToolsFunction"], json.dumps(event).encode())
    assert result.function_error is None, built.log
    assert "48392.5" in json.loads(result.payload)["response"]["functionResponse"]["responseBody"]["TEXT"]["body"]


@pytest.mark.parametrize("name", ["InvokeAgentFunction", "MemoryEventsFunction"])
def test_a_streaming_function_answers_through_its_wrapper(built: Built, name: str) -> None:
    spec = built.functions[name]
    assert spec.environment["AWS_LAMBDA_EXEC_WRAPPER"] == "/var/task/stream_responses"
    event = {
        "httpMethod": "POST",
        "path": "/memories/m/actors",
        "resource": "/memories/{memoryId}/actors",
        "headers": {},
        "pathParameters": {"agentId": "not an id", "agentAliasId": "live", "sessionId": "s", "memoryId": "not an id"},
        "requestContext": {"requestId": "r", "identity": {}, "operationName": "ListActors"},
        "body": "{}",
        "isBase64Encoded": False,
    }
    answer = built.workers.invoke_streaming(spec, json.dumps(event).encode())
    head, _, body = b"".join(answer).partition(b"\0" * 8)
    assert answer.error is None, built.log
    assert answer.streaming
    assert json.loads(head)["statusCode"] == 400, body
    assert json.loads(body)["message"]
