"""Runs Python Lambda functions as processes, without containers.

A worker is a persistent process that is started as Lambda starts it (`python /var/runtime/bootstrap.py`, or what
`AWS_LAMBDA_EXEC_WRAPPER` makes of that command line), and runs the official runtime client against a Runtime API
served here. As on Lambda a worker handles one invocation at a time; a failed invocation leaves its worker alive, a
timeout or a crash does not; a worker that fails to start fails the invocation that needed it and is not reused.

    pool.py           LambdaWorkers: who runs what, generations, timeouts
    runtime_api.py    the HTTP side, one port a worker
    alarms.py         timeouts
    process.py        starting, reading, watching and killing one worker
    guardian.py       ends the workers when this process is killed
    environment.py    FunctionSpec, environment variables, noticing changed files
    filesystem.py     what stands for /var/lang, /var/runtime and /opt
    packages.py       the packages that requirements bring
    bootstrap.py      runs in the worker: Lambda's own bootstrap
    invocation.py     one invocation and its answer
"""

from local.lambda_workers.environment import FunctionSpec
from local.lambda_workers.invocation import InvocationError, InvokeResult, StreamingInvocation
from local.lambda_workers.pool import LambdaWorkers, WorkerProcess

__all__ = [
    "FunctionSpec",
    "InvocationError",
    "InvokeResult",
    "LambdaWorkers",
    "StreamingInvocation",
    "WorkerProcess",
]
