import base64
import json
from dataclasses import replace
from typing import Any

import botocore.session
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwright.api.bedrock.requests import INPUT_BYTES, REQUEST_BYTES, Invocation, read_invocation
from turnwright.api.request_bodies import decoded_body
from turnwright.errors import InvalidRequest
from turnwright.sessions.attributes import ATTRIBUTES_BYTES
from turnwright.sessions.values import TurnRequest
from turnwright.storage.keys import SessionId

PATH = {"agentId": "BANKASSIST", "agentAliasId": "live", "sessionId": "session-1"}
NOT_SUPPORTED = "is not a field that this runtime supports"
HISTORY = "sessionState.conversationHistory"
MESSAGES = f"{HISTORY}.messages"


def invocation(raw: bytes, **path: str) -> Invocation:
    return read_invocation({**PATH, **path}, raw, invocation_id="i-1", caller="arn:aws:iam::1:user/a")


def read(body: Any, **path: str) -> Invocation:
    return invocation(json.dumps(body).encode(), **path)


def read_state(state: Any) -> Invocation:
    return read({"inputText": "Hi", "sessionState": state})


def refusal(body: Any, **path: str) -> str:
    with pytest.raises(InvalidRequest) as refused:
        invocation(body, **path) if isinstance(body, bytes) else read(body, **path)
    assert str(refused.value).startswith(f"{refused.value.field}: ")
    return str(refused.value)


def test_a_request_is_read_with_everything_that_is_supported() -> None:
    body = {
        "inputText": "My balance?",
        "memoryId": "user_1",
        "enableTrace": True,
        "endSession": False,
        "sessionState": {
            "sessionAttributes": {"tier": "gold", "empty": ""},
            "promptSessionAttributes": {"today": "Sunday"},
            "conversationHistory": {
                "messages": [
                    {"role": "user", "content": [{"text": "a"}, {"text": "b"}]},
                    {"role": "assistant", "content": [{"text": "c"}]},
                ]
            },
        },
        "streamingConfigurations": {"streamFinalResponse": False},
    }

    assert read(body) == Invocation(
        agent_id="BANKASSIST",
        agent_alias_id="live",
        session_id="session-1",
        memory_id="user_1",
        invocation_id="i-1",
        caller="arn:aws:iam::1:user/a",
        enable_trace=True,
        end_session=False,
        body={
            "inputText": "My balance?",
            "sessionAttributes": {"tier": "gold", "empty": ""},
            "promptSessionAttributes": {"today": "Sunday"},
            "conversationHistory": [
                {"role": "user", "content": [{"text": "a"}, {"text": "b"}]},
                {"role": "assistant", "content": [{"text": "c"}]},
            ],
        },
    )


def test_a_request_needs_no_more_than_its_input() -> None:
    assert read({"inputText": "Hi"}) == Invocation(
        agent_id="BANKASSIST",
        agent_alias_id="live",
        session_id="session-1",
        memory_id=None,
        invocation_id="i-1",
        caller="arn:aws:iam::1:user/a",
        body={"inputText": "Hi"},
    )


def test_null_means_that_a_field_is_not_given() -> None:
    nothing = dict.fromkeys(["memoryId", "enableTrace", "endSession", "sessionState", "sourceArn", "unknown"])

    assert read({"inputText": "Hi", **nothing}) == read({"inputText": "Hi"})
    assert read_state(dict.fromkeys(["sessionAttributes", "conversationHistory", "files"])) == read({"inputText": "Hi"})


def test_a_request_that_ends_the_session_needs_no_input() -> None:
    assert read({"endSession": True}).end_session
    assert read({"endSession": True, "inputText": " "}).end_session


@pytest.mark.parametrize("session_id", ["ab", "a" * 100, "A.b_c:d-9", "2025-11-22T10:00:00"])
def test_session_and_memory_ids_have_the_characters_that_bedrock_takes(session_id: str) -> None:
    taken = read({"inputText": "Hi", "memoryId": session_id}, sessionId=session_id)

    assert (taken.session_id, taken.memory_id) == (session_id, session_id)


def test_path_parameters_may_come_percent_encoded() -> None:
    assert read({"inputText": "Hi"}, sessionId="a%3Ab").session_id == "a:b"


@pytest.mark.parametrize(
    "bad", ["a", "a" * 101, "a b", "a/b", "a#b", "ü1", "ab\n", "", "a%2Fb", "a%0A", "%", "٣٣"], ids=repr
)
def test_other_session_and_memory_ids_are_refused(bad: str) -> None:
    rule = "does not match ^[0-9a-zA-Z._:-]{2,100}$"

    assert refusal({"inputText": "Hi"}, sessionId=bad) == f"sessionId: {rule}"
    assert refusal({"inputText": "Hi", "memoryId": bad}) == f"memoryId: {rule}"


