"""The published versions of agents, in the table.

| SK | item |
| --- | --- |
| `DRAFT` | `version` and `digest` of the newest version |
| `VERSION#<n>` | `definition`, the JSON text, and its `digest`; written once |
| `ALIAS#<aliasId>` | `version` |

Besides, each published agent has an item in the listing (`keys.AGENT_LISTING`), so that a publisher knows
which agents are published without being told what was published before. Everything about one agent changes in
one transaction on the condition that the draft is what was read, so a publisher that is killed leaves nothing
half, and of two at once one goes first.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from turnwright.agents.definitions import Agent, Definition, parse
from turnwright.errors import AgentNotFound, AliasNotFound, CommitConflict
from turnwright.storage import keys
from turnwright.storage.table import Delete, Item, Put, Table, TransactionRefused, Update, Write

LIVE_ALIAS = "live"
DRAFT_ALIAS = "TSTALIASID"
"""Bedrock's test alias: always the draft."""

_MOST_TRIES = 10
_MOST_AGENTS_KEPT = 100


class Change(StrEnum):
    """What publishing did to an agent."""

    PUBLISHED = "published"
    UNCHANGED = "unchanged"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Publication:
    """What became of one agent. `version` is the one that `live` now names, or named until the removal."""

    agent_id: str
    version: str
    change: Change


def publish(table: Table, definitions: Sequence[Definition]) -> list[Publication]:
    """Makes `definitions` the published agents. A published agent that is not among them is removed.

    A definition that differs from its draft becomes the next version, which `live` and the draft then name. A
    removed agent loses its draft and `live`; its versions stay, since running turns use them. Doing the same
    again changes nothing. Raises CommitConflict if other publishers were faster ten times in a row.
    """
    publications = [_publish_one(table, definition) for definition in definitions]
    kept = {definition.agent_id for definition in definitions}
    removed = [_remove(table, item) for item in listed(table) if item["agentId"] not in kept]
    return publications + removed


def resolve(table: Table, agent_id: str, alias_id: str) -> str:
    """The version that an alias names. Raises AgentNotFound or AliasNotFound, which name what is missing."""
    is_draft = alias_id == DRAFT_ALIAS
    item = table.get(keys.agent_draft(agent_id) if is_draft else keys.agent_alias(agent_id, alias_id))
    if item is not None:
        return str(item["version"])
    if is_draft or table.get(keys.agent_draft(agent_id)) is None:
        raise AgentNotFound(f"There is no agent '{agent_id}'.")
    raise AliasNotFound(f"Agent '{agent_id}' has no alias '{alias_id}'; '{LIVE_ALIAS}' and '{DRAFT_ALIAS}' are there.")


def load(table: Table, agent_id: str, version: str) -> Agent:
    """A version of an agent. A version never changes, so a process reads it once. Raises AgentNotFound."""
    place = (table.name, agent_id, version)
    agent = _agents.get(place)
    if agent is None:
        item = table.get(keys.agent_version(agent_id, version))
        if item is None:
            raise AgentNotFound(f"Agent '{agent_id}' has no version '{version}'.")
        agent = parse(json.loads(item["definition"]), version)
        if len(_agents) >= _MOST_AGENTS_KEPT:
            _agents.pop(next(iter(_agents)))
        _agents[place] = agent
    return agent


def newest(table: Table, agent_id: str, most: int) -> list[str]:
    """The agent's last versions, the newest first."""
    prefix = keys.agent_version(agent_id, "").sk
    partition = keys.agent_draft(agent_id).pk
    numbers = [int(key.sk.removeprefix(prefix)) for key in table.keys(partition) if key.sk.startswith(prefix)]
    return [str(number) for number in sorted(numbers, reverse=True)[:most]]


_agents: dict[tuple[str, str, str], Agent] = {}


def _publish_one(table: Table, definition: Definition) -> Publication:
    agent_id = definition.agent_id
    for _ in range(_MOST_TRIES):
        draft = table.get(keys.agent_draft(agent_id))
        if draft is not None and draft["digest"] == definition.digest:
            return Publication(agent_id, str(draft["version"]), Change.UNCHANGED)
        version = 1 + (_newest_version(table, agent_id) if draft is None else draft["version"])
        try:
            table.transact(_publication(definition, version, draft))
        except (TransactionRefused, CommitConflict):
            continue  # Another publisher was faster: look at what it published.
        return Publication(agent_id, str(version), Change.PUBLISHED)
    raise CommitConflict(f"other publishers keep changing agent '{agent_id}'; publish again when they have ended")


def _publication(definition: Definition, version: int, draft: Item | None) -> list[Write]:
    agent_id, digest = definition.agent_id, definition.digest
    new_version: Item = {"definition": definition.text, "digest": digest}
    return [
        Put(keys.agent_version(agent_id, str(version)), new_version, only_if_absent=True),
        Put(keys.agent_draft(agent_id), {"version": version, "digest": digest}, only_if_absent=True)
        if draft is None
        else Update(
            keys.agent_draft(agent_id),
            "SET version = :version, digest = :digest",
            condition="version = :old",
            values={":version": version, ":digest": digest, ":old": draft["version"]},
        ),
        Put(keys.agent_alias(agent_id, LIVE_ALIAS), {"version": version}),
        Put(keys.listed_agent(agent_id), {"agentId": agent_id, "version": version}),
    ]


def _newest_version(table: Table, agent_id: str) -> int:
    """The highest version of an agent that has no draft, 0 if it has none.

    This reads every version; an agent that was removed comes back rarely.
    """
    first, last = keys.agent_version(agent_id, "0"), keys.agent_version(agent_id, "9" * 10)
    items = table.query(first.pk, first.sk, last.sk)
    return max((int(item["SK"].removeprefix("VERSION#")) for item in items), default=0)


def _remove(table: Table, listed: Item) -> Publication:
    agent_id = listed["agentId"]
    removal = [
        Delete(keys.agent_draft(agent_id)),
        Delete(keys.agent_alias(agent_id, LIVE_ALIAS)),
        Delete(keys.listed_agent(agent_id)),
    ]
    for _ in range(_MOST_TRIES):
        try:
            table.transact(removal)
        except CommitConflict:
            continue
        return Publication(agent_id, str(listed["version"]), Change.REMOVED)
    raise CommitConflict(f"other publishers keep changing agent '{agent_id}'; publish again when they have ended")


def listed(table: Table) -> Iterator[Item]:
    """`{"agentId", "version"}` of each published agent, by their ids."""
    # An agent id sorts before "~" whatever its first character.
    return table.query(keys.AGENT_LISTING, keys.listed_agent("").sk, keys.listed_agent("~").sk)
