"""LambdaWorkers: which worker runs which invocation, when workers start, and when they must end.

Invocations of a function wait in one queue and its workers take them when they ask for their next one. A
worker is started when more invocations wait than workers are about to ask, up to `max_concurrency` a
function. A worker that nobody needed for a while ends, as Lambda's execution environments do; the last one of a
function that was warmed stays.
"""

import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path

from local.invocations import Throttled
from local.lambda_workers.alarms import Alarm, Alarms
from local.lambda_workers.environment import (
    BytecodeCache,
    FileWatch,
    FunctionSpec,
    worker_command,
    worker_environment,
)
from local.lambda_workers.filesystem import Filesystem
from local.lambda_workers.guardian import Guardian
from local.lambda_workers.invocation import Invocation, InvocationError, InvokeResult, StreamingInvocation
from local.lambda_workers.process import WorkerHandle
from local.lambda_workers.runtime_api import RuntimeApi
from local.xray import Recorder

INIT_SECONDS = 30.0
"""How long a worker may take to start. Lambda allows 10; a laptop that starts eight at once may need more."""
DRAIN_SECONDS = 1.0
GROWTH_SECONDS = 0.1
"""How long an invocation waits for a busy worker of its function before another one is started. Importing boto3 alone
takes longer than most invocations, so a burst had better not start a process for each of its requests.
"""

IDLE_SECONDS = 60.0
"""How long a worker waits for work before it ends. Each holds some 30 MB."""

OnLog = Callable[[FunctionSpec, str], None]


@dataclass(frozen=True)
class WorkerProcess:
    name: str
    pid: int
    busy: bool


