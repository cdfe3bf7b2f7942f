"""The fixtures that tests of several folders share: the offline stack, running once for all of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from hypothesis import HealthCheck, settings

from local.bedrock.scripted_model import ScriptedModel
from local.stack import LocalStack, LocalStackOptions
from tests import logs_insights, trace_schema
from tests.project import copy_project

# How fast a machine is, and what else it does, says nothing about the code; nor may chance decide whether it passes.
settings.register_profile("sound", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("sound")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the running stack come last: moto's state is the process's, and tests that mock AWS reset it."""
    items.sort(key=lambda item: "stack" in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session")
def tool_calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the stack's test tool notes its calls."""
    return tmp_path_factory.mktemp("tool-calls")


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, tool_calls: Path) -> Iterator[LocalStack]:
    """The offline stack with the project's template, one more agent and tool (`project.py`), and a scripted model.

    Every trace event that any test made it log must keep to the schema.
    """
    template = copy_project(tmp_path_factory.mktemp("project"), tool_calls)
    options = LocalStackOptions(
        port=0, aws_port=0, model=ScriptedModel([]), template=template, quiet=True, schedules=False
    )
    with LocalStack(options) as running:
        yield running
        for line in logs_insights.lines_of(running.client("logs"), running.outputs["RuntimeLogGroup"]):
            event = trace_schema.event_of(line)
            if event:
                trace_schema.check(event)


@pytest.fixture
def model(stack: LocalStack) -> Iterator[ScriptedModel]:
    """The stack's model: `model.replace([...])` tells it what to answer. It knows no answer when a test begins."""
    assert isinstance(stack.model, ScriptedModel)
    stack.model.replace([])
    yield stack.model
    stack.model.resume()


@pytest.fixture
def agent_client(stack: LocalStack, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An unmodified boto3 client of the stack's API, with credentials from the environment."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_BEARER_TOKEN_BEDROCK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "example")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    return boto3.session.Session().client("bedrock-agent-runtime", endpoint_url=stack.url)
