"""The erasure of an actor: nothing is left, nothing comes back, and nobody else loses anything."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import example, given
from hypothesis import strategies as st

import erase_memory
from tests.thorough import some
from tests.unit.stored_memory import StoredMemory
from tests.unit.stored_turns import SESSION, A, B, C, Interrupted, StoredTurns, die, step, text, tool_use
from turnwright.agents.memory_configuration import digest_path
from turnwright.api.agentcore.event_operations import Events
from turnwright.api.agentcore.refusals import Busy
from turnwright.errors import ActorErased, LeaseLost, NotAllDeleted, SessionBusy, StorageUnavailable, TurnAlreadyEnded
from turnwright.memory.erasure.belongings import Belongings
from turnwright.memory.erasure.erase_memory import LATE_WRITE_SECONDS, Erasure, Progress, erase_session
from turnwright.memory.records.actors import Actors
from turnwright.memory.records.records import Provenance, Record, Records, added, known
from turnwright.memory.records.session_summaries import SessionSummaries, SessionSummary
from turnwright.sessions.journal import Journal
from turnwright.sessions.sessions import Sessions
from turnwright.sessions.turns import Turns
from turnwright.storage import keys
from turnwright.storage.dead_letters import DeadLetters
from turnwright.storage.keys import NO_ACTOR, SessionId
from turnwright.storage.settings import settings
from turnwright.storage.table import Put, TransactionRefused, Update, Write
from turnwright.tracing.execution_failures import ExecutionFailure
from turnwright.tracing.traces import Traces
from turnwright.turn.record_failure import Recorded, record

MACHINE = "arn:aws:states:us-east-1:123456789012:stateMachine:turns"
STORE, ACTOR = SESSION.store, SESSION.actor
LONG = "a long answer " * 9_000
assert len(LONG) > 64 * 1024


@dataclass(slots=True)
class Executions:
    """Step Functions, as far as it stops executions; of those in `unknown` there is none."""

    unknown: set[str] = field(default_factory=set)
    stopped: list[str] = field(default_factory=list)

    def stop_execution(self, **arguments: str) -> None:
        assert arguments["error"] == "ActorErased"
        name = arguments["executionArn"].removeprefix("arn:aws:states:us-east-1:123456789012:execution:turns:")
        if name in self.unknown:
            raise ClientError({"Error": {"Code": "ExecutionDoesNotExist", "Message": "no"}}, "StopExecution")
        self.stopped.append(name)


@pytest.fixture
def executions() -> Executions:
    return Executions()


def remember(
    stored: StoredTurns, words: str, record_id: str, actor: str = ACTOR, namespace: str | None = None
) -> Record:
    """A record, with what every writer of one also writes."""
    namespace = namespace or f"/facts/{actor}/"
    record = Record(STORE, actor, namespace, record_id, words, Provenance("TOOL", session_id="s-1"))
    unchanged = Actors(stored.table).require(STORE, actor).unchanged()
    stored.table.transact([added(record), known(STORE, actor, namespace), unchanged])
    return record


def summarize(stored: StoredTurns, session: str = "s-1", actor: str = ACTOR) -> SessionSummary:
    summary = SessionSummary(STORE, actor, session, stored.clock.ms - 9, stored.clock.ms, "About accounts.")
    stored.table.put(summary.written())
    return summary


def live(stored: StoredTurns) -> None:
    """A life of `user-1`: two sessions with turns that are committed and one that has failed, spilled texts, traces, a
    segment, a token, a consolidation's journal, records, a summary.
    """
    Actors(stored.table).require(STORE, ACTOR)
    stored.run(A, step(1, tool_use()), step(2, text(LONG)), words="x" * 9_000, trace=True)
    stored.run(B, answer="Hi", session="s-2")
    turn = stored.begin(C, session="s-2")
    stored.journal(turn, step(1, text(LONG)))
    Sessions(stored.table).release(turn.session, C)
    Turns(stored.table).fail(C, {"error": "ModelsExhausted", "cause": "no"})
    stored.table.put(Put(keys.segment(SESSION, "0000000000000009#aaaaaaaa"), {"status": "PENDING"}))
    stored.table.put(Put(keys.client_token(SESSION, "token"), {"eventId": "e"}))
    stored.table.put(Put(keys.extraction(SESSION, "c-1", "/facts/user-1/", 0), {"records": "[]"}))
    stored.documents.stow(LONG, lambda digest: keys.memory_object(STORE, ACTOR, digest), 10)
    stored.documents.stow(LONG, lambda digest: keys.event_object(SESSION, 3_000, digest), 10)
    remember(stored, "They spoke of accounts.", "mem-digest", namespace=digest_path(ACTOR, "s-1"))
    remember(stored, "Reports in USD.", "mem-1")
    remember(stored, "Takes moderate risks.", "mem-2")
    summarize(stored)


def live_besides(stored: StoredTurns) -> None:
    """The lives of actors whose ids look like `user-1`, and a session of nobody."""
    for number, actor in enumerate(("user-1/", "user-1#x", "user-", "user-1%23", "user-11")):
        session_id = SessionId(STORE, actor, "s-1")
        remember(stored, "Likes tea.", f"mem-other-{number}", actor)
        summarize(stored, actor=actor)
        Sessions(stored.table).claim(session_id, f"{number}" * 32)
        for name in (keys.session_object(session_id, "d"), keys.turn_object(f"{number}" * 32, "d")):
            stored.s3.client.put_object(Bucket=stored.bucket, Key=name, Body=b"{}")
    Sessions(stored.table).claim(SessionId(STORE, NO_ACTOR, "s-1"), "9" * 32)


def erasure(stored: StoredTurns, executions: Executions, erasure_id: str = "e-1", **fields: Any) -> Erasure:
    return Erasure(stored.table, stored.documents, executions, MACHINE, STORE, ACTOR, erasure_id, **fields)


def erase(stored: StoredTurns, executions: Executions, erasure_id: str = "e-1") -> list[Progress]:
    """What the state machine does."""
    steps = [erasure(stored, executions, erasure_id).run()]
    while not steps[-1].done:
        assert len(steps) < 20
        stored.clock.ms += steps[-1].waitSeconds * 1000
        steps.append(erasure(stored, executions, erasure_id).run())
    return steps


def everything(stored: StoredTurns) -> tuple[dict[tuple[str, str], Any], dict[str, Any]]:
    """All items and objects, but agents and what remembers that an erasure is over."""
    items = {
        key: item
        for key, item in stored.items().items()
        if not key[0].startswith("AGENT") and not key[1].startswith("ERASURE#")
    }
    return items, stored.objects()


def left(stored: StoredTurns) -> list[str]:
    """What there is in the whole table and bucket, by its key or name."""
    items, objects = everything(stored)
    return [str(key) for key in items] + list(objects)


@pytest.fixture
def besides(stored: StoredTurns) -> tuple[dict[tuple[str, str], Any], dict[str, Any]]:
    live_besides(stored)
    return everything(stored)


def test_an_erasure_leaves_nothing_of_the_actor_and_all_of_the_others(
    stored: StoredTurns, executions: Executions, besides: Any
) -> None:
    live(stored)
    assert len(left(stored)) > 25 + len(besides[0]) + len(besides[1]) - 5

    first, last = erase(stored, executions)

    assert (first.done, first.waitSeconds, last) == (False, 5, Progress(done=True))
    assert first.erased > 20
    assert everything(stored) == besides
    assert executions.stopped == []


def test_what_is_exported_is_what_is_erased(stored: StoredTurns, executions: Executions, besides: Any) -> None:
    live(stored)
    belongings = Belongings(stored.table, stored.documents, STORE, ACTOR)
    exported = {(item["PK"], item["SK"]) for item in belongings.items()}, set(belongings.objects())
    before = everything(stored)

    erase(stored, executions)

    after = everything(stored)
    assert exported == (before[0].keys() - after[0].keys(), before[1].keys() - after[1].keys())
    assert len(exported[1]) >= 4
    assert [list(belongings.items()), list(belongings.objects())] == [[], []]


def test_an_actor_that_never_was_is_erased_too(stored: StoredTurns, executions: Executions) -> None:
    assert [progress.erased for progress in erase(stored, executions)] == [0, 0]
    assert left(stored) == []


def test_nobody_cannot_be_erased(stored: StoredTurns) -> None:
    with pytest.raises(ValueError, match="belong to nobody"):
        Belongings(stored.table, stored.documents, STORE, NO_ACTOR)


def count_requests(stored: StoredTurns, work: Callable[[], object]) -> int:
    """How many requests of DynamoDB the work makes."""
    stored.dynamodb.forget()
    work()
    made = len(stored.dynamodb.made)
    stored.dynamodb.forget()
    return made


def interrupted_at(stored: StoredTurns, service: str, when: str, number: int, work: Callable[[], object]) -> bool:
    """Does the work and dies before or after a request of a service. False if the work has no such request."""
    requests = getattr(stored, service)
    requests.forget()
    getattr(requests, when)[number] = die
    try:
        work()
    except Interrupted:
        return True
    finally:
        requests.forget()
    return False


def requests_of(stored: StoredTurns, service: str, work: Callable[[], object]) -> int:
    """Does the work undisturbed; how many requests of a service it made."""
    requests = getattr(stored, service)
    requests.forget()
    work()
    return len(requests.made)


def live_shortly(stored: StoredTurns, turn_id: str) -> None:
    """As little as has one of each kind that an erasure treats differently, with a turn under way."""
    remember(stored, "Reports in USD.", "mem-1")
    summarize(stored)
    stored.run(turn_id, answer=LONG, words="x" * 9_000)
    stored.begin(f"{turn_id[:-1]}x")


@pytest.mark.parametrize(("service", "fewest"), [("dynamodb", 20), ("s3", 6)])
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_erasure_that_dies_at_any_request_is_finished_by_a_repeat(
    stored: StoredTurns, executions: Executions, service: str, fewest: int, when: str
) -> None:
    live_shortly(stored, A)
    count = requests_of(stored, service, partial(erase, stored, executions, "e"))
    assert count >= fewest
    for number in some(range(count)):
        stored.clock.ms += 1
        live_shortly(stored, f"{number:032x}")
        work = partial(erase, stored, executions, f"e-{number}")
        assert interrupted_at(stored, service, when, number, work)
        erase(stored, executions, f"e-{number}")
        assert left(stored) == []


def test_an_erasure_that_died_keeps_the_actor_closed_until_it_is_repeated(
    stored: StoredTurns, executions: Executions
) -> None:
    live(stored)
    assert interrupted_at(stored, "s3", "before", 1, lambda: erase(stored, executions))

    with pytest.raises(ActorErased):
        Actors(stored.table).require(STORE, ACTOR)
    erase(stored, executions)
    assert not Actors(stored.table).require(STORE, ACTOR).erasing


def test_a_repeat_of_an_erasure_that_is_over_leaves_the_actors_new_life_alone(
    stored: StoredTurns, executions: Executions
) -> None:
    live(stored)
    erase(stored, executions)
    record = remember(stored, "Reports in EUR.", "mem-3")

    assert erasure(stored, executions).run() == Progress(done=True)
    assert Records(stored.table).of_actor(STORE, ACTOR) == [record]
    erase(stored, executions, "e-2")
    assert left(stored) == []


def test_erasures_asked_for_at_once_are_over_at_once(stored: StoredTurns, executions: Executions) -> None:
    live(stored)
    assert not erasure(stored, executions, "e-1").run().done
    assert not erasure(stored, executions, "e-2").run().done
    stored.clock.ms += 5_000
    assert erasure(stored, executions, "e-1").run().done
    record = remember(stored, "Reports in EUR.", "mem-3")

    assert erasure(stored, executions, "e-2").run() == Progress(done=True)
    assert Records(stored.table).of_actor(STORE, ACTOR) == [record]


@pytest.mark.parametrize("has_time", [True, False])
def test_an_erasure_that_is_joined_at_its_very_end_is_over_with_the_other(
    stored: StoredTurns, executions: Executions, has_time: bool
) -> None:
    last = count_requests(stored, lambda: erase(stored, executions, "e-0")) // 2
    erasure(stored, executions, "e-1").run()
    stored.clock.ms += 5_000
    stored.dynamodb.forget()
    stored.dynamodb.before[last - 1] = erasure(stored, executions, "e-2", has_time=lambda: has_time).run

    assert erasure(stored, executions, "e-1").run() == Progress(done=False)
    assert stored.dynamodb.before == {}
    assert erasure(stored, executions, "e-1").run() == Progress(done=True)
    assert erasure(stored, executions, "e-2").run() == Progress(done=True)
    assert left(stored) == []


def test_thousands_of_items_are_erased_in_as_many_invocations_as_it_takes(
    stored: StoredTurns, executions: Executions
) -> None:
    Actors(stored.table).require(STORE, ACTOR)
    for number in range(130):
        stored.table.put(Put(keys.session_event(SESSION, f"{number:016d}#aaaaaaaa"), {"messages": "{}"}))
    Sessions(stored.table).claim(SESSION, A)
    Sessions(stored.table).release(SESSION, A)
    erased = []
    while True:
        looks = iter([True] * 3)
        progress = erasure(stored, executions, has_time=lambda looks=looks: next(looks, False)).run()
        if progress.done:
            break
        erased.append(progress.erased)
        stored.clock.ms += progress.waitSeconds * 1000
    assert erased == [75, 55, 1]
    assert left(stored) == []


# ---- Races ----


def test_a_running_turn_is_stopped_cannot_commit_and_what_it_writes_late_is_removed(
    stored: StoredTurns, executions: Executions
) -> None:
    Actors(stored.table).require(STORE, ACTOR)
    running = stored.begin(A, trace=True)
    stored.journal(running, step(1, tool_use()))

    progress = erasure(stored, executions).run()
    assert executions.stopped == [A, A]
    assert progress.waitSeconds == LATE_WRITE_SECONDS
    assert [key[1] for key in everything(stored)[0]] == ["ACTOR#user-1"]

    # Its functions do not know yet.
    Journal(stored.table, stored.documents, A).record(step(2, text(LONG)))
    Traces.of_turn(stored.table, stored.documents, running).final_response(
        2, "Hello", LONG, {}, stored.clock.ms, "end_turn"
    )
    with pytest.raises(TurnAlreadyEnded):
        stored.commit(running)
    with pytest.raises(ActorErased):
        Actors(stored.table).require(STORE, ACTOR)

    erase(stored, executions)
    assert left(stored) == []


def test_a_turn_that_commits_first_is_erased_without_being_stopped(stored: StoredTurns, executions: Executions) -> None:
    Actors(stored.table).require(STORE, ACTOR)
    turn = stored.begin(A)
    stored.journal(turn, step(1, text("Hi")))
    stored.commit(turn)
    erase(stored, executions)
    assert left(stored) == []
    assert executions.stopped == []


@pytest.mark.parametrize("at", range(12))
def test_an_erasure_at_any_request_of_a_turn_leaves_nothing(
    stored: StoredTurns, executions: Executions, at: int
) -> None:
    """An erasure begins between two requests of a turn's states; the turn goes on as long as it is let."""
    Actors(stored.table).require(STORE, ACTOR)
    stored.dynamodb.forget()
    stored.dynamodb.before[at] = lambda: erasure(stored, executions).run()
    with suppress(ActorErased, LeaseLost, TurnAlreadyEnded):  # what the states would say
        turn = stored.begin(A)
        stored.journal(turn, step(1, text("Hi")))
        stored.commit(turn)
    stored.dynamodb.forget()

    erase(stored, executions)
    assert left(stored) == []


