import botocore.session
import pytest

from tests.paths import ROOT
from turnwright.errors import ModelRejected, ModelUnavailable
from turnwright.models import stop_reasons
from turnwright.models.stop_reasons import KNOWN, Calls, ending, noted

BEDROCKS = botocore.session.get_session().get_service_model("bedrock-runtime").shape_for("StopReason").enum


def test_the_table_has_each_of_bedrocks_stop_reasons_and_so_have_the_module_and_the_page() -> None:
    assert set(BEDROCKS) == KNOWN
    for text in (stop_reasons.__doc__ or "", (ROOT / "docs" / "models.md").read_text()):
        table = "\n".join(
            line.partition("|")[2].partition("|")[0] for line in text.splitlines() if line.startswith("|")
        )
        assert [reason for reason in BEDROCKS if reason not in table] == []


@pytest.mark.parametrize("stop_reason", ["end_turn", "tool_use", "stop_sequence"])
def test_a_whole_reply_makes_its_calls_and_its_text_stands_without_a_note(stop_reason: str) -> None:
    assert ending(stop_reason).calls is Calls.MADE
    assert noted("Hi", stop_reason) == "Hi"


@pytest.mark.parametrize("stop_reason", ["max_tokens", "pause_turn", "END_TURN", "None"])
def test_a_reply_that_is_cut_or_ends_as_nobody_knows_makes_no_call_and_says_so(stop_reason: str) -> None:
    assert ending(stop_reason).calls is Calls.REFUSED
    assert noted("Hi", stop_reason) == f"Hi\n\n[The answer is cut: the model stopped with {stop_reason}.]"


def test_a_filtered_answer_says_so_and_a_guardrail_speaks_for_itself() -> None:
    assert noted("Hi", "content_filtered") == (
        "Hi\n\n[The answer was filtered: the model stopped with content_filtered.]"
    )
    assert noted("I may not say that.", "guardrail_intervened") == "I may not say that."
    assert {ending(reason).calls for reason in ("content_filtered", "guardrail_intervened")} == {Calls.LEFT_OUT}


def test_a_malformed_reply_is_retried_and_a_window_that_is_too_short_is_left_for_the_next_models() -> None:
    failures = {reason: ending(reason).failure for reason in BEDROCKS if ending(reason).failure}
    assert failures == {
        "malformed_model_output": ModelUnavailable,
        "malformed_tool_use": ModelUnavailable,
        "model_context_window_exceeded": ModelRejected,
    }
