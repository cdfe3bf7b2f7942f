"""The Bedrock Runtime endpoint of the offline stack: `Converse`, `ConverseStream` and, for embeddings, `InvokeModel`
over HTTP on 127.0.0.1.

It answers as the service does: percent-encoded model ids, `x-amzn-errortype`, event streams with exception frames.
The signature of a request is not looked at, but pages of other sites are refused (`local/loopback.py`): a model may
cost money. A failure of the backend is always an error to the caller: nothing falls back to another model. Embeddings
are those of the model behind it, where it is one that has a say in them (`bedrock`, `openai`); the others, which are no
models, come with `hashed_embeddings`.
"""

import json
import re
import socket
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from local.bedrock.converse_answer import converse_answer
from local.bedrock.hashed_embeddings import HashedEmbeddings
from local.bedrock.model_backend import (
    ConverseRequest,
    EmbeddingBackend,
    EmbeddingRequest,
    JsonObject,
    ModelBackend,
    ModelError,
    StreamEvent,
)
from local.bedrock.request_rules import check_request
from local.loopback import ThisMachinesRequests
from turnwright.api import event_stream

_ROUTE = re.compile(r"/model/([^/]+)/(converse|converse-stream|invoke)/?")
_IN_STREAM = {
    "InternalServerException",
    "ModelStreamErrorException",
    "ServiceUnavailableException",
    "ThrottlingException",
    "ValidationException",
}
"""The exceptions that ConverseStream's event stream can hold; any other becomes a ModelStreamErrorException."""


class BedrockEndpoint:
    """Serves `backend` from construction to `close`. `port` 0 takes a free one. Raises OSError if the port is taken.

    `backend` may be replaced while the endpoint runs: the next request sees the new one.
    """

    def __init__(self, backend: ModelBackend, port: int = 0) -> None:
        self.backend = backend
        self._server = _Server(port, self)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="bedrock-endpoint", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Stops listening and ends every connection."""
        self._server.shutdown()
        self._server.server_close()
        self._server.close_connections()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, port: int, endpoint: BedrockEndpoint) -> None:
        self.endpoint = endpoint
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)

    def opened(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.add(connection)

    def closed(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.discard(connection)

    def close_connections(self) -> None:
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that goes away is no error; anything else is shown."""
        if not isinstance(sys.exception(), ConnectionError):
            traceback.print_exc()


class _Handler(ThisMachinesRequests, BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 64 * 1024
    largest_body = 25_000_000
    """What InvokeModel takes."""

    def setup(self) -> None:
        super().setup()
        self._owner.opened(self.connection)

    def finish(self) -> None:
        self._owner.closed(self.connection)
        with suppress(ConnectionError):
            super().finish()

    def do_POST(self) -> None:
        payload = self._read_body()
        started = time.monotonic()
        try:
            request = self._request(payload)
            if isinstance(request, EmbeddingRequest):
                self._answer(200, self._invoke(request))
                return
            events = self._events(request, started)
            with closing(events):
                if request.is_stream:
                    self._answer_stream(events)
                else:
                    self._answer(200, converse_answer(events))
        except ModelError as error:
            self._answer_error(error)

    def do_GET(self) -> None:
        self._read_body()
        self._answer_error(self._unknown_operation())

    do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = do_GET

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it
        """No access log: the handlers' own log says what they called."""

    @property
    def _owner(self) -> _Server:
        return cast(_Server, self.server)

    def refuse(self, status: int, message: str) -> None:
        name = "AccessDeniedException" if status == 403 else "ValidationException"
        self._answer_error(ModelError(status, name, message))

    def _read_body(self) -> bytes:
        """Raises ConnectionResetError for a caller that goes away before the end of its request."""
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:
            self.close_connection = True
            raise ConnectionResetError(f"the request ended after {len(body)} of {length} bytes")
        return body

    def _request(self, payload: bytes) -> ConverseRequest | EmbeddingRequest:
        route = _ROUTE.fullmatch(urlsplit(self.path).path)
        if not route:
            raise self._unknown_operation()
        try:
            body = json.loads(payload)
        except ValueError as error:
            raise ModelError(400, "ValidationException", f"The request body is not JSON: {error}") from error
        model_id = unquote(route.group(1))
        if route.group(2) == "invoke":
            if not isinstance(body, dict):
                raise ModelError(400, "ValidationException", "The request body must be a JSON object.")
            return EmbeddingRequest(model_id, body)
        is_stream = route.group(2) == "converse-stream"
        check_request(model_id, body, is_stream=is_stream)
        return ConverseRequest(model_id, body, is_stream)

    def _unknown_operation(self) -> ModelError:
        message = f"{self.command} {self.path}: the offline endpoint has Converse, ConverseStream and InvokeModel only"
        return ModelError(404, "UnknownOperationException", message)

    def _invoke(self, request: EmbeddingRequest) -> JsonObject:
        backend = self._owner.endpoint.backend
        embeddings = backend if isinstance(backend, EmbeddingBackend) else HashedEmbeddings()
        try:
            return embeddings.invoke_model(request)
        except ModelError:
            raise
        except Exception as error:
            traceback.print_exc()
            raise ModelError(500, "InternalServerException", f"{type(error).__name__}: {error}") from error

    def _events(self, request: ConverseRequest, started: float) -> Generator[StreamEvent, None, None]:
        """The backend's events with the latency in the last; a mistake of the backend is an internal error."""
        try:
            for event in self._owner.endpoint.backend.converse(request):
                yield _timed(event, started) if event.name == "metadata" else event
        except ModelError:
            raise
        except Exception as error:
            traceback.print_exc()
            raise ModelError(500, "InternalServerException", f"{type(error).__name__}: {error}") from error

    def _answer_stream(self, events: Iterator[StreamEvent]) -> None:
        first = next(events, None)
        if first is None:
            raise ModelError(424, "ModelErrorException", "the model gave no answer")
        self._begin(200, event_stream.CONTENT_TYPE, {"transfer-encoding": "chunked"})
        try:
            for event in chain([first], events):
                self._write_chunk(event_stream.event(event.name, event.body))
        except ModelError as error:
            self._write_chunk(_exception_frame(error))
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _write_chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _answer_error(self, error: ModelError) -> None:
        self._answer(error.status, {"message": error.message}, {"x-amzn-errortype": error.error_type})

    def _answer(self, status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        payload = json.dumps(body, ensure_ascii=False).encode()
        self._begin(status, "application/json", {"content-length": str(len(payload)), **(headers or {})})
        if self.command != "HEAD":
            self.wfile.write(payload)
        self.wfile.flush()

    def _begin(self, status: int, content_type: str, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {
            "content-type": content_type,
            "x-amzn-requestid": str(uuid.uuid4()),
            **headers,
        }.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("connection", "close")
        self.end_headers()


def _timed(event: StreamEvent, started: float) -> StreamEvent:
    latency = {"latencyMs": round((time.monotonic() - started) * 1000)}
    return StreamEvent(event.name, {"metrics": latency, **event.body})


def _exception_frame(error: ModelError) -> bytes:
    if error.error_type in _IN_STREAM:
        name, message = error.error_type, error.message
    else:
        name, message = "ModelStreamErrorException", f"{error.error_type}: {error.message}"
    return event_stream.exception(name[0].lower() + name[1:], {"message": message})
