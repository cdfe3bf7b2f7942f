"""Turns without a stream, as a caller with HTTP and a signature sees them."""

from typing import Any

import pytest
from botocore.credentials import Credentials

from local.bedrock.scripted_model import ScriptedModel
from local.stack import LocalStack
from tests import trace_schema
from tests.project import TEST_AGENT
from tests.stacks import Agent, Caller
from tests.waiting import eventually
from tests.workflow.turns import calls, fails, new_session, says


def start(caller: Caller, text: str = "go", key: str = "", **fields: Any) -> tuple[int, dict[str, Any]]:
    body = {"agentId": TEST_AGENT, "agentAliasId": "live", "sessionId": new_session(), "inputText": text, **fields}
    return caller.send("POST", "/turns", body, **({"Idempotency_Key": key} if key else {}))


def test_a_turn_is_started_looked_at_and_answered(model: ScriptedModel, caller: Caller) -> None:
    model.replace([says("Hello.")])
    model.pause()
    status, started = start(caller)
    assert (status, started["status"]) == (202, "RUNNING")
    assert caller.send("GET", f"/turns/{started['turnId']}") == (200, {**started, "status": "RUNNING"})
    model.resume()

    ended = caller.ended(started["turnId"])

    assert (ended["status"], ended["answer"]) == ("COMMITTED", "Hello.")
    assert (ended["receipt"]["turnId"], ended["receipt"]["stateTransitions"]) == (started["turnId"], 4)


def test_a_turn_is_answered_and_a_repeat_with_its_key_is_the_same_turn(caller: Caller, small_talk: Agent) -> None:
    session, key = new_session(), new_session()
    status, started = start(caller, key=key, sessionId=session, enableTrace=True, **small_talk)
    assert (status, started["status"]) == (202, "RUNNING")

    ended = caller.ended(started["turnId"])

    assert ended["status"] == "COMMITTED"
    assert ended["answer"]
    assert (ended["receipt"]["turnId"], ended["receipt"]["stateTransitions"]) == (started["turnId"], 4)
    again = start(caller, key=key, sessionId=session, enableTrace=True, **small_talk)
    assert again == (202, {"turnId": started["turnId"], "status": "COMMITTED"})
    status, page = caller.send("GET", f"/turns/{started['turnId']}/trace")
    assert (status, [event["type"] for event in page["events"]]) == (200, ["MODEL_INVOCATION", "FINAL_RESPONSE"])
    for event in page["events"]:
        trace_schema.check(event)


def test_a_repeat_with_the_same_key_asks_no_model_and_another_key_does(model: ScriptedModel, caller: Caller) -> None:
    model.replace([{**says("Once."), "times": 1}, fails("ValidationException", 400)])
    session = new_session()
    _, first = start(caller, key="key-1", sessionId=session)
    caller.ended(first["turnId"])

    again = start(caller, key="key-1", sessionId=session)

    assert again == (202, {"turnId": first["turnId"], "status": "COMMITTED"})
    _, other = start(caller, key="key-2", sessionId=session)
    assert other["turnId"] != first["turnId"]
    assert caller.ended(other["turnId"])["status"] == "FAILED"


def test_a_failed_turn_tells_its_failure_and_its_receipt(model: ScriptedModel, caller: Caller) -> None:
    model.replace([fails("ValidationException", 400)])
    _, started = start(caller)

    ended = caller.ended(started["turnId"])

    assert (ended["failure"]["error"], ended["failure"]["state"]) == ("ModelsExhausted", "Invoke Model")
    assert "answer" not in ended
    assert ended["receipt"]["status"] == "FAILED"


def test_the_events_are_there_for_a_caller_who_enabled_the_trace(model: ScriptedModel, caller: Caller) -> None:
    model.replace([calls(("echo", {"text": "x"}), step=1), says("done")])
    _, started = start(caller, enableTrace=True)
    caller.ended(started["turnId"])

    status, page = caller.send("GET", f"/turns/{started['turnId']}/trace")

    assert (status, page["status"], set(page)) == (200, "COMMITTED", {"turnId", "status", "events"})
    for event in page["events"]:
        trace_schema.check(event)
    kinds = [event["type"] for event in page["events"]]
    assert kinds == [
        *("MODEL_INVOCATION", "TOOL_SELECTION", "TOOL_INVOCATION"),
        *("MODEL_INVOCATION", "FINAL_RESPONSE"),
    ]


def test_a_turn_without_a_trace_says_why_there_is_none(caller: Caller, small_talk: Agent) -> None:
    _, started = start(caller, **small_talk)
    caller.ended(started["turnId"])

    status, error = caller.send("GET", f"/turns/{started['turnId']}/trace")

    assert (status, error["__type"], caller.headers["x-amzn-ErrorType"]) == (409, *("ConflictException",) * 2)
    assert "enableTrace" in error["message"]


@pytest.mark.parametrize("path", ["", "/trace"])
def test_a_turn_is_not_there_for_anyone_else(
    stack: LocalStack, model: ScriptedModel, caller: Caller, path: str
) -> None:
    model.replace([says("Secret.")])
    _, started = start(caller, enableTrace=True)
    caller.ended(started["turnId"])

    status, error = Caller(stack, Credentials("AKIATWO", "example")).send("GET", f"/turns/{started['turnId']}{path}")

    message = f"there is no turn {started['turnId']}"
    assert (status, error) == (404, {"__type": "ResourceNotFoundException", "message": message})


@pytest.mark.parametrize("turn_id", ["0" * 32, "nonsense", "..%2F..", "TURN"])
def test_an_unknown_turn_is_not_there(caller: Caller, turn_id: str) -> None:
    status, error = caller.send("GET", f"/turns/{turn_id}")
    assert (status, error["__type"]) == (404, "ResourceNotFoundException")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"agentId": None}, "agentId"),
        ({"sessionId": "%2e%2e"}, "sessionId"),
        ({"inputText": ""}, "inputText"),
        ({"endSession": True}, "endSession"),
        ({"nonsense": 1}, "nonsense"),
        ({"sessionState": {"files": [{"name": "a"}]}}, "sessionState.files"),
    ],
)
def test_what_breaks_a_rule_is_refused_with_field_and_rule(
    caller: Caller, small_talk: Agent, fields: dict[str, Any], named: str
) -> None:
    status, error = start(caller, **{**small_talk, **fields})
    assert (status, error["__type"]) == (400, "ValidationException")
    assert error["message"].startswith(f"{named}: ")


def test_two_tokens_for_one_page_are_refused(caller: Caller) -> None:
    status, body = caller.send("GET", f"/turns/{'0' * 32}/trace?nextToken=a&nextToken=b")
    assert (status, body["__type"]) == (400, "ValidationException")
    assert body["message"] == "nextToken: is in the query 2 times; give it once"


def test_an_unknown_agent_is_told(caller: Caller) -> None:
    status, error = start(caller, agentId="NOBODY")
    assert (status, error["__type"]) == (404, "ResourceNotFoundException")


def test_a_busy_session_is_told(model: ScriptedModel, caller: Caller) -> None:
    model.replace([says("late")])
    model.pause()
    session = new_session()
    _, started = start(caller, sessionId=session)
    eventually(lambda: len(model.requests) > 0, "the model's request")

    status, error = start(caller, sessionId=session)

    assert (status, error["__type"]) == (409, "ConflictException")
    model.resume()
    caller.ended(started["turnId"])
