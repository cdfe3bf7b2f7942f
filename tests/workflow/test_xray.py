"""One trace from the caller's request to each tool call: who is whose parent."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from local.bedrock.scripted_model import ScriptedModel
from local.stack import LocalStack
from local.xray import Recorder, TraceHeader
from tests.stacks import Agent, Stack
from tests.waiting import eventually
from tests.workflow.turns import Told, ask, calls, says
from turnwright.sessions.turns import Turns
from turnwright.storage.table import Table


def segments(stack: Stack, trace_id: str) -> list[dict[str, Any]]:
    answered = stack.client("xray").batch_get_traces(TraceIds=[trace_id])
    return [json.loads(segment["Document"]) for trace in answered["Traces"] for segment in trace["Segments"]]


def trace_of(stack: Stack, told: Told) -> str:
    header = Turns(Table(stack.client("dynamodb"), stack.outputs["TableName"])).read(told.turn_id)
    assert header
    return str(header.fields["traceId"])


def path(segment: Mapping[str, Any], by_id: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The origins and names from the trace's beginning down to a segment."""
    above = by_id.get(segment.get("parent_id", ""))
    return [*(path(above, by_id) if above else []), str(segment["name"])]


def test_each_tool_call_is_a_span_under_its_turn_and_the_turn_under_the_callers_request(
    stack: LocalStack, model: ScriptedModel, agent_client: Any
) -> None:
    model.replace([calls(("echo", {"text": "a"}), ("misbehave", {"how": "throttle", "times": 1}), step=1), says("ok")])
    told = ask(agent_client, "go")
    trace_id = trace_of(stack, told)
    machine = stack.resources["AgentTurnStateMachine"].rpartition(":")[2]
    door, gateway = stack.function_name("InvokeAgentFunction"), stack.function_name("InvokeToolFunction")
    eventually(
        lambda: {machine, door} <= {segment["name"] for segment in segments(stack, trace_id)}, "the turn's segments"
    )
    eventually(
        lambda: any(segment["origin"] == "AWS::ApiGateway::Stage" for segment in segments(stack, trace_id)),
        "the request's segment",
    )

    found = segments(stack, trace_id)
    by_id = {segment["id"]: segment for segment in found}
    [request] = [segment for segment in found if segment["origin"] == "AWS::ApiGateway::Stage"]
    paths = sorted(path(segment, by_id) for segment in found)
    states = [request["name"], door, machine]
    tool_calls = [p for p in paths if len(p) == 6]

    assert "parent_id" not in request
    assert all(p[0] == request["name"] for p in paths), "nothing is outside of the caller's request"
    assert [p[:5] for p in tool_calls] == [[*states, "Invoke Tool", gateway]] * 3
    names = {name for p in paths if p[:3] == states and len(p) == 4 for name in [p[3]]}
    assert names == {"Load Memory", "Invoke Model", "Invoke Tool", "Write Memory"}
    assert all(by_id[segment["parent_id"]]["name"] == machine for segment in found if "type" in segment)
    assert sum("fault" in segment for segment in found if segment["name"] == "Invoke Tool") == 1


def test_a_caller_who_traces_is_above_the_request_and_gets_its_root_back(
    stack: Stack, agent_client: Any, small_talk: Agent
) -> None:
    root, parent = TraceHeader.parse(None).root, "0123456789abcdef"
    returned: list[str] = []
    agent_client.meta.events.register(
        "before-call.bedrock-agent-runtime.InvokeAgent",
        lambda params, **_: params["headers"].update({"X-Amzn-Trace-Id": f"Root={root};Parent={parent};Sampled=1"}),
    )
    agent_client.meta.events.register(
        "after-call.bedrock-agent-runtime.InvokeAgent",
        lambda http_response, **_: returned.append(http_response.headers["X-Amzn-Trace-Id"]),
    )

    told = ask(agent_client, "hi", **small_talk)

    assert trace_of(stack, told) == root
    assert told.receipt["traceId"] == root
    assert [text.partition(";")[0] for text in returned] == [f"Root={root}"]
    eventually(
        lambda: any(s["origin"] == "AWS::ApiGateway::Stage" for s in segments(stack, root)), "the request's segment", 60
    )
    [request] = [s for s in segments(stack, root) if s["origin"] == "AWS::ApiGateway::Stage"]
    assert request["parent_id"] == parent
    assert request["http"]["response"]["status"] == 200


@pytest.mark.parametrize("text", [None, "", "nonsense", "Parent=1;Sampled=1"])
def test_what_names_no_trace_begins_one(text: str | None) -> None:
    assert TraceHeader.parse(text).root.startswith("1-")


def test_a_recorder_forgets_the_oldest_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local.xray._MOST_TRACES", 2)
    kept: list[str] = []
    forgotten: list[str] = []
    recorder = Recorder(kept.append, forgotten.append)

    for number in range(3):
        recorder.begin(f"Root=1-0-{number};Sampled=1", "segment", "test").end()

    assert (len(kept), forgotten) == (3, ["1-0-0"])


def test_a_span_ends_once_and_says_why_it_failed() -> None:
    kept: list[str] = []
    span = Recorder(kept.append, lambda _: None).begin(None, "segment", "test")

    span.end("Oops")
    span.end()

    [document] = map(json.loads, kept)
    assert (document["fault"], document["cause"]["exceptions"][0]["message"]) == (True, "Oops")
