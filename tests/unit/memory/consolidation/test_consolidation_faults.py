"""What a consolidation leaves when it is killed, repeated, raced or its actor erased at any moment."""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from tests.thorough import some
from tests.unit.stored_memory import ACTOR, STORE, Snapshot, StoredMemory, stored_record
from tests.unit.stored_turns import Interrupted, Requests, die
from tests.waiting import patient
from turnwright.errors import ActorErased, StorageUnavailable
from turnwright.memory.records import records
from turnwright.memory.records.actors import Actors
from turnwright.memory.session_ends.consolidations import Consolidation, consolidation
from turnwright.storage import keys

SPILLED = pytest.mark.parametrize("spilled", [False, True], ids=["inline", "spilled"])


def lose_connection() -> None:
    raise StorageUnavailable("DynamoDB PutItem: EndpointConnectionError")


def prepared(memory: StoredMemory, monkeypatch: pytest.MonkeyPatch, *, spilled: bool) -> Consolidation:
    """A session whose end changes, adds and removes records."""
    notes: list[dict[str, Any]] = [{"name": "notes", "mergeRule": "MODEL"}]
    if spilled:
        monkeypatch.setattr("turnwright.memory.consolidation.consolidation_journal.ITEM_BYTES", 10)
    memory.configure(namespaces=[{"name": "preferences", "maxRecords": 2}, *([] if spilled else notes)])
    memory.say("currency: USD\na: 1", session="s-0")
    memory.consolidate(memory.end("s-0"))
    memory.say("currency: EUR\nc: 3")
    return memory.end()


@dataclass(slots=True)
class Moment:
    """One request of a state: `happens` makes something happen right after it, or before the state's first one.

    `after` is what an undisturbed state leaves.
    """

    name: str
    state: Callable[[], Any]
    happens: Callable[[Callable[[], object]], None]
    after: Snapshot


def moments(memory: StoredMemory, work: Consolidation, *, of: str = "") -> Iterator[Moment]:
    """Requests of every state of a run (or of the states named `of`), each with the storage as it was before the state.

    All requests in a thorough run, else some of each state.
    """
    clients = {"dynamodb": memory.stored.dynamodb, "s3": memory.stored.s3}
    for place, state in enumerate(memory.states(work)):
        if of and state.__name__ != of:
            state()
            continue
        before = memory.snapshot()
        for client in clients.values():
            client.forget()
        state()
        counted = {name: len(client.made) for name, client in clients.items()}
        after = memory.snapshot()
        for name, client in clients.items():
            for number in some(range(-1 if name == "dynamodb" else 0, counted[name])):

                def happens(what: Callable[[], object], client: Requests = client, number: int = number) -> None:
                    if number < 0:
                        client.before[0] = what
                    else:
                        client.after[number] = what

                memory.restore(before)
                for each in clients.values():
                    each.forget()
                yield Moment(f"{name} {number} of state {place} ({state.__name__})", state, happens, after)
        memory.restore(after)


@SPILLED
def test_whatever_request_it_dies_at_nothing_or_everything_is_visible_and_a_retry_makes_it_everything(
    memory: StoredMemory, monkeypatch: pytest.MonkeyPatch, spilled: bool
) -> None:
    work = prepared(memory, monkeypatch, spilled=spilled)
    nothing = memory.visible()
    for moment in moments(memory, work):
        moment.happens(lose_connection if spilled else die)
        with suppress(StorageUnavailable) if spilled else pytest.raises(Interrupted):
            moment.state()
        assert memory.visible() in (nothing, memory.visible(moment.after)), moment.name
        moment.state()
        assert memory.snapshot() == moment.after, moment.name
    assert memory.texts("preferences") == ["c: 3", "currency: EUR"]
    assert memory.texts("notes") == ([] if spilled else ["a: 1", "c: 3", "currency: EUR", "currency: USD"])


def test_every_state_may_run_twice_and_a_repeat_pays_no_model(memory: StoredMemory) -> None:
    memory.say("currency: USD", "project: Phoenix")
    for state in memory.states(memory.end()):
        once = dict(state())
        items, asked = memory.snapshot(), len(memory.model.asked)
        again = dict(state())
        assert again == once or (once["status"], again["status"]) == ("WRITTEN", "NOTHING_TO_DO")
        assert (memory.snapshot(), len(memory.model.asked)) == (items, asked)


