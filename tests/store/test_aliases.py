"""Aliases, catch-all and plus-addressing: what is accepted is what mail reaches."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection

from mailstack.errors import AlreadyThere, BadTarget, NotFound, NotOurDomain, StillInUse
from mailstack.mail.address import Mailbox, parse_mailbox
from mailstack.store import accounts, aliases, domains, limits, routing
from mailstack.store.engine import Database

CATCH_ALL = Mailbox("", "example.org")


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    """A write transaction on a store that has example.org with jo, kim and ann."""
    with database.writing() as connection:
        domains.add_domain(connection, "example.org")
        for name in ("jo", "kim", "ann"):
            accounts.add_account(connection, Mailbox(name, "example.org"), password_hash="$hash$")
        yield connection


def at(name: str) -> Mailbox:
    return Mailbox(name, "example.org")


def add(connection: Connection, name: str, *targets: str) -> aliases.Alias:
    return aliases.add_alias(connection, at(name), [at(target) for target in targets])


def reached(connection: Connection, address: str, *, catch_all: bool = True) -> list[str]:
    where = routing.place(connection, parse_mailbox(address))
    found = routing.expand(connection, [where], catch_all=catch_all)
    return [each.mailbox.local_part for each in found]


def test_an_alias_reaches_all_its_targets_once(connection: Connection) -> None:
    add(connection, "team", "jo", "kim")
    add(connection, "all", "team", "kim", "ann")
    assert reached(connection, "ALL@example.org") == ["kim", "ann", "jo"]


def test_targets_are_added_to_an_alias_that_is_there(connection: Connection) -> None:
    add(connection, "team", "jo")
    assert add(connection, "team", "kim").targets == (at("jo"), at("kim"))
    assert add(connection, "team", "kim", "ann").targets == (at("jo"), at("kim"), at("ann"))
    assert add(connection, "team", "kim").targets == (at("jo"), at("kim"), at("ann"))
    assert add(connection, "other", "kim", "Kim").targets == (at("kim"),)


def test_a_target_outside_our_domains_is_refused_with_that_reason(connection: Connection) -> None:
    with pytest.raises(BadTarget, match=r"jo@gmail\.example is outside our domains"):
        aliases.add_alias(connection, at("info"), [at("jo"), Mailbox("jo", "gmail.example")])
    assert aliases.list_aliases(connection) == []


def test_a_target_that_nobody_reads_is_refused(connection: Connection) -> None:
    add(connection, "", "jo")  # the catch-all takes nobody's mail, and is no excuse
    with pytest.raises(BadTarget, match=r"bob@example.org is neither an account nor an alias; add it first"):
        add(connection, "info", "bob")


def test_a_target_with_a_tag_is_refused_with_the_account_to_name(connection: Connection) -> None:
    with pytest.raises(BadTarget, match=r"name jo@example.org instead"):
        add(connection, "info", "jo+info")


@pytest.mark.parametrize("name", ["a", "b", "c", "a+tag"])
def test_circles_are_refused(connection: Connection, name: str) -> None:
    add(connection, "a", "jo")
    add(connection, "b", "a")
    add(connection, "c", "b", "kim")
    with pytest.raises(BadTarget):
        add(connection, "a", name)
    assert reached(connection, "c@example.org") == ["kim", "jo"]


def test_an_account_is_no_alias(connection: Connection) -> None:
    with pytest.raises(AlreadyThere, match=r"jo@example.org is an account"):
        add(connection, "jo", "kim")


def test_an_alias_lives_in_our_domains(connection: Connection) -> None:
    with pytest.raises(NotOurDomain):
        aliases.add_alias(connection, Mailbox("info", "example.net"), [at("jo")])


def test_the_catch_all_takes_what_nobody_else_does(connection: Connection) -> None:
    add(connection, "", "ann")
    add(connection, "team", "jo")
    assert reached(connection, "nobody@example.org") == ["ann"]
    assert reached(connection, "nobody+tag@example.org") == ["ann"]
    assert reached(connection, "team@example.org") == ["jo"]
    assert reached(connection, "kim@example.org") == ["kim"]
    assert reached(connection, "nobody@example.org", catch_all=False) == []


def test_what_follows_a_plus_sign_is_ignored_unless_it_is_a_name(connection: Connection) -> None:
    accounts.add_account(connection, at("jo+private"), password_hash="$hash$")
    add(connection, "team", "kim")
    assert reached(connection, "jo+shop+2@example.org") == ["jo"]
    assert reached(connection, "jo+private@example.org") == ["jo+private"]
    assert reached(connection, "team+x@example.org") == ["kim"]
    assert reached(connection, "+jo@example.org") == []


def test_old_names_of_domains_work_in_source_and_target(connection: Connection) -> None:
    domains.rename_domain(connection, "example.org", "example.net")
    made = aliases.add_alias(connection, at("info"), [at("jo")])
    assert made == aliases.Alias(Mailbox("info", "example.net"), (Mailbox("jo", "example.net"),))
    assert reached(connection, "info@example.org") == reached(connection, "info@example.net") == ["jo"]


def test_a_list_is_by_address(connection: Connection) -> None:
    domains.add_domain(connection, "a.example")
    aliases.add_alias(connection, Mailbox("x", "a.example"), [at("kim")])
    add(connection, "team", "jo", "kim")
    add(connection, "", "ann")
    listed = aliases.list_aliases(connection)
    assert [each.mailbox for each in listed] == [Mailbox("x", "a.example"), CATCH_ALL, at("team")]
    assert listed[2].targets == (at("jo"), at("kim"))
    assert [each.mailbox.domain for each in aliases.list_aliases(connection, "a.example")] == ["a.example"]


def test_an_alias_is_removed_whole_or_by_target(connection: Connection) -> None:
    add(connection, "team", "jo", "kim", "ann")
    assert aliases.remove_alias(connection, at("team"), [at("kim")]) == [at("jo"), at("ann")]
    assert aliases.remove_alias(connection, at("team")) == []
    assert aliases.list_aliases(connection) == []


def test_removing_what_is_not_there_says_so(connection: Connection) -> None:
    with pytest.raises(NotFound, match=r"there is no alias team@example.org"):
        aliases.remove_alias(connection, at("team"))
    with pytest.raises(NotFound, match=r"there is no alias @example.org"):
        aliases.remove_alias(connection, CATCH_ALL)
    add(connection, "team", "jo")
    with pytest.raises(NotFound, match=r"kim@example.org is no target of team@example.org"):
        aliases.remove_alias(connection, at("team"), [at("kim")])


def test_an_alias_that_another_needs_stays(connection: Connection) -> None:
    add(connection, "sales", "jo", "kim")
    add(connection, "shop", "sales")
    with pytest.raises(StillInUse, match=r"shop@example.org would lead nowhere"):
        aliases.remove_alias(connection, at("sales"))
    assert aliases.remove_alias(connection, at("sales"), [at("jo")]) == [at("kim")]


def test_what_is_known_of_an_account_comes_along(connection: Connection) -> None:
    limits.set_for_account(connection, accounts.find_account(connection, at("jo")).id, quota_octets=7)
    accounts.disable(connection, at("jo"))
    (found,) = routing.expand(connection, [routing.place(connection, at("jo"))])
    assert (found.quota_octets, found.octets, found.disabled) == (7, 0, True)


def test_hundreds_of_targets_are_reached_in_a_few_statements(connection: Connection) -> None:
    names = [f"u{n}" for n in range(700)]
    accounts.add_accounts(connection, [accounts.NewAccount(at(name), "$hash$") for name in names])
    add(connection, "everybody", *names)
    assert reached(connection, "everybody@example.org") == names
