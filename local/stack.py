"""The offline stack: template.yaml running on this machine, in one process tree, on 127.0.0.1.

    with LocalStack(LocalStackOptions(port=0, aws_port=0)) as stack:
        stack.caller().invoke_agent(...)

It is composed of moto's server as AWS (`aws_server`), the functions as processes (`lambda_workers`), the Bedrock
endpoint (`bedrock`), what `deploy` made of the template, the API in front (`api_gateway`) and the events behind
(`event_delivery`).
"""

import logging
import re
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import boto3
from botocore.config import Config

from local.aws.aws_server import AwsServer, FunctionCode, PortTaken
from local.aws.event_delivery import EventDelivery, execution_event
from local.aws.faults import Faults, FaultsError
from local.aws.log_delivery import LogDelivery
from local.bedrock.endpoint import BedrockEndpoint
from local.bedrock.model_backend import ModelBackend
from local.bedrock.select import ModelOptionError, select_model
from local.console.console_data import ConsoleData
from local.console.console_site import ConsoleSite
from local.deployment.custom_resources import CustomResource, CustomResourceFailed
from local.deployment.deploy import DeployedFunction, Deployment, DeploymentError, deploy
from local.deployment.sam_yaml import REGION, TemplateError
from local.gateway.api_gateway import ApiGateway
from local.gateway.proxy_integration import Answer, Request
from local.lambda_workers import FunctionSpec, InvokeResult, LambdaWorkers, StreamingInvocation
from local.moto_patches import ExecutionChange, UnsupportedMoto

CONSOLIDATION = "ConsolidateMemoryStateMachine"
TEMPLATE = Path(__file__).resolve().parent.parent / "template.yaml"
STACK_NAME = "turnwright"
CREDENTIALS = {"aws_access_key_id": "offline", "aws_secret_access_key": "offline"}

_WATCH_SECONDS = 0.4
_TURN_FUNCTIONS = (
    "InvokeAgentFunction",
    "LoadMemoryFunction",
    "InvokeModelFunction",
    "WriteMemoryFunction",
    "InvokeToolFunction",
)
"""What is started before it is called, in this order. The others start when they are called."""
_API_URL = re.compile(r"https://[^/.]+\.execute-api\.[^/]+/[^/]+")


class StackError(Exception):
    """The stack cannot start. The message is one line for a person: what is wrong, where, and what to do."""


@dataclass(frozen=True, slots=True)
class LocalStackOptions:
    """Ports 0 take free ones. `model` is a MODEL option or the backend itself. `faults` is a file of faults
    on purpose (`faults.py`). `quiet` keeps the functions' logs from stderr, `verbose` shows all of the runtime's own;
    CloudWatch Logs has them all the same.
    Without `schedules` the template's schedules rest, and `stack.events.fire` alone makes their events.
    """

    port: int = 3000
    aws_port: int = 3001
    model: str | ModelBackend = "rule"
    template: Path = TEMPLATE
    parameters: Mapping[str, str] = field(default_factory=dict)
    faults: Path | None = None
    quiet: bool = False
    verbose: bool = False
    schedules: bool = True


