"""Stands for /var/runtime/bootstrap.py, with which Lambda starts a function in Python 3.11 or newer.

It is copied into what stands for /var/runtime, and runs in the worker. As Lambda's own does, it puts the code first on
`sys.path`, then the layers unless the function has a PYTHONPATH of its own, then what the runtime brings, and reads the
`.pth` files of the first two. An AWS_LAMBDA_EXEC_WRAPPER that starts something else has to do so itself.
"""

import os
import site
import sys

from awslambdaric.__main__ import main as run

_VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"


def main() -> None:
    code, runtime = os.environ["LAMBDA_TASK_ROOT"], os.environ["LAMBDA_RUNTIME_DIR"]
    folders = [code]
    if "PYTHONPATH" not in os.environ:
        layers = f"{runtime.removesuffix('/var/runtime')}/opt/python"
        folders += [f"{layers}/lib/{_VERSION}/site-packages", layers]
        sys.path.insert(0, f"{sys.prefix}/lib/{_VERSION}/site-packages")
        os.environ["PYTHONPATH"] = runtime
    sys.path[:0] = folders
    for folder in folders:
        site.addsitedir(folder)
    run([code, os.environ["_HANDLER"]])


if __name__ == "__main__":
    main()
