import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.session import get_session
from botocore.validate import ParamValidator

from tests import trace_schema
from tests.unit import samples
from turnwright.agents.definitions import Agent
from turnwright.api import event_stream
from turnwright.api.bedrock.trace_parts import failure_trace, trace_parts
from turnwright.errors import ModelAccessDenied, ModelRejected, ModelThrottled, ModelUnavailable
from turnwright.models import converse
from turnwright.sessions.values import Step
from turnwright.storage import clock, keys
from turnwright.storage.documents import STATE_BYTES, Documents
from turnwright.storage.keys import SessionId
from turnwright.storage.settings import settings
from turnwright.storage.table import Table
from turnwright.tracing import traces
from turnwright.tracing.trace_events import CircuitState, Failure, MemoryAccess, ModelCall, Source, ToolCall
from turnwright.tracing.traces import LINE_BYTES, Traces
from turnwright.turn.invoke_model import model_call

TRACE_PART = get_session().get_service_model("bedrock-agent-runtime").shape_for("TracePart")
TRACE_ID_SHAPE = get_session().get_service_model("bedrock-agent-runtime").shape_for("TraceId")
AT = 1_763_806_805_123
AT_TEXT = "2025-11-22T10:20:05.123Z"
AT_TIME = datetime(2025, 11, 22, 10, 20, 5, 123_000, UTC)
TRACE_ID = "0123456789ab-1"


class Written:
    """The trace of one turn, and what was written of it."""

    def __init__(self, table: Table, *, enabled: bool = True) -> None:
        self.table = table
        self.turn = samples.turn(trace=enabled)
        self.bucket = samples.FakeBucket()
        self.documents = Documents(self.bucket, "bucket")
        self.traces = Traces.of_turn(table, self.documents, self.turn)

    def items(self) -> list[dict[str, Any]]:
        partition = keys.turn_partition(self.turn.turnId)
        return list(self.table.query(partition, keys.TRACE_PREFIX, keys.TRACE_PREFIX + "~"))

    def events(self) -> list[dict[str, Any]]:
        return [self.documents.fetch_text(item["event"]) for item in self.items()]

    def parts(self, agent: Agent | None = None) -> list[dict[str, Any]]:
        tool = (agent or samples.agent()).tool
        return [part for event in self.events() for part in trace_parts(event, "live", tool)]

    def started(self, step: int, model: str = samples.MODEL) -> None:
        self.traces.model_started(step, 0, call(model))

    def answered(self, step: Step, agent: Agent | None = None) -> None:
        tool = (agent or samples.agent()).tool
        unknown = Failure("UNKNOWN_TOOL", "there is no such tool")
        refusals = [None if tool(use["name"]) else unknown for use in step.tool_uses()]
        self.traces.model_answered(0, call(), step, refusals)

    def tool(self, step: int, index: int, text: str, attempt: int = 1, started: int | None = AT) -> None:
        self.traces.tool_attempted(step, ToolCall("search", "t-1", index, "{}"), attempt, text, started)

    def final(self, step: int, text: str) -> None:
        self.traces.final_response(step, "Hi", text, {"inputTokens": 3, "outputTokens": 2}, AT - 90, "end_turn")

    def orchestration(self, agent: Agent | None = None) -> list[dict[str, Any]]:
        """The orchestrationTrace of each part; the rest of each part is checked."""
        for part in self.parts(agent):
            assert_on_the_wire(part)
            assert {**part, "trace": None} == {
                "agentId": "BANKASSIST",
                "agentAliasId": "live",
                "agentVersion": "3",
                "sessionId": "session-1",
                "eventTime": AT_TEXT,
                "trace": None,
            }
        return [part["trace"]["orchestrationTrace"] for part in self.parts(agent)]


def assert_on_the_wire(part: dict[str, Any]) -> None:
    """botocore knows every field of the part, and boto3 hands it out as it is here, with times as datetimes."""
    bounds = TRACE_ID_SHAPE.metadata
    trace_ids = re.findall(r'"traceId": "(.*?)"', json.dumps(part))
    assert all(bounds["min"] <= len(trace_id) <= bounds["max"] for trace_id in trace_ids)
    assert ParamValidator().validate(part, TRACE_PART).generate_report() == ""
    (event,) = samples.boto3_stream(event_stream.event("trace", part))
    as_json = json.loads(json.dumps(event["trace"], default=lambda time: clock.iso8601(round(time.timestamp() * 1000))))
    assert as_json == part


