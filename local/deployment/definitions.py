"""Checks state machine definitions before Step Functions would.

`sam validate` does not open a definition, and what it would find there leaves out JSONata, substitutions and this
project's rules. `make check` runs this by way of `local.deployment.check`.
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from local.deployment.sam_yaml import DEFINITION_OF, Template, lines

Place = tuple[str | int, ...]

_STATE_NAME = re.compile(r"[A-Z][A-Za-z0-9]*( [A-Z0-9][A-Za-z0-9]*)*\??")
_SUBSTITUTION = re.compile(r"\$\{([^}]*)\}")
_LITERAL_ARN = re.compile(r"arn:(?!aws:states:::)[a-z-]+:")
_KEY_ORDER = (
    "Type",
    "Comment",
    "Resource",
    "Arguments",
    "TimeoutSeconds",
    "Retry",
    "Catch",
    "Assign",
    "Output",
    "Next",
)
_VERSION = "definitionVersion"
_NUMBERS_THAT_MAY_BE_JSONATA = ("TimeoutSeconds", "HeartbeatSeconds", "MaxConcurrency")
_WITHOUT_NEXT = ("Choice", "Succeed", "Fail")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong. `place` is the keys from the outside in, as "Run Tools / Invoke Tool / Next"."""

    file: str
    line: int | None
    place: str
    rule: str

    def __str__(self) -> str:
        position = f"{self.file}:{self.line}" if self.line else self.file
        return f"{position}: {self.place}: {self.rule}" if self.place else f"{position}: {self.rule}"


class Definition:
    """A definition as it stands in its file, before substitution."""

    def __init__(self, file: str | Path, text: str) -> None:
        """Raises DefinitionError where `text` is not one JSON object, or a key stands twice in an object."""
        self.file = str(file)
        try:
            document = json.loads(text)
        except json.JSONDecodeError as error:
            rule = f"is not valid JSON: {error.msg} (column {error.colno})"
            raise DefinitionError(Problem(self.file, error.lineno, "", rule)) from error
        if not isinstance(document, dict):
            raise DefinitionError(Problem(self.file, 1, "", "is not a JSON object"))
        self.document: dict[str, Any] = document
        self._lines: dict[Place, int] = {}
        for place, line in lines(yaml.compose(text, yaml.CSafeLoader)):
            if place in self._lines:
                rule = f"the key stands in line {self._lines[place]} too"
                raise DefinitionError(Problem(self.file, line, _spell(place), rule))
            self._lines[place] = line

    @classmethod
    def read(cls, path: str | Path) -> "Definition":
        """The definition at `path`. Raises DefinitionError where it cannot be read or parsed."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            problem = Problem(str(path), None, "", f"cannot be read: {error.strerror}")
            raise DefinitionError(problem) from error
        except UnicodeDecodeError as error:
            problem = Problem(str(path), None, "", f"is not UTF-8 at byte {error.start}")
            raise DefinitionError(problem) from error
        return cls(path, text)

    def problem(self, place: Place, rule: str) -> Problem:
        while place and place not in self._lines:
            place = place[:-1]
        return Problem(self.file, self._lines.get(place), _spell(place), rule)

    def flows(self) -> Iterator[tuple[Place, dict[str, Any]]]:
        """The machine itself and each Map's or Parallel's inner machine: what has StartAt and States."""
        pending: list[tuple[Place, dict[str, Any]]] = [((), self.document)]
        while pending:
            place, flow = pending.pop(0)
            yield place, flow
            for name, state in _states(flow).items():
                inside = (*place, "States", name)
                if isinstance(state.get("ItemProcessor"), dict):
                    pending.append(((*inside, "ItemProcessor"), state["ItemProcessor"]))
                for index, branch in _objects(state.get("Branches")):
                    pending.append(((*inside, "Branches", index), branch))

    def states(self) -> Iterator[tuple[Place, str, dict[str, Any]]]:
        """Every state at any depth: its place, name and content."""
        for place, flow in self.flows():
            for name, state in _states(flow).items():
                yield (*place, "States", name), name, state

    def texts(self) -> Iterator[tuple[Place, str]]:
        """Every string that means something to Step Functions: all but comments."""
        pending: list[tuple[Place, Any]] = [((), self.document)]
        while pending:
            place, value = pending.pop(0)
            if isinstance(value, dict):
                pending.extend(((*place, key), item) for key, item in value.items() if key != "Comment")
            elif isinstance(value, list):
                pending.extend(((*place, index), item) for index, item in enumerate(value))
            elif isinstance(value, str):
                yield place, value


class DefinitionError(ValueError):
    """A definition that cannot be read at all; `problem` says why."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(str(problem))


