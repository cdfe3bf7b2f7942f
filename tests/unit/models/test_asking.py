import json
from collections.abc import Sequence
from typing import Any

import pytest

from turnwright.models import model_calls
from turnwright.models.asking import BrokenAnswer, Form, ask
from turnwright.models.converse import Reply
from turnwright.storage.keys import SessionId
from turnwright.tracing.trace_events import Source
from turnwright.tracing.traces import Traces

FORM = Form(
    "summarize",
    "Takes a summary.",
    {"type": "object", "properties": {"summary": {"type": "string"}}, "required": ["summary"]},
)


USE = {"toolUse": {"toolUseId": "t-1", "name": "summarize", "input": {"summary": "All of it."}}}


def asked(
    monkeypatch: pytest.MonkeyPatch, *stop_reasons: str, content: Sequence[Any] = (USE,), model: str = "model-1"
) -> tuple[Any, list[Any]]:
    """The answer of a model whose replies end so, and the requests that it was sent."""
    requests: list[Any] = []
    replies = iter(stop_reasons)

    def converse(arguments: Any, _timeout_seconds: int) -> Reply:
        requests.append(arguments)
        return Reply({"role": "assistant", "content": list(content)}, next(replies), {"inputTokens": 1})

    monkeypatch.setattr(model_calls, "converse", converse)
    traces = Traces(Source.of_session(SessionId("store", "user-1", "s-1")))
    try:
        return ask([model], 0, "Summarize.", "Hello", FORM, traces).value, requests
    except BrokenAnswer as broken:
        return str(broken), requests


@pytest.mark.parametrize("stop_reason", ["end_turn", "tool_use", "stop_sequence"])
def test_an_answer_of_a_whole_reply_is_taken(monkeypatch: pytest.MonkeyPatch, stop_reason: str) -> None:
    answer, requests = asked(monkeypatch, stop_reason)

    assert (answer, len(requests)) == ({"summary": "All of it."}, 1)


@pytest.mark.parametrize("stop_reason", ["max_tokens", "content_filtered", "guardrail_intervened", "of_tomorrow"])
def test_an_answer_that_may_be_cut_is_asked_for_once_more_though_it_keeps_the_form(
    monkeypatch: pytest.MonkeyPatch, stop_reason: str
) -> None:
    refusal = f"the input of summarize is cut, so give less: the model stopped with {stop_reason}"

    answer, requests = asked(monkeypatch, stop_reason, "tool_use")
    assert answer == {"summary": "All of it."}
    assert refusal in requests[1]["messages"][0]["content"][0]["text"]

    assert asked(monkeypatch, stop_reason, stop_reason)[0] == refusal


INPUT = json.dumps({"summary": "All of it."})


@pytest.mark.parametrize(
    "text",
    [
        INPUT,
        f"\n{INPUT}\n",
        f"Here it is:\n```json\n{INPUT}\n```\nThat is all.",
        f"```\n{INPUT}\n```",
        f"<thinking>A summary.</thinking>\n{INPUT}",
        f'{{"name": "summarize", "parameters": {INPUT}}}',
        f'{{"name": "summarize", "arguments": {INPUT}}}',
    ],
)
def test_a_model_that_may_not_be_forced_may_write_the_tools_input(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    answer, requests = asked(monkeypatch, "end_turn", content=[{"text": text}])

    assert (answer, len(requests)) == ({"summary": "All of it."}, 1)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("There is nothing to summarize.", "the tool summarize was not called"),
        ("[]", "the tool summarize was not called"),
        ("[" * 100_000, "the tool summarize was not called"),
        (f"```\n{INPUT}\n```\n```\n{INPUT}\n```", "the tool summarize was not called"),
        ('{"summary": 5}', "summary: must keep type string"),
        ('{"name": "forget", "parameters": {}}', "input: summary is missing"),
        ("{}", "input: summary is missing"),
    ],
)
def test_any_other_text_is_a_broken_answer_and_never_nothing_to_remember(
    monkeypatch: pytest.MonkeyPatch, text: str, fault: str
) -> None:
    answer, requests = asked(monkeypatch, "end_turn", "end_turn", content=[{"text": text}])

    assert (answer, len(requests)) == (fault, 2)


def test_a_cut_text_is_a_broken_answer_though_it_keeps_the_form(monkeypatch: pytest.MonkeyPatch) -> None:
    answer, _ = asked(monkeypatch, "max_tokens", "max_tokens", content=[{"text": INPUT}])

    assert answer == "the input of summarize is cut, so give less: the model stopped with max_tokens"


def test_another_tools_call_is_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    other = {"toolUse": {"toolUseId": "t-1", "name": "forget", "input": {}}}

    answer, _ = asked(monkeypatch, "tool_use", "tool_use", content=[{"text": INPUT}, other])

    assert answer == "the tool summarize was not called"


def test_every_request_tells_the_model_which_tool_to_call(monkeypatch: pytest.MonkeyPatch) -> None:
    _, (request,) = asked(monkeypatch, "tool_use")

    told = "Summarize.\n\nAnswer by calling the tool summarize, and say nothing beside it."
    assert request["system"] == [{"text": told}]
    assert request["toolConfig"]["toolChoice"] == {"tool": {"name": "summarize"}}


THOUGHT = {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "c2ln"}}}


@pytest.mark.parametrize(
    ("model", "content", "tokens"),
    [
        ("model-1", [USE], [4_096, 4_096]),
        ("model-1", [THOUGHT, USE], [4_096, 16_384]),
        ("global.anthropic.claude-sonnet-5-5", [USE], [16_384, 16_384]),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", [USE], [4_096, 4_096]),
    ],
)
def test_a_model_that_thinks_gets_room_for_it(
    monkeypatch: pytest.MonkeyPatch, model: str, content: list[Any], tokens: list[int]
) -> None:
    _, requests = asked(monkeypatch, "max_tokens", "tool_use", content=content, model=model)

    assert [request["inferenceConfig"]["maxTokens"] for request in requests] == tokens
