"""What strangers learn of who has an account here: nothing, by any answer, salt or time."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from passlib.hash import sha512_crypt

from mailstack.auth import throttle
from mailstack.auth.logins import KEYS_SECONDS, Logins
from mailstack.mail.address import Mailbox
from mailstack.store import accounts, domains, logins
from mailstack.store.clock import now
from mailstack.store.engine import Database
from tests.auth.rig import HERE, ITERATIONS, THERE, history, refused, running, stored


async def test_a_stranger_has_one_salt_whatever_process_is_asked(start) -> None:  # RFC 5802 §9
    salts = set()
    for _ in range(2):
        async with start() as server:
            for name in ("nobody", "Nobody@example.ORG"):
                began = time.monotonic()
                salts.add((await server.find_keys(name, HERE)).keys.salt)
                assert time.monotonic() - began >= KEYS_SECONDS
            nonces = {(await server.find_keys("nobody", HERE)).nonce for _ in range(3)}
            assert len(nonces) == 3
    assert len(salts) == 1


NAMES_OF_ONE = ("{}", "{}@old.example", "{}+@example.org", '"{}+shop"@Example.ORG', "{}+a+b@old.example")


async def renamed(server: Logins) -> None:
    """Give accounts in example.org to the domain old.example, which then is an old name of it."""
    with server._store.database.writing() as connection:
        domains.rename_domain(connection, "example.org", "old.example")
        domains.rename_domain(connection, "old.example", "example.org")


async def test_a_strangers_names_have_one_salt_as_an_accounts_have(start) -> None:
    """Else two questions for a salt, with and without a plus, tell whether there is such an account."""
    async with start() as server:
        await renamed(server)
        for who in ("jo", "nobody"):
            found = [await server.find_keys(name.format(who), HERE) for name in NAMES_OF_ONE]
            assert len({each.keys.salt for each in found}) == 1
            assert {each.whose.key for each in found} == {f"{who}@example.org"}
        others = "nobody@example.net", "+nobody@example.org", "nobody@elsewhere.example"
        assert len({(await server.find_keys(name, HERE)).keys.salt for name in (*others, "nobody")}) == 4


async def test_failures_by_a_strangers_names_count_together_as_an_accounts_do(start) -> None:
    """Else the sixth refusal, which comes later for an account alone, tells that there is one."""
    async with start() as server:
        await renamed(server)
        for who in ("jo", "nobody"):
            for name in NAMES_OF_ONE:
                await refused(server, name.format(who), "wrong")
            counted = await history(server, f"{who}@example.org", HERE)
            assert counted == (len(NAMES_OF_ONE), len(NAMES_OF_ONE), None)
            assert throttle.wait_seconds(counted, now()) == 1


async def test_a_salt_does_not_depend_on_whom_somebody_acts_as(start) -> None:
    """Else an authorization identity that is somebody else's tells whether the name is anybody's."""
    async with start() as server:
        for who in ("jo", "nobody"):
            found = [await server.find_keys(who, HERE, acting_as=other) for other in ("", who, "al", "@@")]
            assert len({each.keys for each in found}) == 1


async def iterations(server: Logins) -> list[int]:
    """What some strangers are asked for."""
    found = await asyncio.gather(*(server.find_keys(f"nobody{n}", HERE) for n in range(40)))
    return [each.keys.iterations for each in found]


async def test_a_stranger_is_asked_for_the_iterations_of_an_account(start) -> None:
    """Else, once the setting has changed, who is asked for it is nobody."""
    async with start(scram_iterations=2 * ITERATIONS) as server, start() as unchanged:
        assert {*await iterations(server)} == {ITERATIONS}  # jo's and di's
        assert (await server.find_keys("al", HERE)).keys.iterations == ITERATIONS  # who has no keys
        await server.log_in("al", "rubber", HERE)
        mixed = await iterations(server)
        assert {*mixed} == {ITERATIONS, 2 * ITERATIONS}
        assert await iterations(unchanged) == mixed
        with server._store.database.writing() as connection:
            for name, secret in (("jo", "pencil"), ("al", "rubber"), ("di", "ruler")):
                password_hash = stored(secret).password_hash
                accounts.set_password(connection, Mailbox(name, "example.org"), password_hash)
        assert {*await iterations(server)} == {2 * ITERATIONS}
        assert {*await iterations(unchanged)} == {ITERATIONS}


def test_an_account_more_or_less_changes_the_iterations_of_few_strangers(database: Database) -> None:
    """Else a stranger could be told by iterations that come and go."""

    def lent() -> list[str | None]:
        with database.reading() as connection:
            return [logins.lent_keys(connection, number) for number in range(64)]

    def changed(before: list[str | None], after: list[str | None]) -> set[str | None]:
        return {new for old, new in zip(before, after, strict=True) if new != old}

    with database.writing() as connection:
        domains.add_domain(connection, "example.org")
    assert {*lent()} == {None}
    found = lent()
    for n in range(20):
        mailbox = Mailbox(f"u{n}", "example.org")
        with database.writing() as connection:
            accounts.add_account(connection, mailbox, password_hash="x", scram_keys=f"keys {n}")
        before, found = found, lent()
        assert changed(before, found) == {f"keys {n}"}
    assert {*found} == {f"keys {n}" for n in range(20)}
    with database.writing() as connection:
        accounts.remove_account(connection, Mailbox("u7", "example.org"))
    assert changed(found, lent()) == {"keys 8"}


async def test_unknown_names_are_counted_like_known_ones(start) -> None:
    async with start() as server:
        for _ in range(2):
            await refused(server, "Nobody@Example.ORG", "wrong")
        assert await history(server, "nobody@example.org", HERE) == (2, 2, None)


async def test_a_refusal_takes_as_long_whatever_was_wrong(sqlite_url: str, tmp_path: Path) -> None:
    """An unknown name, a wrong password and a scheme of another speed are told apart by nothing."""
    async with running(sqlite_url, tmp_path, refusal_seconds=0.5) as server:
        await server.log_in("jo", "pencil", HERE)  # argon2 is warm
        slow = sha512_crypt.using(rounds=20_000).hash("chalk")
        with server._store.database.writing() as connection:
            accounts.set_password(connection, Mailbox("al", "example.org"), slow)
        took = {}
        for _ in range(3):  # a check that a busy machine makes slow tells the others how slow to be
            for name in ("jo", "al", "nobody", "di", "@@"):
                began = time.monotonic()
                await refused(server, name, "wrong", THERE)
                took[name] = time.monotonic() - began
            assert min(took.values()) >= 0.5
            if max(took.values()) - min(took.values()) < 0.25:  # the step of the grid is twice that
                break
        else:
            pytest.fail(f"the time tells: {took}")
        began = time.monotonic()
        await refused(server, "jo", "wrong", THERE._replace(failures=1))
        assert time.monotonic() - began >= 1.0
