"""The real Bedrock, called with the user's own AWS profile and region, for what the offline stack asks of models.

Calls cost money. The credentials are looked up when the backend is made, before the stack gives its handlers dummies,
and the endpoint variables (AWS_ENDPOINT_URL...) that lead to the stack are ignored.
"""

import base64
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EventStreamError,
    HTTPClientError,
    NoCredentialsError,
    ReadTimeoutError,
    TokenRetrievalError,
)
from botocore.model import ListShape, MapShape, Shape, StructureShape

from local.bedrock.model_backend import ConverseRequest, EmbeddingRequest, JsonObject, ModelError, StreamEvent

_IN_STREAM_STATUS = {
    "InternalServerException": 500,
    "ModelStreamErrorException": 424,
    "ServiceUnavailableException": 503,
    "ThrottlingException": 429,
    "ValidationException": 400,
}


class RealBedrockError(Exception):
    """The real Bedrock cannot be used: the profile, its credentials or the region is missing."""


class RealBedrock:
    """Passes ConverseStream and InvokeModel through a boto3 `bedrock-runtime` client. The state machine retries."""

    name = "bedrock"

    def __init__(self, client: Any) -> None:
        self._client = client
        self._input_shape = client.meta.service_model.operation_model("ConverseStream").input_shape

    @classmethod
    def from_profile(cls, profile: str | None = None) -> "RealBedrock":
        """The default credentials, or a profile's. Raises RealBedrockError."""
        try:
            session = boto3.Session(profile_name=profile)
            credentials = session.get_credentials()
        except BotoCoreError as error:
            raise RealBedrockError(str(error)) from error
        if credentials is None and "AWS_BEARER_TOKEN_BEDROCK" not in os.environ:
            raise RealBedrockError("no AWS credentials found: run `aws configure` or set AWS_PROFILE")
        if session.region_name is None:
            raise RealBedrockError("no AWS region found: set AWS_REGION or the profile's region")
        settings = Config(
            connect_timeout=5,
            read_timeout=300,
            retries={"total_max_attempts": 1},
            max_pool_connections=50,
            ignore_configured_endpoint_urls=True,
        )
        return cls(session.client("bedrock-runtime", config=settings))

    def converse(self, request: ConverseRequest) -> Iterator[StreamEvent]:
        arguments = {**_with_bytes(request.body, self._input_shape), "modelId": request.model_id}
        with _as_model_errors():
            response = self._client.converse_stream(**arguments)
            for event in response["stream"]:
                for name, body in event.items():
                    yield StreamEvent(name, _without_bytes(body))

    def invoke_model(self, request: EmbeddingRequest) -> JsonObject:
        with _as_model_errors():
            response = self._client.invoke_model(modelId=request.model_id, body=json.dumps(request.body).encode())
            answer: JsonObject = json.loads(response["body"].read())
            return answer


@contextmanager
def _as_model_errors() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        raise _model_error(error) from error
    except (NoCredentialsError, TokenRetrievalError) as error:
        raise ModelError(403, "AccessDeniedException", str(error)) from error
    except ReadTimeoutError as error:
        raise ModelError(408, "ModelTimeoutException", str(error)) from error
    except (HTTPClientError, BotoCoreError) as error:
        raise ModelError(503, "ServiceUnavailableException", str(error)) from error


def _model_error(error: ClientError) -> ModelError:
    code = error.response["Error"]["Code"]
    message = error.response["Error"].get("Message", "")
    if isinstance(error, EventStreamError):
        code = code[:1].upper() + code[1:]
        return ModelError(_IN_STREAM_STATUS.get(code, 424), code, message)
    return ModelError(error.response["ResponseMetadata"]["HTTPStatusCode"], code, message)


def _with_bytes(value: Any, shape: Shape) -> Any:
    """A request body as boto3 takes it: the base64 strings of blob fields are bytes."""
    if shape.type_name == "blob":
        return base64.b64decode(value)
    if isinstance(shape, StructureShape) and not shape.is_document_type:
        return {name: _with_bytes(item, shape.members[name]) for name, item in value.items()}
    if isinstance(shape, ListShape):
        return [_with_bytes(item, shape.member) for item in value]
    if isinstance(shape, MapShape):
        return {key: _with_bytes(item, shape.value) for key, item in value.items()}
    return value


def _without_bytes(value: Any) -> Any:
    """An event of boto3 as JSON: bytes are base64 strings again."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {name: _without_bytes(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_bytes(item) for item in value]
    return value
