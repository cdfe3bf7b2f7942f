"""The breakers against the storage; the clock stands until a test moves it."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier
from typing import Any
from uuid import uuid4

import pytest

from tests.unit.stored_turns import StoredTurns
from turnwright.agents.retry_policy import CircuitBreaker
from turnwright.errors import StorageUnavailable
from turnwright.storage import keys
from turnwright.storage.table import Item, Table, Update
from turnwright.tools.breakers import ANSWERS, PROBE_MARGIN_SECONDS, Breakers, CircuitOpen, Passage
from turnwright.tools.tool_failures import CODES, SERVICE_FAILURES

POLICY = CircuitBreaker(enabled=True, failure_threshold=3, recovery_seconds=60)
TIMEOUT_SECONDS = 7
CLAIM_MS = (TIMEOUT_SECONDS + PROBE_MARGIN_SECONDS) * 1000
FAILURE = "TOOL_ERROR"


class Circuit:
    """The breaker of one tool, as its callers use it."""

    def __init__(self, stored: StoredTurns, policy: CircuitBreaker = POLICY) -> None:
        self.stored = stored
        self.policy = policy

    def enter(self, caller: str = "", **policy: Any) -> Passage:
        """Lets a call through, by default one that did not ask before."""
        changed = replace(self.policy, **policy)
        passage = self.breakers.enter("balance", changed, caller or uuid4().hex, TIMEOUT_SECONDS)
        assert passage is not None
        return passage

    def refused(self, **policy: Any) -> int:
        """After how many seconds a call that is refused is told to come back."""
        with pytest.raises(CircuitOpen) as refused:
            self.enter(**policy)
        return refused.value.retry_after_seconds

    def fail(self, code: str = FAILURE, times: int = 1) -> None:
        for _ in range(times):
            self.breakers.failed(self.enter(), code)

    def succeed(self) -> None:
        self.breakers.succeeded(self.enter())

    def wait(self, milliseconds: int) -> None:
        self.stored.clock.ms += milliseconds

    def recover(self) -> None:
        self.wait(self.policy.recovery_seconds * 1000)

    def opened(self) -> "Circuit":
        self.fail(times=self.policy.failure_threshold)
        return self

    @property
    def breakers(self) -> Breakers:
        return Breakers(self.stored.table, "BANK")

    @property
    def item(self) -> Item | None:
        return self.stored.table.get(keys.breaker("BANK", "balance"))

    @property
    def failures(self) -> int:
        return self.item["failures"] if self.item else 0


@pytest.fixture
def circuit(stored: StoredTurns) -> Circuit:
    return Circuit(stored)


def test_a_circuit_closes_opens_is_probed_and_closes(circuit: Circuit) -> None:
    circuit.fail(times=2)
    circuit.fail()
    assert circuit.refused() == 60
    circuit.wait(59_001)
    assert circuit.refused() == 1
    circuit.wait(998)
    assert circuit.refused() == 1, "a retry after no time would come too early"
    circuit.wait(1)

    probe = circuit.enter()
    assert probe.probe is not None
    assert circuit.refused() == TIMEOUT_SECONDS + PROBE_MARGIN_SECONDS
    circuit.breakers.succeeded(probe)

    assert [circuit.enter().probe for _ in range(3)] == [None] * 3
    assert circuit.failures == 0
    circuit.fail(times=3)
    assert circuit.refused() == 60


def test_a_circuit_whose_probe_fails_is_open_for_another_recovery_time(circuit: Circuit) -> None:
    circuit.opened().recover()
    circuit.wait(500)
    circuit.fail()

    assert circuit.refused() == 60
    circuit.recover()
    circuit.breakers.succeeded(circuit.enter())
    assert circuit.enter().probe is None


def test_a_probe_that_fails_leaves_no_claim(stored: StoredTurns) -> None:
    circuit = Circuit(stored, replace(POLICY, recovery_seconds=5)).opened()
    circuit.recover()
    circuit.fail()
    circuit.recover()

    assert circuit.enter().probe is not None


@pytest.mark.parametrize("threshold", [1, 2, 7])
def test_a_circuit_opens_after_exactly_the_threshold(stored: StoredTurns, threshold: int) -> None:
    circuit = Circuit(stored, replace(POLICY, failure_threshold=threshold))
    for _ in range(threshold):
        circuit.fail()

    circuit.refused()


def test_a_success_ends_a_row_of_failures(circuit: Circuit) -> None:
    for _ in range(4):
        circuit.fail(times=2)
        circuit.succeed()

    circuit.fail(times=2)
    assert circuit.enter().failures == 2


def test_a_success_that_began_before_the_circuit_opened_does_not_close_it(circuit: Circuit) -> None:
    circuit.fail()
    old = circuit.enter()
    circuit.fail(times=2)

    circuit.breakers.succeeded(old)
    circuit.refused()

    circuit.recover()
    probe = circuit.enter()
    circuit.breakers.succeeded(old)
    circuit.refused()
    circuit.breakers.failed(probe, FAILURE)
    circuit.breakers.succeeded(old)
    assert circuit.refused() == 60


def test_a_failure_that_began_before_the_circuit_opened_does_not_take_the_probe_away(circuit: Circuit) -> None:
    old = circuit.enter()
    circuit.opened().recover()
    probe = circuit.enter()

    circuit.breakers.failed(old, FAILURE)
    circuit.refused()
    circuit.breakers.succeeded(probe)

    assert circuit.enter().probe is None


@pytest.mark.parametrize("code", sorted(SERVICE_FAILURES))
def test_each_failure_of_the_service_opens_the_circuit(circuit: Circuit, code: str) -> None:
    circuit.fail(code, times=3)

    circuit.refused()


def test_a_failure_whose_update_is_sent_again_since_its_answer_was_lost_counts_once(
    circuit: Circuit, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = Table.update

    def sent_twice(table: Table, write: Update) -> Item:
        update(table, write)
        return update(table, write)

    monkeypatch.setattr(Table, "update", sent_twice)
    circuit.fail(times=2)
    assert circuit.failures == 2

    circuit.fail()
    circuit.refused()


@pytest.mark.parametrize("code", sorted(CODES - SERVICE_FAILURES))
def test_what_is_not_the_services_fault_never_opens_the_circuit_and_costs_no_write(circuit: Circuit, code: str) -> None:
    circuit.fail(code, times=5)

    assert circuit.item is None
    assert circuit.stored.dynamodb.written == 0


@pytest.mark.parametrize("code", sorted(ANSWERS))
def test_an_answer_ends_a_row_and_closes_after_a_probe_whatever_it_says(circuit: Circuit, code: str) -> None:
    circuit.fail(times=2)
    circuit.fail(code)
    assert circuit.failures == 0

    circuit.opened().recover()
    circuit.fail(code)
    assert circuit.enter().probe is None


@pytest.mark.parametrize("code", sorted(CODES - SERVICE_FAILURES - ANSWERS))
def test_a_probe_that_learns_nothing_gives_its_claim_back(circuit: Circuit, code: str) -> None:
    circuit.fail(times=2)
    circuit.fail(code)
    assert circuit.failures == 2

    circuit.fail()
    circuit.recover()
    circuit.fail(code)

    assert circuit.failures == 3
    assert circuit.enter().probe is not None, "the next call probes at once"
    circuit.refused()


def test_of_calls_that_come_at_the_moment_of_recovery_exactly_one_probes(circuit: Circuit) -> None:
    circuit.opened().recover()
    start = Barrier(32)

    def enter(_: int) -> Passage | None:
        start.wait()
        try:
            return circuit.enter()
        except CircuitOpen:
            return None

    with ThreadPoolExecutor(32) as threads:
        (probe,) = [passage for passage in threads.map(enter, range(32)) if passage]

    assert circuit.item is not None
    assert circuit.item["probeOwner"] == probe.probe


def test_calls_that_fail_together_are_all_counted(circuit: Circuit) -> None:
    passages = [circuit.enter() for _ in range(50)]
    start = Barrier(50)

    def fail(passage: Passage) -> None:
        start.wait()
        circuit.breakers.failed(passage, FAILURE)

    with ThreadPoolExecutor(50) as threads:
        list(threads.map(fail, passages))

    assert circuit.failures == 50
    circuit.refused()


def test_a_prober_that_dies_holds_its_claim_until_its_time_is_over(circuit: Circuit) -> None:
    circuit.opened().recover()
    circuit.enter()

    circuit.wait(CLAIM_MS)
    assert circuit.refused() == 1
    circuit.wait(1)
    second = circuit.enter()

    assert second.probe is not None
    assert circuit.refused() == TIMEOUT_SECONDS + PROBE_MARGIN_SECONDS


def test_an_attempt_that_is_repeated_keeps_its_claim(circuit: Circuit) -> None:
    circuit.opened().recover()

    assert circuit.enter("one") == circuit.enter("one")
    circuit.refused()


@pytest.mark.parametrize("late", ["succeeded", "failed", "gave back"])
@pytest.mark.parametrize("next_one", ["probes", "has failed", "has succeeded", "gave back"])
def test_a_prober_that_was_overtaken_changes_nothing(circuit: Circuit, late: str, next_one: str) -> None:
    circuit.opened().recover()
    frozen = circuit.enter()
    circuit.wait(CLAIM_MS + 1)
    probe = circuit.enter()
    if next_one == "has failed":
        circuit.breakers.failed(probe, FAILURE)
    elif next_one == "has succeeded":
        circuit.breakers.succeeded(probe)
    elif next_one == "gave back":
        circuit.breakers.failed(probe, "NOT_FOUND")
    before = circuit.item
    circuit.wait(1)

    if late == "succeeded":
        circuit.breakers.succeeded(frozen)
    else:
        circuit.breakers.failed(frozen, FAILURE if late == "failed" else "NOT_FOUND")

    assert circuit.item == before


def test_a_late_probe_that_nobody_overtook_still_decides(circuit: Circuit) -> None:
    circuit.opened().recover()
    probe = circuit.enter()
    circuit.wait(CLAIM_MS + 1)

    circuit.breakers.succeeded(probe)

    assert circuit.enter().probe is None


def test_a_call_that_is_overtaken_by_the_probes_success_goes_ahead(circuit: Circuit) -> None:
    """Another call probes and succeeds between this one's read and its claim."""
    circuit.opened().recover()
    circuit.stored.dynamodb.forget()
    circuit.stored.dynamodb.after[0] = circuit.succeed

    assert circuit.enter() == Passage(keys.breaker("BANK", "balance"), POLICY)


