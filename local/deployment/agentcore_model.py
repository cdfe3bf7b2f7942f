"""Writes `operations.json` of the memory API: AgentCore's operations on memory, and on the tags that only memories have
here, as botocore's service models have them.

    PYTHONPATH=functions/runtime .venv/bin/python -m local.deployment.agentcore_model

To run when botocore's models have changed, which a test notices, or what this runtime does not support of them. The
requests' shapes become JSON Schema (draft 2020-12) with the shapes' own names.
"""

import gzip
import json
from pathlib import Path
from typing import Any

import botocore

from turnwright.api.agentcore.operations import FILE, LATEST_SECONDS, UNSUPPORTED
from turnwright.api.agentcore.validation import NOTHING, Schema

SERVICES = ("bedrock-agentcore", "bedrock-agentcore-control")

_BOUNDS = {
    "string": ("minLength", "maxLength"),
    "list": ("minItems", "maxItems"),
    "map": ("minProperties", "maxProperties"),
    "integer": ("minimum", "maximum"),
    "double": ("minimum", "maximum"),
}


def service_model(service: str) -> dict[str, Any]:
    """A service's model in botocore."""
    (path,) = Path(botocore.__file__).parent.glob(f"data/{service}/*/service-2.json*")
    raw = path.read_bytes()
    model: dict[str, Any] = json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
    return model


def text() -> str:
    """What the file is to have: one line an operation and a shape."""
    return _lines({service: _served(service_model(service)) for service in SERVICES}, 3) + "\n"


def _served(model: dict[str, Any]) -> dict[str, Any]:
    shapes = model["shapes"]
    operations: dict[str, Any] = {}
    definitions: dict[str, Schema] = {}
    for name, operation in model["operations"].items():
        http = operation["http"]
        if not http["requestUri"].startswith(("/memories", "/tags")):
            continue
        request = operation["input"]["shape"]
        places = {field: member.get("location") for field, member in shapes[request]["members"].items()}
        if not {*places.values()} <= {None, "uri", "querystring"}:
            raise ValueError(f"{name} has fields where nothing looks for them: {places}")
        operations[name] = {
            "method": http["method"],
            "path": http["requestUri"].rstrip("/"),
            "query": [field for field, place in places.items() if place == "querystring"],
            "status": http["responseCode"],
            "errors": [error["shape"] for error in operation["errors"]],
            "request": _define(request, shapes, definitions),
        }
    return {"operations": operations, "$defs": dict(sorted(definitions.items()))}


def _define(name: str, shapes: dict[str, Any], definitions: dict[str, Schema]) -> Schema:
    """A reference to a shape, which is among the definitions from now on."""
    if name not in definitions:
        definitions[name] = _schema(shapes[name], lambda other: _define(other, shapes, definitions))
    return {"$ref": f"#/$defs/{name}"}


def _schema(shape: dict[str, Any], reference: Any) -> Schema:
    kind = shape["type"]
    least, most = _BOUNDS.get(kind, ("", ""))
    bounds = {keyword: shape[bound] for bound, keyword in (("min", least), ("max", most)) if shape.get(bound)}
    match kind:
        case "structure" if shape.get("document"):
            return {}
        case "structure":
            return {
                "type": "object",
                **({"required": shape["required"]} if shape.get("required") else {}),
                **({"minProperties": 1, "maxProperties": 1} if shape.get("union") else {}),
                "properties": {
                    field: NOTHING if field in UNSUPPORTED else reference(member["shape"])
                    for field, member in shape["members"].items()
                },
                "additionalProperties": False,
            }
        case "list":
            return {"type": "array", **bounds, "items": reference(shape["member"]["shape"])}
        case "map":
            key, value = reference(shape["key"]["shape"]), reference(shape["value"]["shape"])
            return {"type": "object", **bounds, "propertyNames": key, "additionalProperties": value}
        case "string":
            return {"type": "string", **bounds, **{rule: shape[rule] for rule in ("enum", "pattern") if rule in shape}}
        case "timestamp":
            return {"type": "number", "minimum": 0, "maximum": LATEST_SECONDS, "description": "seconds since 1970"}
        case "integer" | "boolean" | "double":
            return {"type": "number" if kind == "double" else kind, **bounds}
        case _:
            raise ValueError(f"no schema is known for a {kind}")


def _lines(value: Any, levels: int) -> str:
    if not levels:
        return json.dumps(value)
    entries = (f"{json.dumps(name)}: {_lines(entry, levels - 1)}" for name, entry in value.items())
    return "{\n" + ",\n".join(entries) + "\n}"


if __name__ == "__main__":
    FILE.write_text(text())
