"""The console's site below /console: whom it answers, with what, and what it reads."""

import http.client
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from local.bedrock.scripted_model import ScriptedModel
from local.console.console_data import ConsoleData
from local.console.console_site import FILES, ConsoleSite
from local.gateway.proxy_integration import Answer, Request
from local.loopback import is_loopback
from local.stack import LocalStack
from tests.project import TEST_AGENT
from tests.workflow.turns import ask, calls, new_session, says
from turnwright.storage.keys import NO_ACTOR


def get(
    stack: LocalStack, path: str, method: str = "GET", at: str | None = None, **headers: str
) -> tuple[int, Mapping[str, str], bytes]:
    connection = http.client.HTTPConnection(urlsplit(at or stack.url).netloc)
    try:
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, dict(response.headers), response.read()
    finally:
        connection.close()


def data(stack: LocalStack, *path: str) -> Any:
    status, _, body = get(stack, "/console/api/" + "/".join(quote(part, safe="") for part in path))
    assert status == 200, body
    return json.loads(body)


@pytest.mark.parametrize("path", ["/console/", "/console/main.js", "/console/console.css", "/console/api/overview"])
def test_every_answer_forbids_the_page_what_is_not_its_own(stack: LocalStack, path: str) -> None:
    status, headers, _ = get(stack, path)
    assert status == 200
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "require-trusted-types-for 'script'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


@pytest.mark.parametrize("host", ["attacker.example", "127.0.0.1.attacker.example:3000", "", "[", "192.168.0.7:3000"])
@pytest.mark.parametrize("path", ["/console/", "/console/api/overview", "/turns/0"])
def test_a_host_that_is_not_the_loopback_is_refused(stack: LocalStack, path: str, host: str) -> None:
    status, _, body = get(stack, path, Host=host)
    assert status == 403
    assert b"127.0.0.1" in body
    assert b"agents" not in body


ATTACKED = "/turns?X-Amz-Credential=victim%2F20260101%2Fus-east-1%2Fexecute-api%2Faws4_request"
"""A signature in the address needs no header that a browser would ask about first."""


@pytest.mark.parametrize("origin", ["https://attacker.example", "http://127.0.0.1.attacker.example", "null", ""])
@pytest.mark.parametrize("aws", [False, True], ids=["api", "aws"])
def test_a_page_of_another_site_is_refused_whatever_it_sends(stack: LocalStack, origin: str, aws: bool) -> None:
    status, headers, _ = get(
        stack, "/moto-api/reset" if aws else ATTACKED, "POST", at=stack.aws_url if aws else stack.url, Origin=origin
    )
    assert status == 403
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize("host", ["attacker.example:3001", ""])
def test_a_name_of_another_site_that_points_here_reads_nothing_of_the_offline_aws(stack: LocalStack, host: str) -> None:
    status, _, _ = get(stack, "/moto-api/data.json", at=stack.aws_url, Host=host)
    assert status == 403


@pytest.mark.parametrize("origin", ["http://127.0.0.1:1", "http://localhost:5173", "https://[::1]:8443"])
def test_the_pages_of_this_machine_are_served(stack: LocalStack, origin: str) -> None:
    status, _, _ = get(stack, "/console/api/overview", Origin=origin)
    assert status == 200
    status, _, body = get(stack, ATTACKED, "POST", Origin=origin)
    assert (status, b"ValidationException" in body) == (400, True)


@pytest.mark.parametrize(
    "host", ["127.0.0.1:3000", "localhost", "LOCALHOST:1", "[::1]:3000", "documents.localhost:3001"]
)
def test_the_loopbacks_names_are_served(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["localhost.attacker.example", "127.0.0.1@attacker.example", "xlocalhost", None])
def test_names_that_look_like_the_loopbacks_are_not(host: str | None) -> None:
    assert not is_loopback(host)


def test_the_page_has_no_script_and_no_style_in_its_html() -> None:
    html = (FILES / "index.html").read_text()
    assert "<style" not in html
    assert " style=" not in html
    assert " onclick=" not in html
    assert "http" not in html.replace("http-equiv", "")


