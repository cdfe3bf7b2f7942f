"""`make check` of what no other tool opens: the state machines and agent files of the template, the parameters that
samconfig.toml gives it, what its functions import, and whether they may invoke the agents' tools.

Prints a line for each problem, `file: place: rule`, and exits 1 if there is any.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from local.deployment.definitions import check_template
from local.deployment.imports import check_imports
from local.deployment.parameters import check_parameters, overrides
from local.deployment.sam_yaml import Template, TemplateError, load_template, transform
from local.deployment.tool_permissions import check_tool_permissions
from turnwright.agents import agent_files

_ANY_FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:any"


def problems(template: Template) -> Iterator[str]:
    """All that is wrong with the definitions and the agent files of a template."""
    yield from map(str, check_template(template))
    folder = template.file.parent / "agents"
    broken = agent_files.check(folder, _substitutions(template))
    yield from map(str, broken)
    try:
        yield from check_parameters(template)
        document = transform(template, overrides(template.file.parent))
    except TemplateError as error:
        yield str(error)
        return
    yield from check_imports(template, document)
    if not broken:
        files = {f"{folder.name}/{path.name}": path for path in sorted(folder.glob("*.json"))}
        agents = {
            name: json.loads(path.read_bytes()) for name, path in files.items() if agent_files.is_agent_file(path)
        }
        yield from check_tool_permissions(template, document, agents)


def _substitutions(template: Template) -> dict[str, str]:
    """The names that agent files may use, with a value of the right form: the real ones exist after deployment only."""
    published = template["Resources"].get("PublishedAgents") or {}
    names = (published.get("Properties") or {}).get("Substitutions") or {}
    return {name: "global." if name == agent_files.MODEL_PREFIX else _ANY_FUNCTION for name in names}


def main(arguments: list[str]) -> int:
    try:
        found = list(problems(load_template(Path(arguments[0] if arguments else "template.yaml"))))
    except TemplateError as error:
        found = [str(error)]
    for problem in found:
        print(problem)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
