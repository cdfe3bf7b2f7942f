"""The bridge to OpenAI-compatible servers, against a small server that speaks their event stream."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

import pytest

from local.bedrock.converse_answer import converse_answer
from local.bedrock.model_backend import ConverseRequest, EmbeddingRequest, JsonObject, ModelError, StreamEvent
from local.bedrock.openai_model import OpenAiModel

USER = {"role": "user", "content": [{"text": "What is the balance?"}]}
SPECIFICATION = {
    "name": "get_account_balance",
    "description": "The balance.",
    "inputSchema": {"json": {"type": "object"}},
}
TOOL_CONFIG = {"tools": [{"toolSpec": SPECIFICATION}]}


class FakeServer(ThreadingHTTPServer):
    """Answers every request with `status`, `content_type` and `body`, and records the last one."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 200
        self.content_type = "text/event-stream"
        self.body = b""
        self.path = ""
        self.request_headers: dict[str, str] = {}
        self.request_body: dict[str, Any] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def stream(self, *chunks: dict[str, Any], done: bool = True) -> None:
        lines = [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks]
        self.body = b": a comment\n\n" + b"".join(lines) + (b"data: [DONE]\n\n" if done else b"")

    def fail(self, status: int, text: str) -> None:
        self.status, self.content_type, self.body = status, "application/json", text.encode()


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = cast(FakeServer, self.server)
        server.path = self.path
        server.request_headers = {name.lower(): value for name, value in self.headers.items()}
        server.request_body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(server.status)
        self.send_header("content-type", server.content_type)
        self.end_headers()
        self.wfile.write(server.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it
        """Quiet."""


@pytest.fixture
def server() -> Iterator[FakeServer]:
    server = FakeServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(10)


def delta(finish_reason: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish_reason}]}


def call(index: int, name: str | None, arguments: str, identifier: str | None = None) -> dict[str, Any]:
    return {"index": index, "id": identifier, "type": "function", "function": {"name": name, "arguments": arguments}}


def events(server: FakeServer, body: dict[str, Any] | None = None, api_key: str | None = None) -> list[StreamEvent]:
    model = OpenAiModel(server.url, "qwen3:8b", api_key, timeout_seconds=10)
    return list(model.converse(ConverseRequest("model-a", body or {"messages": [USER]}, True)))


def answer(server: FakeServer, body: dict[str, Any] | None = None) -> dict[str, Any]:
    *rest, metadata = events(server, body)
    return converse_answer([*rest, StreamEvent("metadata", {**metadata.body, "metrics": {"latencyMs": 0}})])


def error(server: FakeServer, body: dict[str, Any] | None = None) -> ModelError:
    with pytest.raises(ModelError) as failure:
        events(server, body)
    return failure.value


def test_text_is_passed_on_as_it_comes(server: FakeServer) -> None:
    server.stream(
        delta(role="assistant", content=""),
        delta(content="Hel"),
        delta(content="lo"),
        delta("stop"),
        {"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 2}},
    )
    assert [(event.name, event.body) for event in events(server)] == [
        ("messageStart", {"role": "assistant"}),
        ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hel"}}),
        ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "lo"}}),
        ("contentBlockStop", {"contentBlockIndex": 0}),
        ("messageStop", {"stopReason": "end_turn"}),
        ("metadata", {"usage": {"inputTokens": 11, "outputTokens": 2, "totalTokens": 13}}),
    ]


def test_interleaved_tool_calls_become_tool_use_blocks(server: FakeServer) -> None:
    server.stream(
        delta(content="One moment."),
        delta(tool_calls=[call(1, "list_transactions", "")]),
        delta(tool_calls=[call(0, "get_account_balance", '{"account', "call_a")]),
        delta(tool_calls=[call(0, None, '_id": "1"}')]),
        delta("tool_calls"),
    )
    result = answer(server)
    text, first, second = result["output"]["message"]["content"]
    assert text == {"text": "One moment."}
    assert first == {"toolUse": {"toolUseId": "call_a", "name": "get_account_balance", "input": {"account_id": "1"}}}
    assert (second["toolUse"]["name"], second["toolUse"]["input"]) == ("list_transactions", {})
    assert second["toolUse"]["toolUseId"].startswith("tooluse_")
    assert result["stopReason"] == "tool_use"
    assert answer(server)["output"] == result["output"]


