"""The routes of the API: what the template's OpenAPI definition says, and which route a request takes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote

Authorization = Literal["NONE", "AWS_IAM"]

_INTEGRATION = re.compile(r"/functions/arn:[^/]*:function:([^/:]+)(?::[^/]+)?/(?:response-streaming-)?invocations$")
_ANY_METHOD = "x-amazon-apigateway-any-method"
_DEFAULT_TIMEOUT_MS = 29_000
_EVERY_METHOD = ("*", "*")


MESSAGE = "$context.error.messageString"
"""What stands in a gateway response for its message, as a JSON text."""


class UnsupportedApi(Exception):
    """The definition has something that the offline front cannot do. The message is one line."""


@dataclass(frozen=True, slots=True)
class Throttle:
    """A token bucket: it holds `burst` requests, and `rate` come back in a second."""

    rate: float
    burst: int


_ACCOUNT_THROTTLE = Throttle(10_000, 5_000)
"""What an account has in a Region, by default."""


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path template (`/agents/{agentId}/text`, `/files/{path+}`) and the function behind
    it.
    """

    method: str
    path: str
    function: str
    streaming: bool = False
    authorization: Authorization = "NONE"
    timeout_seconds: float = 29
    throttle: Throttle | None = None


@dataclass(frozen=True, slots=True)
class GatewayResponse:
    """What API Gateway answers by itself: a header's text by its name, and the body's template."""

    headers: Mapping[str, str]
    template: str


