"""Events of CreateEvent in a session's history, as the next turn's model is shown them."""

from typing import Any

import pytest

from tests.unit.stored_turns import SESSION, A, B, StoredTurns, step, text
from turnwright.agents.definitions import HistoryWindow
from turnwright.models import converse
from turnwright.sessions import event_messages
from turnwright.sessions.history import History, Window
from turnwright.sessions.values import Status
from turnwright.storage import keys
from turnwright.storage.documents import json_text
from turnwright.storage.table import Put, Update


def said(role: str, words: str) -> dict[str, Any]:
    return {"conversational": {"role": role, "content": {"text": words}}}


def add(stored: StoredTurns, *payload: dict[str, Any], branch: str | None = None, **fields: Any) -> str:
    """An event as CreateEvent leaves it, later than all before."""
    stored.clock.ms += 1_000
    event_id = f"{stored.clock.ms:016d}#eeeeeeee"
    item = {
        "eventId": event_id,
        "payload": json_text({"inline": payload}),
        "eventTimestamp": stored.clock.ms,
        "characters": 20,
        "expiresAt": stored.clock.ms // 1000 + 86_400,
        **({"branch": branch} if branch else {}),
        **fields,
    }
    stored.table.put(Put(keys.session_event(SESSION, event_id), item))
    if not branch:
        stored.table.update(
            Update(keys.session(SESSION), "SET lastEventId = :event", values={":event": event_id}),
        )
    return event_id


def test_a_payload_becomes_messages_of_what_was_said(stored: StoredTurns) -> None:
    payload = [
        said("USER", "I report in USD."),
        said("ASSISTANT", "Noted."),
        said("TOOL", "rate 1.1"),
        said("OTHER", "hm"),
        said("USER", "  "),
        {"blob": {"state": 1}},
        {"json": {"content": {}}},
    ]

    assert event_messages.messages({"payload": json_text({"inline": payload})}, stored.documents) == [
        {"role": "user", "content": [{"text": "I report in USD."}]},
        {"role": "assistant", "content": [{"text": "Noted."}]},
        {"role": "user", "content": [{"text": "(A tool answered: rate 1.1)"}]},
        {"role": "user", "content": [{"text": "(Somebody else said: hm)"}]},
    ]


def test_an_event_between_turns_is_history_of_the_next_turn(stored: StoredTurns) -> None:
    stored.run(A, words="Hello", answer="Hi")
    add(stored, said("USER", "From elsewhere"), said("ASSISTANT", "Heard"))

    assert stored.seen(stored.begin(B)) == ["Hello", "Hi", "From elsewhere", "Heard"]


def test_events_of_other_branches_are_not_history_and_do_not_shrink_it(stored: StoredTurns) -> None:
    """The window holds three turns."""
    stored.run(A, words="Hello", answer="Hi")
    for number in range(4):
        add(stored, said("USER", f"branch {number}"), branch="other")
    add(stored, said("USER", "main"))
    add(stored, said("USER", "branch 4"), branch="other")

    assert stored.seen(stored.begin(B)) == ["Hello", "Hi", "main"]


def test_what_was_ingested_is_not_history_and_does_not_shrink_it(stored: StoredTurns) -> None:
    stored.run(A)
    for number in range(4):
        add(stored, said("USER", f"ingested {number}"), ingested=True)
    add(stored, said("USER", "main"))
    add(stored, said("USER", "ingested 4"), ingested=True)

    assert stored.seen(stored.begin(B)) == ["Hello", "Hi", "main"]


def test_many_events_of_other_branches_cost_a_bounded_number_of_reads(stored: StoredTurns) -> None:
    stored.run(A)
    for number in range(30):
        add(stored, said("USER", f"branch {number}"), branch="other")
    stored.dynamodb.forget()

    History(stored.table, stored.documents).window(SESSION, "", HistoryWindow(max_turns=3))

    assert stored.dynamodb.read == 4 * 3


def test_an_expired_event_is_not_history(stored: StoredTurns) -> None:
    stored.run(A)
    add(stored, said("USER", "old"), expiresAt=stored.clock.ms // 1000)
    add(stored, said("USER", "new"))

    assert stored.seen(stored.begin(B)) == ["new"]


def test_an_event_that_is_too_long_is_shown_cut(stored: StoredTurns) -> None:
    stored.run(A)
    event_id = add(stored, said("USER", "x" * 5_000), characters=5_000)

    window, bounds = Window(event_id, event_id), HistoryWindow(3, 1_000)
    (message,) = History(stored.table, stored.documents).messages(SESSION, window, bounds)

    (block,) = message["content"]
    assert len(block["text"]) <= 500
    assert block["text"].endswith("[cut: the text has 5000 characters]")


def test_an_event_without_a_length_counts_by_its_payload() -> None:
    assert event_messages.characters({"payload": "12345"}) == 5
    assert event_messages.characters({"payload": "12345", "characters": 2}) == 2


def test_a_history_that_begins_with_an_answer_gets_a_note_before_it() -> None:
    answer = {"role": "assistant", "content": [{"text": "Hi"}]}
    question = converse.user_message("Hello")

    assert converse.beginning_with_user([answer]) == [converse.user_message(converse.NOT_SHOWN), answer]
    assert converse.beginning_with_user([question, answer]) == [question, answer]
    assert converse.beginning_with_user([]) == []


def test_a_window_knows_whether_it_is_the_whole_session(stored: StoredTurns) -> None:
    def whole(bounds: HistoryWindow) -> bool:
        return History(stored.table, stored.documents).window(SESSION, "", bounds).whole

    stored.run(A)
    add(stored, said("USER", "main"))

    assert whole(HistoryWindow(max_turns=3))
    assert not whole(HistoryWindow(max_turns=2)), "there may be more, which nobody has looked for"
    assert not whole(HistoryWindow(max_turns=1))
    assert not whole(HistoryWindow(max_turns=3, max_characters=21))


@pytest.mark.parametrize("when", ["while the turn runs", "while it commits"])
def test_an_event_that_comes_while_a_turn_runs_stays_the_sessions_last_one(stored: StoredTurns, when: str) -> None:
    """Otherwise an end of the session would leave it out of what is consolidated."""
    turn = stored.begin(A)
    stored.journal(turn, step(1, text("Hi")))
    later: list[str] = []
    if when == "while the turn runs":
        later.append(add(stored, said("USER", "From elsewhere")))
    else:
        stored.dynamodb.forget()
        stored.dynamodb.before[3] = lambda: later.append(add(stored, said("USER", "From elsewhere")))

    header = stored.commit(turn)

    assert header.status is Status.COMMITTED
    assert header.event_id < later[0]
    session = stored.session()
    assert (session["lastEventId"], session["version"]) == (later[0], 1)
    assert "leaseOwner" not in session
    assert stored.seen(stored.begin(B)) == ["Hello", "Hi", "From elsewhere"]
