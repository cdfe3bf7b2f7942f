"""A deterministic model that needs nothing: it matches the words of the user with the tools' and fills in arguments.

It is not an LLM and says so in every answer. It is there so that a whole agent turn can be run, tested and shown on a
machine without a model. The same conversation always gets the same answer, with the same toolUse ids. Tokens are
estimated (`model_backend.CHARACTERS_PER_TOKEN`). `maxTokens` is not looked at, and of the system prompt only what it
shows of memory (`rule_memory`). `rule_commands` lists what a person can order exactly.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from local.bedrock.conversation import Turn, read_turns
from local.bedrock.model_backend import (
    ConverseRequest,
    JsonObject,
    ModelError,
    StreamEvent,
    digest,
    estimated_usage,
    message_events,
    tool_use_id,
)
from local.bedrock.rule.rule_answers import capabilities_text, labelled, question_text, results_text
from local.bedrock.rule.rule_commands import ANY_MODEL, CommandError, Commands, read_commands
from local.bedrock.rule.rule_facts import failure_reason
from local.bedrock.rule.rule_memory import (
    asks_what_is_remembered,
    memory_answer,
    recalled,
    to_remember,
    unnamed_memory_tools,
)
from local.bedrock.rule.rule_planning import Call, Planner
from local.bedrock.rule.rule_statements import statements
from local.bedrock.rule.rule_tools import Tool, read_tools
from local.bedrock.rule.rule_words import is_greeting, is_thanks

_REAL_MODELS = "For real answers start with MODEL=openai:URL#MODEL or MODEL=bedrock."
_LONGEST_QUOTE = 300


class RuleModel:
    name = "rule"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures: Counter[tuple[str, str]] = Counter()

    def converse(self, request: ConverseRequest) -> Iterator[StreamEvent]:
        answer = memory_answer(request)
        if answer is not None:
            yield from _events(request, _tool_uses(request, [(str(request.demanded_tool), answer)]))
            return
        turns = read_turns(request.messages)
        try:
            commands = read_commands(turns[-1].text)
        except CommandError as error:
            yield from _events(request, [{"text": labelled(str(error))}])
            return
        time.sleep(commands.slow_seconds)
        turn_key = digest(request.messages[: _turn_start(request.messages) + 1])
        self._fail_if_told(request, commands, turn_key)
        content = _content(request, turns, commands)
        if not any("toolUse" in block for block in content):
            self._forget(turn_key)
        yield from _events(request, content)

    def _fail_if_told(self, request: ConverseRequest, commands: Commands, turn_key: str) -> None:
        if commands.failing_model in (request.model_id, ANY_MODEL):
            message = f"You don't have access to the model with the specified model ID. (/fail {request.model_id})"
            raise ModelError(403, "AccessDeniedException", message)
        if self._fails(turn_key, "throttle", commands.throttled):
            message = "Too many requests, please wait before trying again. (/throttle)"
            raise ModelError(429, "ThrottlingException", message)
        if self._fails(turn_key, "unavailable", commands.unavailable):
            message = "The service is temporarily unavailable. (/unavailable)"
            raise ModelError(503, "ServiceUnavailableException", message)

    def _fails(self, turn_key: str, command: str, times: int | None) -> bool:
        """Whether this call of the turn is one of those that fail; without `times` every one does."""
        if times is None:
            return True
        with self._lock:
            if self._failures[turn_key, command] >= times:
                return False
            self._failures[turn_key, command] += 1
            return True

    def _forget(self, turn_key: str) -> None:
        """The turn is answered: if the same conversation comes again, it fails again as told."""
        with self._lock:
            for command in ("throttle", "unavailable"):
                self._failures.pop((turn_key, command), None)


def _turn_start(messages: Sequence[JsonObject]) -> int:
    return max(
        index
        for index, message in enumerate(messages)
        if message["role"] == "user" and not any("toolResult" in block for block in message["content"])
    )


def _events(request: ConverseRequest, content: Sequence[JsonObject]) -> Iterator[StreamEvent]:
    stop_reason = "tool_use" if any("toolUse" in block for block in content) else "end_turn"
    return message_events(content, stop_reason, estimated_usage(request, content))


def _content(request: ConverseRequest, turns: Sequence[Turn], commands: Commands) -> list[JsonObject]:
    turn = turns[-1]
    tools = read_tools(request.tool_specifications)
    if commands.calls and tools and not turn.steps:
        return _tool_uses(request, commands.calls)
    if commands.say:
        return [{"text": labelled("\n".join(commands.say))}]
    if commands.calls:
        return [{"text": labelled(results_text(turn.outcomes) if turn.steps else capabilities_text(tools))}]
    remembered = to_remember(request, commands.text)
    if remembered and not turn.steps:
        return _tool_uses(request, [("remember", arguments) for arguments in remembered])
    if remembered:
        return [{"text": labelled(results_text(turn.outcomes))}]
    unnamed = unnamed_memory_tools(commands.text)
    tools = [tool for tool in tools if tool.name not in unnamed]
    facts = recalled(request, commands.text)
    if asks_what_is_remembered(commands.text):
        return [{"text": labelled(_recalled_text(facts))}]
    if not tools:
        return [{"text": labelled(_recalled_text(facts) if facts else _toolless_text(commands.text))}]
    planner = Planner(tools, turns)
    steps = _steps(request, planner, turn, commands.text)
    return _next_step(request, planner, turn, steps, commands.text) or [
        {"text": labelled(_answer_text(planner, turn, steps, tools, commands.text, facts))}
    ]


def _steps(request: ConverseRequest, planner: Planner, turn: Turn, text: str) -> list[list[Call]]:
    choice = request.body["toolConfig"].get("toolChoice", {})
    if not turn.steps and request.forced_tool is not None:
        return planner.forced(text, request.forced_tool)
    return planner.steps(text) or (planner.best(text) if "any" in choice and not turn.steps else [])


def _next_step(
    request: ConverseRequest, planner: Planner, turn: Turn, steps: Sequence[Sequence[Call]], text: str
) -> list[JsonObject]:
    """The calls of the step that is due. None after a failure, without a needed argument, or when told to conclude."""
    done = len(turn.steps)
    if done >= len(steps) or turn.note or _has_failed(turn):
        return []
    resolved = [(call.tool.name, planner.resolve(call, text)) for call in steps[done]]
    if any(arguments.missing for _, arguments in resolved):
        return []
    return _tool_uses(request, [(name, arguments.arguments) for name, arguments in resolved])


def _has_failed(turn: Turn) -> bool:
    return any(failure_reason(outcome) is not None for outcome in turn.outcomes)


def _tool_uses(request: ConverseRequest, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> list[JsonObject]:
    names = ", ".join(name for name, _ in calls)
    content: list[JsonObject] = [{"text": labelled(f"Calling {names}.")}]
    for position, (name, arguments) in enumerate(calls):
        identifier = tool_use_id(request, position, name, arguments)
        content.append({"toolUse": {"toolUseId": identifier, "name": name, "input": dict(arguments)}})
    return content


def _answer_text(
    planner: Planner,
    turn: Turn,
    steps: Sequence[Sequence[Call]],
    tools: Sequence[Tool],
    text: str,
    facts: Sequence[str],
) -> str:
    parts = [results_text(turn.outcomes)] if turn.outcomes else []
    if len(turn.steps) < len(steps):
        parts.append(_unfinished_text(planner, turn, steps[len(turn.steps)], text))
    if not parts and facts:
        return _recalled_text(facts)
    return "\n".join(parts) or _smalltalk_text(tools, text)


def _unfinished_text(planner: Planner, turn: Turn, calls: Sequence[Call], text: str) -> str:
    """Why the step that is due is not done."""
    if turn.note or _has_failed(turn):
        reason = "I was told to conclude" if turn.note else "a call before it failed"
        return f"Not done, since {reason}: {', '.join(call.tool.name for call in calls)}."
    missing = [(call.tool, planner.resolve(call, text).missing) for call in calls]
    return "\n".join(question_text(tool, parameters) for tool, parameters in missing if parameters)


def _recalled_text(facts: Sequence[str]) -> str:
    return f"I was shown from memory: {' '.join(facts)}" if facts else "I was shown nothing from memory."


def _smalltalk_text(tools: Sequence[Tool], text: str) -> str:
    stated = statements(text)
    if stated:
        return f"I read in this: {' '.join(statement.text for statement in stated)}"
    if is_thanks(text):
        return "You are welcome."
    if is_greeting(text):
        return f"Hello. {capabilities_text(tools)}"
    return f"No tool matches this. {capabilities_text(tools)} {_REAL_MODELS}"


def _toolless_text(text: str) -> str:
    quote = text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "…"
    return f"I have no tools here, and can only repeat what I was told: {quote}\n{_REAL_MODELS}"
