"""What botocore makes of answers and broken connections becomes one name, or stays what it means."""

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.config import Config
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ParamValidationError,
    ReadTimeoutError,
)
from urllib3.exceptions import IncompleteRead, ProtocolError, SSLError

from turnwright.errors import StorageUnavailable
from turnwright.storage import availability, clients
from turnwright.storage.documents import Documents

URL = "https://aws"


@cache
def session() -> boto3.Session:
    """One, which reads the models of the services once."""
    return boto3.Session("key", "secret", region_name="us-east-1")


class Body:
    """The body of an answer as urllib3 reads it."""

    def __init__(self, content: bytes, fault: Exception | None = None) -> None:
        self.content = content
        self.fault = fault

    def stream(self, *_: Any, **__: Any) -> list[bytes]:
        return [self.read()]

    def read(self, _amount: int | None = None) -> bytes:
        if self.fault:
            raise self.fault
        return self.content


Answer = Callable[[], AWSResponse]


class Wire:
    """Answers every request of a client with the same, and counts them."""

    def __init__(self, service: str, answer: Answer) -> None:
        retries: Any = {"mode": "standard", "total_max_attempts": 2}
        made = session().client(service, config=Config(retries=retries))
        self.client = availability.watch(made)
        self.client.meta.events.register("before-send", self._send)
        self.answer = answer
        self.sent = 0

    def _send(self, request: AWSRequest, **_: Any) -> AWSResponse:
        self.sent += 1
        return self.answer()


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore does not wait between its tries."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)


def json_error(code: str, status: int) -> Answer:
    return lambda: AWSResponse(URL, status, {}, Body(json.dumps({"__type": f"x#{code}", "message": "no"}).encode()))


def query_error(code: str, modeled: str, status: int) -> Answer:
    """As services answer that once spoke the Query protocol: the header has the code that botocore tells."""
    body = json.dumps({"__type": f"x#{modeled}", "message": "no"}).encode()
    return lambda: AWSResponse(URL, status, {"x-amzn-query-error": f"{code};Sender"}, Body(body))


def xml_error(code: str, status: int) -> Answer:
    return lambda: AWSResponse(URL, status, {}, Body(f"<Error><Code>{code}</Code></Error>".encode()))


def broken(error: Exception) -> Answer:
    def fail() -> AWSResponse:
        raise error

    return fail


REQUESTS: dict[str, Callable[[Any], object]] = {
    "dynamodb": lambda client: client.get_item(TableName="table", Key={"PK": {"S": "p"}}),
    "s3": lambda client: client.get_object(Bucket="bucket", Key="key"),
    "sqs": lambda client: client.send_message(QueueUrl="https://queue", MessageBody="b"),
    "stepfunctions": lambda client: client.start_execution(stateMachineArn="arn", name="n"),
}


@pytest.mark.parametrize(
    ("service", "answer", "throttled"),
    [
        ("dynamodb", json_error("ProvisionedThroughputExceededException", 400), True),
        ("dynamodb", json_error("ThrottlingException", 400), True),
        ("dynamodb", json_error("RequestLimitExceeded", 400), True),
        ("dynamodb", json_error("InternalServerError", 500), False),
        ("s3", xml_error("SlowDown", 503), True),
        ("s3", xml_error("InternalError", 500), False),
        ("s3", xml_error("RequestTimeout", 400), False),
        ("s3", lambda: AWSResponse(URL, 502, {}, Body(b"<html>Bad Gateway</html>")), False),
        ("sqs", json_error("RequestThrottled", 403), True),
        ("sqs", json_error("ServiceUnavailable", 503), False),
        ("stepfunctions", json_error("ThrottlingException", 400), True),
        ("stepfunctions", json_error("ExecutionLimitExceeded", 400), True),
        ("dynamodb", broken(EndpointConnectionError(endpoint_url=URL)), False),
        ("dynamodb", broken(ConnectTimeoutError(endpoint_url=URL)), False),
        ("s3", broken(ReadTimeoutError(endpoint_url=URL)), False),
        ("stepfunctions", broken(ConnectionClosedError(endpoint_url=URL)), False),
    ],
)
def test_what_passes_has_one_name_once_botocores_tries_are_spent(service: str, answer: Answer, throttled: bool) -> None:
    wire = Wire(service, answer)

    with pytest.raises(StorageUnavailable) as unavailable:
        REQUESTS[service](wire.client)

    assert unavailable.value.throttled is throttled
    assert wire.sent == (1 if "ExecutionLimitExceeded" in str(unavailable.value) else 2)


@pytest.mark.parametrize(
    ("service", "answer", "throttled"),
    [
        ("sqs", query_error("KMS.ThrottlingException", "KmsThrottled", 400), True),
        ("s3", xml_error("KMS.ThrottlingException", 400), True),
        ("dynamodb", json_error("KMSThrottlingException", 400), True),
        ("stepfunctions", json_error("KmsThrottlingException", 400), True),
        ("s3", xml_error("TooManyRequests", 429), True),
        ("s3", lambda: AWSResponse(URL, 408, {}, Body(b"")), False),
        ("s3", lambda: AWSResponse(URL, 503, {}, Body(b"", ProtocolError("cut"))), False),
    ],
)
def test_what_passes_has_the_name_where_botocore_does_not_know_so(
    service: str, answer: Answer, throttled: bool
) -> None:
    with pytest.raises(StorageUnavailable) as error:
        REQUESTS[service](Wire(service, answer).client)

    assert error.value.throttled is throttled