def test_a_turn_between_its_claim_and_its_header_is_stopped_too(stored: StoredTurns, executions: Executions) -> None:
    Actors(stored.table).require(STORE, ACTOR)
    Sessions(stored.table).claim(SESSION, A)

    assert erasure(stored, executions).run().waitSeconds == LATE_WRITE_SECONDS
    assert executions.stopped == [A]
    stored.s3.client.put_object(Bucket=stored.bucket, Key=keys.turn_object(A, "late"), Body=b"{}")
    erase(stored, executions)
    assert left(stored) == []


def test_a_lease_that_has_expired_is_of_no_running_turn(stored: StoredTurns, executions: Executions) -> None:
    Actors(stored.table).require(STORE, ACTOR)
    Sessions(stored.table).claim(SESSION, A)
    stored.clock.ms += 3_600_000
    assert erasure(stored, executions).run().waitSeconds == 5
    assert executions.stopped == []


def test_a_turn_whose_execution_is_gone_is_erased_like_any(stored: StoredTurns, executions: Executions) -> None:
    Actors(stored.table).require(STORE, ACTOR)
    stored.begin(A)
    executions.unknown.add(A)
    erase(stored, executions)
    assert left(stored) == []


def test_the_failure_of_a_stopped_turn_is_recorded_nowhere(stored: StoredTurns, executions: Executions) -> None:
    Actors(stored.table).require(STORE, ACTOR)
    stored.begin(A)
    erase(stored, executions)
    aborted = ExecutionFailure(
        "arn", A, stored.request(A).encode(), "ABORTED", "ActorErased", "the actor's memory was erased", "Invoke Model"
    )

    assert record(stored.table, stored.documents, DeadLetters(None, "no queue"), aborted) is Recorded.REFUSED
    assert left(stored) == []


