"""A stack of its own with TracePayloads=REDACTED, real function processes and Lambda's own runtime, which logs what a
handler raises: the secret is in nothing that is there to be read.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EventStreamError

from local.stack import STACK_NAME
from tests.api.test_make_up import Up, start
from tests.waiting import eventually
from tests.workflow.turns import new_session
from turnwright.storage.documents import Documents

pytestmark = pytest.mark.whole

__all__ = ["start"]

SECRET = 'pä"ss\nwörd-4711'
NEVER = "rd-4711"
"""The end of the secret, which no escaping changes."""

SAID = 'pä"ss wörd-4711'
"""The same in a sentence of which the rule model makes a record."""

SCRIPT = {
    "replies": [
        {
            "when": {"text": "fail"},
            "error": {"status": 400, "type": "ValidationException", "message": f"cannot read {SECRET}"},
        },
        {
            "when": {"step": 1},
            "reply": {"text": SECRET, "toolUse": [{"name": "get_account_balance", "input": {"account_id": SECRET}}]},
        },
        {"reply": {"text": f"No account {SECRET}."}},
    ]
}
FAULTS = {
    "faults": [
        {"function": "BankingToolsFunction", "fault": "error", "errorType": "Broken", "message": f"no {SECRET}"},
    ]
}


@pytest.fixture
def up(start: Callable[..., Up], tmp_path: Path) -> Up:
    script, faults = tmp_path / "script.json", tmp_path / "faults.json"
    script.write_text(json.dumps(SCRIPT))
    faults.write_text(json.dumps(FAULTS))
    return start("--model", f"script:{script}", "--faults", str(faults), *redacted())


def redacted() -> list[str]:
    parameters = [r'TraceRedactPatterns=pä"ss\swörd-\d{4}', "TracePayloads=REDACTED", "LogExecutionData=true"]
    return [option for parameter in parameters for option in ("--parameter", parameter)]


def ask(up: Up, text: str, session: str = "", **fields: Any) -> tuple[str, str]:
    """The answer and the traces of a turn, as text; of a failed turn what the caller was told."""
    response = up.client("bedrock-agent-runtime").invoke_agent(
        agentId="BANKASSIST",
        agentAliasId="live",
        sessionId=session or new_session(),
        inputText=text,
        enableTrace=True,
        **fields,
    )
    answer, traces = "", ""
    try:
        for event in response["completion"]:
            if "chunk" in event:
                answer += event["chunk"]["bytes"].decode()
            else:
                traces += json.dumps(event["trace"], default=str)
    except EventStreamError as error:
        answer = str(error)
    return answer, traces


def physical_id(up: Up, logical_id: str) -> str:
    answer = up.client("cloudformation").describe_stack_resource(StackName=STACK_NAME, LogicalResourceId=logical_id)
    return str(answer["StackResourceDetail"]["PhysicalResourceId"])


def logged(up: Up) -> str:
    pages = (
        up.client("logs").get_paginator("filter_log_events").paginate(logGroupName=physical_id(up, "RuntimeLogGroup"))
    )
    return "\n".join(event["message"] for page in pages for event in page["events"])


def letter(up: Up, queue: str) -> str:
    """The one letter that comes into the queue."""
    found: list[str] = []

    def arrived() -> bool:
        url = physical_id(up, queue)
        messages = up.client("sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
        found.extend(message["Body"] for message in messages)
        return bool(found)

    eventually(arrived, f"a letter in {queue}")
    (body,) = found
    return body


def trace_items(up: Up) -> str:
    """The trace items, and what they have in the bucket."""
    pages = up.client("dynamodb").get_paginator("scan").paginate(TableName=physical_id(up, "Table"))
    found = [item for page in pages for item in page["Items"] if item["SK"]["S"].startswith("TRACE#")]
    documents = Documents(up.client("s3"), physical_id(up, "Bucket"))
    return json.dumps([documents.fetch_text(item["event"]["S"]) for item in found])


def test_a_secret_in_everything_is_in_no_log_no_trace_and_no_dead_letter(up: Up) -> None:
    answer, traces = ask(up, f"My word is {SECRET}")
    told, failed_traces = ask(up, f"fail {SECRET}")

    assert answer == f"No account {SECRET}.", "the caller gets what the model said"
    assert "ModelsExhausted" in told
    eventually(lambda: '"TURN_FAILED"' in logged(up), "the log has the failed turn")
    found = {
        "stream": traces + failed_traces + told,
        "turn's letter": letter(up, "DeadLetterQueue"),
        "tool's letter": letter(up, "ToolDeadLetterQueue"),
        "log": logged(up),
        "items": trace_items(up),
    }
    stepfunctions = up.client("stepfunctions")
    executions = stepfunctions.list_executions(stateMachineArn=physical_id(up, "AgentTurnStateMachine"))["executions"]
    assert len(executions) == 2
    for listed in executions:
        execution = stepfunctions.describe_execution(executionArn=listed["executionArn"])
        found[f"input and cause of {listed['name']}"] = f"{execution['input']} {execution.get('cause')}"

    assert "ToolAttemptFailed" in found["log"], "Lambda's runtime logs what a handler raises"
    assert "ModelRejected" in found["log"]
    assert '"TOOL_INVOCATION"' in found["items"]
    for place, text in found.items():
        assert NEVER not in text, place
    assert "[REDACTED]" in found["log"]


def executions(up: Up, machine: str) -> list[dict[str, Any]]:
    client = up.client("stepfunctions")
    listed = client.list_executions(stateMachineArn=physical_id(up, machine))["executions"]
    return [client.describe_execution(executionArn=each["executionArn"]) for each in listed]


def test_a_secret_in_memory_is_in_no_log_no_trace_and_no_dead_letter(start: Callable[..., Up], tmp_path: Path) -> None:
    """It is remembered by a tool and by a consolidation, after one that failed with it, found by a search, and shown to
    the model of a later session.
    """
    faults = tmp_path / "faults.json"
    broken = {"fault": "error", "errorType": "Broken", "message": f"no {SECRET}", "times": 1}
    faults.write_text(json.dumps({"faults": [{"function": "MergeRecordsFunction", **broken}]}))
    up = start("--model", "rule", "--faults", str(faults), *redacted())
    actor, streams = "remembering", ""

    def say(text: str, session: str) -> str:
        nonlocal streams
        answer, traces = ask(up, text, session, memoryId=actor)
        streams += traces
        return answer

    def end(session: str, status: str) -> None:
        response = up.client("bedrock-agent-runtime").invoke_agent(
            agentId="BANKASSIST",
            agentAliasId="live",
            sessionId=session,
            memoryId=actor,
            endSession=True,
            inputText=SECRET,
        )
        assert list(response["completion"])
        eventually(
            lambda: status in [each["status"] for each in executions(up, "ConsolidateMemoryStateMachine")],
            f"a consolidation that {status}",
        )

    first, second = new_session(), new_session()
    say(f"/call remember {json.dumps({'namespace': 'project_context', 'text': f'The word is {SECRET}'})}", first)
    assert NEVER in say('/call search_memory {"query": "the word"}', first), "the tool's result has it"
    end(first, "FAILED")
    say(f"I report in EUR and {SAID}.", second)
    end(second, "SUCCEEDED")
    assert say("What do you know about me?", new_session()).count(NEVER) >= 2, "both records were shown to the model"

    found = {
        "streams": streams,
        "letter": letter(up, "DeadLetterQueue"),
        "log": logged(up),
        "items": trace_items(up),
        "consolidations": json.dumps(
            [(each["input"], each.get("output")) for each in executions(up, "ConsolidateMemoryStateMachine")]
        ),
    }
    for place, text in found.items():
        assert NEVER not in text, place
    for kind in ("MEMORY_WRITE", "MEMORY_RETRIEVAL"):
        assert kind in found["log"]
        assert kind in found["items"]
    assert "[REDACTED]" in found["items"]
    assert "[REDACTED]" in found["letter"]
