"""How executions start, stop, end and are described."""

import sys
import threading
import time
import uuid
from datetime import UTC, datetime
from typing import Any

from moto.core.responses import ActionResult
from moto.stepfunctions.parser.api import (
    ExecutionAbortedEventDetails,
    ExecutionStatus,
    ExecutionTimedOutEventDetails,
    HistoryEventType,
)
from moto.stepfunctions.parser.asl.component.eval_component import EvalComponent
from moto.stepfunctions.parser.asl.component.program.program import Program
from moto.stepfunctions.parser.asl.eval.environment import Environment
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails
from moto.stepfunctions.parser.asl.eval.event.event_manager import EventManager
from moto.stepfunctions.parser.asl.eval.program_state import (
    ProgramEnded,
    ProgramError,
    ProgramStopped,
    ProgramTimedOut,
)
from moto.stepfunctions.parser.asl.utils.encoding import to_json_str
from moto.stepfunctions.parser.backend.execution import BaseExecutionWorkerCommunication
from moto.stepfunctions.parser.backend.execution_worker import ExecutionWorker
from moto.stepfunctions.parser.models import StepFunctionsParserBackend
from moto.stepfunctions.responses import StepFunctionResponse
from moto.stepfunctions.utils import PAGINATION_MODEL
from moto.utilities.paginator import paginate

from local.moto_patches.hooks import ExecutionChange, connected
from local.moto_patches.redrives import answer_redrives, keep_positions, redrive_fields, redrives_of
from local.moto_patches.replacing import replace

_STOP_SECONDS = 10.0
_LARGEST_HISTORY_PAGE = 1000
_DEFAULT_HISTORY_PAGE = 100
_ENDS = (
    HistoryEventType.ExecutionSucceeded,
    HistoryEventType.ExecutionFailed,
    HistoryEventType.ExecutionAborted,
    HistoryEventType.ExecutionTimedOut,
)

starting = threading.RLock()
"""Held while an execution starts, ends or is redriven."""


def start_by_name_once() -> None:
    """Stock moto names an execution without a name "None", checks no name, loses the trace header, and starts
    the same name twice when two requests come at once. With the same name and input a running execution is
    answered again; any other repetition of a name is ExecutionAlreadyExists (stock moto does that part).
    """

    def make(original: Any) -> Any:
        def start_execution(
            backend: Any,
            state_machine_arn: str,
            name: str | None = None,
            execution_input: str | None = None,
            trace_header: str | None = None,
        ) -> Any:
            name = name or str(uuid.uuid4())
            backend._validate_name(name)
            with starting:
                return original(backend, state_machine_arn, name, execution_input or "{}", trace_header)

        return start_execution

    def respond(response: Any) -> ActionResult:
        execution = response.stepfunction_backend.start_execution(
            response._get_param("stateMachineArn"),
            response._get_param("name"),
            response._get_param("input"),
            response._get_param("traceHeader"),
        )
        return ActionResult({"executionArn": execution.exec_arn, "startDate": execution.start_date})

    replace(StepFunctionsParserBackend, "start_execution", make)
    replace(StepFunctionResponse, "start_execution", lambda original: respond)


def tell_status_changes() -> None:
    """Stock moto tells nobody that an execution began or ended. It also loses the error and cause of a
    stopped one, and answers a string or null output as it is instead of as JSON.
    """

    def reflect_execution_status(communication: Any) -> None:
        execution = communication.execution
        env = execution.exec_worker.env
        state = env.program_state()
        status = ExecutionStatus.FAILED
        if isinstance(state, ProgramEnded):
            status = ExecutionStatus.SUCCEEDED
            execution.output = to_json_str(env.states.get_input(), separators=(",", ":"))
        elif isinstance(state, ProgramStopped):
            status = ExecutionStatus.ABORTED
            execution.error, execution.cause = state.error, state.cause
        elif isinstance(state, ProgramTimedOut):
            status = ExecutionStatus.TIMED_OUT
        elif isinstance(state, ProgramError) and state.error is not None:
            execution.error, execution.cause = state.error.get("error"), state.error.get("cause")
        with starting:  # a redrive begins when the end has been told
            execution.stop_date = datetime.now(UTC)
            execution.exec_status = status  # last: from here on others see the end
            _tell(execution)

    def make_start(original: Any) -> Any:
        def start(worker: Any) -> None:
            _tell(worker._execution_communication.execution)
            original(worker)

        return start

    replace(
        BaseExecutionWorkerCommunication,
        "_reflect_execution_status",
        lambda original: reflect_execution_status,
    )
    replace(ExecutionWorker, "start", make_start)


