"""As much of CloudWatch Logs Insights as this project's queries use, over the JSON lines of a log group.

moto keeps log lines, but runs no queries. Known here: `fields` with coalesce, `filter` with and, or, =, !=, >, in and
ispresent, `stats` with count, sum, avg, max and pct by fields, `sort`, `limit`. Anything else is refused.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

Row = dict[str, Any]

_TOKEN = re.compile(r"""\s*("[^"]*"|[@\w.]+|!=|>=|<=|[=><()\[\],*])""")


def lines_of(logs: Any, group: str) -> list[Row]:
    """The JSON lines of a group, with the fields that CloudWatch adds."""
    pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group)
    rows: list[Row] = []
    for event in (event for page in pages for event in page["events"]):
        try:
            entry = json.loads(event["message"])
        except ValueError:
            continue
        if isinstance(entry, dict):
            rows.append({**entry, "@timestamp": event["timestamp"], "@message": event["message"]})
    return rows


def query(text: str, lines: Iterable[Row]) -> list[Row]:
    """The rows that the query answers; a field that a row does not have is left out of it."""
    rows = list(lines)
    shown: list[str] = []
    for command in text.split("|"):
        name, _, rest = command.strip().partition(" ")
        tokens = _tokens(rest)
        match name:
            case "fields":
                rows, shown = _fields(tokens, rows, shown)
            case "filter":
                holds = _Filter(tokens).condition()
                rows = [row for row in rows if holds(row)]
            case "stats":
                rows = _stats(tokens, rows)
                shown = []
            case "sort":
                field, order = tokens[0], (tokens[1:] or ["asc"])[0]
                assert order in ("asc", "desc"), text
                rows.sort(key=lambda row: _rank(row.get(field)), reverse=order == "desc")
            case "limit":
                rows = rows[: int(tokens[0])]
            case _:
                raise AssertionError(f"{name} is no command that is known here: {text}")
    return [{name: row[name] for name in shown if name in row} if shown else row for row in rows]


def _tokens(text: str) -> list[str]:
    tokens, at = [], 0
    text = text.strip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        assert found, f"not a token: {text[at:]}"
        tokens.append(found[1])
        at = found.end()
    return tokens


def _split(tokens: Sequence[str]) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    depth = 0
    for token in tokens:
        depth += (token == "(") - (token == ")")
        if token == "," and not depth:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _fields(tokens: list[str], rows: list[Row], shown: list[str]) -> tuple[list[Row], list[str]]:
    for part in _split(tokens):
        if part[:2] == ["coalesce", "("]:
            assert part[-2] == "as"
            names, alias = [token for token in part[2:-3] if token != ","], part[-1]
            rows = [{**row, alias: next((row[name] for name in names if name in row), None)} for row in rows]
            shown = [*shown, alias]
        else:
            assert len(part) == 1, part
            shown = [*shown, part[0]]
    return rows, shown


def _stats(tokens: list[str], rows: list[Row]) -> list[Row]:
    by = tokens.index("by")
    keys = [part[0] for part in _split(tokens[by + 1 :])]
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(key) for key in keys), []).append(row)
    answered = []
    for values, members in groups.items():
        row = {key: value for key, value in zip(keys, values, strict=True) if value is not None}
        for part in _split(tokens[:by]):
            assert part[-2] == "as"
            row[part[-1]] = _aggregate(part[0], part[2:-3], members)
        answered.append(row)
    return answered


def _aggregate(function: str, arguments: list[str], rows: list[Row]) -> float:
    if function == "count":
        return len(rows) if arguments == ["*"] else sum(arguments[0] in row for row in rows)
    numbers: list[float] = sorted(row[arguments[0]] for row in rows if arguments[0] in row)
    match function:
        case "sum":
            return sum(numbers)
        case "avg":
            return sum(numbers) / len(numbers)
        case "max":
            return numbers[-1]
        case "pct":
            return float(numbers[min(len(numbers) - 1, int(len(numbers) * float(arguments[2]) / 100))])
    raise AssertionError(f"{function} is no function that is known here")


class _Filter:
    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens

    def condition(self) -> Callable[[Row], bool]:
        condition = self._either()
        assert not self._tokens, self._tokens
        return condition

    def _either(self) -> Callable[[Row], bool]:
        conditions = [self._all()]
        while self._tokens[:1] == ["or"]:
            self._take("or")
            conditions.append(self._all())
        return lambda row: any(holds(row) for holds in conditions)

    def _all(self) -> Callable[[Row], bool]:
        conditions = [self._one()]
        while self._tokens[:1] == ["and"]:
            self._take("and")
            conditions.append(self._one())
        return lambda row: all(holds(row) for holds in conditions)

    def _one(self) -> Callable[[Row], bool]:
        field = self._tokens.pop(0)
        if field == "ispresent":
            self._take("(")
            name = self._tokens.pop(0)
            self._take(")")
            return lambda row: name in row
        operator = self._tokens.pop(0)
        if operator == "in":
            self._take("[")
            values = []
            while (token := self._tokens.pop(0)) != "]":
                values += [] if token == "," else [_literal(token)]
            return lambda row: row.get(field) in values
        value = _literal(self._tokens.pop(0))
        match operator:
            case "=":
                return lambda row: row.get(field) == value
            case "!=":
                return lambda row: row.get(field) != value
            case ">":
                return lambda row: isinstance(row.get(field), int | float) and row[field] > value
        raise AssertionError(f"{operator} is no operator that is known here")

    def _take(self, token: str) -> None:
        assert self._tokens.pop(0) == token


def _literal(token: str) -> Any:
    return token[1:-1] if token.startswith('"') else float(token)


def _rank(value: Any) -> tuple[bool, Any]:
    return (value is not None, value if value is not None else 0)
