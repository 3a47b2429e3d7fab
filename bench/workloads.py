"""What the servers are measured by: one row a workload, each the same for both."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from bench import load
from bench.servers import Server

Figures = dict[str, float]


class Workload(NamedTuple):
    """A row of the table: what it does once, and which of its figures are shown, in which sense."""

    name: str
    run: Callable[[Server, float], Figures]
    shown: tuple[str, ...]


def _timed(server: Server, kind: str, units: str, **options: object) -> Figures:
    """Run the generator; CPU milliseconds of all the server's processes for each unit of work."""
    before = server.account.used()
    figures = load.run(kind, users=server.users, timeout=240, **options)
    cpu = server.account.used().cpu - before.cpu
    polls = figures.get("polls", 0.0)
    # Whoever makes mail visible only later is asked for it more often, which is not its work.
    cpu -= polls * _poll_seconds.get(server.name, 0.0)
    if figures.get(units):
        figures["cpu_ms"] = 1000 * cpu / figures[units]
    return figures


_poll_seconds: dict[str, float] = {}
"""What one poll costs a server, as this run has found."""


def empty(server: Server) -> None:
    """Take all mail out of all maildrops; twice, since what was in a queue comes a little later."""
    for _ in range(2):
        load.run(
            "pop3",
            port=server.pop3,
            users=server.users,
            scenario="wipe",
            pipelined=True,
            connections=10,
            sessions=200,
        )
        time.sleep(0.3)


def poll(server: Server, scale: float, *, tls: bool = False) -> Figures:
    """Login, STAT, QUIT: 50 at once, in maildrops that do not change."""
    port = server.pop3s if tls else server.pop3
    sessions = int(4000 * scale)
    found = _timed(
        server, "pop3", "sessions", port=port, scenario="poll", connections=50, sessions=sessions, tls=tls
    )
    if not tls:
        _poll_seconds[server.name] = found["cpu_ms"] / 1000
    return found


def deliver(
    server: Server,
    scale: float,
    *,
    messages: int,
    octets: int = 2048,
    connections: int = 10,
    per_connection: int = 20,
    recipients: int = 1,
    pipelined: bool = False,
    users: int = 40,
) -> Figures:
    """Send, and wait until everything is in a maildrop."""
    # As many for each maildrop, so that it is known when one has all.
    count = max(int(messages * scale) // users, 1) * users
    found = _timed(
        server,
        "smtp",
        "accepted",
        port=server.smtp,
        wait=server.pop3,
        user_count=users,
        messages=count,
        octets=octets,
        connections=connections,
        per_connection=per_connection,
        recipients=recipients,
        pipelined=pipelined,
    )
    empty(server)
    return found


def fetch(
    server: Server,
    scale: float,
    *,
    scenario: str,
    octets: int,
    users: int,
    each: int,
    repeat: int = 1,
    pipelined: bool = False,
    connections: int = 10,
) -> Figures:
    """Fill maildrops, then fetch them; `drain` deletes what it has fetched."""
    each = max(int(each * scale), 1)
    load.run(
        "smtp",
        port=server.smtp,
        wait=server.pop3,
        users=server.users,
        user_count=users,
        messages=users * each,
        octets=octets,
        connections=10,
        per_connection=50,
        pipelined=True,
        timeout=240,
    )
    found = _timed(
        server,
        "pop3",
        "messages" if scenario in ("drain", "retr") else "sessions",
        port=server.pop3,
        user_count=users,
        scenario=scenario,
        sessions=users,
        repeat=repeat,
        connections=connections,
        pipelined=pipelined,
    )
    empty(server)
    return found


def idle(server: Server, _scale: float, *, smtp: bool, state: str) -> Figures:
    """Connections that do nothing: by how much the server's memory grows for each."""
    before = server.account.pss_kib()
    count = 200 if state == "ready" and not smtp else 1000  # a login has its maildrop for itself
    port = server.smtp if smtp else server.pop3
    with load.held(port=port, users=server.users, connections=count, state=state, smtp=smtp) as found:
        grown = server.account.pss_kib() - before
        return {"kib": grown / found["held"], "held": found["held"]}


def _of(run: Callable[..., Figures], **options: object) -> Callable[[Server, float], Figures]:
    return lambda server, scale: run(server, scale, **options)


_SMTP = ("visible_per_second", "accepted_per_second", "cpu_ms")
_POP3 = ("sessions_per_second", "cpu_ms")
_RETR = ("messages_per_second", "megabytes_per_second", "cpu_ms")

WORKLOADS = (
    # First of all: memory that was used before would be used again, and hide what they cost.
    Workload("idle SMTP connection", _of(idle, smtp=True, state="ready"), ("kib",)),
    Workload("idle POP3 connection, greeted", _of(idle, smtp=False, state="greeted"), ("kib",)),
    Workload("idle POP3 session, logged in", _of(idle, smtp=False, state="ready"), ("kib",)),
    Workload("poll, 50 at once", _of(poll), _POP3),
    Workload("poll under TLS, 50 at once", _of(poll, tls=True), _POP3),
    Workload("2 KB, 10 connections x 20", _of(deliver, messages=4000), _SMTP),
    Workload("2 KB, 100 connections x 20", _of(deliver, messages=4000, connections=100), _SMTP),
    Workload(
        "2 KB, a connection each, 100 at once",
        _of(deliver, messages=3000, connections=100, per_connection=1),
        _SMTP,
    ),
    Workload("50 KB", _of(deliver, messages=1200, octets=51_200), _SMTP),
    Workload(
        "5 MB", _of(deliver, messages=80, octets=5_242_880, connections=4, per_connection=5, users=20), _SMTP
    ),
    Workload(
        "one message to 100 recipients",
        _of(deliver, messages=200, recipients=100, users=100, connections=1),
        _SMTP,
    ),
    Workload(
        "drain 2 KB with DELE, lockstep",
        _of(fetch, scenario="drain", octets=2048, users=100, each=100),
        _RETR,
    ),
    Workload(
        "drain 2 KB with DELE, pipelined",
        _of(fetch, scenario="drain", octets=2048, users=100, each=100, pipelined=True),
        _RETR,
    ),
    Workload(
        "RETR 50 KB, pipelined",
        _of(fetch, scenario="retr", octets=51_200, users=20, each=20, repeat=10, pipelined=True),
        _RETR,
    ),
    Workload(
        "RETR 5 MB",
        _of(fetch, scenario="retr", octets=5_242_880, users=10, each=4, repeat=5, connections=4),
        _RETR,
    ),
)
