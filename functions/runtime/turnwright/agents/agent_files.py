"""Agent files: reading them, checking them against their schema, and making their substitutions.

An agent file is broken if it is no JSON, breaks `agent.schema.json`, or breaks one of the rules that a schema
cannot say (`_check_agent`). Every problem is found and says its file, its JSON pointer (RFC 6901) and the
rule. `${Name}` in any text of a file is replaced by the deployment's value of that name, before the schema is
applied. An `apiSchema` is resolved: a definition holds the operations of the document, wherever the file says that it
stands, so that no turn reads OpenAPI.
"""

import difflib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from turnwright.agents import embedding_models, memory_defaults, openapi, patterns
from turnwright.agents.definitions import Definition, Operation, digest
from turnwright.agents.memory_tool_schemas import NAMES, memory_tools
from turnwright.agents.openapi import Finding, Steps
from turnwright.agents.retry_policy import tool_policy

SCHEMA_FILE = "agent.schema.json"
MOST_TOOLS = 100
LARGEST_DEFINITION = 350_000
"""Bytes; a definition is one attribute of a DynamoDB item, and an item holds 400 KB."""

BUCKET = "BucketName"
"""The substitution that names the stack's bucket, the only one that API schemas are read from."""

MODEL_PREFIX = "ModelPrefix"
"""The substitution that stands before models' ids: the geography of their inference profiles with its dot, or ""."""

_FOLDER = "agents"
_SUBSTITUTIONS = "the Substitutions of PublishedAgents in template.yaml"
_LONGEST_QUOTE = 80
_DEEPEST = 50
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SUBSTITUTION = re.compile(r"\$\{([a-zA-Z0-9]+)\}")

ReadObject = Callable[[str], bytes]
"""Reads the object of a name from the stack's bucket. Raises ObjectUnreadable."""


class ObjectUnreadable(Exception):
    """An object of the bucket cannot be read; the message says why."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with an agent file, and where. `pointer` is "" for the whole file."""

    file: str
    pointer: str
    rule: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.pointer, self.rule) if part)


