"""What a caller asks of a turn: InvokeAgent's input, checked.

Source of the shapes: `InvokeAgentRequest` in botocore's service model of `bedrock-agent-runtime`. botocore checks
neither patterns nor most lengths, so every rule is checked here. A field that is not supported is refused, never
ignored.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from turnwright.api.request_bodies import json_bytes, json_object
from turnwright.errors import InvalidRequest
from turnwright.sessions.attributes import ATTRIBUTES_BYTES, size
from turnwright.storage.keys import NO_ACTOR, SessionId

INPUT_BYTES = 1024 * 1024
"""The longest inputText, in bytes of UTF-8."""

REQUEST_BYTES = 2 * INPUT_BYTES
"""The longest sessionState, in bytes of its JSON."""

_AGENT_ID = re.compile(r"[0-9a-zA-Z_-]{1,100}")
_SESSION_ID = re.compile(r"[0-9a-zA-Z._:-]{2,100}")


@dataclass(frozen=True, slots=True)
class Invocation:
    """A checked InvokeAgent request. `invocation_id` is the SDK's own, the same in each of its retries."""

    agent_id: str
    agent_alias_id: str
    session_id: str
    memory_id: str | None
    invocation_id: str
    caller: str
    enable_trace: bool = False
    end_session: bool = False
    body: Mapping[str, Any] = field(default_factory=dict)

    @property
    def turn_id(self) -> str:
        """32 hexadecimal digits, the same for a repeat of this request by this caller and for nothing else."""
        identity = [
            self.caller,
            self.invocation_id,
            self.agent_id,
            self.agent_alias_id,
            self.session_id,
            self.memory_id,
            self.enable_trace,
            self.body,
        ]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]

    def session(self, store: str) -> SessionId:
        return SessionId(store, self.memory_id or NO_ACTOR, self.session_id)


def read_invocation(path: Mapping[str, str], raw_body: bytes, *, invocation_id: str, caller: str) -> Invocation:
    """Checks a request. Raises InvalidRequest naming the field and the rule.

    `path` has the parameters as they came or decoded: SDKs send the colon of a sessionId as %3A.
    """
    fields = json_object(raw_body)
    checked = _Checked(fields)
    agent_id, alias_id = agent_path(path)
    memory_id = checked.text("memoryId")
    invocation = Invocation(
        agent_id=agent_id,
        agent_alias_id=alias_id,
        session_id=_matching("sessionId", unquote(path["sessionId"]), _SESSION_ID),
        memory_id=None if memory_id is None else _matching("memoryId", memory_id, _SESSION_ID),
        invocation_id=invocation_id,
        caller=caller,
        enable_trace=checked.boolean("enableTrace"),
        end_session=checked.boolean("endSession"),
        body=_body(checked),
    )
    checked.refuse_others()
    if not invocation.end_session:
        _check_input_text(invocation.body["inputText"])
    return invocation


def agent_path(path: Mapping[str, str]) -> tuple[str, str]:
    """The agentId and agentAliasId of a request's path. Raises InvalidRequest."""
    return (
        _matching("agentId", unquote(path["agentId"]), _AGENT_ID),
        _matching("agentAliasId", unquote(path["agentAliasId"]), _AGENT_ID),
    )


def caller_name(field_name: str, value: str) -> str:
    """A sessionId or memoryId, if it keeps the rule for those. Raises InvalidRequest."""
    return _matching(field_name, value, _SESSION_ID)


def read_turn_request(raw_body: bytes, *, invocation_id: str, caller: str) -> Invocation:
    """Checks the body of `POST /turns`: InvokeAgent's fields, those of its path among them. Raises InvalidRequest."""
    fields = json_object(raw_body)
    if fields.pop("endSession", None):
        raise InvalidRequest("endSession", "is not taken here, since it runs no turn; use InvokeAgent")
    path = {}
    for name in ("agentId", "agentAliasId", "sessionId"):
        value = fields.pop(name, None)
        if not isinstance(value, str) or "%" in value:
            raise InvalidRequest(name, "is missing, or is not an id")
        path[name] = value
    return read_invocation(path, json.dumps(fields).encode(), invocation_id=invocation_id, caller=caller)


def _body(checked: "_Checked") -> dict[str, Any]:
    body: dict[str, Any] = {"inputText": checked.text("inputText") or ""}
    state = checked.mapping("sessionState")
    if state is not None:
        if json_bytes(state) > REQUEST_BYTES:
            raise InvalidRequest("sessionState", f"is longer than {REQUEST_BYTES} bytes of JSON")
        body |= _session_state(state)
    streaming = checked.mapping("streamingConfigurations")
    if streaming is not None:
        _streaming(streaming)
    prompt = checked.mapping("promptCreationConfigurations")
    if prompt is not None:
        body |= _prompt_creation(prompt)
    models = checked.mapping("bedrockModelConfigurations")
    if models is not None:
        _model_configurations(models)
    return body


def _session_state(state: Mapping[str, Any]) -> dict[str, Any]:
    checked = _Checked(state, "sessionState.")
    body: dict[str, Any] = {}
    for name in ("sessionAttributes", "promptSessionAttributes"):
        attributes = checked.mapping(name)
        if attributes is not None:
            body[name] = _attributes(f"sessionState.{name}", attributes)
    history = checked.mapping("conversationHistory")
    if history is not None:
        body["conversationHistory"] = _conversation(history)
    for name in ("files", "knowledgeBaseConfigurations", "returnControlInvocationResults"):
        checked.nothing_in(name)
    checked.refuse_others()
    return body


