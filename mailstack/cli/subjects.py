"""What the command line is about, subject by subject.

A subject is read when it is asked for. Most runs want one of them, and all together, with the libraries
that they use, take 0.6 s of CPU time to read.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

import typer

SUBJECTS: Final[Mapping[str, str]] = {
    "setup": "Look at the machine, make all that is missing, start, and say what to publish and to type in.",
    "init": "Write settings, a self-signed certificate and an empty store; overwrites nothing.",
    "demo": "Run a server to try, on this machine only: all set up, with an account and a first message.",
    "status": "Show whether the service answers and what it holds; the exit code is 69 where it does not.",
    "doctor": "Check all that can be wrong: names, ports, certificate, store, backups, units, the machine.",
    "dns": "Print the records that the DNS lacks for our domains, in zone-file form.",
    "deliver": "Put the message on standard input into the recipients' maildrops.",
    "top": "Show connections, sessions, rates and what waits for the disk; q ends it.",
    "bench": "Put a small load on the running server, for some seconds, and tell how fast it is.",
    "trace": "Tell what happened to mail, in the order of time: from connection to download and deletion.",
    "domain": "The domains that mail is received for.",
    "account": "Who has a maildrop here.",
    "alias": "Addresses that mean others, and catch-alls.",
    "maildrop": "The mail of one account.",
    "session": "POP3 sessions that are open now.",
    "database": "The store's schema, and whether it adds up.",
    "backup": "What is in backups, and how it comes back.",
    "certificate": "The certificate of all listeners.",
    "housekeeping": "Old mail goes, space comes back; for timers.",
    "settings": "What is set, by whom, and whether it can be.",
}
"""The modules beside this one, in the order of `mailstack --help`, and what the help of each begins with.

Each has an `app` of several commands, or a function of its own name and its EXAMPLE.
"""


def read(name: str) -> Any:
    """The command of a subject, or the group of its commands, as Typer makes it."""
    module = import_module(f"mailstack.cli.{name}")
    tree = typer.Typer(rich_markup_mode="rich", pretty_exceptions_enable=False)
    if hasattr(module, "app"):
        tree.add_typer(module.app)
    else:
        tree.command(name, epilog=module.EXAMPLE)(getattr(module, name))
    return typer.main.get_group(tree).commands[name]
