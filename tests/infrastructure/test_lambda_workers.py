"""The Lambda workers, with real processes and the official runtime client."""

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from local.invocations import Throttled
from local.lambda_workers import FunctionSpec, InvokeResult, LambdaWorkers, environment
from tests.paths import ROOT
from tests.waiting import eventually, patient

HANDLERS = """
import http.client, json, os, pathlib, signal, sys, time

def echo(event, context):
    return {
        "event": event,
        "pid": os.getpid(),
        "environment": dict(os.environ),
        "directory": os.getcwd(),
        "path": sys.path,
        "python": sys.executable,
        "function": context.function_name,
        "memory": context.memory_limit_in_mb,
        "request": context.aws_request_id,
        "remaining": context.get_remaining_time_in_millis(),
        "client": context.client_context and context.client_context.custom,
    }

def fail(event, context):
    raise KeyError(os.getpid())

def leave(event, context):
    os._exit(event["status"])

def wait_for(event, context):
    pathlib.Path(event["started"]).write_text(str(os.getpid()))
    while not pathlib.Path(event["go"]).exists():
        time.sleep(0.005)
    return os.getpid()

def hang(event, context):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("hanging", os.getpid())
    time.sleep(600)

def log(event, context):
    print("one\\ntwo")
    print("x" * event["length"])
    print("error", file=sys.stderr)

def report(event, context):
    address = os.environ["AWS_LAMBDA_RUNTIME_API"]
    connection = http.client.HTTPConnection(address)
    path = f"/2018-06-01/runtime/invocation/{context.aws_request_id}/error"
    connection.request("POST", path, body=event["body"], headers={"Lambda-Runtime-Function-Error-Type": "Of.Its.Own"})
    connection.getresponse().read()
    return "late"

def large(event, context):
    return "x" * event["length"]
"""

STREAMING_RUNTIME = """
import base64, http.client, json, os, pathlib, time
API = os.environ["AWS_LAMBDA_RUNTIME_API"]
while True:
    connection = http.client.HTTPConnection(API)
    connection.request("GET", "/2018-06-01/runtime/invocation/next")
    response = connection.getresponse()
    request_id = response.getheader("Lambda-Runtime-Aws-Request-Id")
    event = json.loads(response.read())
    connection.putrequest("POST", f"/2018-06-01/runtime/invocation/{request_id}/response")
    connection.putheader("Lambda-Runtime-Function-Response-Mode", "streaming")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.putheader("Content-Type", "application/vnd.awslambda.http-integration-response")
    connection.putheader("Trailer", "Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body")
    connection.endheaders()
    send = lambda data: connection.send(b"%x\\r\\n" % len(data) + data + b"\\r\\n")
    send(json.dumps({"statusCode": 200}).encode() + bytes(8))
    send(b"first")
    while "go" in event and not pathlib.Path(event["go"]).exists():
        time.sleep(0.005)
    if "exit" in event:
        os._exit(event["exit"])
    send(b"second")
    trailers = b""
    if "error" in event:
        body = base64.b64encode(json.dumps({"errorType": event["error"], "errorMessage": "late"}).encode())
        trailers = b"Lambda-Runtime-Function-Error-Type: " + event["error"].encode() + b"\\r\\n"
        trailers += b"Lambda-Runtime-Function-Error-Body: " + body + b"\\r\\n"
    connection.send(b"0\\r\\n" + trailers + b"\\r\\n")
    connection.getresponse().read()
    connection.close()
"""


