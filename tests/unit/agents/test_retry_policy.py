from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwright.agents.retry_policy import (
    Backoff,
    CircuitBreaker,
    Jitter,
    OnTimeout,
    ToolPolicy,
    retry_delay_ms,
    tool_policy,
)

DEFAULT = ToolPolicy(
    max_attempts=3,
    retryable_error_codes=frozenset({"THROTTLING", "SERVICE_UNAVAILABLE"}),
    backoff=Backoff.EXPONENTIAL,
    initial_delay_ms=200,
    max_delay_ms=20_000,
    jitter=Jitter.NONE,
    timeout_seconds=30,
    on_timeout=OnTimeout.RETURN_ERROR_TO_AGENT,
    breaker=CircuitBreaker(enabled=False, failure_threshold=5, recovery_seconds=60),
    max_result_characters=25_000,
)


def delays(policy: ToolPolicy, error_code: str = "THROTTLING") -> list[int | None]:
    return [retry_delay_ms(policy, attempt, error_code) for attempt in range(1, policy.max_attempts + 1)]


def test_an_agent_that_says_nothing_has_the_documented_policy() -> None:
    assert tool_policy() == tool_policy({}, {}) == DEFAULT


def test_exponential_delays_double_until_the_bound_and_the_last_attempt_is_not_retried() -> None:
    policy = ToolPolicy(max_attempts=6, initial_delay_ms=200, max_delay_ms=1_500)

    assert delays(policy) == [200, 400, 800, 1_500, 1_500, None]


def test_fixed_delays_stay_the_same() -> None:
    policy = ToolPolicy(max_attempts=4, backoff=Backoff.FIXED, initial_delay_ms=350)

    assert delays(policy) == [350, 350, 350, None]


def test_a_fixed_delay_is_bounded_too() -> None:
    policy = ToolPolicy(max_attempts=2, backoff=Backoff.FIXED, initial_delay_ms=350, max_delay_ms=100)

    assert delays(policy) == [100, None]


def test_one_attempt_means_no_retry() -> None:
    assert delays(ToolPolicy(max_attempts=1)) == [None]


def test_an_error_code_that_is_not_listed_is_not_retried() -> None:
    assert delays(DEFAULT, "ACCESS_DENIED") == [None, None, None]


def test_a_delay_of_zero_is_a_retry_at_once() -> None:
    assert delays(ToolPolicy(initial_delay_ms=0)) == [0, 0, None]


def test_attempts_are_counted_from_one() -> None:
    with pytest.raises(ValueError, match="counted from 1, not 0"):
        retry_delay_ms(DEFAULT, 0, "THROTTLING")


@given(
    attempts=st.integers(1, 10),
    initial=st.integers(0, 60_000),
    longest=st.integers(0, 60_000),
    backoff=st.sampled_from(Backoff),
)
def test_delays_never_shrink_never_exceed_the_bound_and_end(
    attempts: int, initial: int, longest: int, backoff: Backoff
) -> None:
    policy = ToolPolicy(attempts, backoff=backoff, initial_delay_ms=initial, max_delay_ms=longest)

    *retries, last = delays(policy)
    waits = [delay for delay in retries if delay is not None]

    assert last is None
    assert len(waits) == attempts - 1
    assert waits == sorted(waits)
    assert all(delay <= longest for delay in waits)


@given(
    attempt=st.integers(1, 9),
    initial=st.integers(0, 60_000),
    longest=st.integers(0, 60_000),
    backoff=st.sampled_from(Backoff),
    share=st.floats(0, 1),
)
def test_a_jittered_delay_is_a_share_of_the_delay_without_it(
    attempt: int, initial: int, longest: int, backoff: Backoff, share: float
) -> None:
    steady = ToolPolicy(10, backoff=backoff, initial_delay_ms=initial, max_delay_ms=longest)
    whole = retry_delay_ms(steady, attempt, "THROTTLING")
    assert whole is not None

    jittered = retry_delay_ms(replace(steady, jitter=Jitter.FULL), attempt, "THROTTLING", lambda: share)

    assert jittered == round(whole * share)
    assert 0 <= jittered <= whole


