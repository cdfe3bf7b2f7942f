"""The real consolidation machine with the real handlers and a scripted model: every state, Retry and Catch."""

import json
import time
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import pytest

from local.bedrock.scripted_model import ScriptedModel
from local.commands.executions import Execution, read_execution
from local.stack import LocalStack
from tests.project import REMEMBERING_AGENT
from tests.stacks import Agent, Stack
from tests.waiting import eventually
from tests.workflow.turns import ask, fails, new_session, says
from turnwright.memory.records.actors import Actors
from turnwright.memory.records.records import Record, Records
from turnwright.memory.records.session_summaries import SessionSummaries
from turnwright.storage import keys
from turnwright.storage.keys import SessionId
from turnwright.storage.table import Table

MACHINE = "ConsolidateMemoryStateMachine"
CONVERSATION = "<conversation>"

EXTRACTED = ["Extract From Chunk", "Extract From Chunk"]
MERGED = ["Merge Records", "Merge Namespace", "Merge Namespace"]
WHOLE = [
    *("Load Session", "Anything Said?", "Extract Records", *EXTRACTED),
    *(*MERGED, "Summarize Session", "Write Records"),
]


def answers(tool: str, value: Mapping[str, Any], **rule: Any) -> dict[str, Any]:
    """What the scripted model answers to a request of memory."""
    reply = {"toolUse": [{"name": tool, "input": dict(value)}]}
    return {**rule, "when": {"text": CONVERSATION, **rule.get("when", {})}, "reply": reply}


def extracts(*texts: str, times: int = 2, **rule: Any) -> dict[str, Any]:
    """Once for each of the two namespaces."""
    records = [{"key": text.split()[-1], "text": text} for text in texts]
    return answers("record_facts", {"records": records}, times=times, **rule)


def summarizes(text: str) -> dict[str, Any]:
    return answers("summarize_session", {"summary": text})


class Memory:
    """An actor's memory in the running stack."""

    def __init__(self, stack: Stack, client: Any, agent: str = REMEMBERING_AGENT) -> None:
        self.stack = stack
        self.agent = agent
        self.store = f"{agent}-turnwright"
        self.client = client
        self.actor = f"actor-{uuid4().hex[:8]}"
        self.table = Table(stack.client("dynamodb"), stack.outputs["TableName"])
        self.session = new_session()

    def say(self, text: str) -> None:
        told = ask(self.client, text, self.session, agentId=self.agent, memoryId=self.actor)
        assert told.error is None, told.message

    def end(self) -> None:
        ask(self.client, "bye", self.session, agentId=self.agent, memoryId=self.actor, endSession=True)

    def consolidated(self, status: str = "SUCCEEDED") -> Execution:
        """The execution of the session's consolidation, when it has ended."""
        stepfunctions = self.stack.client("stepfunctions")
        found: list[Execution] = []

        def ended() -> bool:
            machine = self.stack.outputs["ConsolidationStateMachineArn"]
            for entry in stepfunctions.list_executions(stateMachineArn=machine)["executions"]:
                described = stepfunctions.describe_execution(executionArn=entry["executionArn"])
                if json.loads(described["input"])["sessionId"] == self.session and described["status"] != "RUNNING":
                    found.append(read_execution(stepfunctions, entry["executionArn"]))
            return bool(found)

        eventually(ended, f"the consolidation of {self.session} ends", seconds=60)
        (execution,) = found
        assert execution.status == status, f"{execution.error}: {execution.cause}"
        return execution

    def records(self) -> list[Record]:
        return Records(self.table).of_actor(self.store, self.actor)

    def texts(self) -> list[tuple[str, str]]:
        return sorted((record.strategy, record.text) for record in self.records())

    def summaries(self) -> list[str]:
        return [summary.text for summary in SessionSummaries(self.table).latest(self.store, self.actor, 10)]

    def item(self) -> Mapping[str, Any]:
        item = self.table.get(keys.session(SessionId(self.store, self.actor, self.session)))
        assert item is not None
        return item

    def segments(self) -> list[Mapping[str, Any]]:
        partition = SessionId(self.store, self.actor, self.session).partition
        return list(self.table.query(partition, keys.SEGMENT_PREFIX, keys.SEGMENT_PREFIX + keys.END))