class Stack:
    """A pool, its log, and functions whose code is a folder of this test."""

    def __init__(self, directory: Path, max_concurrency: int = 4) -> None:
        self.code = directory / "code"
        self.code.mkdir()
        (self.code / "handlers.py").write_text(HANDLERS)
        self.log: list[tuple[str, str]] = []
        self.workers = LambdaWorkers(lambda spec, line: self.log.append((spec.name, line)), max_concurrency)

    def function(self, handler: str, **changes: Any) -> FunctionSpec:
        spec = FunctionSpec(
            name=handler,
            arn=f"arn:aws:lambda:us-east-1:123456789012:function:{handler.replace('.', '-')}",
            handler=handler,
            code_root=self.code,
            environment={},
            timeout_seconds=20,
            memory_mb=512,
            log_group="/test/functions",
        )
        return replace(spec, **changes)

    def streaming_function(self, **changes: Any) -> FunctionSpec:
        (self.code / "streaming.py").write_text(STREAMING_RUNTIME)
        wrapper = self.code / "stream_responses"
        wrapper.write_text('#!/bin/sh\nexec "$1" "$LAMBDA_TASK_ROOT/streaming.py"\n')
        wrapper.chmod(0o755)
        environment = {"AWS_LAMBDA_EXEC_WRAPPER": "/var/task/stream_responses"}
        return self.function("handlers.echo", environment=environment, **changes)

    def call(self, spec: FunctionSpec, event: Any = None, **options: Any) -> Any:
        result = self.workers.invoke(spec, json.dumps(event or {}).encode(), **options)
        assert result.function_error is None, result
        return json.loads(result.payload)

    def failure(self, spec: FunctionSpec, event: Any = None) -> dict[str, Any]:
        result = self.workers.invoke(spec, json.dumps(event or {}).encode())
        assert result.function_error == "Unhandled"
        error = json.loads(result.payload)
        assert isinstance(error, dict)
        return error


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path)
    yield stack
    stack.workers.close()


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:  # a killed orphan may stay a zombie where nothing reaps it
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # gone before it is opened, or before it is read
        return sys.platform != "linux"


def in_background(stack: Stack, spec: FunctionSpec, event: Any) -> tuple[threading.Thread, list[InvokeResult]]:
    results: list[InvokeResult] = []
    payload = json.dumps(event).encode()
    thread = threading.Thread(target=lambda: results.append(stack.workers.invoke(spec, payload)))
    thread.start()
    return thread, results


def test_a_function_sees_what_lambda_would_show_it(stack: Stack) -> None:
    spec = stack.function("handlers.echo", environment={"GREETING": "hello", "AWS_REGION": "reserved"})
    answer = stack.call(spec, {"a": 1}, client_context='{"custom": {"k": "v"}}', trace_header="Root=1-2-3;Sampled=1")
    environment = answer["environment"]
    assert answer["event"] == {"a": 1}
    assert (answer["function"], answer["memory"]) == ("handlers.echo", "512")
    assert answer["client"] == {"k": "v"}
    assert 15_000 < answer["remaining"] <= 20_000
    assert answer["directory"] == str(stack.code)
    assert environment["GREETING"] == "hello"
    assert environment["_X_AMZN_TRACE_ID"] == "Root=1-2-3;Sampled=1"
    assert environment["AWS_REGION"] == "us-east-1"
    assert environment["AWS_LAMBDA_FUNCTION_VERSION"] == "$LATEST"
    assert environment["AWS_LAMBDA_LOG_GROUP_NAME"] == "/test/functions"
    assert environment["LAMBDA_TASK_ROOT"] == str(stack.code)
    assert environment["_HANDLER"] == "handlers.echo"
    assert environment["TZ"] == ":UTC"


def test_a_trace_header_is_made_when_there_is_none(stack: Stack) -> None:
    trace = stack.call(stack.function("handlers.echo"))["environment"]["_X_AMZN_TRACE_ID"]
    root, parent, sampled = trace.split(";")
    assert re.fullmatch("Root=1-[0-9a-f]{8}-[0-9a-f]{24}", root)
    assert re.fullmatch("Parent=[0-9a-f]{16}", parent)
    assert sampled == "Sampled=1"


