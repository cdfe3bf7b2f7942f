"""The runtime loop against a small Runtime API on the loopback interface, which reads sockets as Lambda does."""

import base64
import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import patient
from turnwright.api import streaming_runtime
from turnwright.api.streaming_runtime import RuntimeApi, StreamContext, serve_one

LOOP = Path(streaming_runtime.__file__)
SECONDS = 20
"""The longest that anything is waited for."""


@dataclass
class Posted:
    """A request of the runtime, as far as it was read. `chunks` are the pieces of a chunked body, as they came."""

    path: str
    headers: dict[str, str]
    chunks: list[bytes] = field(default_factory=list)
    trailers: dict[str, str] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)


class FakeRuntimeApi:
    """Hands out `invocations` (headers and body), and keeps what is posted. `hang_up` cuts a response after a chunk."""

    def __init__(self) -> None:
        self.invocations: queue.Queue[tuple[dict[str, str], bytes] | None] = queue.Queue()
        self.posted: queue.Queue[Posted] = queue.Queue()
        self.chunks: queue.Queue[bytes] = queue.Queue()
        self.hang_up = False
        self.hung_up = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self.invocations.put(None)  # to a runtime that still asks for its next one
        with socket.create_connection(self._listener.getsockname()[:2]) as last:
            last.sendall(b"\r\n")
        self._thread.join(SECONDS)
        self._listener.close()

    def invoke(self, body: bytes, **headers: str) -> None:
        given = {
            "Lambda-Runtime-Aws-Request-Id": "r-1",
            "Lambda-Runtime-Deadline-Ms": str(time.time_ns() // 1_000_000 + 60_000),
            "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:us-east-1:1:function:front-door",
            "Lambda-Runtime-Trace-Id": "Root=1-a;Sampled=1",
        }
        self.invocations.put(({**given, **{name.replace("_", "-"): value for name, value in headers.items()}}, body))

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection, connection.makefile("rb") as sent:
                request = sent.readline().decode().split()
                if not request:
                    return
                headers = _headers(sent)
                if request[0] == "GET":
                    if not self._next(connection):
                        return
                    continue
                posted = Posted(request[1], headers)
                if headers.get("transfer-encoding") == "chunked":
                    if not self._read_chunks(sent, posted):
                        continue
                else:
                    posted.chunks.append(sent.read(int(headers["content-length"])))
                connection.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
                self.posted.put(posted)

    def _next(self, connection: socket.socket) -> bool:
        invocation = self.invocations.get()
        if invocation is None:
            return False
        headers, body = invocation
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{lines}\r\n"
        connection.sendall(head.encode() + body)
        return True

    def _read_chunks(self, sent: Any, posted: Posted) -> bool:
        while length := int(sent.readline(), 16):
            posted.chunks.append(sent.read(length))
            self.chunks.put(posted.chunks[-1])
            sent.readline()
            if self.hang_up:
                self.hung_up.set()
                return False
        posted.trailers = _headers(sent)
        return True


def _headers(sent: Any) -> dict[str, str]:
    headers = {}
    while line := sent.readline().decode().strip():
        name, _, value = line.partition(": ")
        headers[name.lower()] = value
    return headers


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRuntimeApi]:
    monkeypatch.setenv("_X_AMZN_TRACE_ID", "")
    fake = FakeRuntimeApi()
    yield fake
    fake.close()


HEAD = {"statusCode": 200, "headers": {"Content-Type": "text/plain"}}


def test_a_response_is_streamed_as_its_pieces_come(api: FakeRuntimeApi) -> None:
    api.invoke(b"{}")
    seen: list[bytes] = []

    def handler(event: dict[str, Any], context: StreamContext) -> Any:
        def pieces() -> Iterator[bytes]:
            seen.append(api.chunks.get(timeout=patient(SECONDS)))
            for piece in (b"one", b"", b"two\r\n"):
                yield piece
                if piece:
                    seen.append(api.chunks.get(timeout=patient(SECONDS)))

        return HEAD, pieces()

    serve_one(RuntimeApi(api.address), handler)

    head = json.dumps(HEAD).encode() + b"\0" * 8
    assert seen == [head, b"one", b"two\r\n"], "each piece arrived before the next one was asked for"
    posted = api.posted.get(timeout=patient(SECONDS))
    assert posted.path == "/2018-06-01/runtime/invocation/r-1/response"
    assert posted.headers["lambda-runtime-function-response-mode"] == "streaming"
    assert posted.headers["transfer-encoding"] == "chunked"
    assert posted.headers["content-type"] == "application/vnd.awslambda.http-integration-response"
    assert posted.body == head + b"onetwo\r\n"
    assert posted.trailers == {}


