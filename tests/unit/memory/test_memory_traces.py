"""What memory does as trace events: in a turn's trace and the log, or, of a consolidation, in the log alone."""

import importlib
import json
from collections.abc import Callable
from contextlib import suppress
from io import StringIO
from typing import Any

import pytest

import record_consolidation_failure
from tests.unit.memory.consolidation.test_record_consolidation_failure import ARN, Executions
from tests.unit.memory.test_injection import MEMORY, digest, keep, record, summary
from tests.unit.memory.test_memory_tools import Memory, publish
from tests.unit.stored_memory import ACTOR, StoredMemory
from tests.unit.stored_turns import A, B, C, Interrupted, StoredTurns, die
from tests.unit.tool_turns import FakeLambda
from turnwright.errors import ModelRejected
from turnwright.models.asking import BrokenAnswer
from turnwright.sessions.values import Turn
from turnwright.storage import keys
from turnwright.storage.settings import settings
from turnwright.tracing.log import logger

Events = list[dict[str, Any]]

SECRET = 'pä"ss\nwörd-4711'
NEVER = "rd-4711"
"""The end of the secret, which no escaping changes."""


def of_memory(events: Events) -> Events:
    return [event for event in events if event["type"].startswith("MEMORY_")]


def accesses(events: Events) -> list[tuple[str, str, str, list[Any]]]:
    """(type, status, namespace, texts) of each memory event."""
    return [
        (
            event["type"],
            event["status"],
            event["namespace"],
            [entry["text"] for entry in json.loads(event["records"]) if "text" in entry],
        )
        for event in of_memory(events)
    ]


def kept(stored: StoredTurns, turn: Turn, *, of_steps: bool = False) -> Events:
    """The memory events in the turn's trace items, or those alone that are of its steps."""
    partition = keys.turn_partition(turn.turnId)
    items = stored.table.query(partition, keys.TRACE_PREFIX, keys.TRACE_PREFIX + "~")
    events = of_memory([stored.documents.fetch(json.loads(item["event"])) for item in items])
    return [event for event in events if event["step"] or not of_steps]


MEMORY_HANDLERS = (
    "agent_memory",
    "erase_memory",
    "extract_records",
    "load_session",
    "memory_control",
    "memory_events",
    "memory_records",
    "merge_records",
    "record_consolidation_failure",
    "summarize_session",
    "sweep_sessions",
    "write_records",
)


def redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACE_PAYLOADS", "REDACTED")
    monkeypatch.setenv("TRACE_REDACT_PATTERNS", r'pä"ss\swörd-\d{4}')
    settings.cache_clear()


@pytest.fixture
def tools(stored: StoredTurns, fake_lambda: FakeLambda, trace_events: Events) -> Memory:
    """The turn has begun; what it tells of that is not in `trace_events`."""
    agent = publish(stored)
    memory = Memory(stored, stored.begin(A, trace=True), agent)
    trace_events.clear()
    return memory


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> StringIO:
    """The lines of the log that are no events."""
    written = StringIO()
    monkeypatch.setattr(logger().registered_handler, "stream", written)
    return written


# ---- Injection ----


@pytest.fixture
def remembering(stored: StoredTurns) -> StoredTurns:
    stored.publish(memoryConfiguration=MEMORY)
    keep(
        stored,
        record("/preferences/user-1/", "Speaks English.", 1, key="language"),
        record("/projects/user-1/", "Works on Phoenix.", 2),
        record("/hidden/user-1/", "Hidden.", 3),
        record("/secret/user-1/", "Secret.", 4),
        record("/notes/user-1/s-1/", "A note.", 5),
    )
    stored.table.put(summary(7, "Earlier.").written())
    return stored


