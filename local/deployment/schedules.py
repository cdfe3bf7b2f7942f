"""Schedule expressions of EventBridge rules, and when they are due.

`rate(5 minutes)` and `cron(0 10 ? * MON-FRI *)`, as "Cron-based schedules" and "Rate-based schedules" in the
EventBridge user guide describe them: six fields, UTC, one of the two day fields is `?`, `L`, `W` and `#` as in Quartz.
"""

import calendar
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Protocol

_RATE = re.compile(r"rate\((\d+) (minutes?|hours?|days?)\)")
_CRON = re.compile(r"cron\(([^()]*)\)")
_ITEM = re.compile(r"(?:(\*)|([A-Z0-9]+)(?:-([A-Z0-9]+))?)(?:/(\d+))?")
_FIELDS = ("minutes", "hours", "day-of-month", "month", "day-of-week", "year")
_MONTHS = {name: number for number, name in enumerate(map(str.upper, calendar.month_abbr)) if name}
_DAYS = {name: number for number, name in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"), start=1)}
_LAST_YEAR = 2199
_SATURDAY = 7


class ScheduleError(ValueError):
    """A schedule expression that EventBridge would refuse. The message says which part of it and why."""


class Schedule(Protocol):
    def next_after(self, moment: datetime) -> datetime | None:
        """The first time after `moment`; None when there is none any more."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Every `interval`, counted from when it begins."""

    interval: timedelta

    def next_after(self, moment: datetime) -> datetime:
        return moment + self.interval


@dataclass(frozen=True, slots=True)
class Cron:
    """The minutes that all fields allow. `falls_on` is the rule of whichever day field is not `?`."""

    minutes: frozenset[int]
    hours: frozenset[int]
    months: frozenset[int]
    years: frozenset[int]
    falls_on: Callable[[date], bool]

    def next_after(self, moment: datetime) -> datetime | None:
        earliest = (moment.astimezone(UTC) + timedelta(minutes=1)).replace(second=0, microsecond=0)
        for day in self._days(earliest.date()):
            times = (
                datetime(day.year, day.month, day.day, hour, minute, tzinfo=UTC)
                for hour in sorted(self.hours)
                for minute in sorted(self.minutes)
            )
            for time in times:
                if time >= earliest:
                    return time
        return None

    def _days(self, first: date) -> Iterator[date]:
        for year in range(first.year, _LAST_YEAR + 1):
            if year not in self.years:
                continue
            for month in sorted(self.months):
                for number in range(1, calendar.monthrange(year, month)[1] + 1):
                    day = date(year, month, number)
                    if day >= first and self.falls_on(day):
                        yield day


def parse_schedule(expression: str) -> Schedule:
    """The schedule of a rule's ScheduleExpression. Raises ScheduleError."""
    if rate := _RATE.fullmatch(expression):
        return _rate(int(rate[1]), rate[2])
    if cron := _CRON.fullmatch(expression):
        return _cron(cron[1].split())
    raise ScheduleError(f"{expression} is neither rate(VALUE UNIT) nor cron(FIELDS)")


def _rate(value: int, unit: str) -> Rate:
    if value == 0:
        raise ScheduleError("the value of a rate is a positive number")
    if (value == 1) == unit.endswith("s"):
        raise ScheduleError(f"rate({value} {unit}): a value of 1 has a singular unit, any other a plural one")
    return Rate(timedelta(**{f"{unit.removesuffix('s')}s": value}))


def _cron(fields: list[str]) -> Cron:
    if len(fields) != len(_FIELDS):
        raise ScheduleError(f"a cron expression has six fields ({' '.join(_FIELDS)}), not {len(fields)}")
    minutes, hours, day_of_month, month, day_of_week, year = fields
    if (day_of_month == "?") == (day_of_week == "?"):
        raise ScheduleError("one of day-of-month and day-of-week is ?, and the other is not")
    return Cron(
        _numbers("minutes", minutes, 0, 59),
        _numbers("hours", hours, 0, 23),
        _numbers("month", month, 1, 12, _MONTHS),
        _numbers("year", year, 1970, _LAST_YEAR),
        _on_days_of_month(day_of_month) if day_of_week == "?" else _on_days_of_week(day_of_week),
    )


def _on_days_of_month(field: str) -> Callable[[date], bool]:
    if field == "L":
        return lambda day: day.day == _days_in(day)
    if field.endswith("W"):
        [wanted] = _numbers("day-of-month", field[:-1], 1, 31, single=True)
        return lambda day: day == _nearest_weekday(day, wanted)
    days = _numbers("day-of-month", field, 1, 31)
    return lambda day: day.day in days


def _on_days_of_week(field: str) -> Callable[[date], bool]:
    if field == "L":
        return lambda day: _weekday(day) == _SATURDAY
    if field.endswith("L"):
        [last] = _numbers("day-of-week", field[:-1], 1, 7, _DAYS, single=True)
        return lambda day: _weekday(day) == last and day.day > _days_in(day) - 7
    if "#" in field:
        name, _, place = field.partition("#")
        [wanted] = _numbers("day-of-week", name, 1, 7, _DAYS, single=True)
        [nth] = _numbers("day-of-week", place, 1, 5, single=True)
        return lambda day: _weekday(day) == wanted and (day.day + 6) // 7 == nth
    days = _numbers("day-of-week", field, 1, 7, _DAYS)
    return lambda day: _weekday(day) in days


def _numbers(
    name: str, field: str, lowest: int, highest: int, words: dict[str, int] | None = None, *, single: bool = False
) -> frozenset[int]:
    """The numbers of a field: numbers or words, ranges, lists and steps; `single` allows one number only."""

    def fault() -> ScheduleError:
        return ScheduleError(f"{field or 'nothing'} is no {name} of a cron expression")

    def number(text: str) -> int:
        value = (words or {}).get(text, int(text) if text.isdecimal() else -1)
        if not lowest <= value <= highest:
            raise fault()
        return value

    if single:
        return frozenset({number(field.upper())})
    found: set[int] = set()
    for item in field.upper().split(","):
        match = _ITEM.fullmatch(item)
        if match is None:
            raise fault()
        whole, first, last, step = match.groups()
        begin = lowest if whole else number(first)
        end = highest if whole or (step and not last) else number(last or first)
        if end < begin or step == "0":
            raise fault()
        found.update(range(begin, end + 1, int(step or 1)))
    return frozenset(found)


def _weekday(day: date) -> int:
    """From 1, Sunday, to 7, Saturday."""
    return day.isoweekday() % 7 + 1


def _days_in(day: date) -> int:
    return calendar.monthrange(day.year, day.month)[1]


def _nearest_weekday(day: date, wanted: int) -> date | None:
    """The day from Monday to Friday of the month of `day` that is nearest to the `wanted` one; None without that."""
    last = _days_in(day)
    if wanted > last:
        return None
    nearest = day.replace(day=wanted)
    match nearest.isoweekday():
        case 6:
            return nearest - timedelta(days=1) if wanted > 1 else nearest + timedelta(days=2)
        case 7:
            return nearest + timedelta(days=1) if wanted < last else nearest - timedelta(days=2)
        case _:
            return nearest
