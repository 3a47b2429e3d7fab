"""A PostgreSQL server of our own, in a temporary folder, for as long as a test run lasts.

PostgreSQL refuses to run as root, so as root it is started through `setpriv` as `nobody`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests.support.appliance import wait_until

_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
    # What a crash of the whole machine does is tested elsewhere; these tests are about statements.
    "full_page_writes": "off",
    # Its log lies in memory, see below, and there is one of each test process.
    "max_wal_size": "64MB",
    "min_wal_size": "32MB",
}


_MEMORY = Path("/dev/shm")
_ROOM_OCTETS = 1024 * 1024 * 1024
"""For the servers of some test processes at once, each of which takes up to 200 MB."""


def binaries() -> Path | None:
    """Where Debian keeps the newest server's programs, or None where no server is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    return found[-1].parent if found else None


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """A folder with a short path that an unprivileged user may enter."""
    # A server that does not wait for its disk is refused; where memory is the disk, it does not wait long.
    roomy = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free >= _ROOM_OCTETS
    directory = Path(tempfile.mkdtemp(prefix="ms-pg-", dir=_MEMORY if roomy else None))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


class Server:
    """A server in a folder: stopped, also rudely, and started again while others use it."""

    def __init__(self, directory: Path, settings: Mapping[str, str]) -> None:
        programs = binaries()
        assert programs is not None, "install postgresql"
        self.url = f"postgresql://mailstack@/postgres?host={directory}"
        """Its superuser's database, on a unix socket."""
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        data = directory / "data"
        # It ends with this process, whoever ends that, and however.
        as_user = ["setpriv", "--pdeathsig=QUIT"]
        if os.getuid() == 0:
            shutil.chown(directory, "nobody", "nogroup")
            as_user += ["--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        initdb = [str(programs / "initdb"), "-D", str(data), "-U", "mailstack"]
        subprocess.run(
            [*as_user, *initdb, "-A", "trust", "-N", "--locale=C.UTF-8"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=directory,
        )
        options = [f"-c{name}={value}" for name, value in {**_SETTINGS, **settings}.items()]
        self._command = [
            *as_user,
            str(programs / "postgres"),
            "-D",
            str(data),
            "-k",
            str(directory),
            *options,
        ]
        self._ask = [str(programs / "pg_isready"), "-q", "-h", str(directory), "-d", "postgres"]

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, cwd=self._directory)
        wait_until(self._answers, what="PostgreSQL has started", seconds=60)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._directory / "log").read_text()
        return subprocess.run(self._ask, check=False).returncode == 0

    def stop(self, sent: signal.Signals) -> None:
        """End every session: SIGINT rolls back and writes all down, SIGQUIT is a crash."""
        if self._process is not None:
            self._process.send_signal(sent)
            self._process.wait()
            self._process = None


@contextmanager
def server(directory: Path, **settings: str) -> Iterator[Server]:
    """Run a server in the directory; it may be down when the block ends."""
    made = Server(directory, settings)
    made.start()
    try:
        yield made
    finally:
        made.stop(signal.SIGQUIT)


def create_database(superuser_url: str, name: str, *, template: str = "template1") -> str:
    """Make a database, as a copy of the template; return its URL."""
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY wal_log')
    return superuser_url.replace("/postgres?", f"/{name}?")


def drop_database(superuser_url: str, name: str) -> None:
    """Remove a database, whoever is still connected to it."""
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
