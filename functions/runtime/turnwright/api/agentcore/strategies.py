"""A memory store's strategies: AgentCore's words for what this runtime calls namespaces.

| strategy | merge rule | what is remembered |
| --- | --- | --- |
| semantic | MODEL | facts |
| userPreference | REPLACE, by key | preferences |
| summary | none, of session scope | the summary of each part of a session that ended |

An override is the same with the caller's prompts behind the built-in ones, and with its model asked first. A stored
strategy is JSON: what an answer says of it, and `namespace`, what the consolidation goes by
(`memory/records/store_configuration.py`).
"""

import re
import secrets
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from turnwright.agents.memory_configuration import (
    ACTOR_VARIABLE,
    EVERYONE,
    SESSION_VARIABLE,
    Injection,
    MergeRule,
    Namespace,
    filled,
)
from turnwright.api.agentcore.operations import seconds
from turnwright.api.agentcore.refusals import NotThere, invalid
from turnwright.memory.records.store_configuration import namespace_fields

NEVER_DAYS = 36_500
"""A record that does not expire has a hundred years."""

MOST_STRATEGIES = 6
"""AgentCore's quota of a memory."""

_STRATEGY_VARIABLE = "memoryStrategyId"
_VARIABLES = {ACTOR_VARIABLE, SESSION_VARIABLE, _STRATEGY_VARIABLE}
_VARIABLE = re.compile(r"\{([a-zA-Z][a-zA-Z0-9]*)\}")
_ALPHABET = string.ascii_letters + string.digits

_FACTS = (
    "Extract the facts about the user and the user's world that were stated or confirmed in the conversation and will "
    "still be useful in another one: who and what there is, how things are, what was decided. No small talk, no "
    "question that was merely asked, nothing that the assistant only guessed or that a tool can look up again. Write "
    "each fact as one short sentence in the third person, complete in itself, with dates instead of words like today. "
    "If there is nothing, extract nothing."
)
_PREFERENCES = (
    "Extract the user's preferences: choices, likes and dislikes, styles and habits, stated outright or plain from "
    "what the user chose repeatedly. Write each as one short sentence about the user in the third person, with its "
    "context where it holds only there. Give each a key, a noun in snake_case for what is preferred "
    "(preferred_currency), so that a later preference takes the place of an earlier one. If there is none, extract "
    "nothing."
)

_DESCRIPTIONS = {
    "semantic": "facts about the user and the user's world",
    "userPreference": "the user's preferences: what the user likes, chooses and avoids",
    "summary": "what a conversation was about",
}
"""What a model is told of a strategy that has no description."""


@dataclass(frozen=True, slots=True)
class _BuiltIn:
    kind: str
    override: str
    prompt: str
    merge_rule: MergeRule
    template: str


_ACTOR_TEMPLATE = "/strategies/{memoryStrategyId}/actors/{actorId}/"
_BUILT_IN = {
    "semantic": _BuiltIn("SEMANTIC", "SEMANTIC_OVERRIDE", _FACTS, MergeRule.MODEL, _ACTOR_TEMPLATE),
    "userPreference": _BuiltIn(
        "USER_PREFERENCE", "USER_PREFERENCE_OVERRIDE", _PREFERENCES, MergeRule.REPLACE, _ACTOR_TEMPLATE
    ),
    "summary": _BuiltIn(
        "SUMMARIZATION",
        "SUMMARY_OVERRIDE",
        "",
        MergeRule.APPEND,
        _ACTOR_TEMPLATE + "sessions/{sessionId}/",
    ),
}
_BY_OVERRIDE = {built_in.override: name for name, built_in in _BUILT_IN.items()}
_BY_KIND = {built_in.kind: name for name, built_in in _BUILT_IN.items()}

Stored = dict[str, Any]
"""A strategy as the store's item has it."""


