"""An OpenAPI document as tools: one for each operation, named by its `operationId`.

A model gives a tool one flat object of arguments, so an operation's path, query and header parameters are arguments of
their own names, and so are the properties of its request body. Where that would be ambiguous the body is one argument,
`body`: its object is no plain list of properties (it takes others, or is composed of alternatives), the body may be
left out but needs a property when it is there, or a property has a parameter's name or one that no argument may have.

Schemas become JSON Schema 2020-12 without references: `nullable` becomes the type null, OpenAPI 3.0's
`exclusiveMinimum: true` the number itself, and properties that are `readOnly` are left out, since no request has them.
A schema that contains itself is unrolled a few levels; below them anything of its type goes. What only a real HTTP
client needs (`servers`, `security`, `responses`, `style`) is not looked at: the Lambda function is the server.

Source: the OpenAPI Specification, 3.0.4 and 3.1.1, and "Define OpenAPI schemas for your agent's action groups" in the
Bedrock user guide.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from turnwright.agents import patterns
from turnwright.agents.definitions import Body, Operation, Parameter

Steps = tuple[str | int, ...]
"""A place in a document: the field names and indices that lead to it."""

Finding = tuple[Steps, str]
"""A place in a document and the rule that is broken there."""

Schema = dict[str, Any]

BODY = "body"
"""The argument that is the whole request body, where its properties are none."""

_METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_CONTENT_TYPES = ("application/json", "application/x-www-form-urlencoded")
_HEADERS_OF_THE_REQUEST = frozenset({"accept", "content-type", "authorization"})
"""OpenAPI: a parameter of such a name is ignored."""

_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_ARGUMENT_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_MOST_PARTS = 2_000
_DEEPEST = 40
_MOST_LEVELS = 3
_TYPES = frozenset({"string", "number", "integer", "boolean", "array", "object", "null"})

_VALUES = frozenset(
    {
        *("type", "enum", "const", "format", "description", "default", "required", "dependentRequired", "pattern"),
        *("multipleOf", "maximum", "minimum", "exclusiveMaximum", "exclusiveMinimum", "maxLength", "minLength"),
        *("maxItems", "minItems", "uniqueItems", "maxContains", "minContains", "maxProperties", "minProperties"),
        *("contentEncoding", "contentMediaType"),
    }
)
_ONE_SCHEMA = frozenset({"items", "additionalProperties", "not", "propertyNames", "contains", "contentSchema"})
_LISTED_SCHEMAS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_NAMED_SCHEMAS = frozenset({"properties", "patternProperties"})
_LEFT_OUT = frozenset(
    {
        *("title", "example", "examples", "deprecated", "readOnly", "writeOnly", "xml", "externalDocs"),
        *("discriminator", "nullable", "$comment", "$schema", "$defs", "definitions"),
    }
)
_ANNOTATIONS = frozenset({"description", "default"})
_PLAIN_OBJECT = frozenset({"type", "properties", "required", "description"})


def place_of(operation: Operation) -> Steps:
    """Where an operation stands in its document."""
    return "paths", operation.path, operation.method.lower()


def read(document: Any) -> tuple[list[Operation], list[Finding]]:
    """The operations of an OpenAPI document that can be tools, and what is wrong with the others, or with all."""
    if not isinstance(document, dict):
        return [], [((), "is not an OpenAPI document: it is no object")]
    version = document.get("openapi")
    if not isinstance(version, str) or not re.match(r"3\.[01](\.|$)", version):
        found = f"swagger {document['swagger']}" if "swagger" in document else json.dumps(version)
        return [], [(("openapi",), f"is {found}; OpenAPI 3.0 and 3.1 are read")]
    paths = document.get("paths")
    if not isinstance(paths, dict):
        return [], [(("paths",), "is missing; it has the operations that become tools")]

    operations: list[Operation] = []
    findings: list[Finding] = []
    for path, method, steps in _operations(paths, findings):
        try:
            operations.append(_Reader(document).operation(path, method, steps))
        except _Refused as refused:
            findings.append(refused.finding)
    if not operations and not findings:
        findings.append((("paths",), "has no operation; each becomes a tool"))
    return operations, findings


class _Refused(Exception):
    """An operation cannot be a tool."""

    def __init__(self, steps: Steps, rule: str) -> None:
        super().__init__(rule)
        self.finding: Finding = (steps, rule)


def _operations(paths: Mapping[str, Any], findings: list[Finding]) -> Iterator[tuple[str, str, Steps]]:
    for path, item in paths.items():
        if path.startswith("x-"):
            continue
        steps: Steps = ("paths", path)
        if not path.startswith("/"):
            findings.append((steps, "is no path; a path begins with '/'"))
        elif not isinstance(item, dict):
            findings.append((steps, "is not an object of operations"))
        elif "$ref" in item:
            findings.append(((*steps, "$ref"), "is not supported for a path; write its operations here"))
        else:
            yield from ((path, method, (*steps, method)) for method in item if method in _METHODS)


class _Reader:
    """Reads one operation of a document."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._parts = 0
        self._depth = 0

    def operation(self, path: str, method: str, steps: Steps) -> Operation:
        item = self._document["paths"][path]
        operation = item[method]
        if not isinstance(operation, dict):
            raise _Refused(steps, "is not an object")
        if "x-requireConfirmation" in operation and operation["x-requireConfirmation"] != "DISABLED":
            raise _Refused((*steps, "x-requireConfirmation"), "is not supported: nothing would ask the user")
        name = self._name(operation, steps)
        parameters, required = self._parameters(path, item, operation, steps)
        body, properties, needed = self._body(operation, steps, parameters)
        return Operation(
            name=name,
            description=_text(operation, "description") or _text(operation, "summary"),
            path=path,
            method=method.upper(),
            parameters=tuple(Parameter(name, _type(schema), name in required) for name, schema in parameters.items()),
            body=body,
            inputSchema={
                "type": "object",
                "properties": parameters | properties,
                "required": [*required, *needed],
                "additionalProperties": False,
            },
        )

    def _name(self, operation: Mapping[str, Any], steps: Steps) -> str:
        name = operation.get("operationId")
        if name is None:
            raise _Refused(steps, "has no operationId, which is the tool's name")
        if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
            rule = "use 1 to 64 letters, digits, '_' and '-', as models allow for a tool"
            raise _Refused((*steps, "operationId"), f"{json.dumps(name)} cannot be a tool's name: {rule}")
        return name

    # ---- Parameters ----

    def _parameters(
        self, path: str, item: Mapping[str, Any], operation: Mapping[str, Any], steps: Steps
    ) -> tuple[dict[str, Schema], list[str]]:
        """The schemas of the parameters by name, and the names of those that are required."""
        declared: dict[tuple[str, str], tuple[Mapping[str, Any], Steps]] = {}
        for owner, place in ((item, steps[:-1]), (operation, steps)):
            listed = owner.get("parameters", [])
            if not isinstance(listed, list):
                raise _Refused((*place, "parameters"), "is not a list")
            for index, entry in enumerate(listed):
                parameter, where = self._target(entry, (*place, "parameters", index))
                name, location = parameter.get("name"), parameter.get("in")
                if not isinstance(name, str) or location not in ("path", "query", "header", "cookie"):
                    raise _Refused(where, "needs a name, and as its 'in' one of path, query and header")
                declared[name, location] = parameter, where

        schemas: dict[str, Schema] = {}
        required: list[str] = []
        for (name, location), (parameter, where) in declared.items():
            if location == "header" and name.lower() in _HEADERS_OF_THE_REQUEST:
                continue
            if location == "cookie":
                raise _Refused(where, "is a cookie, which Bedrock's event has no place for")
            if name in schemas:
                raise _Refused(
                    where, f"'{name}' is the name of two parameters; Bedrock's event does not tell them apart"
                )
            if not _ARGUMENT_NAME.fullmatch(name):
                rule = "use 1 to 64 letters, digits, '_', '-' and '.', as models allow for an argument"
                raise _Refused((*where, "name"), f"{json.dumps(name)} cannot be an argument's name: {rule}")
            schemas[name] = self._parameter_schema(parameter, where)
            if location == "path" or parameter.get("required") is True:
                required.append(name)
        placed = {name for name, location in declared if location == "path"}
        for name in _PLACEHOLDER.findall(path):
            if name not in placed:
                raise _Refused(steps, f"'{{{name}}}' of the path is none of its path parameters")
        return schemas, required

    def _parameter_schema(self, parameter: Mapping[str, Any], steps: Steps) -> Schema:
        if "schema" in parameter:
            schema = self._schema(parameter["schema"], (*steps, "schema"))
        else:
            _, media, where = self._media(parameter, steps, _CONTENT_TYPES[:1])
            schema = self._schema(media["schema"], (*where, "schema"))
        return _described(schema, parameter)

    # ---- Request bodies ----

    def _body(
        self, operation: Mapping[str, Any], steps: Steps, parameters: Mapping[str, Schema]
    ) -> tuple[Body | None, dict[str, Schema], list[str]]:
        """The body, the schemas of its arguments by name, and the names of those that are required."""
        if "requestBody" not in operation:
            return None, {}, []
        request_body, steps = self._target(operation["requestBody"], (*steps, "requestBody"))
        content_type, media, steps = self._media(request_body, steps, _CONTENT_TYPES)
        schema = _merged(self._schema(media["schema"], (*steps, "schema")))
        if not _is_object(schema):
            rule = "is not the schema of an object; Bedrock's event gives a body as a list of its properties"
            raise _Refused((*steps, "schema"), rule)
        is_required = request_body.get("required") is True
        properties: dict[str, Schema] = schema.get("properties", {})
        needed: list[str] = schema.get("required", [])
        types = {name: kind for name, entry in properties.items() if (kind := _type(entry))}
        if (
            _is_plain(schema)
            and (is_required or not needed)
            and not properties.keys() & parameters.keys()
            and all(map(_ARGUMENT_NAME.fullmatch, properties))
        ):
            return Body(content_type, types, is_required, None), properties, needed
        if BODY in parameters:
            raise _Refused(steps, f"has to be the argument '{BODY}', which is the name of a parameter; rename that")
        whole = _described({**schema, "type": "object"}, request_body)
        return Body(content_type, types, is_required, BODY), {BODY: whole}, [BODY] if is_required else []

    def _media(
        self, owner: Mapping[str, Any], steps: Steps, wanted: tuple[str, ...]
    ) -> tuple[str, Mapping[str, Any], Steps]:
        """The first of the wanted content types that `owner` has, and its media type object, which has a schema."""
        content = owner.get("content")
        offered = content if isinstance(content, dict) else {}
        for content_type in wanted:
            for name, media in offered.items():
                if name.partition(";")[0].strip().lower() == content_type:
                    place = (*steps, "content", name)
                    if not isinstance(media, dict) or "schema" not in media:
                        raise _Refused(place, "has no schema")
                    return content_type, media, place
        found = f"has only {', '.join(offered)}" if offered else "has none"
        raise _Refused(steps, f"needs a schema of {' or '.join(wanted)}; it {found}")

    # ---- Schemas ----

    def _schema(self, node: Any, steps: Steps, references: tuple[str, ...] = ()) -> Schema:
        """A schema of the document as JSON Schema 2020-12. `references` are those that led here."""
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise _Refused(steps, f"makes the tool's schema too large: it has more than {_MOST_PARTS} parts")
        if self._depth == _DEEPEST:
            raise _Refused(steps, f"is nested too deeply: the tool's schema has more than {_DEEPEST} levels")
        self._depth += 1
        schema = self._converted(node, steps, references)
        self._depth -= 1
        return schema

    def _converted(self, node: Any, steps: Steps, references: tuple[str, ...]) -> Schema:
        if isinstance(node, bool):
            return {} if node else {"not": {}}
        if not isinstance(node, dict):
            raise _Refused(steps, "is not a schema: it is no object")
        schema = self._referenced(node, steps, references) if "$ref" in node else self._own(node, steps, references)
        return _with_null(schema) if node.get("nullable") is True else schema

    def _own(self, node: Mapping[str, Any], steps: Steps, references: tuple[str, ...]) -> Schema:
        """A schema that is no reference."""
        schema: Schema = {}
        for keyword, value in node.items():
            place = (*steps, keyword)
            if keyword in _VALUES:
                schema[keyword] = value
            elif keyword in _ONE_SCHEMA:
                is_switch = keyword == "additionalProperties" and isinstance(value, bool)
                schema[keyword] = value if is_switch else self._schema(value, place, references)
            elif keyword in _LISTED_SCHEMAS:
                if not isinstance(value, list) or not value:
                    raise _Refused(place, "is not a list of schemas")
                schema[keyword] = [
                    self._schema(entry, (*place, index), references) for index, entry in enumerate(value)
                ]
            elif keyword in _NAMED_SCHEMAS:
                schema[keyword] = self._named(keyword, value, place, references)
            elif keyword not in _LEFT_OUT and not keyword.startswith("x-"):
                raise _Refused(place, "is not a keyword of a schema that is supported here")
        _check_values(schema, steps)
        read_only = node.get("properties", {}).keys() - schema.get("properties", {}).keys()
        return _translated(schema, read_only)

    def _named(self, keyword: str, value: Any, steps: Steps, references: tuple[str, ...]) -> dict[str, Schema]:
        if not isinstance(value, dict):
            raise _Refused(steps, "is not an object of schemas")
        if keyword == "patternProperties":
            for pattern in value:
                _check_pattern(pattern, (*steps, pattern))
        return {
            name: self._schema(entry, (*steps, name), references)
            for name, entry in value.items()
            if keyword != "properties" or not self._is_read_only(entry, (*steps, name))
        }

    def _referenced(self, node: Mapping[str, Any], steps: Steps, references: tuple[str, ...]) -> Schema:
        """What a reference leads to, with what stands beside it."""
        reference = node["$ref"]
        target, place = self._followed(reference, steps)
        self._check_end(reference, target, steps)
        if references.count(reference) < _MOST_LEVELS:
            schema = self._schema(target, place, (*references, reference))
        else:
            kind = target.get("type") if isinstance(target, dict) else None
            schema = _with_items({"type": kind}) if isinstance(kind, str) else {}
        siblings = {name: value for name, value in node.items() if name not in ("$ref", "nullable")}
        beside = self._schema(siblings, steps, references)
        return schema | beside if beside.keys() <= _ANNOTATIONS else {"allOf": [schema, beside]}

    def _check_end(self, reference: str, target: Any, steps: Steps) -> None:
        """Refuses a reference that leads to references alone, and so back to itself."""
        passed = [reference]
        while isinstance(target, dict) and "$ref" in target:
            if target["$ref"] in passed:
                raise _Refused((*steps, "$ref"), f"{json.dumps(reference)} leads back to itself, and to no schema")
            passed.append(target["$ref"])
            target, _ = self._followed(target["$ref"], steps)

    def _is_read_only(self, node: Any, steps: Steps, levels: int = _MOST_LEVELS) -> bool:
        if not isinstance(node, dict) or levels == 0:
            return False
        if node.get("readOnly") is True:
            return True
        return "$ref" in node and self._is_read_only(*self._followed(node["$ref"], steps), levels - 1)

    # ---- References ----

    def _target(self, node: Any, steps: Steps) -> tuple[Mapping[str, Any], Steps]:
        """A parameter or request body, its reference followed, and where it stands."""
        for _ in range(_MOST_LEVELS):
            if not isinstance(node, dict):
                raise _Refused(steps, "is not an object")
            if "$ref" not in node:
                return node, steps
            node, steps = self._followed(node["$ref"], steps)
        raise _Refused(steps, "is a reference to a reference to a reference")

    def _followed(self, reference: Any, steps: Steps) -> tuple[Any, Steps]:
        place = (*steps, "$ref")
        if not isinstance(reference, str) or not reference.startswith("#/"):
            raise _Refused(place, f"{json.dumps(reference)} leads out of the document; only '#/...' is followed")
        found: Any = self._document
        path: list[str | int] = []
        for part in reference[2:].split("/"):
            name = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict) and name in found:
                found = found[name]
                path.append(name)
            elif isinstance(found, list) and name.isascii() and name.isdigit() and int(name) < len(found):
                found = found[int(name)]
                path.append(int(name))
            else:
                raise _Refused(place, f"{json.dumps(reference)} leads to nothing")
        return found, tuple(path)


