"""PgBouncer in front of a PostgreSQL server of ours, in a folder, until the block ends."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PORT = 6432
"""Only the name of a socket: it listens on no address."""


@contextmanager
def pgbouncer(directory: Path, url: str, pool_mode: str, **more: int) -> Iterator[str]:
    """Run it for the database of the URL, with more of its settings; the URL through it."""
    direct, _, host = url.partition("?host=")
    settings = directory / "pgbouncer.ini"
    users = directory / "users.txt"
    users.write_text('"mailstack" ""\n')
    settings.write_text(
        f"[databases]\n* = host={host}\n"
        f"[pgbouncer]\nunix_socket_dir = {directory}\nlisten_port = {PORT}\n"
        f"auth_type = trust\nauth_file = {users}\npool_mode = {pool_mode}\n"
        + "".join(f"{name} = {value}\n" for name, value in more.items())
    )
    command = ["pgbouncer", str(settings)]
    if os.getuid() == 0:  # it refuses to run as root, like PostgreSQL
        for each in (directory, settings, users):
            shutil.chown(each, "nobody", "nogroup")
        command = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--", *command]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=directory, stdout=log, stderr=subprocess.PIPE)
        try:
            assert process.stderr is not None
            said = []
            for line in process.stderr:
                said.append(line)
                if b"process up" in line:
                    break
            else:
                raise AssertionError(b"".join(said).decode())
            yield f"{direct}?host={directory}&port={PORT}"
        finally:
            process.terminate()
            process.communicate()
