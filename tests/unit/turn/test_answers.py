"""What a turn's answer is, and what of it stands in the history that the next turn's model is shown."""

from typing import Any

import pytest

from tests.unit.stored_turns import A, B, StoredTurns, text, tool_result, tool_use
from tests.unit.turn_states import USE, Model, invoke, load, write
from turnwright.errors import ModelUnavailable
from turnwright.sessions.journal import Journal

RESULT = {
    "role": "user",
    "content": [{"toolResult": {"toolUseId": USE, "status": "success", "content": [{"text": "5 USD"}]}}],
}


def message(*content: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": list(content)}


def said_and_called(*words: str) -> dict[str, Any]:
    return message(*({"text": each} for each in words), *tool_use(USE)["content"])


def thought(words: str) -> dict[str, Any]:
    return {"reasoningContent": {"reasoningText": {"text": words}}}


def answer(stored: StoredTurns, model: Model, *replies: dict[str, Any]) -> str:
    """The answer of turn A, in which each reply but the last calls a tool."""
    model.replies = list(replies)
    turn = load(stored)["turn"]
    calls: list[dict[str, Any]] = []
    for step in range(1, len(replies) + 1):
        calls = invoke(turn, step, *(tool_result(call["toolUseId"]) for call in calls))
    assert calls == []
    write(turn, len(replies))
    return str(stored.documents.fetch(stored.header(A).answer))


def shown(stored: StoredTurns, model: Model) -> list[dict[str, Any]]:
    """The messages that the model of the next turn is shown."""
    model.replies = [text("Next")]
    invoke(load(stored, B, words="And now?")["turn"])
    messages: list[dict[str, Any]] = model.asked[-1]["messages"]
    return messages


def test_the_answer_is_the_last_steps_text_and_what_was_said_on_the_way_stays_in_the_history(
    stored: StoredTurns,
    model: Model,
) -> None:
    assert answer(stored, model, said_and_called("I look."), text("5 USD")) == "5 USD"

    assert shown(stored, model)[1:4] == [said_and_called("I look."), RESULT, text("5 USD")]


@pytest.mark.parametrize("content", [[], [{"text": "\n"}], [thought("All is said.")]], ids=["none", "blank", "thought"])
def test_a_model_that_said_all_beside_its_last_call_may_end_without_a_word(
    stored: StoredTurns,
    model: Model,
    content: list[dict[str, Any]],
) -> None:
    asking = said_and_called("You have 5 USD; I note that.")

    assert answer(stored, model, asking, message(*content)) == "You have 5 USD; I note that."

    question = {"role": "user", "content": [{"text": "Hello"}]}
    next_question = {"role": "user", "content": [*RESULT["content"], {"text": "And now?"}]}
    assert shown(stored, model) == [question, asking, next_question]


def test_the_last_words_of_several_steps_are_the_answer(
    stored: StoredTurns,
    model: Model,
) -> None:
    replies = said_and_called("First."), said_and_called("Second."), tool_use(), message()

    assert answer(stored, model, *replies) == "Second."


def test_a_turn_that_ended_without_a_word_and_is_too_long_is_shown_by_its_question_and_its_last_words(
    stored: StoredTurns,
    model: Model,
) -> None:
    stored.publish(memoryConfiguration={"history": {"maxTurns": 3, "maxCharacters": 200}})
    words = "You have 5 USD. " * 20
    answer(stored, model, said_and_called(words), message())

    question, last, next_question = shown(stored, model)
    assert question == {"role": "user", "content": [{"text": "Hello"}]}
    assert last["role"] == "assistant"
    assert last["content"][0]["text"].startswith("You have 5 USD. You")
    assert next_question == {"role": "user", "content": [{"text": "And now?"}]}


@pytest.mark.parametrize(
    "first", [tool_use(), message(thought("Hm."), *tool_use()["content"])], ids=["call", "thought"]
)
def test_a_model_that_never_said_a_word_may_not_end_so(
    stored: StoredTurns,
    model: Model,
    first: dict[str, Any],
) -> None:
    with pytest.raises(ModelUnavailable, match="the model's reply is empty"):
        answer(stored, model, first, message())


def test_what_a_model_thinks_in_its_text_is_no_answer_and_only_its_own_turn_is_shown_it(
    stored: StoredTurns,
    model: Model,
    trace_events: list[dict[str, Any]],
) -> None:
    asking = said_and_called("<thin", "king>I need the balance.</thinking>\n", "I look.")
    ending = text("<THINKING>Five.</THINKING>\n\nYou have 5 USD; `<thinking>` is a tag.")

    assert answer(stored, model, asking, ending) == "You have 5 USD; `<thinking>` is a tag."

    steps = Journal(stored.table, stored.documents, A).steps()
    call = tool_use(USE)["content"][0]
    assert steps[0].message == message(thought("<thinking>I need the balance.</thinking>"), {"text": "I look."}, call)
    assert model.asked[1]["messages"][1] == message(
        {"text": "<thinking>I need the balance.</thinking>"}, {"text": "I look."}, call
    ), "in the turn it reads its own words"
    assert shown(stored, model)[1:4] == [
        message({"text": "I look."}, call),
        RESULT,
        text("You have 5 USD; `<thinking>` is a tag."),
    ]
    (selected,) = (event for event in trace_events if event["type"] == "TOOL_SELECTION")
    assert selected["reasoning"] == "<thinking>I need the balance.</thinking>\nI look."
    spoken = [event["responseText"] for event in trace_events if event["type"] == "MODEL_INVOCATION"]
    assert spoken[:2] == ["I look.", "You have 5 USD; `<thinking>` is a tag."]


def test_another_model_is_not_shown_what_the_first_one_thought(
    stored: StoredTurns,
    model: Model,
) -> None:
    model.replies = [said_and_called("<thinking>Hm.</thinking>I look."), text("Done")]
    turn = load(stored)["turn"]
    (call,) = invoke(turn)
    invoke(turn, 2, tool_result(call["toolUseId"]), model=1)

    assert model.asked[1]["messages"][1] == said_and_called("I look.")


@pytest.mark.parametrize("words", ["<thinking>Hm.</thinking>\n", "<thinking>It never ends", " <Thinking>"])
def test_a_reply_that_only_thinks_is_empty(
    stored: StoredTurns,
    model: Model,
    words: str,
) -> None:
    model.replies = [text(words)]
    with pytest.raises(ModelUnavailable, match="the model's reply is empty"):
        invoke(load(stored)["turn"])


@pytest.mark.parametrize("stop_reason", ["max_tokens", "a_reason_of_tomorrow"])
@pytest.mark.parametrize("earlier", [[], [said_and_called("I look.")]], ids=["first step", "later step"])
@pytest.mark.parametrize(
    "content",
    [
        [{"text": "<thinking>It never ends"}],
        [{"text": "<thinking>Hm.</thinking>"}],
        [{"reasoningContent": {"reasoningText": {"text": "It never ends", "signature": "c2ln"}}}],
    ],
    ids=["open", "closed", "reasoning"],
)
def test_a_model_that_was_stopped_while_it_thought_has_answered_that(
    stored: StoredTurns, model: Model, content: list[dict[str, Any]], earlier: list[dict[str, Any]], stop_reason: str
) -> None:
    said = answer(stored, model, *earlier, {**message(*content), "stopReason": stop_reason})

    words = "(The model was still thinking, and said nothing.)"
    assert said == f"{words}\n\n[The answer is cut: the model stopped with {stop_reason}.]"
    assert shown(stored, model)[-2] == text(words)


def test_what_a_model_thought_last_before_it_was_stopped_is_not_in_the_answer(
    stored: StoredTurns, model: Model
) -> None:
    ended = {**text("You have 5 USD.\n<thinking>Shall I say mo"), "stopReason": "max_tokens"}

    cut = "[The answer is cut: the model stopped with max_tokens.]"
    assert answer(stored, model, ended) == f"You have 5 USD.\n\n\n{cut}"


def test_an_agent_without_tools_answers_without_its_thoughts_too(
    stored: StoredTurns,
    model: Model,
) -> None:
    stored.publish(actionGroups=[])

    assert answer(stored, model, text("One.\n<thinking>Hm.</thinking>\nTwo.")) == "One.\nTwo."
    assert "Hm." not in str(shown(stored, model))
