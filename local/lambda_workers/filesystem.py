"""What stands for the folders that a function finds on Lambda.

    /var/task       the source folder itself, which unlike Lambda's can be written to
    /var/lang       a Python environment with the packages that Lambda's runtime has, and no others
    /var/runtime    bootstrap.py
    /opt            the layers, and the packages of the requirements of function and layers

The last two lie below one root, which is `LAMBDA_RUNTIME_DIR` without its end. All but /var/task are links, named for
what they hold, so that they are the same in every run: Python keeps bytecode by the paths that it imports from. A build
puts the packages of a function beside its code, and not into /opt; they are the same packages there.
"""

import hashlib
import os
import stat
import sys
import tempfile
import uuid
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import Distribution
from pathlib import Path

from local.lambda_workers import packages

_PYTHON = f"python3.{sys.version_info.minor}"
_BOOTSTRAP = Path(__file__).with_name("bootstrap.py")


def private_directory(name: str) -> Path:
    """A folder of this user's, kept across runs. Raises PermissionError if somebody else has made it."""
    directory = Path(tempfile.gettempdir()).resolve() / f"turnwright-{name}-{os.getuid()}-3.{sys.version_info.minor}"
    directory.mkdir(mode=0o700, exist_ok=True)
    status = directory.lstat()
    if status.st_uid != os.getuid() or not stat.S_ISDIR(status.st_mode):
        raise PermissionError(f"{directory} belongs to somebody else: remove it, or set TMPDIR")
    return directory


class Filesystem:
    """The folders of this machine's workers. Safe to be used by several processes at a time."""

    def __init__(self) -> None:
        self._directory = private_directory("lambda")
        self.lang = self._make_lang()

    @property
    def interpreter(self) -> Path:
        return self.lang / "bin" / _PYTHON

    def root(self, layers: Sequence[Path], requirements: Iterable[Path]) -> Path:
        """The folder of `opt` and `var/runtime` for a function. The last of its layers wins."""
        wanted = [requirement for file in requirements for requirement in packages.read(file)[0]]
        links = {f"opt/python/{name}": path for name, path in packages.files_of(packages.closure(wanted))}
        for layer in layers:
            _lay_over(links, layer)
        return self._made("root", links, {"var/runtime/bootstrap.py": _BOOTSTRAP.read_text()})

    def _make_lang(self) -> Path:
        """As `python -m venv` would, without pip."""
        python = Path(sys._base_executable)  # type: ignore[attr-defined]  # what a virtual environment was made of
        own: list[Distribution] = packages.closure(packages.OF_LAMBDA)
        links = {f"lib/{_PYTHON}/site-packages/{name}": path for name, path in packages.files_of(own)}
        links |= {f"bin/{name}": python for name in ("python", "python3", _PYTHON)}
        configuration = f"home = {python.parent}\ninclude-system-site-packages = false\n"
        return self._made("lang", links, {"pyvenv.cfg": configuration})

    def _made(self, kind: str, links: Mapping[str, Path], texts: Mapping[str, str]) -> Path:
        digest = hashlib.sha256(repr((sorted(links.items()), sorted(texts.items()))).encode()).hexdigest()
        folder = self._directory / f"{kind}-{digest[:20]}"
        for name, target in links.items():
            if not (folder / name).is_symlink():
                new = self._new()
                new.symlink_to(target)
                _put(new, folder / name)
        for name, text in texts.items():
            if not (folder / name).is_file():
                new = self._new()
                new.write_text(text)
                _put(new, folder / name)
        return folder

    def _new(self) -> Path:
        return self._directory / uuid.uuid4().hex


def _put(new: Path, place: Path) -> None:
    """At once, so that another process never sees half of a file."""
    place.parent.mkdir(parents=True, exist_ok=True)
    new.replace(place)


def _lay_over(links: dict[str, Path], layer: Path) -> None:
    """Adds a layer's files to `links`. A file takes the place of a folder of that name, and the other way round."""
    folders = {str(parent) for name in links for parent in Path(name).parents}
    for path in sorted(layer.rglob("*")):
        if path.is_dir() or "__pycache__" in path.parts:
            continue
        name = f"opt/{path.relative_to(layer).as_posix()}"
        for parent in Path(name).parents:
            links.pop(str(parent), None)
        if name in folders:
            for below in [other for other in links if other.startswith(f"{name}/")]:
                del links[below]
        links[name] = path
