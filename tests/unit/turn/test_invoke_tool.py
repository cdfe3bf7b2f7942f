import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import Any

import pytest

from tests.unit import samples
from tests.unit.stored_turns import Interrupted, StoredTurns, die
from tests.unit.tool_turns import (
    BALANCE,
    FakeLambda,
    ToolTurn,
    answered,
    client_error,
    raised,
    with_policy,
)
from tests.waiting import patient
from turnwright.agents.definitions import Tool
from turnwright.costs.spending import Cost, Spent
from turnwright.deadline import within
from turnwright.errors import ToolAttemptFailed, ToolFailedTurn, TurnAlreadyEnded
from turnwright.models.converse import UNREADABLE_INPUT
from turnwright.sessions.attributes import ATTRIBUTES_BYTES, SESSION_BYTES
from turnwright.sessions.values import MOST_CALLS, Step
from turnwright.storage import keys
from turnwright.storage.documents import json_text
from turnwright.storage.table import Delete, Table
from turnwright.tools import tool_arguments, tool_invocation
from turnwright.tools.tool_arguments import ArgumentsUnchecked
from turnwright.tracing.payloads import Payloads
from turnwright.turn.invoke_model import tool_calls
from turnwright.turn.invoke_tool import Call, bounded, merged_attributes

STATE_BYTES = 256 * 1024
"""What Step Functions lets a state's input, output or variable carry."""

BREAKER = {"circuitBreaker": {"failureThreshold": 3, "recoveryTimeSeconds": 60}}
THROTTLED = client_error("TooManyRequestsException", 429)


def success(text: str, identifier: str = "t-0", **attributes: Any) -> dict[str, Any]:
    """A result as it travels in state."""
    return {"toolUseId": identifier, "status": "success", "result": {"inline": {"text": text, **attributes}}}


def test_a_tool_is_given_bedrock_s_event_and_its_answer_becomes_a_result(table: Table, fake_lambda: FakeLambda) -> None:
    turn = ToolTurn(table, session={"tier": "gold"}, prompt={"today": "Sunday"})
    fake_lambda.answers = [answered("48392.50 USD")]

    assert turn.attempt() == success("48392.50 USD")
    assert fake_lambda.invoked == [
        (
            samples.BANK_FUNCTION,
            {
                "messageVersion": "1.0",
                "agent": {"name": "banking-assistant", "id": "BANKASSIST", "alias": "live", "version": "3"},
                "inputText": "My balance?",
                "sessionId": "session-1",
                "actionGroup": "BankingTools",
                "function": "get_account_balance",
                "parameters": [{"name": "account_id", "type": "string", "value": "12345"}],
                "sessionAttributes": {"tier": "gold"},
                "promptSessionAttributes": {"today": "Sunday"},
                "idempotencyKey": "0123456789abcdef0123456789abcdef/1/t-0",
            },
        )
    ]
    assert turn.traced() == ["48392.50 USD"]
    assert turn.queue.letters == []


def test_the_idempotency_key_is_one_for_all_attempts_and_another_for_each_call(
    table: Table, fake_lambda: FakeLambda
) -> None:
    turn = ToolTurn(table, None, BALANCE, BALANCE)
    turn.ask(2, BALANCE)
    fake_lambda.answers = [THROTTLED, *repeat(answered("x"), 3)]

    turn.failure(1)
    turn.attempt(2)
    turn.attempt(index=1)
    turn.attempt(step=2)

    first, again, other, later = [event["idempotencyKey"] for _, event in fake_lambda.invoked]
    assert first == again
    assert len({first, other, later}) == 3


@pytest.mark.parametrize(
    ("answer", "code", "message", "correctable"),
    [
        (answered("no such account", state="FAILURE"), "FAILURE", "no such account", True),
        (answered("which account?", state="REPROMPT"), "REPROMPT", "which account?", True),
        (raised("KeyError", "'a'"), "TOOL_ERROR", "get_account_balance failed with KeyError: 'a'", False),
        (raised("INVALID_ARGUMENTS", "no"), "INVALID_ARGUMENTS", "get_account_balance failed with INVALID_ARG", True),
        (b"<html>", "INVALID_RESPONSE", "the response of get_account_balance is not JSON: ", False),
        (b"\x89PNG\r\n\x1a\n\xff", "INVALID_RESPONSE", "the response of get_account_balance is not ", False),
        ({"balance": 5}, "INVALID_RESPONSE", "the response of get_account_balance has no object response", False),
        (b"null", "INVALID_RESPONSE", "the response of get_account_balance has no object response", False),
    ],
    ids=["FAILURE", "REPROMPT", "raised", "raised INVALID_ARGUMENTS", "html", "binary", "bare", "null"],
)
def test_an_answer_that_is_no_result_is_a_failure_that_the_model_is_told(
    answer: Any, code: str, message: str, correctable: bool, table: Table, fake_lambda: FakeLambda
) -> None:
    turn = ToolTurn(table)
    fake_lambda.answers = [answer]

    report = turn.failure()

    assert report == {
        "errorCode": code,
        "errorMessage": report["errorMessage"],
        "attempts": 1,
        "tryAgainNow": correctable,
    }
    assert report["errorMessage"].startswith(message)
    assert [json.loads(text) for text in turn.traced()] == [report]
    assert [letter["errorCode"] for letter in turn.queue.letters] == ([] if correctable else [code])


