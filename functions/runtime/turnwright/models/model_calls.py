"""Calls of a Bedrock model, and what each way they can fail means for the turn."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

from botocore.eventstream import ParserError
from botocore.exceptions import BotoCoreError, ClientError, EventStreamError, ParamValidationError
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from turnwright.deadline import within
from turnwright.errors import ModelAccessDenied, ModelError, ModelRejected, ModelThrottled, ModelUnavailable
from turnwright.models.converse import Reply, ReplyReader, events_of, wire_messages
from turnwright.models.what_models_take import ALL, Form, Part, refused_by, without
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

_NO_ACCESS = {"AccessDeniedException", "AccessDenied", "ResourceNotFoundException"}
"""A permission of IAM or of an organization, the model's subscription or its use-case form is missing; or the model is
not there, in this Region or for this account. Source: "Request access to models" and "Troubleshooting Amazon Bedrock
API Error Codes" in the Bedrock user guide.
"""

_REFUSED_BY_SHAPE = "ValidationException"
"""Bedrock has one code for all that it does not take: a parameter of the request, and the conversation itself."""

_MOST_LEARNED = 64

_learned: dict[str, frozenset[Part]] = {}
"""What models took only without, by their ids, for the life of the process: a refusal is paid for once. It is bounded:
the model that was learned first is forgotten first.
"""

_BROKEN_STREAM = (HTTPError, ParserError, ResponseParserError)
"""What a stream that breaks raises: urllib3's own error, and two of botocore's that are no BotoCoreError."""


def converse(arguments: Mapping[str, Any], timeout_seconds: int) -> Reply:
    """One call of a model, in the form that it takes, read to its end.

    A request that the model refuses before it has said anything is repeated once, without all that a model may not
    take. `timeout_seconds` bounds both together: botocore's read time-out bounds only each read of a stream. Raises
    ModelThrottled, ModelUnavailable or ModelRejected.
    """
    client = clients.bedrock_runtime(timeout_seconds)
    model_id = arguments["modelId"]

    def ask() -> Reply:
        form = without(refused_by(model_id) | _learned.get(model_id, frozenset()), arguments)
        try:
            return _answer(client, form)
        except ClientError as refusal:
            plainest = without(ALL | refused_by(model_id), arguments)
            if _code(refusal) != _REFUSED_BY_SHAPE or plainest == form:
                raise
            reply = _answer(client, plainest)
            _learn(model_id, plainest)
            return replace(reply, repeats=1)

    try:
        return within(timeout_seconds, ask)
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


def _answer(client: Any, form: Form) -> Reply:
    """The reply to one request. Raises ClientError for one that failed before it had any; later it is a ModelError."""
    reader = ReplyReader()
    request = {**form.arguments, "messages": wire_messages(form.arguments["messages"])}
    response = client.converse_stream(**request) if form.streams else client.converse(**request)
    try:
        with closing(response["stream"] if form.streams else events_of(response)) as events:
            for event in events:
                reader.add(event)
        reply = reader.reply(may_use_tools="toolConfig" in request)
    except EventStreamError as error:
        if not reader.has_begun:
            raise
        raise classify(error)(str(error)) from error
    except (AttributeError, KeyError, TypeError) as error:  # an event lacks, or is not, what Converse promises
        raise ModelUnavailable(f"the model's answer is malformed: {error!r}") from error
    return replace(reply, left_out=form.left_out)


def _learn(model_id: str, form: Form) -> None:
    learned = _learned.pop(model_id, frozenset())
    while len(_learned) >= _MOST_LEARNED:
        del _learned[next(iter(_learned))]
    _learned[model_id] = learned | frozenset(form.left_out)


def _code(error: ClientError) -> str:
    code = str(error.response["Error"]["Code"])
    return code[:1].upper() + code[1:] if isinstance(error, EventStreamError) else code


def classify(error: ClientError) -> type[ModelError]:
    """What a failed Bedrock call means."""
    code = _code(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _UNAVAILABLE or status >= 500:
        return ModelUnavailable
    if code in _THROTTLED or status == 429:
        return ModelThrottled
    if code in _NO_ACCESS or status in (403, 404):
        return ModelAccessDenied
    return ModelRejected
