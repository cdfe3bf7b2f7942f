"""API Gateway's throttling: a bucket of tokens for each method of the API, from which each request takes one."""

import threading
import time
from collections.abc import Callable, Iterable

from local.gateway.routes import Route


class Throttling:
    """What is left of the methods' limits. Thread-safe. `clock` tells seconds and never goes back."""

    def __init__(self, routes: Iterable[Route], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._left = {route: (float(route.throttle.burst), clock()) for route in routes if route.throttle}

    def admits(self, route: Route) -> bool:
        """Takes a token from the method's bucket; False if there is none, and then nothing is taken."""
        if route.throttle is None:
            return True
        with self._lock:
            now = self._clock()
            left, counted_at = self._left[route]
            left = min(route.throttle.burst, left + (now - counted_at) * route.throttle.rate)
            admitted = left >= 1
            self._left[route] = (left - admitted, now)
            return admitted
