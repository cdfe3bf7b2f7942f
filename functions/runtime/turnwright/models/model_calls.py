"""Calls of a Bedrock model, and what each way they can fail means for the turn."""

from collections.abc import Mapping
from contextlib import closing
from typing import Any

from botocore.eventstream import ParserError
from botocore.exceptions import BotoCoreError, ClientError, EventStreamError, ParamValidationError
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from turnwright.deadline import within
from turnwright.errors import ModelError, ModelRejected, ModelThrottled, ModelUnavailable
from turnwright.models.converse import Reply, ReplyReader, wire_messages
from turnwright.storage import clients

_THROTTLED = {"ThrottlingException", "TooManyRequestsException", "ServiceQuotaExceededException"}
_UNAVAILABLE = {
    "InternalServerException",
    "InternalFailure",
    "ModelErrorException",
    "ModelNotReadyException",
    "ModelStreamErrorException",
    "ModelTimeoutException",
    "RequestTimeout",
    "ServiceUnavailable",
    "ServiceUnavailableException",
}

_BROKEN_STREAM = (HTTPError, ParserError, ResponseParserError)
"""What a stream that breaks raises: urllib3's own error, and two of botocore's that are no BotoCoreError."""


def converse(arguments: Mapping[str, Any], timeout_seconds: int) -> Reply:
    """One ConverseStream call, read to its end.

    `timeout_seconds` bounds the whole call: botocore's read time-out bounds only each read of the stream. Raises
    ModelThrottled, ModelUnavailable or ModelRejected.
    """
    client = clients.bedrock_runtime(timeout_seconds)

    def read() -> Reply:
        reader = ReplyReader()
        response = client.converse_stream(**{**arguments, "messages": wire_messages(arguments["messages"])})
        with closing(response["stream"]) as stream:
            try:
                for event in stream:
                    reader.add(event)
                return reader.reply(may_use_tools="toolConfig" in arguments)
            except (AttributeError, KeyError, TypeError) as error:  # an event lacks, or is not, what Converse promises
                raise ModelUnavailable(f"the model's stream is malformed: {error!r}") from error

    try:
        return within(timeout_seconds, read)
    except ModelError as error:  # what the reply itself says
        raise type(error)(f"{arguments['modelId']}: {error}") from error
    except TimeoutError as error:
        raise ModelUnavailable(f"{arguments['modelId']} took longer than {timeout_seconds} s") from error
    except ClientError as error:
        raise classify(error)(f"{arguments['modelId']}: {error}") from error
    except ParamValidationError as error:
        raise ModelRejected(f"{arguments['modelId']}: {error}") from error
    except (BotoCoreError, *_BROKEN_STREAM) as error:
        raise ModelUnavailable(f"{arguments['modelId']}: {error}") from error


def classify(error: ClientError) -> type[ModelError]:
    """What a failed Bedrock call means."""
    code = error.response["Error"]["Code"]
    if isinstance(error, EventStreamError):
        code = code[:1].upper() + code[1:]
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _UNAVAILABLE or status >= 500:
        return ModelUnavailable
    if code in _THROTTLED or status == 429:
        return ModelThrottled
    return ModelRejected
