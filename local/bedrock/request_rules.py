"""What Bedrock refuses about a Converse request, refused here too: an agent's mistake shows before it is deployed.

The shapes, lengths, ranges and patterns are botocore's own service model of `bedrock-runtime`; the rules about a
conversation are the ones that its ValidationException messages state.
"""

import base64
import binascii
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

from botocore.loaders import Loader
from botocore.model import ListShape, MapShape, ServiceModel, Shape, StructureShape

from local.bedrock.model_backend import JsonObject, ModelError

_PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "blob": (str,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "boolean": (bool,),
    "list": (list,),
    "map": (dict,),
    "structure": (dict,),
}
_ONE_SAMPLING_PARAMETER = re.compile(r"claude-(?:opus-4-[1-6]|(?:sonnet|haiku)-4-[5-9])(?!\d)")
"""The Claude models that take temperature or topP, not both."""

_NO_SAMPLING_PARAMETER = re.compile(r"claude-(?:opus-4-[7-9]|(?:opus|sonnet|haiku|fable|mythos)-[5-9])(?!\d)")
_NO_FORCED_TOOL = re.compile(r"claude-(?:(?:opus|sonnet|haiku)-5-5|(?:fable|mythos)-5-1)(?!\d)")
_TOOL_CHOICES = {"mistral-large": {"auto", "any"}, "meta.llama": {"auto"}, "cohere.command": {"auto"}}
"""What the models whose ids have these words take of toolChoice, where it is not all of it."""

_NO_TOOLS_IN_STREAMS = "meta.llama"

_JSON_NAMES = {"list": "an array", "map": "an object", "structure": "an object", "blob": "a base64 string"}


def check_request(model_id: str, body: Any, *, is_stream: bool = True) -> None:
    """Raises ModelError (400 ValidationException) unless Bedrock would take the request. What a model refuses is known
    by its id: that of an application inference profile, say, tells nothing, and a test has a script refuse for it.
    """
    if not isinstance(body, dict):
        raise _refusal("The request body must be a JSON object.")
    violation = next(_violations({**body, "modelId": model_id}, _request_shape(), ""), None)
    if violation:
        raise _refusal(f"1 validation error detected: {violation}")
    _check_system(body.get("system", []))
    _check_sampling(model_id, body.get("inferenceConfig", {}))
    _check_conversation(body.get("messages", []))
    _check_tools(body)
    _check_choice(model_id, body.get("toolConfig", {}).get("toolChoice", {}))
    if is_stream and "toolConfig" in body and _NO_TOOLS_IN_STREAMS in model_id:
        raise _refusal("This model doesn't support tool use in streaming mode.")


@cache
def _request_shape() -> Shape:
    model = ServiceModel(Loader().load_service_model("bedrock-runtime", "service-2"), "bedrock-runtime")
    shape: Shape = model.operation_model("ConverseStream").input_shape
    return shape


def _refusal(message: str) -> ModelError:
    return ModelError(400, "ValidationException", message)


def _violations(value: Any, shape: Shape, path: str) -> Iterator[str]:
    """What is wrong with a JSON value, judged by a shape."""
    if getattr(shape, "is_document_type", False):
        return
    if not _has_type(value, shape):
        expected = _JSON_NAMES.get(shape.type_name, f"a {shape.type_name}")
        yield f"Value at '{path or 'body'}' must be {expected}"
        return
    yield from _constraint_violations(value, shape, path)
    if isinstance(shape, StructureShape):
        yield from _structure_violations(value, shape, path)
    elif isinstance(shape, ListShape):
        for index, item in enumerate(value):
            yield from _violations(item, shape.member, f"{path}.{index}")
    elif isinstance(shape, MapShape):
        for key, item in value.items():
            yield from _violations(key, shape.key, f"{path}.{key}")
            yield from _violations(item, shape.value, f"{path}.{key}")


def _has_type(value: Any, shape: Shape) -> bool:
    is_stray_boolean = isinstance(value, bool) and shape.type_name != "boolean"
    return isinstance(value, _PYTHON_TYPES[shape.type_name]) and not is_stray_boolean