def check_template(template: Template) -> list[Problem]:
    """The problems of each definition that `template` names with a file, in order, and each file beside them
    that no state machine has.
    """
    problems: list[Problem] = []
    named: set[Path] = set()
    for logical_id, resource in template["Resources"].items():
        if not isinstance(resource, dict) or resource.get("Type") not in DEFINITION_OF:
            continue
        properties = resource.get("Properties") or {}
        named_file = properties.get(DEFINITION_OF[resource["Type"]])
        if not isinstance(named_file, str):
            continue
        file = template.file.parent / named_file
        named.add(file)
        try:
            definition = Definition.read(file)
        except DefinitionError as error:
            problems.append(error.problem)
            continue
        names: dict[str, Any] = properties.get("DefinitionSubstitutions", {})
        found = [
            *check_definition(definition, names),
            *_check_version(definition),
            *_check_partition(definition),
            *lint_definition(definition),
        ]
        problems.extend(sorted(found, key=lambda problem: problem.line or 0))
        for name in names.keys() - used_substitutions(definition):
            place = ("Resources", logical_id, "Properties", "DefinitionSubstitutions", name)
            line = template.line_of(*place)
            problems.append(Problem(str(template.file), line, _spell(place), f"{file.name} has no ${{{name}}}"))
    beside = sorted(file for folder in {file.parent for file in named} for file in folder.glob("*.asl.json"))
    rule = f"no state machine of {template.file.name} has this definition"
    return problems + [Problem(str(file), None, "", rule) for file in beside if file not in named]


def used_substitutions(definition: Definition) -> set[str]:
    """The names that the definition has as `${name}`."""
    return {name for _, text in definition.texts() for name in _SUBSTITUTION.findall(text)}


def check_definition(definition: Definition, substitutions: Collection[str]) -> list[Problem]:
    """The problems found at once, without a linter. `substitutions`: the names the template replaces."""
    return [
        *_check_names(definition),
        *_check_transitions(definition),
        *_check_tasks(definition),
        *_check_key_order(definition),
        *_check_texts(definition, substitutions),
    ]


def lint_definition(definition: Definition) -> list[Problem]:
    """What cfn-lint finds in the definition as CloudFormation would get it. Takes seconds, most to import it.

    cfn-lint (1.58) knows only numbers for time-outs and concurrency, and only the partition aws: there it is shown 60
    for an expression, and aws for ${Partition}.
    """
    from cfnlint.api import lint

    properties = {
        "RoleArn": "arn:aws:iam::123456789012:role/any",
        "DefinitionSubstitutions": dict.fromkeys(used_substitutions(definition), "any"),
        "Definition": _as_the_linter_knows_it(definition.document),
    }
    machine = {"Type": "AWS::StepFunctions::StateMachine", "Properties": properties}
    inside = ("Resources", "Machine", "Properties", "Definition")
    return [
        definition.problem(tuple(match.path or ())[len(inside) :], f"{match.message} ({match.rule.id})")
        for match in lint(json.dumps({"Resources": {"Machine": machine}}))
    ]


def _check_partition(definition: Definition) -> Iterator[Problem]:
    """What works in the partition aws alone, where the offline stack is."""
    for place, text in definition.texts():
        if text.startswith("arn:aws:"):
            yield definition.problem(
                place, "GovCloud and China have another partition than aws: write arn:${Partition}:"
            )


def _check_names(definition: Definition) -> Iterator[Problem]:
    seen: dict[str, Place] = {}
    for place, name, state in definition.states():
        if not _STATE_NAME.fullmatch(name):
            yield definition.problem(place, "a state's name is words in Title Case")
        if name.endswith("?") != (state.get("Type") == "Choice"):
            yield definition.problem(place, "a Choice is a question, and nothing else is: its name ends with ?")
        if name in seen:
            yield definition.problem(place, f"the name stands at {_spell(seen[name])} too")
        seen.setdefault(name, place)


