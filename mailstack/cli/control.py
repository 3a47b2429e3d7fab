"""Asking every process of the service on this host, by their control sockets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mailstack.cli.admin import become_owner
from mailstack.errors import NotRunning, StoreUnavailable
from mailstack.settings import Settings


def ask_all(settings: Settings, command: str, **fields: object) -> list[Mapping[str, Any]]:
    """The answer of each process, oldest first; raises NotRunning where there is none."""
    become_owner(settings.state_dir)
    line = json.dumps({"command": command, **fields}).encode() + b"\n"
    answers = [answer for path in _sockets(settings) if (answer := _asked(path, line)) is not None]
    if not answers:
        raise NotRunning(f"no service is running in {settings.state_dir}; start it with mailstack serve")
    for answer in answers:
        if "error" in answer:
            raise StoreUnavailable(f"the service could not do that: {answer['error']}")
    return answers


def _sockets(settings: Settings) -> list[Path]:
    try:
        found = [path for path in settings.control_dir.iterdir() if not path.name.startswith(".")]
    except FileNotFoundError:
        return []
    return sorted(found, key=lambda path: int(path.name.partition("-")[0]))


def _asked(path: Path, line: bytes) -> Mapping[str, Any] | None:
    from mailstack.service.control import connected  # which brings the whole service along

    try:
        with connected(path) as connection, connection.makefile("rb") as answers:
            connection.sendall(line)
            answer: Mapping[str, Any] = json.loads(answers.readline())
    except (ConnectionError, FileNotFoundError, ValueError):  # it was killed, or is just ending
        return None
    return answer
