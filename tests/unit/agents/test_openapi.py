import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from turnwright.agents import openapi
from turnwright.agents.agent_files import api_schema
from turnwright.agents.definitions import Body, Operation, Parameter

JSON_TYPE, FORM_TYPE = "application/json", "application/x-www-form-urlencoded"


def document(operation: dict[str, Any], *, path: str = "/a", method: str = "post", **fields: Any) -> dict[str, Any]:
    return {"openapi": "3.0.3", "paths": {path: {method: {"operationId": "do_it", **operation}}}, **fields}


def one(given_document: dict[str, Any]) -> Operation:
    operations, findings = openapi.read(given_document)
    assert findings == []
    (operation,) = operations
    Draft202012Validator.check_schema(operation.inputSchema)
    return operation


def refusal(given_document: Any) -> str:
    """The pointer and the rule of the one finding."""
    operations, findings = openapi.read(given_document)
    ((steps, rule),) = findings
    assert operations == []
    return f"{'/'.join(map(str, steps))}: {rule}"


def query(name: str, schema: Any = None, **fields: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema if schema is not None else {"type": "string"}, **fields}


def body(schema: Any, *, required: bool = True, content_type: str = JSON_TYPE) -> dict[str, Any]:
    return {"requestBody": {"required": required, "content": {content_type: {"schema": schema}}}}


def converted(schema: Any, **fields: Any) -> Any:
    """What a schema becomes, as that of a parameter."""
    return one(document({"parameters": [query("q", schema)]}, **fields)).inputSchema["properties"]["q"]


def refused_schema(schema: Any, **fields: Any) -> str:
    found = refusal(document({"parameters": [query("q", schema)]}, **fields))
    return found.removeprefix("paths//a/post/parameters/0/schema")


# ---- Operations ----


def test_an_operation_is_a_tool_with_its_parameters_and_the_properties_of_its_body_as_arguments() -> None:
    found = one(
        {
            "openapi": "3.1.0",
            "paths": {
                "/claims/{id}/notes": {
                    "summary": "Notes",
                    "servers": [{"url": "https://bank"}],
                    "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}],
                    "post": {
                        "operationId": "add_note",
                        "summary": "Not this.",
                        "description": " Adds a note. ",
                        "tags": ["notes"],
                        "security": [{}],
                        "parameters": [
                            query("order", {"type": "string", "enum": ["first", "last"]}, description="Where."),
                            {"name": "X-Tenant", "in": "header", "required": True, "schema": {"type": "string"}},
                            {"name": "authorization", "in": "header", "required": True, "schema": {"type": "string"}},
                        ],
                        **body(
                            {
                                "type": "object",
                                "properties": {
                                    "text": {"type": "string", "maxLength": 9},
                                    "author": {
                                        "type": "object",
                                        "properties": {"name": {"type": "string"}},
                                        "required": ["name"],
                                    },
                                },
                                "required": ["text"],
                                "additionalProperties": False,
                            }
                        ),
                        "responses": {"200": {"description": "OK"}},
                    },
                }
            },
        }
    )

    assert found == Operation(
        name="add_note",
        description="Adds a note.",
        path="/claims/{id}/notes",
        method="POST",
        parameters=(
            Parameter("id", "integer", True),
            Parameter("order", "string", False),
            Parameter("X-Tenant", "string", True),
        ),
        body=Body(JSON_TYPE, {"text": "string", "author": "object"}, required=True, argument=None),
        inputSchema={
            "type": "object",
            "properties": {
                "id": {"type": "integer"},
                "order": {"type": "string", "enum": ["first", "last"], "description": "Where."},
                "X-Tenant": {"type": "string"},
                "text": {"type": "string", "maxLength": 9},
                "author": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
            },
            "required": ["id", "X-Tenant", "text"],
            "additionalProperties": False,
        },
    )
    assert openapi.place_of(found) == ("paths", "/claims/{id}/notes", "post")
    assert Operation.decode(json.loads(json.dumps(found.encode()))) == found


