"""The embedding models that memory can search with, by their ids."""

import re

from turnwright.agents.model_ids import bare

TITAN_V2 = re.compile(r"amazon\.titan-embed-text-v2(:\d+)?")
COHERE_V3 = re.compile(r"cohere\.embed-(english|multilingual)-v3(:\d+)?")
COHERE_V4 = re.compile(r"cohere\.embed-v4(:\d+)?")


def supports(model_id: str) -> bool:
    """Whether `models/embeddings.py` knows how to ask this model."""
    return any(kind.fullmatch(bare(model_id)) for kind in (TITAN_V2, COHERE_V3, COHERE_V4))
