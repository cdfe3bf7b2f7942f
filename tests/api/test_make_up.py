"""`make up` as a person uses it: a process of its own, what it prints, refuses and leaves behind."""

import json
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from local.__main__ import main
from tests.paths import ROOT
from tests.project import TEST_AGENT, copy_project
from tests.waiting import eventually, patient

pytestmark = pytest.mark.whole

START_SECONDS = 60
WAIT_SECONDS = 20
END = "the end of what was printed"
CREDENTIALS = {"aws_access_key_id": "any", "aws_secret_access_key": "any", "region_name": "us-east-1"}


class Up:
    """A running `python -m local up`, and the lines it prints."""

    def __init__(self, *arguments: str) -> None:
        command = [
            sys.executable,
            "-X",
            "faulthandler",
            "-m",
            "local",
            "up",
            "--port",
            "0",
            "--aws-port",
            "0",
            *arguments,
        ]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self.out = self._lines(self.process.stdout)
        self.err = self._lines(self.process.stderr)
        self.printed = [self.next_line(self.out, START_SECONDS) for _ in range(4)]
        self.aws_url = self.printed[2].removeprefix("aws ")
        self.url = self.printed[3].removeprefix("ready ")

    def next_line(self, lines: "queue.Queue[str]", seconds: float = WAIT_SECONDS) -> str:
        try:
            return lines.get(timeout=seconds)
        except queue.Empty:
            self.process.kill()
            raise AssertionError(f"no line came in {seconds} s") from None

    def error_line(self, part: str) -> str:
        """The next line on stderr that holds `part`."""
        while part not in (line := self.next_line(self.err)):
            pass
        return line

    def stop(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        try:
            return self.process.wait(timeout=patient(WAIT_SECONDS))
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # faulthandler then says where each thread stands
            self.process.wait()
            threads = "\n".join(iter(lambda: self.next_line(self.err), END))
            raise AssertionError(f"it did not end:\n{threads}") from None

    def client(self, service: str) -> Any:
        url = self.url if service == "bedrock-agent-runtime" else self.aws_url
        return boto3.client(service, endpoint_url=url, **CREDENTIALS)

    @staticmethod
    def _lines(stream: Any) -> "queue.Queue[str]":
        lines: queue.Queue[str] = queue.Queue()

        def read() -> None:
            for line in stream:
                lines.put(line.rstrip("\n"))
            lines.put(END)

        threading.Thread(target=read, daemon=True).start()
        return lines


@pytest.fixture
def start() -> Iterator[Callable[..., Up]]:
    running: list[Up] = []

    def begin(*arguments: str) -> Up:
        running.append(Up(*arguments))
        return running[-1]

    yield begin
    for up in running:
        if up.process.poll() is None:
            up.stop(signal.SIGTERM)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The folder of a copy of the project whose files may be changed, except those of the functions."""
    calls, folder = tmp_path / "calls", tmp_path / "project"
    calls.mkdir()
    folder.mkdir()
    copy_project(folder, calls)
    (folder / "statemachines").unlink()
    shutil.copytree(ROOT / "statemachines", folder / "statemachines")
    return folder


def answer(client: Any, text: str, session: str = "session-1") -> str:
    response = client.invoke_agent(
        agentId="BANKASSIST", agentAliasId="live", sessionId=session, memoryId="user_1", inputText=text
    )
    return "".join(event["chunk"]["bytes"].decode() for event in response["completion"])


def descendants(pid: int) -> set[int]:
    listed = subprocess.run(["ps", "-axo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    children: dict[int, list[int]] = {}
    for child, parent in (map(int, line.split()) for line in listed.splitlines()):
        children.setdefault(parent, []).append(child)
    found: set[int] = set()
    pending = [pid]
    while pending:
        for child in children.get(pending.pop(), ()):
            found.add(child)
            pending.append(child)
    return found


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def save(file: Path, definition: dict[str, Any]) -> None:
    """Replaces the file at once: a running stack could read half of one that is being written."""
    beside = file.parent.parent / file.name
    beside.write_text(json.dumps(definition))
    beside.replace(file)


def stop_and_leave_nothing(up: Up, number: signal.Signals) -> None:
    processes = descendants(up.process.pid)
    assert len(processes) > 3
    assert up.stop(number) == 0
    eventually(lambda: not any(is_alive(pid) for pid in processes), "the end of every process")


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Calls `up`, which must fail: the one line that it writes to stderr."""

    def call(*arguments: str) -> str:
        status = main(["up", "--port", "0", "--aws-port", "0", *arguments])
        printed = capsys.readouterr()
        assert (status, printed.out) == (1, "")
        [line] = printed.err.splitlines()
        return line

    return call


def test_it_serves_until_ctrl_c_and_leaves_no_process(start: Callable[..., Up]) -> None:
    up = start()
    assert "not an LLM" in up.printed[0]
    assert up.printed[1] == f"console {up.url}/console/"
    assert re.fullmatch(r"aws http://127\.0\.0\.1:\d+", up.printed[2])
    assert re.fullmatch(r"ready http://127\.0\.0\.1:\d+", up.printed[3])
    assert "48,392.50" in answer(up.client("bedrock-agent-runtime"), "What is the balance of account 12345?")
    stop_and_leave_nothing(up, signal.SIGINT)
    for url in (up.url, up.aws_url):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), WAIT_SECONDS)


