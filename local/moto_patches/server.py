"""What moto does for every request of every service."""

from collections.abc import Callable, Iterable
from functools import cache

from moto import backends
from moto.core import responses

from local.moto_patches.replacing import replace


def list_modules_once() -> None:
    """Stock moto lists its own folder, some 180 names, for every request: a millisecond each."""

    def make(original: Callable[[], Iterable[str]]) -> Callable[[], frozenset[str]]:
        return cache(lambda: frozenset(original()))

    replace(backends, "list_of_moto_modules", make)


def list_methods_once() -> None:
    """Stock moto looks through all members of a service's class for every request: half a millisecond each."""
    replace(responses, "method_names_from_class", cache)


@cache
def apply() -> None:
    list_modules_once()
    list_methods_once()
