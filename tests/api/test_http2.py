"""The API in HTTP/2, with prior knowledge, as the JavaScript SDK's streaming clients and curl speak it."""

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)

from local.gateway.api_gateway import LARGEST_BODY
from tests.api.test_api_gateway import SIGNED, WAIT_SECONDS, Buffered, Front, Streamed, front, metadata, proxy
from tests.waiting import eventually, patient

__all__ = ["front"]


@dataclass
class Response:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    pieces: list[bytes] = field(default_factory=list)
    ended: bool = False
    reset: Any = None

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)


class Http2Client:
    """A connection that reads as much as it is asked to. `window` is how much it lets come without having read."""

    def __init__(self, port: int, window: int = 65_535) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=patient(WAIT_SECONDS))
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.h2.update_settings({4: window})  # SETTINGS_INITIAL_WINDOW_SIZE
        self.responses: dict[int, Response] = {}
        self.terminated: Any = None
        self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def begin(self, method: str, path: str, ended: bool = True, authority: str = "localhost", **headers: str) -> int:
        number: int = self.h2.get_next_available_stream_id()
        pseudo = [(":method", method), (":path", path), (":scheme", "http"), (":authority", authority)]
        fields = [(name.lower().replace("_", "-"), value) for name, value in headers.items()]
        self.h2.send_headers(number, pseudo + fields, end_stream=ended)
        self.responses[number] = Response()
        self.flush()
        return number

    def send(self, number: int, data: bytes, ended: bool = True) -> None:
        """Sends as the other side lets it."""
        while data:
            window = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size)
            if window == 0:
                self.read()
                continue
            self.h2.send_data(number, data[:window])
            self.flush()
            data = data[window:]
        if ended:
            self.h2.end_stream(number)
            self.flush()

    def read(self) -> None:
        data = self.socket.recv(65_536)
        assert data, "the connection is closed"
        for event in self.h2.receive_data(data):
            match event:
                case ResponseReceived(stream_id=number, headers=headers):
                    fields = {str(name): str(value) for name, value in headers}
                    self.responses[number].status = int(fields.pop(":status"))
                    self.responses[number].headers = fields
                case DataReceived(stream_id=number, data=piece, flow_controlled_length=length):
                    self.responses[number].pieces.append(bytes(piece))
                    self.h2.acknowledge_received_data(length, number)
                case StreamEnded(stream_id=number):
                    self.responses[number].ended = True
                case StreamReset(stream_id=number, error_code=code):
                    self.responses[number].reset = code
                case ConnectionTerminated(error_code=code):
                    self.terminated = code
        self.flush()

    def response(self, number: int) -> Response:
        response = self.responses[number]
        while not response.ended and response.reset is None:
            self.read()
        return response

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Response:
        number = self.begin(method, path, ended=not body, **headers)
        if body:
            self.send(number, body)
        return self.response(number)


@pytest.fixture
def client(front: Front) -> Iterator[Http2Client]:
    client = Http2Client(front.gateway.port)
    yield client
    client.socket.close()


def test_a_request_is_answered_as_in_http_1(front: Front, client: Http2Client) -> None:
    front.functions.answer = proxy(201, body="ü", headers={"X-Own": "1"})
    response = client.ask("POST", "/agents/A%2FB/text?x=1&x=2", b'{"q": 1}', X_Many="a")
    assert (response.status, response.body, response.headers["x-own"]) == (201, "ü".encode(), "1")
    assert not response.headers.keys() & {"connection", "transfer-encoding"}
    [event] = front.functions.events
    assert (event["pathParameters"], event["body"]) == ({"agentId": "A/B"}, '{"q": 1}')
    assert event["multiValueQueryStringParameters"] == {"x": ["1", "2"]}
    assert event["headers"]["x-many"] == "a"
    assert client.ask("GET", "/agents/A/text").status == 201
    assert "content-length" not in {name.lower() for name in front.functions.events[-1]["headers"]}


@pytest.mark.parametrize(
    ("path", "headers", "status", "kind"),
    [
        ("/signed", {}, 403, "MissingAuthenticationTokenException"),
        ("/signed", SIGNED, 200, None),
        ("/stream", {"authority": "evil.example"}, 403, "AccessDeniedException"),
        ("/stream", {"origin": "https://evil.example"}, 403, "AccessDeniedException"),
    ],
)
def test_what_is_refused_in_http_1_is_refused(
    front: Front, client: Http2Client, path: str, headers: dict[str, Any], status: int, kind: str | None
) -> None:
    response = client.ask("POST", path, b"{}", **headers)
    assert (response.status, response.headers.get("x-amzn-errortype")) == (status, kind)
    assert len(front.functions.events) == (status == 200)


