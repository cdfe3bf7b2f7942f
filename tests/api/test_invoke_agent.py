"""InvokeAgent as callers know it: an unmodified boto3 client against the running stack."""

import http.client
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import boto3
import pytest
from botocore.exceptions import ClientError

from local.bedrock.scripted_model import ScriptedModel
from local.deployment.service_operations import SERVICES
from local.stack import LocalStack
from tests.project import TEST_AGENT
from tests.service_calls import call, client, undeclared
from tests.stacks import Agent, Caller, Stack, signing
from tests.waiting import eventually
from tests.workflow.turns import Told, ask, calls, execution_of, fails, new_session, says

BANK = [
    calls(("get_account_balance", {"account_id": "12345"}), step=1),
    says("Your balance is 48,392.50 USD.", lastToolResult="48392.5"),
]


def the_readme_snippet(url: str, user_id: str, session_id: str, user_message: str) -> str:
    """The snippet of the issue, but for `endpoint_url` and the trace that it processes."""
    client = boto3.client("bedrock-agent-runtime", endpoint_url=url)
    stream = client.invoke_agent(
        agentId="BANKASSIST",
        agentAliasId="live",
        sessionId=session_id,
        memoryId=f"user_{user_id}",
        enableTrace=True,
        inputText=user_message,
    )
    full_response = ""
    for event in stream["completion"]:
        if "chunk" in event:
            full_response += event["chunk"]["bytes"].decode("utf-8")
    return full_response


def history_shown(model: ScriptedModel) -> list[tuple[str, str]]:
    """(role, text) of every text that the model was shown last, without tool blocks."""
    return [
        (message["role"], block["text"])
        for message in model.requests[-1].body["messages"]
        for block in message["content"]
        if "text" in block
    ]


def letter_of(stack: LocalStack, turn_id: str) -> dict[str, Any]:
    """The dead letter of a turn; it comes by way of EventBridge, a moment after the caller was told."""
    found: dict[str, dict[str, Any]] = {}

    def arrived() -> bool:
        found.update(letters(stack))
        return turn_id in found

    eventually(arrived, "the turn is dead-lettered")
    return found[turn_id]


def letters(stack: LocalStack) -> dict[str, dict[str, Any]]:
    """The dead letters by turn id, taken out of the queue."""
    sqs, url, found = stack.client("sqs"), stack.outputs["DeadLetterQueueUrl"], {}
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        for message in messages:
            letter = json.loads(message["Body"])
            found[letter["turnId"]] = letter
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return found


def in_background(work: Callable[[], Any]) -> "tuple[threading.Thread, list[Any]]":
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()), daemon=True)
    thread.start()
    return thread, results


def test_eight_callers_at_once_in_their_own_sessions_all_get_their_answer(
    stack: LocalStack, model: ScriptedModel, agent_client: Any
) -> None:
    model.replace(BANK)
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda n: the_readme_snippet(stack.url, str(n), new_session(), f"balance? {n}"), range(8))
        )
    assert answers == ["Your balance is 48,392.50 USD."] * 8


def test_of_two_turns_at_once_in_one_session_one_answers_and_one_is_refused(
    stack: LocalStack, model: ScriptedModel, agent_client: Any
) -> None:
    model.replace([says("first")])
    model.pause()
    session = new_session()

    def outcome(text: str) -> str:
        try:
            told = ask(agent_client, text, session)
            return told.answer or str(told.error)
        except ClientError as error:
            return str(error.response["Error"]["Code"])

    pool = ThreadPoolExecutor(2)
    turns = [pool.submit(outcome, text) for text in ("a", "b")]
    model.wait_for_requests(1, 30)
    eventually(lambda: any(turn.done() for turn in turns), "one of the two is refused while the other still runs")
    model.resume()
    answers = {turn.result() for turn in turns}
    assert "first" in answers
    assert answers - {"first"} <= {"ConflictException", "conflictException"}
    assert len(answers) == 2


