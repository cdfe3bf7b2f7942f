"""Why a model stopped, and what its reply is then worth. This table alone decides it; docs/models.md explains it.

| stop reason | its tool calls | its text | the caller is told |
| --- | --- | --- | --- |
| end_turn, tool_use, stop_sequence | are made; tool_use without one failed | is the answer, if it makes no call | |
| max_tokens, and any that is not in this table | none is made, each gets an error | the same, but cut | by a note |
| guardrail_intervened | left out | is the answer: the guardrail's words | |
| content_filtered | left out | is the answer, as far as it was let through | by a note |
| malformed_model_output, malformed_tool_use | the call failed: ModelUnavailable | | |
| model_context_window_exceeded | the call failed: ModelRejected, since another model may have a longer window | | |

Trace, log and receipt have the stop reason of every reply that was taken. Source: `StopReason` in botocore's service
model of `bedrock-runtime`; `tests/unit/models/test_stop_reasons.py` fails on one that it adds.
"""

from dataclasses import dataclass
from enum import Enum, auto

from turnwright.errors import ModelError, ModelRejected, ModelUnavailable


class Calls(Enum):
    """What becomes of a reply's tool calls."""

    MADE = auto()
    REFUSED = auto()
    """Each is answered with an error, so that the model can ask again."""
    LEFT_OUT = auto()
    """The turn ends with this reply."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a reply ended. `note` goes under an answer, with the stop reason; `failure` is what the model call raises."""

    calls: Calls
    note: str = ""
    failure: type[ModelError] | None = None


_WHOLE = Ending(Calls.MADE)
_CUT = Ending(Calls.REFUSED, "The answer is cut")
_MALFORMED = Ending(Calls.LEFT_OUT, failure=ModelUnavailable)

_ENDINGS = {
    "end_turn": _WHOLE,
    "tool_use": _WHOLE,
    "stop_sequence": _WHOLE,
    "max_tokens": _CUT,
    "guardrail_intervened": Ending(Calls.LEFT_OUT),
    "content_filtered": Ending(Calls.LEFT_OUT, "The answer was filtered"),
    "malformed_model_output": _MALFORMED,
    "malformed_tool_use": _MALFORMED,
    "model_context_window_exceeded": Ending(Calls.LEFT_OUT, failure=ModelRejected),
}

KNOWN = frozenset(_ENDINGS)

COMPLETES_A_CALL = frozenset({"end_turn", "tool_use"})
"""With these a tool call without any input has no arguments; with any other it may have been cut before they came."""


def ending(stop_reason: str) -> Ending:
    """What the table says of the stop reason. One that it does not know is not trusted to leave a reply whole."""
    return _ENDINGS.get(stop_reason, _CUT)


def noted(answer: str, stop_reason: str) -> str:
    """The answer as the caller gets it: with a note where it is not all that the model would have said."""
    note = ending(stop_reason).note
    return f"{answer}\n\n[{note}: the model stopped with {stop_reason}.]" if note else answer