LAMBDAS_VARIABLES = {
    *("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_FUNCTION_VERSION"),
    *("AWS_LAMBDA_INITIALIZATION_TYPE", "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME"),
    *("AWS_LAMBDA_RUNTIME_API", "AWS_EXECUTION_ENV", "AWS_DEFAULT_REGION", "AWS_REGION"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    *("AWS_XRAY_CONTEXT_MISSING", "AWS_XRAY_DAEMON_ADDRESS", "_X_AMZN_TRACE_ID"),
    *("LAMBDA_RUNTIME_DIR", "LAMBDA_TASK_ROOT", "_HANDLER"),
    *("LANG", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "TZ"),
}
PROTECTING_VARIABLES = {
    "AWS_CONFIG_FILE",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_SHARED_CREDENTIALS_FILE",
    "PYTHONPYCACHEPREFIX",
}


def test_a_function_sees_lambdas_variables_and_no_others_of_whoever_runs_it(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_PROFILE", "SECRET", "HOME", "TMPDIR", "LC_ALL", "VIRTUAL_ENV", "PYTHONHASHSEED"):
        monkeypatch.setenv(name, str(tmp_path))
    for name in ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "LANG"):
        monkeypatch.setenv(name, f"{tmp_path}:{os.environ.get(name, '')}")
    environment = stack.call(stack.function("handlers.echo"))["environment"]
    assert environment.keys() - {"LC_CTYPE"} == LAMBDAS_VARIABLES | PROTECTING_VARIABLES  # Python may set LC_CTYPE
    assert not [name for name in LAMBDAS_VARIABLES if f"{tmp_path}:" in environment[name]]


def test_a_variable_that_is_not_reserved_is_the_functions_own(stack: Stack) -> None:
    own = {
        "LANG": "C",
        "PATH": "/bin:/opt/bin",
        "AWS_XRAY_CONTEXT_MISSING": "IGNORE_ERROR",
        "PYTHONPATH": "/var/task/x",
    }
    environment = stack.call(stack.function("handlers.echo", environment=own))["environment"]
    opt = Path(environment["LAMBDA_RUNTIME_DIR"]).parents[1] / "opt"
    assert {name: environment[name] for name in own} == {
        **own,
        "PATH": f"/bin:{opt}/bin",
        "PYTHONPATH": f"{stack.code}/x",
    }


def test_code_comes_first_then_the_layers_then_what_the_runtime_brings_and_nothing_else(stack: Stack) -> None:
    answer = stack.call(stack.function("handlers.echo"))
    runtime = answer["environment"]["LAMBDA_RUNTIME_DIR"]
    layers = f"{runtime.removesuffix('/var/runtime')}/opt/python"
    version = f"python3.{sys.version_info.minor}"
    code, below, above, lang, *rest = answer["path"]
    assert [code, below, above] == [str(stack.code), f"{layers}/lib/{version}/site-packages", layers]
    assert rest[0] == runtime
    assert answer["environment"]["PYTHONPATH"] == runtime
    standard = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), sysconfig.get_config_var("DESTSHARED")}
    assert {path for path in rest[1:] if path not in standard and not path.endswith(".zip")} <= {lang, below, above}
    brought = {path.name.partition(".")[0] for path in Path(lang).iterdir() if not path.name.endswith(".dist-info")}
    assert brought == {
        "awslambdaric",
        "boto3",
        "botocore",
        "dateutil",
        "jmespath",
        "runtime_client",
        "s3transfer",
        "simplejson",
        "six",
        "snapshot_restore_py",
        "urllib3",
    }


def importing(stack: Stack, module: str) -> str:
    """The name of a handler of a file of its own, which imports `module`."""
    name = f"imports_{module.replace('.', '_')}"
    (stack.code / f"{name}.py").write_text(f"import {module}\ndef handler(event, context):\n    return __name__\n")
    return f"{name}.handler"


@pytest.fixture
def requirements(tmp_path: Path) -> Path:
    file = tmp_path / "requirements.txt"
    file.write_text("# A comment.\njsonschema==4.26.0\naws-lambda-powertools\n")
    return file


@pytest.mark.parametrize(
    "module", ["boto3", "jsonschema", "referencing", "aws_lambda_powertools", "importlib.metadata"]
)
def test_a_function_finds_its_requirements_and_what_these_need(stack: Stack, requirements: Path, module: str) -> None:
    spec = stack.function(importing(stack, module), requirements=(requirements,))
    assert stack.call(spec) == spec.handler.partition(".")[0]


@pytest.mark.parametrize(
    "module", ["moto", "yaml", "pytest", "packaging", "local", "turnwright", "aws_lambda_powertools"]
)
def test_a_function_finds_no_package_that_only_this_environment_has(stack: Stack, module: str) -> None:
    error = stack.failure(stack.function(importing(stack, module)))
    assert error["errorType"] == "Runtime.ImportModuleError"
    assert f"No module named '{module}'" in error["errorMessage"]


