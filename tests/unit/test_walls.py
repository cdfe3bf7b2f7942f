"""The house keeps its order: imports go downwards, and never in a circle."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.paths import ROOT

HOUSES = {"turnwright": ROOT / "functions" / "runtime" / "turnwright", "local": ROOT / "local"}

FLOORS = {
    "turnwright": [
        "errors deadline surrogates",
        "storage",
        "agents",
        "sessions",
        "costs",
        "tracing",
        "executions models",
        "tools",
        "memory.records",
        "memory.session_ends",
        "memory.consolidation memory.erasure",
        "memory.injection memory.memory_tools",
        "turn",
        "api.event_stream api.request_bodies api.streaming_runtime",
        "api.bedrock api.agentcore api.unsupported_operations",
    ],
    "local": [
        "loopback xray invocations running_stacks terminal moto_patches",
        "bedrock",
        "lambda_workers gateway",
        "deployment",
        "aws",
        "commands",
        "console",
        "stack",
        "demo bench",
        "__main__",
    ],
}
"""From the ground up, rooms and single modules; those of one floor do not know each other."""


def modules(house: str) -> dict[str, Path]:
    """The modules by their names below the house; a package's own `__init__` by the package's name."""
    root = HOUSES[house]
    found = {}
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(house: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules of the house that a file imports anywhere in it, for types only too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            head, _, rest = name.partition(".")
            if head == house:
                while rest not in known:
                    rest = rest.rpartition(".")[0]
                if rest:
                    yield rest


def floor(house: str, module: str) -> tuple[int, str]:
    """The floor of a module, and the room of that floor that it is in."""
    return next(
        (number, room)
        for number, rooms in enumerate(FLOORS[house])
        for room in rooms.split()
        if module == room or module.startswith(f"{room}.")
    )


@cache
def graph(house: str) -> dict[str, set[str]]:
    """What each module imports."""
    known = modules(house)
    return {module: set(imports(house, path, known)) - {module} for module, path in known.items()}


@pytest.mark.parametrize("house", HOUSES)
def test_imports_go_downwards(house: str) -> None:
    known = modules(house)
    climbs = []
    for module, imported_there in graph(house).items():
        if known[module].name == "__init__.py" and not imported_there:
            continue
        here, room = floor(house, module)
        for imported in imported_there:
            there, other = floor(house, imported)
            if there > here or (there == here and other != room):
                climbs.append(f"{module} -> {imported}")
    assert climbs == []


@pytest.mark.parametrize("house", HOUSES)
def test_no_modules_import_each_other_in_a_circle(house: str) -> None:
    try:
        TopologicalSorter(graph(house)).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}", pytrace=False)


def test_no_two_modules_have_the_same_name() -> None:
    """In `turnwright`: handlers bear the name of what they call, and `local` is a house of its own."""
    names = [path.stem for path in modules("turnwright").values() if path.name != "__init__.py"]
    assert sorted(name for name in set(names) if names.count(name) > 1) == []
