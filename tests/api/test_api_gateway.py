"""The API Gateway front, with a function that lives in the test: what it sends, refuses and streams."""

import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import pytest

from local.gateway.api_gateway import LARGEST_BODY, LARGEST_EVENT, ApiGateway
from local.gateway.proxy_integration import METADATA_END
from local.gateway.routes import Api, GatewayResponse, Route, Throttle, UnsupportedApi, read_api
from local.gateway.throttling import Throttling
from local.invocations import Throttled
from tests.waiting import patient

CREDENTIAL = "AKIDEXAMPLE/20260101/us-east-1/bedrock/aws4_request"
SIGNED = {"Authorization": f"AWS4-HMAC-SHA256 Credential={CREDENTIAL}, Signature=0"}
WAIT_SECONDS = 10


@dataclass
class Buffered:
    payload: bytes
    function_error: str | None = None


@dataclass
class Streamed:
    """Chunks as the Runtime API would hand them on; `error` becomes `failure` when they are through."""

    chunks: Iterator[bytes]
    failure: str | None = None
    error: str | None = None

    def __iter__(self) -> Iterator[bytes]:
        yield from self.chunks
        self.error = self.failure


@dataclass
class FakeFunctions:
    """Answers every invocation with what the test put into `answer`, and keeps the events it was sent."""

    answer: Callable[[dict[str, Any]], Any] = lambda event: Buffered(json.dumps({"statusCode": 200}).encode())
    events: list[dict[str, Any]] = field(default_factory=list)
    trace_headers: list[str | None] = field(default_factory=list)

    def invoke(self, function: str, payload: bytes, trace_header: str | None = None) -> Buffered:
        return self._run(function, payload, trace_header)  # type: ignore[no-any-return]

    def invoke_streaming(self, function: str, payload: bytes, trace_header: str | None = None) -> Streamed:
        return self._run(function, payload, trace_header)  # type: ignore[no-any-return]

    def _run(self, function: str, payload: bytes, trace_header: str | None) -> Any:
        event = json.loads(payload)
        self.events.append({**event, "function": function})
        self.trace_headers.append(trace_header)
        return self.answer(self.events[-1])


@dataclass
class Front:
    gateway: ApiGateway
    functions: FakeFunctions
    problems: list[str]

    def send(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = self.connect()
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return (
                response.status,
                {name.lower(): value for name, value in response.getheaders()},
                response.read(),
            )
        finally:
            connection.close()

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=patient(WAIT_SECONDS))


ROUTES = (
    Route("POST", "/agents/{agentId}/text", "agents"),
    Route("GET", "/agents/{agentId}/text", "readers"),
    Route("GET", "/agents/all/text", "lists"),
    Route("ANY", "/files/{path+}", "files"),
    Route("POST", "/signed", "signed", authorization="AWS_IAM"),
    Route("POST", "/stream", "streams", streaming=True),
    Route("POST", "/slow", "slow", timeout_seconds=0.2),
    Route("POST", "/memories", "memory-list"),
    Route("POST", "/memories/create", "memory-create"),
    Route("GET", "/memories/{memoryId}/actor/{actorId}/sessions/{sessionId}", "events"),
    Route("PUT", "/memories/{memoryId}", "memory-update"),
    Route("DELETE", "/memories/{memoryId}", "memory-delete"),
)


@contextmanager
def served(routes: Sequence[Route] = ROUTES, binary_media_types: frozenset[str] = frozenset()) -> Iterator[Front]:
    functions, problems = FakeFunctions(), list[str]()
    gateway = ApiGateway(Api(routes, binary_media_types, stage="v1"), functions, on_problem=problems.append)
    try:
        yield Front(gateway, functions, problems)
    finally:
        gateway.close()


@pytest.fixture
def front() -> Iterator[Front]:
    with served() as front:
        yield front


def proxy(status: int = 200, **rest: Any) -> Callable[[dict[str, Any]], Buffered]:
    return lambda event: Buffered(json.dumps({"statusCode": status, **rest}).encode())


