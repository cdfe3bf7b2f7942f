"""What a turn does with a reply that did not end as it should."""

import json
from typing import Any

import pytest

from tests.unit.stored_turns import A, B, StoredTurns, step, text, tool_result, tool_use
from tests.unit.turn_states import USE, Model, invoke, load, write
from turnwright.errors import ModelRejected, ModelsExhausted, ModelUnavailable
from turnwright.sessions.journal import Journal
from turnwright.sessions.values import Turn

CUT = ["max_tokens", "a_reason_of_tomorrow"]
WITHHELD = ["guardrail_intervened", "content_filtered"]
FAILED = {
    "malformed_tool_use": ModelUnavailable,
    "malformed_model_output": ModelUnavailable,
    "model_context_window_exceeded": ModelRejected,
}


def stopped(message: dict[str, Any], stop_reason: str) -> dict[str, Any]:
    return {**message, "stopReason": stop_reason}


def said_and_called(words: str = "I look.") -> dict[str, Any]:
    calls = [block for name in ("use-1", "use-2") for block in tool_use(name)["content"]]
    return {"role": "assistant", "content": [{"text": words}, *calls]}


def kinds(stored: StoredTurns) -> list[list[str]]:
    """The kinds of blocks that the journal has, by step."""
    steps = Journal(stored.table, stored.documents, A).steps()
    return [[kind for block in each.message["content"] for kind in block] for each in steps]


@pytest.mark.parametrize("stop_reason", ["end_turn", "tool_use", "stop_sequence"])
def test_the_calls_of_a_whole_reply_are_made(
    stored: StoredTurns,
    model: Model,
    stop_reason: str,
) -> None:
    model.replies = [stopped(said_and_called(), stop_reason)]

    calls = invoke(load(stored)["turn"])

    assert [call["handler"] for call in calls] == ["lambda", "lambda"]


def test_a_call_that_a_stop_sequence_cut_before_its_arguments_came_is_told_so(
    stored: StoredTurns,
    model: Model,
) -> None:
    model.replies = [stopped(tool_use(), "stop_sequence")]
    invoke(load(stored)["turn"])

    (taken,) = Journal(stored.table, stored.documents, A).steps()
    assert [use["input"] for use in taken.tool_uses()] == [{"unreadableInput": ""}]


@pytest.mark.parametrize("stop_reason", CUT)
def test_no_call_of_a_cut_reply_is_made_and_the_model_is_told_of_each(
    stored: StoredTurns,
    model: Model,
    trace_events: list[dict[str, Any]],
    stop_reason: str,
) -> None:
    model.replies = [stopped(said_and_called(), stop_reason), text("Done")]
    turn = load(stored)["turn"]

    calls = invoke(turn)

    failure = {
        "errorCode": "INVALID_ARGUMENTS",
        "errorMessage": (
            f"the reply was cut ({stop_reason}), so that none of its calls was made; ask again, for less at once"
        ),
        "attempts": 0,
        "tryAgainNow": True,
    }
    assert [(call["handler"], call["failure"]) for call in calls] == [("none", failure)] * 2
    selected = [event for event in trace_events if event["type"] == "TOOL_SELECTION"]
    assert [(event["status"], event["errorCode"]) for event in selected] == [("FAILED", "INVALID_ARGUMENTS")] * 2
    assert invoke(turn) == calls, "a repeat finds the same in the journal"
    told = [
        {"toolUseId": call["toolUseId"], "status": "error", "result": {"inline": {"text": json.dumps(failure)}}}
        for call in calls
    ]
    invoke(turn, 2, *told)
    write(turn, 2)
    assert stored.documents.fetch(stored.header(A).answer) == "Done"


@pytest.mark.parametrize("stop_reason", CUT)
def test_a_cut_text_is_committed_with_a_note_that_is_not_the_models(
    stored: StoredTurns,
    model: Model,
    trace_events: list[dict[str, Any]],
    stop_reason: str,
) -> None:
    model.replies = [stopped(text("The balance is"), stop_reason)]
    turn = load(stored)["turn"]
    assert invoke(turn) == []
    write(turn)

    header = stored.header(A)
    answer = f"The balance is\n\n[The answer is cut: the model stopped with {stop_reason}.]"
    assert stored.documents.fetch(header.answer) == answer
    assert header.receipt
    assert header.receipt["stopReason"] == stop_reason
    (final,) = (event for event in trace_events if event["type"] == "FINAL_RESPONSE")
    assert (final["answer"], final["stopReason"]) == (answer, stop_reason)
    assert stored.seen(stored.begin(B)) == ["Hello", "The balance is"]


