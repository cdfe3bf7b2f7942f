"""Which requests a listener of the offline stack takes: those of this machine's own programs and pages, well framed.

Whatever web page is open in a browser here can send requests to 127.0.0.1. It cannot hide where it is from: what it
writes to another site carries its `Origin`, and if it lets its own name point here instead, to read too (DNS
rebinding), that name is the `Host`.

A request whose length is doubtful is refused too, before any of its body is read: RFC 9112, section 6.3.
"""

import re
import socket
from contextlib import suppress
from email.message import Message
from http.server import BaseHTTPRequestHandler
from typing import ClassVar
from urllib.parse import urlsplit

_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})

_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK_SIZE = re.compile(rb"[0-9a-fA-F]{1,15}")
_LONGEST_GOODBYE = 64 * 1024 * 1024
_GOODBYE_SECONDS = 1.0

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


def chunk_size(line: bytes) -> int | None:
    """The size in the first line of a chunk; None if there is none."""
    size = line.split(b";")[0].strip()
    return int(size, 16) if _CHUNK_SIZE.fullmatch(size) else None


class ThisMachinesRequests(BaseHTTPRequestHandler):
    """A handler that refuses other sites' requests, and those that are badly framed, before a `do_` method sees them.

    What comes through has one Host, and either no body, or a Content-Length, or, where a handler takes them, chunks.
    """

    takes_chunks: ClassVar[bool] = False
    largest_body: ClassVar[int | None] = None
    """Bytes by Content-Length; None for a handler that looks at the length itself."""

    def refuse(self, status: int, message: str) -> None:
        """Answers a request that is not taken. The connection is closed after it."""
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(message)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(message.encode())

    def parse_request(self) -> bool:
        return super().parse_request() and self._is_taken()

    def handle_expect_100(self) -> bool:
        return self._is_taken() and super().handle_expect_100()

    def _is_taken(self) -> bool:
        refusal = _refusal(self.headers, takes_chunks=self.takes_chunks, largest_body=self.largest_body)
        if refusal is None:
            return True
        self.close_connection = True
        with suppress(OSError):
            self.refuse(*refusal)
            self.wfile.flush()
            self._hear_out()
        return False

    def _hear_out(self) -> None:
        """Reads what is under way: a connection that is closed before may lose its answer."""
        self.connection.shutdown(socket.SHUT_WR)
        self.connection.settimeout(_GOODBYE_SECONDS)
        heard = 0
        while heard < _LONGEST_GOODBYE and (piece := self.connection.recv(65536)):
            heard += len(piece)


def _refusal(headers: "Message[str, str]", *, takes_chunks: bool, largest_body: int | None) -> tuple[int, str] | None:
    """The status and the reason with which a request is refused; None if it is taken."""
    hosts, origins = headers.get_all("Host", []), headers.get_all("Origin", [None])
    if len(hosts) > 1:
        return 400, "The request has more than one Host."
    if any(is_foreign(hosts[0] if hosts else None, origin) for origin in origins):
        return 403, REFUSAL
    lengths, encodings = headers.get_all("Content-Length", []), headers.get_all("Transfer-Encoding", [])
    if len(lengths) > 1:
        return 400, "The request has more than one Content-Length."
    if lengths and not _LENGTH.fullmatch(lengths[0].strip()):
        return 400, "The Content-Length of the request is no number of bytes."
    if encodings and lengths:
        return 400, "The request has a Content-Length and a Transfer-Encoding."
    if encodings and not takes_chunks:
        return 411, "The request has a Transfer-Encoding; send its Content-Length."
    if encodings and [encoding.strip().lower() for encoding in encodings] != ["chunked"]:
        return 400, "The Transfer-Encoding of the request is not chunked."
    if lengths and largest_body is not None and int(lengths[0]) > largest_body:
        return 413, f"The request has {int(lengths[0])} bytes; at most {largest_body} are taken."
    return None
