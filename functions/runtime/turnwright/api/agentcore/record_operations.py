"""What the operations on memory records do, and how a record looks on the wire."""

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from hashlib import sha256
from typing import Any
from uuid import NAMESPACE_URL, uuid4, uuid5

from turnwright.agents.memory_configuration import ACTOR_VARIABLE, RECORD_BYTES
from turnwright.api.agentcore import paging, record_filters
from turnwright.api.agentcore.operations import memory_id, milliseconds, seconds
from turnwright.api.agentcore.record_paths import below
from turnwright.api.agentcore.refusals import Finding, Invalid, NotThere, Reason, Throttled, invalid
from turnwright.api.agentcore.stores import Store, Stores
from turnwright.api.agentcore.strategies import NEVER_DAYS, as_path
from turnwright.errors import ActorErased, CommitConflict
from turnwright.memory.records import search
from turnwright.memory.records.actors import Actors
from turnwright.memory.records.records import MOST_REPLACED, Provenance, Record, Records, added, changed, known, removed
from turnwright.models.embeddings import Embedding, embed
from turnwright.storage import keys
from turnwright.storage.clock import expiry, now_ms
from turnwright.storage.documents import json_text
from turnwright.storage.keys import NO_ACTOR
from turnwright.storage.table import ConditionFailed, Put, Table, TransactionRefused, Update, Write

MOST_SEARCHED = 5_000
"""So many records a query may mean at most. An actor's are far fewer."""

MOST_SEARCHED_BYTES = 24_000_000
"""So many bytes of UTF-8 their texts may have together."""

COMPARED_BYTES = 256 * 1024
"""So many bytes of their texts are compared: of each record as many as of any other."""

MOST_PASSED = 2_000
_MOST_PASSED_BYTES = 8_000_000
"""Records, and bytes of their texts, that one page of a list looks at, however few of them it lists."""

TOKEN_DAYS = 7
"""How long a clientToken is remembered."""

DEFAULT_RESULTS = 20
_DEFAULT_TOP_K = 10
_MOST_NAMESPACES = 1_000
_AT_ONCE = 50
_MOST_TRIES = 8
_PAUSE_SECONDS = 0.02

Embed = Callable[..., list[Embedding]]


