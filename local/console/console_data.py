"""What the console page shows, read from the offline AWS: plain values that go out as JSON, times in milliseconds.

Only reads. A turn is put together from three sources: the history of its execution (states, tries), its journal (model
calls) and its trace events. What cannot change any more is read once: history and documents of a turn that ended, and
while it runs the journal and the events of the steps before the newest.
"""

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any
from uuid import uuid4

from botocore.exceptions import ClientError

from local.commands.executions import Execution, StateVisit, Try, read_execution
from local.commands.turn_traces import NoTrace, TraceReader
from turnwright.agents.definitions import Agent
from turnwright.agents.versions import load
from turnwright.costs import receipts
from turnwright.errors import AgentNotFound
from turnwright.memory.records.records import Record, Records
from turnwright.memory.records.session_summaries import SessionSummaries
from turnwright.sessions.turns import Turns
from turnwright.sessions.values import Header, Status
from turnwright.storage import keys
from turnwright.storage.clock import now_ms
from turnwright.storage.documents import Documents
from turnwright.storage.keys import NO_ACTOR, SessionId
from turnwright.storage.table import Item, Table

_MOST_TURNS_LISTED = 200
_MOST_TURNS_KEPT = 60
_MOST_SUMMARIES = 50
_MOST_EVENTS_OF_SESSION = 100
_LAST_EVENTS = frozenset({"FINAL_RESPONSE", "TURN_FAILED"})
_LONGEST_FIELD = 240
"""A trace event is listed with its long texts cut; `ConsoleData.event` has them whole."""


class NotThere(Exception):
    """What the page asked for does not exist. The message says what."""


@dataclass(slots=True)
class _Kept:
    """What is known of a turn and will not change, so that following it costs little."""

    steps: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    events: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    stored: dict[str, str] = field(default_factory=dict)
    """The events as their items have them, to see which were written over: a model call that ended."""
    step_of_events: int = 0
    history: list[Mapping[str, Any]] = field(default_factory=list)
    reading: threading.Lock = field(default_factory=threading.Lock)
    """Held while `history` grows."""
    execution: Execution | None = None
    complete: bool = False
    """Whether everything was read again after the turn had ended, when nothing could come late any more."""