def test_a_handler_is_given_the_event_and_a_context(api: FakeRuntimeApi) -> None:
    event = {"body": "é😀", "n": 1.5, "deep": [None, True]}
    deadline = time.time_ns() // 1_000_000 + 60_000
    api.invoke(json.dumps(event).encode(), Lambda_Runtime_Deadline_Ms=str(deadline))
    given: list[Any] = []

    def handler(event: dict[str, Any], context: StreamContext) -> Any:
        given.append((event, context, os.environ["_X_AMZN_TRACE_ID"], context.get_remaining_time_in_millis()))
        return HEAD, []

    serve_one(RuntimeApi(api.address), handler)

    ((given_event, context, trace, remaining),) = given
    assert given_event == event
    assert context == StreamContext("r-1", deadline, "arn:aws:lambda:us-east-1:1:function:front-door")
    assert trace == "Root=1-a;Sampled=1"
    assert 0 < remaining <= 60_000


def test_the_time_that_remains_is_never_negative() -> None:
    assert StreamContext("r-1", 1, "").get_remaining_time_in_millis() == 0


def test_an_invocation_without_trace_or_arn_has_none(api: FakeRuntimeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_X_AMZN_TRACE_ID", "of the invocation before")
    api.invocations.put(({"lambda-runtime-aws-request-id": "r-2", "lambda-runtime-deadline-ms": "5"}, b"{}"))
    given: list[Any] = []

    def handler(event: dict[str, Any], context: StreamContext) -> Any:
        given.append((context, os.environ["_X_AMZN_TRACE_ID"]))
        return HEAD, []

    serve_one(RuntimeApi(api.address), handler)

    assert given == [(StreamContext("r-2", 5, ""), "")]
    assert api.posted.get(timeout=patient(SECONDS)).path == "/2018-06-01/runtime/invocation/r-2/response"


@pytest.mark.parametrize("event", [b"{}", b"no JSON"], ids=["handler", "event"])
def test_an_error_before_the_response_is_an_invocation_error(api: FakeRuntimeApi, event: bytes) -> None:
    api.invoke(event)

    def handler(event: dict[str, Any], context: StreamContext) -> Any:
        raise KeyError("lost")

    serve_one(RuntimeApi(api.address), handler)

    posted = api.posted.get(timeout=patient(SECONDS))
    error = json.loads(posted.body)
    expected = "KeyError" if event == b"{}" else "JSONDecodeError"
    assert posted.path == "/2018-06-01/runtime/invocation/r-1/error"
    assert posted.headers["lambda-runtime-function-error-type"] == expected
    assert error.keys() == {"errorType", "errorMessage", "stackTrace"}
    assert error["errorType"] == expected
    assert error["stackTrace"]


@pytest.mark.parametrize("error", [KeyError("lost"), ConnectionResetError("the database's")], ids=["any", "connection"])
def test_an_error_in_the_middle_of_the_response_is_told_in_its_trailers(
    api: FakeRuntimeApi, error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    api.invoke(b"{}")

    def handler(event: dict[str, Any], context: StreamContext) -> Any:
        def pieces() -> Iterator[bytes]:
            yield b"half an "
            raise error

        return HEAD, pieces()

    serve_one(RuntimeApi(api.address), handler)

    posted = api.posted.get(timeout=patient(SECONDS))
    assert posted.body.endswith(b"\0half an ")
    assert posted.headers["trailer"] == "Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body"
    body = json.loads(base64.b64decode(posted.trailers.pop("lambda-runtime-function-error-body")))
    assert posted.trailers == {"lambda-runtime-function-error-type": type(error).__name__}
    assert (body["errorType"], body["errorMessage"]) == (type(error).__name__, str(error))
    assert f"{type(error).__name__}: " in capsys.readouterr().err


def test_a_caller_that_goes_away_ends_the_response_and_nothing_else(
    api: FakeRuntimeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    api.hang_up = True
    api.invoke(b"{}")
    asked_for = []

    def handler(event: dict[str, Any], context: StreamContext) -> Any:
        def pieces() -> Iterator[bytes]:
            assert api.hung_up.wait(SECONDS)
            for number in range(10_000):
                asked_for.append(number)
                yield b"x" * 65_536

        return HEAD, pieces()

    serve_one(RuntimeApi(api.address), handler)

    assert len(asked_for) < 10_000
    assert "the caller went away before the response ended" in capsys.readouterr().err
    api.hang_up = False
    api.invoke(b"{}")
    serve_one(RuntimeApi(api.address), lambda event, context: (HEAD, [b"next"]))
    assert api.posted.get(timeout=patient(SECONDS)).body.endswith(b"next")


def test_the_address_may_have_a_path(api: FakeRuntimeApi) -> None:
    api.invoke(b"{}")

    serve_one(RuntimeApi(f"{api.address}/worker/7"), lambda event, context: (HEAD, []))

    assert api.posted.get(timeout=patient(SECONDS)).path == "/worker/7/2018-06-01/runtime/invocation/r-1/response"


def start(api: FakeRuntimeApi, task_root: Path, handler: str, **variables: str) -> subprocess.Popen[str]:
    """The runtime as Lambda starts it through the wrapper script: the interpreter's command line as arguments."""
    wrapper = LOOP.parents[2] / "stream_responses"
    (task_root / "turnwright").symlink_to(LOOP.parents[1])
    environment = {
        "PATH": os.environ["PATH"],
        "AWS_LAMBDA_RUNTIME_API": api.address,
        "LAMBDA_TASK_ROOT": str(task_root),
        "_HANDLER": handler,
        **variables,
    }
    return subprocess.Popen(
        [wrapper, sys.executable, "/var/runtime/bootstrap.py"], env=environment, stderr=subprocess.PIPE, text=True
    )


def test_the_loop_finds_the_layers_after_the_code_and_reads_their_path_files(
    api: FakeRuntimeApi, tmp_path: Path
) -> None:
    code, layers = tmp_path / "var" / "task", tmp_path / "opt" / "python"
    site_packages = layers / f"lib/python3.{sys.version_info.minor}/site-packages"
    for folder in (code, site_packages, tmp_path / "further"):
        folder.mkdir(parents=True)
        (folder / "both.py").write_text(f"NAME = {folder.name!r}\n")
        (folder / f"of_{folder.name.replace('-', '_')}.py").write_text("")
    for name in ("both", "below", "sooner"):
        (layers / f"{name}.py").write_text("NAME = 'python'\n")
    (site_packages / "sooner.py").write_text("NAME = 'site-packages'\n")
    (layers / "more.pth").write_text(f"{tmp_path / 'further'}\n")
    (code / "door.py").write_text(
        "import below, both, of_further, of_site_packages, sooner\n"
        "def stream(event, context):\n"
        "    return {}, [both.NAME.encode(), sooner.NAME.encode(), below.NAME.encode()]\n"
    )
    process = start(api, code, "door.stream", LAMBDA_RUNTIME_DIR=str(tmp_path / "var" / "runtime"))
    try:
        api.invoke(b"{}")
        assert api.posted.get(timeout=patient(SECONDS)).body.endswith(
            b"\0" * 8 + b"task" + b"site-packages" + b"python"
        )
    finally:
        process.kill()
        process.communicate()


def test_the_wrapper_starts_the_loop_which_serves_one_invocation_after_the_other(
    api: FakeRuntimeApi, tmp_path: Path
) -> None:
    (tmp_path / "door.py").write_text(
        "import keys, table\n"
        "def stream(event, context):\n"
        "    return {'statusCode': 200, 'headers': {}}, [keys.NAME.encode(), event['text'].encode()]\n"
    )
    for name in ("keys", "table"):
        (tmp_path / f"{name}.py").write_text("NAME = 'the function folder own: '\n")
    process = start(api, tmp_path, "door.stream")
    try:
        for text in ("one", "two"):
            api.invoke(json.dumps({"text": text}).encode())
            assert api.posted.get(timeout=patient(SECONDS)).body.endswith(
                b"\0the function folder own: " + text.encode()
            )
    finally:
        process.kill()
        api.invoke(b"{}")  # the killed one may still be waited for
        process.communicate()


@pytest.mark.parametrize(
    ("source", "error_type"),
    [
        ("raise KeyError('no table')", "KeyError"),
        ("import nowhere", "ModuleNotFoundError"),
        ("def other(): pass", "AttributeError"),
        ("def stream(:", "SyntaxError"),
        ("raise SystemExit(0)", "SystemExit"),
    ],
)
def test_a_module_that_cannot_be_loaded_is_an_init_error(
    api: FakeRuntimeApi, tmp_path: Path, source: str, error_type: str
) -> None:
    (tmp_path / "door.py").write_text(source + "\n")
    process = start(api, tmp_path, "door.stream")
    try:
        posted = api.posted.get(timeout=patient(SECONDS))
        _, stderr = process.communicate(timeout=patient(SECONDS))
    finally:
        process.kill()

    assert posted.path == "/2018-06-01/runtime/init/error"
    assert posted.headers["lambda-runtime-function-error-type"] == error_type
    assert json.loads(posted.body)["errorType"] == error_type
    assert process.returncode == 1
    assert error_type in stderr
