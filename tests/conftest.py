"""The fixtures that tests of several folders share: the stack, running once for all of them."""

import gc
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tests import thorough

if TYPE_CHECKING:  # importing these takes seconds, which a test that runs no stack need not wait for
    from local.bedrock.scripted_model import ScriptedModel
    from local.stack import LocalStack
    from tests.stacks import Agent, Caller, Stack


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--thorough", action="store_true", help="try all cases of what has very many, and run the tests marked `whole`"
    )
    parser.addoption("--stack", default="offline", help="what tests of a stack run against: offline, or aws:STACK_NAME")


def pytest_configure(config: pytest.Config) -> None:
    thorough.configure(everything=config.getoption("--thorough"))
    if config.getoption("--stack") != "offline" and not _deployed(config):
        raise pytest.UsageError(f"--stack is {config.getoption('--stack')}: give offline, or aws:STACK_NAME")


def _deployed(config: pytest.Config) -> str:
    """The name of the deployed stack that tests run against, "" for the offline one."""
    world, _, name = str(config.getoption("--stack")).partition(":")
    return name if world == "aws" else ""


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
    if _deployed(config):
        from tests import stacks

        stacks.skip_offline_tests(items)


def pytest_collection_finish() -> None:
    """What is imported by now stays until the end: looking through it again and again, boto3's models and moto's
    backends above all, takes the garbage collector a tenth of the run.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if name := _deployed(config):
        from tests import stacks

        terminalreporter.write_line(stacks.summary(name, terminalreporter.stats))


@pytest.fixture(scope="session")
def tool_calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the stack's test tool notes its calls."""
    return tmp_path_factory.mktemp("tool-calls")


@pytest.fixture(scope="session")
def stack(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory, tool_calls: Path) -> "Iterator[Stack]":
    """The stack that was asked for; `stacks.py` says what a test may use of it.

    The offline one has the project's template, more agents and tools (`project.py`), and a scripted model. Every trace
    event that any test made it log must keep to the schema. Its state machines wait a twentieth of what a Retry says
    before they try again (how often and in which order stays as it is); a Wait takes its time.
    """
    if name := _deployed(pytestconfig):
        from tests.stacks import AwsStack, StackUnreachable

        try:
            yield AwsStack(name)
        except StackUnreachable as error:
            pytest.exit(f"--stack=aws:{name}: {error}", returncode=4)
        return

    from local.bedrock.scripted_model import ScriptedModel
    from local.stack import LocalStack, LocalStackOptions
    from tests import logs_insights, trace_schema
    from tests.project import copy_project

    template = copy_project(tmp_path_factory.mktemp("project"), tool_calls)
    options = LocalStackOptions(
        port=0,
        aws_port=0,
        model=ScriptedModel([]),
        template=template,
        quiet=True,
        schedules=False,
    )
    import moto.stepfunctions.parser.asl.component.common.retry.retrier_decl as retrier

    hurried = SimpleNamespace(sleep=lambda seconds: time.sleep(seconds / 20))
    with pytest.MonkeyPatch.context() as patch, LocalStack(options) as running:
        patch.setattr(retrier, "time", hurried)
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
def any_model(pytestconfig: pytest.Config, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that answers and calls tools: what the deployed agents name, offline the rule model."""
    if not _deployed(pytestconfig):
        from local.bedrock.rule.rule_model import RuleModel

        monkeypatch.setattr(request.getfixturevalue("model"), "converse", RuleModel().converse)


@pytest.fixture
def small_talk(any_model: None) -> "Agent":
    """An agent without tools and memory that every stack has."""
    return {"agentId": "SMALLTALK", "agentAliasId": "live"}


@pytest.fixture
def banking_assistant(any_model: None) -> "Agent":
    """An agent with tools and memory that every stack has. Its store is BANKASSIST-turnwright."""
    return {"agentId": "BANKASSIST", "agentAliasId": "live"}


@pytest.fixture
def credentials(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What boto3 finds in the environment: on AWS the credentials of who runs the tests, offline never those."""
    from boto3.session import Session

    if not _deployed(pytestconfig):
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_BEARER_TOKEN_BEDROCK"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "example")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    return Session().get_credentials()


@pytest.fixture
def agent_client(stack: "Stack", credentials: Any) -> Any:
    """An unmodified boto3 client of the stack's API, with credentials from the environment."""
    from boto3.session import Session

    from tests.stacks import signing

    return signing(stack, Session().client("bedrock-agent-runtime", endpoint_url=stack.url))


@pytest.fixture
def caller(stack: "Stack", credentials: Any) -> "Caller":
    """The same caller, without boto3."""
    from tests.stacks import Caller

    return Caller(stack, credentials)
