"""The events of a session: what turns committed and what CreateEvent added, in one order.

An event's id is the moment at which it happened, in milliseconds, `#`, and eight hexadecimal digits that grow with each
event of one moment, so that events sort as they came: boto3 sends whole seconds. An event that would lie before the
session's history begins (an ended part of the session is consolidated already) gets the beginning as its moment.
"""

import json
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from uuid import NAMESPACE_URL, uuid4, uuid5

from turnwright.agents.memory_configuration import MemoryConfiguration
from turnwright.api.agentcore import paging
from turnwright.api.agentcore.event_filters import Lineage, read_filter
from turnwright.api.agentcore.event_payloads import characters, of_messages, said_by
from turnwright.api.agentcore.operations import memory_id, milliseconds, operations, seconds
from turnwright.api.agentcore.refusals import Busy, NotThere, Reason, Throttled, invalid
from turnwright.api.agentcore.stores import Store, Stores
from turnwright.errors import ActorErased, CommitConflict
from turnwright.memory.records.actors import Actors
from turnwright.memory.records.store_configuration import configuration_of
from turnwright.memory.session_ends.session_ends import SessionEnds
from turnwright.sessions.event_messages import is_ingested
from turnwright.sessions.sessions import Session
from turnwright.storage import keys
from turnwright.storage.clock import expiry, now_ms
from turnwright.storage.documents import ITEM_BYTES, Documents, json_text
from turnwright.storage.keys import SessionId
from turnwright.storage.table import SCHEMA_VERSION, Delete, Item, Put, Table, TransactionRefused, Update, Write

EVENT_BYTES = 5_500_000
"""How long an event may be as it travels: Lambda takes requests of 6 MB (AgentCore events of 10). There the JSON is a
text in JSON, so that each of its quotation marks has two bytes; where answers are buffered, it is base64 instead, as
all that such an API takes. What is longer than Lambda takes API Gateway refuses with 413 before anyone can say more."""

PAGE_BYTES = 10 * 1024 * 1024
"""How long the events of a page are together in JSON: API Gateway streams the first 10 MB without slowing down."""

BUFFERED_PAGE_BYTES = 5_500_000
"""The same where the answer is buffered, of which Lambda takes 6 MB: JSON as a text in JSON."""

MAIN = "main"
"""The branch that needs no name."""

DEFAULT_RESULTS = 20
_MOST_PASSED = 5_000
"""So many events that a filter does not want are passed over in one request."""
_MOST_TRIES = 12
_PAUSE_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Event:
    """An event as its item has it. `at` is when it happened, in ms; `branch` is "" for the main branch."""

    event_id: str
    at: int
    expires_at: int
    item: Item = field(repr=False)
    branch: str = ""
    root_event_id: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def decode(cls, item: Item) -> "Event":
        event_id = item["eventId"]
        branch = json.loads(item.get("branch", "{}"))
        return cls(
            event_id=event_id,
            at=item.get("eventTimestamp", int(event_id.partition("#")[0])),
            expires_at=item["expiresAt"],
            item=item,
            branch=branch.get("name", ""),
            root_event_id=branch.get("rootEventId", ""),
            metadata=json.loads(item.get("metadata", "{}")),
        )

    def alive(self, now: int) -> bool:
        return self.expires_at * 1000 > now

    def payload(self, documents: Documents) -> list[dict[str, Any]]:
        if "payload" in self.item:
            payload: list[dict[str, Any]] = documents.fetch_text(self.item["payload"])
            return payload
        return of_messages(documents.fetch_text(self.item["messages"]))

    def wire(self, session: SessionId, payload: list[dict[str, Any]] | None) -> dict[str, Any]:
        """The event as an answer has it. Without payloads the field is empty: the model requires it."""
        answer: dict[str, Any] = {
            "memoryId": session.store,
            "actorId": session.actor,
            "sessionId": session.session,
            "eventId": self.event_id,
            "eventTimestamp": seconds(self.at),
            "payload": payload or [],
        }
        if self.branch:
            answer["branch"] = {"name": self.branch}
            if self.root_event_id:
                answer["branch"]["rootEventId"] = self.root_event_id
        if self.metadata:
            answer["metadata"] = dict(self.metadata)
        return answer