def test_a_conversation_is_translated(server: FakeServer) -> None:
    server.stream(delta("stop", content="Hi"))
    body = {
        "system": [{"text": "Be brief."}, {"cachePoint": {"type": "default"}}],
        "messages": [
            USER,
            {
                "role": "assistant",
                "content": [
                    {"reasoningContent": {"reasoningText": {"text": "hm"}}},
                    {"text": "One moment."},
                    {"toolUse": {"toolUseId": "a", "name": "get_account_balance", "input": {"account_id": "1"}}},
                    {"toolUse": {"toolUseId": "b", "name": "get_account_balance", "input": {}}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"toolResult": {"toolUseId": "a", "content": [{"json": {"balance": 1}}]}},
                    {"toolResult": {"toolUseId": "b", "status": "error", "content": [{"text": "No account"}]}},
                    {"text": "Go on."},
                ],
            },
        ],
        "inferenceConfig": {"maxTokens": 100, "temperature": 0, "topP": 0.5, "stopSequences": ["END"]},
        "toolConfig": {**TOOL_CONFIG, "toolChoice": {"any": {}}},
    }
    events(server, body, api_key="secret")
    function = {"name": "get_account_balance", "description": "The balance.", "parameters": {"type": "object"}}
    assert server.path == "/v1/chat/completions"
    assert server.request_headers["authorization"] == "Bearer secret"
    assert server.request_body == {
        "model": "qwen3:8b",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is the balance?"},
            {
                "role": "assistant",
                "content": "One moment.",
                "tool_calls": [
                    {
                        "id": "a",
                        "type": "function",
                        "function": {"name": "get_account_balance", "arguments": '{"account_id": "1"}'},
                    },
                    {"id": "b", "type": "function", "function": {"name": "get_account_balance", "arguments": "{}"}},
                ],
            },
            {"role": "tool", "tool_call_id": "a", "content": '{"balance": 1}'},
            {"role": "tool", "tool_call_id": "b", "content": "ERROR: No account"},
            {"role": "user", "content": "Go on."},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 100,
        "temperature": 0,
        "top_p": 0.5,
        "stop": ["END"],
        "tools": [{"type": "function", "function": function}],
        "tool_choice": "required",
    }


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({}, "auto"),
        ({"toolChoice": {"auto": {}}}, "auto"),
        (
            {"toolChoice": {"tool": {"name": "get_account_balance"}}},
            {"type": "function", "function": {"name": "get_account_balance"}},
        ),
    ],
)
def test_tool_choice_is_translated(server: FakeServer, choice: dict[str, Any], expected: Any) -> None:
    server.stream(delta("stop", content="Hi"))
    events(server, {"messages": [USER], "toolConfig": {**TOOL_CONFIG, **choice}})
    assert server.request_body["tool_choice"] == expected
    assert "authorization" not in server.request_headers


@pytest.mark.parametrize(("reason", "expected"), [("length", "max_tokens"), ("content_filter", "content_filtered")])
def test_stop_reasons_are_translated(server: FakeServer, reason: str, expected: str) -> None:
    server.stream(delta(reason, content="Hi"))
    assert answer(server)["stopReason"] == expected


def test_tokens_are_estimated_where_the_server_counts_none(server: FakeServer) -> None:
    server.stream(delta("stop", content="x" * 400))
    usage = answer(server)["usage"]
    assert 100 <= usage["outputTokens"] <= 110
    assert usage["inputTokens"] > 5


def test_a_block_without_a_counterpart_is_refused(server: FakeServer) -> None:
    image = {"image": {"format": "png", "source": {"bytes": "aGk="}}}
    refused = error(server, {"messages": [{"role": "user", "content": [{"text": "Look:"}, image]}]})
    assert (refused.status, refused.error_type, refused.message) == (
        400,
        "ValidationException",
        "messages.0.content.1: an openai: model takes text and tools only, not image",
    )


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, (400, "ValidationException")),
        (401, (403, "AccessDeniedException")),
        (403, (403, "AccessDeniedException")),
        (404, (404, "ResourceNotFoundException")),
        (429, (429, "ThrottlingException")),
        (500, (500, "InternalServerException")),
        (503, (503, "ServiceUnavailableException")),
    ],
)
def test_http_errors_are_bedrocks_errors(server: FakeServer, status: int, expected: tuple[int, str]) -> None:
    server.fail(status, '{"error": {"message": "the reason"}}')
    failed = error(server)
    assert (failed.status, failed.error_type) == expected
    assert failed.message == f"{server.url} answered {status}: the reason"


