"""An account's counters: what its entries add up to, in its own row, so that no login has to add it up.

Whoever enters or removes entries changes them in the same transaction.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, Connection, Label, bindparam, cast, func, literal_column, select, update

from mailstack.store.prepared import Prepared
from mailstack.store.tables import account, entry


def _sum(octets: Any) -> Any:
    # PostgreSQL makes a decimal of a sum.
    return cast(func.coalesce(func.sum(octets), literal_column("0")), BigInteger)


SUMS: Final[tuple[Label[int], ...]] = (
    func.count(entry.c.uid).label("messages"),
    _sum(entry.c.octets).label("octets"),
    func.count(entry.c.surrogate_octets).label("surrogates"),
    _sum(entry.c.surrogate_octets - entry.c.octets).label("surrogate_octets"),
)
"""What the counters of that name have to be, of an account's entries; of some, what these are in it."""

_ADDED: Final = ("next_uid", *(each.name for each in SUMS))

ADD: Final = Prepared(
    update(account)
    .where(account.c.id == bindparam("key"))
    .ordered_values(*((name, account.c[name] + bindparam(f"more_{name}")) for name in _ADDED)),
    *(f"more_{name}" for name in _ADDED),
    "key",
)
"""Give so many uids, and count so much more, in the order of SUMS; less where that is below 0."""


def recount(connection: Connection, account_id: int) -> None:
    """Make an account's counters anew from its entries; where others write too, its row is locked."""
    found = connection.execute(select(*SUMS).where(entry.c.account_id == account_id)).one()
    connection.execute(update(account).where(account.c.id == account_id).values(found._asdict()))
