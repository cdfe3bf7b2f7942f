"""The executions of the consolidation machine: one for each thing that is consolidated, however often it is started."""

import hashlib
from typing import Any

from botocore.exceptions import ClientError

from turnwright.documents import json_text
from turnwright.keys import SessionId
from turnwright.memory.consolidation import Consolidation, Kind


def consolidation(
    kind: Kind,
    session: SessionId,
    from_event: str,
    to_event: str,
    *,
    agent_id: str,
    agent_version: str,
    actor_epoch: str,
) -> Consolidation:
    """The consolidation of the events behind `from_event` up to `to_event`; the same again has the same id."""
    identity = json_text([kind, session.partition, from_event, to_event])
    return Consolidation(
        consolidationId=hashlib.sha256(identity.encode()).hexdigest()[:32],
        kind=kind,
        memoryStore=session.store,
        actor=session.actor,
        sessionId=session.session,
        fromEvent=from_event,
        toEvent=to_event,
        agentId=agent_id,
        agentVersion=agent_version,
        actorEpoch=actor_epoch,
    )


def start(stepfunctions: Any, machine_arn: str, work: Consolidation) -> None:
    """Starts the execution, whose name is the consolidation's id: starting twice is one execution.

    Raises botocore's errors when Step Functions does not take it; then nothing was started.
    """
    try:
        stepfunctions.start_execution(
            stateMachineArn=machine_arn, name=work.consolidationId, input=json_text(work.encode())
        )
    except ClientError as error:
        if error.response["Error"]["Code"] != "ExecutionAlreadyExists":
            raise
