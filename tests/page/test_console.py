"""The console page as a person uses it, in headless Chromium, on the running stack."""

import json
import re
import time
from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from local.bedrock.scripted_model import ScriptedModel
from local.stack import LocalStack
from tests.project import LONG_AGENT, TEST_AGENT
from tests.workflow.turns import ask, calls, fails, new_session, says
from turnwright.memory.records.records import Provenance, Record, added
from turnwright.storage.table import Table

pytestmark = pytest.mark.whole

HTML = '<img src=x onerror="alert(1)"><script>alert(2)</script><b>bold</b> &amp; 🙂👩‍👩‍👧 "quoted" \\n'
VIEWS = ("chat", "turn", "memory", "sessions", "circuits")


def choose(page: Page, agent: str = TEST_AGENT, actor: str = "") -> None:
    page.locator("#agent").select_option(agent)
    page.locator("#actor").fill(actor)
    page.locator("#actor").press("Tab")


def say(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_role("button", name="Send").click()


def ended(page: Page, status: str = "committed", seconds: float = 30) -> None:
    """Waits until the newest message is answered and its turn is shown as ended."""
    expect(page.locator(".exchange").last.locator(".answer")).not_to_have_attribute(
        "data-status", "running", timeout=seconds * 1000
    )
    newest = page.locator(".exchange").last.get_attribute("data-turn")
    assert newest
    expect(page.locator("#turn-select")).to_have_value(newest, timeout=seconds * 1000)
    expect(page.locator("#turn-status")).to_have_text(status)


def state(page: Page, name: str) -> Locator:
    return page.locator(f'.node[data-name="{name}"]')


def span(page: Page, text: str) -> Locator:
    return page.locator(".span").filter(has_text=text)


def figure(page: Page, label: str) -> str:
    return page.locator("#figures div").filter(has=page.get_by_text(label, exact=True)).locator("dd").inner_text()


def boxes(page: Page) -> dict[str, Any]:
    """Where the parts of the page are that may not move while a turn runs."""
    parts = ("#composer", "#figures", "#graph svg", "#spans", "#payload", "#turn-status", "#receipt", ".views", ".top")
    return {part: page.locator(part).bounding_box() for part in parts}


def sideways(page: Page) -> int:
    """How many pixels of the page are beyond its right edge."""
    return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))


def test_a_failed_and_retried_tool_is_seen_attempt_by_attempt(page: Page, model: ScriptedModel) -> None:
    model.replace([calls(("misbehave", {"how": "throttle", "times": 2}), step=1), says("It went well.")])
    choose(page)
    say(page, "try it")
    ended(page)
    expect(page.locator(".exchange .answer")).to_have_text("It went well.")
    attempts = page.locator(".span").filter(has_text=re.compile("^.?Attempt"))
    expect(attempts).to_have_count(3)
    assert [attempts.nth(n).get_attribute("data-status") for n in range(3)] == ["failed", "failed", "succeeded"]
    expect(attempts.nth(0)).to_contain_text("THROTTLING · again in 20 ms")
    attempts.nth(0).click()
    expect(page.locator("#payload")).to_contain_text("slow down")
    attempts.nth(2).click()
    expect(page.locator("#payload")).to_contain_text("went well in attempt 3")
    expect(state(page, "Invoke Tool")).to_have_attribute("aria-pressed", "true")
    expect(state(page, "Invoke Tool")).to_have_attribute(
        "aria-label", "Invoke Tool, succeeded, visited 3 times, tried again 2 times, failures: ToolAttemptFailed"
    )
    assert [figure(page, name) for name in ("Model calls", "Tool calls", "Retries", "Transitions")] == [
        "2",
        "1",
        "2",
        "13",
    ]
    expect(state(page, "Back Off")).to_have_attribute("data-state", "idle")


def test_the_receipt_tells_what_a_turn_cost_and_what_is_not_known(page: Page, model: ScriptedModel) -> None:
    model.replace([says("An answer.")])
    choose(page, "BANKASSIST")
    say(page, "with a price")
    ended(page)
    assert re.fullmatch(r"\$0\.00\d+", figure(page, "Cost"))
    expect(page.locator("#session-cost")).to_contain_text("$0.00")
    page.get_by_role("button", name="Receipt").click()
    expect(page.locator("#payload")).to_contain_text("stepFunctions")
    expect(page.locator("#payload")).to_contain_text("global.anthropic.claude")
    choose(page)
    say(page, "without a price")
    ended(page)
    assert figure(page, "Cost").startswith("≥ $0.0")
    expect(page.locator("#figures div").last).to_have_attribute("title", re.compile("no price"))