class LocalStack:
    """Starts on entering, raises StackError if it cannot; leaves no process and no port behind on leaving."""

    def __init__(self, options: LocalStackOptions | None = None) -> None:
        self.options = options or LocalStackOptions()
        self._resources = ExitStack()
        self._session = boto3.Session(region_name=REGION, **CREDENTIALS)
        self._clients: dict[str, Any] = {}
        self._clients_lock = threading.Lock()
        self._deployment: Deployment
        self._model: ModelBackend
        self._gateway: ApiGateway
        self._aws: AwsServer
        self._logs: LogDelivery
        self._events: EventDelivery
        self._faults: Faults
        self._workers: LambdaWorkers

    def __enter__(self) -> Self:
        try:
            self._start()
        except (TemplateError, DeploymentError, ModelOptionError, FaultsError, PortTaken, UnsupportedMoto) as error:
            self.close()
            raise StackError(str(error)) from error
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stops everything, in the reverse order of starting. Does nothing a second time."""
        self._resources.close()

    @property
    def url(self) -> str:
        """The API: what `endpoint_url` of a bedrock-agent-runtime client is set to."""
        return self._gateway.url

    @property
    def console_url(self) -> str:
        """The page on which the turns can be seen."""
        return f"{self.url}/console/"

    @property
    def aws_url(self) -> str:
        """AWS itself, for any other client: tables, executions, logs."""
        return self._aws.url

    @property
    def model(self) -> ModelBackend:
        return self._model

    @property
    def outputs(self) -> dict[str, str]:
        """The template's outputs. Where one is the address of the API on AWS, it is the address here."""
        return {name: _API_URL.sub(self.url, value) for name, value in self._deployment.outputs.items()}

    @property
    def resources(self) -> dict[str, str]:
        """Physical ids by logical id."""
        return dict(self._deployment.resources)

    @property
    def problems(self) -> list[str]:
        """What the stack itself had to report: crashed functions, lost events, broken agent files."""
        return list(self._logs.problems)

    @property
    def faults(self) -> Faults:
        """The functions' faults on purpose: `stack.faults.replace([...])` gives it others."""
        return self._faults

    @property
    def workers(self) -> LambdaWorkers:
        return self._workers

    @property
    def events(self) -> EventDelivery:
        """Rules and schedules: `stack.events.fire("SweepSessionsFunctionEveryMinute")` makes a schedule due now."""
        return self._events

    def client(self, service: str) -> Any:
        """A boto3 client of the offline AWS; one for each service, whichever thread asks."""
        with self._clients_lock:
            if service not in self._clients:
                self._clients[service] = self._new_client(service, self.aws_url)
            return self._clients[service]

    def caller(self) -> Any:
        """A new boto3 client of the API, as an outside caller has it."""
        with self._clients_lock:
            return self._new_client("bedrock-agent-runtime", self.url)

    def execution_arn(self, name: str, state_machine: str = "AgentTurnStateMachine") -> str:
        """The ARN of an execution: a turn's by its id, another machine's by its logical id and the execution's name."""
        machine = self._deployment.resources[state_machine]
        return f"{machine.replace(':stateMachine:', ':execution:')}:{name}"

    def function_environment(self, logical_id: str) -> Mapping[str, str]:
        """What a function finds in its environment, besides what Lambda itself puts there."""
        return self._aws.function_spec(self.function_name(logical_id)).environment

    def function_name(self, logical_id: str) -> str:
        return self._deployment.functions[logical_id].name

    def _start(self) -> None:
        options = self.options
        for chatty in ("werkzeug", "samtranslator"):
            logging.getLogger(chatty).setLevel(logging.ERROR)
        self._model = select_model(options.model) if isinstance(options.model, str) else options.model
        if options.port == options.aws_port != 0:
            raise StackError(f"port {options.port} is given to both the API and AWS: choose another AWS_PORT")
        for port, option in ((options.port, "--port"), (options.aws_port, "--aws-port")):
            _require_free(port, option)
        bedrock = BedrockEndpoint(self._model)
        self._resources.callback(bedrock.close)
        stream = None if options.quiet else sys.stderr
        self._logs = LogDelivery(stream, lambda: self.client("logs"), prefix=STACK_NAME, verbose=options.verbose)
        self._workers = LambdaWorkers(self._logs.line)
        self._resources.callback(self._workers.close)
        self._faults = Faults(self._logs.note)
        self._aws = AwsServer(
            self._workers, port=options.aws_port, on_execution_status=self._publish, faults=self._faults
        )
        self._resources.callback(self._aws.stop)
        self._resources.callback(self._faults.stop)
        self._aws.extra_environment.update(
            {
                "AWS_ENDPOINT_URL": self._aws.url,
                "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": bedrock.url,
            }
        )
        self._resources.callback(self._logs.close)
        functions = _DeployedFunctions(self._aws, self._workers)
        self._deployment = deploy(
            options.template,
            client=self.client,
            functions=_ProvisioningFunctions(self._aws, self._workers, self._logs),
            register=self._register,
            parameters=options.parameters,
            stack_name=STACK_NAME,
        )
        self._resources.callback(self._deployment.close)
        self._faults.know({function.name: logical_id for logical_id, function in self._deployment.functions.items()})
        if options.faults is not None:
            self._faults.load(options.faults)
        self._events = EventDelivery(
            self._deployment.rules,
            self._deployment.asynchronous,
            functions,
            self._send_message,
            self._logs.problem,
            schedules=options.schedules,
        )
        self._resources.callback(self._events.close)
        agent_files = _AgentFiles(self._deployment.refresh, self._logs)
        self._resources.callback(agent_files.close)
        self._gateway = ApiGateway(
            self._deployment.api,
            _ApiFunctions(self._aws, self._workers, agent_files),
            port=options.port,
            on_problem=self._logs.problem,
            xray=self._aws.xray,
            site=self._console(agent_files),
        )
        self._resources.callback(self._gateway.close)
        self._aws.tell_outputs(STACK_NAME, self.outputs)
        for logical_id in _TURN_FUNCTIONS:
            if function := self._deployment.functions.get(logical_id):
                self._workers.warm(self._aws.function_spec(function.name))

    def _console(self, agent_files: "_AgentFiles") -> Callable[[Request], Answer | None]:
        """The console page; nothing for a template that has not what it shows."""
        resources = self._deployment.resources
        if not resources.keys() >= {"Table", "Bucket", "AgentTurnStateMachine", "RuntimeLogGroup"}:
            return lambda _: None
        data = ConsoleData(
            self.client,
            table=resources["Table"],
            bucket=resources["Bucket"],
            state_machine_arn=resources["AgentTurnStateMachine"],
            log_group=resources["RuntimeLogGroup"],
            model=self._model.name,
            broken_agent_files=lambda: agent_files.broken,
        )
        return ConsoleSite(data, self._logs.problem).answer

    def _register(self, function: DeployedFunction) -> None:
        self._aws.functions[function.name] = FunctionCode(
            function.code_root, function.layers, function.log_group, function.requirements
        )

    def _publish(self, change: ExecutionChange) -> None:
        self._events.publish(execution_event(change))

    def _new_client(self, service: str, url: str) -> Any:
        config = Config(inject_host_prefix=False, max_pool_connections=32, read_timeout=120)
        return self._session.client(service, endpoint_url=url, config=config)

    def _send_message(self, queue_arn: str, text: str) -> None:
        sqs = self.client("sqs")
        url = sqs.get_queue_url(QueueName=queue_arn.rpartition(":")[2])["QueueUrl"]
        sqs.send_message(QueueUrl=url, MessageBody=text)