@pytest.mark.parametrize("text", ['{"error": "model not found"}', "model not found"])
def test_the_reason_is_found_in_other_error_bodies(server: FakeServer, text: str) -> None:
    server.fail(404, text)
    assert error(server).message.endswith("answered 404: model not found")


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with FakeServer() as gone:
        url = gone.url
    model = OpenAiModel(url, "qwen3:8b", timeout_seconds=10)
    with pytest.raises(ModelError) as failure:
        list(model.converse(ConverseRequest("m", {"messages": [USER]}, True)))
    assert (failure.value.status, failure.value.error_type) == (503, "ServiceUnavailableException")
    assert failure.value.message.startswith(f"cannot use the model server at {url}: ")


def test_a_silent_server_times_out() -> None:
    with FakeServer() as silent:
        model = OpenAiModel(silent.url, "qwen3:8b", timeout_seconds=0.1)
        with pytest.raises(ModelError) as failure:
            list(model.converse(ConverseRequest("m", {"messages": [USER]}, True)))
    assert (failure.value.status, failure.value.error_type) == (408, "ModelTimeoutException")


@pytest.mark.parametrize(
    ("chunks", "error_type", "message"),
    [
        ([delta(content="Hel")], "ModelStreamErrorException", "ended before its answer was complete"),
        ([delta(content="x"), {"error": {"message": "out of memory"}}], "ModelStreamErrorException", "out of memory"),
        ([delta("tool_calls", tool_calls=[call(0, "t", "{")])], "ModelErrorException", "input of tool t is not JSON"),
        ([delta("tool_calls", tool_calls=[call(0, "a b", "{}")])], "ModelErrorException", "the name 'a b'"),
    ],
)
def test_a_broken_answer_fails(server: FakeServer, chunks: list[Any], error_type: str, message: str) -> None:
    server.stream(*chunks, done=False)
    failed = error(server)
    assert (failed.status, failed.error_type) == (424, error_type)
    assert message in failed.message


def test_an_answer_that_is_no_event_stream_fails(server: FakeServer) -> None:
    server.content_type = "text/html"
    assert error(server).message == f"{server.url} answered text/html where text/event-stream was asked for"
    server.content_type, server.body = "text/event-stream", b"data: nonsense\n\n"
    assert error(server).error_type == "ModelStreamErrorException"


TITAN = EmbeddingRequest("amazon.titan-embed-text-v2:0", {"inputText": "tea", "dimensions": 256})


def embeddings(server: FakeServer, request: EmbeddingRequest, embedding_model: str | None = "nomic") -> JsonObject:
    server.content_type = "application/json"
    model = OpenAiModel(server.url, "qwen3:8b", timeout_seconds=10, embedding_model=embedding_model)
    return model.invoke_model(request)


def test_embeddings_are_those_of_the_servers_embedding_model(server: FakeServer) -> None:
    data = [{"index": 1, "embedding": [3, 4]}, {"index": 0, "embedding": [1, 2]}]
    server.body = json.dumps({"data": data, "usage": {"prompt_tokens": 7}}).encode()

    titan = embeddings(server, TITAN)
    assert (titan["embedding"], titan["inputTextTokenCount"]) == ([1, 2], 7)
    assert server.path == "/v1/embeddings"
    assert server.request_body == {"model": "nomic", "input": ["tea"], "encoding_format": "float"}
    cohere = embeddings(server, EmbeddingRequest("cohere.embed-v4:0", {"texts": ["tea", "milk"]}))
    assert cohere["embeddings"] == {"float": [[1, 2], [3, 4]]}


def test_without_an_embedding_model_there_are_none_and_the_option_is_named(server: FakeServer) -> None:
    with pytest.raises(ModelError) as refused:
        embeddings(server, TITAN, None)
    assert refused.value.error_type == "ValidationException"
    assert refused.value.message.endswith(f"MODEL=openai:{server.url}#qwen3:8b#EMBEDDING_MODEL")
    assert server.path == ""


@pytest.mark.parametrize(
    ("status", "body", "error_type", "message"),
    [
        (404, '{"error": {"message": "no such model"}}', "ResourceNotFoundException", "answered 404: no such model"),
        (200, '{"data": [{}]}', "ModelStreamErrorException", "sent no embeddings"),
        (200, "no json", "ModelStreamErrorException", "not JSON"),
    ],
)
def test_a_server_that_cannot_embed_is_an_error(
    server: FakeServer, status: int, body: str, error_type: str, message: str
) -> None:
    server.fail(status, body)
    with pytest.raises(ModelError) as failed:
        embeddings(server, TITAN)
    assert failed.value.error_type == error_type
    assert message in failed.value.message


def test_a_request_without_texts_is_refused(server: FakeServer) -> None:
    with pytest.raises(ModelError, match="neither inputText nor texts"):
        embeddings(server, EmbeddingRequest("cohere.embed-v4:0", {"images": []}))
