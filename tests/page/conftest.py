"""A browser, and the console page in it, of the stack that all tests share."""

import os
import shutil
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Dialog, Page, expect, sync_playwright

from local.stack import LocalStack
from tests.waiting import patient

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
MISSING = "the page's tests need Chromium: apt-get install chromium"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium. Where it is not installed the tests are skipped, but in CI they fail."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        if os.environ.get("CI"):
            pytest.fail(MISSING, pytrace=False)
        pytest.skip(MISSING)
    with sync_playwright() as playwright:
        # with scroll bars, as a person's browser has them
        launched = playwright.chromium.launch(executable_path=path, ignore_default_args=["--hide-scrollbars"])
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Browser, stack: LocalStack) -> Iterator[Page]:
    """The console, ready. It must never ask another origin for anything, nor have an error of its own."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="light")
    opened = context.new_page()
    bound_ms = 1000 * patient(20)
    opened.set_default_timeout(bound_ms)
    expect.set_options(timeout=bound_ms)
    asked: list[str] = []
    errors: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("dialog", lambda dialog: _refuse(dialog, errors))
    opened.on("console", lambda message: errors.extend([message.text] if "Security Policy" in message.text else []))
    opened.goto(stack.console_url)
    opened.wait_for_selector("body[data-ready]")
    yield opened
    context.close()
    assert {urlsplit(url).netloc for url in asked} == {urlsplit(stack.url).netloc}
    assert errors == []


def _refuse(dialog: Dialog, errors: list[str]) -> None:
    errors.append(f"dialog: {dialog.message}")
    dialog.dismiss()
