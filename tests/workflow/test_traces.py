"""The trace of many different turns, read from the log as a person on call reads it."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

import pytest
from botocore.exceptions import EventStreamError

from local.__main__ import main
from local.bedrock.scripted_model import ScriptedModel
from local.stack import LocalStack
from tests import logs_insights, trace_schema
from tests.infrastructure.test_template import of_type
from tests.waiting import eventually
from tests.workflow.turns import ask, calls, fails, new_session, says

THE_ISSUES_QUERY = """
fields @timestamp, step, toolName, attempt, status, durationMs
| filter sessionId = "session_abc123"
| sort @timestamp asc
"""
EIGHT = [*[("echo", {"text": f"é {number} <b>"}) for number in range(6)], ("fly", {}), ("strict", {"how": "raise"})]
SCRIPT = [
    says("Plain.", text="plain"),
    calls(("misbehave", {"how": "throttle", "times": 1}), text="throttled", step=1),
    calls(*EIGHT, text="parallel", step=1),
    calls(("echo", {"wrong": 1}), text="parallel", step=2),
    fails("AccessDeniedException", 403, when={"text": "rejected", "model": "first-model"}),
    calls(("echo", {"text": "by the second model"}), text="rejected", step=1),
    calls(("misbehave", {"how": "exit"}), text="crash", step=1),
    calls(("misbehave", {"how": "long"}), text="long", step=1),
    fails("AccessDeniedException", 403, when={"text": "dead"}),
    says("The end."),
]
KINDS = ("plain", "throttled", "parallel", "rejected", "crash", "long", "lost", "dead")


@dataclass(frozen=True, slots=True)
class Run:
    """What was logged of many turns, by session, and how each was answered; the sessions by kind of turn."""

    lines: list[dict[str, Any]]
    answers: dict[str, str]
    kinds: dict[str, list[str]]
    prompts: list[Any]

    def events(self, session: str) -> list[dict[str, Any]]:
        rows = logs_insights.query(THE_ISSUES_QUERY.replace("session_abc123", session), self.lines)
        assert rows
        chain = 'fields @message | filter sessionId = "{}" | sort @timestamp asc'
        found = [json.loads(row["@message"]) for row in logs_insights.query(chain.format(session), self.lines)]
        events = [event for line in found if (event := trace_schema.event_of(line))]
        return sorted(events, key=lambda event: event["timestamp"])  # a busy machine reads parallel tools' lines late


@pytest.fixture(scope="module")
def run(stack: LocalStack) -> Iterator[Run]:
    """Two rounds of each kind, one traced and one not; a session has two turns of a kind in each round."""
    model, client = stack.model, stack.caller()
    assert isinstance(model, ScriptedModel)
    model.replace(SCRIPT)
    answers: dict[str, str] = {}
    kinds: dict[str, list[str]] = {}
    for traced in (True, False):
        for kind in KINDS:
            session = new_session()
            kinds.setdefault(kind, []).append(session)
            for _ in range(2 if kind != "dead" else 1):
                if kind == "lost":
                    stack.faults.replace([{"function": "InvokeToolFunction", "fault": "crash", "times": 1}])
                text = "throttled" if kind == "lost" else kind
                answers[session] = _ask(client, text, session, traced=traced)
    stack.faults.replace([])
    sessions = [session for of_kind in kinds.values() for session in of_kind]
    ended: dict[str, Any] = {}

    def all_logged() -> bool:
        lines = logs_insights.lines_of(stack.client("logs"), stack.outputs["RuntimeLogGroup"])
        ends = [line["sessionId"] for line in lines if line.get("type") in ("FINAL_RESPONSE", "TURN_FAILED")]
        ended["lines"] = lines
        return all(ends.count(session) >= (1 if session in kinds["dead"] else 2) for session in sessions)

    eventually(all_logged, "the log has the end of every turn")
    yield Run(ended["lines"], answers, kinds, [request.body for request in model.requests])
    model.replace([])


def _ask(client: Any, text: str, session: str, *, traced: bool) -> str:
    try:
        return ask(client, f"{text} 😀 <script>", session, enableTrace=traced).answer
    except EventStreamError as error:
        return str(error)


def test_every_event_in_the_log_keeps_to_the_schema(run: Run) -> None:
    events = [event for line in run.lines if (event := trace_schema.event_of(line))]
    assert len(events) > 100
    for event in events:
        trace_schema.check(event)


def test_the_chain_of_each_turn_is_rebuilt_from_its_events_alone(run: Run) -> None:
    rebuilt = 0
    for kind, sessions in run.kinds.items():
        for session in sessions:
            events = run.events(session)
            turn_ids = list(dict.fromkeys(event["turnId"] for event in events))
            for turn_id in turn_ids:
                conversation = rebuild([event for event in events if event["turnId"] == turn_id])
                if kind != "dead":
                    assert conversation[-1] == run.answers[session]
                rebuilt += 1
            assert len(turn_ids) == (1 if kind == "dead" else 2)
    assert rebuilt == 2 * (2 * len(KINDS) - 1)


def rebuild(events: list[dict[str, Any]]) -> list[Any]:
    """What the model was shown, in order, put together from choices and results; each prompt is compared with it."""
    if events[-1]["type"] == "TURN_FAILED":
        return [events[-1]["error"]]
    conversation: list[Any] = []
    final = events[-1]
    for number in range(1, final["step"] + 1):
        step = [event for event in events if event["step"] == number]
        (answered,) = of(step, "MODEL_INVOCATION", status="SUCCESS")
        shown = json.loads(answered["prompt"])["messages"]
        if conversation:
            assert shown == conversation
        else:
            assert shown[-1]["content"][-1] == {"text": final["prompt"]}
        conversation = [*shown, json.loads(answered["response"])]
        choices = of(step, "TOOL_SELECTION")
        if not choices:
            continue
        assert [choice["index"] for choice in choices] == list(range(len(choices)))
        conversation.append({"role": "user", "content": [result_of(choice, step) for choice in choices]})
    assert final["type"] == "FINAL_RESPONSE"
    assert final["answer"] == conversation[-1]["content"][0]["text"]
    return [*conversation, final["answer"]]


def of(events: list[dict[str, Any]], kind: str, **fields: Any) -> list[dict[str, Any]]:
    wanted = {"type": kind, **fields}
    return [event for event in events if wanted.items() <= event.items()]


def result_of(choice: dict[str, Any], step: list[dict[str, Any]]) -> dict[str, Any]:
    """The toolResult of a choice: what its last attempt says; of a tool that is not there, that there is none."""
    attempts = of(step, "TOOL_INVOCATION", index=choice["index"])
    assert [attempt["attempt"] for attempt in attempts] == list(range(1, len(attempts) + 1))
    last = attempts[-1] if attempts else choice
    status = "success" if last["status"] == "SUCCESS" else "error"
    if last is choice:
        assert (choice["toolName"], choice["errorCode"]) == ("fly", "UNKNOWN_TOOL")
    content = [NoSuchTool() if last is choice else {"text": last["result"]}]
    return {"toolResult": {"toolUseId": choice["toolUseId"], "status": status, "content": content}}


@dataclass(frozen=True, slots=True)
class NoSuchTool:
    """Equal to a text block about a tool that is not there: the list of those that are is in no event."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, dict) and "there is no tool fly" in other["text"]

    def __hash__(self) -> int:
        return 0