def test_every_method_of_every_path_is_a_tool_in_the_order_of_the_document() -> None:
    paths: dict[str, Any] = {
        "/b": {method: {"operationId": f"b_{method}"} for method in ("trace", "get", "put", "options", "head")},
        "x-notes": "nothing",
        "/a": {method: {"operationId": f"a_{method}"} for method in ("delete", "patch", "post")},
    }

    operations, findings = openapi.read({"openapi": "3.0.0", "paths": paths, "webhooks": {"w": {"post": {}}}})

    assert findings == []
    assert [(one.name, one.method) for one in operations] == [
        ("b_trace", "TRACE"),
        ("b_get", "GET"),
        ("b_put", "PUT"),
        ("b_options", "OPTIONS"),
        ("b_head", "HEAD"),
        ("a_delete", "DELETE"),
        ("a_patch", "PATCH"),
        ("a_post", "POST"),
    ]


def test_a_summary_stands_in_for_a_description() -> None:
    assert one(document({"summary": "Short."})).description == "Short."
    assert one(document({"summary": "Short.", "description": " "})).description == "Short."
    assert one(document({})).description == ""


def test_a_parameter_of_the_operation_replaces_the_paths() -> None:
    given_document = document({"parameters": [query("q", {"type": "integer"})]})
    given_document["paths"]["/a"]["parameters"] = [query("q"), query("r")]

    assert one(given_document).parameters == (Parameter("q", "integer", False), Parameter("r", "string", False))


def test_a_parameter_may_be_a_reference_or_have_json_content() -> None:
    components = {"parameters": {"Page": query("page", {"type": "integer"}, required=True)}}
    filters = {"name": "filter", "in": "query", "content": {JSON_TYPE: {"schema": {"type": "object"}}}}

    found = one(document({"parameters": [{"$ref": "#/components/parameters/Page"}, filters]}, components=components))

    assert found.parameters == (Parameter("page", "integer", True), Parameter("filter", "object", False))


def test_a_path_parameter_is_needed_whether_the_document_says_so_or_not() -> None:
    parameter = {"name": "id", "in": "path", "schema": {"type": "string"}}

    assert one(document({"parameters": [parameter]}, path="/a/{id}")).parameters == (Parameter("id", "string", True),)


NO_TOOL_NAME = "cannot be a tool's name: use 1 to 64 letters, digits, '_' and '-', as models allow for a tool"
NO_ARGUMENT_NAME = (
    "cannot be an argument's name: use 1 to 64 letters, digits, '_', '-' and '.', as models allow for an argument"
)
NO_OBJECT = "is not the schema of an object; Bedrock's event gives a body as a list of its properties"