def test_each_namespace_that_a_turn_is_shown_is_a_retrieval(remembering: StoredTurns, trace_events: Events) -> None:
    turn = remembering.begin(A, words="What of Phoenix?", trace=True)

    told = sorted(accesses(trace_events))
    assert told == [
        ("MEMORY_RETRIEVAL", "SUCCESS", "/notes/user-1/s-1/", ["A note."]),
        ("MEMORY_RETRIEVAL", "SUCCESS", "/preferences/user-1/", ["Speaks English."]),
        ("MEMORY_RETRIEVAL", "SUCCESS", "/projects/user-1/", ["Works on Phoenix."]),
        ("MEMORY_RETRIEVAL", "SUCCESS", "/session_summary/user-1/", ["Earlier."]),
    ]
    assert sorted(accesses(kept(remembering, turn))) == told
    by_path = {event["namespace"]: event for event in trace_events}
    (searched,) = json.loads(by_path["/projects/user-1/"]["records"])
    assert searched.keys() == {"recordId", "text", "score"}
    assert 0 < searched["score"] <= 1
    assert by_path["/projects/user-1/"]["query"] == "What of Phoenix?"
    assert "query" not in by_path["/preferences/user-1/"]
    assert {event["step"] for event in trace_events} == {0}
    assert all(event["durationMs"] >= 0 for event in trace_events)


def test_the_digest_is_a_retrieval_of_its_own(remembering: StoredTurns, trace_events: Events) -> None:
    for number in range(1, 5):
        last = remembering.run(f"{number:08x}" + A[8:])
    digest(remembering, last.event_id, "What was said first.")
    trace_events.clear()
    remembering.begin(B)
    assert ("MEMORY_RETRIEVAL", "SUCCESS", "/session_digest/user-1/s-1/", ["What was said first."]) in accesses(
        trace_events
    )


def test_a_turn_without_a_trace_costs_no_write_for_what_it_retrieves(
    remembering: StoredTurns, trace_events: Events
) -> None:
    remembering.begin(C, session="s-3")  # makes the actor known
    trace_events.clear()
    remembering.dynamodb.forget()
    turn = remembering.begin(A)
    untraced = remembering.dynamodb.written
    assert len(of_memory(trace_events)) == 4
    assert kept(remembering, turn) == []
    remembering.dynamodb.forget()
    remembering.begin(B, session="s-2", trace=True)
    assert remembering.dynamodb.written == untraced + 4


def test_a_repeat_of_load_memory_writes_the_same_items(remembering: StoredTurns) -> None:
    turn = remembering.begin(A, trace=True)
    once = kept(remembering, turn)
    remembering.begin(A, trace=True)
    assert kept(remembering, turn) == once


def test_a_repeat_that_finds_memory_changed_tells_what_the_turn_is_shown(remembering: StoredTurns) -> None:
    turn = remembering.begin(A, trace=True)
    once = kept(remembering, turn)
    keep(remembering, record("/preferences/user-1/", "Speaks French.", 9))
    remembering.begin(A, trace=True)
    assert kept(remembering, turn) == once


# ---- Tools ----


def test_a_search_is_a_retrieval_of_each_namespace_that_it_looks_into(tools: Memory, trace_events: Events) -> None:
    tools.call("remember", namespace="facts", text="Works on Project Phoenix.")
    trace_events.clear()
    tools.call("search_memory", query="Project Phoenix")
    found = {namespace: texts for _, _, namespace, texts in accesses(trace_events)}
    assert found == {
        "/facts/user-1/": ["Works on Project Phoenix."],
        "/preferences/user-1/": [],
        "/first/user-1/": [],
        "/judged/user-1/": [],
        "/read_only/user-1/": [],
        "/notes/user-1/s-1/": [],
    }
    assert {(event["step"], event["query"]) for event in of_memory(trace_events)} == {(2, "Project Phoenix")}


