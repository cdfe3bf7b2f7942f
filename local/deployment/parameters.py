"""What `make deploy` would make of a template's intrinsic functions, as far as that is known before it."""

import shlex
import tomllib
from collections.abc import Mapping
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


def listed(value: str) -> list[str]:
    """The items of a comma-delimited list."""
    return [item.strip() for item in value.split(",")] if value else []
