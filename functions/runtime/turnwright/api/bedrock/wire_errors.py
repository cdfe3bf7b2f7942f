"""Errors as Bedrock's wire has them: an HTTP answer before the stream began, an exception frame after.

Source: the error shapes of InvokeAgent and the members of `ResponseStream` in botocore's service model.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from turnwright.errors import InvalidRequest, NotFound, SessionBusy, StorageUnavailable


@dataclass(frozen=True, slots=True)
class WireError:
    """`name` is the error shape, for example `ConflictException`."""

    status: int
    name: str
    message: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Content-Type": "application/json", "x-amzn-ErrorType": self.name}

    @property
    def body(self) -> bytes:
        return json.dumps({"message": self.message, "__type": self.name}).encode()


def of_exception(error: Exception, request_id: str) -> WireError:
    """What a caller is told of an exception that kept its turn from starting."""
    match error:
        case InvalidRequest():
            return WireError(400, "ValidationException", str(error))
        case NotFound():
            return WireError(404, "ResourceNotFoundException", str(error))
        case SessionBusy():
            return WireError(409, "ConflictException", str(error))
        case StorageUnavailable(throttled=True):
            return WireError(429, "ThrottlingException", "the runtime is asked too much at once; repeat the request")
        case _:
            return WireError(
                500,
                "InternalServerException",
                f"the request {request_id} failed inside the runtime; its log says why",
            )


_FRAMES = {
    "SessionBusy": "conflictException",
    "ActorErased": "conflictException",
    "LeaseLost": "conflictException",
    "TurnAlreadyEnded": "conflictException",
    "ModelsThrottled": "throttlingException",
    "ModelsExhausted": "dependencyFailedException",
    "ToolFailedTurn": "dependencyFailedException",
    "AgentNotFound": "resourceNotFoundException",
    "AliasNotFound": "resourceNotFoundException",
    "InvalidRequest": "validationException",
}


def frame_of_failure(turn_id: str, failure: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """The exception frame, as (name, body), of a turn that failed; `failure` is the header's."""
    return _FRAMES.get(failure["error"], "internalServerException"), {"message": failure_reason(turn_id, failure)}


def failure_reason(turn_id: str, failure: Mapping[str, Any]) -> str:
    place = f" in {failure['state']}" if "state" in failure else ""
    cause = f": {failure['cause']}" if failure.get("cause") else ""
    return f"turn {turn_id} failed{place}: {failure['error']}{cause}"
