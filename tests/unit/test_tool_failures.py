import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwright.tool_failures import CODES, code_of_exception, code_of_lambda_error


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