def test_a_package_tells_its_version_as_it_does_where_it_is_installed(stack: Stack, requirements: Path) -> None:
    (stack.code / "versions.py").write_text(
        "from importlib.metadata import PackageNotFoundError, version\n"
        "def handler(event, context):\n"
        "    try:\n"
        "        return version(event['of'])\n"
        "    except PackageNotFoundError:\n"
        "        return None\n"
    )
    spec = stack.function("versions.handler", requirements=(requirements,))
    assert stack.call(spec, {"of": "jsonschema"}) == version("jsonschema")
    assert stack.call(spec, {"of": "moto"}) is None


def test_a_wrapper_that_starts_something_else_gets_no_layers_unless_it_looks_for_them(
    stack: Stack, requirements: Path
) -> None:
    handler = importing(stack, "jsonschema")
    wrapper = stack.code / "wrapper"
    wrapper.write_text('#!/bin/sh\nexec "$1" -m awslambdaric "$_HANDLER"\n')
    wrapper.chmod(0o755)
    environment = {"AWS_LAMBDA_EXEC_WRAPPER": "/var/task/wrapper"}
    spec = stack.function(handler, environment=environment, requirements=(requirements,))
    assert "No module named 'jsonschema'" in stack.failure(spec)["errorMessage"]
    assert stack.call(replace(spec, environment={**environment, "PYTHONPATH": "/opt/python"})) == handler.split(".")[0]


@pytest.mark.parametrize(("streams", "handler"), [(True, "stream_handler"), (False, "handler")])
def test_the_front_door_starts_with_the_layer_of_its_dependencies(stack: Stack, streams: bool, handler: str) -> None:
    code = ROOT / "functions" / "runtime"
    environment = {"AWS_LAMBDA_EXEC_WRAPPER": "/var/task/stream_responses"} if streams else {}
    spec = stack.function(
        f"invoke_agent.{handler}",
        code_root=code,
        requirements=(code / "requirements.txt",),
        environment={**environment, "TABLE_NAME": "none", "BUCKET_NAME": "none", "POWERTOOLS_SERVICE_NAME": "test"},
    )
    error = stack.failure(spec, {"no": "event"})
    assert error["errorType"] == "KeyError"


def test_a_worker_is_used_again_also_after_an_exception(stack: Stack) -> None:
    first = stack.failure(stack.function("handlers.fail"))
    second = stack.failure(stack.function("handlers.fail"))
    assert first["errorType"] == "KeyError"
    assert first["errorMessage"] == second["errorMessage"]


@pytest.mark.parametrize(
    ("status", "reason"),
    [(3, "Runtime exited with error: exit status 3"), (0, "Runtime exited without providing a reason")],
)
def test_a_worker_that_exits_is_reported_and_replaced(stack: Stack, status: int, reason: str) -> None:
    spec = stack.function("handlers.leave")
    for _ in range(2):
        error = stack.failure(spec, {"status": status})
        assert error["errorType"] == "Runtime.ExitError"
        assert error["errorMessage"].endswith(reason)


def test_a_worker_killed_in_the_middle_is_an_error_at_once(stack: Stack, tmp_path: Path) -> None:
    spec = stack.function("handlers.wait_for")
    event = {"started": str(tmp_path / "started"), "go": str(tmp_path / "go")}
    thread, results = in_background(stack, spec, event)
    eventually((tmp_path / "started").exists)
    [process] = [process for process in stack.workers.processes() if process.busy]
    os.kill(process.pid, signal.SIGKILL)
    thread.join(timeout=patient(20))
    error = json.loads(results[0].payload)
    assert error["errorType"] == "Runtime.ExitError"
    assert error["errorMessage"].endswith("Runtime exited with error: signal: killed")
    (tmp_path / "go").touch()
    assert stack.call(spec, event) != process.pid


def test_a_function_that_takes_too_long_is_killed(stack: Stack) -> None:
    error = stack.failure(stack.function("handlers.hang", timeout_seconds=0.2))
    assert error["errorType"] == "Sandbox.Timedout"
    assert error["errorMessage"].endswith("Error: Task timed out after 0.20 seconds")
    eventually(lambda: stack.workers.processes() == [])
    assert any("Task timed out after 0.20 seconds" in line for _, line in stack.log)


