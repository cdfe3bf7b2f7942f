"""Embeddings through Bedrock: texts as vectors whose cosine says how near their meanings are.

Request and response shapes: "Amazon Titan Text Embeddings V2", "Cohere Embed v3" and "v4" in the Bedrock user guide.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from turnwright.agents.embedding_models import COHERE_V3, COHERE_V4, TITAN_V2
from turnwright.agents.model_ids import bare
from turnwright.errors import ModelAccessDenied, ModelRejected, ModelUnavailable
from turnwright.models import model_calls
from turnwright.storage import clients
from turnwright.tracing import metrics

Embedding = tuple[float, ...]

TITAN_DIMENSIONS = 256
"""Of 256, 512 and 1,024. A short fact loses next to nothing with the fewest, and a record stays small."""

COHERE_V4_DIMENSIONS = 256

_TIMEOUT_SECONDS = 10
_TITAN_BYTES = 8_000
"""Titan takes 8,192 tokens. No token is shorter than a byte, so that so many bytes always fit."""
_COHERE_CHARACTERS = 2_048
_COHERE_TEXTS = 96
_AT_THE_SAME_TIME = 4
_DECIMALS = 6
"""A number's digits that are kept: more only make records longer."""


def embed(texts: Sequence[str], model_id: str, *, is_query: bool = False) -> list[Embedding]:
    """The embedding of each text, in their order. `is_query` tells a model apart that embeds queries otherwise.

    A text that is longer than the model takes is cut; an empty one is refused by the service. Raises ModelThrottled,
    ModelUnavailable or ModelRejected.
    """
    requests = list(_requests(texts, bare(model_id), is_query=is_query))
    if not requests:
        return []
    client = clients.bedrock_runtime(_TIMEOUT_SECONDS)
    with ThreadPoolExecutor(min(_AT_THE_SAME_TIME, len(requests))) as pool:
        answers = pool.map(lambda request: _invoke(client, model_id, request), requests)
        embeddings = [embedding for answer in answers for embedding in answer]
    if len(embeddings) != len(texts):
        raise ModelUnavailable(f"{model_id} answered {len(embeddings)} embeddings for {len(texts)} texts")
    return embeddings


def _requests(texts: Sequence[str], model: str, *, is_query: bool) -> Iterator[Mapping[str, Any]]:
    if TITAN_V2.fullmatch(model):
        for text in texts:
            yield {"inputText": _cut(text), "dimensions": TITAN_DIMENSIONS, "normalize": True}
        return
    if not (COHERE_V3.fullmatch(model) or COHERE_V4.fullmatch(model)):
        raise ModelRejected(
            f"{model} is no embedding model that can be asked: amazon.titan-embed-text-v2:0, "
            "cohere.embed-english-v3, cohere.embed-multilingual-v3 and cohere.embed-v4:0 are"
        )
    later: dict[str, Any] = {"truncate": "END"}
    if COHERE_V4.fullmatch(model):
        later = {"truncate": "RIGHT", "output_dimension": COHERE_V4_DIMENSIONS}
    for start in range(0, len(texts), _COHERE_TEXTS):
        yield {
            "texts": [text[:_COHERE_CHARACTERS] for text in texts[start : start + _COHERE_TEXTS]],
            "input_type": "search_query" if is_query else "search_document",
            "embedding_types": ["float"],
            **later,
        }


def _cut(text: str) -> str:
    encoded = text.encode(errors="replace")
    return encoded[:_TITAN_BYTES].decode(errors="ignore") if len(encoded) > _TITAN_BYTES else text


def _invoke(client: Any, model_id: str, request: Mapping[str, Any]) -> list[Embedding]:
    try:
        response = client.invoke_model(
            modelId=model_id,
            body=json.dumps(request).encode(),
            contentType="application/json",
            accept="application/json",
        )
        answer = json.loads(response["body"].read())
    except ClientError as error:
        failure = model_calls.classify(error)(f"{model_id}: {error}")
        if isinstance(failure, ModelAccessDenied):  # memory goes on without embeddings, and nobody would see it
            metrics.model_failed("", type(failure).__name__)
        raise failure from error
    except ParamValidationError as error:
        raise ModelRejected(f"{model_id}: {error}") from error
    except (BotoCoreError, ValueError) as error:
        raise ModelUnavailable(f"{model_id}: {error}") from error
    return [tuple(round(float(number), _DECIMALS) for number in vector) for vector in _vectors(answer)]


def _vectors(answer: Mapping[str, Any]) -> Sequence[Sequence[float]]:
    if "embedding" in answer:
        return [answer["embedding"]]
    embeddings = answer["embeddings"]
    vectors: Sequence[Sequence[float]] = embeddings["float"] if isinstance(embeddings, dict) else embeddings
    return vectors
