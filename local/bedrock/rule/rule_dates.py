"""English words for a day, a week or a year that count from the day on which they are said, as dates.

Only what has one reading is counted out. "Next Friday" has two, and other languages are not read: there the words stay,
and what is remembered has the day on which they were said beside it.
"""

import re
from datetime import date, timedelta

from local.bedrock.rule.rule_words import SMALL_NUMBERS

_DAYS = {
    "the day after tomorrow": 2,
    "the day before yesterday": -2,
    "tomorrow": 1,
    "today": 0,
    "yesterday": -1,
}
_NUMBER = rf"(\d{{1,3}}|a|{'|'.join(SMALL_NUMBERS)})"
_RELATIVE = re.compile(
    rf"\b(?:({'|'.join(_DAYS)})|in {_NUMBER} (day|week)s?|{_NUMBER} (day|week)s? ago"
    r"|(next|this|last) (week|month|year))\b",
    re.IGNORECASE,
)
_DATED = re.compile(r"\s*\b(?:on|in|(?:in )?the week of) \d{4}(?:-\d\d)*\b")
_LEADING = re.compile(r"\b(since|until|till|from|by|before|after|for) (?:on|in) (?=\d|the week)", re.IGNORECASE)


def dated(text: str, day: date) -> str:
    """The text with dates in the place of words that count from the day."""
    return _LEADING.sub(r"\1 ", _RELATIVE.sub(lambda match: _date(match, day), text))


def undated(text: str) -> str:
    """The text without the dates that `dated` writes."""
    return _DATED.sub("", text)


def _date(match: re.Match[str], day: date) -> str:
    word, ahead, unit, behind, unit_behind, which, period = match.groups()
    try:
        if word:
            return f"on {day + timedelta(days=_DAYS[word.lower()])}"
        if period:
            return _period({"last": -1, "this": 0, "next": 1}[which.lower()], period.lower(), day)
        days = _number(ahead or behind) * (7 if (unit or unit_behind).lower() == "week" else 1)
        return f"on {day + timedelta(days=days if ahead else -days)}"
    except (OverflowError, ValueError):  # before the year 1 or behind 9999
        return match[0]


def _period(step: int, period: str, day: date) -> str:
    if period == "week":
        return f"in the week of {day + timedelta(days=7 * step - day.weekday())}"
    if period == "month":
        months = day.year * 12 + day.month - 1 + step
        return f"in {date(months // 12, months % 12 + 1, 1):%Y-%m}"
    return f"in {date(day.year + step, 1, 1):%Y}"


def _number(word: str) -> int:
    return int(word) if word.isdigit() else SMALL_NUMBERS.get(word.lower(), 1)
