"""Ends the workers when this process dies without a chance to do so, even by SIGKILL and even when a handler
hangs.

A guardian process holds the reading end of a pipe on which it is told every worker's process group. The
kernel closes the pipe with this process; the guardian then kills what is left and ends. It is portable,
unlike PR_SET_PDEATHSIG, which besides fires when the *thread* that started the child ends.
"""

import subprocess
import sys
import threading
from contextlib import suppress
from typing import IO, cast

_GUARDIAN = """
import os, signal, sys
groups = set()
for line in sys.stdin:
    (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
"""


class Guardian:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _GUARDIAN],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )
        self._pipe = cast(IO[str], self._process.stdin)

    def watch(self, process_group: int) -> None:
        self._tell(f"+{process_group}\n")

    def forget(self, process_group: int) -> None:
        self._tell(f"-{process_group}\n")

    def close(self) -> None:
        with self._lock, suppress(BrokenPipeError):
            self._pipe.close()
        self._process.wait()

    def _tell(self, line: str) -> None:
        with (
            self._lock,
            suppress(BrokenPipeError, ValueError),
        ):  # ended, or closed: then there is nobody to tell
            self._pipe.write(line)
            self._pipe.flush()
