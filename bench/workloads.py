"""What the servers are measured by: one row a workload, each the same for both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from bench import load
from bench.servers import Server

Figures = dict[str, float]


class Fresh(NamedTuple):
    """Servers for one workload alone."""

    users: int = 200
    roles: tuple[tuple[str, ...], ...] = ((),)
    """Of each of our processes."""
    scheme: str = "PLAIN"
    """Of the passwords at the peer; ours are argon2id at any time."""


class Workload(NamedTuple):
    """A row of the table: what it does once, and which of its figures are shown, in which sense."""

    name: str
    run: Callable[[Server, float], Figures]
    shown: tuple[str, ...]
    fresh: Fresh | None = None
    """What servers of its own it wants, started for each round; None: those that run all the time."""


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
    if kind == "smtp":
        figures["cpu_ms"] /= float(str(options.get("recipients", 1)))
    elif figures.get("megabytes_per_second"):
        megabytes = figures["megabytes_per_second"] * figures["sessions"] / figures["sessions_per_second"]
        figures["cpu_us_a_megabyte"] = 1e6 * cpu / megabytes
    return figures


_poll_seconds: dict[str, float] = {}
"""What one poll costs a server, as this run has found."""


def empty(server: Server) -> None:
    """Take all mail out of all maildrops, until two looks have found none: nothing is under way either."""
    found_none = 0
    for _ in range(60):
        found = load.run(
            "pop3",
            port=server.pop3,
            users=server.users,
            scenario="wipe",
            pipelined=True,
            connections=10,
            sessions=200,
        )
        found_none = 0 if found["found"] else found_none + 1
        if found_none == 2:
            return
        time.sleep(0.3)
    raise RuntimeError(f"the maildrops of {server.name} do not become empty")


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


def twenty_thousand(server: Server, scale: float) -> Figures:
    """One maildrop of 20,000: login, STAT and UIDL; and a poll behind each new message."""
    count = max(int(20_000 * scale * 2), 1000)
    options = {"users": server.users, "user_count": 1}
    load.run(
        "smtp",
        port=server.smtp,
        wait=server.pop3,
        **options,
        messages=count,
        octets=1024,
        connections=10,
        per_connection=1000,
        pipelined=True,
        expected=count,
        timeout=240,
    )
    load.run("pop3", port=server.pop3, **options, scenario="list", sessions=2)
    found = _timed(server, "pop3", "sessions", port=server.pop3, user_count=1, scenario="list", sessions=10)
    polls = []
    for number in range(10):
        load.run(
            "smtp", port=server.smtp, wait=server.pop3, **options, octets=1024, expected=count + number + 1
        )
        polls.append(load.run("pop3", port=server.pop3, **options, scenario="poll")["session_p50_ms"])
    load.run("pop3", port=server.pop3, **options, scenario="wipe", pipelined=True, timeout=240)
    return found | {"poll_ms": statistics.median(polls)}


def idle(server: Server, _scale: float, *, smtp: bool, state: str, tls: bool = False) -> Figures:
    """Connections that do nothing: by how much the memory of a fresh server grows for each."""
    port = server.smtp if smtp else server.pop3s if tls else server.pop3
    options = {"port": port, "users": server.users, "state": state, "smtp": smtp, "tls": tls}
    with load.held(connections=10, **options):  # have it load what it needs for any
        time.sleep(0.5)
    time.sleep(1)
    before = server.account.pss_kib()
    count = 200 if state == "ready" and not smtp else 1000  # a login has its maildrop for itself
    with load.held(connections=count, **options) as found:
        time.sleep(1)
        grown = server.account.pss_kib() - before
        return {"kib": grown / found["held"], "held": found["held"], "failed": count - found["held"]}


def whole(server: Server, _scale: float) -> Figures:
    """Everything that runs, used once and idle since."""
    load.run("pop3", port=server.pop3, users=server.users, scenario="poll", connections=10, sessions=200)
    load.run("smtp", port=server.smtp, users=server.users, wait=server.pop3, user_count=40, messages=40)
    time.sleep(5)
    return {"mib": server.account.pss_kib() / 1024}


def logins(server: Server, scale: float) -> Figures:
    """First logins, which verify a hash, then polls, which remember."""
    options = {"port": server.pop3, "scenario": "poll", "connections": 10}
    first = _timed(server, "pop3", "sessions", sessions=200, **options)
    later = _timed(server, "pop3", "sessions", sessions=int(4000 * scale), **options)
    return {
        "first_per_second": first["sessions_per_second"],
        "first_cpu_ms": first["cpu_ms"],
        "sessions_per_second": later["sessions_per_second"],
        "cpu_ms": later["cpu_ms"],
        "failed": first["failed"] + later["failed"],
    }


def both(server: Server, scale: float) -> Figures:
    """Mail comes in and is polled, each alone and then both at once: what is left of each rate."""
    mail = {
        "port": server.smtp,
        "users": server.users,
        "user_count": 40,
        "connections": 10,
        "per_connection": 20,
    }
    poll = {"port": server.pop3, "users": server.users, "scenario": "poll", "connections": 50}
    load.run("pop3", **poll, sessions=400)
    seconds = 4 * scale
    counts = {"smtp": int(2000 * seconds) if server.name == "mailstack" else int(600 * seconds),
              "pop3": int(3000 * seconds) if server.name == "mailstack" else int(1500 * seconds)}  # fmt: skip
    alone_smtp = load.run("smtp", **mail, messages=counts["smtp"])["accepted_per_second"]
    alone_pop3 = load.run("pop3", **poll, sessions=counts["pop3"])["sessions_per_second"]
    with ThreadPoolExecutor(2) as pool:
        # As many of each as take the same time, so that one does not end in peace.
        smtp = pool.submit(load.run, "smtp", **mail, messages=int(alone_smtp * seconds))
        pop3 = pool.submit(load.run, "pop3", **poll, sessions=int(alone_pop3 * seconds))
    at_once = smtp.result()["accepted_per_second"], pop3.result()["sessions_per_second"]
    return {
        "smtp_alone": alone_smtp,
        "pop3_alone": alone_pop3,
        "accepted_per_second": at_once[0],
        "sessions_per_second": at_once[1],
        "smtp_percent": 100 * at_once[0] / alone_smtp,
        "pop3_percent": 100 * at_once[1] / alone_pop3,
    }


def _of(run: Callable[..., Figures], **options: object) -> Callable[[Server, float], Figures]:
    return lambda server, scale: run(server, scale, **options)


_SMTP = ("accepted_per_second", "visible_per_second", "transaction_p99_ms", "cpu_ms")
_POP3 = ("sessions_per_second", "session_p99_ms", "cpu_ms")
_RETR = ("messages_per_second", "megabytes_per_second", "cpu_ms", "cpu_us_a_megabyte")
_TWO = (("smtp",), ("pop3",))

WORKLOADS = (
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
    # One connection: with more, a recipient would be repeated within a message.
    Workload(
        "100 recipients, lockstep",
        _of(deliver, messages=200, recipients=100, users=100, connections=1),
        _SMTP,
    ),
    Workload(
        "100 recipients, pipelined",
        _of(deliver, messages=200, recipients=100, users=100, connections=1, pipelined=True),
        _SMTP,
    ),
    Workload(
        "drain 2 KB with DELE, lockstep",
        _of(fetch, scenario="drain", octets=2048, users=200, each=100),
        _RETR,
    ),
    Workload(
        "drain 2 KB with DELE, pipelined",
        _of(fetch, scenario="drain", octets=2048, users=200, each=100, pipelined=True),
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
    Workload("20,000 messages", twenty_thousand, ("session_p50_ms", "cpu_ms", "poll_ms")),
    Workload("idle SMTP connection", _of(idle, smtp=True, state="ready"), ("kib",), Fresh()),
    Workload("idle POP3 connection, greeted", _of(idle, smtp=False, state="greeted"), ("kib",), Fresh()),
    Workload("idle POP3 session, logged in", _of(idle, smtp=False, state="ready"), ("kib",), Fresh()),
    Workload(
        "idle POP3 session under TLS, logged in",
        _of(idle, smtp=False, state="ready", tls=True),
        ("kib",),
        Fresh(),
    ),
    Workload("everything, idle, 1,000 accounts", whole, ("mib",), Fresh(1000, _TWO)),
    Workload(
        "argon2id, 200 users, 10 at once",
        logins,
        ("first_per_second", "first_cpu_ms", "sessions_per_second", "cpu_ms"),
        Fresh(scheme="ARGON2ID"),
    ),
    Workload(
        "SMTP and polls at once",
        both,
        ("accepted_per_second", "sessions_per_second", "smtp_percent", "pop3_percent"),
        Fresh(roles=_TWO),
    ),
)
