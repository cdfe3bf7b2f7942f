"""Schedule expressions, by the examples of EventBridge's user guide where it has one."""

from datetime import UTC, datetime, timedelta

import pytest

from local.deployment.schedules import ScheduleError, parse_schedule

MONDAY = datetime(2026, 3, 2, 9, 30, 15, tzinfo=UTC)


def times(expression: str, count: int, after: datetime = MONDAY) -> list[str]:
    schedule, found = parse_schedule(expression), []
    moment: datetime | None = after
    for _ in range(count):
        assert moment is not None
        moment = schedule.next_after(moment)
        found.append(f"{moment:%a %Y-%m-%d %H:%M}" if moment else "never")
    return found


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
    assert parse_schedule(expression).next_after(MONDAY) == MONDAY + interval


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("cron(15 12 * * ? *)", ["Mon 2026-03-02 12:15", "Tue 2026-03-03 12:15"]),
        ("cron(0 18 ? * MON-FRI *)", ["Mon 2026-03-02 18:00", "Tue 2026-03-03 18:00"]),
        ("cron(0 8 1 * ? *)", ["Wed 2026-04-01 08:00", "Fri 2026-05-01 08:00"]),
        ("cron(0/10 * ? * MON-FRI *)", ["Mon 2026-03-02 09:40", "Mon 2026-03-02 09:50"]),
        ("cron(0/5 8-17 ? * MON-FRI *)", ["Mon 2026-03-02 09:35", "Mon 2026-03-02 09:40"]),
        ("cron(0 9 ? * 2#1 *)", ["Mon 2026-04-06 09:00", "Mon 2026-05-04 09:00"]),
        ("cron(0/15 * * * ? *)", ["Mon 2026-03-02 09:45", "Mon 2026-03-02 10:00"]),
        ("cron(0 0 L * ? *)", ["Tue 2026-03-31 00:00", "Thu 2026-04-30 00:00"]),
        ("cron(0 0 ? * L *)", ["Sat 2026-03-07 00:00", "Sat 2026-03-14 00:00"]),
        ("cron(0 0 ? * 5L *)", ["Thu 2026-03-26 00:00", "Thu 2026-04-30 00:00"]),
        ("cron(0 0 7W * ? *)", ["Fri 2026-03-06 00:00", "Tue 2026-04-07 00:00"]),
        ("cron(0 0 1W 8 ? *)", ["Mon 2026-08-03 00:00", "Mon 2027-08-02 00:00"]),
        ("cron(0 0 31W * ? *)", ["Tue 2026-03-31 00:00", "Fri 2026-05-29 00:00"]),
        ("cron(30 9 ? * sun,2 2026)", ["Sun 2026-03-08 09:30", "Mon 2026-03-09 09:30"]),
        ("cron(0 0 29 FEB ? *)", ["Tue 2028-02-29 00:00", "Sun 2032-02-29 00:00"]),
        ("cron(0,30 9-10/1 2 3 ? 2026-2027)", ["Mon 2026-03-02 10:00", "Mon 2026-03-02 10:30"]),
        ("cron(0 12 25 12 ? 2026)", ["Fri 2026-12-25 12:00", "never"]),
        ("cron(0 0 30 2 ? *)", ["never"]),
        ("cron(0 0 1 1 ? 2025)", ["never"]),
    ],
)
def test_a_cron_expression_names_minutes(expression: str, expected: list[str]) -> None:
    assert times(expression, len(expected)) == expected


def test_a_cron_expression_is_in_utc_and_comes_after_the_moment_that_it_names() -> None:
    eastern = datetime.fromisoformat("2026-03-02T05:15:00-07:00")
    assert times("cron(15 12 * * ? *)", 1, eastern) == ["Tue 2026-03-03 12:15"]


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("", "neither rate(VALUE UNIT) nor cron(FIELDS)"),
        ("at(2026-01-01T00:00:00)", "neither rate(VALUE UNIT) nor cron(FIELDS)"),
        ("rate(0 minutes)", "positive"),
        ("rate(1 minutes)", "singular"),
        ("rate(5 minute)", "singular"),
        ("rate(5 seconds)", "neither"),
        ("cron(0 12 * * ?)", "six fields"),
        ("cron(0 12 * * * *)", "one of day-of-month and day-of-week is ?"),
        ("cron(0 12 ? * ? *)", "one of day-of-month and day-of-week is ?"),
        ("cron(60 12 * * ? *)", "60 is no minutes"),
        ("cron(0 24 * * ? *)", "24 is no hours"),
        ("cron(0 12 0 * ? *)", "0 is no day-of-month"),
        ("cron(0 12 W * ? *)", "nothing is no day-of-month"),
        ("cron(0 12 1-5W * ? *)", "1-5 is no day-of-month"),
        ("cron(0 12 ? MAI MON *)", "MAI is no month"),
        ("cron(0 12 ? * 8 *)", "8 is no day-of-week"),
        ("cron(0 12 ? * 2#6 *)", "6 is no day-of-week"),
        ("cron(0 12 ? * FRI-MON *)", "FRI-MON is no day-of-week"),
        ("cron(0 12 ? * 2 1969)", "1969 is no year"),
        ("cron(*/0 12 ? * 2 *)", "*/0 is no minutes"),
        ("cron(1,,2 12 ? * 2 *)", "1,,2 is no minutes"),
    ],
)
def test_an_expression_that_eventbridge_refuses_is_refused_with_its_fault(expression: str, reason: str) -> None:
    with pytest.raises(ScheduleError) as refusal:
        parse_schedule(expression)
    assert reason in str(refusal.value)
