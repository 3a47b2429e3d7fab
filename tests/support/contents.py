"""All that a store has for its users, in a form that two stores can be compared by.

Numbers that nobody sees, ids of messages say, and times are left out.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table, func, select

from mailstack.store import integrity
from mailstack.store.engine import Database
from mailstack.store.parts import message_of
from mailstack.store.tables import account, alias, content, domain, entry, message, removed

Row = tuple[Any, ...]


class Contents(NamedTuple):
    """What there is, sorted."""

    accounts: list[Row]
    entries: list[Row]
    removed: list[Row]
    routes: list[Row]
    messages: int
    parts: int


def contents(database: Database) -> Contents:
    """Everything, of one moment."""
    with database.reading() as connection:
        digests = _digests(connection)
        return Contents(
            accounts=_rows(
                connection,
                select(
                    account.c.local_part,
                    domain.c.name,
                    account.c.messages,
                    account.c.octets,
                    account.c.surrogates,
                    account.c.surrogate_octets,
                    account.c.next_uid,
                    account.c.disabled_at.is_(None),
                    account.c.quota_warned,
                ).join(domain, domain.c.id == account.c.domain_id),
            ),
            entries=_entries(connection, entry, digests),
            removed=_entries(connection, removed, digests),
            routes=_rows(connection, select(alias.c.local_part, alias.c.target_local_part))
            + _rows(connection, select(domain.c.name, domain.c.alias_of.is_(None))),
            messages=_count(connection, message),
            parts=_count(connection, content),
        )


def findings(database: Database, *, repair: bool = False) -> list[str]:
    """What `database check` says."""
    return [finding.text for step in integrity.check(database, repair=repair) for finding in step.findings]


def _entries(connection: Connection, table: Table, digests: dict[int, str]) -> list[Row]:
    rows = connection.execute(
        select(
            account.c.local_part,
            table.c.uid,
            table.c.unique_id,
            table.c.octets,
            table.c.prefix,
            table.c.surrogate_octets,
            table.c.message_id,
            message.c.surrogate_id,
        )
        .join(account, account.c.id == table.c.account_id)
        .join(message, message.c.id == table.c.message_id)
    ).all()
    return sorted(
        (*row[:4], bytes(row[4]), row[5] or 0, digests[row[6]], digests.get(row[7], "")) for row in rows
    )


def _digests(connection: Connection) -> dict[int, str]:
    """Of every message's content, put together from its parts."""
    made: dict[int, Any] = {}
    for number, octets in connection.execute(select(content.c.id, content.c.octets).order_by(content.c.id)):
        made.setdefault(message_of(number), hashlib.sha256()).update(octets)
    return {number: digest.hexdigest() for number, digest in made.items()}


def _rows(connection: Connection, wanted: Any) -> list[Row]:
    return sorted(tuple(row) for row in connection.execute(wanted))


def _count(connection: Connection, table: Table) -> int:
    return int(connection.execute(select(func.count()).select_from(table)).scalar_one())
