"""One step of a turn: what the model is shown, its answer in the journal, and the tool calls it asks for."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from turnwright.agents.definitions import Agent
from turnwright.errors import ModelError, ModelsExhausted, ModelsThrottled, ModelThrottled, TurnAlreadyEnded
from turnwright.models import converse, model_calls
from turnwright.models.sound_replies import called_name, received
from turnwright.models.stop_reasons import Calls, ending
from turnwright.sessions.history import History, Window
from turnwright.sessions.journal import Journal
from turnwright.sessions.turns import Turns
from turnwright.sessions.values import MOST_CALLS, Header, Step, ToolResult, Turn
from turnwright.storage.documents import Documents, json_text
from turnwright.storage.table import Table
from turnwright.tracing.trace_events import Failure, ModelCall
from turnwright.tracing.traces import Traces
from turnwright.turn.invoke_tool import Call, merged_attributes, not_invoked, unknown_tool

TOOL_RESULTS_BYTES = 128 * 1024
"""How much the results of one step may take of the 256 KiB that a state can carry; what is longer goes to the bucket.
"""

_LARGEST_INLINE_RESULT = 16 * 1024

_NOT_MADE = json_text(
    {
        "errorCode": "TOO_MANY_CALLS",
        "errorMessage": f"not carried out: of one reply only the first {MOST_CALLS} calls are",
        "attempts": 0,
        "tryAgainNow": True,
    }
)
"""What the model is told of each call past MOST_CALLS: short, as there can be thousands. State has no entry for it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the state machine asks of Invoke Model. `model` counts from 0 through the agent's models, and past them; the
    next is asked for after a call that failed, or did not answer in time. `attempt` counts the calls of all models in
    this step from 1, after each of the `redrive`s anew.
    """

    step: int
    model: int
    tool_results: tuple[ToolResult, ...]
    may_use_tools: bool
    attempt: int = 1
    redrive: int = 0


def take_step(table: Table, documents: Documents, turn: Turn, agent: Agent, asked: Asked) -> Step:
    """The step from the journal, or from the model, which is then in the journal. The trace is told of it after that,
    and again by a repeat.

    Raises a ModelError, or past the last model, where the first is tried once more, ModelsExhausted (ModelsThrottled if
    that try was throttled). Further on nothing is left to ask, unless the turn was redriven: once more for each time.
    """
    journal = Journal(table, documents, turn.turnId)
    steps = journal.steps()
    earlier, recorded = steps[: asked.step - 1], steps[asked.step - 1 : asked.step]
    if not recorded and asked.model > len(agent.models) + asked.redrive:
        raise ModelsExhausted(f"all {len(agent.models)} models failed; the last try did not end in time")
    header = Turns(table).read(turn.turnId)
    if header is None:
        raise TurnAlreadyEnded(f"turn {turn.turnId} has no header; its items are gone")
    traces = Traces.of_turn(table, documents, turn)
    last_resort = asked.model >= len(agent.models)
    model_id = recorded[0].model if recorded else agent.models[0 if last_resort else asked.model]
    arguments = _arguments(table, documents, header, agent, earlier, asked, model_id)
    if recorded:  # by a delivery that may have been lost before it told the trace
        call = model_call(agent, arguments, recorded[0].attempt)
        traces.model_answered(recorded[0].redrive, call, recorded[0], _told_refusals(recorded[0], agent))
        return recorded[0]
    call = model_call(agent, arguments, asked.attempt)
    traces.model_started(asked.step, asked.redrive, call)
    started = time.monotonic()
    try:
        reply = model_calls.converse(arguments, agent.limits.model_timeout_seconds)
        has_said = any(step.text().strip() for step in earlier)
        message = received(reply, agent, turn.turnId, asked.step, has_said=has_said)
    except ModelError as error:
        traces.model_failed(asked.step, asked.redrive, call, error, _milliseconds_since(started))
        if not last_resort:
            raise
        exhausted = ModelsThrottled if isinstance(error, ModelThrottled) else ModelsExhausted
        raise exhausted(f"all {len(agent.models)} models failed; the last try: {error}") from error
    answered = Step(
        number=asked.step,
        tool_results=asked.tool_results,
        message=message,
        stop_reason=reply.stop_reason,
        model=model_id,
        usage=reply.usage,
        latency_ms=_milliseconds_since(started),
        attempt=asked.attempt,
        redrive=asked.redrive,
        left_out=reply.left_out,
        repeats=reply.repeats,
    )
    step = journal.record(answered)
    # After the record, which nothing may hold up.
    if step is not answered:  # another delivery was faster: its answer counts, and this one's calls are not made
        traces.model_answered(asked.redrive, call, answered, ())
        call = replace(call, model=step.model, attempt=step.attempt)
    traces.model_answered(step.redrive, call, step, _told_refusals(step, agent))
    return step


def model_call(agent: Agent, arguments: Mapping[str, Any], attempt: int) -> ModelCall:
    """The call as the trace tells it: the system texts, messages and tools, and the sampling parameters by Bedrock's
    names for agents.
    """
    inference = agent.inference
    configuration = {
        "temperature": inference.temperature,
        "topP": inference.top_p,
        "maximumLength": inference.max_tokens,
        "stopSequences": list(inference.stop_sequences) if inference.stop_sequences else None,
    }
    return ModelCall(
        model=arguments["modelId"],
        attempt=attempt,
        prompt=json_text({name: arguments[name] for name in ("system", "messages", "toolConfig") if name in arguments}),
        inference=json_text({name: value for name, value in configuration.items() if value is not None}),
    )


def _milliseconds_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)


def tool_calls(step: Step, agent: Agent) -> list[dict[str, Any]]:
    """The items of Run Tools. Arguments stay in the journal; a call that is not made carries its failure."""
    tool_uses = step.tool_uses()[:MOST_CALLS]
    inline = min(_LARGEST_INLINE_RESULT, TOOL_RESULTS_BYTES // max(1, len(tool_uses)))
    calls = enumerate(zip(tool_uses, _refusals(step, agent), strict=True))
    return [_tool_call(index, tool_use, agent, inline, refusal) for index, (tool_use, refusal) in calls]


def _refusals(step: Step, agent: Agent) -> list[Failure | None]:
    """Why a call is not made, or None, for each of the step's first MOST_CALLS."""
    tool_uses = step.tool_uses()[:MOST_CALLS]
    if ending(step.stop_reason).calls is Calls.MADE:
        return [None if agent.tool(use["name"]) else unknown_tool(agent, called_name(use)) for use in tool_uses]
    rule = f"the reply was cut ({step.stop_reason}), so that none of its calls was made; ask again, for less at once"
    return [Failure("INVALID_ARGUMENTS", rule)] * len(tool_uses)


