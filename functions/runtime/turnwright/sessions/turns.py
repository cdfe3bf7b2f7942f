"""A turn: its header in the table, from the claim of its session to the commit.

Until `commit` nothing of a turn is seen by another one. Each write here may be repeated, come late or race another:
the session's lease (`leaseOwner`, `leaseExpiresAt`) lets one turn run at a time, the session's `version` lets only a
turn commit that has seen all that was committed before it, and the header's `status` lets a turn end once. Its
`redrive` tells a failure that is recorded late from a turn that runs again since: each redrive has a number.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from turnwright.agents.memory_configuration import MemoryConfiguration
from turnwright.errors import LeaseLost, SessionBusy, TurnAlreadyEnded
from turnwright.sessions.sessions import FREE_SESSION, lease_expiry, without_lease
from turnwright.sessions.values import JOURNAL_DAYS, Header, Status, Turn
from turnwright.storage import keys
from turnwright.storage.clock import expiry, now_ms
from turnwright.storage.documents import Stowed, json_text
from turnwright.storage.item_sizes import attribute_bytes, item_bytes, transaction_units
from turnwright.storage.keys import NO_ACTOR, SessionId
from turnwright.storage.table import SCHEMA_VERSION, ConditionFailed, Item, Put, Table, TransactionRefused, Update

_NOT_RUN_AGAIN = (
    "attribute_exists(PK) AND #status <> :committed AND (attribute_not_exists(redrive) OR redrive <= :redrive)"
)
_RUN_AGAIN = "SET #status = :running, redrive = :redrive REMOVE failure, endedAt, receipt"
_RECEIPT_BYTES, _SESSION_BYTES = 1024, 640
"""What a receipt takes of a header, and all but the attributes of a session's item, about."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """What Load Memory pins: the ids, and what the turn's first message is made of."""

    turn: Turn
    event_id: str
    history_floor: str
    request: Stowed
    session_attributes: Mapping[str, str]
    execution_arn: str
    caller: str
    injected: Stowed | None = None
    trace_id: str = ""
    definition_version: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What Write Memory commits."""

    messages: Stowed
    characters: int
    answer: Stowed
    usage: Mapping[str, int]
    session_attributes: Mapping[str, str]
    memory: MemoryConfiguration
    receipt: Callable[[int], Mapping[str, Any]]
    """Makes the turn's receipt, given an estimate of the write units that the commit itself will consume."""


