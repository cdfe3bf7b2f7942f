"""The query and the body of a request, out of API Gateway's event; the body as the JSON object that it has to be."""

import base64
import binascii
import json
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from turnwright.errors import InvalidRequest


def decoded_body(body: str | None, is_base64: bool) -> bytes:
    """The request body of an API Gateway proxy event."""
    if not body:
        return b""
    if not is_base64:
        return body.encode("utf-8", "surrogatepass")  # where the JSON is read it is refused
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest("body", "is not base64, though the gateway says so") from error


def query_fields(event: Mapping[str, Any], lists: Collection[str] = ()) -> dict[str, Any]:
    """The parameters of the query, those of `lists` with all their values. API Gateway gives the last of the others'
    values; here there may be only one of them.

    Raises InvalidRequest.
    """
    fields: dict[str, Any] = dict(event.get("queryStringParameters") or {})
    for name, values in (event.get("multiValueQueryStringParameters") or {}).items():
        if name in lists:
            fields[name] = values
        elif len(values) > 1:
            raise InvalidRequest(name, f"is in the query {len(values)} times; give it once")
    return fields


def json_object(raw_body: bytes) -> dict[str, Any]:
    """The JSON object that a request's body is; no body is an empty one. Raises InvalidRequest."""
    try:
        fields = json.loads(raw_body or b"{}", parse_constant=_no_constant, object_pairs_hook=_no_repetition)
        json_bytes(fields)
    except UnicodeEncodeError as error:
        raise InvalidRequest("body", "holds half of a surrogate pair, which no UTF-8 text can") from error
    except RecursionError as error:
        raise InvalidRequest("body", "is nested too deeply") from error
    except ValueError as error:
        raise InvalidRequest("body", f"is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise InvalidRequest("body", "is not a JSON object")
    return fields


def json_bytes(value: Any) -> int:
    """The length of a value as JSON, in bytes of UTF-8."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def _no_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise InvalidRequest("body", f"has the field {json.dumps(twice)} twice in one object")
    return fields


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
