"""`python -m local history`, `describe` and `logs`: what looks into a running stack."""

import re
import socket
from typing import Any

import pytest

from local.__main__ import main
from local.bedrock.scripted_model import ScriptedModel
from local.stack import LocalStack
from tests.api.test_make_up import answer
from tests.waiting import eventually


def test_a_running_stack_can_be_looked_into(
    stack: LocalStack, model: ScriptedModel, agent_client: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    model.replace([{"reply": {"text": "good day"}}])
    assert answer(agent_client, "hello", session="looked-into") == "good day"
    at = ["--aws-url", stack.aws_url]
    assert main(["history", "--limit", "1", *at]) == 0
    listed = capsys.readouterr().out.split()
    turn_id = listed[-1]
    assert "SUCCEEDED" in listed
    for named in (turn_id, turn_id[:12], "last", stack.execution_arn(turn_id)):
        assert main(["history", named, *at]) == 0
        shown = capsys.readouterr().out
        assert [line.split("  ")[0] for line in shown.splitlines()[2:-1]] == [
            "Load Memory",
            "Invoke Model",
            "Tools Requested?",
            "Write Memory",
        ]
    assert main(["describe", "last", *at]) == 0
    assert turn_id in capsys.readouterr().out

    def logged() -> str:
        assert main(["logs", *at]) == 0
        return capsys.readouterr().out

    eventually(lambda: f"turnId={turn_id}" in logged(), "the turn's log lines")
    assert re.search(r"INFO +InvokeModel ", logged())


def test_what_looks_into_a_stack_says_when_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert main(["history", "--aws-url", url]) == 1
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "make up" in error
