"""Accounts: what they are called, what a rename keeps, what a removal takes along."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, func, insert, select, update

from mailstack.errors import AlreadyThere, BadAddress, NotFound, NotOurDomain
from mailstack.mail.address import Mailbox, parse_mailbox
from mailstack.store import accounts, aliases, domains, limits, routing
from mailstack.store.accounts import NewAccount
from mailstack.store.engine import Database
from mailstack.store.parts import content_id
from mailstack.store.tables import account, content, entry, leftover, message, state
from tests.support import maildrops


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    """A write transaction on a store that has example.org and two accounts."""
    with database.writing() as connection:
        domains.add_domain(connection, "example.org")
        add(connection, "jo@example.org")
        add(connection, "kim@example.org")
        yield connection


def add(connection: Connection, address: str) -> accounts.Account:
    return accounts.add_account(connection, parse_mailbox(address), password_hash="$hash$")


def find(connection: Connection, address: str) -> accounts.Account:
    return accounts.find_account(connection, parse_mailbox(address))


def reached(connection: Connection, address: str) -> list[str]:
    where = routing.place(connection, parse_mailbox(address))
    return [str(each.mailbox) for each in routing.expand(connection, [where])]


def put_message(connection: Connection, number: int, *addresses: str) -> None:
    """Store a message of one part and enter it in each account's maildrop."""
    connection.execute(
        insert(message).values(
            id=number, octets=3, dotted=False, reverse_path="", received_at=1, mail_id=f"m{number}"
        )
    )
    connection.execute(insert(content).values(id=content_id(number), octets=b"x\r\n"))
    for address in addresses:
        key = find(connection, address).id
        row = {"account_id": key, "uid": number, "unique_id": f"1.{number}", "message_id": number}
        connection.execute(insert(entry).values(**row, octets=5, prefix=b"p:", delivered_at=1))
        counters = {"messages": account.c.messages + 1, "octets": account.c.octets + 5}
        connection.execute(update(account).where(account.c.id == key).values(**counters))


def test_a_new_account_is_empty_and_open(connection: Connection) -> None:
    found = find(connection, "jo@example.org")
    assert (found.mailbox, found.messages, found.octets) == (Mailbox("jo", "example.org"), 0, 0)
    assert found.quota_octets is None
    assert found.disabled_at is None
    assert abs(found.created_at.timestamp() - time.time()) < 60


def test_spelling_does_not_matter(connection: Connection) -> None:
    for spelling in ("JO@Example.ORG", '"jo"@example.org', "jo@EXAMPLE.org"):
        assert find(connection, spelling).mailbox == Mailbox("jo", "example.org")


def test_an_address_is_given_once(connection: Connection) -> None:
    with pytest.raises(AlreadyThere, match=r"Jo@example.org is an account already"):
        add(connection, "Jo@example.org")
    aliases.add_alias(connection, Mailbox("info", "example.org"), [Mailbox("jo", "example.org")])
    with pytest.raises(AlreadyThere, match=r"info@example.org is an alias already"):
        add(connection, "info@example.org")


def test_only_our_domains_have_accounts(connection: Connection) -> None:
    with pytest.raises(NotOurDomain, match=r"example\.net is none of our domains; mailstack domain add"):
        add(connection, "jo@example.net")
    with pytest.raises(NotOurDomain):
        add(connection, "jo@[192.0.2.1]")
    with pytest.raises(BadAddress, match="empty"):
        accounts.add_account(connection, Mailbox("", "example.org"), password_hash="$hash$")


def test_thousands_are_added_at_once(connection: Connection) -> None:
    new = [NewAccount(Mailbox(f"u{n}", "example.org"), "$hash$", n) for n in range(3000)]
    accounts.add_accounts(connection, new)
    found = accounts.list_accounts(connection)
    assert len(found) == 3002
    assert len({each.uid_validity for each in found}) == 3002
    assert find(connection, "u2999@example.org").quota_octets == 2999


def test_a_list_with_a_duplicate_adds_nobody(connection: Connection) -> None:
    new = [NewAccount(Mailbox(name, "example.org"), "$hash$") for name in ("a", "b", "A")]
    with pytest.raises(AlreadyThere, match=r"A@example.org is twice in the list"):
        accounts.add_accounts(connection, new)
    assert len(accounts.list_accounts(connection)) == 2


