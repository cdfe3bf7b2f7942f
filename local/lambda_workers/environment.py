"""What a function is, what its process sees, and how a change of its files is noticed."""

import hashlib
import os
import re
import shutil
import sysconfig
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from local.lambda_workers.filesystem import private_directory

_WATCHED_SUFFIXES = frozenset({".py", ".json", ".sh", ""})
_SCAN_SHARE = 4
"""Files are looked at again after this many times the time that the last look took."""
_LIBPYTHON = sysconfig.get_config_var("LIBDIR")
"""Where an interpreter that is linked with its library finds it, as Lambda's does in /var/lang/lib."""
_TASK_OR_LAYER = re.compile(r"(?:(?<=:)|^)/(var/task|opt)(?=[/:]|$)")


@dataclass(frozen=True)
class FunctionSpec:
    """A function as it is deployed: `code_root` stands for /var/task, `layers` (in order, the last wins) for
    /opt. `requirements` are the files that name the packages that a build adds to either. At most
    `reserved_concurrency` invocations of it are under way at once, if that is a number.
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
    requirements: tuple[Path, ...] = ()
    reserved_concurrency: int | None = None


def worker_environment(
    spec: FunctionSpec, runtime_api: str, lang: Path, root: Path, bytecode_cache: Path
) -> dict[str, str]:
    """The whole environment of a worker: nothing of this process's own. Lambda's reserved names win over the function's
    own variables, which win over the others. `lang` and `root` are of `filesystem.py`.

    Source: "Defined runtime environment variables" in the Lambda guide. The variables of the second part are not
    Lambda's: they keep a worker from the credentials of whoever runs it, and its bytecode out of the source folder.
    """
    region = spec.arn.split(":")[3] if spec.arn.count(":") >= 3 else "us-east-1"
    task, opt, runtime = spec.code_root, root / "opt", root / "var" / "runtime"
    own = {
        name: _TASK_OR_LAYER.sub(lambda found: str(task if found[1] == "var/task" else opt), value)
        for name, value in spec.environment.items()
    }
    libraries = (_LIBPYTHON, "/lib64", "/usr/lib64", runtime, runtime / "lib", task, task / "lib", opt / "lib")
    return {
        "LANG": "en_US.UTF-8",
        "PATH": f"{lang}/bin:/usr/local/bin:/usr/bin/:/bin:{opt}/bin",
        "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
        "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
        "AWS_XRAY_DAEMON_ADDRESS": "127.0.0.1:2000",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "PYTHONPYCACHEPREFIX": str(bytecode_cache),
        **own,
        "AWS_ACCESS_KEY_ID": "offline",
        "AWS_SECRET_ACCESS_KEY": "offline",
        "AWS_SESSION_TOKEN": "offline",
        "AWS_LAMBDA_RUNTIME_API": runtime_api,
        "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
        "AWS_LAMBDA_FUNCTION_NAME": spec.name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(spec.memory_mb),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": spec.log_group,
        "AWS_LAMBDA_LOG_STREAM_NAME": f"{time.strftime('%Y/%m/%d', time.gmtime())}/[$LATEST]{uuid.uuid4().hex}",
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "LAMBDA_TASK_ROOT": str(task),
        "LAMBDA_RUNTIME_DIR": str(runtime),
        "_HANDLER": spec.handler,
        "TZ": ":UTC",
    }


def worker_command(environment: Mapping[str, str], interpreter: Path) -> list[str]:
    """The runtime's command line, or the wrapper script with it as arguments."""
    runtime = [str(interpreter), f"{environment['LAMBDA_RUNTIME_DIR']}/bootstrap.py"]
    wrapper = environment.get("AWS_LAMBDA_EXEC_WRAPPER")
    return [wrapper, *runtime] if wrapper else runtime


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
        self.directory = private_directory("bytecode")

    def refresh(self, sources: Sequence[Path], imported_from: Path) -> None:
        """Forgets what was compiled of `imported_from` if the source trees are not what they were when this was last
        asked, in this run or one before: Python compares times by the second, so it could miss a file that was saved
        twice.
        """
        compiled = self.directory / imported_from.relative_to(imported_from.anchor)
        note = compiled / _NOTE
        stamps = hashlib.sha256(repr([sorted(_stamps(str(source))) for source in sources]).encode()).hexdigest()
        with suppress(FileNotFoundError):
            if note.read_text() == stamps:
                return
        shutil.rmtree(compiled, ignore_errors=True)
        compiled.mkdir(parents=True, exist_ok=True)
        note.write_text(stamps)
