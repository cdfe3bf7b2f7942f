"""The memory API's request shapes against botocore's models, and what a broken rule is told as."""

import gzip
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import botocore
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwright.api.agentcore import control_operations, data_operations
from turnwright.api.agentcore.operations import Operation, memory_id
from turnwright.api.agentcore.refusals import Invalid
from turnwright.api.agentcore.shapes import (
    Dictionary,
    Document,
    Flag,
    Listing,
    Moment,
    Real,
    Shape,
    Structure,
    Text,
    Whole,
)
from turnwright.errors import InvalidRequest

OPERATIONS = [("bedrock-agentcore", operation) for operation in data_operations.OPERATIONS] + [
    ("bedrock-agentcore-control", operation) for operation in control_operations.OPERATIONS
]


@cache
def model(service: str) -> dict[str, Any]:
    (path,) = Path(botocore.__file__).parent.glob(f"data/{service}/*/service-2.json*")
    raw = path.read_bytes()
    loaded: dict[str, Any] = json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
    return loaded


def differences(service: str, name: str, ours: Shape, place: str) -> list[str]:
    """Where a shape says something else than botocore's of that name."""
    shapes = model(service)["shapes"]
    theirs = shapes[name]
    limits = {limit: theirs[limit] for limit in ("min", "max") if limit in theirs}
    own = {limit: getattr(ours, limit) for limit in ("min", "max") if getattr(ours, limit, None) is not None}
    if theirs["type"] in ("string", "list", "map"):
        own = {limit: value for limit, value in own.items() if not (limit == "min" and value == 0)}
        limits = {limit: value for limit, value in limits.items() if not (limit == "min" and value == 0)}
    found = [f"{place}: {own} instead of {limits}"] if own != limits else []
    match theirs["type"], ours:
        case "structure", Document() if theirs.get("document"):
            pass
        case "structure", Structure():
            members = theirs["members"]
            if set(members) != {*ours.fields, *ours.unsupported}:
                found.append(f"{place}: other fields: {set(members) ^ {*ours.fields, *ours.unsupported}}")
            if set(theirs.get("required", ())) != set(ours.required):
                found.append(f"{place}: other required fields: {set(theirs.get('required', ())) ^ set(ours.required)}")
            if bool(theirs.get("union")) != ours.union:
                found.append(f"{place}: union differs")
            for field, shape in ours.fields.items():
                found += differences(service, members[field]["shape"], shape, f"{place}.{field}")
        case "list", Listing():
            found += differences(service, theirs["member"]["shape"], ours.entry, f"{place}[]")
        case "map", Dictionary():
            found += differences(service, theirs["key"]["shape"], ours.key, f"{place} keys")
            found += differences(service, theirs["value"]["shape"], ours.entry, f"{place} values")
        case "string", Text():
            if (ours.pattern or None) != theirs.get("pattern") or set(ours.choices) != set(theirs.get("enum", ())):
                found.append(f"{place}: pattern or enum differs")
        case ("integer", Whole()) | ("boolean", Flag()) | ("timestamp", Moment()) | ("double", Real()):
            pass
        case kind, _:
            found.append(f"{place}: {type(ours).__name__} for a {kind}")
    return found


@pytest.mark.parametrize(("service", "operation"), OPERATIONS, ids=[operation.name for _, operation in OPERATIONS])
def test_a_request_has_the_fields_and_limits_of_botocores_model(service: str, operation: Operation) -> None:
    theirs = model(service)["operations"][operation.name]
    shape = theirs["input"]["shape"]
    members = model(service)["shapes"][shape]["members"]
    query = [name for name, member in members.items() if member.get("location") == "querystring"]

    assert differences(service, shape, operation.request, operation.name) == []
    assert sorted(operation.query) == sorted(query)
    assert operation.status == theirs["http"]["responseCode"]


def test_every_memory_operation_that_clients_use_is_there() -> None:
    of_memory = {
        name
        for name, operation in model("bedrock-agentcore")["operations"].items()
        if operation["http"]["requestUri"].startswith("/memories")
    }
    assert of_memory - {"IngestData"} == {operation.name for operation in data_operations.OPERATIONS}


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
    assert data_operations.CREATE_EVENT.read(event(data_operations.CREATE_EVENT, {**GOOD, "branch": None})) == {
        **GOOD,
        "memoryId": "Store-0123456789",
    }
    read = data_operations.GET_RECORD.read(
        event(
            data_operations.GET_RECORD,
            query={"namespace": "/a/", "X-Amz-Signature": "signed"},
            memoryId="Store-0123456789",
            memoryRecordId="mem-" + "0" * 36,
        )
    )
    assert read == {"memoryId": "Store-0123456789", "memoryRecordId": "mem-" + "0" * 36, "namespace": "/a/"}


def test_ids_in_a_path_are_decoded_and_an_arn_names_its_memory() -> None:
    fields = data_operations.GET_EVENT.read(
        event(
            data_operations.GET_EVENT,
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
        ({"actorId": "a#b"}, ("actorId", f"does not match the pattern {data_operations.ACTOR_ID.pattern}")),
        ({"actorId": None}, ("actorId", "is missing")),
        ({"sessionId": "ß"}, ("sessionId", f"does not match the pattern {data_operations.SESSION_ID.pattern}")),
        ({"eventTimestamp": "now"}, ("eventTimestamp", "is not a number of seconds since 1970")),
        ({"eventTimestamp": -1}, ("eventTimestamp", "is not between 0 and 253402300799 seconds since 1970")),
        ({"eventTimestamp": True}, ("eventTimestamp", "is not a number of seconds since 1970")),
        ({"payload": [{"blob": 1}] * 101}, ("payload", "has 101 entries; at most 100 are taken")),
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
        ({"metadata": {"k": {"stringValue": "é"}}}, ("metadata.k.stringValue", None)),
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
        data_operations.CREATE_EVENT.read(event(data_operations.CREATE_EVENT, GOOD | change))
    (found,) = refused.value.findings
    assert found.field == finding[0]
    assert finding[1] in (None, found.rule)
    assert refused.value.body["fieldList"] == [{"name": found.field, "message": found.rule}]
    assert refused.value.body["reason"] == "FieldValidationFailed"


def test_all_broken_rules_are_told_at_once() -> None:
    with pytest.raises(Invalid) as refused:
        data_operations.CREATE_EVENT.read(event(data_operations.CREATE_EVENT, {"payload": 1, "x": 2}))
    assert sorted(finding.field for finding in refused.value.findings) == ["actorId", "eventTimestamp", "payload", "x"]
    assert str(refused.value).startswith("4 fields break a rule: ")


@pytest.mark.parametrize("body", ["[", "[]", '{"a": NaN}', '{"a": 1, "a": 2}', '{"a": "\\ud800"}', "[" * 100_000])
def test_a_body_that_is_no_json_object_is_refused(body: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^body: "):
        data_operations.CREATE_EVENT.read(event(data_operations.CREATE_EVENT, body))


def _fits(actor: str) -> bool:
    return len(actor) < 256


@given(st.from_regex(re.compile(str(data_operations.ACTOR_ID.pattern), re.ASCII), fullmatch=True).filter(_fits))
def test_every_actor_id_of_the_pattern_comes_through_a_path(actor: str) -> None:
    from urllib.parse import quote

    path = {"memoryId": "Store-0123456789", "actorId": quote(actor, safe=""), "sessionId": "s"}
    assert (
        data_operations.LIST_EVENTS.read(event(data_operations.LIST_EVENTS, {}, query=None, **path))["actorId"] == actor
    )
