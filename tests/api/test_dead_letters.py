"""`python -m local dead-letters` on the running stack: shows letters, keeps them, and sends them again."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local.__main__ import main
from local.aws.faults import Faults
from local.bedrock.scripted_model import ScriptedModel
from local.commands.executions import Execution, read_execution
from local.stack import LocalStack
from tests.waiting import eventually, patient
from tests.workflow.turns import ask, calls, fails, new_session, says
from turnwright.memory.records.records import Records
from turnwright.storage import keys
from turnwright.storage.table import Table

TOOL = "MisbehavingToolFunction"
QUEUES = ("DeadLetterQueueUrl", "ToolDeadLetterQueueUrl")


@pytest.fixture
def faults(stack: LocalStack) -> Iterator[Faults]:
    yield stack.faults
    stack.faults.replace([])


@pytest.fixture(autouse=True)
def queues(stack: LocalStack) -> Iterator[dict[str, str]]:
    """The URLs of the queues, which are empty, and are left empty for the tests of other files."""
    urls = {name: stack.outputs[name] for name in QUEUES}
    for url in urls.values():
        empty(stack, url)
    yield urls
    for url in urls.values():
        empty(stack, url)


def empty(stack: LocalStack, url: str) -> None:
    """PurgeQueue is allowed once a minute."""
    sqs = stack.client("sqs")
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        for message in messages:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


@pytest.fixture
def dead_letters(stack: LocalStack, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, list[str]]]:
    """Calls the command: its exit status and the lines that it printed."""

    def call(*arguments: str) -> tuple[int, list[str]]:
        status = main(["dead-letters", "--aws-url", stack.aws_url, *arguments])
        printed = capsys.readouterr()
        return status, (printed.out + printed.err).splitlines()

    return call


def given_up_call(model: ScriptedModel, client: Any, faults: Faults, text: str = "ping") -> str:
    """A turn whose call of `echo` is given up since its function is throttled; returns the turn's id."""
    faults.replace([{"function": TOOL, "when": {"function": "echo"}, "fault": "throttle"}])
    model.replace([calls(("echo", {"text": text}), step=1), says("It is busy.")])
    told = ask(client, "echo")
    assert told.answer == "It is busy."
    return told.turn_id


def failed_turn(stack: LocalStack, model: ScriptedModel, client: Any, queues: dict[str, str]) -> str:
    """A turn that fails since the model refuses it; returns its id when its letter is there."""
    model.replace([fails("ValidationException", 400)])
    told = ask(client, "hello")
    assert told.error
    eventually(lambda: waiting(stack, queues["DeadLetterQueueUrl"]) == 1, "the turn's letter")
    return told.turn_id


def failed_consolidation(
    stack: LocalStack, model: ScriptedModel, client: Any, queues: dict[str, str], actor: str
) -> None:
    """A session of the banking agent that cannot be consolidated since the model refuses it; its letter is there."""
    model.replace([says("Noted.", forcedTool=""), fails("ValidationException", 400)])
    caller = {"agentId": "BANKASSIST", "memoryId": actor, "session": new_session()}
    assert ask(client, "I report in USD.", **caller).answer == "Noted."
    ask(client, "", **caller, endSession=True)
    eventually(lambda: waiting(stack, queues["DeadLetterQueueUrl"]) == 1, "the consolidation's letter")


def fills(tool: str, **fields: Any) -> dict[str, Any]:
    """A reply of the scripted model to what forces the tool."""
    return {"when": {"forcedTool": tool}, "reply": {"toolUse": [{"name": tool, "input": fields}]}}


def started_again(stack: LocalStack, line: str) -> Execution:
    """The execution that the command's line names, when it has ended."""
    arn = line.partition("(")[2].partition(")")[0]
    stepfunctions = stack.client("stepfunctions")
    eventually(lambda: read_execution(stepfunctions, arn).status != "RUNNING", "the end of the new turn")
    return read_execution(stepfunctions, arn)


def waiting(stack: LocalStack, url: str) -> int:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    attributes = stack.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    assert attributes["ApproximateNumberOfMessagesNotVisible"] == "0", "a letter was not put back"
    return int(attributes["ApproximateNumberOfMessages"])


def ran_with(folder: Path, key: str) -> int:
    """How often the test tool ran with an idempotency key."""
    return sum(path.read_text().splitlines().count(key) for path in folder.iterdir())