def test_the_logged_prompts_are_those_that_the_model_got(run: Run) -> None:
    sent = [json.dumps(body["messages"], sort_keys=True) for body in run.prompts]
    told = [
        json.dumps(json.loads(event["prompt"])["messages"], sort_keys=True)
        for session in (session for sessions in run.kinds.values() for session in sessions)
        for event in of(run.events(session), "MODEL_INVOCATION")
    ]
    assert sorted(told) == sorted(sent)


def test_a_failed_and_recovered_tool_call_is_two_events_of_one_step_and_the_issues_query_finds_them(run: Run) -> None:
    for session in run.kinds["throttled"]:
        rows = logs_insights.query(THE_ISSUES_QUERY.replace("session_abc123", session), run.lines)
        attempts = [row for row in rows if "attempt" in row and "toolName" in row]
        shown = [(row["step"], row["toolName"], row["attempt"], row["status"]) for row in attempts]
        assert shown == [(1, "misbehave", 1, "FAILED"), (1, "misbehave", 2, "SUCCESS")] * 2
        assert all(row["durationMs"] >= 0 for row in attempts)
        failed, recovered = of(run.events(session), "TOOL_INVOCATION")[:2]
        assert (failed["errorCode"], failed["retryScheduledInMs"]) == ("THROTTLING", 20)
        assert recovered["result"] == "went well in attempt 2"
        assert "retryScheduledInMs" not in recovered


def test_failed_calls_of_a_model_are_numbered_over_all_models(run: Run) -> None:
    for session in run.kinds["rejected"]:
        tries = [
            (event["step"], event["attempt"], event["model"], event["status"], event.get("errorCode"))
            for event in of(run.events(session), "MODEL_INVOCATION")
        ]
        once = [
            (step, attempt, model, status, code)
            for step in (1, 2)
            for attempt, model, status, code in (
                (1, "first-model", "FAILED", "MODEL_ACCESS_DENIED"),
                (2, "second-model", "SUCCESS", None),
            )
        ]
        assert tries == once * 2


def test_retries_of_one_model_are_numbered_too(stack: LocalStack, model: ScriptedModel, agent_client: Any) -> None:
    model.replace([fails("ThrottlingException", 429, times=2), says("ok")])
    session = new_session()
    ask(agent_client, "go", session)
    found: list[tuple[int, str]] = []

    def logged() -> bool:
        lines = logs_insights.lines_of(stack.client("logs"), stack.outputs["RuntimeLogGroup"])
        rows = logs_insights.query(f'filter sessionId = "{session}" and type = "MODEL_INVOCATION"', lines)
        found[:] = [(row["attempt"], row["status"]) for row in rows]
        return len(found) == 3

    eventually(logged, "three calls of the model are logged")
    assert found == [(1, "FAILED"), (2, "FAILED"), (3, "SUCCESS")]


