import dataclasses
import json
from typing import Any

import pytest

from tests.paths import ROOT
from turnwright.agents.agent_files import api_schema
from turnwright.agents.definitions import (
    Agent,
    Body,
    Definition,
    HistoryWindow,
    Inference,
    Limits,
    Parameter,
    Tool,
    parse,
)
from turnwright.agents.memory_configuration import Injection, MemoryConfiguration, MergeRule, Namespace
from turnwright.agents.memory_defaults import DEFAULT_IDLE_SECONDS, DEFAULT_STORAGE_DAYS
from turnwright.agents.retry_policy import Backoff, CircuitBreaker, Jitter, OnTimeout, ToolPolicy, tool_policy
from turnwright.errors import UnknownSchemaVersion

SCHEMA = ROOT / "agents" / "agent.schema.json"
ARN = "arn:aws:lambda:us-east-1:123456789012:function:weather"
MINIMAL = {
    "agentId": "A1",
    "agentName": "first",
    "instruction": "Answer questions about the weather in a friendly way.",
    "foundationModels": ["model-1"],
}


def group(functions: list[dict[str, Any]], **fields: object) -> dict[str, Any]:
    return {
        "actionGroupName": "Weather",
        "actionGroupExecutor": {"lambda": ARN},
        "functionSchema": {"functions": functions},
        **fields,
    }


def test_a_minimal_definition_has_the_documented_defaults() -> None:
    assert parse(MINIMAL, "1") == Agent(
        agent_id="A1",
        version="1",
        name="first",
        instruction="Answer questions about the weather in a friendly way.",
        models=("model-1",),
        inference=Inference(temperature=None, top_p=None, max_tokens=None, stop_sequences=None),
        tools=(),
        limits=Limits(max_steps=10, max_parallel_tools=4, model_timeout_seconds=60),
        history=HistoryWindow(max_turns=20, max_characters=60_000),
        memory=MemoryConfiguration("A1-turnwright", models=("model-1",)),
    )


def test_every_field_of_a_full_definition_is_read() -> None:
    forecast = {
        "name": "forecast",
        "description": "The weather of a day.",
        "parameters": {
            "city": {"type": "string", "description": "A city.", "required": True},
            "days": {"type": "array"},
        },
    }
    definition = {
        **MINIMAL,
        "foundationModels": ["model-1", "model-2"],
        "inferenceConfiguration": {
            "temperature": 0,
            "topP": 0.5,
            "maximumLength": 100,
            "stopSequences": ["END"],
        },
        "actionGroups": [
            group([forecast], actionGroupExecutionConfig={"timeoutSeconds": 9, "retryPolicy": {"maxAttempts": 1}})
        ],
        "actionGroupExecutionConfig": {
            "retryPolicy": {"maxAttempts": 2, "backoffStrategy": "FIXED"},
            "timeoutConfig": {"onTimeoutBehavior": "FAIL_TURN"},
        },
        "limits": {"maxSteps": 3, "maxParallelTools": 8, "modelTimeoutSeconds": 20},
        "memoryConfiguration": {"storageDays": 7, "history": {"maxTurns": 5, "maxCharacters": 2000}},
    }

    assert parse(definition, "12") == Agent(
        agent_id="A1",
        version="12",
        name="first",
        instruction="Answer questions about the weather in a friendly way.",
        models=("model-1", "model-2"),
        inference=Inference(temperature=0, top_p=0.5, max_tokens=100, stop_sequences=("END",)),
        tools=(
            Tool(
                name="forecast",
                description="The weather of a day.",
                action_group="Weather",
                function_arn=ARN,
                input_schema={
                    "type": "object",
                    "properties": {
                        "city": {"type": "string", "description": "A city."},
                        "days": {"type": "array", "items": {}},
                    },
                    "required": ["city"],
                    "additionalProperties": False,
                },
                parameters=(Parameter("city", "string", True), Parameter("days", "array", False)),
                policy=ToolPolicy(
                    max_attempts=1, backoff=Backoff.FIXED, timeout_seconds=9, on_timeout=OnTimeout.FAIL_TURN
                ),
            ),
        ),
        limits=Limits(max_steps=3, max_parallel_tools=8, model_timeout_seconds=20),
        history=HistoryWindow(max_turns=5, max_characters=2000),
        memory=MemoryConfiguration("A1-turnwright", storage_days=7, models=("model-1", "model-2")),
    )


