"""`clients/`: what lets unmodified clients of botocore sign for API Gateway."""

import json
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.awsrequest import AWSResponse

from tests.paths import ROOT

CLIENTS = ROOT / "clients"
OVERLAYS = sorted(path.relative_to(CLIENTS) for path in CLIENTS.rglob("*.json"))
MEMORY = {"agentId": "A" * 10, "agentAliasId": "B" * 10, "memoryId": "ab", "memoryType": "SESSION_SUMMARY"}
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "bedrock-agent": ("list_agents", {}),
    "bedrock-agent-runtime": (
        "get_agent_memory",
        {"agentId": "A" * 10, "agentAliasId": "B" * 10, "memoryId": "ab", "memoryType": "SESSION_SUMMARY"},
    ),
    "bedrock-agentcore": ("list_actors", {"memoryId": "memory-0123456789"}),
    "bedrock-agentcore-control": ("list_memories", {}),
}


def signed_for(service: str) -> str:
    """The service in the signature of a client that nobody has changed."""
    names: list[str] = []

    def answer(request: Any, **_: Any) -> AWSResponse:
        names.append(request.headers["Authorization"].decode().split("/")[3])
        response = AWSResponse(request.url, 200, {"content-type": "application/json"}, None)
        response._content = json.dumps({}).encode()
        return response

    session = botocore.session.Session()
    client = session.create_client(
        service, endpoint_url="https://api.example.com", aws_access_key_id="test", aws_secret_access_key="test"
    )
    client.meta.events.register("before-send", answer)
    operation, parameters = CALLS[service]
    getattr(client, operation)(**parameters)
    [name] = names
    return name


@pytest.mark.parametrize("overlay", OVERLAYS, ids=str)
def test_a_client_signs_for_api_gateway_with_the_overlay_alone(overlay: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = overlay.parts[0]
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    assert signed_for(service) != "execute-api"
    monkeypatch.setenv("AWS_DATA_PATH", str(CLIENTS))
    assert signed_for(service) == "execute-api"


def test_there_is_an_overlay_for_the_current_api_of_each_service() -> None:
    loader = botocore.session.Session().get_component("data_loader")
    assert {overlay.parts[:2] for overlay in OVERLAYS} == {
        (service, loader.determine_latest_version(service, "service-2")) for service in CALLS
    }
