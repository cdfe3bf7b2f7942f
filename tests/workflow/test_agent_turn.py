"""The real state machine with the real handlers and a scripted model: every state, every Retry and every Catch."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local.aws.faults import Faults
from local.bedrock.scripted_model import ScriptedModel
from local.stack import LocalStack
from tests.project import LAST_STEP_AGENT, TEST_AGENT
from tests.stacks import Agent, Stack
from tests.waiting import eventually
from tests.workflow.turns import ask, calls, execution_of, fails, new_session, says
from turnwright.sessions.values import MOST_CALLS
from turnwright.storage import keys

NO_TOOLS = ["Load Memory", "Invoke Model", "Tools Requested?", "Write Memory"]
ONE_CALL = ["Which Handler?", "Invoke Tool"]


def with_tools(*inner: str) -> list[str]:
    return [
        *("Load Memory", "Invoke Model", "Tools Requested?", "Run Tools"),
        *inner,
        *("Invoke Model", "Tools Requested?", "Write Memory"),
    ]


def last_user_content(model: ScriptedModel) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = model.requests[-1].body["messages"][-1]["content"]
    return content


def tool_results(model: ScriptedModel) -> list[tuple[str, str]]:
    """(status, text) of the results that the model was shown last."""
    return [
        (block["toolResult"]["status"], block["toolResult"]["content"][0]["text"]) for block in last_user_content(model)
    ]


def noted_calls(folder: Path, turn_id: str) -> list[str]:
    """The idempotency keys of the turn's tool calls, one for each time the function ran."""
    lines = [line for path in folder.iterdir() for line in path.read_text().splitlines()]
    return sorted(line for line in lines if line.startswith(turn_id))


def test_a_turn_without_tools_enters_four_states(stack: Stack, agent_client: Any, small_talk: Agent) -> None:
    told = ask(agent_client, "hi", **small_talk)
    assert told.answer
    assert execution_of(stack, told).states == NO_TOOLS


def test_tools_run_between_two_model_calls(stack: Stack, agent_client: Any, banking_assistant: Agent) -> None:
    told = ask(agent_client, "What is the balance of account 12345?", **banking_assistant)
    assert "48,392.50" in told.answer
    states = execution_of(stack, told).states
    assert states[:6] == with_tools(*ONE_CALL)[:6]
    assert states[-3:] == with_tools(*ONE_CALL)[-3:]
    assert states.count("Invoke Tool") == told.receipt["toolAttempts"]


def test_a_turn_with_one_tool_call_enters_nine_states(
    stack: LocalStack, model: ScriptedModel, agent_client: Any
) -> None:
    model.replace([calls(("echo", {"text": "ping"}), step=1), says("It said ping.")])
    told = ask(agent_client, "echo")
    assert told.answer == "It said ping."
    assert execution_of(stack, told).states == with_tools(*ONE_CALL)
    assert tool_results(model) == [("success", "ping")]


def test_three_parallel_calls_enter_thirteen_states_and_answer_in_the_order_asked(
    stack: LocalStack, model: ScriptedModel, agent_client: Any
) -> None:
    model.replace([calls(*(("echo", {"text": text}) for text in "abc"), step=1), says("done")])
    told = ask(agent_client, "echo")
    states = execution_of(stack, told).states
    assert sorted(states) == sorted(with_tools(*ONE_CALL * 3))
    assert len(states) == 13
    assert tool_results(model) == [("success", "a"), ("success", "b"), ("success", "c")]


def test_a_throttled_tool_is_retried_in_the_same_step(
    stack: LocalStack, model: ScriptedModel, agent_client: Any, tool_calls: Path
) -> None:
    model.replace([calls(("misbehave", {"how": "throttle", "times": 2}), step=1), says("recovered")])
    told = ask(agent_client, "go")
    assert told.answer == "recovered"
    retried = ["Invoke Tool", "Retry Tool?"] * 2
    assert execution_of(stack, told).states == with_tools("Which Handler?", *retried, "Invoke Tool")
    assert tool_results(model) == [("success", "went well in attempt 3")]
    assert len(set(noted_calls(tool_calls, told.turn_id))) == 1
    assert len(noted_calls(tool_calls, told.turn_id)) == 3
    attempts = [body["actionGroupInvocationOutput"]["text"] for body in told.of("observation")[:-1]]
    assert [json.loads(text)["errorCode"] for text in attempts[:2]] == ["THROTTLING", "THROTTLING"]
    assert [json.loads(text)["retryInMs"] for text in attempts[:2]] == [20, 40]


