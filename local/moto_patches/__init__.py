"""What stock moto gets wrong about the services that this project uses, corrected one behaviour at a time.

The patches reach into private parts, so the version is pinned and checked;
tests/infrastructure/test_moto_patches.py is the contract: a test for each behaviour, which shows what an
upgrade broke.

    jsonata.py         the JSONata engine of Step Functions
    executions.py      how executions start, stop, end and are described
    redrives.py        RedriveExecution
    interpreter.py     the context object, parsed definitions, errors that States.ALL must not catch
    tasks.py           service integrations: clients, parameter names, names of Lambda errors
    state_machines.py  CloudFormation, versions and aliases
    functions.py       Lambda invocations, handed to whoever runs functions
    dynamodb.py        one request at a time, transactions, idempotency tokens
    capacity.py        consumed capacity units
    s3.py              one request at a time
    server.py          the time that each request takes
"""

from functools import cache

import moto

from local.moto_patches.hooks import ExecutionChange, FunctionAnswer, FunctionCall, Hooks, connect, disconnect

MOTO_VERSION = "5.2.5"


class UnsupportedMoto(RuntimeError):
    """Another moto is installed than the one that the patches were written for."""


def apply() -> None:
    """Patches moto, once in a process. Raises UnsupportedMoto."""
    if moto.__version__ != MOTO_VERSION:
        raise UnsupportedMoto(
            f"The offline stack needs moto {MOTO_VERSION} exactly, since it patches private parts; "
            f"moto {moto.__version__} is installed. Run: pip install 'moto=={MOTO_VERSION}'"
        )
    _apply_once()


@cache
def _apply_once() -> None:
    from local.moto_patches import (  # importing these takes seconds, which most tests need not wait for
        capacity,
        dynamodb,
        executions,
        functions,
        interpreter,
        jsonata,
        s3,
        server,
        state_machines,
        tasks,
    )

    for part in (jsonata, executions, interpreter, tasks, state_machines, functions, dynamodb, capacity, s3, server):
        part.apply()


def apply_to_storage() -> None:
    """Patches DynamoDB alone, which takes no time: what tests need that run nothing in moto but a table."""
    from local.moto_patches import dynamodb, server

    dynamodb.apply()
    server.apply()


__all__ = [
    "MOTO_VERSION",
    "ExecutionChange",
    "FunctionAnswer",
    "FunctionCall",
    "Hooks",
    "UnsupportedMoto",
    "apply",
    "apply_to_storage",
    "connect",
    "disconnect",
]
