"""The MODEL option: which model stands behind the offline Bedrock endpoint.

rule                     deterministic rules, not an LLM (the default)
script:FILE              the answers of a script, see `scripted_model`
openai:URL#MODEL         an OpenAI-compatible server: openai:http://127.0.0.1:11434/v1#qwen3:8b; for embeddings too
                         with #EMBEDDING_MODEL behind it: ...#qwen3:8b#nomic-embed-text
bedrock[:PROFILE]        the real Bedrock, with your AWS credentials; it costs money
"""

import os
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from local.bedrock.model_backend import ModelBackend
from local.bedrock.openai_model import OpenAiModel
from local.bedrock.real_bedrock import RealBedrock, RealBedrockError
from local.bedrock.rule.rule_model import RuleModel
from local.bedrock.scripted_model import ScriptedModel, ScriptError


class ModelOptionError(ValueError):
    """The MODEL option cannot be used. The message is one line for a person."""

    def __init__(self, option: str, rule: str) -> None:
        super().__init__(f"MODEL={option}: {' '.join(rule.split())}")


def select_model(option: str) -> ModelBackend:
    """The backend of an option. OPENAI_API_KEY, when set, is sent to an openai: server. Raises ModelOptionError."""
    kind, _, rest = option.partition(":")
    match kind:
        case "rule" if not rest:
            return RuleModel()
        case "script":
            return _scripted_model(option, rest)
        case "openai":
            return _openai_model(option, rest)
        case "bedrock":
            return _real_bedrock(option, rest)
        case _:
            raise ModelOptionError(option, "use rule, script:FILE, openai:URL#MODEL or bedrock[:PROFILE]")


def _scripted_model(option: str, file: str) -> ScriptedModel:
    if not file:
        raise ModelOptionError(option, "name the script's file: script:FILE")
    path = Path(file).expanduser()
    try:
        return ScriptedModel.from_file(path)
    except FileNotFoundError as error:
        raise ModelOptionError(option, f"there is no file {path.absolute()}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ModelOptionError(option, f"cannot read {path.absolute()}: {error}") from error
    except ScriptError as error:
        raise ModelOptionError(option, f"{path}: {error}") from error


def _openai_model(option: str, rest: str) -> OpenAiModel:
    url, _, names = rest.partition("#")
    model, _, embedding_model = names.partition("#")
    parts = urlsplit(url)
    if not _has_valid_port(parts) or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ModelOptionError(option, "give the server's URL: openai:http://127.0.0.1:11434/v1#MODEL")
    if not model:
        raise ModelOptionError(option, f"name the server's model: openai:{url}#MODEL")
    return OpenAiModel(url, model, os.environ.get("OPENAI_API_KEY"), embedding_model=embedding_model or None)


def _has_valid_port(parts: SplitResult) -> bool:
    try:
        return parts.port != 0
    except ValueError:
        return False


def _real_bedrock(option: str, profile: str) -> RealBedrock:
    try:
        return RealBedrock.from_profile(profile or None)
    except RealBedrockError as error:
        raise ModelOptionError(option, str(error)) from error