def test_a_namespace_has_the_documented_defaults() -> None:
    agent = parse({**MINIMAL, "memoryConfiguration": {"storageDays": 9, "namespaces": [{"name": "user_facts"}]}}, "1")

    (namespace,) = agent.memory.namespaces
    assert namespace == Namespace(
        name="user_facts",
        template="/user_facts/{actorId}/",
        description="user facts",
        merge_rule=MergeRule.REPLACE,
        extraction_prompt=namespace.extraction_prompt,
        ttl_days=9,
        max_records=200,
        readers=frozenset({"*"}),
        writers=frozenset({"A1"}),
        inject=Injection(top_k=10, relevance=False),
    )
    assert '"user_facts": user facts' in namespace.extraction_prompt
    assert (agent.memory.idle_seconds, agent.memory.consolidates) == (DEFAULT_IDLE_SECONDS, True)


def test_every_field_of_a_full_memory_configuration_is_read() -> None:
    memory = {
        "enabledMemoryTypes": ["SESSION_SUMMARY"],
        "storageDays": 30,
        "sessionSummaryConfiguration": {"maxRecentSessions": 3},
        "idleSessionTTLInSeconds": 600,
        "memoryStore": "shared-0123456789",
        "modelId": "small-model",
        "embeddingModelId": "embedder",
        "inject": {"maxCharacters": 900},
        "namespaces": [
            {
                "name": "notes",
                "description": "What a session is about.",
                "scope": "SESSION",
                "ttlDays": 3,
                "maxRecords": 5,
                "mergeRule": "MODEL",
                "extractionPrompt": "Extract notes.",
                "access": {"read": ["A1", "B2"], "write": ["*"]},
                "inject": False,
            },
            {"name": "projects", "inject": {"topK": 5, "relevance": True}},
        ],
    }

    agent = parse({**MINIMAL, "memoryConfiguration": memory}, "1")

    notes, projects = agent.memory.namespaces
    assert agent.memory == MemoryConfiguration(
        store="shared-0123456789",
        namespaces=(notes, projects),
        summarizes=True,
        recent_summaries=3,
        storage_days=30,
        idle_seconds=600,
        models=("small-model",),
        embedding_model="embedder",
        prompt_characters=900,
    )
    assert agent.memory_store == "shared-0123456789"
    assert notes == Namespace(
        name="notes",
        template="/notes/{actorId}/{sessionId}/",
        description="What a session is about.",
        merge_rule=MergeRule.MODEL,
        extraction_prompt="Extract notes.",
        ttl_days=3,
        max_records=5,
        readers=frozenset({"A1", "B2"}),
        writers=frozenset({"*"}),
        inject=None,
    )
    assert (notes.of_session, notes.writable_by("X"), notes.readable_by("X")) == (True, True, False)
    assert projects.inject == Injection(top_k=5, relevance=True)


def test_an_agent_that_keeps_nothing_never_ends_a_session_by_itself() -> None:
    agent = parse({**MINIMAL, "memoryConfiguration": {"storageDays": 7, "namespaces": []}}, "1")

    assert (agent.memory.remembers, agent.memory.consolidates, agent.memory.idle_seconds) == (False, False, None)