def test_a_model_call_opens_to_its_prompt_and_answer(page: Page, model: ScriptedModel) -> None:
    model.replace([says("The answer is 42.")])
    choose(page)
    say(page, "What is the answer?")
    ended(page)
    span(page, "first-model").click()
    expect(page.locator("#payload")).to_contain_text("You are an agent for tests")
    expect(page.locator("#payload")).to_contain_text("The answer is 42.")
    expect(page.locator("#payload-title")).to_contain_text("first-model")


def test_a_model_that_is_throttled_and_replaced_has_a_row_for_each_try(page: Page, model: ScriptedModel) -> None:
    model.replace([fails("AccessDeniedException", 403, when={"model": "first-model"}), says("From the second.")])
    choose(page)
    say(page, "hello")
    ended(page)
    expect(state(page, "Use Next Model")).to_have_attribute("data-state", "succeeded")
    expect(span(page, "first-model")).to_have_attribute("data-status", "failed")
    expect(span(page, "second-model")).to_have_attribute("data-status", "succeeded")


def test_a_turn_that_fails_is_red_where_it_failed(page: Page, model: ScriptedModel) -> None:
    model.replace([calls(("strict", {"how": "hang"}), step=1)])
    choose(page)
    say(page, "hang")
    ended(page, "failed")
    expect(page.locator(".answer[data-status=failed]")).to_contain_text("TIMEOUT")
    expect(state(page, "Invoke Tool")).to_have_attribute("data-state", "failed")
    expect(state(page, "Run Tools")).to_have_attribute("data-state", "failed")
    expect(state(page, "Write Memory")).to_have_attribute("data-state", "idle")
    expect(span(page, "Turn failed")).to_have_attribute("data-status", "failed")
    span(page, "strict").click()
    expect(page.locator("#payload")).to_contain_text("TIMEOUT")


def test_a_running_turn_lights_its_state_and_moves_nothing(page: Page, model: ScriptedModel) -> None:
    model.replace([calls(("echo", {"text": "a"}), ("echo", {"text": "b"}), step=1), says("Two lines\nof an answer.")])
    choose(page)
    before = boxes(page)
    model.pause()
    say(page, "slowly")
    expect(state(page, "Invoke Model")).to_have_attribute("data-state", "running")
    expect(state(page, "Load Memory")).to_have_attribute("data-state", "succeeded")
    expect(page.locator("#turn-status")).to_have_text("running")
    expect(page.locator(".exchange .meta")).to_contain_text("Invoke Model")
    expect(page.get_by_role("status")).to_have_text("Turn runs: Invoke Model")
    assert boxes(page) == before
    model.resume()
    ended(page)
    assert boxes(page) == before
    expect(page.get_by_role("status")).to_contain_text("Turn committed after")
    expect(page.locator(".answer")).to_have_text("Two lines\nof an answer.")


def test_thirty_steps_with_eight_parallel_tools_stay_readable(page: Page, model: ScriptedModel) -> None:
    eight: list[tuple[str, dict[str, Any]]] = [("echo", {"text": str(number)}) for number in range(6)] + [
        ("misbehave", {"how": "throttle", "times": 1}),
        ("misbehave", {"how": "raise"}),
    ]
    steps = [calls(*(eight if step == 2 else eight[:1]), step=step) for step in range(1, 31)]
    model.replace([*steps, says("Done.")])
    choose(page, LONG_AGENT)
    say(page, "go on for long")
    ended(page, seconds=90)
    assert [figure(page, name) for name in ("Model calls", "Tool calls")] == ["31", "37"]
    expect(page.locator(".span").filter(has_text="8 calls in parallel")).to_have_count(1)
    expect(page.locator('.span[data-kind="state"]').filter(has_text="Invoke Model")).to_have_count(31)
    expect(state(page, "Run Tools")).to_contain_text("×30")
    assert page.evaluate(
        "document.querySelector('#spans').scrollHeight > document.querySelector('#spans').clientHeight"
    )
    assert sideways(page) == 0
    parallel = page.locator(".span").filter(has_text="8 calls in parallel")
    parallel.click()
    page.keyboard.press("ArrowLeft")
    expect(parallel).to_have_attribute("aria-expanded", "false")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".span:focus")).to_have_attribute("aria-level", "2")


def test_html_and_emoji_stay_text_wherever_they_are_shown(page: Page, model: ScriptedModel) -> None:
    model.replace([calls(("echo", {"text": HTML}), step=1), says(HTML)])
    choose(page, actor="user_html")
    say(page, HTML)
    ended(page)
    assert page.locator(".asked").inner_text() == HTML.strip()
    assert page.locator(".said").last.inner_text() == HTML.strip()
    for row in range(page.locator(".span").count()):
        page.locator(".span").nth(row).click()
        expect(page.locator("#payload .pairs")).to_be_visible()
    span(page, "echo").click()
    expect(page.locator("#payload")).to_contain_text('<img src=x onerror="alert(1)">')
    page.get_by_role("tab", name="Sessions").click()
    page.locator("#panel-sessions .link").first.click()
    expect(page.locator(".asked")).to_have_text(HTML.strip())
    assert page.locator("main img, main script, main b").count() == 0


