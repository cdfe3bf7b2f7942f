import json
from typing import Any

import pytest
from aws_lambda_powertools.event_handler import BedrockAgentFunctionResolver
from aws_lambda_powertools.event_handler.bedrock_agent_function import BedrockFunctionResponse
from aws_lambda_powertools.utilities.data_classes import BedrockAgentFunctionEvent
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.samples import agent, turn
from turnwright import action_groups
from turnwright.action_groups import ToolAnswer, read_response
from turnwright.agents import Tool
from turnwright.attributes import ATTRIBUTES_BYTES
from turnwright.tool_failures import ToolFailure


def tool(name: str = "get_account_balance") -> Tool:
    found = agent().tool(name)
    assert found is not None
    return found


def event(name: str = "get_account_balance", **arguments: Any) -> dict[str, Any]:
    return action_groups.event(
        turn(),
        agent(),
        tool(name),
        {"toolUseId": "t-1", "name": name, "input": arguments},
        input_text="My balance?",
        idempotency_key="turn/1/t-1",
        session_attributes={"tier": "gold"},
        prompt_session_attributes={"today": "Sunday"},
    )


def response(**fields: Any) -> dict[str, Any]:
    return {
        "messageVersion": "1.0",
        "response": {
            "actionGroup": "BankingTools",
            "function": "get_account_balance",
            "functionResponse": {"responseBody": {"TEXT": {"body": "48392.50 USD"}}, **fields},
        },
    }


def failure(document: Any) -> tuple[str, str]:
    payload = document if isinstance(document, bytes) else json.dumps(document).encode()
    with pytest.raises(ToolFailure) as raised:
        read_response(payload, tool())
    return raised.value.code, raised.value.message


def test_the_event_has_bedrock_s_form() -> None:
    assert event(account_id="12345") == {
        "messageVersion": "1.0",
        "agent": {"name": "banking-assistant", "id": "BANKASSIST", "alias": "live", "version": "3"},
        "inputText": "My balance?",
        "sessionId": "session-1",
        "actionGroup": "BankingTools",
        "function": "get_account_balance",
        "parameters": [{"name": "account_id", "type": "string", "value": "12345"}],
        "sessionAttributes": {"tier": "gold"},
        "promptSessionAttributes": {"today": "Sunday"},
        "idempotencyKey": "turn/1/t-1",
    }


@pytest.mark.parametrize(
    ("name", "value", "sent"),
    [
        ("limit", 5, ("integer", "5")),
        ("limit", 5.0, ("integer", "5")),
        ("limit", 1e300, ("integer", str(int(1e300)))),
        ("limit", 5.5, ("integer", "5.5")),
        ("least", 250.75, ("number", "250.75")),
        ("least", 5.0, ("number", "5.0")),
        ("open", True, ("boolean", "true")),
        ("open", False, ("boolean", "false")),
        ("kinds", ["é", 1], ("array", '["é", 1]')),
        ("limit", None, ("integer", "null")),
        ("unheard_of", {"a": 1}, ("string", '{"a": 1}')),
    ],
    ids=repr,
)
def test_each_parameter_is_sent_as_a_string_with_its_type(name: str, value: Any, sent: tuple[str, str]) -> None:
    parameter_type, text = sent

    assert event("search", **{name: value})["parameters"] == [{"name": name, "type": parameter_type, "value": text}]


def test_powertools_reads_every_field_of_the_event() -> None:
    read = BedrockAgentFunctionEvent(json.loads(json.dumps(event(account_id="12345"))))

    assert (read.message_version, read.input_text, read.session_id) == ("1.0", "My balance?", "session-1")
    assert (read.agent.name, read.agent.id, read.agent.alias, read.agent.version) == (
        "banking-assistant",
        "BANKASSIST",
        "live",
        "3",
    )
    assert (read.action_group, read.function) == ("BankingTools", "get_account_balance")
    assert [(one.name, one.type, one.value) for one in read.parameters] == [("account_id", "string", "12345")]
    assert (read.session_attributes, read.prompt_session_attributes) == ({"tier": "gold"}, {"today": "Sunday"})


def test_a_powertools_resolver_gets_its_arguments_in_their_types_and_its_answer_is_read() -> None:
    app = BedrockAgentFunctionResolver()

    @app.tool(name="search", description="Searches.")
    def search(limit: int, least: float, open: bool, kinds: str) -> dict[str, Any]:  # noqa: A002
        return {"got": [limit, least, open, json.loads(kinds)]}

    given_event = json.loads(json.dumps(event("search", limit=5.0, least=1.5, open=False, kinds=["a"])))
    answered = json.dumps(app.resolve(given_event, {})).encode()

    read = read_response(answered, tool("search"))

    assert json.loads(read.text) == {"got": [5, 1.5, False, ["a"]]}
    assert (read.session_attributes, read.prompt_session_attributes) == (
        {"tier": "gold"},
        {"today": "Sunday"},
    ), "the resolver answers the attributes it was given when the function names none"


