"""What `make deploy` would make of a template's intrinsic functions, as far as that is known before it."""

import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from local.deployment.intrinsics import NO_VALUE, Resolver
from local.deployment.sam_yaml import REGION, Template, TemplateError
from local.gateway.proxy_integration import ACCOUNT_ID

FUNCTION_ARN = f"arn:aws:lambda:{REGION}:{ACCOUNT_ID}:function:"
"""Before the logical id of a function: its ARN here, since the real one exists after deployment only."""

PSEUDO = {
    "AWS::AccountId": ACCOUNT_ID,
    "AWS::Partition": "aws",
    "AWS::Region": REGION,
    "AWS::URLSuffix": "amazonaws.com",
}
"""Pseudo parameters that are the same for every stack here."""


def overrides(folder: Path) -> dict[str, str]:
    """The parameters that `sam deploy` is given by samconfig.toml, in either of its forms. Raises TemplateError."""
    file = folder / "samconfig.toml"
    try:
        document = tomllib.loads(file.read_text()) if file.is_file() else {}
    except tomllib.TOMLDecodeError as error:
        raise TemplateError(file, None, f"is not TOML: {error}") from error
    given = document.get("default", {}).get("deploy", {}).get("parameters", {}).get("parameter_overrides", "")
    pairs = shlex.split(given) if isinstance(given, str) else given
    return dict(pair.partition("=")[::2] for pair in map(str, pairs))


def check_parameters(template: Template) -> Iterator[str]:
    """The values in samconfig.toml that CloudFormation refuses, and those that `sam deploy` drops without a word: of
    parameters that are not there. A line each. Raises TemplateError.
    """
    for name, value in overrides(template.file.parent).items():
        declaration = (template.get("Parameters") or {}).get(name)
        refused = refusal(declaration, value) if declaration else f"is no parameter of {template.file.name}"
        if refused:
            yield f"{template.file.parent / 'samconfig.toml'}: parameter_overrides: {name} {refused}"


def resolver_for(template: Template, document: Mapping[str, Any]) -> Resolver:
    """Knows the parameters, by `overrides` or else their defaults, and functions by their logical ids.

    `document` is the template as SAM transforms it.
    """
    values: dict[str, Any] = {}
    given = overrides(template.file.parent)
    for name, parameter in (document.get("Parameters") or {}).items():
        value = str(given.get(name, parameter.get("Default", "")))
        values[name] = listed(value) if parameter["Type"] == "CommaDelimitedList" else value
    attributes: dict[str, Any] = {}
    for name, resource in document["Resources"].items():
        if resource["Type"] == "AWS::Lambda::Function":
            attributes |= {name: name, f"{name}.Arn": f"{FUNCTION_ARN}{name}"}
        elif resource["Type"] == "AWS::Lambda::Alias":
            properties = resource["Properties"]
            attributes[name] = f"{FUNCTION_ARN}{properties['FunctionName'].get('Ref')}:{properties['Name']}"
    return Resolver(
        {**PSEUDO, "AWS::NoValue": NO_VALUE, **values},
        document.get("Conditions") or {},
        document.get("Mappings") or {},
        attributes,
    )


def parameter_value(kind: str, value: str) -> Any:
    """What a parameter of the type `kind` is. Raises ValueError for a number that is none."""
    if kind == "CommaDelimitedList" or kind.startswith("List<"):
        return listed(value)
    if kind == "Number":
        return int(value) if re.fullmatch(r"-?\d+", value) else float(value)
    return value


def refusal(declaration: Mapping[str, Any], value: str) -> str | None:
    """Why CloudFormation does not take `value` for a parameter, or None. Each item of a list must match the pattern."""
    rule = declaration.get("ConstraintDescription")
    allowed = [str(option) for option in declaration.get("AllowedValues", ())]
    if allowed and value not in allowed:
        return f"is {value}; allowed are {', '.join(allowed)}"
    try:
        read = parameter_value(declaration.get("Type", "String"), value)
    except ValueError:
        return f"is {value}; it must be a number"
    if "AllowedPattern" in declaration:
        pattern = str(declaration["AllowedPattern"])
        items = (read or [""]) if isinstance(read, list) else [read]
        wrong = [str(item) for item in items if not re.fullmatch(pattern, str(item))]
        return f"is {wrong[0]}; {rule or f'it must match {pattern}'}" if wrong else None
    if isinstance(read, int | float):
        lowest, highest = (float(declaration.get(name, read)) for name in ("MinValue", "MaxValue"))
        if not lowest <= read <= highest:
            return f"is {value}; {rule or 'it is outside of its MinValue or MaxValue'}"
    return None


def listed(value: str) -> list[str]:
    """The items of a comma-delimited list."""
    return [item.strip() for item in value.split(",")] if value else []
