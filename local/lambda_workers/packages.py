"""The packages that a function finds: what its `requirements.txt` and those of its layers bring, and what Lambda has.

Nothing is installed for that. A package stands for itself as this environment has it, so a requirement must be
installed here too, in whatever version this Python runs.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import cast

from packaging.markers import default_environment
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

REQUIREMENTS = "requirements.txt"
OF_LAMBDA = (Requirement("awslambdaric"), Requirement("boto3"))
"""What Lambda's Python runtime has itself, besides what these need. Source: "Runtime-included SDK versions" in the
Lambda guide.
"""
ON_LAMBDA = {
    "implementation_name": "cpython",
    "implementation_version": "3.13.0",
    "os_name": "posix",
    "platform_machine": "aarch64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "python_full_version": "3.13.0",
    "python_version": "3.13",
    "sys_platform": "linux",
}
"""What environment markers are compared with on Lambda."""


@dataclass(frozen=True, slots=True)
class UnusableRequirement:
    """A line of a requirements file whose packages are not known here."""

    file: Path
    line: int
    rule: str
    missing: str = ""
    """The package that is required and not installed here, where that is what is wrong."""


def requirements_of(code: Path, layers: Iterable[Path], all_layers: Iterable[Path]) -> tuple[Path, ...]:
    """The requirements files whose packages a function finds, whose code is the folder `code`.

    `layers` are the folders that its own layers are built from, `all_layers` those of all functions. What such a folder
    requires is brought by the layer, not by a function whose code is there too.
    """
    folders = [*([] if code in all_layers else [code]), *layers]
    return tuple(file for folder in folders if (file := folder / REQUIREMENTS).is_file())


def read(file: Path) -> tuple[list[Requirement], list[UnusableRequirement]]:
    """The requirements in a file that are installed here, and the lines that cannot be used."""
    found, unusable = [], []
    for number, text in enumerate(file.read_text().splitlines(), 1):
        line = text.partition(" #")[0].partition(" --hash")[0].strip().removesuffix("\\").strip()
        if not line or line.startswith(("#", "--hash")):
            continue
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            rule = f"'{line}' is not the name of a package with its version; others are not understood offline"
            unusable.append(UnusableRequirement(file, number, rule))
            continue
        if _installed(canonicalize_name(requirement.name)) is None:
            todo = "add it to the group offline of pyproject.toml, then `make up`"
            rule = f"{requirement.name} is not installed here: {todo}"
            unusable.append(UnusableRequirement(file, number, rule, requirement.name))
            continue
        found.append(requirement)
    return found, unusable


def closure(requirements: Iterable[Requirement], environment: Mapping[str, str] | None = None) -> list[Distribution]:
    """What is installed for the requirements, and for what those need, in `environment` (this one if it is None)."""
    compared = cast("Mapping[str, str]", default_environment()) if environment is None else environment
    pending = [(requirement, "") for requirement in requirements]
    seen: set[tuple[str, str]] = set()
    found: dict[str, Distribution] = {}
    while pending:
        requirement, extra = pending.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({**compared, "extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        package = _installed(name)
        if package is None:
            continue
        found[name] = package
        for wanted in {"", *requirement.extras} - {extra for other, extra in seen if other == name}:
            seen.add((name, wanted))
            pending += [(Requirement(needed), wanted) for needed in package.requires or ()]
    return [found[name] for name in sorted(found)]


def files_of(packages: Iterable[Distribution]) -> Iterator[tuple[str, Path]]:
    """Each module, package and metadata folder: its path below `site-packages`, and where it is here.

    A folder without an `__init__.py` may be shared with other packages, so what is in it counts, and not the folder.
    """
    for package in packages:
        for name in _places(package):
            yield name, Path(str(package.locate_file(name)))


def modules_of(packages: Iterable[Distribution]) -> set[str]:
    """The dotted names of the modules and packages that can be imported."""
    names = (Path(name) for name, _ in files_of(packages) if ".dist-info" not in name)
    return {".".join((*name.parent.parts, name.name.partition(".")[0])) for name in names}


@cache
def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


@cache
def _places(package: Distribution) -> list[str]:
    places = {}
    for file in package.files or ():
        if ".." in file.parts or "__pycache__" in file.parts:
            continue
        for length in range(1, len(file.parts) + 1):
            name = "/".join(file.parts[:length])
            if name in places:
                break
            here = Path(str(package.locate_file(name)))
            if length == len(file.parts) or name.endswith(".dist-info") or (here / "__init__.py").is_file():
                places[name] = here
                break
    return list(places)