@pytest.fixture
def memory(stack: Stack, agent_client: Any) -> Memory:
    return Memory(stack, agent_client)


def told(model: ScriptedModel) -> list[str]:
    """What the model was shown of each request of memory."""
    return [
        request.body["messages"][-1]["content"][-1]["text"]
        for request in model.requests
        if "toolConfig" in request.body and "toolChoice" in request.body["toolConfig"]
    ]


def test_an_ended_session_becomes_records_and_a_summary(model: ScriptedModel, memory: Memory) -> None:
    model.replace([extracts("Reports in USD"), summarizes("They set a currency."), says("Noted.")])
    memory.say("I report in USD")
    memory.end()
    execution = memory.consolidated()
    assert sorted(execution.states) == sorted(WHOLE)
    assert execution.output == {
        "consolidationId": execution.name,
        "status": "WRITTEN",
        "added": 2,
        "changed": 0,
        "removed": 0,
        "summarized": True,
        "skipped": [],
    }
    assert memory.texts() == [("preferences", "Reports in USD"), ("projects", "Reports in USD")]
    assert memory.summaries() == ["They set a currency."]
    assert [segment["status"] for segment in memory.segments()] == ["DONE"]
    assert all("I report in USD" in text for text in told(model))


def test_an_ended_session_becomes_a_summary_and_whatever_records_the_model_finds(
    stack: Stack, agent_client: Any, banking_assistant: Agent
) -> None:
    memory = Memory(stack, agent_client, banking_assistant["agentId"])
    memory.say("I report in USD, and I rule out loans.")
    memory.end()
    execution = memory.consolidated()
    assert set(execution.states) == set(WHOLE)
    assert (execution.output["status"], execution.output["skipped"]) == ("WRITTEN", [])
    assert len(memory.records()) == execution.output["added"] > 0
    assert len(memory.summaries()) == 1
    assert [segment["status"] for segment in memory.segments()] == ["DONE"]


def test_a_later_session_is_given_what_an_earlier_one_settled(model: ScriptedModel, memory: Memory) -> None:
    model.replace([extracts("Reports in USD"), summarizes("They set a currency."), says("Noted.")])
    memory.say("I report in USD")
    memory.end()
    memory.consolidated()
    memory.session = new_session()
    memory.say("What do you know?")
    system = json.dumps(model.requests[-1].body["system"])
    assert "Reports in USD" in system
    assert "They set a currency." in system


def test_ending_a_session_twice_consolidates_it_once(model: ScriptedModel, memory: Memory) -> None:
    model.replace([extracts("Reports in USD"), summarizes("s"), says("Noted.")])
    memory.say("I report in USD")
    memory.end()
    memory.end()
    memory.consolidated()
    assert len(memory.segments()) == 1


@pytest.mark.parametrize(
    ("kind", "status"),
    [("ThrottlingException", 429), ("ServiceUnavailableException", 503), ("AccessDeniedException", 403)],
)
def test_a_model_that_fails_is_tried_again_and_the_next_model_is_asked(
    model: ScriptedModel, memory: Memory, kind: str, status: int
) -> None:
    failing = fails(kind, status, when={"text": CONVERSATION, "model": "first-model"}, times=2)
    model.replace([failing, extracts("Reports in USD"), summarizes("s"), says("Noted.")])
    memory.say("I report in USD")
    memory.end()
    execution = memory.consolidated()
    extractions = [visit for visit in execution.visits if visit.name == "Extract From Chunk"]
    assert sorted(visit.attempts for visit in extractions) == [2, 2]
    assert len(memory.records()) == 2