def test_an_operation_of_an_api_schema_is_a_tool_with_its_groups_function_and_policy() -> None:
    api = {
        "openapi": "3.1.0",
        "paths": {
            "/claims/{id}/notes": {
                "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}],
                "post": {
                    "operationId": "add_note",
                    "summary": "Adds a note.",
                    "parameters": [{"name": "order", "in": "query", "schema": {"enum": [1, "last"]}}],
                    "requestBody": {
                        "required": True,
                        "content": {
                            "application/json": {
                                "schema": {"properties": {"text": {"type": "string"}}, "required": ["text"]}
                            }
                        },
                    },
                },
                "get": {"operationId": "list_notes"},
                "put": {"operationId": "set_note"},
            }
        },
    }
    group = {
        "actionGroupName": "Claims",
        "description": "The group's.",
        "actionGroupExecutor": {"lambda": ARN},
        "apiSchema": api_schema(api)[0],
        "actionGroupExecutionConfig": {"timeoutSeconds": 9},
    }

    first, *others = parse({**MINIMAL, "actionGroups": [group]}, "1").tools

    assert first == Tool(
        name="add_note",
        description="Adds a note.",
        action_group="Claims",
        function_arn=ARN,
        input_schema={
            "type": "object",
            "properties": {"id": {"type": "integer"}, "order": {"enum": [1, "last"]}, "text": {"type": "string"}},
            "required": ["id", "text"],
            "additionalProperties": False,
        },
        parameters=(Parameter("id", "integer", True), Parameter("order", None, False)),
        policy=ToolPolicy(timeout_seconds=9),
        operation=first.operation,
    )
    assert first.operation is not None
    assert (first.operation.path, first.operation.method) == ("/claims/{id}/notes", "POST")
    assert first.operation.body == Body("application/json", {"text": "string"}, required=True, argument=None)
    assert [(tool.name, tool.description) for tool in others] == [
        ("list_notes", "The group's."),
        ("set_note", "The group's."),
    ]
    del group["description"]
    assert parse({**MINIMAL, "actionGroups": [group]}, "1").tools[1].description == "list_notes"


def test_a_version_that_holds_an_openapi_document_is_of_another_release() -> None:
    api = group([], apiSchema={"payload": {"openapi": "3.1.0", "paths": {"/a": {"get": {"operationId": "a"}}}}})

    with pytest.raises(UnknownSchemaVersion, match=r"version 2 of agent 'A1' .* 'Weather', .* publish the agent again"):
        parse({**MINIMAL, "actionGroups": [api]}, "2")


def test_a_tool_is_found_by_its_name() -> None:
    agent = parse({**MINIMAL, "actionGroups": [group([{"name": "one"}, {"name": "two"}])]}, "1")

    assert agent.tool("two") is agent.tools[1]
    assert agent.tool("three") is None


def test_a_disabled_group_offers_no_tools() -> None:
    definition = {
        **MINIMAL,
        "actionGroups": [
            group([{"name": "hidden"}], actionGroupState="DISABLED"),
            group([{"name": "shown"}], actionGroupState="ENABLED"),
        ],
    }

    assert [tool.name for tool in parse(definition, "1").tools] == ["shown"]


def test_a_tool_without_a_description_has_its_groups_or_else_its_name() -> None:
    definition = {
        **MINIMAL,
        "actionGroups": [
            group([{"name": "one"}, {"name": "two", "description": "Its own."}], description="The group's."),
            group([{"name": "three"}]),
        ],
    }

    descriptions = [tool.description for tool in parse(definition, "1").tools]
    assert descriptions == ["The group's.", "Its own.", "three"]


def test_a_function_without_parameters_takes_an_empty_object() -> None:
    agent = parse({**MINIMAL, "actionGroups": [group([{"name": "now"}])]}, "1")

    assert agent.tools[0].input_schema == {
        "type": "object",
        "properties": {},
        "required": [],
        "additionalProperties": False,
    }


