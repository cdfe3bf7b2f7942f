"""API Gateway's Lambda proxy integration: the event that a function gets, and what its answer means.

Everything here is values in, values out; `api_gateway` is the server.
"""

import base64
import binascii
import json
import re
import secrets
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import parse_qsl

from local.gateway.routes import MESSAGE, Api, Route

ACCOUNT_ID = "123456789012"
LARGEST_METADATA = 16 * 1024
METADATA_END = b"\0" * 8

_REMAPPED = frozenset({"connection", "date", "server", "www-authenticate", "x-amzn-requestid", "x-amzn-trace-id"})
"""Response headers that API Gateway renames to `x-amzn-Remapped-...`, since it writes its own."""
_FRAMING = frozenset({"content-length", "transfer-encoding", "trailer"})
_CREDENTIAL = re.compile(r"\bCredential=([^/,\s]+)/")


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came over the wire. `path` is percent-encoded, `query` the part after the question
    mark.
    """

    method: str
    path: str
    query: str
    headers: Sequence[tuple[str, str]]
    body: bytes
    source_ip: str = "127.0.0.1"
    port: int = 0
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    received_at: float = field(default_factory=time.time)

    def header(self, name: str) -> str | None:
        """The last value of a header, whatever the case of its name."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        return values[-1] if values else None


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and headers of a response, and its body when that is known as a whole."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes = b""


class Refused(Exception):
    """API Gateway answers by itself, without the function or instead of it. `kind` is the type of its gateway response,
    `error_type` what it calls the error where the API's definition does not say.
    """

    def __init__(self, status: int, error_type: str, message: str, kind: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.error_type = error_type
        self.kind = kind

    def answer(self, api: Api) -> Answer:
        """As the API's definition has answers of this kind, or else all of its class."""
        own = api.responses.get(self.kind) or api.responses.get("DEFAULT_5XX" if self.status >= 500 else "DEFAULT_4XX")
        headers = {"x-amzn-ErrorType": self.error_type, **(own.headers if own else {})}
        template = own.template if own else f'{{"message":{MESSAGE}}}'
        body = template.replace(MESSAGE, json.dumps(str(self)))
        return Answer(self.status, [("Content-Type", "application/json"), *headers.items()], body.encode())


def missing_token() -> Refused:
    """What API Gateway says where no route takes a request, and where one is not signed."""
    return Refused(
        403,
        "MissingAuthenticationTokenException",
        "Missing Authentication Token",
        "MISSING_AUTHENTICATION_TOKEN",
    )


def access_key_id(request: Request) -> str:
    """The caller's access key id in a SigV4 signature (header or presigned query).

    Raises Refused as API Gateway refuses an unsigned request. The signature itself is not verified: nothing
    offline knows the secret key, and the scope may name another service than `execute-api`.
    """
    authorization = request.header("Authorization")
    if authorization is None:
        presigned = dict(parse_qsl(request.query)).get("X-Amz-Credential")
        if presigned is None:
            raise missing_token()
        return presigned.split("/")[0]
    credential = _CREDENTIAL.search(authorization)
    if not authorization.startswith("AWS4-HMAC-SHA256 ") or credential is None:
        message = "Authorization header is not an AWS4-HMAC-SHA256 signature"
        raise Refused(403, "IncompleteSignatureException", message, "INVALID_SIGNATURE")
    return credential[1]


def trace_header(request: Request) -> str:
    """The X-Ray header for the function: the caller's root and parent if it sent them, otherwise new ones,
    and sampled.
    """
    parts = (part.partition("=") for part in (request.header("X-Amzn-Trace-Id") or "").split(";"))
    given = {name.strip(): value.strip() for name, _, value in parts if value}
    root = given.get("Root") or f"1-{int(request.received_at):08x}-{secrets.token_hex(12)}"
    parent = given.get("Parent") or secrets.token_hex(8)
    return f"Root={root};Parent={parent};Sampled={given.get('Sampled', '1')}"


def proxy_event(api: Api, route: Route, parameters: Mapping[str, str], request: Request, trace: str) -> dict[str, Any]:
    """The Lambda proxy event, payload version 1.0, of a REST API.

    `path` stays percent-encoded, `pathParameters` and the query are decoded, which AWS documents of the query alone. A
    signature does not reach the function, and a body whose media type is binary comes base64-encoded.
    """
    caller = access_key_id(request) if route.authorization == "AWS_IAM" else None
    headers = [
        (name, value)
        for name, value in request.headers
        if name.lower() not in ("connection", "expect", "transfer-encoding", "x-amzn-trace-id")
        and not (caller and name.lower() == "authorization")
    ]
    headers += [
        ("X-Amzn-Trace-Id", trace),
        ("X-Forwarded-For", request.source_ip),
        ("X-Forwarded-Port", str(request.port)),
        ("X-Forwarded-Proto", "http"),
    ]
    query = parse_qsl(request.query, keep_blank_values=True)
    body, encoded = _encoded_body(api, request)
    return {
        "resource": route.path,
        "path": request.path,
        "httpMethod": request.method,
        "headers": dict(headers) or None,
        "multiValueHeaders": _grouped(headers),
        "queryStringParameters": dict(query) or None,
        "multiValueQueryStringParameters": _grouped(query),
        "pathParameters": dict(parameters) or None,
        "stageVariables": None,
        "requestContext": {
            "resourceId": "local",
            "resourcePath": route.path,
            "httpMethod": request.method,
            "extendedRequestId": request.request_id,
            "requestTime": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(request.received_at)),
            "path": f"/{api.stage}{request.path}",
            "accountId": ACCOUNT_ID,
            "protocol": "HTTP/1.1",
            "stage": api.stage,
            "domainPrefix": "local",
            "requestTimeEpoch": int(request.received_at * 1000),
            "requestId": request.request_id,
            "identity": _identity(request, caller),
            "domainName": request.header("Host") or "127.0.0.1",
            "deploymentId": "local",
            "apiId": api.api_id,
        },
        "body": body,
        "isBase64Encoded": encoded,
    }