@pytest.fixture
def written(table: Table, monkeypatch: pytest.MonkeyPatch) -> Written:
    monkeypatch.setattr(traces, "now_ms", lambda: AT)
    return Written(table)


def step(*content: dict[str, Any], **usage: int) -> Step:
    message = {"role": "assistant", "content": list(content)}
    return Step(1, [], message, "tool_use", samples.MODEL, usage, 812)


def call(model: str = samples.MODEL, attempt: int = 1) -> ModelCall:
    return ModelCall(model, attempt, '{"messages":[]}', "{}")


def use(index: int, name: str, **arguments: Any) -> dict[str, Any]:
    return {"toolUse": {"toolUseId": f"t-{index}", "name": name, "input": arguments}}


def test_the_time_of_an_event_is_read_as_a_time(written: Written) -> None:
    written.final(1, "Hi")

    (event,) = samples.boto3_stream(event_stream.event("trace", written.parts()[0]))
    assert event["trace"]["eventTime"] == AT_TIME


def test_what_a_model_is_given_is_told(written: Written) -> None:
    agent = samples.agent()
    arguments = converse.request(agent, samples.MODEL, [converse.user_message("Hi")], {"a": "b"}, may_use_tools=True)

    written.traces.model_started(1, 0, model_call(agent, arguments, 1))

    prompt = {name: arguments[name] for name in ("system", "messages", "toolConfig")}
    assert written.orchestration() == [
        {
            "modelInvocationInput": {
                "traceId": TRACE_ID,
                "type": "ORCHESTRATION",
                "foundationModel": samples.MODEL,
                "text": json.dumps(prompt, separators=(",", ":")),
                "inferenceConfiguration": {
                    "temperature": 0,
                    "topP": 0.5,
                    "maximumLength": 2048,
                    "stopSequences": ["END"],
                },
            }
        }
    ]


def test_an_agent_without_tools_and_sampling_parameters_is_told_so(written: Written) -> None:
    agent = samples.agent(inferenceConfiguration={}, actionGroups=[])
    arguments = converse.request(agent, samples.MODEL, [converse.user_message("Hi")], {}, may_use_tools=True)

    written.traces.model_started(1, 0, model_call(agent, arguments, 1))

    (trace,) = written.orchestration()
    assert json.loads(trace["modelInvocationInput"].pop("text")).keys() == {"system", "messages"}
    assert trace == {
        "modelInvocationInput": {
            "traceId": TRACE_ID,
            "type": "ORCHESTRATION",
            "foundationModel": samples.MODEL,
            "inferenceConfiguration": {},
        }
    }


def test_what_a_model_answers_is_told_with_its_rationale_and_what_it_asks_for(written: Written) -> None:
    answered = step(
        {"text": "I look "},
        use(0, "get_account_balance", account_id="12345"),
        {"text": "it up."},
        use(1, "search", limit=5, open=True, kinds=["a"]),
        use(2, "transfer_money", amount=1),
        inputTokens=30,
        outputTokens=4,
        totalTokens=34,
    )

    written.answered(answered)

    invocation = {"invocationType": "ACTION_GROUP", "traceId": TRACE_ID}
    group = {"actionGroupName": "BankingTools", "executionType": "LAMBDA"}
    assert written.orchestration()[1:] == [
        {
            "modelInvocationOutput": {
                "traceId": TRACE_ID,
                "rawResponse": {"content": json.dumps(answered.message, separators=(",", ":"))},
                "metadata": {"usage": {"inputTokens": 30, "outputTokens": 4}, "totalTimeMs": 812},
            }
        },
        {"rationale": {"traceId": TRACE_ID, "text": "I look it up."}},
        {
            "invocationInput": {
                **invocation,
                "actionGroupInvocationInput": {
                    **group,
                    "function": "get_account_balance",
                    "invocationId": "t-0",
                    "parameters": [{"name": "account_id", "type": "string", "value": "12345"}],
                },
            }
        },
        {
            "invocationInput": {
                **invocation,
                "actionGroupInvocationInput": {
                    **group,
                    "function": "search",
                    "invocationId": "t-1",
                    "parameters": [
                        {"name": "limit", "type": "integer", "value": "5"},
                        {"name": "open", "type": "boolean", "value": "true"},
                        {"name": "kinds", "type": "array", "value": '["a"]'},
                    ],
                },
            }
        },
    ], "the tool that the agent does not have is in the raw response alone"


