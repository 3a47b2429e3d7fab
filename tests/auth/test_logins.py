"""Logging in on the real store: who is let in, and what is written down."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from pathlib import Path

import pytest
from passlib.hash import sha512_crypt

from mailstack.auth import passwords, scram, throttle
from mailstack.auth.logins import Guest, Logins
from mailstack.errors import LoginRefused
from mailstack.mail.address import Mailbox, parse_mailbox
from mailstack.store import accounts, aliases, domains, logins, routes
from mailstack.store.clock import now
from tests.auth.rig import HERE, ITERATIONS, THERE, history, refused

HOUR = 3600 * 1_000_000


async def test_every_spelling_of_a_name_and_no_other_password(start) -> None:
    async with start() as server:
        for name in ("jo", "jo@example.org", "JO@Example.ORG", '"jo"@example.org', "jo+shop@example.org"):
            assert (await server.log_in(name, "pencil", HERE)).name == "jo@example.org"
        said = {
            await refused(server, "jo", "Pencil"),
            await refused(server, "nobody", "pencil"),
            await refused(server, "jo@example.net", "pencil"),
            await refused(server, "di", "ruler"),
            await refused(server, "@@", "pencil"),
            await refused(server, "jo", "\0"),
        }
        assert said == {"the name or the password is wrong"}


async def test_names_and_passwords_in_other_scripts(start) -> None:
    async with start() as server:
        mailbox = parse_mailbox("jürgen@example.org")
        kept = passwords.stored("Grüße\N{NO-BREAK SPACE}dort", iterations=ITERATIONS)
        with server._store.database.writing() as connection:
            accounts.add_account(connection, mailbox, password_hash=kept.password_hash)
            # a hash of elsewhere, of a text that RFC 4013 writes otherwise
            foreign = passwords.context().hash("a\N{NO-BREAK SPACE}b")
            accounts.add_account(connection, Mailbox("ⅸ", "example.org"), password_hash=foreign)
        decomposed = "Ju\N{COMBINING DIAERESIS}rgen@example.org", "Gru\N{COMBINING DIAERESIS}ße dort"
        assert (await server.log_in(*decomposed, HERE)).name == "jürgen@example.org"
        assert (await server.log_in("Ⅸ", "a\N{NO-BREAK SPACE}b", HERE)).name == "ⅸ@example.org"


async def test_one_acts_as_oneself_only(start) -> None:  # RFC 4616 §2
    async with start() as server:
        with server._store.database.writing() as connection:
            aliases.add_alias(connection, Mailbox("joanna", "example.org"), [Mailbox("jo", "example.org")])
        for own in ("jo", "jo@example.org", "joanna"):
            assert (await server.log_in("jo", "pencil", HERE, acting_as=own)).name == "jo@example.org"
            assert server.recall("jo", "pencil", HERE, acting_as=own) is not None
        for foreign in ("al", "nobody", "al@example.net"):
            await refused(server, "jo", "pencil", acting_as=foreign)
            assert server.recall("jo", "pencil", HERE, acting_as=foreign) is None


async def test_what_is_remembered_tells_a_guesser_nothing(start) -> None:
    """Or the right one of a thousand guesses would be let in at once, and all others given up."""
    async with start(refusal_seconds=3600) as server:
        known = await server.log_in("jo", "pencil", HERE)
        assert server.recall("jo", "pencil", HERE) == known
        assert server.recall("jo", "pencil", THERE) is None
        guess = asyncio.create_task(refused(server, "jo", "wrong"))
        await asyncio.sleep(0)
        assert server.recall("jo", "pencil", HERE) is None
        assert await server.log_in("jo", "pencil", HERE) == known  # which the guess does not delay
        assert not guess.done()
        assert server.recall("jo", "pencil", HERE) is None
        guess.cancel()  # as its connection ends
        await asyncio.wait([guess])
        assert server.recall("jo", "pencil", HERE) == known
        assert not server._checking


async def test_keys_are_made_at_the_first_login_with_the_password(start) -> None:
    async with start() as server:
        assert not await server.scram_works()
        await refused(server, "al", "wrong")
        await server.log_in("al", "rubber", HERE)
        server._all_have_keys_until = 0
        assert await server.scram_works()
        with server._store.database.reading() as connection:
            kept = routes.credentials(connection, Mailbox("al", "example.org"))
        assert kept is not None
        assert kept.scram_keys is not None
        keys = scram.parse(kept.scram_keys)
        assert keys == scram.keys("rubber", iterations=ITERATIONS, salt=keys.salt)


async def test_an_old_hash_is_renewed_at_login_with_its_keys(start) -> None:
    async with start() as server:
        old = sha512_crypt.using(rounds=1000).hash("chalk")
        with server._store.database.writing() as connection:
            accounts.set_password(connection, Mailbox("jo", "example.org"), old)
        assert (await server.log_in("jo", "chalk", HERE)).password_hash.startswith("$argon2id$")
        assert await server._store.read(logins.lacking_keys) == 1  # al's


async def test_of_two_logins_that_renew_a_hash_both_know_the_one_in_force(start) -> None:
    async with start() as server:
        old = sha512_crypt.using(rounds=1000).hash("chalk")
        with server._store.database.writing() as connection:
            jo = accounts.find_account(connection, Mailbox("jo", "example.org")).id
            accounts.set_password(connection, Mailbox("jo", "example.org"), old)
        both = await asyncio.gather(*(server.log_in("jo", "chalk", guest) for guest in (HERE, THERE)))
        in_force = await server._store.read(routes.password_hash, jo)
        assert [each.password_hash for each in both] == [in_force] * 2


async def prove(server: Logins, name: str, secret: str, guest: Guest = HERE, acting_as: str = ""):
    found = await server.find_keys(name, guest, acting_as=acting_as)
    known = scram.keys(secret, iterations=found.keys.iterations, salt=found.keys.salt)
    return await server.judge(found, guest, proven=known.stored_key == found.keys.stored_key)


async def test_scram_lets_in_whom_a_password_lets_in(start) -> None:
    async with start() as server:
        assert (await prove(server, "jo", "pencil")).name == "jo@example.org"
        assert (await prove(server, "jo", "pencil", acting_as="jo@example.org")).account_id
        for name, secret in (("jo", "wrong"), ("di", "ruler"), ("al", "rubber"), ("nobody", "x")):
            with pytest.raises(LoginRefused):
                await prove(server, name, secret)
        with pytest.raises(LoginRefused):
            await prove(server, "jo", "pencil", acting_as="al")
        assert (await history(server, "jo@example.org", HERE)).device_failures == 2


def last_write(server: Logins) -> int | None:
    """When SQLite's log last grew."""
    path = server._store.database.path
    return Path(f"{path}-wal").stat().st_mtime_ns if path else None