@pytest.mark.parametrize(
    ("given_document", "found"),
    [
        ([], ": is not an OpenAPI document: it is no object"),
        ({}, "openapi: is null; OpenAPI 3.0 and 3.1 are read"),
        ({"openapi": 3.0}, "openapi: is 3.0; OpenAPI 3.0 and 3.1 are read"),
        ({"openapi": "3.2.0"}, 'openapi: is "3.2.0"; OpenAPI 3.0 and 3.1 are read'),
        ({"openapi": "3.10.0"}, 'openapi: is "3.10.0"; OpenAPI 3.0 and 3.1 are read'),
        ({"swagger": "2.0"}, "openapi: is swagger 2.0; OpenAPI 3.0 and 3.1 are read"),
        ({"openapi": "3.0.0"}, "paths: is missing; it has the operations that become tools"),
        ({"openapi": "3.0.0", "paths": {}}, "paths: has no operation; each becomes a tool"),
        ({"openapi": "3.0.0", "paths": {"/a": {"parameters": []}}}, "paths: has no operation; each becomes a tool"),
        ({"openapi": "3.0.0", "paths": {"a": {}}}, "paths/a: is no path; a path begins with '/'"),
        ({"openapi": "3.0.0", "paths": {"/a": []}}, "paths//a: is not an object of operations"),
        (
            {"openapi": "3.0.0", "paths": {"/a": {"$ref": "#/components/pathItems/A"}}},
            "paths//a/$ref: is not supported for a path; write its operations here",
        ),
        ({"openapi": "3.0.0", "paths": {"/a": {"get": []}}}, "paths//a/get: is not an object"),
        (
            {"openapi": "3.0.0", "paths": {"/a": {"get": {}}}},
            "paths//a/get: has no operationId, which is the tool's name",
        ),
        (
            document({"operationId": "do it"}),
            f'paths//a/post/operationId: "do it" {NO_TOOL_NAME}',
        ),
        (
            document({"operationId": "x" * 65}),
            f'paths//a/post/operationId: "{"x" * 65}" {NO_TOOL_NAME}',
        ),
        (
            document({"x-requireConfirmation": "ENABLED"}),
            "paths//a/post/x-requireConfirmation: is not supported: nothing would ask the user",
        ),
        (document({"parameters": {}}), "paths//a/post/parameters: is not a list"),
        (document({"parameters": ["q"]}), "paths//a/post/parameters/0: is not an object"),
        (
            document({"parameters": [{"name": "q", "in": "body"}]}),
            "paths//a/post/parameters/0: needs a name, and as its 'in' one of path, query and header",
        ),
        (
            document({"parameters": [query("q"), {"name": "c", "in": "cookie", "schema": {}}]}),
            "paths//a/post/parameters/1: is a cookie, which Bedrock's event has no place for",
        ),
        (
            document({"parameters": [query("q"), {"name": "q", "in": "header", "schema": {}}]}),
            "paths//a/post/parameters/1: 'q' is the name of two parameters; Bedrock's event does not tell them apart",
        ),
        (
            document({"parameters": [query("filter[name]")]}),
            f'paths//a/post/parameters/0/name: "filter[name]" {NO_ARGUMENT_NAME}',
        ),
        (
            document({"parameters": [{"name": "q", "in": "query"}]}),
            "paths//a/post/parameters/0: needs a schema of application/json; it has none",
        ),
        (
            document({}, path="/a/{id}"),
            "paths//a/{id}/post: '{id}' of the path is none of its path parameters",
        ),
        (
            document({"parameters": [{"$ref": "#/components/parameters/None"}]}),
            'paths//a/post/parameters/0/$ref: "#/components/parameters/None" leads to nothing',
        ),
        (
            document({"parameters": [{"$ref": "#/paths/~1a/post/parameters/0"}]}),
            "paths//a/post/parameters/0: is a reference to a reference to a reference",
        ),
    ],
)
def test_what_cannot_be_a_tool_is_refused_with_its_place(given_document: Any, found: str) -> None:
    assert refusal(given_document) == found


def test_confirmation_that_is_switched_off_needs_no_support() -> None:
    assert one(document({"x-requireConfirmation": "DISABLED"})).name == "do_it"


def test_every_operation_that_is_refused_is_named_and_the_others_are_read() -> None:
    paths = {"/a": {"get": {}, "put": {"operationId": "good"}}, "/b": {"get": {"operationId": "b b"}}}

    operations, findings = openapi.read({"openapi": "3.0.0", "paths": paths})

    assert [one.name for one in operations] == ["good"]
    assert [steps for steps, _ in findings] == [("paths", "/a", "get"), ("paths", "/b", "get", "operationId")]


# ---- Request bodies ----


TEXT = {"type": "string"}


@pytest.mark.parametrize(
    ("schema", "required"),
    [
        ({"type": "object", "properties": {"a": TEXT}, "additionalProperties": True}, True),
        ({"type": "object", "properties": {"a": TEXT}, "additionalProperties": TEXT}, True),
        ({"type": "object", "properties": {"a": TEXT}, "minProperties": 1}, True),
        ({"type": "object", "properties": {"a": TEXT}, "required": ["b"]}, True),
        ({"type": "object", "properties": {"a": TEXT}, "required": ["a"]}, False),
        ({"type": "object", "properties": {"q": TEXT}}, True),
        ({"type": "object", "properties": {"a b": TEXT}}, True),
        ({"type": "object"}, True),
        ({"oneOf": [{"type": "object", "properties": {"a": TEXT}}, {"properties": {"b": TEXT}}]}, True),
        ({"allOf": [{"properties": {"a": TEXT}}, {"properties": {"a": {"type": "integer"}}}]}, True),
        ({"type": ["object", "null"], "properties": {"a": TEXT}, "maxProperties": 2}, True),
    ],
    ids=range(11),
)
def test_a_body_that_is_no_plain_list_of_properties_is_one_argument(schema: dict[str, Any], required: bool) -> None:
    operation = {"parameters": [query("q")], **body(schema, required=required)}

    found = one(document(operation))

    assert found.body is not None
    assert (found.body.argument, found.body.required) == ("body", required)
    assert found.inputSchema == {
        "type": "object",
        "properties": {"q": TEXT, "body": {**schema, "type": "object"}},
        "required": ["body"] if required else [],
        "additionalProperties": False,
    }


