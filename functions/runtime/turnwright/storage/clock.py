"""The wall clock, in the two forms that AWS uses."""

import time
from datetime import UTC, datetime


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


def expiry(milliseconds: int, days: int) -> int:
    """The TTL attribute (epoch seconds) of something that lives `days` days from the moment on."""
    return milliseconds // 1000 + days * 86_400