@pytest.mark.parametrize("stop_reason", WITHHELD)
@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (said_and_called("I may not say that."), "I may not say that."),
        (text("I may not say that."), "I may not say that."),
        (tool_use(), "(Nothing of the answer was let through.)"),
        (text(""), "(Nothing of the answer was let through.)"),
    ],
    ids=["text and calls", "text", "call", "nothing"],
)
def test_what_a_guardrail_or_a_filter_let_through_ends_the_turn(
    stored: StoredTurns,
    model: Model,
    stop_reason: str,
    reply: dict[str, Any],
    words: str,
) -> None:
    model.replies = [stopped(reply, stop_reason), text("Next")]
    turn = load(stored)["turn"]
    assert invoke(turn) == []
    write(turn)

    note = "\n\n[The answer was filtered: the model stopped with content_filtered.]"
    header = stored.header(A)
    assert stored.documents.fetch(header.answer) == words + (note if stop_reason == "content_filtered" else "")
    assert header.receipt
    assert header.receipt["stopReason"] == stop_reason
    assert kinds(stored) == [["text"]]
    invoke(load(stored, B)["turn"])
    assert model.asked[1]["messages"][1] == text(words)


@pytest.mark.parametrize(("stop_reason", "error"), FAILED.items())
def test_a_malformed_reply_and_one_that_fills_the_window_are_failed_calls(
    stored: StoredTurns,
    model: Model,
    trace_events: list[dict[str, Any]],
    stop_reason: str,
    error: type[Exception],
) -> None:
    refused = stopped(said_and_called(), stop_reason)
    model.replies = [refused, refused, said_and_called()]
    turn = load(stored)["turn"]
    with pytest.raises(error, match=f"^model-1: the model stopped with {stop_reason}$"):
        invoke(turn)
    with pytest.raises(ModelsExhausted, match=stop_reason):
        invoke(turn, model=2)
    assert kinds(stored) == []
    assert [event["status"] for event in trace_events] == ["FAILED"] * 2

    assert [call["handler"] for call in invoke(turn, model=1)] == ["lambda", "lambda"]


@pytest.mark.parametrize("stop_reason", ["end_turn", "stop_sequence", "tool_use", *CUT])
@pytest.mark.parametrize("content", [[], [{"text": " \n"}]], ids=["no content", "blank"])
def test_an_empty_reply_is_a_failed_call_and_never_an_answer(
    stored: StoredTurns,
    model: Model,
    trace_events: list[dict[str, Any]],
    content: list[dict[str, Any]],
    stop_reason: str,
) -> None:
    model.replies = [{"role": "assistant", "content": content, "stopReason": stop_reason}] * 2
    turn = load(stored)["turn"]
    with pytest.raises(ModelUnavailable):
        invoke(turn)
    with pytest.raises(ModelsExhausted):
        invoke(turn, model=2)
    assert kinds(stored) == []
    assert [event["status"] for event in trace_events] == ["FAILED"] * 2


def test_a_text_that_announces_a_call_which_does_not_come_is_a_failed_call(
    stored: StoredTurns,
    model: Model,
) -> None:
    model.replies = [stopped(text("I look that up."), "tool_use")]
    with pytest.raises(ModelUnavailable, match="called no tool"):
        invoke(load(stored)["turn"])


@pytest.mark.parametrize("stop_reason", [*CUT, *WITHHELD])
def test_a_step_of_a_turn_that_ran_before_this_rule_makes_no_call_that_it_forbids(
    stored: StoredTurns,
    model: Model,
    stop_reason: str,
) -> None:
    """It was journaled, with the model's ids, and its handler is repeated now."""
    turn = load(stored)["turn"]
    stored.journal(Turn.decode(turn), step(1, said_and_called(), stop_reason=stop_reason))

    calls = invoke(turn)

    assert [(call["toolUseId"], call["handler"]) for call in calls] == [("use-1", "none"), ("use-2", "none")]
    model.replies = [text("Done")]
    invoke(turn, 2, *(tool_result(call["toolUseId"]) for call in calls))
    write(turn, 2)
    assert USE not in json.dumps(model.asked[0]["messages"])
