"""The load generator (bench/load, in C), called from Python."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "load"
Figures = dict[str, float]


@cache
def program() -> Path:
    """The generator, made from its source where it is not there or is older."""
    subprocess.run(["make", "-s", "-C", str(FOLDER)], check=True, stdout=sys.stderr)
    return FOLDER / "load"


def arguments(kind: str, options: dict[str, object]) -> list[str]:
    """The command for `kind` (smtp, pop3 or idle); an option that is True has no value, a None is none."""
    words = [str(program()), kind]
    for name, value in options.items():
        if value is not None and value is not False:
            words.append(f"--{name.replace('_', '-')}")
            if value is not True:
                words.append(str(value))
    return words


def run(kind: str, **options: object) -> Figures:
    """Run it to its end; what went wrong is told on standard error and counted as `failed`."""
    done = subprocess.run(arguments(kind, options), stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"the load generator ended with {done.returncode}: {arguments(kind, options)}")
    figures: Figures = json.loads(done.stdout)
    return figures


@contextmanager
def held(**options: object) -> Iterator[Figures]:
    """Connections that stay open within the block."""
    with subprocess.Popen(
        arguments("idle", options), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
        assert process.stdin is not None
        process.stdin.close()
