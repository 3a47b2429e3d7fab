"""What an idle session costs in memory: `python -m bench.idle_sessions [--sessions 1000] [--runs 1]`.

For POP3, plain and TLS, greeted and logged in, and for SMTP, plain and TLS: starts a server in a
temporary folder, opens sessions, and prints by how much the PSS of the server's process grew for each.
"""

from __future__ import annotations

import argparse
import resource
import socket
import ssl
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.ours import SECRET, free_ports, made, served
from mailstack.settings import load


def pss(pid: int) -> int:
    """The process's share of memory, in octets."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the kernel tells no PSS")


def pop3_session(port: int, context: ssl.SSLContext | None, number: int, *, log_in: bool) -> socket.socket:
    """One idle POP3 session."""
    account = f"u{number}" if log_in else None
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


def smtp_session(port: int, context: ssl.SSLContext | None, _number: int) -> socket.socket:
    """One idle SMTP connection that has said EHLO, under TLS where there is a context."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    said = [b"EHLO client.example\r\n", *([b"STARTTLS\r\n"] if context else [])]
    assert connection.recv(100).startswith(b"220")
    for line in said:
        connection.sendall(line)
        assert connection.recv(1000).startswith(b"2")
    if context is None:
        return connection
    return context.wrap_socket(connection, server_hostname="localhost")


def measured(pid: int, open_one: Callable[[int], socket.socket], sessions: int) -> float:
    """KiB a session, once each account has had one before.

    What a process remembers of a login, for the next one to be cheap, is no session's.
    """
    for number in range(sessions):
        open_one(number).close()
    time.sleep(1)
    before = pss(pid)
    idle = [open_one(number) for number in range(sessions)]
    time.sleep(1)
    each = (pss(pid) - before) / sessions / 1024
    for connection in idle:
        connection.close()
    time.sleep(2)
    return each


def told(kind: str, pid: int, open_one: Callable[[int], socket.socket], sessions: int) -> None:
    """Measure one kind and print its line."""
    alone = pss(pid) / 1024 / 1024
    each = measured(pid, open_one, sessions)
    after = pss(pid) / 1024 / 1024
    print(f"{kind:<23} {each:5.1f} KiB each; the process {alone:.1f} MiB before, {after:.1f} after")


def run() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument(
        "--runs", type=int, default=1, help="measure each kind so often, each in a new process"
    )
    words = parser.parse_args()
    sessions = words.sessions
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory() as folder:
        file = made(Path(folder, "mail"), (f"u{number}" for number in range(sessions)))
        context = ssl.create_default_context(cafile=str(load(file, {}).tls.certificate))
        plain, tls, smtp = free_ports(3)
        pop3 = {
            "MAILSTACK_LOG__LEVEL": "error",
            "MAILSTACK_POP3__MAX_CONNECTIONS": "100000",
            "MAILSTACK_POP3__LISTEN": f"127.0.0.1:{plain}",
            "MAILSTACK_POP3__TLS_LISTEN": f"127.0.0.1:{tls}",
            "MAILSTACK_POP3__LOGIN_IDLE": "1h",
            "MAILSTACK_POP3__IDLE": "1h",
        }
        print(f"{sessions} idle sessions, each kind in a process of its own")
        for log_in in (False, True):
            for port, how in ((plain, None), (tls, context)) * words.runs:
                with served(file, ("pop3",), listening=pop3) as (pid,):
                    kind = f"POP3, {'TLS' if how else 'plain'}, {'logged in' if log_in else 'greeted'}:"
                    told(kind, pid, partial(pop3_session, port, how, log_in=log_in), sessions)
        listen = {
            "MAILSTACK_LOG__LEVEL": "error",
            "MAILSTACK_SMTP__LISTEN": f"127.0.0.1:{smtp}",
            "MAILSTACK_SMTP__MAX_CONNECTIONS": "100000",
        }
        for how in (None, context) * words.runs:
            with served(file, ("smtp",), listening=listen) as (pid,):
                kind = f"SMTP, {'TLS' if how else 'plain'}:"
                told(kind, pid, partial(smtp_session, smtp, how), sessions)


if __name__ == "__main__":
    run()
