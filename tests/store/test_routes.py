"""From an address to the accounts that take its mail, and to the one that may log in with it."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection

from mailstack.errors import NoPostmaster, NoSuchMailbox, NotOurDomain
from mailstack.mail.address import Mailbox, parse_mailbox
from mailstack.store import accounts, aliases, domains, limits, routes
from mailstack.store.engine import Database
from mailstack.store.routes import NewHash
from tests.support.steps import steps

ACCOUNTS = (
    "first@example.org",
    "jones@example.org",
    "a+b@example.org",
    "jürgen@example.org",
    "kim@b.example",
)

ALIASES = {
    "team@example.org": ("jones@example.org", "kim@b.example"),
    "sales@example.org": ("team@example.org", "first@example.org"),
    "all@b.example": ("sales@example.org", "team@example.org", "kim@b.example"),
    "me@example.org": ("jones@example.org",),
    "abuse@b.example": ("kim@b.example",),
    "@b.example": ("jones@example.org",),
}


def furnish(database: Database) -> None:
    """Domains, accounts and aliases of all kinds; c.example has a catch-all that leads into b.example's."""
    with database.writing() as connection:
        for name in ("was.example", "b.example", "empty.example", "bücher.example"):
            domains.add_domain(connection, name)
        domains.rename_domain(connection, "was.example", "example.org")
        for name in ACCOUNTS:
            accounts.add_account(connection, parse_mailbox(name), password_hash=f"hash of {name}")
        for source, targets in ALIASES.items():
            local_part, _, domain = source.partition("@")
            aliases.add_alias(connection, Mailbox(local_part, domain), [parse_mailbox(t) for t in targets])


@pytest.fixture
def furnished(database):
    """A database that is furnished."""
    furnish(database)
    return database


def reached(database, address: str, *, postmaster: str | None = None) -> set[str]:
    """Who gets the mail, by name."""
    chosen = parse_mailbox(postmaster) if postmaster else None
    with database.reading() as connection:
        found = routes.route(connection, parse_mailbox(address), postmaster=chosen)
    assert len({each.account_id for each in found.accounts}) == len(found.accounts)
    return {str(each.mailbox) for each in found.accounts}


ROUTES = [
    ("jones@example.org", "jones@example.org"),
    ("JONES@Example.ORG", "jones@example.org"),
    ('"jones"@example.org', "jones@example.org"),
    ("jones@was.example", "jones@example.org"),
    ("jones@WAS.example", "jones@example.org"),
    ("jones+lists@example.org", "jones@example.org"),
    ("jones+@example.org", "jones@example.org"),
    ("jones+a+b@was.example", "jones@example.org"),
    ("a+b@example.org", "a+b@example.org"),
    ("JU\u0308RGEN@example.org", "jürgen@example.org"),
    ("me@example.org", "jones@example.org"),
    ("me+tag@example.org", "jones@example.org"),
    ("team@example.org", "jones@example.org kim@b.example"),
    ("sales@example.org", "jones@example.org kim@b.example first@example.org"),
    ("all@b.example", "jones@example.org kim@b.example first@example.org"),
    ("whoever@b.example", "jones@example.org"),
    ("who+ever@b.example", "jones@example.org"),
    ("kim@b.example", "kim@b.example"),
    ("postmaster@example.org", "first@example.org"),
    ("Abuse@example.org", "first@example.org"),
    ("postmaster@was.example", "first@example.org"),
    ("postmaster@empty.example", "first@example.org"),
    ("postmaster@bücher.example", "first@example.org"),
    ("postmaster@xn--bcher-kva.example", "first@example.org"),
    ("postmaster+x@empty.example", "first@example.org"),
    ("postmaster@b.example", "first@example.org"),  # the catch-all comes after it
    ("abuse@b.example", "kim@b.example"),  # an alias comes before it
]

NO_ROUTES = [
    ("nobody@example.org", NoSuchMailbox),
    ("nobody+jones@example.org", NoSuchMailbox),
    ("+jones@example.org", NoSuchMailbox),
    ("a@example.org", NoSuchMailbox),
    ("jones@empty.example", NoSuchMailbox),
    ("jones@elsewhere.example", NotOurDomain),
    ("jones@sub.example.org", NotOurDomain),
    ("jones@[192.0.2.1]", NotOurDomain),
    ("postmaster@elsewhere.example", NotOurDomain),
]


def test_route(furnished):
    for address, accounts_reached in ROUTES:
        assert reached(furnished, address) == set(accounts_reached.split()), address


def test_no_route(furnished):
    for address, error in NO_ROUTES:
        with pytest.raises(error):
            pytest.fail(f"{address} reaches {reached(furnished, address)}")


