import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from tests.paths import RUNTIME
from tests.unit.samples import api_group
from turnwright.agents import versions
from turnwright.agents.definitions import Definition, parse
from turnwright.agents.versions import Change, Publication, load, publish, resolve
from turnwright.errors import AgentNotFound, AliasNotFound, CommitConflict
from turnwright.storage import keys
from turnwright.storage.table import Put, Table, Write


def document(agent_id: str, instruction: str = "Say hello.") -> dict[str, Any]:
    return {
        "agentId": agent_id,
        "agentName": "greeter",
        "instruction": instruction,
        "foundationModels": ["model-1"],
        "inferenceConfiguration": {"temperature": 0.1},
    }


def definition(agent_id: str = "A", instruction: str = "Say hello.") -> Definition:
    return Definition.of(document(agent_id, instruction))


def items(table: Table, partition: str) -> dict[str, dict[str, Any]]:
    """The items of a partition by sort key, without keys and schema version."""
    hidden = {"PK", "SK", "schemaVersion"}
    return {
        item["SK"]: {name: value for name, value in item.items() if name not in hidden}
        for item in table.query(partition, " ", "~")
    }


class InterruptedTable(Table):
    """A table on which something happens before, or instead of the answer of, a transaction."""

    def __init__(self, table: Table) -> None:
        super().__init__(table._client, table.name)
        self.before: list[Callable[[], object]] = []
        self.after: list[Callable[[], object]] = []

    def transact(self, writes: Sequence[Write]) -> None:
        if self.before:
            self.before.pop(0)()
        super().transact(writes)
        if self.after:
            self.after.pop(0)()


def die() -> None:
    raise EndpointConnectionError(endpoint_url="https://dynamodb")


def test_a_first_publication_makes_version_one(table: Table) -> None:
    first = definition()

    assert publish(table, [first]) == [Publication("A", "1", Change.PUBLISHED)]
    assert items(table, "AGENT#A") == {
        "ALIAS#live": {"version": 1},
        "DRAFT": {"version": 1, "digest": first.digest},
        "VERSION#1": {"definition": first.text, "digest": first.digest},
    }
    assert items(table, keys.AGENT_LISTING) == {"AGENT#A": {"agentId": "A", "version": 1}}


def test_publishing_the_same_again_changes_nothing(table: Table) -> None:
    publish(table, [definition()])
    before = items(table, "AGENT#A")

    assert publish(table, [definition()]) == [Publication("A", "1", Change.UNCHANGED)]
    assert items(table, "AGENT#A") == before


def test_a_changed_definition_is_the_next_version_and_the_old_one_stays_as_it_was(table: Table) -> None:
    first, second = definition(), definition(instruction="Say goodbye.")
    publish(table, [first])

    assert publish(table, [second]) == [Publication("A", "2", Change.PUBLISHED)]
    assert items(table, "AGENT#A") == {
        "ALIAS#live": {"version": 2},
        "DRAFT": {"version": 2, "digest": second.digest},
        "VERSION#1": {"definition": first.text, "digest": first.digest},
        "VERSION#2": {"definition": second.text, "digest": second.digest},
    }


def test_going_back_to_an_earlier_definition_is_a_version_too(table: Table) -> None:
    for instruction in ("one", "two", "one"):
        publish(table, [definition(instruction=instruction)])

    assert resolve(table, "A", "live") == "3"
    assert load(table, "A", "3").instruction == "one"


def test_each_agent_has_versions_of_its_own(table: Table) -> None:
    publish(table, [definition("A"), definition("B")])

    assert publish(table, [definition("A"), definition("B", "other")]) == [
        Publication("A", "1", Change.UNCHANGED),
        Publication("B", "2", Change.PUBLISHED),
    ]


