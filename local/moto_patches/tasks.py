"""Service integrations of Step Functions: clients, parameter names, and what Lambda's errors are called."""

import json
import sys
import threading
from functools import lru_cache
from typing import Any

import boto3
import botocore.session
import moto.stepfunctions.parser.models  # noqa: F401  loads every module that uses boto_client_for
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from moto.stepfunctions.parser.api import (
    HistoryEventType,
    LambdaFunctionFailedEventDetails,
    TaskFailedEventDetails,
)
from moto.stepfunctions.parser.asl.component.common.error_name.custom_error_name import CustomErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import FailureEvent
from moto.stepfunctions.parser.asl.component.state.exec.state_task.lambda_eval_utils import (
    LambdaFunctionErrorException,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service import (
    StateTaskService,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service_lambda import (
    StateTaskServiceLambda,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task.state_task_lambda import StateTaskLambda
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails

from local.moto_patches.hooks import connected
from local.moto_patches.replacing import replace

_UNLIMITED = 99_999_999  # seconds; the state's own TimeoutSeconds limits a task
_creating_client = threading.Lock()
_calling = threading.local()
"""`header` is the trace header of the function call that this thread makes."""


def keep_clients() -> None:
    """Stock moto makes a new boto3 client for every task, 25 ms each, and looks for the server at port 5000."""

    @lru_cache(maxsize=64)
    def client(endpoint_url: str, region: str, service: str) -> Any:
        with _creating_client:  # boto3's session is not thread-safe
            made = boto3.session.Session().client(
                service,
                region_name=region,
                endpoint_url=endpoint_url,
                aws_access_key_id="offline",
                aws_secret_access_key="offline",  # noqa: S106  no secret: nothing checks it
                config=Config(
                    parameter_validation=False,
                    retries={"total_max_attempts": 1},
                    connect_timeout=10,
                    read_timeout=_UNLIMITED,
                    max_pool_connections=256,
                    inject_host_prefix=False,
                ),
            )
            made.meta.events.register("before-call.lambda.Invoke", _add_trace_header)
            return made

    def boto_client_for(region: str, service: str, state_credentials: Any = None) -> Any:
        hooks = connected()
        if hooks is None:
            raise RuntimeError("An execution outlived the server that it belongs to")
        return client(hooks.endpoint_url, region, service)

    for name, module in list(sys.modules.items()):
        if name.startswith("moto.stepfunctions.parser") and hasattr(module, "boto_client_for"):
            replace(module, "boto_client_for", lambda original: boto_client_for)


def spell_parameters_as_the_api_does() -> None:
    """Step Functions writes `StateMachineArn` where the API says `stateMachineArn`. Stock moto converts the
    names for few services only; `states:startExecution` is none of them.
    """
    session = botocore.session.get_session()

    @lru_cache(maxsize=256)
    def shapes(service: str, action: str) -> tuple[Any, Any]:
        model = session.get_service_model(service)
        wanted = action.replace("_", "").lower()
        operation = next(model.operation_model(name) for name in model.operation_names if name.lower() == wanted)
        return operation.input_shape, operation.output_shape

    def normalise_parameters(
        task: Any,
        parameters: Any,
        boto_service_name: str | None = None,
        service_action_name: str | None = None,
    ) -> None:
        service = task._get_boto_service_name(boto_service_name)
        task._to_boto_request(parameters, shapes(service, service_action_name or task.resource.api_action)[0])

    def normalise_response(
        task: Any, response: Any, boto_service_name: str | None = None, service_action_name: str | None = None
    ) -> None:
        service = task._get_boto_service_name(boto_service_name)
        task._from_boto_response(response, shapes(service, service_action_name or task.resource.api_action)[1])

    StateTaskService._SERVICE_NAME_SFN_TO_BOTO_OVERRIDES.update(
        bedrockruntime="bedrock-runtime", cloudwatchlogs="logs", eventbridge="events"
    )
    replace(StateTaskService, "_normalise_parameters", lambda original: normalise_parameters)
    replace(StateTaskService, "_normalise_response", lambda original: normalise_response)


def name_lambda_errors() -> None:
    """An error is called what the function's `errorType` says, in both ways to call a function. Without one
    it is Lambda.Unknown, a refusal by the Lambda API is Lambda.<code>, and an unreachable API
    Lambda.SdkClientException; stock moto says "Exception" or States.Runtime.
    """

    def make_service(original: Any) -> Any:
        def from_error(task: Any, env: Any, ex: Exception) -> Any:
            if (named := _name_and_cause(ex)) is None:
                return original(task, env=env, ex=ex)
            details = TaskFailedEventDetails(
                error=named[0],
                cause=named[1],
                resource=task._get_sfn_resource(),
                resourceType=task._get_sfn_resource_type(),
            )
            return FailureEvent(
                env=env,
                error_name=CustomErrorName(named[0]),
                event_type=HistoryEventType.TaskFailed,
                event_details=EventDetails(taskFailedEventDetails=details),
            )

        return from_error

    def make_direct(original: Any) -> Any:
        def from_error(task: Any, env: Any, ex: Exception) -> Any:
            if (named := _name_and_cause(ex)) is None:
                return original(task, env=env, ex=ex)
            details = LambdaFunctionFailedEventDetails(error=named[0], cause=named[1])
            return FailureEvent(
                env=env,
                error_name=CustomErrorName(named[0]),
                event_type=HistoryEventType.LambdaFunctionFailed,
                event_details=EventDetails(lambdaFunctionFailedEventDetails=details),
            )

        return from_error

    replace(StateTaskServiceLambda, "_from_error", make_service)
    replace(StateTaskLambda, "_from_error", make_direct)


def hand_trace_headers_on() -> None:
    """Stock moto calls functions without the trace header of their execution."""

    def make(original: Any) -> Any:
        def eval_service_task(task: Any, env: Any, *args: Any, **kwargs: Any) -> None:
            hooks = connected()
            if hooks is None:
                original(task, env, *args, **kwargs)
                return
            context = env.states.context_object.context_object_data
            with hooks.trace_task(context["Execution"]["Id"], context["State"]["Name"]) as header:
                _calling.header = header
                try:
                    original(task, env, *args, **kwargs)
                finally:
                    _calling.header = None

        return eval_service_task

    replace(StateTaskServiceLambda, "_eval_service_task", make)


def _add_trace_header(params: Any, **_: Any) -> None:
    if header := getattr(_calling, "header", None):
        params["headers"]["X-Amzn-Trace-Id"] = header


def _name_and_cause(error: Exception) -> tuple[str, str] | None:
    if isinstance(error, LambdaFunctionErrorException):
        try:
            error_type = json.loads(error.payload)["errorType"]
        except (ValueError, KeyError, TypeError):
            error_type = None
        if isinstance(error_type, str) and error_type and not error_type.startswith("States."):
            return error_type, error.payload
        cause = "The cause could not be determined because Lambda did not return an error type."
        return "Lambda.Unknown", f"{cause} Returned payload: {error.payload}"
    if isinstance(error, ClientError):
        name, cause = StateTaskServiceLambda._error_cause_from_client_error(error)
        return str(name), str(cause)
    if isinstance(error, BotoCoreError):
        return "Lambda.SdkClientException", str(error)
    return None


def apply() -> None:
    keep_clients()
    spell_parameters_as_the_api_does()
    name_lambda_errors()
    hand_trace_headers_on()