def test_what_is_found_under_another_strategy_is_told_with_its_namespace(tools: Memory, trace_events: Events) -> None:
    keep(tools.stored, record("/facts/user-1/", "Works on Phoenix.", strategy="of-the-api"))
    (found,) = tools.call("search_memory", query="Phoenix")["records"]
    assert found["namespace"] == "facts"
    assert ("MEMORY_RETRIEVAL", "SUCCESS", "/facts/user-1/", ["Works on Phoenix."]) in accesses(trace_events)


def test_what_is_remembered_and_forgotten_is_a_write(tools: Memory, trace_events: Events) -> None:
    answer = tools.call("remember", namespace="facts", text="Likes tea.", key="drink")
    tools.call("forget", namespace="facts", record_id=answer["recordId"])
    put, gone = of_memory(trace_events)
    assert [(event["type"], event["namespace"], event["step"]) for event in (put, gone)] == [
        ("MEMORY_WRITE", "/facts/user-1/", 1),
        ("MEMORY_WRITE", "/facts/user-1/", 2),
    ]
    told = {"recordId": answer["recordId"], "text": "Likes tea.", "key": "drink", "saidAt": answer["saidAt"]}
    assert json.loads(put["records"]) == [{**told, "operation": "PUT"}]
    assert json.loads(gone["records"]) == [{**told, "operation": "DELETE"}]
    assert kept(tools.stored, tools.turn, of_steps=True) == [put, gone]


def test_a_fact_that_a_namespace_does_not_take_is_a_write_of_nothing(tools: Memory, trace_events: Events) -> None:
    tools.call("remember", namespace="first", text="Born in Rome.", key="born")
    trace_events.clear()
    tools.call("remember", namespace="first", text="Born in Paris.", key="born")
    assert accesses(trace_events) == [("MEMORY_WRITE", "SUCCESS", "/first/user-1/", [])]


@pytest.mark.parametrize(
    ("name", "arguments", "kind", "path"),
    [
        ("remember", {"namespace": "read_only", "text": "No."}, "MEMORY_WRITE", "/read_only/user-1/"),
        ("forget", {"namespace": "read_only", "record_id": "mem-1"}, "MEMORY_WRITE", "/read_only/user-1/"),
        ("search_memory", {"namespace": "write_only", "query": "x"}, "MEMORY_RETRIEVAL", "/write_only/user-1/"),
    ],
)
def test_what_the_access_policy_refuses_is_told(
    tools: Memory, trace_events: Events, name: str, arguments: dict[str, Any], kind: str, path: str
) -> None:
    assert tools.refusal(name, **arguments)[0] == "ACCESS_DENIED"
    (event,) = of_memory(trace_events)
    assert (event["type"], event["status"], event["namespace"], event["recordCount"]) == (kind, "REFUSED", path, 0)
    assert event["errorCode"] == "ACCESS_DENIED"
    assert event["errorMessage"].startswith("the agent BANK may not")
    assert kept(tools.stored, tools.turn, of_steps=True) == [event]


def test_a_record_that_is_not_there_is_a_failed_write(tools: Memory, trace_events: Events) -> None:
    tools.refusal("forget", namespace="facts", record_id="mem-none")
    assert accesses(trace_events) == [("MEMORY_WRITE", "FAILED", "/facts/user-1/", [])]


def test_a_namespace_that_does_not_exist_is_no_access(tools: Memory, trace_events: Events) -> None:
    tools.refusal("forget", namespace="none", record_id="mem-none")
    assert of_memory(trace_events) == []


def test_a_gateway_that_was_lost_before_it_told_the_trace_is_told_for(tools: Memory, trace_events: Events) -> None:
    number = tools.ask("remember", namespace="facts", text="Likes tea.")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("turnwright.tracing.traces.Traces.memory_write", lambda *_arguments, **_more: die())
        with pytest.raises(Interrupted):
            tools.attempt(number)
    assert of_memory(trace_events) == []
    tools.attempt(number, lost=True)
    tools.attempt(number, lost=True)
    assert accesses(kept(tools.stored, tools.turn, of_steps=True)) == [
        ("MEMORY_WRITE", "SUCCESS", "/facts/user-1/", ["Likes tea."])
    ]
    assert "durationMs" not in trace_events[0]