def metadata(status: int = 200, **headers: str) -> bytes:
    return json.dumps({"statusCode": status, "headers": headers}).encode() + METADATA_END


def asking_first(length: int) -> bytes:
    """The head of a request that waits for `100 Continue` before it sends `length` bytes."""
    lines = (
        "POST /agents/A/text HTTP/1.1",
        "Host: localhost",
        f"Content-Length: {length}",
        "Expect: 100-continue",
        "",
        "",
    )
    return "\r\n".join(lines).encode()


class TestEvent:
    def test_a_function_gets_the_event_of_a_rest_api(self, front: Front) -> None:
        front.send(
            "POST",
            "/agents/A%2FB%20c/text/?x=1&x=2&y=%C3%A9",
            b'{"q": 1}',
            {"Content-Type": "application/json", "X-A": "b"},
        )
        [event] = front.functions.events
        assert event["function"] == "agents"
        assert event["resource"] == "/agents/{agentId}/text"
        assert event["path"] == "/agents/A%2FB%20c/text/"
        assert event["httpMethod"] == "POST"
        assert event["pathParameters"] == {"agentId": "A/B c"}
        assert event["queryStringParameters"] == {"x": "2", "y": "é"}
        assert event["multiValueQueryStringParameters"] == {"x": ["1", "2"], "y": ["é"]}
        assert event["headers"]["X-A"] == "b"
        assert event["multiValueHeaders"]["X-A"] == ["b"]
        assert (event["body"], event["isBase64Encoded"]) == ('{"q": 1}', False)
        context = event["requestContext"]
        assert (context["stage"], context["path"]) == ("v1", "/v1/agents/A%2FB%20c/text/")
        assert context["resourcePath"] == "/agents/{agentId}/text"
        assert context["identity"]["userArn"] is None
        assert isinstance(context["requestTimeEpoch"], int)

    def test_the_caller_is_the_access_key_of_the_signature_and_the_signature_goes_no_further(
        self, front: Front
    ) -> None:
        front.send("POST", "/signed", b"{}", SIGNED)
        [event] = front.functions.events
        identity = event["requestContext"]["identity"]
        assert identity["accessKey"] == identity["caller"] == "AKIDEXAMPLE"
        assert identity["userArn"] == "arn:aws:iam::123456789012:user/AKIDEXAMPLE"
        assert "authorization" not in {name.lower() for name in event["headers"]}

    def test_a_binary_media_type_comes_base64_encoded(self) -> None:
        functions = FakeFunctions()
        gateway = ApiGateway(Api(ROUTES, frozenset({"image/*"})), functions)
        try:
            Front(gateway, functions, []).send("POST", "/agents/A/text", b"\xff\x00", {"Content-Type": "image/png"})
        finally:
            gateway.close()
        assert (functions.events[0]["body"], functions.events[0]["isBase64Encoded"]) == ("/wA=", True)

    def test_the_most_specific_route_wins(self, front: Front) -> None:
        front.send("GET", "/agents/all/text")
        front.send("GET", "/agents/some/text")
        front.send("DELETE", "/files/a/b%2Fc")
        assert [event["function"] for event in front.functions.events] == ["lists", "readers", "files"]
        assert front.functions.events[2]["pathParameters"] == {"path": "a/b/c"}

    def test_a_trailing_slash_names_the_same_resource(self, front: Front) -> None:
        """As on AWS; botocore's ListMemories asks for /memories/. The function sees the path as it was asked for."""
        for method, path in (
            ("POST", "/memories"),
            ("POST", "/memories/"),
            ("POST", "/memories/create/"),
            ("DELETE", "/memories/M-1/"),
        ):
            assert front.send(method, path)[0] == 200
        assert [(event["function"], event["resource"], event["path"]) for event in front.functions.events] == [
            ("memory-list", "/memories", "/memories"),
            ("memory-list", "/memories", "/memories/"),
            ("memory-create", "/memories/create", "/memories/create/"),
            ("memory-delete", "/memories/{memoryId}", "/memories/M-1/"),
        ]

    def test_identifiers_arrive_as_they_were_before_they_were_percent_encoded(self, front: Front) -> None:
        actor, session = "a/b c#d%2F:é+?&=", "s%"
        path = f"/memories/M-1/actor/{quote(actor, safe='')}/sessions/{quote(session, safe='')}"
        assert front.send("GET", path)[0] == 200
        [event] = front.functions.events
        assert event["pathParameters"] == {"memoryId": "M-1", "actorId": actor, "sessionId": session}
        assert event["path"] == path

    def test_methods_of_one_resource_have_functions_of_their_own(self, front: Front) -> None:
        front.send("PUT", "/memories/M-1", b"{}")
        front.send("DELETE", "/memories/M-1")
        assert front.send("PATCH", "/memories/M-1")[0] == 403
        assert [(event["function"], event["body"]) for event in front.functions.events] == [
            ("memory-update", "{}"),
            ("memory-delete", None),
        ]

    def test_a_query_is_decoded_with_its_repetitions(self, front: Front) -> None:
        front.send("GET", "/memories/M/actor/a/sessions/s?maxResults=5&nextToken=a%2Bb%3D+c&t=1&t=2&empty=")
        [event] = front.functions.events
        assert event["queryStringParameters"] == {"maxResults": "5", "nextToken": "a+b= c", "t": "2", "empty": ""}
        assert event["multiValueQueryStringParameters"]["t"] == ["1", "2"]

    def test_buffered_and_streaming_functions_stand_side_by_side(self, front: Front) -> None:
        def answer(event: dict[str, Any]) -> Any:
            if event["function"] == "streams":
                return Streamed(iter([metadata(), b"streamed"]))
            return Buffered(json.dumps({"statusCode": 200, "body": "buffered"}).encode())

        front.functions.answer = answer
        sent = [front.send("POST", path) for path in ("/stream", "/memories/", "/stream/")]
        assert [body for _, _, body in sent] == [b"streamed", b"buffered", b"streamed"]
        assert ["content-length" in headers for _, headers, _ in sent] == [False, True, False]

    def test_a_trace_is_begun_or_continued(self, front: Front) -> None:
        _, headers, _ = front.send("GET", "/agents/A/text")
        root = "1-5759e988-bd862e3fe1be46a994272793"
        front.send("GET", "/agents/A/text", None, {"X-Amzn-Trace-Id": f"Root={root}"})
        begun, continued = front.functions.trace_headers
        assert begun is not None
        assert begun.startswith(f"{headers['x-amzn-trace-id']};Parent=")
        assert begun.endswith(";Sampled=1")
        assert continued is not None
        assert continued.startswith(f"Root={root};Parent=")
        assert front.functions.events[1]["headers"]["X-Amzn-Trace-Id"] == continued

    def test_a_body_in_chunks_arrives_whole(self, front: Front) -> None:
        connection = front.connect()
        connection.request(
            "POST",
            "/agents/A/text",
            iter([b'{"a":', b" 1}"]),
            encode_chunked=True,
            headers={"Transfer-Encoding": "chunked"},
        )
        assert connection.getresponse().status == 200
        connection.close()
        assert front.functions.events[0]["body"] == '{"a": 1}'

    def test_a_caller_that_asks_first_is_told_to_go_on(self, front: Front) -> None:
        with socket.create_connection(("127.0.0.1", front.gateway.port), WAIT_SECONDS) as caller:
            caller.sendall(asking_first(2))
            assert caller.recv(1000).startswith(b"HTTP/1.1 100 ")
            caller.sendall(b"{}")
            assert caller.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert front.functions.events[0]["body"] == "{}"