@pytest.mark.parametrize("name", ["agentId", "agentAliasId"])
@pytest.mark.parametrize("bad", ["", "a" * 101, "a.b", "a:b", "a b", "a\n"], ids=repr)
def test_agent_and_alias_ids_with_other_characters_are_refused(name: str, bad: str) -> None:
    assert refusal({"inputText": "Hi"}, **{name: bad}) == f"{name}: does not match ^[0-9a-zA-Z_-]{{1,100}}$"


def test_placeholder_agent_ids_are_taken() -> None:
    assert read({"inputText": "Hi"}, agentId="EXISTING_AGENT_ID").agent_id == "EXISTING_AGENT_ID"


@pytest.mark.parametrize("body", [{}, {"inputText": ""}, {"inputText": None}, {"inputText": " \n\t"}], ids=repr)
def test_an_empty_input_is_refused(body: dict[str, Any]) -> None:
    assert refusal(body) == "inputText: is empty; a turn needs an input"


def test_an_input_is_taken_up_to_a_mebibyte_of_utf8_and_refused_beyond() -> None:
    longest = "é" * (INPUT_BYTES // 2)

    assert read({"inputText": longest}).body == {"inputText": longest}
    assert refusal({"inputText": longest + "x"}) == "inputText: has 1048577 bytes; at most 1048576 are taken"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "inputText: is empty; a turn needs an input"),
        (b"{", "body: is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        (b"[]", "body: is not a JSON object"),
        (b"null", "body: is not a JSON object"),
        (b'"Hi"', "body: is not a JSON object"),
        (b'{"inputText": NaN}', "body: is not JSON: NaN is not JSON"),
        (b'{"inputText": "\\ud83d"}', "body: holds half of a surrogate pair, which no UTF-8 text can"),
        (b'{"\\udc00": 1}', "body: holds half of a surrogate pair, which no UTF-8 text can"),
        (b'{"inputText": "\xed\xa0\x80"}', "body: holds half of a surrogate pair, which no UTF-8 text can"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "body: is nested too deeply"),
    ],
    ids=["empty", "cut", "list", "null", "string", "nan", "half", "half a name", "raw half", "deep"],
)
def test_a_body_that_is_no_json_object_is_refused(raw: bytes, message: str) -> None:
    assert refusal(raw) == message


def test_bytes_that_are_no_utf8_are_refused() -> None:
    assert refusal(b'{"inputText": "\xff"}').startswith("body: is not JSON: ")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"inputText": 5}, "inputText: is not a string"),
        ({"inputText": ["Hi"]}, "inputText: is not a string"),
        ({"memoryId": 5}, "memoryId: is not a string"),
        ({"enableTrace": "true"}, "enableTrace: is not a boolean"),
        ({"endSession": 1}, "endSession: is not a boolean"),
        ({"sessionState": []}, "sessionState: is not an object"),
        ({"streamingConfigurations": True}, "streamingConfigurations: is not an object"),
        (
            {"streamingConfigurations": {"streamFinalResponse": True}},
            "streamingConfigurations.streamFinalResponse: true is not supported; the answer comes when it is whole",
        ),
        (
            {"streamingConfigurations": {"streamFinalResponse": "no"}},
            "streamingConfigurations.streamFinalResponse: is not a boolean",
        ),
        (
            {"streamingConfigurations": {"applyGuardrailInterval": 0}},
            "streamingConfigurations.applyGuardrailInterval: is not a whole number from 1 on",
        ),
        (
            {"bedrockModelConfigurations": {"performanceConfig": {"latency": "optimized"}}},
            "bedrockModelConfigurations.performanceConfig.latency: can only be standard; models are not optimized",
        ),
        ({"bedrockModelConfigurations": {"x": 1}}, f"bedrockModelConfigurations.x: {NOT_SUPPORTED}"),
        (
            {"bedrockModelConfigurations": {"performanceConfig": {"x": 1}}},
            f"bedrockModelConfigurations.performanceConfig.x: {NOT_SUPPORTED}",
        ),
        (
            {"promptCreationConfigurations": {"excludePreviousThinkingSteps": "no"}},
            "promptCreationConfigurations.excludePreviousThinkingSteps: is not a boolean",
        ),
        *(
            (
                {"promptCreationConfigurations": {"previousConversationTurnsToInclude": turns}},
                "promptCreationConfigurations.previousConversationTurnsToInclude: is not a whole number from 0 on",
            )
            for turns in (-1, 1.5, "1", True)
        ),
        ({"promptCreationConfigurations": {"x": 1}}, f"promptCreationConfigurations.x: {NOT_SUPPORTED}"),
        ({"sessionState": {"files": {}}}, "sessionState.files: is not a list"),
        ({"inputtext": "Hi"}, f"inputtext: {NOT_SUPPORTED}"),
    ],
    ids=repr,
)
def test_a_field_of_another_type_or_name_is_refused(body: dict[str, Any], message: str) -> None:
    assert refusal({"inputText": "Hi", **body}) == message