class LambdaWorkers:
    """Thread-safe. `on_log` gets every line that workers write, on their reader threads, a call at a time for
    a worker.
    """

    def __init__(self, on_log: OnLog, max_concurrency: int = 16) -> None:
        """`max_concurrency` counts for each function; what is above waits, at most the function's timeout."""
        self.on_log = on_log
        self.max_concurrency = max_concurrency
        self.lock = threading.RLock()
        self.guardian = Guardian()
        self.api = RuntimeApi()
        self.alarms = Alarms()
        self.bytecode = BytecodeCache()
        self.filesystem = Filesystem()
        self.closed = False
        self.xray: Recorder | None = None
        """Records a segment for each invocation, if there is one."""
        self.starts_at_once = max(2, os.cpu_count() or 2)
        self._files = FileWatch()
        self._compiled: dict[Path, int] = {}
        self._functions: dict[str, _Function] = {}
        self._to_warm: deque[FunctionSpec] = deque()
        self._warmed: set[str] = set()

    def invoke(
        self,
        spec: FunctionSpec,
        payload: bytes,
        *,
        client_context: str | None = None,
        trace_header: str | None = None,
    ) -> InvokeResult:
        """Runs `spec` and waits for its whole answer. Never raises for what the function does: see
        `function_error`. Raises Throttled.
        """
        invocation = Invocation(payload, client_context, trace_header)
        self._enqueue(spec, invocation)
        return invocation.result()

    def invoke_streaming(
        self, spec: FunctionSpec, payload: bytes, *, trace_header: str | None = None
    ) -> StreamingInvocation:
        """Starts `spec` and returns at once; the answer arrives as it is made. Raises Throttled."""
        invocation = Invocation(payload, None, trace_header)
        self._enqueue(spec, invocation)
        return StreamingInvocation(invocation)

    def warm(self, spec: FunctionSpec) -> None:
        """Starts a worker of `spec` unless there is one, and does not wait for it. Of many a few start at a time, in
        order; those that invocations wait for go first.
        """
        with self.lock:
            self._warmed.add(spec.name)
            self._to_warm.append(spec)
            self._warm_some()

    def processes(self) -> list[WorkerProcess]:
        with self.lock:
            return [
                WorkerProcess(worker.spec.name, worker.handle.pid, worker.invocation is not None)
                for function in self._functions.values()
                for worker in function.workers
            ]

    def starting(self) -> int:
        functions = self._functions.values()
        return sum(worker.state is _State.STARTING for function in functions for worker in function.workers)

    def stays_warm(self, name: str) -> bool:
        return name in self._warmed

    def staff_all(self) -> None:
        for function in self._functions.values():
            function.staff()
        self._warm_some()

    def _warm_some(self) -> None:
        while self._to_warm and not self.closed and self.starting() < self.starts_at_once:
            spec = self._to_warm.popleft()
            known = self._functions.get(spec.arn)
            if known is None or not known.workers:
                self._current(spec).start_worker()

    def close(self) -> None:
        """Kills every worker, answers what still waits, and returns when no process is left."""
        with self.lock:
            if self.closed:
                return
            self.closed = True
            workers = [worker for function in self._functions.values() for worker in function.workers]
            for worker in workers:
                worker.handle.kill()
            for function in self._functions.values():
                while function.pending:
                    function.fail_oldest(InvocationError.of("Runtime.ExitError", "The offline stack is stopping"))
                function.changed.notify_all()
        for worker in workers:
            worker.handle.join(timeout=10)
        self.alarms.close()
        self.api.close()
        self.guardian.close()

    def _enqueue(self, spec: FunctionSpec, invocation: Invocation) -> None:
        with self.lock:
            function = self._functions.get(spec.arn)
            under_way = function.under_way() if function else 0
            if spec.reserved_concurrency is not None and under_way >= spec.reserved_concurrency:
                raise Throttled(f"as many of {spec.name} run as are reserved: {under_way}")
            self._admit(spec, invocation)

    def _admit(self, spec: FunctionSpec, invocation: Invocation) -> None:
        if self.xray is not None:
            span = self.xray.begin(
                invocation.trace_header,
                spec.name,
                "AWS::Lambda::Function",
                aws={"function_arn": spec.arn, "request_id": invocation.id},
            )
            invocation.trace_header, invocation.on_finish = span.header, span.end
        if self.closed:
            invocation.finish(InvocationError.of("Runtime.ExitError", "The offline stack has stopped"))
            return
        self._current(spec).enqueue(invocation)

    def _current(self, spec: FunctionSpec) -> "_Function":
        """The function with its present spec and files; a change retires the workers that it has."""
        files = self._files.fingerprint((spec.code_root, *spec.layers))
        function = self._functions.get(spec.arn)
        if function is None:
            function = self._functions[spec.arn] = _Function(self, spec, files)
        elif function.files != files or function.spec != spec:
            function.change(spec, files)
        else:
            return function
        function.root = self.filesystem.root(spec.layers, spec.requirements)
        for sources, imported_from in (((spec.code_root,), spec.code_root), (spec.layers, function.root / "opt")):
            if self._compiled.get(imported_from) != files:
                self._compiled[imported_from] = files
                self.bytecode.refresh(sources, imported_from)
        return function


class _State(Enum):
    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    ENDED = "ended"


