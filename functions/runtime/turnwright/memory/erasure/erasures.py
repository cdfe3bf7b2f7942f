"""Starting the machine that erases."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from botocore.exceptions import ClientError

from turnwright.storage.documents import json_text


@dataclass(frozen=True, slots=True)
class Erasures:
    """Starts executions of the machine that erases. `request_identity` is the same for repeats of one request."""

    stepfunctions: Any
    machine_arn: str
    request_identity: str

    def start(self, store: str, actor: str | None) -> str:
        """Starts the erasure of an actor, or (None) of a whole store that is DELETING; its id, which is the execution's
        name. A repeat starts nothing.
        """
        identity = json_text([self.request_identity, store, actor])
        erasure_id = hashlib.sha256(identity.encode()).hexdigest()[:32]
        fields = {"memoryStore": store} if actor is None else {"memoryStore": store, "actor": actor}
        try:
            self.stepfunctions.start_execution(
                stateMachineArn=self.machine_arn, name=erasure_id, input=json_text(fields)
            )
        except ClientError as error:
            if error.response["Error"]["Code"] != "ExecutionAlreadyExists":
                raise
        return erasure_id


def request_identity(event: Mapping[str, Any]) -> str:
    """The same for each of the SDK's tries of one request (an API Gateway proxy event) by one caller, and for nothing
    else.
    """
    headers = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
    caller = ((event.get("requestContext") or {}).get("identity") or {}).get("userArn")
    return f"{caller or ''} {headers.get('amz-sdk-invocation-id') or uuid4()}"