def test_a_delay_of_seconds_goes_through_back_off(stack: LocalStack, model: ScriptedModel, agent_client: Any) -> None:
    model.replace([calls(("slow_to_recover", {"how": "throttle", "times": 1}), step=1), says("recovered")])
    told = ask(agent_client, "go")
    assert told.answer == "recovered"
    visited = execution_of(stack, told)
    assert visited.states == with_tools("Which Handler?", "Invoke Tool", "Retry Tool?", "Back Off", "Invoke Tool")


def test_a_tool_that_is_given_up_is_told_to_the_model(
    stack: LocalStack, model: ScriptedModel, agent_client: Any, tool_calls: Path
) -> None:
    model.replace([calls(("misbehave", {"how": "throttle"}), step=1), says("sorry")])
    told = ask(agent_client, "go")
    assert told.answer == "sorry"
    tries = ["Invoke Tool", "Retry Tool?"] * 3
    assert execution_of(stack, told).states == with_tools("Which Handler?", *tries, "Return Error To Agent")
    [(status, text)] = tool_results(model)
    assert (status, json.loads(text)["errorCode"]) == ("error", "THROTTLING")
    assert len(noted_calls(tool_calls, told.turn_id)) == 3


@pytest.mark.parametrize(
    ("how", "code"),
    [("raise", "TOOL_ERROR"), ("exit", "TOOL_CRASHED"), ("garbage", "INVALID_RESPONSE"), ("fail", "FAILURE")],
)
def test_a_failure_that_is_not_retryable_is_one_attempt_and_one_result(
    stack: LocalStack, model: ScriptedModel, agent_client: Any, tool_calls: Path, how: str, code: str
) -> None:
    model.replace([calls(("misbehave", {"how": how}), step=1), says("sorry")])
    told = ask(agent_client, "go")
    assert told.answer == "sorry"
    assert execution_of(stack, told).states == with_tools(*ONE_CALL, "Retry Tool?", "Return Error To Agent")
    [(status, text)] = tool_results(model)
    assert (status, json.loads(text)["errorCode"]) == ("error", code)
    assert len(noted_calls(tool_calls, told.turn_id)) == 1


def test_a_tool_that_hangs_times_out_and_the_turn_goes_on(
    stack: LocalStack, model: ScriptedModel, agent_client: Any
) -> None:
    model.replace([calls(("misbehave", {"how": "hang"}), step=1), says("sorry")])
    told = ask(agent_client, "go")
    assert told.answer == "sorry"
    assert json.loads(tool_results(model)[0][1])["errorCode"] == "TIMEOUT"


def test_a_time_out_whose_policy_says_so_fails_the_turn_at_its_state(
    stack: LocalStack, model: ScriptedModel, agent_client: Any
) -> None:
    model.replace([calls(("strict", {"how": "hang"}), step=1)])
    told = ask(agent_client, "go")
    assert told.error == "dependencyFailedException"
    assert "ToolFailedTurn" in told.message
    execution = execution_of(stack, told)
    assert (execution.status, execution.error) == ("FAILED", "ToolFailedTurn")
    assert execution.states == ["Load Memory", "Invoke Model", "Tools Requested?", "Run Tools", *ONE_CALL]


def one_call(model: ScriptedModel, agent_client: Any, name: str, **arguments: Any) -> tuple[str, str]:
    """A turn with one tool call: the tool result's status, and its error code or text."""
    model.replace([calls((name, arguments), step=1), says("done")])
    told = ask(agent_client, "go")
    assert told.answer == "done"
    [(status, text)] = tool_results(model)
    return status, json.loads(text)["errorCode"] if status == "error" else text


