"""The boto3 clients: cached for the life of the process, low-level, with explicit time-outs.

Step Functions owns the retries of a turn. botocore's are kept only where they cannot multiply with them: a few quick
tries of a DynamoDB, S3, SQS or Step Functions request, none of a model or tool call. When those are spent, these four
raise StorageUnavailable (`availability.py`).
"""

from functools import cache, lru_cache
from typing import Any

import boto3
from botocore.config import Config

from turnwright.storage.availability import watch

_QUICK = Config(
    connect_timeout=2,
    read_timeout=5,
    retries={"mode": "standard", "total_max_attempts": 3},
    max_pool_connections=20,
    tcp_keepalive=True,
)
_LARGEST_TRANSFER = _QUICK.merge(Config(read_timeout=20))


@cache
def dynamodb() -> Any:
    return watch(boto3.client("dynamodb", config=_QUICK))


@cache
def s3() -> Any:
    return watch(boto3.client("s3", config=_LARGEST_TRANSFER))


@cache
def stepfunctions() -> Any:
    return watch(boto3.client("stepfunctions", config=_QUICK))


@cache
def sqs() -> Any:
    return watch(boto3.client("sqs", config=_QUICK))


@lru_cache(maxsize=16)
def bedrock_runtime(timeout_seconds: int) -> Any:
    """A model client whose reads end before the state that called it does. Never retries: Invoke Model's Retry does."""
    return boto3.client("bedrock-runtime", config=_single_attempt(timeout_seconds))


@lru_cache(maxsize=16)
def aws_lambda(timeout_seconds: int) -> Any:
    """A client for tool functions. Never retries: a second delivery of one attempt would run the tool twice."""
    return boto3.client("lambda", config=_single_attempt(timeout_seconds))


def _single_attempt(timeout_seconds: int) -> Config:
    return Config(
        connect_timeout=3,
        read_timeout=timeout_seconds,
        retries={"total_max_attempts": 1},
        max_pool_connections=20,
        tcp_keepalive=True,
    )
