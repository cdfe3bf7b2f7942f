"""The exceptions are drawn as they are."""

import importlib
import pkgutil
import re

import turnwright
from turnwright import errors
from turnwright.errors import TurnwrightError

DRAWN_ELSEWHERE = "Refusal"

Tree = dict[str, str]
"""Each exception's parent, by their names."""


def drawn() -> Tree:
    """The tree in the module's text. Each level is indented by four characters more, which end with a branch."""
    line = re.compile(r"^((?:[│ ]   )*)[├└]── (\w+)", re.MULTILINE)
    ancestors = [TurnwrightError.__name__]
    tree: Tree = {}
    for indent, name in line.findall(errors.__doc__ or ""):
        del ancestors[len(indent) // 4 + 1 :]
        tree[name] = ancestors[-1]
        ancestors.append(name)
    return tree


def real(parent: type[TurnwrightError] = TurnwrightError) -> Tree:
    tree: Tree = {}
    for child in parent.__subclasses__():
        tree[child.__name__] = parent.__name__
        if child.__name__ != DRAWN_ELSEWHERE:
            tree |= real(child)
    return tree


def test_the_drawing_shows_every_exception_below_its_parent() -> None:
    for module in pkgutil.walk_packages(turnwright.__path__, "turnwright."):
        importlib.import_module(module.name)

    assert drawn() == real()