@pytest.mark.parametrize(
    ("name", "arguments", "status", "answer"),
    [
        ("look_up", {"word": "balance"}, "success", '{"word": "balance"}'),
        ("look_up", {"word": "list"}, "success", '[1, 2, {"three": 3}]'),
        ("look_up", {"word": "honest"}, "success", '"Error: 404 is what the page says"'),
        ("look_up", {"word": "throttled"}, "error", "THROTTLING"),
        ("look_up", {"word": "broken"}, "error", "TOOL_ERROR"),
        ("get_claim", {"claim_id": 7, "verbose": True}, "success", '{"id":7,"verbose":true}'),
        ("get_claim", {"claim_id": 404}, "error", "FAILURE"),
        ("get_claim", {"claim_id": 500}, "error", "TOOL_ERROR"),
        ("get_claim", {"claim_id": "seven"}, "error", "INVALID_ARGUMENTS"),
        ("get_claim", {"claim_id": "7", "verbose": "true"}, "success", '{"id":7,"verbose":true}'),
        ("get_claim", {"claim_id": 7.0, "verbose": None}, "success", '{"id":7,"verbose":false}'),
        ("get_claim", {}, "error", "INVALID_ARGUMENTS"),
        ("create_order", {"item": "pen", "count": 2}, "success", '{"item":"pen","count":2}'),
        ("create_order", {"item": "pen", "count": 2, "colour": "red"}, "error", "INVALID_ARGUMENTS"),
        ("create_order", {"item": "a" * 40 + "!", "count": 2}, "error", "INVALID_ARGUMENTS"),  # the pattern backtracks
        ("misbehave", {"how": "recursive"}, "error", "INVALID_RESPONSE"),
        ("misbehave", {"how": "bytes"}, "error", "TOOL_CRASHED"),
        ("misbehave", {"how": "seven_megabytes"}, "error", "RESPONSE_TOO_LARGE"),
    ],
)
def test_every_kind_of_tool_ends_in_one_result_with_the_right_code_and_the_turn_answers(
    model: ScriptedModel, agent_client: Any, name: str, arguments: dict[str, Any], status: str, answer: str
) -> None:
    assert one_call(model, agent_client, name, **arguments) == (status, answer)


def test_five_megabytes_of_json_reach_the_model_bounded(model: ScriptedModel, agent_client: Any) -> None:
    status, text = one_call(model, agent_client, "misbehave", how="five_megabytes")
    assert status == "success"
    assert text.endswith("[cut: 25000 of 5020000 characters are shown]")


def test_an_unknown_tool_is_answered_without_invoking_anything(
    stack: LocalStack, model: ScriptedModel, agent_client: Any
) -> None:
    model.replace([calls(("no_such_tool", {}), step=1), says("sorry")])
    told = ask(agent_client, "go")
    assert told.answer == "sorry"
    assert execution_of(stack, told).states == with_tools("Which Handler?", "Return Error To Agent")
    [(status, text)] = tool_results(model)
    assert status == "error"
    assert json.loads(text)["errorCode"] == "UNKNOWN_TOOL"


def test_a_reply_of_a_thousand_calls_of_unknown_tools_ends_the_turn_with_an_answer(
    stack: LocalStack, model: ScriptedModel, agent_client: Any
) -> None:
    model.replace([calls(*[("n" * 64, {})] * 1_000, step=1), says("sorry")])
    told = ask(agent_client, "go")
    assert told.answer == "sorry"
    codes = [json.loads(text)["errorCode"] for _, text in tool_results(model)]
    assert codes == ["UNKNOWN_TOOL"] * MOST_CALLS + ["TOO_MANY_CALLS"] * (1_000 - MOST_CALLS)


def test_arguments_that_break_the_schema_never_reach_the_function(
    stack: LocalStack, model: ScriptedModel, agent_client: Any, tool_calls: Path
) -> None:
    model.replace([calls(("misbehave", {"how": 5, "extra": True}), step=1), says("sorry")])
    told = ask(agent_client, "go")
    [(status, text)] = tool_results(model)
    assert (status, json.loads(text)["errorCode"]) == ("error", "INVALID_ARGUMENTS")
    assert "/how: 5 is not of type string" in json.loads(text)["errorMessage"]
    assert noted_calls(tool_calls, told.turn_id) == []


def test_what_the_model_calls_its_calls_costs_none_of_them(
    stack: LocalStack, model: ScriptedModel, agent_client: Any, tool_calls: Path
) -> None:
    use = {"toolUseId": "a|b", "name": "misbehave", "input": {"how": "fine"}}
    asking = {"toolUse": [use, use, {**use, "name": "$X"}]}
    model.replace([{"when": {"step": step}, "reply": asking} for step in (1, 2)] + [says("done")])
    told = ask(agent_client, "go")
    assert told.answer == "done"
    assert len(set(noted_calls(tool_calls, told.turn_id))) == 4
    assert [status for status, _ in tool_results(model)] == ["success", "success", "error"]
    assert "there is no tool $X" in tool_results(model)[2][1]


