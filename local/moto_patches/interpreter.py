"""The interpreter itself: the context object, parsed definitions, and what States.ALL does not catch."""

import json
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import moto.stepfunctions.parser.asl.component.state.state as state_module
import moto.stepfunctions.parser.asl.parse.preprocessor as preprocessor
from moto.stepfunctions.parser.asl.component.common.error_name.error_equals_decl import ErrorEqualsDecl
from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser
from moto.stepfunctions.parser.backend.execution_worker import ExecutionWorker

from local.moto_patches.replacing import replace

_UNCATCHABLE_BY_ALL = ("States.DataLimitExceeded", "States.Runtime")


def timestamp(moment: datetime) -> str:
    """As the context object writes it: 2026-01-31T12:34:56.789Z."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def fill_context_object() -> None:
    """Stock moto has no Execution.RedriveCount, no State.RetryCount outside of tasks, and a StartTime that is
    not text.
    """

    def make_environment(original: Any) -> Any:
        def get_evaluation_environment(worker: Any) -> Any:
            env = original(worker)
            execution = env.states.context_object.context_object_data["Execution"]
            execution["StartTime"] = timestamp(execution["StartTime"])
            execution["RedriveCount"] = 0
            return env

        return get_evaluation_environment

    def make_state_data(original: Any) -> Any:
        def state_data(**fields: Any) -> dict[str, Any]:
            return {**fields, "EnteredTime": timestamp(datetime.now(UTC)), "RetryCount": 0}

        return state_data

    replace(ExecutionWorker, "_get_evaluation_environment", make_environment)
    replace(state_module, "StateData", make_state_data)


def parse_a_definition_once() -> None:
    """Stock moto parses the definition for every execution, 45 ms for ten states. What the parser makes holds
    no state of an execution (counters live in the environment), so executions can share it.
    """

    @lru_cache(maxsize=32)
    def parse(definition: str) -> Any:
        return AmazonStateLanguageParser.parse(definition)[0]

    def get_evaluation_entrypoint(worker: Any) -> Any:
        return parse(worker._evaluation_details.state_machine_details.definition)

    replace(ExecutionWorker, "_get_evaluation_entrypoint", lambda original: get_evaluation_entrypoint)


def read_string_literals_as_json() -> None:
    """Stock moto leaves the escapes of most string literals in a definition as they are (names, assigned values), and
    reads the others as Python's, which makes two halves of every character beyond U+FFFF.
    """

    def text_of(parser_rule_context: Any) -> str | None:
        text = str(parser_rule_context.getText())
        if text == "null":
            return None
        return str(json.loads(text)) if text.startswith('"') else text

    replace(preprocessor, "from_string_literal", lambda original: text_of)
    replace(preprocessor.Preprocessor, "_inner_string_of", lambda original: staticmethod(text_of))


def let_some_errors_through_states_all() -> None:
    """On AWS States.ALL catches neither States.DataLimitExceeded nor States.Runtime; stock moto's catches
    everything.
    """

    def make(original: Any) -> Any:
        def eval_body(declaration: Any, env: Any) -> None:
            error_name = env.stack[-1].error_name
            original(declaration, env)
            if error_name in _UNCATCHABLE_BY_ALL:
                named = any(name.error_name == error_name for name in declaration.error_names)
                env.stack[-1] = env.stack[-1] and named

        return eval_body

    replace(ErrorEqualsDecl, "_eval_body", make)


def apply() -> None:
    read_string_literals_as_json()
    fill_context_object()
    parse_a_definition_once()
    let_some_errors_through_states_all()