def test_the_policy_says_whether_and_after_how_long_a_call_is_tried_again(
    table: Table, fake_lambda: FakeLambda
) -> None:
    agent = with_policy(
        retryPolicy={
            "maxAttempts": 4,
            "initialDelayMs": 300,
            "maxDelayMs": 1_000,
            "retryableErrorCodes": ["THROTTLING"],
        },
        timeoutConfig={"timeoutSeconds": 7},
    )
    turn = ToolTurn(table, agent)
    fake_lambda.answers = [*repeat(THROTTLED, 4), client_error("ServiceException", 500)]

    reports = [turn.failure(number) for number in (1, 2, 3, 4)]

    assert [report.get("retryInMs") for report in reports] == [300, 600, 1_000, None]
    assert [report["attempts"] for report in reports] == [1, 2, 3, 4]
    assert "retryInMs" not in turn.failure(1)
    assert fake_lambda.seconds == [9] * 5
    assert len(turn.traced()) == 4, "each attempt is one trace event, and a repeated one writes it again"


def test_a_time_out_fails_the_turn_where_the_policy_says_so_and_no_attempt_is_left(
    table: Table, fake_lambda: FakeLambda
) -> None:
    agent = with_policy(
        retryPolicy={"maxAttempts": 2, "initialDelayMs": 0, "retryableErrorCodes": ["TIMEOUT"]},
        timeoutConfig={"onTimeoutBehavior": "FAIL_TURN"},
    )
    turn = ToolTurn(table, agent)
    fake_lambda.answers = [raised("Sandbox.Timedout"), raised("Sandbox.Timedout")]

    assert turn.failure(1)["retryInMs"] == 0
    with pytest.raises(ToolFailedTurn) as failed:
        turn.attempt(2)

    assert str(failed.value) == (
        'get_account_balance: {"errorCode":"TIMEOUT","errorMessage":'
        '"get_account_balance failed with Sandbox.Timedout: because","attempts":2,"tryAgainNow":false}'
    )
    assert [letter["attempts"] for letter in turn.queue.letters] == [2]


@pytest.mark.parametrize("behaviour", ["FAIL_TURN", "RETURN_ERROR_TO_AGENT"])
def test_no_other_failure_fails_the_turn(behaviour: str, table: Table, fake_lambda: FakeLambda) -> None:
    turn = ToolTurn(table, with_policy(timeoutConfig={"onTimeoutBehavior": behaviour}))
    fake_lambda.answers = [answered("no", state="FAILURE")]

    assert turn.failure()["errorCode"] == "FAILURE"


def test_a_time_out_is_told_to_the_model_by_default(table: Table, fake_lambda: FakeLambda) -> None:
    turn = ToolTurn(table)
    fake_lambda.answers = [TimeoutError()]

    assert turn.failure() == {
        "errorCode": "TIMEOUT",
        "errorMessage": "get_account_balance gave no answer within 30 s",
        "attempts": 1,
        "tryAgainNow": False,
    }


# ---- What the model asked for ----


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("get_account_balance", {}, "/account_id: is missing"),
        ("get_account_balance", {"account_id": 12345}, "/account_id: 12345 is not of type string"),
        (
            "get_account_balance",
            {"account_id": "1", "limit": 2},
            "/limit: is not known; known are: account_id",
        ),
        (
            "search",
            {"limit": 1.5, "open": "yes"},
            '/limit: 1.5 is not of type integer; /open: "yes" is not of type boolean',
        ),
    ],
)
def test_arguments_that_break_the_schema_never_reach_the_function(
    name: str, arguments: dict[str, Any], message: str, table: Table, fake_lambda: FakeLambda
) -> None:
    turn = ToolTurn(table, None, {"name": name, "input": arguments})

    assert turn.failure() == {
        "errorCode": "INVALID_ARGUMENTS",
        "errorMessage": f"the arguments of {name} break its schema: {message}",
        "attempts": 0,
        "tryAgainNow": True,
    }
    assert fake_lambda.invoked == []
    assert turn.queue.letters == []


def test_arguments_as_models_write_them_reach_the_function_as_the_schema_has_them(
    table: Table, fake_lambda: FakeLambda
) -> None:
    written = {"limit": "5", "open": "true", "least": None, "kinds": '["a"]'}
    turn = ToolTurn(table, None, {"name": "search", "input": written})
    fake_lambda.answers = [answered("x")]

    turn.attempt()

    assert fake_lambda.invoked[0][1]["parameters"] == [
        {"name": "limit", "type": "integer", "value": "5"},
        {"name": "open", "type": "boolean", "value": "true"},
        {"name": "kinds", "type": "array", "value": '["a"]'},
    ]


