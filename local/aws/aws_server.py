"""AWS's services on 127.0.0.1: moto's server, patched, with Step Functions executing and functions run by
Lambda workers.
"""

import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moto.core.base_backend import BackendDict
from moto.core.config import default_user_config
from moto.core.exceptions import JsonRESTError
from moto.core.model_instances import reset_model_data
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import BaseWSGIServer, make_server

from local import moto_patches
from local.aws.faults import Faults, InvocationRefused
from local.invocations import Throttled
from local.lambda_workers import FunctionSpec, InvokeResult, LambdaWorkers
from local.loopback import ThisMachinesRequests
from local.moto_patches import ExecutionChange, FunctionAnswer, FunctionCall, Hooks
from local.xray import Recorder

REGION = "us-east-1"
ACCOUNT_ID = "123456789012"

_STOP_SECONDS = 5.0


class PortTaken(OSError):
    """Another program listens on the port that was asked for."""

    def __init__(self, port: int) -> None:
        super().__init__(f"Port {port} on 127.0.0.1 is taken: stop what uses it, or choose another AWS_PORT")
        self.port = port


@dataclass(frozen=True)
class FunctionCode:
    """Where a deployed function's files are on this machine. `log_group` is /aws/lambda/<name> unless given."""

    code_root: Path
    layers: tuple[Path, ...] = ()
    log_group: str | None = None
    requirements: tuple[Path, ...] = ()


class _RefusedByLambda(JsonRESTError):  # type: ignore[misc]
    """What moto answers for a refused Invoke."""

    def __init__(self, refused: InvocationRefused) -> None:
        super().__init__(refused.name, refused.message)
        self.code = refused.status