class Turns:
    """The turns of a table."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def read(self, turn_id: str, *, consistent: bool = True) -> Header | None:
        item = self._table.get(keys.turn_header(turn_id), consistent=consistent)
        return Header.decode(item) if item else None

    def begin(self, beginning: Beginning, *, redrive: int) -> Header:
        """Writes the header; the session must be claimed already. A repeat gets the header that the first one wrote.

        Raises TurnAlreadyEnded if the turn was committed or has failed: then this is a late repeat, whose claim the
        caller must give back. A redriven execution may begin a failed turn again.
        """
        now = now_ms()
        item: Item = {
            **beginning.turn.encode(),
            "status": Status.RUNNING,
            "eventId": beginning.event_id,
            "historyFloor": beginning.history_floor,
            "request": json_text(beginning.request),
            "sessionAttributes": json_text(beginning.session_attributes),
            "executionArn": beginning.execution_arn,
            "caller": beginning.caller,
            "startedAt": now,
            "expiresAt": expiry(now, JOURNAL_DAYS),
        }
        item |= keys.owned_turn(beginning.turn.session, now, beginning.turn.turnId)
        if beginning.injected:
            item["injected"] = json_text(beginning.injected)
        if beginning.trace_id:
            item["traceId"] = beginning.trace_id
        if beginning.definition_version:
            item["definitionVersion"] = beginning.definition_version
        if redrive:
            item["redrive"] = redrive
        key = keys.turn_header(beginning.turn.turnId)
        found = self._put_or_find(Put(key, item, only_if_absent=True))
        if found and found.status is Status.RUNNING and redrive:
            self._redriven(beginning.turn.turnId, redrive, "SET redrive = :redrive")
        if found and found.status is Status.FAILED and redrive:
            found = self._put_or_find(
                Put(
                    key,
                    item,
                    condition="#status = :failed",
                    names={"#status": "status"},
                    values={":failed": Status.FAILED},
                )
            )
        if found and found.status is not Status.RUNNING:
            raise TurnAlreadyEnded(f"turn {beginning.turn.turnId} has ended")
        return found or Header.decode(item)

    def resume(self, turn: Turn, redrive: int) -> None:
        """Takes the session back for a redriven turn, or holds it for longer; each state of a redriven execution does.

        The header says so first, by the number of the redrive: from then on a failure of before, which may only now be
        recorded, neither ends the turn nor frees its session. Does nothing for a committed turn. Raises LeaseLost if
        the session went on or was ended since, and SessionBusy if another turn runs.
        """
        header = self.read(turn.turnId)
        if header is None or header.status is Status.COMMITTED:
            return
        if header.fields.get("redrive", 0) < redrive:
            self._redriven(turn.turnId, redrive, "SET redrive = :redrive")
        now = now_ms()
        try:
            self._table.update(
                Update(
                    keys.session(turn.session),
                    "SET leaseOwner = :turn, leaseExpiresAt = :expiry",
                    condition=f"({FREE_SESSION}) AND version = :version",
                    values={
                        ":turn": turn.turnId,
                        ":now": now,
                        ":expiry": lease_expiry(now),
                        ":version": turn.sessionVersion,
                    },
                )
            )
        except ConditionFailed as refused:
            if refused.item and refused.item["version"] == turn.sessionVersion:
                raise SessionBusy(f"session {turn.sessionId} runs another turn") from refused
            raise LeaseLost(f"session {turn.sessionId} went on without turn {turn.turnId}") from refused
        if header.status is Status.FAILED:
            self._redriven(turn.turnId, redrive, _RUN_AGAIN, {":running": Status.RUNNING})

    def commit(self, header: Header, outcome: Outcome, *, is_last: bool = True) -> Header:
        """Commits the turn in one transaction: its event, its session's new version without the lease, its header.

        A turn that is committed already is answered from its header. Raises LeaseLost if the session went on without
        this turn or the turn was declared failed, CommitConflict when it should be tried again.

        CreateEvent may have added a later event while the turn ran (`is_last` False then), which stays the last one.
        """
        turn = header.turn
        now = now_ms()
        expires = expiry(now, outcome.memory.storage_days)
        event: Item = {
            "eventId": header.event_id,
            "turnId": turn.turnId,
            "agentId": turn.agentId,
            "agentVersion": turn.agentVersion,
            "messages": json_text(outcome.messages),
            "characters": outcome.characters,
            "committedAt": now,
            "expiresAt": expires,
        }
        committed: Item = {
            "status": Status.COMMITTED,
            "answer": json_text(outcome.answer),
            "usage": json_text(outcome.usage),
            "characters": outcome.characters,
            "endedAt": now,
        }
        session_attributes = json_text(outcome.session_attributes)
        remembered = _remembered(header, outcome, now)
        last = ", lastEventId = :event" if is_last else ""
        session_update = Update(
            keys.session(turn.session),
            f"SET version = :next, #status = :open{last}, attributes = :attributes, "
            "historyFloor = :floor, updatedAt = :now, expiresAt = :expires, agentId = :agent, "
            f"agentVersion = :agentVersion{remembered.assignments} "
            f"REMOVE leaseOwner, leaseExpiresAt{remembered.removed}",
            condition="leaseOwner = :turn AND version = :version AND "
            + ("(attribute_not_exists(lastEventId) OR lastEventId < :event)" if is_last else "lastEventId > :event"),
            names={"#status": "status"},
            values={
                ":turn": turn.turnId,
                ":version": turn.sessionVersion,
                ":next": turn.sessionVersion + 1,
                ":open": "OPEN",
                ":event": header.event_id,
                ":attributes": session_attributes,
                ":floor": header.fields["historyFloor"],
                ":now": now,
                ":expires": expires,
                ":agent": turn.agentId,
                ":agentVersion": turn.agentVersion,
                **remembered.values,
            },
        )
        units = _commit_units(header, event, committed, session_attributes)
        committed["receipt"] = json_text(outcome.receipt(units))
        header_update = Update(
            keys.turn_header(turn.turnId),
            "SET #status = :status, answer = :answer, #usage = :usage, characters = :characters, endedAt = :endedAt, "
            "receipt = :receipt",
            condition="#status = :running",
            names={"#status": "status", "#usage": "usage"},
            values={":running": Status.RUNNING, **{f":{name}": value for name, value in committed.items()}},
        )
        event_put = Put(keys.session_event(turn.session, header.event_id), event, only_if_absent=True)
        try:
            self._table.transact([event_put, session_update, header_update])
        except TransactionRefused as refused:
            current = self.read(turn.turnId)
            if current and current.status is Status.COMMITTED:
                return current
            if is_last and self._has_later_event(turn, header.event_id):
                return self.commit(header, outcome, is_last=False)
            raise LeaseLost(f"turn {turn.turnId} no longer holds session {turn.sessionId}") from refused
        return Header.decode({**header.fields, **committed})

    def fail(
        self,
        turn_id: str,
        failure: Mapping[str, Any],
        *,
        unless_failed: bool = False,
        session_id: SessionId | None = None,
        receipt: Mapping[str, Any] | None = None,
    ) -> bool:
        """Marks the turn FAILED, also one that never wrote a header. False if it is committed, which then stands.

        `unless_failed` leaves the failure alone that a failed turn has already, and answers False then too. A turn
        without a header is found among those of its actor only if its session is named.
        """
        owned = keys.owned_turn(session_id, now_ms(), turn_id) if session_id else {}
        replaceable, status = ("=", Status.RUNNING) if unless_failed else ("<>", Status.COMMITTED)
        condition = f"attribute_not_exists(PK) OR #status {replaceable} :status"
        try:
            self._table.update(_failed(turn_id, failure, receipt, condition, {":status": status}, owned))
        except ConditionFailed:
            return False
        return True

    def fail_begun(
        self, turn: Turn, failure: Mapping[str, Any], redrive: int, receipt: Mapping[str, Any] | None = None
    ) -> bool:
        """Marks a turn FAILED whose header was there, and frees its session with the same write, so that who is told of
        the failure finds the session free. False, and nothing is written, if the turn is committed, runs again in a
        later redrive than the one that failed, or was erased. Raises CommitConflict when it should be tried again.
        """
        values = {":committed": Status.COMMITTED, ":redrive": redrive}
        failed = _failed(turn.turnId, failure, receipt, _NOT_RUN_AGAIN, values, owned={})
        try:
            self._table.transact([failed, without_lease(turn.session, turn.turnId)])
        except TransactionRefused as refused:
            if refused.reasons[0] == "ConditionalCheckFailed":
                return False
        else:
            return True
        try:  # another turn has the session by now, or nobody
            self._table.update(failed)
        except ConditionFailed:
            return False
        return True

    def _has_later_event(self, turn: Turn, event_id: str) -> bool:
        """Whether the turn holds its session still, in which there is an event later than its own."""
        item = self._table.get(keys.session(turn.session)) or {}
        holds = item.get("leaseOwner") == turn.turnId and item.get("version") == turn.sessionVersion
        return holds and item.get("lastEventId", "") > event_id

    def _put_or_find(self, write: Put) -> Header | None:
        """Writes a header; the one that is there instead, if its condition did not hold."""
        try:
            self._table.put(write)
        except ConditionFailed as refused:
            if refused.item is None:
                raise
            return Header.decode(refused.item)
        return None

    def _redriven(self, turn_id: str, redrive: int, expression: str, values: Mapping[str, Any] | None = None) -> None:
        """Changes a header in a redrive, unless a later one has begun, or the turn was committed or erased."""
        update = Update(
            keys.turn_header(turn_id),
            expression,
            condition=_NOT_RUN_AGAIN,
            names={"#status": "status"},
            values={":committed": Status.COMMITTED, ":redrive": redrive, **(values or {})},
        )
        try:
            self._table.update(update)
        except ConditionFailed:
            return  # a repeat of this state was faster, and may even have led to the commit


def _failed(
    turn_id: str,
    failure: Mapping[str, Any],
    receipt: Mapping[str, Any] | None,
    condition: str,
    values: Mapping[str, Any],
    owned: Mapping[str, Any],
) -> Update:
    """What makes a header that of a failed turn, under a condition with its values; `owned` is what finds it among its
    actor's.
    """
    now = now_ms()
    given: dict[str, Any] = {
        ":failed": Status.FAILED,
        ":failure": json_text(failure),
        ":turn": turn_id,
        ":now": now,
        ":expires": expiry(now, JOURNAL_DAYS),
        ":schema": SCHEMA_VERSION,
        **{f":{name}": value for name, value in owned.items()},
        **values,
    }
    if receipt:
        given[":receipt"] = json_text(receipt)
    return Update(
        keys.turn_header(turn_id),
        "SET #status = :failed, failure = :failure, turnId = :turn, endedAt = :now, "
        "expiresAt = :expires, schemaVersion = :schema"
        + "".join(f", {name} = if_not_exists({name}, :{name})" for name in owned)
        + (", receipt = :receipt" if receipt else ""),
        condition=condition,
        names={"#status": "status"},
        values=given,
    )


@dataclass(frozen=True, slots=True)
class _Remembered:
    """What the update of a session says besides, so that memory sees the turn: parts of its expression."""

    assignments: str
    removed: str
    values: Mapping[str, Any]


def _remembered(header: Header, outcome: Outcome, now: int) -> _Remembered:
    """The session is due when it will have been idle for too long, and one more turn of it is in no digest."""
    memory, session = outcome.memory, header.turn.session
    assignments, removed, values = "", "", dict[str, Any]()
    if memory.consolidates and memory.idle_seconds is not None and session.actor != NO_ACTOR:
        assignments += ", duePK = :duePK, dueSK = :dueSK"
        due = keys.due(session, now + memory.idle_seconds * 1000)
        values |= {f":{name}": value for name, value in due.items()}
    else:
        removed += ", duePK, dueSK"
    if memory.remembers:
        assignments += (
            ", digestedTo = if_not_exists(digestedTo, :floor), "
            "undigestedTurns = if_not_exists(undigestedTurns, :none) + :one, "
            "undigestedCharacters = if_not_exists(undigestedCharacters, :none) + :characters"
        )
        values |= {":none": 0, ":one": 1, ":characters": outcome.characters}
    else:
        removed += ", digestedTo, undigestedTurns, undigestedCharacters"
    return _Remembered(assignments, removed, values)


def _commit_units(header: Header, event: Item, committed: Item, attributes: str) -> int:
    """What the commit will consume, an estimate: its three items, of which the session's is taken to have
    `_SESSION_BYTES` beside its attributes, and no index.
    """
    sizes = (
        item_bytes(event),
        attribute_bytes("attributes", attributes) + _SESSION_BYTES,
        item_bytes({**header.fields, **committed}) + _RECEIPT_BYTES,
    )
    return sum(map(transaction_units, sizes))