# ---- Consolidation ----


def test_a_consolidation_tells_its_model_calls_and_what_it_writes(memory: StoredMemory, trace_events: Events) -> None:
    memory.say("currency: USD")
    work = memory.end()
    trace_events.clear()
    memory.consolidate(work)
    assert [(event["type"], event["status"]) for event in trace_events[:3]] == [("MODEL_INVOCATION", "SUCCESS")] * 3
    assert sorted(accesses(trace_events)) == [
        ("MEMORY_WRITE", "SUCCESS", f"/preferences/{ACTOR}/", ["currency: USD"]),
        ("MEMORY_WRITE", "SUCCESS", f"/projects/{ACTOR}/", ["currency: USD"]),
        ("MEMORY_WRITE", "SUCCESS", f"/session_summary/{ACTOR}/", ["currency: USD"]),
    ]
    assert {
        (event["consolidationId"], event["turnId"], event["sessionId"], event["memoryId"], event["agentId"])
        for event in trace_events
    } == {(work.consolidationId, "", "s-1", ACTOR, "BANK")}
    (added,) = json.loads(of_memory(trace_events)[0]["records"])
    (stored,) = memory.records("preferences")
    assert added == {"recordId": stored.record_id, "text": "currency: USD", "key": "currency", "operation": "ADD"}


def test_a_consolidation_costs_no_item_for_its_trace(memory: StoredMemory) -> None:
    memory.say("currency: USD")
    memory.consolidate(memory.end())
    trace = [sk for pk, sk in memory.stored.items() if sk.startswith(keys.TRACE_PREFIX)]
    assert trace == []


def test_what_replaces_a_record_is_an_update(memory: StoredMemory, trace_events: Events) -> None:
    for session, words in (("s-1", "currency: USD"), ("s-2", "currency: EUR")):
        memory.say(words, session=session)
        trace_events.clear()
        memory.consolidate(memory.end(session))
    preferences = next(e for e in of_memory(trace_events) if e["namespace"] == f"/preferences/{ACTOR}/")
    assert [(r["text"], r["operation"]) for r in json.loads(preferences["records"])] == [("currency: EUR", "UPDATE")]


def test_write_records_that_was_lost_behind_its_transaction_tells_it_when_repeated(
    memory: StoredMemory, trace_events: Events
) -> None:
    memory.say("currency: USD")
    work = memory.end()
    states = memory.states(work)
    last: Callable[[], Any] = die
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("turnwright.tracing.traces.Traces.memory_write", lambda *_arguments, **_more: die())
        with suppress(Interrupted):
            for state in states:
                last = state
                state()
    assert memory.texts("preferences") == ["currency: USD"]
    trace_events.clear()
    assert last.__name__ == "write"
    assert last()["status"] == "NOTHING_TO_DO"
    assert len(accesses(trace_events)) == 3


def test_a_model_call_of_a_consolidation_that_fails_is_told(memory: StoredMemory, trace_events: Events) -> None:
    memory.model.answers["record_facts"] = [ModelRejected("no such model")]
    memory.say("currency: USD")
    work = memory.end()
    trace_events.clear()
    with pytest.raises(ModelRejected):
        memory.consolidate(work)
    (failed,) = trace_events
    assert (failed["status"], failed["attempt"], failed["errorCode"]) == ("FAILED", 1, "MODEL_REJECTED")


def test_an_answer_that_is_refused_and_the_next_one_are_two_calls(memory: StoredMemory, trace_events: Events) -> None:
    memory.model.answers["summarize_session"] = [{"summary": ""}]
    memory.say("currency: USD")
    work = memory.end()
    trace_events.clear()
    memory.consolidate(work)
    summaries = [e["attempt"] for e in trace_events if '"summarize_session"' in e.get("response", "")]
    assert summaries == [1, 2]


