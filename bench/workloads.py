"""What the servers are given to do: each workload is the same for all of them."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from bench import load
from bench.servers import Server

Figures = dict[str, float]


def _timed(server: Server, kind: str, units: str, **options: object) -> Figures:
    """Run the generator; CPU milliseconds of all the server's processes for each unit of work.

    What a server puts off until after its reply is counted, too.
    """
    before = server.account.used()
    figures = load.run(kind, users=server.users, timeout=240, **options)
    server.account.settle()
    cpu = server.account.used().cpu - before.cpu
    # Whoever makes mail visible only later is asked for it more often, which is not its work.
    cpu -= figures.get("polls", 0.0) * _poll_seconds.get(server.name, 0.0)
    if figures.get(units):
        figures["cpu_ms"] = 1000 * cpu / figures[units]
    if kind == "smtp":
        figures["cpu_ms"] /= float(str(options.get("recipients", 1)))
    elif figures.get("megabytes_per_second"):
        megabytes = figures["megabytes_per_second"] * figures["sessions"] / figures["sessions_per_second"]
        figures["cpu_us_a_megabyte"] = 1e6 * cpu / megabytes
    return figures


RATES: Final = (50, 100, 200, 400, 800, 1200, 1600, 2400, 3200, 4800)
"""Messages a second, for `open_loop`."""

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
            server.account.settle()  # what it clears away later is not the next one's burden
            return
        time.sleep(0.3)
    raise RuntimeError(f"the maildrops of {server.name} do not become empty")


def _have_logins_remembered(server: Server) -> None:
    """Each process remembers a login for some minutes by itself: no hash is in what is measured then."""
    load.run(
        "pop3",
        port=server.pop3,
        users=server.users,
        timeout=240,
        scenario="poll",
        connections=50,
        sessions=2000,
    )


def poll(server: Server, scale: float, *, tls: bool = False) -> Figures:
    """Login, STAT, QUIT: 50 at once, in maildrops that do not change."""
    port = server.pop3s if tls else server.pop3
    sessions = int(4000 * scale)
    options = {"port": port, "scenario": "poll", "connections": 50, "tls": tls}
    _have_logins_remembered(server)
    found = _timed(server, "pop3", "sessions", sessions=sessions, **options)
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


def open_loop(server: Server, _scale: float) -> Figures:
    """Mail at a given rate, late or not: how long a transaction takes, until the server falls behind."""
    figures: Figures = {"failed": 0}
    for rate in RATES:
        found = load.run(
            "smtp",
            port=server.smtp,
            users=server.users,
            user_count=40,
            rate=rate,
            messages=rate,
            connections=50,
            per_connection=rate,
        )
        figures |= {f"{part}_ms_at_{rate}": found[f"transaction_{part}_ms"] for part in ("p50", "p99")}
        figures["failed"] += found["failed"]
        empty(server)
        if found["accepted_per_second"] < 0.9 * rate:
            break
    return figures


def fill(server: Server, *, users: int, each: int, octets: int = 2048) -> None:
    """Mail for as many maildrops, which were empty; it is there when this returns."""
    found = load.run(
        "smtp",
        port=server.smtp,
        wait=server.pop3,
        users=server.users,
        user_count=users,
        messages=users * each,
        octets=octets,
        connections=10,
        per_connection=100,
        pipelined=True,
        timeout=240,
    )
    if found["failed"]:
        raise RuntimeError(f"{server.name} has not taken all that it is to be asked for")
    server.account.settle()


def fetch(server: Server, _scale: float, *, users: int, repeat: int, connections: int = 10) -> Figures:
    """Fetch all that is there, again and again, pipelined; it stays."""
    return _timed(
        server,
        "pop3",
        "messages",
        port=server.pop3,
        user_count=users,
        scenario="retr",
        sessions=users,
        repeat=repeat,
        connections=connections,
        pipelined=True,
    )


def drain(server: Server, scale: float) -> Figures:
    """Fetch and delete a hundred messages each: half of the maildrops in lockstep, half pipelined."""
    half = max(int(100 * scale), 1)
    fill(server, users=2 * half, each=100)
    _have_logins_remembered(server)
    found: Figures = {"failed": 0}
    for first, how in ((0, "lockstep"), (half, "pipelined")):
        one = _timed(
            server,
            "pop3",
            "messages",
            port=server.pop3,
            user_count=half,
            first_user=first,
            scenario="drain",
            sessions=half,
            connections=10,
            pipelined=how == "pipelined",
        )
        found |= {f"{how}_per_second": one["messages_per_second"], f"{how}_cpu_ms": one["cpu_ms"]}
        found["failed"] += one["failed"]
        found["missed"] = found.get("missed", 0) + 100 * half - one["messages"]
    return found


def list_all(server: Server, _scale: float) -> Figures:
    """Login, STAT and UIDL in one big maildrop; and a poll of it behind each new message."""
    options = {"users": server.users, "user_count": 1}
    polls = []
    for _ in range(5):
        there = load.run("pop3", port=server.pop3, **options, scenario="poll")["found"]
        load.run("smtp", port=server.smtp, wait=server.pop3, **options, octets=1024, expected=int(there) + 1)
        polls.append(load.run("pop3", port=server.pop3, **options, scenario="poll")["session_p50_ms"])
    found = _timed(server, "pop3", "sessions", port=server.pop3, user_count=1, scenario="list", sessions=10)
    return found | {"poll_ms": statistics.median(polls)}


def idle(server: Server, _scale: float, *, smtp: bool, state: str, tls: bool = False) -> Figures:
    """A thousand connections that do nothing: by how much the memory of a fresh server grows for each."""
    port = server.smtp if smtp else server.pop3s if tls else server.pop3
    options = {"port": port, "users": server.users, "state": state, "smtp": smtp, "tls": tls}
    with load.held(connections=10, **options):  # have it load what it needs for any
        time.sleep(0.5)
    server.account.settle()
    before = server.account.pss_kib()
    with load.held(connections=1000, **options) as found:
        server.account.settle()
        grown = server.account.pss_kib() - before
        return {"kib": grown / found["held"], "held": found["held"], "failed": 1000 - found["held"]}


def whole(server: Server, _scale: float) -> Figures:
    """Everything that runs, used once and idle since."""
    load.run("pop3", port=server.pop3, users=server.users, scenario="poll", connections=10, sessions=200)
    load.run("smtp", port=server.smtp, users=server.users, wait=server.pop3, user_count=40, messages=40)
    time.sleep(2)
    server.account.settle()
    return {"mib": server.account.pss_kib() / 1024}


def logins(server: Server, scale: float) -> Figures:
    """First logins, which verify a hash, then polls, which remember."""
    options = {"port": server.pop3, "scenario": "poll", "connections": 10}
    first = _timed(server, "pop3", "sessions", sessions=200, **options)
    later = _timed(server, "pop3", "sessions", sessions=int(2000 * scale), **options)
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
    empty(server)
    return {
        "smtp_alone": alone_smtp,
        "pop3_alone": alone_pop3,
        "accepted_per_second": at_once[0],
        "sessions_per_second": at_once[1],
        "smtp_percent": 100 * at_once[0] / alone_smtp,
        "pop3_percent": 100 * at_once[1] / alone_pop3,
    }
