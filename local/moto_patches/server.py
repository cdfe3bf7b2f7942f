"""moto's HTTP server, which every call of every function goes through."""

from collections.abc import Callable, Iterable
from functools import cache

from moto import backends

from local.moto_patches.replacing import replace


def list_modules_once() -> None:
    """Stock moto lists its own folder, some 180 names, for every request: a millisecond each."""

    def make(original: Callable[[], Iterable[str]]) -> Callable[[], frozenset[str]]:
        return cache(lambda: frozenset(original()))

    replace(backends, "list_of_moto_modules", make)


def apply() -> None:
    list_modules_once()
