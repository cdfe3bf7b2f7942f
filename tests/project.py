"""A copy of the project's template with one more tool and agent, as a team that uses Turnwright would add them."""

import json
import shutil
from pathlib import Path
from typing import Any

from local.deployment.sam_yaml import load_template
from tests.paths import ROOT
from tests.tools import claims_api

TEST_AGENT = "TESTAGENT"
LAST_STEP_AGENT = "TWOSTEPS"
REMEMBERING_AGENT = "REMEMBERS"
LONG_AGENT = "LONGTURNS"


def copy_project(folder: Path, calls: Path) -> Path:
    """Puts a deployable copy into `folder` and returns its template. Its tool notes its calls in `calls`."""
    for name in ("functions", "statemachines"):
        (folder / name).symlink_to(ROOT / name, target_is_directory=True)
    (folder / "tools").symlink_to(ROOT / "tests" / "tools", target_is_directory=True)
    shutil.copytree(ROOT / "agents", folder / "agents")
    for definition in (
        _agent(TEST_AGENT, 10),
        _agent(LAST_STEP_AGENT, 2),
        _agent(LONG_AGENT, 40, 8),
        _remembering_agent(),
    ):
        (folder / "agents" / f"{definition['agentName']}.json").write_text(json.dumps(definition))
    template: dict[str, Any] = dict(load_template(ROOT / "template.yaml"))
    resources = template["Resources"]
    resources["MisbehavingToolFunction"] = {
        "Type": "AWS::Serverless::Function",
        "Properties": {
            "CodeUri": "tools",
            "Handler": "misbehaving_tool.handler",
            "Environment": {"Variables": {"CALLS_DIRECTORY": str(calls)}},
        },
    }
    for name, module in (("ClaimsApi", "claims_api"), ("FunctionDetails", "function_details")):
        resources[f"{name}Function"] = {
            "Type": "AWS::Serverless::Function",
            "Properties": {"CodeUri": "tools", "Handler": f"{module}.handler"},
        }
        resources["PublishedAgents"]["Properties"]["Substitutions"][f"{name}FunctionArn"] = {
            "Fn::GetAtt": [f"{name}Function", "Arn"]
        }
    resources["PublishedAgents"]["Properties"]["Substitutions"]["MisbehavingToolFunctionArn"] = {
        "Fn::GetAtt": ["MisbehavingToolFunction", "Arn"]
    }
    path = folder / "template.yaml"
    path.write_text(json.dumps(template, indent=1))
    return path


def _remembering_agent() -> dict[str, Any]:
    return {
        "agentId": REMEMBERING_AGENT,
        "agentName": REMEMBERING_AGENT.lower(),
        "instruction": "You are an agent for tests of memory. Do exactly what the script says.",
        "foundationModels": ["first-model", "second-model"],
        "limits": {"modelTimeoutSeconds": 5},
        "memoryConfiguration": {
            "enabledMemoryTypes": ["SESSION_SUMMARY"],
            "idleSessionTTLInSeconds": 60,
            "history": {"maxTurns": 4},
            "namespaces": [
                {"name": "preferences", "description": "what the user prefers"},
                {"name": "projects", "mergeRule": "APPEND"},
            ],
        },
    }


def _agent(agent_id: str, max_steps: int, max_parallel_tools: int = 3) -> dict[str, Any]:
    return {
        "agentId": agent_id,
        "agentName": agent_id.lower(),
        "instruction": "You are an agent for tests. Do exactly what the script says.",
        "foundationModels": ["first-model", "second-model"],
        "limits": {"maxSteps": max_steps, "maxParallelTools": max_parallel_tools, "modelTimeoutSeconds": 5},
        "actionGroups": [
            {
                "actionGroupName": "Misbehaving",
                "actionGroupExecutor": {"lambda": "${MisbehavingToolFunctionArn}"},
                "functionSchema": {
                    "functions": [
                        _function("echo", text=("string", True)),
                        _function("remember", name=("string", True), value=("string", True)),
                        _function("misbehave", how=("string", True), times=("integer", False)),
                    ]
                },
                "actionGroupExecutionConfig": {
                    "retryPolicy": {"maxAttempts": 3, "initialDelayMs": 20},
                    "timeoutConfig": {"timeoutSeconds": 2},  # of which a busy machine's cold start takes half
                },
            },
            {
                "actionGroupName": "Claims",
                "actionGroupExecutor": {"lambda": "${ClaimsApiFunctionArn}"},
                "apiSchema": {"payload": json.loads(claims_api.app.get_openapi_json_schema(title="c", version="1"))},
            },
            {
                "actionGroupName": "FunctionDetails",
                "actionGroupExecutor": {"lambda": "${FunctionDetailsFunctionArn}"},
                "functionSchema": {"functions": [_function("look_up", word=("string", True))]},
                "actionGroupExecutionConfig": {"retryPolicy": {"maxAttempts": 2, "initialDelayMs": 10}},
            },
            {
                "actionGroupName": "Strict",
                "actionGroupExecutor": {"lambda": "${MisbehavingToolFunctionArn}"},
                "functionSchema": {"functions": [_function("strict", how=("string", True))]},
                "actionGroupExecutionConfig": {
                    "retryPolicy": {"maxAttempts": 1},
                    "timeoutConfig": {"timeoutSeconds": 1, "onTimeoutBehavior": "FAIL_TURN"},
                },
            },
            {
                "actionGroupName": "Guarded",
                "actionGroupExecutor": {"lambda": "${MisbehavingToolFunctionArn}"},
                "functionSchema": {"functions": [_function("guarded", how=("string", True), times=("integer", False))]},
                "actionGroupExecutionConfig": {
                    "retryPolicy": {"maxAttempts": 1},
                    "timeoutConfig": {"timeoutSeconds": 5},
                    "circuitBreaker": {"failureThreshold": 3, "recoveryTimeSeconds": 600},
                },
            },
            {
                "actionGroupName": "Patient",
                "actionGroupExecutor": {"lambda": "${MisbehavingToolFunctionArn}"},
                "functionSchema": {
                    "functions": [_function("slow_to_recover", how=("string", True), times=("integer", False))]
                },
                "actionGroupExecutionConfig": {"retryPolicy": {"maxAttempts": 2, "initialDelayMs": 1050}},
            },
        ],
    }


def _function(name: str, /, **parameters: tuple[str, bool]) -> dict[str, Any]:
    return {
        "name": name,
        "description": f"Test tool {name}",
        "parameters": {
            key: {"type": kind, "description": key, "required": required}
            for key, (kind, required) in parameters.items()
        },
    }