class _Function:
    """One function's queue and workers. Every method is called with the pool's lock held."""

    def __init__(self, pool: LambdaWorkers, spec: FunctionSpec, files: int) -> None:
        self.pool = pool
        self.spec = spec
        self.files = files
        self.root = Path()
        self.pending: deque[Invocation] = deque()
        self._patience: dict[str, Alarm] = {}
        self._growth = Alarm(self._grow)
        self.workers: set[_Worker] = set()
        self.changed = threading.Condition(pool.lock)

    def change(self, spec: FunctionSpec, files: int) -> None:
        self.spec, self.files = spec, files
        for worker in list(self.workers):
            worker.retire()

    def enqueue(self, invocation: Invocation) -> None:
        self.pending.append(invocation)
        self._be_patient(invocation, self.spec.timeout_seconds)
        self.staff()
        self.changed.notify_all()

    def under_way(self) -> int:
        return len(self.pending) + sum(worker.invocation is not None for worker in self.workers)

    def take(self) -> Invocation:
        invocation = self.pending.popleft()
        self._patience.pop(invocation.id).cancel()
        return invocation

    def staff(self) -> None:
        """Starts the workers that waiting invocations need, a few at a time; called again when one has started."""
        while not self.pool.closed:
            about_to_ask = sum(worker.takes_invocations() for worker in self.workers)
            if len(self.pending) <= about_to_ask or len(self.workers) >= self.pool.max_concurrency:
                return
            patience = GROWTH_SECONDS - (time.monotonic() - self.pending[about_to_ask].waits_since)
            if self.workers and patience > 0:
                self._growth.cancel()
                self._growth = self.pool.alarms.after(patience, self._grow)
                return
            if self.pool.starting() >= self.pool.starts_at_once:
                return
            self.start_worker()

    def _grow(self) -> None:
        with self.pool.lock:
            self.staff()

    def start_worker(self) -> None:
        try:
            worker = _Worker(self)
        except OSError as error:
            self.fail_oldest(InvocationError.of("Runtime.InvalidEntrypoint", str(error)))
            return
        self.workers.add(worker)
        worker.handle.start_watching()

    def fail_oldest(self, error: InvocationError) -> None:
        """A worker did not start: the invocation that has waited longest gets to know why."""
        if self.pending:
            self.take().finish(error)

    def _be_patient(self, invocation: Invocation, seconds: float) -> None:
        self._patience[invocation.id] = self.pool.alarms.after(seconds, lambda: self._give_up(invocation))

    def _give_up(self, invocation: Invocation) -> None:
        """Its whole timeout went by in the queue. Starting a worker does not count, as Lambda's init does
        not.
        """
        with self.pool.lock:
            if invocation not in self.pending:
                return
            if any(worker.state is _State.STARTING for worker in self.workers):
                self._be_patient(invocation, 0.25)
                return
            self.pending.remove(invocation)
            del self._patience[invocation.id]
            invocation.finish(timed_out(invocation, self.spec.timeout_seconds))


