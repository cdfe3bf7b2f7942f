"""What a caller is told of a turn whose header says that it runs."""

from typing import Any

import pytest

from tests.unit.followed_turns import STATE_MACHINE, FakeStepFunctions
from tests.unit.stored_turns import A, StoredTurns, step, text
from turnwright.api.bedrock.async_turns import AsyncTurns
from turnwright.errors import StorageUnavailable
from turnwright.sessions.sessions import LONGEST_TURN_SECONDS
from turnwright.sessions.turns import Turns
from turnwright.sessions.values import Turn

LONGEST_MS = LONGEST_TURN_SECONDS * 1000
EXECUTION = f"{STATE_MACHINE.replace(':stateMachine:', ':execution:')}:{A}"


def read(stored: StoredTurns, stepfunctions: FakeStepFunctions) -> dict[str, Any]:
    turns = AsyncTurns(stored.table, stored.documents, stepfunctions, STATE_MACHINE)
    return turns.read(A, stored.request(A).caller)


@pytest.fixture
def turn(stored: StoredTurns) -> Turn:
    """One that has begun and does not end."""
    return stored.begin(A, trace=True)


def test_a_turn_that_may_still_run_is_not_asked_for_in_step_functions(stored: StoredTurns, turn: Turn) -> None:
    stored.clock.ms += LONGEST_MS
    stepfunctions = FakeStepFunctions({"status": "FAILED"})
    assert read(stored, stepfunctions) == {"turnId": A, "status": "RUNNING"}
    assert stepfunctions.described == []


@pytest.mark.parametrize(
    ("execution", "failure"),
    [
        (
            {"status": "TIMED_OUT", "error": "States.Timeout", "cause": "late"},
            {"error": "States.Timeout", "cause": "late", "executionStatus": "TIMED_OUT"},
        ),
        (None, {"error": "ExecutionDoesNotExist", "cause": "its state machine was deleted"}),
        (
            {"status": "SUCCEEDED"},
            {
                "error": "TurnNotKept",
                "cause": "its execution succeeded, and nothing of the turn is kept",
                "executionStatus": "SUCCEEDED",
            },
        ),
    ],
    ids=["timed out", "gone", "succeeded"],
)
def test_a_turn_whose_execution_is_over_is_told_as_failed_though_its_header_says_that_it_runs(
    stored: StoredTurns, turn: Turn, execution: dict[str, Any] | None, failure: dict[str, str]
) -> None:
    stored.clock.ms += LONGEST_MS + 1
    before, stepfunctions = stored.items(), FakeStepFunctions(execution)

    assert read(stored, stepfunctions) == {"turnId": A, "status": "FAILED", "failure": failure}

    assert stepfunctions.described == [EXECUTION]
    assert stored.items() == before
    turns = AsyncTurns(stored.table, stored.documents, stepfunctions, STATE_MACHINE)
    assert turns.trace(A, stored.request(A).caller, None)["status"] == "FAILED"


def test_a_redriven_turn_runs_however_long_ago_it_began(stored: StoredTurns, turn: Turn) -> None:
    stored.clock.ms += 10 * LONGEST_MS
    assert read(stored, FakeStepFunctions({"status": "RUNNING"})) == {"turnId": A, "status": "RUNNING"}


@pytest.mark.parametrize("end", ["commit", "failure"])
def test_an_end_that_is_recorded_while_step_functions_is_asked_goes_first(
    stored: StoredTurns, turn: Turn, end: str
) -> None:
    """The execution of a committed turn may fail behind the commit, and a recorded failure says more."""

    class Ending(FakeStepFunctions):
        def describe_execution(self, **arguments: Any) -> dict[str, Any]:
            if end == "commit":
                stored.journal(turn, step(1, text("Hi")))
                stored.commit(turn)
            else:
                Turns(stored.table).fail(A, {"error": "ModelsExhausted"})
            return super().describe_execution(**arguments)

    stored.clock.ms += LONGEST_MS + 1
    told = read(stored, Ending({"status": "FAILED"}))
    if end == "commit":
        assert (told["status"], told["answer"]) == ("COMMITTED", "Hi")
    else:
        assert (told["status"], told["failure"]) == ("FAILED", {"error": "ModelsExhausted"})


def test_a_turn_of_which_step_functions_cannot_be_asked_is_not_told_as_running(stored: StoredTurns, turn: Turn) -> None:
    stored.clock.ms += LONGEST_MS + 1
    with pytest.raises(StorageUnavailable):
        read(stored, FakeStepFunctions(refusal=StorageUnavailable("slow down", throttled=True)))
