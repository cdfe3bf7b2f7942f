"""A plain Converse answer, put together from the events of ConverseStream."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from local.bedrock.model_backend import ModelError, StreamEvent

_PASSED_ON = ("trace", "performanceConfig", "serviceTier")
"""What metadata may hold besides usage and metrics, and Converse answers under the same names."""


def converse_answer(events: Iterable[StreamEvent]) -> dict[str, Any]:
    """The body of Converse's answer. Raises ModelError for a stream cut short or that Converse cannot hold."""
    blocks: dict[int, dict[str, Any]] = {}
    answer: dict[str, Any] = {}
    for event in events:
        body = event.body
        match event.name:
            case "contentBlockStart":
                blocks[body["contentBlockIndex"]] = dict(body["start"])
            case "contentBlockDelta":
                _add(blocks.setdefault(body["contentBlockIndex"], {}), body["delta"])
            case "messageStop":
                answer.update(body)
            case "metadata":
                answer.update({name: body[name] for name in _PASSED_ON if name in body})
                answer |= {"usage": body["usage"], "metrics": body["metrics"]}
    if "stopReason" not in answer or "usage" not in answer:
        raise ModelError(424, "ModelErrorException", "the model's answer ended before it was complete")
    content = [_content_block(block) for _, block in sorted(blocks.items())]
    return {"output": {"message": {"role": "assistant", "content": content}}, **answer}


def _add(block: dict[str, Any], delta: Mapping[str, Any]) -> None:
    match delta:
        case {"text": text}:
            block["text"] = block.get("text", "") + text
        case {"toolUse": {"input": text}}:
            block["input"] = block.get("input", "") + text
        case {"reasoningContent": {"redactedContent": redacted}}:
            block["reasoningContent"] = {"redactedContent": redacted}
        case {"reasoningContent": part}:
            reasoning = block.setdefault("reasoningContent", {"reasoningText": {"text": ""}})["reasoningText"]
            for name, text in part.items():
                reasoning[name] = reasoning.get(name, "") + text
        case _:
            kind = ", ".join(delta)
            raise ModelError(500, "InternalServerException", f"Converse cannot hold {kind}: call ConverseStream")


def _content_block(block: dict[str, Any]) -> dict[str, Any]:
    if "toolUse" not in block:
        return block
    try:
        arguments = json.loads(block.get("input") or "{}")
    except ValueError as error:
        message = f"the model's input of tool {block['toolUse']['name']} is not JSON: {error}"
        raise ModelError(424, "ModelErrorException", message) from error
    return {"toolUse": {**block["toolUse"], "input": arguments}}