def erase(memory: StoredMemory) -> None:
    """As an erasure does it: the mark first, then everything, the actor's item last."""
    client, table = memory.stored.dynamodb.client, memory.stored.table.name
    actor = keys.actor(STORE, ACTOR)
    client.update_item(
        TableName=table,
        Key={"PK": {"S": actor.pk}, "SK": {"S": actor.sk}},
        UpdateExpression="SET erasingSince = :now",
        ExpressionAttributeValues={":now": {"N": "1"}},
    )
    memory.stored.write_together(delete=of_the_actor(memory))
    for name in memory.stored.objects():
        memory.stored.s3.client.delete_object(Bucket=memory.stored.bucket, Key=name)
    client.delete_item(TableName=table, Key={"PK": {"S": actor.pk}, "SK": {"S": actor.sk}})


def of_the_actor(memory: StoredMemory) -> list[tuple[str, str]]:
    """What an erased actor must not have: records, summaries, sessions, journals, namespaces."""
    return [
        key
        for key in memory.stored.items()
        if key[0].startswith(("ACTOR#", "SESSION#")) or key[1].startswith("NAMESPACE#")
    ]


@pytest.mark.parametrize(("spilled", "comes_back"), [(False, False), (True, True)], ids=["gone", "spilled, new"])
def test_whenever_the_actor_is_erased_nothing_comes_back(
    memory: StoredMemory, monkeypatch: pytest.MonkeyPatch, spilled: bool, comes_back: bool
) -> None:
    work = prepared(memory, monkeypatch, spilled=spilled)

    def erased() -> None:
        erase(memory)
        if comes_back:
            Actors(memory.quiet().stored.table).require(STORE, ACTOR)

    gone = memory.stored.s3.client.exceptions.NoSuchKey
    for moment in moments(memory, work):
        moment.happens(erased)
        for _ in range(2):
            # KeyError: the journal of an earlier state is erased, which fails this one.
            with suppress(ActorErased, KeyError, gone):
                moment.state()
            assert of_the_actor(memory) == [], moment.name
            assert memory.stored.objects() == {}, moment.name


def test_an_actor_that_is_being_erased_stops_it_at_once(memory: StoredMemory) -> None:
    memory.say("currency: USD")
    work = memory.end()
    client, actor = memory.stored.dynamodb.client, keys.actor(STORE, ACTOR)
    client.update_item(
        TableName=memory.stored.table.name,
        Key={"PK": {"S": actor.pk}, "SK": {"S": actor.sk}},
        UpdateExpression="SET erasingSince = :now",
        ExpressionAttributeValues={":now": {"N": "1"}},
    )
    with pytest.raises(ActorErased):
        next(memory.states(work))()
    assert memory.model.asked == []


@pytest.mark.parametrize("order", ["first", "second"])
def test_two_consolidations_at_the_same_time_lose_and_double_nothing(memory: StoredMemory, order: str) -> None:
    memory.configure(
        namespaces=[{"name": "preferences"}, {"name": "projects", "mergeRule": "APPEND"}], enabledMemoryTypes=[]
    )
    memory.say("project: Phoenix", "currency: USD", "a: 1")
    memory.say("project: Phoenix", "currency: EUR", "b: 2", session="s-2")
    works = [memory.end("s-1"), memory.end("s-2")]
    if order == "second":
        works.reverse()
    together = threading.Barrier(2)
    failures: list[BaseException] = []

    def run(work: Consolidation) -> None:
        try:
            for state in memory.states(work):
                if state.__name__ == "write":
                    _wait(together)
                state()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=patient(60))
    assert failures == []
    assert memory.texts("preferences") == ["a: 1", "b: 2", "currency: EUR", "project: Phoenix"]
    assert memory.texts("projects") == ["a: 1", "b: 2", "currency: EUR", "currency: USD", "project: Phoenix"]


def _wait(barrier: threading.Barrier) -> None:
    """For the other one's first try to write; later tries go on alone."""
    try:
        barrier.wait(timeout=5)
    except threading.BrokenBarrierError:
        return
    barrier.abort()


