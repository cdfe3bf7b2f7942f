"""Bedrock's memory API: GetAgentMemory and DeleteAgentMemory of `bedrock-agent-runtime`.

Source of the shapes and limits: `GetAgentMemoryRequest` and `DeleteAgentMemoryRequest` in botocore's service model. As
for InvokeAgent, botocore checks neither patterns nor most lengths, so every rule is checked here.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from turnwright.agents.versions import load, resolve
from turnwright.api.bedrock.requests import agent_path, caller_name
from turnwright.errors import InvalidRequest
from turnwright.memory.erasure.erase_memory import erase_session
from turnwright.memory.erasure.erasures import Erasures
from turnwright.memory.records.actors import Actors
from turnwright.memory.records.session_summaries import SessionSummaries, SessionSummary
from turnwright.storage.clock import iso8601
from turnwright.storage.documents import Documents
from turnwright.storage.keys import SessionId
from turnwright.storage.table import Table

MEMORY_TYPE = "SESSION_SUMMARY"
MOST_ITEMS = 1_000
TOKEN_CHARACTERS = 2_048

_GET_FIELDS = ("memoryId", "memoryType", "maxItems", "nextToken")
_DELETE_FIELDS = ("memoryId", "sessionId")


def get_agent_memory(table: Table, agent_id: str, alias_id: str, query: Mapping[str, str]) -> dict[str, Any]:
    """The session summaries of a memoryId, newest first, as GetAgentMemoryResponse.

    While the memory is being erased there is nothing of it. Raises InvalidRequest, AgentNotFound or AliasNotFound.
    """
    _refuse_others(query, _GET_FIELDS)
    actor = _memory_id(query)
    if query.get("memoryType") != MEMORY_TYPE:
        raise InvalidRequest("memoryType", f"is required and can only be {MEMORY_TYPE}")
    limit, after = _max_items(query.get("maxItems")), _after(query.get("nextToken"))
    store = _store(table, agent_id, alias_id)
    owner = Actors(table).read(store, actor)
    if owner is not None and owner.erasing:
        return {"memoryContents": []}
    page = SessionSummaries(table).page(store, actor, limit, after)
    answer: dict[str, Any] = {"memoryContents": [{"sessionSummary": _wire(summary)} for summary in page.summaries]}
    if page.after is not None:
        answer["nextToken"] = base64.urlsafe_b64encode(page.after.encode()).decode()
    return answer


def delete_agent_memory(
    table: Table, documents: Documents, erasures: Erasures, agent_id: str, alias_id: str, query: Mapping[str, str]
) -> None:
    """Erases all of a memoryId, which goes on after the answer; or, at once, the session that is named.

    Raises InvalidRequest, AgentNotFound or AliasNotFound, and SessionBusy while a turn runs in the session.
    """
    _refuse_others(query, _DELETE_FIELDS)
    actor = _memory_id(query)
    session = None if "sessionId" not in query else caller_name("sessionId", query["sessionId"])
    store = _store(table, agent_id, alias_id)
    if session is None:
        erasures.start(store, actor)
    else:
        erase_session(table, documents, SessionId(store, actor, session))


def _store(table: Table, agent_id: str, alias_id: str) -> str:
    agent, alias = agent_path({"agentId": agent_id, "agentAliasId": alias_id})
    return load(table, agent, resolve(table, agent, alias)).memory_store


def _wire(summary: SessionSummary) -> dict[str, str]:
    wire = {
        "memoryId": summary.actor,
        "sessionId": summary.session_id,
        "sessionStartTime": iso8601(summary.session_started_at),
        "summaryText": summary.text,
    }
    if summary.expires_at is not None:
        wire["sessionExpiryTime"] = iso8601(summary.expires_at * 1000)
    return wire


def _refuse_others(query: Mapping[str, str], known: tuple[str, ...]) -> None:
    for name in query:
        if name not in known:
            raise InvalidRequest(name, f"is not a field of this request; {', '.join(known)} are")


def _memory_id(query: Mapping[str, str]) -> str:
    if "memoryId" not in query:
        raise InvalidRequest("memoryId", "is required")
    return caller_name("memoryId", query["memoryId"])


def _max_items(text: str | None) -> int:
    if text is None:
        return MOST_ITEMS
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= 4 else 0
    if not 1 <= number <= MOST_ITEMS:
        raise InvalidRequest("maxItems", f"must be a whole number from 1 to {MOST_ITEMS}")
    return number


def _after(token: str | None) -> str | None:
    if token is None:
        return None
    if len(token) > TOKEN_CHARACTERS:
        raise InvalidRequest("nextToken", f"has more than {TOKEN_CHARACTERS} characters")
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest("nextToken", "is not one that an earlier answer gave") from error
