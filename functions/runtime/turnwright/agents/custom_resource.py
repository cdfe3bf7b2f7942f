"""Answering CloudFormation for a custom resource.

The rules of the answer:
https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref-responses.html. The whole answer may
have 4096 bytes; what would make it longer is cut, and says so.
"""

import json
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LARGEST_ANSWER = 4096

_TIMEOUT_SECONDS = 10
_CUT = " ... (cut; the function's log has all of it)"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended. `text` is the reason of a failure, or what a success has done.

    A success's text is the attribute `Agents` of the resource, which the template's `!GetAtt` reads.
    """

    succeeded: bool
    text: str


def answer(request: Mapping[str, Any], physical_resource_id: str, outcome: Outcome) -> bytes:
    """The body of the answer to a request, at most 4096 bytes of JSON.

    `physical_resource_id` must be the same for every request: another one makes CloudFormation delete the
    resource that had the first.
    """
    body = _encode(request, physical_resource_id, outcome)
    kept = len(outcome.text)
    while len(body) > LARGEST_ANSWER and kept > 0:
        # A character has at most 6 bytes (an escaped one), so this never leaves off more than is too much.
        kept -= max(1, (len(body) - LARGEST_ANSWER) // 6)
        body = _encode(request, physical_resource_id, Outcome(outcome.succeeded, outcome.text[:kept] + _CUT))
    return body


def send(response_url: str, body: bytes) -> None:
    """Puts the answer where CloudFormation waits for it. Raises OSError; Lambda then tries again.

    The URL is signed for an empty content type, and is a secret: it belongs in no log.
    """
    request = urllib.request.Request(response_url, data=body, method="PUT", headers={"Content-Type": ""})
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS):
        pass


def _encode(request: Mapping[str, Any], physical_resource_id: str, outcome: Outcome) -> bytes:
    fields: dict[str, Any] = {
        "Status": "SUCCESS" if outcome.succeeded else "FAILED",
        "PhysicalResourceId": physical_resource_id,
        "StackId": request["StackId"],
        "RequestId": request["RequestId"],
        "LogicalResourceId": request["LogicalResourceId"],
    }
    fields |= {"Data": {"Agents": outcome.text}} if outcome.succeeded else {"Reason": outcome.text}
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
