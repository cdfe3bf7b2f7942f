"""Checks that the tools' gateway may invoke each function that an agent file names: on AWS its first call would fail.

What a policy grants is known as far as the template says it, in statements of the gateway's role.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from local.deployment.intrinsics import CannotResolve
from local.deployment.parameters import FUNCTION_ARN, resolver_for
from local.deployment.sam_yaml import Template

GATEWAY = "InvokeToolFunction"
_INVOKE = "lambda:InvokeFunction"


def check_tool_permissions(
    template: Template, document: Mapping[str, Any], agent_files: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    """The executors of the agents that the gateway may not invoke, a line each.

    `document` is the template as SAM transforms it; `agent_files` are documents by the names of their files.
    """
    resources = document["Resources"]
    if GATEWAY not in resources or "PublishedAgents" not in resources:
        return
    resolver = resolver_for(template, document)
    try:
        statements = [resolver.resolve(statement) for statement in _statements(resources)]
        substitutions = resolver.resolve(resources["PublishedAgents"]["Properties"].get("Substitutions") or {})
    except CannotResolve as error:
        yield str(template.error(str(error), "Resources", GATEWAY))
        return
    values = {f"${{{name}}}": _text(value) for name, value in substitutions.items()}
    for file, agent in agent_files.items():
        for position, group in enumerate(agent.get("actionGroups", ())):
            named = group.get("actionGroupExecutor", {}).get("lambda")
            if named is not None and not _may_invoke(statements, function := values.get(named, named)):
                yield f"{file}: /actionGroups/{position}/actionGroupExecutor/lambda: {_rule(named, function)}"


def _rule(named: str, function: str) -> str:
    refused = f"{GATEWAY} may not invoke {named}"
    if function.startswith(FUNCTION_ARN) and named != function:
        resource = function.removeprefix(FUNCTION_ARN)
        return f"{refused}: add {_INVOKE} on !GetAtt {resource}.Arn to its Policies in template.yaml"
    return (
        f"{refused}: deploy with ToolFunctionArns={function}, which belongs into parameter_overrides of "
        "[default.deploy.parameters] in samconfig.toml"
    )


def _may_invoke(statements: list[Mapping[str, Any]], function: str) -> bool:
    effects = {
        statement["Effect"]
        for statement in statements
        if any(_matches(action.lower(), _INVOKE.lower()) for action in _texts(statement.get("Action")))
        and any(_matches(resource, function) for resource in _texts(statement.get("Resource")))
    }
    return effects == {"Allow"}


def _statements(resources: Mapping[str, Any]) -> Iterator[Any]:
    """Those of the gateway's role, and of policies of their own that are attached to it."""
    role = resources[GATEWAY]["Properties"]["Role"].get("Fn::GetAtt", [""])[0]
    documents = [
        policy["PolicyDocument"] for policy in resources.get(role, {}).get("Properties", {}).get("Policies", ())
    ]
    for resource in resources.values():
        if resource["Type"] in ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"):
            properties = resource["Properties"]
            if {"Ref": role} in properties.get("Roles", ()):
                documents.append(properties["PolicyDocument"])
    for policy in documents:
        yield from policy["Statement"]


def _texts(value: Any) -> list[str]:
    return [_text(item) for item in (value if isinstance(value, list) else [value])]


def _text(value: Any) -> str:
    """What cannot be resolved stands for itself: it is the same value wherever it is written."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _matches(pattern: str, value: str) -> bool:
    """As IAM compares: * is any text, ? any character."""
    return bool(re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), value))