def test_a_saved_agent_file_is_published_and_a_broken_one_is_told_and_changes_nothing(
    start: Callable[..., Up], project: Path
) -> None:
    up = start("--template", str(project / "template.yaml"))
    dynamodb = up.client("dynamodb")
    [table] = dynamodb.list_tables()["TableNames"]

    def version() -> str:
        key = {"PK": {"S": f"AGENT#{TEST_AGENT}"}, "SK": {"S": "ALIAS#live"}}
        item = dynamodb.get_item(TableName=table, Key=key, ConsistentRead=True)["Item"]
        return str(next(iter(item["version"].values())))

    assert version() == "1"
    file = project / "agents" / f"{TEST_AGENT.lower()}.json"
    definition = json.loads(file.read_text())
    save(file, {**definition, "instruction": "You are another agent for tests, from now on."})
    eventually(lambda: version() == "2", "version 2")

    save(file, {**definition, "limits": {"maxSteps": "many"}})
    line = up.error_line("stays in force")
    assert file.name in line
    assert "/limits/maxSteps" in line
    assert version() == "2"

    save(file, definition)
    eventually(lambda: version() == "3", "version 3")
    assert "BANKASSIST:1" in up.error_line("PublishedAgents was updated")
    stop_and_leave_nothing(up, signal.SIGTERM)


def test_a_taken_port_ends_the_process_with_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "local", "up", "--port", port]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=patient(START_SECONDS))
    assert (ended.returncode, ended.stdout) == (1, "")
    [line] = ended.stderr.splitlines()
    assert f"port {port} " in line
    assert "make up PORT=" in line


def test_a_taken_port_of_aws_is_one_line(refused: Callable[..., str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"port {port} " in refused("--aws-port", port)


def test_a_missing_template_and_a_model_that_is_not_there_are_one_line(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    assert f"{tmp_path}/none.yaml" in refused("--template", str(tmp_path / "none.yaml"))
    assert f"{tmp_path}/none.json" in refused("--model", f"script:{tmp_path}/none.json")
    assert "MODEL=gpt" in refused("--model", "gpt")
    assert "NoSuchParameter" in refused("--parameter", "NoSuchParameter=1")


def test_a_broken_template_is_named_with_its_line(refused: Callable[..., str], project: Path) -> None:
    template = project / "template.yaml"
    text = template.read_text()
    template.write_text(text.replace('"CodeUri": "tools"', '"CodeUri": "no-tools"'))
    assert re.search(r"template\.yaml:\d+: .*no-tools", refused("--template", str(template)))
    template.write_text(text.replace('AWS::SQS::Queue"', 'AWS::Kinesis::Firehose"'))
    assert re.search(r"template\.yaml:\d+: .*AWS::Kinesis::Firehose", refused("--template", str(template)))
    template.write_text(text[: len(text) // 2])
    assert re.search(r"template\.yaml:\d+: ", refused("--template", str(template)))


def test_a_broken_definition_is_named_with_its_line(refused: Callable[..., str], project: Path) -> None:
    file = project / "statemachines" / "agent_turn.asl.json"
    lines = file.read_text().splitlines()
    target = next(number for number, line in enumerate(lines, start=1) if '"Next": "Invoke Model"' in line)
    lines[target - 1] = lines[target - 1].replace("Invoke Model", "Forget Model")
    file.write_text("\n".join(lines))
    line = refused("--template", str(project / "template.yaml"))
    assert f"agent_turn.asl.json:{target}:" in line
    assert "Forget Model" in line
    lines[target - 1] = lines[target - 1].replace('"Next":', '"Next"')
    file.write_text("\n".join(lines))
    assert f"agent_turn.asl.json:{target}:" in refused("--template", str(project / "template.yaml"))


def test_a_broken_agent_file_is_named_with_its_place(refused: Callable[..., str], project: Path) -> None:
    file = project / "agents" / f"{TEST_AGENT.lower()}.json"
    definition = json.loads(file.read_text())
    file.write_text(json.dumps({**definition, "limits": {"maxSteps": 0}}))
    line = refused("--template", str(project / "template.yaml"))
    assert file.name in line
    assert "/limits/maxSteps" in line