# ---- What may be written ----


class FailedExecutions(Executions):
    """An execution whose cause quotes what was said."""

    def describe_execution(self, *, executionArn: str) -> dict[str, Any]:  # noqa: N803 (Step Functions' name)
        cause = json.dumps({"errorMessage": f"cannot read {SECRET}"})
        return {**super().describe_execution(executionArn=executionArn), "cause": cause}


def test_a_secret_is_in_no_log_trace_or_dead_letter_of_a_turn_and_of_consolidations(
    memory: StoredMemory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lines: StringIO
) -> None:
    redacted(monkeypatch)
    keep(memory.stored, record(f"/projects/{ACTOR}/", f"Knows {SECRET}."))
    memory.stored.run(B, words=f"project: {SECRET}", answer=f"Noted: {SECRET}", trace=True)
    memory.model.answers["record_facts"] = [{"records": [{"key": "project", "text": f"Is {SECRET}"}]}] * 2
    assert memory.consolidate(memory.end())["status"] == "WRITTEN"
    assert any(SECRET in text for text in memory.texts("preferences")), "memory itself keeps what was said"

    memory.say(f"project: {SECRET}", session="s-2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("turnwright.models.asking._checked", broken_by_a_secret)
        assert memory.consolidate(memory.end("s-2"))["skipped"] == ["preferences", "projects", "summary"]

    memory.say(f"project: {SECRET}", session="s-3")
    work = memory.end("s-3")
    memory.model.answers["record_facts"] = [ModelRejected(f"cannot read {SECRET}")]
    with pytest.raises(Exception, match=r"cannot read \[REDACTED\]") as raised:
        memory.consolidate(work)
    assert type(raised.value).__name__ == "ModelRejected"
    monkeypatch.setattr("turnwright.storage.clients.stepfunctions", lambda: FailedExecutions(work))
    record_consolidation_failure.handler({"detail": {"executionArn": ARN}}, None)

    logged = lines.getvalue() + capsys.readouterr().out
    items = json.dumps([item for (_, sk), item in memory.stored.items().items() if sk.startswith(keys.TRACE_PREFIX)])
    assert len(memory.queue.letters) == 4
    for written in (logged, items, json.dumps(memory.queue.letters)):
        assert NEVER not in written
        assert "[REDACTED]" in written
    for message in ("namespace skipped", "summary skipped", "consolidation failed", "MEMORY_WRITE", "MODEL_INVOCATION"):
        assert f'"message":"{message}"' in logged


def broken_by_a_secret(*_arguments: Any) -> Any:
    raise BrokenAnswer(f"{SECRET} is not in the conversation")


def test_only_events_carry_the_sessions_id(memory: StoredMemory, lines: StringIO) -> None:
    memory.say("currency: USD")
    work = memory.end()
    memory.consolidate(work)
    others = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert {line["message"] for line in others} >= {"session loaded", "records merged", "consolidation written"}
    assert {line["consolidationId"] for line in others} == {work.consolidationId}
    assert not [line for line in others if "sessionId" in line]


def test_without_texts_a_consolidation_tells_sizes_and_digests(
    memory: StoredMemory, monkeypatch: pytest.MonkeyPatch, trace_events: Events
) -> None:
    monkeypatch.setenv("TRACE_PAYLOADS", "METADATA")
    settings.cache_clear()
    memory.say("currency: USD")
    work = memory.end()
    trace_events.clear()
    memory.consolidate(work)
    assert "USD" not in json.dumps(trace_events)
    assert all("recordsDigest" in event for event in of_memory(trace_events))


@pytest.mark.parametrize("module", MEMORY_HANDLERS)
def test_a_handler_of_memory_raises_what_may_be_written(module: str) -> None:
    handler = importlib.import_module(module).handler
    assert handler.__wrapped__ is not handler, f"{module} is without with_safe_errors"
