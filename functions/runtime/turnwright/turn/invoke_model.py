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
from turnwright.sessions.values import Header, Step, ToolResult, Turn
from turnwright.storage.documents import Documents, json_text
from turnwright.storage.table import Table
from turnwright.tracing.trace_events import Failure, ModelCall
from turnwright.tracing.traces import Traces
from turnwright.turn.invoke_tool import Call, merged_attributes, not_invoked, unknown_tool

TOOL_RESULTS_BYTES = 128 * 1024
"""How much the results of one step may take of the 256 KiB that a state can carry; what is longer goes to the bucket.
"""

_LARGEST_INLINE_RESULT = 16 * 1024


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
        traces.model_answered(recorded[0].redrive, call, recorded[0], agent, _refusal(recorded[0]))
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
    traces.model_answered(asked.redrive, call, answered, agent, _refusal(answered))
    if step is not answered:  # another delivery was faster, and its answer counts
        traces.model_answered(asked.redrive, replace(call, model=step.model), step, agent, _refusal(step))
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
    tool_uses, refusal = step.tool_uses(), _refusal(step)
    inline = min(_LARGEST_INLINE_RESULT, TOOL_RESULTS_BYTES // max(1, len(tool_uses)))
    return [_tool_call(index, tool_use, agent, inline, refusal) for index, tool_use in enumerate(tool_uses)]


def _refusal(step: Step) -> Failure | None:
    """Why no call of the step is made, whatever it calls: its reply is not whole."""
    if ending(step.stop_reason).calls is Calls.MADE:
        return None
    return Failure(
        "INVALID_ARGUMENTS",
        f"the reply was cut ({step.stop_reason}), so that none of its calls was made; ask again, for less at once",
    )


def _tool_call(
    index: int, tool_use: Mapping[str, Any], agent: Agent, inline: int, refusal: Failure | None
) -> dict[str, Any]:
    call: dict[str, Any] = {
        "toolUseId": tool_use["toolUseId"],
        "toolName": tool_use["name"],
        "index": index,
        "inlineBytes": inline,
    }
    if refusal:
        return {**call, "handler": "none", "failure": not_invoked(refusal, Call.decode(call))}
    tool = agent.tool(tool_use["name"])
    if tool is None:
        return {**call, "handler": "none", "failure": unknown_tool(agent, called_name(tool_use), Call.decode(call))}
    return {**call, "handler": "lambda", "timeoutSeconds": tool.policy.timeout_seconds}


def turn_messages(documents: Documents, input_text: str, steps: Sequence[Step]) -> list[dict[str, Any]]:
    """The turn's own Converse messages: the user's, and each step's tool results and answer; not an answer that says
    nothing, which Converse refuses as history.
    """
    messages = [converse.user_message(input_text)]
    for step in steps:
        if step.tool_results:
            messages.append(results_message(documents, step.tool_results))
        if any("reasoningContent" not in block for block in step.message["content"]):
            messages.append(dict(step.message))
    return messages


def results_message(documents: Documents, results: Sequence[ToolResult]) -> dict[str, Any]:
    return converse.tool_result_message(
        (result["toolUseId"], result["status"], documents.fetch(result["result"])["text"]) for result in results
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
        messages.append(results_message(documents, asked.tool_results))
    return converse.request(
        agent,
        model_id,
        converse.beginning_with_user(messages),
        prompt_attributes,
        may_use_tools=asked.may_use_tools,
        memory=documents.fetch(header.injected) if header.injected else "",
    )
