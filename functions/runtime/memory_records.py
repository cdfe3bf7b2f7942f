"""AgentCore Memory's records: read, searched and written by callers."""

from typing import Any

from turnwright.agentcore import data_operations as operations
from turnwright.agentcore.records import MemoryRecords
from turnwright.agentcore.refusals import invalid
from turnwright.agentcore.routes import resolve, resolver
from turnwright.table import table


def _records() -> MemoryRecords:
    return MemoryRecords(table())


def _no_extraction_jobs(_fields: dict[str, Any]) -> dict[str, Any]:
    raise invalid(
        "operation",
        "is not supported: what a session leaves behind is made by executions of the stack's consolidation state "
        "machine; a failed one is in the dead-letter queue and can be redriven",
    )


app = resolver(
    (operations.RETRIEVE_RECORDS, lambda fields: _records().retrieve(fields)),
    (operations.LIST_RECORDS, lambda fields: _records().page(fields)),
    (operations.GET_RECORD, lambda fields: _records().get(fields)),
    (operations.DELETE_RECORD, lambda fields: _records().delete(fields)),
    (operations.BATCH_CREATE, lambda fields: _records().create(fields)),
    (operations.BATCH_UPDATE, lambda fields: _records().update(fields)),
    (operations.BATCH_DELETE, lambda fields: _records().batch_delete(fields)),
    (operations.LIST_EXTRACTION_JOBS, _no_extraction_jobs),
    (operations.START_EXTRACTION_JOB, _no_extraction_jobs),
)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """An API Gateway proxy event -> the proxy response."""
    return resolve(app, event, context)
