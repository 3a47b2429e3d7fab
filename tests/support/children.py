"""Other processes that do something until they are killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def child(code: str, *arguments: object, says: str) -> Iterator[subprocess.Popen[str]]:
    """A process that runs Python, from the moment when it has said its first line; killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{says}\n"
        yield process
    finally:
        process.kill()
        process.communicate()