def test_a_lost_attempt_whose_arguments_are_refused_was_not_made(table: Table, fake_lambda: FakeLambda) -> None:
    turn = ToolTurn(table, None, {"name": "search", "input": {"limit": "many"}})

    with pytest.raises(ToolAttemptFailed) as failed:
        turn.attempt(lost=True)

    report = json.loads(str(failed.value))
    assert (report["errorCode"], report["attempts"]) == ("INVALID_ARGUMENTS", 0)
    assert turn.queue.letters == []


def test_whether_a_lost_attempt_was_made_is_not_known_if_its_arguments_were_not_checked(
    table: Table, fake_lambda: FakeLambda, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = ToolTurn(table, None, {"name": "search", "input": {"limit": "5"}})

    def unchecked(tool: Tool, _given: Mapping[str, Any]) -> Mapping[str, Any]:
        raise ArgumentsUnchecked(tool.name, "too slow")

    monkeypatch.setattr(tool_arguments, "read", unchecked)
    with pytest.raises(ToolAttemptFailed, match="OUTCOME_UNKNOWN"):
        turn.attempt(lost=True)
    assert [letter["errorCode"] for letter in turn.queue.letters] == ["OUTCOME_UNKNOWN"]

    assert turn.failure()["errorCode"] == "INVALID_ARGUMENTS"
    assert (fake_lambda.invoked, len(turn.queue.letters)) == ([], 1)


def test_arguments_that_were_cut_never_reach_the_function(table: Table, fake_lambda: FakeLambda) -> None:
    turn = ToolTurn(table, None, {"name": "search", "input": {UNREADABLE_INPUT: '{"limit": '}})

    report = turn.failure()

    assert report["errorCode"] == "INVALID_ARGUMENTS"
    assert report["errorMessage"] == "the arguments of search were not a JSON object; send them whole"
    assert fake_lambda.invoked == []


def test_a_tool_that_the_agent_does_not_have_is_not_invoked(table: Table, fake_lambda: FakeLambda) -> None:
    turn = ToolTurn(table, None, {"name": "transfer_money", "input": {}})

    assert turn.failure() == {
        "errorCode": "UNKNOWN_TOOL",
        "errorMessage": "there is no tool transfer_money; the tools are: get_account_balance, search",
        "attempts": 0,
        "tryAgainNow": True,
    }
    assert fake_lambda.invoked == []
    assert turn.queue.letters == []


def test_an_agent_without_tools_says_so(table: Table) -> None:
    turn = ToolTurn(table, samples.agent(actionGroups=[]))

    assert turn.failure()["errorMessage"] == "there is no tool get_account_balance; the tools are: none"


def test_a_turn_whose_items_are_gone_invokes_nothing(table: Table, fake_lambda: FakeLambda) -> None:
    turn = ToolTurn(table)
    table.delete(Delete(keys.turn_header(turn.turn.turnId)))

    with pytest.raises(TurnAlreadyEnded):
        turn.attempt()
    assert fake_lambda.invoked == []


# ---- Results and their length ----


def test_long_error_messages_are_bounded(table: Table, fake_lambda: FakeLambda) -> None:
    turn = ToolTurn(table)
    fake_lambda.answers = [answered("x" * 5_000, state="FAILURE")] * 2

    assert turn.failure()["errorMessage"] == "x" * 2_000 + "\n[cut: 2000 of 5000 characters are shown]"
    note = "\n[cut: 200 of 5000 characters are shown]"
    assert turn.failure(inline_bytes=100)["errorMessage"] == "x" * 200 + note, "never less than a sentence"


@pytest.mark.parametrize(("configuration", "shown"), [({}, 25_000), ({"maxCharacters": 100}, 100)])
def test_a_long_answer_is_cut_for_the_model_and_kept_whole(
    configuration: dict[str, int], shown: int, table: Table, fake_lambda: FakeLambda
) -> None:
    turn = ToolTurn(table, with_policy(resultConfig=configuration))
    fake_lambda.answers = [answered("é" * 70_000)]

    result = turn.attempt(inline_bytes=1_000)

    document = turn.documents.fetch(result["result"])
    assert document.keys() == {"text", "full"}
    assert document["text"] == "é" * shown + f"\n[cut: {shown} of 70000 characters are shown]"
    assert document["full"].keys() == {"object", "bytes"}
    assert document["full"]["object"].startswith("turns/0123456789abcdef0123456789abcdef/")
    assert turn.documents.fetch(document["full"]) == "é" * 70_000
    assert turn.traced() == [document["text"]]
    assert turn.attempt() == result, "what was recorded is the reference, not the text"


def test_an_answer_as_long_as_the_model_may_be_shown_is_not_kept_twice(table: Table, fake_lambda: FakeLambda) -> None:
    turn = ToolTurn(table, with_policy(resultConfig={"maxCharacters": 100}))
    fake_lambda.answers = [answered("é" * 100)]

    assert turn.attempt() == success("é" * 100)


def test_a_result_travels_inline_up_to_its_share_of_the_state(table: Table, fake_lambda: FakeLambda) -> None:
    turn = ToolTurn(table, None, BALANCE, BALANCE)
    fake_lambda.answers = [answered("é" * 10), answered("é" * 10)]
    size = len('{"text":""}') + 20

    assert turn.attempt(inline_bytes=size)["result"] == {"inline": {"text": "é" * 10}}
    assert turn.attempt(index=1, inline_bytes=size - 1)["result"].keys() == {"object", "bytes"}


def error_to_agent(call: Mapping[str, Any], failure: Mapping[str, Any]) -> dict[str, Any]:
    """Return Error To Agent."""
    text = json_text({name: value for name, value in failure.items() if name != "retryInMs"})
    return {"toolUseId": call["toolUseId"], "status": "error", "result": {"inline": {"text": text}}}


def calls_of_a_step(turn: ToolTurn, number: int, name: str = "get_account_balance") -> list[dict[str, Any]]:
    """The items of Run Tools for a step with `number` calls, with ids and names as long as Converse takes them."""
    uses = [{"toolUse": {"toolUseId": f"{n:064d}", "name": name, "input": {}}} for n in range(number)]
    step = Step(1, [], {"role": "assistant", "content": uses}, "tool_use", samples.MODEL, {}, 5)
    return tool_calls(step, turn.agent)


METERED = {
    "costs": [Cost(1, 900_000, 10_240, 1_234.5, 1_234.5, 100).encode()] * 10,
    "attempts": 10,
    "entered": 40,
    "retries": 40,
    "lost": 10,
}
"""What an entry of toolResults has beside the result, after the most attempts that a policy allows."""


def invoke_model_input(turn: ToolTurn, results: Sequence[Mapping[str, Any]]) -> bytes:
    """The next Invoke Model's, the largest that state has to carry."""
    cost = Cost(9_999, 9_999_999_999, 10_240, 123_456.5, 123_456.5, 99_999)
    functions = ("LoadMemory", "InvokeModel", "InvokeTool", "WriteMemory")
    spent = Spent(dict.fromkeys(functions, cost), dict.fromkeys(functions, 9_999), 9_999, 9_999, 9_999)
    payload = {
        "turn": {**turn.turn.encode(), "actor": "a" * 128, "memoryStore": "m" * 128, "sessionId": "s" * 128},
        "toolResults": [{**result, **METERED} for result in results],
        "spent": spent.encode(),
    }
    return json.dumps(payload, ensure_ascii=False).encode()


@pytest.mark.parametrize("calls", [1, 8, MOST_CALLS, 1_000])
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda inline: answered("x" * (inline - 11)), id="as long as fits inline"),
        pytest.param(lambda inline: answered("é" * 100_000), id="long"),
        pytest.param(
            lambda inline: answered("x", promptSessionAttributes={"k": "v" * 32_000}), id="with long attributes"
        ),
        pytest.param(lambda inline: answered("\x01" * 100_000, state="FAILURE"), id="an error of control characters"),
        pytest.param(lambda inline: answered("😀" * 100_000, state="FAILURE"), id="an error of long characters"),
    ],
)
def test_the_results_of_a_step_fit_into_state_together(
    answer: Callable[[int], Any], calls: int, table: Table, fake_lambda: FakeLambda
) -> None:
    turn = ToolTurn(table)
    items = calls_of_a_step(turn, calls)
    inline = items[0]["inlineBytes"]
    assert all(item["inlineBytes"] == inline for item in items)
    fake_lambda.answers = [answer(inline)]

    try:
        result = turn.attempt(inline_bytes=inline)
    except ToolAttemptFailed as failure:
        result = error_to_agent(items[0], json.loads(str(failure)))
    map_output = [{**result, "toolUseId": item["toolUseId"]} for item in items]

    assert len(items) == min(calls, MOST_CALLS)
    assert len(invoke_model_input(turn, map_output)) < STATE_BYTES


