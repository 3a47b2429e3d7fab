"""The rows of the table: a workload, its figures, and what is aimed at for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from bench.servers import Server
from bench.workloads import (
    Figures,
    both,
    deliver,
    drain,
    fetch,
    fill,
    idle,
    list_all,
    logins,
    open_loop,
    poll,
    whole,
)


class Kind(NamedTuple):
    """What a figure is called, and whether it is a cost, of which less is better."""

    unit: str
    cost: bool = True


KINDS: Final = {
    "visible_per_second": Kind("visible/s", cost=False),
    "accepted_per_second": Kind("accepted/s", cost=False),
    "sessions_per_second": Kind("sessions/s", cost=False),
    "messages_per_second": Kind("messages/s", cost=False),
    "megabytes_per_second": Kind("MB/s", cost=False),
    "first_per_second": Kind("first logins/s", cost=False),
    "smtp_percent": Kind("SMTP, % of alone", cost=False),
    "pop3_percent": Kind("polls, % of alone", cost=False),
    "lockstep_per_second": Kind("messages/s, lockstep", cost=False),
    "pipelined_per_second": Kind("messages/s, pipelined", cost=False),
    "lockstep_cpu_ms": Kind("CPU ms each, lockstep"),
    "pipelined_cpu_ms": Kind("CPU ms each, pipelined"),
    "cpu_ms": Kind("CPU ms each"),
    "first_cpu_ms": Kind("CPU ms a first login"),
    "cpu_us_a_megabyte": Kind("CPU µs a MB"),
    "transaction_p99_ms": Kind("p99 of a transaction, ms"),
    "session_p99_ms": Kind("p99 of a session, ms"),
    "session_p50_ms": Kind("login, STAT, UIDL: ms"),
    "poll_ms": Kind("poll with one new message: ms"),
    "kib": Kind("PSS KiB each"),
    "mib": Kind("PSS MiB in all"),
}


class Aim(NamedTuple):
    """A figure that is shown, and what is wanted of it."""

    figure: str
    times: float | None = None
    """So many times as good as the peer."""
    bound: float | None = None
    """At most that where it is a cost, else at least that, whatever the peer's is."""


class Fresh(NamedTuple):
    """Servers of its own for each round."""

    users: int = 200
    scheme: str = "PLAIN"
    """Of the passwords at the peer; ours are argon2id at any time."""


class Workload(NamedTuple):
    """A row: what is done once a round, and which figures are shown."""

    name: str
    run: Callable[[Server, float], Figures]
    aims: tuple[Aim, ...]
    prepare: Callable[[Server, float], None] | None = None
    """Mail that is there in all rounds, made once before them."""
    fresh: Fresh | None = None
    """None: it is done by the servers that run all the time."""


def _of(run: Callable[..., Figures], **options: object) -> Callable[[Server, float], Figures]:
    return lambda server, scale: run(server, scale, **options)


def _filled(users: int, each: int, octets: int) -> Callable[[Server, float], None]:
    return lambda server, scale: fill(server, users=users, each=max(int(each * scale), 1), octets=octets)


def _smtp(
    *,
    visible: float | None = None,
    accepted: float | None = None,
    p99: float | None = None,
    cpu: float | None = None,
) -> tuple[Aim, ...]:
    return (
        Aim("accepted_per_second", accepted),
        Aim("visible_per_second", visible),
        Aim("transaction_p99_ms", p99),
        Aim("cpu_ms", cpu),
    )


def _retr(times: float) -> tuple[Aim, ...]:
    return (Aim("megabytes_per_second", times), Aim("cpu_us_a_megabyte", 2))


def _polls(times: float, cpu: float | None = None) -> tuple[Aim, ...]:
    return (Aim("sessions_per_second", times), Aim("session_p99_ms"), Aim("cpu_ms", cpu))


def _idle(name: str, most_kib: float, **options: object) -> Workload:
    return Workload(name, _of(idle, **options), (Aim("kib", bound=most_kib),), fresh=Fresh(1000))