@pytest.mark.parametrize("body", ["no JSON", "[1]", "[" * 100_000], ids=["text", "list", "deep"])
def test_an_error_that_is_no_error_document_is_passed_on_with_its_type(stack: Stack, body: str) -> None:
    result = stack.workers.invoke(stack.function("handlers.report"), json.dumps({"body": body}).encode())
    assert (result.function_error, result.payload) == ("Unhandled", body.encode())


def test_an_import_error_is_reported_and_not_kept(stack: Stack) -> None:
    spec = stack.function("broken.handler")
    error = stack.failure(spec)
    assert error["errorType"] == "Runtime.ImportModuleError"
    (stack.code / "broken.py").write_text("def handler(event, context):\n    return 'mended'\n")
    assert stack.call(spec) == "mended"


def test_a_wrapper_that_cannot_be_started_is_reported(stack: Stack) -> None:
    spec = stack.function("handlers.echo", environment={"AWS_LAMBDA_EXEC_WRAPPER": "/var/task/missing"})
    assert stack.failure(spec)["errorType"] == "Runtime.InvalidEntrypoint"


def test_a_wrapper_gets_the_command_line_of_the_runtime(stack: Stack) -> None:
    wrapper = stack.code / "wrapper"
    wrapper.write_text('#!/bin/sh\nexport SEEN="$*"\nexec "$@"\n')
    wrapper.chmod(0o755)
    spec = stack.function("handlers.echo", environment={"AWS_LAMBDA_EXEC_WRAPPER": "/var/task/wrapper"})
    answer = stack.call(spec)
    interpreter, bootstrap = answer["environment"]["SEEN"].split()
    assert interpreter == answer["python"]
    assert bootstrap == f"{answer['environment']['LAMBDA_RUNTIME_DIR']}/bootstrap.py"


