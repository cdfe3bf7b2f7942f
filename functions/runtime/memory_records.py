"""AgentCore Memory's records: read, searched and written by callers."""

from typing import Any

from turnwright.api.agentcore.record_operations import MemoryRecords
from turnwright.api.agentcore.refusals import invalid
from turnwright.api.agentcore.routes import resolve, resolver
from turnwright.storage.table import Table
from turnwright.tracing.handler_errors import with_safe_errors


def _records(store: Table) -> MemoryRecords:
    return MemoryRecords(store)


def _no_extraction_jobs(_store: Table, _fields: dict[str, Any]) -> dict[str, Any]:
    raise invalid(
        "operation",
        "is not supported: what a session leaves behind is made by executions of the stack's consolidation state "
        "machine; a failed one is in the dead-letter queue and can be redriven",
    )


app = resolver(
    {
        "RetrieveMemoryRecords": lambda store, fields: _records(store).retrieve(fields),
        "ListMemoryRecords": lambda store, fields: _records(store).page(fields),
        "GetMemoryRecord": lambda store, fields: _records(store).get(fields),
        "DeleteMemoryRecord": lambda store, fields: _records(store).delete(fields),
        "BatchCreateMemoryRecords": lambda store, fields: _records(store).create(fields),
        "BatchUpdateMemoryRecords": lambda store, fields: _records(store).update(fields),
        "BatchDeleteMemoryRecords": lambda store, fields: _records(store).batch_delete(fields),
        "ListMemoryExtractionJobs": _no_extraction_jobs,
        "StartMemoryExtractionJob": _no_extraction_jobs,
    }
)


@with_safe_errors
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """An API Gateway proxy event -> the proxy response."""
    return resolve(app, event, context)