def _text(node: Mapping[str, Any], name: str) -> str:
    value = node.get(name)
    return value.strip() if isinstance(value, str) else ""


def _described(schema: Schema, owner: Mapping[str, Any]) -> Schema:
    """A schema with the description of the parameter or request body that it belongs to, if that has one."""
    description = _text(owner, "description")
    return {**schema, "description": description} if description else schema


def _kinds(schema: Schema) -> list[Any]:
    """The types of a schema, none if it does not say."""
    kind = schema.get("type", [])
    return kind if isinstance(kind, list) else [kind]


def _type(schema: Schema) -> str | None:
    """The one type that a schema has beside null, None if it leaves that open."""
    kinds = [kind for kind in _kinds(schema) if kind != "null"]
    return kinds[0] if len(kinds) == 1 else None


def _check_values(schema: Schema, steps: Steps) -> None:
    """Refuses what would only be found when the first arguments are checked."""
    if "pattern" in schema:
        _check_pattern(schema["pattern"], (*steps, "pattern"))
    if "required" in schema and not _is_list_of_texts(schema["required"]):
        rule = "is not a list of names; an object's 'required' lists the properties that it needs"
        raise _Refused((*steps, "required"), rule)
    kinds = _kinds(schema)
    if "type" in schema and (not kinds or not _is_list_of_texts(kinds) or not _TYPES.issuperset(kinds)):
        rule = f"{json.dumps(schema['type'])} is no type; known are {', '.join(sorted(_TYPES))}"
        raise _Refused((*steps, "type"), rule)


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