def test_a_thousand_calls_of_unknown_tools_fit_into_state(table: Table) -> None:
    functions = [{"name": f"{number:064d}"} for number in range(40)]
    group = {
        "actionGroupName": "Many",
        "actionGroupExecutor": {"lambda": samples.BANK_FUNCTION},
        "functionSchema": {"functions": functions},
    }
    turn = ToolTurn(table, samples.agent(actionGroups=[group]))
    items = calls_of_a_step(turn, 1_000, "f" * 64)

    map_output = [error_to_agent(item, item["failure"]) for item in items]

    assert len({item["toolUseId"] for item in map_output}) == MOST_CALLS
    assert len(json_text(items).encode()) < STATE_BYTES // 2
    assert len(invoke_model_input(turn, map_output)) < STATE_BYTES


# ---- Attributes ----


def test_attributes_go_in_and_come_out(table: Table, fake_lambda: FakeLambda) -> None:
    turn = ToolTurn(table, None, BALANCE, BALANCE)
    fake_lambda.answers = [
        answered("a", sessionAttributes={"tier": "gold"}, promptSessionAttributes={}),
        answered("b", promptSessionAttributes={"now": "noon"}),
    ]

    assert [turn.attempt(index=index) for index in (0, 1)] == [
        success("a", sessionAttributes={"tier": "gold"}, promptSessionAttributes={}),
        success("b", "t-1", promptSessionAttributes={"now": "noon"}),
    ]


