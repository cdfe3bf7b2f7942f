"""Asking a model for an answer of a given form: it is made to call one tool, whose input is the answer.

Some models take no request that forces a tool (`what_models_take.py`). They are told to call it, as all are, and what
they write as text instead is read if it is the tool's input in JSON.

An answer that breaks the form's schema is refused once, with the reason in the prompt; a second one that does is given
up by `BrokenAnswer`, which says what was wrong and never what the answer was.
"""

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from turnwright.errors import ModelError, ModelRejected
from turnwright.models import model_calls
from turnwright.models.converse import UNREADABLE_INPUT, Reply, user_message
from turnwright.models.stop_reasons import Calls, ending
from turnwright.models.thinking import is_thought, split
from turnwright.models.what_models_take import thinks
from turnwright.sessions.values import Step
from turnwright.storage.documents import json_text
from turnwright.surrogates import mended_json
from turnwright.tracing import metrics
from turnwright.tracing.trace_events import ModelCall
from turnwright.tracing.traces import Traces

MODEL_SECONDS = 120
"""The bound of one model call. A function that asks lives for longer than two of them."""

_MOST_TOKENS = 4_096
"""The longest answer that every model of Bedrock may give."""

_MOST_TOKENS_WITH_THOUGHTS = 16_384
"""The same for models that think, whose thoughts count: all of them may give far more."""

_FENCED = re.compile(r"```[a-zA-Z]*\n(.*?)\n[ \t]*```", re.DOTALL)

_REFUSAL_CHARACTERS = 1_000


class BrokenAnswer(Exception):
    """What a model answered breaks the schema, also after it was told so."""


@dataclass(frozen=True, slots=True)
class Form:
    """The form of an answer: a tool's name, description and input schema, and `check`, which knows the rules that a
    schema cannot say; it raises BrokenAnswer.
    """

    name: str
    description: str
    schema: Mapping[str, Any]
    check: Callable[[Mapping[str, Any]], None] = lambda _answer: None


@dataclass(frozen=True, slots=True)
class Answer:
    """`value` keeps the form. `usage` are the tokens of all calls that it took."""

    value: Mapping[str, Any]
    model: str
    usage: Mapping[str, int]


def ask(model_ids: Sequence[str], attempt: int, system: str, data: str, form: Form, traces: Traces) -> Answer:
    """Asks the model whose turn it is: each further attempt of the state asks the next one in the order.

    Each call is an event, the first of the state's first attempt with `attempt` 1.

    Raises a ModelError when the call fails, and BrokenAnswer.
    """
    if not model_ids:
        raise ModelRejected("the memory configuration names no model that could extract and summarize")
    model = model_ids[attempt % len(model_ids)]
    usage: dict[str, int] = {}
    refusal = ""
    most_tokens = _MOST_TOKENS_WITH_THOUGHTS if thinks(model) else _MOST_TOKENS
    for number in (1, 2):
        request = _request(model, system, data, form, refusal, most_tokens)
        reply = _called(request, 2 * attempt + number, traces)
        if any("reasoningContent" in block for block in reply.message["content"]):
            most_tokens = _MOST_TOKENS_WITH_THOUGHTS
        for name, count in reply.usage.items():
            usage[name] = usage.get(name, 0) + count
        try:
            return Answer(_checked(reply, form), model, usage)
        except BrokenAnswer as broken:
            refusal = str(broken)[:_REFUSAL_CHARACTERS]
    raise BrokenAnswer(refusal)


def _called(arguments: Mapping[str, Any], number: int, traces: Traces) -> Reply:
    model = arguments["modelId"]
    inference = {"temperature": 0, "maximumLength": arguments["inferenceConfig"]["maxTokens"]}
    prompt = json_text({name: arguments[name] for name in ("system", "messages", "toolConfig")})
    call = ModelCall(model, number, prompt, json_text(inference))
    started = time.monotonic()
    try:
        reply = model_calls.converse(arguments, MODEL_SECONDS)
    except ModelError as error:
        metrics.model_failed(traces.agent_id, type(error).__name__)
        traces.model_failed(0, 0, call, error, _milliseconds_since(started))
        raise
    latency_ms = _milliseconds_since(started)
    step = Step(0, (), reply.message, reply.stop_reason, model, reply.usage, latency_ms, left_out=reply.left_out)
    traces.asked(call, step)
    return reply


def _milliseconds_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)


def _request(model: str, system: str, data: str, form: Form, refusal: str, most_tokens: int) -> dict[str, Any]:
    correction = f"\n\nYour last answer was refused, since it breaks the tool's schema: {refusal.replace('<', '‹')}\n"
    tool = {"name": form.name, "description": form.description, "inputSchema": {"json": form.schema}}
    return {
        "modelId": model,
        "system": [{"text": f"{system}\n\nAnswer by calling the tool {form.name}, and say nothing beside it."}],
        "messages": [user_message(data + (correction + f"Call {form.name} again." if refusal else ""))],
        "toolConfig": {"tools": [{"toolSpec": tool}], "toolChoice": {"tool": {"name": form.name}}},
        "inferenceConfig": {"temperature": 0, "maxTokens": most_tokens},
    }


def _checked(reply: Reply, form: Form) -> Mapping[str, Any]:
    from jsonschema import Draft202012Validator  # 100 ms to import, which a repeat from the journal does not need

    uses = [block["toolUse"] for block in reply.message["content"] if "toolUse" in block]
    value = next((use["input"] for use in uses if use["name"] == form.name), None)
    if value is None and not uses:
        value = _written(reply, form)
    if value is None:
        raise BrokenAnswer(f"the tool {form.name} was not called")
    if ending(reply.stop_reason).calls is not Calls.MADE:
        raise BrokenAnswer(f"the input of {form.name} is cut, so give less: the model stopped with {reply.stop_reason}")
    if UNREADABLE_INPUT in value:
        raise BrokenAnswer(f"the input of {form.name} is not a JSON object that has each of its names once")
    faults = sorted(
        f"{'/'.join(map(str, error.absolute_path)) or 'input'}: {_rule(error)}"
        for error in Draft202012Validator(form.schema).iter_errors(value)
    )
    if faults:
        raise BrokenAnswer("; ".join(faults[:5]))
    form.check(value)
    answer: Mapping[str, Any] = value
    return answer


def _written(reply: Reply, form: Form) -> Mapping[str, Any] | None:
    """The tool's input where the model wrote it as its text, alone or in one fenced block; with the tool's name beside
    it, as models do that know calls as text. None for any other text.
    """
    text = "".join(block["text"] for block in reply.message["content"] if "text" in block)
    said = "".join(part for part in split(text) if not is_thought(part)).strip()
    fenced = _FENCED.findall(said)
    try:
        value = mended_json(json.loads(fenced[0] if len(fenced) == 1 else said))
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    inner = next((value[name] for name in ("input", "parameters", "arguments") if name in value), None)
    is_call = value.get("name") == form.name and len(value) == 2 and isinstance(inner, dict)
    return inner if is_call else value


def _rule(error: Any) -> str:
    """The rule that was broken, without the value that broke it: that is what someone said."""
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in error.instance]
        return f"{', '.join(missing)} is missing"
    if error.validator == "additionalProperties":
        return f"only {', '.join(error.schema['properties'])} may be given"
    return f"must keep {error.validator} {error.validator_value}"
