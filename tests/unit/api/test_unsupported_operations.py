"""What no route serves, called by unmodified clients through the offline gateway, which has the template's routes."""

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

import unsupported_operations
from local.deployment import service_operations
from local.deployment.parameters import resolver_for
from local.deployment.sam_yaml import load_template, transform
from local.gateway.api_gateway import ApiGateway
from local.gateway.proxy_integration import METADATA_END
from local.gateway.routes import read_api
from tests.paths import ROOT
from tests.service_calls import call, client, undeclared
from turnwright.api.unsupported_operations import FILE, STATUS, answer, operations


@dataclass(frozen=True)
class Answered:
    payload: bytes
    function_error: str | None = None


class Streamed(list[bytes]):
    error = None


class Functions:
    """The function that refuses, and in place of each other one an empty answer; `served` are the calls of these."""

    def __init__(self) -> None:
        self.served: list[str] = []

    def invoke(self, function: str, payload: bytes, trace_header: str | None = None) -> Answered:
        if function.startswith("UnsupportedOperations"):
            return Answered(json.dumps(unsupported_operations.handler(json.loads(payload), None)).encode())
        self.served.append(function)
        return Answered(b'{"statusCode": 200, "body": "{}"}')

    def invoke_streaming(self, function: str, payload: bytes, trace_header: str | None = None) -> Streamed:
        self.served.append(function)
        return Streamed([b'{"statusCode": 200, "headers": {}}' + METADATA_END, b"{}"])


@pytest.fixture(scope="module")
def gateway() -> Iterator[ApiGateway]:
    template = load_template(ROOT / "template.yaml")
    document = transform(template)
    properties = resolver_for(template, document).resolve(document["Resources"]["Api"]["Properties"])
    front = ApiGateway(read_api(properties, "api", "v1"), Functions())
    yield front
    front.close()


def served() -> set[str]:
    body = load_template(ROOT / "template.yaml")["Resources"]["Api"]["Properties"]["DefinitionBody"]
    return {
        operation["operationId"]
        for methods in body["paths"].values()
        for operation in methods.values()
        if "operationId" in operation
    }


def refused(method: str, path: str) -> tuple[int, str, str]:
    """The status, the error and the message; the three places that name the error agree."""
    response = answer({"httpMethod": method, "path": path})
    body = json.loads(response["body"])
    assert body["__type"] == response["headers"]["x-amzn-ErrorType"]
    return response["statusCode"], body["__type"], body["message"]


def test_the_operations_are_those_of_the_installed_botocore_and_of_the_template() -> None:
    assert FILE.read_text() == service_operations.text(), f"{service_operations.__name__} has to write {FILE.name} anew"


@pytest.mark.parametrize("service", service_operations.SERVICES)
def test_an_unmodified_client_knows_the_refusal_of_each_operation_that_has_no_route(
    service: str, gateway: ApiGateway
) -> None:
    caller = client(service, gateway.url)
    names = caller.meta.service_model.operation_names
    wrong = []
    for name in names:
        refusal = call(caller, name)
        if refusal is None:
            assert name in served()
        elif found := undeclared(caller, name, refusal):
            wrong.append(found)
        elif f"{name} of {service}" not in str(refusal) or "is not supported by this runtime: " not in str(refusal):
            wrong.append(f"{name}: {refusal}")
    assert wrong == []
    assert len(names) > 30


def test_operations_of_one_path_have_an_error_that_all_their_services_declare() -> None:
    errors: dict[tuple[str, tuple[bool, ...], str], set[str]] = {}
    for operation in operations():
        shape = "/".join("{}" if segment.startswith("{") else segment for segment in operation.segments)
        errors.setdefault((operation.method, tuple(operation.literals), shape), set()).add(operation.error)
    assert [where for where, names in errors.items() if len(names) > 1] == []


AGENT_FILES = "agents are files in agents/, which a deployment publishes"
RUNTIME_ARN = "arn%3Aaws%3Abedrock-agentcore%3Aus-east-1%3A1%3Aruntime%2FR"


@pytest.mark.parametrize(
    ("method", "path", "error", "names", "instead"),
    [
        ("GET", "/agents/A1/", "ValidationException", "GetAgent of bedrock-agent", AGENT_FILES),
        (
            "POST",
            "/agents/A1",
            "ValidationException",
            "InvokeInlineAgent of bedrock-agent-runtime or PrepareAgent of bedrock-agent",
            f"describe the agent in a file in agents/, and call InvokeAgent; {AGENT_FILES}",
        ),
        (
            "DELETE",
            "/runtimes/R",
            "ResourceNotFoundException",
            "DeleteAgentRuntime of bedrock-agentcore-control",
            AGENT_FILES,
        ),
        (
            "POST",
            f"/runtimes/{RUNTIME_ARN}/invocations",
            "ValidationException",
            "InvokeAgentRuntime of bedrock-agentcore",
            "InvokeAgent of bedrock-agent-runtime runs a turn, and so does POST /turns",
        ),
        (
            "GET",
            "/flows/F",
            "ValidationException",
            "GetFlow of bedrock-agent",
            "a client of bedrock-agent without an endpoint_url calls AWS, which has it",
        ),
    ],
)
def test_an_operation_that_is_not_there_is_named_with_what_there_is_instead(
    method: str, path: str, error: str, names: str, instead: str
) -> None:
    said = f"{names} is not supported by this runtime: {instead}"
    assert refused(method, path) == (STATUS[error], error, said)


@pytest.mark.parametrize("path", ["/nowhere", "/agents//agentaliases", "/agents/A1%2Factiongroups/x/y", "/"])
def test_a_path_that_there_is_not_is_named(path: str) -> None:
    assert refused("GET", path) == (404, "ResourceNotFoundException", f"no operation has the path {path}")


def test_a_wrong_method_is_told_the_right_ones() -> None:
    response = answer({"httpMethod": "PATCH", "path": "/turns/0123"})
    assert (response["statusCode"], response["headers"]["Allow"]) == (405, "GET")
    assert refused("PUT", "/turns") == (
        405,
        "ValidationException",
        "the path /turns does not take PUT; it takes POST (StartTurn)",
    )


def test_the_path_that_is_described_most_closely_is_meant() -> None:
    """/memories/create has an operation of its own, though {memoryId} could be `create`."""
    assert refused("PATCH", "/memories/create")[2].endswith("it takes POST (CreateMemory)")


def test_an_unsigned_request_gets_no_further_than_the_gateway(gateway: ApiGateway) -> None:
    for path in ("/nowhere", "/agents/A1", "/turns"):
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
        connection.request("GET", path)
        response = connection.getresponse()
        body = json.loads(response.read())
        connection.close()
        name = "MissingAuthenticationTokenException"
        assert (response.status, response.getheader("x-amzn-ErrorType"), body["__type"]) == (403, name, name)
        assert "The request is not signed" in body["message"]
