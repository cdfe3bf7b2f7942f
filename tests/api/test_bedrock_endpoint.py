"""boto3's bedrock-runtime client, and plain HTTP, against the offline Bedrock endpoint."""

import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError

from local.bedrock.endpoint import BedrockEndpoint
from local.bedrock.model_backend import ConverseRequest, StreamEvent
from local.bedrock.rule.rule_model import RuleModel
from local.bedrock.scripted_model import ScriptedModel
from tests.waiting import patient

MODEL_ID = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
PROFILE_ARN = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123def456"
USER = {"role": "user", "content": [{"text": "What is the balance of account 12345?"}]}
TOOL_CONFIG = {
    "tools": [
        {
            "toolSpec": {
                "name": "get_account_balance",
                "description": "Returns the balance of an account.",
                "inputSchema": {
                    "json": {
                        "type": "object",
                        "properties": {"account_id": {"type": "string"}},
                        "required": ["account_id"],
                    }
                },
            }
        }
    ]
}


def tool_use(identifier: str = "t1", **changes: Any) -> dict[str, Any]:
    return {"toolUse": {"toolUseId": identifier, "name": "get_account_balance", "input": {}, **changes}}


def tool_result(identifier: str = "t1", **changes: Any) -> dict[str, Any]:
    return {"toolResult": {"toolUseId": identifier, "content": [{"text": "10 USD"}], **changes}}


def user(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


@pytest.fixture
def model() -> ScriptedModel:
    return ScriptedModel([{"reply": {"text": "Hello there, this is a longer text."}}])


@pytest.fixture
def endpoint(model: ScriptedModel) -> Iterator[BedrockEndpoint]:
    endpoint = BedrockEndpoint(model)
    yield endpoint
    endpoint.close()


@pytest.fixture
def client(endpoint: BedrockEndpoint) -> Any:
    return boto3.client(
        "bedrock-runtime",
        endpoint_url=endpoint.url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"total_max_attempts": 1}, read_timeout=20),
    )