def test_every_field_of_botocore_s_model_is_either_read_or_refused_by_its_name() -> None:
    model = botocore.session.get_session().get_service_model("bedrock-agent-runtime")
    read_ones = {"sessionAttributes", "promptSessionAttributes", "conversationHistory"}

    for name, member in model.shape_for("SessionState").members.items():
        if name in read_ones:
            continue
        body = {"inputText": "Hi", "sessionState": {name: [{}] if member.type_name == "list" else {}}}
        assert refusal(body) == f"sessionState.{name}: {NOT_SUPPORTED}"
    shape = model.operation_model("InvokeAgent").input_shape
    in_body = {name for name, member in shape.members.items() if "location" not in member.serialization}
    structures = {
        "sessionState",
        "streamingConfigurations",
        "promptCreationConfigurations",
        "bedrockModelConfigurations",
    }
    assert in_body == {"inputText", "memoryId", "enableTrace", "endSession", *structures}


@pytest.mark.parametrize(
    "nothing",
    [
        {"promptCreationConfigurations": {}},
        {"promptCreationConfigurations": {"excludePreviousThinkingSteps": False}},
        {"promptCreationConfigurations": {"excludePreviousThinkingSteps": True}},
        {"bedrockModelConfigurations": {}},
        {"bedrockModelConfigurations": {"performanceConfig": {}}},
        {"bedrockModelConfigurations": {"performanceConfig": {"latency": "standard"}}},
        {"streamingConfigurations": {"streamFinalResponse": False, "applyGuardrailInterval": 50}},
        {"sessionState": {"files": [], "knowledgeBaseConfigurations": [], "returnControlInvocationResults": []}},
    ],
    ids=repr,
)
def test_a_value_that_asks_for_nothing_is_taken(nothing: dict[str, Any]) -> None:
    """Also thoughts of earlier turns: they are never shown."""
    assert read({"inputText": "Hi", **nothing}) == read({"inputText": "Hi"})


def test_how_many_turns_are_to_be_shown_is_read() -> None:
    for turns in (0, 3):
        prompt = {"previousConversationTurnsToInclude": turns}
        asked = read({"inputText": "Hi", "promptCreationConfigurations": prompt})
        assert asked.body == {"inputText": "Hi", **prompt}
        assert asked.turn_id != read({"inputText": "Hi"}).turn_id


@pytest.mark.parametrize("kind", ["sessionAttributes", "promptSessionAttributes"])
@pytest.mark.parametrize(
    ("attributes", "rule"),
    [
        ("x", ": is not an object"),
        ([], ": is not an object"),
        ({"a": "b", "n": 1}, ".n: is not a string"),
        ({"n": None}, ".n: is not a string"),
        ({"n": {"deep": "x"}}, ".n: is not a string"),
    ],
    ids=repr,
)
def test_attributes_are_an_object_of_strings(kind: str, attributes: Any, rule: str) -> None:
    assert refusal({"inputText": "Hi", "sessionState": {kind: attributes}}) == f"sessionState.{kind}{rule}"


