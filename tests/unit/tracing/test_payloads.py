import hashlib
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from turnwright.errors import LeaseLost, ModelRejected, ToolAttemptFailed
from turnwright.storage.settings import settings
from turnwright.tracing import payloads
from turnwright.tracing.handler_errors import with_safe_errors
from turnwright.tracing.log import logger
from turnwright.tracing.payloads import InvalidPayloads

EVENT = {
    "timestamp": "2025-11-22T10:20:05.123Z",
    "traceId": "",
    "sessionId": "session-of-4711",
    "turnId": "4711" * 8,
    "agentId": "BANK",
    "agentVersion": "4711",
    "step": 1,
    "type": "FINAL_RESPONSE",
    "status": "SUCCESS",
    "prompt": "my number is 4711",
    "answer": '{"pin": "00", "note": "ok"}',
    "turnInputTokens": 4711,
    "turnOutputTokens": 1,
    "durationMs": 1,
}
REDACTED = payloads.read("REDACTED", "pin", "4711")


@pytest.fixture(params=["FULL", "METADATA", "REDACTED"])
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name, value in (("PAYLOADS", request.param), ("REDACT_FIELDS", "pin"), ("REDACT_PATTERNS", "4711")):
        monkeypatch.setenv(f"TRACE_{name}", value)
    settings.cache_clear()
    yield request.param
    settings.cache_clear()


def test_a_full_event_is_as_it_is() -> None:
    assert payloads.read("FULL", "pin", "4711").event(EVENT) == EVENT


def test_metadata_has_sizes_and_digests_in_place_of_texts() -> None:
    event = payloads.read("METADATA", "", "").event({**EVENT, "prompt": "ä"})
    assert (event["promptBytes"], event["promptDigest"]) == (2, hashlib.sha256("ä".encode()).hexdigest())
    assert event.keys() & {"prompt", "answer"} == set()
    assert event["turnInputTokens"] == 4711


def test_a_redacted_event_keeps_what_this_runtime_made_and_loses_what_somebody_said() -> None:
    assert REDACTED.event(EVENT) == {
        **EVENT,
        "sessionId": "session-of-[REDACTED]",
        "prompt": "my number is [REDACTED]",
        "answer": '{"pin":"[REDACTED]","note":"ok"}',
    }


def test_an_events_own_field_can_be_taken_out_by_name() -> None:
    assert payloads.read("REDACTED", "answer", "").event(EVENT)["answer"] == "[REDACTED]"


@pytest.mark.parametrize(
    ("level", "fields", "patterns", "said"),
    [
        ("SOME", "", "", "TracePayloads: SOME is none of FULL, METADATA, REDACTED"),
        ("REDACTED", " ,", "", "both are empty"),
        ("REDACTED", "", "(", r"TraceRedactPatterns: \( is not a regular expression"),
        ("FULL", "", "x*", r"TraceRedactPatterns: x\* matches an empty text"),
    ],
)
def test_parameters_that_cannot_be_kept_are_refused_by_name(level: str, fields: str, patterns: str, said: str) -> None:
    with pytest.raises(InvalidPayloads, match=said):
        payloads.read(level, fields, patterns)


def raised_by(error: Exception) -> Exception:
    """What a handler raises to Lambda, which logs its class, message and frames."""

    @with_safe_errors
    def handler(_event: dict[str, Any], _context: object) -> None:
        raise error from ValueError("4711")

    with pytest.raises(Exception) as caught:  # noqa: PT011 (the class is what is asked)
        handler({}, None)
    return caught.value


@pytest.mark.parametrize("error", [ModelRejected("4711 is no model"), KeyError("4711"), OSError(2, "4711")])
def test_an_exception_is_raised_by_its_name_with_a_message_that_may_be_logged(error: Exception, level: str) -> None:
    raised = raised_by(error)

    assert type(raised).__name__ == type(error).__name__
    assert ("4711" in str(raised)) == (level == "FULL")
    if level != "FULL":
        assert raised.__suppress_context__
    frames = []
    traceback = raised.__traceback__
    while traceback:
        frames.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert frames[-1] == "handler", "where it happened is still told"


def test_what_the_state_machine_reads_stays_and_so_do_the_runtimes_own_words(level: str) -> None:
    report = json.dumps({"errorCode": "TIMEOUT", "attempts": 4711})
    assert str(raised_by(ToolAttemptFailed(report))) == report
    assert str(raised_by(LeaseLost("session s-1 went on"))) == "session s-1 went on"


def test_an_error_that_was_hidden_is_not_hidden_again() -> None:
    hiding = payloads.read("METADATA", "", "")
    assert hiding.error(hiding.error("4711 was here")) == "[13 characters]"


def test_other_lines_of_the_log_hold_no_more_than_events(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    log = logger()
    monkeypatch.setattr(log.registered_handler, "stream", SimpleNamespace(write=lines.append, flush=lambda: None))
    try:
        raise ModelRejected(EVENT["prompt"])
    except ModelRejected:
        log.exception("failed", turnId="4711", cause={"pin": "4711"} if level != "METADATA" else "")

    line = json.loads("".join(lines))
    assert line["turnId"] == "4711", "an identifier that was made here"
    assert ("4711" in json.dumps({**line, "turnId": ""})) == (level == "FULL")
    assert line["exception_name"] == "ModelRejected"
    assert line["stack_trace"]["frames"]
