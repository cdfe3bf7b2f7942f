"""How much is tried of what has very many cases: some of them while one works on the code, all in `make test-all`."""

from collections.abc import Iterable
from typing import TypeVar

from hypothesis import HealthCheck, settings

T = TypeVar("T")

EXAMPLES = 10
SOME = 6

# How fast a machine is, and what else it does, says nothing about the code; nor may chance decide whether it passes.
# Fixtures that stand for storage are made once a property: its examples name things of their own.
_SOUND = settings(
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("some", _SOUND, max_examples=EXAMPLES)
settings.register_profile("all", _SOUND, max_examples=100)


def configure(*, everything: bool) -> None:
    """Before tests are collected."""
    settings.load_profile("all" if everything else "some")


def some(cases: Iterable[T]) -> list[T]:
    """All cases of a thorough run, six of others: the first, the last, and those between them evenly spread."""
    every = list(cases)
    if settings.get_current_profile_name() == "all" or len(every) <= SOME:
        return every
    return [every[round(place * (len(every) - 1) / (SOME - 1))] for place in range(SOME)]