def _tell(execution: Any) -> None:
    if (hooks := connected()) is None:
        return
    change = ExecutionChange(
        execution_arn=execution.exec_arn,
        state_machine_arn=execution.state_machine.arn,
        name=execution.name,
        status=str(execution.status),
        start_date=execution.start_date,
        stop_date=execution.stop_date,
        input=execution.execution_input,
        output=execution.output,
        error=execution.error,
        cause=execution.cause,
        trace_header=execution.trace_header,
        redrive_count=redrives_of(execution).count,
        redrive_date=redrives_of(execution).date,
    )
    try:
        hooks.on_execution_status(change)
    except Exception:
        sys.excepthook(*sys.exc_info())  # a listener's failure is not the execution's


def end_at_once() -> None:
    """Stock moto lets a stopped execution run until its present state ends, and lets a late failure overwrite
    the end that was stopped or timed out. On AWS both end at once, whatever a task still does, and nothing
    follows in the history.
    """

    def make_eval(original: Any) -> Any:
        def evaluate(program: Any, env: Any) -> None:
            if env.is_frame():
                original(program, env)
                return
            ended = threading.Event()

            def run() -> None:
                try:
                    EvalComponent.eval(program, env)
                finally:
                    ended.set()

            env.ended = ended
            env.next_state_name = program.start_at.start_at_name
            threading.Thread(target=run, name="execution", daemon=True).start()
            if not ended.wait(program.timeout_seconds.timeout_seconds if program.timeout_seconds else None):
                env.set_timed_out()
            _write_the_end(env)

        return evaluate

    def make_set_stop(original: Any) -> Any:
        def set_stop(env: Any, stop_date: Any, cause: str | None, error: str | None) -> None:
            original(env, stop_date=stop_date, cause=cause, error=error)
            if isinstance(env._program_state, ProgramStopped) and hasattr(env, "ended"):
                env.ended.set()

        return set_stop

    def make_set_error(original: Any) -> Any:
        def set_error(env: Any, error: Any) -> None:
            with env._state_mutex:
                if not isinstance(env._program_state, (ProgramStopped, ProgramTimedOut)):
                    original(env, error=error)

        return set_error

    def make_add_event(original: Any) -> Any:
        lock = threading.Lock()

        def add_event(manager: Any, context: Any, event_type: Any, *args: Any, **kwargs: Any) -> int:
            with lock:
                events = manager._history_event_list
                if events and events[-1]["type"] in _ENDS and event_type != HistoryEventType.ExecutionRedriven:
                    return int(events[-1]["id"])
                return int(original(manager, context, event_type, *args, **kwargs))

        return add_event

    replace(Program, "eval", make_eval)
    replace(Environment, "set_stop", make_set_stop)
    replace(Environment, "set_error", make_set_error)
    replace(EventManager, "add_event", make_add_event)


def _write_the_end(env: Any) -> None:
    """The last event of an execution whose thread may still be in a task. Where it was written already,
    nothing.
    """
    state = env.program_state()
    if isinstance(state, ProgramStopped):
        details = EventDetails(
            executionAbortedEventDetails=ExecutionAbortedEventDetails(error=state.error, cause=state.cause)
        )
        event_type = HistoryEventType.ExecutionAborted
    elif isinstance(state, ProgramTimedOut):
        details = EventDetails(executionTimedOutEventDetails=ExecutionTimedOutEventDetails())
        event_type = HistoryEventType.ExecutionTimedOut
    else:
        return
    env.event_manager.add_event(context=env.event_history_context, event_type=event_type, event_details=details)


