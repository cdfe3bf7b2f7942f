"""Model calls against a small server on the loopback interface, by the client that the runtime uses."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.unit.samples import MODEL, agent
from tests.waiting import patient
from turnwright.api.event_stream import CONTENT_TYPE, event, exception, frame
from turnwright.errors import ModelAccessDenied, ModelError, ModelRejected, ModelThrottled, ModelUnavailable
from turnwright.models import converse, model_calls
from turnwright.models.converse import Reply
from turnwright.storage import clients


@dataclass
class Model:
    """What the server answers next, and what it was asked. `ends` is how: whole, cut, silent or talking on."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: list[bytes] = field(default_factory=list)
    ends: str = "whole"
    asked: list[tuple[str, Any]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[Model]:
    scripted = Model()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            scripted.asked.append((self.path, json.loads(self.rfile.read(length))))
            self.send_response(scripted.status)
            for name, value in scripted.headers.items():
                self.send_header(name, value)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in scripted.body:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            if scripted.ends == "silent":
                scripted.over.wait(timeout=patient(30))
            if scripted.ends == "talking on":
                self._talk_on(scripted.body[-1])
            if scripted.ends == "whole":
                self.wfile.write(b"0\r\n\r\n")
            else:
                self.close_connection = True

        def _talk_on(self, piece: bytes) -> None:
            for _ in range(300):
                if scripted.over.wait(0.02):
                    return
                try:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                except ConnectionError:
                    return

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setattr(model_calls, "_learned", {})
    clients.bedrock_runtime.cache_clear()
    yield scripted
    clients.bedrock_runtime.cache_clear()
    scripted.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


ANSWER = [
    event("messageStart", {"role": "assistant"}),
    event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hello"}}),
    event("contentBlockStop", {"contentBlockIndex": 0}),
    event("messageStop", {"stopReason": "end_turn"}),
    event(
        "metadata",
        {"usage": {"inputTokens": 3, "outputTokens": 4, "totalTokens": 7}, "metrics": {"latencyMs": 9}},
    ),
]


def arguments(**changes: Any) -> dict[str, Any]:
    asked = converse.request(agent(), MODEL, [converse.user_message("Hi")], {}, may_use_tools=True)
    return {**asked, **changes}


def failure(timeout_seconds: int = 5, **changes: Any) -> ModelError:
    with pytest.raises(ModelError) as raised:
        model_calls.converse(arguments(**changes), timeout_seconds)
    assert str(raised.value).startswith(MODEL)
    return raised.value


def test_an_answer_is_read_to_its_end(model: Model) -> None:
    model.headers = {"Content-Type": CONTENT_TYPE}
    model.body = ANSWER

    assert model_calls.converse(arguments(), 5) == Reply(
        {"role": "assistant", "content": [{"text": "Hello"}]},
        "end_turn",
        {"inputTokens": 3, "outputTokens": 4, "totalTokens": 7},
        ("topP beside temperature",),
    )
    ((path, asked),) = model.asked
    assert path == "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse-stream"
    wanted = {name: value for name, value in arguments().items() if name != "modelId"}
    del wanted["inferenceConfig"]["topP"]
    assert asked == wanted


def test_redacted_reasoning_goes_back_in_the_form_it_came_in(model: Model) -> None:
    model.headers = {"Content-Type": CONTENT_TYPE}
    block = {"contentBlockIndex": 0, "delta": {"reasoningContent": {"redactedContent": "AAH/"}}}
    model.body = [event("contentBlockDelta", block), *ANSWER[3:]]
    thought = model_calls.converse(arguments(), 5).message

    model.body = ANSWER
    model_calls.converse(arguments(messages=[converse.user_message("Hi"), thought, converse.user_message("So?")]), 5)

    assert model.asked[-1][1]["messages"][1]["content"][0] == {"reasoningContent": {"redactedContent": "AAH/"}}


def test_a_tool_use_is_no_part_of_an_answer_that_may_have_none(model: Model) -> None:
    model.headers = {"Content-Type": CONTENT_TYPE}
    use = {"contentBlockIndex": 1, "start": {"toolUse": {"toolUseId": "t-1", "name": "search"}}}
    model.body = [*ANSWER[:3], event("contentBlockStart", use), *ANSWER[3:]]
    last_step = converse.request(agent(), MODEL, [converse.user_message("Hi")], {}, may_use_tools=False)

    assert model_calls.converse(last_step, 5).message["content"] == [{"text": "Hello"}]
    assert len(model_calls.converse(arguments(), 5).message["content"]) == 2


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (429, "ThrottlingException", ModelThrottled),
        (400, "ThrottlingException", ModelThrottled),
        (400, "ServiceQuotaExceededException", ModelThrottled),
        (429, "SomethingNew", ModelThrottled),
        (429, "ModelNotReadyException", ModelUnavailable),
        (408, "ModelTimeoutException", ModelUnavailable),
        (424, "ModelErrorException", ModelUnavailable),
        (500, "InternalServerException", ModelUnavailable),
        (503, "ServiceUnavailableException", ModelUnavailable),
        (502, "SomethingNew", ModelUnavailable),
        (400, "ValidationException", ModelRejected),
        (403, "AccessDeniedException", ModelAccessDenied),
        (404, "ResourceNotFoundException", ModelAccessDenied),
        (403, "SomethingNew", ModelAccessDenied),
        (418, "SomethingNew", ModelRejected),
    ],
)
def test_each_error_answer_is_what_it_means_for_the_turn_and_is_asked_once(
    model: Model, status: int, code: str, expected: type[ModelError]
) -> None:
    model.status = status
    model.headers = {"Content-Type": "application/json", "x-amzn-ErrorType": code}
    model.body = [b'{"message": "because"}']

    error = failure()

    assert type(error) is expected
    assert code in str(error)
    assert "because" in str(error)
    is_shape = code == "ValidationException"
    assert len(model.asked) == 1 + is_shape, "the state machine retries, the client repeats what breaks a rule, once"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("throttlingException", ModelThrottled),
        ("internalServerException", ModelUnavailable),
        ("modelStreamErrorException", ModelUnavailable),
        ("serviceUnavailableException", ModelUnavailable),
        ("validationException", ModelRejected),
    ],
)
def test_each_exception_in_the_middle_of_a_stream_is_what_it_means_for_the_turn(
    model: Model, name: str, expected: type[ModelError]
) -> None:
    model.headers = {"Content-Type": CONTENT_TYPE}
    model.body = [*ANSWER[:2], exception(name, {"message": "because"})]

    error = failure()

    assert type(error) is expected
    assert "because" in str(error)