def test_an_agent_whose_file_is_gone_is_removed_but_its_versions_stay(table: Table) -> None:
    gone = definition("B")
    publish(table, [definition("A"), gone])

    assert publish(table, [definition("A")]) == [
        Publication("A", "1", Change.UNCHANGED),
        Publication("B", "1", Change.REMOVED),
    ]
    assert items(table, "AGENT#B") == {"VERSION#1": {"definition": gone.text, "digest": gone.digest}}
    assert publish(table, [definition("A")]) == [Publication("A", "1", Change.UNCHANGED)]


def test_an_agent_that_comes_back_goes_on_counting(table: Table) -> None:
    for number in range(11):
        publish(table, [definition("A"), definition("B", str(number))])
    publish(table, [definition("A")])

    assert publish(table, [definition("A"), definition("B", "10")]) == [
        Publication("A", "1", Change.UNCHANGED),
        Publication("B", "12", Change.PUBLISHED),
    ]


@pytest.mark.parametrize("newest", [9, 10, 99, 12_345])
def test_the_versions_of_an_agent_that_comes_back_are_counted_as_numbers(table: Table, newest: int) -> None:
    for version in (1, 2, newest):
        table.put(Put(keys.agent_version("A", str(version)), {"definition": "{}", "digest": "-"}))

    assert publish(table, [definition()]) == [Publication("A", str(newest + 1), Change.PUBLISHED)]


@pytest.mark.parametrize("agent_id", ["_x", "-x", "zzz", "0", "EXISTING_AGENT_ID"])
def test_every_agent_id_is_listed(table: Table, agent_id: str) -> None:
    publish(table, [definition("A"), definition(agent_id)])

    assert publish(table, [definition("A")])[1:] == [Publication(agent_id, "1", Change.REMOVED)]


def test_of_two_publishers_at_once_the_later_one_builds_on_the_earlier(table: Table) -> None:
    publish(table, [definition(instruction="one")])
    slow = InterruptedTable(table)
    slow.before = [lambda: publish(table, [definition(instruction="fast")])]

    assert publish(slow, [definition(instruction="slow")]) == [Publication("A", "3", Change.PUBLISHED)]
    instructions = [load(table, "A", version).instruction for version in ("1", "2", "3")]
    assert instructions == ["one", "fast", "slow"]
    assert resolve(table, "A", "live") == resolve(table, "A", "TSTALIASID") == "3"


def test_two_publishers_of_the_same_first_version_make_one(table: Table) -> None:
    slow = InterruptedTable(table)
    slow.before = [lambda: publish(table, [definition()])]

    assert publish(slow, [definition()]) == [Publication("A", "1", Change.UNCHANGED)]
    assert list(items(table, "AGENT#A")) == ["ALIAS#live", "DRAFT", "VERSION#1"]


def test_an_agent_that_is_removed_while_it_is_published_is_published(table: Table) -> None:
    publish(table, [definition("A"), definition("B", "one")])
    slow = InterruptedTable(table)
    # The first transaction is B's, since A is unchanged.
    slow.before = [lambda: publish(table, [definition("A")])]

    assert publish(slow, [definition("A"), definition("B", "two")])[1] == Publication("B", "2", Change.PUBLISHED)
    assert resolve(table, "B", "live") == "2"


def test_a_publisher_that_dies_before_its_transaction_leaves_nothing(table: Table) -> None:
    dying = InterruptedTable(table)
    dying.before = [die]

    with pytest.raises(EndpointConnectionError):
        publish(dying, [definition()])

    assert items(table, "AGENT#A") == items(table, keys.AGENT_LISTING) == {}


def test_a_publisher_that_dies_after_its_transaction_is_repeated_without_harm(table: Table) -> None:
    dying = InterruptedTable(table)
    dying.after = [die]

    with pytest.raises(EndpointConnectionError):
        publish(dying, [definition()])

    assert publish(table, [definition()]) == [Publication("A", "1", Change.UNCHANGED)]
    assert resolve(table, "A", "live") == "1"


def test_a_publisher_that_dies_between_two_agents_is_completed_by_the_repeat(table: Table) -> None:
    dying = InterruptedTable(table)
    dying.after = [die]

    with pytest.raises(EndpointConnectionError):
        publish(dying, [definition("A"), definition("B")])

    assert publish(table, [definition("A"), definition("B")]) == [
        Publication("A", "1", Change.UNCHANGED),
        Publication("B", "1", Change.PUBLISHED),
    ]


