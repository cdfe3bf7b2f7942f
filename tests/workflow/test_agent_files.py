"""Agent files that are saved while the stack runs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.bedrock.scripted_model import ScriptedModel
from local.stack import LocalStack
from tests.workflow.turns import ask, says

AGENT = {
    "agentId": "EDITED",
    "agentName": "edited",
    "instruction": "You are an agent for tests. Its file is saved again and again.",
    "foundationModels": ["first-model"],
}


@pytest.fixture
def agent_file(stack: LocalStack) -> Iterator[Path]:
    file = stack.options.template.parent / "agents" / "edited.json"
    yield file
    file.unlink()


def test_each_saved_file_counts_at_the_turn_that_is_asked_for_at_once(
    stack: LocalStack, model: ScriptedModel, agent_client: Any, agent_file: Path
) -> None:
    model.replace([says("ok")])
    for number in range(1, 4):
        agent_file.write_text(json.dumps({**AGENT, "instruction": f"{AGENT['instruction']} This is edition {number}."}))
        told = ask(agent_client, "hi", agentId="EDITED")
        assert told.receipt["agentVersion"] == str(number)
        assert f"This is edition {number}." in json.dumps(model.requests[-1].body["system"])


def test_a_broken_file_leaves_the_version_before_in_force_until_it_is_mended(
    stack: LocalStack, model: ScriptedModel, agent_client: Any, agent_file: Path
) -> None:
    model.replace([says("ok")])
    agent_file.write_text(json.dumps(AGENT))
    before = ask(agent_client, "hi", agentId="EDITED").receipt["agentVersion"]
    agent_file.write_text(json.dumps(AGENT)[:-1])
    assert ask(agent_client, "hi", agentId="EDITED").receipt["agentVersion"] == before
    assert any("edited.json" in problem and "stays in force" in problem for problem in stack.problems)
    agent_file.write_text(json.dumps({**AGENT, "description": "mended"}))
    assert ask(agent_client, "hi", agentId="EDITED").receipt["agentVersion"] == str(int(before) + 1)
