"""What a turn has cost, as it travels through the states, and how a failed turn's is read from its history."""

import json
from typing import Any

import pytest

from turnwright.costs.failed_costs import of_history
from turnwright.costs.spending import INVOKE_MODEL, INVOKE_TOOL, LOAD_MEMORY, Cost, Spent, tools_spent, without_costs

LOADED = Cost(ms=10, memory_mb=512, read_units=2.5, write_units=4, item_writes=2)
TRIED = Cost(ms=7, memory_mb=512, read_units=6, write_units=1, item_writes=1)


def test_what_was_spent_comes_back_from_state_as_it_went() -> None:
    spent = Spent().plus(LOAD_MEMORY, LOADED).missing(INVOKE_MODEL, 2, retries=1).attempted(models=3, tools=1)

    assert Spent.decode(json.loads(json.dumps(spent.encode()))) == spent


def test_the_costs_of_one_function_add_up_and_nothing_unknown_is_made_up() -> None:
    spent = Spent().plus(INVOKE_TOOL, TRIED).plus(INVOKE_TOOL, TRIED).missing(LOAD_MEMORY, 0)

    assert spent.functions == {INVOKE_TOOL: Cost(2, 14, 512, 12, 2, 2)}
    assert spent.unknown == {}
    assert spent.total == Cost(2, 14, 512, 12, 2, 2)


def test_an_execution_of_an_older_definition_has_told_nothing() -> None:
    assert Spent.decode(None) == Spent()


@pytest.mark.parametrize("costs", [[TRIED.encode()], TRIED.encode()], ids=["a list", "as JSONata makes one of one"])
def test_a_tool_calls_entry_brings_the_costs_of_its_attempts_and_the_model_sees_none_of_it(costs: Any) -> None:
    result = {"toolUseId": "use-1", "status": "success", "result": {"inline": {"text": "5 USD"}}}
    metered = {"costs": costs, "cost": LOADED.encode(), "attempts": 2, "entered": 4, "retries": 1, "lost": 2}

    spent = tools_spent(Spent(), [{**result, **metered}])

    assert spent == Spent({INVOKE_TOOL: TRIED + LOADED}, {INVOKE_TOOL: 3}, 1, 0, 2)
    assert without_costs([{**result, **metered}]) == (result,)


class History:
    """The events of an execution, as GetExecutionHistory has them."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def add(self, kind: str, after: int | None = None, **details: Any) -> int:
        number = len(self.events) + 1
        event = {"id": number, "type": kind, "previousEventId": number - 1 if after is None else after, **details}
        self.events.append(event)
        return number

    def enter(self, state: str, kind: str = "Task") -> int:
        return self.add(f"{kind}StateEntered", stateEnteredEventDetails={"name": state})

    def task(self, state: str, *outcomes: dict[str, Any] | str) -> None:
        """A visit of a Task: an outcome for each try, the payload that it answered or the message it failed with."""
        at = self.enter(state)
        for outcome in outcomes:
            at = self.add("TaskScheduled", at)
            if isinstance(outcome, str):
                cause = json.dumps({"errorMessage": outcome, "errorType": "E"})
                at = self.add("TaskFailed", at, taskFailedEventDetails={"error": "E", "cause": cause})
            else:
                output = json.dumps({"Payload": outcome})
                at = self.add("TaskSucceeded", at, taskSucceededEventDetails={"output": output})


def test_a_failed_turns_cost_is_the_newest_sum_and_what_came_after_it() -> None:
    history = History()
    history.task("Load Memory", "crashed", {"spent": Spent().plus(LOAD_MEMORY, LOADED).encode()})
    summed = Spent().plus(LOAD_MEMORY, LOADED).missing(LOAD_MEMORY, 1, retries=1).plus(INVOKE_MODEL, TRIED)
    history.task("Invoke Model", {"spent": summed.encode()})
    history.enter("Tools Requested?", "Choice")
    history.enter("Run Tools", "Map")
    history.task("Invoke Tool", json.dumps({"errorCode": "THROTTLING", "cost": TRIED.encode()}))
    history.task("Invoke Tool", {"toolUseId": "use-1", "cost": TRIED.encode()})
    history.task("Invoke Tool", "the tool failed the turn")

    costs = of_history(history.events[::-1])

    assert costs.transitions == 7
    assert costs.spent.functions == {**summed.functions, INVOKE_TOOL: TRIED + TRIED}
    assert costs.spent.unknown == {LOAD_MEMORY: 1, INVOKE_TOOL: 1}
    assert (costs.spent.retries, costs.spent.model_attempts, costs.spent.tool_attempts) == (1, 1, 3)


def test_a_history_of_nothing_costs_nothing() -> None:
    assert of_history([]).spent.total == Cost(invocations=0)
