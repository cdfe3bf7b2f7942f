"""The erasure of an actor's memory: all of `belongings.py`, and what is still being written to it.

The actor's item says that it is `erasing`, from the first write of an erasure to its last, which removes the item. What
holds then:

- No turn begins, no event is created, no record written (`Actors.require`, `Actor.unchanged`): each is refused with
  ActorErased. What began under the actor's former `epoch` stays refused afterwards.
- A turn under way is stopped. It cannot commit, since its session is gone. Its functions may run on for as long as they
  may run at all, and write a step, a trace event or an object of the turn meanwhile: the erasure remembers the turn and
  looks again `LATE_WRITE_SECONDS` later.
- It is over only when a look at everything (the table, the index, the bucket) finds nothing, `SETTLING_SECONDS` or more
  after anything was found, since the index follows the table.

Each request may be the last one before an interruption: whatever leads to other items goes after them, and the item of
the actor, which makes the erasure known, goes last. A repeat of an erasure that is over does nothing (`ERASURE#<id>`
remembers it for a day), so that it never touches what the actor says after it.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any
from uuid import uuid4

from botocore.exceptions import ClientError

from turnwright.agents.memory_configuration import digest_path
from turnwright.errors import ActorErased, CommitConflict, SessionBusy
from turnwright.memory.erasure.belongings import Belonging, Belongings
from turnwright.memory.records.records import Records
from turnwright.memory.records.session_summaries import SessionSummaries
from turnwright.sessions.sessions import FREE_SESSION, Session
from turnwright.sessions.values import Header, Status
from turnwright.storage import keys
from turnwright.storage.clock import expiry, now_ms
from turnwright.storage.documents import Documents
from turnwright.storage.keys import Key, SessionId
from turnwright.storage.table import (
    MOST_BATCH_WRITES,
    SCHEMA_VERSION,
    Check,
    ConditionFailed,
    Delete,
    Item,
    Put,
    Table,
    TransactionRefused,
    Update,
    Write,
)

LATE_WRITE_SECONDS = 330
"""Longer than any function of a turn runs on when its execution is stopped."""

LATE_OBJECT_SECONDS = 900
"""Longer than any function of a consolidation runs, which may write an object so long after it has announced it."""

SETTLING_SECONDS = 5
"""Longer than the index is ever behind the table."""

_REMEMBERED_DAYS = 1
_SESSION_ERASURE = "erasure"
"""Who holds the lease of a session that is removed; no turn's id."""