class AgentFilesBroken(Exception):
    """At least one agent file has a problem, so none is used. The message has a line for each problem."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def check(directory: Path, substitutions: Mapping[str, str]) -> list[Problem]:
    """Every problem of the agent files in `directory`, as far as they can be seen without the bucket."""
    return _read(directory, substitutions, None)[1]


def read(directory: Path, substitutions: Mapping[str, str], read_object: ReadObject) -> list[Definition]:
    """The definitions in `directory`, in the order of their file names. Raises AgentFilesBroken."""
    documents, problems = _read(directory, substitutions, read_object)
    if problems:
        raise AgentFilesBroken(problems)
    return [Definition.of(document) for document in documents]


def _read(
    directory: Path, substitutions: Mapping[str, str], read_object: ReadObject | None
) -> tuple[list[Any], list[Problem]]:
    """The documents without a problem, substitutions made, and the problems of the others."""
    paths = sorted(path for path in directory.glob("*.json") if is_agent_file(path))
    if not paths:
        return [], [Problem(_FOLDER, "", "has no agent file; add one, such as my_agent.json")]
    try:
        validator = _validator(directory / SCHEMA_FILE)
    except _Unusable as error:
        return [], [Problem(f"{_FOLDER}/{SCHEMA_FILE}", _pointer(steps), rule) for steps, rule in error.findings]

    documents: list[Any] = []
    problems: list[Problem] = []
    file_of_agent: dict[str, str] = {}
    shared = _SharedNamespaces()
    for path in paths:
        # The name that the file has in the repository, wherever the deployment has put it.
        file = f"{_FOLDER}/{path.name}"
        try:
            document = _agent_document(path.read_bytes(), validator, substitutions, read_object)
        except _Unusable as error:
            problems += [Problem(file, _pointer(steps), rule) for steps, rule in error.findings]
            continue
        documents.append(document)
        agent_id = document["agentId"]
        other = file_of_agent.setdefault(agent_id, file)
        if other != file:
            rule = f"'{agent_id}' is the agentId of {other} too; every agent needs its own"
            problems.append(Problem(file, "/agentId", rule))
            continue
        problems += [Problem(file, _pointer(steps), rule) for steps, rule in shared.findings(file, document)]
    return documents, problems


class _SharedNamespaces:
    """The namespaces of the memory stores, each as the first file declares it.

    What is shown of a namespace, `inject`, is an agent's own affair; all else has to be the same for all of a store.
    """

    def __init__(self) -> None:
        self._first: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {}

    def findings(self, file: str, document: Mapping[str, Any]) -> Iterator[Finding]:
        """What keeps the namespaces of a file from those of the files before it."""
        memory = document.get("memoryConfiguration", {})
        store = memory_defaults.store_of(document)
        storage_days = int(memory.get("storageDays", memory_defaults.DEFAULT_STORAGE_DAYS))
        for position, fields in enumerate(memory.get("namespaces", ())):
            # An agent's id stands for itself where `access.write` is left out, and so does not differ.
            declared = asdict(memory_defaults.namespace(fields, "", storage_days))
            other, first = self._first.setdefault((store, fields["name"]), (file, declared))
            different = [name for name in declared if name != "inject" and declared[name] != first[name]]
            if different:
                field = ", ".join(_NAMESPACE_FIELDS[name] for name in different)
                rule = f"'{fields['name']}' differs from that of {other} in {field}; both are in the store {store}"
                yield ("memoryConfiguration", "namespaces", position), rule


_NAMESPACE_FIELDS = {
    "template": "scope",
    "description": "description",
    "merge_rule": "mergeRule",
    "extraction_prompt": "extractionPrompt",
    "ttl_days": "ttlDays",
    "max_records": "maxRecords",
    "readers": "access.read",
    "writers": "access.write",
}


def is_agent_file(path: Path) -> bool:
    return path.name != SCHEMA_FILE and not path.name.startswith(".")


def _agent_document(
    content: bytes, validator: Any, substitutions: Mapping[str, str], read_object: ReadObject | None
) -> Any:
    """The document in an agent file, substitutions made and API schemas resolved; without `read_object` those that are
    in the bucket are left out. Raises _Unusable with all that is wrong.
    """
    document = _substituted(_decode(content), substitutions)
    findings = [*_unresolved(document, substitutions), *_schema_findings(validator, document)]
    if not findings:
        findings = list(_resolve_api_schemas(document, substitutions, read_object))
    if not findings:
        findings = list(_check_agent(document))
    if findings:
        raise _Unusable(findings)
    return document


class _Unusable(Exception):
    """A file cannot be used: the places and rules that its content breaks."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        super().__init__()
        self.findings = tuple(findings)


class _Object(dict[str, Any]):
    """A JSON object that remembers the field names it had more than once."""

    repeated: tuple[str, ...] = ()


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    result = _Object(pairs)
    if len(result) < len(pairs):
        counted = Counter(name for name, _ in pairs)
        result.repeated = tuple(name for name, count in counted.items() if count > 1)
    return result


