"""How much of session attributes there may be: they are kept in the session's item and in each turn's header.

An item takes 400 KB, and the header is read often while its turn runs. Bounds are bytes of JSON.
"""

import json
from collections.abc import Mapping

from turnwright.errors import InvalidRequest

ATTRIBUTES_BYTES = 32 * 1024
"""The most that one request, or one answer of a tool, may carry of each kind."""

SESSION_BYTES = 64 * 1024
"""The most that a session keeps, merged from all its turns."""


def size(attributes: Mapping[str, str]) -> int:
    """Bytes of JSON."""
    return len(json.dumps(attributes, ensure_ascii=False, separators=(",", ":")).encode())


def check_session(attributes: Mapping[str, str]) -> None:
    """Raises InvalidRequest if a session cannot keep what a request has made of its attributes."""
    if size(attributes) > SESSION_BYTES:
        raise InvalidRequest(
            "sessionState.sessionAttributes",
            f"make {size(attributes)} bytes of JSON with those that the session has; it keeps at most {SESSION_BYTES}",
        )


def growth_allowed(session: Mapping[str, str], calls: int) -> int:
    """By how many bytes each of `calls` tools, running side by side, may make the session's attributes longer.

    None of them knows what the others will answer; so much for each, and all of them together fit.
    """
    return max(0, SESSION_BYTES - size(session)) // calls