def test_a_body_that_may_be_left_out_and_needs_nothing_is_its_properties() -> None:
    found = one(document(body({"properties": {"a": TEXT, "body": TEXT}}, required=False)))

    assert found.body == Body(JSON_TYPE, {"a": "string", "body": "string"}, required=False, argument=None)
    assert (found.inputSchema["properties"], found.inputSchema["required"]) == ({"a": TEXT, "body": TEXT}, [])


def test_plain_objects_that_a_body_is_composed_of_are_one() -> None:
    components = {"schemas": {"Base": {"type": "object", "properties": {"id": TEXT}, "required": ["id"]}}}
    schema = {
        "allOf": [{"$ref": "#/components/schemas/Base"}, {"properties": {"name": TEXT}, "required": ["name", "id"]}],
        "description": "A thing.",
    }

    found = one(document(body(schema), components=components))

    assert (found.inputSchema["properties"], found.inputSchema["required"]) == (
        {"id": TEXT, "name": TEXT},
        ["id", "name"],
    )


def test_a_body_as_one_argument_has_the_description_of_the_body() -> None:
    operation = body({"type": "object", "description": "Not this."})
    operation["requestBody"]["description"] = "Any fields."

    assert one(document(operation)).inputSchema["properties"]["body"]["description"] == "Any fields."


def test_a_body_may_be_a_reference() -> None:
    components = {"requestBodies": {"B": body({"properties": {"a": TEXT}})["requestBody"]}}

    found = one(document({"requestBody": {"$ref": "#/components/requestBodies/B"}}, components=components))

    assert found.inputSchema["properties"] == {"a": TEXT}


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ([FORM_TYPE], FORM_TYPE),
        ([FORM_TYPE, "text/plain", JSON_TYPE], JSON_TYPE),
        (["Application/JSON; charset=utf-8"], JSON_TYPE),
    ],
    ids=range(3),
)
def test_a_body_is_json_or_else_a_form(offered: list[str], chosen: str) -> None:
    content = {name: {"schema": {"properties": {"a": TEXT}}} for name in offered}

    found = one(document({"requestBody": {"content": content}}))

    assert found.body is not None
    assert found.body.contentType == chosen


@pytest.mark.parametrize(
    ("request_body", "found"),
    [
        ([], ": is not an object"),
        ({}, f": needs a schema of {JSON_TYPE} or {FORM_TYPE}; it has none"),
        ({"content": {"text/xml": {}}}, f": needs a schema of {JSON_TYPE} or {FORM_TYPE}; it has only text/xml"),
        ({"content": {JSON_TYPE: {}}}, "/content/application/json: has no schema"),
        (
            {"content": {JSON_TYPE: {"schema": {"type": "array", "items": TEXT}}}},
            f"/content/application/json/schema: {NO_OBJECT}",
        ),
        (
            {"content": {JSON_TYPE: {"schema": {"anyOf": [{"type": "object"}, TEXT]}}}},
            f"/content/application/json/schema: {NO_OBJECT}",
        ),
    ],
    ids=range(6),
)
def test_a_body_that_an_event_cannot_carry_is_refused(request_body: Any, found: str) -> None:
    assert refusal(document({"requestBody": request_body})) == f"paths//a/post/requestBody{found}"


def test_a_parameter_may_not_have_the_name_of_the_argument_that_is_the_body() -> None:
    operation = {"parameters": [query("body")], **body({"type": "object"})}

    assert refusal(document(operation)).endswith(
        ": has to be the argument 'body', which is the name of a parameter; rename that"
    )