def test_the_systems_theme_counts_until_one_is_chosen(page: Page) -> None:
    def ground() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    light = ground()
    page.emulate_media(color_scheme="dark")
    dark = ground()
    assert light != dark
    page.get_by_role("button", name="Theme: system").click()
    assert ground() == light
    page.reload()
    expect(page.get_by_role("button", name="Theme: light")).to_be_visible()
    assert ground() == light
    page.get_by_role("button", name="Theme: light").click()
    page.emulate_media(color_scheme="light")
    assert ground() == dark


def test_on_a_narrow_window_nothing_scrolls_sideways(page: Page, model: ScriptedModel) -> None:
    model.replace([calls(("echo", {"text": "x" * 400}), step=1), says("y" * 300)])
    page.set_viewport_size({"width": 400, "height": 800})
    choose(page, actor="user_narrow")
    page.get_by_role("tab", name="Chat").click()
    say(page, "z" * 300)
    ended(page)
    for view in VIEWS:
        page.locator(f"#tab-{view}").click()
        expect(page.locator(f"#panel-{view}")).to_be_visible()
        assert sideways(page) == 0, view
    page.locator("#tab-turn").click()
    shown = page.locator("#graph svg").bounding_box()
    assert shown
    assert shown["width"] <= 400
    span(page, "echo").click()
    expect(page.locator("#payload .document").first).to_be_visible()


def test_everything_is_done_with_the_keyboard_alone(page: Page, model: ScriptedModel) -> None:
    model.replace([calls(("echo", {"text": "typed"}), step=1), says("Answered.")])

    def tab_to(selector: str, most: int = 25) -> None:
        for _ in range(most):
            if page.evaluate("selector => document.activeElement?.matches(selector)", selector):
                return
            page.keyboard.press("Tab")
        raise AssertionError(f"{selector} cannot be reached with Tab")

    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    tab_to("#agent")
    page.keyboard.type(TEST_AGENT.lower())
    expect(page.locator("#agent")).to_have_value(TEST_AGENT)
    tab_to("#message")
    page.keyboard.type("first line")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("second line")
    page.keyboard.press("Enter")
    ended(page)
    assert page.locator(".asked").inner_text() == "first line\nsecond line"
    page.locator("body").evaluate("() => document.activeElement.blur()")
    tab_to("[role=tab]", 40)
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Memory")).to_be_focused()
    expect(page.locator("#panel-memory")).to_be_visible()
    page.keyboard.press("Home")
    expect(page.locator("#panel-turn")).to_be_visible()
    tab_to(".node")
    expect(state(page, "Load Memory")).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(state(page, "Invoke Model")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#payload-title")).to_contain_text("Invoke Model")
    tab_to(".span")
    page.keyboard.press("End")
    expect(page.locator("#payload-title")).to_contain_text("Final response")
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".span:focus")).to_contain_text("Write Memory")
    tab_to("#payload")


def test_a_choice_is_found_in_the_spans_when_its_state_is_chosen(page: Page, model: ScriptedModel) -> None:
    model.replace([says("Hello.")])
    choose(page)
    say(page, "hi")
    ended(page)
    expect(span(page, "Tools Requested?")).to_have_count(0)
    state(page, "Tools Requested?").click()
    expect(span(page, "Tools Requested?")).to_have_attribute("aria-selected", "true")
    expect(page.get_by_label("Choices and passes too")).to_be_checked()


def test_an_actors_memory_tells_where_each_record_comes_from(
    page: Page, stack: LocalStack, model: ScriptedModel
) -> None:
    model.replace([says("Noted.")])
    choose(page, actor="user_memory")
    say(page, "I prefer euros")
    ended(page)
    turn = page.locator(".exchange").get_attribute("data-turn") or ""
    now = time.time_ns() // 1_000_000
    record = Record(
        store=f"{TEST_AGENT}-turnwright",
        actor="user_memory",
        namespace="/preferences/user_memory/",
        record_id=f"mem-{uuid4()}",
        text="Prefers <b>EUR</b>",
        provenance=Provenance(
            "CONSOLIDATION",
            session_id=page.locator("#session").input_value(),
            turn_id=turn,
            agent_id=TEST_AGENT,
            agent_version="1",
            consolidation_id="c" * 32,
            prompt_version="sha256:1234",
            replaced=({"text": "Prefers USD", "sessionId": "s", "turnId": "t", "at": now},),
        ),
        strategy="preferences",
        key="currency",
        created_at=now,
        updated_at=now,
        timestamp=now,
    )
    table = Table(stack.client("dynamodb"), stack.resources["Table"])
    table.put(added(record))
    page.get_by_role("tab", name="Memory").click()
    page.get_by_text("Prefers <b>EUR</b>").click()
    shown = page.locator("#panel-memory")
    for text in (
        "/preferences/user_memory/",
        "currency",
        "c" * 32,
        "sha256:1234",
        "Prefers USD",
        f"{TEST_AGENT}, version 1",
    ):
        expect(shown).to_contain_text(text)
    shown.get_by_role("button", name=turn[:8]).click()
    expect(page.locator("#panel-turn")).to_be_visible()
    expect(page.locator("#turn-status")).to_have_text("committed")


