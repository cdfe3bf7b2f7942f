"""The handlers of the states against the storage."""

from types import SimpleNamespace
from typing import Any

import pytest

import invoke_tool
from tests.unit.stored_turns import SESSION, A, B, Interrupted, StoredTurns, die, step, text, tool_result, tool_use
from tests.unit.tool_turns import FakeLambda, FakeQueue, answered, client_error, raised
from tests.unit.turn_states import USE, Model, invoke, load, run_tool, write
from turnwright.errors import (
    GatewayFault,
    LeaseLost,
    ModelAccessDenied,
    ModelRejected,
    ModelsExhausted,
    ModelsThrottled,
    ModelThrottled,
    SessionBusy,
    ToolAttemptFailed,
    TurnAlreadyEnded,
)
from turnwright.memory.records.records import Provenance, Record, added
from turnwright.sessions.journal import Journal
from turnwright.sessions.sessions import Sessions
from turnwright.sessions.turns import Turns
from turnwright.sessions.values import Status, Turn


@pytest.mark.parametrize("breaker", [{}, {"circuitBreaker": {"enabled": True}}], ids=["no breaker", "breaker"])
def test_a_turn_with_a_tool_runs_from_state_to_state_and_writes_eight_items(
    stored: StoredTurns, model: Model, fake_lambda: FakeLambda, queue: FakeQueue, breaker: dict[str, Any]
) -> None:
    stored.publish(actionGroupExecutionConfig=breaker)
    model.replies = [tool_use("the model's own id"), text("5 USD")]
    fake_lambda.answers = [answered("5 USD")]
    stored.run(B, session="s-0")
    stored.dynamodb.forget()

    loaded = load(stored, words="Balance?")
    calls = invoke(loaded["turn"])
    result = run_tool(loaded["turn"], calls[0])
    last = invoke(loaded["turn"], 2, dict(result))
    written = write(loaded["turn"], 2)

    assert loaded.pop("spent")["functions"].keys() == {"LoadMemory"}
    assert loaded == {
        "turn": stored.header(A).turn.encode(),
        "limits": {"maxSteps": 10, "maxParallelTools": 4, "modelTimeoutSeconds": 60},
    }
    assert calls == [
        {
            "toolUseId": USE,
            "toolName": "balance",
            "index": 0,
            "inlineBytes": 16_384,
            "handler": "lambda",
            "timeoutSeconds": stored.agent().tools[0].policy.timeout_seconds,
        }
    ]
    assert result == tool_result(USE, "5 USD")
    assert last == []
    assert written == {
        "turnId": A,
        "status": "COMMITTED",
        "answer": {"inline": "5 USD"},
        "usage": {"inputTokens": 20, "outputTokens": 4, "totalTokens": 24},
    }
    assert stored.dynamodb.written == 8
    assert queue.letters == []


def test_the_model_is_shown_the_history_the_input_and_the_steps_so_far(stored: StoredTurns, model: Model) -> None:
    stored.run(B, words="Before", answer="Then")
    model.replies = [tool_use(USE), text("5 USD")]
    turn = load(stored, words="Balance?")["turn"]
    invoke(turn)
    invoke(turn, 2, tool_result(USE, "5"))

    first, second = (asked["messages"] for asked in model.asked)
    assert first == [
        {"role": "user", "content": [{"text": "Before"}]},
        text("Then"),
        {"role": "user", "content": [{"text": "Balance?"}]},
    ]
    result = {"toolResult": {"toolUseId": USE, "status": "success", "content": [{"text": "5"}]}}
    assert second == [*first, tool_use(USE), {"role": "user", "content": [result]}]


def test_a_step_that_the_journal_holds_is_answered_without_a_model_call_and_without_a_write(
    stored: StoredTurns, model: Model
) -> None:
    model.replies = [tool_use(USE), text("5 USD")]
    turn = load(stored)["turn"]
    first = invoke(turn)
    invoke(turn, 2, tool_result(USE))
    before = stored.items()

    assert invoke(turn) == first
    assert invoke(turn, 2, tool_result(USE)) == []
    assert invoke(turn, 1, model=1) == first
    assert len(model.asked) == 2
    assert stored.items() == before


