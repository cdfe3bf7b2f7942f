"""API Gateway's part in front of the functions: a REST API with Lambda proxy integrations, on 127.0.0.1.

It follows what API Gateway does where a caller or a handler can see it: the proxy event (payload version
1.0), the refusals and their `x-amzn-ErrorType`, the limits, streamed answers (metadata JSON, eight NUL bytes,
body). Two things differ and cannot be otherwise here: a signature must be present where the template says
`AWS_IAM`, but nobody can verify it, so the caller is taken from the access key id in it; and the stage is not
part of the path.
"""

import base64
import binascii
import json
import re
import secrets
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Protocol, cast
from urllib.parse import parse_qsl, unquote, urlsplit

ACCOUNT_ID = "123456789012"
LARGEST_BODY = 10 * 1024 * 1024
LARGEST_BUFFERED_ANSWER = 6 * 1024 * 1024
LARGEST_METADATA = 16 * 1024
METADATA_END = b"\0" * 8
METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")

_LARGEST_DISCARDED_BODY = 64 * 1024 * 1024
_REMAPPED = frozenset({"connection", "date", "server", "www-authenticate", "x-amzn-requestid", "x-amzn-trace-id"})
"""Response headers that API Gateway renames to `x-amzn-Remapped-...`, since it writes its own."""
_FRAMING = frozenset({"content-length", "transfer-encoding", "trailer"})
_CREDENTIAL = re.compile(r"\bCredential=([^/,\s]+)/")


class Invocation(Protocol):
    """What a function answered: `function_error` is None, or says how it failed (`Unhandled`)."""

    @property
    def payload(self) -> bytes: ...
    @property
    def function_error(self) -> str | None: ...


class StreamedInvocation(Protocol):
    """A function's answer as it comes: raw chunks. `error` is None as long as nothing failed; final at the
    last chunk.
    """

    def __iter__(self) -> Iterator[bytes]: ...
    @property
    def error(self) -> object | None: ...


