"""API Gateway's part in front of the functions: a REST API with Lambda proxy integrations, on 127.0.0.1.

It follows what API Gateway does where a caller or a handler can see it: the proxy event (payload version
1.0), the refusals and their `x-amzn-ErrorType`, the limits, streamed answers (metadata JSON, eight NUL bytes,
body). Two things differ and cannot be otherwise here: a signature must be present where the template says
`AWS_IAM`, but nobody can verify it, so the caller is taken from the access key id in it; and the stage is not
part of the path. Since anybody's signature will do, pages of other sites are refused (`loopback.py`).
"""

import json
import socket
import sys
import threading
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from email.message import Message
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from local.gateway.http2 import Http2Connection, is_spoken
from local.gateway.proxy_integration import (
    Answer,
    Refused,
    Request,
    missing_token,
    proxy_answer,
    proxy_event,
    streamed_answer,
    takes_binary,
    trace_header,
)
from local.gateway.routes import Api, Route
from local.gateway.throttling import Throttling
from local.invocations import Functions, Invocation, Throttled
from local.loopback import ThisMachinesRequests, chunk_size
from local.xray import Recorder, Span

LARGEST_BODY = 10 * 1024 * 1024
LARGEST_BUFFERED_ANSWER = 6 * 1024 * 1024
LARGEST_EVENT = 6_291_456
"""What Lambda's Invoke takes: the event that a request becomes, in which its body is a JSON text in JSON."""


_ORIGIN = "AWS::ApiGateway::Stage"

_LARGEST_DISCARDED_BODY = 64 * 1024 * 1024


class ApiGateway:
    """Serves an API on 127.0.0.1 until `close`. `port` 0 takes a free one; a taken port raises OSError.

    `on_problem` is told, in one line, what a caller only sees as a 502: that a function crashed or answered
    wrongly. `site` may answer a request that is none of the API's (the console page).
    """

    def __init__(
        self,
        api: Api,
        functions: Functions,
        *,
        port: int = 0,
        on_problem: Callable[[str], None] = lambda _: None,
        xray: Recorder | None = None,
        site: Callable[[Request], Answer | None] = lambda _: None,
    ) -> None:
        self._server = _Server(("127.0.0.1", port), _Connection)
        self._server.front = self
        self.api = api
        self.throttling = Throttling(api.routes)
        self.functions = functions
        self.on_problem = on_problem
        self.xray = xray
        self.site = site
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


