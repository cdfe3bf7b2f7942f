"""What a handler raises is written twice: Lambda logs its message, and Step Functions keeps that as the cause."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from turnwright.settings import settings

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
            payloads = settings().payloads
            if payloads.full:
                raise
            message = payloads.error_of(error)
            if message == str(error):
                raise
            safe = type(type(error).__name__, (Exception,), {"__module__": type(error).__module__})(message)
            raise safe.with_traceback(error.__traceback__) from None

    return guarded
