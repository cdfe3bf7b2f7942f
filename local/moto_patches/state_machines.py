"""State machines from CloudFormation, their versions and aliases."""

import random
import re
from typing import Any

import moto.stepfunctions.models as models
from moto.core.responses import ActionResult
from moto.stepfunctions.models import StateMachineVersion
from moto.stepfunctions.parser.asl.parse.asl_parser import ASLParserException
from moto.stepfunctions.parser.asl.static_analyser.static_analyser import StaticAnalyser
from moto.stepfunctions.parser.models import StepFunctionsParserBackend, stepfunctions_parser_backends
from moto.stepfunctions.responses import StepFunctionResponse

from local.moto_patches.executions import starting
from local.moto_patches.replacing import replace, replace_class_method

_LONGEST_REASON = 200


def definition_fault(definition: str) -> tuple[int | None, str] | None:
    """Why moto would not execute the definition: the line, where its parser says one, and the reason."""
    try:
        StaticAnalyser().analyse(definition)
    except ASLParserException as error:
        reason = error.errors[0] if error.errors else "is no definition of a state machine"
    except Exception as error:  # what the parser trips over: it has no type of its own for a wrong value
        reason = " ".join(str(error).split())
    else:
        return None
    found = re.fullmatch(r"line (\d+):\d+, (.*)", reason, re.DOTALL)
    line, reason = (int(found[1]), found[2]) if found else (None, reason)
    if len(reason) > _LONGEST_REASON:
        reason = reason.partition(" expecting {")[0][:_LONGEST_REASON]
    return line, reason


def create_from_cloudformation() -> None:
    """Stock moto puts state machines of a template where they do not execute, ignores
    DefinitionSubstitutions, DefinitionS3Location, StateMachineType and the logging and tracing
    configuration, and knows no GetAtt of Arn.
    """

    def make_create(original: Any) -> Any:
        def create(
            cls: Any,
            resource_name: str,
            cloudformation_json: Any,
            account_id: str,
            region_name: str,
            **_: Any,
        ) -> Any:
            properties = _with_definition(cloudformation_json["Properties"], account_id)
            created = original(
                cls, resource_name, {**cloudformation_json, "Properties": properties}, account_id, region_name
            )
            _configure(created, properties)
            return created

        return create

    def make_update(original: Any) -> Any:
        def update(cls: Any, *, cloudformation_json: Any, account_id: str, **named: Any) -> Any:
            properties = _with_definition(cloudformation_json["Properties"], account_id)
            changed = {**cloudformation_json, "Properties": properties}
            updated = original(cls, cloudformation_json=changed, account_id=account_id, **named)
            _configure(updated, properties)
            return updated

        return update

    def make_has_attribute(original: Any) -> Any:
        return lambda cls, attribute: attribute == "Arn" or original(cls, attribute)

    def make_get_attribute(original: Any) -> Any:
        return lambda machine, name: machine.arn if name == "Arn" else original(machine, name)

    replace(models, "stepfunctions_backends", lambda original: stepfunctions_parser_backends)
    replace_class_method(models.StateMachine, "create_from_cloudformation_json", make_create)
    replace_class_method(models.StateMachine, "update_from_cloudformation_json", make_update)
    replace_class_method(models.StateMachine, "has_cfn_attr", make_has_attribute)
    replace(models.StateMachine, "get_cfn_attribute", make_get_attribute)


def _with_definition(properties: dict[str, Any], account_id: str) -> dict[str, Any]:
    definition = properties.get("DefinitionString")
    if definition is None and (location := properties.get("DefinitionS3Location")):
        from moto.s3.models import s3_backends

        definition = s3_backends[account_id]["aws"].get_object(location["Bucket"], location["Key"]).value.decode()
    if definition is None:
        return properties
    for name, value in (properties.get("DefinitionSubstitutions") or {}).items():
        definition = definition.replace(f"${{{name}}}", str(value))
    return {**properties, "DefinitionString": definition}


def _configure(machine: Any, properties: dict[str, Any]) -> None:
    machine.type = properties.get("StateMachineType", "STANDARD")
    if logging := properties.get("LoggingConfiguration"):
        machine.loggingConfiguration = _lower_first(logging)
    if tracing := properties.get("TracingConfiguration"):
        machine.tracingConfiguration = _lower_first(tracing)


def _lower_first(value: Any) -> Any:
    """CloudFormation's property names as the API spells them: `IncludeExecutionData` to
    `includeExecutionData`.
    """
    if isinstance(value, dict):
        return {name[:1].lower() + name[1:]: _lower_first(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_lower_first(member) for member in value]
    return value


def publish_versions() -> None:
    """Stock moto has no PublishStateMachineVersion."""

    def publish_state_machine_version(response: Any) -> ActionResult:
        machine = response.stepfunction_backend.describe_state_machine(response._get_param("stateMachineArn"))
        machine.publish(response._get_param("description"))
        version = machine.latest_version
        return ActionResult({"stateMachineVersionArn": version.arn, "creationDate": version.creation_date})

    StepFunctionResponse.publish_state_machine_version = publish_state_machine_version


def start_versions_and_aliases() -> None:
    """Stock moto fails to start an execution by the ARN of a version or an alias."""

    def make(original: Any) -> Any:
        def start_execution(backend: Any, state_machine_arn: str, *args: Any, **kwargs: Any) -> Any:
            started_as: dict[str, str] = {}
            head, _, last = state_machine_arn.rpartition(":")
            if state_machine_arn.count(":") == 7 and not last.isdigit():
                alias = backend.describe_state_machine_alias(state_machine_arn)
                started_as["stateMachineAliasArn"] = alias.arn
                routes = alias.routing_configuration
                state_machine_arn = random.choices(
                    [route["stateMachineVersionArn"] for route in routes],
                    [route["weight"] for route in routes],
                )[0]
                head = state_machine_arn.rpartition(":")[0]
            machine = backend.describe_state_machine(state_machine_arn)
            if not isinstance(machine, StateMachineVersion):
                return original(backend, state_machine_arn, *args, **kwargs)
            started_as["stateMachineVersionArn"] = machine.arn
            source = backend.describe_state_machine(head)
            with starting:  # executions belong to the machine; it is snapshot with the version's definition
                newest, source.definition = source.definition, machine.definition
                try:
                    execution = original(backend, source.arn, *args, **kwargs)
                finally:
                    source.definition = newest
            execution.started_as = started_as
            return execution

        return start_execution

    replace(StepFunctionsParserBackend, "start_execution", make)


def apply() -> None:
    create_from_cloudformation()
    publish_versions()
    start_versions_and_aliases()