_LONGEST_SESSION_ERASURE_MS = 60_000
_MOST_REQUESTS = 50
_MOST_TRIES = 10


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an erasure is. Unless `done` it goes on after `waitSeconds`. `erased` counts items and objects."""

    done: bool
    waitSeconds: int = 0
    erased: int = 0

    def encode(self) -> dict[str, Any]:
        return asdict(self)


class _OutOfTime(Exception):
    """The rest has to wait for the next invocation."""


class Erasure:
    """The erasure `erasure_id` of one actor. `run` is called until it is done; any number of them may run at once.

    `stepfunctions` and `turn_machine_arn` are for stopping turns, `has_time` says whether to go on.
    """

    def __init__(
        self,
        table: Table,
        documents: Documents,
        stepfunctions: Any,
        turn_machine_arn: str,
        store: str,
        actor: str,
        erasure_id: str,
        has_time: Callable[[], bool] = lambda: True,
    ) -> None:
        self._table = table
        self._documents = documents
        self._stepfunctions = stepfunctions
        self._turn_machine_arn = turn_machine_arn
        self._store = store
        self._actor = actor
        self._erasure_id = erasure_id
        self._has_time = has_time
        self._belongings = Belongings(table, documents, store, actor)
        self._key = keys.actor(store, actor)
        self._erased = 0
        self._found = False

    def run(self) -> Progress:
        """Erases as much as there is time for."""
        mark = self._mark()
        if mark is None:
            return Progress(done=True)
        self._erased, self._found = 0, False
        try:
            mark = self._erase_everything(mark)
        except _OutOfTime:
            return Progress(done=False, erased=self._erased)
        quiet_in = max(0, -(-(mark["quietAfter"] - now_ms()) // 1000))
        if self._found:
            return Progress(False, max(SETTLING_SECONDS, quiet_in), self._erased)
        if quiet_in:
            return Progress(False, quiet_in)
        return self._finish(mark)

    def _mark(self) -> Item | None:
        """The actor's item, which says that it is being erased, also by this; None if this erasure is over."""
        for _ in range(_MOST_TRIES):
            item, ended = self._table.get_many([self._key, keys.ended_erasure(self._store, self._erasure_id)])
            if ended:
                return None
            if item and self._erasure_id in item.get("erasures", ()):
                return item
            try:
                self._table.transact([self._begun(item), self._not_ended()])
            except TransactionRefused:
                continue  # another erasure began, ended or joined meanwhile
        raise CommitConflict("other erasures of this actor keep changing its item; try again")

    def _begun(self, item: Item | None) -> Update:
        """The write that begins the erasure, or joins the one under way, so that both are over at once."""
        if item and "erasures" in item:
            if len(item["erasures"]) >= _MOST_REQUESTS:
                raise CommitConflict("this actor's erasure has been asked for too often; it is under way")
            return Update(
                self._key,
                "SET erasures = :all",
                condition="erasures = :seen",
                values={":all": [*item["erasures"], self._erasure_id], ":seen": item["erasures"]},
            )
        now = now_ms()
        return Update(
            self._key,
            "SET erasingSince = :now, erasures = :ids, quietAfter = :quiet, stopped = :none, memoryStore = :store, "
            "actor = :actor, epoch = if_not_exists(epoch, :epoch), createdAt = if_not_exists(createdAt, :now), "
            "schemaVersion = :schema",
            condition="attribute_not_exists(erasures)",
            values={
                ":now": now,
                ":ids": [self._erasure_id],
                ":quiet": now + SETTLING_SECONDS * 1000,
                ":none": [],
                ":store": self._store,
                ":actor": self._actor,
                ":epoch": uuid4().hex,
                ":schema": SCHEMA_VERSION,
            },
        )

    def _not_ended(self) -> Check:
        return Check(keys.ended_erasure(self._store, self._erasure_id), "attribute_not_exists(PK)")

    def _erase_everything(self, mark: Item) -> Item:
        """One look at everything, which erases what it finds. Returns the mark as it is then."""
        for turn in self._belongings.turns():
            header = self._table.get(Key(turn.partition, turn.head or ""))
            if header and Header.decode(header).status is Status.RUNNING:
                mark = self._stop(mark, keys.turn_of(turn.partition))
            self._erase(turn)
        for session in self._belongings.sessions():
            item = self._table.get(Key(session.partition, session.head or ""))
            held = Session.decode(item) if item else Session()
            if held.lease_owner and held.held_by_another(_SESSION_ERASURE, now_ms()):
                mark = self._stop(mark, held.lease_owner)
            mark = self._await_objects(mark, session.partition)
            self._erase(session)
        self._erase(self._belongings.memory())
        self._delete(self._belongings.namespaces())
        for turn_id in mark["stopped"]:
            self._erase(Belonging.of_turn(turn_id))
        return mark

    def _stop(self, mark: Item, turn_id: str) -> Item:
        """Stops a turn and remembers to look for what it writes late."""
        if turn_id not in mark["stopped"]:
            mark = self._table.update(
                Update(
                    self._key,
                    "SET stopped = list_append(stopped, :turn), quietAfter = :quiet",
                    condition="attribute_exists(erasures)",
                    values={":turn": [turn_id], ":quiet": now_ms() + LATE_WRITE_SECONDS * 1000},
                )
            )
        execution = f"{self._turn_machine_arn.replace(':stateMachine:', ':execution:')}:{turn_id}"
        try:
            self._stepfunctions.stop_execution(
                executionArn=execution, error=ActorErased.__name__, cause="the actor's memory was erased"
            )
        except ClientError as error:
            if error.response["Error"]["Code"] != "ExecutionDoesNotExist":
                raise
        return mark

    def _await_objects(self, mark: Item, partition: str) -> Item:
        """Remembers to look once more when what the session's consolidations have announced must have been written."""
        announced = self._table.query(partition, keys.OBJECT_PREFIX, keys.OBJECT_PREFIX + keys.END)
        quiet = max((item["announcedAt"] + LATE_OBJECT_SECONDS * 1000 for item in announced), default=0)
        if quiet <= max(mark["quietAfter"], now_ms()):
            return mark
        return self._table.update(
            Update(
                self._key,
                "SET quietAfter = :quiet",
                condition="attribute_exists(erasures)",
                values={":quiet": quiet},
            )
        )

    def _erase(self, belonging: Belonging) -> None:
        for prefix in belonging.objects:
            for names in self._documents.names(prefix):
                self._count(len(names))
                self._documents.delete(names)
        self._delete(key for key in self._table.keys(belonging.partition) if key.sk != belonging.head)
        if belonging.head is not None and self._table.get(Key(belonging.partition, belonging.head)):
            self._delete([Key(belonging.partition, belonging.head)])

    def _delete(self, found: Iterable[Key]) -> None:
        batch: list[Key] = []
        for key in found:
            batch.append(key)
            if len(batch) == MOST_BATCH_WRITES:
                self._delete_batch(batch)
                batch = []
        if batch:
            self._delete_batch(batch)

    def _delete_batch(self, batch: list[Key]) -> None:
        self._count(len(batch))
        self._table.delete_many(batch)

    def _count(self, found: int) -> None:
        if not self._has_time():
            raise _OutOfTime
        self._found = self._found or found > 0
        self._erased += found

    def _finish(self, mark: Item) -> Progress:
        """Removes the mark, unless another erasure has joined or a stopped turn was added since it was read."""
        expires = expiry(now_ms(), _REMEMBERED_DAYS)
        writes: list[Write] = [
            Delete(
                self._key,
                condition="erasures = :ids AND stopped = :stopped",
                values={":ids": mark["erasures"], ":stopped": mark["stopped"]},
            )
        ]
        writes += [
            Put(keys.ended_erasure(self._store, erasure_id), {"expiresAt": expires}) for erasure_id in mark["erasures"]
        ]
        try:
            self._table.transact(writes)
        except TransactionRefused:
            return Progress(done=False)
        return Progress(done=True)


