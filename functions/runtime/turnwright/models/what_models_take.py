"""What models do not take of a request, and how a request looks without it: the one table of it.

The rows that match a model add up. A model without a row, or whose id says nothing (an application inference profile, a
model of the account's own), is asked as the agent wants it; when it refuses that, `model_calls.py` leaves out all that
any model may refuse, once.

Sources: "What's new" and the migration guides of Claude Opus 4.7, Sonnet 5, Opus 5.5, Sonnet 5.5 and Fable 5.1;
`ToolChoice` and `ToolResultBlock` in botocore's service model of `bedrock-runtime`; "Supported models and model
features" in the Bedrock user guide; for the choices of tools of Mistral and DeepSeek, langchain-ai/langchain-aws#688.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from turnwright.agents.model_ids import bare


class Part(StrEnum):
    """What may be left out of a request, as the trace and the receipt call it."""

    TEMPERATURE = "temperature"
    TOP_P = "topP"
    TOP_P_BESIDE_TEMPERATURE = "topP beside temperature"
    STOP_SEQUENCES = "stopSequences"
    FORCED_TOOL = "toolChoice.tool"
    """Instead any tool has to be called."""
    TOOL_CHOICE = "toolChoice"
    RESULT_STATUS = "toolResult.status"
    STREAM = "stream"
    """With tools the model answers in one piece only (Converse instead of ConverseStream)."""
    SYSTEM = "system"
    """Instead it stands at the beginning of the first user message."""


_REFUSED: Sequence[tuple[str, frozenset[Part]]] = (
    (r"anthropic\.claude-(opus-4-[1-6]|(sonnet|haiku)-4-[5-9])", frozenset({Part.TOP_P_BESIDE_TEMPERATURE})),
    (r"anthropic\.claude-(opus-4-[7-9]|[a-z]+-[5-9])", frozenset({Part.TEMPERATURE, Part.TOP_P})),
    (r"anthropic\.claude-([a-z]+-5-[5-9]|(fable|mythos)-5-1|[a-z]+-[6-9])", frozenset({Part.TOOL_CHOICE})),
    (r"(mistral\.mistral-large|deepseek\.v3).*", frozenset({Part.FORCED_TOOL})),
    (r"(meta\.llama|cohere\.command|ai21\.|mistral\.(?!mistral-large)).*", frozenset({Part.TOOL_CHOICE})),
    (r"(meta\.llama|cohere\.command|ai21\.|mistral\.).*", frozenset({Part.RESULT_STATUS})),
    (r"meta\.llama.*", frozenset({Part.STREAM})),
    (r"(amazon\.titan-text|mistral\.mi(stral-7b|xtral)).*", frozenset({Part.SYSTEM})),
)
"""The patterns stand for the beginning of a model's own id, up to where its number ends."""

_THINKS = r"anthropic\.claude-[a-z]+-[5-9]"
"""Models that think without being asked to, and may need thousands of tokens for it."""

ALL = frozenset({Part.TEMPERATURE, Part.TOP_P, Part.STOP_SEQUENCES, Part.TOOL_CHOICE, Part.RESULT_STATUS, Part.STREAM})
"""Without these every model takes a request, if it takes the tools and the system texts that are in it."""


@dataclass(frozen=True, slots=True)
class Form:
    """A request as a model takes it: Converse's arguments, and what they lack of those that were asked for."""

    arguments: Mapping[str, Any]
    left_out: tuple[Part, ...]

    @property
    def streams(self) -> bool:
        return Part.STREAM not in self.left_out


def refused_by(model_id: str) -> frozenset[Part]:
    """What the table says that the model does not take."""
    return frozenset[Part]().union(*(parts for pattern, parts in _REFUSED if _matches(pattern, model_id)))


def thinks(model_id: str) -> bool:
    """Whether the model thinks though nobody asked it to: its thoughts' tokens count among those of the answer."""
    return _matches(_THINKS, model_id)


def _matches(pattern: str, model_id: str) -> bool:
    return re.match(rf"(?:{pattern})(?!\d)", bare(model_id)) is not None


def without(parts: frozenset[Part], arguments: Mapping[str, Any]) -> Form:
    """The request without those of the parts that it has."""
    adapted = dict(arguments)
    inference = dict(adapted.pop("inferenceConfig", {}))
    tools = dict(adapted.pop("toolConfig", {}))
    left_out = []
    if Part.TOP_P_BESIDE_TEMPERATURE in parts and {"temperature", "topP"} <= inference.keys():
        del inference["topP"]
        left_out.append(Part.TOP_P_BESIDE_TEMPERATURE)
    for part in (Part.TEMPERATURE, Part.TOP_P, Part.STOP_SEQUENCES):
        if part in parts and inference.pop(part, None) is not None:
            left_out.append(part)
    if Part.TOOL_CHOICE in parts and tools.pop("toolChoice", None) is not None:
        left_out.append(Part.TOOL_CHOICE)
    if Part.FORCED_TOOL in parts and "tool" in tools.get("toolChoice", {}):
        tools["toolChoice"] = {"any": {}}
        left_out.append(Part.FORCED_TOOL)
    if Part.RESULT_STATUS in parts:
        adapted["messages"] = [_without_status(message) for message in adapted["messages"]]
        if adapted["messages"] != arguments["messages"]:
            left_out.append(Part.RESULT_STATUS)
    if Part.STREAM in parts and tools:
        left_out.append(Part.STREAM)
    if Part.SYSTEM in parts and "system" in adapted:
        first, *others = adapted["messages"]
        adapted["messages"] = [{**first, "content": [*adapted.pop("system"), *first["content"]]}, *others]
        left_out.append(Part.SYSTEM)
    if inference:
        adapted["inferenceConfig"] = inference
    if tools:
        adapted["toolConfig"] = tools
    return Form(adapted, tuple(left_out))


def _without_status(message: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **message,
        "content": [
            {"toolResult": {name: value for name, value in block["toolResult"].items() if name != "status"}}
            if "toolResult" in block
            else block
            for block in message["content"]
        ],
    }
