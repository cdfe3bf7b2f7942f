"""The memory API's operations against botocore's models, and what a broken rule is told as."""

import json
import re
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.deployment import agentcore_model
from turnwright.api.agentcore.event_payloads import TEXT_CHARACTERS
from turnwright.api.agentcore.operations import FILE, UNSUPPORTED, Operation, memory_id, operations
from turnwright.api.agentcore.refusals import Invalid, NotThere, Refusal, Throttled, invalid
from turnwright.api.agentcore.routes import answer
from turnwright.api.agentcore.validation import NOTHING, Schema
from turnwright.errors import InvalidRequest

CREATE_EVENT = operations()["CreateEvent"]
ACTOR_ID, SESSION_ID = (CREATE_EVENT.request["properties"][name]["pattern"] for name in ("actorId", "sessionId"))


ARN = "arn:aws:bedrock-agentcore:us-east-1:123456789012:memory/Store-0123456789"

model = cache(agentcore_model.service_model)


def test_the_operations_are_those_of_the_installed_botocore() -> None:
    assert FILE.read_text() == agentcore_model.text(), f"{agentcore_model.__name__} has to write {FILE.name} anew"


LIMITS = {
    "minLength": "min",
    "minItems": "min",
    "minimum": "min",
    "maxLength": "max",
    "maxItems": "max",
    "maximum": "max",
}
TYPES = {"list": "array", "map": "object", "structure": "object", "double": "number", "timestamp": "number"}


def differences(service: str, name: str, ours: Schema, place: str) -> list[str]:
    """Where a schema says something else than botocore's shape of that name."""
    shapes = model(service)["shapes"]
    theirs = shapes[name]
    kind = theirs["type"]
    if theirs.get("document"):
        return [] if ours == {} else [f"{place}: a document may be anything"]
    if ours["type"] != TYPES.get(kind, kind):
        return [f"{place}: {ours['type']} for a {kind}"]
    limits = {limit: theirs[limit] for limit in ("min", "max") if theirs.get(limit)}
    names = LIMITS | ({"minProperties": "min", "maxProperties": "max"} if kind == "map" else {})
    own = {names[keyword]: value for keyword, value in ours.items() if keyword in names and kind != "timestamp"}
    found = [f"{place}: {own} instead of {limits}"] if own != limits else []
    match kind:
        case "structure":
            members, fields = theirs["members"], ours["properties"]
            if set(members) != set(fields) or ours["additionalProperties"] is not False:
                found.append(f"{place}: other fields: {set(members) ^ set(fields)}")
            if set(theirs.get("required", ())) != set(ours.get("required", ())):
                found.append(f"{place}: other required fields")
            if bool(theirs.get("union")) != (ours.get("minProperties") == ours.get("maxProperties") == 1):
                found.append(f"{place}: union differs")
            for field, schema in fields.items():
                if schema == NOTHING and field in UNSUPPORTED:
                    continue
                found += differences(service, members[field]["shape"], schema, f"{place}.{field}")
        case "list":
            found += differences(service, theirs["member"]["shape"], ours["items"], f"{place}[]")
        case "map":
            found += differences(service, theirs["key"]["shape"], ours["propertyNames"], f"{place} keys")
            found += differences(service, theirs["value"]["shape"], ours["additionalProperties"], f"{place} values")
        case "string":
            if ours.get("pattern") != theirs.get("pattern") or ours.get("enum") != theirs.get("enum"):
                found.append(f"{place}: pattern or enum differs")
    return found


@pytest.mark.parametrize("name", operations())
def test_a_request_has_the_fields_and_limits_of_botocores_model(name: str) -> None:
    operation = operations()[name]
    theirs = model(operation.service)["operations"][name]
    shape = theirs["input"]["shape"]
    members = model(operation.service)["shapes"][shape]["members"]
    query = [field for field, member in members.items() if member.get("location") == "querystring"]

    assert differences(operation.service, shape, operation.request, name) == []
    assert sorted(operation.query) == sorted(query)
    assert operation.status == theirs["http"]["responseCode"]
    assert set(operation.errors) == {error["shape"] for error in theirs["errors"]}


