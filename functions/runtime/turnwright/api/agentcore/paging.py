"""Page tokens: opaque to the caller, bound to the request whose answer gave them.

A token says where the next page begins. It is good for the same request alone: everything but `maxResults` has to be
the same. It gives no access to anything, since a position is only looked for within what the request may read anyway.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from turnwright.api.agentcore.operations import memory_id
from turnwright.api.agentcore.refusals import Invalid, invalid
from turnwright.storage.documents import json_text

Position = list[str]

_UNBOUND = {"maxResults", "nextToken"}
_LONGEST_TOKEN = 8_192


def token(operation: str, fields: Mapping[str, Any], position: Position) -> str:
    """The token of the page that begins behind `position`; `operation` is the name of that which pages."""
    content = json_text([_digest(operation, fields, position), position])
    return base64.urlsafe_b64encode(content.encode()).decode()


def position(operation: str, fields: Mapping[str, Any], parts: int) -> Position | None:
    """Where the page begins that a request asks for, as `parts` strings; None for the first. Raises Invalid."""
    given = fields.get("nextToken")
    if given is None:
        return None
    try:
        content = base64.b64decode(given.encode("ascii"), altchars=b"-_", validate=True)
        digest, found = json.loads(content if len(content) <= _LONGEST_TOKEN else b"")
    except (UnicodeEncodeError, binascii.Error, ValueError, TypeError, RecursionError) as error:
        raise _refused() from error
    is_position = isinstance(found, list) and len(found) == parts and all(isinstance(part, str) for part in found)
    if not is_position or digest != _digest(operation, fields, found):
        raise _refused()
    return list(found)


def _refused() -> Invalid:
    return invalid("nextToken", "is not one that an earlier answer to this request gave")


def _digest(operation: str, fields: Mapping[str, Any], position: Position) -> str:
    bound = {name: value for name, value in fields.items() if name not in _UNBOUND}
    if "memoryId" in bound:
        bound["memoryId"] = memory_id(fields)
    identity = json.dumps([operation, bound, position], sort_keys=True)
    return hashlib.sha256(identity.encode()).hexdigest()[:24]