@pytest.mark.parametrize("kind", ["sessionAttributes", "promptSessionAttributes"])
def test_attributes_are_taken_up_to_their_bound_and_refused_beyond(kind: str) -> None:
    longest = "é" * ((ATTRIBUTES_BYTES - len('{"k":""}')) // 2)

    assert read_state({kind: {"k": longest}}).body == {"inputText": "Hi", kind: {"k": longest}}
    assert refusal({"inputText": "Hi", "sessionState": {kind: {"k": longest + "x"}}}) == (
        f"sessionState.{kind}: has 32769 bytes of JSON; at most 32768 are taken"
    )


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ([], f"{HISTORY}: is not an object"),
        ({"message": []}, f"{HISTORY}.message: {NOT_SUPPORTED}"),
        ({"messages": {}}, f"{MESSAGES}: is not a list"),
        ({"messages": ["Hi"]}, f"{MESSAGES}[0]: is not an object"),
        ({"messages": [{"content": [{"text": "a"}]}]}, f"{MESSAGES}[0].role: is neither user nor assistant"),
        (
            {"messages": [{"role": "system", "content": [{"text": "a"}]}]},
            f"{MESSAGES}[0].role: is neither user nor assistant",
        ),
        ({"messages": [{"role": ["user"], "content": []}]}, f"{MESSAGES}[0].role: is not a string"),
        ({"messages": [{"role": "user"}]}, f"{MESSAGES}[0].content: is not a list of at least one text block"),
        (
            {"messages": [{"role": "user", "content": []}]},
            f"{MESSAGES}[0].content: is not a list of at least one text block",
        ),
        ({"messages": [{"role": "user", "content": "Hi"}]}, f"{MESSAGES}[0].content: is not a list"),
        (
            {"messages": [{"role": "user", "content": [{"text": "a"}], "name": "x"}]},
            f"{MESSAGES}[0].name: {NOT_SUPPORTED}",
        ),
        (
            {"messages": [{"role": "user", "content": [{"text": "a"}, {"image": {}}]}]},
            f"{MESSAGES}[0].content[1]: is not a text block with a text that is not blank",
        ),
        (
            {"messages": [{"role": "user", "content": [{"text": "a"}]}, {"role": "assistant", "content": [None]}]},
            f"{MESSAGES}[1].content[0]: is not a text block with a text that is not blank",
        ),
        (
            {"messages": [{"role": "user", "content": [{"text": " "}]}]},
            f"{MESSAGES}[0].content[0]: is not a text block with a text that is not blank",
        ),
        (
            {"messages": [{"role": "user", "content": [{"text": "a", "cachePoint": {}}]}]},
            f"{MESSAGES}[0].content[0]: is not a text block with a text that is not blank",
        ),
        (
            {"messages": [{"role": "assistant", "content": [{"text": "a"}]}]},
            f"{MESSAGES}[0].role: is not user; a conversation begins with the user",
        ),
    ],
    ids=repr,
)
def test_a_conversation_of_another_form_is_refused_at_its_place(history: Any, message: str) -> None:
    assert refusal({"inputText": "Hi", "sessionState": {"conversationHistory": history}}) == message


@pytest.mark.parametrize("history", [{}, {"messages": []}, {"messages": None}], ids=repr)
def test_a_conversation_may_be_empty(history: Any) -> None:
    assert read_state({"conversationHistory": history}).body == {"inputText": "Hi", "conversationHistory": []}


def test_a_session_state_is_taken_up_to_its_bound_in_bytes_of_utf8_and_refused_beyond() -> None:
    def state(length: int) -> dict[str, Any]:
        return {"conversationHistory": {"messages": [{"role": "user", "content": [{"text": "界" * length}]}]}}

    frame = len(json.dumps(state(0), separators=(",", ":")))
    most = (REQUEST_BYTES - frame) // 3

    assert len(read_state(state(most)).body["conversationHistory"]) == 1
    assert refusal({"inputText": "Hi", "sessionState": state(most + 1)}) == (
        "sessionState: is longer than 2097152 bytes of JSON"
    )


leaves: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | st.just("user")
)
field_names = st.text(max_size=4) | st.sampled_from(
    [
        "inputText",
        "memoryId",
        "enableTrace",
        "endSession",
        "sessionState",
        "sessionAttributes",
        "promptSessionAttributes",
        "conversationHistory",
        "messages",
        "role",
        "content",
        "text",
        "streamingConfigurations",
        "streamFinalResponse",
    ]
)
anything: st.SearchStrategy[Any] = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(field_names, inner, max_size=4), max_leaves=20
)