@pytest.mark.parametrize("service", ["bedrock-agentcore", "bedrock-agentcore-control"])
def test_every_memory_operation_that_clients_use_is_there(service: str) -> None:
    of_memory = {
        name
        for name, operation in model(service)["operations"].items()
        if operation["http"]["requestUri"].startswith(("/memories", "/tags"))
    }
    assert of_memory == {name for name, each in operations().items() if each.service == service}


def test_the_texts_of_a_turn_are_as_long_as_create_event_takes_them() -> None:
    entry = CREATE_EVENT.request["properties"]["payload"]["items"]["properties"]["conversational"]
    assert entry["properties"]["content"]["properties"]["text"]["maxLength"] == TEXT_CHARACTERS


def event(
    operation: Operation, body: Any = None, *, query: dict[str, str] | None = None, **path: str
) -> dict[str, Any]:
    return {
        "resource": operation.path,
        "pathParameters": path or {"memoryId": "Store-0123456789"},
        "queryStringParameters": query,
        "body": None if body is None else body if isinstance(body, str) else json.dumps(body),
    }


GOOD = {
    "actorId": "user/1:x",
    "sessionId": "s-1",
    "eventTimestamp": 1_790_000_000.25,
    "payload": [{"conversational": {"role": "USER", "content": {"text": "Hi"}}}, {"blob": {"any": [1, None]}}],
}


def test_a_request_is_its_body_its_path_and_its_query() -> None:
    assert CREATE_EVENT.read(event(CREATE_EVENT, {**GOOD, "branch": None})) == {
        **GOOD,
        "memoryId": "Store-0123456789",
    }
    read = operations()["GetMemoryRecord"].read(
        event(
            operations()["GetMemoryRecord"],
            query={"namespace": "/a/", "X-Amz-Signature": "signed"},
            memoryId="Store-0123456789",
            memoryRecordId="mem-" + "0" * 36,
        )
    )
    assert read == {"memoryId": "Store-0123456789", "memoryRecordId": "mem-" + "0" * 36, "namespace": "/a/"}


def test_a_parameter_that_is_in_the_query_twice_is_refused() -> None:
    operation = operations()["GetMemoryRecord"]
    twice = event(operation, query={"namespace": "/b/"}) | {
        "multiValueQueryStringParameters": {"namespace": ["/a/", "/b/"]}
    }
    with pytest.raises(InvalidRequest, match="namespace: is in the query 2 times; give it once"):
        operation.read(twice)


def test_a_null_counts_as_absent_but_in_a_document() -> None:
    payload = [
        {"conversational": None, "blob": {"x": None}},
        {"json": {"content": [None]}, "blob": None},
    ]
    body = {**GOOD, "payload": payload, "branch": {"name": "b", "rootEventId": None}, "extractionConfig": None}
    read = CREATE_EVENT.read(event(CREATE_EVENT, body))
    assert read["payload"] == [{"blob": {"x": None}}, {"json": {"content": [None]}}]
    assert read["branch"] == {"name": "b"}
    assert "extractionConfig" not in read


