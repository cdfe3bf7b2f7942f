"""What a request to the memory API is refused with, in AgentCore's own names.

Source: the error shapes in botocore's models of `bedrock-agentcore` and `bedrock-agentcore-control`.

Refusal
├── Invalid                   400 ValidationException, with the fields and the rules that they break
├── NotThere                  404 ResourceNotFoundException
├── Conflict                  409 ConflictException (control plane)
├── Busy                      409 RetryableConflictException (CreateEvent): the same request will do later
└── Throttled                 429 ThrottledException
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from turnwright.errors import (
    ActorErased,
    CommitConflict,
    InvalidRequest,
    ModelThrottled,
    NotFound,
    StorageUnavailable,
    TurnwrightError,
)


class Reason(StrEnum):
    """`ValidationExceptionReason`."""

    CANNOT_PARSE = "CannotParse"
    FIELD = "FieldValidationFailed"
    TOKEN = "IdempotentParameterMismatchException"  # noqa: S105, the reason's name
    OTHER_SESSION = "EventInOtherSession"
    CONFLICT = "ResourceConflict"


@dataclass(frozen=True, slots=True)
class Finding:
    """A field, in the wire's own spelling, and the rule that it breaks."""

    field: str
    rule: str


class Refusal(TurnwrightError):
    """Refuses a request. `name` is the error shape."""

    status = 500
    name = "ServiceException"

    @property
    def body(self) -> dict[str, Any]:
        return {"message": str(self)}


class Invalid(Refusal):
    status = 400
    name = "ValidationException"

    def __init__(self, findings: Sequence[Finding], reason: Reason = Reason.FIELD) -> None:
        many = f"{len(findings)} fields break a rule: " if len(findings) > 1 else ""
        super().__init__(many + "; ".join(f"{finding.field}: {finding.rule}" for finding in findings))
        self.findings = tuple(findings)
        self.reason = reason

    @property
    def body(self) -> dict[str, Any]:
        fields = [{"name": finding.field, "message": finding.rule} for finding in self.findings]
        return {"message": str(self), "reason": self.reason, "fieldList": fields}


def invalid(field: str, rule: str, reason: Reason = Reason.FIELD) -> Invalid:
    return Invalid([Finding(field, rule)], reason)


class NotThere(Refusal):
    status = 404
    name = "ResourceNotFoundException"


class Conflict(Refusal):
    status = 409
    name = "ConflictException"


class Busy(Refusal):
    status = 409
    name = "RetryableConflictException"


class Throttled(Refusal):
    status = 429
    name = "ThrottledException"


def refusal_of(error: Exception) -> Refusal | None:
    """What a caller is told of an exception; None for one that is no fault of the request's nor of the load."""
    match error:
        case Refusal():
            return error
        case InvalidRequest(field=field):
            return invalid(field, str(error).removeprefix(f"{field}: "), _reason(field))
        case NotFound():
            return NotThere(str(error))
        case ActorErased():
            return invalid("actorId", str(error), Reason.CONFLICT)
        case CommitConflict():
            return Throttled(f"others write the same items at this moment; repeat the request ({error})")
        case ModelThrottled():
            return Throttled(f"the embedding model is asked too much; repeat the request ({error})")
        case StorageUnavailable(throttled=True):
            return Throttled("the runtime is asked more than it may ask of its own services; repeat the request")
        case _:
            return None


def _reason(field: str) -> Reason:
    return Reason.CANNOT_PARSE if field == "body" else Reason.FIELD


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer; `body` is JSON."""

    status: int
    headers: Mapping[str, str]
    body: str


_OTHER_NAMES = {"ThrottledException": "ThrottlingException", "ServiceException": "InternalServerException"}
"""Errors for which not all operations have the same name."""


def refused(refusal: Refusal, declared: Collection[str]) -> Answer:
    """The answer, under the name that an operation has for the error of those that it declares."""
    name = refusal.name if refusal.name in declared else _OTHER_NAMES.get(refusal.name, refusal.name)
    body = {**refusal.body, "__type": name}
    headers = {"Content-Type": "application/json", "x-amzn-ErrorType": name}
    return Answer(refusal.status, headers, json.dumps(body))