def test_a_consolidation_that_comes_late_writes_nothing(stored: StoredTurns, executions: Executions) -> None:
    actor = Actors(stored.table).require(STORE, ACTOR)
    late = Record(STORE, ACTOR, "/facts/user-1/", "mem-9", "Reports in USD.", Provenance("CONSOLIDATION"))
    writes: list[Write] = [added(late), known(STORE, ACTOR, late.namespace), actor.unchanged()]

    erasure(stored, executions).run()
    with pytest.raises(TransactionRefused):
        stored.table.transact(writes)
    erase(stored, executions)
    with pytest.raises(TransactionRefused):
        stored.table.transact(writes)
    assert left(stored) == []
    Actors(stored.table).require(STORE, ACTOR)
    with pytest.raises(TransactionRefused):
        stored.table.transact(writes)
    assert Records(stored.table).of_actor(STORE, ACTOR) == []


def create_event(stored: StoredTurns) -> bool:
    """CreateEvent; False if it was refused."""
    message = {"conversational": {"role": "USER", "content": {"text": "Hi"}}}
    fields = {"memoryId": STORE, "actorId": ACTOR, "sessionId": "s-1", "payload": [message], "clientToken": "token"}
    events = Events(stored.table, stored.documents, pause=lambda _seconds: None)
    try:
        events.create({**fields, "eventTimestamp": stored.clock.ms / 1000})
    except Busy:
        return False
    return True


