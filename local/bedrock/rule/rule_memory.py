"""What the rule model makes of the requests with which memory asks a model: facts to record, records to merge, a
summary or a digest to write.

Such a request demands one tool, whose input is the answer. What it is about stands in the request as data, in elements:
`<conversation>` has a line of JSON for each event, `{"event": id, "at": "2026-03-02 Monday 14:05 UTC", "said":
[{"user": text}, {"assistant": text}, ...]}`; by "at" English words like "tomorrow" become dates (`rule_dates`).
Facts are the user's own plain statements (`rule_statements`), given to the namespace whose name or description shares a
word with them. One that asks for "facts about the user" gets all of them, and one that asks for "the user's
preferences" those with a verb of liking: so ask the built-in strategies of AgentCore Memory. A summary repeats
statements and questions: other words would need a language model.

What a turn is shown of memory stands in its system prompt, in `<memory>`. The rule model repeats of it what it is asked
for. Of the memory tools it calls `remember` for statements behind "remember that", and none that is not named.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from local.bedrock.model_backend import ConverseRequest, JsonObject
from local.bedrock.rule.rule_answers import LABEL
from local.bedrock.rule.rule_dates import dated
from local.bedrock.rule.rule_statements import Statement, asked, statements, topics
from local.bedrock.rule.rule_words import words

_ELEMENT = r"<{name}>\s*(.*?)\s*</{name}>"
_COMMON_WORDS = frozenset({"user", "customer", "person", "fact", "conversation", "assistant", "agent", "s"})
_FACTS_ASKED = re.compile(r"\bfacts about the user\b", re.IGNORECASE)
_PREFERENCES_ASKED = re.compile(r"\b(?:the )?user(?:'s|s|) preferences\b", re.IGNORECASE)
_LIKING = frozenset({"avoid", "dislike", "enjoy", "favor", "favorite", "hate", "like", "love", "prefer", "preference"})
_DEFAULT_CHARACTERS = 2_000
_ASKED = "Asked: "
_REMEMBER = "remember"
_MEMORY_TOOLS = {"search_memory": "memory", _REMEMBER: "remember", "forget": "forget"}
_ORDER = re.compile(r"\W*(?:please\s+)?(?:remember|note|keep in mind)\b", re.IGNORECASE)
_ABOUT_ME = re.compile(r"\b(?:know|remember|recall)\b[^.?!]*\b(?:me|us|my|our|I)\b[^.!]*\?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Said:
    """What the user said in one event, with dates."""

    event: str
    text: str


def memory_answer(request: ConverseRequest) -> dict[str, Any] | None:
    """The input of the demanded tool, or None when no tool is demanded that memory asks with."""
    schema = _forced_schema(request)
    properties: Mapping[str, Any] = schema.get("properties", {})
    if "text" in properties.get("records", {}).get("items", {}).get("properties", {}):
        return {"records": list(_records(request, properties["records"]["items"]))}
    if "recordId" in properties.get("operations", {}).get("items", {}).get("properties", {}):
        return {"operations": list(_operations(_whole_prompt(request)))}
    for name in ("summary", "digest"):
        if properties.get(name, {}).get("type") == "string":
            return {name: _summary(_whole_prompt(request), properties[name].get("maxLength", _DEFAULT_CHARACTERS))}
    return None


def recalled(request: ConverseRequest, text: str) -> list[str]:
    """The remembered facts that the text asks for: all with "what do you know about me", else those it shares a word
    with.
    """
    memory = _element(_prompt(request.body.get("system", ())), "memory", {})
    facts = [_with_its_day(fact) for entries in memory.get("facts", {}).values() for fact in entries]
    if _ABOUT_ME.search(text):
        return facts or list(_told_of(memory))
    if not text.rstrip().endswith("?"):
        return []
    wanted = topics(text) - _COMMON_WORDS
    return [fact for fact in facts if topics(fact) & wanted]


def asks_what_is_remembered(text: str) -> bool:
    return _ABOUT_ME.search(text) is not None


def to_remember(request: ConverseRequest, text: str) -> list[dict[str, str]]:
    """The arguments of `remember` for each statement behind "remember that" that belongs to one of its namespaces."""
    offered = [tool for tool in request.tool_specifications if tool["name"] == _REMEMBER]
    if not offered or not _ORDER.match(text):
        return []
    _, _, listed = offered[0].get("description", "").partition("Namespaces: ")
    namespaces = {entry.partition(":")[0]: _words_of(entry) for entry in listed.split("; ") if entry}
    return [
        {"namespace": name, "text": statement.text, "key": statement.about}
        for statement in statements(text)
        for name in [next((name for name, known in namespaces.items() if statement.topics & known), None)]
        if name is not None
    ]


def unnamed_memory_tools(text: str) -> frozenset[str]:
    """The memory tools that the text does not ask for by name: their descriptions speak of all that is remembered, and
    would match anything.
    """
    said = set(words(text))
    return frozenset(name for name, word in _MEMORY_TOOLS.items() if word not in said)


def _with_its_day(fact: Mapping[str, str]) -> str:
    return f"{fact['fact']} (said on {fact['saidOn']})" if "saidOn" in fact else fact["fact"]


def _words_of(text: str) -> frozenset[str]:
    return frozenset(words(text)) - _COMMON_WORDS


def _told_of(memory: Mapping[str, Any]) -> Iterator[str]:
    if "earlierInThisConversation" in memory:
        yield str(memory["earlierInThisConversation"]["digest"])
    yield from (str(entry["summary"]) for entry in memory.get("earlierConversations", ()))


def _forced_schema(request: ConverseRequest) -> Mapping[str, Any]:
    for specification in request.tool_specifications:
        if specification["name"] == request.demanded_tool:
            schema: Mapping[str, Any] = specification["inputSchema"].get("json", {})
            return schema
    return {}


def _records(request: ConverseRequest, form: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    prompt = _whole_prompt(request)
    namespace = " ".join(map(str, _element(prompt, "namespace", {}).values()))
    wanted = f"{namespace} {_instruction(prompt)}"
    wants_all = _FACTS_ASKED.search(wanted) is not None
    belonging = _words_of(namespace) | (_LIKING if _PREFERENCES_ASKED.search(wanted) else frozenset())
    known = [str(key) for key in _element(prompt, "known_keys", [])]
    for said in _said(prompt):
        for statement in statements(said.text):
            if not (wants_all or statement.topics & belonging):
                continue
            record = {"text": statement.text, "eventId": said.event}
            if "key" in form.get("required", ()):
                record["key"] = _key(statement, known)
            yield record


def _instruction(prompt: str) -> str:
    """What stands behind the namespace's name and description: what is extracted for it."""
    return prompt.partition("</namespace>")[2].partition("<known_keys>")[0].partition("<conversation>")[0]


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


def _whole_prompt(request: ConverseRequest) -> str:
    return _prompt([*request.body.get("system", ()), *request.messages[-1]["content"]])


def _prompt(blocks: Iterable[JsonObject]) -> str:
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
                day = date.fromisoformat(event["at"].partition(" ")[0])
                yield Said(event["event"], dated(_spoken(entry["user"]), day))


def _spoken(text: str) -> str:
    """The words of a text. Strands' session manager makes its events of whole messages, as JSON."""
    try:
        content = json.loads(text)["message"]["content"]
        return "\n".join(block["text"] for block in content if "text" in block)
    except (ValueError, KeyError, TypeError):
        return text
