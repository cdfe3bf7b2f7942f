"""The fixtures that tests of several folders share: the offline stack, running once for all of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import thorough

if TYPE_CHECKING:  # importing these takes seconds, which a test that runs no stack need not wait for
    from local.bedrock.scripted_model import ScriptedModel
    from local.stack import LocalStack


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--thorough", action="store_true", help="try all cases of what has very many, and run the tests marked `whole`"
    )


def pytest_configure(config: pytest.Config) -> None:
    thorough.configure(everything=config.getoption("--thorough"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files with tests of the running stack come last: moto's state is the process's, which holds one stack at a time,
    and tests that mock AWS reset it.
    """
    last = {item.path for item in items if "stack" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: item.path in last)
    if not config.getoption("--thorough"):
        whole = [item for item in items if item.get_closest_marker("whole")]
        config.hook.pytest_deselected(items=whole)
        items[:] = [item for item in items if item not in set(whole)]


@pytest.fixture(scope="session")
def tool_calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the stack's test tool notes its calls."""
    return tmp_path_factory.mktemp("tool-calls")


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, tool_calls: Path) -> "Iterator[LocalStack]":
    """The offline stack with the project's template, one more agent and tool (`project.py`), and a scripted model.

    Every trace event that any test made it log must keep to the schema.
    """
    from local.bedrock.scripted_model import ScriptedModel
    from local.stack import LocalStack, LocalStackOptions
    from tests import logs_insights, trace_schema
    from tests.project import copy_project

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
def model(stack: "LocalStack") -> "Iterator[ScriptedModel]":
    """The stack's model: `model.replace([...])` tells it what to answer. It knows no answer when a test begins."""
    from local.bedrock.scripted_model import ScriptedModel

    assert isinstance(stack.model, ScriptedModel)
    stack.model.replace([])
    yield stack.model
    stack.model.resume()


@pytest.fixture
def agent_client(stack: "LocalStack", monkeypatch: pytest.MonkeyPatch) -> Any:
    """An unmodified boto3 client of the stack's API, with credentials from the environment."""
    import boto3

    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_BEARER_TOKEN_BEDROCK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "example")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    return boto3.session.Session().client("bedrock-agent-runtime", endpoint_url=stack.url)
