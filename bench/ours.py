"""Our own server for a benchmark: a folder with accounts, and processes that serve from it."""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path

from sqlalchemy import exists, select

from bench.accounting import Account
from mailstack import settings
from mailstack.auth import passwords
from mailstack.cli import main
from mailstack.mail.address import Mailbox
from mailstack.store import accounts
from mailstack.store.engine import Database
from mailstack.store.tables import leftover

SECRET = "secret"
"""The password of every account."""


@cache
def stored() -> passwords.Stored:
    """What is kept of SECRET, as `account add` does: made once, for it is slow on purpose."""
    return passwords.stored(SECRET)


def made(directory: Path, names: Iterable[str], domain: str = "example.org") -> Path:
    """A server's folder, made anew, with these accounts; the settings file in it."""
    shutil.rmtree(directory, ignore_errors=True)
    words = ["init", "--directory", str(directory), "--hostname", "localhost", "--domain", domain]
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # what to do next, for people
        assert main(words) == 0
    database = Database(settings.load(directory / "mailstack.toml", {}).url)
    kept = stored()
    new = [
        accounts.NewAccount(Mailbox(name, domain), kept.password_hash, None, kept.scram_keys)
        for name in names
    ]
    with database.writing() as connection:
        accounts.add_accounts(connection, new)
    database.dispose()
    return directory / "mailstack.toml"


def is_left_over(file: Path) -> bool:
    """Whether the store has content of deleted messages that is still to be removed."""
    database = Database(settings.load(file, {}).url)
    try:
        with database.reading() as connection:
            return bool(connection.scalar(select(exists().select_from(leftover))))
    finally:
        database.dispose()


def free_ports(count: int) -> list[int]:
    """Ports that nobody has now."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@contextmanager
def served(
    file: Path, *roles: tuple[str, ...], listening: Mapping[str, str], account: Account | None = None
) -> Iterator[list[int]]:
    """A process for each of the `roles`, each with one role or more; their numbers.

    `listening` are settings as the environment says them. What they log lies beside the settings.
    """
    processes: list[subprocess.Popen[bytes]] = []
    with (file.parent / "bench.log").open("ab") as log:
        try:
            for several in roles:
                command = [sys.executable, "-m", "mailstack", "--config", str(file), "serve", *several]
                process = subprocess.Popen(
                    account.command(command) if account else command,
                    env={**os.environ, **listening},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=log,
                )
                processes.append(process)
                if account:
                    account.watch(process.pid)
                assert process.stdout is not None
                if process.stdout.readline() != b"ready\n":
                    raise RuntimeError(Path(log.name).read_text())
            yield [process.pid for process in processes]
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.communicate()
