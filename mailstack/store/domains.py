"""Our domains: SQL as plain functions `f(connection, ...)`.

A renamed domain keeps its row, and so its accounts, their mail and their unique-ids; the old name
becomes a row of its own that points to it, and every address of the old name goes on working.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Column, Connection, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from mailstack.errors import AlreadyThere, BadAddress, NotFound, StillInUse
from mailstack.mail.address import domain_key, ends_with_number
from mailstack.store import logins
from mailstack.store.clock import moment, now
from mailstack.store.tables import account, alias, domain


class Domain(NamedTuple):
    """One of our domains, or the old name of one."""

    name: str
    renamed_to: str | None
    accounts: int
    aliases: int
    messages: int
    octets: int
    created_at: datetime


def new_name(name: str) -> str:
    """A name that a domain of ours may have, as it is kept; raises BadAddress."""
    folded = _name(name)
    if ends_with_number(folded):
        raise BadAddress(f"{name} ends with a number, as IP addresses do; a domain has a name")
    return folded


def add_domain(connection: Connection, name: str) -> str:
    """Receive mail for a domain from now on; return its name as it is kept."""
    folded = new_name(name)
    _refuse_taken(connection, folded)
    try:
        connection.execute(insert(domain).values(name=folded, created_at=now()))
    except IntegrityError as error:  # somebody else added it since we looked
        raise AlreadyThere(f"{folded} is one of our domains already") from error
    return folded


def list_domains(connection: Connection) -> list[Domain]:
    """All domains and their old names, by name."""
    current = domain.alias("current")
    accounts = (
        select(
            account.c.domain_id,
            func.count().label("accounts"),
            func.sum(account.c.messages).label("messages"),
            func.sum(account.c.octets).label("octets"),
        )
        .group_by(account.c.domain_id)
        .subquery()
    )
    sources = select(alias.c.domain_id, alias.c.local_part).distinct().subquery()
    aliases = (
        select(sources.c.domain_id, func.count().label("aliases")).group_by(sources.c.domain_id).subquery()
    )
    rows = connection.execute(
        select(
            domain.c.name,
            current.c.name.label("renamed_to"),
            accounts.c.accounts,
            aliases.c.aliases,
            accounts.c.messages,
            accounts.c.octets,
            domain.c.created_at,
        )
        .outerjoin(current, current.c.id == domain.c.alias_of)
        .outerjoin(accounts, accounts.c.domain_id == domain.c.id)
        .outerjoin(aliases, aliases.c.domain_id == domain.c.id)
        .order_by(domain.c.name)
    )
    return [
        Domain(
            row.name,
            row.renamed_to,
            row.accounts or 0,
            row.aliases or 0,
            int(row.messages or 0),
            int(row.octets or 0),
            moment(row.created_at),
        )
        for row in rows
    ]


def remove_domain(connection: Connection, name: str) -> str:
    """Stop receiving for a domain and its old names; refused while it has accounts or aliases."""
    row = _row(connection, name)
    accounts = _count(connection, account.c.domain_id, row.id)
    aliases = _count(connection, alias.c.domain_id, row.id)
    if accounts or aliases:
        raise StillInUse(
            f"{row.name} still has {accounts} accounts and {aliases} alias targets; remove them first"
        )
    if _count(connection, alias.c.target_domain_id, row.id):
        raise StillInUse(f"aliases of other domains still point into {row.name}; remove them first")
    connection.execute(delete(domain).where(domain.c.alias_of == row.id))
    connection.execute(delete(domain).where(domain.c.id == row.id))
    return row.name


def rename_domain(connection: Connection, old: str, new: str) -> str:
    """Give a domain another name; mail stays, and the old name goes on working. Returns the new name."""
    row, folded = _row(connection, old), new_name(new)
    if row.alias_of is not None:
        raise NotFound(f"{row.name} is only the old name of another domain; rename that one")
    # Back to a name it had before: that row makes room.
    connection.execute(delete(domain).where(domain.c.name == folded, domain.c.alias_of == row.id))
    _refuse_taken(connection, folded)
    try:
        connection.execute(update(domain).where(domain.c.id == row.id).values(name=folded))
        connection.execute(insert(domain).values(name=row.name, alias_of=row.id, created_at=now()))
    except IntegrityError as error:
        raise AlreadyThere(f"{folded} is one of our domains already") from error
    logins.rename_domain(connection, row.name, folded)
    return folded


class _Row(NamedTuple):
    id: int
    name: str
    alias_of: int | None


def _row(connection: Connection, name: str) -> _Row:
    folded = _name(name)
    found = connection.execute(
        select(domain.c.id, domain.c.name, domain.c.alias_of).where(domain.c.name == folded).with_for_update()
    ).one_or_none()
    if found is None:
        raise NotFound(f"{folded} is none of our domains")
    return _Row(*found)


def _name(name: str) -> str:
    folded = domain_key(name)
    if folded.startswith("["):
        raise BadAddress(f"{name} is an address literal; a domain has a name")
    return folded


def _refuse_taken(connection: Connection, name: str) -> None:
    current = domain.alias("current")
    row = connection.execute(
        select(current.c.name)
        .select_from(domain)
        .outerjoin(current, current.c.id == domain.c.alias_of)
        .where(domain.c.name == name)
    ).one_or_none()
    if row is not None:
        old = f"the old name of {row.name}" if row.name else "one of our domains"
        raise AlreadyThere(f"{name} is {old} already")


def _count(connection: Connection, column: Column[int], value: int) -> int:
    return connection.execute(select(func.count()).where(column == value)).scalar_one()
