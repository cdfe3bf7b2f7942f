"""The embedding models that memory can search with, by their ids."""

import re

TITAN_V2 = re.compile(r"amazon\.titan-embed-text-v2(:\d+)?")
COHERE_V3 = re.compile(r"cohere\.embed-(english|multilingual)-v3(:\d+)?")
COHERE_V4 = re.compile(r"cohere\.embed-v4(:\d+)?")
_PREFIX = re.compile(r"(?:arn:[^/]+/)?(?:(?:us|us-gov|eu|apac|jp|au|ca|global)\.)?")
"""An ARN's and an inference profile's part before the model's own id."""


def supports(model_id: str) -> bool:
    """Whether `models/embeddings.py` knows how to ask this model."""
    return any(kind.fullmatch(bare(model_id)) for kind in (TITAN_V2, COHERE_V3, COHERE_V4))


def bare(model_id: str) -> str:
    """The model's own id, without what an ARN or an inference profile puts before it."""
    return _PREFIX.sub("", model_id, count=1)
