"""What a turn is made of, as it is stored and as it travels through the states. Pure: adapters are beside it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from turnwright.storage.keys import NO_ACTOR, SessionId

JOURNAL_DAYS = 30
"""How long a turn's header and journal live. Step Functions can redrive an execution for 14 days."""


MOST_CALLS = 64
"""So many of the calls that a reply asks for are made. State carries an entry for each, with its result or a reference
and what up to ten attempts cost, and all of them have to fit into the 256 KiB of Step Functions.
"""


class Status(StrEnum):
    RUNNING = "RUNNING"
    COMMITTED = "COMMITTED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Turn:
    """What every state needs to know of its turn. It travels as the state machine's variable `turn`; all of it is
    short.
    """

    turnId: str
    agentId: str
    agentAliasId: str
    agentVersion: str
    memoryStore: str
    actor: str
    sessionId: str
    sessionVersion: int
    historyFrom: str
    historyTo: str
    trace: bool

    @property
    def session(self) -> SessionId:
        return SessionId(self.memoryStore, self.actor, self.sessionId)

    @property
    def log_fields(self) -> dict[str, str]:
        """Which lines of the log are the turn's."""
        return {"turnId": self.turnId}

    def encode(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def decode(cls, fields: Mapping[str, Any]) -> "Turn":
        return cls(**{name: fields[name] for name in cls.__dataclass_fields__})


@dataclass(frozen=True, slots=True)
class Header:
    """A turn's item, as far as it was read. `request` and `answer` are stowed documents (`documents.py`)."""

    status: Status
    fields: Mapping[str, Any]

    @property
    def request(self) -> dict[str, Any]:
        return self._document("request")

    @property
    def injected(self) -> dict[str, Any] | None:
        """What the turn's model calls are shown of memory, a stowed text; None for nothing."""
        return self._document("injected") if "injected" in self.fields else None

    @property
    def answer(self) -> dict[str, Any]:
        return self._document("answer")

    @property
    def usage(self) -> dict[str, int]:
        return self._document("usage")

    @property
    def failure(self) -> dict[str, Any]:
        """`{"error", "cause", "state"?}` of a FAILED turn."""
        return self._document("failure")

    @property
    def receipt(self) -> dict[str, Any] | None:
        """What the turn cost, as `receipts.receipt` has it; None while it runs, and if it never began."""
        return self._document("receipt") if "receipt" in self.fields else None

    @property
    def caller(self) -> str:
        """Who asked for the turn; "" where the API does not know its callers."""
        return str(self.fields.get("caller", ""))

    @property
    def session_attributes(self) -> dict[str, str]:
        return self._document("sessionAttributes")

    @property
    def event_id(self) -> str:
        return str(self.fields["eventId"])

    @property
    def turn(self) -> Turn:
        return Turn.decode(self.fields)

    def _document(self, name: str) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.fields[name])
        return value

    @classmethod
    def decode(cls, item: Mapping[str, Any]) -> "Header":
        return cls(Status(item["status"]), item)


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """The execution's input. `body` is a stowed document (`documents.py`) of the caller's texts, see `Body`."""

    turn_id: str
    agent_id: str
    agent_alias_id: str
    session_id: str
    memory_id: str | None
    caller: str
    trace: bool
    body: Mapping[str, Any]

    @property
    def actor(self) -> str:
        return self.memory_id or NO_ACTOR

    def encode(self) -> dict[str, Any]:
        return {
            "turnId": self.turn_id,
            "agentId": self.agent_id,
            "agentAliasId": self.agent_alias_id,
            "sessionId": self.session_id,
            "memoryId": self.memory_id,
            "caller": self.caller,
            "enableTrace": self.trace,
            "request": self.body,
        }

    @classmethod
    def decode(cls, fields: Mapping[str, Any]) -> "TurnRequest":
        return cls(
            turn_id=fields["turnId"],
            agent_id=fields["agentId"],
            agent_alias_id=fields["agentAliasId"],
            session_id=fields["sessionId"],
            memory_id=fields["memoryId"],
            caller=fields["caller"],
            trace=fields["enableTrace"],
            body=fields["request"],
        )

    def session(self, store: str) -> SessionId:
        return SessionId(store, self.actor, self.session_id)


ToolResult = Mapping[str, Any]
"""`{"toolUseId", "status": "success" | "error", "result": stowed {"text", "sessionAttributes"?, ...}}`, as it travels
in state.
"""


@dataclass(frozen=True, slots=True)
class Step:
    """One model call: `tool_results` went in, `message` (Converse's form) came out. `attempt` and `redrive` tell which
    call of the step it was. `left_out` names what the model was not asked though the agent has it, and `repeats` counts
    the requests of this call that it refused before.
    """

    number: int
    tool_results: Sequence[ToolResult]
    message: Mapping[str, Any]
    stop_reason: str
    model: str
    usage: Mapping[str, int]
    latency_ms: int
    attempt: int = 1
    redrive: int = 0
    left_out: tuple[str, ...] = ()
    repeats: int = 0

    def tool_uses(self) -> list[Mapping[str, Any]]:
        """The `toolUse` blocks of the message, in order."""
        return [block["toolUse"] for block in self.message["content"] if "toolUse" in block]

    def text(self) -> str:
        return "".join(block["text"] for block in self.message["content"] if "text" in block)


@dataclass(frozen=True, slots=True)
class PaidCall:
    """A model's answer that the journal has, which is what was paid for, and what its request lacked."""

    model: str
    usage: Mapping[str, int]
    left_out: tuple[str, ...] = ()