class _DeployedFunctions:
    """Runs functions by the name under which they were deployed."""

    def __init__(self, aws: AwsServer, workers: LambdaWorkers) -> None:
        self._aws = aws
        self._workers = workers

    def invoke(self, function: str, payload: bytes, trace_header: str | None = None) -> InvokeResult:
        return self._workers.invoke(self._spec(function), payload, trace_header=trace_header)

    def invoke_streaming(self, function: str, payload: bytes, trace_header: str | None = None) -> StreamingInvocation:
        return self._workers.invoke_streaming(self._spec(function), payload, trace_header=trace_header)

    def _spec(self, function: str) -> FunctionSpec:
        return self._aws.function_spec(function)


class _ProvisioningFunctions(_DeployedFunctions):
    """Runs the functions of custom resources. What they log is not shown: the one line that counts is their Reason."""

    def __init__(self, aws: AwsServer, workers: LambdaWorkers, logs: LogDelivery) -> None:
        super().__init__(aws, workers)
        self._logs = logs

    def invoke(self, function: str, payload: bytes, trace_header: str | None = None) -> InvokeResult:
        self._logs.hidden.add(function)
        return super().invoke(function, payload, trace_header)


class _AgentFiles:
    """Publishes agent files that were saved: before each request to the API, so that a saved file counts from then on,
    and every now and then, so that a mistake is told at once. A broken file is told once; what was published stays in
    force, and `broken` says so for as long as the files stay broken.
    """

    def __init__(self, refresh: Callable[[], list[CustomResource]], logs: LogDelivery) -> None:
        self._refresh = refresh
        self._logs = logs
        self.broken: str | None = None
        """What is wrong with the files as they are, a line for each problem."""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="agent files", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def publish(self) -> None:
        with self._lock:
            try:
                for resource in self._refresh():
                    values = ", ".join(str(value) for value in resource.data.values())
                    self._logs.note(f"{resource.logical_id} was updated: {values}")
                    self.broken = None
            except CustomResourceFailed as error:
                self.broken = str(error)
                self._logs.problem(f"{' '.join(str(error).split())}; the version before stays in force")
            except OSError as error:
                self._logs.problem(f"the agent files could not be read: {error}")

    def _watch(self) -> None:
        while not self._stop.wait(_WATCH_SECONDS):
            self.publish()


class _ApiFunctions(_DeployedFunctions):
    """Runs the functions behind the API, with the agents as their files are now."""

    def __init__(self, aws: AwsServer, workers: LambdaWorkers, agent_files: _AgentFiles) -> None:
        super().__init__(aws, workers)
        self._agent_files = agent_files

    def invoke(self, function: str, payload: bytes, trace_header: str | None = None) -> InvokeResult:
        self._agent_files.publish()
        return super().invoke(function, payload, trace_header)

    def invoke_streaming(self, function: str, payload: bytes, trace_header: str | None = None) -> StreamingInvocation:
        self._agent_files.publish()
        return super().invoke_streaming(function, payload, trace_header)


def _require_free(port: int, option: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            name = option.removeprefix("--").replace("-", "_").upper()
            raise StackError(
                f"port {port} cannot be used ({error.strerror}): choose another with {option} PORT, "
                f"or make up {name}=PORT"
            ) from error