def test_of_two_answers_to_one_step_the_first_recorded_is_used_by_both(stored: StoredTurns, model: Model) -> None:
    """The first delivery hung, so that a second one was made; both models answer, the second one first."""
    model.replies = [tool_use(USE), text("the first delivery's answer")]
    turn = load(stored)["turn"]
    stored.dynamodb.forget()
    calls: list[dict[str, Any]] = []
    stored.dynamodb.after[1] = lambda: calls.extend(invoke(turn))  # after it read the header, before it asked

    assert invoke(turn) == calls
    assert [call["toolUseId"] for call in calls] == [USE]
    assert [step.message for step in Journal(stored.table, stored.documents, A).steps()] == [tool_use(USE)]
    assert len(model.asked) == 2


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("request_number", range(3))
def test_a_step_that_dies_anywhere_is_completed_by_its_repeat_and_paid_again_only_if_it_was_not_recorded(
    stored: StoredTurns, model: Model, when: str, request_number: int
) -> None:
    """Requests: the journal, the header, and after the model call the journal's new item."""
    model.replies = [text("one"), text("two")]
    turn = load(stored)["turn"]
    stored.dynamodb.forget()
    getattr(stored.dynamodb, when)[request_number] = die
    with pytest.raises(Interrupted):
        invoke(turn)
    paid = len(model.asked)
    recorded = (when, request_number) == ("after", 2)
    assert paid == (request_number == 2)

    assert invoke(turn) == []
    assert len(model.asked) == (paid if recorded else paid + 1)
    write(turn)
    assert stored.documents.fetch(stored.header(A).answer) == ("one" if recorded or not paid else "two")


def test_a_model_that_fails_leaves_no_step(stored: StoredTurns, model: Model) -> None:
    refused = ["ValidationException"] * 2  # the second time in the plainest form
    model.replies = ["ThrottlingException", *refused, "ThrottlingException", *refused]
    turn = load(stored)["turn"]
    before = stored.items()

    for number, error in [(0, ModelThrottled), (1, ModelRejected), (2, ModelsThrottled), (2, ModelsExhausted)]:
        with pytest.raises(error) as raised:
            invoke(turn, model=number)
        assert raised.type is error

    assert [asked["modelId"] for asked in model.asked] == [
        "model-1",
        "model-2",
        "model-2",
        "model-1",
        "model-1",
        "model-1",
    ]
    assert stored.items() == before


@pytest.mark.parametrize("redrives", [0, 1, 2])
def test_past_the_last_try_no_model_is_asked_but_once_more_for_each_redrive(
    stored: StoredTurns, model: Model, redrives: int
) -> None:
    """The last try was not answered in time, of which only the state machine knows: it asks for the next model."""
    turn = load(stored)["turn"]
    for number in range(3, 3 + redrives):
        model.replies = ["ModelNotReadyException"]
        with pytest.raises(ModelsExhausted, match="ModelNotReadyException"):
            invoke(turn, model=number, redrives=redrives)
    asked = len(model.asked)

    with pytest.raises(ModelsExhausted, match="all 2 models failed; the last try did not end in time"):
        invoke(turn, model=3 + redrives, redrives=redrives)

    assert len(model.asked) == asked == redrives
    stored.journal(stored.header(A).turn, step(1, text("late")))
    assert invoke(turn, model=3 + redrives, redrives=redrives) == []


def test_a_call_of_an_unknown_tool_carries_its_failure_and_calls_share_the_inline_bound(
    stored: StoredTurns, model: Model
) -> None:
    blocks = [tool_use(f"use-{number}", "balance" if number else "fly")["content"][0] for number in range(16)]
    model.replies = [{"role": "assistant", "content": blocks}]

    unknown, *known = invoke(load(stored)["turn"])

    assert unknown == {
        "toolUseId": USE,
        "toolName": "fly",
        "index": 0,
        "inlineBytes": 8_192,
        "handler": "none",
        "failure": {
            "errorCode": "UNKNOWN_TOOL",
            "errorMessage": "there is no tool fly; the tools are: balance",
            "attempts": 0,
            "tryAgainNow": True,
        },
    }
    assert [(call["index"], call["inlineBytes"]) for call in known] == [(number, 8_192) for number in range(1, 16)]


