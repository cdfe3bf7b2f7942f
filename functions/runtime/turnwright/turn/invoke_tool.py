"""The gateway between the state machine and the tools: one attempt of one tool call.

It checks what the model asked for before anything is invoked, asks the breaker, gives the tool Bedrock's own event, and
turns whatever comes back into a bounded result or into a failure that says whether, and after how long, the call is
tried again. A result is recorded before it is answered, so that a repeat of the gateway does not call the tool again.
A tool of memory is carried out here, in one transaction with its record.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from turnwright.agents.definitions import Agent, Tool
from turnwright.agents.retry_policy import OnTimeout, retry_delay_ms
from turnwright.errors import CommitConflict, ToolAttemptFailed, ToolFailedTurn, TurnAlreadyEnded
from turnwright.memory.memory_tools import MemoryTools
from turnwright.memory.records.accesses import CallAccesses
from turnwright.models.sound_replies import called_name
from turnwright.sessions.attributes import growth_allowed, size
from turnwright.sessions.journal import Journal
from turnwright.sessions.values import JOURNAL_DAYS, MOST_CALLS, Header, Step, ToolResult, Turn
from turnwright.storage import keys
from turnwright.storage.availability import patiently
from turnwright.storage.clock import expiry, now_ms
from turnwright.storage.dead_letters import DeadLetters
from turnwright.storage.documents import Documents, json_text
from turnwright.storage.table import ConditionFailed, Put, Table, TransactionRefused, Write
from turnwright.tools import action_groups, given_up_calls, tool_arguments
from turnwright.tools.action_groups import ToolAnswer
from turnwright.tools.breakers import Breakers, CircuitOpen, Passage
from turnwright.tools.tool_arguments import ArgumentsUnchecked
from turnwright.tools.tool_failures import ToolFailure
from turnwright.tools.tool_invocation import invoke
from turnwright.tracing import metrics
from turnwright.tracing.payloads import payloads
from turnwright.tracing.trace_events import CircuitState, Failure
from turnwright.tracing.trace_events import ToolCall as TracedCall
from turnwright.tracing.traces import Traces, tool_call

_LONGEST_MESSAGE = 2_000
_LONGEST_NAME = 100

_MOST_MEMORY_TRIES = 5
"""So often a memory tool looks again at what other writers have changed meanwhile."""


@dataclass(frozen=True, slots=True)
class Call:
    """One entry of the Map: a tool call of the step, as Invoke Model put it into state."""

    toolUseId: str
    index: int
    inlineBytes: int

    @classmethod
    def decode(cls, fields: Mapping[str, Any]) -> "Call":
        return cls(fields["toolUseId"], fields["index"], fields["inlineBytes"])

    def message(self, text: str) -> str:
        """The text of an error, so short that those of all the step's calls fit into state.

        State holds the error as JSON in a JSON string, in which one character can take seven bytes.
        """
        return bounded(text, max(200, min(_LONGEST_MESSAGE, self.inlineBytes // 8)))


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What one attempt works with."""

    step: int
    call: Call
    number: int
    tool: Tool
    event: Mapping[str, Any]
    parallel: int
    started: int
    traced: TracedCall