def test_a_call_that_is_overtaken_by_the_probes_failure_is_refused(circuit: Circuit) -> None:
    circuit.opened().recover()
    circuit.stored.dynamodb.forget()
    circuit.stored.dynamodb.after[0] = circuit.fail

    assert circuit.refused() == 60


def test_a_policy_that_changes_counts_at_once(circuit: Circuit) -> None:
    circuit.fail(times=2)
    assert circuit.refused(failure_threshold=2) == 60
    assert circuit.refused(failure_threshold=1, recovery_seconds=5) == 5
    assert circuit.enter(failure_threshold=3).failures == 2

    circuit.wait(5_000)
    assert circuit.enter(failure_threshold=2, recovery_seconds=5).probe is not None
    circuit.fail()
    assert circuit.refused() == 60
    assert circuit.enter(failure_threshold=4).failures == 3
    assert circuit.breakers.enter("balance", CircuitBreaker(), "caller", 1) is None


def test_a_healthy_call_costs_one_small_read_and_no_write(circuit: Circuit) -> None:
    table = circuit.stored.table
    before = replace(table.consumed)
    circuit.stored.dynamodb.forget()

    circuit.succeed()

    assert circuit.stored.dynamodb.operations == ["get_item"]
    assert table.consumed.read_units - before.read_units <= 1
    assert table.consumed.item_writes == before.item_writes
    assert circuit.item is None


