"""Maildrops whose mail is refused, and the names that lose theirs with them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import pytest

from mailstack.checks import judge_service
from mailstack.checks.facts import Facts, Store
from mailstack.checks.finding import Level
from mailstack.checks.probes import store as probe
from mailstack.directory import Directory
from mailstack.errors import MaildropFull
from mailstack.mail.address import Mailbox, parse_mailbox
from mailstack.settings import Settings
from mailstack.store import accounts, aliases, domains, fullness, limits, schema
from mailstack.store.engine import Database
from mailstack.store.fullness import Full
from mailstack.store.store import Store as MailStore
from tests.support import maildrops

QUOTA: Final = 1000
ALIASES: Final = (
    ("team@example.org", "small@example.org", "jones@example.org"),
    ("all@example.org", "team@example.org", "first@example.org"),
    ("@example.org", "small@example.org", "first@example.org"),
    ("sole@example.org", "small@example.org"),
    ("others@example.org", "first@example.org", "jones@example.org"),
    ("postmaster@example.org", "small@example.org", "jones@example.org"),
)


@pytest.fixture
def furnished(database: Database) -> Database:
    with database.writing() as connection:
        domains.add_domain(connection, "example.org")
        for name, quota in (("first", None), ("jones", None), ("small", QUOTA)):
            accounts.add_account(
                connection, Mailbox(name, "example.org"), password_hash="", quota_octets=quota
            )
        for name, *targets in ALIASES:
            local_part, _, name_of_domain = name.partition("@")
            aliases.add_alias(
                connection, Mailbox(local_part, name_of_domain), list(map(parse_mailbox, targets))
            )
    return database


def full(database: Database) -> list[Full]:
    with database.reading() as connection:
        return fullness.full(connection)


def filled(database: Database, octets: int) -> None:
    """So many octets more, the trace field that comes before them included."""
    field = len(b"Return-Path: <eve@example.net>\r\n")
    maildrops.deposit(database, b"x" * (octets - field - 2) + b"\r\n", "small@example.org")


def test_a_full_maildrop_is_one_that_takes_nothing_more(furnished):
    filled(furnished, QUOTA - 1)
    assert full(furnished) == []
    filled(furnished, 40)
    assert [(str(each.mailbox), each.percentage, each.groups) for each in full(furnished)] == [
        ("small@example.org", 103, ())
    ]


async def test_with_twice_its_quota_it_takes_the_mail_of_others_with_it(furnished, tmp_path):
    filled(furnished, 2 * QUOTA)
    (found,) = full(furnished)
    assert set(found.groups) == {"@example.org", "all@example.org", "team@example.org"}
    store = MailStore(furnished, state_dir=tmp_path, reserve_octets=0)
    directory = Directory(store, hostname="mx.example.org", default_domain=None, postmaster=None)
    refused = set()
    for name, *_ in ALIASES:
        try:
            await directory.route(parse_mailbox(name if name[0] != "@" else "whoever@example.org"), octets=1)
        except MaildropFull:
            refused.add(name)
    await store.close()
    assert refused == {*found.groups, "sole@example.org"}


def test_a_group_is_refused_where_all_of_it_are_full(furnished):
    with furnished.writing() as connection:
        jones = accounts.find_account(connection, parse_mailbox("jones@example.org"))
        limits.set_for_account(connection, jones.id, quota_octets=50)
    filled(furnished, QUOTA)
    maildrops.deposit(furnished, b"x" * 20, "jones@example.org")
    assert {str(each.mailbox): each.groups for each in full(furnished)} == {
        "jones@example.org": ("team@example.org",),
        "small@example.org": ("team@example.org",),
    }


def test_the_postmasters_own_maildrop_is_never_full(furnished):
    with furnished.writing() as connection:
        abuse = Mailbox("abuse", "example.org")
        accounts.add_account(connection, abuse, password_hash="", quota_octets=1)
    maildrops.deposit(furnished, b"x\r\n", "abuse@example.org")
    assert full(furnished) == []


def test_who_is_disabled_keeps_nobody_from_mail(furnished):
    filled(furnished, 2 * QUOTA)
    with furnished.writing() as connection:
        accounts.disable(connection, parse_mailbox("small@example.org"))
    assert full(furnished) == []


def test_doctor_tells_of_them(furnished):
    filled(furnished, 2 * QUOTA)
    facts = Facts(datetime.now(UTC), Settings(hostname="mx.example.org"))
    (found,) = judge_service.quotas(replace(facts, store=probe.look(furnished, recount=False)))
    assert found.level is Level.WARNING
    assert (found.subject, found.what) == ("small@example.org", "it is 200 % full")
    assert "team@example.org" in found.why
    assert "mailstack account quota small@example.org" in found.mend


def test_who_harms_others_is_told_apart_from_who_does_not():
    names = [Mailbox(name, "example.org") for name in ("jo", "kim", "lee")]
    several = (Full(names[0], 100, ()), Full(names[1], 205, ("team@example.org",)), Full(names[2], 130, ()))
    store = Store("", schema.HEAD, accounts=20, full=several)
    facts = Facts(datetime.now(UTC), Settings(hostname="mx.example.org"))
    told = list(judge_service.quotas(replace(facts, store=store)))
    assert [(each.level, each.subject, each.what) for each in told] == [
        (Level.WARNING, "kim@example.org", "it is 205 % full"),
        (Level.ADVICE, "quotas", "full: jo@example.org, lee@example.org"),
    ]
    (nobody,) = judge_service.quotas(replace(facts, store=store._replace(full=())))
    assert (nobody.level, nobody.subject) == (Level.FINE, "quotas")
