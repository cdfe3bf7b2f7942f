import base64
import json
from types import SimpleNamespace
from typing import Any

import pytest

import invoke_agent
from tests.unit import samples
from tests.unit.followed_turns import STATE_MACHINE, FakeStepFunctions, StoredTurn
from turnwright.agents.definitions import Definition
from turnwright.agents.versions import publish
from turnwright.api.bedrock.requests import Invocation
from turnwright.storage import clients
from turnwright.storage.settings import Settings
from turnwright.storage.table import Table

CONTEXT = SimpleNamespace(get_remaining_time_in_millis=lambda: 60_000)


@pytest.fixture
def event(table: Table, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A request whose turn is committed as soon as it is started."""
    documents = samples.documents()

    class StepFunctions(FakeStepFunctions):
        def start_execution(self, **arguments: Any) -> dict[str, Any]:
            turn = StoredTurn(table, documents, arguments["name"])
            turn.told(1, "Hellö!")
            turn.commit("Hellö!")
            return super().start_execution(**arguments)

    stepfunctions = StepFunctions()
    publish(table, [Definition.of(samples.DEFINITION)])
    monkeypatch.setattr(invoke_agent, "table", lambda: table)
    monkeypatch.setattr(invoke_agent, "documents", lambda: documents)
    monkeypatch.setattr(invoke_agent, "settings", lambda: Settings({"STATE_MACHINE_ARN": STATE_MACHINE}))
    monkeypatch.setattr(clients, "stepfunctions", lambda: stepfunctions)
    return {
        "pathParameters": {"agentId": "BANKASSIST", "agentAliasId": "live", "sessionId": "session-1"},
        "headers": {"amz-sdk-invocation-id": "i-1"},
        "requestContext": {"requestId": "r-1", "identity": {}},
        "body": json.dumps({"inputText": "Hi", "enableTrace": True}),
        "isBase64Encoded": False,
    }


TURN_ID = Invocation(
    "BANKASSIST", "live", "session-1", None, "i-1", "", enable_trace=True, body={"inputText": "Hi"}
).turn_id
STREAM_HEADERS = {
    "Content-Type": "application/vnd.amazon.eventstream",
    "x-amzn-bedrock-agent-content-type": "application/json",
    "x-amz-bedrock-agent-session-id": "session-1",
    "x-turnwright-turn-id": TURN_ID,
}


def kinds(stream: bytes) -> list[str]:
    return [kind for event in samples.boto3_stream(stream) for kind in event]


def test_a_buffered_response_is_the_whole_stream_in_base64(event: dict[str, Any]) -> None:
    response = invoke_agent.handler(event, CONTEXT)

    body = response.pop("body")
    assert response == {"statusCode": 200, "headers": STREAM_HEADERS, "isBase64Encoded": True}
    assert kinds(base64.b64decode(body, validate=True)) == ["trace", "chunk"]
    json.dumps(body)


def test_a_streamed_response_is_its_head_and_then_the_frames(event: dict[str, Any]) -> None:
    head, body = invoke_agent.stream_handler(event, CONTEXT)

    assert head == {"statusCode": 200, "headers": STREAM_HEADERS}
    assert json.loads(json.dumps(head)) == head
    assert kinds(b"".join(body)) == ["trace", "chunk"]


@pytest.mark.parametrize("streamed", [True, False])
def test_an_error_has_its_status_in_either_form(event: dict[str, Any], streamed: bool) -> None:
    event["pathParameters"]["agentId"] = "NOBODY"

    if streamed:
        head, pieces = invoke_agent.stream_handler(event, CONTEXT)
        body = b"".join(pieces)
    else:
        head = invoke_agent.handler(event, CONTEXT)
        body = base64.b64decode(head["body"], validate=True)

    assert (head["statusCode"], head["headers"]) == (
        404,
        {"Content-Type": "application/json", "x-amzn-ErrorType": "ResourceNotFoundException"},
    )
    assert json.loads(body) == {
        "message": "There is no agent 'NOBODY'.",
        "__type": "ResourceNotFoundException",
    }
