"""Which events a ListEvents wants: those of a branch, and those whose metadata say something."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from turnwright.api.agentcore.refusals import invalid

_MAIN = "main"


@dataclass(frozen=True, slots=True)
class Lineage:
    """A branch, "" for the main one, up to an event; "" for all of it."""

    branch: str
    bound: str


@dataclass(frozen=True, slots=True)
class EventFilter:
    """`branches` None is every branch. `conditions` are ListEvents' expressions, all of which have to hold."""

    branches: Sequence[Lineage] | None
    conditions: Sequence[Mapping[str, Any]] = ()

    @property
    def everything(self) -> bool:
        return self.branches is None and not self.conditions

    def holds(self, event_id: str, branch: str, metadata: Mapping[str, Any]) -> bool:
        in_branch = self.branches is None or any(
            branch == part.branch and (not part.bound or event_id <= part.bound) for part in self.branches
        )
        return in_branch and all(_holds(condition, metadata) for condition in self.conditions)


def read_filter(filter_: Mapping[str, Any] | None, lineage: Callable[[str], Iterator[Lineage]]) -> EventFilter:
    """The filter of a request; `lineage` tells a branch and its parents. Raises Invalid."""
    given = filter_ or {}
    conditions = given.get("eventMetadata", [])
    for index, condition in enumerate(conditions):
        has_value = condition.get("right") is not None
        if has_value != (condition["operator"] == "EQUALS_TO"):
            rule = "is missing" if not has_value else f"is given, but {condition['operator']} takes none"
            raise invalid(f"filter.eventMetadata[{index}].right", rule)
    branch = given.get("branch")
    if branch is None:
        return EventFilter(None, conditions)
    name = "" if branch["name"] == _MAIN else branch["name"]
    if name and branch.get("includeParentBranches"):
        return EventFilter(tuple(lineage(name)), conditions)
    return EventFilter((Lineage(name, ""),), conditions)


def _holds(condition: Mapping[str, Any], metadata: Mapping[str, Any]) -> bool:
    value = metadata.get(condition["left"]["metadataKey"])
    match condition["operator"]:
        case "EXISTS":
            return value is not None
        case "NOT_EXISTS":
            return value is None
        case _:
            return bool(value is not None and value == condition["right"]["metadataValue"])