def _attributes(name: str, attributes: Mapping[str, Any]) -> dict[str, str]:
    for key, value in attributes.items():
        if not isinstance(value, str):
            raise InvalidRequest(f"{name}.{key}", "is not a string")
    if size(attributes) > ATTRIBUTES_BYTES:
        raise InvalidRequest(name, f"has {size(attributes)} bytes of JSON; at most {ATTRIBUTES_BYTES} are taken")
    return dict(attributes)


def _conversation(history: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The messages in Converse's form."""
    checked = _Checked(history, "sessionState.conversationHistory.")
    place = "sessionState.conversationHistory.messages"
    messages = checked.listing("messages")
    checked.refuse_others()
    read = [_message(f"{place}[{index}]", message) for index, message in enumerate(messages)]
    if read and read[0]["role"] != "user":
        raise InvalidRequest(f"{place}[0].role", "is not user; a conversation begins with the user")
    return read


def _message(place: str, message: Any) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise InvalidRequest(place, "is not an object")
    checked = _Checked(message, f"{place}.")
    role, content = checked.text("role"), checked.listing("content")
    checked.refuse_others()
    if role not in ("user", "assistant"):
        raise InvalidRequest(f"{place}.role", "is neither user nor assistant")
    if not content:
        raise InvalidRequest(f"{place}.content", "is not a list of at least one text block")
    for index, block in enumerate(content):
        text = block.get("text") if isinstance(block, dict) else None
        if not isinstance(text, str) or not text.strip() or len(block) != 1:
            raise InvalidRequest(f"{place}.content[{index}]", "is not a text block with a text that is not blank")
    return {"role": role, "content": content}


def _streaming(streaming: Mapping[str, Any]) -> None:
    """Without streamFinalResponse the answer comes as a whole, which is what this runtime sends. The interval is one of
    guardrails, which no agent has here.
    """
    checked = _Checked(streaming, "streamingConfigurations.")
    checked.integer("applyGuardrailInterval", least=1)
    if checked.boolean("streamFinalResponse"):
        raise InvalidRequest(
            "streamingConfigurations.streamFinalResponse",
            "true is not supported; the answer comes when it is whole",
        )
    checked.refuse_others()


def _prompt_creation(prompt: Mapping[str, Any]) -> dict[str, Any]:
    """Thoughts of earlier turns are never shown, so that nothing is left to do about them."""
    checked = _Checked(prompt, "promptCreationConfigurations.")
    checked.boolean("excludePreviousThinkingSteps")
    name = "previousConversationTurnsToInclude"
    turns = checked.integer(name, least=0)
    checked.refuse_others()
    return {} if turns is None else {name: turns}


def _model_configurations(models: Mapping[str, Any]) -> None:
    """A latency of `standard` is that of all models here."""
    checked = _Checked(models, "bedrockModelConfigurations.")
    performance = _Checked(checked.mapping("performanceConfig") or {}, "bedrockModelConfigurations.performanceConfig.")
    if performance.text("latency") not in (None, "standard"):
        raise InvalidRequest(
            "bedrockModelConfigurations.performanceConfig.latency", "can only be standard; models are not optimized"
        )
    performance.refuse_others()
    checked.refuse_others()


def _check_input_text(text: str) -> None:
    if not text.strip():
        raise InvalidRequest("inputText", "is empty; a turn needs an input")
    size = len(text.encode())
    if size > INPUT_BYTES:
        raise InvalidRequest("inputText", f"has {size} bytes; at most {INPUT_BYTES} are taken")


def _matching(name: str, value: str, pattern: re.Pattern[str]) -> str:
    if not pattern.fullmatch(value):
        raise InvalidRequest(name, f"does not match ^{pattern.pattern}$")
    return value


class _Checked:
    """Reads named fields of an object, and then refuses the ones that nobody read."""

    def __init__(self, fields: Mapping[str, Any], place: str = "") -> None:
        self._fields = fields
        self._place = place
        self._read: set[str] = set()

    def text(self, name: str) -> str | None:
        value = self._take(name)
        if value is not None and not isinstance(value, str):
            raise InvalidRequest(self._place + name, "is not a string")
        return value

    def boolean(self, name: str) -> bool:
        value = self._take(name)
        if value is not None and not isinstance(value, bool):
            raise InvalidRequest(self._place + name, "is not a boolean")
        return bool(value)

    def integer(self, name: str, *, least: int) -> int | None:
        value = self._take(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise InvalidRequest(self._place + name, f"is not a whole number from {least} on")
        return value

    def nothing_in(self, name: str) -> None:
        """A list that is not supported; without an entry it asks for nothing."""
        if self.listing(name):
            self._read.discard(name)

    def mapping(self, name: str) -> Mapping[str, Any] | None:
        value = self._take(name)
        if value is not None and not isinstance(value, dict):
            raise InvalidRequest(self._place + name, "is not an object")
        return value

    def listing(self, name: str) -> list[Any]:
        value = self._take(name)
        if value is not None and not isinstance(value, list):
            raise InvalidRequest(self._place + name, "is not a list")
        return value or []

    def refuse_others(self) -> None:
        for name, value in self._fields.items():
            if name not in self._read and value is not None:
                raise InvalidRequest(self._place + (name or '""'), "is not a field that this runtime supports")

    def _take(self, name: str) -> Any:
        self._read.add(name)
        return self._fields.get(name)