@pytest.mark.parametrize("kept", [True, False], ids=["with the trace", "by the log"])
def test_what_a_memory_tool_wrote_and_found_stands_below_its_call(page: Page, model: ScriptedModel, kept: bool) -> None:
    remembered = ("remember", {"namespace": "project_context", "text": "Builds <b>Mars</b>"})
    model.replace([calls(remembered, ("search_memory", {"query": "Mars"}), step=1), says("Done.")])
    choose(page, "BANKASSIST", f"user_spans_{kept}")
    page.get_by_label("Keep the trace").set_checked(kept)
    say(page, "remember Mars")
    ended(page)
    expect(span(page, "Written /project_context/")).to_have_count(1)
    labels = page.locator(".span").all_inner_texts()
    wrote = next(at for at, label in enumerate(labels) if "Written" in label)
    assert "remember" in labels[wrote - 1]
    found = [label for label in labels[wrote + 1 :] if "Retrieved" in label]
    assert len(found) == 3, "one for each namespace"
    span(page, "Written /project_context/").click()
    expect(page.locator("#payload")).to_contain_text("MEMORY_WRITE")
    expect(page.locator("#payload")).to_contain_text("Builds <b>Mars</b>")


def test_an_actor_without_memory_and_no_actor_are_told_apart(page: Page) -> None:
    page.get_by_role("tab", name="Memory").click()
    expect(page.locator("#panel-memory")).to_contain_text("No actor")
    choose(page, actor="user_unknown")
    expect(page.locator("#panel-memory")).to_contain_text("Nothing yet")


def test_a_session_is_opened_again_with_what_was_said_in_it(page: Page, model: ScriptedModel) -> None:
    model.replace([says("The first answer.", text="first"), calls(("strict", {"how": "hang"}), text="second")])
    choose(page, actor="user_sessions")
    say(page, "the first question")
    ended(page)
    say(page, "the second question")
    ended(page, "failed")
    old = page.locator("#session").input_value()
    page.get_by_role("button", name="New").click()
    expect(page.locator(".exchange")).to_have_count(0)
    page.get_by_role("tab", name="Sessions").click()
    page.locator("#panel-sessions").get_by_role("button", name=old).click()
    expect(page.locator(".exchange")).to_have_count(2)
    expect(page.locator(".asked").nth(1)).to_have_text("the second question")
    expect(page.locator(".said").nth(0)).to_have_text("The first answer.")
    expect(page.locator(".answer").nth(1)).to_have_attribute("data-status", "failed")
    page.locator(".exchange").nth(0).get_by_role("button").click()
    expect(page.locator("#turn-status")).to_have_text("committed")


def test_the_turns_of_other_callers_are_found_and_have_their_own_address(
    page: Page, stack: LocalStack, model: ScriptedModel, agent_client: Any
) -> None:
    model.replace([calls(("echo", {"text": "hi"}), step=1), says("Told to boto3.")])
    told = ask(agent_client, "asked by boto3", memoryId="user_boto3")
    page.get_by_role("tab", name="Sessions").click()
    page.locator("#panel-sessions").get_by_role("button", name=told.turn_id[:8]).click()
    expect(page.locator("#turn-status")).to_have_text("committed")
    expect(span(page, "echo")).to_be_visible()
    assert page.url == f"{stack.console_url}#turn/{told.turn_id}"
    page.reload()
    expect(span(page, "echo")).to_be_visible()


def test_a_turn_without_a_trace_is_told_by_the_log(page: Page, model: ScriptedModel) -> None:
    model.replace([calls(("misbehave", {"how": "throttle", "times": 1}), step=1), says("Done.")])
    choose(page)
    page.get_by_label("Keep the trace").uncheck()
    say(page, "quietly")
    ended(page)
    expect(span(page, "Final response")).to_be_visible()
    expect(span(page, "Attempt 1")).to_contain_text("again in")
    span(page, "first-model").first.click()
    expect(page.locator("#payload")).to_contain_text("You are an agent for tests")


