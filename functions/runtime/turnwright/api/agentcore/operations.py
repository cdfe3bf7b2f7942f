"""The operations of AgentCore's memory API: their routes, their requests' schemas, and how a request is read.

`operations.json` has them as botocore's service models do; `python -m local.deployment.agentcore_model` writes it. Here
stands what this runtime takes less of.

API Gateway has matched the route already, and its `resource` says which. Routes are never matched again on the path:
an actor id may hold slashes, so that a decoded path can be read in several ways.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from turnwright.api.agentcore.refusals import Finding, Invalid
from turnwright.api.agentcore.validation import Check, Schema
from turnwright.api.request_bodies import decoded_body, json_object, query_fields

FILE = Path(__file__).with_suffix(".json")
"""`{service: {"operations": {name: {the fields of `Operation`}}, "$defs": {shape: schema}}}`"""

LATEST_SECONDS = 253_402_300_799
"""The last second of the year 9999, behind which clients cannot read a timestamp."""

_NO_EPISODES = "is not supported: the strategies are semantic, summary, userPreference and overrides of these"
_VARIABLES = "namespaces have no variables but {actorId}, {sessionId} and {memoryStrategyId}"

UNSUPPORTED = {
    "encryptionKeyArn": "is not supported: the table and the bucket are encrypted as the stack's template says",
    "episodicConsolidationOverride": _NO_EPISODES,
    "episodicExtractionOverride": _NO_EPISODES,
    "episodicMemoryStrategy": _NO_EPISODES,
    "episodicOverride": _NO_EPISODES,
    "extractionConfig": f"is not supported: {_VARIABLES}",
    "memoryRecordSchema": "is not supported: records get no metadata but what a caller gives them",
    "namespaceKeys": f"are not supported: {_VARIABLES}",
    "reflection": _NO_EPISODES,
    "selfManagedConfiguration": "is not supported: a strategy's pipeline is this runtime's own; "
    "BatchCreateMemoryRecords writes records",
    "streamDeliveryResources": "is not supported: records are not delivered to a stream",
}
"""Fields of AgentCore's that this runtime does not have, and why; the schemas allow nothing there."""

_PARAMETER = re.compile(r"\{(\w+)\}")
_SIGNATURE = "x-amz-"
"""What the names of a presigned URL's own query parameters begin with, in lower case."""


@dataclass(frozen=True)
class Operation:
    """`path` is API Gateway's resource, without a trailing slash. `query` names what comes in the query string,
    `errors` the error shapes that the operation may answer with.
    """

    service: str
    name: str
    method: str
    path: str
    query: list[str]
    status: int
    errors: list[str]
    request: Schema

    @property
    def path_parameters(self) -> tuple[str, ...]:
        return tuple(_PARAMETER.findall(self.path))

    @cached_property
    def _check(self) -> Check:
        return Check(self.request, UNSUPPORTED)

    def read(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """The request's fields, by the model's names, checked. Raises InvalidRequest or Invalid.

        Path parameters come as they were sent or decoded: no id has a percent sign in it, so that decoding does no
        harm.
        """
        body = json_object(decoded_body(event.get("body"), bool(event.get("isBase64Encoded"))))
        elsewhere = {*self.path_parameters, *self.query}
        lists = [name for name in self.query if self.request["properties"][name].get("type") == "array"]
        given = query_fields(event, lists)
        query = {name: value for name, value in given.items() if not name.lower().startswith(_SIGNATURE)}
        misplaced = [Finding(name, "is not a field of this request's body") for name in body if name in elsewhere]
        misplaced += [
            Finding(name, "is not a query parameter of this request") for name in query if name not in self.query
        ]
        if misplaced:
            raise Invalid(misplaced)
        path = {name: unquote(value) for name, value in (event.get("pathParameters") or {}).items()}
        return self._check.read({**body, **query, **path})


def memory_id(fields: Mapping[str, Any]) -> str:
    """The id of the memory store; a request may name it by its ARN."""
    return str(fields["memoryId"]).rpartition("/")[2]


def milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def seconds(milliseconds: int) -> float:
    """A moment as the wire has it."""
    return milliseconds / 1000


@cache
def operations() -> Mapping[str, Operation]:
    """All of them by name; no operation of one service has the name of another's."""
    return {
        name: Operation(service, name, **{**operation, "request": _inlined(operation["request"], model["$defs"])})
        for service, model in json.loads(FILE.read_text()).items()
        for name, operation in model["operations"].items()
    }


def _inlined(schema: Any, definitions: Mapping[str, Schema]) -> Any:
    """The schema with definitions in place of references; none of them refers to itself."""
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].removeprefix("#/$defs/")], definitions)
    return {keyword: _inlined(value, definitions) for keyword, value in schema.items()}
