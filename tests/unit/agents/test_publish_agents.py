import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

import publish_agents
from tests.paths import ROOT
from turnwright.agents.custom_resource import LARGEST_ANSWER, Outcome, answer
from turnwright.agents.versions import load, resolve
from turnwright.errors import AgentNotFound
from turnwright.storage import clients
from turnwright.storage.settings import settings
from turnwright.storage.table import Table

AGENTS = ROOT / "agents"
ARN = "arn:aws:lambda:us-east-1:123456789012:function:banking-tools"
BUCKET = "turnwright-bucket"
SUBSTITUTIONS = {"BankingToolsFunctionArn": ARN, "BucketName": BUCKET, "ModelPrefix": "global."}


@dataclass
class CloudFormation:
    """What a custom resource's presigned URL leads to: it keeps each request's content type and body."""

    url: str = ""
    answers: list[tuple[str | None, dict[str, Any]]] = field(default_factory=list)
    status: int = 200


@pytest.fixture
def cloudformation() -> Iterator[CloudFormation]:
    service = CloudFormation()

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            service.answers.append((self.headers.get("Content-Type"), json.loads(body)))
            self.send_response(service.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.url = f"http://127.0.0.1:{server.server_port}/answer?X-Amz-Signature=secret"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield service
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def files(tmp_path: Path, table: Table, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The function's environment: a directory with the repository's agent files, and the table."""
    for file in AGENTS.glob("*.json"):
        shutil.copy(file, tmp_path)
    monkeypatch.setenv("AGENT_FILES_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("TABLE_NAME", table.name)
    monkeypatch.setenv("BUCKET_NAME", BUCKET)
    for cached in (settings, clients.dynamodb, clients.s3):
        cached.cache_clear()
    clients.s3().create_bucket(Bucket=BUCKET)
    yield tmp_path
    for cached in (settings, clients.dynamodb, clients.s3):
        cached.cache_clear()


def deploy(service: CloudFormation, kind: str = "Create", **properties: object) -> dict[str, Any]:
    """Sends a request as CloudFormation does; the fields of the answer that differ from request to request."""
    event = {
        "RequestType": kind,
        "ResponseURL": service.url,
        "StackId": "arn:aws:cloudformation:us-east-1:123456789012:stack/turnwright/guid",
        "RequestId": "request-1",
        "LogicalResourceId": "PublishedAgents",
        "ResourceType": "Custom::PublishedAgents",
        "ResourceProperties": {"ServiceToken": ARN, "Substitutions": SUBSTITUTIONS, **properties},
    }
    publish_agents.handler(event, None)
    content_type, body = service.answers[-1]
    assert not content_type  # the URL is signed for none
    fixed = {
        "PhysicalResourceId": "published-agents",
        "StackId": "arn:aws:cloudformation:us-east-1:123456789012:stack/turnwright/guid",
        "RequestId": "request-1",
        "LogicalResourceId": "PublishedAgents",
    }
    assert body.items() >= fixed.items()
    return {name: value for name, value in body.items() if name not in fixed}


def edit(file: Path, **fields: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def succeeded(agents: str) -> dict[str, Any]:
    return {"Status": "SUCCESS", "Data": {"Agents": agents}}


def test_a_new_stack_publishes_every_agent(files: Path, table: Table, cloudformation: CloudFormation) -> None:
    assert deploy(cloudformation) == succeeded("BANKASSIST:1 SMALLTALK:1")

    agent = load(table, "BANKASSIST", resolve(table, "BANKASSIST", "live"))
    assert {tool.function_arn for tool in agent.tools if not tool.is_memory} == {ARN}


def test_a_changed_file_becomes_the_next_version(files: Path, table: Table, cloudformation: CloudFormation) -> None:
    deploy(cloudformation)
    edit(files / "small_talk.json", agentName="chatter")

    assert deploy(cloudformation, "Update") == succeeded("BANKASSIST:1 SMALLTALK:2")
    assert load(table, "SMALLTALK", resolve(table, "SMALLTALK", "live")).name == "chatter"


def test_a_request_that_comes_twice_is_answered_the_same(files: Path, cloudformation: CloudFormation) -> None:
    assert deploy(cloudformation) == deploy(cloudformation) == succeeded("BANKASSIST:1 SMALLTALK:1")


def test_an_agent_whose_file_is_gone_is_gone(files: Path, table: Table, cloudformation: CloudFormation) -> None:
    deploy(cloudformation)
    (files / "small_talk.json").unlink()

    assert deploy(cloudformation, "Update") == succeeded("BANKASSIST:1")
    with pytest.raises(AgentNotFound, match="SMALLTALK"):
        resolve(table, "SMALLTALK", "live")


def test_deleting_the_stack_removes_nothing(files: Path, table: Table, cloudformation: CloudFormation) -> None:
    deploy(cloudformation)

    assert deploy(cloudformation, "Delete") == succeeded("")
    assert resolve(table, "BANKASSIST", "live") == "1"


def test_a_delete_succeeds_where_nothing_works(cloudformation: CloudFormation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TABLE_NAME", raising=False)
    settings.cache_clear()

    assert deploy(cloudformation, "Delete") == succeeded("")


def test_a_broken_file_fails_the_deployment_and_publishes_nothing(
    files: Path, table: Table, cloudformation: CloudFormation
) -> None:
    edit(files / "small_talk.json", limits={"maxSteps": 0})

    assert deploy(cloudformation) == {
        "Status": "FAILED",
        "Reason": "Nothing was published. agents/small_talk.json: /limits/maxSteps: 0 is less than the minimum of 1",
    }
    with pytest.raises(AgentNotFound, match="BANKASSIST"):
        resolve(table, "BANKASSIST", "live")


@dataclass
class Log:
    """A logger that keeps the fields of the errors."""

    errors: list[dict[str, str]] = field(default_factory=list)

    def error(self, _message: str, **fields: str) -> None:
        self.errors.append(fields)


def test_each_problem_of_the_agent_files_has_a_line_of_the_log_and_one_of_the_reason(
    files: Path, cloudformation: CloudFormation, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log()
    monkeypatch.setattr(publish_agents, "logger", lambda: log)
    edit(files / "small_talk.json", limits={"maxSteps": 0}, agentName="")
    edit(files / "banking_assistant.json", limits={"maxSteps": 0})

    reason = deploy(cloudformation)["Reason"]

    told = [": ".join((line["file"], line["place"], line["rule"])) for line in log.errors]
    assert len(told) == 3
    assert reason == f"Nothing was published. {chr(10).join(told)}"


API = {
    "openapi": "3.0.3",
    "paths": {"/claims": {"get": {"operationId": "list_claims", "description": "Lists claims."}}},
}
CLAIMS: dict[str, Any] = {
    "actionGroupName": "Claims",
    "actionGroupExecutor": {"lambda": "${BankingToolsFunctionArn}"},
    "apiSchema": {"s3": {"s3BucketName": "${BucketName}", "s3ObjectKey": "schemas/claims.json"}},
}


def upload(text: str) -> None:
    clients.s3().put_object(Bucket=BUCKET, Key="schemas/claims.json", Body=text.encode())


def test_an_api_schema_of_the_bucket_is_kept_in_the_version(
    files: Path, table: Table, cloudformation: CloudFormation
) -> None:
    upload(json.dumps(API))
    edit(files / "small_talk.json", actionGroups=[CLAIMS])
    assert deploy(cloudformation) == succeeded("BANKASSIST:1 SMALLTALK:1")

    upload(json.dumps(API).replace("Lists claims.", "Lists all claims."))
    (tool,) = load(table, "SMALLTALK", "1").tools
    assert (tool.name, tool.description) == ("list_claims", "Lists claims.")

    assert deploy(cloudformation, "Update") == succeeded("BANKASSIST:1 SMALLTALK:2")
    (tool,) = load(table, "SMALLTALK", "2").tools
    assert tool.description == "Lists all claims."
    assert load(table, "SMALLTALK", "1").tools[0].description == "Lists claims."


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (None, "'schemas/claims.json' cannot be read: An error occurred (NoSuchKey) "),
        ("x" * 350_001, "'schemas/claims.json' cannot be read: it has 350001 bytes, at most 350000 are allowed"),
        ("openapi: 3.0.3", "line 1, column 1: is not JSON: "),
    ],
    ids=["missing", "too long", "yaml"],
)
def test_an_api_schema_that_cannot_be_read_fails_the_deployment(
    files: Path, cloudformation: CloudFormation, text: str | None, rule: str
) -> None:
    if text is not None:
        upload(text)
    edit(files / "small_talk.json", actionGroups=[CLAIMS])

    result = deploy(cloudformation)

    assert result["Status"] == "FAILED"
    place = "agents/small_talk.json: /actionGroups/0/apiSchema/s3/s3ObjectKey"
    assert result["Reason"].startswith(f"Nothing was published. {place}: {rule}")


def test_a_substitution_without_a_value_fails_the_deployment(files: Path, cloudformation: CloudFormation) -> None:
    result = deploy(cloudformation, Substitutions={"ModelPrefix": "", "Other": "x"})

    assert result["Status"] == "FAILED"
    assert result["Reason"].startswith(
        "Nothing was published. agents/banking_assistant.json: /actionGroups/0/actionGroupExecutor/lambda: "
        "${BankingToolsFunctionArn} has no value; known are: ${ModelPrefix}, ${Other}. "
    )


def test_any_other_failure_fails_the_deployment_too(
    files: Path, cloudformation: CloudFormation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TABLE_NAME", "no-such-table")
    settings.cache_clear()

    result = deploy(cloudformation)

    assert result["Status"] == "FAILED"
    assert result["Reason"].startswith("Publishing failed: ResourceNotFoundException: ")


def test_an_answer_that_cloudformation_does_not_take_is_tried_again_by_lambda(
    files: Path, cloudformation: CloudFormation
) -> None:
    cloudformation.status = 503

    with pytest.raises(OSError, match="503"):
        deploy(cloudformation)


def test_the_secret_of_the_answers_url_is_in_no_log(
    files: Path, cloudformation: CloudFormation, capfd: pytest.CaptureFixture[str]
) -> None:
    edit(files / "small_talk.json", limits={"maxSteps": 0})
    deploy(cloudformation)

    output = "".join(capfd.readouterr())
    assert "X-Amz-Signature" not in output


REQUEST = {"StackId": "stack", "RequestId": "request", "LogicalResourceId": "PublishedAgents"}


@pytest.mark.parametrize("character", ["x", "ü", "😀", "\n", '"', "\x01"])
@pytest.mark.parametrize("succeeded", [True, False])
def test_a_long_answer_is_cut_to_what_cloudformation_takes_and_says_so(character: str, succeeded: bool) -> None:
    body = answer(REQUEST, "published-agents", Outcome(succeeded, character * 5000))

    fields = json.loads(body)
    text = fields["Data"]["Agents"] if succeeded else fields["Reason"]
    assert text.lstrip(character) == " ... (cut; the function's log has all of it)"
    assert LARGEST_ANSWER - 6 <= len(body) <= LARGEST_ANSWER


def test_an_answer_that_fits_is_not_cut() -> None:
    overhead = len(answer(REQUEST, "published-agents", Outcome(False, "")))
    text = "x" * (LARGEST_ANSWER - overhead)

    body = answer(REQUEST, "published-agents", Outcome(False, text))

    assert (len(body), json.loads(body)["Reason"]) == (LARGEST_ANSWER, text)
