import json
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import boto3
import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ReadTimeoutError,
)
from botocore.response import StreamingBody
from botocore.stub import Stubber

from tests.unit import samples
from turnwright import clients, gateway, keys
from turnwright.agents import Agent, Tool
from turnwright.attributes import ATTRIBUTES_BYTES, SESSION_BYTES
from turnwright.converse import UNREADABLE_INPUT
from turnwright.documents import Documents
from turnwright.errors import ToolAttemptFailed, ToolFailedTurn
from turnwright.gateway import MODEL_CHARACTERS, Call, Gateway, bounded, merged_attributes
from turnwright.journal import Journal, Step
from turnwright.table import Table
from turnwright.tool_failures import ToolFailure
from turnwright.traces import Traces
from turnwright.turns import Header

BALANCE = {"name": "get_account_balance", "input": {"account_id": "12345"}}
URL = "https://lambda.us-east-1.amazonaws.com"


class FakeLambda:
    """Answers each Invoke with the next of `answers`: a response document, an error document or an exception."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.invoked: list[tuple[str, dict[str, Any]]] = []
        self.seconds: list[int] = []

    def client(self, timeout_seconds: int) -> "FakeLambda":
        self.seconds.append(timeout_seconds)
        return self

    def invoke(self, *, FunctionName: str, Payload: bytes) -> dict[str, Any]:  # noqa: N803
        self.invoked.append((FunctionName, json.loads(Payload)))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, Raised):
            return {"StatusCode": 200, "FunctionError": "Unhandled", "Payload": BytesIO(answer.payload)}
        payload = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        return {"StatusCode": 200, "Payload": BytesIO(payload)}


class Raised:
    """The error document of a function that raised."""

    def __init__(self, payload: bytes | Mapping[str, Any]) -> None:
        self.payload = payload if isinstance(payload, bytes) else json.dumps(payload).encode()


def answered(text: str, *, state: str | None = None, **attributes: Any) -> dict[str, Any]:
    response: dict[str, Any] = {"responseBody": {"TEXT": {"body": text}}}
    if state:
        response["responseState"] = state
    return {"response": {"functionResponse": response}, **attributes}


def client_error(code: str, status: int) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": "because"}, "ResponseMetadata": {"HTTPStatusCode": status}}, "Invoke"
    )


class Turn:
    """A turn whose model has asked for tools, in a table and a bucket."""

    def __init__(self, table: Table, agent: Agent, tool_uses: list[dict[str, Any]], **attributes: Any) -> None:
        self.table = table
        self.documents = Documents(samples.FakeBucket(), "bucket")
        self.turn = samples.turn()
        self.agent = agent
        self.journal = Journal(table, self.documents, self.turn.turnId)
        request = {"inputText": "My balance?", "promptSessionAttributes": attributes.get("prompt", {})}
        fields = {
            "status": "RUNNING",
            "request": json.dumps({"inline": request}),
            "sessionAttributes": json.dumps(attributes.get("session", {})),
        }
        self.header = Header.decode(fields)
        self.ask(1, tool_uses, attributes.get("results", []))

    def ask(self, step: int, tool_uses: list[dict[str, Any]], results: list[dict[str, Any]]) -> None:
        content = [{"toolUse": {"toolUseId": f"t-{index}", **use}} for index, use in enumerate(tool_uses)]
        message = {"role": "assistant", "content": content}
        self.journal.record(Step(step, results, message, "tool_use", samples.MODEL, {}, 5))

    def attempt(self, attempt: int = 1, *, step: int = 1, index: int = 0, inline_bytes: int = 16_384) -> dict[str, Any]:
        traces = Traces(self.table, self.documents, self.turn)
        gate = Gateway(self.turn, self.header, self.agent, self.journal, self.documents, traces)
        return gate.attempt(
            step, Call.decode({"toolUseId": f"t-{index}", "index": index, "inlineBytes": inline_bytes}), attempt
        )

    def failure(self, attempt: int = 1, **where: Any) -> dict[str, Any]:
        with pytest.raises(ToolAttemptFailed) as failed:
            self.attempt(attempt, **where)
        report: dict[str, Any] = json.loads(str(failed.value))
        return report

    def traced(self) -> list[str]:
        """The texts of the traced tool outputs, by attempt."""
        partition = keys.turn_partition(self.turn.turnId)
        items = self.table.query(partition, keys.TRACE_PREFIX, keys.TRACE_PREFIX + "~")
        parts = [self.documents.fetch_text(item["event"]) for item in items]
        return [
            part["trace"]["orchestrationTrace"]["observation"]["actionGroupInvocationOutput"]["text"] for part in parts
        ]


@pytest.fixture
def fake_lambda(monkeypatch: pytest.MonkeyPatch) -> FakeLambda:
    fake = FakeLambda()
    monkeypatch.setattr(clients, "aws_lambda", fake.client)
    return fake


def with_policy(**configuration: Any) -> Agent:
    return samples.agent(actionGroupExecutionConfig=configuration)


def tool(agent: Agent | None = None, name: str = "get_account_balance") -> Tool:
    found = (agent or samples.agent()).tool(name)
    assert found is not None
    return found


def test_a_tool_is_given_bedrock_s_event_and_its_answer_becomes_a_result(table: Table, fake_lambda: FakeLambda) -> None:
    turn = Turn(table, samples.agent(), [BALANCE], session={"tier": "gold"}, prompt={"today": "Sunday"})
    fake_lambda.answers = [answered("48392.50 USD")]

    result = turn.attempt()

    assert result == {"toolUseId": "t-0", "status": "success", "result": {"inline": {"text": "48392.50 USD"}}}
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
    assert fake_lambda.seconds == [30]
    assert turn.traced() == ["48392.50 USD"]


def test_the_idempotency_key_is_one_for_all_attempts_and_another_for_each_call(
    table: Table, fake_lambda: FakeLambda
) -> None:
    turn = Turn(table, samples.agent(), [BALANCE, BALANCE])
    turn.ask(2, [BALANCE], [])
    fake_lambda.answers = [answered("x")] * 4

    for where in ({"attempt": 1}, {"attempt": 2}, {"index": 1}, {"step": 2}):
        turn.attempt(**where)

    first, again, other, later = [event["idempotencyKey"] for _, event in fake_lambda.invoked]
    assert first == again
    assert len({first, other, later}) == 3


ERRORS = [
    (client_error("TooManyRequestsException", 429), "THROTTLING", "could not be invoked: "),
    (client_error("ServiceException", 500), "SERVICE_UNAVAILABLE", "could not be invoked: "),
    (client_error("EC2ThrottledException", 502), "SERVICE_UNAVAILABLE", "could not be invoked: "),
    (client_error("ResourceNotFoundException", 404), "NOT_FOUND", "could not be invoked: "),
    (client_error("AccessDeniedException", 403), "ACCESS_DENIED", "could not be invoked: "),
    (client_error("RequestTooLargeException", 413), "INVALID_ARGUMENTS", "could not be invoked: "),
    (client_error("InvalidRequestContentException", 400), "TOOL_ERROR", "could not be invoked: "),
    (ReadTimeoutError(endpoint_url=URL), "TIMEOUT", "gave no answer within "),
    (ConnectTimeoutError(endpoint_url=URL), "SERVICE_UNAVAILABLE", "could not be reached: "),
    (EndpointConnectionError(endpoint_url=URL), "SERVICE_UNAVAILABLE", "could not be reached: "),
    (ConnectionClosedError(endpoint_url=URL), "SERVICE_UNAVAILABLE", "could not be reached: "),
]


@pytest.mark.parametrize(
    ("error", "code", "message"), ERRORS, ids=[f"{e.__class__.__name__}-{c}" for e, c, _ in ERRORS]
)
def test_a_function_that_cannot_be_invoked_has_its_code(
    error: Exception, code: str, message: str, fake_lambda: FakeLambda
) -> None:
    fake_lambda.answers = [error]

    with pytest.raises(ToolFailure) as failed:
        gateway.invoke(tool(), {})

    assert failed.value.code == code
    assert failed.value.message.startswith(f"get_account_balance {message}")
    assert len(fake_lambda.invoked) == 1


def test_botocore_s_own_errors_and_bodies_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    client = boto3.client("lambda", "us-east-1", aws_access_key_id="test", aws_secret_access_key="test")
    monkeypatch.setattr(clients, "aws_lambda", lambda seconds: client)
    payload = json.dumps(answered("ok")).encode()
    with Stubber(client) as stub:
        expected = {"FunctionName": samples.BANK_FUNCTION, "Payload": b'{"a":"\xc3\xa9"}'}
        stub.add_response("invoke", {"Payload": StreamingBody(BytesIO(payload), len(payload))}, expected)
        stub.add_client_error("invoke", "TooManyRequestsException", "Rate exceeded", 429)
        stub.add_response("invoke", {"Payload": StreamingBody(BytesIO(payload), len(payload) + 1)})

        assert gateway.invoke(tool(), {"a": "é"}).text == "ok"
        with pytest.raises(ToolFailure) as throttled:
            gateway.invoke(tool(), {})
        with pytest.raises(ToolFailure) as cut:
            gateway.invoke(tool(), {})

    assert throttled.value.code == "THROTTLING"
    assert "Rate exceeded" in throttled.value.message
    assert cut.value.code == "SERVICE_UNAVAILABLE"


RAISED: list[tuple[bytes | dict[str, Any], str, str]] = [
    ({"errorType": "ThrottlingException", "errorMessage": "slow"}, "THROTTLING", "ThrottlingException: slow"),
    ({"errorType": "SERVICE_UNAVAILABLE", "errorMessage": "x"}, "SERVICE_UNAVAILABLE", "SERVICE_UNAVAILABLE: x"),
    ({"errorType": "KeyError", "errorMessage": "'a'"}, "TOOL_ERROR", "KeyError: 'a'"),
    ({"errorType": "Runtime.ExitError", "errorMessage": "died"}, "TOOL_ERROR", "Runtime.ExitError: died"),
    (
        {"errorType": "Sandbox.Timedout", "errorMessage": "Task timed out after 3.00 seconds"},
        "TIMEOUT",
        "Sandbox.Timedout: Task timed out after 3.00 seconds",
    ),
    (
        {"errorMessage": "2025 Task timed out after 3.00 seconds"},
        "TIMEOUT",
        "an error: 2025 Task timed out after 3.00 seconds",
    ),
    (
        {"errorType": "MyError", "errorMessage": "Task timed out after lunch"},
        "TOOL_ERROR",
        "MyError: Task timed out after lunch",
    ),
    ({"errorType": None, "errorMessage": None}, "TOOL_ERROR", "an error: "),
    ({"errorType": "E", "errorMessage": "cut \ud83d"}, "TOOL_ERROR", "E: cut \ufffd"),
    (b"Process exited", "TOOL_ERROR", "an error: Process exited"),
    (b"\xff", "TOOL_ERROR", "an error: \ufffd"),
    (b"[1]", "TOOL_ERROR", "an error: [1]"),
    (b"", "TOOL_ERROR", "an error: "),
]


@pytest.mark.parametrize(("document", "code", "message"), RAISED)
def test_a_function_that_raised_has_the_code_that_its_error_names(
    document: bytes | dict[str, Any], code: str, message: str, fake_lambda: FakeLambda
) -> None:
    fake_lambda.answers = [Raised(document)]

    with pytest.raises(ToolFailure) as failed:
        gateway.invoke(tool(), {})

    assert (failed.value.code, failed.value.message) == (code, f"get_account_balance failed with {message}")


@pytest.mark.parametrize(
    ("answer", "code", "message"),
    [
        (answered("no such account", state="FAILURE"), "TOOL_ERROR", "no such account"),
        (answered("which account?", state="REPROMPT"), "REPROMPT", "which account?"),
        (b"<html>", "INVALID_RESPONSE", "the response of get_account_balance is not JSON: "),
        ({"balance": 5}, "INVALID_RESPONSE", "the response of get_account_balance has no object response"),
        (b"null", "INVALID_RESPONSE", "the response of get_account_balance has no object response"),
    ],
    ids=["FAILURE", "REPROMPT", "html", "bare", "null"],
)
def test_an_answer_that_is_no_result_is_a_failure_that_the_model_is_told(
    answer: Any, code: str, message: str, table: Table, fake_lambda: FakeLambda
) -> None:
    turn = Turn(table, samples.agent(), [BALANCE])
    fake_lambda.answers = [answer]

    report = turn.failure()

    assert report.keys() == {"errorCode", "errorMessage"}, "these are not retried"
    assert report["errorCode"] == code
    assert report["errorMessage"].startswith(message)
    assert [json.loads(text) for text in turn.traced()] == [report]


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
    turn = Turn(table, agent, [BALANCE])
    fake_lambda.answers = [client_error("TooManyRequestsException", 429)] * 4 + [client_error("ServiceException", 500)]

    assert [turn.failure(attempt).get("retryInMs") for attempt in (1, 2, 3, 4)] == [300, 600, 1_000, None]
    assert turn.failure(1).keys() == {"errorCode", "errorMessage"}
    assert fake_lambda.seconds == [7] * 5
    assert len(turn.traced()) == 4, "each attempt is one trace event, and a repeated one writes it again"


def test_a_time_out_fails_the_turn_where_the_policy_says_so_and_no_attempt_is_left(
    table: Table, fake_lambda: FakeLambda
) -> None:
    agent = with_policy(
        retryPolicy={"maxAttempts": 2, "initialDelayMs": 0, "retryableErrorCodes": ["TIMEOUT"]},
        timeoutConfig={"onTimeoutBehavior": "FAIL_TURN"},
    )
    turn = Turn(table, agent, [BALANCE])
    document = {"errorType": "Sandbox.Timedout", "errorMessage": "Task timed out after 3.00 seconds"}
    fake_lambda.answers = [Raised(document), Raised(document)]

    assert turn.failure(1) == {
        "errorCode": "TIMEOUT",
        "errorMessage": "get_account_balance failed with Sandbox.Timedout: Task timed out after 3.00 seconds",
        "retryInMs": 0,
    }
    with pytest.raises(ToolFailedTurn) as failed:
        turn.attempt(2)

    assert str(failed.value) == (
        'get_account_balance: {"errorCode":"TIMEOUT","errorMessage":'
        '"get_account_balance failed with Sandbox.Timedout: Task timed out after 3.00 seconds"}'
    )


@pytest.mark.parametrize("behaviour", ["FAIL_TURN", "RETURN_ERROR_TO_AGENT"])
def test_no_other_failure_fails_the_turn(behaviour: str, table: Table, fake_lambda: FakeLambda) -> None:
    turn = Turn(table, with_policy(timeoutConfig={"onTimeoutBehavior": behaviour}), [BALANCE])
    fake_lambda.answers = [answered("no", state="FAILURE")]

    assert turn.failure() == {"errorCode": "TOOL_ERROR", "errorMessage": "no"}


def test_a_time_out_is_told_to_the_model_by_default(table: Table, fake_lambda: FakeLambda) -> None:
    turn = Turn(table, samples.agent(), [BALANCE])
    fake_lambda.answers = [ReadTimeoutError(endpoint_url=URL)]

    assert turn.failure()["errorCode"] == "TIMEOUT"


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("get_account_balance", {}, "arguments: 'account_id' is a required property"),
        ("get_account_balance", {"account_id": 12345}, "account_id: 12345 is not of type 'string'"),
        (
            "get_account_balance",
            {"account_id": "1", "limit": 2},
            "arguments: Additional properties are not allowed ('limit' was unexpected)",
        ),
        (
            "search",
            {"limit": 1.5, "open": "yes"},
            "limit: 1.5 is not of type 'integer'; open: 'yes' is not of type 'boolean'",
        ),
        ("search", {"limit": True}, "limit: True is not of type 'integer'"),
        ("search", {"kinds": {"a": 1}}, "kinds: {'a': 1} is not of type 'array'"),
    ],
)
def test_arguments_that_break_the_schema_never_reach_the_function(
    name: str, arguments: dict[str, Any], message: str, table: Table, fake_lambda: FakeLambda
) -> None:
    turn = Turn(table, samples.agent(), [{"name": name, "input": arguments}])

    assert turn.failure() == {
        "errorCode": "INVALID_ARGUMENTS",
        "errorMessage": f"the arguments of {name} break its schema: {message}",
    }
    assert fake_lambda.invoked == []


def test_arguments_that_were_cut_never_reach_the_function(table: Table, fake_lambda: FakeLambda) -> None:
    turn = Turn(table, samples.agent(), [{"name": "search", "input": {UNREADABLE_INPUT: '{"limit": '}}])

    assert turn.failure() == {
        "errorCode": "INVALID_ARGUMENTS",
        "errorMessage": "the arguments of search were not a JSON object; send them whole",
    }
    assert fake_lambda.invoked == []


def test_a_tool_that_the_agent_does_not_have_is_not_invoked(table: Table, fake_lambda: FakeLambda) -> None:
    turn = Turn(table, samples.agent(), [{"name": "transfer_money", "input": {}}])

    assert turn.failure() == {
        "errorCode": "UNKNOWN_TOOL",
        "errorMessage": "this agent has no tool named transfer_money",
    }
    assert fake_lambda.invoked == []


def test_long_error_messages_are_bounded(table: Table, fake_lambda: FakeLambda) -> None:
    turn = Turn(table, samples.agent(), [BALANCE])
    fake_lambda.answers = [answered("x" * 5_000, state="FAILURE")]

    assert turn.failure()["errorMessage"] == "x" * 2_000 + "\n[cut: 2000 of 5000 characters are shown]"


def test_a_long_answer_is_cut_for_the_model_and_kept_in_the_bucket(table: Table, fake_lambda: FakeLambda) -> None:
    turn = Turn(table, samples.agent(), [BALANCE])
    fake_lambda.answers = [answered("é" * 70_000)]

    result = turn.attempt(inline_bytes=1_000)

    assert result.keys() == {"toolUseId", "status", "result"}
    assert result["result"].keys() == {"object", "bytes"}
    assert result["result"]["object"].startswith("turns/0123456789abcdef0123456789abcdef/")
    note = "\n[cut: 64000 of 70000 characters are shown]"
    assert turn.documents.fetch(result["result"]) == {"text": "é" * MODEL_CHARACTERS + note}


def test_a_result_travels_inline_up_to_its_share_of_the_state(table: Table, fake_lambda: FakeLambda) -> None:
    turn = Turn(table, samples.agent(), [BALANCE])
    fake_lambda.answers = [answered("é" * 10), answered("é" * 10)]
    size = len('{"text":""}') + 20

    assert turn.attempt(inline_bytes=size)["result"] == {"inline": {"text": "é" * 10}}
    assert turn.attempt(inline_bytes=size - 1)["result"].keys() == {"object", "bytes"}


def test_attributes_go_in_and_come_out(table: Table, fake_lambda: FakeLambda) -> None:
    turn = Turn(table, samples.agent(), [BALANCE])
    fake_lambda.answers = [
        answered("a", sessionAttributes={"tier": "gold"}, promptSessionAttributes={}),
        answered("b", promptSessionAttributes={"now": "noon"}),
    ]

    assert [turn.attempt(attempt)["result"] for attempt in (1, 2)] == [
        {"inline": {"text": "a", "sessionAttributes": {"tier": "gold"}, "promptSessionAttributes": {}}},
        {"inline": {"text": "b", "promptSessionAttributes": {"now": "noon"}}},
    ]


def test_a_tool_sees_what_the_tools_of_earlier_steps_made_of_the_attributes(
    table: Table, fake_lambda: FakeLambda
) -> None:
    results = [
        {"toolUseId": "t-0", "result": {"inline": {"text": "", "sessionAttributes": {"a": "1", "b": "1"}}}},
        {"toolUseId": "t-1", "result": {"inline": {"text": "", "sessionAttributes": {"b": "2"}}}},
        {"toolUseId": "t-2", "result": {"inline": {"text": "", "promptSessionAttributes": {"p": "new"}}}},
    ]
    turn = Turn(table, samples.agent(), [BALANCE], session={"a": "0", "z": "0"}, prompt={"p": "old"})
    turn.ask(2, [BALANCE], results)
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
    session = {"full": "x" * (SESSION_BYTES - 100)}
    turn = Turn(table, samples.agent(), [BALANCE], session=session)
    replaced = {"full": "y" * 100}
    fake_lambda.answers = [
        answered("x", sessionAttributes=long_attributes("new")),
        answered("x", sessionAttributes=replaced),
    ]

    assert turn.failure() == {
        "errorCode": "INVALID_RESPONSE",
        "errorMessage": "the response of get_account_balance makes the sessionAttributes 32757 bytes of JSON longer; "
        "there is room for 89",
    }
    assert turn.attempt()["result"] == {"inline": {"text": "x", "sessionAttributes": replaced}}


def test_tools_that_run_side_by_side_share_the_room(table: Table, fake_lambda: FakeLambda) -> None:
    turn = Turn(table, samples.agent(), [BALANCE] * 3)
    fake_lambda.answers = [answered("x", sessionAttributes=long_attributes("k"))]

    assert turn.failure()["errorMessage"] == (
        "the response of get_account_balance makes the sessionAttributes 32754 bytes of JSON longer; "
        "there is room for 21844"
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [("", ""), ("abc", "abc"), ("abcd", "abc\n[cut: 3 of 4 characters are shown]")],
)
def test_a_bounded_text_says_how_much_was_cut(text: str, shown: str) -> None:
    assert bounded(text, 3) == shown
