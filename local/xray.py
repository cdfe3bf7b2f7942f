"""X-Ray's part: trace headers handed on as AWS does, and a segment for each thing that was done under one.

API Gateway, each function and each execution make a segment; each try of a Task that calls a function a subsegment
of its execution. A segment's id is the `Parent` of the header that its work is given. moto keeps the documents, so that
`aws xray batch-get-traces` answers them. Everything is sampled; AWS has more subsegments (of other states, of
initialization and overhead). Source: "X-Ray segment documents" in the developer guide.
"""

import json
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

_MOST_TRACES = 1000
"""The oldest are forgotten, so that a stack that runs for days does not grow."""


@dataclass(frozen=True, slots=True)
class TraceHeader:
    """`Root=1-…;Parent=…;Sampled=1`. `parent` is "" for what begins a trace."""

    root: str
    parent: str = ""

    @classmethod
    def parse(cls, text: str | None) -> "TraceHeader":
        """A header without a root begins a trace."""
        parts = (part.partition("=") for part in (text or "").split(";"))
        given = {name.strip(): value.strip() for name, _, value in parts}
        return cls(given.get("Root") or f"1-{int(time.time()):08x}-{secrets.token_hex(12)}", given.get("Parent", ""))

    def __str__(self) -> str:
        parent = f";Parent={self.parent}" if self.parent else ""
        return f"Root={self.root}{parent};Sampled=1"


@dataclass(slots=True)
class Span:
    """A segment that is not ended; `header` is what its work is given."""

    document: dict[str, Any]
    put: Callable[[dict[str, Any]], None]
    _ended: bool = field(default=False)

    @property
    def header(self) -> str:
        return str(TraceHeader(self.document["trace_id"], self.document["id"]))

    def end(self, error: str | None = None, status: int | None = None) -> None:
        """Ends it, once. `error` is why it failed, `status` what HTTP answered."""
        if self._ended:
            return
        self._ended = True
        document = {**self.document, "end_time": time.time()}
        if status is not None:
            document["http"] = {"response": {"status": status}}
            document |= {"fault": True} if status >= 500 else {"error": True} if status >= 400 else {}
        if error is not None:
            exception = {"id": secrets.token_hex(8), "message": error}
            document |= {"fault": True, "cause": {"exceptions": [exception]}}
        self.put(document)


class Recorder:
    """Makes spans and keeps what they become. Thread-safe."""

    def __init__(self, keep: Callable[[str], None], forget: Callable[[str], None]) -> None:
        """`keep` takes a segment's document; `forget` a trace id."""
        self._keep = keep
        self._forget = forget
        self._lock = threading.Lock()
        self._traces: OrderedDict[str, None] = OrderedDict()
        self._executions: dict[str, Span] = {}

    def begin(self, header: str | None, name: str, origin: str, **fields: Any) -> Span:
        """A segment under a header; without one it begins a trace."""
        parent = TraceHeader.parse(header)
        document: dict[str, Any] = {
            "id": secrets.token_hex(8),
            "trace_id": parent.root,
            "name": name,
            "start_time": time.time(),
            "origin": origin,
            **fields,
        }
        if parent.parent:
            document["parent_id"] = parent.parent
        return Span(document, self._put)

    def execution_began(self, arn: str, machine: str, header: str | None) -> None:
        span = self.begin(header, machine, "AWS::StepFunctions::StateMachine", aws={"execution_arn": arn})
        with self._lock:
            self._executions[arn] = span

    def execution_ended(self, arn: str, error: str | None) -> None:
        with self._lock:
            span = self._executions.pop(arn, None)
        if span:
            span.end(error)

    @contextmanager
    def task(self, execution_arn: str, state: str) -> Iterator[str | None]:
        """The header for a function that a state calls; None for an execution that nobody told of."""
        with self._lock:
            execution = self._executions.get(execution_arn)
        if execution is None:
            yield None
            return
        span = self.begin(execution.header, state, "AWS::StepFunctions::StateMachine", type="subsegment")
        try:
            yield span.header
        except BaseException as error:
            span.end(f"{type(error).__name__}: {error}"[:1000])
            raise
        span.end()

    def _put(self, document: dict[str, Any]) -> None:
        with self._lock:
            self._keep(json.dumps(document))
            self._traces[document["trace_id"]] = None
            self._traces.move_to_end(document["trace_id"])
            while len(self._traces) > _MOST_TRACES:
                oldest, _ = self._traces.popitem(last=False)
                self._forget(oldest)