def test_an_open_circuit_is_seen_from_every_view(page: Page, stack: LocalStack, model: ScriptedModel) -> None:
    failing = [calls(("guarded", {"how": "throttle"}), step=step) for step in (1, 2, 3)]
    model.replace([*failing, says("It keeps failing.")])
    choose(page)
    say(page, "break it")
    ended(page)
    expect(page.locator("#circuits-note")).to_have_text("1 open circuit")
    page.locator("#circuits-note").click()
    row = page.locator("#panel-circuits tr").filter(has_text=f"guarded{TEST_AGENT}")
    expect(row.locator(".chip")).to_have_text(re.compile("^(half-)?open$"))
    table = stack.client("dynamodb")
    key = {"PK": {"S": f"BREAKER#{TEST_AGENT}#guarded"}, "SK": {"S": "BREAKER"}}
    table.delete_item(TableName=stack.resources["Table"], Key=key)
    expect(page.locator("#circuits-note")).to_have_text("Circuits closed")


def test_a_refused_request_is_told_with_its_type(page: Page, model: ScriptedModel) -> None:
    model.replace([says("never")])
    choose(page)
    page.locator("#session").fill("bad session!")
    say(page, "hello")
    expect(page.locator(".exchange")).to_have_count(0)
    page.locator("#session").fill(new_session())
    page.route("**/text", lambda route: route.continue_(headers={**route.request.headers, "authorization": "none"}))
    say(page, "hello")
    expect(page.locator(".answer[data-status=failed]")).to_contain_text("InvalidSignatureException")


def test_a_stack_that_does_not_answer_is_told_and_asked_again(page: Page, model: ScriptedModel) -> None:
    model.replace([says("Back again.")])
    choose(page, actor="user_offline")
    page.route("**/memory", lambda route: route.abort())
    page.get_by_role("tab", name="Memory").click()
    expect(page.get_by_role("alert")).to_contain_text("does not answer")
    page.unroute("**/memory")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#panel-memory")).to_contain_text("user_offline")


def test_a_session_that_is_still_being_read_does_not_cover_a_new_message(page: Page, model: ScriptedModel) -> None:
    model.replace([says("Answered.")])
    choose(page)
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/sessions/slow-session", hold)
    page.locator("#session").fill("slow-session")
    page.locator("#session").press("Tab")
    expect(page.locator(".loading")).to_be_visible()
    say(page, "hello")
    ended(page)
    with page.expect_response("**/sessions/slow-session"):
        held[0].continue_()
    expect(page.locator(".asked")).to_have_text("hello")


def test_a_look_that_fails_once_does_not_end_the_following(page: Page, model: ScriptedModel) -> None:
    model.replace([says("Answered.")])
    choose(page)
    failed: list[str] = []

    def fail_twice(route: Route) -> None:
        failed.append(route.request.url)
        if len(failed) <= 2:
            route.fulfill(status=502, json={"message": "the offline AWS did not answer"})
        else:
            route.continue_()

    page.route(re.compile("/console/api/turns/[0-9a-f]+$"), fail_twice)
    say(page, "hello")
    ended(page)
    assert len(failed) > 2


def test_a_turn_that_does_not_exist_is_told(page: Page, stack: LocalStack) -> None:
    page.goto(f"{stack.console_url}#turn/{uuid4().hex}")
    expect(page.get_by_role("alert")).to_contain_text("There is no turn")


def test_an_unknown_address_shows_nothing_of_the_turn_before(
    page: Page, stack: LocalStack, model: ScriptedModel
) -> None:
    model.replace([says("Answered.")])
    choose(page, "BANKASSIST")
    say(page, "hello")
    ended(page)
    known = page.url
    assert figure(page, "Cost").startswith("$")
    span(page, "Load Memory").click()
    for address, told in (
        (f"#turn/{uuid4().hex}", "There is no turn"),
        ("#turn/", "names nothing here"),
        ("#turn/%2e%2e", "names nothing here"),
        ("#memory", "names nothing here"),
        ("", "No turn yet"),
    ):
        page.goto(known)
        expect(page.locator("#turn-status")).to_have_text("committed")
        page.evaluate("hash => { location.hash = hash }", address)
        expect(page.locator("#spans")).to_contain_text(told)
        assert set(page.locator("#figures dd").all_inner_texts()) == {"–"}
        for cleared in ("#axis", "#span-count", "#graph-count", "#session-cost"):
            expect(page.locator(cleared)).to_have_text("")
        expect(page.locator("#turn-status")).to_have_text(re.compile("^(unknown|no turn)$"))
        expect(page.locator("#turn-select")).to_have_value("")
        expect(page.locator("#receipt")).to_be_disabled()
        expect(page.locator("#payload-title")).to_have_text("Payload")
        expect(state(page, "Load Memory")).to_have_attribute("data-state", "idle")


