from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from tests.unit.stored_turns import (
    SESSION,
    A,
    B,
    Interrupted,
    StoredTurns,
    die,
    step,
    text,
    tool_result,
    tool_use,
)
from tests.waiting import patient
from turnwright.errors import LeaseLost, TurnAlreadyEnded
from turnwright.sessions.sessions import Sessions
from turnwright.sessions.turns import Turns
from turnwright.sessions.values import Status, Turn
from turnwright.storage import keys
from turnwright.storage.table import Delete


def one_tool_turn(stored: StoredTurns, turn_id: str = A, **request: Any) -> Turn:
    """A turn that is ready to be committed."""
    turn = stored.begin(turn_id, words="Balance?", **request)
    stored.journal(turn, step(1, tool_use()), step(2, text("5 USD"), tool_result(sessionAttributes={"last": "1"})))
    return turn


def test_a_commit_writes_the_event_the_session_and_the_header(stored: StoredTurns) -> None:
    turn = one_tool_turn(stored, sessionAttributes={"name": "Ann"})
    stored.clock.ms += 3_000

    header = stored.commit(turn)

    assert header == stored.header(A)
    assert header.status is Status.COMMITTED
    assert stored.documents.fetch(header.answer) == "5 USD"
    assert header.usage == {"inputTokens": 20, "outputTokens": 4, "totalTokens": 24}
    assert header.fields["endedAt"] == stored.clock.ms
    expires = stored.clock.ms // 1000 + 7 * 86_400
    assert stored.session() == {
        **dict(zip(("PK", "SK"), keys.session(SESSION), strict=True)),
        **keys.owned_session(SESSION),
        "createdAt": stored.clock.ms - 3_000,
        "agentId": "BANK",
        "agentVersion": "1",
        "schemaVersion": 1,
        "memoryStore": "BANK-turnwright",
        "actor": "user-1",
        "sessionId": "s-1",
        "status": "OPEN",
        "version": 1,
        "lastEventId": header.event_id,
        "historyFloor": "",
        "attributes": '{"name":"Ann","last":"1"}',
        "updatedAt": stored.clock.ms,
        "expiresAt": expires,
    }
    event = stored.table.get(keys.session_event(SESSION, header.event_id))
    assert event
    messages = event.pop("messages")
    assert stored.documents.fetch_text(messages) == [
        {"role": "user", "content": [{"text": "Balance?"}]},
        tool_use(),
        {
            "role": "user",
            "content": [{"toolResult": {"toolUseId": "use-1", "status": "success", "content": [{"text": "5 USD"}]}}],
        },
        text("5 USD"),
    ]
    assert event == {
        **dict(zip(("PK", "SK"), keys.session_event(SESSION, header.event_id), strict=True)),
        "schemaVersion": 1,
        "eventId": header.event_id,
        "turnId": A,
        "agentId": "BANK",
        "agentVersion": "1",
        "characters": event["characters"],
        "committedAt": stored.clock.ms,
        "expiresAt": expires,
    }


def test_a_turn_with_one_tool_call_writes_seven_items(stored: StoredTurns) -> None:
    stored.run(B)
    stored.dynamodb.forget()

    stored.commit(one_tool_turn(stored))

    assert stored.dynamodb.written == 7


def test_a_repeat_after_the_commit_answers_the_same_and_writes_nothing(stored: StoredTurns) -> None:
    turn = one_tool_turn(stored)
    first = stored.commit(turn)
    before = stored.items(), stored.objects()
    stored.clock.ms += 60_000
    stored.dynamodb.forget()

    assert stored.commit(turn) == first
    assert (stored.items(), stored.objects()) == before
    assert stored.dynamodb.written == 0


def test_commits_of_one_turn_at_once_write_it_once_and_agree(stored: StoredTurns) -> None:
    """Each sees a running turn before any of them writes."""
    turn = one_tool_turn(stored)
    stored.dynamodb.forget()
    start = Barrier(3)

    def wait() -> None:
        start.wait(timeout=patient(10))

    stored.dynamodb.before = dict.fromkeys(range(3), wait)
    with ThreadPoolExecutor(3) as threads:
        headers = list(threads.map(stored.commit, [turn] * 3))

    assert headers == [stored.header(A)] * 3
    assert (stored.session()["version"], len(stored.memory())) == (1, 2)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("request_number", range(4))
