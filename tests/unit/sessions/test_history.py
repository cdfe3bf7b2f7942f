from hypothesis import given
from hypothesis import strategies as st

from tests.unit.stored_turns import START, A, B, StoredTurns, step, text, tool_result, tool_use
from turnwright.agents.definitions import HistoryWindow
from turnwright.models.converse import characters
from turnwright.sessions.history import History, Window, fit

LENGTHS = st.lists(st.integers(0, 50), max_size=12)
BOUNDS = st.builds(HistoryWindow, st.integers(1, 6), st.integers(0, 120))


def events(lengths: list[int]) -> list[tuple[str, int]]:
    """Newest first, as the table answers them."""
    return [(f"{1_000 - age:016d}", length) for age, length in enumerate(lengths)]


@given(LENGTHS, BOUNDS)
def test_the_window_is_the_longest_run_of_newest_turns_within_both_bounds(
    lengths: list[int], bounds: HistoryWindow
) -> None:
    window = fit(events(lengths), bounds)

    shown = [
        (event, length) for event, length in events(lengths) if window.last and window.first <= event <= window.last
    ]
    assert shown == events(lengths)[: len(shown)]
    assert len(shown) <= bounds.max_turns
    assert len(shown) == 1 or sum(length for _, length in shown) <= bounds.max_characters
    assert bool(shown) == bool(lengths)
    if len(shown) < min(len(lengths), bounds.max_turns):
        assert sum(lengths[: len(shown) + 1]) > bounds.max_characters


@given(LENGTHS, BOUNDS, st.lists(st.integers(0, 50), max_size=12))
def test_the_window_does_not_depend_on_what_lies_before_it(
    lengths: list[int], bounds: HistoryWindow, older: list[int]
) -> None:
    full = [*lengths, 1_000]

    assert fit(events(full), bounds) == fit(events([*full, *older]), bounds)


def test_a_session_without_a_turn_has_an_empty_window(stored: StoredTurns) -> None:
    assert fit([], HistoryWindow()) == Window("", "")
    assert stored.seen(stored.begin(A)) == []


def test_a_newest_turn_that_is_too_long_is_shown_alone() -> None:
    newest = f"{1_000:016d}"
    assert fit(events([11, 1, 1]), HistoryWindow(max_turns=3, max_characters=10)) == Window(newest, newest)


def test_a_turn_that_is_too_long_is_shown_as_its_question_and_answer_within_the_bound(stored: StoredTurns) -> None:
    stored.publish(memoryConfiguration={"history": {"maxTurns": 3, "maxCharacters": 1_000}})
    long = step(2, text("The answer. " + "y" * 5_000), tool_result(words="r" * 5_000))
    stored.run(A, step(1, tool_use()), long, words="The question? " + "x" * 5_000)
    turn = stored.begin(B)

    window, bounds = Window(turn.historyFrom, turn.historyTo), HistoryWindow(3, 1_000)
    question, answer = History(stored.table, stored.documents).messages(turn.session, window, bounds)

    assert (question["role"], answer["role"]) == ("user", "assistant")
    texts = [message["content"][0]["text"] for message in (question, answer)]
    assert [shown[:11] for shown in texts] == ["The questio", "The answer."]
    assert [shown[-35:] for shown in texts] == [f"[cut: the text has {n} characters]" for n in (5014, 5012)]
    assert [len(shown) for shown in texts] == [500, 500]


def test_the_model_is_shown_the_latest_turns_whole_and_in_order(stored: StoredTurns) -> None:
    for number in range(5):
        stored.run(f"{number:032x}", words=f"in {number}", answer=f"out {number}")

    assert stored.seen(stored.begin(A)) == ["in 2", "out 2", "in 3", "out 3", "in 4", "out 4"]