def test_the_skip_link_keeps_the_turns_address(page: Page, model: ScriptedModel) -> None:
    model.replace([says("Answered.")])
    choose(page)
    say(page, "hello")
    ended(page)
    address = page.url
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    assert page.url == address


def test_a_look_that_comes_after_the_answer_does_not_cover_it(page: Page, model: ScriptedModel) -> None:
    model.replace([says("Answered.")])
    choose(page)
    model.pause()
    say(page, "slowly")
    expect(page.locator(".exchange .meta")).to_contain_text("Invoke Model")
    late: list[tuple[Route, Any]] = []

    def hold(route: Route) -> None:
        late.append((route, route.fetch(headers={"accept": "*/*"})))

    looks = re.compile("/console/api/turns/[0-9a-f]+$")
    with page.expect_request(looks):
        page.route(looks, hold)
    model.resume()
    expect(page.locator(".answer")).to_have_text("Answered.")
    for route, response in late:
        route.fulfill(response=response)
    page.unroute(looks)
    ended(page)
    assert late
    assert "running" in {response.json()["status"].lower() for _, response in late}
    expect(page.locator(".exchange .meta")).to_contain_text("answered in")


def test_a_reload_brings_the_conversation_back_and_the_running_turn_goes_on(page: Page, model: ScriptedModel) -> None:
    model.replace([says("The first answer.", text="first"), says("The second answer.", text="second")])
    choose(page, actor="user_reload")
    say(page, "the first question")
    ended(page)
    model.pause()
    say(page, "the second question")
    expect(page.locator(".exchange .meta").last).to_contain_text("Invoke Model")
    page.get_by_role("tab", name="Sessions").click()
    session = page.locator("#session").input_value()
    stored = str(page.evaluate("JSON.stringify([{ ...sessionStorage }, { ...localStorage }])"))
    assert session in stored
    assert "question" not in stored
    assert "answer" not in stored

    page.reload()
    expect(page.locator(".asked")).to_have_text(["the first question", "the second question"])
    assert page.locator("#session").input_value() == session
    assert page.locator("#agent").input_value() == TEST_AGENT
    assert page.locator("#actor").input_value() == "user_reload"
    expect(page.get_by_role("tab", name="Sessions")).to_have_attribute("aria-selected", "true")
    expect(page.locator(".said").first).to_have_text("The first answer.")
    expect(page.locator(".answer").last).to_have_attribute("data-status", "running")
    expect(page.locator(".exchange .meta").last).to_contain_text("Invoke Model")
    expect(page.locator("#turn-status")).to_have_text("running")
    model.resume()
    ended(page)
    expect(page.locator(".said")).to_have_text(["The first answer.", "The second answer."])
    expect(page.locator(".exchange .meta").last).to_contain_text("answered in")


def test_a_turn_whose_connection_broke_is_told_to_its_end(page: Page, model: ScriptedModel) -> None:
    model.replace([says("It was answered.", text="begin"), calls(("strict", {"how": "hang"}), text="fail")])

    def cut(route: Route) -> None:
        whole = route.fetch()
        route.fulfill(response=whole, body=whole.body()[:20])

    choose(page)
    page.route("**/text", cut)
    say(page, "begin")
    ended(page)
    expect(page.locator(".answer")).to_have_text("It was answered.")
    say(page, "fail")
    ended(page, "failed")
    expect(page.locator(".answer").last).to_contain_text("ToolFailedTurn")


@pytest.mark.parametrize("reloads", [True, False], ids=["reload", "open page"])
def test_a_stack_that_was_started_anew_has_nothing_and_says_so(
    page: Page, stack: LocalStack, model: ScriptedModel, reloads: bool
) -> None:
    model.replace([says("Answered.")])
    choose(page, actor="user_restart")
    say(page, "hello")
    ended(page)
    session = page.locator("#session").input_value()

    def anew(route: Route) -> None:
        response = route.fetch(headers={"accept": "*/*"})
        route.fulfill(response=response, headers={"etag": '"anew"'}, json={**response.json(), "stack": "another"})

    page.get_by_label("Message", exact=True).fill("a draft")
    page.route("**/api/overview", anew)
    if reloads:
        page.reload()
    expect(page.locator("#log")).to_contain_text("The stack was started anew")
    expect(page.locator("#log")).to_contain_text(session)
    expect(page.locator(".exchange")).to_have_count(0)
    expect(page.locator("#turn-status")).to_have_text("no turn")
    assert set(page.locator("#figures dd").all_inner_texts()) == {"–"}
    assert page.url == stack.console_url
    assert page.locator("#session").input_value() != session
    assert page.locator("#actor").input_value() == "user_restart"
    if not reloads:
        assert page.get_by_label("Message", exact=True).input_value() == "a draft"
    model.replace([says("From the new one.")])
    say(page, "hello again")
    ended(page)
    expect(page.locator(".said")).to_have_text("From the new one.")