def test_a_tool_sees_what_the_tools_of_earlier_steps_made_of_the_attributes(
    table: Table, fake_lambda: FakeLambda
) -> None:
    turn = ToolTurn(table, session={"a": "0", "z": "0"}, prompt={"p": "old"})
    turn.ask(
        2,
        BALANCE,
        results=[
            success("", sessionAttributes={"a": "1", "b": "1"}),
            success("", sessionAttributes={"b": "2"}),
            success("", promptSessionAttributes={"p": "new"}),
        ],
    )
    turn.ask(3, results=[success("", sessionAttributes={"a": "later"})])
    fake_lambda.answers = [answered("x")]

    turn.attempt(step=2)

    ((_, event),) = fake_lambda.invoked
    assert event["sessionAttributes"] == {"a": "1", "b": "2", "z": "0"}
    assert event["promptSessionAttributes"] == {"p": "new"}


def test_attributes_merge_in_the_order_in_which_the_model_asked() -> None:
    results: list[Mapping[str, Any]] = [
        {"text": "", "sessionAttributes": {"a": "first", "b": "first"}},
        {"text": ""},
        {"text": "", "sessionAttributes": {"a": "last"}, "promptSessionAttributes": {"p": "1"}},
    ]
    session = {"a": "0", "c": "0"}

    assert merged_attributes(session, {}, results) == ({"a": "last", "b": "first", "c": "0"}, {"p": "1"})
    assert session == {"a": "0", "c": "0"}


def long_attributes(name: str) -> dict[str, str]:
    return {name: "x" * (ATTRIBUTES_BYTES - 20)}


def test_a_tool_cannot_make_the_session_s_attributes_longer_than_a_session_keeps(
    table: Table, fake_lambda: FakeLambda
) -> None:
    turn = ToolTurn(table, session={"full": "x" * (SESSION_BYTES - 100)})
    replaced = {"full": "y" * 100}
    fake_lambda.answers = [
        answered("x", sessionAttributes=long_attributes("new")),
        answered("x", sessionAttributes=replaced),
    ]

    report = turn.failure()

    assert report["errorCode"] == "INVALID_RESPONSE"
    assert report["errorMessage"] == (
        "the response of get_account_balance makes the sessionAttributes 32757 bytes of JSON longer; "
        "there is room for 89"
    )
    assert turn.attempt() == success("x", sessionAttributes=replaced)


def test_tools_that_run_side_by_side_share_the_room(table: Table, fake_lambda: FakeLambda) -> None:
    turn = ToolTurn(table, None, BALANCE, BALANCE, BALANCE)
    fake_lambda.answers = [answered("x", sessionAttributes=long_attributes("k"))]

    assert turn.failure()["errorMessage"] == (
        "the response of get_account_balance makes the sessionAttributes 32754 bytes of JSON longer; "
        "there is room for 21844"
    )


# ---- One result for each call, whatever dies ----

PROBE_REQUESTS = [
    "batch_get_item",  # header and record
    "query",  # the journal
    "get_item",  # the breaker
    "update_item",  # the probe's claim
    "put_item",  # the record
    "update_item",  # the circuit closes
    "put_item",  # the trace
]


def recovered(stored: StoredTurns, fake_lambda: FakeLambda) -> ToolTurn:
    """A turn whose call will probe."""
    failing = ToolTurn(stored.table, with_policy(**BREAKER), turn_id="f" * 32)
    fake_lambda.answers = [raised("KeyError")] * 3
    for _ in range(3):
        failing.failure()
    stored.clock.ms += 60_000
    fake_lambda.invoked.clear()
    turn = ToolTurn(stored.table, with_policy(**BREAKER))
    stored.dynamodb.forget()
    return turn


def test_a_probing_call_makes_these_requests_and_records_its_result_first(
    stored: StoredTurns, fake_lambda: FakeLambda
) -> None:
    turn = recovered(stored, fake_lambda)
    fake_lambda.answers = [answered("5 USD")]

    assert turn.attempt() == success("5 USD")
    assert stored.dynamodb.operations == PROBE_REQUESTS


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("request_number", range(len(PROBE_REQUESTS)))
def test_a_gateway_that_dies_anywhere_never_has_its_tool_called_twice(
    stored: StoredTurns, fake_lambda: FakeLambda, when: str, request_number: int
) -> None:
    turn = recovered(stored, fake_lambda)
    fake_lambda.answers = [answered("5 USD")]
    getattr(stored.dynamodb, when)[request_number] = die
    with pytest.raises(Interrupted):
        turn.attempt()
    invoked = len(fake_lambda.invoked)
    recorded = request_number > 4 or (request_number, when) == (4, "after")

    if recorded:
        assert turn.attempt(lost=True) == turn.attempt(1) == turn.attempt(2) == success("5 USD")
        assert turn.queue.letters == []
    else:
        assert turn.failure(lost=True) == {
            "errorCode": "OUTCOME_UNKNOWN",
            "errorMessage": "the gateway was lost; whether the tool ran is not known",
            "attempts": 1,
            "tryAgainNow": False,
        }
        assert [letter["errorCode"] for letter in turn.queue.letters] == ["OUTCOME_UNKNOWN"]
    assert len(fake_lambda.invoked) == invoked <= 1


