"""What senders and mail programs do to a server that has grown, by the load generator."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from bench import load
from bench.accounting import Account
from bench.ours import SECRET, served

POP3, SMTP = 21_110, 21_025
CONNECTIONS = 100
PER_CONNECTION = 20
MESSAGES = 10_000
"""To each account in turn, so that every message is another maildrop's."""

POLLED = 40
"""How many accounts poll: the first login of each hashes a password, which is not what is measured."""

POLLS = 4000
LISTENING = {
    "MAILSTACK_POP3__LISTEN": f"127.0.0.1:{POP3}",
    "MAILSTACK_SMTP__LISTEN": f"127.0.0.1:{SMTP}",
    "MAILSTACK_POP3__TLS_LISTEN": "",
    "MAILSTACK_LOG__LEVEL": "error",
}


class Wire(NamedTuple):
    """What one server did in one turn; CPU is that of its process."""

    accepted_per_second: float
    cpu_us_a_message: float
    sessions_per_second: float
    session_p50_ms: float
    cpu_us_a_session: float


def measured(file: Path, names: list[str], octets: int) -> Wire:
    """Start a server on the folder of these settings, load it with mail, then with polls."""
    users = file.with_name("users.txt")
    users.write_text("".join(f"{name}:{SECRET}\n" for name in names))
    account = Account(file.parent.name)
    who = {"users": users, "domain": "example.org"}
    mail = {**who, "port": SMTP, "octets": octets, "connections": CONNECTIONS, "timeout": 240}
    poll = {**who, "port": POP3, "scenario": "poll", "user_count": POLLED, "connections": 20}
    with served(file, ("smtp", "pop3"), listening=LISTENING, account=account):
        _run("smtp", **mail, messages=len(names), per_connection=PER_CONNECTION)
        before = account.used().cpu
        sent = _run("smtp", **mail, messages=MESSAGES, per_connection=PER_CONNECTION)
        between = account.used().cpu
        _run("pop3", **poll, sessions=2 * POLLED)
        before_polls = account.used().cpu
        polled = _run("pop3", **poll, sessions=POLLS)
        after = account.used().cpu
    account.close()
    return Wire(
        sent["accepted_per_second"],
        (between - before) / MESSAGES * 1e6,
        polled["sessions_per_second"],
        polled["session_p50_ms"],
        (after - before_polls) / POLLS * 1e6,
    )


def _run(kind: str, **options: object) -> load.Figures:
    found = load.run(kind, **options)
    assert found["failed"] == 0, found
    return found