def test_a_whole_number_written_with_a_fraction_is_a_whole_number() -> None:
    agent = parse({**MINIMAL, "limits": {"maxSteps": 3.0}}, "1")

    assert repr(agent.limits.max_steps) == "3"


def test_the_schema_documents_the_defaults_that_the_code_has() -> None:
    schema = json.loads(SCHEMA.read_text())
    limits = schema["properties"]["limits"]["properties"]
    memory = schema["properties"]["memoryConfiguration"]["properties"]
    window = memory["history"]["properties"]
    config = schema["$defs"]["executionConfig"]["properties"]
    retry, timeout = config["retryPolicy"]["properties"], config["timeoutConfig"]["properties"]
    breaker, result = config["circuitBreaker"]["properties"], config["resultConfig"]["properties"]

    documented_limits = (limits[name]["default"] for name in limits)
    assert tuple(documented_limits) == dataclasses.astuple(Limits())
    assert (window["maxTurns"]["default"], window["maxCharacters"]["default"]) == dataclasses.astuple(HistoryWindow())
    assert memory["storageDays"]["default"] == DEFAULT_STORAGE_DAYS
    defaults = MemoryConfiguration("store")
    assert memory["sessionSummaryConfiguration"]["properties"]["maxRecentSessions"]["default"] == (
        defaults.recent_summaries
    )
    assert memory["inject"]["properties"]["maxCharacters"]["default"] == defaults.prompt_characters
    namespace = schema["$defs"]["namespace"]["properties"]
    (minimal,) = parse({**MINIMAL, "memoryConfiguration": {"namespaces": [{"name": "n"}]}}, "1").memory.namespaces
    assert minimal.inject is not None
    assert (
        namespace["scope"]["default"] == "ACTOR",
        namespace["mergeRule"]["default"],
        namespace["maxRecords"]["default"],
        namespace["inject"]["properties"]["topK"]["default"],
        namespace["inject"]["properties"]["relevance"]["default"],
    ) == (not minimal.of_session, minimal.merge_rule, minimal.max_records, *dataclasses.astuple(minimal.inject))
    assert (
        ToolPolicy(
            max_attempts=retry["maxAttempts"]["default"],
            retryable_error_codes=frozenset(retry["retryableErrorCodes"]["default"]),
            backoff=Backoff(retry["backoffStrategy"]["default"]),
            initial_delay_ms=retry["initialDelayMs"]["default"],
            max_delay_ms=retry["maxDelayMs"]["default"],
            jitter=Jitter(retry["jitter"]["default"]),
            timeout_seconds=timeout["timeoutSeconds"]["default"],
            on_timeout=OnTimeout(timeout["onTimeoutBehavior"]["default"]),
            max_result_characters=result["maxCharacters"]["default"],
        )
        == ToolPolicy()
    )
    assert tool_policy({"circuitBreaker": {}}).breaker == CircuitBreaker(
        enabled=breaker["enabled"]["default"],
        failure_threshold=breaker["failureThreshold"]["default"],
        recovery_seconds=breaker["recoveryTimeSeconds"]["default"],
    )


def test_white_space_and_the_editors_schema_link_make_no_difference_to_a_definition() -> None:
    spaced = json.loads(json.dumps({"$schema": "./agent.schema.json", **MINIMAL}, indent=4))

    assert Definition.of(spaced) == Definition.of(MINIMAL)


def test_a_definition_keeps_every_value_as_it_was_written() -> None:
    document = {**MINIMAL, "instruction": "Grüße, 世界 😀", "inferenceConfiguration": {"temperature": 0.1}}

    definition = Definition.of(document)

    assert json.loads(definition.text) == document
    assert definition.agent_id == "A1"


def test_another_value_or_another_order_is_another_definition() -> None:
    reordered = dict(reversed(MINIMAL.items()))
    renamed = {**MINIMAL, "agentName": "second"}

    digests = {Definition.of(document).digest for document in (MINIMAL, reordered, renamed)}
    assert len(digests) == 3
