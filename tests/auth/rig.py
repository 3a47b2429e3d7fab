"""Logins on a real store for one test, and what a test asks of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

import pytest

from mailstack.auth import passwords
from mailstack.auth.logins import Guest, Logins
from mailstack.auth.passwords import Verifier
from mailstack.errors import LoginRefused
from mailstack.mail.address import Mailbox
from mailstack.store import accounts, domains, logins
from mailstack.store.clock import now
from mailstack.store.engine import Database
from mailstack.store.store import Store

HERE, THERE = Guest("192.0.2.1"), Guest("198.51.100.2")
ITERATIONS = 4096


@cache
def stored(secret: str) -> passwords.Stored:
    return passwords.stored(secret, iterations=ITERATIONS)


@asynccontextmanager
async def running(
    url: str, directory: Path, *, refusal_seconds: float = 0.01, scram_iterations: int = ITERATIONS
) -> AsyncIterator[Logins]:
    database = Database(url)
    with database.writing() as connection:
        if not domains.list_domains(connection):
            domains.add_domain(connection, "example.org")
            for name, secret in (("jo", "pencil"), ("al", "rubber"), ("di", "ruler")):
                kept = stored(secret)
                keys = None if name == "al" else kept.scram_keys
                mailbox = Mailbox(name, "example.org")
                accounts.add_account(connection, mailbox, password_hash=kept.password_hash, scram_keys=keys)
            accounts.disable(connection, Mailbox("di", "example.org"))
    store = Store(database, state_dir=directory, reserve_octets=0)
    verifier = Verifier()
    try:
        yield Logins(
            store,
            verifier,
            default_domain="example.org",
            refusal_seconds=refusal_seconds,
            scram_iterations=scram_iterations,
        )
    finally:
        await store.close()
        verifier.close()


async def history(server: Logins, name: str, guest: Guest) -> logins.History:
    return await server._store.read(logins.history, name, guest.peer, now())


async def refused(server: Logins, name: str, secret: str, guest: Guest = HERE, **options: str) -> str:
    with pytest.raises(LoginRefused) as refusal:
        await server.log_in(name, secret, guest, **options)
    return str(refusal.value)
