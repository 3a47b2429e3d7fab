"""Brings back what a maildrop is missing, from a backup into the store that is in service.

What it lacks comes back under its old unique-id, and what is damaged there gets its content back. The
caller holds the maildrop's lock; who enters mail does so without.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, delete, insert, select, update

from mailstack.store import accounts, browse, counters, events, messages, removal
from mailstack.store.accounts import Account
from mailstack.store.backups.copy import Copy
from mailstack.store.backups.missing import Kept, Plan
from mailstack.store.engine import Database
from mailstack.store.events import Kind
from mailstack.store.inspection import Inspection
from mailstack.store.parts import content_id
from mailstack.store.progress import Progress
from mailstack.store.runs import Runs
from mailstack.store.tables import account, content, entry, message, removed

_STEP_OCTETS: Final = 8 * 1024 * 1024
_STEP_MESSAGES: Final = 100
"""What one transaction brings back: senders wait for it, and many small ones wait for the disk."""

_twin: Final = message.alias("twin")


class _Message(NamedTuple):
    """A message of the backup, whole."""

    id: int
    parts: list[bytes]


class _Ready(NamedTuple):
    """A message, its surrogate where it has one, and the entries that get it."""

    original: _Message
    twin: _Message | None
    entries: list[Kept]


class _Entered(NamedTuple):
    """The uids of entries that have their message back, and the messages that nobody may need any more."""

    uids: list[int]
    outdated: list[int]
    stayed: int = 0
    """How many entries had it already."""


class Return:
    """Brings back what a plan names; `run` yields its progress, afterwards `findings` tells what was lost."""

    def __init__(self, database: Database, copy: Copy, found: Plan, target: Account) -> None:
        self._database = database
        self._copy = copy
        self._plan = found
        self._target = target
        self.findings: list[str] = []
        self.restored = 0
        self.stayed = 0
        """How many came back otherwise since the plan, by an import say."""
        self._uids = Runs()

    def run(self) -> Iterator[Progress]:
        """Restore message by message, some at a time in a transaction; can be done again after a stop."""
        waiting: dict[int, list[Kept]] = {}
        for each in self._plan.missing:
            waiting.setdefault(each.message_id, []).append(each)
        ids = ", ".join(map(str, waiting))  # whole numbers out of a table
        surrogates = dict(
            self._copy.rows(
                f"SELECT id, surrogate_id FROM message WHERE surrogate_id IS NOT NULL AND id IN ({ids})"
            )
        )
        ids = ", ".join(map(str, (*waiting, *surrogates.values())))
        total = self._copy.want(f"id IN ({ids})")
        with self._database.writing() as connection:
            accounts.renew_uid_validities(connection, self._target.id)
        try:
            yield from self._brought_back(waiting, surrogates, total)
        finally:
            if self._uids:
                with self._database.writing() as connection:
                    uids, name = str(self._uids), str(self._target.mailbox)
                    events.add(
                        connection, Kind.RESTORED, self._target.id, account=name, uids=uids, how="backup"
                    )

    def _brought_back(
        self, waiting: dict[int, list[Kept]], surrogates: dict[int, int], total: int
    ) -> Iterator[Progress]:
        # A message is in memory whole here, and one with a surrogate until that comes, too: they lie side
        # by side, and an administrator is waiting.
        originals = {twin_id: number for number, twin_id in surrogates.items()}
        early: dict[int, _Message] = {}
        ready: list[_Ready] = []
        done = held = 0
        for each, octets in self._whole():
            number = originals.get(each.id, each.id)
            twin_id = surrogates.get(number)
            early[each.id] = each
            if number in early and (twin_id is None or twin_id in early):
                twin = None if twin_id is None else early.pop(twin_id)
                ready.append(_Ready(early.pop(number), twin, waiting[number]))
            done += octets
            held += octets
            if held >= _STEP_OCTETS or len(ready) >= _STEP_MESSAGES:
                self._return(ready)
                ready, held = [], 0
            yield Progress(done, total)
        for number, left in early.items():
            if number in waiting:  # its surrogate is damaged, or nowhere
                ready.append(_Ready(left, None, [kept.without_surrogate() for kept in waiting[number]]))
        self._return(ready)
        self.findings += [f"message {number} is in no archive" for number in self._copy.not_found()]

    def _whole(self) -> Iterator[tuple[_Message, int]]:
        """What was wanted and is not damaged, and how many octets were read for it."""
        read = 0
        for found, rows in self._copy.contents(self.findings):
            parts = list(rows)
            inspection = Inspection(*found)
            for number, octets in parts:
                inspection.see(number, octets)
            read += found.octets
            if inspection.damage:
                self.findings.append(inspection.damage)
                continue
            yield _Message(found.id, [octets for _, octets in parts]), read
            read = 0

    def _return(self, ready: list[_Ready]) -> None:
        with self._database.writing() as connection:
            messages.numbering(connection, [self._target.id])  # nobody else enters anything now
            unique_ids = [kept.unique_id for each in ready for kept in each.entries]
            there = browse.there(connection, self._target.id, unique_ids)
            # By the ids of messages, as everybody who locks several.
            entered = [self._enter(connection, each, there) for each in sorted(ready)]
            counters.recount(connection, self._target.id)
            removal.note(connection, [number for each in entered for number in each.outdated])
        for each in entered:
            self.restored += len(each.uids)
            self.stayed += each.stayed
            self._uids.extend(each.uids)

    def _enter(self, connection: Connection, each: _Ready, there: set[str]) -> _Entered:
        """Give entries their message, but for those that are `there` whole: no unique-id is given twice."""
        damaged = [kept for kept in each.entries if kept.unique_id in there & self._plan.damaged]
        missing = {kept.unique_id: kept for kept in each.entries if kept.unique_id not in there}
        stayed = len(each.entries) - len(damaged) - len(missing)
        if not damaged and not missing:
            return _Entered([], [], stayed)
        there.update(missing)
        message_id, outdated = self._placed(connection, each.original, each.twin)
        done = [self._mend(connection, kept, message_id) for kept in damaged]
        done.append(self._add(connection, list(missing.values()), message_id))
        outdated += [number for some in done for number in some.outdated]
        return _Entered([uid for some in done for uid in some.uids], outdated, stayed)

    def _placed(
        self, connection: Connection, original: _Message, twin: _Message | None
    ) -> tuple[int, list[int]]:
        """The id of the message in the store, where it still is for another recipient, or is put now.

        And that of a damaged surrogate, whose place the one of the backup has taken.
        """
        backed_up = self._message(original.id)
        there = _same(connection, original.id, backed_up)
        message_id = original.id if there else _insert(connection, backed_up, original.parts)
        mine = message.c.id == message_id
        linked = select(message.c.surrogate_id, _twin.c.damaged_at)
        linked = linked.outerjoin(_twin, _twin.c.id == message.c.surrogate_id).where(mine)
        outdated, damaged_at = connection.execute(linked).one()
        if twin is None or (outdated is not None and damaged_at is None):
            return message_id, []
        made = _insert(connection, self._message(twin.id), twin.parts)
        connection.execute(update(message).where(mine).values(surrogate_id=made))
        return message_id, [] if outdated is None else [outdated]

    def _mend(self, connection: Connection, kept: Kept, message_id: int) -> _Entered:
        """Give an entry its new message in place of the one that it had."""
        mine = (entry.c.account_id == self._target.id) & (entry.c.unique_id == kept.unique_id)
        # More than one where a unique-id stands for two messages, of which `database check` tells.
        rows = connection.execute(select(entry.c.uid, entry.c.message_id).where(mine)).all()
        shown = {name: getattr(kept, name) for name in ("surrogate_octets", "surrogate_prefix")}
        connection.execute(update(entry).where(mine).values(shown | {"message_id": message_id}))
        return _Entered([row.uid for row in rows], [row.message_id for row in rows])

    def _add(self, connection: Connection, kept: Sequence[Kept], message_id: int) -> _Entered:
        """Enter what is missing, in place of what could have been brought back."""
        mine = account.c.id == self._target.id
        next_uid = connection.execute(select(account.c.next_uid).where(mine).with_for_update()).scalar_one()
        replaced = (removed.c.account_id == self._target.id) & removed.c.unique_id.in_(
            [each.unique_id for each in kept]
        )
        outdated = connection.execute(select(removed.c.message_id).where(replaced)).scalars().all()
        connection.execute(delete(removed).where(replaced))
        taken = _uids(connection, self._target.id, [each.uid for each in kept])
        uids = []
        for each in kept:
            uid = each.uid if each.uid not in taken else next_uid
            next_uid = max(next_uid, uid + 1)
            uids.append(uid)
            values = each._asdict() | {"uid": uid, "message_id": message_id, "account_id": self._target.id}
            connection.execute(insert(entry).values(values))
        connection.execute(update(account).where(mine).values(next_uid=next_uid))
        return _Entered(uids, [*outdated])

    def _message(self, number: int) -> dict[str, Any]:
        here_only = ("id", "damaged_at", "surrogate_id")  # the store's own numbers
        names = [column.name for column in message.columns if column.name not in here_only]
        (row,) = self._copy.rows(f"SELECT {', '.join(names)} FROM message WHERE id = ?", (number,))
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
            [{"id": each, "octets": octets} for each, octets in enumerate(parts, content_id(number))],
        )
    return number


def _uids(connection: Connection, account_id: int, wanted: Sequence[int]) -> set[int]:
    """Those of the uids that the maildrop has, or may still bring back."""
    found: set[int] = set()
    for table in (entry, removed):
        mine = (table.c.account_id == account_id) & table.c.uid.in_(wanted)
        found.update(connection.execute(select(table.c.uid).where(mine)).scalars().all())
    return found
