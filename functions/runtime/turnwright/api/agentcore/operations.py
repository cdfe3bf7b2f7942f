"""An operation of the memory API: its route, its request's shape, and how a request is read from a proxy event.

API Gateway has matched the route already, and its `resource` says which. Routes are never matched again on the path:
an actor id may hold slashes, so that a decoded path can be read in several ways.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from turnwright.api.agentcore.refusals import Finding, Invalid
from turnwright.api.agentcore.shapes import Structure
from turnwright.api.request_bodies import decoded_body, json_object

_PARAMETER = re.compile(r"\{(\w+)\}")
_SIGNATURE = "x-amz-"
"""What the names of a presigned URL's own query parameters begin with, in lower case."""


@dataclass(frozen=True, slots=True)
class Operation:
    """`path` is API Gateway's resource, without a trailing slash. `query` names what comes in the query string."""

    name: str
    method: str
    path: str
    request: Structure
    query: tuple[str, ...] = ()
    status: int = 200

    @property
    def path_parameters(self) -> tuple[str, ...]:
        return tuple(_PARAMETER.findall(self.path))

    def read(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """The request's fields, by the model's names, checked. Raises InvalidRequest or Invalid.

        Path parameters come as they were sent or decoded: no id has a percent sign in it, so that decoding does no
        harm.
        """
        body = json_object(decoded_body(event.get("body"), bool(event.get("isBase64Encoded"))))
        elsewhere = {*self.path_parameters, *self.query}
        query = {
            name: value
            for name, value in (event.get("queryStringParameters") or {}).items()
            if not name.lower().startswith(_SIGNATURE)
        }
        misplaced = [Finding(name, "is not a field of this request's body") for name in body if name in elsewhere]
        misplaced += [
            Finding(name, "is not a query parameter of this request") for name in query if name not in self.query
        ]
        if misplaced:
            raise Invalid(misplaced)
        path = {name: unquote(value) for name, value in (event.get("pathParameters") or {}).items()}
        return self.request.read({**body, **query, **path})


def memory_id(fields: Mapping[str, Any]) -> str:
    """The id of the memory store; a request may name it by its ARN."""
    return str(fields["memoryId"]).rpartition("/")[2]