def test_a_turn_that_another_caller_has_in_the_session_joins_the_conversation(
    page: Page, model: ScriptedModel, agent_client: Any
) -> None:
    model.replace([says("To the page.", text="page"), says("To boto3.", text="boto3")])
    choose(page, actor="user_joined")
    say(page, "from the page")
    ended(page)
    told = ask(agent_client, "from boto3", page.locator("#session").input_value(), memoryId="user_joined")
    expect(page.locator(".asked")).to_have_text(["from the page", "from boto3"])
    expect(page.locator(".said")).to_have_text(["To the page.", "To boto3."])
    expect(page.locator(f'#turn-select option[value="{told.turn_id}"]')).to_have_count(1)


def test_a_new_session_does_not_wait_for_the_turn_of_the_one_before(page: Page, model: ScriptedModel) -> None:
    model.replace([says("The slow one.", text="slow"), says("The quick one.", text="quick")])
    choose(page, actor="user_impatient")
    model.pause()
    say(page, "slow")
    expect(page.locator(".exchange .meta")).to_contain_text("Invoke Model")
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    slow = page.locator("#session").input_value()
    page.get_by_role("button", name="New").click()
    expect(page.get_by_role("button", name="Send")).to_be_enabled()
    model.resume()
    say(page, "quick")
    ended(page)
    expect(page.locator(".said")).to_have_text("The quick one.")
    page.locator("#session").fill(slow)
    page.locator("#session").press("Tab")
    expect(page.locator(".said")).to_have_text("The slow one.")


def test_the_agents_follow_their_files_and_a_broken_one_is_named(page: Page, stack: LocalStack) -> None:
    folder = stack.options.template.parent / "agents"
    file = folder / "newcomer.json"
    agent = {
        "agentId": "NEWCOMER",
        "agentName": "newcomer",
        "instruction": "You are new here, and follow what your file says.",
        "foundationModels": ["m"],
    }
    option = page.locator('#agent option[value="NEWCOMER"]')
    notice = page.locator("#notice")
    chosen = page.locator("#agent").input_value()
    try:
        file.write_text(json.dumps(agent))
        expect(option).to_have_text("newcomer")
        assert page.locator("#agent").input_value() == chosen
        page.locator("#agent").select_option("NEWCOMER")
        expect(page.locator("#log")).to_contain_text("newcomer, version 1")

        file.write_text(json.dumps({**agent, "limits": {"maxSteps": "many"}}))
        expect(notice).to_contain_text("agents/newcomer.json: /limits/maxSteps: 'many' is not of type 'integer'")
        expect(notice).to_contain_text("the version before stays in force")
        expect(page.locator("#log")).to_contain_text("newcomer, version 1")
        page.reload()
        expect(notice).to_contain_text("/limits/maxSteps")

        file.write_text(json.dumps({**agent, "limits": {"maxSteps": 3}}))
        expect(notice).to_be_hidden()
        expect(page.locator("#log")).to_contain_text("newcomer, version 2")
        expect(page.locator("#model")).to_contain_text("Version 2")
    finally:
        file.unlink()
    expect(option).to_have_text("NEWCOMER (not published any more)")
    assert page.locator("#agent").input_value() == "NEWCOMER"
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    page.locator("#agent").select_option(chosen)
    expect(page.get_by_role("button", name="Send")).to_be_enabled()


def test_a_long_name_does_not_push_the_other_columns_out_of_sight(
    page: Page, model: ScriptedModel, agent_client: Any
) -> None:
    model.replace([says("Answered.")])
    actor = "user_" + "w" * 90
    ask(agent_client, "hello", "session-" + "w" * 90, memoryId=actor)
    choose(page, actor=actor)
    page.get_by_role("tab", name="Sessions").click()
    expect(page.locator("#panel-sessions .link").first).to_contain_text("session-www")
    hidden = page.locator(".table").evaluate_all("all => all.map((table) => table.scrollWidth - table.clientWidth)")
    assert hidden == [0, 0]
    page.get_by_role("tab", name="Memory").click()
    expect(page.locator("#panel-memory")).to_contain_text("Nothing yet")
    assert page.locator("#panel-memory").evaluate("panel => panel.scrollWidth - panel.clientWidth") == 0


LONGEST = ("12 min 05 s", "31", "137", "25", "1,234", "1,234,567", "234,567", "≥ $0.000168")