def random_part(length: int = 10) -> str:
    """The part of an id behind its name."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def added(strategies: Sequence[Stored], new: Sequence[Mapping[str, Any]], place: str, now: int) -> list[Stored]:
    """The strategies with new ones, each as CreateMemory has it. Raises Invalid."""
    after = [*strategies]
    for index, entry in enumerate(new):
        (member, fields), where = next(iter(entry.items())), f"{place}[{index}]"
        if any(other["name"] == fields["name"] for other in after):
            raise invalid(f"{where}.{member}.name", f"is the name of another strategy: {fields['name']}")
        after.append(_new(member, fields, f"{where}.{member}", now))
    return _checked(after, place)


def modified(strategies: Sequence[Stored], changes: Sequence[Mapping[str, Any]], place: str, now: int) -> list[Stored]:
    """The strategies with what UpdateMemory changes in them. Raises Invalid or NotThere."""
    after = [*strategies]
    for index, change in enumerate(changes):
        position = _position(after, change["memoryStrategyId"])
        after[position] = _modified(after[position], change, f"{place}[{index}]", now)
    return _checked(after, place)


def removed(strategies: Sequence[Stored], ids: Sequence[str]) -> list[Stored]:
    """The strategies without some. Raises NotThere."""
    after = [*strategies]
    for strategy_id in ids:
        del after[_position(after, strategy_id)]
    return after


def wire(strategy: Stored) -> dict[str, Any]:
    """A strategy as an answer has it."""
    answer = {name: value for name, value in strategy.items() if name not in ("namespace", "template")}
    moments = {name: seconds(strategy[name]) for name in ("createdAt", "updatedAt")}
    return {**answer, **moments, "namespaces": [strategy["template"]], "namespaceTemplates": [strategy["template"]]} | (
        {"status": "ACTIVE"}
    )


def summarizes(strategies: Sequence[Stored]) -> bool:
    return any(_kind(strategy) == "summary" for strategy in strategies)


def as_path(namespace: str) -> str:
    """A namespace as it is stored: between slashes. An actor id may end in one: `/facts/a//` is that of `a/`."""
    path = f"/{namespace.lstrip('/')}"
    return path if path.endswith("/") else f"{path}/"


def as_template(template: str) -> str:
    """A template of namespaces as it is stored: between slashes, of which no two stand at its ends."""
    return as_path(template.rstrip("/"))


def meet(one: str, other: str) -> bool:
    """Whether a path can belong to both templates, an actor id having slashes or not."""
    return _meet(tuple(as_template(one).split("/")[1:-1]), tuple(as_template(other).split("/")[1:-1]))


def _new(member: str, fields: Mapping[str, Any], place: str, now: int) -> Stored:
    strategy_id = f"{fields['name']}-{random_part()}"
    configuration: dict[str, Any] = {}
    if member == "customMemoryStrategy":
        if "configuration" not in fields:
            raise invalid(f"{place}.configuration", "is missing: it says which built-in strategy is overridden")
        override, steps = next(iter(fields["configuration"].items()))
        name = override.removesuffix("Override")
        configuration = _configuration(name, steps)
        kind = "CUSTOM"
    else:
        name = member.removesuffix("MemoryStrategy")
        kind = _BUILT_IN[name].kind
    strategy: Stored = {
        "strategyId": strategy_id,
        "name": fields["name"],
        "type": kind,
        "template": _template(fields, _BUILT_IN[name].template, name, place),
        "createdAt": now,
        "updatedAt": now,
    }
    if "description" in fields:
        strategy["description"] = fields["description"]
    if configuration:
        strategy["configuration"] = configuration
    return _with_expiry(strategy, fields, f"{place}.recordExpirySpecification", is_new=True)


def _modified(strategy: Stored, change: Mapping[str, Any], place: str, now: int) -> Stored:
    name = _kind(strategy)
    after: Stored = {
        **strategy,
        "template": _template(change, strategy["template"], name, place),
        "updatedAt": now,
    }
    if "description" in change:
        after["description"] = change["description"]
    if "configuration" in change:
        if strategy["type"] != "CUSTOM":
            raise invalid(f"{place}.configuration", f"is given, but {strategy['name']} is no custom strategy")
        steps = _prompts(strategy["configuration"], name)
        for step, wrapped in change["configuration"].items():
            (overrides,) = wrapped.values()
            ((member, prompt),) = overrides.items()
            expected = f"{name}{step.capitalize()}Override"
            if member != expected:
                raise invalid(f"{place}.configuration.{step}", f"has {member}; this strategy's is {expected}")
            steps[step] = prompt
        after["configuration"] = _configuration(name, steps)
    return _with_expiry(after, change, f"{place}.recordExpirySpecification", is_new=False)


def _with_expiry(strategy: Stored, fields: Mapping[str, Any], place: str, *, is_new: bool) -> Stored:
    after = dict(strategy)
    expiry = fields.get("recordExpirySpecification", {})
    if "action" in expiry:
        if is_new:
            raise invalid(f"{place}.action", "is for an expiry that is there already")
        after.pop("recordExpiryDurationDays", None)
    elif expiry:
        after["recordExpiryDurationDays"] = expiry["recordExpiryDurationDays"]
    after["namespace"] = namespace_fields(_namespace(after))
    return after


def _namespace(strategy: Stored) -> Namespace:
    name = _kind(strategy)
    built_in = _BUILT_IN[name]
    steps = _prompts(strategy.get("configuration", {}), name)
    extraction = steps.get("consolidation" if name == "summary" else "extraction", {})
    merge = {} if name == "summary" else steps.get("consolidation", {})
    return Namespace(
        name=strategy["strategyId"],
        template=as_template(filled(strategy["template"], {_STRATEGY_VARIABLE: strategy["strategyId"]})),
        description=str(strategy.get("description", _DESCRIPTIONS[name])),
        merge_rule=MergeRule.MODEL if merge else built_in.merge_rule,
        extraction_prompt="\n".join(filter(None, (built_in.prompt, extraction.get("appendToPrompt")))),
        ttl_days=strategy.get("recordExpiryDurationDays", NEVER_DAYS),
        max_records=1_000,
        readers=frozenset((EVERYONE,)),
        writers=frozenset((EVERYONE,)),
        inject=Injection(relevance=True),
        merge_prompt=merge.get("appendToPrompt", ""),
        holds_summaries=name == "summary",
        model=extraction.get("modelId", ""),
        merge_model=merge.get("modelId", ""),
    )


def _kind(strategy: Stored) -> str:
    if strategy["type"] == "CUSTOM":
        return _BY_OVERRIDE[strategy["configuration"]["type"]]
    return _BY_KIND[strategy["type"]]


def _configuration(name: str, steps: Mapping[str, Any]) -> dict[str, Any]:
    """The overrides as answers have them."""
    configuration: dict[str, Any] = {"type": _BUILT_IN[name].override}
    for step, prompt in steps.items():
        member = f"{name}{step.capitalize()}Override"
        configuration[step] = {f"custom{step.capitalize()}Configuration": {member: dict(prompt)}}
    return configuration


def _prompts(configuration: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The overrides by step; `_configuration` the other way."""
    return {
        step: wrapped[f"custom{step.capitalize()}Configuration"][f"{name}{step.capitalize()}Override"]
        for step, wrapped in configuration.items()
        if step != "type"
    }


