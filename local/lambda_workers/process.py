"""One worker process: started in a group of its own, its output read by the line, its end noticed at once."""

import array
import fcntl
import os
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

LARGEST_LOG_LINE = 256 * 1024
LOG_TAIL = 4 * 1024


class LogReader:
    """Reads a pipe on a thread of its own and hands over complete lines (without the line end, at most 256
    KiB each).

    The runtime writes a record of several lines, such as a traceback, as one line with carriage returns; it
    is handed over as one text with line feeds.
    """

    def __init__(self, descriptor: int, on_line: Callable[[str], None]) -> None:
        self._descriptor = descriptor
        self._on_line = on_line
        self._lock = threading.Lock()
        self._open = True
        self._partial = b""
        self._tail = b""
        self._thread = threading.Thread(target=self._read, name="lambda-worker-log", daemon=True)
        self._thread.start()

    def begin_tail(self) -> None:
        """What is logged from here on is the tail."""
        with self._lock:
            self._tail = b""

    def tail(self, wait_seconds: float = 0.2) -> str:
        """The last 4 KiB since `begin_tail`, once all that is in the pipe by now has been handed over."""
        deadline = time.monotonic() + wait_seconds
        while time.monotonic() < deadline:
            with self._lock:
                if not self._open or not self._waiting_bytes():
                    break
            time.sleep(0.001)
        with self._lock:
            return self._tail.decode(errors="replace")

    def join(self, timeout: float) -> None:
        self._thread.join(timeout)

    def _waiting_bytes(self) -> int:
        waiting = array.array("i", [0])
        fcntl.ioctl(self._descriptor, termios.FIONREAD, waiting)
        return waiting[0]

    def _read(self) -> None:
        while True:
            select.select([self._descriptor], [], [])
            with self._lock:  # read and hand over as one step, so that `tail` can tell when all is handed over
                data = os.read(self._descriptor, 65536)
                self._tail = (self._tail + data)[-LOG_TAIL:]
                *lines, self._partial = (self._partial + data).split(b"\n")
                if len(self._partial) > LARGEST_LOG_LINE or (not data and self._partial):
                    lines.append(self._partial[:LARGEST_LOG_LINE])
                    self._partial = self._partial[LARGEST_LOG_LINE:]
                for line in lines:
                    self._hand_over(line)
                if not data:
                    self._open = False
                    os.close(self._descriptor)
                    return

    def _hand_over(self, line: bytes) -> None:
        for start in range(0, max(len(line), 1), LARGEST_LOG_LINE):
            try:
                text = line[start : start + LARGEST_LOG_LINE].decode(errors="replace")
                self._on_line(text.rstrip("\r").replace("\r", "\n"))
            except Exception:
                sys.excepthook(
                    *sys.exc_info()
                )  # a broken log sink must not stop the function, whose pipe would fill up


class WorkerHandle:
    """A started process. `on_exit` gets its exit status (negative for a signal), on a thread of its own."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        directory: Path,
        on_line: Callable[[str], None],
        on_exit: Callable[[int], None],
    ) -> None:
        """Raises OSError when the command cannot be started."""
        read_end, write_end = os.pipe()
        try:
            self._process = subprocess.Popen(
                command,
                env=dict(environment),
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                process_group=0,
            )
        except OSError:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        self.pid = self._process.pid
        self.exited = threading.Event()
        self.log = LogReader(read_end, on_line)
        self._on_exit = on_exit
        self._reaping = threading.Lock()
        self._watcher = threading.Thread(target=self._watch, name=f"lambda-worker-{self.pid}", daemon=True)

    def start_watching(self) -> None:
        self._watcher.start()

    def kill(self) -> None:
        """Kills the process and whatever it started. Harmless when it has ended."""
        with self._reaping:
            if self._process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)

    def join(self, timeout: float) -> None:
        self._watcher.join(timeout)
        self.log.join(timeout)

    def _watch(self) -> None:
        waits_without_reaping = hasattr(os, "waitid")  # not so on macOS before Python 3.13
        if waits_without_reaping:
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        else:
            self._process.wait()
        with self._reaping:
            if waits_without_reaping:  # what it left behind; its id cannot be reused before it is reaped
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pid, signal.SIGKILL)
            status = self._process.wait()
        self.exited.set()
        self._on_exit(status)
