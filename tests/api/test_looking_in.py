"""`python -m local history`, `describe` and `logs`: what looks into a running stack."""

import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from local import running_stacks
from local.__main__ import main
from local.bedrock.scripted_model import ScriptedModel
from local.stack import LocalStack
from tests.api.test_make_up import answer
from tests.paths import ROOT
from tests.waiting import eventually

ANOTHER_STACK = """
import os, pathlib, signal, sys
from local import running_stacks

running_stacks.FOLDER = pathlib.Path(sys.argv[1])
with running_stacks.noted("http://another"):
    print(running_stacks.running(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


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


def test_the_stack_that_runs_is_found_and_of_several_one_has_to_be_named(
    stack: LocalStack, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_stacks, "FOLDER", tmp_path / "stacks")
    with running_stacks.noted(stack.aws_url):
        assert main(["history", "--limit", "1"]) == 0
        ended = subprocess.run(
            [sys.executable, "-c", ANOTHER_STACK, str(running_stacks.FOLDER)], cwd=ROOT, capture_output=True, text=True
        )
        assert ended.stdout == f"['{stack.aws_url}', 'http://another']\n", ended.stderr
        assert running_stacks.running() == [stack.aws_url], "the other one was killed"
    assert running_stacks.running() == []
    monkeypatch.setattr(running_stacks, "running", lambda: ["http://1", "http://2"])
    capsys.readouterr()
    assert main(["history"]) == 1
    assert "name one with --aws-url, of http://1, http://2" in capsys.readouterr().err