def test_a_publisher_that_never_gets_through_says_so(table: Table) -> None:
    busy = InterruptedTable(table)

    def conflict() -> None:
        raise CommitConflict("another transaction is writing these items")

    busy.before = [conflict] * 10
    with pytest.raises(CommitConflict, match="keep changing agent 'A'"):
        publish(busy, [definition()])

    assert publish(busy, [definition()]) == [Publication("A", "1", Change.PUBLISHED)]
    busy.before = [conflict] * 10
    with pytest.raises(CommitConflict, match="keep changing agent 'A'"):
        publish(busy, [])


def test_an_alias_names_a_version(table: Table) -> None:
    publish(table, [definition()])

    assert (resolve(table, "A", "live"), resolve(table, "A", "TSTALIASID")) == ("1", "1")


@pytest.mark.parametrize("alias_id", ["live", "TSTALIASID", "other"])
def test_an_agent_that_is_not_there_is_named(table: Table, alias_id: str) -> None:
    with pytest.raises(AgentNotFound, match=r"^There is no agent 'NOBODY'\.$"):
        resolve(table, "NOBODY", alias_id)


def test_an_agent_that_was_removed_is_not_there(table: Table) -> None:
    publish(table, [definition("A"), definition("B")])
    publish(table, [definition("A")])

    with pytest.raises(AgentNotFound, match="'B'"):
        resolve(table, "B", "live")


def test_an_alias_that_is_not_there_is_named_with_those_that_are(table: Table) -> None:
    publish(table, [definition()])

    with pytest.raises(AliasNotFound, match="Agent 'A' has no alias 'prod'; 'live' and 'TSTALIASID' are there"):
        resolve(table, "A", "prod")


def test_a_version_is_loaded_as_it_was_published_and_read_once(table: Table) -> None:
    publish(table, [definition()])

    agent = load(table, "A", "1")

    assert agent == parse(json.loads(definition().text), "1")
    assert agent.inference.temperature == 0.1
    table._client.delete_table(TableName=table.name)
    assert load(table, "A", "1") is agent


LOAD = """
import json, sys
from types import SimpleNamespace

sys.modules["turnwright.agents.openapi"] = None  # to import it is an ImportError
sys.path.insert(0, sys.argv[1])

from turnwright.agents.versions import load

(tool,) = load(SimpleNamespace(name="table", get=lambda key: json.load(sys.stdin)), "A", "1").tools
print(json.dumps([tool.name, tool.operation.path, tool.input_schema["required"]]))
"""


def test_a_version_with_an_api_is_loaded_without_reading_openapi(table: Table) -> None:
    claim = {"operationId": "get_claim", "parameters": [{"name": "id", "in": "path", "schema": {"type": "integer"}}]}
    group = api_group({"openapi": "3.1.0", "paths": {"/claims/{id}": {"get": claim}}})
    publish(table, [Definition.of({**document("A"), "actionGroups": [group]})])
    stored = json.dumps(items(table, "AGENT#A")["VERSION#1"])

    ran = subprocess.run([sys.executable, "-c", LOAD, RUNTIME], input=stored, capture_output=True, text=True)

    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == ["get_claim", "/claims/{id}", ["id"]]


def test_a_version_that_is_not_there_is_named(table: Table) -> None:
    publish(table, [definition()])

    with pytest.raises(AgentNotFound, match="Agent 'A' has no version '2'"):
        load(table, "A", "2")


def test_a_process_keeps_a_bounded_number_of_agents(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "_agents", {})
    monkeypatch.setattr(versions, "_MOST_AGENTS_KEPT", 2)
    publish(table, [definition(name) for name in "ABC"])

    for name in "ABC":
        load(table, name, "1")

    assert [agent.agent_id for agent in versions._agents.values()] == ["B", "C"]