def test_a_turn_while_another_runs_is_refused_at_once_and_the_running_one_is_untouched(
    model: ScriptedModel, agent_client: Any
) -> None:
    model.replace([says("the answer")])
    model.pause()
    session = new_session()
    running, answers = in_background(lambda: ask(agent_client, "first", session))
    model.wait_for_requests(1, 30)
    with pytest.raises(ClientError) as caught:
        ask(agent_client, "second", session)
    model.resume()
    running.join()
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 409
    assert caught.value.response["Error"]["Code"] == "ConflictException"
    assert session in caught.value.response["Error"]["Message"]
    assert [told.answer for told in answers] == ["the answer"]


def test_trace_events_arrive_while_the_turn_runs(model: ScriptedModel, agent_client: Any) -> None:
    model.replace([says("late")])
    model.pause()
    response = agent_client.invoke_agent(
        agentId=TEST_AGENT, agentAliasId="live", sessionId=new_session(), inputText="go", enableTrace=True
    )
    events = iter(response["completion"])
    first = next(events)
    model.resume()
    assert "modelInvocationInput" in first["trace"]["trace"]["orchestrationTrace"]
    parts = [event["trace"]["trace"] for event in events if "trace" in event]
    kinds = [next(iter(part["orchestrationTrace"])) for part in parts[:-1]]
    assert kinds == ["modelInvocationOutput", "observation"]
    assert parts[-1].keys() == {"customOrchestrationTrace"}, "the receipt"


def test_the_trace_tells_the_whole_turn_in_order(model: ScriptedModel, agent_client: Any) -> None:
    asked = {"when": {"step": 1}, "reply": {"text": "I look.", "toolUse": [{"name": "echo", "input": {"text": "x"}}]}}
    model.replace([asked, says("It is x.")])
    told = ask(agent_client, "go")
    assert [kind for kind, _ in told.traces] == [
        *("modelInvocationInput", "modelInvocationOutput", "rationale", "invocationInput", "observation"),
        *("modelInvocationInput", "modelInvocationOutput", "observation"),
    ]
    assert told.of("rationale")[0]["text"] == "I look."
    called = told.of("invocationInput")[0]["actionGroupInvocationInput"]
    invocation_id = called.pop("invocationId")
    assert called == {
        "actionGroupName": "Misbehaving",
        "function": "echo",
        "executionType": "LAMBDA",
        "parameters": [{"name": "text", "type": "string", "value": "x"}],
    }
    tool, final = told.of("observation")
    assert (tool["type"], tool["actionGroupInvocationOutput"]["text"]) == ("ACTION_GROUP", "x")
    assert tool["actionGroupInvocationOutput"]["metadata"]["clientRequestId"] == invocation_id
    assert (final["type"], final["finalResponse"]["text"]) == ("FINISH", "It is x.")
    assert told.of("modelInvocationOutput")[0]["metadata"]["usage"]["outputTokens"] > 0


def test_without_enable_trace_only_the_answer_comes_and_no_trace_is_written(
    agent_client: Any, small_talk: Agent
) -> None:
    response = agent_client.invoke_agent(**small_talk, sessionId=new_session(), inputText=f"go {uuid4()}")
    assert [list(event) for event in response["completion"]] == [["chunk"]]


def test_a_follow_up_is_shown_the_conversation_with_its_tool_calls(model: ScriptedModel, agent_client: Any) -> None:
    session = new_session()
    model.replace([calls(("echo", {"text": "42"}), step=1, text="first"), says("It is 42."), says("Still 42.")])
    ask(agent_client, "first", session)
    ask(agent_client, "second", session)
    messages = model.requests[-1].body["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user", "assistant", "user"]
    assert messages[1]["content"][0]["toolUse"]["input"] == {"text": "42"}
    assert messages[2]["content"][0]["toolResult"]["content"] == [{"text": "42"}]
    assert messages[4]["content"] == [{"text": "second"}]