def stop_with_error_and_cause() -> None:
    """Stock moto's StopExecution drops error and cause, misses an execution that has just started, and
    answers before the status is ABORTED.
    """

    def stop_execution(backend: Any, execution_arn: str, error: str | None = None, cause: str | None = None) -> Any:
        execution = backend.describe_execution(execution_arn)
        deadline = time.monotonic() + _STOP_SECONDS
        while execution.exec_status == ExecutionStatus.RUNNING and time.monotonic() < deadline:
            if (env := execution.exec_worker.env) is not None:
                env.set_stop(stop_date=datetime.now(UTC), cause=cause, error=error)
            time.sleep(0.002)
        return execution

    def respond(response: Any) -> ActionResult:
        execution = response.stepfunction_backend.stop_execution(
            response._get_param("executionArn"), response._get_param("error"), response._get_param("cause")
        )
        return ActionResult({"stopDate": execution.stop_date})

    replace(StepFunctionsParserBackend, "stop_execution", lambda original: stop_execution)
    replace(StepFunctionResponse, "stop_execution", lambda original: respond)


def describe_fully() -> None:
    """Stock moto leaves the stop date of a timed-out execution out, has no trace header and redrives, and lists all
    executions by when they started. On AWS those that have ended stand by when they ended.
    """

    def make_describe(original: Any) -> Any:
        def describe_execution(response: Any) -> ActionResult:
            result: dict[str, Any] = original(response).result
            execution = response.stepfunction_backend.describe_execution(response._get_param("executionArn"))
            result.update(redrive_fields(execution), inputDetails={"included": True})
            if execution.stop_date is not None and result["status"] != ExecutionStatus.RUNNING:
                result["stopDate"] = execution.stop_date
            if execution.trace_header:
                result["traceHeader"] = execution.trace_header
            result.update(getattr(execution, "started_as", {}))
            return ActionResult(result)

        return describe_execution

    def make_newest_first(original: Any) -> Any:
        @paginate(pagination_model=PAGINATION_MODEL)  # type: ignore[untyped-decorator]
        def list_executions(backend: Any, state_machine_arn: str, status_filter: str | None = None) -> list[Any]:
            executions = backend.describe_state_machine(state_machine_arn).executions
            listed = [each for each in executions if status_filter in (None, each.status)]
            return sorted(listed, key=lambda each: each.stop_date or each.start_date, reverse=True)

        return list_executions

    def make_list(original: Any) -> Any:
        def list_executions(response: Any) -> ActionResult:
            result: dict[str, Any] = original(response).result
            for item in result["executions"]:
                execution = response.stepfunction_backend.describe_execution(item["executionArn"])
                redrives = redrives_of(execution)
                item["redriveCount"] = redrives.count
                if redrives.date is not None:
                    item["redriveDate"] = redrives.date
                if execution.stop_date is not None:
                    item["stopDate"] = execution.stop_date
            return ActionResult(result)

        return list_executions

    replace(StepFunctionResponse, "describe_execution", make_describe)
    replace(StepFunctionsParserBackend, "list_executions", make_newest_first)
    replace(StepFunctionResponse, "list_executions", make_list)


def page_the_history() -> None:
    """Stock moto answers GetExecutionHistory with all events at once, in one order, whatever is asked for."""

    def make(original: Any) -> Any:
        def get_execution_history(response: Any) -> ActionResult:
            events = list(original(response).result["events"])
            if response._get_param("reverseOrder"):
                events.reverse()
            start = int(response._get_param("nextToken") or 0)
            size = int(response._get_param("maxResults") or _DEFAULT_HISTORY_PAGE)
            end = start + min(size, _LARGEST_HISTORY_PAGE)
            result: dict[str, Any] = {"events": events[start:end]}
            if end < len(events):
                result["nextToken"] = str(end)
            return ActionResult(result)

        return get_execution_history

    replace(StepFunctionResponse, "get_execution_history", make)


def apply() -> None:
    start_by_name_once()
    tell_status_changes()
    end_at_once()
    stop_with_error_and_cause()
    describe_fully()
    page_the_history()
    keep_positions()
    answer_redrives(starting)
