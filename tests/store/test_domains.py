"""Our domains, their spellings and their old names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection

from mailstack.errors import AlreadyThere, BadAddress, NotFound, StillInUse
from mailstack.mail.address import Mailbox
from mailstack.store import accounts, aliases, domains, routing
from mailstack.store.engine import Database


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    """A write transaction on a store that has example.org with the account jo."""
    with database.writing() as connection:
        domains.add_domain(connection, "example.org")
        accounts.add_account(connection, Mailbox("jo", "example.org"), password_hash="$hash$")
        yield connection


def names(connection: Connection) -> list[tuple[str, str | None]]:
    return [(each.name, each.renamed_to) for each in domains.list_domains(connection)]


def test_a_domain_is_kept_in_its_form_for_the_dns(connection: Connection) -> None:
    assert domains.add_domain(connection, "Bücher.Example") == "xn--bcher-kva.example"
    with pytest.raises(AlreadyThere, match="is one of our domains already"):
        domains.add_domain(connection, "xn--bcher-kva.EXAMPLE")


@pytest.mark.parametrize("name", ["", "-", "a..b", "[192.0.2.1]", "jo@example.org", "a b"])
def test_what_is_no_domain_is_refused(connection: Connection, name: str) -> None:
    with pytest.raises(BadAddress):
        domains.add_domain(connection, name)


def test_the_list_counts(connection: Connection) -> None:
    domains.add_domain(connection, "a.example")
    aliases.add_alias(connection, Mailbox("x", "example.org"), [Mailbox("jo", "example.org")])
    empty, full = domains.list_domains(connection)
    assert (empty.name, empty.accounts, empty.aliases, empty.octets) == ("a.example", 0, 0, 0)
    assert (full.name, full.accounts, full.aliases, full.messages) == ("example.org", 1, 1, 0)


def test_a_domain_in_use_stays(connection: Connection) -> None:
    with pytest.raises(StillInUse, match=r"example\.org still has 1 account"):
        domains.remove_domain(connection, "example.org")
    accounts.remove_account(connection, Mailbox("jo", "example.org"))
    assert domains.remove_domain(connection, "EXAMPLE.org") == "example.org"
    assert names(connection) == []
    with pytest.raises(NotFound):
        domains.remove_domain(connection, "example.org")


def test_a_rename_keeps_accounts_and_the_old_name(connection: Connection) -> None:
    before = accounts.find_account(connection, Mailbox("jo", "example.org"))
    assert domains.rename_domain(connection, "example.org", "Example.NET") == "example.net"
    assert names(connection) == [("example.net", None), ("example.org", "example.net")]
    for name in ("example.org", "example.net"):
        found = accounts.find_account(connection, Mailbox("jo", name))
        assert (found.id, found.uid_validity) == (before.id, before.uid_validity)
        assert found.mailbox == Mailbox("jo", "example.net")


def test_renames_can_follow_each_other_and_be_taken_back(connection: Connection) -> None:
    domains.rename_domain(connection, "example.org", "b.example")
    domains.rename_domain(connection, "b.example", "c.example")
    home = routing.domain_id(connection, "c.example")
    assert {routing.domain_id(connection, name) for name in ("example.org", "b.example")} == {home}
    domains.rename_domain(connection, "c.example", "example.org")
    assert names(connection) == [
        ("b.example", "example.org"),
        ("c.example", "example.org"),
        ("example.org", None),
    ]


def test_a_rename_to_a_taken_name_is_refused(connection: Connection) -> None:
    domains.add_domain(connection, "other.example")
    domains.rename_domain(connection, "other.example", "new.example")
    with pytest.raises(AlreadyThere, match=r"new.example is one of our domains already"):
        domains.rename_domain(connection, "example.org", "new.example")
    with pytest.raises(AlreadyThere, match=r"other.example is the old name of new.example already"):
        domains.rename_domain(connection, "example.org", "other.example")
    with pytest.raises(AlreadyThere):
        domains.rename_domain(connection, "example.org", "example.org")
    with pytest.raises(NotFound, match="only the old name"):
        domains.rename_domain(connection, "other.example", "x.example")


def test_an_old_name_can_be_given_up(connection: Connection) -> None:
    domains.rename_domain(connection, "example.org", "example.net")
    domains.remove_domain(connection, "example.org")
    assert names(connection) == [("example.net", None)]


def test_a_domain_takes_its_old_names_along(connection: Connection) -> None:
    domains.rename_domain(connection, "example.org", "example.net")
    accounts.remove_account(connection, Mailbox("jo", "example.net"))
    domains.remove_domain(connection, "example.net")
    assert names(connection) == []


def test_a_domain_that_aliases_point_into_stays(connection: Connection) -> None:
    domains.add_domain(connection, "a.example")
    aliases.add_alias(connection, Mailbox("x", "a.example"), [Mailbox("jo", "example.org")])
    with pytest.raises(StillInUse, match="1 alias"):
        domains.remove_domain(connection, "a.example")
