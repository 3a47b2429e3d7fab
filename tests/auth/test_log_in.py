"""Logging in: who is let in, by which names, and what a store that fails has to do with it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from passlib.hash import sha256_crypt

from mailstack.auth import passwords
from mailstack.auth.logins import Guest, Logins
from mailstack.auth.passwords import Verifier
from mailstack.errors import LoginRefused, StoreUnavailable
from mailstack.mail.address import Mailbox, parse_mailbox
from mailstack.store import accounts, aliases, domains, routes
from mailstack.store.engine import Database
from mailstack.store.store import Store

SECRET = "correct horse"
GUEST = Guest("192.0.2.1")


@pytest.fixture(scope="session")
def password_hash() -> str:
    return passwords.hash_password(SECRET)


@pytest.fixture
def furnished(sqlite_url: str, password_hash: str) -> str:
    """The URL of a database with the account jones, also called me, and away, who is disabled."""
    database = Database(sqlite_url)
    with database.writing() as connection:
        domains.add_domain(connection, "example.org")
        for name in ("first", "jones", "away"):
            accounts.add_account(connection, Mailbox(name, "example.org"), password_hash=password_hash)
        accounts.disable(connection, parse_mailbox("away@example.org"))
        for source, *targets in (
            ("team@example.org", "first@example.org", "jones@example.org"),
            ("me@example.org", "jones@example.org"),
        ):
            aliases.add_alias(connection, parse_mailbox(source), [parse_mailbox(t) for t in targets])
    database.dispose()
    return sqlite_url


@asynccontextmanager
async def logins(
    url: str, tmp_path: Path, *, refusal_seconds: float = 0.0
) -> AsyncIterator[tuple[Logins, Store]]:
    store = Store(Database(url), state_dir=tmp_path, reserve_octets=0)
    verifier = Verifier()
    try:
        yield (
            Logins(store, verifier, default_domain="example.org", refusal_seconds=refusal_seconds),
            store,
        )
    finally:
        verifier.close()
        await store.close()


@pytest.mark.parametrize(
    "name", ["jones@example.org", "Jones@EXAMPLE.org", "jones", "JONES", "me@example.org", "me"]
)
async def test_log_in(furnished, tmp_path, name):
    async with logins(furnished, tmp_path) as (people, _):
        known = await people.log_in(name, SECRET, GUEST)
        assert known[:2] == (2, "jones@example.org")
        assert people.recall(name, SECRET, GUEST) == known
        assert people.recall(name, SECRET + "x", GUEST) is None


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("jones", "wrong"),
        ("jones", ""),
        ("jones", SECRET + "\0"),
        ("jones", SECRET * 1000),
        ("nobody", SECRET),
        ("away", SECRET),
        ("away", "wrong"),
        ("team", SECRET),
        ("", SECRET),
        ("@", SECRET),
        ("jones@elsewhere.example", SECRET),
        ("jones@example.org@example.org", SECRET),
        ("jo\0nes", SECRET),
        ("jones@example.org\r\n", SECRET),
    ],
)
async def test_every_refusal_is_alike(furnished, tmp_path, name, secret):
    async with logins(furnished, tmp_path, refusal_seconds=0.3) as (people, _):
        began = time.monotonic()
        with pytest.raises(LoginRefused, match=r"^the name or the password is wrong$"):
            await people.log_in(name, secret, GUEST)
        assert time.monotonic() - began >= 0.3
        assert people.recall(name, secret, GUEST) is None


async def test_an_older_hash_is_renewed_at_login(furnished, tmp_path):
    old = sha256_crypt.using(rounds=1000).hash(SECRET)
    async with logins(furnished, tmp_path) as (people, store):
        jones = parse_mailbox("jones@example.org")
        with store.database.writing() as connection:
            accounts.set_password(connection, jones, old)
        await people.log_in("jones", SECRET, GUEST)
        found = await store.read(routes.credentials, jones)
        assert found is not None
        assert found.password_hash.startswith("$argon2id$")
        known = people.recall("jones", SECRET, GUEST)
        assert known is not None
        assert known.password_hash == found.password_hash
        await people.log_in("jones", SECRET, GUEST)


async def test_a_store_that_cannot_write_lets_people_in_all_the_same(furnished, tmp_path):
    """They may be about to delete what fills the disk."""
    old = sha256_crypt.using(rounds=1000).hash(SECRET)
    async with logins(furnished, tmp_path) as (people, store):
        with store.database.writing() as connection:
            accounts.set_password(connection, parse_mailbox("jones@example.org"), old)

        async def full(*_arguments: object, **_options: object) -> None:
            raise StoreUnavailable("the disk is full")

        store.write = full
        assert (await people.log_in("jones", SECRET, GUEST)).account_id == 2
        known = people.recall("jones", SECRET, GUEST)
        assert known is not None
        assert known.password_hash == old
        del store.write


async def test_a_store_that_cannot_be_read_is_no_wrong_password(furnished, tmp_path):
    async with logins(furnished, tmp_path) as (people, store):

        async def unavailable(*_arguments: object, **_options: object) -> None:
            raise StoreUnavailable("the database does not answer")

        store.read = unavailable
        with pytest.raises(StoreUnavailable):
            await people.log_in("jones", SECRET, GUEST)
        del store.read
