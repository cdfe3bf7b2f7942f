"""A model's reply as a turn can work with it, whatever the model wrote: the one place where its words are made sound.

It is done once, when the reply is received and before it is journaled. Behind it ids and names are Bedrock's own form,
so that what is shown of the reply to a model again is not refused (`ToolUseBlock` in botocore's service model).
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, groupby
from typing import Any

from turnwright.agents.definitions import Agent
from turnwright.errors import ModelUnavailable
from turnwright.models.converse import Message, Reply
from turnwright.models.stop_reasons import Calls, ending
from turnwright.models.thinking import is_thought, split
from turnwright.surrogates import mended

_WITHHELD = "(Nothing of the answer was let through.)"
"""Stands for an answer that was withheld whole: Converse refuses a message without content as history."""

_NOT_REACHED = "(The model was still thinking, and said nothing.)"
"""Stands for an answer before which the model was stopped. Asked again it would be stopped there again."""

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")

_NO_TOOL = "invalid_tool_name"
"""Stands for a name that Converse does not take back."""

_CALLED_NAME, _CALLED_INPUT = "calledName", "calledInput"


def received(reply: Reply, agent: Agent, turn_id: str, step: int, *, has_said: bool) -> Message:
    """The message as the journal has it. Raises ModelUnavailable for a reply that neither says nor asks anything.

    `has_said` tells whether the model has spoken in the turn before: then it may end by saying nothing more, as models
    do that have said all beside their last tool call.
    """
    message = _with_sound_calls(reply.message, agent, turn_id, step)
    calls = ending(reply.stop_reason).calls
    content = list(_with_thoughts_apart(message["content"], cut=calls is not Calls.MADE))
    message = {**message, "content": content}
    if any("text" in block or "toolUse" in block for block in content):
        return message
    if calls is Calls.LEFT_OUT:
        return {**message, "content": [*content, {"text": _WITHHELD}]}
    if calls is Calls.REFUSED and content:
        return {**message, "content": [*content, {"text": _NOT_REACHED}]}
    if calls is Calls.MADE and has_said:
        return message
    raise ModelUnavailable(f"the model's reply is empty; it stopped with {reply.stop_reason}")


def called_name(tool_use: Mapping[str, Any]) -> str:
    """The name of the tool that the model called, in its own words."""
    given = tool_use["input"]
    if tool_use["name"].startswith(_NO_TOOL) and given.keys() == {_CALLED_NAME, _CALLED_INPUT}:
        return str(given[_CALLED_NAME])
    return str(tool_use["name"])


def _with_sound_calls(message: Message, agent: Agent, turn_id: str, step: int) -> Message:
    """The message with an id of the runtime's for each tool call, and only names that Converse takes back.

    An id is made of the turn, the step and the call's place, and of no word of the model's, which repeats ids and makes
    them up: it is the same whenever the step is taken again, and no other call of the session has it.

    A call of a name that no tool can have becomes one of a tool that the agent does not have, with the name and the
    input in its input: `{"calledName", "calledInput"}`.
    """
    index = count()
    content = [
        {"toolUse": _sound_call(block["toolUse"], agent, _tool_use_id(turn_id, step, next(index)))}
        if "toolUse" in block
        else block
        for block in message["content"]
    ]
    return {**message, "content": content}


def _with_thoughts_apart(content: Sequence[Mapping[str, Any]], *, cut: bool) -> Iterator[Mapping[str, Any]]:
    """The blocks with what the model thinks in its texts as reasoning. Texts side by side are one text in pieces. `cut`
    says that the model was stopped before it ended.
    """
    for is_text, neighbours in groupby(content, lambda block: "text" in block):
        blocks = list(neighbours)
        parts = split("".join(block["text"] for block in blocks), cut=cut) if is_text else []
        if not any(map(is_thought, parts)):
            yield from blocks
            continue
        for part in parts:
            yield {"reasoningContent": {"reasoningText": {"text": part}}} if is_thought(part) else {"text": part}


def _tool_use_id(turn_id: str, step: int, index: int) -> str:
    return f"tooluse_{hashlib.sha256(f'{turn_id}/{step}/{index}'.encode()).hexdigest()[:22]}"


def _sound_call(tool_use: Mapping[str, Any], agent: Agent, tool_use_id: str) -> dict[str, Any]:
    name, given = mended(tool_use["name"]), tool_use["input"]
    if not _NAME.fullmatch(name):
        name, given = _NO_TOOL, {_CALLED_NAME: name, _CALLED_INPUT: given}
        while agent.tool(name):
            name += "_"
    return {"toolUseId": tool_use_id, "name": name, "input": given}
