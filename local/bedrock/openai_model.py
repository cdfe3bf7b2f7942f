"""A bridge to a server that speaks OpenAI's chat completions, streamed, and embeddings: Ollama, llama.cpp, vLLM and
the like.

The model id of the request is not used: the option names the model. Text arrives as the server sends it; tool calls
are passed on when the server has finished them, since their pieces may be interleaved. Reasoning text is left out,
cache points are passed over. Where the server counts no tokens they are estimated
(`model_backend.CHARACTERS_PER_TOKEN`).
"""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from local.bedrock.model_backend import (
    ConverseRequest,
    EmbeddingRequest,
    JsonObject,
    ModelError,
    StreamEvent,
    block_events,
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
_STOP_REASONS = {"length": "max_tokens", "content_filter": "content_filtered"}
_INFERENCE_FIELDS = {
    "maxTokens": "max_tokens",
    "temperature": "temperature",
    "topP": "top_p",
    "stopSequences": "stop",
}
_TOOL_USE_ID = re.compile(r"[a-zA-Z0-9_.:-]{1,64}")
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_PASSED_OVER = ("cachePoint", "reasoningContent")
_LONGEST_ERROR_TEXT = 500


class OpenAiModel:
    """`url` is the server's base URL (`http://127.0.0.1:11434/v1`), `timeout_seconds` its longest silence.

    `embedding_model` is the server's model for embeddings; without one there are none.
    """

    name = "openai"

    def __init__(
        self,
        url: str,
        model: str,
        api_key: str | None = None,
        timeout_seconds: float = 300,
        embedding_model: str | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self._model = model
        self._embedding_model = embedding_model
        self._api_key = api_key
        self._timeout_seconds = timeout_seconds

    def converse(self, request: ConverseRequest) -> Iterator[StreamEvent]:
        body = chat_request(request, self._model)
        with self._connection() as connection:
            response = self._post(connection, "/chat/completions", body, "text/event-stream")
            yield from _events(request, _data_lines(response))

    def invoke_model(self, request: EmbeddingRequest) -> JsonObject:
        """Titan's and Cohere's requests as the server's embeddings, with as many numbers as its model has."""
        if self._embedding_model is None:
            message = (
                "openai: without an embedding model has no embeddings: "
                f"name one of the server's, MODEL=openai:{self._url}#{self._model}#EMBEDDING_MODEL"
            )
            raise ModelError(400, "ValidationException", message)
        is_titan = "inputText" in request.body
        texts = [request.body["inputText"]] if is_titan else request.body.get("texts")
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise ModelError(400, "ValidationException", "the request has neither inputText nor texts")
        body = {"model": self._embedding_model, "input": texts, "encoding_format": "float"}
        with self._connection() as connection:
            answer = _parsed(self._post(connection, "/embeddings", body, "application/json").read())
        try:
            vectors = [entry["embedding"] for entry in sorted(answer["data"], key=lambda entry: entry["index"])]
        except (KeyError, TypeError) as error:
            raise _broken(f"the model server sent no embeddings: {answer!r:.200}") from error
        if is_titan:
            count = (answer.get("usage") or {}).get("prompt_tokens") or estimated_tokens(texts)
            return {"embedding": vectors[0], "embeddingsByType": {"float": vectors[0]}, "inputTextTokenCount": count}
        return {"response_type": "embeddings_by_type", "embeddings": {"float": vectors}, "texts": texts}

    @contextmanager
    def _connection(self) -> Iterator[HTTPConnection]:
        parts = urlsplit(self._url)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        connection = kind(parts.netloc, timeout=self._timeout_seconds)
        try:
            yield connection
        except TimeoutError as error:
            message = f"{self._url} sent nothing for {self._timeout_seconds} s"
            raise ModelError(408, "ModelTimeoutException", message) from error
        except (OSError, HTTPException) as error:
            raise self._unavailable(error) from error
        finally:
            connection.close()

    def _post(self, connection: HTTPConnection, operation: str, body: JsonObject, media_type: str) -> HTTPResponse:
        headers = {"content-type": "application/json", "accept": media_type}
        if self._api_key:
            headers["authorization"] = f"Bearer {self._api_key}"
        path = urlsplit(self._url).path + operation
        connection.request("POST", path, json.dumps(body).encode(), headers)
        response = connection.getresponse()
        if response.status != 200:
            text = response.read().decode(errors="replace").strip()
            status, error_type = _ERROR_TYPES.get(response.status, (500, "InternalServerException"))
            message = f"{self._url} answered {response.status}: {_error_text(text)}"
            raise ModelError(status, error_type, message)
        content_type = response.headers.get_content_type()
        if content_type != media_type:
            message = f"{self._url} answered {content_type} where {media_type} was asked for"
            raise ModelError(424, "ModelErrorException", message)
        return response

    def _unavailable(self, error: Exception) -> ModelError:
        reason = str(error) or type(error).__name__
        return ModelError(503, "ServiceUnavailableException", f"cannot use the model server at {self._url}: {reason}")


def chat_request(request: ConverseRequest, model: str) -> dict[str, Any]:
    """The chat completions request of a Converse request. Raises ModelError for a block that has no counterpart."""
    body: dict[str, Any] = {
        "model": model,
        "messages": list(_chat_messages(request)),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    inference = request.body.get("inferenceConfig", {})
    body |= {
        theirs: inference[ours] for ours, theirs in _INFERENCE_FIELDS.items() if inference.get(ours) not in (None, [])
    }
    tools = [_chat_tool(specification) for specification in request.tool_specifications]
    if tools:
        body |= {"tools": tools, "tool_choice": _tool_choice(request)}
    return body


def _chat_tool(specification: JsonObject) -> JsonObject:
    function = {
        "name": specification["name"],
        "description": specification.get("description", ""),
        "parameters": specification["inputSchema"]["json"],
    }
    return {"type": "function", "function": function}


def _tool_choice(request: ConverseRequest) -> JsonObject | str:
    if request.forced_tool is not None:
        return {"type": "function", "function": {"name": request.forced_tool}}
    return "required" if "any" in request.body["toolConfig"].get("toolChoice", {}) else "auto"


def _chat_messages(request: ConverseRequest) -> Iterator[JsonObject]:
    system = [_only_text(block, f"system.{index}") for index, block in enumerate(request.body.get("system", []))]
    if any(system):
        yield {"role": "system", "content": "\n\n".join(filter(None, system))}
    for index, message in enumerate(request.messages):
        yield from _chat_message(message, f"messages.{index}")


def _chat_message(message: JsonObject, place: str) -> Iterator[JsonObject]:
    texts: list[str] = []
    calls: list[JsonObject] = []
    for index, block in enumerate(message["content"]):
        if "toolResult" in block:
            yield _tool_message(block["toolResult"], f"{place}.content.{index}.toolResult")
        elif "toolUse" in block:
            calls.append(_tool_call(block["toolUse"]))
        else:
            texts.append(_only_text(block, f"{place}.content.{index}"))
    text = "\n".join(filter(None, texts))
    if calls:
        yield {"role": message["role"], "content": text or None, "tool_calls": calls}
    elif text:
        yield {"role": message["role"], "content": text}


def _tool_call(use: JsonObject) -> JsonObject:
    function = {"name": use["name"], "arguments": json.dumps(use["input"], ensure_ascii=False)}
    return {"id": use["toolUseId"], "type": "function", "function": function}


def _tool_message(result: JsonObject, place: str) -> JsonObject:
    parts = [
        json.dumps(block["json"], ensure_ascii=False)
        if "json" in block
        else _only_text(block, f"{place}.content.{index}")
        for index, block in enumerate(result["content"])
    ]
    prefix = "ERROR: " if result.get("status") == "error" else ""
    return {"role": "tool", "tool_call_id": result["toolUseId"], "content": prefix + "\n".join(parts)}


def _only_text(block: JsonObject, place: str) -> str:
    """The text of a text block, nothing for one that is passed over."""
    if "text" in block:
        return str(block["text"])
    kind = next(iter(block))
    if kind in _PASSED_OVER:
        return ""
    raise ModelError(400, "ValidationException", f"{place}: an openai: model takes text and tools only, not {kind}")


@dataclass(slots=True)
class _ToolCall:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)

    def add(self, delta: JsonObject) -> None:
        function = delta.get("function") or {}
        self.id = self.id or delta.get("id") or ""
        self.name = self.name or function.get("name") or ""
        self.arguments.append(function.get("arguments") or "")


def _data_lines(response: HTTPResponse) -> Iterator[JsonObject]:
    """The JSON of each server-sent event up to `[DONE]`."""
    for line in response:
        if not line.startswith(b"data:"):
            continue
        data = line.removeprefix(b"data:").strip()
        if data == b"[DONE]":
            return
        yield _parsed(data)


def _parsed(data: bytes) -> JsonObject:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise _broken(f"the model server sent what is not JSON: {data[:200]!r}") from error
    if not isinstance(value, dict):
        raise _broken(f"the model server sent what is not an object: {data[:200]!r}")
    if value.get("error"):
        raise _broken(f"the model server failed: {_error_text(json.dumps(value))}")
    return value


def _broken(message: str) -> ModelError:
    return ModelError(424, "ModelStreamErrorException", message)


def _events(request: ConverseRequest, chunks: Iterable[JsonObject]) -> Iterator[StreamEvent]:
    yield StreamEvent("messageStart", {"role": "assistant"})
    text: list[str] = []
    calls: dict[int, _ToolCall] = {}
    finish_reason = ""
    counts: JsonObject = {}
    for chunk in chunks:
        counts = chunk.get("usage") or counts
        for choice in chunk.get("choices") or []:
            finish_reason = choice.get("finish_reason") or finish_reason
            delta = choice.get("delta") or {}
            if delta.get("content"):
                text.append(delta["content"])
                yield delta_event(0, {"text": delta["content"]})
            for position, call in enumerate(delta.get("tool_calls") or []):
                calls.setdefault(call.get("index", position), _ToolCall()).add(call)
    if not finish_reason:
        raise _broken("the model server's stream ended before its answer was complete")
    if text:
        yield StreamEvent("contentBlockStop", {"contentBlockIndex": 0})
    uses = [_tool_use(request, position, call) for position, (_, call) in enumerate(sorted(calls.items()))]
    for index, use in enumerate(uses, start=1 if text else 0):
        yield from block_events(index, {"toolUse": use})
    stop_reason = "tool_use" if uses else _STOP_REASONS.get(finish_reason, "end_turn")
    yield StreamEvent("messageStop", {"stopReason": stop_reason})
    yield StreamEvent("metadata", {"usage": _usage(request, counts, ["".join(text), uses])})


def _tool_use(request: ConverseRequest, position: int, call: _ToolCall) -> JsonObject:
    if not _TOOL_NAME.fullmatch(call.name):
        raise ModelError(424, "ModelErrorException", f"the model asked for a tool with the name {call.name!r}")
    text = "".join(call.arguments) or "{}"
    try:
        arguments = json.loads(text)
    except ValueError as error:
        message = f"the model's input of tool {call.name} is not JSON: {text[:200]!r}"
        raise ModelError(424, "ModelErrorException", message) from error
    is_valid = _TOOL_USE_ID.fullmatch(call.id)
    identifier = call.id if is_valid else tool_use_id(request, position, call.name, arguments)
    return {"toolUseId": identifier, "name": call.name, "input": arguments}


def _usage(request: ConverseRequest, counts: JsonObject, answer: object) -> dict[str, int]:
    return usage(
        counts.get("prompt_tokens") or estimated_tokens(request.body),
        counts.get("completion_tokens") or estimated_tokens(answer),
    )


def _error_text(text: str) -> str:
    """The message of an error body: of `{"error": {"message": ...}}`, of `{"error": ...}`, or the text itself."""
    try:
        error = json.loads(text)["error"]
    except (ValueError, KeyError, TypeError):
        return text[:_LONGEST_ERROR_TEXT]
    message = error.get("message", error) if isinstance(error, dict) else error
    return str(message)[:_LONGEST_ERROR_TEXT]
