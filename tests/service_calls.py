"""Each operation of Bedrock's agent services, called as an unmodified client calls it."""

from typing import Any

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.model import OperationModel, Shape

ANYBODY = Session(aws_access_key_id="AKIDEXAMPLE", aws_secret_access_key="secret", region_name="us-east-1")


def client(service: str, url: str, session: Session = ANYBODY) -> Any:
    """A client that does not repeat what fails."""
    return session.client(service, endpoint_url=url, config=Config(retries={"total_max_attempts": 1}))


def call(service_client: Any, operation: str) -> ClientError | None:
    """What the operation is refused with; None if it is not. The request has what the model requires and no more."""
    model: OperationModel = service_client.meta.service_model.operation_model(operation)
    method = next(ours for ours, theirs in service_client.meta.method_to_api_mapping.items() if theirs == operation)
    try:
        getattr(service_client, method)(**(_least(model.input_shape) if model.input_shape else {}))
    except ClientError as error:
        return error
    return None


def undeclared(service_client: Any, operation: str, refusal: ClientError) -> str | None:
    """What is wrong with a refusal for a client that knows the operation's own errors; None for nothing."""
    declared = {shape.name for shape in service_client.meta.service_model.operation_model(operation).error_shapes}
    code = refusal.response["Error"]["Code"]
    if code not in declared or not isinstance(refusal, getattr(service_client.exceptions, code)):
        return f"{operation}: {code} is not one of {sorted(declared)}"
    return None


def _least(shape: Shape) -> Any:
    """The shortest value that botocore sends."""
    match shape.type_name:
        case "structure" if getattr(shape, "is_tagged_union", False):
            name, member = next(iter(shape.members.items()))
            return {name: _least(member)}
        case "structure":
            required = shape.required_members
            return {name: _least(shape.members[name]) for name in required}
        case "list":
            return [_least(shape.member)] * shape.metadata.get("min", 0)
        case "map":
            return {}
        case "string":
            choices = getattr(shape, "enum", None)
            return choices[0] if choices else "a" * max(1, shape.metadata.get("min", 1))
        case "integer" | "long" | "float" | "double":
            return shape.metadata.get("min", 1)
        case "boolean":
            return False
        case "timestamp":
            return 1_790_000_000
        case "blob":
            return b"{}"
        case _:
            raise ValueError(f"no value is known for a {shape.type_name}")