def test_sessions_of_different_memory_ids_do_not_see_each_other(model: ScriptedModel, agent_client: Any) -> None:
    session = new_session()
    model.replace([says("ok")])
    ask(agent_client, "I am Ann", session, memoryId="ann")
    ask(agent_client, "I am Bob", session, memoryId="bob")
    assert history_shown(model) == [("user", "I am Bob")]


def test_a_repeat_with_the_same_invocation_id_joins_the_running_turn(
    stack: LocalStack, model: ScriptedModel, agent_client: Any
) -> None:
    with_invocation_id(agent_client, str(uuid4()))
    session = new_session()
    model.replace([says("only once")])
    model.pause()
    first, answers = in_background(lambda: ask(agent_client, "go", session))
    model.wait_for_requests(1, 30)
    second, more = in_background(lambda: ask(agent_client, "go", session))
    model.resume()
    first.join()
    second.join()
    third = ask(agent_client, "go", session)
    told: list[Told] = [*answers, *more, third]
    assert [each.answer for each in told] == ["only once"] * 3
    assert len({each.turn_id for each in told}) == 1
    assert [each.traces for each in told] == [told[0].traces] * 3
    assert len(model.requests) == 1


def test_a_repeat_with_the_same_invocation_id_gets_the_same_answer(agent_client: Any, small_talk: Agent) -> None:
    with_invocation_id(agent_client, str(uuid4()))
    session = new_session()
    running, answers = in_background(lambda: ask(agent_client, "go", session, **small_talk))
    meanwhile = ask(agent_client, "go", session, **small_talk)
    running.join()
    told: list[Told] = [*answers, meanwhile, ask(agent_client, "go", session, **small_talk)]
    assert len(told) == 3
    for each in told:
        assert (each.turn_id, each.answer, each.traces) == (told[0].turn_id, told[0].answer, told[0].traces)


def test_a_session_keeps_its_history_until_it_is_ended(agent_client: Any, small_talk: Agent) -> None:
    session, sign = new_session(), uuid4().hex
    ask(agent_client, f"The sign is {sign}.", session, **small_talk)
    (shown,) = ask(agent_client, "What is the sign?", session, **small_talk).of("modelInvocationInput")
    assert sign in shown["text"]
    ended = ask(agent_client, "", session, **small_talk, endSession=True)
    assert ended.answer == "Session is terminated as 'endSession' flag is set in request."
    (shown,) = ask(agent_client, "What is the sign?", session, **small_talk).of("modelInvocationInput")
    assert sign not in shown["text"]


def test_a_caller_that_goes_away_does_not_stop_the_turn(
    stack: LocalStack, model: ScriptedModel, agent_client: Any
) -> None:
    session = new_session()
    model.replace([says("for nobody")])
    model.pause()
    address = urlsplit(stack.url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port)
    path = f"/agents/{TEST_AGENT}/agentAliases/live/sessions/{session}/text"
    connection.request("POST", path, json.dumps({"inputText": "leaving"}), SIGNED)
    model.wait_for_requests(1, 30)
    connection.close()
    model.resume()
    eventually(lambda: session_version(stack, session) == 1, "the turn is committed without its caller")
    model.replace([says("ok")])
    ask(agent_client, "back again", session)
    assert history_shown(model) == [("user", "leaving"), ("assistant", "for nobody"), ("user", "back again")]