def test_a_prober_that_dies_does_not_leave_the_circuit_half_open_for_ever(
    stored: StoredTurns, fake_lambda: FakeLambda
) -> None:
    turn = recovered(stored, fake_lambda)
    fake_lambda.answers = [Interrupted(), answered("5 USD")]
    with pytest.raises(Interrupted):
        turn.attempt()
    report = turn.failure(2)
    assert (report["errorCode"], report["retryAfterSeconds"]) == ("CIRCUIT_OPEN", 45)

    stored.clock.ms += 45_001

    assert turn.attempt(2) == success("5 USD")


def test_a_lost_attempt_is_tried_again_only_if_the_policy_lists_that(table: Table, fake_lambda: FakeLambda) -> None:
    codes = ["OUTCOME_UNKNOWN"]
    turn = ToolTurn(table, with_policy(retryPolicy={"maxAttempts": 2, "retryableErrorCodes": codes}))

    assert turn.failure(1, lost=True)["retryInMs"] == 200
    assert turn.queue.letters == []
    assert "retryInMs" not in turn.failure(2, lost=True)
    assert [(letter["errorCode"], letter["attempts"]) for letter in turn.queue.letters] == [("OUTCOME_UNKNOWN", 2)]
    assert fake_lambda.invoked == []


@pytest.mark.usefixtures("threads_check")
def test_of_two_gateways_of_one_call_one_result_wins(stored: StoredTurns, fake_lambda: FakeLambda) -> None:
    turn = ToolTurn(stored.table)
    together = threading.Barrier(8)
    texts = iter("abcdefgh")

    def answer(_event: dict[str, Any]) -> Any:
        text = next(texts)
        together.wait(timeout=patient(30))
        return answered(text)

    fake_lambda.answer = answer

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda _: turn.attempt(), range(8)))

    assert len(fake_lambda.invoked) == 8
    assert results == [turn.attempt()] * 8


@pytest.mark.usefixtures("threads_check")
def test_a_result_that_comes_after_its_gateway_was_given_up_is_used_by_the_next_attempt(
    table: Table, fake_lambda: FakeLambda
) -> None:
    """The state's time-out ended attempt 1, whose gateway still waits for the tool."""
    turn = ToolTurn(table, with_policy(retryPolicy={"retryableErrorCodes": ["OUTCOME_UNKNOWN"]}))
    given_up: list[dict[str, Any]] = []

    def answer() -> Any:
        given_up.append(turn.failure(1, lost=True))
        return answered("late")

    fake_lambda.answers = [answer]

    assert turn.attempt(1) == success("late")
    assert given_up[0]["retryInMs"] == 200
    assert turn.attempt(2) == success("late")
    assert len(fake_lambda.invoked) == 1


@pytest.mark.usefixtures("threads_check")
def test_a_result_that_comes_after_the_next_attempt_s_does_not_replace_it(
    table: Table, fake_lambda: FakeLambda
) -> None:
    turn = ToolTurn(table)
    fake_lambda.answers = [lambda: (turn.attempt(2), answered("late"))[1], answered("in time")]

    assert turn.attempt(1) == success("in time")
    assert turn.attempt(1) == turn.attempt(2) == success("in time")


