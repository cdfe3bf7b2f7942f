"""Embeddings by the runtime's own client, against the offline Bedrock endpoint."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from local.bedrock.endpoint import BedrockEndpoint
from local.bedrock.hashed_embeddings import HashedEmbeddings, vector
from local.bedrock.model_backend import EmbeddingRequest, JsonObject, ModelError
from local.bedrock.scripted_model import ScriptedModel
from turnwright.agents.embedding_models import supports
from turnwright.errors import ModelRejected, ModelThrottled, ModelUnavailable
from turnwright.models.embeddings import embed
from turnwright.storage import clients

TITAN = "amazon.titan-embed-text-v2:0"
COHERE = "cohere.embed-multilingual-v3"
COHERE_V4 = "us.cohere.embed-v4:0"


@dataclass
class Embeddings(ScriptedModel):
    """Keeps what it was asked; answers as the offline endpoint does, or what it is told."""

    failure: ModelError | None = None
    answer: JsonObject | None = None
    asked: list[EmbeddingRequest] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__([])

    def invoke_model(self, request: EmbeddingRequest) -> JsonObject:
        self.asked.append(request)
        if self.failure:
            raise self.failure
        return self.answer or HashedEmbeddings().invoke_model(request)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[Embeddings]:
    model = Embeddings()
    endpoint = BedrockEndpoint(model)
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", endpoint.url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    clients.bedrock_runtime.cache_clear()
    yield model
    clients.bedrock_runtime.cache_clear()
    endpoint.close()


def rounded(text: str, dimensions: int) -> tuple[float, ...]:
    return tuple(round(number, 6) for number in vector(text, dimensions))


def test_titan_is_asked_text_by_text_for_short_normalized_vectors(model: Embeddings) -> None:
    texts = [f"fact {number}" for number in range(9)]

    assert embed(texts, TITAN) == [rounded(text, 256) for text in texts]
    assert sorted((request.body for request in model.asked), key=lambda body: body["inputText"]) == [
        {"inputText": text, "dimensions": 256, "normalize": True} for text in texts
    ]
    assert {request.model_id for request in model.asked} == {TITAN}


def test_cohere_is_asked_for_as_many_texts_at_once_as_it_takes(model: Embeddings) -> None:
    texts = [f"fact {number}" for number in range(100)]

    assert embed(texts, COHERE) == [rounded(text, 1024) for text in texts]
    assert sorted(len(request.body["texts"]) for request in model.asked) == [4, 96]
    assert {request.body["input_type"] for request in model.asked} == {"search_document"}


def test_a_query_is_embedded_as_one_where_the_model_knows_the_difference(model: Embeddings) -> None:
    assert embed(["tea?"], COHERE_V4, is_query=True) == [rounded("tea?", 256)]
    assert model.asked[0].body == {
        "texts": ["tea?"],
        "input_type": "search_query",
        "embedding_types": ["float"],
        "truncate": "RIGHT",
        "output_dimension": 256,
    }


@pytest.mark.parametrize("model_id", [TITAN, COHERE, COHERE_V4])
def test_a_text_longer_than_the_model_takes_is_cut(model: Embeddings, model_id: str) -> None:
    (embedding,) = embed(["é" * 60_000], model_id)
    assert any(embedding)
    text = model.asked[0].body.get("inputText") or model.asked[0].body["texts"][0]
    assert set(text) == {"é"}
    assert len(text) == (4_000 if model_id == TITAN else 2_048)


def test_nothing_is_asked_for_no_texts(model: Embeddings) -> None:
    assert embed([], TITAN) == []
    assert model.asked == []


@pytest.mark.parametrize(
    ("model_id", "known"),
    [
        (TITAN, True),
        (COHERE, True),
        ("cohere.embed-english-v3", True),
        (COHERE_V4, True),
        ("global.cohere.embed-v4:0", True),
        (f"arn:aws:bedrock:us-east-1::foundation-model/{TITAN}", True),
        ("arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.cohere.embed-v4:0", True),
        ("amazon.titan-embed-text-v1", False),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", False),
        ("", False),
    ],
)
def test_the_models_that_can_be_asked_are_known(model: Embeddings, model_id: str, known: bool) -> None:
    assert supports(model_id) is known
    if known:
        assert len(embed(["tea"], model_id)) == 1
    else:
        with pytest.raises(ModelRejected, match=r"can be asked: amazon\.titan-embed-text-v2:0"):
            embed(["tea"], model_id)


@pytest.mark.parametrize(
    ("failure", "raised"),
    [
        (ModelError(429, "ThrottlingException", "slow down"), ModelThrottled),
        (ModelError(503, "ServiceUnavailableException", "away"), ModelUnavailable),
        (ModelError(403, "AccessDeniedException", "no"), ModelRejected),
    ],
)
def test_a_failure_is_told_as_a_model_calls(model: Embeddings, failure: ModelError, raised: type[Exception]) -> None:
    model.failure = failure
    with pytest.raises(raised, match=TITAN):
        embed(["tea"], TITAN)


def test_an_empty_text_is_refused_by_the_service(model: Embeddings) -> None:
    with pytest.raises(ModelRejected, match="inputText must be a string of 1 to"):
        embed([""], TITAN)


def test_answers_that_do_not_fit_the_texts_are_no_embeddings(model: Embeddings) -> None:
    model.answer = {"embeddings": {"float": [[1.0]]}}
    with pytest.raises(ModelUnavailable, match="1 embeddings for 2 texts"):
        embed(["tea", "coffee"], COHERE)


def test_a_cohere_answer_without_types_is_read_too(model: Embeddings) -> None:
    model.answer = {"response_type": "embeddings_floats", "embeddings": [[1, 0]]}
    assert embed(["tea"], COHERE) == [(1.0, 0.0)]


def refusal(model_id: str, **body: Any) -> str:
    with pytest.raises(ModelError) as raised:
        HashedEmbeddings().invoke_model(EmbeddingRequest(model_id, body))
    assert (raised.value.status, raised.value.error_type) == (400, "ValidationException")
    return raised.value.message


@pytest.mark.parametrize(
    ("model_id", "body", "message"),
    [
        ("anthropic.claude-v2", {"inputText": "a"}, "The provided model identifier is invalid."),
        (TITAN, {}, "inputText must be a string of 1 to 50000 characters"),
        (TITAN, {"inputText": "a", "dimensions": 300}, "dimensions must be one of 256, 512, 1024"),
        (TITAN, {"inputText": "a", "normalize": 1}, "normalize must be one of True, False"),
        (TITAN, {"inputText": "a", "embeddingTypes": ["int8"]}, "embeddingTypes must be a list of float, binary"),
        (TITAN, {"inputText": "a", "texts": []}, "extraneous key [texts] is not permitted"),
        (COHERE, {"texts": []}, "texts must be a list of 1 to 96 strings"),
        (COHERE, {"texts": ["a" * 2_049]}, "texts.0 must be a string of 1 to 2048 characters"),
        (
            COHERE,
            {"texts": ["a"]},
            "input_type must be one of search_document, search_query, classification, clustering",
        ),
        (
            COHERE,
            {"texts": ["a"], "input_type": "clustering", "truncate": "LEFT"},
            "truncate must be one of NONE, START, END",
        ),
        (
            COHERE_V4,
            {"texts": ["a"], "input_type": "clustering", "output_dimension": 100},
            "output_dimension must be one of 256, 512, 1024, 1536",
        ),
        (
            COHERE,
            {"texts": ["a"], "input_type": "clustering", "output_dimension": 256},
            "extraneous key [output_dimension] is not permitted",
        ),
        (COHERE_V4, {"images": []}, "the offline endpoint embeds texts only, no images"),
    ],
)
def test_the_offline_embeddings_refuse_what_the_service_would(model_id: str, body: JsonObject, message: str) -> None:
    assert refusal(model_id, **body) == message


def test_the_offline_embeddings_have_the_services_other_types() -> None:
    titan = HashedEmbeddings().invoke_model(
        EmbeddingRequest(TITAN, {"inputText": "tea", "dimensions": 256, "embeddingTypes": ["float", "binary"]})
    )
    assert titan["embeddingsByType"]["float"] == titan["embedding"] == vector("tea", 256)
    assert titan["embeddingsByType"]["binary"] == [int(number > 0) for number in titan["embedding"]]
    body = {"texts": ["tea"], "input_type": "clustering", "embedding_types": ["int8", "uint8", "binary", "ubinary"]}
    cohere = HashedEmbeddings().invoke_model(EmbeddingRequest(COHERE, body))
    types = {name: vectors[0] for name, vectors in cohere["embeddings"].items()}
    assert {name: len(numbers) for name, numbers in types.items()} == {
        "int8": 1024,
        "uint8": 1024,
        "binary": 128,
        "ubinary": 128,
    }
    assert [number + 128 for number in types["int8"]] == types["uint8"]
    assert [number + 128 for number in types["binary"]] == types["ubinary"]
    plain = HashedEmbeddings().invoke_model(EmbeddingRequest(COHERE, {"texts": ["tea"], "input_type": "clustering"}))
    assert (plain["response_type"], plain["embeddings"]) == ("embeddings_floats", [vector("tea", 1024)])
    assert json.loads(json.dumps(cohere)) == cohere


def test_the_offline_embeddings_are_of_length_1_and_the_same_each_time() -> None:
    assert sum(number * number for number in vector("Project Phoenix", 512)) == pytest.approx(1)
    assert vector("Project Phoenix", 8) == vector("Project Phoenix", 8) != vector("Project Unicorn", 8)
    assert vector("!", 4) == [0.0] * 4
