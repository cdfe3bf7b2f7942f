"""Writes `unsupported_operations.json`: the operations of Bedrock's agent services, as botocore's models have them.

    PYTHONPATH=functions/runtime .venv/bin/python -m local.deployment.service_operations

To run when botocore's models have changed, which a test notices, or the template's own routes. Nothing there says what
is supported: that is what has a route of its own, and only the other requests reach who reads the file.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from local.deployment.agentcore_model import service_model
from local.deployment.sam_yaml import load_template
from turnwright.api.unsupported_operations import FILE, OWN, STATUS

SERVICES = ("bedrock-agent-runtime", "bedrock-agent", "bedrock-agentcore", "bedrock-agentcore-control")
_TEMPLATE = Path(__file__).parents[2] / "template.yaml"


def text() -> str:
    """What the file is to have: one line an operation."""
    services: dict[str, dict[str, dict[str, str]]] = {}
    for service in SERVICES:
        for name, operation in service_model(service)["operations"].items():
            declared = {error["shape"] for error in operation["errors"]}
            error = next(error for error in STATUS if error in declared)
            route = f"{operation['http']['method']} {operation['http']['requestUri'].rstrip('/')}"
            services.setdefault(service, {}).setdefault(error, {})[name] = route
    known = {name for errors in services.values() for names in errors.values() for name in names}
    services[OWN] = {next(iter(STATUS)): {name: route for name, route in _routes() if name not in known}}
    return _lines(services, 3) + "\n"


def _routes() -> Iterator[tuple[str, str]]:
    """The template's operations, which have names; the route for all others has none."""
    body = load_template(_TEMPLATE)["Resources"]["Api"]["Properties"]["DefinitionBody"]
    for path, methods in body["paths"].items():
        for method, operation in methods.items():
            if "operationId" in operation:
                yield operation["operationId"], f"{method.upper()} {path}"


def _lines(value: Any, levels: int) -> str:
    if not levels:
        return json.dumps(value)
    entries = (f"{json.dumps(name)}: {_lines(entry, levels - 1)}" for name, entry in value.items())
    return "{\n" + ",\n".join(entries) + "\n}"


if __name__ == "__main__":
    FILE.write_text(text())