def test_no_module_of_the_page_makes_html_of_text() -> None:
    for path in FILES.glob("*.js"):
        text = path.read_text()
        for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "DOMParser"):
            assert sink not in text, f"{path.name}: {sink}"


@pytest.mark.parametrize(
    "path",
    [
        "/console/nothing.js",
        "/console/../console_site.py",
        "/console/%2e%2e/console_site.py",
        "/console/..%2fconsole_site.py",
        "/console//etc/passwd",
        "/console/index.html/",
        "/console/api/",
        "/console/api/nothing",
        "/console/api/turns/unknown",
        "/console/api/turns/unknown/visits/1",
        "/console/api/turns/unknown/visits/one",
        "/console/api/turns/unknown/steps/1",
        "/console/api/turns/unknown/events/x",
        "/console/api/turns/unknown/definition",
        "/console/api/turns/..%2f..%2f/definition",
    ],
)
def test_what_is_not_there_is_not_found(stack: LocalStack, path: str) -> None:
    status, headers, body = get(stack, path)
    assert status == 404
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body)["message"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_written(stack: LocalStack, method: str) -> None:
    status, headers, _ = get(stack, "/console/api/turns", method, Content_Length="0")
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


def test_the_address_without_a_slash_leads_to_the_page(stack: LocalStack) -> None:
    status, headers, _ = get(stack, "/console")
    assert (status, headers["Location"]) == (308, "/console/")


def test_a_browser_that_asks_for_the_root_is_led_to_the_page_and_a_client_is_not(stack: LocalStack) -> None:
    status, headers, _ = get(stack, "/", Accept="text/html,application/xhtml+xml,*/*;q=0.8")
    assert (status, headers["Location"]) == (302, "/console/")
    assert get(stack, "/")[0] == 403


def test_the_apis_own_routes_are_not_the_sites(stack: LocalStack) -> None:
    status, _, body = get(stack, "/consoles")
    assert status == 403
    assert b"MissingAuthenticationTokenException" in body


def test_data_that_is_known_is_not_sent_again(stack: LocalStack) -> None:
    _, headers, _ = get(stack, "/console/api/overview")
    status, _, body = get(stack, "/console/api/overview", If_None_Match=headers["ETag"])
    assert (status, body) == (304, b"")


def test_a_turn_is_told_with_its_states_model_calls_and_events(
    stack: LocalStack, model: ScriptedModel, agent_client: Any
) -> None:
    model.replace([calls(("misbehave", {"how": "throttle", "times": 1}), step=1), says("fine")])
    session = new_session()
    told = ask(agent_client, "go", session, memoryId="user_told")
    turn = data(stack, "turns", told.turn_id)
    assert (turn["status"], turn["answer"], turn["inputText"]) == ("COMMITTED", "fine", "go")
    assert (turn["sessionId"], turn["actor"], turn["agentId"]) == (session, "user_told", TEST_AGENT)
    assert turn["execution"]["transitions"] == len(turn["visits"])
    attempts = [visit for visit in turn["visits"] if visit["name"] == "Invoke Tool"]
    assert [(visit["attempt"], visit["step"], visit["toolName"]) for visit in attempts] == [
        (1, 1, "misbehave"),
        (2, 1, "misbehave"),
    ]
    box = next(visit for visit in turn["visits"] if visit["name"] == "Run Tools")
    assert {(visit["parent"], visit["iteration"]) for visit in attempts} == {(box["id"], 0)}
    assert [visit["outcome"] for visit in attempts] == ["caught", "succeeded"]
    assert [step["model"] for step in turn["steps"]] == ["first-model", "first-model"]
    told_attempts = [event for event in turn["events"] if event["type"] == "TOOL_INVOCATION"]
    assert [(event["status"], event["attempt"]) for event in told_attempts] == [("FAILED", 1), ("SUCCESS", 2)]

    payload = data(stack, "turns", told.turn_id, "visits", str(attempts[1]["id"]))
    assert payload["output"]["status"] == "success"
    assert payload["tries"][0]["arguments"]["Payload"]["attempt"] == 2
    assert data(stack, "turns", told.turn_id, "steps", "2")["message"]["content"] == [{"text": "fine"}]
    event = data(stack, "turns", told.turn_id, "events", told_attempts[1]["id"])
    assert "went well in attempt 2" in event["result"]
    definition = data(stack, "turns", told.turn_id, "definition")
    assert definition == data(stack, "definition")
    assert definition["StartAt"] == "Load Memory"


def test_long_texts_are_cut_in_the_turn_and_whole_in_the_event(
    stack: LocalStack, model: ScriptedModel, agent_client: Any
) -> None:
    text = "x" * 20_000
    model.replace([says(text)])
    told = ask(agent_client, "go")
    turn = data(stack, "turns", told.turn_id)
    final = next(event for event in turn["events"] if event["type"] == "FINAL_RESPONSE")
    assert len(final["answer"]) < 300
    assert data(stack, "turns", told.turn_id, "events", final["id"])["answer"] == text


def test_sessions_without_an_actor_are_found_by_their_turns(
    stack: LocalStack, model: ScriptedModel, agent_client: Any
) -> None:
    model.replace([says("hello", text="hi"), calls(("strict", {"how": "hang"}), text="fail")])
    session = new_session()
    first = ask(agent_client, "hi", session)
    second = ask(agent_client, "fail", session)
    store = f"{TEST_AGENT}-turnwright"
    listed = data(stack, "stores", store, "actors", NO_ACTOR, "sessions")
    assert session in {entry["sessionId"] for entry in listed}
    entries = data(stack, "stores", store, "actors", NO_ACTOR, "sessions", session)["entries"]
    assert [(entry["turnId"], entry["status"], entry["inputText"]) for entry in entries] == [
        (first.turn_id, "COMMITTED", "hi"),
        (second.turn_id, "FAILED", "fail"),
    ]
    assert entries[0]["answer"] == "hello"
    assert entries[1]["failure"]["error"] == "ToolFailedTurn"


def test_a_turn_that_is_not_among_the_sessions_newest_events_keeps_its_answer(
    stack: LocalStack, model: ScriptedModel, agent_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.replace([says("first answer", text="one"), says("second answer", text="two")])
    session = new_session()
    for text in ("one", "two"):
        ask(agent_client, text, session, memoryId="user_events")
    monkeypatch.setattr("local.console.console_data._MOST_EVENTS_OF_SESSION", 1)
    entries = data(stack, "stores", f"{TEST_AGENT}-turnwright", "actors", "user_events", "sessions", session)["entries"]
    assert [(entry["inputText"], entry["answer"], entry["status"]) for entry in entries] == [
        ("one", "first answer", "COMMITTED"),
        ("two", "second answer", "COMMITTED"),
    ]


def test_an_actor_is_listed_once_it_has_a_turn(stack: LocalStack, model: ScriptedModel, agent_client: Any) -> None:
    model.replace([says("hello")])
    ask(agent_client, "hi", memoryId="user:listed/../x".replace("/", "-"))
    assert "user:listed-..-x" in data(stack, "stores", f"{TEST_AGENT}-turnwright", "actors")


def test_an_aws_that_does_not_answer_is_told_and_noted() -> None:
    from botocore.exceptions import EndpointConnectionError

    def client(_: str) -> Any:
        raise EndpointConnectionError(endpoint_url="http://127.0.0.1:1")

    noted: list[str] = []
    broken = ConsoleData(
        client,
        table="t",
        bucket="b",
        state_machine_arn="m",
        log_group="l",
        model="rule",
        broken_agent_files=lambda: None,
    )
    request = Request("GET", "/console/api/turns", "", [("Host", "localhost")], b"")
    answer = ConsoleSite(broken, noted.append).answer(request)
    assert isinstance(answer, Answer)
    assert answer.status == 502
    assert "turns" in noted[0]


def test_every_file_of_the_page_is_one_that_the_site_serves() -> None:
    assert {path.suffix for path in FILES.iterdir()} == {".html", ".css", ".js", ".svg"}
    assert all(path.parent == FILES and path.is_file() for path in map(Path, FILES.iterdir()))