def _check_pattern(pattern: Any, steps: Steps) -> None:
    if not isinstance(pattern, str):
        raise _Refused(steps, f"{json.dumps(pattern)} is no pattern: it is no text")
    try:
        patterns.compiled(pattern)
    except patterns.Untranslatable as error:
        raise _Refused(steps, f"{json.dumps(pattern)} is not a pattern that can be checked: {error}") from error


def _translated(schema: Schema, read_only: set[str]) -> Schema:
    """A converted schema in the words of 2020-12, which needs no property that no request has."""
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(schema.get(exclusive), bool):
            is_exclusive = schema.pop(exclusive)
            if is_exclusive and bound in schema:
                schema[exclusive] = schema.pop(bound)
    if read_only and "required" in schema:
        schema["required"] = [name for name in schema["required"] if name not in read_only]
    return _simplified(_with_items(schema))


def _simplified(schema: Schema) -> Schema:
    """A composition of one schema, with or without null, as that schema: pydantic writes optional values so."""
    for keyword in ("anyOf", "oneOf", "allOf"):
        if keyword not in schema or schema.keys() - _ANNOTATIONS != {keyword}:
            continue
        beside = {name: value for name, value in schema.items() if name != keyword}
        parts: list[Schema] = schema[keyword]
        others = [part for part in parts if part != {"type": "null"}] if keyword != "allOf" else parts
        if len(others) == 1:
            return (others[0] if len(parts) == 1 else _with_null(others[0])) | beside
    return schema