# ---- Schemas ----


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string", "nullable": True}, {"type": ["string", "null"]}),
        ({"type": "string", "nullable": False}, {"type": "string"}),
        (
            {"type": "string", "enum": ["a"], "nullable": True},
            {"type": ["string", "null"], "enum": ["a", None]},
        ),
        ({"type": ["integer", "null"], "nullable": True}, {"type": ["integer", "null"]}),
        ({"nullable": True}, {}),
        ({"enum": ["a"], "nullable": True}, {"anyOf": [{"enum": ["a"]}, {"type": "null"}]}),
        (
            {"anyOf": [{"type": "string"}, {"type": "integer"}], "nullable": True},
            {"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]},
        ),
        (
            {"anyOf": [{"type": "string"}], "nullable": True, "description": "x"},
            {"type": ["string", "null"], "description": "x"},
        ),
        (
            {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
            {"type": ["string", "null"], "default": None},
        ),
        ({"allOf": [{"type": "integer"}], "default": 1}, {"type": "integer", "default": 1}),
        ({"type": "integer", "minimum": 1, "exclusiveMinimum": True}, {"type": "integer", "exclusiveMinimum": 1}),
        ({"type": "integer", "maximum": 1, "exclusiveMaximum": False}, {"type": "integer", "maximum": 1}),
        ({"type": "integer", "exclusiveMaximum": True}, {"type": "integer"}),
        ({"type": "integer", "exclusiveMinimum": 1}, {"type": "integer", "exclusiveMinimum": 1}),
        ({"type": "array"}, {"type": "array", "items": {}}),
        ({"type": "array", "items": {"type": "array"}}, {"type": "array", "items": {"type": "array", "items": {}}}),
        ({"type": "array", "prefixItems": [True, False]}, {"type": "array", "prefixItems": [{}, {"not": {}}]}),
        (
            {"type": "object", "properties": {"title": {"type": "string", "title": "T", "example": "e"}}, "x-a": 1},
            {"type": "object", "properties": {"title": {"type": "string"}}},
        ),
        (
            {"type": "object", "additionalProperties": {"type": "string", "nullable": True}},
            {"type": "object", "additionalProperties": {"type": ["string", "null"]}},
        ),
        (
            {"type": "object", "patternProperties": {"^a": {"nullable": True}}, "additionalProperties": False},
            {"type": "object", "patternProperties": {"^a": {}}, "additionalProperties": False},
        ),
        (
            {
                "type": "object",
                "properties": {
                    "id": {"type": "integer", "readOnly": True},
                    "secret": {"type": "string", "writeOnly": True},
                },
                "required": ["id", "secret"],
            },
            {"type": "object", "properties": {"secret": {"type": "string"}}, "required": ["secret"]},
        ),
        (
            {"oneOf": [{"const": 1}, {"not": {"type": "string"}}], "discriminator": {"propertyName": "kind"}},
            {"oneOf": [{"const": 1}, {"not": {"type": "string"}}]},
        ),
        (True, {}),
    ],
    ids=range(23),
)
def test_a_schema_is_said_in_the_words_of_json_schema_2020_12(schema: Any, expected: Any) -> None:
    assert converted(schema) == expected


@pytest.mark.parametrize(
    ("schema", "found"),
    [
        ([], ": is not a schema: it is no object"),
        ({"items": []}, "/items: is not a schema: it is no object"),
        ({"type": "file"}, '/type: "file" is no type; known are array, boolean, integer, null, number, object, string'),
        ({"type": []}, "/type: [] is no type; known are array, boolean, integer, null, number, object, string"),
        ({"anyOf": []}, "/anyOf: is not a list of schemas"),
        ({"properties": ["a"]}, "/properties: is not an object of schemas"),
        ({"if": {}}, "/if: is not a keyword of a schema that is supported here"),
        ({"$id": "x"}, "/$id: is not a keyword of a schema that is supported here"),
        (
            {"type": "object", "properties": {"a": {"type": "string", "required": True}}},
            "/properties/a/required: is not a list of names; an object's 'required' lists the properties that it needs",
        ),
        (
            {"pattern": "("},
            '/pattern: "(" is not a pattern that can be checked: character 1, (: the group has no end',
        ),
        ({"pattern": "(?P<a>b)"}, '/pattern: "(?P<a>b)" is not a pattern that can be checked: character 1, (?P<a>b): '),
        ({"pattern": 5}, "/pattern: 5 is no pattern: it is no text"),
        ({"items": {"pattern": ["a"]}}, '/items/pattern: ["a"] is no pattern: it is no text'),
        ({"patternProperties": {r"\Z": {}}}, '/patternProperties/\\Z: "\\\\Z" is not a pattern that can be checked: '),
        ({"pattern": "a{99999999999}"}, '/pattern: "a{99999999999}" is not a pattern that can be checked: '),
        ({"patternProperties": {"[": {}}}, '/patternProperties/[: "[" is not a pattern that can be checked: '),
        ({"$ref": "other.json#/A"}, "/$ref: \"other.json#/A\" leads out of the document; only '#/...' is followed"),
        ({"$ref": 1}, "/$ref: 1 leads out of the document; only '#/...' is followed"),
        ({"$ref": "#/components/schemas/A"}, '/$ref: "#/components/schemas/A" leads to nothing'),
        ({"$ref": "#/paths/~1a/post/parameters/9"}, '/$ref: "#/paths/~1a/post/parameters/9" leads to nothing'),
    ],
    ids=range(20),
)
def test_a_schema_that_cannot_be_checked_is_refused_with_its_place(schema: Any, found: str) -> None:
    assert refused_schema(schema).startswith(found)