def test_a_call_of_an_api_is_told_with_its_path_and_body(written: Written) -> None:
    agent = samples.agent(actionGroups=[samples.CLAIMS_API])
    answered = step(use(0, "add_note", id=7, text="Hi", tags=["a"]), use(1, "get_claim", id=7))

    written.answered(answered, agent)

    common = {"actionGroupName": "Claims", "executionType": "LAMBDA"}
    claim = [{"name": "id", "type": "integer", "value": "7"}]
    note = [{"name": "text", "type": "string", "value": "Hi"}, {"name": "tags", "type": "array", "value": '["a"]'}]
    inputs = [trace["invocationInput"] for trace in written.orchestration(agent) if "invocationInput" in trace]
    assert [one["actionGroupInvocationInput"] for one in inputs] == [
        {
            **common,
            "apiPath": "/claims/{id}/notes",
            "verb": "post",
            "invocationId": "t-0",
            "parameters": claim,
            "requestBody": {"content": {"application/json": note}},
        },
        {**common, "apiPath": "/claims/{id}", "verb": "get", "invocationId": "t-1", "parameters": claim},
    ]


def test_an_answer_without_tools_has_no_rationale(written: Written) -> None:
    written.answered(step({"text": "Hello."}))

    _, trace = written.orchestration()
    assert trace["modelInvocationOutput"]["metadata"] == {
        "usage": {"inputTokens": 0, "outputTokens": 0},
        "totalTimeMs": 812,
    }


def test_each_attempt_of_a_tool_is_an_observation(written: Written) -> None:
    written.tool(1, 0, '{"balance": 1}', attempt=2, started=AT - 40)

    assert written.orchestration() == [
        {
            "observation": {
                "traceId": TRACE_ID,
                "type": "ACTION_GROUP",
                "actionGroupInvocationOutput": {
                    "text": '{"balance": 1}',
                    "metadata": {
                        "clientRequestId": "t-1",
                        "startTime": "2025-11-22T10:20:05.083Z",
                        "endTime": AT_TEXT,
                        "totalTimeMs": 40,
                    },
                },
            }
        }
    ]


def test_the_final_response_is_an_observation(written: Written) -> None:
    written.final(1, "48,392.50 USD")

    assert written.orchestration() == [
        {"observation": {"traceId": TRACE_ID, "type": "FINISH", "finalResponse": {"text": "48,392.50 USD"}}}
    ]


def test_events_stand_in_the_order_of_what_they_tell_whenever_they_were_written(written: Written) -> None:
    written.final(10, "done")
    written.tool(1, 11, "late")
    written.tool(1, 2, "second attempt", attempt=2)
    written.tool(1, 2, "first attempt")
    written.answered(step({"text": "Hm."}, use(0, "search")))
    written.started(10)

    assert [
        (next(iter(trace)), next(iter(trace.values()))["traceId"].partition("-")[2])
        for trace in written.orchestration()
    ] == [
        ("modelInvocationInput", "1"),
        ("modelInvocationOutput", "1"),
        ("rationale", "1"),
        ("invocationInput", "1"),
        ("observation", "1"),
        ("observation", "1"),
        ("observation", "1"),
        ("modelInvocationInput", "10"),
        ("observation", "10"),
    ]
    outputs = [trace["observation"] for trace in written.orchestration() if "observation" in trace]
    assert [output["actionGroupInvocationOutput"]["text"] for output in outputs[:3]] == [
        "first attempt",
        "second attempt",
        "late",
    ]


def test_a_repeated_handler_writes_its_events_again_and_no_second_ones(written: Written) -> None:
    for _ in range(2):
        written.started(1)
        written.answered(step({"text": "Hm."}, use(0, "search")))
        written.tool(1, 0, "x")
        written.traces.memory_retrieval(MemoryAccess("/facts/a/", [], 3))
        written.traces.memory_retrieval(MemoryAccess("/facts/a/", [], 3, query="tea", step=1, call="t-2"))
        written.traces.memory_write(MemoryAccess("/facts/a/", [], 3, step=1))
        written.final(1, "x")
        written.traces.turn_failed({"error": "ABORTED", "cause": ""})

    kinds = [event["type"] for event in written.events()]
    assert kinds == [
        *("MEMORY_RETRIEVAL", "MODEL_INVOCATION", "TOOL_SELECTION", "MEMORY_RETRIEVAL", "MEMORY_WRITE"),
        *("TOOL_INVOCATION", "FINAL_RESPONSE", "TURN_FAILED"),
    ]


