"""The retry policy of a tool: whether, and how soon, a failed attempt is tried again.

A policy comes from `actionGroupExecutionConfig` blocks: the agent's is the default for its action groups, a
group's own overrides it field by field. What neither names has the default that `ToolPolicy` shows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Backoff(StrEnum):
    """How the delay grows from attempt to attempt."""

    EXPONENTIAL = "EXPONENTIAL"
    FIXED = "FIXED"


class OnTimeout(StrEnum):
    """What becomes of a tool call whose attempts ran out of time."""

    RETURN_ERROR_TO_AGENT = "RETURN_ERROR_TO_AGENT"
    FAIL_TURN = "FAIL_TURN"


@dataclass(frozen=True, slots=True)
class ToolPolicy:
    """`max_attempts` counts attempts, the first one included; `timeout_seconds` is the time that one attempt
    gets.
    """

    max_attempts: int = 3
    retryable_error_codes: frozenset[str] = frozenset({"THROTTLING", "SERVICE_UNAVAILABLE"})
    backoff: Backoff = Backoff.EXPONENTIAL
    initial_delay_ms: int = 200
    max_delay_ms: int = 20_000
    timeout_seconds: int = 30
    on_timeout: OnTimeout = OnTimeout.RETURN_ERROR_TO_AGENT


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

    default = ToolPolicy()
    return ToolPolicy(
        max_attempts=int(fields.get("maxAttempts", default.max_attempts)),
        retryable_error_codes=frozenset(fields.get("retryableErrorCodes", default.retryable_error_codes)),
        backoff=Backoff(fields.get("backoffStrategy", default.backoff)),
        initial_delay_ms=int(fields.get("initialDelayMs", default.initial_delay_ms)),
        max_delay_ms=int(fields.get("maxDelayMs", default.max_delay_ms)),
        timeout_seconds=int(fields.get("timeoutSeconds", default.timeout_seconds)),
        on_timeout=OnTimeout(fields.get("onTimeoutBehavior", default.on_timeout)),
    )


def retry_delay_ms(policy: ToolPolicy, attempt: int, error_code: str) -> int | None:
    """Milliseconds to wait before the next attempt, or None if there is to be none.

    `attempt` is the one that has just failed, counted from 1. EXPONENTIAL doubles `initial_delay_ms` with
    each attempt, FIXED repeats it; `max_delay_ms` bounds both.
    """
    if attempt < 1:
        raise ValueError(f"attempts are counted from 1, not {attempt}")
    if attempt >= policy.max_attempts or error_code not in policy.retryable_error_codes:
        return None
    doublings = attempt - 1 if policy.backoff is Backoff.EXPONENTIAL else 0
    return min(policy.initial_delay_ms << doublings, policy.max_delay_ms)