def test_jittered_delays_differ() -> None:
    policy = ToolPolicy(jitter=Jitter.FULL, initial_delay_ms=20_000)

    assert len({retry_delay_ms(policy, 1, "THROTTLING") for _ in range(20)}) > 1


def test_a_jittered_attempt_that_is_the_last_or_not_listed_is_not_retried_either() -> None:
    policy = ToolPolicy(max_attempts=2, jitter=Jitter.FULL)

    assert retry_delay_ms(policy, 2, "THROTTLING") is None
    assert retry_delay_ms(policy, 1, "FAILURE") is None


@pytest.mark.parametrize(
    ("agent", "group", "breaker"),
    [
        (None, {}, CircuitBreaker(enabled=True)),
        (None, {"enabled": False}, CircuitBreaker()),
        ({}, None, CircuitBreaker(enabled=True)),
        ({}, {"enabled": False}, CircuitBreaker()),
        ({"enabled": False}, {"failureThreshold": 2}, CircuitBreaker(failure_threshold=2)),
        ({"enabled": False}, {"enabled": True}, CircuitBreaker(enabled=True)),
    ],
)
def test_a_breaker_is_on_where_a_block_names_it_unless_a_block_switches_it_off(
    agent: dict[str, object] | None, group: dict[str, object] | None, breaker: CircuitBreaker
) -> None:
    blocks = [{} if block is None else {"circuitBreaker": block} for block in (agent, group)]

    assert tool_policy(*blocks).breaker == breaker


def test_a_group_overrides_the_agent_field_by_field() -> None:
    agent = {
        "retryPolicy": {
            "maxAttempts": 5,
            "retryableErrorCodes": ["TIMEOUT"],
            "backoffStrategy": "FIXED",
            "initialDelayMs": 10,
            "maxDelayMs": 100,
            "jitter": "FULL",
        },
        "timeoutConfig": {"timeoutSeconds": 7, "onTimeoutBehavior": "FAIL_TURN"},
        "circuitBreaker": {"failureThreshold": 2, "recoveryTimeSeconds": 10},
        "resultConfig": {"maxCharacters": 500},
    }
    group = {
        "retryPolicy": {"retryableErrorCodes": ["TOOL_ERROR"], "initialDelayMs": 20},
        "timeoutConfig": {"timeoutSeconds": 9},
        "circuitBreaker": {"recoveryTimeSeconds": 20},
    }

    assert tool_policy(agent, group) == ToolPolicy(
        max_attempts=5,
        retryable_error_codes=frozenset({"TOOL_ERROR"}),
        backoff=Backoff.FIXED,
        initial_delay_ms=20,
        max_delay_ms=100,
        jitter=Jitter.FULL,
        timeout_seconds=9,
        on_timeout=OnTimeout.FAIL_TURN,
        breaker=CircuitBreaker(enabled=True, failure_threshold=2, recovery_seconds=20),
        max_result_characters=500,
    )


def test_no_error_code_at_all_is_a_choice_and_not_the_default() -> None:
    policy = tool_policy({"retryPolicy": {"retryableErrorCodes": []}})

    assert policy.retryable_error_codes == frozenset()


@pytest.mark.parametrize(
    ("agent", "group", "seconds"),
    [
        ({"timeoutSeconds": 5}, {}, 5),
        ({"timeoutSeconds": 5}, {"timeoutConfig": {"timeoutSeconds": 6}}, 6),
        ({"timeoutConfig": {"timeoutSeconds": 5}}, {"timeoutSeconds": 6}, 6),
        ({"timeoutSeconds": 5}, {"timeoutConfig": {"onTimeoutBehavior": "FAIL_TURN"}}, 5),
    ],
)
def test_the_short_form_of_the_timeout_means_the_same(
    agent: dict[str, object], group: dict[str, object], seconds: int
) -> None:
    assert tool_policy(agent, group).timeout_seconds == seconds
