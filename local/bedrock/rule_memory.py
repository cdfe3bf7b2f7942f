"""What the rule model makes of the requests with which memory asks a model: facts to record, records to merge, a
summary or a digest to write.

Such a request forces one tool, whose input is the answer. What it is about stands in the request as data, in elements:
`<conversation>` has a line of JSON for each event, `{"event": id, "said": [{"user": text}, {"assistant": text}, ...]}`.
Facts are the user's own plain statements (`rule_statements`), given to the namespace whose name or description shares a
word with them. A summary repeats statements and questions: other words would need a language model.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from local.bedrock.model_backend import ConverseRequest, JsonObject
from local.bedrock.rule_answers import LABEL
from local.bedrock.rule_statements import Statement, asked, statements
from local.bedrock.rule_words import words

_ELEMENT = r"<{name}>\s*(.*?)\s*</{name}>"
_COMMON_WORDS = frozenset({"user", "customer", "person", "fact", "conversation", "assistant", "agent"})
_DEFAULT_CHARACTERS = 2_000
_ASKED = "Asked: "


@dataclass(frozen=True, slots=True)
class Said:
    """What the user said in one event."""

    event: str
    text: str


def memory_answer(request: ConverseRequest) -> dict[str, Any] | None:
    """The input of the forced tool, or None when no tool is forced that memory asks with."""
    schema = _forced_schema(request)
    properties: Mapping[str, Any] = schema.get("properties", {})
    if "text" in properties.get("records", {}).get("items", {}).get("properties", {}):
        return {"records": list(_records(request, properties["records"]["items"]))}
    if "recordId" in properties.get("operations", {}).get("items", {}).get("properties", {}):
        return {"operations": list(_operations(_prompt(request)))}
    for name in ("summary", "digest"):
        if properties.get(name, {}).get("type") == "string":
            return {name: _summary(_prompt(request), properties[name].get("maxLength", _DEFAULT_CHARACTERS))}
    return None


def _forced_schema(request: ConverseRequest) -> Mapping[str, Any]:
    for specification in request.tool_specifications:
        if specification["name"] == request.forced_tool:
            schema: Mapping[str, Any] = specification["inputSchema"].get("json", {})
            return schema
    return {}


def _records(request: ConverseRequest, form: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    prompt = _prompt(request)
    namespace = _element(prompt, "namespace", {})
    belonging = frozenset(words(" ".join(map(str, namespace.values())))) - _COMMON_WORDS
    known = [str(key) for key in _element(prompt, "known_keys", [])]
    for said in _said(prompt):
        for statement in statements(said.text):
            if not statement.topics & belonging:
                continue
            record = {"text": statement.text, "eventId": said.event}
            if "key" in form.get("required", ()):
                record["key"] = _key(statement, known)
            yield record


def _key(statement: Statement, known: Sequence[str]) -> str:
    """The known key about the same thing, or a new one."""
    return next((key for key in known if statement.about in words(key)), statement.about)


def _operations(prompt: str) -> Iterator[dict[str, Any]]:
    """A fact takes the place of the record with its key, and is added where there is none that says the same."""
    records = {record["recordId"]: record for record in _element(prompt, "records", [])}
    for fact in _element(prompt, "facts", []):
        number, text, key = fact["fact"], fact["text"], fact.get("key", "")
        same = next((record for record in records.values() if record["text"] == text), None)
        keyed = next((record for record in records.values() if key and record.get("key") == key), None)
        if same:
            yield {"operation": "NOTHING", "fact": number}
        elif keyed:
            del records[keyed["recordId"]]
            yield {"operation": "UPDATE", "fact": number, "recordId": keyed["recordId"], "key": key, "text": text}
        else:
            yield {"operation": "ADD", "fact": number, "text": text, **({"key": key} if key else {})}


def _summary(prompt: str, characters: int) -> str:
    """A line for each statement and question, also those of earlier parts. Of too many questions the newest stay."""
    lines = _earlier_lines(prompt)
    for said in _said(prompt):
        lines += [statement.text for statement in statements(said.text)]
        lines += [f"{_ASKED}{question}" for question in asked(said.text)]
    lines = list(dict.fromkeys(reversed(lines)))
    most_important = [*(n for n in lines if not n.startswith(_ASKED)), *(n for n in lines if n.startswith(_ASKED))]
    room = characters - len(LABEL)
    kept = set()
    for line in most_important:
        if len(line) + 1 <= room:
            kept.add(line)
            room -= len(line) + 1
    return "\n".join([LABEL, *(line for line in reversed(lines) if line in kept)])


def _earlier_lines(prompt: str) -> list[str]:
    """Of the digest so far, or of the summaries of parts."""
    texts = [_element(prompt, "digest", "")]
    found = re.search(_ELEMENT.format(name="parts"), prompt, re.DOTALL)
    texts += [json.loads(line)["summary"] for line in found[1].splitlines()] if found else []
    return [line for text in texts for line in text.splitlines() if line.strip() and line != LABEL]


def _prompt(request: ConverseRequest) -> str:
    blocks: list[JsonObject] = [*request.body.get("system", ()), *request.messages[-1]["content"]]
    return "\n".join(block["text"] for block in blocks if "text" in block)


def _element(prompt: str, name: str, missing: Any) -> Any:
    """The JSON in an element of the prompt."""
    found = re.search(_ELEMENT.format(name=name), prompt, re.DOTALL)
    return json.loads(found[1]) if found else missing


def _said(prompt: str) -> Iterator[Said]:
    found = re.search(_ELEMENT.format(name="conversation"), prompt, re.DOTALL)
    for line in found[1].splitlines() if found else ():
        event = json.loads(line)
        for entry in event["said"]:
            if "user" in entry:
                yield Said(event["event"], entry["user"])