class _Worker:
    """One process and its side of the Runtime API (see `runtime_api.RuntimeClient`)."""

    def __init__(self, function: _Function) -> None:
        """Raises OSError when the process cannot be started. The pool's lock is held."""
        self.function = function
        self.spec = function.spec
        self.pool = function.pool
        self.state = _State.STARTING
        self.retired = False
        self.invocation: Invocation | None = None
        self._init_error: InvocationError | None = None
        self._listener: socket.socket = self.pool.api.listen(self)
        address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        filesystem = self.pool.filesystem
        environment = worker_environment(
            self.spec, address, filesystem.lang, function.root, self.pool.bytecode.directory
        )
        try:
            self.handle = WorkerHandle(
                worker_command(environment, filesystem.interpreter),
                environment,
                self.spec.code_root,
                self._log,
                self._exited,
            )
        except OSError:
            self.pool.api.stop_listening(self._listener)
            raise
        self.pool.guardian.watch(self.handle.pid)
        self._alarm = self.pool.alarms.after(INIT_SECONDS, self._check_init)

    @property
    def function_arn(self) -> str:
        return self.spec.arn

    def takes_invocations(self) -> bool:
        return not self.retired and self.state in (_State.STARTING, _State.IDLE)

    def retire(self) -> None:
        """Ends it now, or after the invocation it is at. The pool's lock is held."""
        self.retired = True
        if self.state is not _State.BUSY:
            self.handle.kill()

    def next_invocation(self) -> Invocation | None:
        """Waits for work. None: this worker is not wanted any more."""
        with self.pool.lock:
            started, self.state = self.state is _State.STARTING, _State.IDLE
            self._alarm.cancel()
            if started:
                self.pool.staff_all()
            idle_since = time.monotonic()
            while not (self.retired or self.pool.closed or self.handle.exited.is_set()):
                if not self.function.pending:
                    patience = idle_since + IDLE_SECONDS - time.monotonic()
                    if patience <= 0 and not self._is_the_last_one_warm():
                        self.retire()
                        return None
                    self.function.changed.wait(patience if patience > 0 else IDLE_SECONDS)
                    continue
                invocation = self.function.take()
                self.state, self.invocation = _State.BUSY, invocation
                invocation.deadline_ms = int((time.time() + self.spec.timeout_seconds) * 1000)
                self.handle.log.begin_tail()
                self._alarm = self.pool.alarms.after(self.spec.timeout_seconds, partial(self._time_out, invocation))
                return invocation
            return None

    def _is_the_last_one_warm(self) -> bool:
        others = any(worker.takes_invocations() for worker in self.function.workers if worker is not self)
        return self.pool.stays_warm(self.spec.name) and not others

    def current_invocation(self, request_id: str) -> Invocation | None:
        invocation = self.invocation
        return invocation if invocation is not None and invocation.id == request_id else None

    def finish(self, invocation: Invocation, error: InvocationError | None) -> None:
        invocation.log_tail = self.handle.log.tail()
        with self.pool.lock:
            if self.invocation is not invocation:
                return
            self._alarm.cancel()
            self.invocation = None
            self.state = _State.IDLE
            if self.retired:
                self.handle.kill()
        invocation.finish(error)

    def fail_init(self, error: InvocationError) -> None:
        with self.pool.lock:
            if self.state is _State.STARTING:
                self._init_error = error
                self.retired = True  # it is about to exit, and nobody must wait for it

    def wait_for_exit(self, seconds: float) -> bool:
        return self.handle.exited.wait(seconds)

    def _check_init(self) -> None:
        with self.pool.lock:
            if self.state is not _State.STARTING:
                return
            self._init_error = InvocationError.of(
                "Sandbox.Timedout", f"The function did not finish starting within {INIT_SECONDS:.2f} seconds"
            )
            self.retire()

    def _time_out(self, invocation: Invocation) -> None:
        with self.pool.lock:
            if self.invocation is not invocation:
                return
            self.retired = True
            self.invocation = None
            self.handle.kill()
        error = timed_out(invocation, self.spec.timeout_seconds)
        self.pool.on_log(self.spec, f"{invocation.id} Task timed out after {self.spec.timeout_seconds:.2f} seconds")
        invocation.log_tail = self.handle.log.tail()
        invocation.finish(error)

    def _exited(self, status: int) -> None:
        self.pool.guardian.forget(self.handle.pid)
        with self.pool.lock:
            self.function.changed.notify_all()
        self.pool.api.drain(self, self._listener, DRAIN_SECONDS)
        self.pool.api.stop_listening(self._listener)
        log_tail = self.handle.log.tail()
        with self.pool.lock:
            self._alarm.cancel()
            before, self.state = self.state, _State.ENDED
            self.function.workers.discard(self)
            invocation, self.invocation = self.invocation, None
            if invocation is not None:
                invocation.log_tail = log_tail
                invocation.finish(exit_error(invocation, status))
            elif before is _State.STARTING and (self._init_error or not self.retired) and self.function.pending:
                oldest = self.function.pending[0]
                oldest.log_tail = log_tail
                self.function.fail_oldest(self._init_error or exit_error(oldest, status))
            self.pool.staff_all()
            self.function.changed.notify_all()

    def _log(self, line: str) -> None:
        self.pool.on_log(self.spec, line)


def timed_out(invocation: Invocation, seconds: float) -> InvocationError:
    return InvocationError.of(
        "Sandbox.Timedout", f"RequestId: {invocation.id} Error: Task timed out after {seconds:.2f} seconds"
    )


def exit_error(invocation: Invocation, status: int) -> InvocationError:
    """Lambda's words for a runtime that ended; `status` is negative for a signal."""
    if status == 0:
        reason = "Runtime exited without providing a reason"
    elif status < 0:
        reason = f"Runtime exited with error: signal: {(signal.strsignal(-status) or str(-status)).lower()}"
    else:
        reason = f"Runtime exited with error: exit status {status}"
    return InvocationError.of("Runtime.ExitError", f"RequestId: {invocation.id} Error: {reason}")
