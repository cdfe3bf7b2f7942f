"""When AWS cannot take a request just now: the many names that botocore has for it become one, StorageUnavailable.

It is raised when botocore's own retries are spent, and says nothing about what the request asked for: it may even have
been carried out, and only its answer lost. So it is if a good answer is not AWS's own: botocore would make of a proxy's
page an item that is not there, or a write that was made. What an answer means (a condition that did not hold, a name
that is not there, a right that is missing) stays botocore's ClientError.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, TypeVar

from botocore import exceptions
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from turnwright.errors import StorageUnavailable

T = TypeVar("T")

THROTTLED = frozenset(
    {
        "ExecutionLimitExceeded",
        "KMS.ThrottlingException",
        "KMSThrottlingException",
        "KmsThrottled",
        "KmsThrottlingException",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
"""Codes of a service that takes no more for now. Source: what botocore's standard mode retries as throttling, and the
errors of Step Functions and SQS that pass. A throttled KMS has a spelling in each service, two in SQS.
"""

PASSING = THROTTLED | {"InternalError", "RequestTimeout", "RequestTimeoutException", "ServiceUnavailable"}
"""What passes, also where a code comes without an HTTP status of its own."""

_PASSING_STATUSES = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)

_UNREACHED = (
    exceptions.ConnectionError,
    exceptions.CredentialRetrievalError,
    exceptions.FlexibleChecksumError,
    exceptions.HTTPClientError,
    exceptions.IncompleteReadError,
    ResponseParserError,  # an answer without the form that the service's answers have
    HTTPError,  # urllib3's own, of a body that botocore reads past its own names: of a refusal, or as a stream
)

_PATIENCE_SECONDS = 3
_PAUSE_SECONDS = (0.1, 0.2, 0.4, 0.8, 1.6, 1.6)


def watch(client: Any) -> Any:
    """The botocore client, which raises StorageUnavailable from now on."""
    client.meta.events.register("before-parse", _received)
    client.meta.events.register("after-call", _answered)
    client.meta.events.register("after-call-error", _failed)
    return client


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Around the reading of an answer's body, which comes when the request is over and botocore retries no more."""
    try:
        yield
    except _UNREACHED as error:
        raise StorageUnavailable(f"{what}: {type(error).__name__}: {error}") from error


def pauses() -> Iterator[bool]:
    """Each True is a pause that was made between two tries: random up to a bound that doubles, as AWS advises. There
    are so many as make about 3 s.
    """
    end = time.monotonic() + _PATIENCE_SECONDS
    for bound in _PAUSE_SECONDS:
        if time.monotonic() >= end:
            return
        time.sleep(random.uniform(0, bound))
        yield True


def patiently(work: Callable[[], T], passing: tuple[type[Exception], ...] = (StorageUnavailable,)) -> T:
    """The result of `work`, which can be repeated, tried again for about 3 s if AWS cannot take it; what it then raises
    is in `passing`.

    For the record of what was paid for, or must not be done twice: a retry of the whole state would do it again.
    """
    paused = pauses()
    while True:
        try:
            return work()
        except passing:
            if not next(paused, False):
                raise


def _answered(http_response: Any, parsed: Mapping[str, Any], model: Any, **_: Any) -> None:
    status = http_response.status_code
    code = str(parsed.get("Error", {}).get("Code", ""))
    if status >= 500 or status in _PASSING_STATUSES or (status >= 300 and code in PASSING):
        message = parsed.get("Error", {}).get("Message", "")
        name = f"{model.service_model.service_id} {model.name}"
        throttled = code in THROTTLED or status == HTTPStatus.TOO_MANY_REQUESTS
        raise StorageUnavailable(f"{name}: {code or status}: {message}", throttled=throttled)


def _received(operation_model: Any, response_dict: Mapping[str, Any], **_: Any) -> None:
    """Refuses a good answer that is not the service's own, which has the request's id and, in JSON, is an object."""
    status, headers = response_dict["status_code"], response_dict["headers"]
    if status >= 300:
        return
    is_of_aws = "x-amzn-requestid" in headers or "x-amz-request-id" in headers
    if is_of_aws and operation_model.output_shape and "json" in operation_model.service_model.protocols:
        body = response_dict["body"].strip()
        is_of_aws = body.startswith(b"{") and body.endswith(b"}")
    if not is_of_aws:
        name = f"{operation_model.service_model.service_id} {operation_model.name}"
        raise StorageUnavailable(f"{name}: the answer with status {status} is not one of AWS")


def _failed(exception: Exception, event_name: str, **_: Any) -> None:
    if isinstance(exception, _UNREACHED):
        operation = event_name.partition(".")[2].replace(".", " ")
        raise StorageUnavailable(f"{operation}: {type(exception).__name__}: {exception}") from exception