class ConsoleData:
    """Reads for the page. `client` gives a boto3 client by the service's name; `model` names the stack's model.

    `broken_agent_files` says what is wrong with the agent files as they are saved now, None if nothing is.
    """

    def __init__(
        self,
        client: Callable[[str], Any],
        *,
        table: str,
        bucket: str,
        state_machine_arn: str,
        log_group: str,
        model: str,
        broken_agent_files: Callable[[], str | None],
    ) -> None:
        self._client = client
        self._table_name = table
        self._bucket = bucket
        self._machine = state_machine_arn
        self._log_group = log_group
        self._model = model
        self._broken_agent_files = broken_agent_files
        self._stack = uuid4().hex
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._inputs: OrderedDict[str, Mapping[str, Any]] = OrderedDict()

    def overview(self) -> dict[str, Any]:
        """The agents that can be talked to, by which model they answer, and what keeps their files from counting.

        `stack` is another one each time that the stack starts: then nothing is left of what the page knew before.
        """
        return {
            "stack": self._stack,
            "model": self._model,
            "noActor": NO_ACTOR,
            "agents": [_agent_view(alias, agent) for alias, agent in self._agents()],
            "brokenAgentFiles": self._broken_agent_files(),
        }

    def actors(self, store: str) -> list[str]:
        """The actors of a memory store that are known, and those of the turns that are listed."""
        known = {
            item["actor"]
            for item in self._table().query(
                keys.store_partition(store), keys.ACTOR_PREFIX, keys.ACTOR_PREFIX + keys.END, consistent=False
            )
        }
        stores = {agent.agent_id: agent.memory_store for _, agent in self._agents()}
        for turn in self.turns():
            if stores.get(turn["agentId"]) == store and turn["actor"] != NO_ACTOR:
                known.add(turn["actor"])
        return sorted(known)

    def turns(self) -> list[dict[str, Any]]:
        """The newest executions, with what was asked of them."""
        client = self._client("stepfunctions")
        listed = client.list_executions(stateMachineArn=self._machine, maxResults=1000)["executions"]
        newest = sorted(listed, key=lambda entry: entry["startDate"], reverse=True)[:_MOST_TURNS_LISTED]
        return [_listed_turn(entry, self._input(entry["executionArn"])) for entry in newest]

    def turn(self, turn_id: str) -> dict[str, Any]:
        """Everything about one turn but the long texts. Raises NotThere."""
        execution = self._execution(turn_id)
        kept, header = self._progress(turn_id, ended=execution is None or execution.stopped_at is not None)
        if execution is None and header is None:
            raise NotThere(f"There is no turn {turn_id}.")
        given = execution.input if execution else {}
        fields = header.fields if header else {}
        visits = [_visit_view(visit) for visit in execution.visits] if execution else []
        return {
            "turnId": turn_id,
            "status": _status_of(header, execution.status if execution else None),
            "agentId": fields.get("agentId") or given.get("agentId"),
            "agentVersion": fields.get("agentVersion"),
            "sessionId": fields.get("sessionId") or given.get("sessionId"),
            "memoryStore": fields.get("memoryStore"),
            "actor": fields.get("actor") or given.get("memoryId") or NO_ACTOR,
            "caller": fields.get("caller") or given.get("caller"),
            "traced": bool(fields.get("trace", given.get("enableTrace", False))),
            "inputText": self._input_text(fields, given),
            "answer": self._document(fields, "answer"),
            "failure": header.failure if header and header.status is Status.FAILED else None,
            "usage": json.loads(fields["usage"]) if "usage" in fields else None,
            "receipt": receipts.of_header(header) if header else None,
            "startedAt": _ms(execution.started_at) if execution else fields.get("startedAt"),
            "endedAt": (_ms(execution.stopped_at) if execution else None) or fields.get("endedAt"),
            "execution": execution
            and {
                "arn": execution.arn,
                "status": execution.status,
                "error": execution.error,
                "cause": execution.cause,
                "transitions": len(execution.visits),
            },
            "visits": visits,
            "steps": [kept.steps[number] for number in sorted(kept.steps)],
            "events": [_listed_event(name, kept.events[name]) for name in sorted(kept.events)],
        }

    def definition(self, turn_id: str) -> dict[str, Any]:
        """The state machine's definition as this turn's execution runs it. Raises NotThere."""
        if self._execution(turn_id) is None:
            raise NotThere(f"There is no execution of turn {turn_id}.")
        described = self._client("stepfunctions").describe_state_machine_for_execution(executionArn=self._arn(turn_id))
        return _definition(described)

    def current_definition(self) -> dict[str, Any]:
        """The state machine's definition as the next turn will run it."""
        return _definition(self._client("stepfunctions").describe_state_machine(stateMachineArn=self._machine))

    def visit(self, turn_id: str, visit_id: int) -> dict[str, Any]:
        """What went into a visit of a state and came out of it, and the same of each of its tries."""
        execution = self._execution(turn_id)
        visit = next((visit for visit in execution.visits if visit.id == visit_id), None) if execution else None
        if visit is None:
            raise NotThere(f"Turn {turn_id} has no visit {visit_id} of a state.")
        return {
            "input": _document(visit.input),
            "output": visit.output,
            "pending": _document(visit.pending),
            "tries": [_try_payload(attempt) for attempt in visit.tries],
        }

    def step(self, turn_id: str, number: int) -> dict[str, Any]:
        """A model call as the journal has it."""
        item = self._table().get(keys.journal_step(turn_id, number))
        if item is None:
            raise NotThere(f"Turn {turn_id} has no model call {number} in its journal.")
        return {
            "model": item["model"],
            "stopReason": item["stopReason"],
            "usage": json.loads(item["usage"]),
            "latencyMs": item["latencyMs"],
            "toolResults": json.loads(item["toolResults"]),
            "message": self._documents().fetch_text(item["message"]),
        }

    def event(self, turn_id: str, name: str) -> Mapping[str, Any]:
        """A trace event as it was written; nested values are JSON texts in it."""
        kept, _ = self._progress(turn_id, ended=True)
        if name not in kept.events:
            raise NotThere(f"Turn {turn_id} has no trace event {name}.")
        return kept.events[name]

    def sessions(self, store: str, actor: str) -> list[dict[str, Any]]:
        """The sessions of an actor, or those without one, newest first."""
        table = self._table()
        found = set(self._sessions_of_turns(store, actor))
        if actor != NO_ACTOR:
            owned = table.query_index(
                keys.OWNED_INDEX,
                keys.actor_partition(store, actor),
                keys.SESSION_PREFIX,
                keys.SESSION_PREFIX + keys.END,
            )
            found |= {key for key, _ in owned}
        places = sorted(found)
        items = [item for start in range(0, len(places), 100) for item in table.get_many(places[start : start + 100])]
        views = [_session_view(item) for item in items if item is not None]
        return sorted(views, key=lambda view: view["updatedAt"] or 0, reverse=True)

    def session(self, store: str, actor: str, session: str) -> dict[str, Any]:
        """A session with what was said in it, oldest first, failed turns among it."""
        place = SessionId(store, actor, session)
        table = self._table()
        item = table.get(keys.session(place))
        events = table.query(
            place.partition,
            keys.EVENT_PREFIX,
            keys.EVENT_PREFIX + keys.END,
            newest_first=True,
            limit=_MOST_EVENTS_OF_SESSION,
        )
        said = [self._event_view(event) for event in events]
        known = {entry["turnId"] for entry in said}
        stores = {agent.agent_id: agent.memory_store for _, agent in self._agents()}
        for turn in self.turns():
            here = (turn["sessionId"], turn["actor"], stores.get(turn["agentId"])) == (session, actor, store)
            if here and turn["turnId"] not in known:
                said.append(self._turn_view(turn))
        return {
            "session": _session_view(item) if item else None,
            "entries": sorted(said, key=lambda entry: entry["at"]),
        }

    def memory(self, store: str, actor: str) -> dict[str, Any]:
        """The actor's records with where they come from, and the summaries of the sessions that ended."""
        table = self._table()
        return {
            "namespaces": self._namespaces(store, actor),
            "records": [_record_view(record) for record in Records(table).of_actor(store, actor)],
            "summaries": [
                {name: value for name, value in asdict(summary).items() if name not in ("store", "actor")}
                for summary in SessionSummaries(table).latest(store, actor, _MOST_SUMMARIES)
            ],
        }

    def circuits(self) -> list[dict[str, Any]]:
        """The circuit breaker of each tool that has one, as the live version's policy reads it."""
        tools = [
            (agent, tool) for alias, agent in self._agents() for tool in agent.tools if tool.policy.breaker.enabled
        ]
        now = now_ms()
        table = self._table()
        views: list[dict[str, Any]] = []
        for start in range(0, len(tools), 100):
            batch = tools[start : start + 100]
            items = table.get_many([keys.breaker(agent.agent_id, tool.name) for agent, tool in batch])
            views += [
                _circuit_view(agent, tool.name, tool.policy.breaker, item, now)
                for (agent, tool), item in zip(batch, items, strict=True)
            ]
        return views

    def _table(self) -> Table:
        return Table(self._client("dynamodb"), self._table_name)

    def _documents(self) -> Documents:
        return Documents(self._client("s3"), self._bucket)

    def _arn(self, turn_id: str) -> str:
        return f"{self._machine.replace(':stateMachine:', ':execution:')}:{turn_id}"

    def _agents(self) -> Iterator[tuple[str, Agent]]:
        """Each published agent's live version, with the alias that names it."""
        table = self._table()
        first, last = keys.listed_agent("").sk, keys.listed_agent("~").sk
        for item in table.query(keys.AGENT_LISTING, first, last, consistent=False):
            try:
                yield "live", load(table, item["agentId"], str(item["version"]))
            except AgentNotFound:
                continue  # it was removed between the two reads

    def _execution(self, turn_id: str) -> Execution | None:
        """None for a turn whose execution Step Functions does not know (any more)."""
        kept = self._keep(turn_id)
        if kept.execution is not None:
            return kept.execution
        try:
            with kept.reading:
                execution = read_execution(self._client("stepfunctions"), self._arn(turn_id), kept.history)
        except ClientError as error:
            if _is_missing(error):
                return None
            raise
        if execution.stopped_at is not None:
            kept.execution = execution
        return execution

    def _keep(self, turn_id: str) -> _Kept:
        with self._lock:
            kept = self._kept.setdefault(turn_id, _Kept())
            self._kept.move_to_end(turn_id)
            if len(self._kept) > _MOST_TURNS_KEPT:
                self._kept.popitem(last=False)
            return kept

    def _progress(self, turn_id: str, *, ended: bool) -> tuple[_Kept, Header | None]:
        """The journal and the trace events so far, and the header.

        As in `following.py`: the events of the newest step are read again, since parallel tools do not write in the
        order of their keys. Once the turn has ended everything is read a last time.
        """
        table, kept = self._table(), self._keep(turn_id)
        partition, header_key = keys.turn_partition(turn_id), keys.turn_header(turn_id)
        if kept.complete:
            return kept, Turns(table).read(turn_id)
        from_step = 0 if ended else kept.step_of_events
        items = list(table.query(partition, f"{keys.TRACE_PREFIX}{from_step:03d}", header_key.sk))
        header = Header.decode(items.pop()) if items and items[-1]["SK"] == header_key.sk else None
        documents = self._documents()
        for item in items:
            name = item["SK"].removeprefix(keys.TRACE_PREFIX)
            if kept.stored.get(name) != item["event"]:
                kept.events[name] = documents.fetch_text(item["event"])
                kept.stored[name] = item["event"]
                kept.step_of_events = max(kept.step_of_events, int(name.partition("#")[0]))
        first = f"{keys.JOURNAL_PREFIX}{max(kept.steps, default=0) + 1:03d}"
        for item in table.query(partition, first, keys.JOURNAL_PREFIX + keys.END):
            kept.steps[item["step"]] = self._step_view(item)
        is_over = ended and (header is None or header.status is not Status.RUNNING)
        if is_over and not kept.stored:
            kept.events = self._logged_events(turn_id)
            is_over = any(event["type"] in _LAST_EVENTS for event in kept.events.values())
        kept.complete = is_over
        return kept, header

    def _logged_events(self, turn_id: str) -> dict[str, Mapping[str, Any]]:
        """The events of a turn whose caller did not ask for them: the log has them all the same, a little later."""
        reader = TraceReader(self._client("logs"), self._log_group, self._table(), self._documents())
        try:
            found = reader.read(turn_id)
        except NoTrace:
            return {}
        return {f"{event['step']:03d}#log#{number:05d}": event for number, event in enumerate(found)}

    def _step_view(self, item: Item) -> dict[str, Any]:
        message = self._documents().fetch_text(item["message"])
        blocks = message["content"]
        return {
            "step": item["step"],
            "model": item["model"],
            "stopReason": item["stopReason"],
            "usage": json.loads(item["usage"]),
            "latencyMs": item["latencyMs"],
            "recordedAt": item["recordedAt"],
            "text": "".join(block.get("text", "") for block in blocks),
            "toolUses": [block["toolUse"] for block in blocks if "toolUse" in block],
        }

    def _input(self, arn: str) -> Mapping[str, Any]:
        """An execution's input, which never changes."""
        with self._lock:
            known = self._inputs.get(arn)
        if known is None:
            described = self._client("stepfunctions").describe_execution(executionArn=arn)
            known = json.loads(described["input"])
            with self._lock:
                self._inputs[arn] = known
                if len(self._inputs) > 5 * _MOST_TURNS_LISTED:
                    self._inputs.popitem(last=False)
        return known

    def _input_text(self, fields: Mapping[str, Any], given: Mapping[str, Any]) -> str | None:
        stowed = json.loads(fields["request"]) if "request" in fields else given.get("request")
        return None if stowed is None else self._documents().fetch(stowed).get("inputText")

    def _document(self, fields: Mapping[str, Any], name: str) -> Any:
        if name not in fields:
            return None
        value = json.loads(fields[name])
        is_stowed = isinstance(value, dict) and not value.keys().isdisjoint(("inline", "object"))
        return self._documents().fetch(value) if is_stowed else value

    def _event_view(self, event: Item) -> dict[str, Any]:
        """A committed turn, or an event that CreateEvent made, as entry of a conversation."""
        entry = {
            "eventId": event.get("eventId", event["SK"].removeprefix(keys.EVENT_PREFIX)),
            "turnId": event.get("turnId"),
            "agentId": event.get("agentId"),
            "status": Status.COMMITTED,
            "at": event.get("committedAt") or event.get("eventTimestamp") or 0,
            "inputText": None,
            "answer": None,
        }
        if "messages" not in event:
            return {**entry, "payload": self._documents().fetch_text(event["payload"]) if "payload" in event else None}
        messages = self._documents().fetch_text(event["messages"])
        return {**entry, "inputText": _text_of(messages[0]), "answer": _text_of(messages[-1])}

    def _turn_view(self, turn: Mapping[str, Any]) -> dict[str, Any]:
        """A turn that is not among the session's events: it runs, it failed, it has committed since those were read, or
        it is older than the oldest of them.
        """
        header = Turns(self._table()).read(turn["turnId"])
        fields = header.fields if header else {}
        failed = header is not None and header.status is Status.FAILED
        return {
            "eventId": None,
            "turnId": turn["turnId"],
            "agentId": turn["agentId"],
            "status": _status_of(header, turn["status"]),
            "at": turn["startedAt"],
            "inputText": self._input_text(fields, self._input(self._arn(turn["turnId"]))),
            "answer": self._document(fields, "answer"),
            "failure": header.failure if header and failed else None,
        }

    def _sessions_of_turns(self, store: str, actor: str) -> Iterator[keys.Key]:
        stores = {agent.agent_id: agent.memory_store for _, agent in self._agents()}
        for turn in self.turns():
            if turn["actor"] == actor and stores.get(turn["agentId"]) == store:
                yield keys.session(SessionId(store, actor, turn["sessionId"]))

    def _namespaces(self, store: str, actor: str) -> list[dict[str, Any]]:
        """The namespaces that the store's agents declare, so that one that is still empty can be told from none."""
        declared: dict[str, dict[str, Any]] = {}
        for _, agent in self._agents():
            if agent.memory_store != store:
                continue
            for namespace in agent.memory.namespaces:
                declared.setdefault(
                    namespace.name,
                    {
                        "name": namespace.name,
                        "template": namespace.template,
                        "description": namespace.description,
                        "mergeRule": namespace.merge_rule,
                        "ttlDays": namespace.ttl_days,
                        "maxRecords": namespace.max_records,
                    },
                )
        return list(declared.values())


