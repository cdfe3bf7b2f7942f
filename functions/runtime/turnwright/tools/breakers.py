"""The circuit breakers: one for each tool of an agent, shared by all its turns.

| state | known by | what a call does |
| --- | --- | --- |
| closed | no item, or fewer failures in a row than the threshold | goes ahead |
| open | the threshold is reached, and the last failure is younger than the recovery time | is refused |
| half-open | the threshold is reached, and the last failure is older | one call probes, the others are refused |

The item holds what happened (failures in a row, the last one's time, who probes and until when); what it means
follows from the policy that asks, so that a changed policy counts at once. A healthy call costs one read and no
write. A prober that dies loses its claim when its time is over, and the next call probes.

A success that began before the circuit opened does not close it; only the probe's does.
"""

from dataclasses import dataclass, replace
from uuid import uuid4

from turnwright.agents.retry_policy import CircuitBreaker
from turnwright.errors import StorageUnavailable
from turnwright.storage import keys
from turnwright.storage.clock import expiry, now_ms
from turnwright.storage.keys import Key
from turnwright.storage.table import SCHEMA_VERSION, ConditionFailed, Item, Table, Update
from turnwright.tools.tool_failures import SERVICE_FAILURES, ToolFailure
from turnwright.tracing.log import logger

PROBE_MARGIN_SECONDS = 15
"""How much longer than the tool's own time a probe is claimed for: the gateway's work before and after the call."""

_KEPT_DAYS = 7

ANSWERS = frozenset({"FAILURE", "REPROMPT", "RESPONSE_TOO_LARGE"})
"""Failures that show that the service is there: it answered."""


class CircuitOpen(ToolFailure):
    """Nothing is invoked. `retry_after_seconds` is when to expect the tool back."""

    def __init__(self, tool: str, retry_after_ms: int) -> None:
        self.retry_after_seconds = max(1, -(-retry_after_ms // 1000))
        super().__init__(
            "CIRCUIT_OPEN",
            f"{tool} keeps failing and is not called for now; expect it back in {self.retry_after_seconds} s",
            invoked=False,
        )


@dataclass(frozen=True, slots=True)
class Passage:
    """A call that the breaker let through: how many failures in a row it saw, and its claim if it probes."""

    key: Key
    policy: CircuitBreaker
    failures: int = 0
    probe: str | None = None


class Breakers:
    """The breakers of one agent."""

    def __init__(self, table: Table, agent_id: str) -> None:
        self._table = table
        self._agent_id = agent_id

    def enter(self, tool: str, policy: CircuitBreaker, caller: str, timeout_seconds: int) -> Passage | None:
        """Lets a call through, or raises CircuitOpen. None if the policy has no breaker.

        `caller` names the attempt, so that a repeat of it keeps its claim; `timeout_seconds` is what the tool may take.
        """
        if not policy.enabled:
            return None
        key = keys.breaker(self._agent_id, tool)
        item = self._table.get(key)
        failures = item["failures"] if item else 0
        if item is None or failures < policy.failure_threshold:
            return Passage(key, policy, failures)
        now = now_ms()
        open_until = item["lastFailureAt"] + policy.recovery_seconds * 1000
        if now < open_until:
            raise CircuitOpen(tool, open_until - now)
        return self._probe(tool, Passage(key, policy, failures, caller), item, now, timeout_seconds)

    def succeeded(self, passage: Passage) -> None:
        """The service answered: closes the circuit after a probe, ends a row of failures otherwise."""
        if passage.probe:
            self._reset(passage, "probeOwner = :probe", {":probe": passage.probe})
        elif passage.failures:
            self._reset(passage, "failures < :threshold", {":threshold": passage.policy.failure_threshold})

    def failed(self, passage: Passage, code: str) -> None:
        """Counts a failure of the service; one that says nothing about the service only gives a probe back."""
        if code in ANSWERS:
            self.succeeded(passage)
        elif code in SERVICE_FAILURES:
            self._count(passage)
        elif passage.probe:
            self._update_unless_overtaken(
                Update(
                    passage.key,
                    "REMOVE probeOwner, probeUntil",
                    condition="probeOwner = :probe",
                    values={":probe": passage.probe},
                )
            )

    def _count(self, passage: Passage) -> None:
        """Counts once, also if the answer is lost and botocore sends the request, with its `counted`, again."""
        now = now_ms()
        counted = Update(
            passage.key,
            "SET failures = if_not_exists(failures, :zero) + :one, lastFailureAt = :now, counted = :counted, "
            "expiresAt = :expires, schemaVersion = :schema",
            condition="attribute_not_exists(counted) OR counted <> :counted",
            values={
                ":counted": uuid4().hex,
                ":zero": 0,
                ":one": 1,
                ":now": now,
                ":expires": expiry(now, _KEPT_DAYS),
                ":schema": SCHEMA_VERSION,
            },
        )
        if passage.probe:
            counted = replace(
                counted,
                expression=f"{counted.expression} REMOVE probeOwner, probeUntil",
                condition="probeOwner = :probe",
                values={**counted.values, ":probe": passage.probe},
            )
        self._update_unless_overtaken(counted)

    def _probe(self, tool: str, passage: Passage, seen: Item, now: int, timeout_seconds: int) -> Passage:
        until = now + (timeout_seconds + PROBE_MARGIN_SECONDS) * 1000
        try:
            self._table.update(
                Update(
                    passage.key,
                    "SET probeOwner = :probe, probeUntil = :until",
                    condition="failures >= :threshold AND lastFailureAt = :seen AND "
                    "(attribute_not_exists(probeUntil) OR probeUntil < :now OR probeOwner = :probe)",
                    values={
                        ":probe": passage.probe,
                        ":until": until,
                        ":threshold": passage.policy.failure_threshold,
                        ":seen": seen["lastFailureAt"],
                        ":now": now,
                    },
                )
            )
        except ConditionFailed as refused:
            found = refused.item
            if found is None or found["failures"] < passage.policy.failure_threshold:
                return Passage(passage.key, passage.policy, found["failures"] if found else 0)
            recovered_at = found["lastFailureAt"] + passage.policy.recovery_seconds * 1000
            raise CircuitOpen(tool, max(found.get("probeUntil", 0), recovered_at) - now) from refused
        return passage

    def _reset(self, passage: Passage, condition: str, values: Item) -> None:
        self._update_unless_overtaken(
            Update(
                passage.key,
                "SET failures = :zero REMOVE probeOwner, probeUntil",
                condition=condition,
                values={**values, ":zero": 0},
            )
        )

    def _update_unless_overtaken(self, update: Update) -> None:
        """Does nothing if the circuit opened meanwhile, or another call probes: what this one knows is older.

        A breaker that cannot be told costs the call nothing: the next one tells it, and a probe's claim ends by itself.
        """
        try:
            self._table.update(update)
        except ConditionFailed:
            return
        except StorageUnavailable:
            logger().exception("a circuit breaker was not told how a call ended", key=update.key)