def test_a_model_call_is_one_item_that_is_there_while_the_model_works(written: Written) -> None:
    written.started(1)
    (begun,) = written.events()
    written.answered(step({"text": "Hi"}))

    (ended,) = written.events()
    assert (begun["status"], ended["status"], ended["prompt"]) == ("STARTED", "SUCCESS", begun["prompt"])
    assert [item["status"] for item in written.items()] == ["SUCCESS"]


def test_each_try_of_a_model_is_told(written: Written, trace_events: list[dict[str, Any]]) -> None:
    errors = [ModelThrottled("slow"), ModelUnavailable("down"), ModelRejected("no"), ModelAccessDenied("closed")]
    for number, error in enumerate(errors, start=1):
        written.traces.model_started(1, 0, call(f"model-{number}", number))
        written.traces.model_failed(1, 0, call(f"model-{number}", number), error, 5)
    written.traces.model_started(1, 1, call("model-1", 1))

    tries = [(event["model"], event["attempt"], event["status"]) for event in written.events()]
    assert tries == [
        *(("model-1", 1, "FAILED"), ("model-2", 2, "FAILED"), ("model-3", 3, "FAILED"), ("model-4", 4, "FAILED")),
        ("model-1", 1, "STARTED"),
    ], "a redriven step counts from 1 and does not write over what happened before"
    assert [(event["errorCode"], event["errorMessage"]) for event in trace_events] == [
        *(
            ("THROTTLING", "slow"),
            ("SERVICE_UNAVAILABLE", "down"),
            ("MODEL_REJECTED", "no"),
            ("MODEL_ACCESS_DENIED", "closed"),
        )
    ]
    models = [trace["modelInvocationInput"]["foundationModel"] for trace in written.orchestration()]
    assert models == ["model-1", "model-2", "model-3", "model-4", "model-1"]


def test_a_long_event_is_kept_in_the_bucket_and_every_event_expires(written: Written) -> None:
    written.final(1, "x" * STATE_BYTES)
    written.final(2, "short")

    (long, short) = written.items()
    assert json.loads(long["event"]).keys() == {"object", "bytes"}
    assert json.loads(short["event"]).keys() == {"inline"}
    assert len(written.bucket.objects) == 1
    assert long["expiresAt"] == short["expiresAt"] == AT // 1000 + 30 * 86_400
    assert written.orchestration()[0]["observation"]["finalResponse"] == {"text": "x" * STATE_BYTES}


def test_for_a_caller_who_did_not_ask_the_same_events_are_logged_and_none_is_written(
    table: Table, trace_events: list[dict[str, Any]]
) -> None:
    written = Written(table, enabled=False)

    written.started(1)
    written.answered(step(use(0, "search")))
    written.tool(1, 0, "x" * STATE_BYTES)
    written.final(1, "x")

    assert (written.items(), written.bucket.objects, table.consumed.write_units) == ([], {}, 0)
    assert [event["type"] for event in trace_events] == [
        *("MODEL_INVOCATION", "TOOL_SELECTION", "TOOL_INVOCATION", "FINAL_RESPONSE")
    ]


