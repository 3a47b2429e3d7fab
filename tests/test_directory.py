"""The directory: who takes mail, and for how much of it there is room."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mailstack import directory as directory_module
from mailstack.directory import Directory
from mailstack.errors import (
    MailboxDisabled,
    MaildropFull,
    NoSuchMailbox,
    NotOurDomain,
)
from mailstack.mail.address import Mailbox, parse_mailbox
from mailstack.mail.envelope import UNBOUNDED, Bound
from mailstack.store import accounts, aliases, domains, limits
from mailstack.store.engine import Database
from mailstack.store.store import Store
from tests.support import maildrops


@pytest.fixture
def furnished(sqlite_url) -> str:
    """The URL of a database with accounts in it."""
    database = Database(sqlite_url)
    with database.writing() as connection:
        domains.add_domain(connection, "example.org")
        for name, quota in (("first", None), ("jones", None), ("small", 1000), ("away", None)):
            accounts.add_account(
                connection, Mailbox(name, "example.org"), password_hash="", quota_octets=quota
            )
        accounts.disable(connection, parse_mailbox("away@example.org"))
        for source, *targets in (
            ("team@example.org", "small@example.org", "away@example.org", "jones@example.org"),
            ("lost@example.org", "small@example.org", "away@example.org"),
            ("me@example.org", "jones@example.org"),
        ):
            aliases.add_alias(connection, parse_mailbox(source), [parse_mailbox(t) for t in targets])
    database.dispose()
    return sqlite_url


@asynccontextmanager
async def directory(url: str, tmp_path, **options: Any) -> AsyncIterator[tuple[Directory, Store]]:
    store = Store(Database(url), state_dir=tmp_path, reserve_octets=0)
    options = {"default_domain": "example.org", "postmaster": None, **options}
    try:
        yield Directory(store, hostname="mx.example.org", **options), store
    finally:
        await store.close()


def by_name(store: Store, route: Mapping[int, Bound]) -> dict[str, Bound]:
    with store.database.reading() as connection:
        named = {each.id: str(each.mailbox) for each in accounts.list_accounts(connection)}
    return {named[account_id]: bound for account_id, bound in route.items()}


async def test_a_full_maildrop_is_refused_by_what_was_announced(furnished, tmp_path):
    async with directory(furnished, tmp_path) as (people, _):
        small = parse_mailbox("small@example.org")
        assert len(await people.route(small, octets=999)) == 1
        with pytest.raises(MaildropFull):
            await people.route(small, octets=1000)
        assert len(await people.route(small)) == 1


async def test_a_group_is_refused_only_when_nobody_in_it_can_take_it(furnished, tmp_path):
    async with directory(furnished, tmp_path) as (people, store):
        team = await people.route(parse_mailbox("team@example.org"), octets=5000)
        assert set(by_name(store, team)) == {"small@example.org", "jones@example.org"}
        with pytest.raises(MaildropFull):
            await people.route(parse_mailbox("lost@example.org"), octets=5000)
        with pytest.raises(MailboxDisabled):
            await people.route(parse_mailbox("away@example.org"))


async def test_a_full_maildrop_takes_mail_for_a_group_until_it_has_twice_its_quota(furnished, tmp_path):
    async with directory(furnished, tmp_path) as (people, store):
        team = parse_mailbox("team@example.org")
        maildrops.deposit(store.database, b"x" * 1500 + b"\r\n", "small@example.org")
        bounds = by_name(store, await people.route(team, octets=5000))
        assert bounds == {"small@example.org": (2000, None), "jones@example.org": UNBOUNDED}
        maildrops.deposit(store.database, b"x" * 500 + b"\r\n", "small@example.org")
        with pytest.raises(MaildropFull):
            await people.route(team, octets=1)
        with store.database.writing() as connection:
            accounts.disable(connection, parse_mailbox("small@example.org"))
        assert by_name(store, await people.route(team, octets=1)) == {"jones@example.org": UNBOUNDED}


async def test_who_is_alone_behind_an_alias_has_no_more_than_the_quota(furnished, tmp_path):
    async with directory(furnished, tmp_path) as (people, store):
        lost = await people.route(parse_mailbox("lost@example.org"))
        assert by_name(store, lost) == {"small@example.org": (1000, None)}


async def test_postmaster_takes_mail_disabled_and_full(furnished, tmp_path):
    async with directory(furnished, tmp_path, postmaster="away@example.org") as (people, _):
        assert len(await people.route(parse_mailbox("postmaster@example.org"), octets=10**12)) == 1
    async with directory(furnished, tmp_path, postmaster="small@example.org") as (people, store):
        small = await people.route(people.full(Mailbox("Postmaster", "")), octets=10**12)
        assert by_name(store, small) == {"small@example.org": UNBOUNDED}


@pytest.mark.parametrize("default_domain", ["example.org", "unserved.example", None])
async def test_this_host_has_a_postmaster_whatever_its_domains_are(furnished, tmp_path, default_domain):
    async with directory(furnished, tmp_path, default_domain=default_domain) as (
        people,
        store,
    ):  # RFC 5321 §4.5.1
        bare = people.full(Mailbox("PostMaster", ""))
        assert bare == Mailbox("PostMaster", default_domain or "mx.example.org")
        for path in (bare, Mailbox("postmaster", "MX.example.org"), parse_mailbox("abuse@mx.example.org")):
            assert set(by_name(store, await people.route(path))) == {"first@example.org"}
        for nobody in ("first@mx.example.org", "postmaster@elsewhere.example"):
            with pytest.raises(NotOurDomain):
                await people.route(parse_mailbox(nobody))


async def test_an_account_of_its_own_is_found_at_once_with_its_limits(furnished, tmp_path):
    async with directory(furnished, tmp_path) as (people, store):
        jones, away = parse_mailbox("jones@example.org"), parse_mailbox("away@example.org")
        await store.check()
        assert people.route_at_once(Mailbox("Jones", "EXAMPLE.org.")) == await people.route(jones)
        with pytest.raises(MailboxDisabled):
            people.route_at_once(away)
        with pytest.raises(MaildropFull):
            people.route_at_once(parse_mailbox("small@example.org"), octets=1000)
        with store.database.writing() as connection:
            limits.set_for_domain(connection, "example.org", quota_octets=10)
        with pytest.raises(MaildropFull):
            people.route_at_once(parse_mailbox("first@example.org"), octets=1000)


async def test_postmasters_own_account_takes_mail_at_once_disabled_and_full(furnished, tmp_path):
    async with directory(furnished, tmp_path) as (people, store):
        await store.check()
        assert people.route_at_once(parse_mailbox("postmaster@example.org")) is None
        with store.database.writing() as connection:
            abuse = parse_mailbox("abuse@example.org")
            accounts.add_account(connection, abuse, password_hash="", quota_octets=1)
            accounts.disable(connection, abuse)
        assert people.route_at_once(abuse, octets=1000) == await people.route(abuse, octets=1000)


async def test_what_is_no_account_of_its_own_is_known_for_a_moment(furnished, tmp_path, monkeypatch):
    async with directory(furnished, tmp_path) as (people, _):
        me, lost = parse_mailbox("me@example.org"), parse_mailbox("lost@example.org")
        assert people.route_at_once(me) is None
        found = await people.route(me)
        assert people.route_at_once(me) == found
        await people.route(lost)
        assert people.route_at_once(lost, octets=5000) is None
        later = time.monotonic() + 1.1
        monkeypatch.setattr(time, "monotonic", lambda: later)
        assert people.route_at_once(me) is None


async def test_a_group_with_many_names_takes_no_more_memory_than_many_accounts(
    furnished, tmp_path, monkeypatch
):
    monkeypatch.setattr(directory_module, "_REACHED", 10)
    async with directory(furnished, tmp_path) as (people, _):
        for number in range(50):
            path = parse_mailbox(f"team+{number}@example.org")
            assert len(await people.route(path, octets=1)) == 2
            assert people.route_at_once(path, octets=1) is not None
            assert sum(len(known.route.accounts) for known in people._routes.values()) <= 10


async def test_a_route_that_is_looked_up_again_counts_once(furnished, tmp_path, monkeypatch):
    monkeypatch.setattr(directory_module, "_REACHED", 10)
    async with directory(furnished, tmp_path) as (people, _):
        me, team = parse_mailbox("me@example.org"), parse_mailbox("team@example.org")
        await people.route(me)
        for _ in range(20):
            await people.route(team, octets=1)
        assert people.route_at_once(me) is not None, "it is believed still: there was room for both"


async def test_what_was_promised_since_counts_for_a_quota(furnished, tmp_path):
    async with directory(furnished, tmp_path) as (people, _):
        lost = parse_mailbox("lost@example.org")  # small, who may hold 1000 octets, and somebody away
        await people.route(lost, octets=400)
        assert people.route_at_once(lost) is None  # who does not say its size may be too large
        assert people.route_at_once(lost, octets=500) is not None
        assert people.route_at_once(lost, octets=100) is None


async def test_behind_a_message_that_did_not_say_its_size_the_maildrop_is_looked_at(furnished, tmp_path):
    async with directory(furnished, tmp_path) as (people, store):
        small = parse_mailbox("small@example.org")
        await store.check()
        assert people.route_at_once(small) is not None
        maildrops.deposit(store.database, b"x" * 600 + b"\r\n", "small@example.org")
        with pytest.raises(MaildropFull):  # RFC 1870 §5: this one has said it
            people.route_at_once(small, octets=600)
        assert people.route_at_once(small, octets=200) is not None


async def test_what_was_refused_is_asked_anew(furnished, tmp_path):
    async with directory(furnished, tmp_path) as (people, store):
        new = parse_mailbox("new@example.org")
        with pytest.raises(NoSuchMailbox):
            await people.route(new)
        assert people.route_at_once(new) is None
        with store.database.writing() as connection:
            accounts.add_account(connection, new, password_hash="")
        assert len(await people.route(new)) == 1