class Functions(Protocol):
    """Runs functions by name."""

    def invoke(self, function: str, payload: bytes, trace_header: str | None = None) -> Invocation: ...

    def invoke_streaming(
        self, function: str, payload: bytes, trace_header: str | None = None
    ) -> StreamedInvocation: ...


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path template (`/agents/{agentId}/text`, `/files/{path+}`) and the function behind
    it.
    """

    method: str
    path: str
    function: str
    streaming: bool = False
    authorization: Literal["NONE", "AWS_IAM"] = "NONE"
    timeout_seconds: float = 29


@dataclass(frozen=True, slots=True)
class Api:
    """What the template says about the API. A method `ANY` in a route stands for every method."""

    routes: Sequence[Route]
    binary_media_types: frozenset[str] = frozenset()
    api_id: str = "local"
    stage: str = "local"

    def match(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """The most specific route for a raw (percent-encoded) path, with its decoded path parameters."""
        found = [
            (_specificity(route), route, parameters)
            for route in self.routes
            if route.method in (method, "ANY") and (parameters := _path_parameters(route.path, path)) is not None
        ]
        if not found:
            return None
        _, route, parameters = max(found, key=lambda candidate: candidate[0])
        return route, parameters


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came over the wire. `path` is percent-encoded, `query` the part after the question
    mark.
    """

    method: str
    path: str
    query: str
    headers: Sequence[tuple[str, str]]
    body: bytes
    source_ip: str = "127.0.0.1"
    port: int = 0
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    received_at: float = field(default_factory=time.time)

    def header(self, name: str) -> str | None:
        """The last value of a header, whatever the case of its name."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        return values[-1] if values else None


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and headers of a response, and its body when that is known as a whole."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes = b""


class Refused(Exception):
    """API Gateway answers by itself, without the function or instead of it."""

    def __init__(self, status: int, error_type: str, message: str) -> None:
        super().__init__(message)
        self.answer = Answer(
            status,
            [("Content-Type", "application/json"), ("x-amzn-ErrorType", error_type)],
            json.dumps({"message": message}).encode(),
        )


def access_key_id(request: Request) -> str:
    """The caller's access key id in a SigV4 signature (header or presigned query).

    Raises Refused as API Gateway refuses an unsigned request. The signature itself is not verified: nothing
    offline knows the secret key, and the scope may name another service than `execute-api`.
    """
    authorization = request.header("Authorization")
    if authorization is None:
        presigned = dict(parse_qsl(request.query)).get("X-Amz-Credential")
        if presigned is None:
            raise Refused(403, "MissingAuthenticationTokenException", "Missing Authentication Token")
        return presigned.split("/")[0]
    credential = _CREDENTIAL.search(authorization)
    if not authorization.startswith("AWS4-HMAC-SHA256 ") or credential is None:
        raise Refused(403, "IncompleteSignatureException", "Authorization header is not an AWS4-HMAC-SHA256 signature")
    return credential[1]


def trace_header(request: Request) -> str:
    """The X-Ray header for the function: the caller's root and parent if it sent them, otherwise new ones,
    and sampled.
    """
    parts = (part.partition("=") for part in (request.header("X-Amzn-Trace-Id") or "").split(";"))
    given = {name.strip(): value.strip() for name, _, value in parts if value}
    root = given.get("Root") or f"1-{int(request.received_at):08x}-{secrets.token_hex(12)}"
    parent = given.get("Parent") or secrets.token_hex(8)
    return f"Root={root};Parent={parent};Sampled={given.get('Sampled', '1')}"


def proxy_event(api: Api, route: Route, parameters: Mapping[str, str], request: Request, trace: str) -> dict[str, Any]:
    """The Lambda proxy event, payload version 1.0, of a REST API.

    As on AWS: `path` stays percent-encoded, `pathParameters` and the query are decoded, a signature does not
    reach the function, and a body whose media type is binary comes base64-encoded.
    """
    caller = access_key_id(request) if route.authorization == "AWS_IAM" else None
    headers = [
        (name, value)
        for name, value in request.headers
        if name.lower() not in ("connection", "expect", "transfer-encoding", "x-amzn-trace-id")
        and not (caller and name.lower() == "authorization")
    ]
    headers += [
        ("X-Amzn-Trace-Id", trace),
        ("X-Forwarded-For", request.source_ip),
        ("X-Forwarded-Port", str(request.port)),
        ("X-Forwarded-Proto", "http"),
    ]
    query = parse_qsl(request.query, keep_blank_values=True)
    body, encoded = _encoded_body(api, request)
    return {
        "resource": route.path,
        "path": request.path,
        "httpMethod": request.method,
        "headers": dict(headers) or None,
        "multiValueHeaders": _grouped(headers),
        "queryStringParameters": dict(query) or None,
        "multiValueQueryStringParameters": _grouped(query),
        "pathParameters": dict(parameters) or None,
        "stageVariables": None,
        "requestContext": {
            "resourceId": "local",
            "resourcePath": route.path,
            "httpMethod": request.method,
            "extendedRequestId": request.request_id,
            "requestTime": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(request.received_at)),
            "path": f"/{api.stage}{request.path}",
            "accountId": ACCOUNT_ID,
            "protocol": "HTTP/1.1",
            "stage": api.stage,
            "domainPrefix": "local",
            "requestTimeEpoch": int(request.received_at * 1000),
            "requestId": request.request_id,
            "identity": _identity(request, caller),
            "domainName": request.header("Host") or "127.0.0.1",
            "deploymentId": "local",
            "apiId": api.api_id,
        },
        "body": body,
        "isBase64Encoded": encoded,
    }


def proxy_answer(payload: bytes) -> Answer:
    """The HTTP answer in a buffered proxy response. Raises Refused (502) if the payload is not one."""
    try:
        response = json.loads(payload)
        status = int(response["statusCode"])
        body = response.get("body") or ""
        if not 100 <= status <= 599 or not isinstance(body, str):
            raise ValueError("statusCode or body")
        content = base64.b64decode(body, validate=True) if response.get("isBase64Encoded") else body.encode()
        return Answer(status, _response_headers(response), content)
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise Refused(502, "InternalServerErrorException", "Internal server error") from error


def streamed_answer(chunks: Iterator[bytes]) -> tuple[Answer, bytes]:
    """Reads `chunks` up to the end of the metadata: the answer's status and headers, and the body's first
    bytes.

    Raises Refused (502) when what comes is not metadata followed by eight NUL bytes.
    """
    received = bytearray()
    for chunk in chunks:
        received += chunk
        end = received.find(METADATA_END)
        if end >= 0:
            head, first = bytes(received[:end]), bytes(received[end + len(METADATA_END) :])
            answer = proxy_answer(head)
            return Answer(answer.status, answer.headers), first
        if len(received) > LARGEST_METADATA:
            break
    raise Refused(502, "InternalServerErrorException", "Internal server error")


class ApiGateway:
    """Serves an API on 127.0.0.1 until `close`. `port` 0 takes a free one; a taken port raises OSError.

    `on_problem` is told, in one line, what a caller only sees as a 502: that a function crashed or answered
    wrongly.
    """

    def __init__(
        self,
        api: Api,
        functions: Functions,
        *,
        port: int = 0,
        on_problem: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._server = _Server(("127.0.0.1", port), _Connection)
        self._server.front = self
        self.api = api
        self.functions = functions
        self.on_problem = on_problem
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="api", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Stops listening and cuts the connections that are open."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._server.cut_connections()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    front: ApiGateway

    def __init__(self, *arguments: Any) -> None:
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that went away is no error; anything else is told."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            self.front.on_problem(f"the API front failed: {type(error).__name__}: {error}")

    def cut_connections(self) -> None:
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Connection(BaseHTTPRequestHandler):
    """One connection of one caller, any number of requests after each other."""

    protocol_version = "HTTP/1.1"
    server_version = "local"
    disable_nagle_algorithm = True
    server: _Server
    headers: "Message[str, str]"

    def log_message(self, *_: Any) -> None:
        """Requests are not logged here: the functions log what they do."""

    def handle_expect_100(self) -> bool:
        if int(self.headers.get("Content-Length") or 0) > LARGEST_BODY:
            self.close_connection = True
            self._send(_too_large().answer)
            return False
        return super().handle_expect_100()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """The answer to a request that is not HTTP, or of a method that does not exist."""
        self.close_connection = True
        if code == HTTPStatus.NOT_IMPLEMENTED:
            self._send(Refused(403, "MissingAuthenticationTokenException", "Missing Authentication Token").answer)
        else:
            self._send(Refused(code, "BadRequestException", message or "Bad request").answer)

    def _serve(self) -> None:
        front = self.server.front
        trace = ""
        request_id = str(uuid.uuid4())
        try:
            body = self._read_body()
            target = urlsplit(self.path if self.path.startswith("/") else f"/{self.path}")
            request = Request(
                self.command,
                target.path,
                target.query,
                self.headers.items(),
                body,
                str(self.client_address[0]),
                front.port,
                request_id,
            )
            trace = trace_header(request)
            matched = front.api.match(request.method, request.path)
            if matched is None:
                raise Refused(403, "MissingAuthenticationTokenException", "Missing Authentication Token")
            route, parameters = matched
            event = json.dumps(proxy_event(front.api, route, parameters, request, trace)).encode()
            if route.streaming:
                self._stream(route, event, request_id, trace)
            else:
                self._send(self._buffered(route, event, trace), request_id, trace)
        except Refused as refused:
            self._send(refused.answer, request_id, trace)

    do_DELETE = do_GET = do_HEAD = do_OPTIONS = do_PATCH = do_POST = do_PUT = _serve

    def _read_body(self) -> bytes:
        if "chunked" in (self.headers.get("Transfer-Encoding") or "").lower():
            return self._read_chunked_body()
        length = self.headers.get("Content-Length") or "0"
        if not length.isdecimal():
            self.close_connection = True
            raise Refused(400, "BadRequestException", "Bad Content-Length")
        if int(length) > LARGEST_BODY:
            self._discard(int(length))
            raise _too_large()
        return self.rfile.read(int(length))

    def _read_chunked_body(self) -> bytes:
        body = bytearray()
        while True:
            try:
                size = int(self.rfile.readline(256).split(b";")[0], 16)
            except ValueError:
                self.close_connection = True
                raise Refused(400, "BadRequestException", "Bad chunk") from None
            if size == 0:
                while self.rfile.readline(1024).strip():
                    pass
                return bytes(body)
            if len(body) + size > LARGEST_BODY:
                self.close_connection = True
                raise _too_large()
            body += self.rfile.read(size)
            self.rfile.readline(2)

    def _discard(self, length: int) -> None:
        """Reads what the caller is about to send anyway, so that it gets to read the refusal."""
        self.close_connection = True
        remaining = min(length, _LARGEST_DISCARDED_BODY)
        while remaining > 0 and (piece := self.rfile.read(min(remaining, 65536))):
            remaining -= len(piece)

    def _buffered(self, route: Route, event: bytes, trace: str) -> Answer:
        """The function's answer. It has the integration's time; it goes on after that, but nobody waits for
        it.
        """
        front = self.server.front
        outcome: list[Invocation | BaseException] = []

        def run() -> None:
            try:
                outcome.append(front.functions.invoke(route.function, event, trace))
            except Exception as error:
                outcome.append(error)

        thread = threading.Thread(target=run, name=f"invoke {route.function}", daemon=True)
        thread.start()
        thread.join(route.timeout_seconds)
        if not outcome:
            front.on_problem(f"{route.function} did not answer {route.path} within {route.timeout_seconds:g} s")
            raise Refused(504, "InternalServerErrorException", "Endpoint request timed out")
        result = outcome[0]
        if isinstance(result, BaseException):
            front.on_problem(f"{route.function} could not be invoked: {result}")
            raise Refused(502, "InternalServerErrorException", "Internal server error") from result
        if result.function_error is not None:
            front.on_problem(f"{route.function} failed: {result.payload.decode(errors='replace')[:500]}")
            raise Refused(502, "InternalServerErrorException", "Internal server error")
        if len(result.payload) > LARGEST_BUFFERED_ANSWER:
            front.on_problem(f"{route.function} answered {len(result.payload)} bytes; Lambda allows 6 MB")
            raise Refused(502, "InternalServerErrorException", "Internal server error")
        try:
            return proxy_answer(result.payload)
        except Refused:
            front.on_problem(f"{route.function} did not answer with a proxy response")
            raise

    def _stream(self, route: Route, event: bytes, request_id: str, trace: str) -> None:
        """Passes the function's answer on as it comes. A caller that goes away does not stop the function."""
        front = self.server.front
        try:
            invocation = front.functions.invoke_streaming(route.function, event, trace)
            chunks = iter(invocation)
            answer, first = streamed_answer(chunks)
        except Refused:
            reason = invocation.error or "no streaming metadata came"
            front.on_problem(f"{route.function} failed before it answered: {reason}")
            for _ in chunks:
                pass
            raise
        except Exception as error:
            front.on_problem(f"{route.function} could not be invoked: {type(error).__name__}: {error}")
            raise Refused(502, "InternalServerErrorException", "Internal server error") from error
        writer = _ChunkWriter(self.wfile.write)
        writer.guard(
            lambda: self._send_head(answer, request_id, trace, [("Transfer-Encoding", "chunked")]),
        )
        without_body = self.command == "HEAD" or answer.status in (204, 304)
        writer.open = writer.open and not without_body
        writer.write(first)
        failure: object | None = None
        try:
            for chunk in chunks:
                writer.write(chunk)
        except Exception as error:
            failure = error
        failure = failure or invocation.error
        if failure is not None:
            front.on_problem(f"{route.function} failed in the middle of its answer: {failure}")
            self.close_connection = True
        elif writer.open:
            writer.end()
        if not writer.open and not without_body:
            self.close_connection = True

    def _send(self, answer: Answer, request_id: str | None = None, trace: str = "") -> None:
        with suppress(OSError):
            length = [] if answer.status in (204, 304) else [("Content-Length", str(len(answer.body)))]
            self._send_head(answer, request_id or str(uuid.uuid4()), trace, length)
            if getattr(self, "command", None) != "HEAD":
                self.wfile.write(answer.body)

    def _send_head(self, answer: Answer, request_id: str, trace: str, framing: Iterable[tuple[str, str]]) -> None:
        self.send_response(answer.status)
        self.send_header("x-amzn-RequestId", request_id)
        if trace:
            self.send_header("X-Amzn-Trace-Id", trace.split(";")[0])
        for name, value in answer.headers:
            self.send_header(name, value)
        for name, value in framing:
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()


