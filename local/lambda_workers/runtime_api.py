"""The Lambda Runtime API (2018-06-01) that workers talk to, on 127.0.0.1, one port a worker.

AWS gives the runtime `host:port` and nothing else, so the port is what tells workers apart. Routes: GET
invocation/next, POST invocation/{id}/response (plain or streamed, any transfer encoding), POST
invocation/{id}/error, POST init/error. Source: "Using the Lambda runtime API" and "Response streaming for
custom runtimes" in the Lambda developer guide.
"""

import base64
import binascii
import json
import select
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPMessage, parse_headers
from http.server import BaseHTTPRequestHandler
from typing import Any, Protocol

from local.lambda_workers.invocation import LARGEST_BUFFERED_RESPONSE, Invocation, InvocationError
from local.loopback import ThisMachinesRequests, chunk_size

_PREFIX = "/2018-06-01/runtime/"
_ERROR_TYPE = "Lambda-Runtime-Function-Error-Type"
_ERROR_BODY = "Lambda-Runtime-Function-Error-Body"
_EXIT_WAIT_SECONDS = 1.0


class RuntimeClient(Protocol):
    """What the Runtime API needs to know of a worker."""

    @property
    def function_arn(self) -> str: ...
    def next_invocation(self) -> Invocation | None: ...
    def current_invocation(self, request_id: str) -> Invocation | None: ...
    def finish(self, invocation: Invocation, error: InvocationError | None) -> None: ...
    def fail_init(self, error: InvocationError) -> None: ...
    def wait_for_exit(self, seconds: float) -> bool: ...


class RuntimeApi:
    """Accepts connections for all workers on one thread; each connection is served on a thread of its own."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._serving: Counter[RuntimeClient] = Counter()
        self._served = threading.Condition()
        self._closed = False
        self._wake_up, wake_up_end = socket.socketpair()
        self._selector.register(wake_up_end, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._accept, name="lambda-runtime-api", daemon=True)
        self._thread.start()

    def listen(self, client: RuntimeClient) -> socket.socket:
        """A socket that serves `client`. Close it with `stop_listening`."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=16)
        listener.setblocking(False)
        with self._lock:
            self._selector.register(listener, selectors.EVENT_READ, client)
        self._wake_up.send(b"\0")
        return listener

    def drain(self, client: RuntimeClient, listener: socket.socket, seconds: float) -> None:
        """Waits until all that `client` sent before its process ended has been read and handled."""
        deadline = time.monotonic() + seconds
        while select.select([listener], [], [], 0)[0] and time.monotonic() < deadline:
            time.sleep(0.001)
        with self._served:
            self._served.wait_for(lambda: not self._serving[client], max(0.0, deadline - time.monotonic()))
            del self._serving[client]

    def stop_listening(self, listener: socket.socket) -> None:
        with self._lock, suppress(KeyError, ValueError):
            self._selector.unregister(listener)
        listener.close()

    def close(self) -> None:
        self._closed = True
        self._wake_up.send(b"\0")
        self._thread.join()
        self._wake_up.close()
        with self._lock:
            for key in list(self._selector.get_map().values()):
                self._selector.unregister(key.fileobj)
                if isinstance(key.fileobj, socket.socket):
                    key.fileobj.close()
            self._selector.close()

    def _accept(self) -> None:
        while not self._closed:
            for key, _ in self._selector.select():
                if key.data is None:
                    key.fileobj.recv(64)  # type: ignore[union-attr]
                    continue
                with suppress(OSError):  # closed since the select
                    with self._served:
                        connection, address = key.fileobj.accept()  # type: ignore[union-attr]
                        self._serving[key.data] += 1
                    serve = threading.Thread(target=self._serve, args=(connection, address, key.data), daemon=True)
                    serve.start()

    def _serve(self, connection: socket.socket, address: Any, client: RuntimeClient) -> None:
        try:
            with connection, suppress(ConnectionError):
                connection.setblocking(True)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                _Handler(connection, address, client)
        finally:
            with self._served:
                self._serving[client] -= 1
                self._served.notify_all()


class _BadChunk(ConnectionError):
    """Where the body ends cannot be told."""