def _template(fields: Mapping[str, Any], default: str, name: str, place: str) -> str:
    given = [fields[key][0] for key in ("namespaceTemplates", "namespaces") if fields.get(key)]
    if len(set(given)) > 1:
        raise invalid(f"{place}.namespaces", "differs from namespaceTemplates, which is the same field's newer name")
    template: str = given[0] if given else default
    where = f"{place}.{'namespaceTemplates' if fields.get('namespaceTemplates') else 'namespaces'}[0]"
    variables = _VARIABLE.findall(template)
    if unknown := set(variables) - _VARIABLES:
        raise invalid(where, f"has an unknown variable: {{{min(unknown)}}}")
    if len(set(variables)) < len(variables):
        raise invalid(where, "has a variable twice")
    segments = as_template(template).split("/")
    if any("{" in segment and not _VARIABLE.fullmatch(segment) for segment in segments):
        raise invalid(where, "has a variable that does not stand alone between slashes")
    if "" in segments[1:-1]:
        raise invalid(where, "has nothing between two slashes")
    if name == "summary" and SESSION_VARIABLE not in variables:
        raise invalid(where, "has no {sessionId}: a summary is of a session")
    return template


def _checked(strategies: list[Stored], place: str) -> list[Stored]:
    if len(strategies) > MOST_STRATEGIES:
        raise invalid(place, f"makes {len(strategies)} strategies; a memory has at most {MOST_STRATEGIES}")
    for index, strategy in enumerate(strategies):
        for other in strategies[:index]:
            if meet(strategy["namespace"]["template"], other["namespace"]["template"]):
                raise invalid(
                    place,
                    f"has templates that can mean the same path, so that its records would be of two strategies: "
                    f"{other['template']} of {other['name']} and {strategy['template']} of {strategy['name']}",
                )
    return strategies


def _position(strategies: Sequence[Stored], strategy_id: str) -> int:
    for position, strategy in enumerate(strategies):
        if strategy["strategyId"] == strategy_id:
            return position
    raise NotThere(f"the memory has no strategy {strategy_id}")


@cache
def _meet(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    if not one or not other:
        return not one and not other
    if not ("{" in one[0] or "{" in other[0] or one[0] == other[0]):
        return False
    after_one, after_other = [one[1:]], [other[1:]]
    if one[0] == f"{{{ACTOR_VARIABLE}}}":
        after_one.append(one)  # the actor id goes on behind the slash
    if other[0] == f"{{{ACTOR_VARIABLE}}}":
        after_other.append(other)
    return any(
        _meet(rest, other_rest)
        for rest in after_one
        for other_rest in after_other
        if (rest, other_rest) != (one, other)
    )
