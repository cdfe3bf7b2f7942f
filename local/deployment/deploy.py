"""Deploys template.yaml into the offline stack: the template that `sam deploy` deploys, through the same
translator.

The code is not packaged: functions run from the folders that the template names, so that a saved file counts
at the next invocation. What moto's CloudFormation can carry, it carries. The rest is done here, each with its
reason in `HANDLED_HERE` and `SET_AFTERWARDS`; a resource type in neither table is an error, since leaving it
out would make the stack another one.
"""

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from local.deployment.custom_resources import CustomResource, CustomResourceFailed, CustomResources
from local.deployment.definitions import Definition, DefinitionError, check_definition
from local.deployment.intrinsics import CannotResolve, Resolver, placed_names, references
from local.deployment.parameters import PSEUDO, parameter_value, refusal
from local.deployment.sam_yaml import DEFINITION_OF, LOCAL_BUCKET, REGION, Template, load_template, transform
from local.deployment.schedules import ScheduleError, parse_rate
from local.gateway.proxy_integration import ACCOUNT_ID
from local.gateway.routes import Api, UnsupportedApi, read_api
from local.invocations import Functions
from local.lambda_workers import packages
from local.moto_patches.state_machines import definition_fault

CARRIED_BY_MOTO = frozenset(
    {
        "AWS::DynamoDB::Table",
        "AWS::Events::Rule",
        "AWS::IAM::ManagedPolicy",
        "AWS::IAM::Policy",
        "AWS::IAM::Role",
        "AWS::Lambda::Function",
        "AWS::Logs::LogGroup",
        "AWS::S3::Bucket",
        "AWS::SNS::Topic",
        "AWS::SQS::Queue",
        "AWS::SSM::Parameter",
        "AWS::StepFunctions::StateMachine",
    }
)

HANDLED_HERE: Mapping[str, str] = {
    "AWS::ApiGateway::RestApi": "moto has no Lambda proxy; local.gateway reads and serves it",
    "AWS::ApiGateway::Deployment": "part of the API above",
    "AWS::ApiGateway::Stage": "part of the API above; gives the stage its name",
    "AWS::ApiGateway::Account": "says which role API Gateway logs with; offline the functions alone log",
    "AWS::Lambda::LayerVersion": "moto would keep a copy of the files; the functions read the folder itself",
    "AWS::Lambda::EventInvokeConfig": "not known to moto; local.aws.event_delivery does as it says",
    "AWS::Lambda::Permission": "says who may invoke a function; offline nobody checks permissions",
    "AWS::CloudWatch::Alarm": "offline nobody makes metrics of the log's lines",
    "AWS::CloudWatch::Dashboard": "offline nobody makes metrics of the log's lines",
    "AWS::Logs::QueryDefinition": "moto runs no Logs Insights queries; python -m local trace reads the log",
    "AWS::SQS::QueuePolicy": "not known to moto; set with SetQueueAttributes",
    "AWS::S3::BucketPolicy": "not known to moto; offline nobody checks permissions, and nothing is TLS",
    "Custom::*": "moto would not invoke the function; local.deployment.custom_resources does, as CloudFormation does",
}

SET_AFTERWARDS: Mapping[tuple[str, str], str] = {
    ("AWS::DynamoDB::Table", "TimeToLiveSpecification"): "moto leaves it out; set with UpdateTimeToLive",
    ("AWS::Logs::LogGroup", "RetentionInDays"): "moto leaves it out; set with PutRetentionPolicy",
    ("AWS::Lambda::Function", "Layers"): "see AWS::Lambda::LayerVersion",
    ("AWS::Lambda::Function", "LoggingConfig"): "moto leaves it out; local.aws.log_delivery writes to its LogGroup",
    (
        "AWS::Events::Rule",
        "Targets",
    ): "moto keeps them, but publishes no execution events; local.aws.event_delivery does",
    ("AWS::Events::Rule", "ScheduleExpression"): "moto keeps it, but has no clock; local.aws.event_delivery has",
}

