"""Embeddings without a model, for the offline stack: InvokeModel of Titan Text Embeddings v2 and Cohere Embed v3 / v4.

A vector is a sum over the text's words and the trigrams of their letters, each hashed to a place and a sign. Texts with
common words, or words with common parts, come out near each other; it knows no synonyms and no second language, so it
measures letters, not meaning. The same text has the same vector in every process.

Shapes and limits: "Amazon Titan Text Embeddings V2", "Cohere Embed v3" and "v4" in the Bedrock user guide.
"""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from local.bedrock.model_backend import EmbeddingRequest, JsonObject, ModelError, digest, estimated_tokens
from turnwright.memory.records.terms import trigrams, words

_WORD_WEIGHT = 2.0

_TITAN = re.compile(r"amazon\.titan-embed-text-v2(:\d+)?")
_COHERE_V3 = re.compile(r"cohere\.embed-(english|multilingual)-v3(:\d+)?")
_COHERE_V4 = re.compile(r"cohere\.embed-v4(:\d+)?")
_PREFIX = re.compile(r"(?:arn:[^/]+/)?(?:(?:us|us-gov|eu|apac|jp|au|ca|global)\.)?")
_INPUT_TYPES = ("search_document", "search_query", "classification", "clustering")
_TITAN_CHARACTERS = 50_000
_COHERE_V3_CHARACTERS = 2_048
_COHERE_TEXTS = 96


class HashedEmbeddings:
    """What answers InvokeModel where the model of the MODEL option has no embeddings of its own."""

    def invoke_model(self, request: EmbeddingRequest) -> JsonObject:
        """The response's JSON. Raises ModelError for what the service would refuse."""
        model = _PREFIX.sub("", request.model_id, count=1)
        if _TITAN.fullmatch(model):
            return _titan(request.body)
        if _COHERE_V3.fullmatch(model):
            return _cohere(request.body, dimensions=(1024,), truncations=("NONE", "START", "END"), default=1024)
        if _COHERE_V4.fullmatch(model):
            sizes = (256, 512, 1024, 1536)
            return _cohere(request.body, dimensions=sizes, truncations=("NONE", "LEFT", "RIGHT"), default=1536)
        raise _refusal("The provided model identifier is invalid.")


def vector(text: str, dimensions: int) -> list[float]:
    """Of length 1, of a text without any letter all zeros."""
    sums = [0.0] * dimensions
    for weight, prefix, terms in ((_WORD_WEIGHT, "word", words(text)), (1.0, "part", trigrams(text))):
        for term, count in Counter(terms).items():
            place = int.from_bytes(hashlib.blake2b(f"{prefix} {term}".encode(), digest_size=8).digest())
            sums[(place >> 1) % dimensions] += (weight if place & 1 else -weight) * (1 + math.log(count))
    length = math.hypot(*sums)
    return [number / length for number in sums] if length else sums


def _titan(body: JsonObject) -> JsonObject:
    _only(body, "inputText", "dimensions", "normalize", "embeddingTypes")
    text = body.get("inputText")
    if not isinstance(text, str) or not 1 <= len(text) <= _TITAN_CHARACTERS:
        raise _refusal(f"inputText must be a string of 1 to {_TITAN_CHARACTERS} characters")
    dimensions = _one_of(body, "dimensions", (256, 512, 1024), default=1024)
    _one_of(body, "normalize", (True, False), default=True)
    types = _types(body, "embeddingTypes", ("float", "binary")) or ["float"]
    numbers = vector(text, dimensions)
    return {
        "embedding": numbers,
        "embeddingsByType": {
            kind: numbers if kind == "float" else [int(number > 0) for number in numbers] for kind in types
        },
        "inputTextTokenCount": estimated_tokens(text),
    }


def _cohere(body: JsonObject, *, dimensions: Sequence[int], truncations: Sequence[str], default: int) -> JsonObject:
    optional = ("output_dimension", "max_tokens") if len(dimensions) > 1 else ()
    if "images" in body or "inputs" in body:
        raise ModelError(400, "ValidationException", "the offline endpoint embeds texts only, no images")
    _only(body, "texts", "input_type", "truncate", "embedding_types", *optional)
    texts = body.get("texts")
    if not isinstance(texts, list) or not 1 <= len(texts) <= _COHERE_TEXTS:
        raise _refusal(f"texts must be a list of 1 to {_COHERE_TEXTS} strings")
    for index, text in enumerate(texts):
        longest = len(text) if len(dimensions) > 1 and isinstance(text, str) else _COHERE_V3_CHARACTERS
        if not isinstance(text, str) or not 1 <= len(text) <= longest:
            raise _refusal(f"texts.{index} must be a string of 1 to {_COHERE_V3_CHARACTERS} characters")
    if body.get("input_type") not in _INPUT_TYPES:
        raise _refusal(f"input_type must be one of {', '.join(_INPUT_TYPES)}")
    _one_of(body, "truncate", truncations, default="NONE")
    size = _one_of(body, "output_dimension", dimensions, default=default)
    types = _types(body, "embedding_types", tuple(_CODINGS))
    numbers = [vector(text, size) for text in texts]
    embeddings: Any = {kind: [_CODINGS[kind](each) for each in numbers] for kind in types} if types else numbers
    return {
        "id": digest(body)[:32],
        "response_type": "embeddings_by_type" if types else "embeddings_floats",
        "embeddings": embeddings,
        "texts": texts,
    }


def _only(body: JsonObject, *known: str) -> None:
    for name in body:
        if name not in known:
            raise _refusal(f"extraneous key [{name}] is not permitted")


def _one_of(body: JsonObject, name: str, allowed: Sequence[Any], *, default: Any) -> Any:
    value = body.get(name, default)
    if not any(value is each or (type(value) is type(each) and value == each) for each in allowed):
        raise _refusal(f"{name} must be one of {', '.join(map(str, allowed))}")
    return value


def _types(body: JsonObject, name: str, allowed: Sequence[str]) -> list[str]:
    types = body.get(name) or []
    if not isinstance(types, list) or not set(map(str, types)) <= set(allowed):
        raise _refusal(f"{name} must be a list of {', '.join(allowed)}")
    return types


def _refusal(message: str) -> ModelError:
    return ModelError(400, "ValidationException", message)


def _unsigned_bits(numbers: Sequence[float]) -> list[int]:
    bits = [number > 0 for number in numbers]
    return [sum(bit << (7 - place) for place, bit in enumerate(bits[at : at + 8])) for at in range(0, len(bits), 8)]


_CODINGS: Mapping[str, Any] = {
    "float": list,
    "int8": lambda numbers: [round(number * 127) for number in numbers],
    "uint8": lambda numbers: [round(number * 127) + 128 for number in numbers],
    "ubinary": _unsigned_bits,
    "binary": lambda numbers: [byte - 128 for byte in _unsigned_bits(numbers)],
}