def test_an_event_is_one_line_of_the_log_with_nothing_but_its_fields(
    written: Written, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_X_AMZN_TRACE_ID", "Root=1-67891233-abcdef012345678912345678;Parent=463ac35c9f6413ad;Sampled=1")
    written.traces.tool_attempted(
        3,
        ToolCall("get_account_balance", "t-1", 1, '{"account_id":"12345"}'),
        1,
        "{}",
        AT - 31,
        CircuitState.CLOSED,
        Failure("THROTTLING", "slow\ndown"),
        200,
    )

    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {
        "level": "WARNING",
        "message": "TOOL_INVOCATION",
        "timestamp": AT_TEXT,
        "traceId": "1-67891233-abcdef012345678912345678",
        "sessionId": "session-1",
        "turnId": written.turn.turnId,
        "agentId": "BANKASSIST",
        "agentVersion": "3",
        "memoryId": "user_1",
        "step": 3,
        "type": "TOOL_INVOCATION",
        "status": "FAILED",
        "toolName": "get_account_balance",
        "toolUseId": "t-1",
        "index": 1,
        "arguments": '{"account_id":"12345"}',
        "attempt": 1,
        "durationMs": 31,
        "circuitState": "CLOSED",
        "errorCode": "THROTTLING",
        "errorMessage": "slow\ndown",
        "retryScheduledInMs": 200,
        "result": "{}",
    }


def test_reasoning_is_what_the_model_thought_and_said_beside_its_calls(
    written: Written, trace_events: list[dict[str, Any]]
) -> None:
    thought = {"reasoningContent": {"reasoningText": {"text": "They want money.", "signature": "s"}}}
    hidden = {"reasoningContent": {"redactedContent": "eA=="}}
    written.answered(step(thought, hidden, {"text": "I look."}, use(0, "search"), use(1, "fly")))

    selections = [event for event in trace_events if event["type"] == "TOOL_SELECTION"]
    assert [event["reasoning"] for event in selections] == ["They want money.\nI look."] * 2
    assert [(event["toolName"], event["status"], event.get("errorCode")) for event in selections] == [
        *(("search", "SUCCESS", None), ("fly", "FAILED", "UNKNOWN_TOOL"))
    ]


def test_memory_is_told_with_what_was_fetched_or_why_not(written: Written) -> None:
    refused = Failure("ACCESS_DENIED", "the namespace may not be read by BANKASSIST")
    likes_tea = {"recordId": "mem-1", "text": "Likes tea."}
    written.traces.memory_retrieval(MemoryAccess("/facts/user_1/", [likes_tea], 12, query="tea"))
    written.traces.memory_retrieval(MemoryAccess("/secrets/user_1/", [], 1, failure=refused))

    fetched, denied = written.events()
    assert (fetched["recordCount"], fetched["durationMs"], fetched["query"]) == (1, 12, "tea")
    assert json.loads(fetched["records"]) == [likes_tea]
    assert (denied["status"], denied["errorCode"]) == ("REFUSED", "ACCESS_DENIED")
    for part, event in zip(written.parts(), (fetched, denied), strict=True):
        assert_on_the_wire(part)
        assert json.loads(part["trace"]["customOrchestrationTrace"]["event"]["text"]) == event


def test_what_happens_outside_of_turns_is_logged_alone(table: Table, trace_events: list[dict[str, Any]]) -> None:
    source = Source.of_session(SessionId("BANK", "user_1", "s-1"), consolidation_id="c" * 32)
    Traces(source).memory_write(MemoryAccess("/facts/user_1/", [{"text": "x" * LINE_BYTES}], 9))

    (event,) = trace_events
    assert (event["turnId"], event["consolidationId"], event["memoryId"]) == ("", "c" * 32, "user_1")
    assert event["records"].endswith("characters are shown]"), "no object of a turn would expire with it"
    assert table.consumed.write_units == 0


def test_a_line_has_a_bound_and_what_is_longer_goes_to_the_bucket(
    written: Written, trace_events: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    long = "€" * LINE_BYTES
    written.final(1, long)

    (event,) = trace_events
    assert len(capsys.readouterr().out.encode()) < LINE_BYTES
    assert (event["prompt"], event["answerBytes"]) == ("Hi", len(long.encode()) + 2)
    assert written.documents.fetch({"object": event["answerObject"]}) == long
    assert written.events()[0]["answer"] == long, "what is kept for the caller is whole"


def test_the_trace_of_a_level_without_texts_has_none_and_keeps_bedrocks_shape(
    written: Written, monkeypatch: pytest.MonkeyPatch, trace_events: list[dict[str, Any]]
) -> None:
    monkeypatch.setenv("TRACE_PAYLOADS", "METADATA")
    settings.cache_clear()
    written.started(1)
    written.answered(step({"text": "secret"}, use(0, "search", kinds=["secret"]), inputTokens=3))
    written.tool(1, 0, "secret")
    written.final(1, "secret")
    settings.cache_clear()

    assert "secret" not in json.dumps(written.events()) + json.dumps(trace_events)
    assert [next(iter(trace)) for trace in written.orchestration()] == [
        *("modelInvocationInput", "modelInvocationOutput", "invocationInput", "observation", "observation")
    ]
    assert trace_events[-1]["answerBytes"] == 6


def test_an_event_that_breaks_the_schema_is_noticed() -> None:
    event = {"type": "FINAL_RESPONSE", "status": "SUCCESS"}
    with pytest.raises(AssertionError, match="'turnId' is a required property"):
        trace_schema.check(event)


def test_a_failure_has_a_part_of_its_own() -> None:
    part = {
        "agentId": "BANKASSIST",
        "agentAliasId": "live",
        "sessionId": "session-1",
        "eventTime": AT_TEXT,
        "trace": failure_trace("t-1", "turn t-1 failed: ABORTED"),
    }

    assert part["trace"] == {"failureTrace": {"traceId": "t-1", "failureReason": "turn t-1 failed: ABORTED"}}
    assert_on_the_wire(part)