def _told_refusals(step: Step, agent: Agent) -> list[Failure | None]:
    """`_refusals`, and of all calls past them one, which tells of them all."""
    refusals, more = _refusals(step, agent), len(step.tool_uses()) - MOST_CALLS
    if more > 0:
        rule = f"this call and {more - 1} after it are not carried out: of one reply only the first {MOST_CALLS} are"
        refusals.append(Failure("TOO_MANY_CALLS", rule))
    return refusals


def _tool_call(
    index: int, tool_use: Mapping[str, Any], agent: Agent, inline: int, refusal: Failure | None
) -> dict[str, Any]:
    call: dict[str, Any] = {
        "toolUseId": tool_use["toolUseId"],
        "toolName": tool_use["name"],
        "index": index,
        "inlineBytes": inline,
    }
    tool = agent.tool(tool_use["name"])
    if refusal or tool is None:
        refusal = refusal or unknown_tool(agent, called_name(tool_use))
        return {**call, "handler": "none", "failure": not_invoked(refusal, Call.decode(call))}
    return {**call, "handler": "lambda", "timeoutSeconds": tool.policy.timeout_seconds}


def turn_messages(documents: Documents, input_text: str, steps: Sequence[Step]) -> list[dict[str, Any]]:
    """The turn's own Converse messages: the user's, and each step's tool results and answer; not an answer that says
    nothing, which Converse refuses as history.
    """
    messages = [converse.user_message(input_text)]
    for number, step in enumerate(steps):
        if step.tool_results:
            messages.append(results_message(documents, steps[number - 1], step.tool_results))
        if any("reasoningContent" not in block for block in step.message["content"]):
            messages.append(dict(step.message))
    return messages


def results_message(documents: Documents, asking: Step, results: Sequence[ToolResult]) -> dict[str, Any]:
    """The message that answers the calls of a step, each once: with its result, or that it was not made."""
    answered = {result["toolUseId"] for result in results}
    not_made = [use["toolUseId"] for use in asking.tool_uses()[MOST_CALLS:] if use["toolUseId"] not in answered]
    return converse.tool_result_message(
        [
            *((each["toolUseId"], each["status"], documents.fetch(each["result"])["text"]) for each in results),
            *((tool_use_id, "error", _NOT_MADE) for tool_use_id in not_made),
        ]
    )


def attributes_after(
    documents: Documents, header: Header, request: Mapping[str, Any], results: Sequence[ToolResult]
) -> tuple[dict[str, str], dict[str, str]]:
    """The session and prompt session attributes after these tool results of the turn."""
    return merged_attributes(
        header.session_attributes,
        request.get("promptSessionAttributes", {}),
        [documents.fetch(result["result"]) for result in results],
    )


def _for_model(step: Step, model_id: str) -> Step:
    return step if step.model == model_id else replace(step, message=converse.without_reasoning(step.message))


def _arguments(
    table: Table,
    documents: Documents,
    header: Header,
    agent: Agent,
    earlier: Sequence[Step],
    asked: Asked,
    model_id: str,
) -> dict[str, Any]:
    turn = header.turn
    request = documents.fetch(header.request)
    results = [result for step in earlier for result in step.tool_results] + list(asked.tool_results)
    _, prompt_attributes = attributes_after(documents, header, request, results)
    messages = [
        *request.get("conversationHistory", ()),
        *map(
            converse.without_reasoning,
            History(table, documents).messages(turn.session, Window(turn.historyFrom, turn.historyTo), agent.history),
        ),
        *turn_messages(documents, request["inputText"], [_for_model(step, model_id) for step in earlier]),
    ]
    if asked.tool_results:
        messages.append(results_message(documents, earlier[-1], asked.tool_results))
    return converse.request(
        agent,
        model_id,
        converse.beginning_with_user(messages),
        prompt_attributes,
        may_use_tools=asked.may_use_tools,
        memory=documents.fetch(header.injected) if header.injected else "",
    )