def test_a_turn_that_failed_says_where_and_why(run: Run) -> None:
    for session in run.kinds["dead"]:
        (failed,) = of(run.events(session), "TURN_FAILED")
        assert (failed["error"], failed["state"], failed["executionStatus"]) == (
            *("ModelsExhausted", "Invoke Model"),
            "FAILED",
        )
        assert "all 2 models failed" in failed["cause"]


def test_a_lost_gateway_leaves_an_attempt_whose_outcome_is_unknown(run: Run) -> None:
    for session in run.kinds["lost"]:
        (lost, *_) = of(run.events(session), "TOOL_INVOCATION")
        assert (lost["attempt"], lost["errorCode"]) == (1, "OUTCOME_UNKNOWN")


SAVED = of_type("AWS::Logs::QueryDefinition")


@pytest.mark.parametrize(
    ("query", "finds"),
    [
        ("SessionChainQuery", lambda rows: {"TOOL_INVOCATION", "FINAL_RESPONSE"} <= {row.get("type") for row in rows}),
        ("SlowestToolsQuery", lambda rows: {"misbehave", "echo"} <= {row["toolName"] for row in rows}),
        ("FailuresByCodeQuery", lambda rows: {"THROTTLING", "ModelsExhausted"} <= {row["code"] for row in rows}),
        ("RetriesQuery", lambda rows: {1, 2} <= {row["attempt"] for row in rows}),
        ("TokensAndCostQuery", lambda rows: all(row["input"] > 0 and row["output"] > 0 for row in rows) and rows),
        ("MemoryRefusalsQuery", lambda rows: [row["errorCode"] for row in rows] == ["ACCESS_DENIED"]),
        ("TurnAuditQuery", lambda rows: {"prompt", "arguments", "result", "answer"} <= {n for r in rows for n in r}),
    ],
)
def test_each_saved_query_answers_its_question(
    run: Run, query: str, finds: Callable[[list[dict[str, Any]]], object]
) -> None:
    (session, _) = run.kinds["throttled"]
    turn_id = run.events(session)[0]["turnId"]
    text = SAVED[query]["QueryString"].replace("SESSION", session).replace('"TURN"', f'"{turn_id}"')
    refused = {
        "@timestamp": 0,
        "type": "MEMORY_RETRIEVAL",
        "status": "REFUSED",
        "namespace": "/secrets/a/",
        "errorCode": "ACCESS_DENIED",
    }
    rows = logs_insights.query(text, [*run.lines, refused])
    assert rows
    assert finds(rows), rows


def test_the_terminal_shows_a_turn_and_a_session_as_aligned_rows(run: Run, stack: LocalStack) -> None:
    for session in run.kinds["throttled"]:
        shown = terminal(stack, session)
        heads = [line for line in shown if line.startswith("turn ")]
        rows = [line for line in shown if not line.startswith("turn ")]
        assert len(heads) == 2
        assert all(session in head for head in heads)
        attempts = [row for row in rows if "TOOL_INVOCATION" in row]
        assert re.search(
            r"step 1  TOOL_INVOCATION +misbehave +attempt 1  FAILED +\d+ ms  THROTTLING, retry in 20 ms", attempts[0]
        )
        assert re.search(r"attempt 2  SUCCESS +\d+ ms  went well in attempt 2", attempts[1])
        assert len({row.index("attempt") for row in attempts}) == 1
    turn_id = heads[0].split()[1]
    assert terminal(stack, turn_id[:12]) == shown[: shown.index(heads[1])], "a beginning of the turn's id is enough"


def test_the_terminal_gives_machines_the_events(run: Run, stack: LocalStack) -> None:
    for session in run.kinds["parallel"]:
        events = json.loads("\n".join(terminal(stack, session, "--json")))
        for event in events:
            trace_schema.check(event)
        assert sorted(map(json.dumps, events)) == sorted(map(json.dumps, run.events(session)))


def test_a_name_that_nothing_has_is_one_line_on_stderr(run: Run, stack: LocalStack) -> None:
    complaint = "turnwright: there is no trace of a turn or session no-such-session\n"
    assert command(stack, "no-such-session") == (1, "", complaint)


def terminal(stack: LocalStack, *arguments: str) -> list[str]:
    status, shown, complaint = command(stack, *arguments)
    assert (status, complaint) == (0, "")
    return shown.splitlines()


def command(stack: LocalStack, *arguments: str) -> tuple[int, str, str]:
    """The command's exit status and what it printed."""
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        status = main(["trace", "--aws-url", stack.aws_url, *arguments])
    return status, out.getvalue(), err.getvalue()
