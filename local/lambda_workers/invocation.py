"""One invocation: what goes in, the chunks that come out, and how it ended."""

import json
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue

LARGEST_BUFFERED_RESPONSE = 6_291_556
"""Bytes. The number that Lambda itself names in `Function.ResponseSizeTooLarge`."""


@dataclass(frozen=True)
class InvocationError:
    """How an invocation failed. `body` is the JSON document with `errorType` and `errorMessage` that Lambda
    answers.
    """

    type: str
    body: bytes

    @classmethod
    def of(cls, error_type: str, message: str) -> "InvocationError":
        return cls(error_type, json.dumps({"errorType": error_type, "errorMessage": message}).encode())

    def __str__(self) -> str:
        return f"{self.type}: {self.body.decode(errors='replace')}"


@dataclass(frozen=True)
class InvokeResult:
    """A whole answer. `function_error` is None or "Unhandled", as the header X-Amz-Function-Error would say;
    `log_tail` holds at most the last 4 KiB that the function logged.
    """

    payload: bytes
    function_error: str | None
    log_tail: str = ""


class Invocation:
    """The shared state of one invocation; finished exactly once, by an answer, an error, a timeout or a
    crash.
    """

    def __init__(self, payload: bytes, client_context: str | None, trace_header: str | None) -> None:
        self.id = str(uuid.uuid4())
        self.payload = payload
        self.client_context = client_context
        self.trace_header = trace_header or new_trace_header()
        self.waits_since = time.monotonic()
        self.deadline_ms = 0
        self.log_tail = ""
        self.streaming = False
        self.content_type = "application/json"
        self.error: InvocationError | None = None
        self.begun = threading.Event()
        self.finished = threading.Event()
        self._lock = threading.Lock()
        self._abandoned = False
        self.on_finish: Callable[[str | None], None] | None = None
        """Told once how it ended: None, or why it failed."""
        self._chunks: SimpleQueue[bytes | None] = SimpleQueue()

    def begin(self, *, streaming: bool, content_type: str) -> None:
        self.streaming, self.content_type = streaming, content_type
        self.begun.set()

    def write(self, chunk: bytes) -> None:
        with self._lock:
            if chunk and not self.finished.is_set() and not self._abandoned:
                self._chunks.put(chunk)

    def finish(self, error: InvocationError | None = None) -> bool:
        """Ends it. False when it had ended already: the first end counts."""
        with self._lock:
            if self.finished.is_set():
                return False
            self.error = error
            self.begun.set()
            self.finished.set()
            self._chunks.put(None)
        if self.on_finish:
            self.on_finish(None if error is None else str(error)[:1000])
        return True

    def abandon(self) -> None:
        """Nobody reads the answer any more; the function runs on."""
        with self._lock:
            self._abandoned = True

    def chunks(self) -> Iterator[bytes]:
        while (chunk := self._chunks.get()) is not None:
            yield chunk
        self._chunks.put(None)

    def result(self) -> InvokeResult:
        """Waits for the end. An error that came after the first chunk replaces them, as for a buffered
        Invoke.
        """
        payload = b"".join(self.chunks())
        if self.error is not None:
            return InvokeResult(self.error.body, "Unhandled", self.log_tail)
        return InvokeResult(payload, None, self.log_tail)


class StreamingInvocation:
    """An answer as it comes: iterate once over the raw chunks, then look at `error`.

    A response streamed by the runtime has `streaming` True and holds metadata JSON, eight NUL bytes and the
    body. Any other response is one chunk, its JSON document, with `streaming` False. `error` is None until
    the end, and after it when nothing failed: the runtime reported an error (instead of a response, or in the
    trailers after its first chunks), the worker ended, or the time was up.
    """

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation

    @property
    def request_id(self) -> str:
        return self._invocation.id

    @property
    def streaming(self) -> bool:
        """Waits until the function begins to answer, or fails."""
        self._invocation.begun.wait()
        return self._invocation.streaming

    @property
    def content_type(self) -> str:
        """Waits until the function begins to answer, or fails."""
        self._invocation.begun.wait()
        return self._invocation.content_type

    @property
    def error(self) -> InvocationError | None:
        return self._invocation.error

    @property
    def log_tail(self) -> str:
        return self._invocation.log_tail

    def __iter__(self) -> Iterator[bytes]:
        return self._invocation.chunks()

    def close(self) -> None:
        """Stops listening. The invocation runs to its end, as on Lambda."""
        self._invocation.abandon()


def new_trace_header() -> str:
    """A sampled X-Ray trace header: `Root=1-<epoch, 8 hex>-<96 bits>;Parent=<64 bits>;Sampled=1`."""
    return f"Root=1-{int(time.time()):08x}-{secrets.token_hex(12)};Parent={secrets.token_hex(8)};Sampled=1"
