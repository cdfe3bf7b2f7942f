"""CloudFormation's intrinsic functions, as far as they can be computed from what is known.

`Resolver.resolve` replaces what it can and leaves the rest as it is, so that one pass settles parameters and
conditions before anything exists, and a second one the references to resources when their ids are known.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

NO_VALUE: Final = {"Ref": "AWS::NoValue"}

_VARIABLE = re.compile(r"\$\{(!?)([^}]+)\}")


class CannotResolve(Exception):
    """An intrinsic function that is not known, or is used in a way that CloudFormation does not allow."""


@dataclass(frozen=True, slots=True)
class Resolver:
    """What is known. `values` holds parameters and pseudo parameters (`AWS::Region`) by name.

    `attributes` holds resources: `Table` is what `!Ref Table` gives, `Table.Arn` what `!GetAtt Table.Arn`
    gives.
    """

    values: Mapping[str, Any]
    conditions: Mapping[str, Any] = field(default_factory=dict)
    mappings: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def resolve(self, value: Any) -> Any:
        """A copy of `value` with every intrinsic function that can be computed replaced by its result.

        Raises CannotResolve for a function that is not known.
        """
        if isinstance(value, list):
            items = [self.resolve(item) for item in value]
            return [item for item in items if item != NO_VALUE]
        if not isinstance(value, Mapping):
            return value
        name = _intrinsic(value)
        if name is not None:
            return self._compute(name, value[name])
        resolved = {key: self.resolve(item) for key, item in value.items()}
        return {key: item for key, item in resolved.items() if item != NO_VALUE}

    def holds(self, condition: str) -> bool:
        """Whether the condition of that name is true. Raises CannotResolve if there is none."""
        if condition not in self.conditions:
            raise CannotResolve(f"there is no condition {condition}")
        return self._truth(self.conditions[condition])

    def _compute(self, name: str, argument: Any) -> Any:
        match name:
            case "Ref":
                return self._reference(str(argument), {name: argument})
            case "Fn::GetAtt":
                path = argument if isinstance(argument, str) else ".".join(map(str, argument))
                return self.attributes.get(path, {name: argument})
            case "Fn::If":
                condition, then, otherwise = argument
                return self.resolve(then if self.holds(condition) else otherwise)
            case "Fn::Sub":
                return self._substitute(argument)
            case "Fn::Join":
                separator, parts = argument[0], self.resolve(argument[1])
                if isinstance(parts, list) and not any(isinstance(part, Mapping) for part in parts):
                    return separator.join(str(part) for part in parts)
                return {name: [separator, parts]}
            case "Fn::Split":
                separator, text = argument[0], self.resolve(argument[1])
                return text.split(separator) if isinstance(text, str) else {name: [separator, text]}
            case "Fn::Select":
                index, items = self.resolve(argument[0]), self.resolve(argument[1])
                return items[int(index)] if isinstance(items, list) else {name: [index, items]}
            case "Fn::FindInMap":
                first, second, third = (self.resolve(part) for part in argument)
                return self.mappings[first][second][third]
            case "Fn::Equals" | "Fn::And" | "Fn::Or" | "Fn::Not" | "Condition":
                return self._truth({name: argument})
            case _:
                raise CannotResolve(f"the offline stack does not know the intrinsic function {name}")

    def _reference(self, name: str, unresolved: Any) -> Any:
        if name in self.values:
            return self.values[name]
        return self.attributes.get(name, unresolved)

    def _substitute(self, argument: Any) -> Any:
        """Puts in what is known. What is left stays a Fn::Sub with the variables that it still needs."""
        text, given = (argument, {}) if isinstance(argument, str) else (argument[0], self.resolve(argument[1]))
        pending: dict[str, Any] = {}
        unresolved = False

        def replacement(match: re.Match[str]) -> str:
            nonlocal unresolved
            literal, name = match[1], match[2].strip()
            if literal:
                return match[0]
            if name in given:
                found = given[name]
            elif name in self.values:
                found = self.values[name]
            else:
                found = self.attributes.get(name, NO_VALUE)
            if isinstance(found, Mapping):
                unresolved = True
                if name in given:
                    pending[name] = found
                return match[0]
            return str(found)

        result = _VARIABLE.sub(replacement, text)
        if not unresolved:
            return result.replace("${!", "${")
        return {"Fn::Sub": [result, pending] if pending else result}

    def _truth(self, value: Any) -> bool:
        name = _intrinsic(value)
        match name:
            case "Condition":
                return self.holds(value[name])
            case "Fn::Equals":
                left, right = (self.resolve(side) for side in value[name])
                return str(left) == str(right)
            case "Fn::Not":
                return not self._truth(value[name][0])
            case "Fn::And":
                return all(self._truth(part) for part in value[name])
            case "Fn::Or":
                return any(self._truth(part) for part in value[name])
            case _:
                raise CannotResolve(f"{value} is not a condition")


def references(value: Any) -> Iterator[str]:
    """Everything that `value` refers to: `Table` for a Ref, `Table.Arn` for a GetAtt, both for a Sub."""
    if isinstance(value, list):
        for item in value:
            yield from references(item)
        return
    if not isinstance(value, Mapping):
        return
    name = _intrinsic(value)
    argument: Any = value[name] if name is not None else None
    if name == "Ref":
        yield str(argument)
    elif name == "Fn::GetAtt":
        yield argument if isinstance(argument, str) else ".".join(map(str, argument))
    elif name == "Fn::Sub":
        text, given = (argument, {}) if isinstance(argument, str) else argument
        yield from (match[2].strip() for match in _VARIABLE.finditer(text) if not match[1] and match[2] not in given)
        yield from references(given)
    else:
        for item in value.values():
            yield from references(item)


Place = tuple[str | int, ...]

_OF_A_RESOURCE = 2
"""Keys down to a resource or an output. A Condition further inside may be anything, such as a state machine's own."""


def placed_names(value: Any, place: Place) -> Iterator[tuple[Place, Literal["reference", "condition"], str]]:
    """What `references` yields and the names of conditions, each with where it stands in a template."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from placed_names(item, (*place, index))
        return
    if not isinstance(value, Mapping):
        return
    name = _intrinsic(value)
    if name in ("Ref", "Fn::GetAtt", "Fn::Sub"):
        yield from ((place, "reference", reference) for reference in references(value))
        return
    if name == "Fn::If" and isinstance(value[name], list) and value[name]:
        yield place, "condition", str(value[name][0])
    for key, item in value.items():
        if key == "Condition" and isinstance(item, str) and (name == "Condition" or len(place) == _OF_A_RESOURCE):
            yield (*place, key), "condition", item
        yield from placed_names(item, (*place, key))


def _intrinsic(value: Any) -> str | None:
    """The name of the function if `value` is the call of one: a mapping with one key, `Ref`, `Condition` or
    `Fn::...`.
    """
    if not isinstance(value, Mapping) or len(value) != 1:
        return None
    name = next(iter(value))
    if not isinstance(name, str):
        return None
    if name == "Condition":
        return name if isinstance(value[name], str) else None
    return name if name == "Ref" or name.startswith("Fn::") else None