async def test_a_known_device_is_exempt_and_a_poll_of_it_writes_nothing(start) -> None:
    async with start() as server, start(refusal_seconds=30) as restarted:
        await server.log_in("jo", "pencil", HERE)
        for n in range(30):
            await server._store.write(
                logins.record_failures, logins.Attempt("jo@example.org", f"203.0.113.{n}", now())
            )
        noted, written = await history(server, "jo@example.org", HERE), last_write(server)
        assert noted.failures == 30
        assert throttle.wait_seconds(noted._replace(succeeded_at=None), now()) * 30 >= 120
        async with asyncio.timeout(60):  # anybody else would wait for two minutes
            await restarted.log_in("jo", "pencil", HERE)
        assert await history(server, "jo@example.org", HERE) == noted
        assert last_write(server) == written


async def test_a_new_device_of_an_account_under_attack_waits_and_gets_in(start) -> None:
    async with start(refusal_seconds=0.05) as server:
        for n in range(30):
            await server._store.write(
                logins.record_failures, logins.Attempt("jo@example.org", f"203.0.113.{n}", now())
            )
        began = time.monotonic()
        assert (await server.log_in("jo", "pencil", THERE)).name == "jo@example.org"
        assert time.monotonic() - began >= 0.05 * 4


async def test_failures_count_for_the_device_and_for_the_name_but_never_for_an_address(start) -> None:
    async with start() as server:
        for _ in range(3):
            await refused(server, "jo", "wrong")
        await refused(server, "jo", "wrong", THERE)
        assert await history(server, "jo@example.org", HERE) == (4, 3, None)
        assert await history(server, "jo@example.org", THERE) == (4, 1, None)
        assert await history(server, "al@example.org", HERE) == (0, 0, None)
        await server.log_in("jo", "pencil", HERE)
        assert (await history(server, "jo@example.org", HERE))[:2] == (4, 0)
        await refused(server, "jo", "wrong")  # a known device counts for itself alone
        assert (await history(server, "jo@example.org", HERE))[:2] == (4, 1)


