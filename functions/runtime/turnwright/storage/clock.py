"""The wall clock, in the forms that AWS uses and in one for models."""

import time
from datetime import UTC, datetime

_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def milliseconds(moment: datetime) -> int:
    """A date as boto3 answers it, in milliseconds since the epoch."""
    return round(moment.timestamp() * 1000)


def iso8601(milliseconds: int) -> str:
    """For example `2026-11-22T10:40:05.123Z`."""
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def day(milliseconds: int) -> str:
    """The day in UTC, `2026-11-22`."""
    return iso8601(milliseconds)[:10]


def told_moment(milliseconds: int) -> str:
    """A moment as a model is told it, who needs the day of the week: `2026-11-22 Sunday 10:40 UTC`."""
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return f"{moment:%Y-%m-%d} {_WEEKDAYS[moment.weekday()]} {moment:%H:%M} UTC"


def expiry(milliseconds: int, days: int) -> int:
    """The TTL attribute (epoch seconds) of something that lives `days` days from the moment on."""
    return milliseconds // 1000 + days * 86_400
