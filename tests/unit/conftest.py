from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any
from uuid import uuid4

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from moto import mock_aws

from local import moto_patches
from tests import trace_schema
from tests.unit.stored_memory import Queue, StatementModel, StoredMemory
from tests.unit.stored_turns import Requests, StandingClock, StoredTurns
from tests.unit.tool_turns import QUEUE_URL, FakeLambda, FakeQueue
from tests.unit.turn_states import Model
from turnwright.storage.documents import Documents
from turnwright.storage.settings import settings
from turnwright.storage.table import Table
from turnwright.tracing import log, traces
from turnwright.tracing.payloads import Payloads


@cache
def mocked_client(service: str) -> Any:
    """A client that moto answers while `mock_aws` is active. Making one takes longer than most tests, and signing what
    nobody verifies a tenth of a request to the table.
    """
    session = boto3.Session("access-key", "secret-key", region_name="us-east-1")
    return session.client(service, config=Config(signature_version=UNSIGNED) if service == "dynamodb" else None)


def empty_table() -> Table:
    """A new table in moto, with a name of its own, since processes cache what a table of a name holds."""
    name = f"table-{uuid4()}"
    client = mocked_client("dynamodb")
    client.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[
            {"AttributeName": name, "AttributeType": "S"}
            for name in ("PK", "SK", "ownerPK", "ownerSK", "duePK", "dueSK")
        ],
        KeySchema=[
            {"AttributeName": "PK", "KeyType": "HASH"},
            {"AttributeName": "SK", "KeyType": "RANGE"},
        ],
        GlobalSecondaryIndexes=[
            {
                "IndexName": index,
                "KeySchema": [
                    {"AttributeName": f"{name}PK", "KeyType": "HASH"},
                    {"AttributeName": f"{name}SK", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            }
            for index, name in (("Owned", "owner"), ("Due", "due"))
        ],
    )
    return Table(client, name)


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[Table]:
    """An empty table."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    moto_patches.apply_to_storage()
    # moto registers 1,300 patterns of URLs a test for the package `requests`, which nothing here asks AWS with.
    monkeypatch.setattr("moto.core.models.RESPONSES_METHODS", [])
    with mock_aws():
        yield empty_table()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StandingClock:
    """The runtime's clock, which stands until a test moves it."""
    standing = StandingClock()
    monkeypatch.setattr("turnwright.storage.clock.time", standing)
    return standing


@pytest.fixture
def stored(table: Table, clock: StandingClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoredTurns]:
    """A table and a bucket with an agent in them; the handlers find them too."""
    bucket = "bucket"
    dynamodb, s3 = Requests(mocked_client("dynamodb")), Requests(mocked_client("s3"))
    s3.client.create_bucket(Bucket=bucket)
    monkeypatch.setattr("turnwright.storage.clients.dynamodb", lambda: dynamodb)
    monkeypatch.setattr("turnwright.storage.clients.s3", lambda: s3)
    monkeypatch.setenv("TABLE_NAME", table.name)
    monkeypatch.setenv("BUCKET_NAME", bucket)
    monkeypatch.setenv("DEAD_LETTER_QUEUE_URL", "https://queue")
    settings.cache_clear()
    store = StoredTurns(Table(dynamodb, table.name), Documents(s3, bucket), dynamodb, s3, clock, bucket)
    store.publish()
    dynamodb.forget()
    yield store
    settings.cache_clear()


@pytest.fixture
def documents(stored: StoredTurns) -> Documents:
    """Documents in an empty bucket."""
    return stored.documents


@pytest.fixture
def fake_lambda(monkeypatch: pytest.MonkeyPatch) -> FakeLambda:
    """Lambda as the tools' callers see it; it has no answers yet."""
    fake = FakeLambda()
    monkeypatch.setattr("turnwright.storage.clients.aws_lambda", fake.client)
    return fake


@pytest.fixture
def model(stored: StoredTurns, monkeypatch: pytest.MonkeyPatch) -> Model:
    """The model of every agent; it has no replies yet."""
    answering = Model([])
    monkeypatch.setattr("turnwright.models.model_calls._learned", {})
    monkeypatch.setattr("turnwright.storage.clients.bedrock_runtime", lambda _timeout_seconds: answering)
    return answering


@pytest.fixture
def queue(stored: StoredTurns, monkeypatch: pytest.MonkeyPatch) -> FakeQueue:
    """The queue of the letters of tool calls."""
    monkeypatch.setenv("TOOL_DEAD_LETTER_QUEUE_URL", QUEUE_URL)
    settings.cache_clear()
    fake = FakeQueue()
    monkeypatch.setattr("turnwright.storage.clients.sqs", lambda: fake)
    return fake


@pytest.fixture
def threads_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads of a test check arguments, without the clock that only a main thread has."""
    monkeypatch.setattr("turnwright.tools.tool_arguments.interrupted", lambda _seconds, work: work())


@pytest.fixture
def memory(stored: StoredTurns, monkeypatch: pytest.MonkeyPatch) -> StoredMemory:
    """The storage with an agent that remembers, a model that extracts, and a dead-letter queue."""
    model, queue = StatementModel(), Queue()
    monkeypatch.setattr("turnwright.models.model_calls.converse", model.converse)
    monkeypatch.setattr("turnwright.storage.clients.sqs", lambda: queue)
    remembered = StoredMemory(stored, model, queue)
    remembered.configure()
    stored.dynamodb.forget()
    return remembered


@pytest.fixture(autouse=True)
def trace_events(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Every trace event that is logged, in order. In every test, each event must keep to the schema."""
    logged: list[dict[str, Any]] = []
    as_written = Payloads.event

    def checked(payloads: Payloads, event: Mapping[str, Any]) -> dict[str, Any]:
        written = as_written(payloads, event)
        trace_schema.check(written)
        return written

    def noted(event: Mapping[str, Any]) -> None:
        trace_schema.check(event)
        logged.append(dict(event))
        log.log_event(event)

    monkeypatch.setattr(Payloads, "event", checked)
    monkeypatch.setattr(traces, "log_event", noted)
    return logged
