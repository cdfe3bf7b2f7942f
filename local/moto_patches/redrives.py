"""RedriveExecution, which stock moto has not: an execution that did not succeed goes on at the state that failed.

What is kept for it is where each program stood: the state machine's own and, below a Map, each iteration's.
A redrive begins with the same variables and input at the state that was entered last. Of a Map only the
iterations run that had not succeeded, each from where it stood; a Parallel state would run again as a whole, and no
machine here has one. Retries are counted from 0 again.

Source: "RedriveExecution" in the Step Functions API reference, and "Restarting state machine executions with
redrive" in its guide.
"""

import copy
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from dataclasses import replace as changed
from datetime import UTC, datetime, timedelta
from typing import Any

from moto.core.exceptions import AWSError
from moto.core.responses import ActionResult
from moto.stepfunctions.parser.api import ExecutionRedrivenEventDetails, ExecutionStatus, HistoryEventType
from moto.stepfunctions.parser.asl.component.program.program import Program
from moto.stepfunctions.parser.asl.component.state.exec.state_map.iteration.inline_iteration_component import (
    InlineIterationComponent,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_map.iteration.iteration_worker import IterationWorker
from moto.stepfunctions.parser.asl.component.state.state import CommonStateField
from moto.stepfunctions.parser.asl.eval.environment import Environment
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails
from moto.stepfunctions.parser.asl.eval.event.event_manager import EventHistoryContext, EventManager
from moto.stepfunctions.parser.backend.execution_worker import ExecutionWorker
from moto.stepfunctions.responses import StepFunctionResponse

from local.moto_patches.interpreter import timestamp
from local.moto_patches.replacing import replace

_REDRIVABLE_FOR = timedelta(days=14)


@dataclass
class Position:
    """Where a program stands: the state that it entered last, with what that was given, and the iterations of it, if it
    is a Map. `output` is an iteration's that succeeded, in a tuple.
    """

    state: str | None = None
    input: Any = None
    variables: dict[str, Any] = field(default_factory=dict)
    iterations: dict[int, "Position"] = field(default_factory=dict)
    output: tuple[Any, ...] = ()
    resumes: bool = False
    """The program has to go on from here, and has not begun to."""
    keeps_iterations: bool = False
    """The state is redriven and not yet retried: iterations that succeeded do not run again."""

    def to_redrive(self) -> "Position":
        """A copy to go on from: what ran until now may still change its own."""
        iterations = {index: each.to_redrive() for index, each in list(self.iterations.items())}
        return changed(self, iterations=iterations, resumes=self.state is not None)


@dataclass(frozen=True)
class Redrives:
    """An execution's redrives so far: how many, and the last one's time and client token."""

    count: int = 0
    date: datetime | None = None
    token: str | None = None


class ExecutionNotRedrivable(AWSError):  # type: ignore[misc]
    TYPE = "ExecutionNotRedrivable"
    STATUS = 400


def redrives_of(execution: Any) -> Redrives:
    found: Redrives = getattr(execution, "redrives", Redrives())
    return found


def reason_against(execution: Any) -> str | None:
    """Why the execution cannot be redriven, in Step Functions' words; None, if it can."""
    status = execution.exec_status
    if status in (ExecutionStatus.RUNNING, ExecutionStatus.SUCCEEDED):
        return f"Execution is {status.value} and cannot be redriven"
    if datetime.now(UTC) - execution.stop_date.astimezone(UTC) > _REDRIVABLE_FOR:
        return "Execution has exceeded the redrivable period of 14 days and cannot be redriven"
    return None


def redrive_fields(execution: Any) -> dict[str, Any]:
    """What DescribeExecution and the status event say of redrives."""
    redrives, reason = redrives_of(execution), reason_against(execution)
    fields: dict[str, Any] = {"redriveCount": redrives.count}
    if redrives.date is not None:
        fields["redriveDate"] = redrives.date
    fields["redriveStatus"] = "NOT_REDRIVABLE" if reason else "REDRIVABLE"
    if reason:
        fields["redriveStatusReason"] = reason
    return fields


class _RedrivingWorker(ExecutionWorker):  # type: ignore[misc]
    """Runs an execution on where `earlier`, its last worker, left it."""

    def __init__(self, execution: Any, earlier: ExecutionWorker) -> None:
        super().__init__(
            earlier._evaluation_details,
            earlier._execution_communication,
            earlier._cloud_watch_logging_session,
            earlier._activity_store,
        )
        redrives = redrives_of(execution)
        self.env = env = self._get_evaluation_environment()
        context = env.states.context_object.context_object_data["Execution"]
        context["RedriveCount"] = redrives.count
        context["RedriveTime"] = timestamp(redrives.date or datetime.now(UTC))
        env.position = earlier.env.position.to_redrive()
        env.event_manager = _continued(earlier.env.event_manager)
        env.event_history_context = EventHistoryContext(env.event_manager.get_event_history()[-1]["id"])
        env.event_manager.add_event(
            env.event_history_context,
            HistoryEventType.ExecutionRedriven,
            EventDetails(executionRedrivenEventDetails=ExecutionRedrivenEventDetails(redriveCount=redrives.count)),
        )

    def _execution_logic(self) -> None:
        self._get_evaluation_entrypoint().eval(self.env)
        self._execution_communication.terminated()


def _continued(earlier: EventManager) -> EventManager:
    """A history that begins with the earlier one. A task that was stopped in the middle still writes into that."""
    history = EventManager(earlier._cloud_watch_logging_session)
    history._history_event_list.extend(earlier.get_event_history())
    history._event_id_gen._next_id = history._history_event_list[-1]["id"] + 1
    return history


def keep_positions() -> None:
    """Notes where each program stands, and lets it go on from there."""

    def make_environment(original: Any) -> Any:
        def get_evaluation_environment(worker: Any) -> Any:
            env = original(worker)
            env.position = Position()
            return env

        return get_evaluation_environment

    def make_frame(original: Any) -> Any:
        def open_frame(env: Any, *args: Any, **kwargs: Any) -> Any:
            frame = original(env, *args, **kwargs)
            frame.position = getattr(env, "position", None)  # it is still in the same state
            return frame

        return open_frame

    def make_program(original: Any) -> Any:
        def eval_body(program: Any, env: Any) -> None:
            position: Position | None = getattr(env, "position", None)
            if position is not None and position.resumes:
                env.next_state_name = position.state
                env.states.reset(position.input)
                env.variable_store._inner_scope.update(copy.deepcopy(position.variables))
            original(program, env)

        return eval_body

    def make_state(original: Any) -> Any:
        def eval_body(state: Any, env: Any) -> None:
            position: Position | None = getattr(env, "position", None)
            if position is not None and position.resumes:
                position.resumes, position.keeps_iterations = False, True
                env.event_history_context.reentered = True
            elif position is not None:
                position.state, position.input = state.name, env.states.get_input()
                position.variables = dict(env.variable_store._inner_scope)
                position.keeps_iterations = False
            original(state, env)

        return eval_body

    def make_iterations(original: Any) -> Any:
        def eval_body(component: Any, env: Any) -> None:
            position: Position | None = getattr(env, "position", None)
            if position is not None:
                if not position.keeps_iterations:
                    position.iterations = {}
                position.keeps_iterations = False
            original(component, env)

        return eval_body

    def make_job(original: Any) -> Any:
        def eval_job(worker: Any, env: Any, job: Any) -> None:
            above: Position | None = getattr(worker._env, "position", None)
            if above is None:
                original(worker, env, job)
                return
            env.position = position = above.iterations.setdefault(job.job_index, Position())
            if position.output:
                (job.job_output,) = position.output
                return
            original(worker, env, job)
            if not isinstance(job.job_output, Exception):
                position.output = (job.job_output,)

        return eval_job

    def make_add_event(original: Any) -> Any:
        def add_event(manager: Any, context: Any, event_type: Any, *args: Any, **kwargs: Any) -> int:
            if getattr(context, "reentered", False):  # a state that is redriven is not entered a second time
                context.reentered = False
                return int(context.source_event_id)
            return int(original(manager, context, event_type, *args, **kwargs))

        return add_event

    replace(ExecutionWorker, "_get_evaluation_environment", make_environment)
    replace(Environment, "open_frame", make_frame)
    replace(Program, "_eval_body", make_program)
    replace(CommonStateField, "_eval_body", make_state)
    replace(InlineIterationComponent, "_eval_body", make_iterations)
    replace(IterationWorker, "_eval_job", make_job)
    replace(EventManager, "add_event", make_add_event)


def answer_redrives(lock: AbstractContextManager[Any]) -> None:
    """RedriveExecution itself. It holds `lock`, as a start and an end do."""

    def redrive_execution(response: Any) -> ActionResult:
        execution = response.stepfunction_backend.describe_execution(response._get_param("executionArn"))
        token = response._get_param("clientToken")
        with lock:
            earlier = redrives_of(execution)
            if token is None or token != earlier.token:
                if reason := reason_against(execution):
                    raise ExecutionNotRedrivable(reason)
                execution.redrives = Redrives(earlier.count + 1, datetime.now(UTC), token)
                execution.exec_worker = _RedrivingWorker(execution, execution.exec_worker)
                execution.stop_date = execution.error = execution.cause = None
                execution.exec_status = ExecutionStatus.RUNNING
                execution.exec_worker.start()
            return ActionResult({"redriveDate": redrives_of(execution).date})

    StepFunctionResponse.redrive_execution = redrive_execution
