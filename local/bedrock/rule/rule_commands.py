"""Exact commands for a person who wants to see one certain behaviour. Each begins a line of the user's text.

    /call TOOL {JSON}      call this tool with these arguments; several lines are parallel calls of one step
    /say TEXT              answer exactly this text
    /throttle [N]          the next N model calls of this turn answer ThrottlingException; without N, all of them
    /unavailable [N]       the same with ServiceUnavailableException
    /fail [MODEL_ID]       this model (without MODEL_ID, every model) answers AccessDeniedException
    /slow SECONDS          every model call of this turn takes so long

What follows a command on its line, and the lines without a command, are the text that is answered.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

_LINE = re.compile(r"\s*/(\w+)(?:\s+(.*))?", re.DOTALL)
_CALL = re.compile(r"(\S+)\s*(.*)", re.DOTALL)
_LONGEST_SECONDS = 900.0


class CommandError(ValueError):
    """A command that cannot be understood. The message is for the person who typed it."""


@dataclass
class Commands:
    """What the commands of a text say, and the `text` that is left. Counts are None for "always", 0 for "never"."""

    calls: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    say: list[str] = field(default_factory=list)
    throttled: int | None = 0
    unavailable: int | None = 0
    failing_model: str | None = None
    slow_seconds: float = 0
    text: str = ""


ANY_MODEL = "*"


def read_commands(text: str) -> Commands:
    """Raises CommandError."""
    commands = Commands()
    rest: list[str] = []
    for line in text.split("\n"):
        found = _LINE.fullmatch(line)
        if not found:
            rest.append(line)
            continue
        name, argument = found.groups()
        if name not in _COMMANDS:
            raise CommandError(f"There is no command /{name}. There are /{', /'.join(sorted(_COMMANDS))}.")
        rest.append(_COMMANDS[name](commands, (argument or "").strip()))
    commands.text = "\n".join(line for line in rest if line.strip())
    return commands


def _call(commands: Commands, argument: str) -> str:
    found = _CALL.fullmatch(argument)
    if not found:
        raise CommandError("/call needs the name of a tool: /call TOOL {JSON}")
    name, text = found.groups()
    try:
        arguments = json.loads(text or "{}")
    except ValueError as error:
        raise CommandError(f"/call {name}: the arguments are not JSON: {error}") from error
    if not isinstance(arguments, dict):
        raise CommandError(f"/call {name}: the arguments must be a JSON object.")
    commands.calls.append((name, arguments))
    return ""


def _say(commands: Commands, argument: str) -> str:
    if not argument:
        raise CommandError("/say needs a text: /say TEXT")
    commands.say.append(argument)
    return ""


def _throttle(commands: Commands, argument: str) -> str:
    commands.throttled, rest = _count(argument)
    return rest


def _unavailable(commands: Commands, argument: str) -> str:
    commands.unavailable, rest = _count(argument)
    return rest


def _fail(commands: Commands, argument: str) -> str:
    model_id, _, rest = argument.partition(" ")
    if re.search(r"[.:/]\w", model_id):
        commands.failing_model = model_id
        return rest
    commands.failing_model = ANY_MODEL
    return argument


def _slow(commands: Commands, argument: str) -> str:
    found = re.match(r"(\d+(?:\.\d+)?)(?:\s+|$)", argument)
    if not found or float(found.group(1)) > _LONGEST_SECONDS:
        raise CommandError(f"/slow needs seconds, {_LONGEST_SECONDS:.0f} at most: /slow 2.5")
    commands.slow_seconds = float(found.group(1))
    return argument[found.end() :]


def _count(argument: str) -> tuple[int | None, str]:
    found = re.match(r"(\d+)(?:\s+|$)", argument)
    return (int(found.group(1)), argument[found.end() :]) if found else (None, argument)


_COMMANDS: dict[str, Callable[[Commands, str], str]] = {
    "call": _call,
    "say": _say,
    "throttle": _throttle,
    "unavailable": _unavailable,
    "fail": _fail,
    "slow": _slow,
}