class _ChunkWriter:
    """Writes HTTP chunks until the other side is gone; `open` says whether it still listens."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self.open = True

    def write(self, data: bytes) -> None:
        if data and self.open:
            self.guard(lambda: self._write(b"%x\r\n%b\r\n" % (len(data), data)))

    def end(self) -> None:
        self.guard(lambda: self._write(b"0\r\n\r\n"))

    def guard(self, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError:
            self.open = False


def _too_large() -> Refused:
    return Refused(413, "RequestTooLargeException", "Request Too Long")


def _segments(path: str) -> list[str]:
    stripped = path[1:-1] if len(path) > 1 and path.endswith("/") else path[1:]
    return stripped.split("/")


def _path_parameters(template: str, path: str) -> dict[str, str] | None:
    """The decoded parameters of `path` if it fits `template`, else None. A trailing slash does not matter."""
    wanted, given = _segments(template), _segments(path)
    parameters: dict[str, str] = {}
    for index, segment in enumerate(wanted):
        if segment.endswith("+}"):
            rest = "/".join(given[index:])
            return {**parameters, segment[1:-2]: unquote(rest)} if rest else None
        if index >= len(given):
            return None
        if segment.startswith("{"):
            if not given[index]:
                return None
            parameters[segment[1:-1]] = unquote(given[index])
        elif segment != unquote(given[index]):
            return None
    return parameters if len(wanted) == len(given) else None


def _specificity(route: Route) -> tuple[list[int], bool]:
    """Literal segments win over parameters, these over greedy ones, segment by segment; a method wins over
    ANY.
    """
    kinds = [0 if part.endswith("+}") else 1 if part.startswith("{") else 2 for part in _segments(route.path)]
    return kinds, route.method != "ANY"


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]] | None:
    grouped: dict[str, list[str]] = {}
    for name, value in pairs:
        grouped.setdefault(name, []).append(value)
    return grouped or None


def _encoded_body(api: Api, request: Request) -> tuple[str | None, bool]:
    if not request.body:
        return None, False
    media_type = (request.header("Content-Type") or "application/json").split(";")[0].strip().lower()
    main_type = media_type.split("/")[0]
    if {"*/*", f"{main_type}/*", media_type} & api.binary_media_types:
        return base64.b64encode(request.body).decode(), True
    return request.body.decode("utf-8", "replace"), False


def _identity(request: Request, caller: str | None) -> dict[str, Any]:
    known = {
        "accessKey": caller,
        "accountId": ACCOUNT_ID,
        "caller": caller,
        "user": caller,
        "userArn": f"arn:aws:iam::{ACCOUNT_ID}:user/{caller}",
    }
    return {
        **{name: value if caller else None for name, value in known.items()},
        "apiKey": None,
        "cognitoAuthenticationProvider": None,
        "cognitoAuthenticationType": None,
        "cognitoIdentityId": None,
        "cognitoIdentityPoolId": None,
        "principalOrgId": None,
        "sourceIp": request.source_ip,
        "userAgent": request.header("User-Agent"),
    }


def _response_headers(response: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Single and multiple values together: as on AWS, a name in `multiValueHeaders` hides the same one in
    `headers`.
    """
    many = cast("dict[str, list[Any]]", response.get("multiValueHeaders") or {})
    hidden = {name.lower() for name in many}
    pairs = [(name, str(value)) for name, values in many.items() for value in values]
    pairs += [
        (name, _header_value(value))
        for name, value in (response.get("headers") or {}).items()
        if name.lower() not in hidden and value is not None
    ]
    if "content-type" not in {name.lower() for name, _ in pairs}:
        pairs.append(("Content-Type", "application/json"))
    return [
        (f"x-amzn-Remapped-{name}" if name.lower() in _REMAPPED else name, value)
        for name, value in pairs
        if name.lower() not in _FRAMING and not set("\r\n") & set(name + value)
    ]


def _header_value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