def test_a_model_that_may_not_be_forced_is_asked_again_and_what_it_writes_is_remembered(
    model: ScriptedModel, memory: Memory
) -> None:
    refused = fails("ValidationException", 400, when={"text": CONVERSATION, "has": "toolConfig.toolChoice"})
    records = {"records": [{"key": "USD", "text": "Reports in USD"}]}
    wrote = [
        {"when": {"forcedTool": tool}, "reply": {"text": f"```json\n{json.dumps(value)}\n```"}}
        for tool, value in (("record_facts", records), ("summarize_session", {"summary": "They set a currency."}))
    ]
    model.replace([refused, *wrote, says("Noted.")])
    memory.say("I report in USD")
    memory.end()
    execution = memory.consolidated()

    assert execution.states == WHOLE
    assert memory.texts() == [("preferences", "Reports in USD"), ("projects", "Reports in USD")]
    assert memory.summaries() == ["They set a currency."]


def test_a_model_that_may_not_be_forced_and_says_anything_else_has_not_said_that_nothing_is_to_be_remembered(
    stack: LocalStack, model: ScriptedModel, memory: Memory
) -> None:
    refused = fails("ValidationException", 400, when={"text": CONVERSATION, "has": "toolConfig.toolChoice"})
    chatty = {"when": {"forcedTool": "record_facts"}, "reply": {"text": "There is nothing to remember."}}
    model.replace([refused, chatty, summarizes("s"), says("Noted.")])
    memory.say("I report in USD")
    memory.end()

    execution = memory.consolidated()

    assert sorted(execution.output["skipped"]) == ["preferences", "projects"]
    assert memory.texts() == []
    assert {letter["skipped"] for letter in letters(stack, execution.name)} <= {"preferences", "projects"}


def test_a_broken_answer_skips_its_namespace_and_the_letter_says_which(
    stack: LocalStack, model: ScriptedModel, memory: Memory
) -> None:
    broken = answers("record_facts", {"records": [{"text": "no key"}]}, times=4)
    model.replace([broken, summarizes("s"), says("Noted.")])
    memory.say("I report in USD")
    memory.end()
    execution = memory.consolidated()
    assert execution.output["skipped"] == ["preferences"]
    assert memory.texts() == [("projects", "no key")]
    (letter,) = letters(stack, execution.name)
    assert (letter["skipped"], letter["executionArn"]) == ("preferences", execution.arn)


def letters(stack: LocalStack, consolidation: str) -> list[dict[str, Any]]:
    """The dead letters of a consolidation, which are taken off the queue."""
    queue, sqs = stack.outputs["DeadLetterQueueUrl"], stack.client("sqs")
    found: list[dict[str, Any]] = []

    def arrived() -> bool:
        for message in sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", ()):
            body = json.loads(message["Body"])
            if body.get("consolidationId") == consolidation:
                found.append(body)
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
            else:
                sqs.change_message_visibility(
                    QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0
                )
        return bool(found)

    eventually(arrived, f"a dead letter of {consolidation} arrives")
    return found


def test_a_failed_consolidation_leaves_nothing_and_is_dead_lettered(
    stack: LocalStack, model: ScriptedModel, memory: Memory
) -> None:
    model.replace([fails("AccessDeniedException", 403, when={"text": CONVERSATION}), says("Noted.")])
    memory.say("I report in USD")
    memory.end()
    execution = memory.consolidated("FAILED")
    assert execution.error == "ModelAccessDenied"
    (letter,) = letters(stack, execution.name)
    assert letter["failure"]["state"] == "Extract From Chunk"
    assert letter["input"] == execution.input
    eventually(lambda: memory.segments()[0]["status"] == "FAILED", "the segment is marked")
    assert "duePK" not in memory.segments()[0]
    assert (memory.texts(), memory.summaries()) == ([], [])


