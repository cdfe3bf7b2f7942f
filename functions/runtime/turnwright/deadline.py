"""Bounds on the time of a call that nothing in the call can stretch: for one that waits, and for one that computes."""

import signal
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


def interrupted(seconds: float, work: Callable[[], T]) -> T:
    """The result of `work`, or its exception; TimeoutError inside of `work` when it takes longer, repeated each tenth
    of a second for as long as it goes on.

    It works in the main thread alone, where a Lambda handler runs and Python delivers signals (elsewhere: ValueError),
    and it reaches what a thread cannot abandon since it never lets another one run: `re`, which looks for signals.
    """
    runs = True

    def interrupt(_signal: int, _frame: object) -> None:
        if runs:
            raise TimeoutError(f"not within {seconds} s")

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, 0.1)
        try:
            return work()
        finally:
            runs = False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
