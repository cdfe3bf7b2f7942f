"""The gateway between the state machine and the tools: one attempt of one tool call.

It checks what the model asked for before anything is invoked, gives the tool Bedrock's own event, and turns whatever
comes back into a bounded result or into a failure that says whether, and after how long, the call is tried again.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, ReadTimeoutError

from turnwright import action_groups, clients, keys
from turnwright.action_groups import ToolAnswer
from turnwright.agents import Agent, Tool
from turnwright.attributes import growth_allowed, size
from turnwright.clock import now_ms
from turnwright.converse import UNREADABLE_INPUT
from turnwright.documents import Documents, json_text
from turnwright.errors import ToolAttemptFailed, ToolFailedTurn
from turnwright.journal import Journal
from turnwright.policy import OnTimeout, retry_delay_ms
from turnwright.surrogates import mended
from turnwright.tool_failures import ToolFailure, code_of_exception, code_of_lambda_error
from turnwright.traces import Traces
from turnwright.turns import Header, Turn

MODEL_CHARACTERS = 64_000
"""How much of a tool's answer the model is shown."""


@dataclass(frozen=True, slots=True)
class Call:
    """One entry of the Map: a tool call of the step, as Invoke Model put it into state."""

    toolUseId: str
    index: int
    inlineBytes: int

    @classmethod
    def decode(cls, fields: Mapping[str, Any]) -> "Call":
        return cls(fields["toolUseId"], fields["index"], fields["inlineBytes"])


class Gateway:
    """Runs the tool calls of one turn."""

    def __init__(
        self, turn: Turn, header: Header, agent: Agent, journal: Journal, documents: Documents, traces: Traces
    ) -> None:
        self._turn = turn
        self._header = header
        self._agent = agent
        self._journal = journal
        self._documents = documents
        self._traces = traces

    def attempt(self, step_number: int, call: Call, attempt: int) -> dict[str, Any]:
        """One attempt. Answers a tool result as it travels in state (`journal.ToolResult`).

        Raises ToolAttemptFailed with `{"errorCode", "errorMessage", "retryInMs"?}` as its message, or ToolFailedTurn
        when the tool's policy says that this failure fails the turn.
        """
        steps = self._journal.steps()
        tool_uses = steps[step_number - 1].tool_uses()
        tool_use = tool_uses[call.index]
        tool = self._agent.tool(tool_use["name"])
        started = now_ms()
        try:
            if tool is None:
                raise ToolFailure("UNKNOWN_TOOL", f"this agent has no tool named {tool_use['name']}")
            check_arguments(tool, tool_use["input"])
            event = action_groups.event(
                self._turn,
                self._agent,
                tool,
                tool_use,
                input_text=self._request()["inputText"],
                idempotency_key=f"{self._turn.turnId}/{step_number}/{call.toolUseId}",
                **self._attributes(steps),
            )
            answer = invoke(tool, event)
            check_growth(tool, event["sessionAttributes"], answer, len(tool_uses))
        except ToolFailure as failure:
            report = self._failed(tool, failure, attempt)
            self._traces.tool_output(step_number, call.index, attempt, json_text(report), started)
            if report.pop("failTurn", False):
                raise ToolFailedTurn(f"{tool_use['name']}: {json_text(report)}") from failure
            raise ToolAttemptFailed(json_text(report)) from failure
        text = bounded(answer.text)
        self._traces.tool_output(step_number, call.index, attempt, text, started)
        result = {"text": text, **_changed_attributes(answer)}
        return {
            "toolUseId": call.toolUseId,
            "status": "success",
            "result": self._documents.stow(
                result, lambda digest: keys.turn_object(self._turn.turnId, digest), call.inlineBytes
            ),
        }

    def _failed(self, tool: Tool | None, failure: ToolFailure, attempt: int) -> dict[str, Any]:
        report: dict[str, Any] = {"errorCode": failure.code, "errorMessage": bounded(failure.message, 2_000)}
        if tool is None:
            return report
        delay = retry_delay_ms(tool.policy, attempt, failure.code)
        if delay is not None:
            report["retryInMs"] = delay
        elif failure.code == "TIMEOUT" and tool.policy.on_timeout is OnTimeout.FAIL_TURN:
            report["failTurn"] = True
        return report

    def _request(self) -> Mapping[str, Any]:
        request: Mapping[str, Any] = self._documents.fetch(self._header.request)
        return request

    def _attributes(self, steps: list[Any]) -> dict[str, dict[str, str]]:
        session, prompt = merged_attributes(
            self._header.session_attributes,
            self._request().get("promptSessionAttributes", {}),
            [self._documents.fetch(result["result"]) for step in steps for result in step.tool_results],
        )
        return {"session_attributes": session, "prompt_session_attributes": prompt}


