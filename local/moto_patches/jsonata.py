"""JSONata in Step Functions.

Stock moto carries a front end for a Java engine that is not there: every JSONata expression fails with a
TypeError. Its front end would also write variables into the expression as text, with strings unescaped. Here
jsonata-python evaluates the expression with the variables bound as values.
"""

import hashlib
import json
import math
import uuid
from collections.abc import Mapping
from typing import Any

import jsonata as engine
from jsonata.utils import Utils
from moto.stepfunctions.parser.api import EvaluationFailedEventDetails, HistoryEventType
from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import (
    FailureEvent,
    FailureEventException,
)
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name import StatesErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name_type import (
    StatesErrorNameType,
)
from moto.stepfunctions.parser.asl.component.common.string.string_expression import (
    StringJSONata,
    StringVariableSample,
)
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails
from moto.stepfunctions.parser.asl.eval.variable_store import VariableStore
from moto.stepfunctions.parser.asl.utils.encoding import to_json_str

from local.moto_patches.replacing import replace

_LARGEST_EXACT_INTEGER = 2**53


class ExpressionFailed(Exception):
    """The expression cannot be evaluated, or gives nothing that JSON can say; the message says which."""


def evaluate(expression: str, variables: Mapping[str, Any]) -> Any:
    """The value of a JSONata expression as plain JSON types. Variable names have no `$`. Raises
    ExpressionFailed.
    """
    bindings = {name: Utils.NULL_VALUE if value is None else value for name, value in variables.items()}
    try:
        compiled = engine.Jsonata.jsonata(expression)
        compiled.set_output_convert_nulls(False)
        for name, function in _STEP_FUNCTIONS.items():
            compiled.register_lambda(name, function)
        value = compiled.evaluate(None, bindings)
    except Exception as error:  # the engine raises what it likes, also TypeError and RecursionError
        raise ExpressionFailed(f"The JSONata expression '{expression}' failed: {error}") from error
    if value is None:
        raise ExpressionFailed(f"The JSONata expression '{expression}' returned nothing (undefined).")
    return _plain(value, expression)


def _plain(value: Any, expression: str) -> Any:
    if value is Utils.NULL_VALUE or value is None or isinstance(value, (bool, str, int)):
        return None if value is Utils.NULL_VALUE else value
    if isinstance(value, float):  # JSONata has one kind of number, written without a fraction where there is none
        return int(value) if value.is_integer() and abs(value) < _LARGEST_EXACT_INTEGER else value
    if isinstance(value, Mapping):
        return {str(name): _plain(member, expression) for name, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(member, expression) for member in value]
    raise ExpressionFailed(f"The JSONata expression '{expression}' returned an unsupported result type.")


def _uuid() -> str:
    return str(uuid.uuid4())


def _parse(text: str) -> Any:
    return json.loads(text)


def _range(first: float, last: float, step: float) -> list[float]:
    return [first + index * step for index in range(math.floor((last - first) / step) + 1)]


def _partition(values: list[Any], size: float) -> list[list[Any]]:
    return [values[start : start + int(size)] for start in range(0, len(values), int(size))]


def _hash(text: str, algorithm: str) -> str:
    return hashlib.new(algorithm.replace("-", "").lower(), text.encode()).hexdigest()


_STEP_FUNCTIONS = {
    "uuid": _uuid,
    "parse": _parse,
    "partition": _partition,
    "range": _range,
    "hash": _hash,
}
"""The functions that Step Functions adds to JSONata."""


def _variables(env: Any) -> dict[str, Any]:
    store = env.variable_store
    named = {name.lstrip("$"): value for name, value in {**store._outer_scope, **store._inner_scope}.items()}
    return {**named, "states": json.loads(to_json_str(env.states._states_data))}


def _evaluate_component(component: Any, env: Any) -> None:
    try:
        env.stack.append(evaluate(component.expression, _variables(env)))
    except ExpressionFailed as failed:
        name = StatesErrorName(typ=StatesErrorNameType.StatesQueryEvaluationError)
        details = EventDetails(
            evaluationFailedEventDetails=EvaluationFailedEventDetails(cause=str(failed), error=name.error_name)
        )
        env.event_manager.add_event(
            context=env.event_history_context,
            event_type=HistoryEventType.EvaluationFailed,
            event_details=details,
        )
        raise FailureEventException(
            FailureEvent(
                env=env,
                error_name=name,
                event_type=HistoryEventType.EvaluationFailed,
                event_details=details,
            )
        ) from failed


def _assigned_variables(store: Any) -> dict[str, str]:
    assigned = {name: to_json_str(store.get(name), separators=(",", ":")) for name in store._declaration_tracing}
    return dict(sorted(assigned.items()))


def apply() -> None:
    replace(StringJSONata, "_eval_body", lambda original: _evaluate_component)
    replace(StringVariableSample, "_eval_body", lambda original: _evaluate_component)
    # In the history, stock moto writes a string variable between quotes without escaping it.
    replace(VariableStore, "get_assigned_variables", lambda original: _assigned_variables)
