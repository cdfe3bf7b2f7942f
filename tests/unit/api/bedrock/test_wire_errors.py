import json
from typing import Any

import botocore.session
import pytest

from turnwright import errors
from turnwright.api.bedrock.wire_errors import WireError, failure_reason, frame_of_failure, of_exception
from turnwright.errors import AgentNotFound, AliasNotFound, InvalidRequest, SessionBusy

MODEL = botocore.session.get_session().get_service_model("bedrock-agent-runtime")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InvalidRequest("memoryId", "is not a string"), (400, "ValidationException", "memoryId: is not a string")),
        (AgentNotFound("There is no agent 'X'."), (404, "ResourceNotFoundException", "There is no agent 'X'.")),
        (AliasNotFound("no alias 'y'"), (404, "ResourceNotFoundException", "no alias 'y'")),
        (SessionBusy("session s runs turn t"), (409, "ConflictException", "session s runs turn t")),
        (
            KeyError("a secret"),
            (500, "InternalServerException", "the request r-1 failed inside the runtime; its log says why"),
        ),
    ],
)
def test_each_exception_has_its_status_name_and_message(error: Exception, expected: tuple[int, str, str]) -> None:
    status, name, message = expected

    answer = of_exception(error, "r-1")

    assert answer == WireError(status, name, message)
    assert answer.headers == {"Content-Type": "application/json", "x-amzn-ErrorType": name}
    assert json.loads(answer.body) == {"message": message, "__type": name}
    assert MODEL.shape_for(name).metadata["error"]["httpStatusCode"] == status


@pytest.mark.parametrize(
    ("error", "frame"),
    [
        ("SessionBusy", "conflictException"),
        ("ActorErased", "conflictException"),
        ("LeaseLost", "conflictException"),
        ("TurnAlreadyEnded", "conflictException"),
        ("InvalidRequest", "validationException"),
        ("AgentNotFound", "resourceNotFoundException"),
        ("AliasNotFound", "resourceNotFoundException"),
        ("ModelsThrottled", "throttlingException"),
        ("ModelsExhausted", "dependencyFailedException"),
        ("ToolFailedTurn", "dependencyFailedException"),
        ("States.DataLimitExceeded", "internalServerException"),
        ("TIMED_OUT", "internalServerException"),
        ("ABORTED", "internalServerException"),
    ],
)
def test_each_failure_has_a_frame_that_botocore_knows(error: str, frame: str) -> None:
    name, body = frame_of_failure("t-1", {"error": error, "cause": "why", "state": "Invoke Model"})

    assert (name, body) == (frame, {"message": f"turn t-1 failed in Invoke Model: {error}: why"})
    assert MODEL.shape_for("ResponseStream").members[name].metadata["exception"]
    assert error.isupper() or error.startswith("States.") or hasattr(errors, error)


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        ({"error": "ABORTED", "cause": ""}, "turn t-1 failed: ABORTED"),
        ({"error": "X", "cause": "why"}, "turn t-1 failed: X: why"),
        ({"error": "X", "state": "Run Tools"}, "turn t-1 failed in Run Tools: X"),
    ],
)
def test_a_reason_says_as_much_as_is_known(failure: dict[str, Any], reason: str) -> None:
    assert failure_reason("t-1", failure) == reason
