"""What a model behind the offline Bedrock endpoint provides, and what it is given.

Everything speaks ConverseStream's events as botocore's service model of `bedrock-runtime` has them; a plain Converse
answer is assembled from the same events, so that the two cannot differ.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

JsonObject = Mapping[str, Any]

CHARACTERS_PER_TOKEN = 4
"""Where nobody counts tokens they are estimated: the characters of the JSON divided by this, rounded up."""

_TOLD_TO_CALL = re.compile(r"\bAnswer by calling the tool ([a-zA-Z0-9_-]+),")

_PIECES = 48
_SHORTEST_PIECE = 12


class ModelError(Exception):
    """A model call failed. Raised before the first event it is the HTTP answer, later an exception frame in the stream.

    `status` is the HTTP status, `error_type` the exception's name in Bedrock's spelling (`ThrottlingException`).
    """

    def __init__(self, status: int, error_type: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error_type = error_type
        self.message = message


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One ConverseStream event: its name (`messageStart`, ...) and its JSON body."""

    name: str
    body: JsonObject


@dataclass(frozen=True, slots=True)
class ConverseRequest:
    """A request that keeps Bedrock's rules. `body` is the parsed JSON, in which bytes are base64 strings."""

    model_id: str
    body: JsonObject
    is_stream: bool

    @property
    def messages(self) -> Sequence[JsonObject]:
        messages: Sequence[JsonObject] = self.body["messages"]
        return messages

    @property
    def tool_specifications(self) -> Sequence[JsonObject]:
        """The `toolSpec` of every configured tool: name, description, inputSchema."""
        tools = self.body.get("toolConfig", {}).get("tools", [])
        return [tool["toolSpec"] for tool in tools if "toolSpec" in tool]

    @property
    def forced_tool(self) -> str | None:
        """The tool that toolChoice demands by name."""
        name: str | None = self.body.get("toolConfig", {}).get("toolChoice", {}).get("tool", {}).get("name")
        return name

    @property
    def demanded_tool(self) -> str | None:
        """The tool that toolChoice demands, or the system texts where a model takes no such choice."""
        texts = "\n".join(block.get("text", "") for block in self.body.get("system", []))
        told = _TOLD_TO_CALL.search(texts)
        names = [specification["name"] for specification in self.tool_specifications]
        return self.forced_tool or (told.group(1) if told and told.group(1) in names else None)


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """An InvokeModel request. `body` is the parsed JSON, whose shape is the model's own."""

    model_id: str
    body: JsonObject


class ModelBackend(Protocol):
    @property
    def name(self) -> str: ...

    def converse(self, request: ConverseRequest) -> Iterator[StreamEvent]:
        """The events of the answer, in order: messageStart, the content blocks, messageStop, metadata.

        Called from many threads at once. Raises ModelError.
        """
        ...


@runtime_checkable
class EmbeddingBackend(Protocol):
    """A model backend that has embeddings of its own, good or bad: without this the endpoint has hashed ones."""

    def invoke_model(self, request: EmbeddingRequest) -> JsonObject:
        """The JSON of InvokeModel's response. Called from many threads at once. Raises ModelError."""
        ...


def digest(*parts: object) -> str:
    """A hash of JSON values: equal input has the equal hash in every process."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def tool_use_id(request: ConverseRequest, position: int, name: str, arguments: JsonObject) -> str:
    """A toolUseId that depends on nothing but the conversation, so that a replayed call gets the same one."""
    return f"tooluse_{digest(request.messages, position, name, arguments)[:22]}"


def estimated_tokens(value: object) -> int:
    return max(1, -(-len(json.dumps(value, ensure_ascii=False)) // CHARACTERS_PER_TOKEN))


def estimated_usage(request: ConverseRequest, content: Sequence[JsonObject]) -> dict[str, int]:
    return usage(estimated_tokens(request.body), estimated_tokens(content))


def usage(input_tokens: int, output_tokens: int) -> dict[str, int]:
    """Converse's TokenUsage."""
    return {
        "inputTokens": input_tokens,
        "outputTokens": output_tokens,
        "totalTokens": input_tokens + output_tokens,
    }


def message_events(
    content: Iterable[JsonObject], stop_reason: str, token_usage: Mapping[str, int]
) -> Iterator[StreamEvent]:
    """The events of a whole answer, its text and toolUse inputs cut into pieces as a model's are.

    `content` holds text and toolUse blocks.
    """
    yield StreamEvent("messageStart", {"role": "assistant"})
    for index, block in enumerate(content):
        yield from block_events(index, block)
    yield StreamEvent("messageStop", {"stopReason": stop_reason})
    yield StreamEvent("metadata", {"usage": dict(token_usage)})


def block_events(index: int, block: JsonObject) -> Iterator[StreamEvent]:
    """The events of one text or toolUse block."""
    if "toolUse" in block:
        use = block["toolUse"]
        yield from argument_events(index, use["toolUseId"], use["name"], json.dumps(use["input"], ensure_ascii=False))
        return
    for piece in _pieces(block["text"]):
        yield delta_event(index, {"text": piece})
    yield StreamEvent("contentBlockStop", {"contentBlockIndex": index})


def argument_events(index: int, identifier: str, name: str, arguments: str) -> Iterator[StreamEvent]:
    """The events of one toolUse block; `arguments` is JSON, unless the answer was cut in it."""
    start = {"toolUse": {"toolUseId": identifier, "name": name}}
    yield StreamEvent("contentBlockStart", {"contentBlockIndex": index, "start": start})
    for piece in _pieces(arguments):
        yield delta_event(index, {"toolUse": {"input": piece}})
    yield StreamEvent("contentBlockStop", {"contentBlockIndex": index})


def delta_event(index: int, delta: JsonObject) -> StreamEvent:
    return StreamEvent("contentBlockDelta", {"contentBlockIndex": index, "delta": delta})


def _pieces(text: str) -> Iterator[str]:
    length = max(_SHORTEST_PIECE, -(-len(text) // _PIECES))
    return (text[start : start + length] for start in range(0, len(text), length))
