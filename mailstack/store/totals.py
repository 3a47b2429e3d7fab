"""What the whole store holds, out of the accounts' own counters."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from mailstack.store.tables import account


def totals(connection: Connection) -> dict[str, int]:
    """How many accounts, messages and octets there are."""
    row = connection.execute(
        select(
            func.count(),
            func.coalesce(func.sum(account.c.messages), 0),
            func.coalesce(func.sum(account.c.octets), 0),
        )
    ).one()
    return {"accounts": row[0], "messages": int(row[1]), "octets": int(row[2])}
