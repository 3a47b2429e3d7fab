"""Random histories of a store against a dictionary: what was accepted is there, once, under one unique-id."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from hypothesis import Phase, settings, strategies
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mailstack.errors import MaildropInUse, NotFound
from mailstack.mail.address import parse_mailbox
from mailstack.mail.spool import PART_OCTETS, Spool
from mailstack.store import accounts, browse, housekeeping, leftovers, messages, undo
from mailstack.store.backups import maildrop, missing
from mailstack.store.backups.copy import upgraded
from mailstack.store.backups.folder import Folder
from mailstack.store.backups.make import Backup
from mailstack.store.clock import now
from mailstack.store.engine import Database
from mailstack.store.housekeeping import Rules, Sweep
from mailstack.store.leftovers import Slice
from mailstack.store.limits import Limits
from mailstack.store.locks import MaildropLock
from mailstack.store.messages import Deposit, Recipient
from mailstack.store.store import Store
from mailstack.store.tables import REMOVED_BY_CLIENT, REMOVED_BY_HOUSEKEEPING
from tests.support import maildrops, postgresql
from tests.support.contents import findings

T = TypeVar("T")

OWNERS = {1: "jo@example.org", 2: "kim@example.org", 3: "lee@example.org"}
PREFIX = b"Return-Path: <eve@example.net>\r\n"

OWNER = strategies.sampled_from(sorted(OWNERS))
SIZE = strategies.sampled_from((0, 50, 50, PART_OCTETS + 10))
BATCH = strategies.lists(strategies.tuples(SIZE, strategies.sets(OWNER, min_size=1)), min_size=1, max_size=4)
PLACES = strategies.sets(strategies.integers(0, 5))


class Interrupted(Exception):
    """The process dies here."""


class Session:
    """A maildrop that is open: its lock, and the unique-ids that its client was told."""

    def __init__(self, lock: MaildropLock, last_uid: int, told: list[str]) -> None:
        self.lock = lock
        self.last_uid = last_uid
        self.told = told


class Histories(RuleBasedStateMachine):
    """What users, senders, administrators and accidents do, in any order."""

    def __init__(self, make: Callable[[], str], folder: Path) -> None:
        super().__init__()
        self._loop = asyncio.new_event_loop()
        self._folder = Path(tempfile.mkdtemp(dir=folder))
        self._database = Database(make())
        maildrops.add_accounts(self._database, *OWNERS.values())
        self._store = self._opened()
        self._backups = Folder(self._folder / "backups")
        self._numbers = iter(range(1_000_000))
        self._sessions: dict[int, Session] = {}
        # The dictionary: for each account what it has, what can be brought back, what a backup has.
        self._there: dict[int, dict[str, bytes]] = {each: {} for each in OWNERS}
        self._removed: dict[int, dict[str, bytes]] = {each: {} for each in OWNERS}
        self._backed_up: dict[int, dict[str, bytes]] | None = None
        self._ever: dict[int, set[str]] = {each: set() for each in OWNERS}

    def teardown(self) -> None:
        self._run(self._store.close())
        self._loop.close()
        self._database.dispose()
        shutil.rmtree(self._folder)

    def _opened(self) -> Store:
        async def opened() -> Store:
            return Store(self._database, state_dir=self._folder, reserve_octets=0, keep_deleted=True)

        return self._run(opened())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(asyncio.wait_for(work, 30))

    # -- mail comes in ---------------------------------------------------------------------------

    def _made(self, batch: list[tuple[int, set[int]]]) -> Iterator[Deposit]:
        for octets, to in batch:
            spool = Spool(self._folder)
            spool.write(b"Subject: %d\r\n\r\n%s\r\n" % (next(self._numbers), b"x" * octets))
            recipients = tuple(Recipient(each, PREFIX) for each in sorted(to))
            yield Deposit("id", "eve@example.net", spool, False, recipients, now())

    @rule(batch=BATCH)
    def deposit(self, batch: list[tuple[int, set[int]]]) -> None:
        """Some senders at once; each message is in each of its maildrops, under a new unique-id."""
        jobs = list(self._made(batch))

        async def together() -> None:
            await asyncio.gather(*(self._store.deposit(each) for each in jobs))

        self._run(together())
        for owner in OWNERS:
            wanted = sorted(
                PREFIX + b"".join(job.spool.parts())
                for job, (_, to) in zip(jobs, batch, strict=True)
                if owner in to
            )
            found = self._found(owner)
            new = {each: found[each] for each in found.keys() - self._there[owner].keys()}
            assert sorted(new.values()) == wanted
            assert not new.keys() & self._ever[owner], "a unique-id was given twice"
            self._ever[owner] |= new.keys()
            self._there[owner] |= new
        for job in jobs:
            job.spool.close()

    @rule(batch=BATCH)
    def die_while_writing(self, batch: list[tuple[int, set[int]]]) -> None:
        """The process ends before its COMMIT: nothing of it is there."""
        jobs = list(self._made(batch))
        with pytest.raises(Interrupted):
            self._die_with(jobs)
        for job in jobs:
            job.spool.close()

    def _die_with(self, jobs: list[Deposit]) -> None:
        with self._database.writing() as connection:
            messages.deposit(connection, jobs)
            raise Interrupted

    # -- mail goes out ---------------------------------------------------------------------------

    @rule(owner=OWNER)
    def log_in(self, owner: int) -> None:
        """A second session is refused; a first one is told what is there."""
        if owner in self._sessions:
            with pytest.raises(MaildropInUse):
                self._run(self._store.lock_maildrop(owner, holder="192.0.2.2"))
            return
        lock = self._run(self._store.lock_maildrop(owner, holder="192.0.2.1"))
        snapshot = self._run(self._store.open_maildrop(owner))
        told = list(self._run(self._store.unique_ids(owner, snapshot.last_uid)))
        assert snapshot.messages == len(told)
        assert snapshot.octets == sum(map(len, self._there[owner].values()))
        self._sessions[owner] = Session(lock, snapshot.last_uid, told)

    @precondition(lambda self: self._sessions)
    @rule(data=strategies.data(), places=PLACES)
    def quit(self, data: strategies.DataObject, places: set[int]) -> None:
        """Nothing has changed for the session; what it has deleted goes, and nothing else."""
        owner = data.draw(strategies.sampled_from(sorted(self._sessions)))
        session = self._sessions.pop(owner)
        listing = self._run(self._store.listing(owner, session.last_uid))
        assert list(self._run(self._store.unique_ids(owner, session.last_uid))) == session.told
        chosen = [place for place in places if place < len(session.told)]
        uids = [listing.uids[place] for place in chosen]
        self._run(self._store.expunge(owner, uids, lock=session.lock))
        self._run(session.lock.released())
        for place in chosen:
            unique_id = session.told[place]
            self._removed[owner][unique_id] = self._there[owner].pop(unique_id)

    @rule()
    def restart(self) -> None:
        """Sessions end with their server, and delete nothing."""
        self._run(self._store.close())
        self._sessions.clear()
        self._database = Database(self._database.url.render_as_string(hide_password=False))
        self._store = self._opened()

    # -- the house is kept -----------------------------------------------------------------------

    @rule(most=strategies.integers(0, 6))
    def keep_house(self, most: int) -> None:
        """The newest stay; a maildrop in use is left alone; what goes can be brought back."""
        week = 7 * 86_400
        rules = Rules(default=Limits(keep_messages=most), undo_seconds=week, undo_deleted_seconds=week)
        self._run(housekeeping.run(self._store, rules, sweep=Sweep.NOW))
        for owner, there in self._there.items():
            found = self._found(owner)
            if owner in self._sessions:
                continue
            assert len(found) == min(most, len(there))
            for unique_id in there.keys() - found.keys():
                self._removed[owner][unique_id] = there.pop(unique_id)

    @rule()
    def forget(self) -> None:
        """What was removed can no longer be brought back; its content is left over."""
        for removed_by in (REMOVED_BY_CLIENT, REMOVED_BY_HOUSEKEEPING):
            while self._run(self._store.write(undo.forget, undo.Forget(removed_by, now() + 1))):
                pass
        for each in self._removed.values():
            each.clear()

    @rule(messages=strategies.integers(1, 3))
    def sweep(self, messages: int) -> None:
        """Some of what is left over goes, and nothing else."""
        self._run(self._store.write(leftovers.sweep, Slice(messages, octets=PART_OCTETS)))

    @rule(owner=OWNER)
    def bring_back(self, owner: int) -> None:
        """All that was removed is there again, under its old unique-ids."""
        if owner in self._sessions:
            return
        with self._database.writing() as connection:
            undo.bring_back(connection, owner)
        self._there[owner] |= self._removed[owner]
        self._removed[owner].clear()

    @rule()
    def back_up(self) -> None:
        """One moment of the store is kept."""
        for _ in Backup(self._database, self._backups).run():
            pass
        self._backed_up = {owner: dict(there) for owner, there in self._there.items()}

    @precondition(lambda self: self._backed_up is not None)
    @rule(owner=OWNER)
    def restore(self, owner: int) -> None:
        """What the maildrop lacks of the newest backup comes back under its old unique-ids."""
        if owner in self._sessions or self._backed_up is None:
            return
        mailbox = parse_mailbox(OWNERS[owner])
        with upgraded(self._backups, self._backups.find(None), self._folder) as copy:
            try:
                with self._database.reading() as connection:
                    plan = missing.plan(connection, copy, mailbox)
                    target = accounts.find_account(connection, mailbox)
            except NotFound:
                assert self._backed_up[owner].keys() <= self._there[owner].keys()
                return
            for _ in maildrop.Return(self._database, copy, plan, target).run():
                pass
        for unique_id, octets in self._backed_up[owner].items():
            self._there[owner][unique_id] = octets
            self._removed[owner].pop(unique_id, None)

    # -- and always ------------------------------------------------------------------------------

    def _found(self, owner: int) -> dict[str, bytes]:
        entries = list(browse.walk(self._database, owner))
        assert [each.uid for each in entries] == sorted({each.uid for each in entries})
        return {
            each.unique_id: b"".join(browse.octets_of(self._database, owner, each.uid)) for each in entries
        }

    @invariant()
    def is_as_the_dictionary_says(self) -> None:
        """Every maildrop, octet for octet; and the store adds up."""
        for owner, there in self._there.items():
            assert self._found(owner) == there
            with self._database.reading() as connection:
                listed = {each.unique_id for each in undo.listed(connection, owner)}
            assert listed == self._removed[owner].keys()
        assert findings(self._database) == []


def _tried(make: Callable[[], str], folder: Path, *, examples: int, steps: int) -> None:
    run_state_machine_as_test(
        lambda: Histories(make, folder),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            phases=[Phase.generate],
        ),
    )


def test_histories_on_sqlite(sqlite_template: Path, tmp_path: Path) -> None:
    _tried(_on_sqlite(sqlite_template, tmp_path), tmp_path, examples=5, steps=12)


def test_histories_on_postgresql(postgresql_server: str, tmp_path: Path) -> None:
    _tried(_on_postgresql(postgresql_server), tmp_path, examples=2, steps=10)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_many_histories_on_sqlite(sqlite_template: Path, tmp_path: Path) -> None:
    _tried(_on_sqlite(sqlite_template, tmp_path), tmp_path, examples=60, steps=40)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_many_histories_on_postgresql(postgresql_server: str, tmp_path: Path) -> None:
    _tried(_on_postgresql(postgresql_server), tmp_path, examples=20, steps=30)


def _on_sqlite(template: Path, folder: Path) -> Callable[[], str]:
    numbers = iter(range(1_000_000))

    def make() -> str:
        target = folder / f"history{next(numbers)}.db"
        shutil.copy(template, target)
        return f"sqlite:///{target}"

    return make


def _on_postgresql(server: str) -> Callable[[], str]:
    made: list[str] = []

    def make() -> str:
        while made:
            postgresql.drop_database(server, made.pop())
        made.append(f"history_{uuid4().hex}")  # another test has left its last one behind
        return postgresql.create_database(server, made[-1], template="template")

    return make
