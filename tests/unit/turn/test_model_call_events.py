"""What the log has of a step whose Invoke Model dies, is repeated or races another delivery."""

from typing import Any

import pytest

import invoke_model
from tests.unit.stored_turns import A, Interrupted, StoredTurns, die, text, tool_use
from tests.unit.turn_states import Model, invoke, load, write
from turnwright.sessions.journal import Journal
from turnwright.storage import keys
from turnwright.storage.settings import settings
from turnwright.tracing.payloads import Payloads


def told(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(event["type"], event.get("responseText", event.get("toolName", ""))) for event in events]


def test_an_answer_that_was_recorded_is_in_the_log_wherever_its_handler_died(
    stored: StoredTurns,
    model: Model,
    trace_events: list[dict[str, Any]],
) -> None:
    model.replies = [text("one")]
    turn = load(stored)["turn"]
    stored.dynamodb.forget()
    stored.dynamodb.after[2] = die  # the journal has the answer, and nobody else
    with pytest.raises(Interrupted):
        invoke(turn)
    assert told(trace_events) == [], "nothing is made of the answer before it is safe"

    invoke(turn, attempt=2)
    assert told(trace_events) == [("MODEL_INVOCATION", "one")]
    assert trace_events[0]["attempt"] == 1, "of the call that was answered"


def test_a_repeat_tells_an_answer_again_in_the_place_of_the_first_time(
    stored: StoredTurns,
    model: Model,
    trace_events: list[dict[str, Any]],
) -> None:
    model.replies = ["ThrottlingException", tool_use("use-1")]
    turn = load(stored, trace=True)["turn"]
    with pytest.raises(Exception, match="ThrottlingException"):
        invoke(turn)
    invoke(turn, attempt=2)
    kept = kept_events(stored)
    invoke(turn, attempt=3)

    assert kept_events(stored).keys() == kept.keys()
    assert [event.get("attempt") for event in trace_events] == [1, 2, None, 2, None]


def kept_events(stored: StoredTurns) -> dict[str, str]:
    items = stored.table.query(keys.turn_partition(A), keys.TRACE_PREFIX, keys.TRACE_PREFIX + keys.END)
    return {item["SK"]: item["status"] for item in items}


@pytest.mark.parametrize("level", ["FULL", "REDACTED"])
def test_what_goes_wrong_in_telling_costs_no_answer(
    stored: StoredTurns,
    model: Model,
    monkeypatch: pytest.MonkeyPatch,
    level: str,
) -> None:
    monkeypatch.setenv("TRACE_PAYLOADS", level)
    monkeypatch.setenv("TRACE_REDACT_FIELDS", "password")
    settings.cache_clear()
    model.replies = [text("one")]
    turn = load(stored)["turn"]
    with monkeypatch.context() as broken:
        broken.setattr(Payloads, "event", lambda *_: die())
        with pytest.raises(Interrupted):
            invoke(turn)

    invoke(turn, attempt=2)
    assert len(model.asked) == 1, "the answer was paid once"
    settings.cache_clear()


def test_of_two_answers_to_one_step_the_last_one_told_is_the_one_that_counts(
    stored: StoredTurns,
    model: Model,
    trace_events: list[dict[str, Any]],
) -> None:
    model.replies = [tool_use("use-second"), text("the first delivery's answer")]
    turn = load(stored)["turn"]
    stored.dynamodb.forget()
    stored.dynamodb.after[1] = lambda: invoke(turn)
    invoke(turn)

    assert told(trace_events) == [
        ("MODEL_INVOCATION", ""),
        ("TOOL_SELECTION", "balance"),
        ("MODEL_INVOCATION", "the first delivery's answer"),
        ("MODEL_INVOCATION", ""),
        ("TOOL_SELECTION", "balance"),
    ]


@pytest.mark.parametrize("attempts", [(1, 1), (1, 2)], ids=["one attempt, twice delivered", "an attempt and its retry"])
def test_the_calls_of_an_answer_that_does_not_count_are_nowhere_in_the_trace(
    stored: StoredTurns, model: Model, attempts: tuple[int, int]
) -> None:
    late = {**tool_use("use-1"), "content": [*tool_use("use-1")["content"], *tool_use("use-2")["content"]]}
    model.replies = [tool_use("use-second"), late]
    turn = load(stored, trace=True)["turn"]
    stored.dynamodb.forget()
    stored.dynamodb.after[2] = lambda: invoke(turn, attempt=attempts[1])  # the late one has told that it began
    assert len(invoke(turn, attempt=attempts[0])) == 1

    invocations = [f"1#000#{attempt:03d}" for attempt in sorted(set(attempts))]
    assert [key.partition("#")[2][4:] for key in kept_events(stored)] == [*invocations, "2#000"]


def test_a_turn_that_nobody_traces_writes_no_item_for_its_events(
    stored: StoredTurns,
    model: Model,
    trace_events: list[dict[str, Any]],
) -> None:
    model.replies = ["ThrottlingException", tool_use("use-1")]
    turn = load(stored)["turn"]
    stored.dynamodb.forget()
    with pytest.raises(Exception, match="ThrottlingException"):
        invoke(turn)
    assert stored.dynamodb.written == 0
    invoke(turn)
    assert (stored.dynamodb.written, len(trace_events)) == (1, 3), "the journal's item, and no other"


def test_what_a_model_was_not_asked_is_told_counted_and_journaled(
    stored: StoredTurns,
    model: Model,
    trace_events: list[dict[str, Any]],
) -> None:
    stored.publish(inferenceConfiguration={"temperature": 0.5})
    model.replies = ["ValidationException", text("one")]
    turn = load(stored)["turn"]
    asked = {"turn": turn, "step": 1, "model": 0, "toolResults": [], "mayUseTools": True, "redriveCount": 0}
    answered = invoke_model.handler(asked, None)
    invoke(turn, attempt=2)

    assert [event["leftOut"] for event in trace_events] == ["temperature, stream"] * 2
    assert trace_events[0]["inferenceConfiguration"] == '{"temperature":0.5}', "what the agent sets"
    (step,) = Journal(stored.table, stored.documents, A).steps()
    assert (step.left_out, step.repeats) == (("temperature", "stream"), 1)
    write(turn, spent=answered["spent"])
    receipt = stored.header(A).receipt
    assert receipt is not None
    assert receipt["models"]["model-1"]["leftOut"] == ["stream", "temperature"]
    assert (receipt["modelCalls"], receipt["modelAttempts"]) == (1, 2)