def test_a_call_that_was_cut_is_not_made_and_a_text_that_was_cut_is_told_as_cut(
    stack: LocalStack, model: ScriptedModel, agent_client: Any, tool_calls: Path
) -> None:
    cut = calls(("misbehave", {}), ("misbehave", {"how": "fine"}), step=1)
    cut["reply"]["stopReason"] = "max_tokens"
    answer = {"reply": {"text": "It went", "stopReason": "max_tokens"}}
    model.replace([cut, answer])
    session = new_session()
    told = ask(agent_client, "go", session)
    assert told.answer == "It went\n\n[The answer is cut: the model stopped with max_tokens.]"
    assert told.receipt["stopReason"] == "max_tokens"
    assert execution_of(stack, told).states == with_tools(*["Which Handler?", "Return Error To Agent"] * 2)
    assert noted_calls(tool_calls, told.turn_id) == []
    assert [json.loads(text)["errorCode"] for _, text in tool_results(model)] == ["INVALID_ARGUMENTS"] * 2
    model.replace([says("It went well.")])
    assert ask(agent_client, "and?", session).answer == "It went well."
    assert model.requests[-1].body["messages"][-2]["content"] == [{"text": "It went"}]


def test_a_malformed_reply_is_retried_and_one_that_fills_the_window_is_left_for_the_next_model(
    stack: LocalStack, model: ScriptedModel, agent_client: Any
) -> None:
    malformed = {"times": 1, **calls(("echo", {"text": "x"})), "when": {"model": "first-model"}}
    full = {"when": {"model": "first-model"}, "reply": {"text": "So", "stopReason": "model_context_window_exceeded"}}
    malformed["reply"]["stopReason"] = "malformed_tool_use"
    model.replace([malformed, full, says("second here")])
    told = ask(agent_client, "go")
    assert told.answer == "second here"
    execution = execution_of(stack, told)
    assert execution.states == ["Load Memory", "Invoke Model", "Use Next Model", *NO_TOOLS[1:]]
    assert [attempt.error for attempt in execution.visits[1].tries] == ["ModelUnavailable", "ModelRejected"]
    assert told.receipt["stopReason"] == "end_turn"
    assert told.receipt["modelsPassedOver"] == [{"model": "first-model", "error": "ModelRejected", "times": 1}]


def test_a_request_that_a_model_refuses_by_its_shape_is_answered_in_the_same_state(
    stack: LocalStack, model: ScriptedModel, agent_client: Any
) -> None:
    error = {"status": 400, "type": "ValidationException", "message": "This model doesn't support tools in streams."}
    model.replace([{"error": error, "times": 1}, says("Here.")])

    told = ask(agent_client, "go", agentId="BANKASSIST")

    assert told.answer == "Here."
    execution = execution_of(stack, told)
    assert execution.states == NO_TOOLS
    assert [request.is_stream for request in model.requests] == [True, False]
    (name,) = told.receipt["models"]
    assert told.receipt["models"][name]["leftOut"] == ["stream"]
    assert (told.receipt["modelCalls"], told.receipt["modelAttempts"]) == (1, 2)
    assert told.receipt["modelsPassedOver"] == []


def test_a_fall_to_the_next_model_for_want_of_access_is_in_the_receipt(
    stack: LocalStack, model: ScriptedModel, agent_client: Any
) -> None:
    error = {"status": 403, "type": "AccessDeniedException", "message": "You don't have access to the model."}
    denied = {"when": {"model": "first-model"}, "error": error}
    model.replace([denied, {**calls(("echo", {"text": "x"})), "when": {"step": 1}}, says("second here")])

    told = ask(agent_client, "go")

    assert told.answer == "second here"
    assert told.receipt["modelsPassedOver"] == [{"model": "first-model", "error": "ModelAccessDenied", "times": 2}]
    execution = execution_of(stack, told)
    assert execution.states[:4] == ["Load Memory", "Invoke Model", "Use Next Model", "Invoke Model"]
    assert [attempt.error for attempt in execution.visits[1].tries] == ["ModelAccessDenied"]