def test_an_event_created_at_any_moment_of_an_erasure_is_erased_or_refused(
    stored: StoredTurns, executions: Executions
) -> None:
    create_event(stored)
    requests = count_requests(stored, lambda: erase(stored, executions, "e"))
    created = []
    for number in range(requests):
        create_event(stored)
        stored.dynamodb.forget()
        stored.dynamodb.before[number] = lambda: created.append(create_event(stored))
        erase(stored, executions, f"e-{number}")
        assert left(stored) == []
    assert set(created) == {True, False}
    assert len(created) == requests


def test_an_erasure_at_any_moment_of_creating_an_event_leaves_only_what_is_new(
    stored: StoredTurns, executions: Executions
) -> None:
    requests = count_requests(stored, lambda: create_event(stored))
    for number in range(requests):
        remember(stored, "Reports in USD.", "mem-1")
        stored.dynamodb.forget()
        stored.dynamodb.before[number] = partial(erase, stored, executions, f"e-{number}")
        assert create_event(stored), "after the erasure the actor begins anew"
        assert Records(stored.table).of_actor(STORE, ACTOR) == []
        erase(stored, executions, f"f-{number}")
        assert left(stored) == []


def test_objects_that_s3_leaves_are_an_error_and_not_forgotten(
    stored: StoredTurns, executions: Executions, monkeypatch: pytest.MonkeyPatch
) -> None:
    live(stored)
    for codes, error in [({"InternalError"}, StorageUnavailable), ({"SlowDown", "AccessDenied"}, NotAllDeleted)]:
        refusing = {"Errors": [{"Key": "k", "Code": code} for code in codes]}
        monkeypatch.setattr(stored.s3.client, "delete_objects", lambda refusing=refusing, **_: refusing)
        with pytest.raises(error, match=codes.pop()):
            erasure(stored, executions).run()
    monkeypatch.undo()
    erase(stored, executions)
    assert left(stored) == []