def test_uid_validities_are_fresh_and_follow_the_clock(connection: Connection) -> None:
    first = find(connection, "kim@example.org").uid_validity
    assert first >= int(time.time()) - 60
    accounts.remove_account(connection, Mailbox("kim", "example.org"))
    assert add(connection, "kim@example.org").uid_validity > first


def test_uid_validities_never_go_back_when_the_clock_does(connection: Connection) -> None:
    ahead = int(time.time()) + 10**6
    connection.execute(update(state).values(value=ahead))
    assert add(connection, "a@example.org").uid_validity == ahead + 1
    assert add(connection, "b@example.org").uid_validity == ahead + 2


def test_a_list_is_by_domain_and_name(connection: Connection) -> None:
    domains.add_domain(connection, "a.example")
    add(connection, "zoe@a.example")
    everyone = [str(each.mailbox) for each in accounts.list_accounts(connection)]
    assert everyone == ["zoe@a.example", "jo@example.org", "kim@example.org"]
    assert [str(each.mailbox) for each in accounts.list_accounts(connection, "A.example")] == [
        "zoe@a.example"
    ]
    with pytest.raises(NotOurDomain):
        accounts.list_accounts(connection, "example.net")


def test_what_is_not_an_account_says_what_it_is(connection: Connection) -> None:
    with pytest.raises(NotFound, match=r"there is no account ann@example.org"):
        find(connection, "ann@example.org")
    aliases.add_alias(connection, Mailbox("info", "example.org"), [Mailbox("jo", "example.org")])
    with pytest.raises(NotFound, match=r"not an account but an alias of jo@example.org"):
        find(connection, "info@example.org")


def test_disable_and_enable(connection: Connection) -> None:
    jo = Mailbox("jo", "example.org")
    assert accounts.disable(connection, jo)
    assert not accounts.disable(connection, jo)
    assert find(connection, "jo@example.org").disabled_at is not None
    assert accounts.enable(connection, jo)
    assert not accounts.enable(connection, jo)
    assert find(connection, "jo@example.org").disabled_at is None


def test_password_and_quota_of_one_account_change(connection: Connection) -> None:
    jo = Mailbox("jo", "example.org")
    number = find(connection, "jo@example.org").id
    accounts.set_password(connection, jo, "$other$")
    limits.set_for_account(connection, number, quota_octets=2 << 30)
    hashes = connection.execute(select(account.c.password_hash).order_by(account.c.id)).scalars().all()
    assert hashes == ["$other$", "$hash$"]
    assert find(connection, "jo@example.org").quota_octets == 2 << 30
    limits.set_for_account(connection, number, quota_octets=None)
    assert find(connection, "jo@example.org").quota_octets is None
    with pytest.raises(NotFound):
        accounts.set_password(connection, Mailbox("ann", "example.org"), "$other$")


def test_removal_takes_the_mail_that_nobody_else_has(connection: Connection) -> None:
    put_message(connection, 1, "jo@example.org")
    put_message(connection, 2, "jo@example.org", "kim@example.org")
    accounts.remove_account(connection, Mailbox("jo", "example.org"))
    maildrops.sweep(connection)
    assert connection.execute(select(message.c.id)).scalars().all() == [2]
    assert connection.execute(select(content.c.id)).scalars().all() == [content_id(2)]
    assert find(connection, "kim@example.org").messages == 1
    with pytest.raises(NotFound):
        find(connection, "jo@example.org")


def test_removal_of_a_large_maildrop_leaves_nothing(connection: Connection) -> None:
    key, numbers = find(connection, "jo@example.org").id, range(1, 1202)
    common = {"octets": 3, "dotted": False, "reverse_path": "", "received_at": 1, "mail_id": "m"}
    connection.execute(insert(message), [{"id": number, **common} for number in numbers])
    rows = [{"id": content_id(number), "octets": b"x\r\n"} for number in numbers]
    connection.execute(insert(content), rows)
    common = {"account_id": key, "octets": 5, "prefix": b"p:", "delivered_at": 1}
    rows = [{"uid": n, "unique_id": f"1.{n}", "message_id": n, **common} for n in numbers]
    connection.execute(insert(entry), rows)
    accounts.remove_account(connection, Mailbox("jo", "example.org"))
    maildrops.sweep(connection)
    for table in (entry, message, content, leftover):
        assert connection.execute(select(func.count()).select_from(table)).scalar_one() == 0


