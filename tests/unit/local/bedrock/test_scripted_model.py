"""The scripted model answers by its rules, and says loudly when they do not fit."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from local.bedrock.converse_answer import converse_answer
from local.bedrock.model_backend import ConverseRequest, ModelError, StreamEvent
from local.bedrock.scripted_model import ScriptedModel, ScriptError

USER = {"role": "user", "content": [{"text": "What is the balance?"}]}
ASKS = {
    "role": "assistant",
    "content": [{"toolUse": {"toolUseId": "t1", "name": "get_account_balance", "input": {"account_id": "1"}}}],
}
RESULT = {"role": "user", "content": [{"toolResult": {"toolUseId": "t1", "content": [{"json": {"balance": 48392.5}}]}}]}


def request(*messages: dict[str, Any], model_id: str = "model-a") -> ConverseRequest:
    return ConverseRequest(model_id, {"messages": list(messages or (USER,))}, True)


def text_of(model: ScriptedModel, asked: ConverseRequest) -> str:
    return "".join(event.body["delta"]["text"] for event in model.converse(asked) if event.name == "contentBlockDelta")


def error_of(model: ScriptedModel, asked: ConverseRequest) -> ModelError:
    with pytest.raises(ModelError) as failure:
        list(model.converse(asked))
    return failure.value


def test_the_first_rule_that_matches_and_has_uses_left_answers() -> None:
    model = ScriptedModel(
        [
            {"when": {"text": "^weather"}, "reply": {"text": "never"}},
            {"when": {"text": "balance"}, "times": 2, "reply": {"text": "first"}},
            {"reply": {"text": "rest"}},
        ]
    )
    assert [text_of(model, request()) for _ in range(4)] == ["first", "first", "rest", "rest"]


@pytest.mark.parametrize(
    ("when", "matches"),
    [
        ({"step": 2}, True),
        ({"step": 1}, False),
        ({"model": "model-a"}, True),
        ({"model": "model"}, False),
        ({"lastToolResult": "48392"}, True),
        ({"lastToolResult": "^nothing$"}, False),
        ({"text": "balance", "step": 2, "model": "model-a", "lastToolResult": "balance"}, True),
        ({"text": "balance", "step": 2, "model": "model-b"}, False),
    ],
)
def test_every_condition_of_when_counts(when: dict[str, Any], matches: bool) -> None:
    model = ScriptedModel([{"when": when, "reply": {"text": "matched"}}, {"reply": {"text": "no"}}])
    assert text_of(model, request(USER, ASKS, RESULT)) == ("matched" if matches else "no")


@pytest.mark.parametrize(("choice", "answer"), [({"tool": {"name": "save"}}, "forced"), ({"auto": {}}, "free")])
def test_a_forced_tool_is_told_from_an_ordinary_request(choice: dict[str, Any], answer: str) -> None:
    model = ScriptedModel(
        [
            {"when": {"forcedTool": "save"}, "reply": {"text": "forced"}},
            {"when": {"forcedTool": ""}, "reply": {"text": "free"}},
        ]
    )
    asked = ConverseRequest("model-a", {"messages": [USER], "toolConfig": {"tools": [], "toolChoice": choice}}, True)
    assert text_of(model, asked) == answer


def test_a_tool_that_the_system_texts_demand_counts_as_forced() -> None:
    model = ScriptedModel([{"when": {"forcedTool": "save"}, "reply": {"text": "forced"}}, {"reply": {"text": "free"}}])
    tools = [{"toolSpec": {"name": "save", "inputSchema": {"json": {"type": "object"}}}}]
    told = {"system": [{"text": "Save it.\n\nAnswer by calling the tool save, and say nothing beside it."}]}

    assert text_of(model, ConverseRequest("a", {"messages": [USER], "toolConfig": {"tools": tools}, **told}, True)) == (
        "forced"
    )
    assert text_of(model, ConverseRequest("a", {"messages": [USER], **told}, True)) == "free", "it has no such tool"
    assert text_of(model, ConverseRequest("a", {"messages": [USER], "toolConfig": {"tools": tools}}, True)) == "free"


@pytest.mark.parametrize(("field", "has"), [("inferenceConfig.topP", True), ("inferenceConfig.temperature", False)])
def test_a_rule_may_ask_for_a_field_of_the_request(field: str, has: bool) -> None:
    model = ScriptedModel([{"when": {"has": field}, "reply": {"text": "it has"}}, {"reply": {"text": "it has not"}}])
    asked = ConverseRequest("model-a", {"messages": [USER], "inferenceConfig": {"topP": 1}}, True)

    assert text_of(model, asked) == ("it has" if has else "it has not")


def test_a_tool_result_of_an_earlier_turn_is_not_the_last_one() -> None:
    model = ScriptedModel([{"when": {"lastToolResult": "48392"}, "reply": {"text": "old"}}, {"reply": {"text": "new"}}])
    done = {"role": "assistant", "content": [{"text": "48,392.50"}]}
    assert text_of(model, request(USER, ASKS, RESULT, done, USER)) == "new"


def test_a_reply_with_tools_is_a_whole_converse_stream() -> None:
    reply = {
        "text": "One moment.",
        "toolUse": [
            {"name": "get_account_balance", "input": {"account_id": "12345"}},
            {"name": "ping", "toolUseId": "p"},
        ],
        "usage": {"inputTokens": 7, "outputTokens": 3, "totalTokens": 10},
    }
    events = list(ScriptedModel([{"reply": reply}]).converse(request()))
    events[-1] = StreamEvent("metadata", {**events[-1].body, "metrics": {"latencyMs": 0}})
    answer = converse_answer(events)
    content = answer["output"]["message"]["content"]
    identifier = content[1]["toolUse"].pop("toolUseId")
    assert identifier.startswith("tooluse_")
    assert answer == {
        "output": {
            "message": {
                "role": "assistant",
                "content": [
                    {"text": "One moment."},
                    {"toolUse": {"name": "get_account_balance", "input": {"account_id": "12345"}}},
                    {"toolUse": {"toolUseId": "p", "name": "ping", "input": {}}},
                ],
            }
        },
        "stopReason": "tool_use",
        "usage": {"inputTokens": 7, "outputTokens": 3, "totalTokens": 10},
        "metrics": {"latencyMs": 0},
    }


def test_an_error_is_raised_before_the_first_event() -> None:
    model = ScriptedModel([{"error": {"status": 429, "type": "ThrottlingException", "message": "Slow down"}}])
    error = error_of(model, request())
    assert (error.status, error.error_type, error.message) == (429, "ThrottlingException", "Slow down")


def test_a_broken_stream_fails_after_so_many_events() -> None:
    model = ScriptedModel([{"reply": {"text": "never finished"}, "breakAfter": 2}])
    stream = model.converse(request())
    assert [next(stream).name, next(stream).name] == ["messageStart", "contentBlockDelta"]
    with pytest.raises(ModelError) as failure:
        next(stream)
    assert failure.value.error_type == "ModelStreamErrorException"


def test_a_request_that_no_rule_matches_is_refused_with_what_was_asked() -> None:
    model = ScriptedModel([{"when": {"text": "weather"}, "reply": {"text": "sunny"}}])
    error = error_of(model, request(USER, ASKS, RESULT))
    assert (error.status, error.error_type) == (400, "ValidationException")
    assert error.message == (
        "The script has no reply left for text 'What is the balance?', step 2, model 'model-a', "
        'last tool result \'{"json": {"balance": 48392.5}}\' (rules: 1).'
    )
    assert len(model.requests) == 1


def test_requests_are_recorded_and_replace_begins_anew() -> None:
    model = ScriptedModel([{"times": 1, "reply": {"text": "one"}}])
    text_of(model, request(model_id="model-b"))
    [recorded] = model.requests
    assert (recorded.model_id, recorded.body, recorded.is_stream) == ("model-b", {"messages": [USER]}, True)
    model.replace([{"times": 1, "reply": {"text": "two"}}])
    assert model.requests == ()
    assert text_of(model, request()) == "two"


def test_uses_are_counted_across_threads() -> None:
    model = ScriptedModel([{"times": 20, "reply": {"text": "a"}}, {"reply": {"text": "b"}}])
    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(text_of(model, request()))) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(answers) == ["a"] * 20 + ["b"] * 10
    assert len(model.requests) == 30


def test_a_paused_model_records_the_request_and_answers_when_resumed() -> None:
    model = ScriptedModel([{"reply": {"text": "late"}}])
    model.pause()
    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.append(text_of(model, request())))
    thread.start()
    model.wait_for_requests(1, timeout_seconds=10)
    assert answers == []
    model.resume()
    thread.join(10)
    assert answers == ["late"]


def test_waiting_for_a_request_that_does_not_come_times_out() -> None:
    with pytest.raises(TimeoutError, match="0 of 1 requests"):
        ScriptedModel([]).wait_for_requests(1, timeout_seconds=0.01)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"when": {"txt": "x"}, "reply": {}}, "replies[0].when: unknown field 'txt'"),
        ({"when": {"text": "("}, "reply": {}}, "replies[0].when.text: not a regular expression"),
        ({"when": {"step": "1"}, "reply": {}}, "replies[0].when: step must be a whole number"),
        ({}, "replies[0]: has to have either reply or error"),
        ({"reply": {}, "error": {"status": 500, "type": "X"}}, "replies[0]: has to have either reply or error"),
        ({"breakAfter": 1}, "replies[0]: breakAfter needs the reply that it breaks"),
        ({"error": {"type": "X"}}, "replies[0].error: status is missing"),
        ({"reply": {"toolUse": [{}]}}, "replies[0].reply.toolUse[0]: name is missing"),
        ({"reply": "text"}, "replies[0].reply: must be an object"),
        ("text", "replies[0]: must be an object"),
    ],
)
def test_a_script_that_breaks_the_format_is_refused_with_the_place(rule: Any, message: str) -> None:
    with pytest.raises(ScriptError) as failure:
        ScriptedModel([rule])
    assert str(failure.value).startswith(message)


def test_a_script_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "script.json"
    file.write_text(json.dumps({"replies": [{"reply": {"text": "from the file"}}]}))
    assert text_of(ScriptedModel.from_file(file), request()) == "from the file"
    file.write_text("[]")
    with pytest.raises(ScriptError, match='object with the list "replies"'):
        ScriptedModel.from_file(file)


def test_an_answer_is_delayed(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("local.bedrock.scripted_model.time.sleep", waited.append)
    assert text_of(ScriptedModel([{"delayMs": 50, "reply": {"text": "late"}}]), request()) == "late"
    assert waited == [0.05]