def erase_session(table: Table, documents: Documents, session_id: SessionId) -> bool:
    """Removes a session with its events, its digest, its summaries and their objects; False if there is none of it.

    What was remembered of it in records stays, and its turns' journals live out their days. Raises SessionBusy while a
    turn runs in it. Meanwhile no turn may: the removal holds the session's lease. A repeat, also of one that was
    interrupted, removes what is left, since the session's item goes last.
    """
    found = False
    for _ in range(_MOST_TRIES):
        session = _hold(table, session_id)
        found = _erase_around(table, documents, session_id) or found or session is not None
        if session is None or _drop(table, session_id, session):
            return found
    raise CommitConflict(f"events keep being added to session {session_id.session}; try again")


def _hold(table: Table, session_id: SessionId) -> Session | None:
    """Takes the session's lease for the removal and ends it, so that no turn that has begun commits into it."""
    now = now_ms()
    try:
        item = table.update(
            Update(
                keys.session(session_id),
                "SET #status = :ended, version = version + :one, leaseOwner = :turn, leaseExpiresAt = :lease "
                "REMOVE duePK, dueSK",
                condition=f"attribute_exists(PK) AND ({FREE_SESSION})",
                names={"#status": "status"},
                values={
                    ":ended": "ENDED",
                    ":one": 1,
                    ":turn": _SESSION_ERASURE,
                    ":lease": now + _LONGEST_SESSION_ERASURE_MS,
                    ":now": now,
                },
            )
        )
    except ConditionFailed as refused:
        if refused.item is None:
            return None
        raise SessionBusy(f"session {session_id.session} runs turn {refused.item.get('leaseOwner')}") from refused
    return Session.decode(item)


def _erase_around(table: Table, documents: Documents, session_id: SessionId) -> bool:
    """Removes all of a session but its item; whether there was any."""
    found = False
    objects = keys.session_objects(session_id)
    for prefix in (objects, keys.LASTING_PREFIX + objects):
        for names in documents.names(prefix):
            documents.delete(names)
            found = found or bool(names)
    head = keys.session(session_id)
    rest = [key for key in table.keys(session_id.partition) if key != head]
    rest += [summary.item_key for summary in SessionSummaries(table).of_session(*session_id)]
    digest = digest_path(session_id.actor, session_id.session)
    rest += [record.item_key for record in Records(table).of_namespace(session_id.store, session_id.actor, digest)]
    for start in range(0, len(rest), MOST_BATCH_WRITES):
        table.delete_many(rest[start : start + MOST_BATCH_WRITES])
    return found or bool(rest)


def _drop(table: Table, session_id: SessionId, session: Session) -> bool:
    """Removes the session's item unless an event was added since it was held."""
    last = "lastEventId = :last" if session.last_event_id else "attribute_not_exists(lastEventId)"
    values = {":turn": _SESSION_ERASURE} | ({":last": session.last_event_id} if session.last_event_id else {})
    try:
        table.delete(Delete(keys.session(session_id), condition=f"leaseOwner = :turn AND {last}", values=values))
    except ConditionFailed as refused:
        return refused.item is None
    return True
