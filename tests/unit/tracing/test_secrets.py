"""A secret in everything that people, models, tools and memory say: at REDACTED and METADATA it is written nowhere but
where the turn itself works with it.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from typing import Any

import pytest

import record_failure
from tests.unit.stored_turns import AGENT, STOP_DATE, A, StoredTurns, text, tool_use
from tests.unit.tool_turns import FakeLambda, FakeQueue, answered, raised
from tests.unit.turn_states import Model, invoke, load, run_tool, write
from turnwright.errors import ToolAttemptFailed
from turnwright.sessions.values import Turn
from turnwright.storage import keys
from turnwright.storage.settings import settings
from turnwright.tracing.execution_failures import read_failure
from turnwright.tracing.log import logger
from turnwright.tracing.trace_events import Failure, MemoryAccess
from turnwright.tracing.traces import Traces

SECRET = 'pä"ss\nwörd-4711'
NEVER = "rd-4711"
"""The end of the secret, which no escaping changes."""


@dataclass(slots=True)
class Written:
    """What was written for operators to read."""

    stored: StoredTurns
    queue: FakeQueue
    other_lines: StringIO
    events: list[dict[str, Any]]

    def everything(self) -> str:
        items = self.stored.table.query(keys.turn_partition(A), keys.TRACE_PREFIX, keys.TRACE_PREFIX + keys.END)
        kept = [self.stored.documents.fetch_text(item["event"]) for item in items]
        assert kept
        assert self.events
        texts = [self.other_lines.getvalue(), *map(str, [kept, self.events, self.queue.letters])]
        return "".join(texts)


@pytest.fixture(params=["REDACTED", "METADATA"])
def written(
    request: pytest.FixtureRequest,
    stored: StoredTurns,
    queue: FakeQueue,
    monkeypatch: pytest.MonkeyPatch,
    trace_events: list[dict[str, Any]],
) -> Iterator[Written]:
    monkeypatch.setenv("TRACE_PAYLOADS", request.param)
    monkeypatch.setenv("TRACE_REDACT_PATTERNS", r'pä"ss\swörd-\d{4}')
    settings.cache_clear()
    lines = StringIO()
    monkeypatch.setattr(logger().registered_handler, "stream", lines)
    yield Written(stored, queue, lines, trace_events)
    settings.cache_clear()


def test_a_turn_full_of_a_secret_leaves_it_nowhere_and_the_model_and_the_session_have_it(
    written: Written,
    model: Model,
    fake_lambda: FakeLambda,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stored = written.stored
    account = {"account": {"type": "string", "description": "The account's number."}}
    balance = {"name": "balance", "description": "The balance of an account.", "parameters": account}
    stored.publish(
        actionGroupExecutionConfig={"retryPolicy": {"maxAttempts": 1}},
        actionGroups=[{**AGENT["actionGroups"][0], "functionSchema": {"functions": [balance]}}],
    )
    asking = {"role": "assistant", "content": [{"text": SECRET}, *tool_use("use-1", account=SECRET)["content"]]}
    again = tool_use("use-2", account=json.dumps({"in": SECRET}))
    model.replies = [asking, again, "ThrottlingException", text(f"It is {SECRET}")]
    fake_lambda.answers = [answered(json.dumps({"is": SECRET})), raised("SomeError", f"no account {SECRET}")]

    turn = load(stored, words=f"My word is {SECRET}", trace=True)["turn"]
    (call,) = invoke(turn)
    result = run_tool(turn, call)
    (call,) = invoke(turn, 2, dict(result))
    with pytest.raises(ToolAttemptFailed) as failed:
        run_tool(turn, call, step=2)
    report = json.loads(str(failed.value))
    assert report["errorCode"] == "TOOL_ERROR"
    told = {"toolUseId": call["toolUseId"], "status": "error", "result": report["told"]}
    with pytest.raises(Exception, match=r"model-1|characters"):
        invoke(turn, 3, told)
    traces = Traces.of_turn(stored.table, stored.documents, Turn.decode(turn))
    traces.memory_retrieval(MemoryAccess("/facts/user-1/", [{"recordId": "r", "text": SECRET}], 3, query=SECRET))
    refused = Failure("ACCESS_DENIED", SECRET)
    traces.memory_write(MemoryAccess("/facts/user-1/", [{"text": SECRET}], 3, failure=refused))
    invoke(turn, 3, told, model=1)
    write(turn, 3)

    assert NEVER not in str(failed.value)
    assert NEVER not in written.everything()
    assert NEVER not in capsys.readouterr().out
    (letter,) = written.queue.letters
    assert letter["event"].keys() == {"object", "bytes"}
    assert SECRET in stored.documents.fetch(letter["event"])["inputText"], "what is sent again is what was sent"
    shown = model.asked[-1]["messages"][-1]["content"][0]["toolResult"]["content"][0]["text"]
    assert SECRET in json.loads(shown)["errorMessage"], "the model is told what the tool said"
    assert f"It is {SECRET}" in str(stored.documents.fetch(stored.header(A).answer))
    assert [event["type"] for event in written.events] == [
        *("MODEL_INVOCATION", "TOOL_SELECTION", "TOOL_INVOCATION"),
        *("MODEL_INVOCATION", "TOOL_SELECTION", "TOOL_INVOCATION"),
        *("MODEL_INVOCATION", "MEMORY_RETRIEVAL", "MEMORY_WRITE", "MODEL_INVOCATION", "FINAL_RESPONSE"),
    ]


def test_the_letter_of_a_failed_turn_refers_to_its_request(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = written.stored
    request = stored.request(A, words=f"My word is {SECRET}", trace=True)
    stored.begin(A, words=f"My word is {SECRET}", trace=True)
    letters = FakeQueue()
    arn = f"arn:aws:states:us-east-1:123456789012:execution:turns:{A}"
    cause = json.dumps({"errorMessage": f"no such thing: {SECRET}", "errorType": "ModelsExhausted"})
    described = {
        "status": "FAILED",
        "name": A,
        "input": json.dumps(request.encode()),
        "error": "ModelsExhausted",
        "cause": cause,
        "stopDate": STOP_DATE,
    }

    class Executions:
        def describe_execution(self, **_: Any) -> dict[str, Any]:
            return described

        def get_execution_history(self, **_: Any) -> dict[str, Any]:
            return {"events": []}

    monkeypatch.setattr("turnwright.storage.clients.stepfunctions", Executions)
    monkeypatch.setattr("turnwright.storage.clients.sqs", lambda: letters)
    monkeypatch.setattr("tests.unit.tool_turns.QUEUE_URL", "https://queue")
    failure = read_failure(Executions(), arn, find_state=True)
    assert failure is not None
    assert NEVER not in failure.cause

    record_failure.handler({"detail": {"executionArn": arn}}, None)

    (letter,) = letters.letters
    assert NEVER not in json.dumps(letter)
    assert NEVER not in written.everything()
    assert NEVER not in stored.header(A).fields["failure"]
    assert SECRET in stored.documents.fetch(letter["input"]["request"])["inputText"]
    assert [event["type"] for event in written.events] == ["TURN_FAILED"]
