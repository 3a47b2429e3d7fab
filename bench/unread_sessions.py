"""What a POP3 client costs in memory that asks and does not read: `python -m bench.unread_sessions`.

Plain and TLS, each kind in a process of its own: clients that have walked through some mail and then
asked for a message of 50 MB, and clients that have asked for the lists of a long maildrop. Prints by how
much the PSS of the server's process grew for each of them, once some were there.
"""

from __future__ import annotations

import argparse
import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby
from pathlib import Path

from bench.idle_sessions import pss
from bench.ours import SECRET, free_ports, made, served
from mailstack.mail.address import parse_mailbox
from mailstack.mail.spool import Spool
from mailstack.settings import load
from mailstack.store import accounts, messages
from mailstack.store.clock import now
from mailstack.store.engine import Database
from mailstack.store.messages import Deposit, Recipient

_LINE = b"." + b"x" * 75 + b"\r\n"
_WALKED = 8
_MESSAGES = [100_000] * _WALKED + [50_000_000] + [100_000] * 6


def filled(file: Path, names: Sequence[str], sizes: Sequence[int]) -> None:
    """Messages of these sizes in octets for everybody, each stored once."""
    database = Database(load(file, {}).url)
    with database.reading() as connection:
        found = [accounts.find_account(connection, parse_mailbox(f"{name}@example.org")) for name in names]
    to = tuple(Recipient(each.id, b"") for each in found)
    for size, several in groupby(sizes):
        with Spool(file.parent) as spool:
            spool.write(b"Subject: x\r\n\r\n" + _LINE * (size // len(_LINE)))
            count = len(list(several))
            for at in range(0, count, 1000):
                some = [Deposit("bench", "", spool, True, to, now(), None)] * min(1000, count - at)
                with database.writing() as connection:
                    messages.deposit(connection, some)
    database.dispose()


def session(port: int, context: ssl.SSLContext | None, asks: Sequence[bytes], number: int) -> socket.socket:
    """A client that reads the answers to all it asks for but the last, of which it reads the beginning."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(60)
    connection.connect(("127.0.0.1", port))
    if context is not None:
        connection = context.wrap_socket(connection, server_hostname="localhost")
    lines = connection.makefile("rb")
    assert lines.readline().startswith(b"+OK")
    for ask in (b"USER u%d" % number, b"PASS " + SECRET.encode(), *asks):
        connection.sendall(ask + b"\r\n")
        assert lines.readline().startswith(b"+OK")
        while ask is not asks[-1] and ask.startswith(b"RETR") and lines.readline() != b".\r\n":
            pass
    return connection


def told(kind: str, pid: int, open_one: Callable[[int], socket.socket], first: int, sessions: int) -> None:
    """Measure one kind and print its line.

    The `first` ones, at once, have the process load what it needs for any: SQLite alone keeps 8 MiB of
    pages for each of its connections.
    """
    with ThreadPoolExecutor(first) as pool:
        there = list(pool.map(open_one, range(first)))
    time.sleep(1)
    before = pss(pid)
    there += [open_one(first + number) for number in range(sessions)]
    time.sleep(1)
    print(f"{kind:<24} {(pss(pid) - before) / sessions / 1024:5.0f} KiB each", flush=True)
    for connection in there:
        connection.close()


def run() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=40)
    parser.add_argument("--list", type=int, default=100_000, help="messages in a long maildrop")
    words = parser.parse_args()
    plain, tls = free_ports(2)
    listening = {
        "MAILSTACK_LOG__LEVEL": "error",
        "MAILSTACK_POP3__LISTEN": f"127.0.0.1:{plain}",
        "MAILSTACK_POP3__TLS_LISTEN": f"127.0.0.1:{tls}",
    }
    walk = [b"RETR %d" % number for number in range(1, _WALKED + 2)]
    maildrops = (
        (5, words.sessions, _MESSAGES, {"RETR of 50 MB": walk}),
        (
            16,
            12,
            [10] * words.list,
            {f"{verb} of {words.list:,}": [verb.encode()] for verb in ("UIDL", "LIST")},
        ),
    )
    for first, sessions, sizes, kinds in maildrops:
        with tempfile.TemporaryDirectory() as folder:
            names = [f"u{number}" for number in range(first + sessions)]
            file = made(Path(folder, "mail"), names)
            filled(file, names, sizes)
            context = ssl.create_default_context(cafile=str(load(file, {}).tls.certificate))
            for kind, asks in kinds.items():
                for port, how in ((plain, None), (tls, context)):
                    with served(file, ("pop3",), listening=listening) as (pid,):
                        label = f"{kind}, {'TLS' if how else 'plain'}:"
                        told(label, pid, partial(session, port, how, asks), first, sessions)


if __name__ == "__main__":
    run()
