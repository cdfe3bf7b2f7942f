"""What tracing costs of a turn's CPU, for `make bench`: the states' handlers in one process of their own, with the time
spent in what makes and writes trace events taken apart.

Run by `share_of_cpu` as `python -m local.bench.tracing_cost` in the environment that the stack's functions have.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any
from uuid import uuid4

from local.bench.own_process import as_functions
from local.stack import LocalStack

_STATES = ("LoadMemory", "InvokeModel", "InvokeTool", "WriteMemory")
_WARM_UP_TURNS = 3
_TURNS = 20


def share_of_cpu(stack: LocalStack) -> float:
    """The share of the CPU time of the functions of a warm one-tool turn, none of whose callers asked for the trace.

    The stack's model must ask for one tool in the first step, and then answer.
    """
    return float(as_functions(stack, "local.bench.tracing_cost", [f"{state}Function" for state in _STATES]))


class _Clock:
    """Adds up the CPU time of the functions that it has wrapped."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, owner: Any, name: str) -> None:
        function: Callable[..., Any] = getattr(owner, name)

        @wraps(function)
        def measured(*arguments: Any, **named: Any) -> Any:
            started = time.thread_time()
            try:
                return function(*arguments, **named)
            finally:
                self.seconds += time.thread_time() - started

        setattr(owner, name, measured)


def _main() -> None:
    from turnwright.tracing.traces import Traces
    from turnwright.turn import invoke_model as step
    from turnwright.turn import invoke_tool as gateway

    tracing = _Clock()
    for method in ("model_started", "model_answered", "tool_attempted", "final_response"):
        tracing.timed(Traces, method)
    tracing.timed(step, "model_call")
    tracing.timed(gateway, "tool_call")
    session = f"bench-{uuid4().hex[:12]}"
    for _ in range(_WARM_UP_TURNS):
        _turn(session)
    tracing.seconds = 0.0
    started = time.process_time()
    for _ in range(_TURNS):
        _turn(session)
    print(tracing.seconds / (time.process_time() - started), file=sys.stderr)


def _turn(session: str) -> None:
    import invoke_model
    import invoke_tool
    import load_memory
    import write_memory

    request = {
        "turnId": uuid4().hex,
        "agentId": "BANKASSIST",
        "agentAliasId": "live",
        "sessionId": session,
        "memoryId": None,
        "caller": "",
        "enableTrace": False,
        "request": {"inline": {"inputText": "What is the balance of my account 12345?"}},
    }
    turn = load_memory.handler({"request": request, "execution": "bench", "redriveCount": 0}, None)["turn"]
    common = {"turn": turn, "redriveCount": 0}
    model: Mapping[str, Any] = {**common, "model": 0, "attempt": 1, "mayUseTools": True}
    (call,) = invoke_model.handler({**model, "step": 1, "toolResults": []}, None)["toolCalls"]
    tool = {**common, "step": 1, "call": call, "attempt": 1, "sleepMs": 0, "lost": False}
    result = json.loads(json.dumps(invoke_tool.handler(tool, None)))
    invoke_model.handler({**model, "step": 2, "toolResults": [result]}, None)
    write_memory.handler({**common, "step": 2}, None)


if __name__ == "__main__":
    _main()
