import json
from typing import Annotated, Any

import pytest
from aws_lambda_powertools.event_handler import (
    BedrockAgentFunctionResolver,
    BedrockAgentResolver,
    BedrockResponse,
    Response,
)
from aws_lambda_powertools.event_handler.bedrock_agent_function import BedrockFunctionResponse
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.openapi.params import Path, Query
from aws_lambda_powertools.utilities.data_classes import BedrockAgentEvent, BedrockAgentFunctionEvent
from aws_lambda_powertools.utilities.typing import LambdaContext
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Json

from tests.unit.samples import CLAIMS_API, agent, api_group, turn
from turnwright.agents.definitions import Tool
from turnwright.sessions.attributes import ATTRIBUTES_BYTES
from turnwright.tools import action_groups
from turnwright.tools.action_groups import ToolAnswer, failure_in_body, read_response
from turnwright.tools.tool_failures import CODES, ToolFailure


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

    given_event = json.loads(json.dumps(event("search", limit=5, least=1.5, open=False, kinds=["a"])))
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
    ("state", "code"), [("FAILURE", "FAILURE"), ("REPROMPT", "REPROMPT")], ids=["FAILURE", "REPROMPT"]
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

    assert code in {"", "read", INVALID, "FAILURE", "REPROMPT"}


# ---- Exceptions that Powertools answers as a body ----


class ThrottlingException(Exception):
    """What a tool raises whose own back end is throttled."""


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ThrottlingException("slow down"), "THROTTLING", "ThrottlingException: slow down"),
        (TimeoutError(""), "TIMEOUT", "TimeoutError: "),
        (ValueError("no: such\naccount"), "TOOL_ERROR", "ValueError: no: such\naccount"),
    ],
    ids=["throttled", "timed out", "other"],
)
def test_an_exception_that_powertools_answers_as_a_body_is_a_failure(error: Exception, code: str, message: str) -> None:
    app = BedrockAgentFunctionResolver()

    @app.tool(name="get_account_balance", description="Fails.")
    def balance(account_id: str) -> str:
        raise error

    assert failure(app.resolve(event(account_id="1"), {})) == (code, message)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Error: KeyError: 'search'", "TOOL_ERROR"),
        ("\"Error: KeyError: 'search'\"", "TOOL_ERROR"),
        ("Error: THROTTLING: wait", "THROTTLING"),
        ("Error: ServiceUnavailable: down", "SERVICE_UNAVAILABLE"),
        ("Error: BankException: ", "TOOL_ERROR"),
    ],
)
def test_a_body_that_begins_with_an_exception_is_a_failure(text: str, code: str) -> None:
    found = failure_in_body(text)

    assert found is not None
    assert found.code == code
    assert failure(response(responseBody={"TEXT": {"body": text}}))[0] == code


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Error: 404",
        "Error: the account 5: closed",
        "Error: Foo: bar",
        "Error: timeout: the bank is closed",
        "Error: connection: none",
        "Error: ValueError",
        "error: ValueError: x",
        "An Error: ValueError: x",
        "ValueError: x",
        '{"Error": "ValueError: x"}',
        '"Error: Foo: bar"',
        '"Error: ValueError: x',
        '"Error: ValueError: x" was logged',
        "Errors: ValueError: x",
    ],
)
def test_a_tools_own_text_is_not_taken_for_an_exception(text: str) -> None:
    assert failure_in_body(text) is None
    assert read_response(json.dumps(response(responseBody={"TEXT": {"body": text}})).encode(), tool()).text == text


def test_a_response_state_goes_before_what_the_body_looks_like() -> None:
    document = response(responseBody={"TEXT": {"body": "Error: TimeoutError: x"}}, responseState="FAILURE")

    assert failure(document) == ("FAILURE", "Error: TimeoutError: x")


# ---- APIs ----


def api_tool(name: str = "get_claim", **schema: Any) -> Tool:
    found = agent(actionGroups=[api_group(schema) if schema else CLAIMS_API]).tool(name)
    assert found is not None
    return found


def api_event(called: Tool, **arguments: Any) -> dict[str, Any]:
    return action_groups.event(
        turn(),
        agent(),
        called,
        {"toolUseId": "t-1", "name": called.name, "input": arguments},
        input_text="My claim?",
        idempotency_key="turn/1/t-1",
        session_attributes={"tier": "gold"},
        prompt_session_attributes={"today": "Sunday"},
    )