def schemas(**named: Any) -> dict[str, Any]:
    return {"components": {"schemas": named}}


def ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def test_references_are_resolved_wherever_they_stand() -> None:
    components = schemas(
        Order={"type": "object", "properties": {"lines": {"type": "array", "items": ref("Line")}}},
        Line={"type": "object", "properties": {"kind": ref("Kind")}},
        Kind={"type": "string", "enum": ["a", "b"], "description": "What."},
    )

    assert converted(ref("Order"), **components) == {
        "type": "object",
        "properties": {
            "lines": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"kind": {"type": "string", "enum": ["a", "b"], "description": "What."}},
                },
            }
        },
    }


@pytest.mark.parametrize(
    ("beside", "expected"),
    [
        ({"description": "New."}, {"type": "string", "description": "New."}),
        ({"nullable": True}, {"type": ["string", "null"], "description": "Old."}),
        ({"maxLength": 2}, {"allOf": [{"type": "string", "description": "Old."}, {"maxLength": 2}]}),
        ({"title": "T", "x-a": 1}, {"type": "string", "description": "Old."}),
    ],
    ids=range(4),
)
def test_what_stands_beside_a_reference_counts(beside: dict[str, Any], expected: Any) -> None:
    components = schemas(A={"type": "string", "description": "Old."})

    assert converted({**ref("A"), **beside}, **components) == expected


def test_a_reference_is_a_pointer_with_its_escapes() -> None:
    components = schemas(**{"a/b~c d": {"oneOf": [{"type": "string"}, {"type": "integer"}]}})

    assert converted({"$ref": "#/components/schemas/a~1b~0c%20d/oneOf/1"}, **components) == {"type": "integer"}


def test_a_property_that_is_read_only_by_reference_is_left_out() -> None:
    components = schemas(Id={"type": "string", "readOnly": True}, Link=ref("Id"))
    schema = {"type": "object", "properties": {"a": ref("Link"), "b": {"type": "string"}}, "required": ["a"]}

    assert converted(schema, **components) == {
        "type": "object",
        "properties": {"b": {"type": "string"}},
        "required": [],
    }


def test_a_schema_that_contains_itself_is_unrolled_three_levels() -> None:
    components = schemas(Node={"type": "object", "properties": {"next": ref("Node")}, "additionalProperties": False})

    schema = converted(ref("Node"), **components)

    validator = Draft202012Validator(schema)
    assert validator.is_valid({"next": {"next": {"next": {"anything": {"goes": "here"}}}}})
    assert not validator.is_valid({"next": {"next": {"typo": {}}}})
    assert not validator.is_valid({"next": {"next": {"next": "no object"}}})


@pytest.mark.parametrize(
    "named", [{"A": ref("A")}, {"A": ref("B"), "B": {**ref("A"), "description": "x"}}], ids=["itself", "a circle"]
)
def test_a_reference_that_leads_to_references_alone_is_refused(named: dict[str, Any]) -> None:
    rule = '/$ref: "#/components/schemas/A" leads back to itself, and to no schema'
    assert refused_schema(ref("A"), **schemas(**named)) == rule