WORKLOADS: Final = (
    Workload("2 KB, 1 connection x 20", _of(deliver, messages=1600, connections=1), _smtp()),
    Workload("2 KB, 10 connections x 20", _of(deliver, messages=8000), _smtp(visible=12, cpu=22)),
    Workload(
        "2 KB, 100 connections x 20",
        _of(deliver, messages=8000, connections=100),
        _smtp(accepted=11, visible=18, p99=6, cpu=35),
    ),
    Workload(
        "2 KB, a connection each, 100 at once",
        _of(deliver, messages=6000, connections=100, per_connection=1),
        _smtp(visible=14),
    ),
    Workload("50 KB, 10 connections x 20", _of(deliver, messages=2400, octets=51_200), _smtp(visible=8)),
    Workload(
        "5 MB, 4 connections x 5",
        _of(deliver, messages=160, octets=5_242_880, connections=4, per_connection=5, users=20),
        _smtp(visible=2.5, cpu=3),
    ),
    # One connection: with more, a recipient would be repeated within a message.
    Workload(
        "one message to 100 recipients, lockstep",
        _of(deliver, messages=200, recipients=100, users=100, connections=1),
        _smtp(visible=12),
    ),
    Workload(
        "one message to 100 recipients, pipelined",
        _of(deliver, messages=200, recipients=100, users=100, connections=1, pipelined=True),
        _smtp(visible=20),
    ),
    Workload("poll, 50 at once", _of(poll), _polls(4)),
    Workload("poll under TLS, 50 at once", _of(poll, tls=True), _polls(2, 2.5)),
    Workload(
        "drain maildrops of 100 x 2 KB, with DELE",
        drain,
        (
            Aim("lockstep_per_second", 2),
            Aim("lockstep_cpu_ms"),
            Aim("pipelined_per_second", 2.5),
            Aim("pipelined_cpu_ms"),
        ),
    ),
    Workload(
        "RETR 50 KB, pipelined", _of(fetch, users=20, repeat=20), _retr(2), prepare=_filled(20, 40, 51_200)
    ),
    Workload(
        "RETR 5 MB",
        _of(fetch, users=10, repeat=10, connections=4),
        _retr(1.5),
        prepare=_filled(10, 4, 5_242_880),
    ),
    Workload(
        "a maildrop of 20,000",
        list_all,
        (Aim("session_p50_ms", 2), Aim("cpu_ms"), Aim("poll_ms", 10)),
        prepare=_filled(1, 40_000, 1024),
    ),
    Workload(
        "SMTP and polls at once",
        both,
        (
            Aim("accepted_per_second"),
            Aim("sessions_per_second"),
            Aim("smtp_percent", bound=60),
            Aim("pop3_percent", bound=60),
        ),
    ),
    Workload("latency against load", open_loop, ()),
    _idle("idle SMTP connection", 5, smtp=True, state="ready"),
    _idle("idle POP3 connection, greeted", 5, smtp=False, state="greeted"),
    _idle("idle POP3 session, logged in", 8, smtp=False, state="ready"),
    _idle("idle POP3 session under TLS, logged in", 28, smtp=False, state="ready", tls=True),
    Workload("everything, idle, 1,000 accounts", whole, (Aim("mib", bound=120),), fresh=Fresh(1000)),
    Workload(
        "argon2id, 200 users, 10 at once",
        logins,
        (
            Aim("first_per_second", 1),
            Aim("first_cpu_ms"),
            Aim("sessions_per_second", 4),
            Aim("cpu_ms"),
        ),
        fresh=Fresh(scheme="ARGON2ID"),
    ),
)
"""At a scale of 0.5 there are 4,000 messages of 2 KB to send, and in RETR and the big maildrop what the names
say. With a third of that a twentieth of our time is the wait until the last one is visible, which is
nothing beside the peer's seconds."""
