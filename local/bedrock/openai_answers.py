"""What servers of OpenAI's chat completions answer, as Converse's events.

The protocol is a stream of chunks in server-sent events. What servers make of it differs, and is read here:

- tool calls that all have the index 0 (Ollama), or none, or no id, or one id for all: an id or a name that is new
  begins a call, and so does a name when the call before has all its arguments;
- arguments as an object, null, blank, or as JSON in a JSON string; content as a list of parts;
- a whole `message` in place of deltas, in the stream's last chunk or as a JSON document, and the older
  `function_call`;
- usage in one chunk, in each, or in none; chunks without choices; keep-alive comments; lines that end in CRLF; events
  that no blank line ends;
- an error as a chunk, as an event of that name, as the finish_reason, or as a document with status 200.

Only a finish_reason says that an answer is whole: a stream that ends without one is an error.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPResponse
from itertools import chain
from typing import Any

from local.bedrock.model_backend import (
    ConverseRequest,
    JsonObject,
    ModelError,
    StreamEvent,
    argument_events,
    delta_event,
    estimated_tokens,
    tool_use_id,
    usage,
)

_ERROR_TYPES = {
    400: (400, "ValidationException"),
    401: (403, "AccessDeniedException"),
    403: (403, "AccessDeniedException"),
    404: (404, "ResourceNotFoundException"),
    408: (408, "ModelTimeoutException"),
    413: (400, "ValidationException"),
    422: (400, "ValidationException"),
    429: (429, "ThrottlingException"),
    502: (503, "ServiceUnavailableException"),
    503: (503, "ServiceUnavailableException"),
    504: (503, "ServiceUnavailableException"),
}
_STOP_REASONS = {
    "length": "max_tokens",
    "max_tokens": "max_tokens",
    "model_length": "max_tokens",
    "content_filter": "content_filtered",
}
"""The others are "tool_use" for an answer with tool calls, and "end_turn" for one without."""

_TOOL_USE_ID = re.compile(r"[a-zA-Z0-9_.:-]{1,64}")
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NO_ID = (None, "", "null")
"""Mistral's default is a text."""

_LONGEST_ERROR_TEXT = 500


# ---- Chunks ----


def chunks(response: HTTPResponse) -> Iterator[JsonObject]:
    """The chunks of an answer up to `[DONE]`, of which a JSON document is one. Raises ModelError."""
    if response.headers.get_content_type() == "application/json":
        yield parsed(response.read())
        return
    data, event = b"", b""
    for line in response:
        name, _, value = line.strip().partition(b":")
        value = value.strip()
        if name == b"event":
            event = value
        elif name == b"data" and value == b"[DONE]":
            break
        elif name == b"data" and value:
            data += b"\n" * bool(data) + value
            if _is_json(data):
                yield parsed(data, is_error=event == b"error")
                data, event = b"", b""
        elif not line.strip():
            if data:
                raise _not_json(data)
            event = b""
    if data:
        raise _not_json(data)


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