def _structure_violations(value: JsonObject, shape: StructureShape, path: str) -> Iterator[str]:
    prefix = f"{path}." if path else ""
    for name in shape.metadata.get("required", []):
        if name not in value:
            yield f"Value at '{prefix}{name}' failed to satisfy constraint: Member must not be null"
    if shape.is_tagged_union and len(value) != 1:
        yield f"Value at '{path}' must have exactly one member of {', '.join(shape.members)}"
    for name, item in value.items():
        if name in shape.members:
            yield from _violations(item, shape.members[name], prefix + name)
        else:
            yield f"'{prefix}{name}' is not a field of {shape.name}"


def _constraint_violations(value: Any, shape: Shape, path: str) -> Iterator[str]:
    if shape.type_name == "blob" and not _is_base64(value):
        yield f"Value at '{path}' is not base64"
    rules = shape.metadata
    is_number = isinstance(value, (int, float))
    size = value if is_number else len(value)
    measure = "value" if is_number else "length"
    for bound, broken, words in (
        ("min", size < rules.get("min", size), "greater"),
        ("max", size > rules.get("max", size), "less"),
    ):
        if broken:
            yield (
                f"Value at '{path}' failed to satisfy constraint: "
                f"Member must have {measure} {words} than or equal to {rules[bound]}"
            )
    if "pattern" in rules and not re.fullmatch(rules["pattern"], value):
        yield (
            f"Value '{value}' at '{path}' failed to satisfy constraint: "
            f"Member must satisfy regular expression pattern: {rules['pattern']}"
        )
    if "enum" in rules and value not in rules["enum"]:
        allowed = ", ".join(rules["enum"])
        yield (
            f"Value '{value}' at '{path}' failed to satisfy constraint: Member must satisfy enum value set: [{allowed}]"
        )


def _is_base64(value: str) -> bool:
    try:
        base64.b64decode(value, validate=True)
    except binascii.Error:
        return False
    return True


def _check_sampling(model_id: str, configuration: JsonObject) -> None:
    if _ONE_SAMPLING_PARAMETER.search(model_id) and {"temperature", "topP"} <= set(configuration):
        raise _refusal(
            "The model returned the following errors: `temperature` and `top_p` cannot both be specified for this "
            "model. Please use only one."
        )

    refused = [name for name in ("temperature", "topP") if name in configuration]
    if refused and _NO_SAMPLING_PARAMETER.search(model_id):
        name = {"temperature": "temperature", "topP": "top_p"}[refused[0]]
        raise _refusal(f"The model returned the following errors: `{name}` is deprecated for this model.")


def _check_choice(model_id: str, choice: JsonObject) -> None:
    if {"tool", "any"} & choice.keys() and _NO_FORCED_TOOL.search(model_id):
        raise _refusal(
            'The model returned the following errors: tool_choice: type "tool" and "any" are not supported for this '
            "model."
        )
    for words, taken in _TOOL_CHOICES.items():
        for name in choice:
            if words in model_id and name not in taken:
                field = f"toolConfig.toolChoice.{name}"
                raise _refusal(f"This model doesn't support the {field} field. Remove {field} and try again.")


def _check_system(blocks: Iterable[JsonObject]) -> None:
    for index, block in enumerate(blocks):
        if not block.get("text", "-").strip():
            raise _refusal(f"The text field in the SystemContentBlock object at system.{index} is blank.")


def _check_conversation(messages: Sequence[JsonObject]) -> None:
    if not messages or messages[0]["role"] != "user":
        raise _refusal(
            "A conversation must start with a user message. "
            "Try again with a conversation that starts with a user message."
        )
    for index, message in enumerate(messages):
        if message["role"] != ("user", "assistant")[index % 2]:
            raise _refusal(
                "A conversation must alternate between user and assistant roles. Make sure the conversation "
                f"alternates between user and assistant roles and try again. (messages.{index})"
            )
        _check_content(message["content"], f"messages.{index}", message["role"])
    if messages[-1]["role"] != "user":
        raise _refusal(
            "The model that you are using requires the last turn in the conversation to be a user message. "
            "Add a user message to the conversation and try again."
        )
    for index, message in enumerate(messages):
        _check_tool_results(messages[index - 1]["content"] if index else [], message["content"], index)


