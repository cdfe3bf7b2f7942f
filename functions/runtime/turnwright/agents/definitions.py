"""What an agent is: its definition, and the definition as the values that a turn works with.

A definition is an agent file (`agents/agent.schema.json`) with its substitutions made, and with the operations of an
OpenAPI document in the document's place. `Definition` is how it is kept: the JSON text and its digest. `parse` reads a
definition that has passed `agent_files.check`; it fills in the defaults that the schema documents and checks nothing
again.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from turnwright.agents import memory_defaults
from turnwright.agents.memory_configuration import MemoryConfiguration
from turnwright.agents.memory_tool_schemas import MemoryTool, memory_tools
from turnwright.agents.retry_policy import ToolPolicy, tool_policy
from turnwright.errors import UnknownSchemaVersion


@dataclass(frozen=True, slots=True)
class Definition:
    """An agent's definition as it is stored. Two are the same if their digests are.

    `text` is the file's JSON without white space and without `$schema`, which only editors read. Field order
    is kept, since a model sees tools and parameters in it.
    """

    agent_id: str
    text: str
    digest: str

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "Definition":
        fields = {name: value for name, value in document.items() if name != "$schema"}
        return cls(document["agentId"], _text(fields), digest(fields))


def digest(document: Any) -> str:
    """Two JSON documents have the same if they differ in white space alone."""
    return hashlib.sha256(_text(document).encode()).hexdigest()


def _text(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Inference:
    """Sampling parameters; None leaves one to the model's own default."""

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop_sequences: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one turn: model calls, tool calls at the same time, seconds for one model call."""

    max_steps: int = 10
    max_parallel_tools: int = 4
    model_timeout_seconds: int = 60


@dataclass(frozen=True, slots=True)
class HistoryWindow:
    """How much of a session a turn sends to the model: its latest turns, as many as fit both bounds."""

    max_turns: int = 20
    max_characters: int = 60_000


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a tool; `type` is string, number, integer, boolean, array or object, None if its schema leaves
    that open.
    """

    name: str
    type: str | None
    required: bool


@dataclass(frozen=True, slots=True)
class Body:
    """How arguments become a request body.

    `types` has the type of each property whose schema has exactly one. `argument` names the argument that is the whole
    body; None if each property is an argument.
    """

    contentType: str
    types: Mapping[str, str]
    required: bool
    argument: str | None


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation of an API as a version of the agent holds it.

    `parameters` are its path, query and header parameters in their order. `method` is in capitals, and `description` ""
    if there is none. `inputSchema` is the JSON Schema of the arguments.
    """

    name: str
    description: str
    path: str
    method: str
    parameters: tuple[Parameter, ...]
    body: Body | None
    inputSchema: dict[str, Any]

    def encode(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def decode(cls, fields: Mapping[str, Any]) -> "Operation":
        parameters = tuple(Parameter(**parameter) for parameter in fields["parameters"])
        body = None if fields["body"] is None else Body(**fields["body"])
        return cls(**{**fields, "parameters": parameters, "body": body})


@dataclass(frozen=True, slots=True)
class Tool:
    """A function or an API operation of an action group, as the model is offered it and as the gateway calls it.

    A tool of the memory action group has no function: the gateway carries it out itself (`memory/memory_tools.py`).
    `input_schema` is the JSON Schema of the arguments. `parameters` are those that the event has as parameters, in the
    order of the definition; an operation's request body is told by `operation`, which a function does not have.
    """

    name: str
    description: str
    action_group: str
    function_arn: str
    input_schema: dict[str, Any]
    parameters: tuple[Parameter, ...]
    policy: ToolPolicy
    operation: Operation | None = None
    is_memory: bool = False


@dataclass(frozen=True, slots=True)
class Agent:
    """One version of an agent. `models` are tried in order."""

    agent_id: str
    version: str
    name: str
    instruction: str
    models: tuple[str, ...]
    inference: Inference
    tools: tuple[Tool, ...]
    limits: Limits
    history: HistoryWindow
    memory: MemoryConfiguration

    @property
    def memory_store(self) -> str:
        """The store that the agent's sessions and records are in."""
        return self.memory.store

    @property
    def storage_days(self) -> int:
        """How long a session is kept after its last turn."""
        return self.memory.storage_days

    def tool(self, name: str) -> Tool | None:
        """The tool that the model calls `name`, or None if the agent has none of that name."""
        return next((tool for tool in self.tools if tool.name == name), None)