def api_response(status: Any = 200, body: Any = '{"id": 7}', content_type: str = "application/json") -> dict[str, Any]:
    return {
        "messageVersion": "1.0",
        "response": {
            "actionGroup": "Claims",
            "apiPath": "/claims/{id}",
            "httpMethod": "GET",
            "httpStatusCode": status,
            "responseBody": {content_type: {"body": body}},
        },
    }


def api_failure(document: dict[str, Any]) -> tuple[str, str]:
    with pytest.raises(ToolFailure) as raised:
        read_response(json.dumps(document).encode(), api_tool())
    return raised.value.code, raised.value.message


def test_the_event_of_an_api_has_bedrock_s_form() -> None:
    assert api_event(api_tool("add_note"), id=7, text="Hi", tags=["a", "é"]) == {
        "messageVersion": "1.0",
        "agent": {"name": "banking-assistant", "id": "BANKASSIST", "alias": "live", "version": "3"},
        "inputText": "My claim?",
        "sessionId": "session-1",
        "actionGroup": "Claims",
        "apiPath": "/claims/{id}/notes",
        "httpMethod": "POST",
        "parameters": [{"name": "id", "type": "integer", "value": "7"}],
        "requestBody": {
            "content": {
                "application/json": {
                    "properties": [
                        {"name": "text", "type": "string", "value": "Hi"},
                        {"name": "tags", "type": "array", "value": '["a", "é"]'},
                    ]
                }
            }
        },
        "sessionAttributes": {"tier": "gold"},
        "promptSessionAttributes": {"today": "Sunday"},
        "idempotencyKey": "turn/1/t-1",
    }


def test_a_call_without_a_body_has_none_in_its_event() -> None:
    sent = api_event(api_tool(), id=7)

    assert "requestBody" not in sent
    assert "function" not in sent


def with_body(schema: dict[str, Any], *, required: bool, content_type: str = "application/json") -> Tool:
    request_body = {"required": required, "content": {content_type: {"schema": schema}}}
    operation = {"operationId": "send", "requestBody": request_body}
    return api_tool("send", openapi="3.1.0", paths={"/send": {"post": operation}})