def test_ids_in_a_path_are_decoded_and_an_arn_names_its_memory() -> None:
    fields = operations()["GetEvent"].read(
        event(
            operations()["GetEvent"],
            memoryId="arn%3Aaws%3Abedrock-agentcore%3Aus-east-1%3A123456789012%3Amemory%2FStore-0123456789",
            actorId="user%2F1%3Ax",
            sessionId="s-1",
            eventId="0001790000000000%23abcdef01",
        )
    )
    assert memory_id(fields) == "Store-0123456789"
    assert (fields["actorId"], fields["eventId"]) == ("user/1:x", "0001790000000000#abcdef01")


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({"actorId": ""}, ("actorId", "has 0 characters; at least 1 must be there")),
        ({"actorId": "a" * 256}, ("actorId", "has 256 characters; at most 255 are taken")),
        ({"actorId": "a#b"}, ("actorId", f"does not match the pattern {ACTOR_ID}")),
        ({"actorId": None}, ("actorId", "is missing")),
        ({"actorId": "a\n"}, ("actorId", f"does not match the pattern {ACTOR_ID}")),
        ({"sessionId": "ß"}, ("sessionId", f"does not match the pattern {SESSION_ID}")),
        ({"eventTimestamp": "now"}, ("eventTimestamp", "is not a number of seconds since 1970")),
        ({"eventTimestamp": -1}, ("eventTimestamp", "is not between 0 and 253402300799 seconds since 1970")),
        ({"eventTimestamp": True}, ("eventTimestamp", "is not a number of seconds since 1970")),
        ({"eventTimestamp": 10**400}, ("eventTimestamp", None)),
        ({"payload": [{"blob": 1}, {"json": {"content": None}}]}, ("payload[1].json.content", "is missing")),
        ({"payload": [1] * 101}, ("payload", "has 101 entries; at most 100 are taken")),
        (
            {"payload": [{"blob": 1, "json": {"content": 1}}]},
            ("payload[0]", "has not exactly one of conversational, blob, json"),
        ),
        (
            {"payload": [{"conversational": {"role": "USER", "content": {"text": "x" * 100_001}}}]},
            ("payload[0].conversational.content.text", "has 100001 characters; at most 100000 are taken"),
        ),
        (
            {"payload": [{"conversational": {"role": "user", "content": {"text": "x"}}}]},
            ("payload[0].conversational.role", "is not one of ASSISTANT, USER, TOOL, OTHER"),
        ),
        (
            {"metadata": {str(n): {"stringValue": ""} for n in range(16)}},
            ("metadata", "has 16 entries; at most 15 are taken"),
        ),
        (
            {"metadata": dict.fromkeys(map(str, range(16)))},
            ("metadata", "has 16 entries; at most 15 are taken"),
        ),
        ({"metadata": {"k": {"stringValue": "é"}}}, ("metadata.k.stringValue", None)),
        ({"metadata": {"k": {"stringValue": "\u2003"}}}, ("metadata.k.stringValue", None)),
        ({"metadata": {"é": {"stringValue": "x"}}}, ("metadata key 'é'", None)),
        ({"extractionMode": "NOW"}, ("extractionMode", "is not one of SKIP")),
        ({"extractionConfig": {}}, ("extractionConfig", None)),
        ({"branch": {"rootEventId": "1#a"}}, ("branch.name", "is missing")),
        ({"unknown": 1}, ("unknown", "is not a field of this request")),
        ({"branch": {"name": "b", "more": 1}}, ("branch.more", "is not a field of this request")),
        ({"memoryId": "Store-0123456789"}, ("memoryId", "is not a field of this request's body")),
    ],
)
def test_a_broken_rule_is_told_with_its_field(change: dict[str, Any], finding: tuple[str, str | None]) -> None:
    with pytest.raises(Invalid) as refused:
        CREATE_EVENT.read(event(CREATE_EVENT, GOOD | change))
    (found,) = refused.value.findings
    assert found.field == finding[0]
    assert finding[1] in (None, found.rule)
    assert refused.value.body["fieldList"] == [{"name": found.field, "message": found.rule}]
    assert refused.value.body["reason"] == "FieldValidationFailed"


def test_all_broken_rules_are_told_at_once() -> None:
    with pytest.raises(Invalid) as refused:
        CREATE_EVENT.read(event(CREATE_EVENT, {"payload": 1, "x": 2}))
    assert sorted(finding.field for finding in refused.value.findings) == ["actorId", "eventTimestamp", "payload", "x"]
    assert str(refused.value).startswith("4 fields break a rule: ")


def test_no_more_than_twenty_broken_rules_are_told() -> None:
    with pytest.raises(Invalid) as refused:
        CREATE_EVENT.read(event(CREATE_EVENT, GOOD | {str(n): 1 for n in range(30)}))
    assert [finding.field for finding in refused.value.findings] == [str(n) for n in range(20)]


