"""What delivery and login ask of the accounts: who takes mail for an address, whose name is this?"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from sqlalchemy import Connection, bindparam, select, update

from mailstack.errors import NoPostmaster, NoSuchMailbox, NotOurDomain
from mailstack.mail.address import Mailbox, fold_domain, fold_local_part
from mailstack.store import routing
from mailstack.store.prepared import Prepared
from mailstack.store.routing import Reached, expand, place
from mailstack.store.tables import account, domain

POSTMASTERS: Final = frozenset({"postmaster", "abuse"})
"""Local-parts that every domain has (RFC 5321 §4.5.1, RFC 2142 §2 and §4)."""


class Route(NamedTuple):
    """The accounts that mail for an address goes to, each once, at least one."""

    accounts: tuple[Reached, ...]
    to_postmaster: bool  # never refused for a quota or a disabled account


class Credentials(NamedTuple):
    """What is needed to let somebody in."""

    account_id: int
    name: str
    password_hash: str
    scram_keys: str | None
    disabled: bool


class NewHash(NamedTuple):
    """A newer hash of the same password, and its keys, to stand where the old ones stood."""

    account_id: int
    old: str
    new: str
    scram_keys: str | None


def route(
    connection: Connection, mailbox: Mailbox, *, postmaster: Mailbox | None, hosts: Collection[str] = ()
) -> Route:
    """Where mail for the address goes; raises NotOurDomain, NoSuchMailbox or NoPostmaster.

    An account or alias of that name comes first, then the name before a plus sign, then the
    postmaster for `postmaster` and `abuse`, then the domain's catch-all. `hosts` are folded domains that have
    a postmaster even where they are none of ours (RFC 5321 §4.5.1).
    """
    to_postmaster = is_postmasters(fold_local_part(mailbox.local_part))
    try:
        where = place(connection, mailbox)
    except NotOurDomain:
        if not to_postmaster or fold_domain(mailbox.domain) not in hosts:
            raise
        return Route(_postmasters(connection, postmaster), to_postmaster)
    if named := expand(connection, [where], catch_all=False):
        return Route(named, to_postmaster)
    if to_postmaster:
        return Route(_postmasters(connection, postmaster), to_postmaster)
    if caught := expand(connection, [where]):
        return Route(caught, to_postmaster=False)
    raise NoSuchMailbox("no such mailbox here")


def own(connection: Connection, mailbox: Mailbox) -> Route | None:
    """The same where the address is an account's own, which comes before all else; None: ask `route`."""
    reached = routing.own(connection, mailbox)
    return None if reached is None else Route((reached,), is_postmasters(reached.mailbox.local_part))


def is_postmasters(local_part: str) -> bool:
    """Whether mail for such a name is never refused for a quota or a disabled account."""
    return local_part.partition("+")[0] in POSTMASTERS


def credentials(connection: Connection, mailbox: Mailbox) -> Credentials | None:
    """The one account that the name belongs to: its own address, or an alias for it alone."""
    try:
        found = expand(connection, [place(connection, mailbox)], catch_all=False)
    except NotOurDomain:
        return None
    if len(found) != 1:
        return None
    (reached,) = found
    secrets = _SECRETS.row(connection, reached.account_id)
    if secrets is None:
        return None  # it was removed a moment ago
    kept_hash, scram_keys = secrets
    name = str(reached.mailbox)
    return Credentials(reached.account_id, name, kept_hash, scram_keys, reached.disabled)


def logs_in(connection: Connection, mailbox: Mailbox) -> bool:
    """Whether it is a login name, which a catch-all never is."""
    return bool(mailbox.local_part) and credentials(connection, mailbox) is not None


def password_hash(connection: Connection, account_id: int) -> str | None:
    """The hash that is in force; None: the account was removed."""
    secrets = _SECRETS.row(connection, account_id)
    return None if secrets is None else str(secrets[0])


def renew_hashes(connection: Connection, jobs: Sequence[NewHash]) -> list[bool]:
    """Put newer hashes in place; whether each is, since its old one may have gone meanwhile."""
    renewed = (
        connection.execute(
            update(account)
            .where(account.c.id == job.account_id, account.c.password_hash == job.old)
            .values(password_hash=job.new, scram_keys=job.scram_keys)
        )
        for job in jobs
    )
    return [result.rowcount > 0 for result in renewed]


def _postmasters(connection: Connection, chosen: Mailbox | None) -> tuple[Reached, ...]:
    """The accounts of `postmaster` in the settings, else the first account that was ever added."""
    if chosen is not None:
        try:
            if found := expand(connection, [place(connection, chosen)], catch_all=False):
                return found
        except NotOurDomain:
            pass  # a domain that was removed since: the first account stands in
    row = connection.execute(
        select(account.c.domain_id, account.c.local_part, domain.c.name)
        .join(domain, domain.c.id == account.c.domain_id)
        .order_by(account.c.id)
        .limit(1)
    ).one_or_none()
    if row is None:
        raise NoPostmaster("there is no account yet that could take mail for postmaster")
    return expand(connection, [place(connection, Mailbox(row.local_part, row.name))], catch_all=False)


_SECRETS: Final = Prepared(
    select(account.c.password_hash, account.c.scram_keys).where(account.c.id == bindparam("account_id")),
    "account_id",
)
