"""A module of the bench run by itself, as the stack's functions run."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from local.stack import LocalStack

_ROOT = Path(__file__).resolve().parents[2]


def as_functions(stack: LocalStack, module: str, functions: Sequence[str]) -> str:
    """Runs `module` in the environment of the functions (their resources), and returns the last line of its stderr: its
    stdout is the functions' log.
    """
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": f"{_ROOT}{os.pathsep}{_ROOT / 'functions/runtime'}",
        "AWS_ACCESS_KEY_ID": "offline",
        "AWS_SECRET_ACCESS_KEY": "offline",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for function in functions:
        environment |= stack.function_environment(function)
    done = subprocess.run(
        [sys.executable, "-m", module],
        cwd=_ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stderr.splitlines()[-1]