def test_a_long_tool_result_goes_by_the_bucket_to_the_model_and_into_the_session(
    stored: StoredTurns, model: Model
) -> None:
    stored.publish(memoryConfiguration={"history": {"maxTurns": 3, "maxCharacters": 1_000_000}})
    long = "€" * 60_000
    model.replies = [tool_use(USE), text("long")]
    turn = load(stored)["turn"]
    invoke(turn)
    stowed = stored.documents.stow({"text": long}, lambda digest: f"turns/{A}/{digest}.json", 100)
    invoke(turn, 2, {"toolUseId": USE, "status": "success", "result": stowed})
    write(turn, 2)

    (result,) = model.asked[1]["messages"][-1]["content"]
    assert result["toolResult"]["content"] == [{"text": long}]
    model.replies = [text("again")]
    invoke(load(stored, B)["turn"])
    assert model.asked[2]["messages"][2]["content"] == [result]


def test_prompt_attributes_of_the_request_and_of_tools_reach_the_model_and_not_the_session(
    stored: StoredTurns, model: Model
) -> None:
    model.replies = [tool_use(USE), text("Hi")]
    turn = load(stored, promptSessionAttributes={"today": "Monday"})["turn"]
    invoke(turn)
    invoke(turn, 2, tool_result(USE, promptSessionAttributes={"mood": "good"}))
    write(turn, 2)

    shown = [asked["system"][1]["text"] for asked in model.asked]
    assert ("Monday" in shown[0], "good" in shown[0]) == (True, False)
    assert ("Monday" in shown[1], "good" in shown[1]) == (True, True)
    assert stored.session()["attributes"] == "{}"


def test_a_conversation_that_the_caller_brings_stands_before_the_sessions_history_and_is_not_kept(
    stored: StoredTurns, model: Model
) -> None:
    brought = [{"role": "user", "content": [{"text": "Brought"}]}, text("Along")]
    model.replies = [text("Hi")]
    turn = load(stored, conversationHistory=brought)["turn"]
    invoke(turn)
    write(turn)

    assert model.asked[0]["messages"] == [*brought, {"role": "user", "content": [{"text": "Hello"}]}]
    assert stored.seen(stored.begin(B)) == ["Hello", "Hi"]


def test_signed_reasoning_is_only_for_the_model_that_signed_it_and_for_its_turn(
    stored: StoredTurns, model: Model
) -> None:
    signed = {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "c2ln"}}}
    asking = {"role": "assistant", "content": [signed, *tool_use(USE)["content"]]}
    model.replies = [asking, "AccessDeniedException", text("5 USD"), text("Again")]
    turn = load(stored)["turn"]
    invoke(turn)
    with pytest.raises(ModelAccessDenied):
        invoke(turn, 2, tool_result(USE))
    invoke(turn, 2, tool_result(USE), model=1)
    write(turn, 2)
    invoke(load(stored, B)["turn"])

    same, other, later = (asked["messages"][1] for asked in model.asked[1:])
    assert same == asking
    assert other == later == tool_use(USE)


def called(stored: StoredTurns, model: Model) -> tuple[dict[str, Any], dict[str, Any]]:
    """A turn whose model has asked for a tool, and the call."""
    model.replies = [tool_use(USE)]
    turn = load(stored)["turn"]
    (call,) = invoke(turn)
    return turn, call


def test_a_gateway_that_dies_before_its_answer_is_looked_up_and_the_tool_runs_once(
    stored: StoredTurns, model: Model, fake_lambda: FakeLambda, queue: FakeQueue
) -> None:
    """Requests: the header and the record that is not there yet, the journal, the record."""
    turn, call = called(stored, model)
    fake_lambda.answers = [answered("5 USD")]
    stored.dynamodb.forget()
    stored.dynamodb.after[2] = die
    with pytest.raises(Interrupted):
        run_tool(turn, call)
    assert stored.dynamodb.operations == ["batch_get_item", "query", "put_item"]

    assert run_tool(turn, call, lost=True) == tool_result(USE, "5 USD")
    assert run_tool(turn, call) == tool_result(USE, "5 USD")
    assert len(fake_lambda.invoked) == 1