def merged_attributes(
    session: Mapping[str, str], prompt: Mapping[str, str], results: list[Mapping[str, Any]]
) -> tuple[dict[str, str], dict[str, str]]:
    """The session and prompt session attributes after the tools' answers, in the order in which the model asked.

    A tool that answers attributes replaces those it names; the others stay, so that parallel calls do not undo each
    other.
    """
    merged_session, merged_prompt = dict(session), dict(prompt)
    for result in results:
        merged_session.update(result.get("sessionAttributes", {}))
        merged_prompt.update(result.get("promptSessionAttributes", {}))
    return merged_session, merged_prompt


def check_growth(tool: Tool, session: Mapping[str, str], answer: ToolAnswer, calls: int) -> None:
    """Raises ToolFailure INVALID_RESPONSE if the answer, one of `calls`, makes the session's attributes too long."""
    grown = size({**session, **(answer.session_attributes or {})}) - size(session)
    allowed = growth_allowed(session, calls)
    if grown > allowed:
        raise ToolFailure(
            "INVALID_RESPONSE",
            f"the response of {tool.name} makes the sessionAttributes {grown} bytes of JSON longer; "
            f"there is room for {allowed}",
        )


def check_arguments(tool: Tool, arguments: Mapping[str, Any]) -> None:
    """Raises ToolFailure INVALID_ARGUMENTS, in words that let the model correct itself."""
    if UNREADABLE_INPUT in arguments:
        raise ToolFailure("INVALID_ARGUMENTS", f"the arguments of {tool.name} were not a JSON object; send them whole")
    from jsonschema import Draft202012Validator  # 100 ms to import, and only this function needs it

    faults = [
        f"{'/'.join(map(str, error.absolute_path)) or 'arguments'}: {error.message}"
        for error in Draft202012Validator(tool.input_schema).iter_errors(arguments)
    ]
    if faults:
        raise ToolFailure("INVALID_ARGUMENTS", f"the arguments of {tool.name} break its schema: {'; '.join(faults)}")


def invoke(tool: Tool, event: Mapping[str, Any]) -> ToolAnswer:
    """Invokes the tool's function once and reads its answer, or raises ToolFailure."""
    client = clients.aws_lambda(tool.policy.timeout_seconds)
    started = time.monotonic()
    try:
        response = client.invoke(FunctionName=tool.function_arn, Payload=json_text(event).encode())
        payload: bytes = response["Payload"].read()
    except ReadTimeoutError as error:
        waited = time.monotonic() - started
        raise ToolFailure("TIMEOUT", f"{tool.name} gave no answer within {waited:.1f} s") from error
    except ClientError as error:
        code = code_of_lambda_error(
            error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
        )
        raise ToolFailure(code, f"{tool.name} could not be invoked: {error}") from error
    except BotoCoreError as error:
        raise ToolFailure("SERVICE_UNAVAILABLE", f"{tool.name} could not be reached: {error}") from error
    if "FunctionError" in response:
        raise _raised(tool, payload)
    return action_groups.read_response(payload, tool)


def _raised(tool: Tool, payload: bytes) -> ToolFailure:
    try:
        error = json.loads(payload)
        error_type, message = str(error.get("errorType") or ""), str(error.get("errorMessage") or "")
    except (ValueError, AttributeError, RecursionError):
        error_type, message = "", payload[:500].decode("utf-8", "replace")
    code = "TIMEOUT" if _timed_out(error_type, message) else code_of_exception(error_type)
    return ToolFailure(code, mended(f"{tool.name} failed with {error_type or 'an error'}: {message}"))


def _timed_out(error_type: str, message: str) -> bool:
    """Lambda reports its own time-out as Sandbox.Timedout, and older runtimes without any type."""
    return error_type == "Sandbox.Timedout" or (not error_type and "Task timed out after" in message)


def _changed_attributes(answer: ToolAnswer) -> dict[str, dict[str, str]]:
    changed = {
        "sessionAttributes": answer.session_attributes,
        "promptSessionAttributes": answer.prompt_session_attributes,
    }
    return {name: value for name, value in changed.items() if value is not None}


def bounded(text: str, limit: int = MODEL_CHARACTERS) -> str:
    """The text, or its beginning and a note of how much was cut."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}\n[cut: {limit} of {len(text)} characters are shown]"