def test_a_streamed_answer_arrives_piece_by_piece_and_goes_on_behind_a_goaway(
    front: Front, client: Http2Client
) -> None:
    asked = threading.Semaphore(0)

    def chunks() -> Iterator[bytes]:
        yield metadata(200, **{"Content-Type": "text/plain"})
        for number in range(3):
            asked.acquire(timeout=patient(WAIT_SECONDS))
            yield b"%d" % number

    front.functions.answer = lambda event: Streamed(chunks())
    number = client.begin("POST", "/stream", authorization=SIGNED["Authorization"])
    response = client.responses[number]
    for count in range(3):
        asked.release()
        while len(response.pieces) <= count:
            client.read()
        if count == 0:
            client.h2.close_connection()  # GOAWAY, as the JavaScript SDK sends it when it has the head of an answer
            client.flush()
            client.h2.state_machine.state = type(client.h2.state_machine.state).CLIENT_OPEN
    assert client.response(number).body == b"012"
    assert response.headers["content-type"] == "text/plain"


def test_requests_of_one_connection_run_side_by_side(front: Front, client: Http2Client) -> None:
    together = threading.Barrier(8, timeout=patient(WAIT_SECONDS))

    def answer(event: dict[str, Any]) -> Buffered:
        together.wait()
        return Buffered(json.dumps({"statusCode": 200, "body": event["body"]}).encode())

    front.functions.answer = answer
    numbers = [client.begin("POST", "/agents/A/text", ended=False) for _ in range(8)]
    for index, number in enumerate(numbers):
        client.send(number, b"%d" % index)
    assert [client.response(number).body for number in numbers] == [b"%d" % index for index in range(8)]


def test_a_long_answer_waits_for_a_reader_with_a_small_window(front: Front) -> None:
    front.functions.answer = proxy(200, body="x" * 300_000)
    client = Http2Client(front.gateway.port, window=1_000)
    response = client.ask("POST", "/agents/A/text", b"{}")
    assert (response.status, len(response.body)) == (200, 300_000)
    assert max(map(len, response.pieces)) <= 1_000
    client.socket.close()


def test_a_body_that_is_too_large_is_refused_and_the_connection_goes_on(front: Front, client: Http2Client) -> None:
    number = client.begin("POST", "/agents/A/text", ended=False)
    client.send(number, b"x" * LARGEST_BODY + b"x")
    response = client.response(number)
    assert (response.status, response.headers["x-amzn-errortype"]) == (413, "RequestTooLargeException")
    assert front.functions.events == []
    assert client.ask("POST", "/agents/A/text", b"{}").status == 200


def test_an_answer_that_breaks_off_resets_its_stream_alone(front: Front, client: Http2Client) -> None:
    front.functions.answer = lambda event: Streamed(iter([metadata(200), b"half"]), failure="died")
    response = client.ask("POST", "/stream", b"{}")
    assert (response.status, response.body, response.reset) == (200, b"half", ErrorCodes.INTERNAL_ERROR)
    front.functions.answer = proxy(200, body="next")
    assert client.ask("POST", "/agents/A/text", b"{}").body == b"next"


def test_a_caller_that_goes_away_in_the_middle_stops_nothing_and_breaks_nothing(front: Front) -> None:
    ended = threading.Event()

    def chunks() -> Iterator[bytes]:
        yield metadata(200)
        for _ in range(50):
            yield b"x" * 10_000
        ended.set()

    front.functions.answer = lambda event: Streamed(chunks())
    for leave in ("reset", "close"):
        ended.clear()
        client = Http2Client(front.gateway.port)
        number = client.begin("POST", "/stream")
        while not client.responses[number].pieces:
            client.read()
        if leave == "reset":
            client.h2.reset_stream(number, ErrorCodes.CANCEL)
            client.flush()
        client.socket.close()
        assert ended.wait(patient(WAIT_SECONDS)), leave
    assert front.problems == []


def test_what_is_not_http_2_behind_its_preface_ends_the_connection_alone(front: Front, client: Http2Client) -> None:
    client.socket.sendall(b"\xff" * 64)

    def closed() -> bool:
        try:
            client.read()
        except (AssertionError, OSError):
            return True
        return False

    eventually(closed)
    assert client.terminated != ErrorCodes.NO_ERROR
    assert front.send("POST", "/agents/A/text", b"{}")[0] == 200


def test_a_client_that_asks_for_an_upgrade_is_answered_in_http_1(front: Front) -> None:
    headers = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"}
    assert front.send("POST", "/agents/A/text", b"{}", headers)[0] == 200
