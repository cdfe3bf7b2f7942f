"""Calls to make later, for timeouts."""

import heapq
import itertools
import threading
import time
from collections.abc import Callable


class Alarm:
    """A call to make later. Cancelling drops it at once, with all that it refers to."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self._call = None

    def ring(self) -> None:
        if (call := self._call) is not None:
            call()


class Alarms:
    """Rings alarms in time, on one thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._heap: list[tuple[float, int, Alarm]] = []
        self._numbers = itertools.count()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="lambda-timeouts", daemon=True)
        self._thread.start()

    def after(self, seconds: float, call: Callable[[], None]) -> "Alarm":
        alarm = Alarm(call)
        with self._changed:
            heapq.heappush(self._heap, (time.monotonic() + seconds, next(self._numbers), alarm))
            self._changed.notify()
        return alarm

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and (not self._heap or self._heap[0][0] > time.monotonic()):
                    wait = self._heap[0][0] - time.monotonic() if self._heap else None
                    self._changed.wait(wait)
                if self._closed:
                    return
                _, _, alarm = heapq.heappop(self._heap)
            alarm.ring()
