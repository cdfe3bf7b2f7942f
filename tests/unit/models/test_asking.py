from typing import Any

import pytest

from turnwright.models import model_calls
from turnwright.models.asking import BrokenAnswer, Form, ask
from turnwright.models.converse import Reply
from turnwright.storage.keys import SessionId
from turnwright.tracing.trace_events import Source
from turnwright.tracing.traces import Traces

FORM = Form("summarize", "Takes a summary.", {"type": "object", "properties": {"summary": {"type": "string"}}})


def asked(monkeypatch: pytest.MonkeyPatch, *stop_reasons: str) -> tuple[Any, list[Any]]:
    """The answer of a model whose replies end so, and the requests that it was sent."""
    requests: list[Any] = []
    replies = iter(stop_reasons)

    def converse(arguments: Any, _timeout_seconds: int) -> Reply:
        requests.append(arguments)
        use = {"toolUseId": "t-1", "name": "summarize", "input": {"summary": "All of it."}}
        return Reply({"role": "assistant", "content": [{"toolUse": use}]}, next(replies), {"inputTokens": 1})

    monkeypatch.setattr(model_calls, "converse", converse)
    traces = Traces(Source.of_session(SessionId("store", "user-1", "s-1")))
    try:
        return ask(["model-1"], 0, "Summarize.", "Hello", FORM, traces).value, requests
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