class Events:
    """What CreateEvent, IngestData, GetEvent, ListEvents and DeleteEvent do. Each takes checked fields and returns the
    answer.
    """

    def __init__(
        self,
        table: Table,
        documents: Documents,
        *,
        buffered: bool = False,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._table = table
        self._documents = documents
        self._stores = Stores(table)
        self._pause = pause
        self._buffered = buffered
        self._page_bytes = BUFFERED_PAGE_BYTES if buffered else PAGE_BYTES

    def create(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """A repeat with the same clientToken is answered with the event that is there, whatever else it says.

        Raises Busy when others kept writing to the session.
        """
        return {"event": self._create(fields, ingested=False)}

    def ingest(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """An event that is consolidated with its session like others, and that nobody is shown.

        A repeat with the same clientToken adds nothing. Raises Throttled when others kept writing to the session.
        """
        payload = said_by(fields["source"]["inline"]["payload"])
        if not any(entry["conversational"]["content"]["text"].strip() for entry in payload):
            raise invalid("source.inline.payload", "says nothing that could be remembered")
        if not self._stores.require(memory_id(fields)).configuration.consolidates:
            raise invalid("memoryId", "is a memory without strategies, so that nothing would become of the content")
        rest = {name: value for name, value in fields.items() if name not in ("source", "contentTimestamp")}
        event = {**rest, "payload": payload, "eventTimestamp": fields["contentTimestamp"]}
        if "clientToken" in fields:
            # Not the token of an event that CreateEvent made with the same one.
            event["clientToken"] = f"IngestData {fields['clientToken']}"
        try:
            return {"sessionId": self._create(event, ingested=True)["sessionId"]}
        except Busy as busy:
            raise Throttled(str(busy)) from busy

    def _create(self, fields: Mapping[str, Any], *, ingested: bool) -> dict[str, Any]:
        token = sha256(fields["clientToken"].encode()).hexdigest() if fields.get("clientToken") else ""
        session_name = fields.get("sessionId") or _new_session(fields, token)
        session = SessionId(memory_id(fields), fields["actorId"], session_name)
        branch = _branch(fields)
        found = self._read(session, token, branch)
        store = self._stores.usable(session.store, found.store)
        new = self._new_event(store, session, fields, token, branch)
        new.ingested = ingested
        for attempt in range(_MOST_TRIES):
            try:
                return self._create_once(store, session, new, found)
            except (TransactionRefused, CommitConflict):
                self._pause(random.uniform(0, _PAUSE_SECONDS * (attempt + 1)))
            except ActorErased as erased:
                raise Busy(str(erased)) from erased
            found = self._read(session, token, branch)
            store = self._stores.usable(session.store, found.store)
        raise Busy(f"others keep writing to session {session.session}; repeat the request")

    def get(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        session = self._session(fields)
        event = self._event(session, fields["eventId"])
        return {"event": event.wire(session, event.payload(self._documents))}

    def delete(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The event is gone with its clientToken, which may make another one."""
        session = self._session(fields)
        event = self._event(session, fields["eventId"])
        writes: list[Write] = [
            Delete(keys.session_event(session, event.event_id), condition="attribute_exists(PK)"),
        ]
        if "clientToken" in event.item:
            writes.append(Delete(keys.client_token(session, event.item["clientToken"])))
        try:
            self._table.transact(writes)
        except TransactionRefused as refused:
            raise _no_event(event.event_id) from refused
        if "payload" in event.item:
            self._documents.discard(json.loads(event.item["payload"]))
        return {"eventId": event.event_id}

    def page(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Newest first. A page ends early rather than be too long for an answer."""
        session = self._session(fields)
        wanted = read_filter(fields.get("filter"), lambda name: self._lineage(session, name))
        limit = fields.get("maxResults", DEFAULT_RESULTS)
        page: list[dict[str, Any]] = []
        size = passed = 0
        now = now_ms()
        last = ""

        def continued(behind: str) -> dict[str, Any]:
            return {"events": page, "nextToken": paging.token("ListEvents", fields, [behind])}

        chunk = limit + 1 if wanted.everything else max(limit + 1, 100)
        for event in self._newest_first(session, self._after(session, fields), chunk):
            hidden = not event.alive(now) or is_ingested(event.item)
            if hidden or not wanted.holds(event.event_id, event.branch, event.metadata):
                passed += 1
                if passed == _MOST_PASSED:
                    return continued(event.event_id)
                continue
            if len(page) == limit:
                return continued(last)
            payload = event.payload(self._documents) if fields.get("includePayloads", True) else None
            answer = event.wire(session, payload)
            text = json_text(answer)
            size += len((json_text(text) if self._buffered else text).encode())
            if page and size > self._page_bytes:
                return continued(last)
            page.append(answer)
            last = event.event_id
        return {"events": page}

    def _newest_first(self, session: SessionId, after: str | None, chunk: int) -> Iterator[Event]:
        """`chunk` is how many are read at a time."""
        while True:
            read = 0
            for item in self._table.query(
                session.partition,
                keys.EVENT_PREFIX,
                keys.EVENT_PREFIX + keys.END,
                newest_first=True,
                limit=chunk,
                after=after,
            ):
                read += 1
                after = item["SK"]
                yield Event.decode(item)
            if read < chunk:
                return

    def _travelling_bytes(self, event: Mapping[str, Any]) -> int:
        text = json_text(event)
        in_json = len(json_text(text).encode())
        return max(in_json, -(-len(text.encode()) * 4 // 3)) if self._buffered else in_json

    def _after(self, session: SessionId, fields: Mapping[str, Any]) -> str | None:
        position = paging.position("ListEvents", fields, 1)
        if position is None:
            return None
        if not re.fullmatch(operations()["GetEvent"].request["properties"]["eventId"]["pattern"], position[0]):
            raise invalid("nextToken", "is not one that an earlier answer to this request gave")
        return keys.session_event(session, position[0]).sk

    def _session(self, fields: Mapping[str, Any]) -> SessionId:
        store = self._stores.require(memory_id(fields))
        return SessionId(store.store_id, fields["actorId"], fields["sessionId"])

    def _event(self, session: SessionId, event_id: str) -> Event:
        item = self._table.get(keys.session_event(session, event_id))
        event = Event.decode(item) if item else None
        if event is None or not event.alive(now_ms()) or is_ingested(event.item):
            raise _no_event(event_id)
        return event

    def _lineage(self, session: SessionId, name: str) -> Iterator[Lineage]:
        """A branch, then its parents up to the main branch, each up to the event where the next one left it."""
        bound, seen = "", set[str]()
        while name and name not in seen:
            yield Lineage(name, bound)
            seen.add(name)
            item = self._table.get(keys.branch(session, name))
            if item is None:
                return
            bound = min(filter(None, (bound, item["rootEventId"])))
            name = item["parent"]
        if not name:
            yield Lineage("", bound)

    def _read(self, session: SessionId, token: str, branch: Mapping[str, str]) -> "_Found":
        """All that a new event depends on, in one request."""
        items = self._table.get_many(
            [
                keys.store(session.store),
                keys.actor(session.store, session.actor),
                keys.session(session),
                keys.client_token(session, token or "-"),
                keys.branch(session, branch.get("name", MAIN)),
            ]
        )
        return _Found(*items)

    def _new_event(
        self, store: Store, session: SessionId, fields: Mapping[str, Any], token: str, branch: dict[str, str]
    ) -> "_NewEvent":
        payload = fields["payload"]
        days = store.configuration.storage_days
        new = _NewEvent(
            at=milliseconds(fields["eventTimestamp"]),
            branch=branch,
            metadata=fields.get("metadata", {}),
            payload=payload,
            token=token,
            extracted="extractionMode" not in fields and characters(payload) > 0,
            expires_at=expiry(now_ms(), days),
        )
        size = self._travelling_bytes(new.preview(session))
        if size > EVENT_BYTES:
            raise invalid("payload", f"makes an event of {size} bytes as it travels; at most {EVENT_BYTES} are taken")
        owner = token or uuid4().hex  # no other event has this one's object, which goes with it
        new.stowed = json_text(
            self._documents.stow(
                payload,
                lambda digest: keys.event_object(session, days, sha256(f"{owner}{digest}".encode()).hexdigest()),
                ITEM_BYTES,
            )
        )
        return new

    def _create_once(self, store: Store, session_id: SessionId, new: "_NewEvent", found: "_Found") -> dict[str, Any]:
        """One transaction on what was read. Raises TransactionRefused or CommitConflict when that has changed."""
        if new.token and found.token:
            made = self._table.get(keys.session_event(session_id, found.token["eventId"]))
            if made and Event.decode(made).alive(now_ms()):
                event = Event.decode(made)
                return event.wire(session_id, event.payload(self._documents))
        actor = Actors(self._table).required(session_id.store, session_id.actor, found.actor, store.still_there)
        now = now_ms()
        session = (Session.decode(found.session) if found.session else Session()).as_of(now)
        configuration = self._configuration(store, found.session or {})
        if session.idle(now, configuration.idle_seconds) and not session.held_by_another("", now):
            # As a turn does: what is said now belongs to the next part of the session. The sweep starts the rest.
            SessionEnds(self._table).end_idle(session_id, "", session)
            return self._create_once(store, session_id, new, self._read(session_id, new.token, new.branch))
        event_id = _event_id(max(new.at, _moment(session.first_event_id)))
        branch = self._branch_item(session_id, new, found.branch)
        if new.extracted and store.agent_id and "agentId" not in (found.session or {}):
            new.agent = (store.agent_id, store.agent_version)
        due = configuration.idle_seconds if new.extracted and configuration.consolidates else None
        item = new.item(event_id)
        writes: list[Write] = [
            Put(keys.session_event(session_id, event_id), item, only_if_absent=True),
            _session_update(session_id, found.session, session, new, event_id, due, now),
            actor.unchanged(),
        ]
        if new.token:
            writes.append(_token_put(keys.client_token(session_id, new.token), new, event_id, found.token))
        if branch is not None:
            writes.append(Put(keys.branch(session_id, branch["name"]), branch, only_if_absent=found.branch is None))
        self._table.transact(writes)
        return Event.decode(item).wire(session_id, new.payload)

    def _branch_item(self, session: SessionId, new: "_NewEvent", known: Item | None) -> Item | None:
        """The item of the event's branch. Raises Invalid for a branch that would begin nowhere or elsewhere."""
        if not new.branch:
            return None
        name, root = new.branch["name"], new.branch.get("rootEventId")
        if known is not None:
            if root not in (None, known["rootEventId"]):
                raise invalid("branch.rootEventId", f"is not where branch {name} begins: {known['rootEventId']}")
            new.branch["rootEventId"] = known["rootEventId"]
            return {**known, "expiresAt": max(known["expiresAt"], new.expires_at)}
        if root is None:
            raise invalid("branch.rootEventId", f"is missing: the session has no branch {name} to go on with")
        item = self._table.get(keys.session_event(session, root))
        if item is None or is_ingested(item):
            raise invalid("branch.rootEventId", "names no event of this session", Reason.OTHER_SESSION)
        parent = Event.decode(item).branch
        return {"name": name, "rootEventId": root, "parent": parent, "expiresAt": new.expires_at}

    def _configuration(self, store: Store, session: Item) -> MemoryConfiguration:
        """By which the session is remembered: its last agent's, or else the store's."""
        if "agentId" not in session:
            return store.configuration
        return configuration_of(self._table, store.store_id, session["agentId"], session["agentVersion"])


@dataclass(frozen=True, slots=True)
class _Found:
    """The items that a new event depends on, None for one that is not there."""

    store: Item | None
    actor: Item | None
    session: Item | None
    token: Item | None
    branch: Item | None


@dataclass(slots=True)
class _NewEvent:
    at: int
    branch: dict[str, str]
    metadata: Mapping[str, Any]
    payload: list[dict[str, Any]]
    token: str
    extracted: bool
    expires_at: int
    ingested: bool = False
    stowed: str = ""
    agent: tuple[str, str] | None = None

    def preview(self, session: SessionId) -> dict[str, Any]:
        return Event.decode(self.item(_event_id(self.at))).wire(session, self.payload)

    def item(self, event_id: str) -> Item:
        item: Item = {
            "eventId": event_id,
            "eventTimestamp": self.at,
            "payload": self.stowed,
            "characters": characters(self.payload),
            "committedAt": now_ms(),
            "expiresAt": self.expires_at,
        }
        if self.branch:
            item["branch"] = json_text(self.branch)
        if self.metadata:
            item["metadata"] = json_text(self.metadata)
        if self.token:
            item["clientToken"] = self.token
        if not self.extracted:
            item["extractionMode"] = "SKIP"
        if self.ingested:
            item["ingested"] = True
        return item


def _now_us() -> int:
    return time.time_ns() // 1000


def _event_id(at: int) -> str:
    """Grows with each event of a moment for 71 minutes of events; then another order begins."""
    offset = (_now_us() - at * 1000) % 2**32
    return f"{at:016d}#{offset:08x}"


def _moment(event_id: str) -> int:
    return int(event_id.partition("#")[0] or 0)


def _branch(fields: Mapping[str, Any]) -> dict[str, str]:
    """The branch that a new event is on, empty for the main one."""
    branch = dict(fields.get("branch", {}))
    if branch.get("name") != MAIN:
        return branch
    if branch.get("rootEventId") is not None:
        raise invalid("branch.rootEventId", "is given for the main branch, which begins at no event")
    return {}


def _new_session(fields: Mapping[str, Any], token: str) -> str:
    """The session of a request that names none: a new one, for a repeat the same."""
    return str(uuid5(NAMESPACE_URL, f"{memory_id(fields)}/{fields['actorId']}/{token}") if token else uuid4())


def _no_event(event_id: str) -> NotThere:
    return NotThere(f"the session has no event {event_id}")


def _token_put(key: keys.Key, new: _NewEvent, event_id: str, stale: Item | None) -> Put:
    item: Item = {"eventId": event_id, "expiresAt": new.expires_at}
    if stale is None:
        return Put(key, item, only_if_absent=True)
    return Put(key, item, condition="eventId = :stale", values={":stale": stale["eventId"]})


def _session_update(
    session_id: SessionId,
    item: Item | None,
    session: Session,
    new: _NewEvent,
    event_id: str,
    idle_seconds: int | None,
    now: int,
) -> Update:
    """Lets the session know of the event. It neither takes the session from a running turn nor counts as one.

    A turn or an end in between is noticed by the version; other events in between are welcome, if only the last one
    stays the last. An ended session is open again, and begins afresh.
    """
    sets: dict[str, Any] = {
        "memoryStore": session_id.store,
        "actor": session_id.actor,
        "sessionId": session_id.session,
        "schemaVersion": SCHEMA_VERSION,
        "updatedAt": now,
        "version": session.version,
        "expiresAt": max(session.expires_at, new.expires_at),
        **keys.owned_session(session_id),
    }
    removed = ""
    condition = "version = :version AND #status = :status" if item else "attribute_not_exists(PK)"
    if event_id > session.last_event_id:
        sets["lastEventId"] = event_id
        condition += " AND (attribute_not_exists(lastEventId) OR lastEventId < :lastEventId)"
    if session.ended:
        sets |= {"attributes": "{}", "historyFloor": session.first_event_id}
        removed = " REMOVE digestedTo, undigestedTurns, undigestedCharacters, endedAt"
    if new.ingested:
        sets["ingested"] = True
    if new.agent:
        sets |= {"agentId": new.agent[0], "agentVersion": new.agent[1]}
    if idle_seconds is not None:
        sets |= keys.due(session_id, now + idle_seconds * 1000)
    assignments = ", ".join(f"{name} = :{name}" for name in sets)
    return Update(
        keys.session(session_id),
        f"SET {assignments}, #status = :open, createdAt = if_not_exists(createdAt, :updatedAt){removed}",
        condition=condition,
        names={"#status": "status"},
        values={
            **{f":{name}": value for name, value in sets.items()},
            ":open": "OPEN",
            **({":status": item["status"]} if item else {}),
        },
    )
