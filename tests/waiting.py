"""Waiting for a condition, with a bound that knows how busy the machine is."""

import time
from collections.abc import Callable

_LOOPS = 200_000
_QUIET_SECONDS = 0.01
"""What so many loops take, about, on a machine of today that does nothing else."""


def patient(seconds: float) -> float:
    """So many seconds of a quiet machine, on this one as it is now: never fewer, and more when others use it too."""
    started = time.perf_counter()
    for _ in range(_LOOPS):
        pass
    return seconds * max(1.0, (time.perf_counter() - started) / _QUIET_SECONDS)


def eventually(condition: Callable[[], object], what: str = "what was waited for", seconds: float = 20) -> None:
    """Returns when the condition holds. Raises AssertionError saying what did not come about."""
    started, bound = time.monotonic(), seconds
    while not condition():
        if time.monotonic() - started > bound:
            bound = patient(seconds)
            assert time.monotonic() - started <= bound, f"not within {bound:.0f} s: {what}"
        time.sleep(0.02)