# ---- More than one transaction ----


@pytest.fixture
def in_batches(memory: StoredMemory, monkeypatch: pytest.MonkeyPatch) -> StoredMemory:
    """A transaction takes four records, so that what a session leaves needs several."""
    monkeypatch.setattr("turnwright.memory.consolidation.write_records.MOST_TRANSACTION_WRITES", 14)
    memory.configure(
        namespaces=[{"name": "preferences"}, {"name": "projects", "mergeRule": "APPEND"}], enabledMemoryTypes=[]
    )
    return memory


WORDS = [f"fact {number}: {number}" for number in range(10)]


def test_batches_are_written_once_each_whatever_request_dies(in_batches: StoredMemory) -> None:
    memory = in_batches
    memory.say("\n".join(WORDS))
    for moment in moments(memory, memory.end(), of="write"):
        moment.happens(die)
        with pytest.raises(Interrupted):
            moment.state()
        assert moment.state()["status"] in ("WRITTEN", "NOTHING_TO_DO")
        assert memory.visible() == memory.visible(moment.after), moment.name
    assert memory.texts("projects") == memory.texts("preferences") == sorted(WORDS)


def test_batches_that_meet_another_writer_are_merged_again_and_nothing_is_lost_or_doubled(
    in_batches: StoredMemory,
) -> None:
    memory = in_batches
    memory.say("\n".join(WORDS))
    work, before = memory.end(), memory.snapshot()
    merged_again = 0
    for number in some(transactions_of_the_last_state(memory, work)):
        memory.restore(before)
        has_met = False
        for state in memory.states(work):
            if state.__name__ == "write" and not has_met:
                has_met = True
                memory.stored.dynamodb.forget()
                memory.stored.dynamodb.after[number] = lambda: stored_record(memory.quiet(), "Fact 7:  7")
            merged_again += state().get("again") is not None
        assert memory.texts("preferences") == sorted(WORDS), number
        spellings = sorted(text.casefold().replace("  ", " ") for text in memory.texts("projects"))
        # it may come when the fact is written already: then it is not the consolidation's to judge
        assert spellings in (sorted(WORDS), sorted([*WORDS, "fact 7: 7"])), number
    assert merged_again


def transactions_of_the_last_state(memory: StoredMemory, work: Consolidation) -> list[int]:
    """The numbers of its requests that write."""
    for state in memory.states(work):
        memory.stored.dynamodb.forget()
        state()
    operations = memory.stored.dynamodb.operations
    return [number for number, operation in enumerate(operations) if operation == "transact_write_items"]


def test_a_record_of_an_earlier_batch_that_is_forgotten_meanwhile_does_not_come_back(in_batches: StoredMemory) -> None:
    memory = in_batches
    memory.say("\n".join(WORDS))
    work = memory.end()
    forgotten: list[str] = []

    def forget_one_and_write_another() -> None:
        quiet = memory.quiet()
        written = quiet.records("preferences")
        if written and not forgotten:
            forgotten.append(written[0].text)
            quiet.stored.table.delete(records.removed(written[0]))
            stored_record(quiet, "other: 1", namespace="preferences", key="other")

    for state in memory.states(work):
        if state.__name__ == "write":
            start = len(memory.stored.dynamodb.made)
            for number in range(start, start + 40):
                memory.stored.dynamodb.before[number] = forget_one_and_write_another
        state()
    assert len(forgotten) == 1
    assert memory.texts("preferences") == sorted([*(set(WORDS) - set(forgotten)), "other: 1"])


def test_a_consolidation_of_a_session_that_is_gone_does_nothing(memory: StoredMemory) -> None:
    actor = Actors(memory.stored.table).require(STORE, ACTOR)
    memory.say("currency: USD")
    ended = memory.end()
    gone = consolidation(
        ended.kind,
        ended.session,
        "",
        "0001790000099000#ffffffff",
        agent_id="BANK",
        agent_version="2",
        actor_epoch=actor.epoch,
    )
    assert memory.consolidate(gone)["status"] == "NOTHING_TO_DO"
    assert memory.texts() == []
