"""A bridge to a server that speaks OpenAI's chat completions, streamed, and embeddings: Ollama, llama.cpp, vLLM and
the like.

The model id of the request is not used: the option names the model. Text arrives as the server sends it; tool calls
are passed on when the server has finished them, since their pieces may be interleaved (`openai_answers.py`). Reasoning
text is left out, cache points are passed over. Where the server counts no tokens they are estimated
(`model_backend.CHARACTERS_PER_TOKEN`).
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from local.bedrock.model_backend import (
    ConverseRequest,
    EmbeddingRequest,
    JsonObject,
    ModelError,
    StreamEvent,
    estimated_tokens,
)
from local.bedrock.openai_answers import answer_events, broken, chunks, error_of, error_text, parsed

_INFERENCE_FIELDS = {
    "maxTokens": "max_tokens",
    "temperature": "temperature",
    "topP": "top_p",
    "stopSequences": "stop",
}
_PASSED_OVER = ("cachePoint", "reasoningContent")


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
            response = self._post(connection, "/chat/completions", body, "text/event-stream", "application/json")
            yield from answer_events(request, chunks(response))

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
            answer = parsed(self._post(connection, "/embeddings", body, "application/json").read())
        try:
            vectors = [entry["embedding"] for entry in sorted(answer["data"], key=lambda entry: entry["index"])]
        except (KeyError, TypeError) as error:
            raise broken(f"the model server sent no embeddings: {answer!r:.200}") from error
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

    def _post(self, connection: HTTPConnection, operation: str, body: JsonObject, *media_types: str) -> HTTPResponse:
        """The answer, in one of the media types; the first is asked for."""
        headers = {"content-type": "application/json", "accept": media_types[0]}
        if self._api_key:
            headers["authorization"] = f"Bearer {self._api_key}"
        path = urlsplit(self._url).path + operation
        connection.request("POST", path, json.dumps(body).encode(), headers)
        response = connection.getresponse()
        if response.status != 200:
            text = response.read().decode(errors="replace").strip()
            raise error_of(response.status, 500, f"{self._url} answered {response.status}: {error_text(text)}")
        content_type = response.headers.get_content_type()
        if content_type not in media_types:
            message = f"{self._url} answered {content_type} where {media_types[0]} was asked for"
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
