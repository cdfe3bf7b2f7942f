"""Schedule expressions, by the examples of EventBridge's user guide where it has one."""

from datetime import UTC, datetime, timedelta

import pytest

from local.deployment.schedules import ScheduleError, next_due, parse_rate

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("expression", "interval"),
    [
        ("rate(1 minute)", timedelta(minutes=1)),
        ("rate(5 minutes)", timedelta(minutes=5)),
        ("rate(1 hour)", timedelta(hours=1)),
        ("rate(7 days)", timedelta(days=7)),
    ],
)
def test_a_rate_is_an_interval(expression: str, interval: timedelta) -> None:
    assert parse_rate(expression) == interval


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("", " is not rate(VALUE UNIT)"),
        ("at(2026-01-01T00:00:00)", " is not rate(VALUE UNIT)"),
        ("cron(0 12 * * ? *)", " is not rate(VALUE UNIT), the only schedule that the offline stack keeps"),
        ("rate(5 seconds)", " is not rate(VALUE UNIT)"),
        ("rate(0 minutes)", ": the value of a rate is a positive number"),
        ("rate(1 minutes)", ": a value of 1 has a singular unit"),
        ("rate(5 minute)", ": a value of 1 has a singular unit"),
    ],
)
def test_another_expression_is_refused_with_its_fault(expression: str, reason: str) -> None:
    with pytest.raises(ScheduleError) as refusal:
        parse_rate(expression)
    assert str(refusal.value).startswith(expression + reason)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (NOON + timedelta(seconds=2), NOON + MINUTE),
        (NOON + MINUTE, NOON + 2 * MINUTE),
        (NOON + timedelta(hours=2), NOON + timedelta(hours=2) + MINUTE),
    ],
    ids=["in time", "a whole interval late", "slept"],
)
def test_what_was_due_while_the_machine_slept_is_not_caught_up_with(now: datetime, expected: datetime) -> None:
    assert next_due(NOON, MINUTE, now) == expected