@pytest.mark.parametrize("number", ["1.0", "1e999", "true", '"1"'])
def test_what_is_no_integer_is_refused(number: str) -> None:
    with pytest.raises(Invalid, match=r"^maxResults: is not an integer$"):
        operations()["ListActors"].read(event(operations()["ListActors"], f'{{"maxResults": {number}}}'))


def test_an_infinite_number_is_none() -> None:
    expression = (
        '{"left": {"metadataKey": "k"}, "operator": "LESS_THAN", "right": {"metadataValue": {"numberValue": 1e999}}}'
    )
    with pytest.raises(Invalid, match=r"^metadataFilters\[0\].right.metadataValue.numberValue: is not a number$"):
        operations()["ListMemoryRecords"].read(
            event(operations()["ListMemoryRecords"], f'{{"metadataFilters": [{expression}]}}')
        )


@pytest.mark.parametrize("body", ["[", "[]", '{"a": NaN}', '{"a": 1, "a": 2}', '{"a": "\\ud800"}', "[" * 100_000])
def test_a_body_that_is_no_json_object_is_refused(body: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^body: "):
        CREATE_EVENT.read(event(CREATE_EVENT, body))


@pytest.mark.parametrize("depth", range(900, 1_100, 7))
def test_a_body_of_any_depth_is_refused_as_a_request(depth: int) -> None:
    """At some depths JSON can be read, but what jsonschema says of it cannot be written."""
    text = f'{{"payload": [{{"conversational": {{"content": {{"text": {"[" * depth}{"]" * depth}}}}}}}]}}'
    with pytest.raises((Invalid, InvalidRequest)):
        CREATE_EVENT.read({"body": text, "pathParameters": {"memoryId": "memory-0123456789"}})


def test_a_field_of_any_name_is_refused_in_few_words() -> None:
    with pytest.raises(Invalid) as refused:
        CREATE_EVENT.read({"body": json.dumps({"x" * 100_000: 1}), "pathParameters": {"memoryId": "memory-0123456789"}})
    assert len(str(refused.value.findings)) < 2_000


def _fits(actor: str) -> bool:
    return len(actor) < 256


@given(st.from_regex(re.compile(ACTOR_ID, re.ASCII), fullmatch=True).filter(_fits))
def test_every_actor_id_of_the_pattern_comes_through_a_path(actor: str) -> None:
    from urllib.parse import quote

    path = {"memoryId": "Store-0123456789", "actorId": quote(actor, safe=""), "sessionId": "s"}
    assert (
        operations()["ListEvents"].read(event(operations()["ListEvents"], {}, query=None, **path))["actorId"] == actor
    )


@pytest.mark.parametrize("name", operations())
@pytest.mark.parametrize(
    "error",
    [Throttled("busy"), Refusal("broken"), invalid("a", "is b"), NotThere("nothing")],
    ids=lambda error: error.name,
)
def test_a_refusal_has_the_name_that_the_operation_declares(name: str, error: Refusal) -> None:
    operation = replace(operations()[name], request={"type": "object", "properties": {"tagKeys": {}, "namespace": {}}})

    def action(_: dict[str, Any]) -> dict[str, Any]:
        raise error

    given = answer(operation, action, {"resource": operation.path})
    told = json.loads(given.body)["__type"]
    if not isinstance(error, NotThere) or "ResourceNotFoundException" in operation.errors:
        assert told in operation.errors
    assert given.headers["x-amzn-ErrorType"] == told


def test_a_list_in_the_query_has_all_its_values() -> None:
    untag = operations()["UntagResource"]
    request = event(untag, None, query={"tagKeys": "b"}, resourceArn=ARN.replace("/", "%2F"))
    request["multiValueQueryStringParameters"] = {"tagKeys": ["a", "b"]}
    assert untag.read(request) == {"resourceArn": ARN, "tagKeys": ["a", "b"]}
    with pytest.raises(Invalid, match="tagKeys: is missing"):
        untag.read(event(untag, None, resourceArn=ARN))