def test_removal_takes_the_account_out_of_aliases(connection: Connection) -> None:
    jo, kim = Mailbox("jo", "example.org"), Mailbox("kim", "example.org")
    team, sales, shop = (Mailbox(name, "example.org") for name in ("team", "sales", "shop"))
    aliases.add_alias(connection, team, [jo, kim])
    aliases.add_alias(connection, sales, [jo])
    aliases.add_alias(connection, shop, [sales])
    assert accounts.remove_account(connection, jo) == [team, sales, shop]
    assert aliases.list_aliases(connection) == [aliases.Alias(team, (kim,))]


def test_a_rename_keeps_mail_and_id_and_the_old_address(connection: Connection) -> None:
    before = find(connection, "jo@example.org")
    put_message(connection, 1, "jo@example.org")
    renamed = accounts.rename_account(connection, before.mailbox, Mailbox("Joanna", "example.org"))
    assert renamed.mailbox == Mailbox("joanna", "example.org")
    assert (renamed.id, renamed.uid_validity, renamed.messages) == (before.id, before.uid_validity, 1)
    assert reached(connection, "jo@example.org") == ["joanna@example.org"]
    assert reached(connection, "jo+tag@example.org") == ["joanna@example.org"]


def test_a_rename_can_be_taken_back(connection: Connection) -> None:
    jo, ann = Mailbox("jo", "example.org"), Mailbox("ann", "example.org")
    accounts.rename_account(connection, jo, ann)
    assert accounts.rename_account(connection, ann, jo).mailbox == jo
    assert aliases.list_aliases(connection) == [aliases.Alias(ann, (jo,))]


def test_a_rename_moves_the_targets_of_aliases(connection: Connection) -> None:
    jo, kim, ann = (Mailbox(name, "example.org") for name in ("jo", "kim", "ann"))
    team = Mailbox("team", "example.org")
    aliases.add_alias(connection, ann, [jo])
    aliases.add_alias(connection, team, [jo, ann, kim])
    accounts.rename_account(connection, jo, ann)
    assert reached(connection, "team@example.org") == ["ann@example.org", "kim@example.org"]
    assert aliases.list_aliases(connection, "example.org") == [
        aliases.Alias(jo, (ann,)),
        aliases.Alias(team, (ann, kim)),
    ]


def test_a_rename_to_another_domain(connection: Connection) -> None:
    domains.add_domain(connection, "example.net")
    accounts.rename_account(connection, Mailbox("jo", "example.org"), Mailbox("jo", "example.net"))
    assert reached(connection, "jo@example.org") == ["jo@example.net"]


@pytest.mark.parametrize("taken", ["kim", "jo", "team"])
def test_a_rename_to_a_taken_address_is_refused(connection: Connection, taken: str) -> None:
    jo, kim = Mailbox("jo", "example.org"), Mailbox("kim", "example.org")
    aliases.add_alias(connection, Mailbox("team", "example.org"), [jo, kim])
    with pytest.raises(AlreadyThere):
        accounts.rename_account(connection, jo, Mailbox(taken, "example.org"))


def test_two_hosts_cannot_add_the_same_account(postgresql_url: str) -> None:
    database = Database(postgresql_url)
    with database.writing() as connection:
        domains.add_domain(connection, "example.org")
    refusals: list[Exception] = []

    def second() -> None:
        try:
            with database.writing() as connection:
                add(connection, "jo@example.org")
        except AlreadyThere as error:
            refusals.append(error)

    with database.writing() as connection:
        add(connection, "jo@example.org")
        other = threading.Thread(target=second)
        other.start()
        other.join(0.3)  # it has looked, found nobody, and waits for our row
    other.join()
    database.dispose()
    assert len(refusals) == 1
