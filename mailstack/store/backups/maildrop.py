"""Restores one account's mail, or one message, from a backup into the store that is in service.

What the maildrop still has stays as it is; what it lacks comes back under its old unique-id. The
caller holds the maildrop's lock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, delete, insert, select, update

from mailstack.errors import NotFound
from mailstack.mail.address import Mailbox, fold_domain, fold_local_part
from mailstack.store import accounts, events, messages
from mailstack.store.accounts import Account
from mailstack.store.backups.copy import Copy
from mailstack.store.backups.make import Progress
from mailstack.store.engine import Database
from mailstack.store.events import Kind
from mailstack.store.inspection import Inspection
from mailstack.store.runs import Runs
from mailstack.store.tables import PARTS_A_MESSAGE, account, content, entry, message, removed

_STEP_OCTETS: Final = 8 * 1024 * 1024


class Kept(NamedTuple):
    """An entry as the backup has it."""

    uid: int
    unique_id: str
    message_id: int
    octets: int
    prefix: bytes
    delivered_at: int
    first_read_at: int | None


class Plan(NamedTuple):
    """What a restore would bring back."""

    account_id: int  # in the backup
    password_hash: str
    missing: tuple[Kept, ...]
    present: int

    @property
    def octets(self) -> int:
        """How much mail that is."""
        return sum(each.octets for each in self.missing)


def plan(connection: Connection, copy: Copy, mailbox: Mailbox, unique_ids: Sequence[str] = ()) -> Plan:
    """What the backup has for this address and the maildrop has not; raises NotFound."""
    row = copy.file.execute(
        "SELECT a.id, a.password_hash FROM account AS a JOIN domain AS d"
        " ON a.domain_id = coalesce(d.alias_of, d.id) WHERE d.name = ? AND a.local_part = ?",
        (fold_domain(mailbox.domain), fold_local_part(mailbox.local_part)),
    ).fetchone()
    if row is None:
        raise NotFound(f"the backup has no account {mailbox}")
    wanted = set(unique_ids)
    backed_up = [
        Kept(*each)
        for each in copy.file.execute(
            f"SELECT {', '.join(Kept._fields)} FROM entry WHERE account_id = ? ORDER BY uid", (row[0],)
        )
        if not wanted or each[1] in wanted
    ]
    if unknown := wanted - {each.unique_id for each in backed_up}:
        raise NotFound(f"the backup has no message {', '.join(sorted(unknown))} of {mailbox}")
    try:
        here = accounts.find_account(connection, mailbox).id
    except NotFound:
        here = 0
    there = set(
        connection.execute(select(entry.c.unique_id).where(entry.c.account_id == here)).scalars().all()
    )
    missing = tuple(each for each in backed_up if each.unique_id not in there)
    return Plan(row[0], row[1], missing, len(backed_up) - len(missing))


class Return:
    """Brings back what a plan names; `run` yields its progress, afterwards `findings` tells what was lost."""

    def __init__(self, database: Database, copy: Copy, found: Plan, target: Account) -> None:
        self._database = database
        self._copy = copy
        self._plan = found
        self._target = target
        self.findings: list[str] = []
        self.restored = 0
        self._uids = Runs()

    def run(self) -> Iterator[Progress]:
        """Restore message by message, some at a time in a transaction; can be done again after a stop."""
        waiting: dict[int, list[Kept]] = {}
        for each in self._plan.missing:
            waiting.setdefault(each.message_id, []).append(each)
        ids = ", ".join(map(str, waiting))  # whole numbers out of a table
        total = self._copy.want(f"id IN ({ids})")
        with self._database.writing() as connection:
            accounts.renew_uid_validities(connection, self._target.id)
        try:
            yield from self._brought_back(waiting, total)
        finally:
            if self._uids:
                with self._database.writing() as connection:
                    uids, name = str(self._uids), str(self._target.mailbox)
                    events.add(
                        connection, Kind.RESTORED, self._target.id, account=name, uids=uids, how="backup"
                    )

    def _brought_back(self, waiting: dict[int, list[Kept]], total: int) -> Iterator[Progress]:
        done = 0
        for found, rows in self._copy.contents(self.findings):
            # A message is in memory whole here: one at a time, and an administrator is waiting.
            parts = list(rows)
            inspection = Inspection(*found)
            for number, octets in parts:
                inspection.see(number % PARTS_A_MESSAGE, octets)
            if inspection.damage:
                self.findings.append(inspection.damage)
            else:
                with self._database.writing() as connection:
                    self._enter(connection, found.id, [octets for _, octets in parts], waiting[found.id])
                self.restored += len(waiting[found.id])
            done += found.octets
            yield Progress(done, total)
        self.findings += [f"message {number} is in no archive" for number in self._copy.not_found()]

    def _enter(
        self, connection: Connection, number: int, parts: Sequence[bytes], kept: Sequence[Kept]
    ) -> None:
        backed_up = self._message(number)
        there = _same(connection, number, backed_up)
        message_id = number if there else _insert(connection, backed_up, parts)
        mine = account.c.id == self._target.id
        next_uid = connection.execute(select(account.c.next_uid).where(mine).with_for_update()).scalar_one()
        unique_ids = [each.unique_id for each in kept]
        connection.execute(
            delete(removed).where(
                removed.c.account_id == self._target.id, removed.c.unique_id.in_(unique_ids)
            )
        )
        taken = _uids(connection, self._target.id, [each.uid for each in kept])
        octets = 0
        for each in kept:
            uid = each.uid if each.uid not in taken else next_uid
            next_uid = max(next_uid, uid + 1)
            self._uids.add(uid)
            values = each._asdict() | {"uid": uid, "message_id": message_id, "account_id": self._target.id}
            connection.execute(insert(entry).values(values))
            octets += each.octets
        connection.execute(
            update(account)
            .where(mine)
            .values(
                next_uid=next_uid,
                messages=account.c.messages + len(kept),
                octets=account.c.octets + octets,
            )
        )

    def _message(self, number: int) -> dict[str, Any]:
        # Its surrogate (RFC 6858) stays in the backup: clients without UTF8 get this message as it is.
        here_only = ("id", "damaged_at", "surrogate_id")
        names = [column.name for column in message.columns if column.name not in here_only]
        row = self._copy.file.execute(
            f"SELECT {', '.join(names)} FROM message WHERE id = ?", (number,)
        ).fetchone()
        found = dict(zip(names, row, strict=True))
        return found | {"dotted": bool(found["dotted"])}


def _same(connection: Connection, number: int, backed_up: dict[str, Any]) -> bool:
    """Whether the store still has this very message, for another of its recipients say."""
    row = connection.execute(
        select(message).where(message.c.id == number, message.c.damaged_at.is_(None)).with_for_update()
    ).one_or_none()
    if row is None:
        return False
    # A message from before there were digests may have got its own since the backup.
    known = backed_up if row.digests and backed_up["digests"] else backed_up | {"digests": row.digests}
    return all(getattr(row, name) == value for name, value in known.items())


def _insert(connection: Connection, backed_up: dict[str, Any], parts: Sequence[bytes]) -> int:
    (number,) = messages.new_message_ids(connection, 1)
    connection.execute(insert(message).values(backed_up | {"id": number}))
    if parts:
        connection.execute(
            insert(content),
            [{"id": number * PARTS_A_MESSAGE + n, "octets": octets} for n, octets in enumerate(parts)],
        )
    return number


def _uids(connection: Connection, account_id: int, wanted: Sequence[int]) -> set[int]:
    """Those of the uids that the maildrop has, or may still bring back."""
    found: set[int] = set()
    for table in (entry, removed):
        mine = (table.c.account_id == account_id) & table.c.uid.in_(wanted)
        found.update(connection.execute(select(table.c.uid).where(mine)).scalars().all())
    return found