def test_without_letters_it_says_so(dead_letters: Callable[..., tuple[int, list[str]]]) -> None:
    assert dead_letters() == (0, ["no dead letters"])
    assert dead_letters("--json") == (0, ["[]"])


def test_letters_of_both_queues_are_rows_and_looking_at_them_loses_none(
    stack: LocalStack,
    model: ScriptedModel,
    agent_client: Any,
    faults: Faults,
    queues: dict[str, str],
    dead_letters: Callable[..., tuple[int, list[str]]],
) -> None:
    called = given_up_call(model, agent_client, faults)
    failed = failed_turn(stack, model, agent_client, queues)
    status, lines = dead_letters()
    assert status == 0
    assert lines[0].split("  ")[0] == "when"
    [tool_row, turn_row] = [line.split()[2:] for line in lines[1:]]
    assert tool_row[:4] == ["tools", "echo", "THROTTLING", "3"]
    assert tool_row[4].startswith(f"{called}/1/")
    assert turn_row == ["turns", "Invoke", "Model", "ModelsExhausted", "-", failed]
    assert {line.index(column) for line, column in zip(lines[1:], ("tools", "turns"), strict=True)} == {
        lines[0].index("queue")
    }
    assert dead_letters() == (0, lines)
    assert dead_letters("--queue", "turns")[1][1:] == lines[2:]
    assert [waiting(stack, url) for url in queues.values()] == [1, 1]


def test_json_holds_all_that_is_needed_to_repeat_a_call(
    stack: LocalStack,
    model: ScriptedModel,
    agent_client: Any,
    faults: Faults,
    dead_letters: Callable[..., tuple[int, list[str]]],
) -> None:
    turn_id = given_up_call(model, agent_client, faults)
    [shown] = json.loads("\n".join(dead_letters("--json", "--queue", "tools")[1]))
    assert shown["queue"] == "tools"
    letter = shown["letter"]
    event = letter["event"]["inline"]
    assert (letter["turnId"], letter["toolName"], letter["attempts"]) == (turn_id, "echo", 3)
    assert event["parameters"] == [{"name": "text", "type": "string", "value": "ping"}]
    assert event["idempotencyKey"] == letter["idempotencyKey"]

    faults.replace([])
    answer = stack.client("lambda").invoke(FunctionName=letter["functionArn"], Payload=json.dumps(event).encode())
    body = json.loads(answer["Payload"].read())["response"]["functionResponse"]["responseBody"]
    assert body == {"TEXT": {"body": "ping"}}


def test_a_tool_call_that_goes_well_is_answered_and_its_letter_deleted(
    stack: LocalStack,
    model: ScriptedModel,
    agent_client: Any,
    faults: Faults,
    tool_calls: Path,
    queues: dict[str, str],
    dead_letters: Callable[..., tuple[int, list[str]]],
) -> None:
    turn_id = given_up_call(model, agent_client, faults)
    [letter] = json.loads("\n".join(dead_letters("--json")[1]))
    key = letter["letter"]["idempotencyKey"]
    assert ran_with(tool_calls, key) == 0
    faults.replace([])
    status, lines = dead_letters("--send-again", turn_id[:10])
    assert (status, lines) == (0, ["ping", "echo was called again and answered; its letter is deleted"])
    assert ran_with(tool_calls, key) == 1
    assert waiting(stack, queues["ToolDeadLetterQueueUrl"]) == 0


def test_an_event_that_is_kept_in_the_bucket_is_sent_again(
    model: ScriptedModel,
    agent_client: Any,
    faults: Faults,
    dead_letters: Callable[..., tuple[int, list[str]]],
) -> None:
    text = "0123456789" * 20_000
    turn_id = given_up_call(model, agent_client, faults, text)
    [letter] = json.loads("\n".join(dead_letters("--json")[1]))
    assert letter["letter"]["event"].keys() == {"object", "bytes"}
    faults.replace([])
    assert dead_letters("--queue", "tools", "--send-again", turn_id)[1][0] == text


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"fault": "throttle", "message": "still busy"}, "still busy"),
        ({"fault": "error", "errorType": "OutOfOrder", "message": "still broken"}, "still broken"),
        ({"fault": "garbage"}, "INVALID_RESPONSE"),
    ],
)
def test_a_tool_call_that_fails_again_stays_in_the_queue(
    fault: dict[str, Any],
    reason: str,
    stack: LocalStack,
    model: ScriptedModel,
    agent_client: Any,
    faults: Faults,
    queues: dict[str, str],
    dead_letters: Callable[..., tuple[int, list[str]]],
) -> None:
    turn_id = given_up_call(model, agent_client, faults)
    faults.replace([{"function": TOOL, **fault}])
    status, [line] = dead_letters("--send-again", turn_id)
    assert status == 1
    assert line.startswith("turnwright: echo failed again, and its letter stays: ")
    assert reason in line
    assert waiting(stack, queues["ToolDeadLetterQueueUrl"]) == 1


