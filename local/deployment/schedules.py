"""Schedules of EventBridge rules, as "Rate-based schedules" in the EventBridge user guide describes them.

ScheduleError (ValueError)     the expression cannot be kept; the message has it, and why
"""

import re
from datetime import datetime, timedelta

_RATE = re.compile(r"rate\((\d+) (minute|hour|day)(s?)\)")


class ScheduleError(ValueError):
    """A schedule expression that EventBridge would refuse, or that is no rate."""


def parse_rate(expression: str) -> timedelta:
    """The interval that a rule's ScheduleExpression names: `rate(5 minutes)`. Raises ScheduleError."""
    rate = _RATE.fullmatch(expression)
    if rate is None:
        raise ScheduleError(f"{expression} is not rate(VALUE UNIT), the only schedule that the offline stack keeps")
    value, unit, plural = int(rate[1]), rate[2], rate[3]
    if value == 0:
        raise ScheduleError(f"{expression}: the value of a rate is a positive number")
    if (value == 1) == bool(plural):
        raise ScheduleError(f"{expression}: a value of 1 has a singular unit, any other a plural one")
    return timedelta(**{f"{unit}s": value})


def next_due(due: datetime, every: timedelta, now: datetime) -> datetime:
    """When what was due at `due` is due again. What was due while the machine slept is not caught up with."""
    following = due + every
    return following if following > now else now + every