def _definition(described: Mapping[str, Any]) -> dict[str, Any]:
    definition: dict[str, Any] = json.loads(described["definition"])
    return definition


def _agent_view(alias: str, agent: Agent) -> dict[str, Any]:
    return {
        "agentId": agent.agent_id,
        "aliasId": alias,
        "name": agent.name,
        "version": agent.version,
        "memoryStore": agent.memory_store,
        "models": list(agent.models),
        "tools": [{"name": tool.name, "actionGroup": tool.action_group} for tool in agent.tools],
        "limits": asdict(agent.limits),
    }


def _listed_turn(entry: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "turnId": entry["name"],
        "status": entry["status"],
        "startedAt": _ms(entry["startDate"]),
        "endedAt": _ms(entry.get("stopDate")),
        "agentId": given.get("agentId"),
        "sessionId": given.get("sessionId"),
        "actor": given.get("memoryId") or NO_ACTOR,
    }


def _visit_view(visit: StateVisit) -> dict[str, Any]:
    return {
        "id": visit.id,
        "parent": visit.parent,
        "iteration": visit.iteration,
        "name": visit.name,
        "type": visit.type,
        "enteredAt": _ms(visit.entered_at),
        "durationMs": visit.duration_ms,
        "outcome": visit.outcome,
        **_work_of(visit),
        "tries": [
            {
                "startedAt": _ms(attempt.started_at),
                "durationMs": attempt.duration_ms,
                "error": attempt.error,
                "cause": attempt.cause,
            }
            for attempt in visit.tries
        ],
    }