def test_a_list_that_contains_itself_ends_in_a_list_of_anything() -> None:
    schema = converted(ref("List"), **schemas(List={"type": "array", "items": ref("List")}))

    assert json.dumps(schema).endswith('"items": {"type": "array", "items": {}}}}}')


def test_a_schema_that_grows_beyond_measure_is_refused() -> None:
    doubling = {f"S{level}": {"allOf": [ref(f"S{level + 1}")] * 2} for level in range(15)}

    found = refused_schema(ref("S0"), **schemas(**doubling, S15={"type": "string"}))

    assert found.endswith(": makes the tool's schema too large: it has more than 2000 parts")


def test_a_schema_that_is_nested_too_deeply_is_refused() -> None:
    chain = {f"S{level}": {"type": "object", "properties": {"a": ref(f"S{level + 1}")}} for level in range(600)}

    found = refused_schema(ref("S0"), **schemas(**chain, S600={"type": "string"}))

    assert found.endswith(": is nested too deeply: the tool's schema has more than 40 levels")


def test_the_deepest_schema_that_is_taken_can_be_checked() -> None:
    schema: dict[str, Any] = {"type": "string"}
    value: Any = "x"
    for _ in range(39):
        schema, value = {"type": "object", "properties": {"a": schema}}, {"a": value}
    found = one(document({"parameters": [query("q", schema)]}))

    assert api_schema(document({"parameters": [query("q", schema)]}))[1] == []
    Draft202012Validator(found.inputSchema).validate({"q": value})


def test_a_fault_in_a_schema_that_is_referred_to_is_named_where_it_stands() -> None:
    components = schemas(A={"type": "object", "properties": {"b": {"type": "date"}}})

    assert refused_schema(ref("A"), **components).startswith("components/schemas/A/properties/b/type: ")


WORDS = st.sampled_from(
    [
        *("type", "properties", "items", "required", "enum", "nullable", "$ref", "allOf", "anyOf", "oneOf", "readOnly"),
        *("additionalProperties", "pattern", "minimum", "exclusiveMinimum", "description", "default", "not", "a"),
    ]
)
SCHEMAS = st.recursive(
    st.sampled_from(["string", "object", "array", "null", "#/components/schemas/A", "#/components/schemas/B", "("])
    | st.none()
    | st.booleans()
    | st.integers(-2, 2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@given(first=SCHEMAS, second=SCHEMAS, at_body=st.booleans())
def test_any_schema_is_either_refused_or_one_that_checks_arguments(first: Any, second: Any, at_body: bool) -> None:
    operation = body(ref("A")) if at_body else {"parameters": [query("q", ref("A"))]}
    given_document = document(operation, **schemas(A=first, B=second))

    if not api_schema(given_document)[1]:
        found = one(given_document)
        validator = Draft202012Validator(found.inputSchema)
        for arguments in ({}, {"q": "x"}, {"q": {"a": [1]}}, {"body": {"a": None}}, {"a": {"a": 1}}):
            assert isinstance(list(validator.iter_errors(arguments)), list)


FIELDS = st.sampled_from(
    [
        *("get", "parameters", "requestBody", "content", JSON_TYPE, "schema", "name", "in", "query", "path", "header"),
        *("operationId", "required", "description", "$ref", "#/components/p", "properties", "type", "object", "q"),
    ]
)
DOCUMENTS = st.recursive(
    FIELDS | st.none() | st.booleans() | st.integers(-2, 2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=4),
    max_leaves=12,
)


@given(item=DOCUMENTS, parameters=DOCUMENTS, request_body=DOCUMENTS, component=DOCUMENTS)
def test_any_document_is_either_read_or_refused(item: Any, parameters: Any, request_body: Any, component: Any) -> None:
    operation = {"operationId": "a", "parameters": parameters, "requestBody": request_body}
    paths = {"/a": item, "/b": {"get": {"operationId": "b", "parameters": parameters}, "put": operation}}

    operations, findings = openapi.read({"openapi": "3.1.0", "paths": paths, "components": {"p": component}})

    assert operations or findings
    assert all(rule and all(isinstance(step, str | int) for step in steps) for steps, rule in findings)
