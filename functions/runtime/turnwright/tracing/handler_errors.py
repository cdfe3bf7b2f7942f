"""Makes what a handler raises safe to write: Lambda logs its message, and Step Functions keeps that as the cause."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from turnwright.tracing.payloads import payloads

_Answer = TypeVar("_Answer")


def with_safe_errors(handler: Callable[[dict[str, Any], Any], _Answer]) -> Callable[[dict[str, Any], Any], _Answer]:
    """The handler, raising its exceptions with messages that the parameter TracePayloads allows.

    The class keeps its name, by which the state machine knows it, and the traceback its frames.
    """

    @wraps(handler)
    def guarded(event: dict[str, Any], context: Any) -> _Answer:
        try:
            return handler(event, context)
        except Exception as error:
            allowed = payloads()
            if allowed.full:
                raise
            message = allowed.error_of(error)
            if message == str(error):
                raise
            safe = type(type(error).__name__, (Exception,), {"__module__": type(error).__module__})(message)
            raise safe.with_traceback(error.__traceback__) from None

    return guarded
