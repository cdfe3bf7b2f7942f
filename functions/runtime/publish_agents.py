"""Publish Agents: a deployment makes what the agent files say the published agents."""

from pathlib import Path
from typing import Any

from turnwright.agents import agent_files, api_schemas, versions
from turnwright.agents.custom_resource import Outcome, answer, send
from turnwright.storage import clients
from turnwright.storage.settings import settings
from turnwright.storage.table import table
from turnwright.tracing.log import logger
from turnwright.tracing.payloads import payloads

PHYSICAL_RESOURCE_ID = "published-agents"


def handler(event: dict[str, Any], context: object) -> None:
    """A CloudFormation custom resource request. Its property `Substitutions` has the values of `${Name}`.

    It is always answered, since CloudFormation waits: a broken agent file, and anything else that goes wrong,
    fails the deployment with its reason.
    """
    log = logger()
    try:
        outcome = _carry_out(event)
    except agent_files.AgentFilesBroken as error:
        for problem in error.problems:
            log.error("agent file is broken", file=problem.file, place=problem.pointer, rule=problem.rule)
        outcome = Outcome(succeeded=False, text=f"Nothing was published. {error}")
    except Exception as error:
        log.exception("publishing failed")
        outcome = Outcome(succeeded=False, text=f"Publishing failed: {type(error).__name__}: {error}")
    send(event["ResponseURL"], answer(event, PHYSICAL_RESOURCE_ID, outcome))


def _carry_out(event: dict[str, Any]) -> Outcome:
    if event["RequestType"] == "Delete":
        # The table may outlive the stack, and its agents with it.
        return Outcome(succeeded=True, text="")
    _ = payloads()  # so that a pattern that cannot be used fails the deployment, and not each turn
    directory = Path(settings().agent_files_directory)
    substitutions = event["ResourceProperties"].get("Substitutions", {})
    definitions = agent_files.read(directory, substitutions, api_schemas.reader(clients.s3(), settings().bucket_name))
    publications = versions.publish(table(), definitions)
    for agent in publications:
        logger().info(f"agent {agent.change}", agentId=agent.agent_id, version=agent.version)
    published = [agent for agent in publications if agent.change is not versions.Change.REMOVED]
    return Outcome(succeeded=True, text=" ".join(f"{agent.agent_id}:{agent.version}" for agent in published))
