"""A bound on the time of a call that nothing in the call can stretch."""

from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeVar, cast

T = TypeVar("T")


def within(seconds: float, work: Callable[[], T]) -> T:
    """The result of `work`, or its exception; TimeoutError if it takes longer, and then it is abandoned.

    What is abandoned goes on in a daemon thread: `work` should end by itself, by time-outs of its own, and what it
    still does must not matter.
    """
    outcomes: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()

    def run() -> None:
        try:
            outcomes.put((work(), None))
        except BaseException as error:  # handed to the caller, whatever it is
            outcomes.put((None, error))

    Thread(target=run, name="bounded call", daemon=True).start()
    try:
        result, error = outcomes.get(timeout=seconds)
    except Empty:
        raise TimeoutError(f"not within {seconds} s") from None
    if error is not None:
        raise error
    return cast(T, result)
