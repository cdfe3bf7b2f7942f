"""How the patches reach the server that is running now; there is at most one in a process."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class ExecutionChange:
    """An execution began or ended: `status` is RUNNING, SUCCEEDED, FAILED, TIMED_OUT or ABORTED.

    `input` and `output` are JSON texts; `output` is None unless it succeeded.
    """

    execution_arn: str
    state_machine_arn: str
    name: str
    status: str
    start_date: datetime
    stop_date: datetime | None
    input: str
    output: str | None
    error: str | None
    cause: str | None
    trace_header: str | None = None
    redrive_count: int = 0
    redrive_date: datetime | None = None


@dataclass(frozen=True)
class FunctionCall:
    """One Lambda Invoke. `function` is moto's LambdaFunction, `client_context` JSON as it reaches the
    runtime.
    """

    function: Any
    payload: bytes
    client_context: str | None
    trace_header: str | None


@dataclass(frozen=True)
class FunctionAnswer:
    payload: bytes
    function_error: str | None
    log_tail: str


@dataclass(frozen=True)
class Hooks:
    """`endpoint_url` is where Step Functions' tasks find the services. `invoke_function` waits for the
    answer; `invoke_later` returns at once. `on_execution_status` is called on the execution's own thread,
    in order. `trace_task` is given an execution's ARN and a state's name, and is entered while the state calls a
    function; what it yields is the trace header of that call.
    """

    endpoint_url: str
    invoke_function: Callable[[FunctionCall], FunctionAnswer]
    invoke_later: Callable[[FunctionCall], None]
    on_execution_status: Callable[[ExecutionChange], None]
    trace_task: Callable[[str, str], AbstractContextManager[str | None]] = lambda _execution, _state: nullcontext()


_connected: list[Hooks] = []


def connect(hooks: Hooks) -> None:
    """Raises RuntimeError when another server is connected."""
    if _connected:
        raise RuntimeError(f"Another offline AWS runs in this process, at {_connected[0].endpoint_url}")
    _connected.append(hooks)


def disconnect() -> None:
    _connected.clear()


def connected() -> Hooks | None:
    return _connected[0] if _connected else None
