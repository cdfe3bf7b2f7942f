"""`--stack=aws:STACK_NAME`, with the offline stack in the place of AWS: the shared tests find and pass it by itself."""

import os
import re
import subprocess
import sys
from collections.abc import Callable

import boto3
import pytest

from local.stack import STACK_NAME, LocalStack
from tests.api.test_make_up import CREDENTIALS, Up, start
from tests.paths import ROOT
from tests.stacks import AwsStack, signing
from tests.waiting import patient

__all__ = ["start"]

PYTEST_SECONDS = 300


def test_a_stack_is_found_by_its_name(stack: LocalStack, credentials: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", stack.aws_url)
    found = AwsStack(STACK_NAME)
    assert (found.url, found.outputs) == (stack.url, stack.outputs)
    assert stack.resources.keys() - found.resources.keys() == {"PublishedAgents"}, "what moto does not carry"
    assert found.resources.items() <= stack.resources.items()
    assert found.execution_arn("name") == stack.execution_arn("name")


def test_clients_of_a_deployed_stack_alone_sign_for_api_gateway(
    stack: LocalStack, credentials: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", stack.aws_url)
    names: list[str] = []
    for world in (stack, AwsStack(STACK_NAME)):
        client = signing(world, boto3.session.Session().client("bedrock-agentcore-control", endpoint_url=world.url))
        client.meta.events.register(
            "before-send", lambda request, **_: names.append(request.headers["Authorization"].decode().split("/")[3])
        )
        client.list_memories()
    assert names == ["bedrock-agentcore", "execute-api"]


def test_the_tests_that_prove_something_on_aws_are_there() -> None:
    named = re.findall(r"`(tests/[^`]+)::(\w+)`", (ROOT / "docs" / "unproven-on-aws.md").read_text())
    assert named
    assert [name for file, name in named if f"def {name}(" not in (ROOT / file).read_text()] == []


@pytest.mark.whole
def test_shared_tests_pass_against_a_deployed_stack_and_the_others_are_counted(start: Callable[..., Up]) -> None:
    up = start("--quiet")
    environment = {name.upper(): value for name, value in CREDENTIALS.items() if name != "region_name"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--stack=aws:{STACK_NAME}"]
    done = subprocess.run(
        [*command, "tests/api", "tests/workflow"],
        cwd=ROOT,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTEST_"))},
            **environment,
            "AWS_DEFAULT_REGION": CREDENTIALS["region_name"],
            "AWS_ENDPOINT_URL": up.aws_url,
        },
        capture_output=True,
        text=True,
        timeout=patient(PYTEST_SECONDS),
    )
    assert done.returncode == 0, done.stdout
    counted = re.search(rf"(\d+) tests ran against {STACK_NAME}, (\d+) are offline only and use: (.*)", done.stdout)
    assert counted, done.stdout
    assert int(counted[1]) > 50
    uses = {use: int(count) for count, use in re.findall(r"(\d+) ([^,]+)", counted[3])}
    assert uses.keys() == {"the scripted model", "what the offline stack alone has", "no stack or its own"}
    assert sum(uses.values()) == int(counted[2])
