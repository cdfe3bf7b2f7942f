from dataclasses import replace

from tests.unit.stored_turns import A, B, StoredTurns, step, text, tool_result, tool_use
from turnwright.sessions.journal import Journal
from turnwright.storage import keys


def journal(stored: StoredTurns, turn_id: str = A) -> Journal:
    return Journal(stored.table, stored.documents, turn_id)


def test_a_step_comes_back_as_it_was_recorded_floats_and_all(stored: StoredTurns) -> None:
    recorded = step(
        1,
        tool_use("use-1", amount=0.1, large=1e300, whole=1.0, nested={"empty": [], "none": None}),
        tool_result("use-0", "€", sessionAttributes={"a": "b"}),
    )

    assert journal(stored).record(recorded) == recorded
    assert journal(stored).step(1) == recorded
    assert journal(stored).step(2) is None
    assert journal(stored).steps() == [recorded]


def test_the_steps_are_read_in_order_and_only_those_of_the_turn(stored: StoredTurns) -> None:
    steps = [step(number, text(str(number))) for number in range(1, 12)]
    for each in reversed(steps):
        journal(stored).record(each)
    stored.begin(A, trace=True)
    journal(stored, B).record(step(1, text("other")))

    assert journal(stored).steps() == steps


def test_the_second_writer_of_a_step_takes_over_what_the_first_one_wrote(stored: StoredTurns) -> None:
    first = step(1, tool_use("use-1"), model="model-1")
    second = replace(first, message=text("another answer"), model="model-2", latency_ms=9)
    journal(stored).record(first)
    before = stored.items()

    assert journal(stored).record(second) == first
    assert journal(stored).steps() == [first]
    assert stored.items() == before


def test_a_repeat_after_a_lost_response_gets_the_step_that_was_written(stored: StoredTurns) -> None:
    recorded = step(1, text("Hi"))

    assert [journal(stored).record(recorded) for _ in range(2)] == [recorded, recorded]


def test_two_writers_of_long_answers_keep_both_objects_and_agree_on_the_first(stored: StoredTurns) -> None:
    first, second = (step(1, text(letter * 70_000)) for letter in "ab")

    assert [journal(stored).record(each) for each in (first, second)] == [first, first]
    assert journal(stored).step(1) == first
    assert len(stored.objects()) == 2


def test_a_long_message_goes_to_the_bucket_in_the_turns_folder_and_comes_back_whole(stored: StoredTurns) -> None:
    recorded = step(1, text("€" * 400_000))

    journal(stored).record(recorded)

    assert journal(stored).step(1) == recorded
    assert [name.rpartition("/")[0] for name in stored.objects()] == [f"turns/{A}"]
    item = stored.items()[keys.journal_step(A, 1)]
    assert sum(len(str(value)) for value in item.values()) < 1_000


def test_a_step_lives_as_long_as_its_turn_can_be_redriven(stored: StoredTurns) -> None:
    journal(stored).record(step(1, text("Hi")))

    item = stored.table.get(keys.journal_step(A, 1))

    assert item
    assert item["expiresAt"] == stored.clock.ms // 1000 + 30 * 86_400


def test_a_step_tells_its_text_from_its_tool_uses() -> None:
    message = {
        "role": "assistant",
        "content": [
            {"reasoningContent": {"reasoningText": {"text": "hm"}}},
            {"text": "One"},
            *tool_use("use-1")["content"],
            {"text": " two"},
            *tool_use("use-2", "other")["content"],
        ],
    }

    assert step(1, message).text() == "One two"
    assert [use["toolUseId"] for use in step(1, message).tool_uses()] == ["use-1", "use-2"]
