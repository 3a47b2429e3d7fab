"""Asking every process of the service on this host, by their control sockets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mailstack.cli.admin import become_owner
from mailstack.errors import AlreadyRunning, NotRunning, StoreUnavailable
from mailstack.settings import Settings


def ask_all(settings: Settings, command: str, **fields: object) -> list[Mapping[str, Any]]:
    """The answer of each process, oldest first; raises NotRunning where there is none."""
    from mailstack.service.control import ask  # which brings the whole service along

    become_owner(settings.state_dir)
    answers = ask(settings.control_dir, {"command": command, **fields})
    if not answers:
        raise NotRunning(f"no service is running in {settings.state_dir}; start it with mailstack serve")
    for answer in answers:
        if "error" in answer:
            raise StoreUnavailable(f"the service could not do that: {answer['error']}")
    return answers


def refuse_running(settings: Settings) -> None:
    """Raise AlreadyRunning where a process of the service runs, for work that leaves it no store."""
    from mailstack.service.control import ask

    if ask(settings.control_dir, {"command": "status"}):
        raise AlreadyRunning(f"the server is running in {settings.state_dir}: stop it first")
