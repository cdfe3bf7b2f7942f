"""An agent, a turn and what goes with them, for tests that need some, whichever."""

from dataclasses import replace
from io import BytesIO
from types import SimpleNamespace
from typing import Any

from botocore.eventstream import EventStream, EventStreamBuffer
from botocore.exceptions import EventStreamError
from botocore.parsers import EventStreamJSONParser
from botocore.session import get_session

from turnwright.agents.agent_files import api_schema
from turnwright.agents.definitions import Agent, parse
from turnwright.sessions.values import Turn
from turnwright.storage.documents import Documents

MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
BANK_FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:bank"

DEFINITION: dict[str, Any] = {
    "agentId": "BANKASSIST",
    "agentName": "banking-assistant",
    "instruction": "You help a bank's customers.",
    "foundationModels": [MODEL, "us.amazon.nova-pro-v1:0"],
    "inferenceConfiguration": {"temperature": 0, "topP": 0.5, "maximumLength": 2048, "stopSequences": ["END"]},
    "actionGroups": [
        {
            "actionGroupName": "BankingTools",
            "actionGroupExecutor": {"lambda": BANK_FUNCTION},
            "functionSchema": {
                "functions": [
                    {
                        "name": "get_account_balance",
                        "description": "Returns a balance.",
                        "parameters": {"account_id": {"type": "string", "required": True}},
                    },
                    {
                        "name": "search",
                        "parameters": {
                            "limit": {"type": "integer", "description": "How many."},
                            "least": {"type": "number"},
                            "open": {"type": "boolean"},
                            "kinds": {"type": "array"},
                        },
                    },
                ]
            },
        }
    ],
}


def api_group(openapi: dict[str, Any]) -> dict[str, Any]:
    """An action group of a definition for an OpenAPI document."""
    resolved, findings = api_schema(openapi)
    assert findings == []
    return {
        "actionGroupName": "Claims",
        "actionGroupExecutor": {"lambda": "arn:aws:lambda:us-east-1:123456789012:function:claims"},
        "apiSchema": resolved,
    }


CLAIM_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}
CLAIMS_API = api_group(
    {
        "openapi": "3.0.3",
        "paths": {
            "/claims/{id}": {"get": {"operationId": "get_claim", "parameters": [CLAIM_ID]}},
            "/claims/{id}/notes": {
                "post": {
                    "operationId": "add_note",
                    "parameters": [CLAIM_ID],
                    "requestBody": {
                        "required": True,
                        "content": {
                            "application/json": {
                                "schema": {
                                    "type": "object",
                                    "properties": {
                                        "text": {"type": "string"},
                                        "tags": {"type": "array", "items": {"type": "string"}},
                                    },
                                    "required": ["text"],
                                }
                            }
                        },
                    },
                }
            },
        },
    }
)


def agent(**fields: Any) -> Agent:
    """The agent of DEFINITION, with other top-level fields."""
    return parse({**DEFINITION, **fields}, "3")


def turn(**fields: Any) -> Turn:
    return replace(
        Turn(
            turnId="0123456789abcdef0123456789abcdef",
            agentId="BANKASSIST",
            agentAliasId="live",
            agentVersion="3",
            memoryStore="BANKASSIST-turnwright",
            actor="user_1",
            sessionId="session-1",
            sessionVersion=4,
            historyFrom="",
            historyTo="",
            trace=True,
        ),
        **fields,
    )


class FakeBucket:
    """The two calls of S3 that documents make."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, ContentType: str) -> None:  # noqa: N803
        self.objects[Key] = Body

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803
        return {"Body": BytesIO(self.objects[Key])}


def documents() -> Documents:
    return Documents(FakeBucket(), "bucket")


def messages_of(stream: bytes) -> list[tuple[dict[str, Any], bytes]]:
    """The (headers, payload) of each message of an event stream, read by botocore."""
    buffer = EventStreamBuffer()
    buffer.add_data(stream)
    return [(message.headers, message.payload) for message in buffer]


def boto3_stream(stream: bytes) -> EventStream:
    """What boto3 makes of the bytes of InvokeAgent's stream."""
    shape = get_session().get_service_model("bedrock-agent-runtime").shape_for("ResponseStream")
    return EventStream(SimpleNamespace(stream=lambda: [stream]), shape, EventStreamJSONParser(), "InvokeAgent")


def ended_with(stream: bytes) -> tuple[list[dict[str, Any]], str, str]:
    """The events of a stream before its exception, and the exception's name and message."""
    events: list[dict[str, Any]] = []
    try:
        for event in boto3_stream(stream):
            events.append(event)
    except EventStreamError as error:
        return events, error.response["Error"]["Code"], error.response["Error"]["Message"]
    raise AssertionError(f"the stream ended without an exception, after {events}")