def test_a_success_that_comes_after_the_time_out_is_nobody_s_result(
    table: Table, fake_lambda: FakeLambda, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = ToolTurn(table, with_policy(retryPolicy={"retryableErrorCodes": ["TIMEOUT"]}))
    told, answers = threading.Event(), threading.Event()

    def late() -> Any:
        told.wait(timeout=patient(30))
        answers.set()
        return answered("late")

    fake_lambda.answers = [late, answered("in time")]
    with monkeypatch.context() as hasty:
        hasty.setattr(tool_invocation, "within", lambda _seconds, work: within(0.05, work))
        report = turn.failure(1)
    assert (report["errorCode"], report["retryInMs"]) == ("TIMEOUT", 200)
    told.set()
    assert answers.wait(timeout=patient(30))

    assert turn.attempt(2) == success("in time")
    assert len({event["idempotencyKey"] for _, event in fake_lambda.invoked}) == 1


# ---- The breaker ----


def test_an_open_circuit_tells_when_to_expect_the_tool_back_and_invokes_nothing(
    stored: StoredTurns, fake_lambda: FakeLambda
) -> None:
    turn = ToolTurn(stored.table, with_policy(**BREAKER))
    fake_lambda.answers = [raised("KeyError")] * 3
    for _ in range(3):
        turn.failure()
    stored.clock.ms += 1_500

    assert turn.failure() == {
        "errorCode": "CIRCUIT_OPEN",
        "errorMessage": "get_account_balance keeps failing and is not called for now; expect it back in 59 s",
        "attempts": 0,
        "tryAgainNow": False,
        "retryAfterSeconds": 59,
    }
    assert turn.failure(2)["attempts"] == 1
    assert len(fake_lambda.invoked) == 3
    assert [letter["errorCode"] for letter in turn.queue.letters] == [*["TOOL_ERROR"] * 3, *["CIRCUIT_OPEN"] * 2]


def test_a_circuit_that_opens_between_two_attempts_stops_the_second(
    stored: StoredTurns, fake_lambda: FakeLambda
) -> None:
    breaker = {"circuitBreaker": {"failureThreshold": 1}}
    codes = ["THROTTLING", "CIRCUIT_OPEN"]
    turn = ToolTurn(stored.table, with_policy(retryPolicy={"retryableErrorCodes": codes}, **breaker))
    fake_lambda.answers = [THROTTLED]

    assert turn.failure(1)["retryInMs"] == 200
    second = turn.failure(2)

    assert (second["errorCode"], second["attempts"], second["retryInMs"]) == ("CIRCUIT_OPEN", 1, 400)
    assert turn.failure(3).keys() == {"errorCode", "errorMessage", "attempts", "tryAgainNow", "retryAfterSeconds"}
    assert len(fake_lambda.invoked) == 1


@pytest.mark.parametrize(
    "answer",
    [
        answered("no", state="FAILURE"),
        answered("which?", state="REPROMPT"),
        answered("x", sessionAttributes=long_attributes("k")),
        client_error("ResourceNotFoundException", 404),
        client_error("AccessDeniedException", 403),
        client_error("RequestTooLargeException", 413),
    ],
    ids=["FAILURE", "REPROMPT", "no room", "NOT_FOUND", "ACCESS_DENIED", "too large"],
)
def test_what_is_not_the_services_fault_never_opens_the_circuit(
    answer: Any, stored: StoredTurns, fake_lambda: FakeLambda
) -> None:
    turn = ToolTurn(stored.table, with_policy(**BREAKER), session={"full": "x" * (SESSION_BYTES - 100)})
    fake_lambda.answers = [*repeat(answer, 5), answered("5 USD")]
    stored.dynamodb.forget()

    codes = {turn.failure()["errorCode"] for _ in range(5)}

    assert "CIRCUIT_OPEN" not in codes
    assert turn.attempt() == success("5 USD")
    assert "update_item" not in stored.dynamodb.operations


def test_arguments_and_names_that_are_wrong_do_not_touch_the_breaker(
    stored: StoredTurns, fake_lambda: FakeLambda
) -> None:
    wrong = [{"name": "search", "input": {"limit": "x"}}, {"name": "fly", "input": {}}]
    turn = ToolTurn(stored.table, with_policy(**BREAKER), *wrong)
    stored.dynamodb.forget()

    assert [turn.failure(index=index)["errorCode"] for index in (0, 1)] == ["INVALID_ARGUMENTS", "UNKNOWN_TOOL"]
    assert "get_item" not in stored.dynamodb.operations


def test_a_probe_that_the_session_has_no_room_for_closes_the_circuit(
    stored: StoredTurns, fake_lambda: FakeLambda
) -> None:
    probing = recovered(stored, fake_lambda)
    turn = ToolTurn(stored.table, probing.agent, turn_id="e" * 32, session={"full": "x" * (SESSION_BYTES - 100)})
    fake_lambda.answers = [answered("x", sessionAttributes=long_attributes("k")), answered("5 USD")]

    assert turn.failure()["errorCode"] == "INVALID_RESPONSE"
    assert probing.attempt() == success("5 USD")


def test_a_healthy_call_with_a_breaker_costs_one_read_more_and_no_write(
    stored: StoredTurns, fake_lambda: FakeLambda
) -> None:
    fake_lambda.answers = [answered("x")] * 2
    operations = []
    for number, policy in enumerate(({}, BREAKER)):
        turn = ToolTurn(stored.table, with_policy(**policy), turn_id=f"{number:032x}")
        stored.dynamodb.forget()
        turn.attempt()
        operations.append(stored.dynamodb.operations)

    assert operations == [
        ["batch_get_item", "query", "put_item", "put_item"],
        ["batch_get_item", "query", "get_item", "put_item", "put_item"],
    ]


THREADS = 8


@pytest.mark.usefixtures("threads_check")
def test_fifty_turns_at_once_on_a_failing_tool_open_the_circuit_and_one_probes(
    stored: StoredTurns, fake_lambda: FakeLambda
) -> None:
    agent = with_policy(**BREAKER)
    turns = [ToolTurn(stored.table, agent, turn_id=f"{number:032x}") for number in range(50)]
    fake_lambda.answer = lambda event: raised("KeyError")

    with ThreadPoolExecutor(THREADS) as threads:
        codes = [report["errorCode"] for report in threads.map(ToolTurn.failure, turns)]

    invoked = len(fake_lambda.invoked)
    assert 3 <= invoked <= 3 + THREADS - 1, "the threshold, and those that were in flight"
    assert sorted(codes) == ["CIRCUIT_OPEN"] * (50 - invoked) + ["TOOL_ERROR"] * invoked

    stored.clock.ms += 60_000
    refused = threading.Semaphore(0)

    def answer(_event: dict[str, Any]) -> Any:
        for _ in range(THREADS - 1):
            assert refused.acquire(timeout=patient(30))
        return answered("5 USD")

    def attempt(turn: ToolTurn) -> str:
        try:
            turn.attempt()
        except ToolAttemptFailed as failure:
            refused.release()
            return str(json.loads(str(failure))["errorCode"])
        return "success"

    fake_lambda.answer = answer
    with ThreadPoolExecutor(THREADS) as threads:
        outcomes = list(threads.map(attempt, turns[:THREADS]))

    assert sorted(outcomes) == ["CIRCUIT_OPEN"] * (THREADS - 1) + ["success"]
    assert len(fake_lambda.invoked) == invoked + 1


# ---- Dead letters ----


def test_a_call_is_dead_lettered_when_it_is_given_up_and_not_before(table: Table, fake_lambda: FakeLambda) -> None:
    turn = ToolTurn(table)
    fake_lambda.answers = [THROTTLED] * 3
    letters = []
    for number in (1, 2, 3):
        turn.failure(number)
        letters.append(len(turn.queue.letters))

    assert letters == [0, 0, 1]


def test_what_goes_wrong_in_telling_costs_no_dead_letter(
    table: Table, fake_lambda: FakeLambda, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = ToolTurn(table)
    fake_lambda.answers = [raised("KeyError", "'a'")]
    monkeypatch.setattr(Payloads, "event", lambda *_: die())
    with pytest.raises(Interrupted):
        turn.attempt()

    assert [letter["errorCode"] for letter in turn.queue.letters] == ["TOOL_ERROR"]


def test_a_dead_letter_is_enough_to_repeat_the_call(table: Table, fake_lambda: FakeLambda) -> None:
    turn = ToolTurn(table, input_text="long " * 20_000, session={"tier": "gold"})
    fake_lambda.answers = [raised("KeyError", "'a'"), answered("5 USD")]
    report = turn.failure()
    (letter,) = turn.queue.letters

    event = turn.documents.fetch(letter["event"])
    fake_lambda.invoke(FunctionName=letter["functionArn"], Payload=json_text(event).encode())

    first, again = fake_lambda.invoked
    assert again == first
    assert letter["idempotencyKey"] == event["idempotencyKey"]
    assert (letter["errorCode"], letter["errorMessage"]) == (report["errorCode"], report["errorMessage"])


@pytest.mark.parametrize(
    ("text", "shown"),
    [("", ""), ("abc", "abc"), ("abcd", "abc\n[cut: 3 of 4 characters are shown]")],
)
def test_a_bounded_text_says_how_much_was_cut(text: str, shown: str) -> None:
    assert bounded(text, 3) == shown


def test_a_call_is_read_as_invoke_model_wrote_it() -> None:
    item = {"toolUseId": "t-1", "toolName": "x", "index": 3, "inlineBytes": 9, "handler": "lambda", "timeoutSeconds": 5}

    assert Call.decode(item) == Call("t-1", 3, 9)


def test_each_attempt_is_told_with_the_state_of_its_circuit_and_when_the_next_one_follows(
    table: Table, fake_lambda: FakeLambda, trace_events: list[dict[str, Any]]
) -> None:
    agent = with_policy(
        retryPolicy={"maxAttempts": 3, "initialDelayMs": 300},
        circuitBreaker={"failureThreshold": 2, "recoveryTimeSeconds": 9},
    )
    turn = ToolTurn(table, agent, trace=False)
    fake_lambda.answers = [raised("ThrottlingException"), raised("ThrottlingException")]
    for number in (1, 2, 3):
        turn.failure(number)

    keys_told = ("step", "attempt", "status", "errorCode", "circuitState", "retryScheduledInMs")
    assert [tuple(event.get(name) for name in keys_told) for event in trace_events] == [
        (1, 1, "FAILED", "THROTTLING", "CLOSED", 300),
        (1, 2, "FAILED", "THROTTLING", "CLOSED", 600),
        (1, 3, "FAILED", "CIRCUIT_OPEN", "OPEN", None),
    ]
    assert turn.traced() == []


def test_a_recorded_result_whose_gateway_was_lost_is_told_by_the_look_up(
    table: Table, fake_lambda: FakeLambda, trace_events: list[dict[str, Any]]
) -> None:
    turn = ToolTurn(table)
    fake_lambda.answers = [answered("48392.50 USD")]
    turn.attempt()
    trace_events.clear()

    turn.attempt()
    assert trace_events == [], "a repeat of what was told"
    turn.attempt(lost=True)
    (event,) = trace_events
    assert (event["attempt"], event["status"], event["result"]) == (1, "SUCCESS", "48392.50 USD")
    assert "durationMs" not in event
    assert turn.traced() == ["48392.50 USD"]
