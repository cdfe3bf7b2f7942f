"""Which offline stacks run on this machine, so that `python -m local COMMAND` finds the one that is meant.

Each notes where its AWS is in a file of `.turnwright/`, and holds a lock on it: what nobody holds is of a stack that
was killed.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / ".turnwright"


@contextmanager
def noted(aws_url: str) -> Iterator[None]:
    """Notes a stack of this process for as long as the context lasts. Raises OSError where no file can be made."""
    FOLDER.mkdir(exist_ok=True)
    new, file = FOLDER / f"{os.getpid()}.new", FOLDER / f"{os.getpid()}.stack"
    with new.open("w", encoding="utf-8") as note:
        fcntl.flock(note, fcntl.LOCK_EX)
        note.write(aws_url)
        note.flush()
        new.rename(file)
        try:
            yield
        finally:
            file.unlink(missing_ok=True)


def running() -> list[str]:
    """Where AWS is in each stack that runs, sorted."""
    urls = []
    for file in FOLDER.glob("*.stack"):
        with suppress(FileNotFoundError), file.open(encoding="utf-8") as note:
            try:
                fcntl.flock(note, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                urls.append(note.read())
            else:
                file.unlink(missing_ok=True)
    return sorted(urls)
