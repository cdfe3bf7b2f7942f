"""Reads template.yaml and turns it into plain CloudFormation, as `sam deploy` does, without an AWS account.

TemplateError (ValueError)     the template cannot be used; says file, line and reason
"""

import copy
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

REGION = "us-east-1"
LOCAL_BUCKET = "template"
"""The bucket that stands for the template's own folder in what `transform` returns."""

DEFINITION_OF = {
    "AWS::Serverless::StateMachine": "DefinitionUri",
    "AWS::StepFunctions::StateMachine": "DefinitionS3Location",
}
"""The property of a state machine that names the file of its definition."""

_PATH_PROPERTIES = ("CodeUri", "ContentUri", "DefinitionUri")


class TemplateError(ValueError):
    """`file` as it was given, `line` counted from 1 or None where none is at fault, and `message`."""

    def __init__(self, file: str | Path, line: int | None, message: str) -> None:
        self.file = str(file)
        self.line = line
        self.message = message
        super().__init__(f"{self.file}:{line}: {message}" if line else f"{self.file}: {message}")


class Template(dict[str, Any]):
    """A template in CloudFormation's JSON form (`!Ref x` is `{"Ref": "x"}`, `!Sub` is `{"Fn::Sub": ...}`).

    `file` is where it was read from. `line_of` finds the line of a key: `line_of("Resources", "Table")`.
    """

    file: Path
    lines: dict[tuple[str | int, ...], int]

    def line_of(self, *path: str | int) -> int | None:
        """The line, counted from 1, of the longest part of `path` that the file has, or None."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return None

    def declared(self, logical_id: str) -> str:
        """The resource of which SAM made the one of that id: it begins the names that it gives by that."""
        declared = [name for name in self["Resources"] if logical_id.startswith(name)]
        return max(declared, key=len, default=logical_id)

    def error(self, message: str, *path: str | int) -> TemplateError:
        return TemplateError(self.file, self.line_of(*path), message)


class _Loader(yaml.CSafeLoader):
    """Knows CloudFormation's short forms, keeps dates as text and refuses a key that stands twice."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _construct_intrinsic(
    loader: _Loader, suffix: str, node: yaml.ScalarNode | yaml.SequenceNode | yaml.MappingNode
) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.MappingNode):
        value = loader.construct_mapping(node, deep=True)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_scalar(node)
    if suffix in ("Ref", "Condition"):
        return {suffix: value}
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {f"Fn::{suffix}": value}


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    first_lines: dict[tuple[str, Any], int] = {}
    for key_node, _ in node.value:
        key = (key_node.tag, key_node.value)
        line = key_node.start_mark.line + 1
        if key in first_lines:
            raise yaml.constructor.ConstructorError(
                None,
                None,
                f"{key_node.value} stands here and in line {first_lines[key]}",
                key_node.start_mark,
            )
        first_lines[key] = line
    mapping: dict[Any, Any] = loader.construct_mapping(node, deep=True)
    return mapping


_Loader.add_multi_constructor("!", _construct_intrinsic)
_Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)


def load_template(path: str | Path) -> Template:
    """The template at `path`. Raises TemplateError where it is missing, is not YAML or has no Resources."""
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise TemplateError(path, None, f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TemplateError(path, None, f"is not UTF-8 at byte {error.start}") from error
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        document = loader.construct_document(node) if node else None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise TemplateError(path, line, error.problem or str(error)) from error
    except yaml.YAMLError as error:
        raise TemplateError(path, None, str(error)) from error
    finally:
        loader.dispose()
    if not isinstance(document, dict) or not isinstance(document.get("Resources"), dict):
        raise TemplateError(path, 1, "is not a template: it has no Resources")
    template = Template(_without_sharing(document))
    template.file = file
    template.lines = dict(lines(node))
    return template


def transform(template: Template, parameters: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The CloudFormation template that SAM makes of `template`, which is not changed.

    Folders and files that the template names become objects of the bucket LOCAL_BUCKET, with the path in the
    template as the key. Intrinsics stay, except where SAM resolves them. `parameters` override the defaults.
    Raises TemplateError with all that SAM finds wrong, and the line of the first resource concerned.
    """
    import boto3
    from samtranslator.model.exceptions import InvalidDocumentException
    from samtranslator.parser.parser import Parser
    from samtranslator.translator.translator import Translator
    from samtranslator.utils.py27hash_fix import (
        to_py27_compatible_template,
        undo_mark_unicode_str_in_template,
    )

    # The translator warns of its own feature flags and metrics.
    logging.getLogger("samtranslator").setLevel(logging.ERROR)

    copied = _without_sharing(template)
    declared = [resource.get("Properties") for resource in copied["Resources"].values() if isinstance(resource, dict)]
    for properties in (*declared, *(copied.get("Globals") or {}).values()):
        for name in _PATH_PROPERTIES:
            value = (properties or {}).get(name)
            if isinstance(value, str) and not value.startswith("s3://"):
                properties[name] = f"s3://{LOCAL_BUCKET}/{value}"
        value = (properties or {}).get(DEFINITION_OF["AWS::StepFunctions::StateMachine"])
        if isinstance(value, str):
            properties["DefinitionS3Location"] = {"Bucket": LOCAL_BUCKET, "Key": value}
    values = {"AWS::Region": REGION, **(parameters or {})}
    to_py27_compatible_template(copied, values)  # generated logical ids are hashes in this form
    translator = Translator(None, Parser(), boto_session=boto3.session.Session(region_name=REGION))
    try:
        translated = translator.translate(copied, values, get_managed_policy_map=_no_managed_policies)
    except InvalidDocumentException as error:
        resource_ids = [getattr(cause, "_logical_id", "") for cause in error.causes]
        raise template.error(
            "; ".join(cause.message for cause in error.causes), "Resources", resource_ids[0]
        ) from error
    transformed: dict[str, Any] = undo_mark_unicode_str_in_template(translated)
    return transformed


def lines(node: yaml.Node | None, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], int]]:
    """The path of every key and list item under `node`, with its line counted from 1."""
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            key_path = (*path, str(key_node.value))
            yield key_path, key_node.start_mark.line + 1
            yield from lines(value_node, key_path)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            item_path = (*path, index)
            yield item_path, item.start_mark.line + 1
            yield from lines(item, item_path)


def _no_managed_policies() -> dict[str, str]:
    """Stands for IAM's list of managed policies by name: the template writes its policies or gives ARNs."""
    return {}


def _without_sharing(value: Any) -> Any:
    """A copy in which an anchored node is an object of its own at each alias: SAM changes some in place."""
    if isinstance(value, Mapping):
        return {key: _without_sharing(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_sharing(item) for item in value]
    return copy.copy(value)