class TestRefusals:
    @pytest.mark.parametrize(
        ("method", "path", "error_type"),
        [
            ("GET", "/nowhere", "MissingAuthenticationTokenException"),
            ("GET", "/agents//text", "MissingAuthenticationTokenException"),
            ("DELETE", "/agents/A/text", "MissingAuthenticationTokenException"),
            ("BREW", "/agents/A/text", "MissingAuthenticationTokenException"),
            ("POST", "/signed", "MissingAuthenticationTokenException"),
        ],
    )
    def test_an_unknown_route_and_a_missing_signature_look_alike(
        self, front: Front, method: str, path: str, error_type: str
    ) -> None:
        status, headers, body = front.send(method, path)
        assert (status, headers["x-amzn-errortype"]) == (403, error_type)
        assert json.loads(body) == {"message": "Missing Authentication Token"}
        assert front.functions.events == []

    def test_the_definitions_own_answers_are_given(self) -> None:
        responses = {
            "DEFAULT_4XX": GatewayResponse({}, '{"__type":"Bad","message":$context.error.messageString}'),
            "MISSING_AUTHENTICATION_TOKEN": GatewayResponse({"x-amzn-ErrorType": "Unsigned"}, '{"__type":"Unsigned"}'),
        }
        gateway = ApiGateway(Api(ROUTES, responses=responses), FakeFunctions(lambda _: Buffered(b"no proxy response")))
        front = Front(gateway, FakeFunctions(), [])
        try:
            told = [
                front.send("POST", "/signed", b"{}"),
                front.send("POST", "/agents/A/text", b"\xff"),
                front.send("POST", "/agents/A/text", b"{}"),
            ]
        finally:
            gateway.close()
        assert [(status, headers["x-amzn-errortype"], json.loads(body)) for status, headers, body in told] == [
            (403, "Unsigned", {"__type": "Unsigned"}),
            (400, "BadRequestException", {"__type": "Bad", "message": "The body is not UTF-8 at byte 0"}),
            (502, "InternalServerErrorException", {"message": "Internal server error"}),
        ]

    @pytest.mark.parametrize(
        "response",
        [
            {"statusCode": "404"},
            {"responseParameters": {"gatewayresponse.header.x": "method.request.header.x"}},
            {"responseTemplates": {"application/json": "$context.requestId"}},
        ],
    )
    def test_an_answer_that_the_offline_gateway_cannot_give_is_refused(self, response: dict[str, Any]) -> None:
        body = {"paths": {}, "x-amazon-apigateway-gateway-responses": {"DEFAULT_4XX": response}}
        with pytest.raises(UnsupportedApi, match="DEFAULT_4XX"):
            read_api({"Body": body}, "api", "v1")

    def test_an_answer_that_has_no_body_says_so_by_its_status(self, front: Front) -> None:
        """What a function gives all the same would be read as the beginning of the next answer."""
        front.functions.answer = proxy(204, body="{}")
        connection = front.connect()
        for _ in range(2):
            connection.request("POST", "/agents/A/text", b"{}")
            response = connection.getresponse()
            assert (response.status, response.read()) == (204, b"")
        connection.close()

    def test_something_else_than_a_signature_is_refused(self, front: Front) -> None:
        status, headers, _ = front.send("POST", "/signed", b"{}", {"Authorization": "Bearer token"})
        assert (status, headers["x-amzn-errortype"]) == (403, "IncompleteSignatureException")

    def test_a_body_above_10_mb_is_refused_and_the_caller_can_read_it(self, front: Front) -> None:
        status, headers, body = front.send("POST", "/agents/A/text", b"x" * (LARGEST_BODY + 1))
        assert (status, headers["x-amzn-errortype"]) == (413, "RequestTooLargeException")
        assert json.loads(body) == {"message": "Request Too Long"}
        assert front.problems == []

    def test_a_body_that_lambda_would_not_take_in_an_event_is_refused(self, front: Front) -> None:
        """Quotation marks count twice, since the body is a text in the event; letters beyond ASCII do not."""
        quotes, letters = b'"' * (LARGEST_EVENT // 2), "é".encode() * (LARGEST_EVENT // 2 - 2_000)
        status, headers, _ = front.send("POST", "/agents/A/text", quotes)
        assert (status, headers["x-amzn-errortype"]) == (413, "RequestTooLargeException")
        assert front.functions.events == []
        [problem] = front.problems
        assert "/agents/{agentId}/text becomes an event of " in problem
        assert front.send("POST", "/agents/A/text", letters)[0] == 200
        assert front.functions.events[0]["body"] == letters.decode()

    def test_a_body_above_10_mb_is_refused_before_it_is_sent_if_the_caller_asks(self, front: Front) -> None:
        with socket.create_connection(("127.0.0.1", front.gateway.port), WAIT_SECONDS) as caller:
            caller.sendall(asking_first(LARGEST_BODY + 1))
            assert caller.recv(1000).startswith(b"HTTP/1.1 413 ")

    @pytest.mark.parametrize(
        "answer",
        [
            Buffered(b'{"errorType": "KeyError", "errorMessage": "x"}', "Unhandled"),
            Buffered(b'"a string"'),
            Buffered(b"not json"),
            Buffered(b'{"statusCode": "many"}'),
            Buffered(b'{"statusCode": 200, "body": {"an": "object"}}'),
            Buffered(b'{"statusCode": 200, "body": "?", "isBase64Encoded": true}'),
        ],
        ids=["crash", "string", "not JSON", "status", "body", "base64"],
    )
    def test_a_function_that_fails_or_answers_wrongly_is_a_502(self, front: Front, answer: Buffered) -> None:
        front.functions.answer = lambda event: answer
        status, headers, body = front.send("POST", "/agents/A/text", b"{}")
        assert (status, json.loads(body)) == (502, {"message": "Internal server error"})
        assert headers["x-amzn-errortype"] == "InternalServerErrorException"
        assert len(front.problems) == 1
        assert front.problems[0].startswith("agents ")

    def test_an_invocation_that_is_not_possible_is_a_502(self, front: Front) -> None:
        def unknown(event: dict[str, Any]) -> Any:
            raise KeyError("no such function")

        front.functions.answer = unknown
        assert front.send("POST", "/agents/A/text", b"{}")[0] == 502
        assert front.send("POST", "/stream", b"{}")[0] == 502

    def test_a_function_that_takes_longer_than_the_integration_is_a_504(self, front: Front) -> None:
        release = threading.Event()

        def slow(event: dict[str, Any]) -> Buffered:
            release.wait(timeout=patient(WAIT_SECONDS))
            return Buffered(b'{"statusCode": 200}')

        front.functions.answer = slow
        status, _, body = front.send("POST", "/slow", b"{}")
        release.set()
        assert (status, json.loads(body)) == (504, {"message": "Endpoint request timed out"})


class TestThrottling:
    def test_a_request_above_a_methods_limit_is_refused_and_reaches_no_function(self) -> None:
        routes = (
            Route("POST", "/turns", "turns", throttle=Throttle(rate=0.001, burst=2)),
            Route("GET", "/turns", "turns", throttle=Throttle(rate=0.001, burst=1)),
        )
        with served(routes) as front:
            answers = [front.send("POST", "/turns", b"{}") for _ in range(3)]
            assert [status for status, _, _ in answers] == [200, 200, 429]
            _, headers, body = answers[-1]
            assert headers["x-amzn-errortype"] == "TooManyRequestsException"
            assert json.loads(body) == {"message": "Too Many Requests"}
            assert front.send("GET", "/turns")[0] == 200, "each method has a bucket of its own"
            assert [event["httpMethod"] for event in front.functions.events] == ["POST", "POST", "GET"]

    @pytest.mark.parametrize("path", ["/agents/A/text", "/stream"])
    def test_a_function_that_runs_as_often_as_it_may_is_a_500(self, front: Front, path: str) -> None:
        def refuse(event: dict[str, Any]) -> Buffered:
            raise Throttled("as many as are reserved")

        front.functions.answer = refuse
        status, headers, body = front.send("POST", path, b"{}")
        assert (status, headers["x-amzn-errortype"]) == (500, "InternalServerErrorException")
        assert json.loads(body) == {"message": "Internal server error"}
        assert len(front.problems) == 1

    def test_tokens_come_back_with_time_and_not_above_the_burst(self) -> None:
        now = 0.0
        route = Route("POST", "/turns", "turns", throttle=Throttle(rate=2, burst=3))
        throttling = Throttling([route], clock=lambda: now)

        def admitted() -> int:
            return sum(throttling.admits(route) for _ in range(10))

        assert admitted() == 3
        now = 0.4
        assert admitted() == 0
        now = 0.5
        assert admitted() == 1
        now = 100.0
        assert admitted() == 3

    def test_the_settings_of_a_stage_are_those_of_each_method_unless_it_has_its_own(self) -> None:
        integration = {
            "type": "aws_proxy",
            "uri": "arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/"
            "arn:aws:lambda:us-east-1:123456789012:function:f/invocations",
        }
        operation = {"x-amazon-apigateway-integration": integration}
        body = {"paths": {"/turns": {"post": operation, "get": operation}, "/turns/{turnId}": {"get": operation}}}
        settings: list[dict[str, Any]] = [
            {"ResourcePath": "/*", "HttpMethod": "*", "ThrottlingRateLimit": 5, "ThrottlingBurstLimit": 7},
            {"ResourcePath": "/~1turns", "HttpMethod": "POST", "ThrottlingRateLimit": 1.5},
            {"ResourcePath": "/~1turns", "HttpMethod": "GET", "MetricsEnabled": True},
        ]
        read = read_api({"Body": body}, "api", "v1", settings)
        assert {(route.method, route.path): route.throttle for route in read.routes} == {
            ("POST", "/turns"): Throttle(1.5, 5_000),
            ("GET", "/turns"): Throttle(5, 7),
            ("GET", "/turns/{turnId}"): Throttle(5, 7),
        }
        with pytest.raises(UnsupportedApi, match="ThrottlingBurstLimit of POST /turns is no whole number"):
            read_api({"Body": body}, "api", "v1", [{**settings[1], "ThrottlingBurstLimit": 1.5}])
        with pytest.raises(UnsupportedApi, match="there is no method PUT /turns"):
            read_api({"Body": body}, "api", "v1", [{**settings[1], "HttpMethod": "PUT"}])


class TestBufferedAnswers:
    def test_status_headers_and_body_come_through(self, front: Front) -> None:
        front.functions.answer = proxy(
            404,
            headers={"x-amzn-ErrorType": "ResourceNotFoundException", "Server": "mine", "X-Once": "hidden"},
            multiValueHeaders={"X-Once": ["one", "two"]},
            body='{"message": "é"}',
        )
        connection = front.connect()
        connection.request("GET", "/agents/A/text")
        response = connection.getresponse()
        assert response.status == 404
        assert response.headers["x-amzn-errortype"] == "ResourceNotFoundException"
        assert response.headers["x-amzn-Remapped-Server"] == "mine"
        assert response.headers.get_all("X-Once") == ["one", "two"]
        assert response.headers["Content-Type"] == "application/json"
        assert json.loads(response.read()) == {"message": "é"}
        connection.close()

    @pytest.mark.parametrize(
        ("binary", "accept", "body"),
        [
            ([], None, b"/wA="),
            ([], "*/*", b"/wA="),
            (["*/*"], None, b"\xff\x00"),
            (["*/*"], "text/plain", b"\xff\x00"),
            (["image/png"], None, b"/wA="),
            (["image/png"], "image/PNG;q=0.5, text/html", b"\xff\x00"),
            (["image/png"], "text/html, image/png", b"/wA="),
            (["image/png"], "*/*", b"/wA="),
            (["image/*"], "image/png", b"\xff\x00"),
        ],
    )
    def test_a_base64_body_is_decoded_for_who_accepts_a_binary_type_first(
        self, binary: list[str], accept: str | None, body: bytes
    ) -> None:
        with served(binary_media_types=frozenset(binary)) as front:
            front.functions.answer = proxy(body="/wA=", isBase64Encoded=True)
            headers = {"Accept": accept} if accept else {}
            assert front.send("GET", "/agents/A/text", headers=headers)[2] == body

    def test_a_connection_is_used_again(self, front: Front) -> None:
        front.functions.answer = proxy(body="one")
        connection = front.connect()
        for _ in range(3):
            connection.request("POST", "/agents/A/text", b"{}")
            assert connection.getresponse().read() == b"one"
        connection.close()


class TestStreamedAnswers:
    def test_chunks_arrive_while_the_function_still_runs(self, front: Front) -> None:
        go_on = threading.Event()

        def chunks() -> Iterator[bytes]:
            yield metadata(201, **{"Content-Type": "text/plain", "X-A": "b"}) + b"first"
            assert go_on.wait(timeout=patient(WAIT_SECONDS))
            yield b"second"

        front.functions.answer = lambda event: Streamed(chunks())
        connection = front.connect()
        connection.request("POST", "/stream", b"{}")
        response = connection.getresponse()
        assert (response.status, response.headers["X-A"]) == (201, "b")
        assert response.read(5) == b"first"
        go_on.set()
        assert response.read() == b"second"
        connection.request("POST", "/stream", b"{}")
        assert connection.getresponse().read(5) == b"first"
        connection.close()

    def test_metadata_may_come_in_pieces(self, front: Front) -> None:
        whole = metadata(200) + b"body"
        front.functions.answer = lambda event: Streamed(iter([whole[:7], whole[7:-6], whole[-6:]]))
        assert front.send("POST", "/stream", b"{}")[2] == b"body"

    def test_a_failure_after_the_headers_cuts_the_stream(self, front: Front) -> None:
        front.functions.answer = lambda event: Streamed(iter([metadata() + b"half"]), failure="Runtime.ExitError")
        connection = front.connect()
        connection.request("POST", "/stream", b"{}")
        response = connection.getresponse()
        with pytest.raises(http.client.IncompleteRead) as cut:
            response.read()
        assert cut.value.partial == b"half"
        connection.close()
        assert front.problems == ["streams failed in the middle of its answer: Runtime.ExitError"]

    @pytest.mark.parametrize(
        "chunks", [[], [b'{"statusCode": 200}'], [b"x" * 20_000]], ids=["none", "no end", "too long"]
    )
    def test_an_answer_without_metadata_is_a_502(self, front: Front, chunks: list[bytes]) -> None:
        front.functions.answer = lambda event: Streamed(iter(chunks), failure="Runtime.ExitError")
        assert front.send("POST", "/stream", b"{}")[0] == 502
        assert len(front.problems) == 1

    def test_a_caller_that_goes_away_does_not_stop_the_function(self, front: Front) -> None:
        gone, finished = threading.Event(), threading.Event()

        def chunks() -> Iterator[bytes]:
            yield metadata() + b"first"
            assert gone.wait(timeout=patient(WAIT_SECONDS))
            for _ in range(100):
                yield b"x" * 65536
            finished.set()

        front.functions.answer = lambda event: Streamed(chunks())
        connection = front.connect()
        connection.request("POST", "/stream", b"{}")
        response = connection.getresponse()
        assert response.read(5) == b"first"
        response.close()
        connection.close()
        gone.set()
        assert finished.wait(timeout=patient(WAIT_SECONDS))
        front.functions.answer = lambda event: Streamed(iter([metadata() + b"still here"]))
        assert front.send("POST", "/stream", b"{}")[2] == b"still here"
        assert front.problems == []


def test_closing_frees_the_port_and_cuts_open_connections() -> None:
    gateway = ApiGateway(Api(ROUTES), FakeFunctions())
    idle = socket.create_connection(("127.0.0.1", gateway.port), WAIT_SECONDS)
    idle.sendall(b"GET /agents/A/text HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert idle.recv(1000).startswith(b"HTTP/1.1 200 ")
    gateway.close()
    assert idle.recv(1000) == b""
    idle.close()
    again = ApiGateway(Api(ROUTES), FakeFunctions(), port=gateway.port)
    with pytest.raises(OSError, match="in use"):
        ApiGateway(Api(ROUTES), FakeFunctions(), port=gateway.port)
    again.close()