@dataclass(frozen=True, slots=True)
class Api:
    """What the template says about the API. A method `ANY` in a route stands for every method. `responses` are its own
    answers by their type, `DEFAULT_4XX` say.
    """

    routes: Sequence[Route]
    binary_media_types: frozenset[str] = frozenset()
    api_id: str = "local"
    stage: str = "local"
    responses: Mapping[str, GatewayResponse] = field(default_factory=dict)

    def match(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """The most specific route for a raw (percent-encoded) path, with its decoded path parameters."""
        found = [
            (_specificity(route), route, parameters)
            for route in self.routes
            if route.method in (method, "ANY") and (parameters := _path_parameters(route.path, path)) is not None
        ]
        if not found:
            return None
        _, route, parameters = max(found, key=lambda candidate: candidate[0])
        return route, parameters


def read_api(
    properties: Mapping[str, Any], api_id: str, stage: str, method_settings: Sequence[Mapping[str, Any]] = ()
) -> Api:
    """The API of an AWS::ApiGateway::RestApi, with the MethodSettings of its stage. Intrinsic functions are resolved.
    Raises UnsupportedApi.
    """
    body = properties.get("Body")
    if not isinstance(body, Mapping):
        raise UnsupportedApi("the API's definition must stand in the template")
    binary = [
        *(properties.get("BinaryMediaTypes") or ()),
        *(body.get("x-amazon-apigateway-binary-media-types") or ()),
    ]
    throttles = _throttles(body, method_settings)
    routes = [
        _route(body, method, path, operation, throttles)
        for path, operations in body["paths"].items()
        for method, operation in operations.items()
        if method != "parameters"
    ]
    media_types = frozenset(str(media_type).replace("~1", "/").lower() for media_type in binary)
    responses = {
        kind: _gateway_response(kind, response)
        for kind, response in (body.get("x-amazon-apigateway-gateway-responses") or {}).items()
    }
    return Api(tuple(routes), media_types, api_id, stage, responses)


def _gateway_response(kind: str, response: Mapping[str, Any]) -> GatewayResponse:
    headers = {
        name.removeprefix("gatewayresponse.header."): str(value)
        for name, value in (response.get("responseParameters") or {}).items()
    }
    template = str((response.get("responseTemplates") or {}).get("application/json"))
    told = {*re.findall(r"\$\w+(?:\.\w+)*", template)} - {MESSAGE}
    if told or response.keys() - {"responseParameters", "responseTemplates"}:
        raise UnsupportedApi(f"{kind}: the offline stack's answers have headers and messages of the gateway's own only")
    if not all(value[:1] == value[-1:] == "'" for value in headers.values()):
        raise UnsupportedApi(f"{kind}: the offline stack knows headers with a text in single quotes only")
    return GatewayResponse({name: value[1:-1] for name, value in headers.items()}, template)


def _route(
    body: Mapping[str, Any],
    method: str,
    path: str,
    operation: Mapping[str, Any],
    throttles: Mapping[tuple[str, str], Throttle],
) -> Route:
    integration = operation.get("x-amazon-apigateway-integration") or {}
    function = _INTEGRATION.search(str(integration.get("uri")))
    if integration.get("type") != "aws_proxy" or function is None:
        raise UnsupportedApi(f"{method.upper()} {path}: the offline stack knows Lambda proxy integrations only")
    spelled = _spelled(method)
    return Route(
        spelled,
        path,
        function[1],
        integration.get("responseTransferMode") == "STREAM",
        _authorization(body, path, operation),
        int(integration.get("timeoutInMillis", _DEFAULT_TIMEOUT_MS)) / 1000,
        throttles.get((spelled, path)) or throttles.get(_EVERY_METHOD),
    )


def _throttles(
    body: Mapping[str, Any], method_settings: Sequence[Mapping[str, Any]]
) -> dict[tuple[str, str], Throttle]:
    """The limits by method and path; those of `_EVERY_METHOD` hold for each method without its own.

    Raises UnsupportedApi for a method that the API does not have, as API Gateway refuses it.
    """
    throttles: dict[tuple[str, str], Throttle] = {}
    known = {(_spelled(method), path) for path, operations in body["paths"].items() for method in operations}
    for setting in method_settings:
        if "ThrottlingRateLimit" not in setting and "ThrottlingBurstLimit" not in setting:
            continue
        place = (str(setting["HttpMethod"]), str(setting["ResourcePath"]).removeprefix("/").replace("~1", "/") or "/")
        if place not in known and place != _EVERY_METHOD:
            raise UnsupportedApi(f"MethodSettings: there is no method {place[0]} {place[1]}")
        rate = setting.get("ThrottlingRateLimit", _ACCOUNT_THROTTLE.rate)
        burst = setting.get("ThrottlingBurstLimit", _ACCOUNT_THROTTLE.burst)
        if int(burst) != float(burst):
            raise UnsupportedApi(f"MethodSettings: ThrottlingBurstLimit of {place[0]} {place[1]} is no whole number")
        throttles[place] = Throttle(float(rate), int(burst))
    return throttles


def _spelled(method: str) -> str:
    return "ANY" if method == _ANY_METHOD else method.upper()


def _authorization(body: Mapping[str, Any], path: str, operation: Mapping[str, Any]) -> Authorization:
    schemes = {
        **(body.get("securityDefinitions") or {}),
        **((body.get("components") or {}).get("securitySchemes") or {}),
    }
    names = {name for requirement in operation.get("security") or () for name in requirement} - {"NONE"}
    for name in names:
        if (schemes.get(name) or {}).get("x-amazon-apigateway-authtype") != "awsSigv4":
            raise UnsupportedApi(f"{path}: the offline stack does not know the authorizer {name}")
    return "AWS_IAM" if names else "NONE"


def _segments(path: str) -> list[str]:
    stripped = path[1:-1] if len(path) > 1 and path.endswith("/") else path[1:]
    return stripped.split("/")


def _path_parameters(template: str, path: str) -> dict[str, str] | None:
    """The decoded parameters of `path` if it fits `template`, else None. A trailing slash does not matter."""
    wanted, given = _segments(template), _segments(path)
    parameters: dict[str, str] = {}
    for index, segment in enumerate(wanted):
        if segment.endswith("+}"):
            rest = "/".join(given[index:])
            return {**parameters, segment[1:-2]: unquote(rest)} if rest else None
        if index >= len(given):
            return None
        if segment.startswith("{"):
            if not given[index]:
                return None
            parameters[segment[1:-1]] = unquote(given[index])
        elif segment != unquote(given[index]):
            return None
    return parameters if len(wanted) == len(given) else None


def _specificity(route: Route) -> tuple[list[int], bool]:
    """Literal segments win over parameters, these over greedy ones, segment by segment; a method wins over
    ANY.
    """
    kinds = [0 if part.endswith("+}") else 1 if part.startswith("{") else 2 for part in _segments(route.path)]
    return kinds, route.method != "ANY"
