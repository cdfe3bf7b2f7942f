"""What importing costs and needs, in a fresh interpreter with an empty environment."""

import ast
import json
import subprocess
import sys
from functools import cache

import pytest

from tests.paths import RUNTIME

LOOP = "turnwright.api.streaming_runtime"
HANDLERS = sorted(path.stem for path in RUNTIME.glob("*.py"))

RULES = [
    "agents.definitions",
    "agents.retry_policy",
    "api.bedrock.requests",
    "api.bedrock.trace_parts",
    "api.bedrock.wire_errors",
    "api.event_stream",
    "api.unsupported_operations",
    "costs.failed_costs",
    "costs.prices",
    "costs.receipts",
    "costs.spending",
    "errors",
    "memory.consolidation.transcript",
    "models.converse",
    "sessions.attributes",
    "sessions.values",
    "storage.clock",
    "storage.item_sizes",
    "storage.keys",
    "surrogates",
    "tools.action_groups",
    "tools.tool_failures",
    "tracing.payloads",
    "tracing.redaction",
    "tracing.trace_events",
]
"""The modules of `turnwright` that know no AWS."""

IMPORT = """
import json, os, socket, sys, traceback

def no_network(*_):
    raise AssertionError("an import opens a socket")

socket.socket.connect = no_network
sys.path.insert(0, sys.argv[1])
before = set(sys.modules)
for module in sys.argv[2:]:
    if os.fork() == 0:
        try:
            __import__(module)
            told = sorted(set(sys.modules) - before)
        except BaseException:
            told = traceback.format_exc()
        print(json.dumps([module, told]), flush=True)
        os._exit(0)
    os.wait()
"""


@cache
def modules_imported_by(*modules: str) -> dict[str, set[str]]:
    """The modules that importing each brings in, in a fork of one fresh interpreter.

    Nothing may need the environment or the network.
    """
    ran = subprocess.run([sys.executable, "-c", IMPORT, RUNTIME, *modules], env={}, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    told = dict(map(json.loads, ran.stdout.splitlines()))
    broken = [traceback for traceback in told.values() if isinstance(traceback, str)]
    assert not broken, broken[0]
    return {module: set(imported) for module, imported in told.items()}


def packages_imported_by(*modules: str) -> dict[str, set[str]]:
    """The top-level packages of `modules_imported_by`."""
    imported = modules_imported_by(*modules)
    return {module: {name.partition(".")[0] for name in names} for module, names in imported.items()}


def test_there_is_a_handler_module_for_each_function() -> None:
    assert HANDLERS == [
        "agent_memory",
        "async_turns",
        "erase_memory",
        "extract_records",
        "invoke_agent",
        "invoke_model",
        "invoke_tool",
        "load_memory",
        "load_session",
        "memory_control",
        "memory_events",
        "memory_records",
        "merge_records",
        "publish_agents",
        "record_consolidation_failure",
        "record_erasure_failure",
        "record_failure",
        "summarize_session",
        "sweep_executions",
        "sweep_sessions",
        "unsupported_operations",
        "write_memory",
        "write_records",
    ]


def test_handlers_are_imported_without_environment_or_network_and_without_what_they_may_not_need() -> None:
    """In one test, since pytest's workers share no cache and the imports take ten seconds."""
    for handler, modules in modules_imported_by(*HANDLERS).items():
        assert modules & {"jsonschema", "pydantic", "aws_xray_sdk", "moto"} == set(), handler
        assert ("turnwright.agents.openapi" in modules) == (handler == "publish_agents"), f"{handler}: at publication"


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_handler_is_short(handler: str) -> None:
    assert len((RUNTIME / f"{handler}.py").read_text().splitlines()) <= 60


@pytest.mark.parametrize("handler", sorted({*HANDLERS} - {"publish_agents"}))
def test_a_handler_raises_with_messages_that_may_be_written(handler: str) -> None:
    """`publish_agents` raises nothing: it answers CloudFormation whatever happens."""
    body = ast.parse((RUNTIME / f"{handler}.py").read_text()).body
    functions = [node for node in body if isinstance(node, ast.FunctionDef)]
    entries = [function for function in functions if function.name in ("handler", "stream_handler")]
    assert entries
    for entry in entries:
        assert [ast.unparse(decorator) for decorator in entry.decorator_list] == ["with_safe_errors"]


@pytest.mark.parametrize("module", RULES)
def test_a_module_of_rules_knows_no_aws_and_no_log(module: str) -> None:
    modules = packages_imported_by(*(f"turnwright.{rule}" for rule in RULES))[f"turnwright.{module}"]

    assert modules & {"boto3", "botocore", "aws_lambda_powertools", "jsonschema"} == set()


def test_the_streaming_loop_starts_with_the_standard_library_alone() -> None:
    assert packages_imported_by(LOOP)[LOOP] & {"boto3", "botocore", "aws_lambda_powertools"} == set()


def test_only_settings_reads_the_environment_and_only_clients_makes_clients() -> None:
    sources = {path.relative_to(RUNTIME).as_posix(): path.read_text() for path in RUNTIME.rglob("*.py")}

    assert [name for name, source in sorted(sources.items()) if "os.environ" in source] == [
        "turnwright/api/streaming_runtime.py",
        "turnwright/storage/settings.py",
    ], "the runtime loop is what the Lambda service starts, before any settings"
    assert [name for name, source in sorted(sources.items()) if "boto3.client" in source] == [
        "turnwright/storage/clients.py"
    ]
