"""Replacing a private part of moto by name."""

from collections.abc import Callable
from typing import Any


def replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Sets `owner.name` to `make(original)`. Raises AttributeError when moto has no such part any more."""
    setattr(owner, name, make(getattr(owner, name)))


def replace_class_method(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """The same for a class method; `make` gets and returns a function whose first parameter is the class."""
    setattr(owner, name, classmethod(make(getattr(owner, name).__func__)))