def test_an_actor_that_is_erased_meanwhile_ends_it_well_with_nothing_written(
    model: ScriptedModel, memory: Memory
) -> None:
    model.replace([extracts("Reports in USD"), summarizes("s"), says("Noted.")])
    memory.say("I report in USD")
    model.pause()
    memory.end()
    asked = len(model.requests)
    model.wait_for_requests(asked + 1, 30)
    actor = keys.actor(memory.store, memory.actor)
    memory.stack.client("dynamodb").delete_item(
        TableName=memory.table.name, Key={"PK": {"S": actor.pk}, "SK": {"S": actor.sk}}
    )
    model.resume()
    execution = memory.consolidated()
    assert execution.output == {"consolidationId": execution.name, "status": "ACTOR_ERASED"}
    assert execution.states[-1] == "Forget Consolidation"
    assert memory.texts() == []
    assert Actors(memory.table).read(memory.store, memory.actor) is None


def test_a_record_that_is_written_meanwhile_makes_it_merge_again(model: ScriptedModel, memory: Memory) -> None:
    from turnwright.memory.records import records
    from turnwright.memory.records.records import Provenance

    model.replace([extracts("Reports in USD"), summarizes("s"), says("Noted.")])
    memory.say("I report in USD")
    actor = Actors(memory.table).require(memory.store, memory.actor)
    model.replace([extracts("Reports in USD"), {**summarizes("s"), "delayMs": 3_000}])
    memory.end()
    model.wait_for_requests(3, 30)  # the summary is being made, so that all is merged
    path = f"/preferences/{memory.actor}/"
    place = (memory.store, memory.actor, path)
    other = Record(*place, f"mem-{uuid4()}", "Likes tea", Provenance("TOOL"), "preferences", "drink")
    memory.table.transact([records.added(other), records.known(*place), actor.unchanged()])
    execution = memory.consolidated()
    assert execution.states.count("Merge Records") == 2
    assert execution.states.count("Extract Records") == 1
    assert memory.texts() == [
        ("preferences", "Likes tea"),
        ("preferences", "Reports in USD"),
        ("projects", "Reports in USD"),
    ]
    assert len(model.requests) == 3, "a second merge asks no model again"


def test_the_sweep_ends_idle_sessions_and_starts_their_consolidation(
    stack: LocalStack, model: ScriptedModel, memory: Memory
) -> None:
    model.replace([extracts("Reports in USD"), summarizes("s"), says("Noted.")])
    memory.say("I report in USD")
    make_due(memory)
    stack.events.fire("SweepSessionsFunctionEveryMinute")
    eventually(lambda: memory.item()["status"] == "ENDED", "the session is ended")
    memory.consolidated()
    assert len(memory.records()) == 2
    assert "duePK" not in memory.item()


def make_due(memory: Memory) -> None:
    """As if the session had been idle for long: moves its place in the index `Due`."""
    session = SessionId(memory.store, memory.actor, memory.session)
    due = keys.due(session, round(time.time() * 1000) - 1_000)
    key = keys.session(session)
    memory.stack.client("dynamodb").update_item(
        TableName=memory.table.name,
        Key={"PK": {"S": key.pk}, "SK": {"S": key.sk}},
        UpdateExpression="SET duePK = :partition, dueSK = :at",
        ExpressionAttributeValues={":partition": {"S": due["duePK"]}, ":at": {"S": due["dueSK"]}},
    )


def test_a_long_session_gets_a_digest_behind_its_turns(model: ScriptedModel, memory: Memory) -> None:
    model.replace([answers("digest_session", {"digest": "They count turns."}), says("Noted.")])
    for number in range(2):
        memory.say(f"turn {number}")
    execution = memory.consolidated()
    assert execution.input["kind"] == "DIGEST"
    assert execution.output["status"] == "WRITTEN"
    (digest,) = memory.records()
    assert (digest.text, digest.namespace) == ("They count turns.", f"/session_digest/{memory.actor}/{memory.session}/")
    item = memory.item()
    assert (item["digestedTo"], item["undigestedTurns"], item["undigestedCharacters"]) == (item["lastEventId"], 0, 0)
