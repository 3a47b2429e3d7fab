"""Statements about surrogates (RFC 6858): only mail that has one runs them.

A surrogate's content is a message of its own that no entry points to; its entry keeps the size and
the prefix that go with it, and its account keeps the sums (see `counters`).
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import bindparam, case, func, select, update

from mailstack.store.prepared import Prepared, is_among
from mailstack.store.tables import entry, message

LINK = Prepared(
    update(message).where(message.c.id == bindparam("key")).values(surrogate_id=bindparam("surrogate")),
    "surrogate",
    "key",
)
ENTER = Prepared(
    update(entry)
    .where(entry.c.account_id == bindparam("account"), entry.c.uid == bindparam("number"))
    .values(surrogate_octets=bindparam("octets"), surrogate_prefix=bindparam("prefix")),
    "octets",
    "prefix",
    "account",
    "number",
)
# An entry without these octets came out of a backup: its client gets the message as it is.
SHOWN_ID: Final = case(
    (entry.c.surrogate_octets.is_(None), message.c.id),
    else_=func.coalesce(message.c.surrogate_id, message.c.id),
)
FOUND = Prepared(
    select(message.c.id, message.c.octets, message.c.surrogate_id).where(is_among(message.c.id, "ids")), "ids"
)