async def test_counters_are_shared_and_an_administrator_can_clear_them(start) -> None:
    async with start() as one, start() as other:
        await refused(one, "jo", "wrong")
        assert (await history(other, "jo@example.org", HERE)).device_failures == 1
        with other._store.database.writing() as connection:
            assert logins.unlock(connection, "jo@example.org") == 2
            assert logins.unlock(connection, "jo@example.org") == 0
        assert await history(one, "jo@example.org", HERE) == (0, 0, None)


async def test_failures_of_an_hour_ago_are_forgotten(start) -> None:
    async with start() as server:
        write = partial(server._store.write, logins.record_failures)
        await write(logins.Attempt("jo@example.org", HERE.peer, now() - 2 * HOUR))
        assert await history(server, "jo@example.org", HERE) == (0, 0, None)
        await write(logins.Attempt("jo@example.org", HERE.peer, now()))
        assert await history(server, "jo@example.org", HERE) == (1, 1, None)


async def test_made_up_names_do_not_fill_the_store(start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logins, "_KEPT_FAILURES", 10)
    async with start() as server:
        await server.log_in("jo", "pencil", HERE)
        attempts = [logins.Attempt(f"u{n}@example.org", HERE.peer, now() + n) for n in range(50)]
        with server._store.database.writing() as connection:
            logins.record_failures(connection, attempts)
        with server._store.database.reading() as connection:
            left = [logins.devices(connection, each.key, now()) for each in attempts]
        assert sum(map(len, left)) <= 12
        assert left[-1]
        assert (await history(server, "jo@example.org", HERE)).succeeded_at is not None


async def test_many_connections_of_one_device_guess_no_faster(start) -> None:
    async with start(refusal_seconds=0.05) as server:
        began = time.monotonic()
        await asyncio.gather(*(refused(server, "nobody", f"guess {n}") for n in range(8)))
        assert time.monotonic() - began >= 0.05 * 4  # two at a time, and the last of them wait


async def test_devices_and_failures_follow_a_rename_of_their_domain(start) -> None:
    async with start() as server:
        await server.log_in("jo", "pencil", HERE)
        for name in ("jo", "nobody", "jo@example.net"):
            await refused(server, name, "guess", THERE)
        with server._store.database.writing() as connection:
            domains.rename_domain(connection, "example.org", "new.example")
        assert (await history(server, "jo@new.example", HERE)).succeeded_at is not None
        for name in ("jo@new.example", "nobody@new.example", "jo@example.net"):
            assert (await history(server, name, THERE)).failures == 1
        assert await history(server, "jo@example.org", THERE) == (0, 0, None)
        with server._store.database.writing() as connection:
            domains.rename_domain(connection, "new.example", "example.org")
        assert (await history(server, "jo@example.org", THERE)).failures == 1


async def test_devices_follow_a_rename_and_go_with_the_account(start) -> None:
    async with start() as server:
        await server.log_in("jo", "pencil", HERE)
        jo, joanna = Mailbox("jo", "example.org"), Mailbox("joanna", "example.org")
        with server._store.database.writing() as connection:
            accounts.rename_account(connection, jo, joanna)
        assert (await history(server, "joanna@example.org", HERE)).succeeded_at is not None
        assert await history(server, "jo@example.org", HERE) == (0, 0, None)
        with server._store.database.writing() as connection:
            accounts.remove_account(connection, joanna)
        assert await history(server, "joanna@example.org", HERE) == (0, 0, None)