class _Handler(ThisMachinesRequests, BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    takes_chunks = True
    largest_body = 256 * 1024 * 1024
    """Far more than an answer may have: what is too large is told as Lambda tells it."""

    def __init__(self, connection: socket.socket, address: Any, client: RuntimeClient) -> None:
        self._client = client
        super().__init__(connection, address, server=None)  # type: ignore[arg-type]

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        if self.path != f"{_PREFIX}invocation/next":
            return self._answer(404, b'{"errorType":"InvalidPath"}')
        invocation = self._client.next_invocation()
        if invocation is None:
            self.close_connection = True
            return None
        headers = {
            "Content-Type": "application/json",
            "Lambda-Runtime-Aws-Request-Id": invocation.id,
            "Lambda-Runtime-Deadline-Ms": str(invocation.deadline_ms),
            "Lambda-Runtime-Invoked-Function-Arn": self._client.function_arn,
            "Lambda-Runtime-Trace-Id": invocation.trace_header,
        }
        if invocation.client_context:
            headers["Lambda-Runtime-Client-Context"] = invocation.client_context
        return self._answer(200, invocation.payload, headers)

    def refuse(self, status: int, message: str) -> None:
        error = {"errorType": "Forbidden" if status == 403 else "InvalidRequest", "errorMessage": message}
        self._answer(status, json.dumps(error).encode())

    def do_POST(self) -> None:
        try:
            self._post()
        except _BadChunk as error:
            self.close_connection = True
            self.refuse(400, str(error))

    def _post(self) -> None:
        if self.path == f"{_PREFIX}init/error":
            self._client.fail_init(self._reported_error(b"".join(self._body())))
            return self._answer(202, b'{"status":"OK"}')
        kind, _, rest = self.path.removeprefix(_PREFIX).partition("/")
        request_id, _, what = rest.partition("/")
        if kind != "invocation" or what not in ("response", "error"):
            return self._answer(404, b'{"errorType":"InvalidPath"}')
        invocation = self._client.current_invocation(request_id)
        if invocation is None:
            for _ in self._body():
                pass
            return self._answer(400, b'{"errorType":"InvalidRequestID","errorMessage":"Invalid request ID"}')
        try:
            error = self._take(invocation, what)
        except _BadChunk as malformed:
            self._client.finish(invocation, InvocationError.of("Runtime.TruncatedResponse", str(malformed)))
            raise
        except ConnectionError:
            if self._client.wait_for_exit(_EXIT_WAIT_SECONDS):
                raise  # its end is reported where it is noticed, with its exit status
            error = InvocationError.of("Runtime.TruncatedResponse", "The response ended before its last byte")
        self._client.finish(invocation, error)
        return self._answer(202, b'{"status":"OK"}')

    def _take(self, invocation: Invocation, what: str) -> InvocationError | None:
        if what == "error":
            return self._reported_error(b"".join(self._body()))
        if self.headers.get("Lambda-Runtime-Function-Response-Mode", "").lower() == "streaming":
            return self._stream(invocation)
        return self._buffer(invocation)

    def _buffer(self, invocation: Invocation) -> InvocationError | None:
        body = b"".join(self._body())
        if len(body) > LARGEST_BUFFERED_RESPONSE:
            return InvocationError.of(
                "Function.ResponseSizeTooLarge",
                f"Response payload size ({len(body)} bytes) exceeded maximum allowed payload size "
                f"({LARGEST_BUFFERED_RESPONSE} bytes).",
            )
        invocation.begin(streaming=False, content_type=self.headers.get("Content-Type", "application/json"))
        invocation.write(body)
        return None

    def _stream(self, invocation: Invocation) -> InvocationError | None:
        content_type = self.headers.get("Content-Type", "application/octet-stream")
        invocation.begin(streaming=True, content_type=content_type)
        trailers = HTTPMessage()
        for chunk in self._body(trailers):
            invocation.write(chunk)
        if (error_type := trailers.get(_ERROR_TYPE)) is None:
            return None
        return InvocationError(error_type, _trailer_body(error_type, trailers.get(_ERROR_BODY, "")))

    def _reported_error(self, body: bytes) -> InvocationError:
        error_type = self.headers.get(_ERROR_TYPE) or "Runtime.Unknown"
        with suppress(ValueError, AttributeError, RecursionError):
            error_type = str(json.loads(body).get("errorType") or error_type)
        return InvocationError(error_type, body or InvocationError.of(error_type, "").body)

    def _body(self, trailers: HTTPMessage | None = None) -> Iterator[bytes]:
        """The request's body as it comes. Raises ConnectionResetError when it ends early."""
        if "Transfer-Encoding" not in self.headers:
            yield self._exactly(int(self.headers.get("Content-Length") or 0))
            return
        while size := chunk_size(self._line()):
            yield self._exactly(size)
            self._line()
        if size is None:
            raise _BadChunk("a chunk of the request has no size")
        for name, value in parse_headers(self.rfile).items():
            if trailers is not None:
                trailers[name] = value

    def _line(self) -> bytes:
        line = self.rfile.readline(1024)
        if not line.endswith(b"\n"):
            raise ConnectionResetError("the request ended early")
        return line

    def _exactly(self, size: int) -> bytes:
        data = self.rfile.read(size)
        if len(data) < size:
            raise ConnectionResetError("the request ended early")
        return data

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        with suppress(ConnectionError):
            self.send_response(status)
            for name, value in (headers or {"Content-Type": "application/json"}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()


def _trailer_body(error_type: str, encoded: str) -> bytes:
    """The error document of a trailer: base64 of JSON, as the developer guide has it; plain JSON is taken as
    well.
    """
    if not encoded:
        return InvocationError.of(error_type, "").body
    if encoded.lstrip().startswith("{"):
        return encoded.encode()
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error:
        return InvocationError.of(error_type, encoded).body