def _check_content(blocks: Sequence[JsonObject], path: str, role: str) -> None:
    if not blocks:
        raise _refusal(
            f"The content field in the Message object at {path} is empty. "
            "Add a ContentBlock object to the content field and try again."
        )
    for index, block in enumerate(blocks):
        place = f"{path}.content.{index}"
        _check_text(block, place)
        if "toolUse" in block:
            _check_tool_use(block["toolUse"], place, role)
        if "toolResult" in block:
            _check_tool_result(block["toolResult"], place, role)
    for kind in ("toolUse", "toolResult"):
        repeated = [name for name, count in Counter(_ids(blocks, kind)).items() if count > 1]
        if repeated:
            raise _refusal(f"The {kind} blocks at {path}.content contain duplicate Ids: {', '.join(repeated)}")


def _check_text(block: JsonObject, place: str) -> None:
    if not block.get("text", "-").strip():
        raise _refusal(
            f"The text field in the ContentBlock object at {place} is blank. Add text to the text field, and try again."
        )


def _check_tool_use(use: JsonObject, place: str, role: str) -> None:
    if role != "assistant":
        raise _refusal(f"The toolUse block at {place} must be in an assistant message.")
    if not isinstance(use["input"], dict):
        raise _not_an_object(f"{place}.toolUse.input")


def _check_tool_result(result: JsonObject, place: str, role: str) -> None:
    if role != "user":
        raise _refusal(f"The toolResult block at {place} must be in a user message.")
    if not result["content"] and result.get("status") == "error":
        raise _refusal(f"The content field at {place}.toolResult cannot be empty when status value is error.")
    for index, block in enumerate(result["content"]):
        _check_text(block, f"{place}.toolResult.content.{index}")
        if not isinstance(block.get("json", {}), dict):
            raise _not_an_object(f"{place}.toolResult.content.{index}.json")


def _not_an_object(place: str) -> ModelError:
    return _refusal(
        f"The format of the value at {place} is invalid. Provide a json object for the field and try again."
    )


def _check_tool_results(previous: Sequence[JsonObject], blocks: Sequence[JsonObject], index: int) -> None:
    """Every toolUse of the previous message has its toolResult in this one, and no toolResult is of anything else."""
    asked, answered = _ids(previous, "toolUse"), _ids(blocks, "toolResult")
    unanswered = [name for name in asked if name not in answered]
    if unanswered:
        raise _refusal(
            f"Expected toolResult blocks at messages.{index}.content for the following Ids: {', '.join(unanswered)}"
        )
    if len(answered) > len(asked):
        raise _refusal(
            f"The number of toolResult blocks at messages.{index}.content exceeds the number of toolUse blocks of "
            f"previous turn. (Unexpected Ids: {', '.join(name for name in answered if name not in asked)})"
        )


def _ids(blocks: Iterable[JsonObject], kind: str) -> list[str]:
    return [block[kind]["toolUseId"] for block in blocks if kind in block]


def _check_tools(body: JsonObject) -> None:
    has_tool_blocks = any(
        "toolUse" in block or "toolResult" in block for message in body["messages"] for block in message["content"]
    )
    if "toolConfig" not in body:
        if has_tool_blocks:
            raise _refusal("The toolConfig field must be defined when using toolUse and toolResult content blocks.")
        return
    configuration = body["toolConfig"]
    names = [tool["toolSpec"]["name"] for tool in configuration["tools"] if "toolSpec" in tool]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise _refusal(f"The toolConfig.tools contain duplicate tool names: {', '.join(repeated)}")
    forced = configuration.get("toolChoice", {}).get("tool", {}).get("name")
    if forced is not None and forced not in names:
        raise _refusal(f"toolConfig.toolChoice.tool.name: {forced} is not one of the tools in toolConfig.tools.")
    for index, tool in enumerate(configuration["tools"]):
        schema = tool.get("toolSpec", {}).get("inputSchema", {}).get("json", {"type": "object"})
        if not isinstance(schema, dict) or schema.get("type") != "object":
            raise _refusal(
                f"The value at toolConfig.tools.{index}.toolSpec.inputSchema.json.type "
                "must be one of the following: object."
            )