def of_the_right_shape(anything: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Requests most of whose fields are right, so that the wrong one may be a deep one."""
    block = st.fixed_dictionaries({"text": st.text(max_size=5) | anything})
    message = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.lists(block)})
    history = st.fixed_dictionaries({"messages": st.lists(message | anything, max_size=3)})
    attributes = st.dictionaries(st.text(max_size=5), st.text(max_size=5) | anything, max_size=3)
    state = st.fixed_dictionaries(
        {}, optional={"conversationHistory": history, "sessionAttributes": attributes, "files": anything}
    )
    return st.fixed_dictionaries(
        {"inputText": st.text(min_size=1)},
        optional={"sessionState": state | anything, "memoryId": st.text(), "enableTrace": st.booleans()},
    )


def outcome(raw: bytes) -> Invocation | InvalidRequest:
    try:
        return invocation(raw)
    except InvalidRequest as refused:
        return refused


@given(anything | of_the_right_shape(anything))
def test_any_json_is_either_read_or_refused(body: Any) -> None:
    taken = outcome(json.dumps(body).encode())

    if isinstance(taken, InvalidRequest):
        assert taken.field
    else:
        assert len(taken.turn_id) == 32
        json.dumps(taken.body, ensure_ascii=False).encode()


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_either_read_or_refused(raw: bytes) -> None:
    taken = outcome(raw)

    assert isinstance(taken, Invocation) or taken.field


@pytest.mark.parametrize("depth", range(300, 1100, 7))
def test_a_body_of_any_depth_is_refused_in_the_same_way(depth: int) -> None:
    assert refusal(b'{"a":' + b"[" * depth + b"]" * depth + b"}") in (
        "body: is nested too deeply",
        f"a: {NOT_SUPPORTED}",
    )


GIVEN = Invocation(
    agent_id="BANKASSIST",
    agent_alias_id="live",
    session_id="session-1",
    memory_id="user_1",
    invocation_id="i-1",
    caller="arn:aws:iam::1:user/a",
    enable_trace=True,
    body={"inputText": "Hi", "sessionAttributes": {"a": "1", "b": "2"}},
)


def test_a_turn_id_is_the_same_for_a_repeat() -> None:
    repeated = replace(GIVEN, body={"sessionAttributes": {"b": "2", "a": "1"}, "inputText": "Hi"})

    assert repeated.turn_id == GIVEN.turn_id == "9a54d421722d4af140989a7124e5f9a7"


@pytest.mark.parametrize(
    "change",
    [
        {"agent_id": "OTHER"},
        {"agent_alias_id": "TSTALIASID"},
        {"session_id": "session-2"},
        {"memory_id": None},
        {"memory_id": "user_2"},
        {"invocation_id": "i-2"},
        {"caller": "arn:aws:iam::1:user/b"},
        {"enable_trace": False},
        {"body": {"inputText": "Hi "}},
    ],
    ids=repr,
)
def test_a_turn_id_is_another_one_for_anything_else(change: dict[str, Any]) -> None:
    assert replace(GIVEN, **change).turn_id != GIVEN.turn_id


@given(st.text(), st.text(), st.text(), st.text())
def test_what_one_caller_sends_never_makes_the_turn_id_of_another(one: str, other: str, mine: str, theirs: str) -> None:
    first = replace(GIVEN, caller=one, invocation_id=mine)
    second = replace(GIVEN, caller=other, invocation_id=theirs)

    assert (first.turn_id == second.turn_id) == ((one, mine) == (other, theirs))


def test_a_session_belongs_to_its_actor_and_to_nobody_without_a_memory_id() -> None:
    assert GIVEN.session("STORE") == SessionId("STORE", "user_1", "session-1")
    assert replace(GIVEN, memory_id=None).session("STORE") == SessionId("STORE", "-", "session-1")


@pytest.mark.parametrize("memory_id", [None, "user_1"])
def test_a_turn_request_comes_back_from_the_execution_s_input_as_it_was(memory_id: str | None) -> None:
    request = TurnRequest(
        turn_id="t" * 32,
        agent_id="BANKASSIST",
        agent_alias_id="live",
        session_id="session-1",
        memory_id=memory_id,
        caller="arn:aws:iam::1:user/a",
        trace=True,
        body={"inline": {"inputText": "Hi"}},
    )

    assert TurnRequest.decode(json.loads(json.dumps(request.encode()))) == request
    assert request.session("S") == SessionId("S", memory_id or "-", "session-1")


@pytest.mark.parametrize("body", [None, ""])
def test_a_proxy_event_may_have_no_body(body: str | None) -> None:
    assert decoded_body(body, True) == decoded_body(body, False) == b""


def test_a_proxy_event_s_body_is_decoded() -> None:
    assert decoded_body("é", False) == "é".encode()
    assert decoded_body(base64.b64encode(b"\x00\xff").decode(), True) == b"\x00\xff"


@pytest.mark.parametrize("body", ["%%%%", "abc", "é"])
def test_a_body_that_should_be_base64_and_is_not_is_refused(body: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^body: is not base64, though the gateway says so$"):
        decoded_body(body, True)


def test_half_a_surrogate_pair_from_the_gateway_is_refused_where_the_body_is_read() -> None:
    with pytest.raises(InvalidRequest, match=r"^body: holds half of a surrogate pair"):
        invocation(decoded_body('{"inputText": "\ud83d"}', False))
