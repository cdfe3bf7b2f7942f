"""CloudFormation's intrinsic functions as the offline stack computes them."""

from typing import Any

import pytest

from local.deployment.intrinsics import CannotResolve, Resolver, references

RESOLVER = Resolver(
    values={"AWS::Region": "us-east-1", "Size": "small", "List": ["a", "b"]},
    conditions={
        "IsSmall": {"Fn::Equals": [{"Ref": "Size"}, "small"]},
        "IsNotSmall": {"Fn::Not": [{"Condition": "IsSmall"}]},
        "Both": {"Fn::And": [{"Condition": "IsSmall"}, {"Condition": "IsNotSmall"}]},
        "Either": {"Fn::Or": [{"Condition": "IsSmall"}, {"Condition": "IsNotSmall"}]},
    },
    mappings={"Sizes": {"small": {"memory": 128}}},
    attributes={"Table": "table-1", "Table.Arn": "arn:table-1"},
)


@pytest.mark.parametrize(
    ("value", "result"),
    [
        ({"Ref": "Size"}, "small"),
        ({"Ref": "Table"}, "table-1"),
        ({"Fn::GetAtt": ["Table", "Arn"]}, "arn:table-1"),
        ({"Fn::GetAtt": "Table.Arn"}, "arn:table-1"),
        ({"Fn::If": ["IsSmall", 1, 2]}, 1),
        ({"Fn::If": ["IsNotSmall", 1, {"Ref": "Table"}]}, "table-1"),
        ({"Fn::If": ["Both", 1, 2]}, 2),
        ({"Fn::If": ["Either", 1, 2]}, 1),
        ({"a": {"Fn::If": ["IsSmall", {"Ref": "AWS::NoValue"}, 2]}, "b": 1}, {"b": 1}),
        ([{"Fn::If": ["IsSmall", {"Ref": "AWS::NoValue"}, 2]}, 1], [1]),
        ({"Fn::Sub": "${Table.Arn}/${AWS::Region}/${!kept}"}, "arn:table-1/us-east-1/${kept}"),
        ({"Fn::Sub": ["${x}-${Size}", {"x": {"Ref": "Table"}}]}, "table-1-small"),
        ({"Fn::Join": ["-", ["a", {"Ref": "Size"}]]}, "a-small"),
        ({"Fn::Join": ["", {"Ref": "List"}]}, "ab"),
        ({"Fn::Select": [1, {"Fn::Split": [",", "x,y"]}]}, "y"),
        ({"Fn::FindInMap": ["Sizes", {"Ref": "Size"}, "memory"]}, 128),
        (
            {"Condition": {"Bool": {"aws:SecureTransport": "false"}}},
            {"Condition": {"Bool": {"aws:SecureTransport": "false"}}},
        ),
    ],
)
def test_what_is_known_is_computed(value: Any, result: Any) -> None:
    assert RESOLVER.resolve(value) == result


@pytest.mark.parametrize(
    ("value", "result"),
    [
        ({"Ref": "Queue"}, {"Ref": "Queue"}),
        ({"Fn::GetAtt": ["Queue", "Arn"]}, {"Fn::GetAtt": ["Queue", "Arn"]}),
        ({"Fn::Sub": "${Queue.Arn}/${Size}/${!kept}"}, {"Fn::Sub": "${Queue.Arn}/small/${!kept}"}),
        ({"Fn::Sub": ["${q}/${Size}", {"q": {"Ref": "Queue"}}]}, {"Fn::Sub": ["${q}/small", {"q": {"Ref": "Queue"}}]}),
        ({"Fn::Join": ["-", [{"Ref": "Size"}, {"Ref": "Queue"}]]}, {"Fn::Join": ["-", ["small", {"Ref": "Queue"}]]}),
    ],
)
def test_what_is_not_known_yet_stays_for_later(value: Any, result: Any) -> None:
    assert RESOLVER.resolve(value) == result


@pytest.mark.parametrize("value", [{"Fn::ImportValue": "x"}, {"Fn::If": ["Unknown", 1, 2]}])
def test_what_cannot_be_known_is_refused(value: Any) -> None:
    with pytest.raises(CannotResolve):
        RESOLVER.resolve(value)


def test_references_are_found_wherever_they_stand() -> None:
    value = {
        "a": [{"Ref": "One"}, {"Fn::GetAtt": ["Two", "Arn"]}],
        "b": {"Fn::Sub": ["${Three}${four}${!five}", {"four": {"Ref": "Four"}}]},
        "c": {"Fn::Join": ["", [{"Fn::Sub": "${Six.Name}"}]]},
    }
    assert set(references(value)) == {"One", "Two.Arn", "Three", "Four", "Six.Name"}
