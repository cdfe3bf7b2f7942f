"""A Converse message list read as turns: the user's text, what the tools were asked and answered, the answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from local.bedrock.model_backend import JsonObject


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """A tool call and its result. `content` holds the result's blocks."""

    name: str
    arguments: JsonObject
    is_error: bool
    content: tuple[JsonObject, ...]

    @property
    def text(self) -> str:
        """The result's text blocks; empty when it has only JSON."""
        return "\n".join(block["text"] for block in self.content if "text" in block)


@dataclass(frozen=True, slots=True)
class Turn:
    """A user message and what followed.

    `steps` holds the outcomes of each model call that asked for tools. `note` is text that stands beside the newest
    tool results. `answer` is empty while the turn is unanswered.
    """

    text: str
    steps: tuple[tuple[ToolOutcome, ...], ...]
    note: str
    answer: str

    @property
    def outcomes(self) -> list[ToolOutcome]:
        return [outcome for step in self.steps for outcome in step]

    @property
    def step(self) -> int:
        """The number of the model call that is due, from 1."""
        return len(self.steps) + 1


def read_turns(messages: Sequence[JsonObject]) -> list[Turn]:
    """All turns, the last being the one to answer. A turn begins with a user message without tool results."""
    starts = [
        index for index, message in enumerate(messages) if message["role"] == "user" and not _has(message, "toolResult")
    ]
    ends = [*starts[1:], len(messages)]
    return [_turn(messages[start:end]) for start, end in zip(starts, ends, strict=True)]


def current_turn(messages: Sequence[JsonObject]) -> Turn:
    return read_turns(messages)[-1]


def _turn(messages: Sequence[JsonObject]) -> Turn:
    asked = [message for message in messages if _has(message, "toolUse")]
    answered = [message for message in messages if _has(message, "toolResult")]
    final = messages[-1]
    return Turn(
        text=_text(messages[0]),
        steps=tuple(_outcomes(uses, results) for uses, results in zip(asked, answered, strict=True)),
        note=_text(answered[-1]) if answered else "",
        answer=_text(final) if final["role"] == "assistant" else "",
    )


def _outcomes(asked: JsonObject, answered: JsonObject) -> tuple[ToolOutcome, ...]:
    results: dict[str, Any] = {
        block["toolResult"]["toolUseId"]: block["toolResult"] for block in answered["content"] if "toolResult" in block
    }
    return tuple(
        _outcome(block["toolUse"], results[block["toolUse"]["toolUseId"]])
        for block in asked["content"]
        if "toolUse" in block
    )


def _outcome(use: JsonObject, result: JsonObject) -> ToolOutcome:
    return ToolOutcome(use["name"], use["input"], result.get("status") == "error", tuple(result["content"]))


def _has(message: JsonObject, kind: str) -> bool:
    return any(kind in block for block in message["content"])


def _text(message: JsonObject) -> str:
    return "\n".join(block["text"] for block in message["content"] if "text" in block)
