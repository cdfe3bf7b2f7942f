"""The payload of an event, in AgentCore's form: as CreateEvent took it, or made of the messages of a turn."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from turnwright.storage.documents import json_text

TEXT_CHARACTERS = 100_000
"""The longest text of an entry, as CreateEvent takes it."""

_ROLES = {"user": "USER", "assistant": "ASSISTANT"}


def of_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A turn's Converse messages: what was said, and tool calls and their results as JSON with the role TOOL.

    A text that is longer than AgentCore allows is several entries.
    """
    return [
        {"conversational": {"content": {"text": piece}, "role": role}}
        for message in messages
        for role, text in _said(message)
        for piece in _pieces(text)
    ]


def said_by(payload: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What IngestData takes, as a payload of CreateEvent: JSON is what somebody else said."""
    said: list[dict[str, Any]] = []
    for entry in payload:
        if "json" in entry:
            pieces = _pieces(json_text(entry["json"]["content"]))
            said += [{"conversational": {"content": {"text": piece}, "role": "OTHER"}} for piece in pieces]
        else:
            said.append(dict(entry))
    return said


def characters(payload: Sequence[Mapping[str, Any]]) -> int:
    """How many characters of conversation a payload has: what a turn's history counts."""
    return sum(len(entry["conversational"]["content"]["text"]) for entry in payload if "conversational" in entry)


def _said(message: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for block in message["content"]:
        if block.get("text"):
            yield _ROLES[message["role"]], block["text"]
        elif "toolUse" in block or "toolResult" in block:
            yield "TOOL", json_text(block)


def _pieces(text: str) -> Iterator[str]:
    for start in range(0, len(text), TEXT_CHARACTERS):
        yield text[start : start + TEXT_CHARACTERS]