def parse(definition: Mapping[str, Any], version: str) -> Agent:
    """The agent that a definition describes. Disabled action groups offer no tools. Raises UnknownSchemaVersion."""
    return Agent(
        agent_id=definition["agentId"],
        version=version,
        name=definition["agentName"],
        instruction=definition["instruction"],
        models=tuple(definition["foundationModels"]),
        inference=_inference(definition.get("inferenceConfiguration", {})),
        tools=tuple(_tools(definition, version)),
        limits=_limits(definition.get("limits", {})),
        history=_history(definition.get("memoryConfiguration", {}).get("history", {})),
        memory=memory_defaults.configuration(definition),
    )


def _inference(configuration: Mapping[str, Any]) -> Inference:
    maximum_length = configuration.get("maximumLength")
    stop_sequences = configuration.get("stopSequences")
    return Inference(
        temperature=configuration.get("temperature"),
        top_p=configuration.get("topP"),
        max_tokens=None if maximum_length is None else int(maximum_length),
        stop_sequences=None if stop_sequences is None else tuple(stop_sequences),
    )


def _limits(limits: Mapping[str, Any]) -> Limits:
    default = Limits()
    return Limits(
        max_steps=int(limits.get("maxSteps", default.max_steps)),
        max_parallel_tools=int(limits.get("maxParallelTools", default.max_parallel_tools)),
        model_timeout_seconds=int(limits.get("modelTimeoutSeconds", default.model_timeout_seconds)),
    )


def _history(history: Mapping[str, Any]) -> HistoryWindow:
    default = HistoryWindow()
    return HistoryWindow(
        max_turns=int(history.get("maxTurns", default.max_turns)),
        max_characters=int(history.get("maxCharacters", default.max_characters)),
    )


def _tools(definition: Mapping[str, Any], version: str) -> Iterator[Tool]:
    agent_wide = definition.get("actionGroupExecutionConfig", {})
    for group in definition.get("actionGroups", ()):
        if group.get("actionGroupState", "ENABLED") == "DISABLED":
            continue
        policy = tool_policy(agent_wide, group.get("actionGroupExecutionConfig", {}))
        if "parentActionGroupSignature" in group:
            memory = memory_defaults.configuration(definition)
            yield from (_memory_tool(tool, group, policy) for tool in memory_tools(memory, definition["agentId"]))
        elif "apiSchema" in group:
            if "operations" not in group["apiSchema"]:
                raise UnknownSchemaVersion(
                    f"version {version} of agent '{definition['agentId']}' has an OpenAPI document in the action group "
                    f"'{group['actionGroupName']}', this release reads operations; publish the agent again"
                )
            operations = map(Operation.decode, group["apiSchema"]["operations"])
            yield from (_api_tool(operation, group, policy) for operation in operations)
        else:
            yield from (_tool(function, group, policy) for function in group["functionSchema"]["functions"])


def _api_tool(operation: Operation, group: Mapping[str, Any], policy: ToolPolicy) -> Tool:
    return Tool(
        name=operation.name,
        description=operation.description or group.get("description") or operation.name,
        action_group=group["actionGroupName"],
        function_arn=group["actionGroupExecutor"]["lambda"],
        input_schema=operation.inputSchema,
        parameters=operation.parameters,
        policy=policy,
        operation=operation,
    )


def _memory_tool(tool: MemoryTool, group: Mapping[str, Any], policy: ToolPolicy) -> Tool:
    properties: Mapping[str, Mapping[str, Any]] = tool.input_schema["properties"]
    required = tool.input_schema["required"]
    return Tool(
        name=tool.name,
        description=tool.description,
        action_group=group["actionGroupName"],
        function_arn="",
        input_schema=tool.input_schema,
        parameters=tuple(Parameter(name, field["type"], name in required) for name, field in properties.items()),
        policy=policy,
        is_memory=True,
    )


def _tool(function: Mapping[str, Any], group: Mapping[str, Any], policy: ToolPolicy) -> Tool:
    parameters: Mapping[str, Mapping[str, Any]] = function.get("parameters", {})
    return Tool(
        name=function["name"],
        # Converse refuses an empty description, and a model chooses badly without any.
        description=function.get("description") or group.get("description") or function["name"],
        action_group=group["actionGroupName"],
        function_arn=group["actionGroupExecutor"]["lambda"],
        input_schema=_input_schema(parameters),
        parameters=tuple(
            Parameter(name, parameter["type"], parameter.get("required", False))
            for name, parameter in parameters.items()
        ),
        policy=policy,
    )


def _input_schema(parameters: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: _property(parameter) for name, parameter in parameters.items()},
        "required": [name for name, parameter in parameters.items() if parameter.get("required", False)],
        "additionalProperties": False,
    }


def _property(parameter: Mapping[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": parameter["type"]}
    if parameter["type"] == "array":
        # Bedrock's array says nothing about its entries, and some models refuse an array without `items`.
        schema["items"] = {}
    if "description" in parameter:
        schema["description"] = parameter["description"]
    return schema