def _with_items(schema: Schema) -> Schema:
    """Some models refuse an array that says nothing about its entries."""
    says_nothing = "array" in _kinds(schema) and not schema.keys() & {"items", "prefixItems"}
    return {**schema, "items": {}} if says_nothing else schema


def _with_null(schema: Schema) -> Schema:
    kinds = _kinds(schema)
    if schema.keys() - _ANNOTATIONS == {"anyOf"}:
        return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}
    if not kinds or schema.keys() & {"allOf", "anyOf", "oneOf", "not", "const"}:
        return {"anyOf": [schema, {"type": "null"}]} if schema.keys() - _ANNOTATIONS else schema
    nullable = {**schema, "type": kinds if "null" in kinds else [*kinds, "null"]}
    if isinstance(schema.get("enum"), list) and None not in schema["enum"]:
        nullable["enum"] = [*schema["enum"], None]
    return nullable


def _merged(schema: Schema) -> Schema:
    """An object that is composed of plain objects, as one plain object; any other schema as it is."""
    parts = [*schema.get("allOf", ()), {name: value for name, value in schema.items() if name != "allOf"}]
    properties = [item for part in parts for item in part.get("properties", {}).items()]
    are_plain = all(part.keys() <= _PLAIN_OBJECT and part.get("type", "object") == "object" for part in parts)
    if "allOf" not in schema or not are_plain or len(dict(properties)) < len(properties):
        return schema
    required: list[str] = []
    for part in parts:
        required += [name for name in part.get("required", ()) if name not in required]
    fields = {name: value for part in parts for name, value in part.items()}
    return {**fields, "type": "object", "properties": dict(properties), "required": required}


def _is_object(schema: Schema) -> bool:
    if "type" in schema:
        return _type(schema) == "object"
    alternatives = schema.get("anyOf") or schema.get("oneOf") or []
    return (
        "properties" in schema
        or any(map(_is_object, schema.get("allOf", ())))
        or (bool(alternatives) and all(map(_is_object, alternatives)))
    )


def _is_plain(schema: Schema) -> bool:
    """Whether an object is a list of properties and takes no others, or does not say that it takes others."""
    closed = {name: value for name, value in schema.items() if (name, value) != ("additionalProperties", False)}
    properties = schema.get("properties", {})
    return bool(properties) and closed.keys() <= _PLAIN_OBJECT and set(schema.get("required", ())) <= properties.keys()
