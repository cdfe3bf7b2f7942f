import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwright.tools import tool_failures
from turnwright.tools.breakers import ANSWERS
from turnwright.tools.tool_failures import (
    CODES,
    NOT_THE_SERVICES_FAULT,
    SERVICE_FAILURES,
    code_of_exception,
    code_of_function_error,
    code_of_lambda_error,
)


def test_the_table_names_every_code_and_whether_it_counts_for_the_breaker() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (tool_failures.__doc__ or "").splitlines()
        if line.startswith("|")
    ]
    counts = {code: counts for _, code, counts in rows[2:] if code != "that code"}

    assert counts.keys() == CODES
    assert {code for code, count in counts.items() if count == "yes"} == SERVICE_FAILURES
    assert not SERVICE_FAILURES & NOT_THE_SERVICES_FAULT
    assert ANSWERS < NOT_THE_SERVICES_FAULT


@pytest.mark.parametrize("code", sorted(CODES))
def test_a_tool_may_raise_any_code_by_its_name(code: str) -> None:
    assert code_of_exception(code) == code
    assert code_of_exception(f"bank.errors.{code}") == code


@pytest.mark.parametrize(
    ("error_type", "code"),
    [
        ("ThrottlingException", "THROTTLING"),
        ("TooManyRequestsException", "THROTTLING"),
        ("ProvisionedThroughputExceededException", "THROTTLING"),
        ("bank.errors.Throttled", "THROTTLING"),
        ("errors.ThrottlingError", "THROTTLING"),
        ("openai.RateLimitError", "THROTTLING"),
        ("RateLimitExceeded", "THROTTLING"),
        ("service_unavailable", "SERVICE_UNAVAILABLE"),
        ("ServiceUnavailableException", "SERVICE_UNAVAILABLE"),
        ("ConnectionError", "SERVICE_UNAVAILABLE"),
        ("ConnectError", "SERVICE_UNAVAILABLE"),
        ("EndpointConnectionError", "SERVICE_UNAVAILABLE"),
        ("java.net.ConnectException", "SERVICE_UNAVAILABLE"),
        ("TimeoutError", "TIMEOUT"),
        ("ReadTimeout", "TIMEOUT"),
        ("ReadTimeoutError", "TIMEOUT"),
        ("requests.exceptions.ConnectTimeout", "TIMEOUT"),
        ("Sandbox.Timedout", "TIMEOUT"),
        ("AccessDeniedException", "ACCESS_DENIED"),
        ("Runtime.ExitError", "TOOL_ERROR"),
        ("Runtime.ImportModuleError", "TOOL_ERROR"),
        ("Function.ResponseSizeTooLarge", "TOOL_ERROR"),
        ("KeyError", "TOOL_ERROR"),
        ("Exception", "TOOL_ERROR"),
        ("Error", "TOOL_ERROR"),
        ("", "TOOL_ERROR"),
        (".", "TOOL_ERROR"),
    ],
)
def test_an_exception_s_name_tells_its_code(error_type: str, code: str) -> None:
    assert code_of_exception(error_type) == code


@pytest.mark.parametrize(
    ("error_type", "message", "code"),
    [
        ("Runtime.OutOfMemory", "signal: killed", "OUT_OF_MEMORY"),
        ("Runtime.ExitError", "RequestId: 1 Error: Runtime exited with error: signal: killed", "OUT_OF_MEMORY"),
        ("Runtime.ExitError", "RequestId: 1 Error: Runtime exited with error: exit status 1", "TOOL_CRASHED"),
        ("Extension.Crash", "exit status 2", "TOOL_CRASHED"),
        ("Function.ResponseSizeTooLarge", "exceeded maximum allowed payload size", "RESPONSE_TOO_LARGE"),
        ("Sandbox.Timedout", "RequestId: 1 Error: Task timed out after 3.00 seconds", "TIMEOUT"),
        ("", "2026-11-22T10:40:05Z 1 Task timed out after 3.00 seconds", "TIMEOUT"),
        ("MyError", "Task timed out after 3.00 seconds", "TOOL_ERROR"),
        ("Runtime.ImportModuleError", "no module", "TOOL_ERROR"),
        ("Runtime.MarshalError", "not JSON serializable", "INVALID_RESPONSE"),
        ("bank.errors.Throttled", "slow down", "THROTTLING"),
        ("", "", "TOOL_ERROR"),
    ],
)
def test_an_error_of_a_function_has_its_code(error_type: str, message: str, code: str) -> None:
    assert code_of_function_error(error_type, message) == code


@given(st.text(), st.text())
def test_any_error_of_a_function_has_a_code_of_the_table(error_type: str, message: str) -> None:
    assert code_of_function_error(error_type, message) in CODES


@given(st.text())
def test_any_name_has_a_code_of_the_table(error_type: str) -> None:
    assert code_of_exception(error_type) in CODES


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("TooManyRequestsException", 429, "THROTTLING"),
        ("ThrottlingException", 400, "THROTTLING"),
        ("SomethingNew", 429, "THROTTLING"),
        ("ServiceException", 500, "SERVICE_UNAVAILABLE"),
        ("EC2ThrottledException", 502, "SERVICE_UNAVAILABLE"),
        ("SomethingNew", 503, "SERVICE_UNAVAILABLE"),
        ("ResourceNotFoundException", 404, "NOT_FOUND"),
        ("AccessDeniedException", 403, "ACCESS_DENIED"),
        ("RequestTooLargeException", 413, "INVALID_ARGUMENTS"),
        ("InvalidRequestContentException", 400, "TOOL_ERROR"),
    ],
)
def test_an_error_of_lambda_s_api_has_its_code(code: str, status: int, expected: str) -> None:
    assert code_of_lambda_error(code, status) == expected