def test_the_request_of_a_failed_turn_is_started_again_as_a_new_turn(
    stack: LocalStack,
    model: ScriptedModel,
    agent_client: Any,
    queues: dict[str, str],
    dead_letters: Callable[..., tuple[int, list[str]]],
) -> None:
    failed = failed_turn(stack, model, agent_client, queues)
    model.replace([says("Hello.", text="hello")])
    status, [line] = dead_letters("--send-again", failed)
    assert status == 0
    assert line.startswith(f"the request of turn {failed} was started again as turn ")
    execution = started_again(stack, line)
    assert execution.status == "SUCCEEDED"
    assert execution.input["turnId"] == execution.name != failed
    assert waiting(stack, queues["DeadLetterQueueUrl"]) == 0


def test_a_turn_that_was_redriven_since_is_not_asked_again(
    stack: LocalStack,
    model: ScriptedModel,
    agent_client: Any,
    queues: dict[str, str],
    dead_letters: Callable[..., tuple[int, list[str]]],
) -> None:
    failed = failed_turn(stack, model, agent_client, queues)
    model.replace([says("Hello.")])
    model.pause()
    arn = stack.execution_arn(failed)
    stack.client("stepfunctions").redrive_execution(executionArn=arn)
    model.wait_for_requests(1, patient(20))
    running = f"turnwright: the turn {failed} runs again, since it was redriven; the letter stays"
    assert dead_letters("--send-again", failed) == (1, [running])
    model.resume()
    eventually(lambda: read_execution(stack.client("stepfunctions"), arn).status == "SUCCEEDED", "it is redriven")
    committed = f"the turn {failed} was committed since; its letter is deleted"
    assert dead_letters("--send-again", failed) == (0, [committed])
    assert len(model.requests) == 1
    assert waiting(stack, queues["DeadLetterQueueUrl"]) == 0


def test_a_turn_whose_actor_was_erased_since_is_not_made_again(
    stack: LocalStack,
    model: ScriptedModel,
    agent_client: Any,
    queues: dict[str, str],
    dead_letters: Callable[..., tuple[int, list[str]]],
) -> None:
    failed = failed_turn(stack, model, agent_client, queues)
    partition, sort = keys.turn_header(failed)
    stack.client("dynamodb").delete_item(
        TableName=stack.outputs["TableName"], Key={"PK": {"S": partition}, "SK": {"S": sort}}
    )
    erased = f"turnwright: the turn {failed} was erased since and is not made again; the letter stays"
    assert dead_letters("--send-again", failed) == (1, [erased])
    assert waiting(stack, queues["DeadLetterQueueUrl"]) == 1


@pytest.mark.parametrize("wrapped", [False, True], ids=["by EventBridge", "by Lambda"])
def test_an_event_that_could_not_be_recorded_is_a_letter_too(
    wrapped: bool,
    stack: LocalStack,
    model: ScriptedModel,
    agent_client: Any,
    queues: dict[str, str],
    dead_letters: Callable[..., tuple[int, list[str]]],
) -> None:
    failed = failed_turn(stack, model, agent_client, queues)
    sqs, url = stack.client("sqs"), queues["DeadLetterQueueUrl"]
    empty(stack, url)
    arn = stack.execution_arn(failed)
    event = {"detail": {"executionArn": arn, "name": failed, "status": "TIMED_OUT", "error": None, "cause": None}}
    sqs.send_message(QueueUrl=url, MessageBody=json.dumps({"requestPayload": event} if wrapped else event))
    assert dead_letters()[1][1].split()[2:] == ["turns", "-", "TIMED_OUT", "-", failed]
    model.replace([says("Hello.")])
    status, [line] = dead_letters("--send-again", failed)
    assert (status, started_again(stack, line).status) == (0, "SUCCEEDED")
    assert waiting(stack, url) == 0


