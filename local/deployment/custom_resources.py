"""CloudFormation's custom resources: the function is sent CloudFormation's own event and answers at a
ResponseURL.

Source: "Custom resource request objects" and "... response objects" in the CloudFormation template reference.
"""

import json
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from local.invocations import Functions
from local.loopback import ThisMachinesRequests

RequestType = Literal["Create", "Update", "Delete"]

_ANSWER_GRACE_SECONDS = 5.0


class CustomResourceFailed(Exception):
    """The function answered FAILED (the message is its Reason), crashed, or did not answer."""


@dataclass(frozen=True, slots=True)
class CustomResource:
    """A custom resource as it is in force: its properties, its physical id, and what GetAtt reads from it."""

    logical_id: str
    type: str
    properties: Mapping[str, Any]
    physical_id: str
    data: Mapping[str, Any]


class CustomResources:
    """Creates and updates custom resources. It listens on 127.0.0.1 for the answers until `close`."""

    def __init__(self, functions: Functions, stack_id: str) -> None:
        self._functions = functions
        self._stack_id = stack_id
        self._answers: dict[str, dict[str, Any]] = {}
        self._arrived = threading.Condition()
        self._server = _AnswerServer(("127.0.0.1", 0), _AnswerHandler)
        self._server.receive = self._receive
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="custom resources", daemon=True
        )
        self._thread.start()

    def create(self, logical_id: str, kind: str, properties: Mapping[str, Any]) -> CustomResource:
        """Raises CustomResourceFailed."""
        properties = _as_text(properties)
        answer = self._request("Create", logical_id, kind, properties)
        return CustomResource(logical_id, kind, properties, _physical_id(answer), answer.get("Data") or {})

    def update(self, resource: CustomResource, properties: Mapping[str, Any]) -> CustomResource:
        """The resource with its new properties. A new physical id means a replacement: the old one is
        deleted.

        Raises CustomResourceFailed; `resource` is then still what is in force.
        """
        properties = _as_text(properties)
        answer = self._request(
            "Update",
            resource.logical_id,
            resource.type,
            properties,
            PhysicalResourceId=resource.physical_id,
            OldResourceProperties=resource.properties,
        )
        updated = CustomResource(
            resource.logical_id, resource.type, properties, _physical_id(answer), answer.get("Data") or {}
        )
        if updated.physical_id != resource.physical_id:
            self._request(
                "Delete",
                resource.logical_id,
                resource.type,
                resource.properties,
                PhysicalResourceId=resource.physical_id,
            )
        return updated

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _request(
        self, request: RequestType, logical_id: str, kind: str, properties: Mapping[str, Any], **more: Any
    ) -> dict[str, Any]:
        request_id = str(uuid.uuid4())
        token = str(properties["ServiceToken"])
        event = {
            "RequestType": request,
            "ServiceToken": token,
            "ResponseURL": f"http://127.0.0.1:{self._server.server_address[1]}/{request_id}",
            "StackId": self._stack_id,
            "RequestId": request_id,
            "ResourceType": kind,
            "LogicalResourceId": logical_id,
            "ResourceProperties": properties,
            **more,
        }
        result = self._functions.invoke(token.rpartition(":")[2], json.dumps(event).encode())
        with self._arrived:
            answered = self._arrived.wait_for(
                lambda: request_id in self._answers, 0 if result.function_error else _ANSWER_GRACE_SECONDS
            )
            answer = self._answers.pop(request_id, {})
        if not answered:
            reason = _crash(result.payload) if result.function_error else "the function sent no answer"
            raise CustomResourceFailed(f"{logical_id}: {reason}")
        if answer.get("Status") != "SUCCESS":
            raise CustomResourceFailed(f"{logical_id}: {answer.get('Reason') or 'failed without a Reason'}")
        for name in ("StackId", "RequestId", "LogicalResourceId"):
            if answer.get(name) != event[name]:
                raise CustomResourceFailed(f"{logical_id}: the answer's {name} is not the request's")
        if not answer.get("PhysicalResourceId"):
            raise CustomResourceFailed(f"{logical_id}: the answer has no PhysicalResourceId")
        return answer

    def _receive(self, request_id: str, answer: dict[str, Any]) -> None:
        with self._arrived:
            self._answers[request_id] = answer
            self._arrived.notify_all()


class _AnswerServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    receive: Callable[[str, dict[str, Any]], None]


class _AnswerHandler(ThisMachinesRequests, BaseHTTPRequestHandler):
    """Takes an answer, as S3 takes it behind a presigned URL: a PUT with a JSON document."""

    largest_body = 4096
    """CloudFormation's own bound."""

    server: _AnswerServer

    def log_message(self, *_: Any) -> None:
        """The answers are reported by who waits for them."""

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            self.send_error(400, "not a JSON object")
            return
        self.server.receive(self.path.strip("/"), answer)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _as_text(value: Any) -> Any:
    """CloudFormation hands every scalar over as text."""
    if isinstance(value, Mapping):
        return {key: _as_text(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_text(item) for item in value]
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def _physical_id(answer: Mapping[str, Any]) -> str:
    return str(answer["PhysicalResourceId"])


def _crash(payload: bytes) -> str:
    try:
        document = json.loads(payload)
        return f"{document['errorType']}: {document['errorMessage']}"
    except (ValueError, KeyError, TypeError):
        return payload.decode(errors="replace")[:500]
