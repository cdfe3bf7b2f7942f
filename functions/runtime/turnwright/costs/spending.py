"""What a turn has cost so far, as it travels through the states.

Each function of a state measures its own invocation (`Cost`) and answers it with its result. Load Memory and Invoke
Model answer the sum of all up to them (`Spent`), which travels as the state machine's variable `spent`. A tool call's
entry in `toolResults` brings the costs of its attempts, which the next Invoke Model adds. An attempt that failed
without a word (a crash, a time-out, an error that the state's own Retry hides) has no cost that anyone knows: it is
counted in `unknown`, never estimated.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

LOAD_MEMORY, INVOKE_MODEL, INVOKE_TOOL, WRITE_MEMORY = "LoadMemory", "InvokeModel", "InvokeTool", "WriteMemory"
"""The functions of a turn's states."""

_METERED = ("cost", "costs", "attempts", "entered", "lost", "retries")
"""What an entry of `toolResults` has beside the tool's result."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What invocations of one function cost: milliseconds in its handler, and what DynamoDB reported."""

    invocations: int = 1
    ms: int = 0
    memory_mb: int = 0
    read_units: float = 0.0
    write_units: float = 0.0
    item_writes: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.invocations + other.invocations,
            self.ms + other.ms,
            max(self.memory_mb, other.memory_mb),
            self.read_units + other.read_units,
            self.write_units + other.write_units,
            self.item_writes + other.item_writes,
        )

    def encode(self) -> dict[str, Any]:
        return {
            "invocations": self.invocations,
            "ms": self.ms,
            "memoryMb": self.memory_mb,
            "readUnits": whole(self.read_units),
            "writeUnits": whole(self.write_units),
            "itemWrites": self.item_writes,
        }

    @classmethod
    def decode(cls, fields: Mapping[str, Any]) -> "Cost":
        return cls(
            int(fields["invocations"]),
            int(fields["ms"]),
            int(fields["memoryMb"]),
            float(fields["readUnits"]),
            float(fields["writeUnits"]),
            int(fields["itemWrites"]),
        )


@dataclass(frozen=True, slots=True)
class Spent:
    """The sum of what is known, by function, and how many invocations of each are not in it. `retries` are those of
    states, `model_attempts` and `tool_attempts` the calls that were tried.
    """

    functions: Mapping[str, Cost] = field(default_factory=dict)
    unknown: Mapping[str, int] = field(default_factory=dict)
    retries: int = 0
    model_attempts: int = 0
    tool_attempts: int = 0

    def plus(self, function: str, cost: Cost) -> "Spent":
        known = self.functions.get(function)
        return replace(self, functions={**self.functions, function: known + cost if known else cost})

    def missing(self, function: str, invocations: int, *, retries: int = 0) -> "Spent":
        """So many invocations of the function cost something unknown; so many of them were followed by a Retry."""
        unknown = Counter(self.unknown)
        unknown[function] += invocations
        return replace(self, unknown=dict(+unknown), retries=self.retries + retries)

    def attempted(self, *, models: int = 0, tools: int = 0) -> "Spent":
        return replace(self, model_attempts=self.model_attempts + models, tool_attempts=self.tool_attempts + tools)

    @property
    def total(self) -> Cost:
        return sum(self.functions.values(), Cost(invocations=0))

    def encode(self) -> dict[str, Any]:
        """Short: it travels in state."""
        return {
            "functions": {name: cost.encode() for name, cost in self.functions.items()},
            "unknown": dict(self.unknown),
            "retries": self.retries,
            "modelAttempts": self.model_attempts,
            "toolAttempts": self.tool_attempts,
        }

    @classmethod
    def decode(cls, fields: Mapping[str, Any] | None) -> "Spent":
        """None for what an execution sends whose definition is older than receipts."""
        if fields is None:
            return cls()
        return cls(
            {name: Cost.decode(cost) for name, cost in fields["functions"].items()},
            {name: int(count) for name, count in fields["unknown"].items()},
            int(fields["retries"]),
            int(fields["modelAttempts"]),
            int(fields["toolAttempts"]),
        )


def without_costs(entries: Iterable[Mapping[str, Any]]) -> tuple[dict[str, Any], ...]:
    """The tool results among the entries of `toolResults`, as the model and the journal get them."""
    return tuple({name: value for name, value in entry.items() if name not in _METERED} for entry in entries)


def tools_spent(spent: Spent, entries: Iterable[Mapping[str, Any]]) -> Spent:
    """With what the entries of `toolResults` say that the attempts of their calls cost."""
    for entry in entries:
        for cost in _listed(entry.get("costs")):
            spent = spent.plus(INVOKE_TOOL, Cost.decode(cost))
        if "cost" in entry:
            spent = spent.plus(INVOKE_TOOL, Cost.decode(entry["cost"]))
        retries = int(entry.get("retries", 0))
        spent = spent.missing(INVOKE_TOOL, int(entry.get("lost", 0)) + retries, retries=retries)
        spent = spent.attempted(tools=int(entry.get("attempts", 0)))
    return spent


def _listed(value: Any) -> Sequence[Any]:
    """JSONata may make one element of a list of one."""
    return [] if value is None else value if isinstance(value, list) else [value]


def whole(units: float) -> int | float:
    """Units as they are told: half a unit is one, but a whole one has no fraction."""
    return int(units) if float(units).is_integer() else units