class AwsServer:
    """Runs from its construction to `stop()`. One at a time in a process: moto's state is global, and is
    reset here.

    Handler, timeout, memory and variables of a function are what was deployed to moto; its files come from
    `functions`, by function name; `extra_environment` is added to (and wins over) every function's variables.
    """

    def __init__(
        self,
        workers: LambdaWorkers,
        *,
        port: int = 0,
        on_execution_status: Callable[[ExecutionChange], None] | None = None,
        async_retry_seconds: Sequence[float] = (1.0, 2.0),
        faults: Faults | None = None,
    ) -> None:
        """`port` 0 takes a free one. An asynchronous invocation that fails is tried again after each of
        `async_retry_seconds` (AWS: a minute, two minutes). Invocations have `faults`. Raises PortTaken and
        moto_patches.UnsupportedMoto.
        """
        self.functions: dict[str, FunctionCode] = {}
        self.extra_environment: dict[str, str] = {}
        self._workers = workers
        self._faults = faults
        self._async_retry_seconds = tuple(async_retry_seconds)
        self._on_execution_status = on_execution_status
        self._stopping = threading.Event()
        moto_patches.apply()
        self.xray = Recorder(_keep_segment, _forget_trace)
        workers.xray = self.xray
        self._server = _listen(port)
        self.port = self._server.port
        self.url = f"http://127.0.0.1:{self.port}"
        try:
            moto_patches.connect(
                Hooks(
                    endpoint_url=self.url,
                    invoke_function=self._invoke,
                    invoke_later=self._invoke_later,
                    on_execution_status=self._tell,
                    trace_task=self.xray.task,
                )
            )
        except RuntimeError:
            self._server.server_close()
            raise
        logging.getLogger("moto.stepfunctions").setLevel(logging.CRITICAL)  # a state that fails is no error of moto's
        default_user_config["stepfunctions"] = {"execute_state_machine": True}
        os.environ["MOTO_PORT"] = str(self.port)
        _reset()
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="aws-server", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Aborts running executions, telling nobody, and stops listening. The workers are left to their owner."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        _abort_executions()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        moto_patches.disconnect()
        _reset()

    def function_spec(self, name: str) -> FunctionSpec:
        """The function as it is deployed now. Raises LookupError when it is not deployed or its code is not
        registered.
        """
        from moto.awslambda.models import lambda_backends

        deployed = {
            function.function_name: function for function in lambda_backends[ACCOUNT_ID][REGION].list_functions()
        }
        if name not in deployed:
            raise LookupError(f"No function {name!r} is deployed")
        return self._spec(deployed[name])

    def tell_outputs(self, stack_name: str, outputs: Mapping[str, str]) -> None:
        """What DescribeStacks answers from now on as the stack's outputs, in place of those it was created with."""
        from moto.cloudformation.models import cloudformation_backends

        stack = cloudformation_backends[ACCOUNT_ID][REGION].get_stack(stack_name)
        stack.template_dict["Outputs"] = {name: {"Value": value} for name, value in outputs.items()}
        stack.output_map = stack._create_output_map()

    def _spec(self, function: Any) -> FunctionSpec:
        name = function.function_name
        code = self.functions.get(name)
        if code is None:
            raise LookupError(f"The code of function {name!r} is not registered")
        reserved = function.reserved_concurrency
        variables = {key: str(value) for key, value in function.environment_vars.items()}
        return FunctionSpec(
            name=name,
            arn=function.function_arn,
            handler=function.handler,
            code_root=code.code_root.resolve(),
            environment={**variables, **self.extra_environment},
            timeout_seconds=float(function.timeout or 3),
            memory_mb=int(function.memory_size or 128),
            log_group=code.log_group or f"/aws/lambda/{name}",
            layers=tuple(layer.resolve() for layer in code.layers),
            requirements=code.requirements,
            reserved_concurrency=None if reserved is None else int(reserved),
        )

    def _tell(self, change: ExecutionChange) -> None:
        if change.status == "RUNNING":
            machine = change.state_machine_arn.rpartition(":")[2]
            self.xray.execution_began(change.execution_arn, machine, change.trace_header)
        else:
            self.xray.execution_ended(change.execution_arn, change.error)
        if self._on_execution_status is not None and not self._stopping.is_set():
            self._on_execution_status(change)

    def _invoke(self, call: FunctionCall) -> FunctionAnswer:
        try:
            result = self._run(self._spec(call.function), call)
        except InvocationRefused as refused:
            raise _RefusedByLambda(refused) from refused
        return FunctionAnswer(result.payload, result.function_error, result.log_tail)

    def _run(self, spec: FunctionSpec, call: FunctionCall) -> InvokeResult:
        """Raises InvocationRefused."""

        def really() -> InvokeResult:
            try:
                return self._workers.invoke(
                    spec, call.payload, client_context=call.client_context, trace_header=call.trace_header
                )
            except Throttled as throttled:
                raise InvocationRefused(429, "TooManyRequestsException", "Rate Exceeded.") from throttled

        return really() if self._faults is None else self._faults.run(spec, call.payload, really)

    def _invoke_later(self, call: FunctionCall) -> None:
        spec = self._spec(call.function)
        threading.Thread(target=self._try_repeatedly, args=(spec, call), name="async-invoke", daemon=True).start()

    def _try_repeatedly(self, spec: FunctionSpec, call: FunctionCall) -> None:
        for wait_seconds in (*self._async_retry_seconds, None):
            with suppress(InvocationRefused):
                if self._run(spec, call).function_error is None:
                    return
            if wait_seconds is not None and self._stopping.wait(wait_seconds):
                return
        tries = len(self._async_retry_seconds) + 1
        self._workers.on_log(spec, f"The asynchronous event was given up after {tries} failed attempts")


class _Handler(ThisMachinesRequests, MotoRequestHandler):  # type: ignore[misc]
    """Answers without an access log, and without waiting for the client's acknowledgement between two small writes.

    moto itself lets the pages of all sites read and write (CORS).
    """

    disable_nagle_algorithm = True
    takes_chunks = True

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        pass


def _listen(port: int) -> BaseWSGIServer:
    try:
        listener = socket.create_server(("127.0.0.1", port), backlog=256)
    except OSError as error:
        raise PortTaken(port) from error
    with listener:  # the server works on a duplicate of the descriptor
        app = DomainDispatcherApplication(create_backend_app)
        return make_server(
            "127.0.0.1",
            listener.getsockname()[1],
            app,
            threaded=True,
            request_handler=_Handler,
            fd=listener.fileno(),
        )


def _abort_executions() -> None:
    from moto.stepfunctions.parser.models import stepfunctions_parser_backends

    for backends in stepfunctions_parser_backends.values():
        for backend in backends.values():
            for machine in backend.state_machines:
                for execution in machine.executions:
                    if execution.status == "RUNNING":
                        backend.stop_execution(execution.exec_arn, "Offline.Stopped", "The offline stack stopped")


def _keep_segment(document: str) -> None:
    from moto.xray.models import xray_backends

    xray_backends[ACCOUNT_ID][REGION].process_segment(document)


def _forget_trace(trace_id: str) -> None:
    from moto.xray.models import xray_backends

    xray_backends[ACCOUNT_ID][REGION]._segment_collection._traces.pop(trace_id, None)


def _reset() -> None:
    BackendDict.reset()
    reset_model_data()