def test_copies_of_a_letter_are_deleted_with_it(
    stack: LocalStack,
    model: ScriptedModel,
    agent_client: Any,
    faults: Faults,
    tool_calls: Path,
    queues: dict[str, str],
    dead_letters: Callable[..., tuple[int, list[str]]],
) -> None:
    given_up_call(model, agent_client, faults)
    [letter] = json.loads("\n".join(dead_letters("--json")[1]))
    url = queues["ToolDeadLetterQueueUrl"]
    stack.client("sqs").send_message(QueueUrl=url, MessageBody=json.dumps(letter["letter"]))
    faults.replace([])
    key = letter["letter"]["idempotencyKey"]
    assert dead_letters("--send-again", key)[0] == 0
    assert (ran_with(tool_calls, key), waiting(stack, url)) == (1, 0)


def test_what_means_no_letter_or_several_is_one_line_and_changes_nothing(
    stack: LocalStack,
    model: ScriptedModel,
    agent_client: Any,
    faults: Faults,
    queues: dict[str, str],
    dead_letters: Callable[..., tuple[int, list[str]]],
) -> None:
    faults.replace([{"function": TOOL, "fault": "throttle"}])
    model.replace([calls(("echo", {"text": "a"}), ("echo", {"text": "b"}), step=1), says("busy")])
    turn_id = ask(agent_client, "go").turn_id
    stack.client("sqs").send_message(QueueUrl=queues["ToolDeadLetterQueueUrl"], MessageBody="not a letter")
    status, [line] = dead_letters("--send-again", turn_id)
    assert status == 1
    assert f"{turn_id} means more than one letter: {turn_id}/1/" in line
    assert dead_letters("--send-again", "nothing") == (1, ["turnwright: there is no letter of nothing"])
    assert dead_letters("--send-again", "-") == (1, ["turnwright: there is no letter of -"])
    assert waiting(stack, queues["ToolDeadLetterQueueUrl"]) == 3
    assert dead_letters()[1][3].split()[2:] == ["tools", "-", "-", "-", "-"]


def test_a_failed_consolidation_is_shown_and_made_again(
    stack: LocalStack,
    model: ScriptedModel,
    agent_client: Any,
    queues: dict[str, str],
    dead_letters: Callable[..., tuple[int, list[str]]],
) -> None:
    actor = f"actor-{new_session()}"
    failed_consolidation(stack, model, agent_client, queues, actor)
    [letter] = json.loads("\n".join(dead_letters("--json")[1]))
    consolidation = letter["letter"]["consolidationId"]
    row = dead_letters()[1][1].split()[2:]
    assert (row[0], row[-3:]) == ("turns", ["ModelRejected", "-", consolidation])
    model.replace(
        [
            fills("record_facts", records=[{"key": "currency", "text": "The user reports in USD."}]),
            fills("summarize_session", summary="The user told a currency."),
        ]
    )
    status, [line] = dead_letters("--send-again", consolidation[:12])
    assert status == 0
    assert line.startswith(f"the consolidation {consolidation} was started again as execution ")
    execution = started_again(stack, line)
    assert (execution.status, execution.input) == ("SUCCEEDED", letter["letter"]["input"])
    records = Records(Table(stack.client("dynamodb"), stack.outputs["TableName"]))
    found = records.of_actor("BANKASSIST-turnwright", actor)
    assert {record.text for record in found} == {"The user reports in USD."}
    assert waiting(stack, queues["DeadLetterQueueUrl"]) == 0


def test_what_a_consolidation_skipped_is_shown_and_not_made_again(
    stack: LocalStack, queues: dict[str, str], dead_letters: Callable[..., tuple[int, list[str]]]
) -> None:
    letter = {
        "consolidationId": "c1",
        "executionArn": stack.execution_arn("c1", "ConsolidateMemoryStateMachine"),
        "skipped": "risk_profile",
        "failure": {"error": "BrokenAnswer", "cause": "records: is missing"},
        "input": {"consolidationId": "c1"},
    }
    stack.client("sqs").send_message(QueueUrl=queues["DeadLetterQueueUrl"], MessageBody=json.dumps(letter))
    assert dead_letters()[1][1].split()[2:] == ["turns", "risk_profile", "BrokenAnswer", "-", "c1"]
    assert dead_letters("--send-again", "c1") == (
        1,
        ["turnwright: the consolidation c1 was written without risk_profile and is not made again; the letter stays"],
    )
    assert waiting(stack, queues["DeadLetterQueueUrl"]) == 1