def _decode(content: bytes) -> Any:
    """The JSON document in a file. Raises _Unusable for what is not JSON, or is, but cannot be meant."""
    if content.startswith(_BYTE_ORDER_MARK):
        raise _unusable("begins with a byte order mark; save the file as UTF-8 without one")
    try:
        document = json.loads(content.decode(), object_pairs_hook=_object, parse_constant=_refuse_constant)
        doubtful = list(_doubtful(document))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _unusable(f"line {line}: is not UTF-8; save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        raise _unusable(f"line {error.lineno}, column {error.colno}: is not JSON: {error.msg}") from error
    except RecursionError as error:
        raise _unusable("is nested too deeply") from error
    if doubtful:
        raise _Unusable(doubtful)
    return document


def _unusable(rule: str) -> _Unusable:
    return _Unusable([((), rule)])


def _refuse_constant(constant: str) -> NoReturn:
    raise _unusable(f"has the number {constant}, which JSON does not have")


def _doubtful(document: Any) -> Iterator[Finding]:
    for steps, value in _walk(document):
        if len(steps) > _DEEPEST:
            raise _unusable("is nested too deeply")
        if isinstance(value, _Object):
            for name in value.repeated:
                yield (*steps, name), "appears more than once in its object; keep one"
        texts = list(value) if isinstance(value, dict) else [value] if isinstance(value, str) else []
        if not all(map(_is_text, texts)):
            yield steps, "has half of a surrogate pair (\\ud800 to \\udfff), which is no character"


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _walk(value: Any, steps: Steps = ()) -> Iterator[tuple[Steps, Any]]:
    """Every value of a document with its place, parents first."""
    yield steps, value
    if isinstance(value, dict):
        for name, entry in value.items():
            yield from _walk(entry, (*steps, name))
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from _walk(entry, (*steps, index))


def _substituted(value: Any, substitutions: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _substituted(entry, substitutions) for name, entry in value.items()}
    if isinstance(value, list):
        return [_substituted(entry, substitutions) for entry in value]
    if isinstance(value, str):
        return _SUBSTITUTION.sub(lambda match: substitutions.get(match[1], match[0]), value)
    return value


def _unresolved(document: Any, substitutions: Mapping[str, str]) -> Iterator[Finding]:
    known = ", ".join(f"${{{name}}}" for name in sorted(substitutions)) or "none"
    for steps, value in _walk(document):
        for name in dict.fromkeys(_SUBSTITUTION.findall(value)) if isinstance(value, str) else ():
            rule = f"${{{name}}} has no value; known are: {known}. Correct the name, or add it to {_SUBSTITUTIONS}"
            yield steps, rule


def _validator(path: Path) -> Any:
    """A validator for the schema in a file. Raises _Unusable if it is none."""
    if not path.is_file():
        raise _unusable("is missing; it belongs beside the agent files")
    return _validator_of(path.read_bytes())


@cache
def _validator_of(text: bytes) -> Any:
    """Checking a schema takes longer than checking all files by it."""
    from jsonschema import Draft202012Validator, SchemaError, validators

    schema = _decode(text)
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise _Unusable([(tuple(error.absolute_path), error.message)]) from error
    extend: Any = validators.extend
    return extend(Draft202012Validator, {"pattern": _match_pattern})(schema)


def _match_pattern(_validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[Any]:
    """The keyword `pattern` as JSON Schema means it."""
    from jsonschema import ValidationError

    if isinstance(instance, str) and not patterns.search(pattern, instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _schema_findings(validator: Any, document: Any) -> Iterator[Finding]:
    for error in validator.iter_errors(document):
        steps: Steps = tuple(error.absolute_path)
        if error.validator == "additionalProperties":
            known = error.schema["properties"]
            for name in error.instance:
                if name not in known:
                    yield (*steps, name), _unknown_field(name, known)
        elif "propertyNames" in error.absolute_schema_path:
            yield (*steps, error.instance), _rule(error)
        else:
            yield steps, _rule(error)


def _unknown_field(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"the fields are {', '.join(known)}"
    return f"is not a field that is supported here; {hint}"


_RULES: Mapping[str, Callable[[Any, Any], str]] = {
    "minLength": lambda value, least: f"has {len(value)} characters, at least {least} are needed",
    "maxLength": lambda value, most: f"has {len(value)} characters, at most {most} are allowed",
    "minItems": lambda value, least: f"has {len(value)} entries, at least {least} are needed",
    "maxItems": lambda value, most: f"has {len(value)} entries, at most {most} are allowed",
    "maxProperties": lambda value, most: f"has {len(value)} fields, at most {most} are allowed",
}


def _rule(error: Any) -> str:
    """What was found and the rule that it breaks, with the schema's hint, which editors show too."""
    quoted = repr(error.instance)
    found = quoted if isinstance(error.instance, str) else json.dumps(error.instance, ensure_ascii=False)
    if len(found) > _LONGEST_QUOTE:
        found = f"{found[:_LONGEST_QUOTE]}..."
    if error.validator in _RULES:
        return _RULES[error.validator](error.instance, error.validator_value)
    if "errorMessage" in error.schema:
        return f"{found} {error.schema['errorMessage']}"
    rule: str = error.message.replace(quoted, found)
    hint = error.schema.get("patternErrorMessage") if error.validator == "pattern" else None
    return f"{rule}: {hint}" if hint else rule


def _resolve_api_schemas(
    document: Mapping[str, Any], substitutions: Mapping[str, str], read_object: ReadObject | None
) -> Iterator[Finding]:
    """Makes each `apiSchema` of an agent what a definition holds of it, and says what is wrong with them."""
    for position, group in enumerate(document.get("actionGroups", [])):
        if "apiSchema" in group:
            group["apiSchema"], findings = _resolved(group["apiSchema"], substitutions, read_object)
            yield from ((("actionGroups", position, "apiSchema", *steps), rule) for steps, rule in findings)


def _resolved(
    schema: Mapping[str, Any], substitutions: Mapping[str, str], read_object: ReadObject | None
) -> tuple[dict[str, Any], list[Finding]]:
    if "s3" in schema:
        return _api_schema_in_bucket(schema["s3"], substitutions, read_object)
    if isinstance(schema["payload"], str):
        return _api_schema_of_text(schema["payload"].encode(), ("payload",))
    resolved, findings = api_schema(schema["payload"])
    return resolved, [(("payload", *steps), rule) for steps, rule in findings]


def _api_schema_in_bucket(
    location: Mapping[str, str], substitutions: Mapping[str, str], read_object: ReadObject | None
) -> tuple[dict[str, Any], list[Finding]]:
    name, key = location["s3BucketName"], location["s3ObjectKey"]
    if name != substitutions.get(BUCKET):
        rule = f"'{name}' is not the stack's bucket, the only one it reads: write ${{{BUCKET}}}"
        return {}, [(("s3", "s3BucketName"), rule)]
    if read_object is None:
        return {"operations": []}, []
    place = ("s3", "s3ObjectKey")
    try:
        return _api_schema_of_text(read_object(key), place)
    except ObjectUnreadable as error:
        return {}, [(place, f"'{key}' cannot be read: {error}")]


def _api_schema_of_text(content: bytes, place: Steps) -> tuple[dict[str, Any], list[Finding]]:
    """The rules name the places inside, since a text is no place that a pointer leads into."""
    try:
        resolved, findings = api_schema(_decode(content))
    except _Unusable as error:
        resolved = {}
        findings = [(steps, f"{rule}. A schema in YAML has to be made JSON") for steps, rule in error.findings]
    return resolved, [(place, f"#{_pointer(steps)}: {rule}" if steps else rule) for steps, rule in findings]


def api_schema(document: Any) -> tuple[dict[str, Any], list[Finding]]:
    """The `apiSchema` that a definition holds for an OpenAPI document, and what keeps the document from being tools.

    It has the document's operations, and the document's digest, so that any change to the document is a new version.
    """
    from jsonschema import Draft202012Validator, SchemaError

    operations, findings = openapi.read(document)
    for operation in operations:
        try:
            Draft202012Validator.check_schema(operation.inputSchema)
        except SchemaError as error:
            rule = f"makes a schema that is none: {_pointer(tuple(error.absolute_path))}: {error.message}"
            findings.append((openapi.place_of(operation), rule))
    return {"digest": digest(document), "operations": [operation.encode() for operation in operations]}, findings


def _tool_names(document: Mapping[str, Any]) -> Iterator[tuple[Steps, str]]:
    """The name of each tool, and where it stands."""
    for position, group in enumerate(document.get("actionGroups", [])):
        steps: Steps = ("actionGroups", position)
        if "parentActionGroupSignature" in group:
            yield from (((*steps, "parentActionGroupSignature"), name) for name in NAMES)
        elif "functionSchema" in group:
            for index, function in enumerate(group["functionSchema"]["functions"]):
                yield (*steps, "functionSchema", "functions", index, "name"), function["name"]
        else:
            for operation in map(Operation.decode, group["apiSchema"]["operations"]):
                yield (*steps, "apiSchema", "payload", *openapi.place_of(operation), "operationId"), operation.name


def _check_agent(document: Mapping[str, Any]) -> Iterator[Finding]:
    """The rules of a whole agent, which is known to keep its schema."""
    groups = document.get("actionGroups", [])
    functions = list(_tool_names(document))
    yield from _repeated(
        (("actionGroups", position, "actionGroupName"), group["actionGroupName"])
        for position, group in enumerate(groups)
    )
    yield from _repeated(functions)
    yield from _repeated(
        (("memoryConfiguration", "namespaces", position, "name"), namespace["name"])
        for position, namespace in enumerate(document.get("memoryConfiguration", {}).get("namespaces", []))
    )
    if len(functions) > MOST_TOOLS:
        yield ("actionGroups",), f"has {len(functions)} functions, at most {MOST_TOOLS} are allowed"
    yield from _inconsistent_delays(document)
    yield from _memory_findings(document)
    size = len(Definition.of(document).text.encode())
    if size > LARGEST_DEFINITION:
        has_api = any("apiSchema" in group for group in document.get("actionGroups", ()))
        counted = "without white space" + (" and with each $ref of its API schemas resolved" if has_api else "")
        yield (), f"has {size} bytes {counted}, at most {LARGEST_DEFINITION} are allowed"


def _memory_findings(document: Mapping[str, Any]) -> Iterator[Finding]:
    configuration = memory_defaults.configuration(document)
    agent_id = document["agentId"]
    if configuration.idle_seconds is not None and configuration.idle_seconds >= configuration.storage_days * 86_400:
        rule = f"{configuration.idle_seconds} is not less than the storageDays, {configuration.storage_days}, in which "
        yield ("memoryConfiguration", "idleSessionTTLInSeconds"), f"{rule}a session would expire before it ends"
    model = configuration.embedding_model
    if model is not None and not embedding_models.supports(model):
        rule = f"'{model}' is not supported; Titan Text Embeddings V2 and Cohere Embed v3 and v4 are"
        yield ("memoryConfiguration", "embeddingModelId"), rule
    for position, group in enumerate(document.get("actionGroups", [])):
        if "parentActionGroupSignature" in group and not any(memory_tools(configuration, agent_id)):
            rule = "needs a namespace in memoryConfiguration that this agent may read or write"
            yield ("actionGroups", position, "parentActionGroupSignature"), rule


def _repeated(names: Iterable[tuple[Steps, str]]) -> Iterator[Finding]:
    first: dict[str, Steps] = {}
    for steps, name in names:
        if first.setdefault(name, steps) != steps:
            yield steps, f"'{name}' is used at {_pointer(first[name])} too; it must be unique in the agent"


def _inconsistent_delays(document: Mapping[str, Any]) -> Iterator[Finding]:
    block = "actionGroupExecutionConfig"
    agent_wide = document.get(block, {})
    blocks: list[tuple[Steps, tuple[Mapping[str, Any], ...]]] = [((block,), (agent_wide,))]
    for position, group in enumerate(document.get("actionGroups", [])):
        if "retryPolicy" in group.get(block, {}):
            blocks.append((("actionGroups", position, block), (agent_wide, group[block])))
    for steps, configs in blocks:
        policy = tool_policy(*configs)
        if policy.initial_delay_ms > policy.max_delay_ms:
            delays = f"initialDelayMs, {policy.initial_delay_ms}, is more than maxDelayMs, {policy.max_delay_ms}"
            yield (*steps, "retryPolicy"), f"{delays}; raise maxDelayMs or lower initialDelayMs"


def _pointer(steps: Steps) -> str:
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in steps)