@pytest.mark.parametrize("number", range(3))
def test_a_fault_of_aws_under_the_gateway_is_not_taken_for_the_tool_s(
    stored: StoredTurns, model: Model, fake_lambda: FakeLambda, queue: FakeQueue, number: int
) -> None:
    turn, call = called(stored, model)
    fake_lambda.answers = [answered("5 USD")]

    def fault() -> None:
        raise client_error("InternalServerError", 500, "PutItem")

    stored.dynamodb.forget()
    stored.dynamodb.before[number] = fault
    with pytest.raises(GatewayFault, match="InternalServerError"):
        run_tool(turn, call)

    with pytest.raises(ToolAttemptFailed, match="OUTCOME_UNKNOWN"):
        run_tool(turn, call, lost=True)
    assert [letter["errorCode"] for letter in queue.letters] == ["OUTCOME_UNKNOWN"]


def test_a_call_that_cannot_be_dead_lettered_is_not_forgotten(
    stored: StoredTurns, model: Model, fake_lambda: FakeLambda, queue: FakeQueue
) -> None:
    turn, call = called(stored, model)
    fake_lambda.answers = [raised("KeyError")]
    queue.fault = client_error("ServiceUnavailable", 503, "SendMessage")
    for lost in (False, True):
        with pytest.raises(GatewayFault, match="ServiceUnavailable"):
            run_tool(turn, call, lost=lost)

    queue.fault = None
    with pytest.raises(ToolAttemptFailed):
        run_tool(turn, call, lost=True)
    assert [letter["toolUseId"] for letter in queue.letters] == [USE]


