"""Which requests come from this machine's own programs and pages, and which from a page of another site.

Whatever web page is open in a browser here can send requests to 127.0.0.1. It cannot hide where it is from: what it
writes to another site carries its `Origin`, and if it lets its own name point here instead, to read too (DNS
rebinding), that name is the `Host`.
"""

from urllib.parse import urlsplit

_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})

REFUSAL = "The offline stack serves programs and pages of this machine only: call it at 127.0.0.1 or localhost."


def is_loopback(host: str | None) -> bool:
    """Whether a Host header names this machine's loopback interface, with or without a port. Names below
    `localhost` (a bucket's, say) are nobody's to point elsewhere: RFC 6761.
    """
    try:
        name = urlsplit(f"//{host}").hostname if host else None
    except ValueError:
        return False
    return name is not None and (name in _NAMES or name.endswith(".localhost"))


def is_foreign(host: str | None, origin: str | None) -> bool:
    """Whether a request with these headers is one of another site's page. Programs send no Origin."""
    if not is_loopback(host):
        return True
    if origin is None:
        return False
    scheme, separator, name = origin.partition("://")
    return not (separator and scheme in ("http", "https") and is_loopback(name))
