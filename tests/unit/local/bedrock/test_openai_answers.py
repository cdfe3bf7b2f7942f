"""What OpenAI-compatible servers really send: the bridge makes one answer of it, or says what is wrong."""

import io
import json
from collections.abc import Iterator, Sequence
from http.client import HTTPResponse
from typing import Any

import pytest

from local.bedrock.converse_answer import converse_answer
from local.bedrock.model_backend import ConverseRequest, ModelError, StreamEvent
from local.bedrock.openai_answers import answer_events, chunks

REQUEST = ConverseRequest("model-a", {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}, True)
EVENTS, DOCUMENT = "text/event-stream; charset=utf-8", "application/json; charset=utf-8"


class _Connection:
    """A socket with an answer in it."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def makefile(self, *_: object) -> io.BytesIO:
        return io.BytesIO(self._answer)


def events_of(body: bytes, media_type: str = EVENTS, request: ConverseRequest = REQUEST) -> Iterator[StreamEvent]:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {media_type}\r\nconnection: close\r\n\r\n".encode()
    response = HTTPResponse(_Connection(head + body))  # type: ignore[arg-type]  # it needs makefile alone
    response.begin()
    return answer_events(request, chunks(response))


def sent(*parts: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(part).encode() + b"\n\n" for part in parts) + b"data: [DONE]\n\n"


def chunk(finish_reason: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}


def piece(name: str | None, arguments: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **fields}


def answer(body: bytes, media_type: str = EVENTS, request: ConverseRequest = REQUEST) -> tuple[Any, ...]:
    """The content blocks and the stop reason."""
    read = [
        StreamEvent(event.name, {**event.body, "metrics": {}} if event.name == "metadata" else event.body)
        for event in events_of(body, media_type, request)
    ]
    whole = converse_answer(read)
    return *whole["output"]["message"]["content"], whole["stopReason"]


def calls(body: bytes, request: ConverseRequest = REQUEST) -> list[tuple[str, Any]]:
    """The tool calls, their names and arguments; their ids are different and valid."""
    *blocks, reason = answer(body, request=request)
    uses = [block["toolUse"] for block in blocks if "toolUse" in block]
    assert len({use["toolUseId"] for use in uses}) == len(uses)
    assert reason == ("tool_use" if uses else "end_turn")
    return [(use["name"], use["input"]) for use in uses]


def failure(body: bytes, media_type: str = EVENTS) -> tuple[int, str, str]:
    with pytest.raises(ModelError) as failed:
        list(events_of(body, media_type))
    return failed.value.status, failed.value.error_type, failed.value.message


TWO = [("get", {"id": 1}), ("get", {"id": 2})]


@pytest.mark.parametrize(
    "pieces",
    [
        [[piece("get", '{"id": 1}', index=0, id="a")], [piece("get", '{"id": 2}', index=0, id="b")]],
        [[piece("get", '{"id": 1}', index=0, id="a"), piece("get", '{"id": 2}', index=0, id="b")]],
        [[piece("get", '{"id": 1}', id="a")], [piece("get", '{"id": 2}', id="b")]],
        [[piece("get", '{"id": 1}', index=0)], [piece("get", '{"id": 2}', index=0)]],
        [[piece("get", '{"id": 1}'), piece("get", '{"id": 2}')]],
        [[piece("get", '{"id": 1}', id="")], [piece("get", '{"id": 2}', id=None)]],
        [[piece("get", '{"id": 1}', index=0, id="null")], [piece("get", '{"id": 2}', index=0, id="null")]],
        [[piece("get", '{"id": 1}', index=0, id="x")], [piece("get", '{"id": 2}', index=0, id="x")]],
        [[piece("get", '{"id": 1}', index=0, id="x")], [piece("get", '{"id": 2}', index=1, id="x")]],
        [[piece("get", {"id": 1}, index=0, id="a")], [piece("get", {"id": 2}, index=0, id="b")]],
        [
            [piece("get", "", index=0, id="a")],
            [piece(None, '{"id"', index=0)],
            [piece("", ": 1}", index=0, id="")],
            [piece("get", "", index=0, id="b")],
            [piece(None, '{"id": 2}', index=0, id="b")],
        ],
        [
            [piece("get", "", index=0, id="a"), piece("get", "", index=1, id="b")],
            [piece(None, '{"id": 2}', index=1), piece(None, '{"id": 1}', index=0)],
        ],
        [
            [piece("get", '{"id"', index=0, id="a")],
            [piece("get", ": 1}", index=0, id="a")],
            [piece("get", "", index=0, id="a")],
            [piece("get", '{"id": 2}', index=1, id="b")],
        ],
        [[piece("get", '{"id"')], [piece("get", ": 1}")], [piece("get", '{"id": 2}')]],
        [[piece("get", "", index=0)], [piece(None, '{"id": 1}', id="a")], [piece("get", '{"id": 2}', id="b")]],
    ],
    ids=[
        *("all index 0", "in one chunk", "no index", "no id", "neither", "blank ids", "Mistral's id", "one id"),
        *("one id, two indices", "objects", "in pieces", "interleaved", "id and name repeated", "name repeated"),
        "late id",
    ],
)
def test_two_calls_are_two_however_they_are_numbered(pieces: Sequence[Any]) -> None:
    assert calls(sent(*(chunk(tool_calls=each) for each in pieces), chunk("tool_calls"))) == TWO


@pytest.mark.parametrize(
    ("arguments", "read"),
    [
        ('{"id": 1}', {"id": 1}),
        ({"id": 1}, {"id": 1}),
        ({}, {}),
        (None, {}),
        ("", {}),
        (" \n", {}),
        ("null", {}),
        ('"{\\"id\\": 1}"', {"id": 1}),
        ('""', {}),
    ],
    ids=repr,
)
def test_arguments_are_read_as_they_come(arguments: Any, read: Any) -> None:
    assert calls(sent(chunk("tool_calls", tool_calls=[piece("get", arguments, index=0, id="a")]))) == [("get", read)]


@pytest.mark.parametrize("arguments", ["{", "[1]", [1], "5", '"text"', '{"a": 1}{"a": 2}', "[" * 100_000])
def test_arguments_that_are_no_object_fail(arguments: Any) -> None:
    status, kind, message = failure(sent(chunk("tool_calls", tool_calls=[piece("get", arguments, index=0)])))
    assert (status, kind) == (424, "ModelErrorException")
    assert message.startswith("the model's input of tool get is not JSON of an object: ")


@pytest.mark.parametrize("reason", ["stop", "tool_calls", "function_call", "eos", "tool_use"])
def test_an_answer_with_tool_calls_uses_tools_whatever_its_finish_reason(reason: str) -> None:
    assert calls(sent(chunk(reason, tool_calls=[piece("get", "{}", index=0)]))) == [("get", {})]


@pytest.mark.parametrize("reason", ["length", "model_length", "max_tokens"])
def test_an_answer_that_was_cut_says_so_and_its_cut_arguments_stay_cut(reason: str) -> None:
    whole, cut = piece("get", '{"id": 1}', index=0, id="a"), piece("get", '{"id": "12', index=1, id="b")
    assert answer(sent(chunk(content="Hi"), chunk(reason, tool_calls=[whole]))) == (
        {"text": "Hi"},
        {"toolUse": {"toolUseId": "a", "name": "get", "input": {"id": 1}}},
        "max_tokens",
    )
    read = list(events_of(sent(chunk(reason, tool_calls=[whole, cut]))))
    inputs = ["", ""]
    for event in read:
        if event.name == "contentBlockDelta":
            inputs[event.body["contentBlockIndex"]] += event.body["delta"]["toolUse"]["input"]
    assert inputs == ['{"id": 1}', '{"id": "12']
    assert read[-2].body == {"stopReason": "max_tokens"}


@pytest.mark.parametrize("last", [piece("get", "", index=1, id="b"), piece(None, None, index=1, id="b")])
def test_a_call_that_was_cut_before_its_arguments_began_is_left_out(last: Any) -> None:
    whole = piece("get", '{"id": 1}', index=0, id="a")
    assert answer(sent(chunk(tool_calls=[whole]), chunk("length", tool_calls=[last]))) == (
        {"toolUse": {"toolUseId": "a", "name": "get", "input": {"id": 1}}},
        "max_tokens",
    )


@pytest.mark.parametrize(
    "content",
    [
        "Hello",
        [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}],
        {"type": "text", "text": "Hello"},
        ["Hel", None, {"text": "lo"}],
        [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "output_text", "text": "Hello"}],
    ],
    ids=["text", "parts", "part", "mixed", "thinking"],
)
def test_content_is_text_or_a_list_of_parts(content: Any) -> None:
    quiet = [chunk(content=nothing) for nothing in ("", None, [], [{"type": "reasoning", "text": "hm"}])]
    assert answer(sent(*quiet, chunk(content=content), chunk("stop"))) == ({"text": "Hello"}, "end_turn")


def test_reasoning_is_left_out_and_a_refusal_is_told() -> None:
    reasoning = [chunk(reasoning_content="hm"), chunk(reasoning="hm", content=None)]
    assert answer(sent(*reasoning, chunk("stop", content="Hi"))) == ({"text": "Hi"}, "end_turn")
    assert answer(sent(*reasoning, chunk("stop", refusal="I cannot."))) == ({"text": "I cannot."}, "end_turn")


WHOLE = {"role": "assistant", "content": "Hello", "tool_calls": [piece("get", {"id": 1}, id="a")]}
USED = ({"text": "Hello"}, {"toolUse": {"toolUseId": "a", "name": "get", "input": {"id": 1}}}, "tool_use")


@pytest.mark.parametrize(
    "before",
    [
        [],
        [chunk(content="Hel")],
        [chunk(content="Hello"), chunk(tool_calls=[piece("get", '{"id": 1}', index=0, id="a")])],
    ],
)
def test_a_whole_message_at_the_end_adds_what_was_not_said(before: list[Any]) -> None:
    assert answer(sent(*before, {"choices": [{"index": 0, "finish_reason": "stop", "message": WHOLE}]})) == USED


def test_an_answer_that_is_not_streamed_is_read() -> None:
    document = {"choices": [{"finish_reason": "tool_calls", "message": WHOLE}], "usage": {"prompt_tokens": 3}}
    assert answer(json.dumps(document).encode(), DOCUMENT) == USED


def test_the_older_function_call_is_read() -> None:
    pieces = [{"name": "get", "arguments": ""}, {"arguments": '{"id"'}, {"name": None, "arguments": ": 1}"}]
    assert calls(sent(*(chunk(function_call=each) for each in pieces), chunk("function_call"))) == TWO[:1]


def test_ids_that_the_conversation_has_already_are_replaced() -> None:
    used = {"role": "assistant", "content": [{"toolUse": {"toolUseId": "call_0", "name": "get", "input": {}}}]}
    request = ConverseRequest("m", {"messages": [used]}, True)
    body = sent(chunk("tool_calls", tool_calls=[piece("get", "{}", id="call_0"), piece("get", "{}", id="no good!")]))
    first, second, _ = answer(body, request=request)
    assert first["toolUse"]["toolUseId"].startswith("tooluse_")
    assert second["toolUse"]["toolUseId"].startswith("tooluse_")
    assert first != second
    assert answer(body, request=request) == (first, second, "tool_use")


@pytest.mark.parametrize(
    "usages",
    [
        [None, {"prompt_tokens": 3, "completion_tokens": 7}],
        [{"prompt_tokens": 3, "completion_tokens": 1}, {"prompt_tokens": 3, "completion_tokens": 7}],
        [{"prompt_tokens": 3, "completion_tokens": 7}, None],
        [{"prompt_tokens": 3, "completion_tokens": 7}, "none"],
    ],
)
def test_the_last_usage_counts(usages: list[Any]) -> None:
    body = sent(chunk(content="Hi"), chunk("stop"), *({"choices": [], "usage": usage} for usage in usages))
    assert list(events_of(body))[-1].body == {"usage": {"inputTokens": 3, "outputTokens": 7, "totalTokens": 10}}


@pytest.mark.parametrize("usage", [{}, {"prompt_tokens": None, "completion_tokens": 0}, {"prompt_tokens": "3"}])
def test_what_is_not_counted_is_estimated(usage: Any) -> None:
    *_, metadata = events_of(sent({**chunk("stop", content="x" * 400), "usage": usage}))
    assert metadata.body["usage"]["outputTokens"] >= 100
    assert metadata.body["usage"]["inputTokens"] > 5


HI, STOP = json.dumps(chunk(content="Hi")).encode(), json.dumps(chunk("stop")).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"data:" + HI + b"\n\ndata:" + STOP + b"\n\ndata:[DONE]\n\n",
        b"data: " + HI + b"\r\n\r\ndata: " + STOP + b"\r\n\r\ndata: [DONE]\r\n\r\n",
        b"data: " + HI + b"\ndata: " + STOP + b"\n",
        b": OPENROUTER PROCESSING\n\ndata:\n\ndata: " + HI + b"\n\n:\n\nid: 5\nretry: 3\ndata: " + STOP,
        b"event: message\ndata: " + HI[:12] + b"\n:\ndata: " + HI[12:] + b"\n\ndata: " + STOP + b"\n\n",
        b'data: {"choices": null}\n\ndata: {"choices": []}\n\ndata: {"error": null, "choices": [{}]}\n\n'
        + sent(chunk(content="Hi"), {"choices": [{"index": 1, "delta": {"content": "Ho"}}]}, chunk("stop")),
        sent(chunk(content="Hi"), chunk("stop")) + b"data: what comes later\n\n",
    ],
    ids=["no space", "CRLF", "no blank lines", "comments", "two lines", "empty choices", "after the end"],
)
def test_the_framing_may_differ(body: bytes) -> None:
    assert answer(body) == ({"text": "Hi"}, "end_turn")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"error": {"message": "the reason", "code": 429}}, (429, "ThrottlingException")),
        ({"error": {"message": "the reason", "code": "server_error"}}, (424, "ModelStreamErrorException")),
        ({"error": "the reason"}, (424, "ModelStreamErrorException")),
        ({"object": "error", "message": "the reason", "code": 400}, (400, "ValidationException")),
        ({**chunk("error"), "error": {"message": "the reason", "code": 502}}, (503, "ServiceUnavailableException")),
    ],
)
def test_an_error_is_told_wherever_it_comes(error: Any, expected: tuple[int, str]) -> None:
    bodies = [(json.dumps(error).encode(), DOCUMENT), (sent(error), EVENTS), (sent(chunk(content="Hi"), error), EVENTS)]
    for body, media_type in bodies:
        assert failure(body, media_type) == (*expected, "the model server failed: the reason")
    with pytest.raises(ModelError):  # as the answer's status, since no event was sent before
        next(events_of(sent(error)))


def test_an_event_named_error_is_one() -> None:
    named = b'event: error\ndata: {"message": "the reason"}\n\n'
    assert failure(sent(chunk(content="Hi"))[:-14] + named)[2] == "the model server failed: the reason"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "has no answer in it"),
        (b": a comment\n\n", "has no answer in it"),
        (b"data: [DONE]\n\n", "has no answer in it"),
        (sent(chunk(content="Hi")), "has no finish_reason"),
        (b"data: " + HI + b"\n\ndata: " + STOP[:20], "is not JSON"),
        (b"data: " + HI + b"\n\ndata: " + STOP[:20] + b"\n\ndata: " + STOP + b"\n\n", "is not JSON"),
        (b"data: [1]\n\n", "is not an object"),
        (sent(chunk("error", content="Hi")), "its finish_reason is error"),
        (sent(chunk("tool_calls", content="Hi")), "is tool_calls, but it sent no tool call"),
        (sent(chunk("stop", content=5)), "content that is no text: 5"),
        (sent({"choices": {"delta": {}}}), "no list of objects"),
        (sent({"choices": [{"delta": "Hi"}]}), "no list of objects"),
        (sent(chunk("stop", tool_calls=[{"function": "get"}])), "no list of objects"),
        (sent(chunk("stop", tool_calls=["get"])), "no list of objects"),
    ],
)
def test_what_is_no_whole_answer_fails(body: bytes, message: str) -> None:
    status, kind, told = failure(body)
    assert (status, kind) == (424, "ModelStreamErrorException")
    assert message in told
