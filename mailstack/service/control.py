"""The control socket of one process: `mailstack session` and `mailstack status` ask there.

A request is one line of JSON, and so is its answer. Each process has a socket of its own in
`state_dir/control`, which only the owner of the mail may enter: whoever asks, asks them all.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from mailstack import log
from mailstack.errors import MailstackError

Answer = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]
"""One command: from the request's fields to those of the answer."""

_LONGEST_REQUEST: Final = 4096
_PATIENCE_SECONDS: Final = 60.0


class Control:
    """Answers requests by a table of commands, until closed."""

    def __init__(self, directory: Path, answers: Mapping[str, Answer]) -> None:
        self._answers = answers
        self._directory = directory
        self._name = f"{os.getpid()}-{log.new_session_id()}"
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen, once what processes that were killed have left is gone."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        sweep(self._directory)
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        entered = os.open(self._directory, os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # By way of the descriptor, since a socket's path has at most 107 octets.
            draft = f"/proc/self/fd/{entered}/.{self._name}"
            bound.bind(draft)
            os.chmod(draft, 0o600)
            bound.listen()
            # Only now by its name: whoever sees that may count on an answer.
            os.rename(f".{self._name}", self._name, src_dir_fd=entered, dst_dir_fd=entered)
        finally:
            os.close(entered)
        bound.setblocking(False)
        self._server = await asyncio.start_unix_server(self._serve, sock=bound, limit=_LONGEST_REQUEST)

    async def close(self) -> None:
        """Listen no more."""
        with suppress(FileNotFoundError):
            (self._directory / self._name).unlink()
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while line := await reader.readline():
                    answer = await self._answered(line)
                    writer.write(json.dumps(answer).encode() + b"\n")
                    await writer.drain()
        except (OSError, ValueError, TimeoutError):
            pass  # who does not speak properly, or not at all, gets no answer
        finally:
            writer.close()

    async def _answered(self, line: bytes) -> Mapping[str, Any]:
        try:
            request = json.loads(line)
            answer = self._answers[request["command"]]
        except (ValueError, TypeError, KeyError):
            return {"error": "not understood"}
        try:
            return await answer(request)
        except MailstackError as error:
            return {"error": str(error)}
        except Exception as error:
            log.failure("control", error)
            return {"error": "local error"}


def ask(
    directory: Path, request: Mapping[str, object], *, patience_seconds: float = _PATIENCE_SECONDS
) -> list[Mapping[str, Any]]:
    """The answer of each process that has a socket there, oldest first; who is silent has an `error`."""
    line = json.dumps(request).encode() + b"\n"
    try:
        found = [path for path in directory.iterdir() if not path.name.startswith(".")]
    except FileNotFoundError:
        return []
    answers = (
        _asked(path, line, patience_seconds)
        for path in sorted(found, key=lambda path: int(path.name.partition("-")[0]))
    )
    return [answer for answer in answers if answer is not None]


def _asked(path: Path, line: bytes, patience_seconds: float) -> Mapping[str, Any] | None:
    try:
        with connected(path) as connection, connection.makefile("rb") as answers:
            connection.settimeout(patience_seconds)
            connection.sendall(line)
            answer: Mapping[str, Any] = json.loads(answers.readline())
    except TimeoutError:
        return {"error": f"process {path.name.partition('-')[0]} does not answer"}
    except (ConnectionError, FileNotFoundError, ValueError):  # it was killed, or is just ending
        return None
    return answer


def sweep(directory: Path) -> None:
    """Remove the sockets that nobody listens on any more."""
    for path in directory.iterdir():
        if path.name.startswith("."):  # another process is about to listen there
            continue
        with suppress(OSError), connected(path):
            continue
        with suppress(OSError):
            path.unlink()


def connected(path: Path) -> socket.socket:
    """A connection to a unix socket, however long its path is."""
    entered = os.open(path.parent, os.O_DIRECTORY | os.O_CLOEXEC)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(_PATIENCE_SECONDS)
        connection.connect(f"/proc/self/fd/{entered}/{path.name}")
    except OSError:
        connection.close()
        raise
    finally:
        os.close(entered)
    return connection