ANY_OBJECT = {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": True}


@pytest.mark.parametrize(
    ("called", "arguments", "properties"),
    [
        (
            with_body(ANY_OBJECT, required=True),
            {"body": {"n": 1, "x": True}},
            [("n", "integer", "1"), ("x", "boolean", "true")],
        ),
        (
            with_body(ANY_OBJECT, required=False),
            {"body": {"a": 1, "b": 1.5, "c": "s", "d": [1], "e": {"f": None}, "g": None}},
            [
                ("a", "integer", "1"),
                ("b", "number", "1.5"),
                ("c", "string", "s"),
                ("d", "array", "[1]"),
                ("e", "object", '{"f": null}'),
            ],
        ),
        (with_body(ANY_OBJECT, required=False), {}, None),
        (with_body(ANY_OBJECT, required=True), {"body": "what a model may ask for"}, None),
        (with_body({"properties": {"n": {}}}, required=False), {}, None),
        (with_body({"properties": {"n": {}}}, required=True), {}, []),
        (
            with_body({"properties": {"n": {"type": ["null", "integer"]}}}, required=True),
            {"n": 2},
            [("n", "integer", "2")],
        ),
        (with_body({"properties": {"n": {"type": ["null", "integer"]}}}, required=True), {"n": None}, []),
    ],
    ids=range(8),
)
def test_a_body_is_sent_as_the_list_of_its_properties(
    called: Tool, arguments: dict[str, Any], properties: list[tuple[str, str, str]] | None
) -> None:
    sent = api_event(called, **arguments).get("requestBody")

    expected = (
        None if properties is None else [dict(zip(("name", "type", "value"), one, strict=True)) for one in properties]
    )
    assert sent == (None if expected is None else {"content": {"application/json": {"properties": expected}}})


def test_a_form_is_sent_under_its_content_type() -> None:
    called = with_body({"properties": {"n": {}}}, required=True, content_type="application/x-www-form-urlencoded")

    assert api_event(called, n="x")["requestBody"]["content"].keys() == {"application/x-www-form-urlencoded"}


def test_powertools_reads_every_field_of_the_event_of_an_api() -> None:
    read = BedrockAgentEvent(json.loads(json.dumps(api_event(api_tool("add_note"), id=7, text="Hi"))))

    assert (read.api_path, read.http_method, read.action_group) == ("/claims/{id}/notes", "POST", "Claims")
    assert [(one.name, one.type, one.value) for one in read.parameters] == [("id", "integer", "7")]
    assert read.json_body == {"text": "Hi"}
    assert (read.session_attributes, read.prompt_session_attributes) == ({"tier": "gold"}, {"today": "Sunday"})


class Address(BaseModel):
    street: str
    number: int


class Order(BaseModel):
    item: str
    count: int
    gift: bool = False
    note: str | None = None
    address: Json[Address]


class Claims:
    """A function of the kind that teams have: Powertools' resolver for APIs, with the schema that it prints."""

    def __init__(self) -> None:
        self.app = app = BedrockAgentResolver()

        @app.get("/claims/<claim_id>", description="Reads a claim.", operation_id="get_claim")
        def get_claim(
            claim_id: Annotated[int, Path(description="The claim.")], verbose: Annotated[bool, Query()] = False
        ) -> dict[str, Any]:
            if claim_id == 404:
                raise NotFoundError("no claim 404")
            return {"claim": claim_id, "verbose": verbose}

        @app.delete("/claims/<claim_id>", description="Deletes a claim.", operation_id="delete_claim")  # type: ignore[untyped-decorator]
        def delete_claim(claim_id: Annotated[int, Path()]) -> Response[None]:
            return Response(204)

        @app.post("/orders", description="Orders.", operation_id="create_order")  # type: ignore[untyped-decorator]
        def create_order(order: Order) -> dict[str, Any]:
            return order.model_dump()

        @app.put("/greeting", description="Greets.", operation_id="greet")  # type: ignore[untyped-decorator]
        def greet() -> Any:
            return BedrockResponse(
                status_code=201,
                body={"hello": "you"},
                session_attributes={"greeted": "yes"},
                prompt_session_attributes={"mood": "good"},
            )

        document = json.loads(app.get_openapi_json_schema(title="Claims", version="1"))
        self.agent = agent(actionGroups=[api_group(document)])

    def call(self, name: str, **arguments: Any) -> ToolAnswer:
        called = self.agent.tool(name)
        assert called is not None
        given_event = json.loads(json.dumps(api_event(called, **arguments)))
        return read_response(json.dumps(self.app.resolve(given_event, LambdaContext())).encode(), called)


@pytest.fixture(scope="module")
def claims() -> Claims:
    return Claims()


def test_a_powertools_api_gets_its_path_and_query_parameters_and_leaves_the_attributes_as_they_are(
    claims: Claims,
) -> None:
    assert claims.call("get_claim", claim_id=7, verbose=True) == ToolAnswer('{"claim":7,"verbose":true}', None, None)
    assert claims.call("get_claim", claim_id=7) == ToolAnswer('{"claim":7,"verbose":false}', None, None)


def test_a_powertools_api_gets_its_body_with_nested_values(claims: Claims) -> None:
    address = {"street": "Elm", "number": 5}

    answered = claims.call("create_order", item="pen", count=3, gift=True, note=None, address=json.dumps(address))

    order = {"item": "pen", "count": 3, "gift": True, "note": None, "address": address}
    assert json.loads(answered.text) == order
    assert json.loads(claims.call("create_order", item="pen", count=3, gift=True, address=address).text) == order


def test_a_powertools_api_s_attributes_are_read(claims: Claims) -> None:
    assert claims.call("greet") == ToolAnswer('{"hello":"you"}', {"greeted": "yes"}, {"mood": "good"})


def test_a_powertools_api_may_answer_nothing(claims: Claims) -> None:
    assert claims.call("delete_claim", claim_id=7) == ToolAnswer("")


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("get_claim", {"claim_id": 404}, "no claim 404"),
        ("create_order", {"item": "pen", "count": "three", "address": "{}"}, '"loc":["body","count"]'),
    ],
    ids=["not found", "not valid"],
)
def test_what_a_powertools_api_refuses_is_a_failure_in_its_own_words(
    claims: Claims, name: str, arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(ToolFailure) as raised:
        claims.call(name, **arguments)

    assert raised.value.code == "FAILURE"
    assert words in raised.value.message


@pytest.mark.parametrize("status", [200, 201, 202, 299, 302, 399])
def test_a_status_of_success_is_an_answer(status: int) -> None:
    document = {**api_response(status), "sessionAttributes": {"a": "b"}}

    assert read_response(json.dumps(document).encode(), api_tool()) == ToolAnswer('{"id": 7}', {"a": "b"}, None)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "FAILURE"),
        (404, "FAILURE"),
        (499, "FAILURE"),
        (408, "TIMEOUT"),
        (429, "THROTTLING"),
        (500, "TOOL_ERROR"),
        (502, "SERVICE_UNAVAILABLE"),
        (503, "SERVICE_UNAVAILABLE"),
        (504, "TIMEOUT"),
        (599, "TOOL_ERROR"),
    ],
)
def test_a_status_of_an_error_is_a_failure_with_the_body_as_its_message(status: int, code: str) -> None:
    assert api_failure(api_response(status, "no claim 7", "text/plain")) == (code, "no claim 7")
    assert api_failure(api_response(status, "")) == (code, f"get_claim answered with status {status} and nothing else")