def test_the_characters_bound_ends_the_window_at_the_first_turn_that_does_not_fit(stored: StoredTurns) -> None:
    for number, length in enumerate([1, 1_500, 600]):
        stored.run(f"{number:032x}", words=f"in {number}", answer=f"out {number} {'x' * length}")

    assert [words[:5] for words in stored.seen(stored.begin(A))] == ["in 2", "out 2"]


def test_a_turn_is_never_split_so_that_each_tool_use_has_its_result(stored: StoredTurns) -> None:
    header = stored.run(A, step(1, tool_use()), step(2, text("5 USD"), tool_result()), words="Balance?")
    turn = stored.begin(B)

    assert header.event_id == turn.historyFrom == turn.historyTo
    window = Window(turn.historyFrom, turn.historyTo)
    assert History(stored.table, stored.documents).messages(turn.session, window, HistoryWindow()) == [
        {"role": "user", "content": [{"text": "Balance?"}]},
        tool_use(),
        {
            "role": "user",
            "content": [
                {"toolResult": {"toolUseId": "use-1", "status": "success", "content": [{"text": "5 USD"}]}},
            ],
        },
        text("5 USD"),
    ]


def test_the_stored_length_of_a_turn_is_that_of_its_messages(stored: StoredTurns) -> None:
    header = stored.run(A, words="ä" * 10, answer="b" * 20)

    event = stored.items()["SESSION#BANK-turnwright#user-1#s-1", f"EVENT#{header.event_id}"]
    messages = [{"role": "user", "content": [{"text": "ä" * 10}]}, text("b" * 20)]
    assert int(event["characters"]["N"]) == characters(messages) == 2 * len('[{"text": ""}]') + 30


def test_a_turn_longer_than_an_item_may_be_is_remembered_whole(stored: StoredTurns) -> None:
    stored.publish(memoryConfiguration={"history": {"maxTurns": 3, "maxCharacters": 10_000_000}})
    stored.run(A, words="w" * 1_048_576, answer="a" * 500_000)

    assert stored.seen(stored.begin(B)) == ["w" * 1_048_576, "a" * 500_000]


def test_a_turn_that_is_committed_later_does_not_change_a_pinned_window(stored: StoredTurns) -> None:
    stored.run(A, words="first")
    turn = stored.begin(B)
    stored.journal(turn, step(1, text("Hi")))
    stored.commit(turn)

    assert stored.seen(turn) == ["first", "Hi"]


def test_turn_200_reads_what_turn_40_reads(stored: StoredTurns) -> None:
    """Items that come back, and requests, of the whole turn."""
    stored.run(A)
    (event,) = (item for (_, sort_key), item in stored.items().items() if sort_key.startswith("EVENT#"))

    def count(number: int) -> tuple[int, list[str], int]:
        turn_id = f"{number:032x}"
        stored.dynamodb.forget()
        turn = stored.begin(turn_id)
        assert stored.seen(turn) == ["Hello", "Hi"] * 3
        stored.journal(turn, step(1, text("Hi")))
        stored.commit(turn)
        return stored.dynamodb.read, stored.dynamodb.operations, stored.dynamodb.written

    def add_events(numbers: range) -> None:
        """Committed turns, as they lie in the table, of earlier milliseconds."""
        ids = [f"{START - 1_000 + number:016d}#00000000" for number in numbers]
        items = [event | {"SK": {"S": f"EVENT#{name}"}, "eventId": {"S": name}} for name in ids]
        for start in range(0, len(items), 25):
            batch = [{"PutRequest": {"Item": item}} for item in items[start : start + 25]]
            stored.dynamodb.client.batch_write_item(RequestItems={stored.table.name: batch})

    add_events(range(1, 39))
    turn_40 = count(40)
    add_events(range(40, 199))
    turn_200 = count(200)

    assert turn_200 == turn_40
    assert sum(key[1].startswith("EVENT#") for key in stored.items()) == 200
    actor, window, shown, alias_twice, header, journal = 1, 3, 3, 2, 1, 1
    assert turn_40[0] == actor + window + shown + alias_twice + header + journal