def post(endpoint: BedrockEndpoint, path: str, payload: bytes, method: str = "POST") -> tuple[int, str | None, Any]:
    """The status, the x-amzn-errortype header and the JSON body of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", int(endpoint.url.rsplit(":", 1)[1]), timeout=patient(20))
    try:
        connection.request(method, path, payload, {"content-type": "application/json"})
        response = connection.getresponse()
        return response.status, response.headers["x-amzn-errortype"], json.loads(response.read())
    finally:
        connection.close()


def without_times(value: Mapping[str, Any]) -> dict[str, Any]:
    return {name: item for name, item in value.items() if name not in ("ResponseMetadata", "metrics")}


def test_converse_answers_a_whole_message(client: Any) -> None:
    answer = client.converse(modelId=MODEL_ID, messages=[USER])
    assert without_times(answer) == {
        "output": {"message": assistant({"text": "Hello there, this is a longer text."})},
        "stopReason": "end_turn",
        "usage": answer["usage"],
    }
    assert answer["usage"]["totalTokens"] > 10
    assert isinstance(answer["metrics"]["latencyMs"], int)


def test_converse_stream_sends_the_events_in_order(client: Any, model: ScriptedModel) -> None:
    model.replace([{"reply": {"text": "One moment.", "toolUse": [{"name": "get_account_balance", "input": {"a": 1}}]}}])
    events = list(client.converse_stream(modelId=MODEL_ID, messages=[USER], toolConfig=TOOL_CONFIG)["stream"])
    identifier = events[3]["contentBlockStart"]["start"]["toolUse"]["toolUseId"]
    usage = events[-1]["metadata"]["usage"]
    latency = events[-1]["metadata"]["metrics"]["latencyMs"]
    assert events == [
        {"messageStart": {"role": "assistant"}},
        {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": "One moment."}}},
        {"contentBlockStop": {"contentBlockIndex": 0}},
        {
            "contentBlockStart": {
                "contentBlockIndex": 1,
                "start": {"toolUse": {"toolUseId": identifier, "name": "get_account_balance"}},
            }
        },
        {"contentBlockDelta": {"contentBlockIndex": 1, "delta": {"toolUse": {"input": '{"a": 1}'}}}},
        {"contentBlockStop": {"contentBlockIndex": 1}},
        {"messageStop": {"stopReason": "tool_use"}},
        {"metadata": {"usage": usage, "metrics": {"latencyMs": latency}}},
    ]


def test_a_long_text_arrives_whole_in_pieces(client: Any, model: ScriptedModel) -> None:
    text = "Grüße, " * 20_000
    model.replace([{"reply": {"text": text}}])
    events = list(client.converse_stream(modelId=MODEL_ID, messages=[USER])["stream"])
    pieces = [event["contentBlockDelta"]["delta"]["text"] for event in events if "contentBlockDelta" in event]
    assert "".join(pieces) == text
    assert 10 <= len(pieces) <= 100
    assert client.converse(modelId=MODEL_ID, messages=[USER])["output"]["message"]["content"] == [{"text": text}]


@pytest.mark.parametrize("model_id", [MODEL_ID, PROFILE_ARN])
def test_model_ids_arrive_decoded(client: Any, model: ScriptedModel, model_id: str) -> None:
    client.converse(modelId=model_id, messages=[USER])
    list(client.converse_stream(modelId=model_id, messages=[USER])["stream"])
    assert [(request.model_id, request.is_stream) for request in model.requests] == [
        (model_id, False),
        (model_id, True),
    ]


@pytest.mark.parametrize(
    ("status", "error_type"),
    [(429, "ThrottlingException"), (503, "ServiceUnavailableException"), (403, "AccessDeniedException")],
)
@pytest.mark.parametrize("operation", ["converse", "converse_stream"])
def test_a_model_error_is_the_clients_error(
    client: Any, model: ScriptedModel, operation: str, status: int, error_type: str
) -> None:
    model.replace([{"error": {"status": status, "type": error_type, "message": "Not now"}}])
    with pytest.raises(ClientError) as failure:
        getattr(client, operation)(modelId=MODEL_ID, messages=[USER])
    assert failure.value.response["Error"] == {"Code": error_type, "Message": "Not now"}
    assert failure.value.response["ResponseMetadata"]["HTTPStatusCode"] == status


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        ({"status": 429, "type": "ThrottlingException", "message": "Slow"}, "throttlingException", "Slow"),
        (
            {"status": 403, "type": "AccessDeniedException", "message": "No"},
            "modelStreamErrorException",
            "AccessDeniedException: No",
        ),
    ],
)
def test_a_failure_in_the_stream_is_an_exception_frame(
    client: Any, model: ScriptedModel, error: dict[str, Any], code: str, message: str
) -> None:
    model.replace([{"reply": {"text": "Hello"}, "breakAfter": 2, "error": error}])
    stream = iter(client.converse_stream(modelId=MODEL_ID, messages=[USER])["stream"])
    assert [*next(stream), *next(stream)] == ["messageStart", "contentBlockDelta"]
    with pytest.raises(EventStreamError) as failure:
        next(stream)
    assert failure.value.response["Error"] == {"Code": code, "Message": message}
    with pytest.raises(ClientError) as whole:
        client.converse(modelId=MODEL_ID, messages=[USER])
    assert whole.value.response["Error"]["Code"] == error["type"]


class _Faulty:
    name = "faulty"

    def converse(self, request: ConverseRequest) -> Iterator[StreamEvent]:
        if request.model_id == MODEL_ID:
            yield StreamEvent("messageStart", {"role": "assistant"})
        raise KeyError("a mistake")


def test_a_backend_that_breaks_is_an_internal_error(client: Any, endpoint: BedrockEndpoint) -> None:
    endpoint.backend = _Faulty()
    with pytest.raises(ClientError) as before:
        client.converse_stream(modelId="other.model", messages=[USER])
    assert before.value.response["Error"] == {"Code": "InternalServerException", "Message": "KeyError: 'a mistake'"}
    with pytest.raises(EventStreamError) as within:
        list(client.converse_stream(modelId=MODEL_ID, messages=[USER])["stream"])
    assert within.value.response["Error"]["Code"] == "internalServerException"


class _Silent:
    name = "silent"

    def converse(self, request: ConverseRequest) -> Iterator[StreamEvent]:
        return iter(())


@pytest.mark.parametrize("operation", ["converse", "converse_stream"])
def test_a_backend_without_an_answer_is_a_model_error(client: Any, endpoint: BedrockEndpoint, operation: str) -> None:
    endpoint.backend = _Silent()
    with pytest.raises(ClientError) as failure:
        getattr(client, operation)(modelId=MODEL_ID, messages=[USER])
    assert failure.value.response["Error"]["Code"] == "ModelErrorException"


def test_the_backend_can_be_replaced_while_the_endpoint_runs(client: Any, endpoint: BedrockEndpoint) -> None:
    endpoint.backend = RuleModel()
    answer = client.converse(modelId=MODEL_ID, messages=[USER], toolConfig=TOOL_CONFIG)
    assert answer["stopReason"] == "tool_use"
    use = answer["output"]["message"]["content"][1]["toolUse"]
    assert (use["name"], use["input"]) == ("get_account_balance", {"account_id": "12345"})


A_TURN = [USER, assistant(tool_use()), user(tool_result())]


def test_a_conversation_with_parallel_tools_is_taken(client: Any) -> None:
    messages = [
        USER,
        assistant({"text": "One moment."}, tool_use("a"), tool_use("b")),
        user(tool_result("b"), tool_result("a", status="error"), {"text": "Go on."}),
    ]
    client.converse(modelId=MODEL_ID, messages=messages, system=[{"text": "Be brief."}], toolConfig=TOOL_CONFIG)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "A conversation must start with a user message"),
        ([assistant({"text": "Hi"}), USER], "A conversation must start with a user message"),
        ([USER, USER], "A conversation must alternate between user and assistant roles"),
        ([USER, assistant({"text": "Hi"})], "requires the last turn in the conversation to be a user message"),
        ([user()], "The content field in the Message object at messages.0 is empty"),
        ([user({"text": " "})], "The text field in the ContentBlock object at messages.0.content.0 is blank"),
        (
            [USER, assistant(tool_use()), USER],
            "Expected toolResult blocks at messages.2.content for the following Ids: t1",
        ),
        (
            [USER, assistant(tool_use("a"), tool_use("b")), user(tool_result("a"))],
            "Expected toolResult blocks at messages.2.content for the following Ids: b",
        ),
        (
            [USER, assistant(tool_use()), user(tool_result(), tool_result("t2"))],
            "toolResult blocks at messages.2.content exceeds the number of toolUse blocks of previous turn",
        ),
        ([user(tool_result())], "The number of toolResult blocks at messages.0.content exceeds"),
        (
            [USER, assistant(tool_use(), tool_use()), user(tool_result())],
            "The toolUse blocks at messages.1.content contain duplicate Ids: t1",
        ),
        (
            [USER, assistant(tool_use()), user(tool_result(), tool_result())],
            "The toolResult blocks at messages.2.content contain duplicate Ids: t1",
        ),
        ([user(tool_use())], "The toolUse block at messages.0.content.0 must be in an assistant message"),
        (
            [USER, assistant(tool_result()), USER],
            "The toolResult block at messages.1.content.0 must be in a user message",
        ),
        (
            [USER, assistant(tool_use()), user(tool_result(content=[], status="error"))],
            "The content field at messages.2.content.0.toolResult cannot be empty when status value is error",
        ),
        (
            [USER, assistant(tool_use()), user(tool_result(content=[{"text": ""}]))],
            "The text field in the ContentBlock object at messages.2.content.0.toolResult.content.0 is blank",
        ),
        (
            [USER, assistant(tool_use()), user(tool_result(content=[{"json": [1]}]))],
            "The format of the value at messages.2.content.0.toolResult.content.0.json is invalid",
        ),
        (
            [USER, assistant(tool_use(input="text")), user(tool_result())],
            "The format of the value at messages.1.content.0.toolUse.input is invalid",
        ),
        (
            [USER, assistant(tool_use(name="a tool")), user(tool_result())],
            (
                "Value 'a tool' at 'messages.1.content.0.toolUse.name' failed to satisfy constraint: "
                "Member must satisfy regular expression pattern: [a-zA-Z0-9_-]+"
            ),
        ),
        (
            [USER, assistant(tool_use("x" * 65)), user(tool_result("x" * 65))],
            (
                "Value at 'messages.1.content.0.toolUse.toolUseId' failed to satisfy constraint: "
                "Member must have length less than or equal to 64"
            ),
        ),
    ],
)
def test_a_conversation_that_bedrock_refuses_is_refused(
    client: Any, model: ScriptedModel, messages: list[dict[str, Any]], message: str
) -> None:
    for operation in (client.converse, client.converse_stream):
        with pytest.raises(ClientError) as failure:
            operation(modelId=MODEL_ID, messages=messages, toolConfig=TOOL_CONFIG)
        assert failure.value.response["Error"]["Code"] == "ValidationException"
        assert failure.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
        assert message in failure.value.response["Error"]["Message"]
    assert model.requests == ()


def _changed_specification(**changes: Any) -> dict[str, Any]:
    return {"toolSpec": {**TOOL_CONFIG["tools"][0]["toolSpec"], **changes}}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"messages": A_TURN}, "The toolConfig field must be defined when using toolUse and toolResult content blocks"),
        ({"toolConfig": {"tools": TOOL_CONFIG["tools"] * 2}}, "duplicate tool names: get_account_balance"),
        (
            {"toolConfig": {**TOOL_CONFIG, "toolChoice": {"tool": {"name": "other"}}}},
            "toolConfig.toolChoice.tool.name: other is not one of the tools",
        ),
        (
            {"toolConfig": {"tools": [_changed_specification(inputSchema={"json": {"type": "array"}})]}},
            "toolConfig.tools.0.toolSpec.inputSchema.json.type must be one of the following: object",
        ),
        (
            {"toolConfig": {"tools": [_changed_specification(name="a.b")]}},
            "Value 'a.b' at 'toolConfig.tools.0.toolSpec.name' failed to satisfy constraint",
        ),
        ({"system": [{"text": " "}]}, "The text field in the SystemContentBlock object at system.0 is blank"),
        ({"inferenceConfig": {"temperature": 1.5}}, "Member must have value less than or equal to 1"),
        (
            {"inferenceConfig": {"temperature": 0.0, "topP": 1.0}},
            "`temperature` and `top_p` cannot both be specified for this model",
        ),
    ],
)
def test_fields_that_bedrock_refuses_are_refused(client: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ClientError, match="ValidationException") as failure:
        client.converse(**{"modelId": MODEL_ID, "messages": [USER], **fields})
    assert message in failure.value.response["Error"]["Message"]


def test_an_older_model_takes_temperature_and_top_p(client: Any) -> None:
    client.converse(
        modelId="anthropic.claude-sonnet-4-20250514-v1:0",
        messages=[USER],
        inferenceConfig={"temperature": 0.0, "topP": 1.0},
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "The request body is not JSON"),
        (b"[]", "The request body must be a JSON object"),
        (b'{"messages": {}}', "Value at 'messages' must be an array"),
        (b'{"messages": [{"role": "user"}]}', "Value at 'messages.0.content' failed to satisfy constraint"),
        (b'{"messages": [{"role": "robot", "content": []}]}', "Member must satisfy enum value set"),
        (b'{"messages": [{"role": "user", "content": [{}]}]}', "must have exactly one member of text, image"),
        (b'{"messages": [{"role": "user", "content": [{"text": 1}]}]}', "must be a string"),
        (b'{"inferenceConfig": {"maxTokens": true}}', "Value at 'inferenceConfig.maxTokens' must be a integer"),
        (b'{"mesages": []}', "'mesages' is not a field of"),
        (
            b'{"messages": [{"role": "user", "content": [{"image": {"format": "png", "source": {"bytes": "!"}}}]}]}',
            "Value at 'messages.0.content.0.image.source.bytes' is not base64",
        ),
    ],
)
def test_a_body_of_the_wrong_shape_is_refused(endpoint: BedrockEndpoint, body: bytes, message: str) -> None:
    status, error_type, answer = post(endpoint, f"/model/{MODEL_ID}/converse", body)
    assert (status, error_type) == (400, "ValidationException")
    assert message in answer["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/model/m/invoke-model"), ("POST", "/"), ("GET", f"/model/{MODEL_ID}/converse"), ("DELETE", "/nothing")],
)
def test_an_unknown_path_is_not_found(endpoint: BedrockEndpoint, method: str, path: str) -> None:
    status, error_type, answer = post(endpoint, path, b"{}", method)
    assert (status, error_type) == (404, "UnknownOperationException")
    assert path in answer["message"]


def test_embeddings_are_invoked_as_boto3_does_it(client: Any) -> None:
    answer = client.invoke_model(modelId="amazon.titan-embed-text-v2:0", body=json.dumps({"inputText": "tea"}))
    assert answer["contentType"] == "application/json"
    body = json.loads(answer["body"].read())
    assert (len(body["embedding"]), body["inputTextTokenCount"]) == (1024, 2)


def test_a_model_that_has_no_embeddings_cannot_be_invoked(client: Any, endpoint: BedrockEndpoint) -> None:
    with pytest.raises(ClientError) as refused:
        client.invoke_model(modelId=MODEL_ID, body=json.dumps({"inputText": "tea"}))
    assert refused.value.response["Error"] == {
        "Code": "ValidationException",
        "Message": "The provided model identifier is invalid.",
    }
    assert post(endpoint, "/model/m/invoke", b"[]")[:2] == (400, "ValidationException")


def test_a_connection_serves_many_requests_errors_included(endpoint: BedrockEndpoint) -> None:
    port = int(endpoint.url.rsplit(":", 1)[1])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=patient(20))
    connection.connect()
    first_socket = connection.sock
    statuses = []
    for path in (f"/model/{MODEL_ID}/converse", "/nothing", f"/model/{MODEL_ID}/converse-stream", "/nothing"):
        connection.request("POST", path, json.dumps({"messages": [USER]}).encode())
        response = connection.getresponse()
        response.read()
        statuses.append(response.status)
    assert statuses == [200, 404, 200, 404]
    assert connection.sock is first_socket
    connection.close()


def test_requests_are_served_side_by_side(client: Any, model: ScriptedModel) -> None:
    model.pause()
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(client.converse, modelId=MODEL_ID, messages=[USER]) for _ in range(8)]
        model.wait_for_requests(8, timeout_seconds=20)
        model.resume()
        assert [answer.result(20)["stopReason"] for answer in answers] == ["end_turn"] * 8


class _Endless:
    """Streams until it is closed."""

    name = "endless"

    def __init__(self) -> None:
        self.closed = threading.Event()

    def converse(self, request: ConverseRequest) -> Iterator[StreamEvent]:
        try:
            while True:
                yield StreamEvent("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "x" * 1000}})
        finally:
            self.closed.set()


def test_a_caller_that_goes_away_ends_the_model_call(
    client: Any, endpoint: BedrockEndpoint, capfd: pytest.CaptureFixture[str]
) -> None:
    endless = _Endless()
    endpoint.backend = endless
    others = set(threading.enumerate())
    stream = client.converse_stream(modelId=MODEL_ID, messages=[USER])["stream"]
    next(iter(stream))
    stream.close()
    assert endless.closed.wait(timeout=patient(20))
    for thread in set(threading.enumerate()) - others:
        thread.join(20)
    assert "Traceback" not in capfd.readouterr().err


def test_closing_ends_connections_and_frees_the_port(model: ScriptedModel) -> None:
    endpoint = BedrockEndpoint(model)
    port = int(endpoint.url.rsplit(":", 1)[1])
    idle = socket.create_connection(("127.0.0.1", port), timeout=patient(20))
    idle.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert idle.recv(65536).startswith(b"HTTP/1.1 404")
    endpoint.close()
    assert idle.recv(1) == b""
    idle.close()
    again = BedrockEndpoint(model, port)
    again.close()


def test_a_taken_port_is_an_os_error(endpoint: BedrockEndpoint, model: ScriptedModel) -> None:
    with pytest.raises(OSError, match="in use"):
        BedrockEndpoint(model, int(endpoint.url.rsplit(":", 1)[1]))
