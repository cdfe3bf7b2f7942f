"""Which namespaces a query means, and that it means no other actor's.

An actor id may have slashes in it, so that `/facts/a/b/` can be the path of the actor `a/b` or lie below the one of the
actor `a`. A query that reaches into an actor id is that actor's whose id it names in full; below it, it is read as the
longest id of an actor that there is. Above any actor id it means all actors: that is what a path like `/facts/` says.
"""

from collections.abc import Callable

from turnwright.agents.memory_configuration import ACTOR_VARIABLE, MemoryConfiguration
from turnwright.storage.keys import NO_ACTOR

IsActor = Callable[[str], bool]


def below(query: str, path: str, owner: str, configuration: MemoryConfiguration, is_actor: IsActor) -> bool:
    """Whether the namespace `path` of `owner` falls under the path `query`. Both begin and end with a slash."""
    if not path.startswith(query):
        return False
    if owner == NO_ACTOR:
        return True
    before = _before_actor(path, owner, configuration)
    if before.startswith(query):
        return True
    named = query[len(before) :].removesuffix("/")
    if not (named + "/").startswith(owner + "/"):
        return False  # the query ends within the actor's id: it names another one
    further = named[len(owner) :].split("/")[1:]
    longer = (f"{owner}/{'/'.join(further[: count + 1])}" for count in range(len(further)))
    return not any(is_actor(other) for other in longer)


def _before_actor(path: str, owner: str, configuration: MemoryConfiguration) -> str:
    """What stands before the owner's id in the path of one of its namespaces."""
    found = configuration.of_path(path)
    if found is not None and found[1].get(ACTOR_VARIABLE) == owner:
        head = found[0].template.partition(f"{{{ACTOR_VARIABLE}}}")[0]
        return path[: len(path) - len(_from(path, head.count("/")))]
    return path[: path.find(f"/{owner}/") + 1]


def _from(path: str, slashes: int) -> str:
    """The path behind its first slashes."""
    return path.split("/", slashes)[slashes]