def _work_of(visit: StateVisit) -> dict[str, Any]:
    """Which step, tool call and attempt a visit worked on, from what its function was given."""
    given = next((attempt.arguments for attempt in visit.tries if attempt.arguments), visit.pending)
    payload = (json.loads(given).get("Payload") or {}) if given else {}
    call = payload.get("call") or {}
    found = {
        "step": payload.get("step"),
        "attempt": payload.get("attempt"),
        "toolName": call.get("toolName"),
        "toolUseId": call.get("toolUseId"),
        "callIndex": call.get("index"),
    }
    return {name: value for name, value in found.items() if value is not None}


def _try_payload(attempt: Try) -> dict[str, Any]:
    return {
        "arguments": _document(attempt.arguments),
        "result": _document(attempt.result),
        "error": attempt.error,
        "cause": attempt.cause,
    }


def _listed_event(name: str, event: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": name, **{key: _cut(value) for key, value in event.items()}}


def _cut(value: Any) -> Any:
    return f"{value[:_LONGEST_FIELD]}…" if isinstance(value, str) and len(value) > _LONGEST_FIELD else value


def _session_view(item: Item) -> dict[str, Any]:
    return {
        "sessionId": item["sessionId"],
        "status": item["status"],
        "version": item["version"],
        "runs": item.get("leaseOwner"),
        "createdAt": item.get("createdAt"),
        "updatedAt": item.get("updatedAt") or item.get("createdAt"),
        "endedAt": item.get("endedAt"),
        "expiresAt": item["expiresAt"] * 1000,
        "attributes": json.loads(item.get("attributes", "{}")),
    }


def _record_view(record: Record) -> dict[str, Any]:
    return {
        "recordId": record.record_id,
        "namespace": record.namespace,
        "strategy": record.strategy,
        "key": record.key,
        "text": record.text,
        "createdAt": record.created_at,
        "updatedAt": record.updated_at,
        "timestamp": record.timestamp,
        "expiresAt": None if record.expires_at is None else record.expires_at * 1000,
        "version": record.version,
        "metadata": dict(record.metadata),
        "provenance": asdict(record.provenance),
    }


def _circuit_view(agent: Agent, tool: str, policy: Any, item: Item | None, now: int) -> dict[str, Any]:
    """As `breakers.py` reads the item."""
    failures = item["failures"] if item else 0
    state, open_until = "CLOSED", None
    if item and failures >= policy.failure_threshold:
        open_until = item["lastFailureAt"] + policy.recovery_seconds * 1000
        state = "OPEN" if now < open_until else "HALF_OPEN"
    return {
        "agentId": agent.agent_id,
        "tool": tool,
        "state": state,
        "failures": failures,
        "failureThreshold": policy.failure_threshold,
        "recoverySeconds": policy.recovery_seconds,
        "openUntil": open_until,
        "lastFailureAt": item.get("lastFailureAt") if item else None,
        "probing": bool(item and item.get("probeUntil", 0) > now),
    }


def _status_of(header: Header | None, execution_status: str | None) -> str:
    """A header is not there yet, or never will be; or it says that the turn runs, and has not been told of its end."""
    if header and header.status is not Status.RUNNING:
        return header.status
    if execution_status in (None, "RUNNING"):
        return Status.RUNNING
    return Status.COMMITTED if execution_status == "SUCCEEDED" else Status.FAILED


def _text_of(message: Mapping[str, Any]) -> str:
    return "".join(block.get("text", "") for block in message["content"])


def _document(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else round(moment.timestamp() * 1000)


def _is_missing(error: ClientError) -> bool:
    return error.response["Error"]["Code"] in ("ExecutionDoesNotExist", "InvalidArn")