class Gateway:
    """Runs the tool calls of one turn. Calls that are given up go to `letters`."""

    def __init__(self, table: Table, documents: Documents, turn: Turn, agent: Agent, letters: DeadLetters) -> None:
        self._table = table
        self._documents = documents
        self._turn = turn
        self._agent = agent
        self._letters = letters
        self._journal = Journal(table, documents, turn.turnId)
        self._breakers = Breakers(table, turn.agentId)
        self._traces = Traces.of_turn(table, documents, turn)
        self._payloads = payloads()
        self.invoked = False
        """Whether a tool's function may have run: what fails from then on must not be tried again as it is."""

    def attempt(self, step: int, call: Call, number: int, *, lost: bool = False) -> ToolResult:
        """One attempt. Answers a tool result as it travels in state.

        `lost` says that the attempt was made and its gateway did not answer: then nothing is invoked, and without a
        recorded result the outcome is unknown; but a memory tool's call is then carried out, which happens once however
        often it is made.

        Raises ToolAttemptFailed with `{"errorCode", "errorMessage", "attempts", "tryAgainNow", "retryAfterSeconds"?,
        "retryInMs"?, "told"?}` as its message (`told` is the stowed result for the model, where the message does not
        say all), or ToolFailedTurn when the tool's policy says that this failure fails the turn.
        """
        header, recorded = self._read(step, call)
        if recorded and not lost:
            return recorded
        steps = self._journal.steps()
        tool_uses = steps[step - 1].tool_uses()
        tool_use = tool_uses[call.index]
        traced = tool_call(call.index, tool_use)
        tool = self._agent.tool(tool_use["name"])
        if recorded:  # by a gateway that may have been lost before it told the trace
            result = self._documents.fetch(recorded["result"])
            if tool and tool.is_memory:
                whole = self._documents.fetch(result["full"]) if "full" in result else result["text"]
                self._accesses(step, call, number).carried_out(tool.name, tool_use["input"], whole, None)
            self._traces.tool_attempted(step, traced, number, result["text"], started=None)
            return recorded
        if tool is None:
            unknown = unknown_tool(self._agent, called_name(tool_use))
            raise ToolAttemptFailed(json_text(not_invoked(unknown, call)))
        started = now_ms()
        arguments, refusal = _arguments(tool, tool_use["input"], lost=lost)
        event = self._event(header, steps, step, call, tool, {**tool_use, "input": arguments})
        attempt = _Attempt(step, call, number, tool, event, min(len(tool_uses), MOST_CALLS), started, traced)
        passage: Passage | None = None
        try:
            if refusal:
                raise refusal
            if tool.is_memory:
                return self._use_memory(attempt, header, arguments)
            if lost:
                raise ToolFailure("OUTCOME_UNKNOWN", "the gateway was lost; whether the tool ran is not known")
            passage = self._enter(attempt)
            answer = self._invoke(attempt, passage)
        except ToolFailure as failure:
            if tool.is_memory:
                message = call.message(self._payloads.redacted(failure.message))
                self._accesses(step, call, number).failed(
                    tool.name, tool_use["input"], Failure(failure.code, message), now_ms() - attempt.started
                )
            raise self._failed(attempt, failure, circuit_state(passage)) from failure
        limit = tool.policy.max_result_characters
        result = patiently(lambda: self._record(attempt, self._result(call, answer, bounded(answer.text, limit))))
        if passage:  # after the record, which a fault of the breaker must not cost
            self._breakers.succeeded(passage)
        told = bounded(self._payloads.redacted(answer.text), limit)
        self._traces.tool_attempted(step, traced, number, told, attempt.started, circuit_state(passage))
        self._count(attempt, "SUCCESS")
        return result

    def _count(self, attempt: _Attempt, outcome: str) -> None:
        metrics.tool_attempted(self._turn.agentId, attempt.tool.name, outcome, now_ms() - attempt.started)

    def _read(self, step: int, call: Call) -> tuple[Header, ToolResult | None]:
        found, record = self._table.get_many(
            [keys.turn_header(self._turn.turnId), keys.call_record(self._turn.turnId, step, call.index)]
        )
        if found is None:
            raise TurnAlreadyEnded(f"turn {self._turn.turnId} has no header; its items are gone")
        return Header.decode(found), json.loads(record["result"]) if record else None

    def _event(
        self, header: Header, steps: Sequence[Step], step: int, call: Call, tool: Tool, tool_use: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        request = self._documents.fetch(header.request)
        session, prompt = merged_attributes(
            header.session_attributes,
            request.get("promptSessionAttributes", {}),
            [self._documents.fetch(result["result"]) for each in steps[:step] for result in each.tool_results],
        )
        return action_groups.event(
            self._turn,
            self._agent,
            tool,
            tool_use,
            input_text=request["inputText"],
            idempotency_key=f"{self._turn.turnId}/{step}/{call.toolUseId}",
            session_attributes=session,
            prompt_session_attributes=prompt,
        )

    def _enter(self, attempt: _Attempt) -> Passage | None:
        policy = attempt.tool.policy
        caller = f"{attempt.event['idempotencyKey']}/{attempt.number}"
        return self._breakers.enter(attempt.tool.name, policy.breaker, caller, policy.timeout_seconds)

    def _invoke(self, attempt: _Attempt, passage: Passage | None) -> ToolAnswer:
        self.invoked = True
        try:
            answer = invoke(attempt.tool, attempt.event)
        except ToolFailure as failure:
            if passage:
                self._breakers.failed(passage, failure.code)
            raise
        try:
            check_growth(attempt.tool, attempt.event["sessionAttributes"], answer, attempt.parallel)
        except ToolFailure:  # for want of room in this session; the service answered
            if passage:
                self._breakers.succeeded(passage)
            raise
        return answer

    def _use_memory(self, attempt: _Attempt, header: Header, arguments: Mapping[str, Any]) -> ToolResult:
        """Carries the call out and records its result in one transaction. Raises ToolFailure."""
        tool, call = attempt.tool, attempt.call
        memory = MemoryTools(self._table, self._agent, header)
        for _ in range(_MOST_MEMORY_TRIES):
            use = memory.use(tool.name, arguments, attempt.event["idempotencyKey"])
            limit = tool.policy.max_result_characters
            answer = self._result(call, ToolAnswer(use.text), bounded(use.text, limit))
            try:
                result = self._record(attempt, answer, use.writes)
            except (TransactionRefused, CommitConflict):
                continue  # another writer changed what was read, or the actor's memory is being erased: look again
            self._accesses(attempt.step, call, attempt.number).carried_out(
                tool.name, arguments, use.text, now_ms() - attempt.started
            )
            told = bounded(self._payloads.redacted(use.text), limit)
            self._traces.tool_attempted(attempt.step, attempt.traced, attempt.number, told, attempt.started)
            self._count(attempt, "SUCCESS")
            return result
        raise ToolFailure("SERVICE_UNAVAILABLE", "other writers keep changing these records")

    def _accesses(self, step: int, call: Call, number: int) -> CallAccesses:
        return CallAccesses(self._traces, self._agent, self._turn, step, f"{call.toolUseId}/{number}")

    def _result(self, call: Call, answer: ToolAnswer, text: str) -> dict[str, Any]:
        def name(digest: str) -> str:
            return keys.turn_object(self._turn.turnId, digest)

        result: dict[str, Any] = {"text": text, **_changed_attributes(answer)}
        if text != answer.text:
            result["full"] = self._documents.stow(answer.text, name, bound=0)
        return {
            "toolUseId": call.toolUseId,
            "status": "success",
            "result": self._documents.stow(result, name, call.inlineBytes),
        }

    def _record(self, attempt: _Attempt, result: ToolResult, writes: Sequence[Write] = ()) -> ToolResult:
        """Writes the result, and with it what the call writes; if another gateway of this call was faster, the result
        is what that one wrote. Raises TransactionRefused if something else keeps `writes` from being written.
        """
        now = now_ms()
        key = keys.call_record(self._turn.turnId, attempt.step, attempt.call.index)
        item = {"result": json_text(result), "attempt": attempt.number, "expiresAt": expiry(now, JOURNAL_DAYS)}
        put = Put(key, item, only_if_absent=True)
        try:
            if writes:
                self._table.transact([*writes, put])
            else:
                self._table.put(put)
        except ConditionFailed as refused:
            if refused.item is None:
                raise
            result = json.loads(refused.item["result"])
        except TransactionRefused:
            found = self._table.get(key)
            if found is None:
                raise
            result = json.loads(found["result"])
        return result

    def _failed(
        self, attempt: _Attempt, failure: ToolFailure, circuit: CircuitState | None
    ) -> ToolAttemptFailed | ToolFailedTurn:
        """Tells the dead-letter queue, if the call is given up, and then the trace. Returns what to raise.

        What is raised is logged by Lambda and kept by Step Functions, so that its message is bounded by TracePayloads;
        the model is then told the whole of it by way of the bucket.
        """
        policy = attempt.tool.policy
        report: dict[str, Any] = {
            "errorCode": failure.code,
            "errorMessage": attempt.call.message(self._payloads.error(failure.message)),
            "attempts": attempt.number if failure.invoked else attempt.number - 1,
            "tryAgainNow": failure.code in given_up_calls.CORRECTABLE,
        }
        if isinstance(failure, CircuitOpen):
            report["retryAfterSeconds"] = failure.retry_after_seconds
            circuit = CircuitState.OPEN
        delay = retry_delay_ms(policy, attempt.number, failure.code)
        if delay is not None:
            report["retryInMs"] = delay
        if delay is None and failure.code not in given_up_calls.CORRECTABLE and not attempt.tool.is_memory:
            given_up_calls.send(
                self._letters,
                self._documents,
                self._turn,
                attempt.tool,
                attempt.step,
                attempt.event,
                report,
                attempt.call.toolUseId,
            )
        message = attempt.call.message(self._payloads.redacted(failure.message))
        self._traces.tool_attempted(
            attempt.step,
            attempt.traced,
            attempt.number,
            json_text({**report, "errorMessage": message}),
            attempt.started,
            circuit,
            Failure(failure.code, message),
            delay,
        )
        self._count(attempt, failure.code)
        if delay is not None:
            return ToolAttemptFailed(json_text(report))
        if failure.code == "TIMEOUT" and policy.on_timeout is OnTimeout.FAIL_TURN:
            return ToolFailedTurn(f"{attempt.tool.name}: {json_text(report)}")
        whole = attempt.call.message(failure.message)
        if whole != report["errorMessage"]:
            report["told"] = self._documents.stow(
                {"text": json_text({**report, "errorMessage": whole})},
                lambda digest: keys.turn_object(self._turn.turnId, digest),
                bound=0,
            )
        return ToolAttemptFailed(json_text(report))


def _arguments(tool: Tool, given: Mapping[str, Any], *, lost: bool) -> tuple[Mapping[str, Any], ToolFailure | None]:
    """The arguments that the tool gets, and why it is not called. Refused ones are in no event, which may be unable to
    hold them.

    Those of a lost attempt were refused then too, unless the check was given up: it may have come to its end before.
    """
    try:
        return tool_arguments.read(tool, given), None
    except ArgumentsUnchecked as unchecked:
        return ({}, unchecked) if not lost or tool.is_memory else (given, None)
    except ToolFailure as refused:
        return {}, refused


def circuit_state(passage: Passage | None) -> CircuitState | None:
    """The state of the circuit that let a call through; None without a breaker."""
    if passage is None:
        return None
    return CircuitState.HALF_OPEN if passage.probe else CircuitState.CLOSED


def unknown_tool(agent: Agent, name: str) -> Failure:
    """Why a tool is not called that the agent does not have."""
    known = ", ".join(tool.name for tool in agent.tools) or "none"
    return Failure("UNKNOWN_TOOL", f"there is no tool {bounded(name, _LONGEST_NAME)}; the tools are: {known}")


def not_invoked(failure: Failure, call: Call) -> dict[str, Any]:
    """The report of a call that the model can correct at once, and that was not made."""
    return {
        "errorCode": failure.code,
        "errorMessage": call.message(failure.message),
        "attempts": 0,
        "tryAgainNow": True,
    }


def merged_attributes(
    session: Mapping[str, str], prompt: Mapping[str, str], results: list[Mapping[str, Any]]
) -> tuple[dict[str, str], dict[str, str]]:
    """The session and prompt session attributes after the tools' answers, in the order in which the model asked.

    A tool that answers attributes replaces those it names; the others stay, so that parallel calls do not undo each
    other.
    """
    merged_session, merged_prompt = dict(session), dict(prompt)
    for result in results:
        merged_session.update(result.get("sessionAttributes", {}))
        merged_prompt.update(result.get("promptSessionAttributes", {}))
    return merged_session, merged_prompt


def check_growth(tool: Tool, session: Mapping[str, str], answer: ToolAnswer, calls: int) -> None:
    """Raises ToolFailure INVALID_RESPONSE if the answer, one of `calls`, makes the session's attributes too long."""
    grown = size({**session, **(answer.session_attributes or {})}) - size(session)
    allowed = growth_allowed(session, calls)
    if grown > allowed:
        raise ToolFailure(
            "INVALID_RESPONSE",
            f"the response of {tool.name} makes the sessionAttributes {grown} bytes of JSON longer; "
            f"there is room for {allowed}",
        )


def _changed_attributes(answer: ToolAnswer) -> dict[str, dict[str, str]]:
    changed = {
        "sessionAttributes": answer.session_attributes,
        "promptSessionAttributes": answer.prompt_session_attributes,
    }
    return {name: value for name, value in changed.items() if value is not None}


def bounded(text: str, limit: int) -> str:
    """The text, or its beginning and a note of how much was cut."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}\n[cut: {limit} of {len(text)} characters are shown]"