@pytest.mark.parametrize("answer", ["short", "long " * 50_000])
def test_a_commit_that_dies_anywhere_is_all_or_nothing_and_completed_by_its_repeat(
    stored: StoredTurns, when: str, request_number: int, answer: str
) -> None:
    turn = stored.begin(A)
    stored.journal(turn, step(1, text(answer)))
    memory = stored.memory()
    stored.dynamodb.forget()
    getattr(stored.dynamodb, when)[request_number] = die
    with pytest.raises(Interrupted):
        stored.commit(turn)
    half = stored.memory()
    committed = stored.header(A).status is Status.COMMITTED

    header = stored.commit(turn)

    assert (half == stored.memory()) if committed else (half == memory)
    assert header == stored.header(A)
    assert stored.documents.fetch(header.answer) == answer
    shown = stored.seen(stored.begin(B))[-1]
    assert shown == answer if len(answer) < 2_000 else "characters]" in shown
    assert stored.session()["version"] == 1


def test_a_failed_turn_is_not_committed_by_a_write_memory_that_comes_late(stored: StoredTurns) -> None:
    turn = one_tool_turn(stored)
    Turns(stored.table).fail(A, {"error": "States.Timeout"})
    before = stored.items()

    with pytest.raises(LeaseLost):
        stored.commit(turn)

    assert stored.items() == before


@pytest.mark.parametrize("held", [True, False])
def test_a_turn_that_is_declared_failed_while_it_commits_writes_nothing(stored: StoredTurns, held: bool) -> None:
    turn = one_tool_turn(stored)
    memory = stored.memory()

    def fail() -> None:
        Turns(stored.table).fail(A, {"error": "States.Timeout"})
        if not held:
            Sessions(stored.table).release(SESSION, A)

    before_transaction(stored, fail)
    with pytest.raises(LeaseLost):
        stored.commit(turn)

    assert stored.memory() == memory
    assert stored.header(A).status is Status.FAILED


def before_transaction(stored: StoredTurns, do: Callable[[], None]) -> None:
    """Requests of a commit: the alias (this test's own), the header, the journal, then the transaction."""
    stored.dynamodb.forget()

    def act() -> None:
        assert stored.dynamodb.operations[-1] == "transact_write_items"
        do()

    stored.dynamodb.before[3] = act


def test_a_failed_turn_leaves_the_session_exactly_as_it_was(stored: StoredTurns) -> None:
    stored.run(B, sessionAttributes={"name": "Ann"})
    before = stored.memory(), stored.session()
    one_tool_turn(stored, sessionAttributes={"name": "Bob"})
    Turns(stored.table).fail(A, {"error": "E"})
    Sessions(stored.table).release(SESSION, A)

    assert (stored.memory(), stored.session()) == before
    turn = stored.begin("d" * 32)
    assert stored.seen(turn) == ["Hello", "Hi"]
    assert stored.header("d" * 32).session_attributes == {"name": "Ann"}


def test_a_turn_whose_items_are_gone_is_not_committed(stored: StoredTurns) -> None:
    turn = one_tool_turn(stored)
    stored.table.delete(Delete(keys.turn_header(A)))
    memory = stored.memory()

    with pytest.raises(TurnAlreadyEnded, match="its items are gone"):
        stored.commit(turn)

    assert stored.memory() == memory


def test_attributes_of_parallel_tools_are_all_kept_and_the_last_asked_wins(stored: StoredTurns) -> None:
    turn = stored.begin(A, sessionAttributes={"kept": "k", "x": "0"})
    results = [
        tool_result("use-1", sessionAttributes={"x": "1", "one": "1"}, promptSessionAttributes={"p": "1"}),
        tool_result("use-2", sessionAttributes={"x": "2", "two": "2"}),
        {"toolUseId": "use-3", "status": "error", "result": {"inline": {"text": "no"}}},
    ]
    stored.journal(turn, step(1, tool_use()), step(2, text("Hi"), *results))

    stored.commit(turn)

    stored.begin(B)
    assert stored.header(B).session_attributes == {"kept": "k", "x": "2", "one": "1", "two": "2"}


def test_usage_keeps_what_is_zero_and_what_only_some_steps_have(stored: StoredTurns) -> None:
    turn = stored.begin(A)
    stored.journal(
        turn,
        step(1, tool_use(), usage={"inputTokens": 5, "outputTokens": 0}),
        step(2, text("Hi"), tool_result(), usage={"inputTokens": 0, "outputTokens": 0, "cacheReadInputTokens": 3}),
    )

    assert stored.commit(turn).usage == {"inputTokens": 5, "outputTokens": 0, "cacheReadInputTokens": 3}


def test_an_answer_longer_than_an_item_may_be_comes_back_whole(stored: StoredTurns) -> None:
    answer = "€" * 200_000

    header = stored.run(A, answer=answer)

    assert header.answer.keys() == {"object", "bytes"}
    assert stored.documents.fetch(stored.header(A).answer) == answer
    assert {name.partition("/")[0] for name in stored.objects()} == {"turns", "sessions"}
    assert all(len(str(item)) < 10_000 for item in stored.items().values())
