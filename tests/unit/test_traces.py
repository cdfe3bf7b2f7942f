import json
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.session import get_session
from botocore.validate import ParamValidator

from tests.unit import samples
from turnwright import clock, converse, event_stream, keys, traces
from turnwright.documents import STATE_BYTES, Documents
from turnwright.journal import Step
from turnwright.table import Table
from turnwright.traces import Traces, failure_trace, trace_part

TRACE_PART = get_session().get_service_model("bedrock-agent-runtime").shape_for("TracePart")
AT = 1_763_806_805_123
AT_TEXT = "2025-11-22T10:20:05.123Z"
AT_TIME = datetime(2025, 11, 22, 10, 20, 5, 123_000, UTC)
TRACE_ID = "0123456789abcdef0123456789abcdef-1"


class Written:
    """The trace of one turn, and what was written of it."""

    def __init__(self, table: Table, *, enabled: bool = True) -> None:
        self.table = table
        self.turn = samples.turn(trace=enabled)
        self.bucket = samples.FakeBucket()
        self.documents = Documents(self.bucket, "bucket")
        self.traces = Traces(table, self.documents, self.turn)

    def items(self) -> list[dict[str, Any]]:
        partition = keys.turn_partition(self.turn.turnId)
        return list(self.table.query(partition, keys.TRACE_PREFIX, keys.TRACE_PREFIX + "~"))

    def parts(self) -> list[dict[str, Any]]:
        return [self.documents.fetch_text(item["event"]) for item in self.items()]

    def orchestration(self) -> list[dict[str, Any]]:
        """The orchestrationTrace of each part; the rest of each part is checked."""
        for part in self.parts():
            assert_on_the_wire(part)
            assert {**part, "trace": None} == {
                "agentId": "BANKASSIST",
                "agentAliasId": "live",
                "agentVersion": "3",
                "sessionId": "session-1",
                "eventTime": AT_TEXT,
                "trace": None,
            }
        return [part["trace"]["orchestrationTrace"] for part in self.parts()]


def assert_on_the_wire(part: dict[str, Any]) -> None:
    """botocore knows every field of the part, and boto3 hands it out as it is here, with times as datetimes."""
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


def use(index: int, name: str, **arguments: Any) -> dict[str, Any]:
    return {"toolUse": {"toolUseId": f"t-{index}", "name": name, "input": arguments}}


def test_the_time_of_an_event_is_read_as_a_time(written: Written) -> None:
    written.traces.final_response(1, "Hi")

    (event,) = samples.boto3_stream(event_stream.event("trace", written.parts()[0]))
    assert event["trace"]["eventTime"] == AT_TIME


def test_what_a_model_is_given_is_told(written: Written) -> None:
    agent = samples.agent()
    arguments = converse.request(agent, samples.MODEL, [converse.user_message("Hi")], {"a": "b"}, may_use_tools=True)

    written.traces.model_input(1, agent, arguments)

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

    written.traces.model_input(1, agent, arguments)

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

    written.traces.model_output(answered, samples.agent())

    invocation = {"invocationType": "ACTION_GROUP", "traceId": TRACE_ID}
    group = {"actionGroupName": "BankingTools", "executionType": "LAMBDA"}
    assert written.orchestration() == [
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

    written.traces.model_output(answered, agent)

    common = {"actionGroupName": "Claims", "executionType": "LAMBDA"}
    claim = [{"name": "id", "type": "integer", "value": "7"}]
    note = [{"name": "text", "type": "string", "value": "Hi"}, {"name": "tags", "type": "array", "value": '["a"]'}]
    inputs = [trace["invocationInput"] for trace in written.orchestration() if "invocationInput" in trace]
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
    written.traces.model_output(step({"text": "Hello."}), samples.agent())

    (trace,) = written.orchestration()
    assert trace["modelInvocationOutput"]["metadata"] == {
        "usage": {"inputTokens": 0, "outputTokens": 0},
        "totalTimeMs": 812,
    }


def test_each_attempt_of_a_tool_is_an_observation(written: Written) -> None:
    written.traces.tool_output(1, 0, "t-1", 2, '{"balance": 1}', AT - 40)

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
    written.traces.final_response(1, "48,392.50 USD")

    assert written.orchestration() == [
        {"observation": {"traceId": TRACE_ID, "type": "FINISH", "finalResponse": {"text": "48,392.50 USD"}}}
    ]


def test_events_stand_in_the_order_of_what_they_tell_whenever_they_were_written(written: Written) -> None:
    agent = samples.agent()
    arguments = converse.request(agent, samples.MODEL, [converse.user_message("Hi")], {}, may_use_tools=True)
    written.traces.final_response(10, "done")
    written.traces.tool_output(1, 11, "t-1", 1, "late", AT)
    written.traces.tool_output(1, 2, "t-1", 2, "second attempt", AT)
    written.traces.tool_output(1, 2, "t-1", 1, "first attempt", AT)
    written.traces.model_output(step({"text": "Hm."}, use(0, "search")), agent)
    written.traces.model_input(1, agent, arguments)
    written.traces.model_input(10, agent, arguments)

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
        written.traces.model_output(step({"text": "Hm."}, use(0, "search")), samples.agent())
        written.traces.tool_output(1, 0, "t-1", 1, "x", AT)
        written.traces.final_response(1, "x")

    assert len(written.items()) == 5


def test_each_try_of_a_model_is_told(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = samples.agent()
    for index, model_id in enumerate(agent.models):
        monkeypatch.setattr(traces, "now_ms", lambda index=index: AT + index)
        arguments = converse.request(agent, model_id, [converse.user_message("Hi")], {}, may_use_tools=True)
        written.traces.model_input(1, agent, arguments)

    models = [
        part["trace"]["orchestrationTrace"]["modelInvocationInput"]["foundationModel"] for part in written.parts()
    ]
    assert models == list(agent.models)


def test_a_long_event_is_kept_in_the_bucket_and_every_event_expires(written: Written) -> None:
    written.traces.final_response(1, "x" * STATE_BYTES)
    written.traces.final_response(2, "short")

    (long, short) = written.items()
    assert json.loads(long["event"]).keys() == {"object", "bytes"}
    assert json.loads(short["event"]).keys() == {"inline"}
    assert len(written.bucket.objects) == 1
    assert long["expiresAt"] == short["expiresAt"] == AT // 1000 + 30 * 86_400
    assert written.orchestration()[0]["observation"]["finalResponse"] == {"text": "x" * STATE_BYTES}


def test_nothing_is_written_for_a_caller_who_did_not_ask(table: Table) -> None:
    written = Written(table, enabled=False)
    agent = samples.agent()
    arguments = converse.request(agent, samples.MODEL, [converse.user_message("Hi")], {}, may_use_tools=True)

    written.traces.model_input(1, agent, arguments)
    written.traces.model_output(step(use(0, "search")), agent)
    written.traces.tool_output(1, 0, "t-1", 1, "x" * STATE_BYTES, AT)
    written.traces.final_response(1, "x")

    assert (written.items(), written.bucket.objects) == ([], {})


def test_a_failure_is_a_part_of_its_own() -> None:
    part = trace_part(samples.turn(), AT, failure_trace("t-1", "turn t-1 failed: ABORTED"))

    assert part["trace"] == {"failureTrace": {"traceId": "t-1", "failureReason": "turn t-1 failed: ABORTED"}}
    assert_on_the_wire(part)
