"""The retry policy of a tool: whether, and how soon, a failed attempt is tried again.

A policy comes from `actionGroupExecutionConfig` blocks: the agent's is the default for its action groups, a
group's own overrides it field by field. What neither names has the default that `ToolPolicy` shows.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Backoff(StrEnum):
    """How the delay grows from attempt to attempt."""

    EXPONENTIAL = "EXPONENTIAL"
    FIXED = "FIXED"


class Jitter(StrEnum):
    """Whether the delay is random, so that turns that failed together do not come back together."""

    NONE = "NONE"
    FULL = "FULL"


class OnTimeout(StrEnum):
    """What becomes of a tool call whose attempts ran out of time."""

    RETURN_ERROR_TO_AGENT = "RETURN_ERROR_TO_AGENT"
    FAIL_TURN = "FAIL_TURN"


@dataclass(frozen=True, slots=True)
class CircuitBreaker:
    """After `failure_threshold` failures of the service in a row nothing is invoked for `recovery_seconds`; then one
    call probes (`breakers.py`).
    """

    enabled: bool = False
    failure_threshold: int = 5
    recovery_seconds: int = 60


@dataclass(frozen=True, slots=True)
class ToolPolicy:
    """`max_attempts` counts attempts, the first one included; `timeout_seconds` is the time that one attempt gets;
    the model is shown `max_result_characters` of an answer.
    """

    max_attempts: int = 3
    retryable_error_codes: frozenset[str] = frozenset({"THROTTLING", "SERVICE_UNAVAILABLE"})
    backoff: Backoff = Backoff.EXPONENTIAL
    initial_delay_ms: int = 200
    max_delay_ms: int = 20_000
    jitter: Jitter = Jitter.NONE
    timeout_seconds: int = 30
    on_timeout: OnTimeout = OnTimeout.RETURN_ERROR_TO_AGENT
    breaker: CircuitBreaker = CircuitBreaker()
    max_result_characters: int = 25_000


def tool_policy(*blocks: Mapping[str, Any]) -> ToolPolicy:
    """The policy that `actionGroupExecutionConfig` blocks make together; a later block overrides an earlier
    one.

    A field is overridden whole: a group's `retryableErrorCodes` replace the agent's. The short form
    `timeoutSeconds` beside `retryPolicy` means `timeoutConfig.timeoutSeconds`.
    """
    fields: dict[str, Any] = {}
    for block in blocks:
        fields |= block.get("retryPolicy", {})
        if "timeoutSeconds" in block:
            fields["timeoutSeconds"] = block["timeoutSeconds"]
        fields |= block.get("timeoutConfig", {})
        if "circuitBreaker" in block:
            fields = {"enabled": True} | fields | block["circuitBreaker"]
        fields |= block.get("resultConfig", {})

    default = ToolPolicy()
    return ToolPolicy(
        max_attempts=int(fields.get("maxAttempts", default.max_attempts)),
        retryable_error_codes=frozenset(fields.get("retryableErrorCodes", default.retryable_error_codes)),
        backoff=Backoff(fields.get("backoffStrategy", default.backoff)),
        initial_delay_ms=int(fields.get("initialDelayMs", default.initial_delay_ms)),
        max_delay_ms=int(fields.get("maxDelayMs", default.max_delay_ms)),
        jitter=Jitter(fields.get("jitter", default.jitter)),
        timeout_seconds=int(fields.get("timeoutSeconds", default.timeout_seconds)),
        on_timeout=OnTimeout(fields.get("onTimeoutBehavior", default.on_timeout)),
        breaker=CircuitBreaker(
            enabled=fields.get("enabled", default.breaker.enabled),
            failure_threshold=int(fields.get("failureThreshold", default.breaker.failure_threshold)),
            recovery_seconds=int(fields.get("recoveryTimeSeconds", default.breaker.recovery_seconds)),
        ),
        max_result_characters=int(fields.get("maxCharacters", default.max_result_characters)),
    )


def retry_delay_ms(
    policy: ToolPolicy, attempt: int, error_code: str, random_share: Callable[[], float] = random.random
) -> int | None:
    """Milliseconds to wait before the next attempt, or None if there is to be none.

    `attempt` is the one that has just failed, counted from 1. EXPONENTIAL doubles `initial_delay_ms` with each attempt,
    FIXED repeats it; `max_delay_ms` bounds both. With FULL jitter the wait is a random share, from 0 to 1, of that.
    """
    if attempt < 1:
        raise ValueError(f"attempts are counted from 1, not {attempt}")
    if attempt >= policy.max_attempts or error_code not in policy.retryable_error_codes:
        return None
    doublings = attempt - 1 if policy.backoff is Backoff.EXPONENTIAL else 0
    delay = min(policy.initial_delay_ms << doublings, policy.max_delay_ms)
    return delay if policy.jitter is Jitter.NONE else round(delay * random_share())