def test_a_layers_files_and_folders_take_the_place_of_one_another(stack: Stack, tmp_path: Path) -> None:
    for place in ("below/python/a/x.py", "below/python/b.py", "above/python/a", "above/python/b.py/x.py"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text("")
    (stack.code / "listing.py").write_text(
        "import os\ndef handler(event, context):\n"
        "    return sorted(name + str(files) for name, _, files in os.walk(os.environ['DATA']))\n"
    )
    layers = (tmp_path / "below", tmp_path / "above")
    found = stack.call(stack.function("listing.handler", environment={"DATA": "/opt"}, layers=layers))
    assert [line.partition("/opt")[2] for line in found] == ["/python/b.py['x.py']", "/python['a']", "[]"]


def test_a_path_file_of_a_layer_is_read(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "layer" / "python").mkdir(parents=True)
    (tmp_path / "layer" / "python" / "more.pth").write_text(f"{tmp_path}\n")
    path = stack.call(stack.function("handlers.echo", layers=(tmp_path / "layer",)))["path"]
    assert path[-1] == str(tmp_path)


def test_layers_stand_for_opt_and_the_last_one_wins(stack: Stack, tmp_path: Path) -> None:
    for layer, text in (("below", "below"), ("above", "above")):
        (tmp_path / layer / "python").mkdir(parents=True)
        (tmp_path / layer / "python" / f"from_{layer}.py").write_text(f"NAME = '{layer}'\n")
        (tmp_path / layer / "both.json").write_text(text)
    (stack.code / "layered.py").write_text(
        "import os, pathlib\n"
        "def handler(event, context):\n"
        "    import from_below, from_above\n"
        "    both = pathlib.Path(os.environ['DATA'], 'both.json').read_text()\n"
        "    return [from_below.NAME, from_above.NAME, both, os.environ['TASK']]\n"
    )
    spec = stack.function(
        "layered.handler",
        environment={"DATA": "/opt", "TASK": "/var/task/x"},
        layers=(tmp_path / "below", tmp_path / "above"),
    )
    assert stack.call(spec) == ["below", "above", "above", f"{stack.code}/x"]


@pytest.fixture
def looked_at_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are looked at before each invocation, however long the last look took."""
    monkeypatch.setattr(environment, "_SCAN_SHARE", 0)


@pytest.mark.usefixtures("looked_at_always")
def test_a_saved_file_is_used_by_the_next_invocation(stack: Stack) -> None:
    module = stack.code / "edited.py"
    spec = stack.function("edited.handler")
    answers = []
    for number in range(3):  # of the same size and within a second, which Python's own caching would miss
        module.write_text(f"def handler(event, context):\n    return {number}\n")
        answers.append(stack.call(spec))
    assert answers == [0, 1, 2]


def test_a_changed_variable_starts_new_workers(stack: Stack) -> None:
    first = stack.call(stack.function("handlers.echo", environment={"A": "1"}))
    second = stack.call(stack.function("handlers.echo", environment={"A": "2"}))
    assert (first["environment"]["A"], second["environment"]["A"]) == ("1", "2")
    eventually(lambda: [process.pid for process in stack.workers.processes()] == [second["pid"]])


@pytest.mark.usefixtures("looked_at_always")
def test_a_running_invocation_finishes_on_the_old_files(stack: Stack, tmp_path: Path) -> None:
    spec = stack.function("handlers.wait_for")
    event = {"started": str(tmp_path / "started"), "go": str(tmp_path / "go")}
    thread, results = in_background(stack, spec, event)
    eventually((tmp_path / "started").exists)
    running = int((tmp_path / "started").read_text())
    (stack.code / "handlers.py").write_text("def wait_for(event, context):\n    return 'new'\n")
    assert stack.call(spec) == "new"
    (tmp_path / "go").touch()
    thread.join(timeout=patient(20))
    assert json.loads(results[0].payload) == running
    eventually(lambda: not is_running(running))


def test_more_invocations_than_workers_wait_for_their_turn(tmp_path: Path) -> None:
    stack = Stack(tmp_path, max_concurrency=1)
    spec = stack.function("handlers.wait_for")
    try:
        calls = []
        for number in range(3):
            event = {"started": str(tmp_path / f"started{number}"), "go": str(tmp_path / "go")}
            calls.append(in_background(stack, spec, event))
            eventually((tmp_path / "started0").exists)
        assert not (tmp_path / "started1").exists()
        assert len(stack.workers.processes()) == 1
        (tmp_path / "go").touch()
        for thread, _ in calls:
            thread.join(timeout=patient(20))
        assert len({results[0].payload for _, results in calls}) == 1
    finally:
        stack.workers.close()


def test_a_function_runs_as_often_at_once_as_is_reserved_and_again_when_one_has_ended(
    stack: Stack, tmp_path: Path
) -> None:
    spec = replace(stack.function("handlers.wait_for"), reserved_concurrency=1)
    event = {"started": str(tmp_path / "started"), "go": str(tmp_path / "go")}
    thread, _ = in_background(stack, spec, event)
    eventually((tmp_path / "started").exists)
    with pytest.raises(Throttled, match="run as are reserved: 1"):
        stack.workers.invoke(spec, b"{}")
    with pytest.raises(Throttled):
        stack.workers.invoke_streaming(spec, b"{}")
    (tmp_path / "go").touch()
    thread.join(timeout=patient(20))
    stack.call(spec, event)


def test_waiting_for_a_worker_ends_with_the_timeout(tmp_path: Path) -> None:
    stack = Stack(tmp_path, max_concurrency=1)
    spec = stack.function("handlers.hang", timeout_seconds=0.6)
    try:
        first, _ = in_background(stack, spec, {})
        eventually(lambda: any(process.busy for process in stack.workers.processes()))
        assert stack.failure(spec)["errorType"] == "Sandbox.Timedout"
        first.join(timeout=patient(20))
    finally:
        stack.workers.close()


def test_invocations_at_the_same_time_get_workers_of_their_own(stack: Stack, tmp_path: Path) -> None:
    spec = stack.function("handlers.wait_for")
    calls = []
    for number in range(3):
        event = {"started": str(tmp_path / f"started{number}"), "go": str(tmp_path / "go")}
        calls.append(in_background(stack, spec, event))
    eventually(lambda: all((tmp_path / f"started{number}").exists() for number in range(3)))
    (tmp_path / "go").touch()
    for thread, _ in calls:
        thread.join(timeout=patient(20))
    assert len({results[0].payload for _, results in calls}) == 3


def test_a_burst_of_short_invocations_does_not_start_a_worker_for_each(tmp_path: Path) -> None:
    stack = Stack(tmp_path, max_concurrency=16)
    spec = stack.function("handlers.echo")
    try:
        stack.call(spec)
        calls = [in_background(stack, spec, {"n": number}) for number in range(12)]
        for thread, _ in calls:
            thread.join(timeout=patient(20))
        answers = [json.loads(results[0].payload) for _, results in calls]
        assert sorted(answer["event"]["n"] for answer in answers) == list(range(12))
        assert len({answer["pid"] for answer in answers}) < 12
    finally:
        stack.workers.close()


def test_a_streamed_answer_arrives_as_it_is_made(stack: Stack, tmp_path: Path) -> None:
    event = json.dumps({"go": str(tmp_path / "go")}).encode()
    answer = stack.workers.invoke_streaming(stack.streaming_function(), event)
    chunks = iter(answer)
    assert next(chunks) == b'{"statusCode": 200}' + bytes(8)
    assert next(chunks) == b"first"
    assert answer.streaming
    assert answer.content_type == "application/vnd.awslambda.http-integration-response"
    (tmp_path / "go").touch()
    assert list(chunks) == [b"second"]
    assert answer.error is None


def test_an_error_after_the_first_chunks_ends_the_stream(stack: Stack) -> None:
    answer = stack.workers.invoke_streaming(stack.streaming_function(), b'{"error": "Late.Failure"}')
    assert list(answer)[1:] == [b"first", b"second"]
    assert answer.error is not None
    assert answer.error.type == "Late.Failure"
    assert json.loads(answer.error.body) == {"errorType": "Late.Failure", "errorMessage": "late"}


def test_a_crash_in_the_middle_of_a_stream_is_reported(stack: Stack) -> None:
    answer = stack.workers.invoke_streaming(stack.streaming_function(), b'{"exit": 7}')
    assert list(answer)[1:] == [b"first"]
    assert answer.error is not None
    assert answer.error.type == "Runtime.ExitError"
    assert "exit status 7" in json.loads(answer.error.body)["errorMessage"]


def test_a_stream_that_takes_too_long_is_ended(stack: Stack, tmp_path: Path) -> None:
    spec = stack.streaming_function(timeout_seconds=0.3)
    answer = stack.workers.invoke_streaming(spec, json.dumps({"go": str(tmp_path / "never")}).encode())
    assert list(answer)[1:] == [b"first"]
    assert answer.error is not None
    assert answer.error.type == "Sandbox.Timedout"


def test_a_stream_that_nobody_reads_runs_to_its_end(stack: Stack, tmp_path: Path) -> None:
    spec = stack.streaming_function()
    answer = stack.workers.invoke_streaming(spec, json.dumps({"go": str(tmp_path / "go")}).encode())
    assert answer.streaming
    answer.close()
    assert [process.busy for process in stack.workers.processes()] == [True]
    (tmp_path / "go").touch()
    eventually(lambda: [process.busy for process in stack.workers.processes()] == [False])


def test_a_plain_answer_can_be_asked_for_as_a_stream(stack: Stack) -> None:
    answer = stack.workers.invoke_streaming(stack.function("handlers.large"), b'{"length": 3}')
    assert list(answer) == [b'"xxx"']
    assert not answer.streaming
    assert answer.error is None


def test_a_plain_error_can_be_asked_for_as_a_stream(stack: Stack) -> None:
    answer = stack.workers.invoke_streaming(stack.function("handlers.fail"), b"{}")
    assert list(answer) == []
    assert answer.error is not None
    assert answer.error.type == "KeyError"


def test_an_answer_above_six_megabytes_is_refused(stack: Stack) -> None:
    spec = stack.function("handlers.large")
    assert stack.failure(spec, {"length": 6_300_000})["errorType"] == "Function.ResponseSizeTooLarge"
    assert len(stack.call(spec, {"length": 6_200_000})) == 6_200_000


def test_every_line_is_logged_and_the_last_of_them_come_with_the_answer(stack: Stack) -> None:
    result = stack.workers.invoke(stack.function("handlers.log"), b'{"length": 262144}')
    assert result.log_tail == "x" * (4096 - len("\nerror\n")) + "\nerror\n"
    lines = [line for name, line in stack.log if name == "handlers.log"]
    assert lines == ["one", "two", "x" * 262144, "error"]


def test_a_traceback_is_one_log_record(stack: Stack) -> None:
    stack.failure(stack.function("handlers.fail"))
    [record] = [line for _, line in stack.log if "KeyError" in line]
    assert len(record.split("\n")) > 2


def test_the_source_tree_stays_clean(stack: Stack) -> None:
    stack.call(stack.function("handlers.echo"))
    assert sorted(path.name for path in stack.code.rglob("*")) == ["handlers.py"]


def test_warming_starts_a_worker_that_the_next_invocation_uses(stack: Stack) -> None:
    spec = stack.function("handlers.echo")
    stack.workers.warm(spec)
    stack.workers.warm(spec)
    [process] = stack.workers.processes()
    assert stack.call(spec)["pid"] == process.pid


def test_many_are_warmed_a_few_at_a_time_and_invocations_go_first(stack: Stack) -> None:
    stack.workers.starts_at_once = 1
    *warmed, asked = [
        stack.function("handlers.echo", name=name, arn=f"arn:aws:lambda:us-east-1:123456789012:function:{name}")
        for name in ("warmed-0", "warmed-1", "warmed-2", "warmed-3", "asked")
    ]
    with stack.workers.lock:  # nothing finishes starting meanwhile
        for spec in warmed:
            stack.workers.warm(spec)
        assert [process.name for process in stack.workers.processes()] == ["warmed-0"]
        thread, results = in_background(stack, asked, {})
    thread.join(timeout=patient(20))
    assert results[0].function_error is None
    eventually(lambda: len(stack.workers.processes()) == 5)
    started = sorted(stack.workers.processes(), key=lambda process: process.pid)
    assert [process.name for process in started][-1] == "warmed-3"
    assert stack.workers.starting() <= 1


def test_what_nobody_needs_for_a_while_ends_but_the_last_worker_of_what_was_warmed(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("local.lambda_workers.pool.IDLE_SECONDS", 0.2)
    kept, other = [
        stack.function("handlers.echo", name=name, arn=f"arn:aws:lambda:us-east-1:123456789012:function:{name}")
        for name in ("kept", "other")
    ]
    stack.workers.warm(kept)
    with ThreadPoolExecutor(3) as threads:
        assert all(threads.map(lambda spec: stack.call(spec)["pid"], [kept, kept, other]))
    eventually(lambda: [process.name for process in stack.workers.processes()] == ["kept"])
    [process] = stack.workers.processes()
    time.sleep(0.5)
    assert stack.call(kept)["pid"] == process.pid
    assert stack.call(other)["pid"]


def test_closing_leaves_no_process_even_when_a_handler_hangs(stack: Stack) -> None:
    thread, results = in_background(stack, stack.function("handlers.hang"), {})
    stack.call(stack.function("handlers.echo"))
    eventually(lambda: any("hanging" in line for _, line in stack.log))
    pids = [process.pid for process in stack.workers.processes()]
    stack.workers.close()
    thread.join(timeout=patient(20))
    assert len(pids) == 2
    assert not any(is_running(pid) for pid in pids)
    assert results[0].function_error == "Unhandled"


def test_workers_end_when_the_stack_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from tests.infrastructure.test_lambda_workers import Stack\n"
        "stack = Stack(Path(sys.argv[1]))\n"
        "stack.workers.on_log = lambda spec, line: print(line, flush=True)\n"
        "stack.workers.invoke(stack.function('handlers.hang'), b'{}')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=ROOT,
    )
    assert parent.stdout is not None
    try:
        word, pid = parent.stdout.readline().split()
        assert word == "hanging"
        assert is_running(int(pid))
    finally:
        parent.kill()
        parent.wait()
    eventually(lambda: not is_running(int(pid)))
    parent.stdout.close()


def test_compiled_modules_are_kept_across_runs_until_a_file_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    source = tmp_path / "source"
    source.mkdir()
    module = source / "module.py"
    module.write_text("answer = 1")
    saved = module.stat().st_mtime_ns // 1_000_000_000 * 1_000_000_000
    os.utime(module, ns=(saved, saved))

    def kept() -> bool:
        cache = environment.BytecodeCache()
        cache.refresh([source], source)
        compiled = cache.directory / source.resolve().relative_to("/") / "module.pyc"
        found = compiled.exists()
        compiled.touch()
        return found

    assert [kept(), kept()] == [False, True]
    module.write_text("answer = 2")  # as long as before, and saved in the same second
    os.utime(module, ns=(saved + 1, saved + 1))
    assert [kept(), kept()] == [False, True]