def takes_binary(api: Api, request: Request) -> bool:
    """Whether a base64 answer reaches this caller decoded: if the first media type of its first Accept header is one of
    the API's binary ones. Of a caller who sends none, as boto3 does not for InvokeAgent, only `*/*` is.

    Source: Amazon API Gateway's developer guide, "Return binary media from a Lambda proxy integration".
    """
    accepted = next((value for name, value in request.headers if name.lower() == "accept"), "")
    return _is_binary(api, accepted.split(",")[0])


def proxy_answer(payload: bytes, *, decoded: bool = True) -> Answer:
    """The HTTP answer in a buffered proxy response, whose base64 is `decoded` or passed on as the text that it is.
    Raises Refused (502) if the payload is not one.
    """
    try:
        response = json.loads(payload)
        status = int(response["statusCode"])
        body = response.get("body") or ""
        if not 100 <= status <= 599 or not isinstance(body, str):
            raise ValueError("statusCode or body")
        content = body.encode()
        if response.get("isBase64Encoded"):
            binary = base64.b64decode(body, validate=True)
            content = binary if decoded else content
        return Answer(status, _response_headers(response), content)
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise Refused(502, "InternalServerErrorException", "Internal server error") from error


def streamed_answer(chunks: Iterator[bytes]) -> tuple[Answer, bytes]:
    """Reads `chunks` up to the end of the metadata: the answer's status and headers, and the body's first
    bytes.

    Raises Refused (502) when what comes is not metadata followed by eight NUL bytes.
    """
    received = bytearray()
    for chunk in chunks:
        received += chunk
        end = received.find(METADATA_END)
        if end >= 0:
            head, first = bytes(received[:end]), bytes(received[end + len(METADATA_END) :])
            answer = proxy_answer(head)
            return Answer(answer.status, answer.headers), first
        if len(received) > LARGEST_METADATA:
            break
    raise Refused(502, "InternalServerErrorException", "Internal server error")


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]] | None:
    grouped: dict[str, list[str]] = {}
    for name, value in pairs:
        grouped.setdefault(name, []).append(value)
    return grouped or None


def _encoded_body(api: Api, request: Request) -> tuple[str | None, bool]:
    if not request.body:
        return None, False
    if _is_binary(api, request.header("Content-Type") or "application/json"):
        return base64.b64encode(request.body).decode(), True
    try:
        return request.body.decode(), False
    except UnicodeDecodeError as error:
        message = f"The body is not UTF-8 at byte {error.start}"
        raise Refused(400, "BadRequestException", message, "BAD_REQUEST_BODY") from error


def _is_binary(api: Api, value: str) -> bool:
    """Whether the media type in a header's value, without its parameters, is one of the API's binary ones."""
    media_type = value.split(";")[0].strip().lower()
    main_type = media_type.split("/")[0]
    return bool({"*/*", f"{main_type}/*", media_type} & api.binary_media_types)


def _identity(request: Request, caller: str | None) -> dict[str, Any]:
    known = {
        "accessKey": caller,
        "accountId": ACCOUNT_ID,
        "caller": caller,
        "user": caller,
        "userArn": f"arn:aws:iam::{ACCOUNT_ID}:user/{caller}",
    }
    return {
        **{name: value if caller else None for name, value in known.items()},
        "apiKey": None,
        "cognitoAuthenticationProvider": None,
        "cognitoAuthenticationType": None,
        "cognitoIdentityId": None,
        "cognitoIdentityPoolId": None,
        "principalOrgId": None,
        "sourceIp": request.source_ip,
        "userAgent": request.header("User-Agent"),
    }


def _response_headers(response: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Single and multiple values together: as on AWS, a name in `multiValueHeaders` hides the same one in
    `headers`.
    """
    many = cast("dict[str, list[Any]]", response.get("multiValueHeaders") or {})
    hidden = {name.lower() for name in many}
    pairs = [(name, str(value)) for name, values in many.items() for value in values]
    pairs += [
        (name, _header_value(value))
        for name, value in (response.get("headers") or {}).items()
        if name.lower() not in hidden and value is not None
    ]
    if "content-type" not in {name.lower() for name, _ in pairs}:
        pairs.append(("Content-Type", "application/json"))
    return [
        (f"x-amzn-Remapped-{name}" if name.lower() in _REMAPPED else name, value)
        for name, value in pairs
        if name.lower() not in _FRAMING and not set("\r\n") & set(name + value)
    ]


def _header_value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