@pytest.mark.parametrize("width", [1920, 1280, 1279, 900, 899, 500, 499, 360])
def test_no_figure_is_cut_off(page: Page, model: ScriptedModel, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.locator("#tab-turn").click()
    cut = page.evaluate(
        """(longest) => {
          const cells = [...document.querySelectorAll('#figures dd')];
          cells.forEach((cell, at) => { cell.textContent = longest[at]; });
          const cost = document.getElementById('session-cost');
          cost.textContent = 'Seen of this session: 1,234,567 tokens, ≥ $0.000168';
          const texts = [...cells, ...document.querySelectorAll('#figures dt'), cost];
          return texts.filter((cell) => cell.scrollWidth > cell.clientWidth).map((cell) => cell.textContent);
        }""",
        LONGEST,
    )
    assert cut == []
    assert sideways(page) == 0


@pytest.mark.parametrize("width", [1280, 1920, 400])
def test_the_times_stand_at_their_lines(page: Page, model: ScriptedModel, width: int) -> None:
    model.replace([says("Answered.")])
    page.set_viewport_size({"width": width, "height": 800})
    choose(page)
    page.locator("#tab-chat").evaluate("tab => tab.click()")
    say(page, "hello")
    ended(page)
    page.locator("#tab-turn").click()
    track, labels = page.evaluate(
        """() => {
          const sides = (box) => ({ left: box.left, middle: (box.left + box.right) / 2, right: box.right });
          const text = (element) => {
            const range = document.createRange();
            range.selectNodeContents(element);
            return sides(range.getBoundingClientRect());
          };
          const labels = [...document.querySelectorAll('.ticks span')];
          return [sides(document.querySelector('.track').getBoundingClientRect()), labels.map(text)];
        }"""
    )
    assert labels[0]["left"] == pytest.approx(track["left"], abs=1)
    assert labels[2]["middle"] == pytest.approx(track["middle"], abs=1)
    assert labels[4]["right"] == pytest.approx(track["right"], abs=1)


def test_any_state_machine_is_drawn_without_states_that_overlap(page: Page) -> None:
    """A Parallel with a Map in it, a loop over two layers, a state that leads past three others."""
    task: dict[str, Any] = {"Type": "Task", "Resource": "r"}
    items = {"StartAt": "Item", "States": {"Item": {**task, "End": True}}}
    each = {"Type": "Map", "ItemProcessor": items, "End": True}
    branch = {"StartAt": "B1", "States": {"B1": {**task, "Next": "Each"}, "Each": each}}
    definition = {
        "StartAt": "A long name of the first state",
        "States": {
            "A long name of the first state": {
                "Type": "Choice",
                "Choices": [{"Next": "Last"}, {"Next": "C"}],
                "Default": "Both",
            },
            "Both": {
                "Type": "Parallel",
                "Branches": [branch, {"StartAt": "B2", "States": {"B2": {**task, "End": True}}}],
                "Next": "C",
            },
            "C": {**task, "Next": "D", "Catch": [{"Next": "Failed"}]},
            "D": {
                "Type": "Choice",
                "Choices": [{"Next": "A long name of the first state"}, {"Next": "C"}],
                "Default": "Last",
            },
            "Failed": {"Type": "Fail"},
            "Last": {"Type": "Succeed"},
        },
    }
    drawn = page.evaluate(
        """async (definition) => {
          const { graphOf, layout } = await import('/console/state-graph.js');
          return layout(graphOf(definition));
        }""",
        definition,
    )
    nodes = {node["name"]: node for node in drawn["nodes"]}
    assert set(nodes) == {
        "A long name of the first state",
        "Both",
        "B1",
        "Each",
        "Item",
        "B2",
        "C",
        "D",
        "Failed",
        "Last",
    }
    inside = {("Both", "B1"), ("Both", "Each"), ("Both", "Item"), ("Both", "B2"), ("Each", "Item")}
    for outer, inner in inside:
        assert _holds(nodes[outer], nodes[inner]), (outer, inner)
    for one in nodes:
        assert nodes[one]["x"] >= 0
        assert nodes[one]["x"] + nodes[one]["width"] <= drawn["width"]
        assert nodes[one]["y"] + nodes[one]["height"] <= drawn["height"]
        for other in nodes:
            if one < other and not {(one, other), (other, one)} & inside:
                assert not _overlap(nodes[one], nodes[other]), (one, other)
    assert len(drawn["edges"]) == 10


def _holds(outer: dict[str, Any], inner: dict[str, Any]) -> bool:
    return bool(
        outer["x"] <= inner["x"]
        and inner["x"] + inner["width"] <= outer["x"] + outer["width"]
        and outer["y"] <= inner["y"]
        and inner["y"] + inner["height"] <= outer["y"] + outer["height"]
    )


def _overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return bool(
        one["x"] < other["x"] + other["width"]
        and other["x"] < one["x"] + one["width"]
        and one["y"] < other["y"] + other["height"]
        and other["y"] < one["y"] + one["height"]
    )
