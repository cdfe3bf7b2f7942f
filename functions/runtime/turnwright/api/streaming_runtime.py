"""A Lambda runtime for a function whose response is streamed: the managed Python runtime cannot.

`stream_responses`, set as AWS_LAMBDA_EXEC_WRAPPER, starts this file in the place of the managed runtime. It takes
invocations from the Lambda Runtime API and posts each response piece by piece: metadata as JSON, eight NUL bytes, then
the body as it comes. Source: "Using the Lambda runtime API for custom runtimes" and "Response streaming for Lambda
functions" in the Lambda guide.
"""

import http.client
import importlib
import json
import os
import site
import sys
import time
import traceback
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

StreamedResponse = tuple[dict[str, Any], Iterable[bytes]]
"""`{"statusCode", "headers"}`, and the body."""

_VERSION = "/2018-06-01/runtime"


class LambdaContext(Protocol):
    """What the front door uses of Lambda's context object."""

    def get_remaining_time_in_millis(self) -> int: ...


@dataclass(frozen=True, slots=True)
class StreamContext:
    """The context of a streamed invocation, with the managed runtime's names."""

    aws_request_id: str
    deadline_ms: int
    invoked_function_arn: str

    def get_remaining_time_in_millis(self) -> int:
        return max(0, self.deadline_ms - time.time_ns() // 1_000_000)


Handler = Callable[[dict[str, Any], StreamContext], StreamedResponse]


class CallerGone(Exception):
    """The rest of a response is not wanted any more."""


class RuntimeApi:
    """The Lambda Runtime API at `address` (host:port, and offline a path)."""

    def __init__(self, address: str) -> None:
        self._host, slash, path = address.partition("/")
        self._base = slash + path + _VERSION

    def next(self) -> tuple[bytes, http.client.HTTPMessage]:
        """Waits for an invocation: its event and headers, whose names may be in any case."""
        connection = http.client.HTTPConnection(self._host)
        try:
            connection.request("GET", f"{self._base}/invocation/next")
            response = connection.getresponse()
            if response.status != 200:
                raise ConnectionError(f"the Runtime API answered {response.status} to next")
            return response.read(), response.headers
        finally:
            connection.close()

    def respond(self, request_id: str, metadata: Mapping[str, Any], body: Iterable[bytes]) -> None:
        """Posts a response as it comes. An error in the middle is reported in the trailers, and raised again.

        Raises CallerGone if the response is not taken to its end.
        """
        connection = http.client.HTTPConnection(self._host)
        try:
            connection.putrequest("POST", f"{self._base}/invocation/{request_id}/response")
            connection.putheader("Lambda-Runtime-Function-Response-Mode", "streaming")
            connection.putheader("Transfer-Encoding", "chunked")
            connection.putheader("Content-Type", "application/vnd.awslambda.http-integration-response")
            connection.putheader("Trailer", "Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body")
            connection.endheaders()
            _send_chunk(connection, json.dumps(metadata).encode() + b"\0" * 8)
            failure = _send_chunks(connection, body)
            connection.send(b"0\r\n" + (_error_trailers(failure) if failure else b"") + b"\r\n")
            connection.getresponse().read()
        except (OSError, http.client.HTTPException) as error:
            raise CallerGone(str(error)) from error
        finally:
            connection.close()
        if failure:
            raise failure

    def fail(self, path: str, error: BaseException) -> None:
        """Reports an error, at `/init/error` or `/invocation/<id>/error`."""
        connection = http.client.HTTPConnection(self._host)
        try:
            headers = {
                "Lambda-Runtime-Function-Error-Type": type(error).__name__,
                "Content-Type": "application/json",
            }
            connection.request("POST", self._base + path, json.dumps(_described(error)), headers)
            connection.getresponse().read()
        finally:
            connection.close()


def serve_one(api: RuntimeApi, handler: Handler) -> None:
    """Takes one invocation and answers it."""
    body, headers = api.next()
    request_id = headers["Lambda-Runtime-Aws-Request-Id"]
    os.environ["_X_AMZN_TRACE_ID"] = headers.get("Lambda-Runtime-Trace-Id") or ""
    context = StreamContext(
        request_id,
        int(headers["Lambda-Runtime-Deadline-Ms"]),
        headers.get("Lambda-Runtime-Invoked-Function-Arn") or "",
    )
    try:
        metadata, pieces = handler(json.loads(body), context)
    except Exception as error:
        traceback.print_exc()
        api.fail(f"/invocation/{request_id}/error", error)
        return
    try:
        api.respond(request_id, metadata, pieces)
    except CallerGone as gone:
        print(f"the caller went away before the response ended: {gone}", file=sys.stderr, flush=True)
    except Exception:
        traceback.print_exc()


def _send_chunk(connection: http.client.HTTPConnection, piece: bytes) -> None:
    if piece:
        connection.send(b"%x\r\n" % len(piece) + piece + b"\r\n")


def _send_chunks(connection: http.client.HTTPConnection, body: Iterable[bytes]) -> Exception | None:
    """Sends what the body yields, as it comes. The error that the body itself ends with is the result."""
    pieces = iter(body)
    while True:
        try:
            piece = next(pieces)
        except StopIteration:
            return None
        except Exception as error:
            return error
        _send_chunk(connection, piece)


def _error_trailers(error: Exception) -> bytes:
    described = b64encode(json.dumps(_described(error)).encode()).decode()
    return (
        f"Lambda-Runtime-Function-Error-Type: {type(error).__name__}\r\n"
        f"Lambda-Runtime-Function-Error-Body: {described}\r\n"
    ).encode()


def _described(error: BaseException) -> dict[str, Any]:
    return {
        "errorType": type(error).__name__,
        "errorMessage": str(error),
        "stackTrace": traceback.format_tb(error.__traceback__),
    }


def find_modules() -> None:
    """Puts the function's code and the layers first on `sys.path`, as the managed runtime would have done.

    Source: "Search path for Python runtimes" and "Layer paths for each Lambda runtime" in the Lambda guide. What stands
    behind them comes with the interpreter: boto3, from Python 3.11 on.
    """
    del sys.path[0]  # Python puts this file's folder first, whose modules would hide others of the same names.
    # It is /opt; offline another folder, which stands to the runtime's as /opt to /var/runtime.
    layers = os.environ.get("LAMBDA_RUNTIME_DIR", "").removesuffix("/var/runtime") + "/opt/python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    folders = [os.environ["LAMBDA_TASK_ROOT"], f"{layers}/lib/{version}/site-packages", layers]
    sys.path[:0] = folders
    for folder in folders:
        site.addsitedir(folder)


def main() -> None:
    api = RuntimeApi(os.environ["AWS_LAMBDA_RUNTIME_API"])
    find_modules()
    module, _, name = os.environ["_HANDLER"].rpartition(".")
    try:
        handler: Handler = getattr(importlib.import_module(module), name)
    except BaseException as error:
        traceback.print_exc()
        api.fail("/init/error", error)
        sys.exit(1)
    while True:
        serve_one(api, handler)


if __name__ == "__main__":
    main()