class _Connection(ThisMachinesRequests):
    """One connection of one caller, any number of requests after each other."""

    protocol_version = "HTTP/1.1"
    server_version = "local"
    disable_nagle_algorithm = True
    takes_chunks = True
    server: _Server
    headers: "Message[str, str]"

    def handle(self) -> None:
        if is_spoken(self.connection):
            front = self.server.front
            Http2Connection(self.connection, front.port, LARGEST_BODY, _too_large().answer(front.api)).serve()
        else:
            super().handle()

    def log_message(self, *_: Any) -> None:
        """Requests are not logged here: the functions log what they do."""

    def refuse(self, status: int, message: str) -> None:
        name = "AccessDeniedException" if status == HTTPStatus.FORBIDDEN else "BadRequestException"
        self._refuse(Refused(status, name, message, "ACCESS_DENIED" if status == HTTPStatus.FORBIDDEN else ""))

    def handle_expect_100(self) -> bool:
        if not self._is_taken():
            return False
        if int(self.headers.get("Content-Length") or 0) > LARGEST_BODY:
            self.close_connection = True
            self._refuse(_too_large())
            return False
        return super().handle_expect_100()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """The answer to a request that is not HTTP, or of a method that does not exist."""
        self.close_connection = True
        if code == HTTPStatus.NOT_IMPLEMENTED:
            self._refuse(missing_token())
        else:
            self._refuse(Refused(code, "BadRequestException", message or "Bad request"))

    def _serve(self) -> None:
        front = self.server.front
        trace = ""
        span: Span | None = None
        self.answered = 0
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
            page = front.site(request)
            if page is not None:
                self._send(page, request_id)
                return
            trace = trace_header(request)
            if front.xray is not None:
                # Only a caller who sent a header has a segment of its own above this one.
                above = trace if request.header("X-Amzn-Trace-Id") else trace.split(";")[0]
                http = {"request": {"method": request.method, "url": f"{front.url}{request.path}"}}
                span = front.xray.begin(above, f"{front.api.api_id}/{front.api.stage}", _ORIGIN, http=http)
                trace = span.header
            matched = front.api.match(request.method, request.path)
            if matched is None:
                raise missing_token()
            route, parameters = matched
            if not front.throttling.admits(route):
                raise Refused(429, "TooManyRequestsException", "Too Many Requests")
            event = json.dumps(proxy_event(front.api, route, parameters, request, trace), ensure_ascii=False).encode()
            if len(event) > LARGEST_EVENT:
                front.on_problem(f"a request to {route.path} becomes an event of {len(event)} bytes; Lambda takes 6 MB")
                raise _too_large()
            if route.streaming:
                self._stream(route, event, request_id, trace)
            else:
                self._send(self._buffered(route, request, event, trace), request_id, trace)
        except Refused as refused:
            self._refuse(refused, request_id, trace)
        finally:
            if span:
                span.end(status=self.answered)

    do_DELETE = do_GET = do_HEAD = do_OPTIONS = do_PATCH = do_POST = do_PUT = _serve

    def _read_body(self) -> bytes:
        if "Transfer-Encoding" in self.headers:
            return self._read_chunked_body()
        length = int(self.headers.get("Content-Length") or 0)
        if length > LARGEST_BODY:
            self._discard(length)
            raise _too_large()
        return self._read_exactly(length)

    def _read_chunked_body(self) -> bytes:
        body = bytearray()
        while True:
            size = chunk_size(self.rfile.readline(256))
            if size is None:
                self.close_connection = True
                raise Refused(400, "BadRequestException", "Bad chunk")
            if size == 0:
                while self.rfile.readline(1024).strip():
                    pass
                return bytes(body)
            if len(body) + size > LARGEST_BODY:
                self.close_connection = True
                raise _too_large()
            body += self._read_exactly(size)
            self.rfile.readline(2)

    def _read_exactly(self, length: int) -> bytes:
        """A caller that goes away before the end of its request has not made one."""
        body = self.rfile.read(length)
        if len(body) < length:
            self.close_connection = True
            raise ConnectionResetError(f"the request ended after {len(body)} of {length} bytes")
        return body

    def _discard(self, length: int) -> None:
        """Reads what the caller is about to send anyway, so that it gets to read the refusal."""
        self.close_connection = True
        remaining = min(length, _LARGEST_DISCARDED_BODY)
        while remaining > 0 and (piece := self.rfile.read(min(remaining, 65536))):
            remaining -= len(piece)

    def _buffered(self, route: Route, request: Request, event: bytes, trace: str) -> Answer:
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
            raise Refused(504, "InternalServerErrorException", "Endpoint request timed out", "INTEGRATION_TIMEOUT")
        result = outcome[0]
        if isinstance(result, BaseException):
            front.on_problem(f"{route.function} could not be invoked: {result}")
            raise _not_invoked(result) from result
        if result.function_error is not None:
            front.on_problem(f"{route.function} failed: {result.payload.decode(errors='replace')[:500]}")
            raise Refused(502, "InternalServerErrorException", "Internal server error")
        if len(result.payload) > LARGEST_BUFFERED_ANSWER:
            front.on_problem(f"{route.function} answered {len(result.payload)} bytes; Lambda allows 6 MB")
            raise Refused(502, "InternalServerErrorException", "Internal server error")
        try:
            return proxy_answer(result.payload, decoded=takes_binary(front.api, request))
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
            raise _not_invoked(error) from error
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

    def _refuse(self, refused: Refused, request_id: str | None = None, trace: str = "") -> None:
        self._send(refused.answer(self.server.front.api), request_id, trace)

    def _send(self, answer: Answer, request_id: str | None = None, trace: str = "") -> None:
        with suppress(OSError):
            length = [] if answer.status in (204, 304) else [("Content-Length", str(len(answer.body)))]
            self._send_head(answer, request_id or str(uuid.uuid4()), trace, length)
            if length and getattr(self, "command", None) != "HEAD":
                self.wfile.write(answer.body)

    def _send_head(self, answer: Answer, request_id: str, trace: str, framing: Iterable[tuple[str, str]]) -> None:
        self.answered = answer.status
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


def _not_invoked(error: BaseException) -> Refused:
    """Of a throttled function a caller sees a 500, as users of REST APIs report, and no 429."""
    status = 500 if isinstance(error, Throttled) else 502
    return Refused(status, "InternalServerErrorException", "Internal server error")


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
    return Refused(413, "RequestTooLargeException", "Request Too Long", "REQUEST_TOO_LARGE")
