"""AgentCore Memory's events, sessions and actors: the API in front of the table that turns are committed to."""

from typing import Any

from turnwright.api.agentcore.event_operations import Events
from turnwright.api.agentcore.listings import Listings
from turnwright.api.agentcore.routes import resolve, resolver, streamed
from turnwright.api.streaming_runtime import StreamedResponse
from turnwright.storage.documents import documents
from turnwright.storage.settings import settings
from turnwright.storage.table import Table
from turnwright.tracing.handler_errors import with_safe_errors


def _events(store: Table) -> Events:
    return Events(store, documents(), buffered=not settings().streams_responses)


def _listings(store: Table) -> Listings:
    return Listings(store)


app = resolver(
    {
        "CreateEvent": lambda store, fields: _events(store).create(fields),
        "IngestData": lambda store, fields: _events(store).ingest(fields),
        "GetEvent": lambda store, fields: _events(store).get(fields),
        "ListEvents": lambda store, fields: _events(store).page(fields),
        "DeleteEvent": lambda store, fields: _events(store).delete(fields),
        "ListSessions": lambda store, fields: _listings(store).sessions(fields),
        "ListActors": lambda store, fields: _listings(store).actors(fields),
    }
)


@with_safe_errors
def stream_handler(event: dict[str, Any], context: Any) -> StreamedResponse:
    """An API Gateway proxy event -> the response's head, and its body in pieces (see `streaming_runtime.py`)."""
    return streamed(resolve(app, event, context))


@with_safe_errors
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """The same, buffered: for a stack whose parameter StreamResponses is false."""
    return resolve(app, event, context)
