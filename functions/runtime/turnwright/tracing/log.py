"""Structured logs: one JSON object a line. Trace events have lines of their own, with nothing but the event's fields.

The other lines (what an invocation read and wrote, what went wrong inside) carry the id of the turn or of the
consolidation and not the session's, so that a query by session finds the chain of events and nothing else.
"""

import json
import logging
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any

from aws_lambda_powertools import Logger

from turnwright.storage.documents import json_text
from turnwright.tracing.payloads import payloads

_LEVELS = {"FAILED": logging.WARNING, "REFUSED": logging.WARNING}


@cache
def logger() -> Logger:
    """The process's logger; POWERTOOLS_SERVICE_NAME and POWERTOOLS_LOG_LEVEL configure it."""
    return Logger(json_serializer=_serialized)


def logger_for(ids: Mapping[str, str], **fields: Any) -> Logger:
    """The logger with these ids (`Turn.log_fields`, say), instead of those of what was done before."""
    log = logger()
    log.structure_logs(append=False, **{**ids, **fields})
    return log


def log_event(event: Mapping[str, Any]) -> None:
    """A trace event as a line: INFO, or WARNING for what failed or was refused."""
    level = _LEVELS.get(event["status"], logging.INFO)
    if level >= logger().log_level:
        line = json_text({"level": logging.getLevelName(level), "message": event["type"], **event})
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def _serialized(record: Mapping[str, Any]) -> str:
    shown = payloads().log_record(record)
    return json.dumps(shown, ensure_ascii=False, separators=(",", ":"), default=str)