def _check_transitions(definition: Definition) -> Iterator[Problem]:
    for place, flow in definition.flows():
        states = _states(flow)
        for target_place, target in _targets(flow):
            if not isinstance(target, str) or target not in states:
                yield definition.problem((*place, *target_place), f"there is no state {target!r} here")
        reached: set[str] = set()
        pending = [flow.get("StartAt")]
        while pending:
            name = pending.pop()
            if isinstance(name, str) and name in states and name not in reached:
                reached.add(name)
                pending.extend(target for _, target in _state_targets(states[name]))
        for name in states.keys() - reached:
            yield definition.problem((*place, "States", name), "no state leads here")


def _check_tasks(definition: Definition) -> Iterator[Problem]:
    for place, _, state in definition.states():
        if state.get("Type") == "Task" and "TimeoutSeconds" not in state:
            yield definition.problem(place, "a Task needs TimeoutSeconds: without it, it may wait a year")
        if state.get("Type") not in _WITHOUT_NEXT and not state.keys() & {"Next", "End"}:
            yield definition.problem(place, "the state has neither Next nor End")


def _check_key_order(definition: Definition) -> Iterator[Problem]:
    for place, _, state in definition.states():
        keys = [key for key in state if key in _KEY_ORDER]
        ordered = sorted(keys, key=_KEY_ORDER.index)
        if keys != ordered:
            yield definition.problem(place, f"its keys are in another order than {', '.join(ordered)}")


def _check_texts(definition: Definition, substitutions: Collection[str]) -> Iterator[Problem]:
    for place, text in definition.texts():
        for name in _SUBSTITUTION.findall(text):
            if name not in substitutions:
                yield definition.problem(place, f"the template has no substitution for ${{{name}}}")
        if _LITERAL_ARN.search(text):
            yield definition.problem(place, "an ARN is written out: use a substitution")
        if text.startswith("{%") and text.endswith("%}"):
            fault = _jsonata_fault(text[2:-2])
            if fault:
                yield definition.problem(place, f"the JSONata expression does not parse: {fault}")
        elif "{%" in text or "%}" in text:
            yield definition.problem(place, "JSONata fills a whole string, from {% to %}: this would stay text")


def definition_version(document: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits that say which definition an execution runs: it passes them on as `definitionVersion`,
    since it keeps its definition for days, whatever is deployed meanwhile.
    """

    def without_version(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: "" if key == _VERSION else without_version(item) for key, item in value.items()}
        return [without_version(item) for item in value] if isinstance(value, list) else value

    return hashlib.sha256(json.dumps(without_version(document), sort_keys=True).encode()).hexdigest()[:8]


def _check_version(definition: Definition) -> Iterator[Problem]:
    version = definition_version(definition.document)
    for place, text in definition.texts():
        if place[-1] == _VERSION and text != version:
            yield definition.problem(place, f"the definition has changed: write {version}")


def _jsonata_fault(expression: str) -> str | None:
    from jsonata import Jsonata
    from jsonata.jexception import JException

    try:
        Jsonata(expression)
    except JException as error:
        return f"{error} at character {error.location}"
    except IndexError:  # how jsonata-python reports an unfinished comment, string or regular expression
        return "Unexpected end of expression"
    return None


def _states(flow: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    states = flow.get("States")
    if not isinstance(states, dict):
        return {}
    return {name: state for name, state in states.items() if isinstance(state, dict)}


def _targets(flow: Mapping[str, Any]) -> Iterator[tuple[Place, Any]]:
    yield ("StartAt",), flow.get("StartAt")
    for name, state in _states(flow).items():
        for place, target in _state_targets(state):
            yield ("States", name, *place), target


def _state_targets(state: Mapping[str, Any]) -> Iterator[tuple[Place, Any]]:
    for key in ("Next", "Default"):
        if key in state:
            yield (key,), state[key]
    for key in ("Choices", "Catch"):
        for index, rule in _objects(state.get(key)):
            yield (key, index, "Next"), rule.get("Next")


def _objects(value: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a list, with their indices. What is not of this form is for cfn-lint to report."""
    if isinstance(value, list):
        yield from ((index, item) for index, item in enumerate(value) if isinstance(item, dict))


def _as_the_linter_knows_it(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: 60
            if key in _NUMBERS_THAT_MAY_BE_JSONATA and isinstance(item, str) and item.startswith("{%")
            else _as_the_linter_knows_it(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_as_the_linter_knows_it(item) for item in value]
    return value.replace("arn:${Partition}:", "arn:aws:") if isinstance(value, str) else value


def _spell(place: Place) -> str:
    """The place for a reader: states by their names alone, everything else as in the file."""
    return " / ".join(str(key) for key in place if key not in ("States", "ItemProcessor"))