@pytest.mark.parametrize("length", [70_000, 2_000_000])
def test_an_answer_of_any_length_comes_back_whole(model: ScriptedModel, agent_client: Any, length: int) -> None:
    answer = ("é0123456789" * (length // 11 + 1))[:length]
    model.replace([says(answer)])
    assert ask(agent_client, "go").answer == answer


def test_an_input_of_a_mebibyte_reaches_the_model(model: ScriptedModel, agent_client: Any) -> None:
    text = "0123456789abcdef" * 65_536
    model.replace([says("read it")])
    assert ask(agent_client, text).answer == "read it"
    assert history_shown(model) == [("user", text)]


def test_ending_a_session_makes_the_next_turn_start_afresh(model: ScriptedModel, agent_client: Any) -> None:
    session = new_session()
    model.replace([says("ok")])
    ask(agent_client, "old", session, sessionState={"sessionAttributes": {"colour": "red"}})
    ended = ask(agent_client, "", session, endSession=True)
    assert ended.answer == "Session is terminated as 'endSession' flag is set in request."
    model.replace([calls(("remember", {"name": "a", "value": "b"}), step=1), says("new")])
    told = ask(agent_client, "new", session)
    assert history_shown(model) == [("user", "new")]
    assert json.loads(told.of("observation")[0]["actionGroupInvocationOutput"]["text"]) == {}


def test_session_attributes_persist_reach_tools_and_are_changed_by_them(
    model: ScriptedModel, agent_client: Any
) -> None:
    session = new_session()
    model.replace([calls(("remember", {"name": "tier", "value": "gold"}), step=1), says("ok")])
    first = ask(agent_client, "1", session, sessionState={"sessionAttributes": {"colour": "red"}})
    second = ask(agent_client, "2", session)
    seen = [json.loads(told.of("observation")[0]["actionGroupInvocationOutput"]["text"]) for told in (first, second)]
    assert seen == [{"colour": "red"}, {"colour": "red", "tier": "gold"}]


def test_prompt_session_attributes_are_shown_as_data_for_one_turn(model: ScriptedModel, agent_client: Any) -> None:
    session = new_session()
    model.replace([says("ok")])
    ask(agent_client, "1", session, sessionState={"promptSessionAttributes": {"today": "Monday"}})
    with_attributes = model.requests[-1].body["system"]
    ask(agent_client, "2", session)
    assert '{"today": "Monday"}' in with_attributes[1]["text"]
    assert len(model.requests[-1].body["system"]) == 1


def test_a_conversation_history_comes_before_the_sessions_own(model: ScriptedModel, agent_client: Any) -> None:
    session = new_session()
    model.replace([says("ok")])
    ask(agent_client, "mine", session)
    given = [
        {"role": "user", "content": [{"text": "elsewhere"}]},
        {"role": "assistant", "content": [{"text": "I see"}]},
    ]
    ask(agent_client, "now", session, sessionState={"conversationHistory": {"messages": given}})
    assert history_shown(model) == [
        *(("user", "elsewhere"), ("assistant", "I see")),
        *(("user", "mine"), ("assistant", "ok"), ("user", "now")),
    ]


def test_models_throttled_beyond_their_retries_are_a_throttling_frame_and_free_the_session(
    stack: LocalStack, model: ScriptedModel, agent_client: Any
) -> None:
    session = new_session()
    model.replace([says("before")])
    ask(agent_client, "one", session)
    letters(stack)
    model.replace([fails("ThrottlingException", 429)])
    told = ask(agent_client, "two", session)
    assert told.error == "throttlingException"
    assert told.turn_id in told.message
    assert told.traces[-1][0] == "failureTrace"
    eventually(lambda: session_lease(stack, session) is None, "the session is free")
    assert execution_of(stack, told).error == "ModelsThrottled"
    letter = letter_of(stack, told.turn_id)
    assert letter["failure"]["error"] == "ModelsThrottled"
    assert letter["failure"]["state"] == "Invoke Model"
    assert letter["input"]["request"]["inline"]["inputText"] == "two"
    model.replace([says("after")])
    ask(agent_client, "three", session)
    assert history_shown(model) == [("user", "one"), ("assistant", "before"), ("user", "three")]


def test_a_stopped_execution_is_an_exception_frame_with_the_turn_and_the_reason(
    stack: LocalStack, model: ScriptedModel, agent_client: Any
) -> None:
    session = new_session()
    model.replace([says("never")])
    model.pause()
    running, answers = in_background(lambda: ask(agent_client, "go", session))
    model.wait_for_requests(1, 30)
    turn_id = session_lease(stack, session)
    stack.client("stepfunctions").stop_execution(
        executionArn=stack.execution_arn(str(turn_id)), error="Operator", cause="stopped by hand"
    )
    running.join()
    model.resume()
    [told] = answers
    assert told.error == "internalServerException"
    assert f"turn {turn_id} failed" in told.message
    assert "Operator: stopped by hand" in told.message
    assert letter_of(stack, str(turn_id))["failure"]["executionStatus"] == "ABORTED"
    eventually(lambda: session_lease(stack, session) is None, "the session is free")
    model.replace([says("again")])
    assert ask(agent_client, "again", session).answer == "again"
    assert history_shown(model) == [("user", "again")]


def test_a_refused_second_turn_is_no_dead_letter(stack: LocalStack, model: ScriptedModel, agent_client: Any) -> None:
    """The race that is lost inside the execution: both requests passed the front door's look at the session."""
    session = new_session()
    letters(stack)
    model.replace([says("ok")])
    model.pause()
    outcomes: list[Any] = []

    def turn(text: str) -> None:
        try:
            outcomes.append(ask(agent_client, text, session))
        except ClientError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=turn, args=(str(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(outcomes) == 3, "three of four are refused")
    model.resume()
    for thread in threads:
        thread.join()
    assert sum(isinstance(outcome, Told) and outcome.answer == "ok" for outcome in outcomes) == 1
    assert letters(stack) == {}


@pytest.mark.parametrize(
    ("change", "status", "code", "said"),
    [
        ({"agentId": "NOBODY"}, 404, "ResourceNotFoundException", "NOBODY"),
        ({"agentAliasId": "nope"}, 404, "ResourceNotFoundException", "nope"),
        ({"sessionId": "with space"}, 400, "ValidationException", "sessionId"),
        ({"sessionId": "a/b#c%"}, 400, "ValidationException", "sessionId"),
        ({"memoryId": "ä" * 3}, 400, "ValidationException", "memoryId"),
        ({"memoryId": "m" * 101}, 400, "ValidationException", "memoryId"),
        ({"inputText": ""}, 400, "ValidationException", "inputText"),
        ({"inputText": "x" * (1024 * 1024 + 1)}, 400, "ValidationException", "1048576"),
        ({"sessionState": {"invocationId": "x"}}, 400, "ValidationException", "sessionState.invocationId"),
        (
            {"sessionState": {"knowledgeBaseConfigurations": [{"knowledgeBaseId": "K", "retrievalConfiguration": {}}]}},
            *(400, "ValidationException", "sessionState.knowledgeBaseConfigurations"),
        ),
        (
            {"streamingConfigurations": {"streamFinalResponse": True}},
            *(400, "ValidationException", "streamingConfigurations.streamFinalResponse"),
        ),
        (
            {"bedrockModelConfigurations": {"performanceConfig": {"latency": "optimized"}}},
            *(400, "ValidationException", "bedrockModelConfigurations"),
        ),
    ],
)
def test_bad_input_is_refused_with_the_field_and_the_rule(
    agent_client: Any, small_talk: Agent, change: dict[str, Any], status: int, code: str, said: str
) -> None:
    request = {**small_talk, "sessionId": new_session(), "inputText": "hi", **change}
    with pytest.raises(ClientError) as caught:
        agent_client.invoke_agent(**request)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert caught.value.response["Error"]["Code"] == code
    assert said in caught.value.response["Error"]["Message"]
    assert caught.value.response["ResponseMetadata"]["RetryAttempts"] == 0


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "body"),
        (b"[]", "body"),
        (b'{"inputText": 5}', "inputText"),
        (b'{"inputText": "x", "enableTrace": "yes"}', "enableTrace"),
        (b'{"inputText": "x", "surprise": 1}', "surprise"),
        (b'{"inputText": "x", "sessionState": {"surprise": 1}}', "sessionState.surprise"),
        (b'{"inputText": "\\ud800"}', "body"),
    ],
)
def test_malformed_json_and_unknown_fields_are_refused(
    caller: Caller, small_talk: Agent, body: bytes, said: str
) -> None:
    path = f"/agents/{small_talk['agentId']}/agentAliases/live/sessions/{new_session()}/text"
    status, answer = caller.send("POST", path, body)
    assert status == 400
    assert caller.headers["x-amzn-ErrorType"] == "ValidationException"
    assert answer["__type"] == "ValidationException"
    assert said in answer["message"]