def test_a_turn_may_end_without_a_word_after_what_was_said_beside_its_call(
    stack: LocalStack, model: ScriptedModel, agent_client: Any
) -> None:
    asking = calls(("echo", {"text": "ping"}), step=1)
    asking["reply"]["text"] = "<thinking>Ping it.</thinking>\nI said ping."
    model.replace([asking, {"reply": {}}])
    session = new_session()
    assert ask(agent_client, "go", session).answer == "I said ping."
    model.replace([says("Yes.")])
    assert ask(agent_client, "really?", session).answer == "Yes."
    assert last_user_content(model)[-1] == {"text": "really?"}


def test_eight_of_the_longest_results_travel_by_reference_and_reach_the_model_bounded(
    stack: LocalStack, model: ScriptedModel, agent_client: Any
) -> None:
    model.replace([calls(*[("misbehave", {"how": "long"})] * 8, step=1), says("read")])
    told = ask(agent_client, "go")
    assert told.answer == "read"
    bounded = "x" * 25_000 + "\n[cut: 25000 of 300000 characters are shown]"
    assert tool_results(model) == [("success", bounded)] * 8
    tables = stack.client("dynamodb")
    key = {"PK": {"S": f"TURN#{told.turn_id}"}, "SK": {"S": "CALL#001#000"}}
    record = tables.get_item(TableName=stack.outputs["TableName"], Key=key)["Item"]
    s3, bucket = stack.client("s3"), stack.outputs["BucketName"]
    result = json.loads(s3_text(s3, bucket, json.loads(record["result"]["S"])["result"]["object"]))
    assert json.loads(s3_text(s3, bucket, result["full"]["object"])) == "x" * 300_000


def s3_text(s3: Any, bucket: str, name: str) -> str:
    text: str = s3.get_object(Bucket=bucket, Key=name)["Body"].read().decode()
    return text


def test_the_last_step_is_offered_no_tools_and_answers(
    stack: LocalStack, model: ScriptedModel, agent_client: Any
) -> None:
    model.replace([{**calls(("echo", {"text": "again"})), "times": 1}, says("enough")])
    told = ask(agent_client, "go", agentId=LAST_STEP_AGENT)
    assert told.answer == "enough"
    last = model.requests[-1].body
    assert "toolConfig" not in last
    assert "again" in json.dumps(last["messages"])
    assert not any("toolUse" in block for message in last["messages"] for block in message["content"])


def test_a_throttled_model_is_retried_in_place(stack: LocalStack, model: ScriptedModel, agent_client: Any) -> None:
    model.replace([fails("ThrottlingException", 429, times=2), says("at last")])
    told = ask(agent_client, "go")
    assert told.answer == "at last"
    execution = execution_of(stack, told)
    assert execution.states == NO_TOOLS
    assert [attempt.error for attempt in execution.visits[1].tries] == ["ModelThrottled", "ModelThrottled", None]
    assert {request.model_id for request in model.requests} == {"first-model"}


def test_the_next_model_answers_when_the_first_is_unavailable(
    stack: LocalStack, model: ScriptedModel, agent_client: Any
) -> None:
    model.replace([fails("ServiceUnavailableException", 503, when={"model": "first-model"}), says("second here")])
    told = ask(agent_client, "go")
    assert told.answer == "second here"
    execution = execution_of(stack, told)
    assert execution.states == ["Load Memory", "Invoke Model", "Use Next Model", *NO_TOOLS[1:]]
    assert len(execution.visits[1].tries) == 3


def test_a_model_that_rejects_the_request_is_passed_over_at_once(
    stack: LocalStack, model: ScriptedModel, agent_client: Any
) -> None:
    model.replace([fails("AccessDeniedException", 403, when={"model": "first-model"}), says("second here")])
    told = ask(agent_client, "go")
    assert told.answer == "second here"
    assert [request.model_id for request in model.requests] == ["first-model", "second-model"]


@pytest.fixture
def faults(stack: LocalStack) -> Iterator[Faults]:
    yield stack.faults
    stack.faults.replace([])


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("crash", "Runtime.ExitError"),
        ("out_of_memory", "Runtime.OutOfMemory"),
        pytest.param("hang", "States.Timeout", marks=pytest.mark.whole),
    ],
)
def test_the_next_model_answers_when_nothing_comes_of_the_call_of_the_first(
    stack: LocalStack, model: ScriptedModel, agent_client: Any, faults: Faults, fault: str, error: str
) -> None:
    model.replace([says("second here", model="second-model")])
    faults.replace([{"function": "InvokeModelFunction", "when": {"model": 0}, "fault": fault}])
    told = ask(agent_client, "go")
    assert told.answer == "second here"
    execution = execution_of(stack, told)
    assert execution.states == ["Load Memory", "Invoke Model", "Use Next Model", *NO_TOOLS[1:]]
    assert [attempt.error for attempt in execution.visits[1].tries] == [error] * 3


