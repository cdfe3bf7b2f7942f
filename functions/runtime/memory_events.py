"""AgentCore Memory's events, sessions and actors: the API in front of the table that turns are committed to."""

from typing import Any

from turnwright.agentcore import data_operations as operations
from turnwright.agentcore.events import Events
from turnwright.agentcore.listings import Listings
from turnwright.agentcore.routes import resolve, resolver
from turnwright.documents import documents
from turnwright.table import table


def _events() -> Events:
    return Events(table(), documents())


def _listings() -> Listings:
    return Listings(table())


app = resolver(
    (operations.CREATE_EVENT, lambda fields: _events().create(fields)),
    (operations.GET_EVENT, lambda fields: _events().get(fields)),
    (operations.LIST_EVENTS, lambda fields: _events().page(fields)),
    (operations.DELETE_EVENT, lambda fields: _events().delete(fields)),
    (operations.LIST_SESSIONS, lambda fields: _listings().sessions(fields)),
    (operations.LIST_ACTORS, lambda fields: _listings().actors(fields)),
)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """An API Gateway proxy event -> the proxy response."""
    return resolve(app, event, context)
