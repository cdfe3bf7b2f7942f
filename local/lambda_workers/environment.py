"""What a function is, what its process sees, and how a change of its files is noticed."""

import hashlib
import os
import re
import shutil
import stat
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "TMPDIR")
"""All that a worker gets to see of this process's own environment."""

_WATCHED_SUFFIXES = frozenset({".py", ".json", ".sh", ""})
_SCAN_SHARE = 4
"""Files are looked at again after this many times the time that the last look took."""
_TASK_OR_LAYER = re.compile(r"(?:(?<=:)|^)/(var/task|opt)(?=[/:]|$)")


@dataclass(frozen=True)
class FunctionSpec:
    """A function as it is deployed: `code_root` stands for /var/task, `layers` (in order, the last wins) for
    /opt.
    """

    name: str
    arn: str
    handler: str
    code_root: Path
    environment: Mapping[str, str]
    timeout_seconds: float
    memory_mb: int
    log_group: str
    layers: tuple[Path, ...] = ()


def worker_environment(spec: FunctionSpec, runtime_api: str, opt: Path, bytecode_cache: Path) -> dict[str, str]:
    """The whole environment of a worker. Lambda's reserved names win over the function's own variables."""
    region = spec.arn.split(":")[3] if spec.arn.count(":") >= 3 else "us-east-1"
    own = {
        name: _TASK_OR_LAYER.sub(lambda found: str(spec.code_root if found[1] == "var/task" else opt), value)
        for name, value in spec.environment.items()
    }
    layer_paths = [opt / "python", opt / f"python/lib/python3.{sys.version_info.minor}/site-packages"]
    log_stream = f"{time.strftime('%Y/%m/%d', time.gmtime())}/[$LATEST]{uuid.uuid4().hex}"
    python_path = [str(path) for path in layer_paths if path.is_dir()]
    return {
        **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
        "AWS_ACCESS_KEY_ID": "offline",
        "AWS_SECRET_ACCESS_KEY": "offline",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "PYTHONUNBUFFERED": "1",
        **own,
        "AWS_LAMBDA_RUNTIME_API": runtime_api,
        "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
        "AWS_LAMBDA_FUNCTION_NAME": spec.name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(spec.memory_mb),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": spec.log_group,
        "AWS_LAMBDA_LOG_STREAM_NAME": log_stream,
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "LAMBDA_TASK_ROOT": str(spec.code_root),
        "_HANDLER": spec.handler,
        "TZ": ":UTC",
        "PYTHONPATH": os.pathsep.join([*python_path, *filter(None, [own.get("PYTHONPATH")])]),
        "PYTHONPYCACHEPREFIX": str(bytecode_cache),
    }


def worker_command(spec: FunctionSpec, environment: Mapping[str, str]) -> list[str]:
    """The runtime's command line, or the wrapper script with it as arguments."""
    runtime = [sys.executable, "-m", "awslambdaric", spec.handler]
    wrapper = environment.get("AWS_LAMBDA_EXEC_WRAPPER")
    return [wrapper, *runtime] if wrapper else runtime


def merge_layers(layers: Sequence[Path], target: Path) -> Path:
    """The directory that stands for /opt: the only layer itself, or `target` filled with links, the last
    layer winning.
    """
    if len(layers) == 1:
        return layers[0]
    target.mkdir(parents=True, exist_ok=True)
    for layer in layers:
        _link(layer, target)
    return target


def _link(source: Path, target: Path) -> None:
    for entry in source.iterdir():
        place = target / entry.name
        if entry.is_dir():
            if place.is_symlink() or place.is_file():
                place.unlink()
            place.mkdir(exist_ok=True)
            _link(entry, place)
        else:
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            place.unlink(missing_ok=True)
            place.symlink_to(entry)


class FileWatch:
    """Tells whether source files changed, from names, times and sizes; cheap enough to ask before each
    invocation.
    """

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[float, int]] = {}

    def fingerprint(self, directories: Sequence[Path]) -> int:
        return hash(tuple(self._directory(directory) for directory in directories))

    def _directory(self, directory: Path) -> int:
        fresh_until, found = self._seen.get(directory, (0.0, 0))
        started = time.monotonic()
        if started < fresh_until:
            return found
        found = hash(tuple(sorted(_stamps(str(directory)))))
        ended = time.monotonic()
        self._seen[directory] = ended + _SCAN_SHARE * (ended - started), found
        return found


def _stamps(directory: str) -> list[tuple[str, int, int]]:
    """(path, modified in ns, size) of each watched file below; a file that vanishes is left out."""
    stamps: list[tuple[str, int, int]] = []
    try:
        entries = list(os.scandir(directory))
    except OSError:
        return stamps
    for entry in entries:
        if entry.is_dir():
            if entry.name != "__pycache__" and not entry.name.startswith("."):
                stamps += _stamps(entry.path)
        elif os.path.splitext(entry.name)[1] in _WATCHED_SUFFIXES:
            try:
                status = entry.stat()
            except FileNotFoundError:
                continue
            stamps.append((entry.path, status.st_mtime_ns, status.st_size))
    return stamps


_NOTE = ".sources"
"""The file of the cache that says of which sources a tree was compiled."""


class BytecodeCache:
    """Where workers keep compiled modules: outside the source tree, and across runs, since compiling boto3
    takes longer than everything else in a cold start.
    """

    def __init__(self) -> None:
        name = f"turnwright-bytecode-{os.getuid()}-3.{sys.version_info.minor}"
        self.directory = Path(tempfile.gettempdir()) / name
        self.directory.mkdir(mode=0o700, exist_ok=True)
        status = self.directory.lstat()
        if status.st_uid != os.getuid() or not stat.S_ISDIR(status.st_mode):
            raise PermissionError(f"{self.directory} belongs to somebody else: remove it, or set TMPDIR")

    def refresh(self, source_directory: Path) -> None:
        """Forgets a source tree that is not what it was when this was last asked, in this run or one before: Python
        compares times by the second, so it could miss a file that was saved twice.
        """
        source = source_directory.resolve()
        compiled = self.directory / source.relative_to(source.anchor)
        note = compiled / _NOTE
        stamps = hashlib.sha256(repr(sorted(_stamps(str(source)))).encode()).hexdigest()
        with suppress(FileNotFoundError):
            if note.read_text() == stamps:
                return
        shutil.rmtree(compiled, ignore_errors=True)
        compiled.mkdir(parents=True, exist_ok=True)
        note.write_text(stamps)
