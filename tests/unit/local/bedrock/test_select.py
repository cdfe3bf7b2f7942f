"""The MODEL option names a backend, or is refused with one clear line."""

import json
from pathlib import Path

import pytest

from local.bedrock.openai_model import OpenAiModel
from local.bedrock.rule.rule_model import RuleModel
from local.bedrock.scripted_model import ScriptedModel
from local.bedrock.select import ModelOptionError, select_model


def refusal(option: str) -> str:
    with pytest.raises(ModelOptionError) as failure:
        select_model(option)
    message = str(failure.value)
    assert "\n" not in message
    return message.removeprefix(f"MODEL={option}: ")


def test_each_kind_has_its_backend(tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    script.write_text(json.dumps({"replies": []}))
    assert isinstance(select_model("rule"), RuleModel)
    assert isinstance(select_model(f"script:{script}"), ScriptedModel)
    assert isinstance(select_model("openai:http://127.0.0.1:11434/v1#qwen3:8b"), OpenAiModel)
    assert isinstance(select_model("openai:http://127.0.0.1:11434/v1#qwen3:8b#nomic-embed-text"), OpenAiModel)


@pytest.mark.parametrize("option", ["", "gpt", "rule:x", "Rule"])
def test_an_unknown_kind_is_refused(option: str) -> None:
    assert refusal(option) == "use rule, script:FILE, openai:URL#MODEL or bedrock[:PROFILE]"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("script:", "name the script's file: script:FILE"),
        ("openai:", "give the server's URL: openai:http://127.0.0.1:11434/v1#MODEL"),
        ("openai:127.0.0.1:11434#m", "give the server's URL: openai:http://127.0.0.1:11434/v1#MODEL"),
        ("openai:http://127.0.0.1:99999/v1#m", "give the server's URL: openai:http://127.0.0.1:11434/v1#MODEL"),
        ("openai:http://127.0.0.1:11434/v1", "name the server's model: openai:http://127.0.0.1:11434/v1#MODEL"),
    ],
)
def test_an_incomplete_option_is_refused(option: str, message: str) -> None:
    assert refusal(option) == message


def test_a_missing_script_is_refused_with_its_path(tmp_path: Path) -> None:
    file = tmp_path / "none.json"
    assert refusal(f"script:{file}") == f"there is no file {file}"
    assert refusal(f"script:{tmp_path}").startswith(f"cannot read {tmp_path}: ")


def test_a_script_that_is_not_json_is_refused_with_the_line(tmp_path: Path) -> None:
    file = tmp_path / "script.json"
    file.write_text('{"replies": [\n  {"reply": }\n]}')
    assert refusal(f"script:{file}") == f"{file}: line 2, column 13: Expecting value"


def test_a_script_with_a_wrong_rule_is_refused_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "script.json"
    file.write_text('{"replies": [{"reply": {"text": "a"}}, {"answer": "b"}]}')
    assert refusal(f"script:{file}").startswith(f"{file}: replies[1]: unknown field 'answer'")


def test_bedrock_without_credentials_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_BEARER_TOKEN_BEDROCK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert refusal("bedrock") == "no AWS credentials found: run `aws configure` or set AWS_PROFILE"