@pytest.mark.parametrize("path", ["/nowhere", "/agents", "/turns/0"])
def test_a_missing_signature_is_named_whatever_the_path(stack: Stack, path: str) -> None:
    status, body = Caller(stack, None).send("GET", path)
    assert (status, body["__type"]) == (403, "MissingAuthenticationTokenException")


@pytest.mark.parametrize(
    ("method", "path", "status", "error"),
    [
        ("GET", "/nowhere", 404, "ResourceNotFoundException"),
        ("PUT", "/turns", 405, "ValidationException"),
        ("GET", "/agents/A1", 400, "ValidationException"),
    ],
)
def test_what_has_no_route_is_refused_by_name(caller: Caller, method: str, path: str, status: int, error: str) -> None:
    answered, body = caller.send(method, path)
    assert (answered, body["__type"], caller.headers["x-amzn-ErrorType"]) == (status, error, error)


@pytest.mark.parametrize("service", SERVICES)
def test_no_operation_is_answered_with_an_error_that_its_model_does_not_declare(
    stack: Stack, credentials: Any, service: str
) -> None:
    caller = signing(stack, client(service, stack.url, boto3.session.Session()))
    refusals = {name: call(caller, name) for name in caller.meta.service_model.operation_names}
    assert [
        wrong for name, refusal in refusals.items() if refusal and (wrong := undeclared(caller, name, refusal))
    ] == []


