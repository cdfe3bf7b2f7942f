"""Any policy and any sequence of failures, through the real gateway, policy and breaker, in the state machine's loop.

The loop is run with the definition's own expressions; time is a clock that only the loop and the tools move. What the
breaker ought to do is told by `Circuit`, which knows nothing of how it is stored.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any
from uuid import uuid4

from hypothesis import Phase, event, given, settings
from hypothesis import strategies as st

from local.moto_patches.jsonata import evaluate
from tests.paths import ROOT
from tests.unit.conftest import empty_table
from tests.unit.stored_turns import Interrupted, StoredTurns, die
from tests.unit.tool_turns import BALANCE, FakeLambda, ToolTurn, answered, client_error, raised, with_policy
from turnwright.agents.retry_policy import Backoff, Jitter, OnTimeout, ToolPolicy
from turnwright.errors import ToolAttemptFailed, ToolFailedTurn
from turnwright.sessions.journal import Journal
from turnwright.storage.table import Table
from turnwright.tools.breakers import PROBE_MARGIN_SECONDS
from turnwright.tools.tool_failures import CODES, SERVICE_FAILURES
from turnwright.turn.invoke_model import tool_calls
from turnwright.turn.invoke_tool import Call

DEFINITION = json.loads((ROOT / "statemachines" / "agent_turn.asl.json").read_text())
STATES = DEFINITION["States"]["Run Tools"]["ItemProcessor"]["States"]

SUCCESS, KILLED, UNRECORDED, RECORDED = "success", "killed", "killed before the record", "killed after the record"

ANSWERS: dict[str, Any] = {
    SUCCESS: answered("5 USD"),
    "FAILURE": answered("no such account", state="FAILURE"),
    "REPROMPT": answered("which account?", state="REPROMPT"),
    "THROTTLING": client_error("TooManyRequestsException", 429),
    "SERVICE_UNAVAILABLE": client_error("ServiceException", 500),
    "TIMEOUT": TimeoutError(),
    "TOOL_ERROR": raised("KeyError"),
    "TOOL_CRASHED": raised("Runtime.ExitError"),
    "NOT_FOUND": client_error("ResourceNotFoundException", 404),
    "INVALID_RESPONSE": b"<html>",
    "RESPONSE_TOO_LARGE": raised("Function.ResponseSizeTooLarge"),
    "CIRCUIT_OPEN": raised("CIRCUIT_OPEN"),
    KILLED: Interrupted(),
    UNRECORDED: answered("5 USD"),
    RECORDED: answered("5 USD"),
}
"""What a tool does, by the code of it or by what becomes of the gateway."""

ANSWERED = {SUCCESS, "FAILURE", "REPROMPT", "RESPONSE_TOO_LARGE"}
DEATHS = {KILLED, UNRECORDED, RECORDED}

TOOL_USES = {
    "balance": BALANCE,
    "wrong arguments": {"name": "get_account_balance", "input": {}},
    "unknown": {"name": "fly", "input": {}},
}


@dataclass(slots=True)
class Circuit:
    """What a breaker has to do, told by one who sees all calls one after the other."""

    policy: ToolPolicy
    failures: int = 0
    failed_at: int = 0
    claimed_until: int = 0

    @property
    def tripped(self) -> bool:
        return self.policy.breaker.enabled and self.failures >= self.policy.breaker.failure_threshold

    def open_for(self, now: int) -> int:
        """Milliseconds from now, 0 if a call may go ahead."""
        if not self.tripped:
            return 0
        reopens = self.failed_at + self.policy.breaker.recovery_seconds * 1000
        if now < reopens:
            return reopens - now
        return max(1, self.claimed_until - now) if now <= self.claimed_until else 0

    def saw(self, began: int, now: int, outcome: str) -> None:
        """A call that began then went ahead and ended so."""
        if outcome in DEATHS:
            if self.tripped:
                self.claimed_until = began + (self.policy.timeout_seconds + PROBE_MARGIN_SECONDS) * 1000
            return
        if outcome in ANSWERED:
            self.failures = 0
        elif outcome in SERVICE_FAILURES:
            self.failures += 1
            self.failed_at = now
        self.claimed_until = 0


@dataclass(slots=True)
class Service:
    """The tool: does the next of `outcomes`, each after so many milliseconds, and then always succeeds."""

    stored: StoredTurns
    circuit: Circuit
    outcomes: Iterator[tuple[str, int]]
    invoked: dict[str, int] = field(default_factory=dict)
    last: str = ""
    done: list[str] = field(default_factory=list)

    def __call__(self, invocation: dict[str, Any]) -> Any:
        key = invocation["idempotencyKey"]
        self.invoked[key] = self.invoked.get(key, 0) + 1
        now = self.stored.clock.ms
        assert self.circuit.open_for(now) == 0, "nothing is invoked while the circuit is open"
        self.last, took = next(self.outcomes, (SUCCESS, 0))
        self.stored.clock.ms += took
        self.done.append(f"{'probe' if self.circuit.tripped else 'call'}: {self.last}")
        self.circuit.saw(now, self.stored.clock.ms, self.last)
        next_request = len(self.stored.dynamodb.made)  # the record's
        if self.last == UNRECORDED:
            self.stored.dynamodb.before[next_request] = die
        elif self.last == RECORDED:
            self.stored.dynamodb.after[next_request] = die
        return ANSWERS[self.last]


class Iteration:
    """One iteration of the Map, from Invoke Tool to its end."""

    def __init__(self, turn: ToolTurn, service: Service, item: dict[str, Any]) -> None:
        self.turn = turn
        self.service = service
        self.variables: dict[str, Any] = {"call": item, "attempt": 1, "sleepMs": 0}
        self.key = f"{turn.turn.turnId}/1/{item['toolUseId']}"
        self.entered: list[str] = []
        self.due = 0

    @property
    def policy(self) -> ToolPolicy:
        return self.service.circuit.policy

    def run(self) -> dict[str, Any]:
        """The toolResult. Raises ToolFailedTurn."""
        item = self.variables["call"]
        if self._evaluate(STATES["Which Handler?"]["Choices"][0]["Condition"], input=item):
            self.variables["failure"] = item["failure"]
            return self._error_to_agent()
        state: str | dict[str, Any] = "Invoke Tool"
        while isinstance(state, str):
            self.entered.append(state)
            match state:
                case "Invoke Tool":
                    self._sleep(self.variables["sleepMs"])
                    state = self._attempt(lost=False)
                case "Look Up Tool Result":
                    state = self._attempt(lost=True)
                case "Retry Tool?":
                    state = self._choose()
                case "Back Off":
                    self._sleep(self._evaluate(STATES[state]["Seconds"]) * 1000)
                    state = STATES[state]["Next"]
                case _:
                    state = self._error_to_agent()
        return state

    def _attempt(self, *, lost: bool) -> str | dict[str, Any]:
        number, began = self.variables["attempt"], self.service.stored.clock.ms
        before = self.service.invoked.get(self.key, 0)
        refused_for = self.service.circuit.open_for(began)
        call = Call.decode(self.variables["call"])
        try:
            result = self.turn.gateway().attempt(1, call, number, lost=lost)
        except Interrupted:
            return "Look Up Tool Result"
        except ToolAttemptFailed as failure:
            assert not (lost and self.service.last == RECORDED), "a result that was recorded is answered"
            report = json.loads(str(failure))
            invoked = self.service.invoked.get(self.key, 0) > before
            self._check(report, number, invoked=invoked, lost=lost, refused_for=refused_for)
            (catch,) = [c for c in STATES["Invoke Tool"]["Catch"] if c["ErrorEquals"] == ["ToolAttemptFailed"]]
            self.variables |= {"failure": report, "attempt": self._evaluate(catch["Assign"]["attempt"])}
            return str(catch["Next"])
        return dict(result)

    def _check(self, report: dict[str, Any], number: int, *, invoked: bool, lost: bool, refused_for: int) -> None:
        """The report of an attempt: its code, its count, its delay as the formula says."""
        policy, code = self.policy, report["errorCode"]
        if invoked:
            assert code == self.service.last
        elif not lost and code == "CIRCUIT_OPEN":
            assert report["retryAfterSeconds"] == max(1, math.ceil(refused_for / 1000))
            assert refused_for
        else:
            assert code == ("OUTCOME_UNKNOWN" if lost else "INVALID_ARGUMENTS")
        assert report["attempts"] == (number if invoked or lost else number - 1)
        if number >= policy.max_attempts or code not in policy.retryable_error_codes:
            assert "retryInMs" not in report
            return
        doubled = 2 ** (number - 1) if policy.backoff is Backoff.EXPONENTIAL else 1
        delay = min(policy.initial_delay_ms * doubled, policy.max_delay_ms)
        if policy.jitter is Jitter.NONE:
            assert report["retryInMs"] == delay
        assert 0 <= report["retryInMs"] <= delay
        self.due = self.service.stored.clock.ms + report["retryInMs"]

    def _choose(self) -> str:
        for choice in STATES["Retry Tool?"]["Choices"]:
            if self._evaluate(choice["Condition"]):
                self.variables["sleepMs"] = self._evaluate(choice["Assign"]["sleepMs"])
                assert 0 <= self.variables["sleepMs"] < 1000, "the gateway sleeps less than a second"
                return str(choice["Next"])
        return str(STATES["Retry Tool?"]["Default"])

    def _error_to_agent(self) -> dict[str, Any]:
        output = STATES["Return Error To Agent"]["Output"]
        return {
            "toolUseId": self._evaluate(output["toolUseId"]),
            "status": output["status"],
            "result": self._evaluate(output["result"]),
        }

    def _sleep(self, milliseconds: int) -> None:
        self.service.stored.clock.ms += milliseconds
        if self.entered[-1] == "Invoke Tool" and self.variables["attempt"] > 1:
            assert self.service.stored.clock.ms == self.due, "the whole seconds and the rest are the delay"

    def _evaluate(self, expression: str, **states: Any) -> Any:
        return evaluate(expression.removeprefix("{%").removesuffix("%}").strip(), {**self.variables, "states": states})


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    """An actionGroupExecutionConfig that the schema takes."""
    return {
        "retryPolicy": {
            "maxAttempts": draw(st.integers(1, 5)),
            "retryableErrorCodes": sorted(draw(st.just(CODES) | st.sets(st.sampled_from(sorted(CODES))))),
            "backoffStrategy": draw(st.sampled_from(Backoff)),
            "initialDelayMs": draw(st.integers(0, 3_000)),
            "maxDelayMs": draw(st.integers(0, 20_000)),
            "jitter": draw(st.sampled_from(Jitter)),
        },
        "timeoutConfig": {
            "timeoutSeconds": draw(st.integers(1, 20)),
            "onTimeoutBehavior": draw(st.sampled_from(OnTimeout)),
        },
        "circuitBreaker": {
            "enabled": draw(st.just(True) | st.booleans()),
            "failureThreshold": draw(st.integers(1, 4)),
            "recoveryTimeSeconds": draw(st.integers(1, 30)),
        },
    }


@dataclass(frozen=True, slots=True)
class Scenario:
    """What the tool does, one after the other, and how many milliseconds each takes; what the turns ask for, each so
    many milliseconds after the one before.
    """

    outcomes: list[tuple[str, int]]
    turns: list[tuple[int, list[str]]]

    @classmethod
    def of(cls, random: Random) -> "Scenario":
        """One of many, which differ more than those that are drawn piece by piece."""
        failing = random.choices(sorted(SERVICE_FAILURES & ANSWERS.keys()), k=random.randint(0, 5))
        anything = random.choices([*sorted(ANSWERS), *[SUCCESS] * 3], k=20)
        return cls(
            [(outcome, random.randint(0, 3_000)) for outcome in failing + anything],
            [
                (random.randint(0, 40_000), random.choices(list(TOOL_USES), [8, 1, 1], k=random.randint(1, 3)))
                for _ in range(random.randint(3, 6))
            ],
        )


def run_turn(turn: ToolTurn, service: Service) -> list[Iteration]:
    """Run Tools: each tool call gets one result, which says what became of it."""
    (step,) = Journal(turn.table, turn.documents, turn.turn.turnId).steps()
    iterations = [Iteration(turn, service, item) for item in tool_calls(step, turn.agent)]
    results = []
    for iteration in iterations:
        try:
            results.append(iteration.run())
        except ToolFailedTurn:
            assert service.last == "TIMEOUT"
            assert iteration.policy.on_timeout is OnTimeout.FAIL_TURN
            return iterations
    assert [result["toolUseId"] for result in results] == [use["toolUseId"] for use in step.tool_uses()]
    for result in results:
        assert (result["status"] == "success") == (turn.documents.fetch(result["result"]) == {"text": "5 USD"})
        if result["status"] == "error":
            report = json.loads(result["result"]["inline"]["text"])
            assert {"errorCode", "errorMessage", "attempts", "tryAgainNow"} <= report.keys()
            assert "retryInMs" not in report
    return iterations


@settings(phases=set(Phase) - {Phase.explain})
@given(configuration=configurations(), scenario=st.randoms(use_true_random=True).map(Scenario.of))
def test_every_call_ends_in_one_result_within_its_attempts_and_never_while_the_circuit_is_open(
    stored: StoredTurns, fake_lambda: FakeLambda, configuration: dict[str, Any], scenario: Scenario
) -> None:
    table = Table(stored.dynamodb, empty_table().name)  # one for each example: moto's queries walk through all of it
    stored.dynamodb.forget()
    agent = with_policy(**configuration)
    policy = agent.tools[0].policy
    service = Service(stored, Circuit(policy), iter(scenario.outcomes))
    fake_lambda.answer = service

    for pause, uses in scenario.turns:
        stored.clock.ms += pause
        tool_uses = [TOOL_USES[use] for use in uses]
        turn = ToolTurn(table, agent, *tool_uses, turn_id=uuid4().hex, trace=False)
        for iteration in run_turn(turn, service):
            invoked = service.invoked.get(iteration.key, 0)
            assert invoked <= policy.max_attempts
            assert iteration.entered.count("Invoke Tool") <= policy.max_attempts
            event(f"a call with {invoked} invocations")
    for done in service.done:
        event(done)