_CREATION_FAULTS = (BotoCoreError, ClientError, OSError)
_MISTAKES = (AttributeError, CannotResolve, KeyError, TypeError, ValueError)
"""What a template raises that has something of another kind than CloudFormation wants, or lacks it."""
_TARGET_PROPERTIES = frozenset({"Id", "Arn", "RetryPolicy", "DeadLetterConfig"})
_UNPUBLISHED = re.compile(r"(^|/)(\.[^/]*|__pycache__|[^/]*~|[^/]*\.py[co])(/|$)")


class DeploymentError(Exception):
    """The template cannot be deployed here. The message is one line that names file and place."""


@dataclass(frozen=True, slots=True)
class DeployedFunction:
    """A function and where its code runs from. `layers` are the folders that AWS would unpack into /opt, in
    order; `requirements` name the packages that a build adds to code and layers.
    """

    logical_id: str
    name: str
    code_root: Path
    layers: tuple[Path, ...]
    log_group: str
    requirements: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Delivery:
    """How often an event is tried again, how old it may get, and the queue (ARN) for one that could not be
    delivered.
    """

    maximum_retries: int
    maximum_age_seconds: float
    dead_letter_arn: str | None = None

    def changed(self, policy: Mapping[str, Any], dead_letter_arn: str | None) -> "Delivery":
        """This one with the numbers that a RetryPolicy or an EventInvokeConfig has, and with its queue."""
        return Delivery(
            int(policy.get("MaximumRetryAttempts", self.maximum_retries)),
            float(policy.get("MaximumEventAgeInSeconds", self.maximum_age_seconds)),
            dead_letter_arn,
        )


EVENTBRIDGE_DEFAULT = Delivery(maximum_retries=185, maximum_age_seconds=86400)
LAMBDA_DEFAULT = Delivery(maximum_retries=2, maximum_age_seconds=21600)


@dataclass(frozen=True, slots=True)
class Rule:
    """An EventBridge rule, by its logical id, and the name of the function that is its target.

    `pattern` is an event pattern as a document, None for a rule that has only a schedule, which is due `every` so
    often and whose events name `arn`. `delivery` is EventBridge's own way to hand over.
    """

    name: str
    function: str
    pattern: Mapping[str, Any] | None = None
    every: timedelta | None = None
    arn: str = ""
    delivery: Delivery = EVENTBRIDGE_DEFAULT


@dataclass(slots=True)
class _Layer:
    """A layer's folder, or for one that a build fills None and what it is `built_from`, and its current version."""

    name: str
    folder: Path | None
    built_from: Path | None = None
    version: int = 1
    digest: str = ""

    def arn(self) -> str:
        return f"arn:aws:lambda:{REGION}:{ACCOUNT_ID}:layer:{self.name}:{self.version}"

    def has_changed(self) -> bool:
        """Whether its files are others than at the last look; counts up the version if so."""
        digest = _digest(self.folder)
        if digest == self.digest:
            return False
        self.version += bool(self.digest)
        self.digest = digest
        return True


@dataclass(slots=True)
class Deployment:
    """What was deployed. `resources` are physical ids by logical id; `asynchronous` is by function name."""

    stack_id: str
    outputs: dict[str, str] = field(default_factory=dict)
    resources: dict[str, str] = field(default_factory=dict)
    functions: dict[str, DeployedFunction] = field(default_factory=dict)
    api: Api = field(default_factory=lambda: Api(()))
    rules: tuple[Rule, ...] = ()
    asynchronous: dict[str, Delivery] = field(default_factory=dict)
    refresh: Callable[[], list[CustomResource]] = field(default=list)
    """Looks at the layers' folders again and updates the custom resources that depend on a changed one.

    Returns what was updated. Raises CustomResourceFailed; what was in force then stays in
    force.
    """
    close: Callable[[], None] = field(default=lambda: None)


def deploy(
    template_file: Path,
    *,
    client: Callable[[str], Any],
    functions: Functions,
    register: Callable[[DeployedFunction], None],
    parameters: Mapping[str, str] | None = None,
    stack_name: str = "turnwright",
) -> Deployment:
    """Deploys the template at `template_file`.

    `client` makes boto3 clients of the offline AWS. `register` is told each function before anything invokes
    it; `functions` invokes them, for custom resources. Raises TemplateError or DeploymentError, both with a
    one-line message.
    """
    template = load_template(template_file)
    return _Deployer(template, client, functions, register, parameters or {}, stack_name).run()


