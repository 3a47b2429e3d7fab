"""Whatever an administrator does, in whatever order, every address that was promised leads to somebody."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from mailstack.errors import MailstackError
from mailstack.mail.address import Mailbox
from mailstack.store import accounts, aliases, domains, routing
from mailstack.store.engine import Database

DOMAINS = ("a.example", "b.example", "c.example")
names = st.builds(Mailbox, st.sampled_from(["jo", "kim", "ann", "jo+tag", "x"]), st.sampled_from(DOMAINS))
sources = st.one_of(names, st.builds(Mailbox, st.just(""), st.sampled_from(DOMAINS)))
steps = st.one_of(
    st.tuples(st.just("account add"), names),
    st.tuples(st.just("account remove"), names),
    st.tuples(st.just("account rename"), names, names),
    st.tuples(st.just("alias add"), sources, st.lists(names, min_size=1, max_size=3)),
    st.tuples(st.just("alias remove"), sources, st.lists(names, max_size=2)),
    st.tuples(st.just("domain rename"), st.sampled_from(DOMAINS), st.sampled_from(DOMAINS)),
    st.tuples(st.just("domain remove"), st.sampled_from(DOMAINS)),
)


@given(st.lists(steps, max_size=30))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_history_leaves_an_address_that_leads_nowhere(
    sqlite_url: str, history: list[tuple[object, ...]]
) -> None:
    database = Database(sqlite_url)
    with suppress(_Undone), database.writing() as connection:
        for name in DOMAINS[:2]:
            domains.add_domain(connection, name)
            accounts.add_account(connection, Mailbox("jo", name), password_hash="$hash$")
        for step in history:
            before = _promised(connection)
            _take(connection, *step)
            _check(connection)
            if step[0] in ("account rename", "domain rename"):
                # The old names go on working, and nobody's mail goes to somebody else.
                assert before == {each: _reached(connection, each) for each in before}
        raise _Undone
    database.dispose()


class _Undone(Exception):
    """Ends the transaction of one example without a trace."""


def _take(connection: Connection, kind: object, *arguments: object) -> None:
    """One command; what it refuses it leaves as it was, as the command line's transaction does."""
    command = {
        "account add": lambda name: accounts.add_account(connection, name, password_hash="$hash$"),
        "account remove": lambda name: accounts.remove_account(connection, name),
        "account rename": lambda old, new: accounts.rename_account(connection, old, new),
        "alias add": lambda source, targets: aliases.add_alias(connection, source, targets),
        "alias remove": lambda source, targets: aliases.remove_alias(connection, source, targets),
        "domain rename": lambda old, new: domains.rename_domain(connection, old, new),
        "domain remove": lambda name: domains.remove_domain(connection, name),
    }[str(kind)]
    with suppress(MailstackError), connection.begin_nested():
        command(*arguments)  # type: ignore[operator]


def _check(connection: Connection) -> None:
    owners = {each.mailbox for each in accounts.list_accounts(connection)}
    for alias in aliases.list_aliases(connection):
        assert alias.mailbox not in owners
        here = aliases.source_place(connection, alias.mailbox)
        for target in alias.targets:
            where = routing.place(connection, target)
            expansion = routing.expansion(connection, [where], catch_all=False)
            assert expansion.accounts, f"{alias.mailbox} leads to {target}, which leads nowhere"
            assert here not in expansion.aliases, f"{alias.mailbox} leads back to itself"


def _promised(connection: Connection) -> dict[Mailbox, set[int]]:
    """Every address that means somebody, and whom."""
    known = [each.mailbox for each in accounts.list_accounts(connection)]
    known += [each.mailbox for each in aliases.list_aliases(connection) if each.mailbox.local_part]
    return {each: _reached(connection, each) for each in known}


def _reached(connection: Connection, mailbox: Mailbox) -> set[int]:
    where = routing.place(connection, mailbox)
    return {each.account_id for each in routing.expand(connection, [where])}
