"""One invocation of a tool's function: by a fake Lambda, and against a server on the loopback interface."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any
from urllib.parse import unquote

import boto3
import pytest
from botocore.exceptions import (
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ReadTimeoutError,
)
from botocore.response import StreamingBody
from botocore.stub import Stubber

from tests.unit import samples
from tests.unit.tool_turns import FakeLambda, Raised, answered, client_error, raised, tool, with_policy
from turnwright.storage import clients
from turnwright.tools.action_groups import ToolAnswer
from turnwright.tools.tool_failures import ToolFailure
from turnwright.tools.tool_invocation import invoke

URL = "https://lambda.us-east-1.amazonaws.com"
LONG = 30
"""Seconds that no test waits for."""


def failure() -> ToolFailure:
    with pytest.raises(ToolFailure) as failed:
        invoke(tool(), {})
    assert failed.value.invoked
    return failed.value


def test_the_function_is_given_the_event_and_its_answer_is_read(fake_lambda: FakeLambda) -> None:
    fake_lambda.answers = [answered("5 USD", sessionAttributes={"tier": "gold"})]

    assert invoke(tool(), {"a": "é"}) == ToolAnswer("5 USD", {"tier": "gold"})
    assert fake_lambda.invoked == [(samples.BANK_FUNCTION, {"a": "é"})]


ERRORS = [
    (client_error("TooManyRequestsException", 429), "THROTTLING", "could not be invoked: "),
    (client_error("ServiceException", 500), "SERVICE_UNAVAILABLE", "could not be invoked: "),
    (client_error("EC2ThrottledException", 502), "SERVICE_UNAVAILABLE", "could not be invoked: "),
    (client_error("ResourceNotFoundException", 404), "NOT_FOUND", "could not be invoked: "),
    (client_error("AccessDeniedException", 403), "ACCESS_DENIED", "could not be invoked: "),
    (client_error("RequestTooLargeException", 413), "INVALID_ARGUMENTS", "could not be invoked: "),
    (client_error("InvalidRequestContentException", 400), "TOOL_ERROR", "could not be invoked: "),
    (ReadTimeoutError(endpoint_url=URL), "TIMEOUT", "gave no answer within "),
    (TimeoutError(), "TIMEOUT", "gave no answer within 30 s"),
    (ConnectTimeoutError(endpoint_url=URL), "SERVICE_UNAVAILABLE", "could not be reached: "),
    (EndpointConnectionError(endpoint_url=URL), "SERVICE_UNAVAILABLE", "could not be reached: "),
    (ConnectionClosedError(endpoint_url=URL), "SERVICE_UNAVAILABLE", "could not be reached: "),
]


@pytest.mark.parametrize(
    ("error", "code", "message"), ERRORS, ids=[f"{e.__class__.__name__}-{c}" for e, c, _ in ERRORS]
)
def test_a_function_that_cannot_be_invoked_has_its_code_and_is_asked_once(
    error: Exception, code: str, message: str, fake_lambda: FakeLambda
) -> None:
    fake_lambda.answers = [error]

    failed = failure()

    assert failed.code == code
    assert failed.message.startswith(f"get_account_balance {message}")
    assert len(fake_lambda.invoked) == 1


def test_a_fault_of_the_gateway_s_own_is_not_taken_for_the_tool_s(fake_lambda: FakeLambda) -> None:
    fake_lambda.answers = [KeyError("a bug")]

    with pytest.raises(KeyError, match="a bug"):
        invoke(tool(), {})


def test_botocore_s_own_errors_and_bodies_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    client = boto3.client("lambda", "us-east-1", aws_access_key_id="test", aws_secret_access_key="test")
    monkeypatch.setattr(clients, "aws_lambda", lambda seconds: client)
    payload = json.dumps(answered("ok")).encode()
    with Stubber(client) as stub:
        expected = {"FunctionName": samples.BANK_FUNCTION, "Payload": b'{"a":"\xc3\xa9"}'}
        stub.add_response("invoke", {"Payload": StreamingBody(BytesIO(payload), len(payload))}, expected)
        stub.add_client_error("invoke", "TooManyRequestsException", "Rate exceeded", 429)
        stub.add_response("invoke", {"Payload": StreamingBody(BytesIO(payload), len(payload) + 1)})

        assert invoke(tool(), {"a": "é"}).text == "ok"
        throttled, cut = failure(), failure()

    assert throttled.code == "THROTTLING"
    assert "Rate exceeded" in throttled.message
    assert cut.code == "SERVICE_UNAVAILABLE"


RAISED = [
    (raised("ThrottlingException", "slow"), "THROTTLING", "ThrottlingException: slow"),
    (raised("SERVICE_UNAVAILABLE", "x"), "SERVICE_UNAVAILABLE", "SERVICE_UNAVAILABLE: x"),
    (raised("INVALID_ARGUMENTS", "x"), "INVALID_ARGUMENTS", "INVALID_ARGUMENTS: x"),
    (raised("KeyError", "'a'"), "TOOL_ERROR", "KeyError: 'a'"),
    (raised("Runtime.ExitError", "died"), "TOOL_CRASHED", "Runtime.ExitError: died"),
    (raised("Sandbox.Timedout", "Task timed out"), "TIMEOUT", "Sandbox.Timedout: Task timed out"),
    (raised("Function.ResponseSizeTooLarge", "-"), "RESPONSE_TOO_LARGE", "Function.ResponseSizeTooLarge: -"),
    (
        Raised({"errorMessage": "Task timed out after 3.00 seconds"}),
        "TIMEOUT",
        "an error: Task timed out after 3.00 seconds",
    ),
    (raised("MyError", "Task timed out after lunch"), "TOOL_ERROR", "MyError: Task timed out after lunch"),
    (Raised({"errorType": None, "errorMessage": None}), "TOOL_ERROR", "an error: "),
    (Raised({"errorType": 5, "errorMessage": {"a": 1}}), "TOOL_ERROR", "5: {'a': 1}"),
    (raised("E", "cut \ud83d"), "TOOL_ERROR", "E: cut \ufffd"),
    (Raised(b"Process exited"), "TOOL_ERROR", "an error: Process exited"),
    (Raised(b"x" * 9_000), "TOOL_ERROR", f"an error: {'x' * 500}"),
    (Raised(b"\xff"), "TOOL_ERROR", "an error: \ufffd"),
    (Raised(b"[1]"), "TOOL_ERROR", "an error: [1]"),
    (Raised(b"[" * 500_000), "TOOL_ERROR", f"an error: {'[' * 500}"),
    (Raised(b""), "TOOL_ERROR", "an error: "),
]


@pytest.mark.parametrize(("document", "code", "message"), RAISED, ids=range(len(RAISED)))
def test_a_function_that_raised_has_the_code_that_its_error_names(
    document: Raised, code: str, message: str, fake_lambda: FakeLambda
) -> None:
    fake_lambda.answers = [document]

    failed = failure()

    assert (failed.code, failed.message) == (code, f"get_account_balance failed with {message}")


@dataclass
class LambdaServer:
    """What the server answers. It dribbles: a piece of the body, a pause, the next; after the last it says no more."""

    pieces: list[bytes] = field(default_factory=list)
    ends: bool = False
    answers: bool = True
    pause: float = 0.02
    over: threading.Event = field(default_factory=threading.Event)
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LambdaServer]:
    scripted = LambdaServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            scripted.asked.append(self.path)
            if not scripted.answers:
                scripted.over.wait(LONG)
                self.close_connection = True
                return
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            try:
                for piece in scripted.pieces:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                    if scripted.over.wait(scripted.pause):
                        break
            except ConnectionError:
                self.close_connection = True
                return
            if not scripted.ends:
                scripted.over.wait(LONG)
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", f"http://127.0.0.1:{served.server_port}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    clients.aws_lambda.cache_clear()
    yield scripted
    clients.aws_lambda.cache_clear()
    scripted.over.set()
    served.shutdown()
    thread.join()
    served.server_close()


HASTY = tool(with_policy(timeoutSeconds=1))


def test_an_answer_that_comes_in_pieces_is_whole(server: LambdaServer) -> None:
    payload = json.dumps(answered("48392.50 USD")).encode()
    server.pieces = [payload[:10], payload[10:11], payload[11:]]
    server.ends = True

    assert invoke(tool(), {}).text == "48392.50 USD"
    assert [unquote(path) for path in server.asked] == [f"/2015-03-31/functions/{samples.BANK_FUNCTION}/invocations"]


@pytest.mark.parametrize("how", ["never answers", "dribbles", "falls silent in the middle"])
def test_a_function_that_takes_too_long_is_left_however_it_takes_it(server: LambdaServer, how: str) -> None:
    """Were it not left, the dribbling one would be an answer in the end: a socket's time-out bounds each read only."""
    payload = json.dumps(answered("x")).encode()
    if how == "never answers":
        server.answers = False
    elif how == "dribbles":
        server.pieces = [*([b" "] * 300), payload]
        server.ends = True
    else:
        server.pieces = [payload[:20]]

    with pytest.raises(ToolFailure) as failed:
        invoke(HASTY, {})

    assert (failed.value.code, failed.value.message) == ("TIMEOUT", "get_account_balance gave no answer within 1 s")
    assert len(server.asked) == 1


def test_the_client_s_own_time_outs_end_what_was_abandoned_and_nothing_is_sent_twice(fake_lambda: FakeLambda) -> None:
    fake_lambda.answers = [answered("x")]
    invoke(HASTY, {})
    assert fake_lambda.seconds == [3]


def test_a_client_for_tools_never_retries_by_itself(server: LambdaServer) -> None:
    server.answers = False
    server.over.set()

    with pytest.raises(ToolFailure) as failed:
        invoke(tool(), {})

    assert failed.value.code == "SERVICE_UNAVAILABLE"
    assert len(server.asked) == 1
