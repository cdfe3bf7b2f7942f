"""Faults on purpose: which rule applies, what Invoke then answers, and what a broken file is told."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from local.aws.faults import Faults, FaultsError, InvocationRefused, Use
from local.lambda_workers import FunctionSpec, InvokeResult
from tests.paths import ROOT
from tests.waiting import patient

BALANCE = b'{"function": "get_account_balance", "agent": {"id": "A"}, "parameters": []}'
ANSWER = InvokeResult(b'"answer"', None)


class Lambda:
    """Two functions, invoked through `faults`. `ran` counts how often one really ran."""

    def __init__(self, *rules: dict[str, Any], timeout_seconds: float = 0.05) -> None:
        self.told: list[str] = []
        self.ran = 0
        self.timeout_seconds = timeout_seconds
        self.faults = Faults(self.told.append)
        self.faults.know({"stack-Tool": "Tool", "stack-Other": "Other"})
        self.faults.replace(rules)

    def invoke(self, payload: bytes = b"{}", name: str = "stack-Tool") -> InvokeResult:
        return self.faults.run(self.spec(name), payload, self._really)

    def spec(self, name: str) -> FunctionSpec:
        return FunctionSpec(
            name=name,
            arn=f"arn:aws:lambda:us-east-1:123456789012:function:{name}",
            handler="tool.handler",
            code_root=ROOT,
            environment={},
            timeout_seconds=self.timeout_seconds,
            memory_mb=128,
            log_group="/tools",
        )

    def _really(self) -> InvokeResult:
        self.ran += 1
        return ANSWER


def error_of(result: InvokeResult) -> dict[str, str]:
    assert result.function_error == "Unhandled"
    error: dict[str, str] = json.loads(result.payload)
    return error


# ---- Which rule applies ----


def test_without_rules_every_function_runs() -> None:
    functions = Lambda()
    assert functions.invoke() == ANSWER
    assert (functions.ran, functions.told, functions.faults.uses) == (1, [], ())


def test_the_first_rule_that_matches_and_has_uses_left_applies_and_each_use_is_told() -> None:
    functions = Lambda(
        {"function": "Tool", "times": 2, "fault": "crash"},
        {"function": "Tool", "times": 1, "fault": "garbage"},
        {"function": "Other", "fault": "out_of_memory"},
    )
    kinds = [functions.invoke().payload for _ in range(4)]
    assert [b"ExitError" in kind for kind in kinds] == [True, True, False, False]
    assert [b"garbage" in kind for kind in kinds] == [False, False, True, False]
    assert functions.ran == 1
    functions.invoke(name="stack-Other")
    assert functions.told == [
        "fault crash of Tool (faults[0], use 1 of 2)",
        "fault crash of Tool (faults[0], use 2 of 2)",
        "fault garbage of Tool (faults[1], use 1 of 1)",
        "fault out_of_memory of Other (faults[2], use 1)",
    ]
    assert functions.faults.uses[-2:] == (Use(1, "Tool", "garbage"), Use(2, "Other", "out_of_memory"))


@pytest.mark.parametrize(
    ("when", "payload", "applies"),
    [
        ({}, b"not JSON", True),
        ({"function": "get_account_balance"}, BALANCE, True),
        ({"function": "get_account_balance", "parameters": []}, BALANCE, True),
        ({"agent": {"id": "A"}}, BALANCE, True),
        ({"agent": {}}, BALANCE, False),
        ({"function": "convert_currency"}, BALANCE, False),
        ({"function": "get_account_balance", "apiPath": None}, BALANCE, False),
        ({"function": "get_account_balance"}, b"not JSON", False),
        ({"function": "get_account_balance"}, b'["get_account_balance"]', False),
    ],
)
def test_when_names_top_level_fields_of_the_event_and_their_whole_values(
    when: dict[str, Any], payload: bytes, applies: bool
) -> None:
    functions = Lambda({"function": "Tool", "when": when, "fault": "crash"})
    assert (functions.invoke(payload).function_error is not None) is applies


def test_new_rules_have_all_their_uses_and_broken_ones_change_nothing() -> None:
    functions = Lambda({"function": "Tool", "times": 1, "fault": "crash"})
    functions.invoke()
    functions.faults.replace([{"function": "Tool", "times": 1, "fault": "crash"}])
    assert functions.faults.uses == ()
    with pytest.raises(FaultsError):
        functions.faults.replace([{"function": "Tool"}])
    assert functions.invoke().function_error == "Unhandled"
    functions.faults.replace([])
    assert functions.invoke() == ANSWER


def test_uses_are_counted_exactly_when_many_invoke_at_once() -> None:
    functions = Lambda({"function": "Tool", "times": 20, "fault": "garbage"})
    results: list[InvokeResult] = []
    threads = [threading.Thread(target=lambda: results.append(functions.invoke())) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(result != ANSWER for result in results) == 20


# ---- What Invoke answers ----


@pytest.mark.parametrize(
    ("fault", "status", "name"),
    [("throttle", 429, "TooManyRequestsException"), ("service_error", 500, "ServiceException")],
)
def test_lambdas_api_refuses_and_the_function_does_not_run(fault: str, status: int, name: str) -> None:
    functions = Lambda({"function": "Tool", "fault": fault, "message": "Rate exceeded"})
    with pytest.raises(InvocationRefused) as refused:
        functions.invoke()
    assert (refused.value.status, refused.value.name, refused.value.message) == (status, name, "Rate exceeded")
    assert functions.ran == 0


@pytest.mark.parametrize(
    ("fault", "error_type", "message"),
    [
        ({"fault": "crash"}, "Runtime.ExitError", "Runtime exited with error: exit status 1"),
        ({"fault": "out_of_memory"}, "Runtime.OutOfMemory", "Runtime exited with error: signal: killed"),
        ({"fault": "hang"}, "Sandbox.Timedout", "Task timed out after 0.05 seconds"),
        ({"fault": "slow", "seconds": 0.05}, "Sandbox.Timedout", "Task timed out after 0.05 seconds"),
        ({"fault": "error", "errorType": "ThrottlingException", "message": "Slow down"}, "ThrottlingException", "Slow"),
        ({"fault": "error", "errorType": "KeyError"}, "KeyError", "a fault on purpose"),
    ],
)
def test_a_function_error_is_reported_as_lambda_does_and_the_function_does_not_run(
    fault: dict[str, Any], error_type: str, message: str
) -> None:
    functions = Lambda({"function": "Tool", **fault})
    error = error_of(functions.invoke())
    assert error["errorType"] == error_type
    assert message in error["errorMessage"]
    assert functions.ran == 0


def test_a_hanging_function_takes_all_of_its_time() -> None:
    functions = Lambda({"function": "Tool", "fault": "hang"}, timeout_seconds=0.2)
    started = time.monotonic()
    functions.invoke()
    assert time.monotonic() - started >= 0.2


def test_a_slow_function_really_runs_after_its_delay() -> None:
    functions = Lambda({"function": "Tool", "fault": "slow", "seconds": 0.1}, timeout_seconds=5)
    started = time.monotonic()
    assert functions.invoke() == ANSWER
    assert time.monotonic() - started >= 0.1
    assert functions.ran == 1


def test_garbage_is_an_answer_without_a_response() -> None:
    result = Lambda({"function": "Tool", "fault": "garbage"}).invoke()
    assert result.function_error is None
    assert "response" not in json.loads(result.payload)


def test_stopping_ends_what_hangs() -> None:
    functions = Lambda({"function": "Tool", "fault": "hang"}, timeout_seconds=600)
    hanging = threading.Thread(target=functions.invoke)
    hanging.start()
    functions.faults.stop()
    hanging.join(timeout=patient(20))
    assert not hanging.is_alive()


# ---- The file ----


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("crash", "faults[1]: must be an object"),
        ({}, "faults[1]: function is missing; it must be a string"),
        ({"function": 3}, "faults[1].function: must be a string"),
        (
            {"function": "Toool", "fault": "hang"},
            "faults[1].function: the template has no function 'Toool' (it has Other, Tool)",
        ),
        ({"function": "Tool"}, "faults[1]: fault is missing; it must be a string"),
        (
            {"function": "Tool", "fault": "explode"},
            (
                "faults[1].fault: there is no fault 'explode' (there are throttle, service_error, hang, crash, "
                "out_of_memory, error, garbage, slow)"
            ),
        ),
        (
            {"function": "Tool", "fault": "hang", "seconds": 3},
            "faults[1].seconds: hang has no such field (it has function, when, times, fault)",
        ),
        (
            {"function": "Tool", "fault": "error", "errorType": "E", "whn": {}},
            "faults[1].whn: error has no such field (it has function, when, times, fault, errorType, message)",
        ),
        ({"function": "Tool", "fault": "error"}, "faults[1]: errorType is missing; it must be a string"),
        ({"function": "Tool", "fault": "slow"}, "faults[1]: seconds is missing; it must be a number"),
        ({"function": "Tool", "fault": "slow", "seconds": True}, "faults[1].seconds: must be a number"),
        ({"function": "Tool", "fault": "slow", "seconds": 0}, "faults[1].seconds: must be more than 0 and at most 900"),
        ({"function": "Tool", "fault": "hang", "times": 0}, "faults[1].times: must be 1 or more"),
        ({"function": "Tool", "fault": "hang", "times": 1.5}, "faults[1].times: must be a whole number"),
        ({"function": "Tool", "fault": "hang", "when": []}, "faults[1].when: must be an object"),
    ],
)
def test_a_broken_rule_is_named_with_file_and_place(rule: Any, message: str, tmp_path: Path) -> None:
    file = tmp_path / "faults.json"
    file.write_text(json.dumps({"faults": [{"function": "Tool", "fault": "hang"}, rule]}))
    with pytest.raises(FaultsError) as refused:
        Lambda().faults.load(file)
    assert str(refused.value) == f"{file}: {message}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"faults": [\n  {"function": }\n]}', ":2: Expecting value (column 16)"),
        (b'{"faults": {}}', ': must be an object with the list "faults" and nothing else'),
        (b'{"faults": [], "fault": []}', ': must be an object with the list "faults" and nothing else'),
        (b"[]", ': must be an object with the list "faults" and nothing else'),
        (b'"\xff"', ": is not UTF-8 at byte 1"),
    ],
)
def test_a_file_that_is_no_list_of_faults_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "faults.json"
    file.write_bytes(content)
    with pytest.raises(FaultsError) as refused:
        Lambda().faults.load(file)
    assert str(refused.value) == f"{file}{message}"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FaultsError, match=r"none\.json: cannot be read: No such file or directory"):
        Lambda().faults.load(tmp_path / "none.json")


@pytest.mark.parametrize("file", sorted((ROOT / "events" / "faults").glob("*.json")), ids=lambda file: file.stem)
def test_the_faults_that_come_with_the_project_can_be_used(file: Path) -> None:
    functions = Lambda()
    functions.faults.know({"stack-BankingToolsFunction": "BankingToolsFunction"})
    functions.faults.load(file)
    [first, *_] = json.loads(file.read_text())["faults"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(functions.faults, "_apply", lambda *_: ANSWER)
        functions.invoke(json.dumps(first.get("when", {})).encode(), name="stack-BankingToolsFunction")
    assert functions.faults.uses == (Use(0, "BankingToolsFunction", first["fault"]),)