def test_models_of_whose_calls_nothing_comes_are_exhausted_after_one_more_try_of_the_first(
    stack: LocalStack, agent_client: Any, faults: Faults
) -> None:
    faults.replace([{"function": "InvokeModelFunction", "when": {"model": n}, "fault": "crash"} for n in range(3)])
    told = ask(agent_client, "go")
    assert told.error == "dependencyFailedException"
    execution = execution_of(stack, told)
    assert (execution.status, execution.error) == ("FAILED", "ModelsExhausted")
    assert execution.states == ["Load Memory", *["Invoke Model", "Use Next Model"] * 3, "Invoke Model"]
    assert [len(visit.tries) for visit in execution.visits if visit.name == "Invoke Model"] == [3, 3, 3, 1]


def test_a_stream_that_breaks_off_is_no_answer(stack: LocalStack, model: ScriptedModel, agent_client: Any) -> None:
    model.replace([{"times": 1, "breakAfter": 3, "reply": {"text": "half of an answ"}}, says("the whole answer")])
    told = ask(agent_client, "go")
    assert told.answer == "the whole answer"


def test_models_that_are_all_refused_fail_the_turn_after_one_more_try_of_the_first(
    stack: LocalStack, model: ScriptedModel, agent_client: Any
) -> None:
    model.replace([fails("AccessDeniedException", 403)])
    told = ask(agent_client, "go")
    assert told.error == "dependencyFailedException"
    execution = execution_of(stack, told)
    assert (execution.status, execution.error) == ("FAILED", "ModelsExhausted")
    assert [request.model_id for request in model.requests] == ["first-model", "second-model", "first-model"]


def test_a_gateway_that_is_killed_while_the_tool_runs_does_not_call_it_again(
    stack: LocalStack, model: ScriptedModel, agent_client: Any, tool_calls: Path
) -> None:
    """Whether the tool ran is not known then, and the model is told so."""
    model.replace([calls(("misbehave", {"how": "hang"}), step=1), says("sorry")])
    before = set(tool_calls.iterdir())
    with Killing(stack, "InvokeToolFunction", when=lambda: set(tool_calls.iterdir()) > before):
        told = ask(agent_client, "go")
    assert told.answer == "sorry"
    lost = ["Invoke Tool", "Look Up Tool Result", "Retry Tool?", "Return Error To Agent"]
    assert execution_of(stack, told).states == with_tools("Which Handler?", *lost)
    [(status, text)] = tool_results(model)
    report = json.loads(text)
    assert (status, report["errorCode"], report["tryAgainNow"]) == ("error", "OUTCOME_UNKNOWN", False)
    assert len(noted_calls(tool_calls, told.turn_id)) == 1
    [letter] = [each for each in tool_letters(stack) if each["turnId"] == told.turn_id]
    assert letter["errorCode"] == "OUTCOME_UNKNOWN"


def test_a_given_up_call_is_dead_lettered_with_all_that_is_needed_to_repeat_it(
    stack: LocalStack, model: ScriptedModel, agent_client: Any, tool_calls: Path
) -> None:
    model.replace([calls(("misbehave", {"how": "throttle", "times": 3}), step=1), says("sorry")])
    told = ask(agent_client, "go")
    [letter] = [each for each in tool_letters(stack) if each["turnId"] == told.turn_id]
    assert (letter["errorCode"], letter["attempts"], letter["toolName"]) == ("THROTTLING", 3, "misbehave")
    repeated = stack.client("lambda").invoke(
        FunctionName=letter["functionArn"], Payload=json.dumps(letter["event"]["inline"])
    )
    answer = json.loads(repeated["Payload"].read())["response"]["functionResponse"]["responseBody"]["TEXT"]["body"]
    assert answer == "went well in attempt 4"
    assert len(set(noted_calls(tool_calls, told.turn_id))) == 1


