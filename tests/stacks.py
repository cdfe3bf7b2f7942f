"""The two worlds of tests/workflow and tests/api: the offline stack, and with `--stack=aws:STACK_NAME` a deployed one.

How a test takes the fixture `stack` says where it runs. As a `Stack` it runs in both worlds, and mypy sees that it uses
nothing else; as a `LocalStack` it needs the offline stack, as all do that use the scripted model. Against a deployed
stack those are skipped, and counted in the summary.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Protocol
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, ClientError

from tests.waiting import eventually

Agent = Mapping[str, str]
"""The arguments that name an agent in `invoke_agent`."""

_OFFLINE = "offline only, uses "


class Stack(Protocol):
    """What every running stack has. `resources` are physical ids by logical id."""

    @property
    def url(self) -> str: ...

    @property
    def outputs(self) -> Mapping[str, str]: ...

    @property
    def resources(self) -> Mapping[str, str]: ...

    def client(self, service: str) -> Any: ...

    def execution_arn(self, name: str, state_machine: str = ...) -> str: ...


class StackUnreachable(Exception):
    """There is no such stack, or no Region or credentials to look for it with."""


class AwsStack:
    """A deployed stack, by the credentials and in the Region that boto3 finds."""

    def __init__(self, name: str) -> None:
        self._clients: dict[str, Any] = {}
        try:
            cloudformation = self.client("cloudformation")
            (described,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
        except (BotoCoreError, ClientError) as error:
            raise StackUnreachable(str(error)) from error
        self.outputs = {output["OutputKey"]: str(output["OutputValue"]) for output in described["Outputs"]}
        self.resources = {
            resource["LogicalResourceId"]: str(resource["PhysicalResourceId"])
            for page in cloudformation.get_paginator("list_stack_resources").paginate(StackName=name)
            for resource in page["StackResourceSummaries"]
        }

    @property
    def url(self) -> str:
        return self.outputs["ApiUrl"]

    def client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = boto3.session.Session().client(service)
        return self._clients[service]

    def execution_arn(self, name: str, state_machine: str = "AgentTurnStateMachine") -> str:
        return f"{self.resources[state_machine].replace(':stateMachine:', ':execution:')}:{name}"


def signing(stack: Stack, client: Any) -> Any:
    """A client of the stack's API. It is left as it is, except that on AWS it signs for API Gateway."""
    if isinstance(stack, AwsStack):
        client.meta.events.register("choose-signer", _sign_for_api_gateway)
    return client


def _sign_for_api_gateway(context: dict[str, Any], **_: Any) -> None:
    context.setdefault("signing", {}).update(signing_name="execute-api")


class Caller:
    """Somebody with HTTP and an access key, or with none. Answers are `(status, body)`; the last headers are kept."""

    def __init__(self, stack: Stack, credentials: Credentials | None) -> None:
        self._url = stack.url
        self._credentials = credentials
        self.headers: Mapping[str, str] = {}

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, Any]]:
        """A body of bytes is sent as it is, another one as JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        request = AWSRequest(method, self._url + path, {"Content-Type": "application/json", **sent}, data)
        if self._credentials:
            SigV4Auth(self._credentials, "execute-api", boto3.session.Session().region_name).add_auth(request)
        signed = Request(request.url, data, dict(request.headers), method=method)
        try:
            with urlopen(signed, timeout=60) as response:
                self.headers = dict(response.headers)
                return response.status, json.loads(response.read())
        except HTTPError as error:
            self.headers = dict(error.headers)
            return error.code, json.loads(error.read())

    def ended(self, turn_id: str) -> dict[str, Any]:
        """The turn's answer to GET /turns/{turnId}, when it runs no longer."""
        eventually(lambda: self.send("GET", f"/turns/{turn_id}")[1]["status"] != "RUNNING", f"the end of {turn_id}", 60)
        return self.send("GET", f"/turns/{turn_id}")[1]


def skip_offline_tests(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and (used := _used(item)):
            item.add_marker(pytest.mark.skip(reason=_OFFLINE + used))


def _used(test: pytest.Function) -> str | None:
    """What the test, or a fixture of it, uses that a deployed stack has not; None if it runs against any stack."""
    if "stack" not in test.fixturenames:
        return "no stack or its own"
    if "model" in test.fixturenames:
        return "the scripted model"
    fixtures = [fixture.func for found in test._fixtureinfo.name2fixturedefs.values() for fixture in found]
    users: list[Callable[..., Any]] = [test.function, *fixtures]
    is_shared = all(_name(user.__annotations__.get("stack", Stack)) == Stack.__name__ for user in users)
    return None if is_shared else "what the offline stack alone has"


def _name(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else annotation.__name__


def summary(stack: str, reports: Mapping[str, list[Any]]) -> str:
    """How many tests ran against the deployed stack, and why the others did not. `reports` are pytest's, by outcome."""
    ran = {report.nodeid for kind in ("passed", "failed") for report in reports.get(kind, ())}
    reasons = (str(report.longrepr[2]).partition(_OFFLINE) for report in reports.get("skipped", ()))
    offline = Counter(used for _, prefix, used in reasons if prefix)
    uses = ", ".join(f"{count} {used}" for used, count in offline.most_common())
    return (
        f"{len(ran)} tests ran against {stack}, {offline.total()} are offline only{f' and use: {uses}' if uses else ''}"
    )
