"""Which tools a user's text asks for, in which steps.

A text is cut into clauses at "and", "then", commas and sentence ends. A clause asks for the tool whose words it
shares, or is a fragment: "and 67890" repeats the call before it, anything else belongs to its neighbour. Calls that
need nothing from each other go into one step; "then", and a clause that needs an earlier call's result ("... and what
is that in EUR?"), begin the next.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from local.bedrock.conversation import Turn
from local.bedrock.rule.rule_arguments import Resolved, Value, identifier_nouns, resolve_arguments, stated_arguments
from local.bedrock.rule.rule_facts import Facts, known_facts
from local.bedrock.rule.rule_tools import Kind, Tool
from local.bedrock.rule.rule_words import (
    CURRENCIES,
    has_pronoun,
    is_elliptical,
    is_greeting,
    is_thanks,
    refers_back,
    words,
)

_THRESHOLD = 1.5
_NAME_WEIGHT, _DESCRIPTION_WEIGHT, _CHOICE_WEIGHT, _PARAMETER_WEIGHT = 3.0, 1.0, 2.0, 0.5
_EVIDENCE = {
    Kind.CURRENCY: 1.0,
    Kind.QUANTITY: 1.0,
    Kind.IDENTIFIER: 1.0,
    Kind.PATTERN: 1.0,
    Kind.EMAIL: 1.0,
    Kind.DATE: 1.0,
    Kind.PLACE: 1.0,
    Kind.EXPRESSION: 3.0,
}
"""How much a required parameter that the clause states speaks for a tool."""

_KEPT_WHOLE = re.compile(r"\"[^\"]*\"|“[^”]*”|\bbetween\s+\S+\s+and\b|\bthen\s+and\b", re.IGNORECASE)
_SEPARATOR = re.compile(
    r"(?P<then>[,;.]?\s*\b(?:and\s+then|then|after\s+that|afterwards)\b[,:]?\s*|;\s*)"
    r"|(?P<and>,?\s+and\s+(?:also\s+)?|,\s+|(?<=[.?!])\s+|\n+)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Call:
    """A tool call that the text asks for. `step` counts from 0, `carried` is taken over from an earlier call."""

    tool: Tool
    clause: str
    step: int
    carried: Mapping[str, Value]


class Planner:
    """Plans for one conversation: `turns` are all turns, the last being the one to answer."""

    def __init__(self, tools: Sequence[Tool], turns: Sequence[Turn]) -> None:
        self._tools = tools
        self._turns = turns
        self._history = known_facts(turns[:-1])
        self._nouns = identifier_nouns(tools)
        self._tool_count_of_word = Counter(
            word for tool in tools for word in tool.name_words | tool.description_words | tool.parameter_words
        )

    def steps(self, text: str) -> list[list[Call]]:
        """The calls of the turn, step by step. A text that answers a question is read with the turn that asked."""
        calls = self._repeated(text) or self._calls(text) or self._answered_question(text)
        count = max((call.step for call in calls), default=-1) + 1
        return [[call for call in calls if call.step == step] for step in range(count)]

    def forced(self, text: str, name: str) -> list[list[Call]]:
        """One call of the tool that toolChoice names."""
        return [[Call(tool, text, 0, {}) for tool in self._tools if tool.name == name]]

    def best(self, text: str) -> list[list[Call]]:
        """One call of the tool that fits best, however badly: toolChoice wants any."""
        tool = max(self._tools, key=lambda candidate: self._score(candidate, text, []))
        return [[Call(tool, text, 0, {})]]

    def resolve(self, call: Call, text: str) -> Resolved:
        """The arguments of a call as they are known now, with the results of the turn's earlier steps."""
        return self._resolved(call, text, known_facts(self._turns))

    def _resolved(self, call: Call, text: str, facts: Sequence[Facts]) -> Resolved:
        return resolve_arguments(call.tool, call.clause, call.carried, text, facts, self._nouns)

    def _calls(self, text: str) -> list[Call]:
        calls: list[Call] = []
        pending = ""
        is_later = False
        for begins_step, clause in _clauses(text):
            is_later = is_later or begins_step
            if calls and self._is_fragment(clause, calls[-1].tool):
                calls.append(replace(calls[-1], clause=clause, carried=self._taken_over(calls[-1], text)))
            elif (tool := self._tool(clause, text, calls)) is not None:
                calls.append(self._placed(Call(tool, (pending + clause).strip(), 0, {}), text, calls, is_later))
                pending, is_later = "", False
            elif calls and not is_thanks(clause):
                calls[-1] = replace(calls[-1], clause=f"{calls[-1].clause} {clause}")
            elif not is_greeting(clause) and not is_thanks(clause):
                pending += clause + " "
        return calls

    def _taken_over(self, call: Call, text: str) -> Mapping[str, Value]:
        return self._resolved(call, text, self._history).arguments

    def _placed(self, call: Call, text: str, earlier: Sequence[Call], is_later: bool) -> Call:
        """The call in the step of the one before it, or in the next if it comes "then" or needs a result."""
        if not earlier:
            return call
        needs_result = self._waits_for_quantity(call) or self._resolved(call, text, self._history).missing
        return replace(call, step=earlier[-1].step + (1 if is_later or needs_result else 0))

    def _waits_for_quantity(self, call: Call) -> bool:
        stated = stated_arguments(call.tool, call.clause, self._nouns)
        return refers_back(call.clause) and any(
            parameter.kind is Kind.QUANTITY and parameter.name not in stated for parameter in call.tool.required
        )

    def _is_fragment(self, clause: str, tool: Tool) -> bool:
        """Whether a clause is nothing but values for a tool: "67890", "account 67890", "GBP"."""
        if has_pronoun(clause):
            return False
        spoken = [word for word in words(clause) if word not in self._nouns]
        is_values = all(any(c.isdigit() for c in word) or word.upper() in CURRENCIES for word in spoken)
        return bool(spoken) and is_values and bool(stated_arguments(tool, clause, self._nouns))

    def _repeated(self, text: str) -> list[Call]:
        """The newest call again with other values: "what about 67890?"."""
        outcomes = [outcome for turn in self._turns[:-1] for outcome in turn.outcomes]
        if not outcomes or not is_elliptical(text):
            return []
        tools = [tool for tool in self._tools if tool.name == outcomes[-1].name]
        return [Call(tool, text, 0, dict(outcomes[-1].arguments)) for tool in tools if self._is_fragment(text, tool)]

    def _answered_question(self, text: str) -> list[Call]:
        """The plan of the turn before, which could not call its tool for want of an argument, with this text added."""
        if len(self._turns) < 2 or self._turns[-2].outcomes or is_thanks(text) or is_greeting(text):
            return []
        question = self._turns[-2].text
        asking = [call for call in self._calls(question) if self._resolved(call, question, self._history).missing]
        if not asking:
            return []
        completed = self._calls(f"{question.rstrip(' .?!')} {text}")
        if not completed or self._resolved(completed[0], text, self._history).missing:
            return []
        return completed

    def _tool(self, clause: str, text: str, earlier: Sequence[Call]) -> Tool | None:
        if is_thanks(clause) or not self._tools:
            return None
        scores = [self._score(tool, clause, earlier) for tool in self._tools]
        best = max(scores)
        tool = self._tools[scores.index(best)]
        if best < _THRESHOLD:
            return None
        if self._shared_words(tool, clause):
            return tool
        is_complete = not self._resolved(Call(tool, clause, 0, {}), text, self._history).missing
        return tool if is_complete or (earlier and self._waits_for_quantity(Call(tool, clause, 0, {}))) else None

    def _score(self, tool: Tool, clause: str, earlier: Sequence[Call]) -> float:
        spoken = set(words(clause))
        score = sum(
            weight * sum(1 / self._tool_count_of_word[word] for word in spoken & own)
            for weight, own in (
                (_NAME_WEIGHT, tool.name_words),
                (_DESCRIPTION_WEIGHT, tool.description_words),
                (_PARAMETER_WEIGHT, tool.parameter_words),
            )
        )
        score += _CHOICE_WEIGHT * len(spoken & tool.choice_words)
        return score + self._evidence(tool, clause, earlier)

    def _evidence(self, tool: Tool, clause: str, earlier: Sequence[Call]) -> float:
        stated = stated_arguments(tool, clause, self._nouns)
        score = sum(_EVIDENCE.get(p.kind, 0) for p in tool.required if p.name in stated)
        has_quantity = bool(earlier) or any(facts.quantity for facts in self._history)
        if has_quantity and refers_back(clause):
            score += sum(1 for p in tool.required if p.kind is Kind.QUANTITY and p.name not in stated)
        return score

    def _shared_words(self, tool: Tool, clause: str) -> set[str]:
        return set(words(clause)) & (tool.name_words | tool.description_words | tool.choice_words)


def _clauses(text: str) -> Iterator[tuple[bool, str]]:
    """The clauses of a text, each with whether it comes "then". What is quoted stays whole."""
    masked = _KEPT_WHOLE.sub(lambda kept: "x" * len(kept.group(0)), text)
    start, is_later = 0, False
    for separator in _SEPARATOR.finditer(masked):
        if text[start : separator.start()].strip():
            yield is_later, text[start : separator.start()].strip()
            is_later = False
        is_later = is_later or separator.group("then") is not None
        start = separator.end()
    if text[start:].strip():
        yield is_later, text[start:].strip()