def test_before_there_is_an_account(database):
    with database.writing() as connection:
        domains.add_domain(connection, "example.org")
    with pytest.raises(NoPostmaster):
        reached(database, "postmaster@example.org")
    with pytest.raises(NoPostmaster):
        reached(database, "abuse@example.org", postmaster="later@example.org")
    with pytest.raises(NoSuchMailbox):
        reached(database, "jones@example.org")


def test_the_settings_may_choose_the_postmaster(furnished):
    assert reached(furnished, "postmaster@example.org", postmaster="kim@b.example") == {"kim@b.example"}
    assert reached(furnished, "abuse@empty.example", postmaster="me@was.example") == {"jones@example.org"}
    both = {"jones@example.org", "kim@b.example"}
    assert reached(furnished, "postmaster@example.org", postmaster="team@example.org") == both
    for gone in ("gone@example.org", "gone@elsewhere.example"):
        assert reached(furnished, "postmaster@example.org", postmaster=gone) == {"first@example.org"}


def test_mail_for_postmaster_is_marked_as_such_whoever_it_goes_to(furnished):
    """So that it is never refused, even where an account of that name is full or disabled."""
    with furnished.writing() as connection:
        own = parse_mailbox("postmaster@example.org")
        accounts.add_account(connection, own, password_hash="")
        accounts.disable(connection, own)
        for name in ("postmaster@example.org", "abuse@b.example", "abuse@example.org"):
            found = routes.route(connection, parse_mailbox(name), postmaster=None)
            assert found.to_postmaster
            assert len(found.accounts) == 1
        assert not routes.route(connection, parse_mailbox("jones@example.org"), postmaster=None).to_postmaster


def test_what_may_refuse_is_told(furnished):
    with furnished.writing() as connection:
        jones = parse_mailbox("jones@example.org")
        limits.set_for_account(connection, accounts.find_account(connection, jones).id, quota_octets=77)
        accounts.disable(connection, jones)
        (found,) = routes.route(connection, parse_mailbox("me@example.org"), postmaster=None).accounts
    assert (found.disabled, found.quota_octets, found.octets) == (True, 77, 0)


NAMES = [
    ("jones@example.org", "jones@example.org"),
    ("JONES@was.example", "jones@example.org"),
    ("me@example.org", "jones@example.org"),
    ("jones+x@example.org", "jones@example.org"),
    ("team@example.org", None),  # two accounts: whose password would it be?
    ("whoever@b.example", None),  # a catch-all is nobody's name
    ("postmaster@example.org", None),
    ("nobody@example.org", None),
    ("jones@elsewhere.example", None),
]


def test_credentials(furnished):
    for name, account in NAMES:
        with furnished.reading() as connection:
            found = routes.credentials(connection, parse_mailbox(name))
        assert (found and found.name) == account, name
        assert (found and found.password_hash) == (account and f"hash of {account}"), name


def test_a_hash_is_renewed_unless_the_password_was_changed(furnished):
    with furnished.writing() as connection:
        jones = accounts.find_account(connection, parse_mailbox("jones@example.org")).id
        kim = accounts.find_account(connection, parse_mailbox("kim@b.example")).id
        jobs = [
            NewHash(jones, "hash of jones@example.org", "newer", "keys"),
            NewHash(kim, "another", "newer", "keys"),
        ]
        assert routes.renew_hashes(connection, jobs) == [True, False]
        renewed = routes.credentials(connection, parse_mailbox("jones@example.org"))
        kept = routes.credentials(connection, parse_mailbox("kim@b.example"))
    assert (renewed.password_hash, renewed.scram_keys) == ("newer", "keys")
    assert (kept.password_hash, kept.scram_keys) == ("hash of kim@b.example", None)


@pytest.mark.parametrize(
    "address", ["jones@example.org", "jones+lists@example.org", "sales@example.org", "nobody@b.example"]
)
def test_a_route_does_not_take_longer_among_many_accounts(sqlite_url, address):
    database = Database(sqlite_url)
    furnish(database)

    def reach(connection: Connection) -> None:
        routes.route(connection, parse_mailbox(address), postmaster=None)

    with database.reading() as connection:
        among_few = steps(connection, lambda: reach(connection))
    with database.writing() as connection:
        accounts.add_accounts(
            connection,
            [accounts.NewAccount(Mailbox(f"n{each}", "example.org"), "", None, None) for each in range(300)],
        )
    with database.reading() as connection:
        assert steps(connection, lambda: reach(connection)) == among_few
    database.dispose()
