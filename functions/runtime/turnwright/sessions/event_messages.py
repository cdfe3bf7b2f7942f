"""A session's events as Converse messages: what a turn committed, and what CreateEvent of AgentCore Memory added.

An event of a turn has `messages`, one of CreateEvent has `payload`, both stowed documents (`documents.py`). Of a
payload only what was said is told; blobs and JSON are an application's own. Only the main branch, whose events have no
`branch`, is the session's history; what IngestData added is `ingested`, which is remembered and never shown.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from turnwright.storage.documents import Documents
from turnwright.storage.table import Item

_ROLES = {"USER": "user", "ASSISTANT": "assistant"}
_TOLD = {"TOOL": "A tool answered", "OTHER": "Somebody else said"}
"""Converse has no roles for these, and no tool use that the first would answer."""


def in_main_branch(event: Item) -> bool:
    return "branch" not in event


def is_ingested(event: Item) -> bool:
    return "ingested" in event


def is_shown(event: Item) -> bool:
    """Whether the model is shown the event as its session's history."""
    return in_main_branch(event) and not is_ingested(event)


def characters(event: Item) -> int:
    """The event's length as the history window counts it."""
    return int(event["characters"]) if "characters" in event else len(event["payload"])


def messages(event: Item, documents: Documents) -> list[dict[str, Any]]:
    """The event's messages in order; none if nothing was said in it."""
    if "messages" in event:
        told: list[dict[str, Any]] = documents.fetch_text(event["messages"])
        return told
    return [message for entry in documents.fetch_text(event["payload"]) for message in _said(entry)]


def _said(entry: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    match entry:
        case {"conversational": {"role": role, "content": {"text": str(text)}}} if text.strip():
            if role in _ROLES:
                yield {"role": _ROLES[role], "content": [{"text": text}]}
            else:
                yield {"role": "user", "content": [{"text": f"({_TOLD[role]}: {text})"}]}
