"""Words that have a parameter's `pattern`, looked for as long as a tool call's arguments are checked, and no longer.

A pattern that backtracks lets no other thread run, and only a main thread can be interrupted, which answers no request
here: so this module is run as a process of its own.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache

from turnwright.agents import patterns
from turnwright.deadline import interrupted
from turnwright.tools.tool_arguments import CHECK_SECONDS


@lru_cache(maxsize=100)
def first_match(pattern: str, words: tuple[str, ...]) -> str | None:
    """The first of the words that has the pattern; None too if that takes too long, or the pattern is none."""
    asked = json.dumps([pattern, words])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "local.bedrock.rule.rule_patterns"]
    done = subprocess.run(command, input=asked, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: str | None = json.loads(done.stdout)
    return found


def _searched(pattern: str, words: Sequence[str]) -> str | None:
    try:
        return interrupted(
            CHECK_SECONDS, lambda: next((word for word in words if patterns.search(pattern, word)), None)
        )
    except (TimeoutError, patterns.Untranslatable):
        return None


if __name__ == "__main__":
    print(json.dumps(_searched(*json.load(sys.stdin))))