def test_items_that_dynamodb_leaves_are_deleted_by_asking_again(
    stored: StoredTurns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turnwright.storage.availability._PAUSE_SECONDS", (0.0,) * 4)
    events = [keys.session_event(SESSION, f"{number:016d}#aaaaaaaa") for number in range(4)]
    for key in events:
        stored.table.put(Put(key, {}))
    original = stored.dynamodb.client.batch_write_item

    def one_at_a_time(**arguments: Any) -> Any:
        ((name, entries),) = arguments["RequestItems"].items()
        answer = original(**{**arguments, "RequestItems": {name: entries[:1]}})
        return {**answer, "UnprocessedItems": {name: entries[1:]} if entries[1:] else {}}

    monkeypatch.setattr(stored.dynamodb.client, "batch_write_item", one_at_a_time)
    stored.table.delete_many(events)
    assert list(stored.table.keys(SESSION.partition)) == []
    for key in events:
        stored.table.put(Put(key, {}))
    monkeypatch.setattr(
        stored.dynamodb.client,
        "batch_write_item",
        lambda **arguments: {"UnprocessedItems": arguments["RequestItems"]},
    )
    with pytest.raises(StorageUnavailable, match="left 4 of 4"):
        stored.table.delete_many(events)


EVIL = st.text(st.sampled_from("ab#/%:.~-é\U0001f600 "), min_size=1, max_size=6).filter(lambda actor: actor != NO_ACTOR)


@given(EVIL, EVIL)
@example("a", "a/b")
@example("a#", "a")
@example("..", ".")
@example("a%2Fb", "a/b")
@example("ab", "a")
def test_an_erasure_takes_nothing_of_another_actor(
    stored: StoredTurns, executions: Executions, first: str, second: str
) -> None:
    if first == second:
        return

    def of(actor: str) -> Any:
        belongings = Belongings(stored.table, stored.documents, STORE, actor)
        return list(belongings.items()), sorted(belongings.objects())

    for actor in (first, second):
        session_id = SessionId(STORE, actor, "s-1")
        remember(stored, "fact", "mem-1", actor)
        summarize(stored, actor=actor)
        Sessions(stored.table).claim(session_id, "")
        Sessions(stored.table).release(session_id, "")
        for name in (keys.session_object(session_id, "d"), keys.memory_object(STORE, actor, "d")):
            stored.s3.client.put_object(Bucket=stored.bucket, Key=name, Body=b"{}")
    kept = of(second)
    assert (len(kept[0]), len(kept[1])) == (5, 2)
    for _ in range(2):
        Erasure(stored.table, stored.documents, executions, MACHINE, STORE, first, f"e-{first}").run()
        stored.clock.ms += 5_000
    assert of(first) == ([], [])
    assert of(second) == kept
    for _ in range(2):
        Erasure(stored.table, stored.documents, executions, MACHINE, STORE, second, f"f-{second}").run()
        stored.clock.ms += 5_000
    assert left(stored) == []
    for key in stored.items():
        if key[1].startswith("ERASURE#"):
            stored.dynamodb.client.delete_item(
                TableName=stored.table.name, Key={"PK": {"S": key[0]}, "SK": {"S": key[1]}}
            )


# ---- One session ----


def test_a_session_is_erased_with_its_events_and_summary_and_nothing_else(stored: StoredTurns) -> None:
    live(stored)
    summarize(stored, "s-2")
    before = everything(stored)

    assert erase_session(stored.table, stored.documents, SESSION) is True

    after = everything(stored)
    gone = before[0].keys() - after[0].keys()
    assert {key[0] for key in gone} == {SESSION.partition, keys.actor_partition(STORE, ACTOR)}
    assert [key[1].partition("#")[0] for key in sorted(gone) if key[0] != SESSION.partition] == ["RECORD", "SUMMARY"]
    assert len(Records(stored.table).of_actor(STORE, ACTOR)) == 2
    assert not any(key[0] == SESSION.partition for key in after[0])
    assert [summary.session_id for summary in SessionSummaries(stored.table).latest(STORE, ACTOR, 9)] == ["s-2"]
    assert before[1].keys() - after[1].keys() == {name for name in before[1] if keys.session_objects(SESSION) in name}
    assert erase_session(stored.table, stored.documents, SESSION) is False


def test_a_session_is_not_erased_under_a_running_turn(stored: StoredTurns) -> None:
    turn = stored.begin(A)
    before = everything(stored)
    with pytest.raises(SessionBusy, match=A):
        erase_session(stored.table, stored.documents, SESSION)
    assert everything(stored) == before
    stored.journal(turn, step(1, text("Hi")))
    stored.commit(turn)


@pytest.mark.parametrize("service", ["dynamodb", "s3"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_sessions_erasure_that_dies_at_any_request_is_finished_by_a_repeat(
    stored: StoredTurns, service: str, when: str
) -> None:
    work = partial(erase_session, stored.table, stored.documents, SESSION)
    stored.run(A, answer=LONG)
    summarize(stored)
    count = requests_of(stored, service, work)
    assert count >= (1 if service == "s3" else 4)
    for number in some(range(count)):
        stored.clock.ms += 1
        stored.run(f"{number:032x}", answer=LONG)
        summarize(stored)
        assert interrupted_at(stored, service, when, number, work)
        erase_session(stored.table, stored.documents, SESSION)
        assert list(stored.table.keys(SESSION.partition)) == []
        assert SessionSummaries(stored.table).latest(STORE, ACTOR, 9) == []
        assert not any(name.startswith("sessions/") for name in stored.objects())


def test_a_turn_cannot_begin_while_its_session_is_erased_and_begins_anew_afterwards(stored: StoredTurns) -> None:
    stored.run(A, answer="Hi")
    stored.dynamodb.forget()
    refused: list[str] = []

    def begin() -> None:
        try:
            stored.begin(B)
        except SessionBusy as busy:
            refused.append(str(busy))

    stored.dynamodb.before[2] = begin
    assert erase_session(stored.table, stored.documents, SESSION)
    assert refused == ["session s-1 runs turn erasure"]
    assert stored.seen(stored.begin(C)) == []


def test_an_event_added_while_its_session_is_erased_goes_too(stored: StoredTurns) -> None:
    stored.run(A, answer="Hi")
    late = f"{stored.clock.ms + 5:016d}#bbbbbbbb"

    def create() -> None:
        stored.table.transact(
            [
                Put(keys.session_event(SESSION, late), {"payload": "[]"}),
                Update(keys.session(SESSION), "SET lastEventId = :last", values={":last": late}),
            ]
        )

    requests = count_requests(stored, lambda: erase_session(stored.table, stored.documents, SESSION))
    stored.clock.ms += 1
    stored.run(B, answer="Hi")
    stored.dynamodb.forget()
    stored.dynamodb.before[len(["hold", "keys", "summaries", "delete"])] = create
    assert requests >= 5
    assert erase_session(stored.table, stored.documents, SESSION)
    assert list(stored.table.keys(SESSION.partition)) == []


# ---- The function ----


def test_the_function_erases_with_an_eye_on_its_time(
    stored: StoredTurns, executions: Executions, monkeypatch: pytest.MonkeyPatch
) -> None:
    live(stored)
    monkeypatch.setenv("STATE_MACHINE_ARN", MACHINE)
    settings.cache_clear()
    monkeypatch.setattr("turnwright.storage.clients.stepfunctions", lambda: executions)
    remaining = [300_000]

    class Context:
        def get_remaining_time_in_millis(self) -> int:
            return remaining[0]

    event = {"memoryStore": STORE, "actor": ACTOR, "erasureId": "e-1"}
    remaining[0] = 10_000
    assert erase_memory.handler(event, Context()) == {"done": False, "waitSeconds": 0, "erased": 0}
    remaining[0] = 300_000
    told = erase_memory.handler(event, Context())
    assert (told["done"], told["waitSeconds"]) == (False, 5)
    stored.clock.ms += 5_000
    assert erase_memory.handler(event, Context()) == {"done": True, "waitSeconds": 0, "erased": 0}
    assert left(stored) == []


def test_an_erasure_of_which_any_request_fails_goes_on_with_its_retry(
    stored: StoredTurns, executions: Executions, besides: Any
) -> None:
    def unavailable() -> None:
        raise StorageUnavailable("no")

    def run(erasure_id: str) -> int:
        faults = 0
        progress = Progress(done=False)
        while not progress.done:
            stored.clock.ms += progress.waitSeconds * 1000
            try:
                progress = erasure(stored, executions, erasure_id).run()
            except StorageUnavailable:
                faults += 1
        return faults

    live(stored)
    stored.dynamodb.forget()
    stored.s3.forget()
    run("e-good")
    places = [(client, number) for client in (stored.dynamodb, stored.s3) for number in range(len(client.made))]
    for place, (client, number) in enumerate(some(places)):
        live(stored)
        stored.dynamodb.forget()
        stored.s3.forget()
        getattr(client, "before" if place % 2 else "after")[number] = unavailable
        assert run(f"e-{place}") == 1
        assert everything(stored) == besides, (place, number)


def test_an_object_that_a_consolidation_writes_late_before_it_dies_is_erased_too(
    memory: StoredMemory, executions: Executions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has announced the object when the erasure begins, and may hang for as long as its function lives."""
    monkeypatch.setattr("turnwright.memory.consolidation.consolidation_journal.ITEM_BYTES", 10)
    stored = memory.stored
    memory.say("currency: EUR")
    work = memory.end()

    def erase_meanwhile() -> None:
        until = stored.clock.ms + 890_000
        progress = erasure(stored, executions).run()
        while not progress.done and stored.clock.ms + progress.waitSeconds * 1000 < until:
            stored.clock.ms += progress.waitSeconds * 1000
            progress = erasure(stored, executions).run()
        assert [name for name in stored.objects() if "~memory" in name] == []

    died = 0
    for state in memory.states(work):
        stored.s3.forget()
        stored.s3.before[0] = erase_meanwhile
        stored.s3.after[0] = die
        try:
            state()
        except Interrupted:
            died += 1
            break
    assert died
    assert [name for name in stored.objects() if "~memory" in name] != []

    erase(stored, executions)

    assert [entry for entry in left(stored) if "user-1" in entry] == []
    assert stored.objects() == {}