def test_the_gateway_sleeps_the_milliseconds_that_remain_before_the_attempt(
    stored: StoredTurns, model: Model, fake_lambda: FakeLambda, queue: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn, call = called(stored, model)
    done: list[object] = []
    monkeypatch.setattr(invoke_tool, "time", SimpleNamespace(sleep=done.append, monotonic=lambda: 0))

    def answer() -> Any:
        done.append("invoked")
        return answered("5 USD")

    fake_lambda.answers = [answer]

    run_tool(turn, call, 2, sleep_ms=345)

    assert done == [0.345, "invoked"]


def test_a_redriven_tool_call_takes_the_session_back_before_it_invokes_anything(
    stored: StoredTurns, model: Model, fake_lambda: FakeLambda, queue: FakeQueue
) -> None:
    turn, call = called(stored, model)
    fail(stored)
    other = stored.begin(B)
    with pytest.raises(SessionBusy):
        run_tool(turn, call, redrives=1)
    Sessions(stored.table).release(SESSION, other.turnId)
    fake_lambda.answers = [answered("5 USD")]

    assert run_tool(turn, call, redrives=1) == tool_result(USE, "5 USD")
    assert stored.session()["leaseOwner"] == A
    assert stored.header(A).status is Status.RUNNING


def fail(stored: StoredTurns) -> None:
    Turns(stored.table).fail(A, {"error": "ModelsExhausted"})
    Sessions(stored.table).release(SESSION, A)


def test_a_redriven_turn_goes_on_where_it_failed_without_paying_twice(stored: StoredTurns, model: Model) -> None:
    model.replies = [tool_use(USE), "AccessDeniedException", text("5 USD")]
    turn = load(stored, words="Balance?")["turn"]
    invoke(turn)
    with pytest.raises(ModelsExhausted):
        invoke(turn, 2, tool_result(USE), model=2)
    fail(stored)

    assert invoke(turn, 2, tool_result(USE), redrives=1) == []
    assert stored.header(A).status is Status.RUNNING
    written = write(turn, 2, redrives=1)

    assert written["answer"] == {"inline": "5 USD"}
    assert len(model.asked) == 3
    assert stored.seen(stored.begin(B)) == ["Balance?", "5 USD"]


def test_a_turn_redriven_at_its_commit_is_committed_once(stored: StoredTurns, model: Model) -> None:
    model.replies = [text("Hi")]
    turn = load(stored)["turn"]
    invoke(turn)
    fail(stored)

    assert write(turn, redrives=1) == write(turn, redrives=1) == write(turn)
    assert stored.session()["version"] == 1


def test_a_redrive_pays_for_no_model_call_when_the_session_went_on_or_is_busy(
    stored: StoredTurns, model: Model
) -> None:
    turn = load(stored)["turn"]
    fail(stored)
    other = stored.begin(B)
    with pytest.raises(SessionBusy):
        invoke(turn, redrives=1)
    model.replies = [text("Hi")]
    invoke(other.encode())
    write(other.encode())

    with pytest.raises(LeaseLost):
        invoke(turn, redrives=1)
    with pytest.raises(LeaseLost):
        write(turn, redrives=1)

    assert len(model.asked) == 1
    assert stored.header(A).status is Status.FAILED
    assert stored.seen(stored.begin("c" * 32)) == ["Hello", "Hi"]


def test_load_memory_answers_a_repeat_with_the_limits_of_the_version_that_was_pinned(stored: StoredTurns) -> None:
    stored.publish(limits={"maxSteps": 3})
    first = load(stored)
    stored.publish(limits={"maxSteps": 9})

    again = load(stored)
    assert {**again, "spent": None} == {**first, "spent": None}
    assert first["limits"]["maxSteps"] == 3


def test_a_turn_ends_with_the_version_it_began_with(stored: StoredTurns, model: Model) -> None:
    model.replies = [text("Hi")]
    turn = load(stored)["turn"]
    stored.publish(foundationModels=["model-9"], memoryConfiguration={"storageDays": 1})
    invoke(turn)
    write(turn)

    assert model.asked[0]["modelId"] == "model-1"
    assert stored.session()["expiresAt"] == stored.clock.ms // 1000 + 7 * 86_400


@pytest.mark.parametrize("redrives", [0, 1])
def test_load_memory_that_comes_after_the_commit_is_refused_and_holds_nothing(
    stored: StoredTurns, model: Model, redrives: int
) -> None:
    model.replies = [text("Hi")]
    turn = load(stored)["turn"]
    invoke(turn)
    first = write(turn)
    before = stored.items()

    with pytest.raises(TurnAlreadyEnded):
        load(stored, redrives=redrives)

    assert stored.items() == before
    assert write(turn) == first


def test_what_travels_in_state_is_short_whatever_the_length_of_input_and_answer(
    stored: StoredTurns, model: Model
) -> None:
    model.replies = [text("a" * 1_000_000)]
    loaded = load(stored, words="w" * 1_048_576)
    invoke(loaded["turn"])
    written = write(loaded["turn"])

    assert len(str(loaded)) < 1_000
    assert len(str(written)) < 1_000
    assert Turn.decode(loaded["turn"]).encode() == loaded["turn"]
    assert stored.documents.fetch(written["answer"]) == "a" * 1_000_000


def test_every_step_of_a_turn_is_shown_the_same_of_memory(stored: StoredTurns, model: Model) -> None:
    stored.publish(memoryConfiguration={"namespaces": [{"name": "facts"}]})
    keep(stored, "Reports in USD.", "mem-1")
    model.replies = [tool_use(USE), text("5 USD")]
    loaded = load(stored, words="Balance?")
    invoke(loaded["turn"])
    keep(stored, "Reports in EUR.", "mem-2")

    invoke(loaded["turn"], 2, tool_result(USE))

    shown = [asked["system"][1]["text"] for asked in model.asked]
    assert shown[0] == shown[1]
    assert '"facts": {"facts": [{"fact": "Reports in USD."' in shown[0]
    instruction = stored.agent().instruction
    assert [asked["system"][0]["text"] for asked in model.asked] == [instruction, instruction]


def keep(stored: StoredTurns, words: str, record_id: str) -> None:
    place = (SESSION.store, SESSION.actor, f"/facts/{SESSION.actor}/", record_id)
    stored.table.put(added(Record(*place, words, Provenance("CONSOLIDATION"))))


def test_the_receipt_says_which_models_were_passed_over(stored: StoredTurns, model: Model) -> None:
    model.replies = ["AccessDeniedException", text("5 USD")]
    turn = load(stored)["turn"]
    with pytest.raises(ModelAccessDenied):
        invoke(turn)
    invoke(turn, model=1)
    write(turn, passedOver="0 ModelAccessDenied;1 ModelThrottled;2 States.Timeout;3 States.Timeout;")

    receipt = stored.header(A).receipt
    assert receipt is not None
    assert receipt["modelsPassedOver"] == [
        {"model": "model-1", "error": "ModelAccessDenied", "times": 1},
        {"model": "model-2", "error": "ModelThrottled", "times": 1},
        {"model": "model-1", "error": "States.Timeout", "times": 2},
    ]
