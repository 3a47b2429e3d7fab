"""What an account's counters say, against what its maildrop has."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, and_, delete, exists, func, select, update

from mailstack.errors import StoreDamaged
from mailstack.mail.address import Mailbox
from mailstack.store import counters
from mailstack.store.engine import Database
from mailstack.store.finding import Finding
from mailstack.store.tables import account, domain, entry, message


class Counters(NamedTuple):
    """An account's entries, each with its message, and its counters against them."""

    id: int

    def name(self, database: Database) -> str:
        """The account's address, as long as that can be read."""
        with suppress(StoreDamaged), database.reading() as connection:
            wanted = select(account.c.local_part, domain.c.name).join(
                domain, domain.c.id == account.c.domain_id
            )
            if row := connection.execute(wanted.where(account.c.id == self.id)).one_or_none():
                return str(Mailbox(*row))
        return f"account {self.id}"

    def look(self, connection: Connection) -> tuple[Finding, ...]:
        row = connection.execute(_counted(self.id)).one_or_none()
        if row is None:  # removed while we were looking elsewhere
            return ()
        name = Mailbox(row.local_part, row.name)
        found = [f"{name}: the message of uid {uid} is gone" for uid in self._lost(connection)]
        if row.messages != row.messages_counted:
            found.append(
                f"{name}: the counter says {row.messages} messages, the maildrop has {row.messages_counted}"
            )
        if row.octets != row.octets_counted:
            found.append(
                f"{name}: the counter says {row.octets} octets, the messages have {row.octets_counted}"
            )
        if (row.surrogates, row.surrogate_octets) != (row.surrogates_counted, row.surrogate_octets_counted):
            found.append(
                f"{name}: the counter says {row.surrogates} surrogates with {row.surrogate_octets} octets"
                f" more, the maildrop has {row.surrogates_counted} with {row.surrogate_octets_counted}"
            )
        if row.next_uid <= row.last_uid:
            found.append(f"{name}: the next uid is {row.next_uid}, but {row.last_uid} was given out already")
        return (
            *(Finding(text, mendable=True) for text in found),
            *(
                Finding(f"{name}: the unique-id {unique_id} stands for {count} messages", mendable=False)
                for unique_id, count in self._repeated(connection)
            ),
        )

    def _repeated(self, connection: Connection) -> Sequence[Any]:
        wanted = select(entry.c.unique_id, func.count()).where(entry.c.account_id == self.id)
        return connection.execute(wanted.group_by(entry.c.unique_id).having(func.count() > 1)).all()

    def lock(self, connection: Connection) -> None:
        connection.execute(select(account.c.id).where(account.c.id == self.id).with_for_update())

    def mend(self, connection: Connection) -> None:
        for uid in self._lost(connection):
            connection.execute(delete(entry).where(entry.c.account_id == self.id, entry.c.uid == uid))
        counters.recount(connection, self.id)
        last_uid = select(func.max(entry.c.uid)).where(entry.c.account_id == self.id).scalar_subquery()
        behind = and_(account.c.id == self.id, account.c.next_uid <= last_uid)
        connection.execute(update(account).where(behind).values(next_uid=last_uid + 1))

    def _lost(self, connection: Connection) -> Sequence[int]:
        # Foreign keys forbid it; a database that was edited by hand knows no foreign keys.
        wanted = select(entry.c.uid).where(
            entry.c.account_id == self.id, ~exists().where(message.c.id == entry.c.message_id)
        )
        return connection.execute(wanted.order_by(entry.c.uid)).scalars().all()


def _counted(account_id: int) -> Select[Any]:
    return (
        select(
            account.c.local_part,
            domain.c.name,
            account.c.next_uid,
            *(account.c[each.name] for each in counters.SUMS),
            *(each.label(f"{each.name}_counted") for each in counters.SUMS),
            func.coalesce(func.max(entry.c.uid), 0).label("last_uid"),
        )
        .join(domain, domain.c.id == account.c.domain_id)
        .outerjoin(entry, entry.c.account_id == account.c.id)
        .where(account.c.id == account_id)
        .group_by(account.c.id, domain.c.name)
    )
