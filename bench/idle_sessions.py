"""What an idle POP3 session costs in memory: `python bench/idle_sessions.py [--sessions 1000]`.

For plain and TLS, greeted and logged in: starts a server in a temporary folder, opens sessions, and
prints by how much the PSS of the server's process grew for each.
"""

from __future__ import annotations

import argparse
import os
import resource
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mailstack.auth import passwords
from mailstack.cli import main
from mailstack.mail.address import Mailbox
from mailstack.settings import load
from mailstack.store import accounts
from mailstack.store.engine import Database

SECRET = "secret"


def made(folder: Path, sessions: int) -> Path:
    """A server's folder with an account for each session; its settings file."""
    directory = folder / "mail"
    assert (
        main(["init", "--directory", str(directory), "--hostname", "localhost", "--domain", "example.org"])
        == 0
    )
    file = directory / "mailstack.toml"
    password_hash = passwords.hash_password(SECRET)
    database = Database(load(file, {}).url)
    with database.writing() as connection:
        for number in range(sessions):
            accounts.add_account(
                connection, Mailbox(f"u{number}", "example.org"), password_hash=password_hash
            )
    database.dispose()
    return file


def free_port() -> int:
    """A port that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def served(file: Path, plain: int, tls: int) -> Iterator[int]:
    """A server of one process; its number."""
    listening = {
        "MAILSTACK_POP3__LISTEN": f"127.0.0.1:{plain}",
        "MAILSTACK_POP3__TLS_LISTEN": f"127.0.0.1:{tls}",
        "MAILSTACK_LOG__LEVEL": "error",
        "MAILSTACK_POP3__LOGIN_IDLE": "1h",
        "MAILSTACK_POP3__IDLE": "1h",
    }
    command = [sys.executable, "-m", "mailstack", "--config", file, "serve", "pop3"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **listening})
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process.pid
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def pss(pid: int) -> int:
    """The process's share of memory, in octets."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the kernel tells no PSS")


def opened(port: int, context: ssl.SSLContext | None, account: str | None) -> socket.socket:
    """One idle session."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    if context is not None:
        connection = context.wrap_socket(connection, server_hostname="localhost")
    assert connection.recv(100).startswith(b"+OK")
    if account is not None:
        connection.sendall(f"USER {account}\r\nPASS {SECRET}\r\nSTAT\r\n".encode())
        got = b""
        while got.count(b"\r\n") < 3:
            got += connection.recv(1000)
        assert got.count(b"+OK") == 3, got
    return connection


def measured(pid: int, port: int, context: ssl.SSLContext | None, sessions: int, *, log_in: bool) -> float:
    """KiB a session, once the first few have had the process load what it needs for any."""
    for number in range(10):
        opened(port, context, f"u{number}" if log_in else None).close()
    before = pss(pid)
    idle = [opened(port, context, f"u{number}" if log_in else None) for number in range(sessions)]
    time.sleep(1)
    each = (pss(pid) - before) / sessions / 1024
    for connection in idle:
        connection.close()
    time.sleep(2)
    return each


def run() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=1000)
    sessions = parser.parse_args().sessions
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory() as folder:
        file = made(Path(folder), sessions)
        context = ssl.create_default_context(cafile=str(load(file, {}).tls.certificate))
        plain, tls = free_port(), free_port()
        print(f"{sessions} idle sessions, each kind in a process of its own")
        for log_in in (False, True):
            for port, how in ((plain, None), (tls, context)):
                with served(file, plain, tls) as pid:
                    alone = pss(pid) / 1024 / 1024
                    each = measured(pid, port, how, sessions, log_in=log_in)
                    after = pss(pid) / 1024 / 1024
                kind = f"{'TLS' if how else 'plain'}, {'logged in' if log_in else 'greeted'}:"
                print(
                    f"{kind:<17} {each:5.1f} KiB each; the process {alone:.1f} MiB before, {after:.1f} after"
                )


if __name__ == "__main__":
    run()