def test_a_circuit_opens_is_probed_and_closes(
    stack: LocalStack, model: ScriptedModel, agent_client: Any, tool_calls: Path
) -> None:
    def outcome(how: str) -> tuple[str, int]:
        model.replace([calls(("guarded", {"how": how, "times": 1}), step=1), says("ok")])
        told = ask(agent_client, "go")
        [(status, text)] = tool_results(model)
        code = json.loads(text)["errorCode"] if status == "error" else status
        return code, len(noted_calls(tool_calls, told.turn_id))

    assert [outcome("raise") for _ in range(3)] == [("TOOL_ERROR", 1)] * 3
    assert [outcome("fine") for _ in range(2)] == [("CIRCUIT_OPEN", 0)] * 2
    let_pass(stack, "guarded", 600)
    assert outcome("raise") == ("TOOL_ERROR", 1)
    assert outcome("fine") == ("CIRCUIT_OPEN", 0)
    let_pass(stack, "guarded", 600)
    assert [outcome("fine") for _ in range(2)] == [("success", 1)] * 2


def let_pass(stack: LocalStack, tool: str, seconds: int) -> None:
    """Makes the breaker's last failure so much older, as if that time had passed."""
    key = keys.breaker(TEST_AGENT, tool)
    stack.client("dynamodb").update_item(
        TableName=stack.outputs["TableName"],
        Key={"PK": {"S": key.pk}, "SK": {"S": key.sk}},
        UpdateExpression="SET lastFailureAt = lastFailureAt - :passed",
        ExpressionAttributeValues={":passed": {"N": str(seconds * 1000)}},
    )


def tool_letters(stack: LocalStack) -> list[dict[str, Any]]:
    """The dead letters of tool calls, taken out of the queue."""
    sqs, url = stack.client("sqs"), stack.outputs["ToolDeadLetterQueueUrl"]
    found = []
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        for message in messages:
            found.append(json.loads(message["Body"]))
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return found


def test_two_turns_that_meet_every_trouble_visit_every_state(
    stack: LocalStack, model: ScriptedModel, agent_client: Any, tool_calls: Path
) -> None:
    tools = [("slow_to_recover", {"how": "throttle", "times": 1}), ("no_such_tool", {})]
    refused = fails("AccessDeniedException", 403, when={"model": "first-model"}, times=1)
    model.replace([refused, calls(*tools, step=1), says("done")])
    troubled = ask(agent_client, "go")
    model.replace([calls(("misbehave", {"how": "hang"}), step=1), says("done")])
    before = set(tool_calls.iterdir())
    with Killing(stack, "InvokeToolFunction", when=lambda: set(tool_calls.iterdir()) > before):
        lost = ask(agent_client, "go")
    definition = json.loads(
        stack.client("stepfunctions").describe_state_machine(stateMachineArn=stack.outputs["StateMachineArn"])[
            "definition"
        ]
    )
    inner = definition["States"]["Run Tools"]["ItemProcessor"]["States"]
    visited = {*execution_of(stack, troubled).states, *execution_of(stack, lost).states}
    assert visited == {*definition["States"], *inner}


@pytest.mark.parametrize("function", ["InvokeModelFunction", "LoadMemoryFunction", "WriteMemoryFunction"])
def test_a_handler_that_is_killed_in_the_middle_of_a_turn_is_run_again(
    stack: LocalStack, model: ScriptedModel, agent_client: Any, function: str
) -> None:
    def killed() -> bool:
        """One turn with a kill. The process may have been about to end by itself: then it counts for nothing."""
        session = new_session()
        model.replace([says("one", text="^one$"), calls(("echo", {"text": "x"}), text="two", step=1), says("two")])
        ask(agent_client, "one", session)
        with Killing(stack, function):
            told = ask(agent_client, "two", session)
        assert told.answer == "two"
        model.replace([says("three")])
        ask(agent_client, "three", session)
        texts = [
            block["text"]
            for message in model.requests[-1].body["messages"]
            for block in message["content"]
            if "text" in block
        ]
        assert texts == ["one", "one", "two", "two", "three"]
        visits = execution_of(stack, told).visits
        return any(attempt.error == "Runtime.ExitError" for visit in visits for attempt in visit.tries)

    eventually(killed, "a process is killed while it works", seconds=60)


class Killing:
    """Kills the next process of a function that is busy, once, when the condition holds."""

    def __init__(self, stack: LocalStack, function: str, when: Callable[[], bool] = lambda: True) -> None:
        self._stack = stack
        self._when = when
        self._name = stack.function_name(function)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.0005):
            for process in self._stack.workers.processes():
                if process.name == self._name and process.busy and self._when():
                    os.kill(process.pid, signal.SIGKILL)
                    return
