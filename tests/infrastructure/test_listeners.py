"""The listeners of the offline stack: whose requests they take, and which of them they can tell the end of."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPResponse
from typing import Any
from urllib.parse import urlsplit

import pytest

from local.aws.aws_server import AwsServer
from local.bedrock.endpoint import BedrockEndpoint
from local.bedrock.scripted_model import ScriptedModel
from local.deployment.custom_resources import CustomResources
from local.gateway.api_gateway import ApiGateway
from local.gateway.routes import Api, Route
from local.lambda_workers import LambdaWorkers
from local.lambda_workers.invocation import Invocation, InvocationError
from local.lambda_workers.runtime_api import RuntimeApi
from tests.waiting import patient

HERE = b"Host: 127.0.0.1"


class Answered:
    """What a function answers, whatever it is invoked with; it is invoked with a custom resource's request or a proxy
    event, and counts them.
    """

    payload = b'{"statusCode": 200, "body": "taken"}'
    function_error = None

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def invoke(self, function: str, payload: bytes, trace_header: str | None = None) -> "Answered":
        self.events.append(json.loads(payload))
        return self

    def invoke_streaming(self, function: str, payload: bytes, trace_header: str | None = None) -> Any:
        raise NotImplementedError


class Client:
    """A worker that has one invocation, which it has not answered yet."""

    function_arn = "arn:aws:lambda:us-east-1:123456789012:function:f"

    def __init__(self) -> None:
        self.invocation = Invocation(b"{}", None, None)
        self.ended: list[InvocationError | None] = []
        self.failures: list[InvocationError] = []

    def next_invocation(self) -> Invocation | None:
        return self.invocation

    def current_invocation(self, request_id: str) -> Invocation | None:
        return self.invocation if request_id == self.invocation.id else None

    def finish(self, invocation: Invocation, error: InvocationError | None) -> None:
        self.ended.append(error)

    def fail_init(self, error: InvocationError) -> None:
        self.failures.append(error)

    def wait_for_exit(self, seconds: float) -> bool:
        return False


class Listener:
    """A port, a request that it takes, and `taken`, which says whether it has."""

    def __init__(self, port: int, request_line: str, body: bytes, taken: Callable[[], bool]) -> None:
        self.port = port
        self.head = f"{request_line} HTTP/1.1".encode()
        self.body = body
        self.taken = taken

    def send(self, *headers: bytes, body: bytes | None = None) -> tuple[int, bytes]:
        """The answer to the request with these headers; its body is sent as it is."""
        sent = b"\r\n".join([self.head, *headers, b"", self.body if body is None else body])
        with socket.create_connection(("127.0.0.1", self.port), timeout=patient(20)) as connection:
            connection.sendall(sent)
            response = HTTPResponse(connection, method="POST")
            response.begin()
            return response.status, response.read()

    @property
    def length(self) -> bytes:
        return b"Content-Length: %d" % len(self.body)


def the_api(open_ones: ExitStack) -> Listener:
    functions = Answered()
    gateway = ApiGateway(Api((Route("POST", "/text", "f"),), stage="v1"), functions)
    open_ones.callback(gateway.close)
    return Listener(gateway.port, "POST /text", b'{"a": "\xc3\xa9"}', lambda: bool(functions.events))


def bedrock(open_ones: ExitStack) -> Listener:
    model = ScriptedModel([{"reply": {"text": "Hello"}}])
    endpoint = BedrockEndpoint(model)
    open_ones.callback(endpoint.close)
    body = b'{"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}'
    return Listener(urlsplit(endpoint.url).port or 0, "POST /model/m/converse", body, lambda: bool(model.requests))


def runtime_api(open_ones: ExitStack) -> Listener:
    client, api = Client(), RuntimeApi()
    open_ones.callback(api.close)
    listener = api.listen(client)
    path = f"/2018-06-01/runtime/invocation/{client.invocation.id}/response"
    return Listener(listener.getsockname()[1], f"POST {path}", b'{"a": 1}', lambda: client.ended == [None])


def custom_resources(open_ones: ExitStack) -> Listener:
    resources = CustomResources(Answered(), "stack")
    open_ones.callback(resources.close)
    return Listener(
        resources._server.server_address[1], "PUT /request-1", b'{"a": 1}', lambda: "request-1" in resources._answers
    )


def aws(open_ones: ExitStack) -> Listener:
    workers = LambdaWorkers(lambda spec, line: None, max_concurrency=1)
    open_ones.callback(workers.close)
    server = AwsServer(workers)
    open_ones.callback(server.stop)

    def taken() -> bool:
        from moto.s3.models import s3_backends

        return "taken" in s3_backends["123456789012"]["global"].buckets

    return Listener(server.port, "PUT /taken", b"", taken)


LISTENERS = (the_api, bedrock, runtime_api, custom_resources, aws)


@pytest.fixture(params=LISTENERS, ids=lambda make: make.__name__)
def listener(request: pytest.FixtureRequest) -> Iterator[Listener]:
    with ExitStack() as open_ones:
        yield request.param(open_ones)


def test_a_program_of_this_machine_is_served(listener: Listener) -> None:
    status, _ = listener.send(HERE, listener.length)
    assert status in (200, 202)
    assert listener.taken()


@pytest.mark.parametrize(
    "headers",
    [
        (b"Host: attacker.example",),
        (b"Host: 127.0.0.1.attacker.example:3000",),
        (b"Host: ",),
        (b"X: y",),
        (HERE, b"Origin: https://attacker.example"),
        (HERE, b"Origin: null"),
        (HERE, b"Origin: http://127.0.0.1", b"Origin: https://attacker.example"),
    ],
    ids=lambda headers: b" ".join(headers).decode(),
)
def test_a_page_of_another_site_is_refused(listener: Listener, headers: tuple[bytes, ...]) -> None:
    status, body = listener.send(*headers, listener.length)
    assert status == 403
    assert b"call it at 127.0.0.1 or localhost" in body
    assert not listener.taken()


@pytest.mark.parametrize(
    "framing",
    [
        (b"Content-Length: many",),
        (b"Content-Length: -1",),
        (b"Content-Length: +5",),
        (b"Content-Length: 5, 5",),
        (b"Content-Length: 0x5",),
        (b"Content-Length: \xb2",),
        (b"Content-Length: ",),
        (b"Content-Length: " + b"9" * 30,),
        (b"Content-Length: 5", b"Content-Length: 5"),
        (b"Content-Length: 5", b"Content-Length: 6"),
        (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        (b"Content-Length: many", b"Expect: 100-continue"),
        (HERE, b"Content-Length: 5"),
    ],
    ids=lambda framing: b" ".join(framing).decode("latin-1"),
)
def test_a_length_that_is_doubtful_is_answered_400(listener: Listener, framing: tuple[bytes, ...]) -> None:
    status, body = listener.send(HERE, *framing)
    assert status == 400
    assert b"more than one Host" in body or b"Content-Length" in body
    assert not listener.taken()


@pytest.mark.parametrize("encoding", [b"gzip", b"gzip, chunked", b"identity", b"chunked, chunked"])
def test_only_chunks_are_a_transfer_encoding(listener: Listener, encoding: bytes) -> None:
    status, body = listener.send(HERE, b"Transfer-Encoding: " + encoding)
    assert status in (400, 411)
    assert b"Transfer-Encoding" in body
    assert not listener.taken()


@pytest.mark.parametrize("make", [the_api, runtime_api])
@pytest.mark.parametrize("size", [b"", b"x", b"-1", b"+1", b"0x1", b"1_0", b"1 0", b"9" * 20])
def test_a_chunk_without_a_size_is_answered_400(make: Callable[[ExitStack], Listener], size: bytes) -> None:
    with ExitStack() as open_ones:
        listener = make(open_ones)
        status, body = listener.send(
            HERE, b"Transfer-Encoding: chunked", body=b"1\r\n{\r\n" + size + b"\r\n}\r\n0\r\n\r\n"
        )
        assert status == 400
        assert b"hunk" in body
        assert not listener.taken()


@pytest.mark.parametrize("make", [the_api, runtime_api])
def test_chunks_are_taken_where_they_are_served(make: Callable[[ExitStack], Listener]) -> None:
    with ExitStack() as open_ones:
        listener = make(open_ones)
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(listener.body), listener.body)
        assert listener.send(HERE, b"Transfer-Encoding: Chunked", body=body)[0] in (200, 202)
        assert listener.taken()


@pytest.mark.parametrize("make", [bedrock, custom_resources])
def test_elsewhere_a_length_is_needed(make: Callable[[ExitStack], Listener]) -> None:
    with ExitStack() as open_ones:
        listener = make(open_ones)
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(listener.body), listener.body)
        assert listener.send(HERE, b"Transfer-Encoding: chunked", body=body)[0] == 411
        assert not listener.taken()


@pytest.mark.parametrize("make", [the_api, bedrock, custom_resources, runtime_api])
def test_what_is_far_too_long_is_answered_413_before_it_is_read(make: Callable[[ExitStack], Listener]) -> None:
    with ExitStack() as open_ones:
        listener = make(open_ones)
        with socket.create_connection(("127.0.0.1", listener.port), timeout=patient(20)) as connection:
            connection.sendall(
                b"\r\n".join([listener.head, HERE, b"Content-Length: 999999999999", b"Expect: 100-continue", b"", b""])
            )
            response = HTTPResponse(connection, method="POST")
            response.begin()
            assert response.status == 413
        assert not listener.taken()


def test_a_body_that_is_no_utf_8_is_refused_and_not_altered() -> None:
    with ExitStack() as open_ones:
        listener = the_api(open_ones)
        status, body = listener.send(HERE, b"Content-Length: 4", body=b'"\xff"\n')
        assert (status, json.loads(body)) == (400, {"message": "The body is not UTF-8 at byte 1"})
        assert not listener.taken()


@pytest.mark.parametrize("body", [b"[1]", b"nonsense", b"\xff", b"[" * 4_000, b""])
def test_a_custom_resources_answer_is_a_json_object(body: bytes) -> None:
    with ExitStack() as open_ones:
        listener = custom_resources(open_ones)
        assert listener.send(HERE, b"Content-Length: %d" % len(body), body=body)[0] == 400
        assert not listener.taken()