def test_a_powertools_resolver_s_attributes_and_states_are_read() -> None:
    app = BedrockAgentFunctionResolver()

    @app.tool(name="get_account_balance", description="Returns a balance.")
    def balance(account_id: str) -> BedrockFunctionResponse:
        return BedrockFunctionResponse(
            body={"balance": 1.5}, session_attributes={"seen": account_id}, prompt_session_attributes={"now": "noon"}
        )

    @app.tool(name="search", description="Fails.")
    def search() -> BedrockFunctionResponse:
        return BedrockFunctionResponse(body={"ask": "which account?"}, response_state="REPROMPT")

    answered = app.resolve(event(account_id="12345"), {})
    assert read_response(json.dumps(answered).encode(), tool()) == ToolAnswer(
        '{"balance": 1.5}', {"seen": "12345"}, {"now": "noon"}
    )

    assert failure(app.resolve(event("search"), {})) == ("REPROMPT", '{"ask": "which account?"}')


def test_attributes_that_are_left_out_are_unchanged_and_not_empty() -> None:
    assert read_response(json.dumps(response()).encode(), tool()) == ToolAnswer("48392.50 USD", None, None)
    nulls = {**response(), "sessionAttributes": None, "promptSessionAttributes": None}
    assert read_response(json.dumps(nulls).encode(), tool()) == ToolAnswer("48392.50 USD", None, None)


@pytest.mark.parametrize(
    ("state", "code"), [("FAILURE", "TOOL_ERROR"), ("REPROMPT", "REPROMPT")], ids=["FAILURE", "REPROMPT"]
)
def test_a_response_state_is_a_failure_with_the_tool_s_own_words(state: str, code: str) -> None:
    assert failure(response(responseState=state)) == (code, "48392.50 USD")


INVALID = "INVALID_RESPONSE"
SAYS = "the response of get_account_balance"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (None, "has no object response"),
        ([], "has no object response"),
        ("Hi", "has no object response"),
        ({}, "has no object response"),
        ({"response": {}}, "has no object response.functionResponse"),
        ({"response": {"apiPath": "/a", "responseBody": {}}}, "has no object response.functionResponse"),
        ({"response": {"functionResponse": {}}}, "has no object response.functionResponse.responseBody"),
        (response(responseBody=None), "has no object response.functionResponse.responseBody"),
        (response(responseBody={}), "has no text response.functionResponse.responseBody.TEXT.body"),
        (
            response(responseBody={"TEXT": {"body": {"a": 1}}}),
            "has no text response.functionResponse.responseBody.TEXT.body",
        ),
        (
            response(responseBody={"TEXT": "Hi"}),
            "has no text response.functionResponse.responseBody.TEXT.body",
        ),
        (response(responseState="OK"), "has the responseState 'OK'; FAILURE and REPROMPT are known"),
        (response(responseState=[]), "has the responseState []; FAILURE and REPROMPT are known"),
        (
            {**response(), "sessionAttributes": {"n": 1}},
            "has sessionAttributes that are not an object of strings",
        ),
        (
            {**response(), "promptSessionAttributes": ["a"]},
            "has promptSessionAttributes that are not an object of strings",
        ),
        (
            {**response(), "sessionAttributes": {"k": "x" * ATTRIBUTES_BYTES}},
            "has sessionAttributes of 32776 bytes of JSON; at most 32768 are taken",
        ),
        (
            {**response(), "promptSessionAttributes": {"k": "x" * ATTRIBUTES_BYTES}},
            "has promptSessionAttributes of 32776 bytes of JSON; at most 32768 are taken",
        ),
    ],
    ids=range(17),
)
def test_a_response_of_another_form_is_invalid_and_the_place_is_named(document: Any, message: str) -> None:
    assert failure(document) == (INVALID, f"{SAYS} {message}")


@pytest.mark.parametrize("payload", [b"", b"{", b"\xff", b"[" * 100_000], ids=["empty", "cut", "binary", "deep"])
def test_a_response_that_is_no_json_is_invalid(payload: bytes) -> None:
    code, message = failure(payload)

    assert code == INVALID
    assert message.startswith(f"{SAYS} is not JSON: ")


def test_the_older_spelling_of_the_body_is_read() -> None:
    document = response(responseBody={"text": {"body": ""}})

    assert read_response(json.dumps(document).encode(), tool()) == ToolAnswer("")


def test_a_character_that_the_tool_cut_in_two_can_be_stored() -> None:
    document = {
        **response(responseBody={"TEXT": {"body": "cut \ud83d"}}),
        "sessionAttributes": {"k": "\ud83d"},
    }

    assert read_response(json.dumps(document).encode(), tool()) == ToolAnswer("cut \ufffd", {"k": "\ufffd"})


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["response", "functionResponse", "responseBody", "TEXT", "body", "responseState", "sessionAttributes"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


@given(json_values)
def test_any_response_is_either_read_or_a_failure(document: Any) -> None:
    try:
        code = read_response(json.dumps(document).encode(), tool()).text and "read"
    except ToolFailure as failed:
        code = failed.code

    assert code in {"", "read", INVALID, "TOOL_ERROR", "REPROMPT"}