def test_the_draft_alias_and_the_response_headers(agent_client: Any, small_talk: Agent) -> None:
    session = new_session()
    response = agent_client.invoke_agent(
        agentId=small_talk["agentId"], agentAliasId="TSTALIASID", sessionId=session, memoryId="ann", inputText="hi"
    )
    assert b"".join(event["chunk"]["bytes"] for event in response["completion"])
    assert response["sessionId"] == session
    assert response["memoryId"] == "ann"
    assert response["contentType"] == "application/json"


SIGNED = {
    "Content-Type": "application/json",
    "Authorization": "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20261122/us-east-1/bedrock/aws4_request, "
    "SignedHeaders=host, Signature=0",
}


def with_invocation_id(client: Any, invocation_id: str) -> None:
    """Makes every call of the client look like a retry of one call."""

    def set_header(request: Any, **_: Any) -> None:
        request.headers["amz-sdk-invocation-id"] = invocation_id

    client.meta.events.register("before-send.bedrock-agent-runtime.InvokeAgent", set_header)


def session_item(stack: LocalStack, session: str) -> dict[str, Any]:
    key = {"PK": {"S": f"SESSION#{TEST_AGENT}-turnwright#-#{session}"}, "SK": {"S": "SESSION"}}
    item = stack.client("dynamodb").get_item(TableName=stack.outputs["TableName"], Key=key, ConsistentRead=True)
    found: dict[str, Any] = item.get("Item", {})
    return found


def session_lease(stack: LocalStack, session: str) -> str | None:
    owner: str | None = session_item(stack, session).get("leaseOwner", {}).get("S")
    return owner


def session_version(stack: LocalStack, session: str) -> int:
    return int(session_item(stack, session).get("version", {}).get("N", "0"))
