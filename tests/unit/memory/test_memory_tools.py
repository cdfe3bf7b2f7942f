"""The memory tools as the gateway carries them out: within the access policy, once, and seen by the next call."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from tests.unit.stored_turns import SESSION, A, B, Interrupted, StoredTurns, die, step
from tests.unit.tool_turns import QUEUE_URL, FakeLambda, FakeQueue
from turnwright.agents.definitions import Agent, parse
from turnwright.agents.memory_configuration import RECORD_BYTES
from turnwright.errors import ModelThrottled, ToolAttemptFailed
from turnwright.memory.records.actors import Actors
from turnwright.memory.records.records import Provenance, Record, Records, added, changed, known
from turnwright.models import embeddings
from turnwright.sessions.values import Turn, TurnRequest
from turnwright.storage import keys
from turnwright.storage.dead_letters import DeadLetters
from turnwright.storage.keys import NO_ACTOR
from turnwright.storage.table import Check, Table, TransactionRefused, Update
from turnwright.turn.invoke_tool import Call, Gateway
from turnwright.turn.load_memory import begin

GROUP = {"actionGroupName": "Memory", "parentActionGroupSignature": "TURNWRIGHT.Memory"}
NAMESPACES: list[dict[str, Any]] = [
    {"name": "facts", "mergeRule": "APPEND", "maxRecords": 3},
    {"name": "preferences", "mergeRule": "REPLACE"},
    {"name": "first", "mergeRule": "KEEP_FIRST"},
    {"name": "judged", "mergeRule": "MODEL"},
    {"name": "read_only", "access": {"write": ["OTHER"]}},
    {"name": "write_only", "access": {"read": ["OTHER"], "write": ["BANK"]}},
    {"name": "notes", "scope": "SESSION", "mergeRule": "APPEND"},
]


class Memory:
    """A turn whose model asks for memory tools, each call in a step of its own."""

    def __init__(self, stored: StoredTurns, turn: Turn, agent: Agent) -> None:
        self.stored = stored
        self.turn = turn
        self.agent = agent
        self.queue = FakeQueue()
        self.step = 0

    def ask(self, name: str, **arguments: Any) -> int:
        """The number of the step."""
        self.step += 1
        message = {
            "role": "assistant",
            "content": [{"toolUse": {"toolUseId": f"use-{self.step}", "name": name, "input": arguments}}],
        }
        self.stored.journal(self.turn, step(self.step, message))
        return self.step

    def attempt(self, number: int, *, lost: bool = False, table: Table | None = None) -> dict[str, Any]:
        gateway = Gateway(
            table or self.stored.table, self.stored.documents, self.turn, self.agent, DeadLetters(self.queue, QUEUE_URL)
        )
        result = gateway.attempt(number, Call(f"use-{number}", 0, 16_384), 1, lost=lost)
        assert (result["toolUseId"], result["status"]) == (f"use-{number}", "success")
        answer: dict[str, Any] = json.loads(self.stored.documents.fetch(result["result"])["text"])
        return answer

    def call(self, name: str, **arguments: Any) -> dict[str, Any]:
        return self.attempt(self.ask(name, **arguments))

    def refusal(self, name: str, **arguments: Any) -> tuple[str, str]:
        """The code and the message of a call that fails, which changes nothing."""
        number = self.ask(name, **arguments)
        before = self.stored.items()
        with pytest.raises(ToolAttemptFailed) as failed:
            self.attempt(number)
        assert without_traces(self.stored.items()) == without_traces(before)
        report = json.loads(str(failed.value))
        return report["errorCode"], report["errorMessage"]

    def found(self, query: str, **arguments: Any) -> list[str]:
        return [record["text"] for record in self.call("search_memory", query=query, **arguments)["records"]]

    def records(self, name: str) -> list[Record]:
        namespace = self.agent.memory.namespace(name)
        assert namespace is not None
        path = namespace.path(self.turn.actor, self.turn.sessionId)
        return Records(self.stored.table).of_namespace(self.turn.memoryStore, self.turn.actor, path)


def without_traces(items: dict[tuple[str, str], Any]) -> dict[tuple[str, str], Any]:
    return {key: item for key, item in items.items() if not key[1].startswith("TRACE#")}


def publish(stored: StoredTurns, **memory: Any) -> Agent:
    groups = [GROUP]
    return stored.publish(actionGroups=groups, memoryConfiguration={"namespaces": NAMESPACES, **memory})


@pytest.fixture
def memory(stored: StoredTurns, fake_lambda: FakeLambda) -> Memory:
    """No Lambda has an answer: whoever invoked one would fail."""
    agent = publish(stored)
    return Memory(stored, stored.begin(A, trace=True), agent)


def test_what_is_remembered_is_found_by_the_very_next_call(memory: Memory) -> None:
    answer = memory.call("remember", namespace="facts", text="Works on Project Phoenix.")

    now = memory.stored.clock.ms
    (record,) = memory.records("facts")
    assert answer == {
        "remembered": True,
        "recordId": record.record_id,
        "namespace": "facts",
        "text": "Works on Project Phoenix.",
        "saidAt": "2026-09-21T14:13:20.000Z",
    }
    assert record == Record(
        store=SESSION.store,
        actor=SESSION.actor,
        namespace="/facts/user-1/",
        record_id=record.record_id,
        text="Works on Project Phoenix.",
        provenance=Provenance(
            source="TOOL",
            session_id="s-1",
            turn_id=A,
            event_id=memory.stored.header(A).event_id,
            agent_id="BANK",
            agent_version="2",
        ),
        strategy="facts",
        created_at=now,
        updated_at=now,
        timestamp=now,
        expires_at=now // 1000 + 30 * 86_400,
    )
    assert memory.found("phoenix") == ["Works on Project Phoenix."]
    assert list(Records(memory.stored.table).namespaces(SESSION.store, "/facts/")) == [("/facts/user-1/", "user-1")]


def test_a_search_finds_the_best_first_within_its_bound_and_only_what_matches(memory: Memory) -> None:
    for text in ("Reports in USD.", "Owns a dog.", "Reports monthly."):
        memory.call("remember", namespace="facts", text=text)

    assert memory.found("reports in USD")[0] == "Reports in USD."
    assert memory.found("reports in USD", max_results=1) == ["Reports in USD."]
    assert memory.found("quantum zebra 42") == []


def test_a_search_in_one_namespace_finds_nothing_of_another(memory: Memory) -> None:
    memory.call("remember", namespace="facts", text="Likes tea.")
    memory.call("remember", namespace="preferences", text="Likes tea a lot.", key="drink")

    assert memory.found("tea", namespace="preferences") == ["Likes tea a lot."]
    assert sorted(memory.found("tea")) == ["Likes tea a lot.", "Likes tea."]


def test_an_expired_record_is_not_found(memory: Memory) -> None:
    memory.call("remember", namespace="facts", text="Likes tea.")
    memory.stored.clock.ms += 30 * 86_400_000

    assert memory.found("tea") == []


# ---- Merge rules ----


def test_a_key_replaces_what_was_known_and_the_record_says_what(memory: Memory) -> None:
    memory.call("remember", namespace="preferences", text="Reports in EUR.", key="currency")
    memory.stored.clock.ms += 1_000
    memory.call("remember", namespace="preferences", text="Reports in USD.", key="Currency")

    (record,) = memory.records("preferences")
    assert (record.text, record.version, record.provenance.source) == ("Reports in USD.", 2, "TOOL")
    assert record.provenance.replaced == (
        {"text": "Reports in EUR.", "sessionId": "s-1", "turnId": A, "at": memory.stored.clock.ms - 1_000},
    )


def test_the_first_of_a_key_stays_where_the_rule_says_so(memory: Memory) -> None:
    memory.call("remember", namespace="first", text="Joined in 2020.", key="joined")

    assert memory.call("remember", namespace="first", text="Joined in 2021.", key="joined") == {
        "remembered": False,
        "because": "first keeps what it has for the key joined",
    }
    assert [record.text for record in memory.records("first")] == ["Joined in 2020."]


def test_what_is_known_is_not_appended_again(memory: Memory) -> None:
    for _ in range(2):
        memory.call("remember", namespace="facts", text="Works on Phoenix.")

    assert len(memory.records("facts")) == 1


def test_no_model_is_asked_for_a_namespace_that_a_model_merges(memory: Memory) -> None:
    memory.call("remember", namespace="judged", text="Likes tea.")
    memory.call("remember", namespace="judged", text="Lives in Ulm.", key="city")
    memory.call("remember", namespace="judged", text="Lives in Bonn.", key="city")

    assert sorted(record.text for record in memory.records("judged")) == ["Likes tea.", "Lives in Bonn."]


def test_beyond_its_bound_a_namespace_loses_what_was_not_written_for_longest(memory: Memory) -> None:
    for number in range(4):
        memory.stored.clock.ms += 1_000
        memory.call("remember", namespace="facts", text=f"Owns house number {number}.")

    assert sorted(record.text for record in memory.records("facts")) == [f"Owns house number {n}." for n in (1, 2, 3)]


def test_a_namespace_with_far_too_many_records_loses_them_with_some_calls(memory: Memory) -> None:
    """Their bound was lowered; a transaction takes a hundred writes."""
    place = (SESSION.store, SESSION.actor, "/facts/user-1/")
    old = [Record(*place, f"mem-{n:03d}", f"Owns house {n}.", Provenance("API"), updated_at=n) for n in range(150)]
    for start in (0, 75):
        memory.stored.table.transact([added(record) for record in old[start : start + 75]])

    counted = []
    for number in range(4):
        memory.call("remember", namespace="facts", text=f"Likes dish number {number}.")
        counted.append(len(memory.records("facts")))

    assert counted == [101, 52, 3, 3]
    assert "Likes dish number 3." in {record.text for record in memory.records("facts")}


# ---- Forget ----


def test_a_record_that_is_forgotten_is_not_found_by_the_very_next_call(memory: Memory) -> None:
    record_id = memory.call("remember", namespace="facts", text="Likes tea.")["recordId"]

    answer = memory.call("forget", namespace="facts", record_id=record_id)

    assert (answer["forgotten"], answer["text"]) == (True, "Likes tea.")
    assert memory.found("tea") == []
    assert memory.refusal("forget", namespace="facts", record_id=record_id) == (
        "FAILURE",
        f"there is no record {record_id} in facts",
    )


def test_what_may_be_written_but_not_read_is_forgotten_without_being_told(memory: Memory) -> None:
    record_id = memory.call("remember", namespace="write_only", text="Secret.")["recordId"]

    assert memory.call("forget", namespace="write_only", record_id=record_id) == {
        "forgotten": True,
        "recordId": record_id,
    }


def test_a_record_of_another_actor_cannot_be_forgotten_or_found(memory: Memory) -> None:
    other = Record(SESSION.store, "user-2", "/facts/user-2/", "mem-other", "Likes tea.", Provenance("API"))
    nested = Record(SESSION.store, "user-1/x", "/facts/user-1/x/", "mem-nested", "Likes tea.", Provenance("API"))
    memory.stored.table.transact([added(other), added(nested)])

    assert memory.refusal("forget", namespace="facts", record_id="mem-other")[0] == "FAILURE"
    assert memory.refusal("forget", namespace="facts", record_id="mem-nested")[0] == "FAILURE"
    assert memory.found("tea") == []


# ---- The access policy ----


@pytest.mark.parametrize(
    ("name", "arguments", "code", "message"),
    [
        (
            "remember",
            {"namespace": "read_only", "text": "x"},
            "ACCESS_DENIED",
            "the agent BANK may not write the namespace read_only",
        ),
        (
            "forget",
            {"namespace": "read_only", "record_id": "mem-1"},
            "ACCESS_DENIED",
            "the agent BANK may not write the namespace read_only",
        ),
        (
            "search_memory",
            {"namespace": "write_only", "query": "x"},
            "ACCESS_DENIED",
            "the agent BANK may not read the namespace write_only",
        ),
        (
            "remember",
            {"namespace": "nowhere", "text": "x"},
            "INVALID_ARGUMENTS",
            f"there is no namespace nowhere; the namespaces are: {', '.join(each['name'] for each in NAMESPACES)}",
        ),
        ("remember", {"namespace": "facts", "text": "   "}, "INVALID_ARGUMENTS", "the text is blank"),
        (
            "remember",
            {"namespace": "facts", "text": "€" * (RECORD_BYTES // 3 + 1)},
            "INVALID_ARGUMENTS",
            f"the text has {RECORD_BYTES // 3 * 3 + 3} bytes; a record has at most {RECORD_BYTES}",
        ),
    ],
)
def test_what_the_agent_may_not_do_is_refused_traced_and_changes_nothing(
    memory: Memory, name: str, arguments: dict[str, Any], code: str, message: str
) -> None:
    assert memory.refusal(name, **arguments) == (code, message)

    traces = [item["event"]["S"] for key, item in memory.stored.items().items() if key[1].startswith("TRACE#")]
    events = [memory.stored.documents.fetch_text(text) for text in traces]
    assert (code, message) in [(event.get("errorCode"), event.get("errorMessage")) for event in events]
    assert memory.queue.letters == []


def test_a_refused_search_reads_no_record(memory: Memory) -> None:
    number = memory.ask("search_memory", namespace="write_only", query="x")
    memory.stored.dynamodb.forget()

    with pytest.raises(ToolAttemptFailed):
        memory.attempt(number)

    partitions = [
        arguments["ExpressionAttributeValues"][":partition"]["S"]
        for operation, arguments in memory.stored.dynamodb.made
        if operation == "query"
    ]
    assert partitions == [keys.turn_partition(A)]


def test_a_search_everywhere_leaves_out_what_the_agent_may_not_read(memory: Memory) -> None:
    memory.call("remember", namespace="write_only", text="Likes tea.")

    assert memory.found("tea") == []


def test_arguments_that_break_the_schema_are_sent_back(memory: Memory) -> None:
    code, message = memory.refusal("remember", namespace="facts")

    assert code == "INVALID_ARGUMENTS"
    assert message.endswith("/text: is missing")


def test_without_an_actor_only_the_session_has_a_memory(stored: StoredTurns) -> None:
    agent = publish(stored)
    request = stored.request(A)
    nobody = TurnRequest(**{**{n: getattr(request, n) for n in TurnRequest.__slots__}, "memory_id": None})
    turn = begin(stored.table, stored.documents, agent, nobody, "arn:execution", redrive=0)
    memory = Memory(stored, turn, agent)

    assert memory.refusal("remember", namespace="facts", text="Likes tea.") == (
        "ACCESS_DENIED",
        "nothing is kept in facts, since the request names no user (it has no memoryId)",
    )
    memory.call("remember", namespace="notes", text="Talks about tea.")
    assert memory.found("tea") == ["Talks about tea."]
    assert Actors(stored.table).read(SESSION.store, NO_ACTOR) is None


# ---- Once ----


def test_a_repeated_call_remembers_once_and_answers_the_same(memory: Memory) -> None:
    number = memory.ask("remember", namespace="facts", text="Likes tea.")
    first = memory.attempt(number)
    before = memory.stored.items()
    memory.stored.clock.ms += 5_000

    assert memory.attempt(number) == first
    assert memory.attempt(number, lost=True) == first
    assert without_traces(memory.stored.items()) == without_traces(before)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("request_number", range(7))
@pytest.mark.parametrize("lost", [False, True])
def test_a_call_whose_gateway_dies_anywhere_is_carried_out_once_by_its_repeat(
    memory: Memory, when: str, request_number: int, lost: bool
) -> None:
    memory.call("remember", namespace="preferences", text="Reports in EUR.", key="currency")
    number = memory.ask("remember", namespace="preferences", text="Reports in USD.", key="currency")
    memory.stored.dynamodb.forget()
    getattr(memory.stored.dynamodb, when)[request_number] = die
    with pytest.raises(Interrupted):
        memory.attempt(number)

    answer = memory.attempt(number, lost=lost)

    (record,) = memory.records("preferences")
    assert (answer["remembered"], answer["recordId"]) == (True, record.record_id)
    assert (record.text, record.version) == ("Reports in USD.", 2)
    assert [former["text"] for former in record.provenance.replaced] == ["Reports in EUR."]


def test_a_repeat_does_not_undo_what_somebody_else_has_said_since(memory: Memory) -> None:
    number = memory.ask("remember", namespace="preferences", text="Reports in USD.", key="currency")
    memory.attempt(number)
    later = memory.ask("remember", namespace="preferences", text="Reports in GBP.", key="currency")
    memory.attempt(later)

    memory.attempt(number, lost=True)

    assert [record.text for record in memory.records("preferences")] == ["Reports in GBP."]


@pytest.mark.usefixtures("threads_check")
def test_calls_at_once_lose_nothing_and_write_one_record_for_a_key(memory: Memory) -> None:
    numbers = [
        memory.ask("remember", namespace="preferences", text=f"Reports in currency {n}.", key="currency")
        for n in range(3)
    ]
    start = Barrier(3)

    def attempt(number: int) -> dict[str, Any]:
        start.wait()
        return memory.attempt(number)

    with ThreadPoolExecutor(3) as threads:
        answers = list(threads.map(attempt, numbers))

    (record,) = memory.records("preferences")
    said = {answer["text"] for answer in answers}
    assert said == {record.text, *(former["text"] for former in record.provenance.replaced)}


@pytest.mark.usefixtures("threads_check")
def test_gateways_of_one_call_at_once_remember_once(memory: Memory) -> None:
    number = memory.ask("remember", namespace="facts", text="Likes tea.")
    start = Barrier(3)

    def attempt(_: int) -> dict[str, Any]:
        start.wait()
        return memory.attempt(number)

    with ThreadPoolExecutor(3) as threads:
        answers = list(threads.map(attempt, range(3)))

    assert answers == [answers[0]] * 3
    assert [record.record_id for record in memory.records("facts")] == [answers[0]["recordId"]]


def test_a_record_that_a_consolidation_changes_meanwhile_is_looked_at_again(memory: Memory) -> None:
    memory.call("remember", namespace="preferences", text="Reports in EUR.", key="currency")
    (before,) = memory.records("preferences")
    number = memory.ask("remember", namespace="preferences", text="Reports in USD.", key="currency")
    other = Table(memory.stored.dynamodb.client, memory.stored.table.name)

    def consolidate() -> None:
        assert memory.stored.dynamodb.operations[-1] == "transact_write_items"
        after = Record(**{**fields(before), "text": "Reports in GBP."})
        other.transact([changed(before, after), known(before.store, before.actor, before.namespace)])

    memory.stored.dynamodb.forget()
    memory.stored.dynamodb.before[5] = consolidate

    memory.attempt(number)

    (record,) = memory.records("preferences")
    assert (record.text, record.version) == ("Reports in USD.", 3)
    assert record.provenance.replaced[-1]["text"] == "Reports in GBP."


def fields(record: Record) -> dict[str, Any]:
    return {name: getattr(record, name) for name in Record.__slots__}


def test_a_call_after_which_the_actor_is_erased_brings_nothing_back(memory: Memory) -> None:
    number = memory.ask("remember", namespace="facts", text="Likes tea.")
    other = Table(memory.stored.dynamodb.client, memory.stored.table.name)

    def erase() -> None:
        assert memory.stored.dynamodb.operations[-1] == "transact_write_items"
        key = keys.actor(SESSION.store, SESSION.actor)
        other.update(Update(key, "SET erasingSince = :now", values={":now": 1}))

    memory.stored.dynamodb.forget()
    memory.stored.dynamodb.before[5] = erase

    with pytest.raises(ToolAttemptFailed, match="is being erased"):
        memory.attempt(number)

    assert memory.records("facts") == []


def test_a_write_of_memory_checks_that_the_actor_is_still_the_same(memory: Memory) -> None:
    actor = Actors(memory.stored.table).read(SESSION.store, SESSION.actor)
    assert actor is not None
    check = actor.unchanged()
    assert isinstance(check, Check)
    memory.stored.table.update(Update(check.key, "SET epoch = :other", values={":other": "x"}))

    with pytest.raises(TransactionRefused):
        memory.stored.table.transact([check, known(SESSION.store, SESSION.actor, "/facts/user-1/")])


# ---- Sessions ----


def test_a_note_of_an_ended_session_is_not_found_in_the_next_one_of_its_id(memory: Memory) -> None:
    stored = memory.stored
    memory.call("remember", namespace="notes", text="Talks about tea.")
    stored.commit(memory.turn)
    assert Memory(stored, stored.begin(B), memory.agent).found("tea") == ["Talks about tea."]
    stored.journal(stored.header(B).turn, step(9, {"role": "assistant", "content": [{"text": "Hi"}]}))
    stored.table.update(
        Update(
            keys.session(SESSION),
            "SET #status = :ended, historyFloor = :floor REMOVE leaseOwner",
            names={"#status": "status"},
            values={":ended": "ENDED", ":floor": f"{stored.clock.ms + 1_000:016d}"},
        )
    )
    stored.clock.ms += 1_000

    assert Memory(stored, stored.begin("c" * 32), memory.agent).found("tea") == []


# ---- Embeddings ----


def test_what_is_remembered_is_embedded_and_found_by_meaning(
    stored: StoredTurns, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = "amazon.titan-embed-text-v2:0"
    agent = publish(stored, embeddingModelId=model)
    memory = Memory(stored, stored.begin(A), agent)

    def embed(texts: Sequence[str], model_id: str, *, is_query: bool = False) -> list[tuple[float, ...]]:
        assert model_id == model
        return [(1.0, 0.0) if "dog" in text or "animal" in text else (0.0, 1.0) for text in texts]

    monkeypatch.setattr(embeddings, "embed", embed)
    memory.call("remember", namespace="facts", text="Owns a dog.")
    memory.call("remember", namespace="facts", text="Lives in Ulm.")

    assert memory.found("Any animal?")[0] == "Owns a dog."
    assert {record.embedding_model for record in memory.records("facts")} == {model}


def test_an_embedding_model_that_fails_does_not_keep_a_fact_from_being_remembered(
    stored: StoredTurns, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = publish(stored, embeddingModelId="amazon.titan-embed-text-v2:0")
    memory = Memory(stored, stored.begin(A), agent)

    def embed(*_: object, **__: object) -> list[tuple[float, ...]]:
        raise ModelThrottled("slow down")

    monkeypatch.setattr(embeddings, "embed", embed)

    memory.call("remember", namespace="facts", text="Owns a dog.")

    assert memory.found("dog") == ["Owns a dog."]
    assert memory.records("facts")[0].embedding is None


# ---- What a model is offered ----


def offered(*namespaces: dict[str, Any]) -> dict[str, str]:
    definition = {
        "agentId": "BANK",
        "agentName": "bank",
        "instruction": "x",
        "foundationModels": ["m"],
        "actionGroups": [GROUP],
        "memoryConfiguration": {"namespaces": list(namespaces)},
    }
    tools = parse(definition, "1").tools
    assert all(tool.is_memory and tool.function_arn == "" for tool in tools)
    return {tool.name: tool.description for tool in tools}


def test_the_tools_are_those_that_the_agent_has_a_use_for() -> None:
    readable = {"name": "a", "description": "About a.", "access": {"write": ["OTHER"]}}
    writable = {"name": "b", "access": {"read": ["OTHER"]}}

    assert offered(readable).keys() == {"search_memory"}
    assert offered(writable).keys() == {"remember", "forget"}
    both = offered(readable, writable)
    assert both.keys() == {"search_memory", "remember", "forget"}
    assert both["search_memory"].endswith("Namespaces: a: About a.")
    assert both["remember"].endswith("Namespaces: b: b")
