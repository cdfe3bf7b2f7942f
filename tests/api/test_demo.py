"""`make demo` as a person sees it: what its scenarios show, held once for all tests."""

import re

import pytest

from local.bedrock.rule.rule_answers import LABEL
from tests.api.test_faults import run_local

pytestmark = pytest.mark.whole


@pytest.fixture(scope="module")
def scenarios() -> dict[int, str]:
    """What is printed of each scenario, by its number; 0 is the introduction."""
    ended = run_local("demo")
    assert (ended.returncode, ended.stderr) == (0, "")
    return dict(enumerate(re.split(r"\n\n(?=\d  )", ended.stdout)))


def test_it_says_at_once_that_a_rule_and_no_llm_answers_and_extracts(scenarios: dict[int, str]) -> None:
    introduction = scenarios[0]
    assert "The model is a rule, not an LLM" in introduction
    assert "What memory keeps, it extracts by rules too." in introduction


def test_a_throttled_call_recovers(scenarios: dict[int, str]) -> None:
    assert attempts_of(scenarios[5]) == [
        ("1", "FAILED THROTTLING", "retry in 200 ms"),
        ("2", "FAILED THROTTLING", "retry in 400 ms"),
        ("3", "SUCCESS", ""),
    ]


def test_a_circuit_opens_and_closes(scenarios: dict[int, str]) -> None:
    circuit = scenarios[6]
    attempts = attempts_of(circuit)
    assert attempts[:5] == [
        ("1", "FAILED SERVICE_UNAVAILABLE", "retry in 200 ms"),
        ("2", "FAILED SERVICE_UNAVAILABLE", "retry in 400 ms"),
        ("3", "FAILED SERVICE_UNAVAILABLE", ""),
        ("1", "FAILED SERVICE_UNAVAILABLE", "retry in 200 ms"),
        ("2", "FAILED SERVICE_UNAVAILABLE", "retry in 400 ms"),
    ]
    # How much of the two seconds is left, and for which turns, depends on how fast the machine is.
    assert attempts[5] == ("3", "FAILED CIRCUIT_OPEN", "not called for some time")
    assert attempts[6] in (("1", "SUCCESS", ""), ("1", "FAILED CIRCUIT_OPEN", "not called for some time"))
    assert attempts[7:] == [("1", "SUCCESS", "")] * 2
    assert "2 s, the recovery time here; the agent's file says 60 s" in circuit


def test_what_is_said_in_one_session_is_extracted_merged_and_known_in_the_next(scenarios: dict[int, str]) -> None:
    said, ended, known = (lines_of(scenarios[number]) for number in (7, 8, 9))
    assert said["you"] == ["I report in USD, work on Project Phoenix and take moderate risks."]
    assert "injected" not in said
    assert [re.sub(r" \(turn [0-9a-f]{8}\)$", "", line) for line in ended["extracted"]] == [
        "user_preferences  currency: The user reports in USD.",
        "project_context  The user works on Project Phoenix.",
        "risk_profile  risk: The user takes moderate risks.",
    ]
    assert ended["merged"] == [
        "user_preferences  + The user reports in USD.",
        "project_context  + The user works on Project Phoenix.",
        "risk_profile  + The user takes moderate risks.",
    ]
    assert ended["summary"][0].startswith(f"{LABEL} The user reports in USD.")
    states = " ".join(ended["states"])
    assert re.findall(r"(?:Load|Extract|Merge|Summarize|Write) (?:Session|Records)", states) == [
        "Load Session",
        "Extract Records",
        "Merge Records",
        "Summarize Session",
        "Write Records",
    ]
    said_on = re.compile(r" \(said on \d{4}-\d\d-\d\d\)")
    shown = [said_on.subn("", line) for line in known["injected"][:3]]
    assert shown == [
        ("user_preferences  The user reports in USD.", 1),
        ("project_context  The user works on Project Phoenix.", 1),
        ("risk_profile  The user takes moderate risks.", 1),
    ]
    assert said_on.subn("", " ".join(known["agent"])) == (
        f"{LABEL} I was shown from memory: {' '.join(line.partition('  ')[2] for line, _ in shown)}",
        3,
    )


def attempts_of(scenario: str) -> list[tuple[str, str, str]]:
    """(number, outcome, what follows) of the lines that show attempts; how long a circuit is still open is left out."""
    line = r"step 1 get_account_balance attempt (\d) ((?:FAILED )?[A-Z_]+) \d+ ms(?:, (.*))?$"
    timeless = re.sub(r"not called for \d+ s", "not called for some time", scenario)
    return [(number, outcome, after) for number, outcome, after in re.findall(line, timeless, re.MULTILINE)]


def lines_of(scenario: str) -> dict[str, list[str]]:
    """The lines of a scenario by their labels; a line without one continues the label before it."""
    found: dict[str, list[str]] = {}
    label = ""
    for line in scenario.splitlines()[1:]:
        label = line[3:13].strip() or label
        found.setdefault(label, []).append(line[13:])
    return found
