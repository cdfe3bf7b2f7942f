import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.paths import RUNTIME
from turnwright.deadline import interrupted, within

LONG = 60
"""Seconds that no test waits for."""


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """What an abandoned call waits for: it is set when the test is over."""
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.parametrize("result", ["text", None, 0, (), TimeoutError("not raised")])
def test_a_result_that_comes_in_time_passes_through(result: object) -> None:
    assert within(LONG, lambda: result) is result


@pytest.mark.parametrize("error", [KeyError("a"), TimeoutError("its own"), SystemExit(3), KeyboardInterrupt()])
def test_an_exception_passes_through_as_it_is(error: BaseException) -> None:
    def work() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        within(LONG, work)

    assert raised.value is error


def test_what_takes_too_long_is_abandoned(released: threading.Event) -> None:
    with pytest.raises(TimeoutError, match=r"^not within 0\.02 s$"):
        within(0.02, lambda: released.wait(LONG))


def test_what_was_abandoned_goes_on_and_its_late_end_matters_to_nobody(released: threading.Event) -> None:
    ended = threading.Event()

    def work() -> None:
        released.wait(LONG)
        ended.set()
        raise ValueError("late")

    with pytest.raises(TimeoutError):
        within(0.02, work)
    released.set()

    assert ended.wait(LONG)
    assert within(LONG, lambda: "next") == "next"


def test_calls_at_the_same_time_do_not_mix_their_results(released: threading.Event) -> None:
    results: dict[int, int] = {}
    calls = [
        threading.Thread(target=lambda n=number: results.update({n: within(LONG, lambda: (released.wait(LONG), n)[1])}))
        for number in range(8)
    ]
    for call in calls:
        call.start()
    released.set()
    for call in calls:
        call.join(LONG)

    assert results == {number: number for number in range(8)}


def test_an_abandoned_call_does_not_keep_the_process_alive() -> None:
    program = (
        "import time\n"
        "from turnwright.deadline import interrupted, within\n"
        "try:\n"
        f"    within(0.05, lambda: time.sleep({LONG}))\n"
        "except TimeoutError:\n"
        "    print('left')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=RUNTIME, capture_output=True, text=True, timeout=LONG / 2
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "left\n", "")


@pytest.mark.parametrize("work", [lambda: re.search("(a|a)*c", "a" * 40), lambda: [0 for _ in iter(int, 1)]])
def test_what_computes_for_too_long_is_interrupted_and_the_clock_is_given_back(work: Callable[[], object]) -> None:
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(TimeoutError, match=r"not within 0\.05 s"):
        interrupted(0.05, work)
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_work_that_swallows_its_interruption_is_interrupted_again() -> None:
    def work() -> None:
        try:
            time.sleep(LONG)
        except TimeoutError:
            time.sleep(LONG)

    with pytest.raises(TimeoutError):
        interrupted(0.05, work)


def test_what_computes_in_time_passes_its_result_or_error_through() -> None:
    assert interrupted(LONG, lambda: 5) == 5
    with pytest.raises(KeyError):
        interrupted(LONG, lambda: {"a": 1}["b"])
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_no_other_thread_than_the_main_one_can_be_interrupted() -> None:
    def work() -> object:
        return interrupted(LONG, lambda: pytest.fail("it runs without a clock"))

    with pytest.raises(ValueError, match="main thread"):
        within(LONG, work)