@pytest.mark.parametrize("state", ["FAILURE", "REPROMPT"])
def test_a_response_state_of_an_api_goes_before_its_status(state: str) -> None:
    document = api_response(500, "which claim?")
    document["response"]["responseState"] = state

    assert api_failure(document) == (state, "which claim?")


def test_an_exception_as_the_body_of_a_success_is_a_failure_of_an_api_too() -> None:
    assert api_failure(api_response(200, "Error: TimeoutError: bank")) == ("TIMEOUT", "TimeoutError: bank")
    document = json.dumps(api_response(202, "Error: TimeoutError: bank")).encode()
    assert read_response(document, api_tool()).text == "Error: TimeoutError: bank"


def test_a_status_that_is_left_out_is_a_success() -> None:
    document = api_response()
    del document["response"]["httpStatusCode"]

    assert read_response(json.dumps(document).encode(), api_tool()).text == '{"id": 7}'


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "text/csv", "TEXT", "application/problem+json", "Text/Plain"]
)
def test_text_of_any_kind_is_read(content_type: str) -> None:
    assert read_response(json.dumps(api_response(200, "é", content_type)).encode(), api_tool()).text == "é"


def test_json_goes_before_other_text() -> None:
    document = api_response(200, "text", "text/plain")
    document["response"]["responseBody"]["application/json"] = {"body": "json"}

    assert read_response(json.dumps(document).encode(), api_tool()).text == "json"


STATUS = "has no status of an answer, 200 to 599, as response.httpStatusCode, but"


@pytest.mark.parametrize(
    ("response_fields", "message"),
    [
        (None, "has no object response"),
        (
            {"functionResponse": {}},
            "has no object response.responseBody; it has the form for functions, functionResponse",
        ),
        ({"httpStatusCode": 200}, "has no object response.responseBody"),
        ({"responseBody": {}}, "has no text response.responseBody.application/json.body"),
        ({"responseBody": {"text/plain": "Hi"}}, "has no text response.responseBody.text/plain.body"),
        ({"responseBody": {"text/plain": {"body": {"a": 1}}}}, "has no text response.responseBody.text/plain.body"),
        (
            {"responseBody": {"image/png": {"body": "iVBOR"}}},
            "has the content type image/png in response.responseBody; text/* and JSON are taken",
        ),
        ({"httpStatusCode": "200"}, f"{STATUS} '200'"),
        ({"httpStatusCode": True}, f"{STATUS} True"),
        ({"httpStatusCode": 100}, f"{STATUS} 100"),
        ({"httpStatusCode": 600}, f"{STATUS} 600"),
        ({"httpStatusCode": None}, f"{STATUS} None"),
        (
            {"responseBody": {"TEXT": {"body": ""}}, "responseState": "OK"},
            "has the responseState 'OK'; FAILURE and REPROMPT are known",
        ),
    ],
    ids=range(13),
)
def test_a_response_of_an_api_of_another_form_is_invalid(response_fields: Any, message: str) -> None:
    assert api_failure({"response": response_fields}) == (INVALID, f"the response of get_claim {message}")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(150, 650) | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "response",
                        "httpStatusCode",
                        "responseBody",
                        "application/json",
                        "image/png",
                        "body",
                        "responseState",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=15,
    )
)
def test_any_response_of_an_api_is_either_read_or_a_failure(document: Any) -> None:
    try:
        code = read_response(json.dumps({"response": document}).encode(), api_tool()).text and "read"
    except ToolFailure as failed:
        code = failed.code

    assert code in {"", "read", *CODES}
