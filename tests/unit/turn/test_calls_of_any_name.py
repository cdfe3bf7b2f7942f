"""What a model calls its tool calls, ids and tools alike, never costs a call, a result or the turn."""

import json
from typing import Any

import pytest

from tests.unit.stored_turns import AGENT, A, B, StoredTurns, text, tool_use
from tests.unit.tool_turns import FakeLambda, answered
from tests.unit.turn_states import USE, Model, invoke, load, run_tool, write
from turnwright.errors import ToolAttemptFailed
from turnwright.sessions.journal import Journal
from turnwright.sessions.values import MOST_CALLS

UNSOUND_IDS = ["", " ", "a|b", "x" * 65, "функция", "id\n", "\ud800", "functions.balance:0"]

pytestmark = pytest.mark.usefixtures("queue")


def asking(*calls: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": [call["content"][0] for call in calls]}


def not_made(call: dict[str, Any]) -> dict[str, Any]:
    """Return Error To Agent, of an item of Run Tools that has a failure."""
    told = {"inline": {"text": json.dumps(call["failure"])}}
    return {"toolUseId": call["toolUseId"], "status": "error", "result": told}


@pytest.mark.parametrize("identifier", ["same", *UNSOUND_IDS])
def test_two_calls_of_one_id_are_two_calls_with_a_key_and_a_result_each(
    stored: StoredTurns,
    model: Model,
    fake_lambda: FakeLambda,
    identifier: str,
) -> None:
    model.replies = [asking(tool_use(identifier), tool_use(identifier)), tool_use(identifier), text("Done")]
    fake_lambda.answers = [answered("1 USD"), answered("2 USD"), answered("3 USD")]
    turn = load(stored)["turn"]

    results = [dict(run_tool(turn, call)) for call in invoke(turn)]
    (later,) = invoke(turn, 2, *results)
    invoke(turn, 3, dict(run_tool(turn, later, step=2)))
    write(turn, 3)

    seen = [event["idempotencyKey"] for _, event in fake_lambda.invoked]
    assert len(set(seen)) == 3
    assert seen[0] == f"{A}/1/{USE}"
    shown = [block["toolResult"]["content"] for block in model.asked[1]["messages"][-1]["content"]]
    assert shown == [[{"text": "1 USD"}], [{"text": "2 USD"}]]
    model.replies = [text("Again")]
    invoke(load(stored, B)["turn"])


def test_the_ids_of_a_step_are_the_same_whenever_it_is_taken_and_are_no_other_turns(
    stored: StoredTurns,
    model: Model,
) -> None:
    model.replies = [asking(tool_use("a"), tool_use("b")), asking(tool_use("c"), tool_use("c"))]
    turn = load(stored)["turn"]
    first = invoke(turn)
    before = Journal(stored.table, stored.documents, A).steps()
    assert invoke(turn) == first, "a repeat finds them in the journal"

    other = invoke(load(stored, B, session="s-2")["turn"])

    assert Journal(stored.table, stored.documents, A).steps() == before
    assert len({call["toolUseId"] for call in [*first, *other]}) == 4
    assert first[0]["toolUseId"] == USE


@pytest.mark.parametrize(
    "name", ["$X", "functions.answer", "answer text", "n" * 80, "", " ", "balance\n", "имя", "\ud800"]
)
def test_a_name_that_no_tool_can_have_is_an_unknown_tool_to_the_model(
    stored: StoredTurns,
    model: Model,
    name: str,
    trace_events: list[dict[str, Any]],
) -> None:
    model.replies = [asking(tool_use("use-1", name, account=1), tool_use("use-2", name)), text("Done")]
    turn = load(stored)["turn"]

    calls = invoke(turn)

    assert [call["handler"] for call in calls] == ["none", "none"]
    told = name.replace("\ud800", "\ufffd")
    assert calls[0]["failure"] == {
        "errorCode": "UNKNOWN_TOOL",
        "errorMessage": f"there is no tool {told}; the tools are: balance",
        "attempts": 0,
        "tryAgainNow": True,
    }
    invoke(turn, 2, *map(not_made, calls))
    selected = [event["errorMessage"] for event in trace_events if event["type"] == "TOOL_SELECTION"]
    assert selected == [calls[0]["failure"]["errorMessage"]] * 2, "the trace tells what was called"
    assert model.asked[1]["messages"][1]["content"][0]["toolUse"] == {
        "toolUseId": USE,
        "name": "invalid_tool_name",
        "input": {"calledName": told, "calledInput": {"account": 1}},
    }
    with pytest.raises(ToolAttemptFailed, match="UNKNOWN_TOOL"):
        run_tool(turn, calls[0])


def test_a_tool_of_the_name_that_stands_for_others_is_not_run_in_their_place(
    stored: StoredTurns,
    model: Model,
) -> None:
    functions = [{"name": name, "description": "It has a name."} for name in ("balance", "invalid_tool_name")]
    stored.publish(actionGroups=[{**AGENT["actionGroups"][0], "functionSchema": {"functions": functions}}])
    model.replies = [asking(tool_use("use-1", "$X"), tool_use("use-2", "invalid_tool_name", calledName="balance"))]

    unknown, known = invoke(load(stored)["turn"])

    assert (unknown["toolName"], unknown["handler"]) == ("invalid_tool_name_", "none")
    assert (known["toolName"], known["handler"]) == ("invalid_tool_name", "lambda")


def test_a_long_name_leaves_room_for_the_names_that_there_are(stored: StoredTurns, model: Model) -> None:
    model.replies = [asking(tool_use("use-1", "n" * 100_000))]

    (call,) = invoke(load(stored)["turn"])

    assert call["failure"]["errorMessage"].endswith("; the tools are: balance")


@pytest.mark.parametrize("stop_reason", ["tool_use", "max_tokens"])
@pytest.mark.parametrize("name", ["balance", "fly"])
def test_of_a_thousand_calls_the_first_are_made_and_each_of_the_others_is_told_that_it_was_not(
    stored: StoredTurns,
    model: Model,
    trace_events: list[dict[str, Any]],
    name: str,
    stop_reason: str,
) -> None:
    uses = [tool_use(f"use-{number}", name) for number in range(1_000)]
    model.replies = [{**asking(*uses), "stopReason": stop_reason}, text("Done"), text("Next")]
    turn = load(stored)["turn"]

    calls = invoke(turn)

    assert [call["index"] for call in calls] == list(range(MOST_CALLS))
    selected = [event for event in trace_events if event["type"] == "TOOL_SELECTION"]
    assert [event["index"] for event in selected] == list(range(MOST_CALLS + 1))
    assert (selected[-1]["errorCode"], selected[-1]["errorMessage"]) == (
        "TOO_MANY_CALLS",
        "this call and 935 after it are not carried out: of one reply only the first 64 are",
    )
    assert invoke(turn) == calls, "a repeat finds the same in the journal"

    made = [not_made({**call, "failure": {"errorCode": "NOT_FOUND"}}) for call in calls]
    invoke(turn, 2, *made)  # Bedrock's rule of one result a call is kept by the model of these tests
    write(turn, 2)

    results = [block["toolResult"] for block in model.asked[1]["messages"][-1]["content"]]
    assert len({result["toolUseId"] for result in results}) == len(results) == 1_000
    told = [json.loads(result["content"][0]["text"])["errorCode"] for result in results]
    assert told == ["NOT_FOUND"] * MOST_CALLS + ["TOO_MANY_CALLS"] * (1_000 - MOST_CALLS)
    stored.publish(memoryConfiguration={"history": {"maxCharacters": 1_000_000}})
    invoke(load(stored, B)["turn"])
    assert model.asked[2]["messages"][2]["content"][:1_000] == model.asked[1]["messages"][-1]["content"]
