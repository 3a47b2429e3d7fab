"""A PostgreSQL server of our own, in a temporary folder, for as long as a test run lasts.

PostgreSQL refuses to run as root, so as root it is started through `setpriv` as `nobody`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

_SETTINGS = {
    "listen_addresses": "''",
    "max_connections": "200",
    "shared_buffers": "64MB",
    # What a crash of the whole machine does is tested elsewhere; these tests are about statements.
    "fsync": "off",
    "full_page_writes": "off",
}


def binaries() -> Path | None:
    """Where Debian keeps the newest server's programs, or None where no server is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    return found[-1].parent if found else None


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """A folder with a short path that an unprivileged user may enter."""
    directory = Path(tempfile.mkdtemp(prefix="ms-pg-"))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


class Server:
    """A server in a folder: stopped, also rudely, and started again while others use it."""

    def __init__(self, directory: Path) -> None:
        programs = binaries()
        assert programs is not None, "install postgresql"
        self.url = f"postgresql://mailstack@/postgres?host={directory}"
        """Its superuser's database, on a unix socket."""
        self._directory = directory
        data = directory / "data"
        prefix: list[str] = []
        if os.getuid() == 0:
            shutil.chown(directory, "nobody", "nogroup")
            prefix = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"]
        initdb = [str(programs / "initdb"), "-D", str(data), "-U", "mailstack"]
        subprocess.run(
            [*prefix, *initdb, "-A", "trust", "-N", "--locale=C.UTF-8"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=directory,
        )
        self._control = [*prefix, str(programs / "pg_ctl"), "-D", str(data), "-w", "-s"]
        options = " ".join(f"-c {name}={value}" for name, value in _SETTINGS.items())
        self._start = ["-l", str(data / "log"), "-o", f"-k {directory} {options}", "start"]

    def start(self) -> None:
        """Start it and wait until it answers."""
        subprocess.run([*self._control, *self._start], check=True, cwd=self._directory)

    def stop(self, mode: str) -> None:
        """End every session: "fast" rolls back and writes all down, "immediate" is a crash."""
        subprocess.run([*self._control, "-m", mode, "stop"], check=True, cwd=self._directory)


@contextmanager
def server(directory: Path) -> Iterator[Server]:
    """Run a server in the directory; it may be down when the block ends."""
    made = Server(directory)
    made.start()
    try:
        yield made
    finally:
        if (directory / "data" / "postmaster.pid").exists():
            made.stop("immediate")


def create_database(superuser_url: str, name: str, *, template: str = "template1") -> str:
    """Make a database, as a copy of the template; return its URL."""
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY file_copy')
    return superuser_url.replace("/postgres?", f"/{name}?")


def drop_database(superuser_url: str, name: str) -> None:
    """Remove a database, whoever is still connected to it."""
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