class MemoryRecords:
    """Each operation takes checked fields and returns the answer."""

    def __init__(self, table: Table, *, embed: Embed = embed, pause: Callable[[float], None] = time.sleep) -> None:
        self._table = table
        self._records = Records(table)
        self._actors = Actors(table)
        self._stores = Stores(table)
        self._embed = embed
        self._pause = pause

    # ---- Reading ----

    def get(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The record, and besides what AgentCore has: its provenance."""
        store = self._stores.require(memory_id(fields))
        record = self._find(store, fields["memoryRecordId"], fields.get("namespace"))
        answer = wire(store, record)
        if record.expires_at is not None:
            answer["expiresAt"] = record.expires_at
        return {"memoryRecord": {**answer, "provenance": asdict(record.provenance)}}

    def page(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """By namespace and record id. A page may have fewer records than there are behind it, or none."""
        store = self._stores.require(memory_id(fields))
        strategy = _strategy(store, fields.get("memoryStrategyId"))
        filters = fields.get("metadataFilters", [])
        record_filters.check(filters, "metadataFilters")
        limit = fields.get("maxResults", DEFAULT_RESULTS)
        first, after = paging.position("ListMemoryRecords", fields, 2) or ["", ""]
        page: list[Record] = []
        last, looked_at, size = [first, after], 0, 0
        for passed, (path, owner) in enumerate(self._namespaces(store, fields, first)):
            if passed == _MOST_NAMESPACES:
                return _records_page(store, page, paging.token("ListMemoryRecords", fields, [path, ""]))
            for record in self._of_namespace(store, path, owner, after if path == first else ""):
                is_listed = strategy in (None, record.strategy) and record_filters.holds(filters, record)
                if looked_at == MOST_PASSED or size > _MOST_PASSED_BYTES or (is_listed and len(page) == limit):
                    return _records_page(store, page, paging.token("ListMemoryRecords", fields, last))
                last, looked_at, size = [path, record.item_key.sk], looked_at + 1, size + len(record.text.encode())
                if is_listed:
                    page.append(record)
        return _records_page(store, page, None)

    def retrieve(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Best first, and besides what AgentCore has: how far each record was compared, if not to its end. Raises
        Invalid for a path with more records than are searched at once.
        """
        store = self._stores.require(memory_id(fields))
        criteria = fields["searchCriteria"]
        strategy = _strategy(store, criteria.get("memoryStrategyId"))
        filters = criteria.get("metadataFilters", [])
        record_filters.check(filters, "searchCriteria.metadataFilters")
        limit = fields.get("maxResults", DEFAULT_RESULTS)
        position = paging.position("RetrieveMemoryRecords", fields, 1)
        start = int(position[0]) if position and position[0].isdecimal() else 0
        found = self._searched(store, fields, strategy, filters)
        query, model = criteria["searchQuery"], store.configuration.embedding_model
        embedding = self._embed([query], model, is_query=True)[0] if model and found else None
        reach = search.reach(found, COMPARED_BYTES)
        ranked = search.Compared(found, reach).rank(query, embedding, embedding_model=model)
        ranked = ranked[: criteria.get("topK", _DEFAULT_TOP_K)]
        answer: dict[str, Any] = {
            "memoryRecordSummaries": [
                {**wire(store, record), "score": round(score, 6)} for record, score in ranked[start : start + limit]
            ]
        }
        if start + limit < len(ranked):
            answer["nextToken"] = paging.token("RetrieveMemoryRecords", fields, [str(start + limit)])
        return answer if reach is None else {**answer, "comparedBytes": reach}

    # ---- Writing ----

    def create(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """A repeat with the same clientToken is answered with what the first one made, whatever became of it since."""
        store = self._stores.require(memory_id(fields))
        entries = fields["records"]
        _check_entries(entries, "requestIdentifier")
        days = _days(fields.get("recordExpirySpecification"), is_new=True)
        strategies = [_strategy(store, entry.get("memoryStrategyId")) for entry in entries]
        token = sha256(fields["clientToken"].encode()).hexdigest() if fields.get("clientToken") else ""
        token_key = keys.batch_token(store.store_id, token or "-")
        seed = token or uuid4().hex
        if token and (made := self._made(token_key)) is not None:
            return _made_before(
                made, [(_record_id(store, seed, entry), entry["requestIdentifier"]) for entry in entries]
            )
        embeddings = self._embeddings(store, [entry["content"]["text"] for entry in entries])
        now = now_ms()
        records = [
            self._new(store, entry, strategy, days, embedding, seed, now)
            for entry, strategy, embedding in zip(entries, strategies, embeddings, strict=True)
        ]
        failures = self._add(store, records)
        answer = _batch_answer(
            [(record.record_id, failures.get(record.record_id)) for record in records],
            [entry["requestIdentifier"] for entry in entries],
        )
        if token and not failures:
            made_ids = json_text([record.record_id for record in records])
            self._table.update(Update(token_key, "SET recordIds = :made", values={":made": made_ids}))
        return answer

    def update(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Each record in one transaction; what an entry leaves out stays."""
        store = self._stores.require(memory_id(fields))
        entries = fields["records"]
        _check_entries(entries, "memoryRecordId")
        for index, entry in enumerate(entries):
            if entry.get("sourceNamespaces") == [] or entry.get("namespaces") == []:
                raise invalid(f"records[{index}].namespaces", "is empty; a record stays in one namespace")
        expiry_given = fields.get("recordExpirySpecification")
        days = _days(expiry_given, is_new=False)
        strategies = [_strategy(store, entry.get("memoryStrategyId")) for entry in entries]
        outcomes = [
            (
                entry["memoryRecordId"],
                self._change(store, entry, strategy, days, keeps_expiry=expiry_given is None),
            )
            for entry, strategy in zip(entries, strategies, strict=True)
        ]
        return _batch_answer(outcomes)

    def delete(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        store = self._stores.require(memory_id(fields))
        failure = self._remove(store, fields["memoryRecordId"], fields.get("namespace"))
        if failure is not None and failure[0] == 404:
            raise NotThere(failure[1])
        if failure is not None:
            raise Throttled(failure[1])
        return {"memoryRecordId": fields["memoryRecordId"]}

    def batch_delete(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        store = self._stores.require(memory_id(fields))
        entries = fields["records"]
        _check_entries(entries, "memoryRecordId")
        return _batch_answer(
            [
                (entry["memoryRecordId"], self._remove(store, entry["memoryRecordId"], entry.get("namespace")))
                for entry in entries
            ]
        )

    # ---- Parts ----

    def _find(self, store: Store, record_id: str, namespace: str | None) -> Record:
        path = None if namespace is None else as_path(namespace)
        record = self._records.find(store.store_id, record_id, path)
        if record is None:
            place = f" in namespace {path}" if path else ""
            raise NotThere(f"memory {store.store_id} has no record {record_id}{place}")
        return record

    def _searched(
        self, store: Store, fields: Mapping[str, Any], strategy: str | None, filters: Sequence[Mapping[str, Any]]
    ) -> list[Record]:
        """The records that a query means."""
        found: list[Record] = []
        looked_at, size = 0, 0
        for path, owner in self._namespaces(store, fields, ""):
            for record in self._of_namespace(store, path, owner, ""):
                looked_at, size = looked_at + 1, size + len(record.text.encode())
                if looked_at > MOST_SEARCHED or size > MOST_SEARCHED_BYTES:
                    raise invalid(
                        "namespacePath" if "namespacePath" in fields else "namespace",
                        f"has more than {MOST_SEARCHED} records under it, or {MOST_SEARCHED_BYTES} bytes of texts; "
                        "search a longer path",
                    )
                if strategy in (None, record.strategy) and record_filters.holds(filters, record):
                    found.append(record)
        return found

    def _namespaces(self, store: Store, fields: Mapping[str, Any], first: str) -> Iterator[tuple[str, str]]:
        """The namespaces that a query means, by their paths, from `first` on.

        `namespace` is the one of that path, if there is one or a strategy could write one. Otherwise it can only be
        the beginning of paths, which is what the field meant before there was `namespacePath`.
        """
        exact, under = fields.get("namespace"), fields.get("namespacePath")
        if (exact is None) == (under is None):
            raise invalid("namespacePath", "and namespace: exactly one of them has to be there")
        query = as_path(exact or under or "")
        if "*" in query:
            raise invalid(
                "namespace" if exact else "namespacePath", "has a wildcard; a path means all that is under it"
            )
        if exact is not None:
            item = self._table.get(keys.namespace(store.store_id, query))
            if item is not None:
                yield query, item["actor"]
            if item is not None or store.configuration.of_path(query) is not None:
                return

        @cache
        def is_actor(actor: str) -> bool:
            return self._actors.read(store.store_id, actor, consistent=False) is not None

        prefix = keys.namespaces_prefix(query)
        start = keys.namespace(store.store_id, first).sk if first else prefix
        for item in self._table.query(keys.store_partition(store.store_id), max(start, prefix), prefix + keys.END):
            path, owner = item["namespace"], item["actor"]
            if below(query, path, owner, store.configuration, is_actor):
                yield path, owner

    def _of_namespace(self, store: Store, path: str, owner: str, after: str) -> Iterator[Record]:
        prefix = keys.records_prefix(path)
        now = now_ms()
        items = self._table.query(
            keys.actor_partition(store.store_id, owner), prefix, prefix + keys.END, after=after or None
        )
        return (record for record in map(Record.decode, items) if record.alive(now))

    def _owner(self, store: Store, path: str) -> str:
        """Whose the namespace is: what was settled with its first record, or what the strategies' templates say."""
        item = self._table.get(keys.namespace(store.store_id, path))
        if item is not None:
            return str(item["actor"])
        found = store.configuration.of_path(path)
        return found[1].get(ACTOR_VARIABLE, NO_ACTOR) if found else NO_ACTOR

    def _new(
        self,
        store: Store,
        entry: Mapping[str, Any],
        strategy: str | None,
        days: int | None,
        embedding: Embedding | None,
        seed: str,
        now: int,
    ) -> Record:
        path = as_path(next(iter(entry["namespaces"]), "/"))
        found = store.configuration.of_path(path)
        namespace = store.configuration.namespace(strategy) if strategy else found[0] if found else None
        lives = days or (namespace.ttl_days if namespace else NEVER_DAYS)
        return Record(
            store=store.store_id,
            actor=self._owner(store, path),
            namespace=path,
            record_id=_record_id(store, seed, entry),
            text=entry["content"]["text"],
            provenance=Provenance("API"),
            strategy=namespace.name if namespace else "",
            created_at=now,
            updated_at=now,
            timestamp=milliseconds(entry["timestamp"]),
            expires_at=expiry(now, lives) if lives < NEVER_DAYS else None,
            metadata=entry.get("metadata", {}),
            embedding=embedding,
            embedding_model=store.configuration.embedding_model or "" if embedding else "",
        )

    def _embeddings(self, store: Store, texts: Sequence[str]) -> Sequence[Embedding | None]:
        model = store.configuration.embedding_model
        return self._embed(texts, model) if model and texts else [None] * len(texts)

    def _add(self, store: Store, records: Sequence[Record]) -> dict[str, tuple[int, str]]:
        """Adds the records of each namespace together; a record that is there already is added. Returns failures."""
        failures: dict[str, tuple[int, str]] = {}
        groups: dict[tuple[str, str], list[Record]] = {}
        for record in records:
            groups.setdefault((record.actor, record.namespace), []).append(record)
        for group in groups.values():
            for start in range(0, len(group), _AT_ONCE):
                part = group[start : start + _AT_ONCE]
                failure = self._written(lambda part=part: self._additions(store, part))  # type: ignore[misc]
                failures |= {record.record_id: failure for record in part if failure}
        return failures

    def _additions(self, store: Store, records: Sequence[Record]) -> list[Write]:
        """The writes that are still to be done: a repeat finds what an earlier one has done."""
        there = self._table.get_many([record.item_key for record in records])
        missing = [record for record, item in zip(records, there, strict=True) if item is None]
        if not missing:
            return []
        first = missing[0]
        return [
            *map(added, missing),
            known(store.store_id, first.actor, first.namespace),
            *self._unerased(store, first.actor),
        ]

    def _change(
        self, store: Store, entry: Mapping[str, Any], strategy: str | None, days: int | None, *, keeps_expiry: bool
    ) -> tuple[int, str] | None:
        source = entry.get("sourceNamespaces")

        def writes() -> list[Write]:
            before = self._find(store, entry["memoryRecordId"], source[0] if source else None)
            after = self._changed(store, before, entry, strategy)
            if not keeps_expiry:
                after = replace(after, expires_at=expiry(now_ms(), days) if days else None)
            namespace = known(store.store_id, after.actor, after.namespace)
            unerased = self._unerased(store, after.actor)
            if after.item_key == before.item_key:
                return [changed(before, after), namespace, *unerased]
            return [removed(before), added(replace(after, version=before.version + 1)), namespace, *unerased]

        return self._written(writes)

    def _changed(self, store: Store, before: Record, entry: Mapping[str, Any], strategy: str | None) -> Record:
        now = now_ms()
        after = replace(before, updated_at=now, timestamp=milliseconds(entry["timestamp"]))
        if "content" in entry and entry["content"]["text"] != before.text:
            text = entry["content"]["text"]
            old = before.provenance
            said = {"text": before.text, "sessionId": old.session_id, "turnId": old.turn_id, "at": before.updated_at}
            embedding = self._embeddings(store, [text])[0]
            after = replace(
                after,
                text=text,
                provenance=Provenance("API", replaced=(*old.replaced, said)[-MOST_REPLACED:]),
                embedding=embedding,
                embedding_model=store.configuration.embedding_model or "" if embedding else "",
            )
        if "namespaces" in entry:
            path = as_path(entry["namespaces"][0])
            found = store.configuration.of_path(path)
            if path != before.namespace:
                name = found[0].name if found else ""
                after = replace(after, namespace=path, actor=self._owner(store, path), strategy=name)
        if strategy is not None:
            after = replace(after, strategy=strategy)
        return replace(after, metadata=entry["metadata"]) if "metadata" in entry else after

    def _remove(self, store: Store, record_id: str, namespace: str | None) -> tuple[int, str] | None:
        return self._written(lambda: [removed(self._find(store, record_id, namespace))])

    def _unerased(self, store: Store, actor: str) -> list[Write]:
        """What new records depend on: that their actor or, of nobody's records, their store is not being erased."""
        if actor == NO_ACTOR:
            return [store.still_there] if store.still_there else []
        item = self._table.get(keys.actor(store.store_id, actor))
        return [self._actors.required(store.store_id, actor, item, store.still_there).unchanged()]

    def _written(self, writes: Callable[[], list[Write]]) -> tuple[int, str] | None:
        """Makes writes anew until they hold of what is there; the code and the message if they never do."""
        for attempt in range(_MOST_TRIES):
            try:
                pending = writes()
                if pending:
                    self._table.transact(pending)
                return None
            except (TransactionRefused, CommitConflict):
                self._pause(random.uniform(0, _PAUSE_SECONDS * (attempt + 1)))
            except NotThere as missing:
                return 404, str(missing)
            except ActorErased as erased:
                return 409, str(erased)
        return 409, "others keep changing the record; repeat the request"

    def _made(self, token_key: keys.Key) -> list[str] | None:
        """The ids of the records that were made with this token. It is kept from now on, and says nothing of an actor:
        no erasure of one has to find it.
        """
        try:
            self._table.put(Put(token_key, {"expiresAt": expiry(now_ms(), TOKEN_DAYS)}, only_if_absent=True))
        except ConditionFailed as refused:
            if refused.item and "recordIds" in refused.item:
                made: list[str] = json.loads(refused.item["recordIds"])
                return made
        return None


def wire(store: Store, record: Record) -> dict[str, Any]:
    """A record as lists have it."""
    answer: dict[str, Any] = {
        "memoryRecordId": record.record_id,
        "content": {"text": record.text},
        "memoryStrategyId": store.strategy_id(record.strategy),
        "namespaces": [record.namespace],
        "createdAt": seconds(record.created_at),
        "timestamp": seconds(record.timestamp),
    }
    if record.metadata:
        answer["metadata"] = dict(record.metadata)
    return answer


def _records_page(store: Store, page: Sequence[Record], token: str | None) -> dict[str, Any]:
    answer: dict[str, Any] = {"memoryRecordSummaries": [wire(store, record) for record in page]}
    return {**answer, "nextToken": token} if token else answer


def _strategy(store: Store, strategy_id: str | None) -> str | None:
    """The configuration's name of a strategy. Raises NotThere."""
    return None if strategy_id is None else store.namespace(strategy_id).name


def _check_entries(entries: Sequence[Mapping[str, Any]], identifier: str) -> None:
    """What the model cannot say: that each identifier is there once, and how many bytes a text may have."""
    findings: list[Finding] = []
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        if entry[identifier] in seen:
            findings.append(Finding(f"records[{index}].{identifier}", "is that of an earlier entry"))
        seen.add(entry[identifier])
        size = len(entry.get("content", {}).get("text", "").encode())
        if size > RECORD_BYTES:
            findings.append(
                Finding(f"records[{index}].content.text", f"has {size} bytes; at most {RECORD_BYTES} are taken")
            )
        if any("*" in namespace for namespace in entry.get("namespaces") or []):
            findings.append(Finding(f"records[{index}].namespaces[0]", "has a wildcard; a record is in one namespace"))
        findings += [
            Finding(f"records[{index}].metadata.{key}", f"begins with {record_filters.RESERVED}, which is reserved")
            for key in entry.get("metadata", {})
            if key.startswith(record_filters.RESERVED)
        ]
    if findings:
        raise Invalid(findings)


def _record_id(store: Store, seed: str, entry: Mapping[str, Any]) -> str:
    """The same for a repeat of the request that `seed` stands for."""
    name = "/".join((store.store_id, seed, entry["requestIdentifier"]))
    return f"mem-{uuid5(NAMESPACE_URL, name)}"


def _made_before(made: Sequence[str], wanted: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The answer to a repeat, of records' ids with their request identifiers. Raises Invalid for another request."""
    if {record_id for record_id, _ in wanted} != set(made):
        raise invalid("clientToken", "was used for other records", Reason.TOKEN)
    return _batch_answer([(record_id, None) for record_id, _ in wanted], [identifier for _, identifier in wanted])


def _days(specification: Mapping[str, Any] | None, *, is_new: bool) -> int | None:
    """After how many days records expire; None for never, or for what their namespaces say."""
    given = specification or {}
    if is_new and given.get("action") is not None:
        raise invalid("recordExpirySpecification.action", "is for an expiry that is there already")
    days = given.get("recordExpiryDurationDays")
    if days is not None and days > NEVER_DAYS:
        raise invalid("recordExpirySpecification.recordExpiryDurationDays", f"is greater than {NEVER_DAYS}")
    return days


def _batch_answer(
    outcomes: Sequence[tuple[str, tuple[int, str] | None]], identifiers: Sequence[str] | None = None
) -> dict[str, Any]:
    """Each record's id with its failure, None for none."""
    successful: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    for position, (record_id, failure) in enumerate(outcomes):
        entry: dict[str, Any] = {"memoryRecordId": record_id, "status": "FAILED" if failure else "SUCCEEDED"}
        if identifiers is not None:
            entry["requestIdentifier"] = identifiers[position]
        if failure:
            entry |= {"errorCode": failure[0], "errorMessage": failure[1]}
        (failed if failure else successful).append(entry)
    return {"successfulRecords": successful, "failedRecords": failed}