def test_a_call_after_a_row_that_has_ended_costs_no_write_again(circuit: Circuit) -> None:
    circuit.fail()
    circuit.succeed()
    circuit.stored.dynamodb.forget()

    circuit.succeed()

    assert circuit.stored.dynamodb.operations == ["get_item"]


def test_without_a_breaker_nothing_is_read(circuit: Circuit) -> None:
    circuit.stored.dynamodb.forget()

    assert circuit.breakers.enter("balance", CircuitBreaker(failure_threshold=1), "caller", 1) is None
    assert circuit.stored.dynamodb.operations == []


def test_tools_and_agents_do_not_share_a_circuit(circuit: Circuit) -> None:
    circuit.opened()
    table = circuit.stored.table

    assert Breakers(table, "BANK").enter("transfer", POLICY, "caller", 1) is not None
    assert Breakers(table, "SHOP").enter("balance", POLICY, "caller", 1) is not None
    circuit.refused()


@pytest.mark.parametrize("settle", ["failed", "succeeded"])
def test_a_breaker_that_cannot_be_told_costs_the_call_nothing(
    circuit: Circuit, settle: str, caplog: pytest.LogCaptureFixture
) -> None:
    def unavailable() -> None:
        raise StorageUnavailable("no")

    circuit.fail()
    passage = circuit.enter()
    circuit.stored.dynamodb.forget()
    circuit.stored.dynamodb.before[0] = unavailable

    circuit.breakers.failed(passage, FAILURE) if settle == "failed" else circuit.breakers.succeeded(passage)

    assert circuit.failures == 1
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_the_item_outlives_the_longest_recovery_and_then_expires(circuit: Circuit) -> None:
    circuit.fail()

    item = circuit.item or {}
    assert item == {
        "PK": "BREAKER#BANK#balance",
        "SK": "BREAKER",
        "failures": 1,
        "counted": item["counted"],
        "lastFailureAt": circuit.stored.clock.ms,
        "expiresAt": circuit.stored.clock.ms // 1000 + 7 * 86_400,
        "schemaVersion": 1,
    }


def test_the_model_is_told_when_to_expect_the_tool_back(circuit: Circuit) -> None:
    circuit.opened()

    with pytest.raises(CircuitOpen, match=r"^balance keeps failing and is not called .* 60 s$"):
        circuit.enter()
