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


@contextmanager
def server(directory: Path) -> Iterator[str]:
    """Run a server in the directory and yield the URL of its superuser's database, on a unix socket."""
    programs = binaries()
    assert programs is not None, "install postgresql"
    data = directory / "data"
    prefix: list[str] = []
    if os.getuid() == 0:
        shutil.chown(directory, "nobody", "nogroup")
        prefix = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"]
    subprocess.run(
        [
            *prefix,
            programs / "initdb",
            "-D",
            data,
            "-U",
            "mailstack",
            "-A",
            "trust",
            "-N",
            "--locale=C.UTF-8",
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=directory,
    )
    options = " ".join(f"-c {name}={value}" for name, value in _SETTINGS.items())
    control = [*prefix, programs / "pg_ctl", "-D", data, "-w", "-s"]
    subprocess.run(
        [*control, "-l", data / "log", "-o", f"-k {directory} {options}", "start"], check=True, cwd=directory
    )
    try:
        yield f"postgresql://mailstack@/postgres?host={directory}"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=True, cwd=directory)


def create_database(superuser_url: str, name: str, *, template: str = "template1") -> str:
    """Make a database, as a copy of the template; return its URL."""
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY file_copy')
    return superuser_url.replace("/postgres?", f"/{name}?")


def drop_database(superuser_url: str, name: str) -> None:
    """Remove a database, whoever is still connected to it."""
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