@pytest.mark.parametrize("kept", [0, 1, 3, 4])
@pytest.mark.parametrize("ends", ["whole", "cut"])
def test_a_stream_without_its_end_is_unavailable_however_it_ends(model: Model, kept: int, ends: str) -> None:
    model.headers = {"Content-Type": CONTENT_TYPE}
    model.body = ANSWER[:kept]
    model.ends = ends

    assert type(failure()) is ModelUnavailable


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        *[("contentBlockDelta", payload) for payload in (b"", b"no JSON", b"[]", b"{}", b'{"delta": {"text": "Hi"}}')],
        ("contentBlockDelta", b'{"contentBlockIndex": 0}'),
        ("contentBlockDelta", b'{"contentBlockIndex": 0, "delta": {"text": 5}}'),
        ("contentBlockDelta", b'{"contentBlockIndex": 1, "delta": {"toolUse": {}}}'),
        ("contentBlockStart", b'{"contentBlockIndex": 1}'),
        ("contentBlockStart", b'{"contentBlockIndex": 1, "start": null}'),
        ("messageStop", b"{}"),
        ("metadata", b'{"metrics": {"latencyMs": 1}}'),
    ],
)
def test_an_event_without_what_it_is_about_makes_the_reply_no_answer(model: Model, name: str, payload: bytes) -> None:
    model.headers = {"Content-Type": CONTENT_TYPE}
    headers = {":message-type": "event", ":event-type": name, ":content-type": "application/json"}
    model.body = [*ANSWER[:2], frame(headers, payload), *ANSWER[2:]]

    error = failure()

    assert type(error) is ModelUnavailable
    assert "the model's answer is malformed: " in str(error)


@pytest.mark.parametrize(
    ("stop_reason", "expected"),
    [
        ("malformed_model_output", ModelUnavailable),
        ("malformed_tool_use", ModelUnavailable),
        ("model_context_window_exceeded", ModelRejected),
        ("tool_use", ModelUnavailable),
        ("", ModelUnavailable),
    ],
)
def test_a_reply_whose_stop_reason_forbids_to_use_it_is_a_failed_call(
    model: Model, stop_reason: str, expected: type[ModelError]
) -> None:
    model.headers = {"Content-Type": CONTENT_TYPE}
    model.body = [*ANSWER[:3], event("messageStop", {"stopReason": stop_reason}), ANSWER[4]]

    assert type(failure()) is expected


def test_a_stream_that_is_cut_inside_a_frame_is_unavailable(model: Model) -> None:
    model.headers = {"Content-Type": CONTENT_TYPE}
    model.body = [ANSWER[1], ANSWER[3][:20]]
    model.ends = "cut"

    assert type(failure()) is ModelUnavailable


def test_a_stream_of_broken_frames_is_unavailable(model: Model) -> None:
    model.headers = {"Content-Type": CONTENT_TYPE}
    broken = bytearray(frame({":message-type": "event"}, b"{}"))
    broken[-1] ^= 1
    model.body = [bytes(broken)]

    assert type(failure()) is ModelUnavailable


@pytest.mark.parametrize("kept", [0, 2], ids=["before the first event", "in the middle"])
def test_a_model_that_falls_silent_is_unavailable(model: Model, kept: int) -> None:
    model.headers = {"Content-Type": CONTENT_TYPE}
    model.body = ANSWER[:kept]
    model.ends = "silent"

    assert type(failure(timeout_seconds=1)) is ModelUnavailable


def test_a_model_that_never_stops_talking_is_unavailable(model: Model) -> None:
    """No single read of its stream takes long."""
    model.headers = {"Content-Type": CONTENT_TYPE}
    model.body = ANSWER[:2]
    model.ends = "talking on"

    error = failure(timeout_seconds=1)

    assert type(error) is ModelUnavailable
    assert str(error) == f"{MODEL} took longer than 1 s"


def test_a_model_that_is_not_reached_is_unavailable(monkeypatch: pytest.MonkeyPatch, model: Model) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "http://127.0.0.1:9")

    assert type(failure()) is ModelUnavailable


def test_a_request_that_botocore_refuses_is_rejected_and_not_tried_again(model: Model) -> None:
    error = failure(messages=[{"role": "user", "content": [{"text": 5}]}])

    assert type(error) is ModelRejected
    assert model.asked == []
