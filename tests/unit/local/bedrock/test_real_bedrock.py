"""The real Bedrock's backend, with the offline endpoint standing in for AWS."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from local.bedrock.endpoint import BedrockEndpoint
from local.bedrock.hashed_embeddings import vector
from local.bedrock.model_backend import ConverseRequest, EmbeddingRequest, ModelError, StreamEvent
from local.bedrock.real_bedrock import RealBedrock, RealBedrockError
from local.bedrock.scripted_model import ScriptedModel

MODEL_ID = "us.amazon.nova-pro-v1:0"
USER = {"role": "user", "content": [{"text": "Hello"}]}


class _Given:
    """Answers with the events it was made of."""

    name = "given"

    def __init__(self, *events: StreamEvent) -> None:
        self._events = events

    def converse(self, request: ConverseRequest) -> Iterator[StreamEvent]:
        return iter(self._events)


@pytest.fixture
def model() -> ScriptedModel:
    return ScriptedModel(
        [{"reply": {"text": "Hello from AWS", "usage": {"inputTokens": 1, "outputTokens": 2, "totalTokens": 3}}}]
    )


@pytest.fixture
def endpoint(model: ScriptedModel) -> Iterator[BedrockEndpoint]:
    endpoint = BedrockEndpoint(model)
    yield endpoint
    endpoint.close()


@pytest.fixture
def bedrock(endpoint: BedrockEndpoint) -> RealBedrock:
    return RealBedrock(_client(endpoint.url))


def _client(url: str) -> Any:
    return boto3.client(
        "bedrock-runtime",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=10),
    )


def converse(bedrock: RealBedrock, body: dict[str, Any] | None = None) -> list[StreamEvent]:
    return list(bedrock.converse(ConverseRequest(MODEL_ID, body or {"messages": [USER]}, True)))


def test_events_are_passed_through(bedrock: RealBedrock) -> None:
    *events, metadata = converse(bedrock)
    assert [event.name for event in events] == [
        "messageStart",
        "contentBlockDelta",
        "contentBlockDelta",
        "contentBlockStop",
        "messageStop",
    ]
    assert "".join(event.body["delta"]["text"] for event in events[1:3]) == "Hello from AWS"
    assert metadata.body["usage"] == {"inputTokens": 1, "outputTokens": 2, "totalTokens": 3}


def test_the_request_arrives_unchanged_bytes_included(bedrock: RealBedrock, model: ScriptedModel) -> None:
    picture = base64.b64encode(b"\x89PNG").decode()
    body = {
        "messages": [
            {
                "role": "user",
                "content": [{"image": {"format": "png", "source": {"bytes": picture}}}, {"text": "What is it?"}],
            }
        ],
        "inferenceConfig": {"maxTokens": 10},
        "toolConfig": {
            "tools": [{"toolSpec": {"name": "t", "inputSchema": {"json": {"type": "object", "properties": {}}}}}]
        },
        "requestMetadata": {"team": "bank"},
    }
    converse(bedrock, body)
    [recorded] = model.requests
    assert (recorded.model_id, recorded.body) == (MODEL_ID, body)


def test_bytes_in_events_are_base64_again(bedrock: RealBedrock, endpoint: BedrockEndpoint) -> None:
    secret = base64.b64encode(b"\x00\x01").decode()
    delta = {"contentBlockIndex": 0, "delta": {"reasoningContent": {"redactedContent": secret}}}
    endpoint.backend = _Given(StreamEvent("contentBlockDelta", delta))
    assert converse(bedrock) == [StreamEvent("contentBlockDelta", delta)]


def test_an_http_error_keeps_status_type_and_message(bedrock: RealBedrock, model: ScriptedModel) -> None:
    model.replace([{"error": {"status": 403, "type": "AccessDeniedException", "message": "No access"}}])
    with pytest.raises(ModelError) as failure:
        converse(bedrock)
    error = failure.value
    assert (error.status, error.error_type, error.message) == (403, "AccessDeniedException", "No access")


def test_an_exception_in_the_stream_keeps_type_and_message(bedrock: RealBedrock, model: ScriptedModel) -> None:
    throttled = {"status": 429, "type": "ThrottlingException", "message": "Slow down"}
    model.replace([{"reply": {"text": "Hello"}, "breakAfter": 1, "error": throttled}])
    with pytest.raises(ModelError) as failure:
        converse(bedrock)
    error = failure.value
    assert (error.status, error.error_type, error.message) == (429, "ThrottlingException", "Slow down")


def test_an_unreachable_service_is_unavailable(endpoint: BedrockEndpoint) -> None:
    bedrock = RealBedrock(_client(endpoint.url))
    endpoint.close()
    with pytest.raises(ModelError) as failure:
        converse(bedrock)
    assert (failure.value.status, failure.value.error_type) == (503, "ServiceUnavailableException")


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An AWS configuration of its own: one profile that is whole, one without a region."""
    file = tmp_path / "config"
    file.write_text(
        "[profile whole]\nregion = eu-central-1\naws_access_key_id = mine\naws_secret_access_key = secret\n"
        "[profile regionless]\naws_access_key_id = mine\naws_secret_access_key = secret\n"
    )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.delenv("AWS_BEARER_TOKEN_BEDROCK", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(file))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return file


@pytest.mark.usefixtures("profiles")
def test_the_users_profile_is_used_and_the_stacks_environment_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "dummy")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "dummy")
    client = RealBedrock.from_profile("whole")._client
    assert client.meta.endpoint_url == "https://bedrock-runtime.eu-central-1.amazonaws.com"
    assert client._request_signer._credentials.access_key == "mine"


@pytest.mark.usefixtures("profiles")
@pytest.mark.parametrize(
    ("profile", "message"),
    [
        (None, "no AWS credentials found"),
        ("regionless", "no AWS region found"),
        ("other", "The config profile \\(other\\) could not be found"),
    ],
)
def test_an_incomplete_configuration_is_refused(profile: str | None, message: str) -> None:
    with pytest.raises(RealBedrockError, match=message):
        RealBedrock.from_profile(profile)


def test_embeddings_are_passed_through(bedrock: RealBedrock) -> None:
    body = {"inputText": "tea", "dimensions": 256}
    answer = bedrock.invoke_model(EmbeddingRequest("amazon.titan-embed-text-v2:0", body))
    assert answer["embedding"] == vector("tea", 256)


def test_a_model_that_the_service_does_not_know_keeps_its_error(bedrock: RealBedrock) -> None:
    with pytest.raises(ModelError) as refused:
        bedrock.invoke_model(EmbeddingRequest("nobody.knows-v1:0", {}))
    assert (refused.value.status, refused.value.error_type) == (400, "ValidationException")
