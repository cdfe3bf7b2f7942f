"""What the API front, custom resources and events need to know of functions: how to run one, and what it answered."""

from collections.abc import Iterator
from typing import Protocol


class Throttled(Exception):
    """Lambda does not start the function: as many of it run as its reserved concurrency allows."""


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
    """Runs functions by name. Both raise Throttled."""

    def invoke(self, function: str, payload: bytes, trace_header: str | None = None) -> Invocation: ...

    def invoke_streaming(
        self, function: str, payload: bytes, trace_header: str | None = None
    ) -> StreamedInvocation: ...