def parsed(data: bytes, *, is_error: bool = False) -> JsonObject:
    """The JSON object that a server sent. Raises ModelError, also if it is an error."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _not_json(data) from error
    if is_error or (isinstance(value, dict) and (value.get("error") or value.get("object") == "error")):
        told = (value.get("error") or value) if isinstance(value, dict) else value
        code = told.get("code") if isinstance(told, dict) else None
        raise error_of(code, 424, f"the model server failed: {error_text(json.dumps(value))}")
    if not isinstance(value, dict):
        raise broken(f"the model server sent what is not an object: {data[:200]!r}")
    return value


def _not_json(data: bytes) -> ModelError:
    return broken(f"the model server sent what is not JSON: {data[:200]!r}")


def broken(message: str) -> ModelError:
    """A server did not keep the protocol."""
    return ModelError(424, "ModelStreamErrorException", message)


def error_of(code: Any, otherwise: int, message: str) -> ModelError:
    """The error of an HTTP status, which servers also write into the errors of a stream; 424 and 500 for the others."""
    if isinstance(code, int) and code in _ERROR_TYPES:
        return ModelError(*_ERROR_TYPES[code], message)
    return broken(message) if otherwise == 424 else ModelError(500, "InternalServerException", message)


def error_text(text: str) -> str:
    """The message of an error body: of `{"error": {"message": ...}}`, `{"error": ...}`, `{"message": ...}`, or the text
    itself.
    """
    try:
        document = json.loads(text)
        error = document.get("error") or document
    except (ValueError, AttributeError, RecursionError):
        return text[:_LONGEST_ERROR_TEXT]
    message = error.get("message", error) if isinstance(error, dict) else error
    return str(message)[:_LONGEST_ERROR_TEXT]


# ---- Events ----


def answer_events(request: ConverseRequest, answer: Iterator[JsonObject]) -> Iterator[StreamEvent]:
    """The events of an answer. Raises ModelError; before the first event, if the first chunk is one."""
    texts: list[str] = []
    calls: list[_ToolCall] = []
    finish_reason = ""
    counts: JsonObject = {}
    first = next(answer, None)
    if first is None:
        raise broken("the model server's stream has no answer in it")
    yield StreamEvent("messageStart", {"role": "assistant"})
    for chunk in chain([first], answer):
        counts = chunk["usage"] if isinstance(chunk.get("usage"), dict) else counts
        for choice in _objects(chunk.get("choices")):
            if choice.get("index"):
                continue  # another answer to the same request, which was not asked for
            finish_reason = choice.get("finish_reason") or finish_reason
            text = _take(_object(choice.get("delta")), calls)
            text += _rest(_object(choice.get("message")), "".join([*texts, text]), calls)
            if text:
                texts.append(text)
                yield delta_event(0, {"text": text})
    yield from _end(request, finish_reason, "".join(texts), calls, counts)


def _rest(message: JsonObject, said: str, calls: "list[_ToolCall]") -> str:
    """What a whole message has that no delta had."""
    text = _take(message, [] if calls else calls)
    return text[len(said) :] if text.startswith(said) else ""


def _end(
    request: ConverseRequest, finish_reason: str, text: str, calls: "list[_ToolCall]", counts: JsonObject
) -> Iterator[StreamEvent]:
    if not finish_reason:
        raise broken("the model server's stream ended before its answer was complete: it has no finish_reason")
    if finish_reason == "error":
        raise broken("the model server failed while it answered: its finish_reason is error")
    if finish_reason in ("tool_calls", "function_call") and not calls:
        raise broken(f"the model server's finish_reason is {finish_reason}, but it sent no tool call")
    stop_reason = _STOP_REASONS.get(finish_reason, "tool_use" if calls else "end_turn")
    is_cut = stop_reason == "max_tokens"
    if is_cut and calls and not "".join(calls[-1].arguments).strip():
        calls.pop()  # the answer ended before its arguments began
    if text:
        yield StreamEvent("contentBlockStop", {"contentBlockIndex": 0})
    taken = {
        block["toolUse"]["toolUseId"] for each in request.messages for block in each["content"] if "toolUse" in block
    }
    for position, call in enumerate(sorted(calls, key=lambda call: call.index or 0)):
        arguments = call.checked(is_cut=is_cut)
        identifier = call.id
        if not _TOOL_USE_ID.fullmatch(identifier) or identifier in taken:
            identifier = tool_use_id(request, position, call.name, {"input": arguments})
        taken.add(identifier)
        yield from argument_events(position + bool(text), identifier, call.name, arguments)
    yield StreamEvent("messageStop", {"stopReason": stop_reason})
    said = [text, *((call.name, "".join(call.arguments)) for call in calls)]
    yield StreamEvent("metadata", {"usage": _usage(request, counts, said)})


def _usage(request: ConverseRequest, counts: JsonObject, answer: object) -> dict[str, int]:
    def count(name: str, value: object) -> int:
        counted = counts.get(name)
        return counted if isinstance(counted, int) and counted > 0 else estimated_tokens(value)

    return usage(count("prompt_tokens", request.body), count("completion_tokens", answer))


def _object(value: Any) -> JsonObject:
    return _objects([value or {}])[0]


def _objects(value: Any) -> list[JsonObject]:
    entries = value or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise broken(f"the model server sent no list of objects where one belongs: {json.dumps(value)[:200]}")
    return entries


def _take(message: JsonObject, calls: "list[_ToolCall]") -> str:
    """The text of a delta or of a whole message; its tool calls, or their pieces, go to `calls`."""
    pieces = _objects(message.get("tool_calls"))
    if message.get("function_call"):
        pieces = [*pieces, {"function": message["function_call"]}]
    began = len(calls)
    for piece in pieces:
        call = _call_of(piece, calls, began)
        call.add(piece)
    return _text(message.get("content")) or _text(message.get("refusal"))


def _text(content: Any) -> str:
    """The text of a content or of one of its parts; the parts that reason have other types."""
    match content:
        case None:
            return ""
        case str():
            return content
        case list():
            return "".join(map(_text, content))
        case {"text": str() as text, **others} if others.get("type", "text") in ("text", "output_text"):
            return text
        case dict():
            return ""
    raise broken(f"the model server sent content that is no text: {json.dumps(content)[:200]}")


# ---- Tool calls ----


@dataclass(slots=True, eq=False)
class _ToolCall:
    index: int | None
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)

    def add(self, piece: JsonObject) -> None:
        self.id = self.id or _id(piece)
        self.name = self.name or _name(piece)
        self.arguments.append(_arguments(piece))

    def is_complete(self) -> bool:
        return isinstance(_loaded("".join(self.arguments)), dict)

    def checked(self, *, is_cut: bool) -> str:
        """The arguments as JSON of an object, or as they are where the answer was cut in them. Raises ModelError."""
        text = "".join(self.arguments)
        value = _loaded(text)
        if isinstance(value, str):  # some servers encode twice
            text, value = value, _loaded(value)
        if text.strip() in ("", "null"):
            value = {}
        if not _TOOL_NAME.fullmatch(self.name):
            raise ModelError(424, "ModelErrorException", f"the model asked for a tool with the name {self.name!r}")
        if isinstance(value, dict):
            return json.dumps(value, ensure_ascii=False)
        if is_cut:
            return "".join(self.arguments)
        message = f"the model's input of tool {self.name} is not JSON of an object: {text[:200]!r}"
        raise ModelError(424, "ModelErrorException", message)


def _call_of(piece: JsonObject, calls: list[_ToolCall], began: int) -> _ToolCall:
    """The call that a piece belongs to, which may be a new one. The calls from `began` on were new in this chunk."""
    index, identifier, name = piece.get("index"), _id(piece), _name(piece)
    index = index if isinstance(index, int) else None
    there = [call for call in calls if index is None or call.index in (None, index)]
    last = there[-1] if there else None
    known = next((call for call in reversed(there) if call.id == identifier), None) if identifier else None
    if known is not None:
        repeats = not (name and _arguments(piece).strip() and known.is_complete())
        found = known if repeats else None
    elif identifier:
        found = last if last is not None and not last.id and not name else None  # the id comes late
    elif name:
        is_new_here = last is not None and last in calls[began:]
        goes_on = last is not None and name == last.name and _arguments(piece).strip() and not last.is_complete()
        found = last if goes_on and not is_new_here else None
    else:
        found = last or (calls[-1] if calls else None)
    if found is None:
        found = _ToolCall(index)
        calls.append(found)
    return found


def _function(piece: JsonObject) -> JsonObject:
    return _object(piece.get("function"))


def _id(piece: JsonObject) -> str:
    identifier = piece.get("id")
    return "" if identifier in _NO_ID else str(identifier)


def _name(piece: JsonObject) -> str:
    return str(_function(piece).get("name") or "")


def _arguments(piece: JsonObject) -> str:
    arguments = _function(piece).get("arguments")
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
