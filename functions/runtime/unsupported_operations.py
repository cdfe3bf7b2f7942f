"""Whatever no other route serves: refused in the services' own form."""

from typing import Any

from turnwright.api.unsupported_operations import answer
from turnwright.tracing.handler_errors import with_safe_errors


@with_safe_errors
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """An API Gateway proxy event -> the proxy response."""
    return answer(event)