@pytest.mark.parametrize(
    ("service", "answer", "code"),
    [
        ("dynamodb", json_error("ConditionalCheckFailedException", 400), "ConditionalCheckFailedException"),
        ("dynamodb", json_error("TransactionCanceledException", 400), "TransactionCanceledException"),
        ("dynamodb", json_error("TransactionConflictException", 400), "TransactionConflictException"),
        ("dynamodb", json_error("ValidationException", 400), "ValidationException"),
        ("dynamodb", json_error("AccessDeniedException", 400), "AccessDeniedException"),
        ("s3", xml_error("NoSuchKey", 404), "NoSuchKey"),
        ("s3", xml_error("AccessDenied", 403), "AccessDenied"),
        ("sqs", json_error("QueueDoesNotExist", 400), "QueueDoesNotExist"),
        ("stepfunctions", json_error("ExecutionAlreadyExists", 400), "ExecutionAlreadyExists"),
    ],
)
def test_what_means_something_stays_what_it_is(service: str, answer: Answer, code: str) -> None:
    wire = Wire(service, answer)

    with pytest.raises(ClientError) as error:
        REQUESTS[service](wire.client)

    assert error.value.response["Error"]["Code"] == code
    assert wire.sent == 1


def test_a_request_that_botocore_refuses_is_no_fault_of_the_service() -> None:
    with pytest.raises(ParamValidationError):
        Wire("dynamodb", json_error("ThrottlingException", 400)).client.get_item(TableName="table")


def test_a_text_whose_reading_breaks_off_is_unavailable() -> None:
    def cut() -> AWSResponse:
        return AWSResponse(URL, 200, {"Content-Length": "9"}, Body(b"", ProtocolError("cut", IncompleteRead(1, 8))))

    def short() -> AWSResponse:
        return AWSResponse(URL, 200, {"Content-Length": "9"}, Body(b"{}"))

    def torn() -> AWSResponse:
        return AWSResponse(URL, 200, {"Content-Length": "9"}, Body(b"", SSLError("torn")))

    for answer in (cut, short, torn):
        with pytest.raises(StorageUnavailable, match="S3 GetObject"):
            Documents(Wire("s3", answer).client, "bucket").fetch({"object": "key", "bytes": 9})


def test_every_client_of_the_storage_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    for name, ask in REQUESTS.items():
        client = getattr(clients, name).__wrapped__()
        client.meta.events.register("before-send", lambda **_: xml_error("SlowDown", 503)())
        with pytest.raises(StorageUnavailable):
            ask(client)


def test_what_was_paid_for_is_kept_by_trying_again_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(availability, "_PAUSE_SECONDS", (0.0, 0.0))
    faults = [StorageUnavailable("a"), StorageUnavailable("b")]

    def work() -> str:
        if faults:
            raise faults.pop(0)
        return "kept"

    assert availability.patiently(work) == "kept"
    faults += [StorageUnavailable("c"), StorageUnavailable("d"), StorageUnavailable("e")]
    with pytest.raises(StorageUnavailable, match="e"):
        availability.patiently(work)


ID = {"x-amzn-RequestId": "id", "x-amz-request-id": "id"}


@pytest.mark.parametrize("service", REQUESTS)
@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Type": "text/html"}, b"<html>Sign in</html>"),
        ({}, b""),
        ({"Content-Type": "application/json"}, b'{"status": "ok"}'),
        ({"Content-Type": "application/json"}, b"null"),
    ],
    ids=["page", "empty", "object", "null"],
)
def test_a_good_answer_that_is_not_of_aws_is_none(service: str, headers: dict[str, str], body: bytes) -> None:
    wire = Wire(service, lambda: AWSResponse(URL, 200, headers, Body(body)))

    with pytest.raises(StorageUnavailable, match="the answer with status 200 is not one of AWS"):
        REQUESTS[service](wire.client)


@pytest.mark.parametrize("service", ["dynamodb", "sqs", "stepfunctions"])
@pytest.mark.parametrize("body", [b"", b"<html></html>", b'{"Item": {"PK"', b"[]", b"null"])
def test_an_answer_that_lost_its_body_on_the_way_is_none(service: str, body: bytes) -> None:
    wire = Wire(service, lambda: AWSResponse(URL, 200, ID, Body(body)))

    with pytest.raises(StorageUnavailable):
        REQUESTS[service](wire.client)


def test_a_list_of_objects_that_is_no_xml_is_none() -> None:
    wire = Wire("s3", lambda: AWSResponse(URL, 200, ID, Body(b"<html><br></html>")))

    with pytest.raises(StorageUnavailable):
        list(Documents(wire.client, "bucket").names("a/"))


def test_answers_of_aws_are_answers() -> None:
    wire = Wire("dynamodb", lambda: AWSResponse(URL, 200, ID, Body(b" {}\n")))
    assert "Item" not in REQUESTS["dynamodb"](wire.client)  # type: ignore[operator]  # botocore's answers are untyped
    wire = Wire("s3", lambda: AWSResponse(URL, 204, ID, Body(b"")))
    Documents(wire.client, "bucket").discard({"object": "name"})
    wire = Wire("sqs", lambda: AWSResponse(URL, 200, ID, Body(b"")))
    wire.client.delete_message(QueueUrl="https://queue", ReceiptHandle="r")