class _Deployer:
    """One deployment, in the order in which it happens."""

    def __init__(
        self,
        template: Template,
        client: Callable[[str], Any],
        functions: Functions,
        register: Callable[[DeployedFunction], None],
        parameters: Mapping[str, str],
        stack_name: str,
    ) -> None:
        self._template = template
        self._folder = template.file.resolve().parent
        self._client = client
        self._functions = functions
        self._register = register
        self._stack_name = stack_name
        self._stack_id = f"arn:aws:cloudformation:{REGION}:{ACCOUNT_ID}:stack/{stack_name}/local"
        values = self._parameter_values(parameters)
        self._document = transform(template, {name: _as_parameter(value) for name, value in values.items()})
        self._attributes: dict[str, Any] = {}
        self._resolver = Resolver(
            {**values, **PSEUDO, "AWS::StackId": self._stack_id, "AWS::StackName": stack_name},
            self._document.get("Conditions") or {},
            self._document.get("Mappings") or {},
            self._attributes,
        )
        self._resources: dict[str, dict[str, Any]] = {}
        self._layers: dict[str, _Layer] = {}
        self._custom: dict[str, CustomResource] = {}
        self._at: tuple[str, ...] = ()
        self._deployment = Deployment(self._stack_id)

    def run(self) -> Deployment:
        try:
            self._deploy()
        except _MISTAKES as error:
            self._deployment.close()
            told = f"lacks {error}" if isinstance(error, KeyError) else _one_line(error)
            raise self._fault(f"{' / '.join(self._at[1:])}: {told}", *self._at) from error
        except BaseException:
            self._deployment.close()
            raise
        return self._deployment

    def _deploy(self) -> None:
        self._check_names()
        self._select_resources()
        self._prepare_layers()
        self._prepare_api_ids()
        self._create_carried()
        self._register_functions()
        self._set_afterwards()
        self._read_configuration()
        self._create_custom_resources()
        self._read_outputs()

    # ---- Before anything exists ----

    def _parameter_values(self, given: Mapping[str, str]) -> dict[str, Any]:
        declared: Mapping[str, Mapping[str, Any]] = self._template.get("Parameters") or {}
        for name in given:
            if name not in declared:
                raise DeploymentError(f"{self._template.file}: there is no parameter {name}")
        values: dict[str, Any] = {}
        for name, declaration in declared.items():
            if name not in given and "Default" not in declaration:
                raise self._fault(f"the parameter {name} has no value", "Parameters", name)
            value = str(given.get(name, declaration.get("Default")))
            refused = refusal(declaration, value)
            if refused:
                raise self._fault(f"{name} {refused}", "Parameters", name)
            values[name] = parameter_value(declaration.get("Type", "String"), value)
        return values

    def _check_names(self) -> None:
        """Everything that the template refers to is there. CloudFormation says that of one without its place."""
        known = {
            *self._resolver.values,
            *self._template["Resources"],
            *self._document["Resources"],
            "AWS::NoValue",
            "AWS::NotificationARNs",
        }
        for section in ("Globals", "Conditions", "Resources", "Outputs"):
            for place, kind, name in placed_names(self._template.get(section) or {}, (section,)):
                if kind == "condition" and name not in self._resolver.conditions:
                    raise self._fault(f"there is no condition {name}", *place)
                if kind == "reference" and name.split(".")[0] not in known:
                    raise self._fault(f"there is no parameter or resource {name.split('.')[0]}", *place)

    def _select_resources(self) -> None:
        """Keeps the resources whose condition holds, with everything resolved that does not need another
        resource.
        """
        for logical_id, resource in self._document["Resources"].items():
            self._at = ("Resources", logical_id)
            kind = resource["Type"]
            if kind not in CARRIED_BY_MOTO and kind not in HANDLED_HERE and not _is_custom(kind):
                raise self._fault(f"the offline stack does not know {kind} ({logical_id})", "Resources", logical_id)
            if "Condition" in resource and not self._resolver.holds(resource["Condition"]):
                continue
            properties = self._resolver.resolve(resource.get("Properties") or {})
            self._resources[logical_id] = {"Type": kind, "Properties": properties}
            if "DependsOn" in resource:
                self._resources[logical_id]["DependsOn"] = resource["DependsOn"]

    def _prepare_layers(self) -> None:
        for logical_id, properties in self._of_type("AWS::Lambda::LayerVersion"):
            declared = self._template.declared(logical_id)
            content = self._local_path(properties["Content"], declared, "ContentUri")
            is_built = "BuildMethod" in (self._template["Resources"][declared].get("Metadata") or {})
            name = str(properties["LayerName"])
            layer = _Layer(name, None, content) if is_built else _Layer(name, content)
            layer.has_changed()
            self._layers[logical_id] = layer
            self._attributes[logical_id] = layer.arn()

    def _prepare_api_ids(self) -> None:
        apis = [logical_id for logical_id, _ in self._of_type("AWS::ApiGateway::RestApi")]
        if len(apis) > 1:
            raise self._fault(f"the offline stack serves one API, not {', '.join(apis)}", "Resources", apis[1])
        for logical_id in apis:
            self._attributes[logical_id] = logical_id.lower()
            self._attributes[f"{logical_id}.RestApiId"] = logical_id.lower()
        for logical_id, properties in self._of_type("AWS::ApiGateway::Stage"):
            self._attributes[logical_id] = properties["StageName"]

    # ---- What moto carries ----

    def _create_carried(self) -> None:
        resources = {
            logical_id: self._carried(logical_id, resource)
            for logical_id, resource in self._resources.items()
            if resource["Type"] in CARRIED_BY_MOTO
        }
        outputs = self._wanted_attributes(resources)
        document = {
            "Resources": self._resolver.resolve(resources),
            "Outputs": {f"Attribute{index}": {"Value": _getter(path)} for index, path in enumerate(outputs)},
        }
        self._put_code_stand_in(resources)
        cloudformation = self._client("cloudformation")
        try:
            created = cloudformation.create_stack(
                StackName=self._stack_name,
                TemplateBody=json.dumps(document),
                Capabilities=["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
            )
            stack = cloudformation.describe_stacks(StackName=created["StackId"])["Stacks"][0]
            listed = cloudformation.describe_stack_resources(StackName=created["StackId"])["StackResources"]
        except ResponseParserError as error:  # the page of a server that has failed
            raise DeploymentError(
                f"{self._template.file}: the stack could not be created: a resource is not as CloudFormation wants it; "
                "make check says which"
            ) from error
        except _CREATION_FAULTS as error:
            raise DeploymentError(
                f"{self._template.file}: the stack could not be created: {_one_line(error)}"
            ) from error
        if stack["StackStatus"] != "CREATE_COMPLETE":
            reason = stack.get("StackStatusReason") or stack["StackStatus"]
            raise DeploymentError(f"{self._template.file}: the stack could not be created: {reason}")
        values = {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", ())}
        for index, path in enumerate(outputs):
            self._attributes[path] = values[f"Attribute{index}"]
        for entry in listed:
            self._deployment.resources[entry["LogicalResourceId"]] = entry["PhysicalResourceId"]
            self._attributes.setdefault(entry["LogicalResourceId"], entry["PhysicalResourceId"])

    def _carried(self, logical_id: str, resource: Mapping[str, Any]) -> dict[str, Any]:
        """The resource as moto gets it."""
        kind, properties = resource["Type"], dict(resource["Properties"])
        if kind == "AWS::Lambda::Function":
            properties.setdefault("FunctionName", f"{self._stack_name}-{logical_id}")
            properties.pop("Layers", None)
        if kind == "AWS::StepFunctions::StateMachine":
            properties.setdefault("StateMachineName", f"{self._stack_name}-{logical_id}")
            location = properties.pop("DefinitionS3Location", None)
            if location is not None:
                substitutions = properties.get("DefinitionSubstitutions") or {}
                properties["DefinitionString"] = self._definition(location, substitutions, logical_id)
        carried = {"Type": kind, "Properties": properties}
        if "DependsOn" in resource:
            carried["DependsOn"] = resource["DependsOn"]
        return carried

    def _definition(self, location: Mapping[str, Any], substitutions: Collection[str], logical_id: str) -> str:
        declared = self._template["Resources"][self._template.declared(logical_id)]["Type"]
        file = self._local_path(location, logical_id, DEFINITION_OF[declared])
        try:
            definition = Definition.read(_shown(file))
        except DefinitionError as error:
            raise DeploymentError(str(error)) from error
        problems = check_definition(definition, substitutions)
        if problems:
            more = f" (and {len(problems) - 1} more: make check)" if len(problems) > 1 else ""
            raise DeploymentError(f"{problems[0]}{more}")
        text = file.read_text(encoding="utf-8")
        fault = definition_fault(text)
        if fault:
            line, reason = fault
            raise DeploymentError(f"{definition.file}:{line}: {reason}" if line else f"{definition.file}: {reason}")
        return text

    def _wanted_attributes(self, carried: Mapping[str, Any]) -> list[str]:
        """The attributes of carried resources that the others and the template's outputs refer to."""
        others = [resource for name, resource in self._resources.items() if name not in carried]
        rules = [resource for resource in carried.values() if resource["Type"] == "AWS::Events::Rule"]
        logging = [resource["Properties"].get("LoggingConfig") for resource in carried.values()]
        outputs = self._resolver.resolve(self._active_outputs())
        wanted = set(references([*others, *rules, *logging, outputs]))
        return sorted(path for path in wanted if path.split(".")[0] in carried)

    def _put_code_stand_in(self, resources: Mapping[str, Any]) -> None:
        """moto wants code in S3. Nothing reads it: the workers run the folders."""
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as code:
            code.writestr("runs-from-the-source-folder", "")
        s3 = self._client("s3")
        s3.create_bucket(Bucket=LOCAL_BUCKET)
        keys = {
            resource["Properties"]["Code"]["S3Key"]
            for resource in resources.values()
            if resource["Type"] == "AWS::Lambda::Function"
        }
        for key in keys:
            s3.put_object(Bucket=LOCAL_BUCKET, Key=key, Body=archive.getvalue())

    # ---- What is done here ----

    def _register_functions(self) -> None:
        for logical_id, properties in self._of_type("AWS::Lambda::Function"):
            self._check_function(logical_id, properties)
            code_root = self._local_path(properties["Code"], logical_id, "CodeUri")
            module = str(properties["Handler"]).rpartition(".")[0]
            if not (code_root / f"{module.replace('.', '/')}.py").is_file():
                message = f"{logical_id}: the handler {properties['Handler']} is not in {_shown(code_root)}"
                raise self._fault(message, "Resources", logical_id)
            arns = self._resolver.resolve(properties.get("Layers") or [])
            by_arn = {layer.arn(): layer for layer in self._layers.values()}
            unknown = [arn for arn in arns if arn not in by_arn]
            if unknown:
                raise self._fault(
                    f"{logical_id}: the layer {unknown[0]} is not in the template", "Resources", logical_id
                )
            layers = [by_arn[arn] for arn in arns]
            logging = self._resolver.resolve(properties.get("LoggingConfig") or {})
            name = str(self._attributes[logical_id])
            function = DeployedFunction(
                logical_id,
                name,
                code_root,
                tuple(layer.folder for layer in layers if layer.folder is not None),
                str(logging.get("LogGroup") or f"/aws/lambda/{name}"),
                self._requirements(logical_id, code_root, layers),
            )
            self._deployment.functions[logical_id] = function
            self._register(function)

    def _requirements(self, logical_id: str, code_root: Path, layers: Iterable[_Layer]) -> tuple[Path, ...]:
        built, all_built = (
            [layer.built_from for layer in some if layer.built_from is not None]
            for some in (layers, self._layers.values())
        )
        files = packages.requirements_of(code_root, built, all_built)
        for file in files:
            for unusable in packages.read(file)[1]:
                message = f"{logical_id}: {_shown(file)}:{unusable.line}: {unusable.rule}"
                raise self._fault(message, "Resources", logical_id)
        return files

    def _check_function(self, logical_id: str, properties: Mapping[str, Any]) -> None:
        runtime = str(properties.get("Runtime", "an image"))
        if not runtime.startswith("python"):
            message = f"{logical_id}: the offline stack runs functions in Python only, not {runtime}"
            raise self._fault(message, "Resources", logical_id, "Properties", "Runtime")
        for name in ("Timeout", "MemorySize"):
            value = properties.get(name, 1)
            if not re.fullmatch(r"[1-9]\d*", str(value)):
                message = f"{logical_id}: {name} is {value}, and not a whole number above 0"
                raise self._fault(message, "Resources", logical_id, "Properties", name)

    def _set_afterwards(self) -> None:
        for logical_id, properties in self._of_type("AWS::DynamoDB::Table"):
            if "TimeToLiveSpecification" in properties:
                self._client("dynamodb").update_time_to_live(
                    TableName=self._attributes[logical_id],
                    TimeToLiveSpecification=properties["TimeToLiveSpecification"],
                )
        for logical_id, properties in self._of_type("AWS::Logs::LogGroup"):
            if "RetentionInDays" in properties:
                self._client("logs").put_retention_policy(
                    logGroupName=self._attributes[logical_id],
                    retentionInDays=int(properties["RetentionInDays"]),
                )
        for _, properties in self._of_type("AWS::SQS::QueuePolicy"):
            resolved = self._resolver.resolve(properties)
            for queue in resolved["Queues"]:
                self._client("sqs").set_queue_attributes(
                    QueueUrl=queue, Attributes={"Policy": json.dumps(resolved["PolicyDocument"])}
                )

    def _read_configuration(self) -> None:
        for logical_id, properties in self._of_type("AWS::ApiGateway::RestApi"):
            stages = [stage for _, stage in self._of_type("AWS::ApiGateway::Stage")]
            stage = stages[0] if stages else {"StageName": "local"}
            resolved = self._resolver.resolve(properties)
            settings = self._resolver.resolve(stage.get("MethodSettings") or [])
            try:
                self._deployment.api = read_api(
                    resolved, str(self._attributes[logical_id]), str(stage["StageName"]), settings
                )
            except UnsupportedApi as error:
                raise self._fault(f"{logical_id}: {error}", "Resources", logical_id) from error
        rules = [
            (logical_id, self._resolver.resolve(properties))
            for logical_id, properties in self._of_type("AWS::Events::Rule")
        ]
        self._deployment.rules = tuple(
            self._rule(logical_id, properties)
            for logical_id, properties in rules
            if properties.get("State", "ENABLED") != "DISABLED"
        )
        for _, properties in self._of_type("AWS::Lambda::EventInvokeConfig"):
            resolved = self._resolver.resolve(properties)
            on_failure = (resolved.get("DestinationConfig") or {}).get("OnFailure") or {}
            delivery = LAMBDA_DEFAULT.changed(resolved, on_failure.get("Destination"))
            self._deployment.asynchronous[resolved["FunctionName"]] = delivery

    def _rule(self, logical_id: str, properties: Mapping[str, Any]) -> Rule:
        place = ("Resources", logical_id, "Properties")
        every: timedelta | None = None
        if "ScheduleExpression" in properties:
            try:
                every = parse_rate(str(properties["ScheduleExpression"]))
            except ScheduleError as error:
                raise self._fault(f"{logical_id}: {error}", *place, "ScheduleExpression") from error
        targets: Sequence[Mapping[str, Any]] = properties.get("Targets") or ()
        if [str(target["Arn"]).startswith("arn:aws:lambda:") for target in targets] != [True]:
            message = f"{logical_id}: the offline stack knows rules with one target only, which is a function"
            raise self._fault(message, *place, "Targets")
        [target] = targets
        unknown = sorted(set(target) - _TARGET_PROPERTIES)
        if unknown:
            message = f"{logical_id}: the offline stack does not know a target's {', '.join(unknown)}"
            raise self._fault(message, *place, "Targets")
        dead_letter_arn = (target.get("DeadLetterConfig") or {}).get("Arn")
        return Rule(
            logical_id,
            str(target["Arn"]).split(":")[6],
            properties.get("EventPattern"),
            every,
            f"arn:aws:events:{REGION}:{ACCOUNT_ID}:rule/{self._attributes[logical_id]}",
            EVENTBRIDGE_DEFAULT.changed(target.get("RetryPolicy") or {}, dead_letter_arn),
        )

    def _create_custom_resources(self) -> None:
        declared = [(name, resource) for name, resource in self._resources.items() if _is_custom(resource["Type"])]
        if not declared:
            return
        requests = CustomResources(self._functions, self._stack_id)
        self._deployment.close = requests.close
        self._deployment.refresh = lambda: self._refresh(requests)
        try:
            for logical_id, resource in declared:
                properties = self._custom_properties(resource["Properties"])
                self._note_custom(requests.create(logical_id, resource["Type"], properties))
        except CustomResourceFailed as error:
            raise DeploymentError(_one_line(error)) from error

    def _refresh(self, requests: CustomResources) -> list[CustomResource]:
        changed = [logical_id for logical_id, layer in self._layers.items() if layer.has_changed()]
        for logical_id in changed:
            self._attributes[logical_id] = self._layers[logical_id].arn()
        updated = []
        for logical_id, current in list(self._custom.items()):
            declared = self._resources[logical_id]["Properties"]
            if not set(references(declared)) & set(changed):
                continue
            updated.append(requests.update(current, self._custom_properties(declared)))
            self._note_custom(updated[-1])
        return updated

    def _custom_properties(self, declared: Mapping[str, Any]) -> dict[str, Any]:
        resolved: dict[str, Any] = self._resolver.resolve(declared)
        return resolved

    def _note_custom(self, resource: CustomResource) -> None:
        self._custom[resource.logical_id] = resource
        self._deployment.resources[resource.logical_id] = resource.physical_id
        self._attributes[resource.logical_id] = resource.physical_id
        for name, value in resource.data.items():
            self._attributes[f"{resource.logical_id}.{name}"] = value

    def _read_outputs(self) -> None:
        resolved = self._resolver.resolve(self._active_outputs())
        for name, output in resolved.items():
            missing = sorted(set(references(output["Value"])))
            if missing:
                raise self._fault(f"the output {name} refers to {', '.join(missing)}", "Outputs", name)
            self._deployment.outputs[name] = str(output["Value"])

    # ---- Small steps ----

    def _active_outputs(self) -> dict[str, Any]:
        return {
            name: output
            for name, output in (self._document.get("Outputs") or {}).items()
            if "Condition" not in output or self._resolver.holds(output["Condition"])
        }

    def _of_type(self, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for logical_id, resource in self._resources.items():
            if resource["Type"] == kind:
                self._at = ("Resources", logical_id)
                yield logical_id, resource["Properties"]

    def _local_path(self, location: Mapping[str, Any], logical_id: str, name: str) -> Path:
        """The file or folder that the template names where the transformed template has an S3 location."""
        key = str(location.get("S3Key") or location.get("Key"))
        bucket = location.get("S3Bucket") or location.get("Bucket")
        path = self._folder / key
        if bucket != LOCAL_BUCKET or not path.exists():
            message = f"{logical_id}: {name} {key} is not there"
            raise self._fault(message, "Resources", logical_id, "Properties", name)
        return path.resolve()

    def _fault(self, message: str, *place: str | int) -> DeploymentError:
        if place[:1] == ("Resources",):
            place = ("Resources", self._template.declared(str(place[1])), *place[2:])
        return DeploymentError(str(self._template.error(message, *place)))


def _getter(path: str) -> dict[str, Any]:
    logical_id, _, attribute = path.partition(".")
    return {"Fn::GetAtt": [logical_id, attribute]} if attribute else {"Ref": logical_id}


def _is_custom(kind: str) -> bool:
    return kind.startswith("Custom::") or kind == "AWS::CloudFormation::CustomResource"


def _as_parameter(value: Any) -> str:
    return ",".join(value) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)


def _digest(folder: Path | None) -> str:
    """What a folder's files hold, as one string. Editors' and interpreters' own files do not count."""
    if folder is None:
        return "built"
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = file.relative_to(folder).as_posix()
        if _UNPUBLISHED.search(name):
            continue
        content = file.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _shown(path: Path) -> str:
    """The path as a person would type it: relative to here, if it is below."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
