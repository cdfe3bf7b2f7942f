"""HTTP/2 in front of the API, as SDKs that stream speak it: the JavaScript SDK's bedrock-agent-runtime by default.

A connection that begins with HTTP/2's preface is read by `h2`. Each of its requests is made again in HTTP/1.1, at the
API's own port, and its answer passed on as it comes, so that one piece of code decides what a request is answered.

There is no TLS here, so a client has to know that it may ("prior knowledge"); an `Upgrade: h2c` is answered in
HTTP/1.1, as RFC 9113 has it.
"""

import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse

from h2.config import H2Configuration
from h2.connection import ConnectionInputs, ConnectionState, H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError, StreamClosedError

from local.gateway.proxy_integration import Answer

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

_PIECE = 65_536
_ONE_CONNECTION = frozenset({"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"})
"""Headers of an HTTP/1.1 connection, which have no meaning in HTTP/2."""


def is_spoken(connection: socket.socket) -> bool:
    """Whether a new connection begins with HTTP/2's preface. Reads nothing; waits for its first three bytes."""
    with suppress(OSError):
        return connection.recv(3, socket.MSG_PEEK | socket.MSG_WAITALL) == PREFACE[:3]
    return False


@dataclass(slots=True)
class _Stream:
    """A request as far as it has come. `close` ends what is done for it."""

    headers: Sequence[tuple[str, str]]
    body: bytearray = field(default_factory=bytearray)
    refused: bool = False
    close: Callable[[], None] = lambda: None


class Http2Connection:
    """Serves one connection until the other side ends it. `port` is where the same requests are taken in HTTP/1.1; what
    has more than `largest_body` bytes is answered `too_large`.
    """

    def __init__(self, connection: socket.socket, port: int, largest_body: int, too_large: Answer) -> None:
        self._socket = connection
        self._port = port
        self._largest_body = largest_body
        self._too_large = too_large
        self._h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        # By GOAWAY a client says that it will make no other request, and reads on. h2 takes the connection for closed.
        machine = self._h2.state_machine
        still_open = {(ConnectionState.SERVER_OPEN, ConnectionInputs.RECV_GOAWAY): (None, ConnectionState.SERVER_OPEN)}
        machine._transitions = {**machine._transitions, **still_open}
        self._changed = threading.Condition()
        self._streams: dict[int, _Stream] = {}
        self._is_open = True

    def serve(self) -> None:
        with self._changed:
            self._h2.initiate_connection()
            self._flush()
        try:
            while data := self._socket.recv(_PIECE):
                with self._changed:
                    self._take(data)
        except OSError:
            pass  # it went away
        except ProtocolError:
            with suppress(OSError), self._changed:
                self._flush()  # h2 has written why
        finally:
            with self._changed:
                self._is_open = False
                self._changed.notify_all()
            for stream in list(self._streams.values()):
                stream.close()

    def _take(self, data: bytes) -> None:
        for event in self._h2.receive_data(data):
            match event:
                case RequestReceived(stream_id=number, headers=headers):
                    self._streams[number] = _Stream([(str(name), str(value)) for name, value in headers])
                case DataReceived(stream_id=number, data=piece, flow_controlled_length=length):
                    self._h2.acknowledge_received_data(length, number)
                    if stream := self._streams.get(number):
                        self._take_body(number, stream, piece)
                case StreamEnded(stream_id=number):
                    stream = self._streams.get(number)
                    if stream and not stream.refused:
                        threading.Thread(target=self._answer, args=(number, stream), daemon=True).start()
                case StreamReset(stream_id=number):
                    if stream := self._streams.pop(number, None):
                        stream.close()
        self._flush()
        self._changed.notify_all()

    def _take_body(self, number: int, stream: _Stream, piece: bytes) -> None:
        if stream.refused:
            return
        stream.body += piece
        if len(stream.body) > self._largest_body:
            stream.refused = True
            stream.body.clear()
            threading.Thread(target=self._refuse, args=(number,), daemon=True).start()

    def _flush(self) -> None:
        if data := self._h2.data_to_send():
            self._socket.sendall(data)

    def _refuse(self, number: int) -> None:
        with suppress(OSError, ProtocolError):
            self._send_head(number, self._too_large.status, self._too_large.headers)
            self._send(number, self._too_large.body)
            self._end(number)

    def _answer(self, number: int, stream: _Stream) -> None:
        fields = dict(stream.headers)
        inner = HTTPConnection("127.0.0.1", self._port)
        try:
            inner.connect()
            stream.close = lambda: _cut(inner.sock)
            inner.putrequest(fields[":method"], fields[":path"], skip_host=True, skip_accept_encoding=True)
            inner.putheader("Host", fields.get(":authority") or fields.get("host", ""))
            for name, value in stream.headers:
                if not name.startswith(":") and name not in _ONE_CONNECTION | {"host", "content-length"}:
                    inner.putheader(name, value)
            if stream.body or "content-length" in fields:
                inner.putheader("Content-Length", str(len(stream.body)))
            inner.endheaders(bytes(stream.body))
            self._pass_on(number, inner.getresponse())
        except (OSError, HTTPException, KeyError, ValueError, ProtocolError):
            self._reset(number)
        finally:
            inner.close()
            with self._changed:
                self._streams.pop(number, None)

    def _pass_on(self, number: int, response: HTTPResponse) -> None:
        self._send_head(number, response.status, response.getheaders())
        while piece := response.read1(_PIECE):
            self._send(number, piece)
        self._end(number)

    def _send_head(self, number: int, status: int, headers: Sequence[tuple[str, str]]) -> None:
        sent = [(name.lower(), value) for name, value in headers if name.lower() not in _ONE_CONNECTION]
        with self._changed:
            self._h2.send_headers(number, [(":status", str(status)), *sent])
            self._flush()

    def _send(self, number: int, data: bytes) -> None:
        while data:
            with self._changed:
                self._changed.wait_for(lambda: not self._is_open or self._h2.local_flow_control_window(number) > 0)
                if not self._is_open:
                    raise StreamClosedError(number)
                size = min(self._h2.local_flow_control_window(number), self._h2.max_outbound_frame_size)
                self._h2.send_data(number, data[:size])
                self._flush()
            data = data[size:]

    def _end(self, number: int) -> None:
        with self._changed:
            self._h2.end_stream(number)
            self._flush()

    def _reset(self, number: int) -> None:
        """The answer broke off, and so does the stream; where it or the connection is over, nothing is left to say."""
        with suppress(OSError, ProtocolError), self._changed:
            self._h2.reset_stream(number, ErrorCodes.INTERNAL_ERROR)
            self._flush()


def _cut(connection: socket.socket | None) -> None:
    with suppress(OSError):
        if connection is not None:
            connection.shutdown(socket.SHUT_RDWR)
