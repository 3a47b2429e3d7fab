"""Every kind of work that changes the store, on a store that has something of everything."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from sqlalchemy import Connection, insert, select, update

from mailstack.cli.importing.eml import Eml
from mailstack.cli.importing.entering import Entering
from mailstack.cli.importing.measuring import measured
from mailstack.cli.importing.source import Uidl
from mailstack.errors import AlreadyThere
from mailstack.mail.address import Mailbox, parse_mailbox
from mailstack.mail.spool import PART_OCTETS
from mailstack.settings import Settings
from mailstack.settings.keeping import Store as StoreSettings
from mailstack.store import (
    accounts,
    aliases,
    browse,
    domains,
    fullness,
    housekeeping,
    imports,
    integrity,
    leftovers,
    limits,
    messages,
    removal,
    retention,
    undo,
)
from mailstack.store.backups import maildrop, missing
from mailstack.store.backups.copy import upgraded
from mailstack.store.backups.folder import Folder
from mailstack.store.backups.make import Backup
from mailstack.store.backups.restore import Restoration
from mailstack.store.backups.verify import Verification
from mailstack.store.clock import now
from mailstack.store.engine import Database
from mailstack.store.housekeeping import Rules, Sweep
from mailstack.store.leftovers import Slice
from mailstack.store.limits import Limits
from mailstack.store.messages import Deposit, Recipient
from mailstack.store.parts import content_id
from mailstack.store.removal import Expunge
from mailstack.store.retention import Read
from mailstack.store.store import Store
from mailstack.store.tables import (
    REMOVED_BY_CLIENT,
    REMOVED_BY_HOUSEKEEPING,
    account,
    content,
    entry,
    removed,
)
from tests.store.deposits import spooled
from tests.support import maildrops
from tests.support.contents import findings

JO, KIM, LEE = (Mailbox(name, "example.org") for name in ("jo", "kim", "lee"))
JO_ID, KIM_ID, LEE_ID = 1, 2, 3
PREFIX = b"Return-Path: <eve@example.net>\r\n"
LARGE = b"Subject: large\r\n\r\n" + b"x" * 2 * PART_OCTETS + b"\r\n"
FLOWING = b"Subject: larger\r\n\r\n" + b"y" * 5 * PART_OCTETS + b"\r\n"
"""So large that it goes to SQLite's log before its COMMIT."""
RULES = Rules(default=Limits(), undo_seconds=7 * 86_400, undo_deleted_seconds=7 * 86_400)


class Operation(NamedTuple):
    """Some work, and what has to hold when a part of it has failed."""

    name: str
    run: Callable[[Database, Path], object]
    whole: bool = True
    """One transaction: all of it is done, or nothing."""
    prepare: Callable[[Database, Path], object] = lambda database, folder: None
    between: Callable[[Database, Path], object] = lambda database, folder: None
    """Looks at what a failure left."""
    into_empty: bool = False
    """It works on a store that has nothing yet, after `prepare` had the furnished one."""


# -- the store --------------------------------------------------------------------------------------


def deposited(connection: Connection, *batch: tuple[bytes, tuple[int, ...]], surrogate: bytes = b"") -> None:
    """One batch; with a surrogate, that of its last message."""
    with spooled(*(octets for octets, _ in batch), surrogate) as (*spools, in_ascii):
        jobs = [
            Deposit(
                mail_id=f"id{number}",
                reverse_path="eve@example.net",
                spool=spool,
                dotted=False,
                recipients=tuple(
                    Recipient(each, PREFIX, PREFIX if surrogate and number == len(batch) else None)
                    for each in to
                ),
                at=1,
                surrogate=in_ascii if surrogate and number == len(batch) else None,
            )
            for number, (spool, (_, to)) in enumerate(zip(spools, batch, strict=True), 1)
        ]
        messages.deposit(connection, jobs)


def furnish(database: Database) -> None:
    """Three maildrops that share messages, large and small; removed mail, a surrogate, limits, an alias."""
    with database.writing() as connection:
        domains.add_domain(connection, "example.org")
        for mailbox in (JO, KIM, LEE):
            accounts.add_account(connection, mailbox, password_hash="$hash$")
        aliases.add_alias(connection, parse_mailbox("info@example.org"), [JO])
        limits.set_for_account(connection, LEE_ID, keep_messages=2)
        limits.set_for_account(connection, KIM_ID, quota_octets=2 * len(LARGE))
        everybody = (JO_ID, KIM_ID, LEE_ID)
        deposited(connection, *((b"Subject: %d\r\n\r\n" % n, everybody) for n in range(5)))
        deposited(connection, (LARGE, (KIM_ID,)), (b"Subject: gone\r\n\r\n", (JO_ID, KIM_ID)))
        deposited(connection, ("Subject: ö\r\n\r\n".encode(), (JO_ID,)), surrogate=b"Subject: o\r\n\r\n")
        deposited(connection, (b"Subject: old\r\n\r\n" + LARGE, (JO_ID,)), (b"Subject: x\r\n\r\n", (JO_ID,)))
        removal.expunge(
            connection,
            [
                Expunge(JO_ID, [2, 6], REMOVED_BY_CLIENT),
                Expunge(KIM_ID, [7], REMOVED_BY_HOUSEKEEPING),
                Expunge(JO_ID, [8, 9], REMOVED_BY_CLIENT),
            ],
        )
        forgettable = (removed.c.account_id == JO_ID) & (removed.c.uid >= 8)
        connection.execute(update(removed).where(forgettable).values(removed_at=1))


# -- work -------------------------------------------------------------------------------------------


def _in_one_transaction(work: Callable[[Connection], object]) -> Callable[[Database, Path], object]:
    def run(database: Database, folder: Path) -> None:
        with database.writing() as connection:
            work(connection)

    return run


def _deposit(connection: Connection) -> None:
    deposited(
        connection,
        (b"Subject: new\r\n\r\n", (JO_ID,)),
        (LARGE, (JO_ID, KIM_ID, LEE_ID)),
        (FLOWING, (JO_ID,)),
        ("Subject: ä\r\n\r\n".encode(), (KIM_ID,)),
        surrogate=b"Subject: a\r\n\r\n",
    )


def _expunge(connection: Connection) -> None:
    jobs = [Expunge(JO_ID, [1, 3, 7]), Expunge(KIM_ID, [1, 6]), Expunge(LEE_ID, [1, 2], REMOVED_BY_CLIENT)]
    removal.expunge(connection, jobs)


def _pass_over(connection: Connection) -> None:
    leftovers.pass_over(connection, [Slice(messages=1, octets=0)])


def _housekeeping(database: Database, folder: Path) -> None:
    async def run() -> None:
        store = Store(database, state_dir=folder, reserve_octets=0)
        try:
            await housekeeping.run(store, RULES, sweep=Sweep.NOW)
        finally:
            await store.close()

    asyncio.run(run())


def _litter(database: Database, folder: Path) -> None:
    with database.writing() as connection:
        connection.execute(insert(content).values(id=content_id(99), octets=b"litter"))
        connection.execute(update(account).where(account.c.id == JO_ID).values(messages=77, octets=7))


def _litter_alone(database: Database, folder: Path) -> None:
    with database.writing() as connection:
        connection.execute(insert(content).values(id=content_id(99), octets=b"litter"))


def _back_up(database: Database, folder: Path) -> None:
    _exhaust(Backup(database, Folder(folder / "backups")).run())


def _backups_are_whole(database: Database, folder: Path) -> None:
    """What is called a backup is one, whatever happened to the others."""
    backups = Folder(folder / "backups")
    if not backups.path.exists():
        return
    backups.open()
    for made in backups.backups():
        verification = Verification(backups, made)
        _exhaust(verification.run())
        assert verification.findings == []


def _restore(database: Database, folder: Path) -> None:
    backups = Folder(folder / "backups")
    try:
        _exhaust(Restoration(database, backups, backups.find(None), folder).run())
    except AlreadyThere:
        assert findings(database) == []  # the last COMMIT was done, only not heard of


def _nothing_half_restored(database: Database, folder: Path) -> None:
    with database.reading() as connection:
        names = {str(each.mailbox) for each in accounts.list_accounts(connection)}
    assert names in (set(), {str(each) for each in (JO, KIM, LEE)})
    if names:
        assert findings(database) == []


def _restore_maildrop(database: Database, folder: Path) -> None:
    backups = Folder(folder / "backups")
    one_at_a_time = patch.object(maildrop, "_STEP_MESSAGES", 1)
    with upgraded(backups, backups.find(None), folder) as copy, one_at_a_time:
        with database.reading() as connection:
            plan = missing.plan(connection, copy, JO)
            target = accounts.find_account(connection, JO)
        _exhaust(maildrop.Return(database, copy, plan, target).run())


def _back_up_then_lose(database: Database, folder: Path) -> None:
    _back_up(database, folder)
    with database.writing() as connection:
        removal.expunge(connection, [Expunge(JO_ID, [1, 7])])


def _exhaust(steps: Iterable[Any]) -> None:
    for _ in steps:
        pass


def _mail_in_files(database: Database, folder: Path) -> None:
    """One that Jo has, one for all clients, one that has a surrogate and our own kind of unique-id."""
    (folder / "files").mkdir()
    with database.reading() as connection:
        uid, unique_id = connection.execute(select(entry.c.uid, entry.c.unique_id).limit(1)).one()
    here = b"".join(browse.octets_of(database, JO_ID, uid))
    (folder / "files" / f"00000001-{unique_id}.eml").write_bytes(here)
    (folder / "files" / "00000002-a.eml").write_bytes(LARGE)
    utf8 = "Received: by c with UTF8SMTP; no\r\nSubject: ö\r\n\r\n".encode() + LARGE
    (folder / "files" / "00000003-4000000000.7.eml").write_bytes(utf8)


def _import(database: Database, folder: Path) -> None:
    source = Eml(folder / "files", Uidl.auto)
    looked = list(measured(source, Uidl.auto))
    with database.reading() as connection:
        have = imports.known(connection, JO_ID)

    def digest_of(uid: int) -> bytes:
        return hashlib.sha256(b"".join(browse.octets_of(database, JO_ID, uid))).digest()

    made = imports.decisions([each.wanted for each in looked], have, digest_of)
    settings = Settings(state_dir=folder, store=StoreSettings(reserve_octets=0))
    run = Entering(database, settings, source, account_id=JO_ID, stand=have.stand, told="files")
    _exhaust(run.run(list(zip(looked, made, strict=True))))


def _nearly_full(database: Database, folder: Path) -> None:
    with database.writing() as connection:
        for account_id in (JO_ID, LEE_ID):
            limits.set_for_account(connection, account_id, quota_messages=4)


def _adds_up(database: Database, folder: Path) -> None:
    assert findings(database) == []


OPERATIONS = (
    Operation("deposit a batch", _in_one_transaction(_deposit)),
    Operation("expunge", _in_one_transaction(_expunge)),
    Operation("sweep", _in_one_transaction(maildrops.sweep), prepare=_in_one_transaction(_expunge)),
    Operation("pass over", _in_one_transaction(_pass_over), prepare=_in_one_transaction(_expunge)),
    Operation(
        "note what was read",
        _in_one_transaction(
            lambda c: retention.mark_read(c, [[Read(JO_ID, 1, 1, 5), Read(KIM_ID, 2, 2, 5)]])
        ),
    ),
    Operation("bring back", _in_one_transaction(lambda c: undo.bring_back(c, JO_ID))),
    Operation(
        "forget",
        _in_one_transaction(lambda c: undo.forget(c, [undo.Forget(REMOVED_BY_CLIENT, now())])),
    ),
    Operation(
        "add an account",
        _in_one_transaction(
            lambda c: accounts.add_account(c, Mailbox("max", "example.org"), password_hash="")
        ),
    ),
    Operation("remove an account", _in_one_transaction(lambda c: accounts.remove_account(c, KIM))),
    Operation(
        "rename an account",
        _in_one_transaction(lambda c: accounts.rename_account(c, JO, Mailbox("joe", "example.org"))),
    ),
    Operation(
        "rename a domain",
        _in_one_transaction(lambda c: domains.rename_domain(c, "example.org", "example.net")),
    ),
    Operation(
        "warn of full maildrops",
        _in_one_transaction(lambda c: fullness.warn(c, [fullness.Warn(postmaster=None, at=1)])),
        prepare=_nearly_full,
    ),
    Operation("import", _import, whole=False, prepare=_mail_in_files, between=_adds_up),
    Operation(
        "keep house",
        _housekeeping,
        whole=False,
        prepare=_litter_alone,
    ),
    Operation(
        "repair",
        lambda database, folder: _exhaust(integrity.check(database, repair=True)),
        whole=False,
        prepare=_litter,
    ),
    Operation("back up", _back_up, whole=False, between=_backups_are_whole),
    Operation(
        "restore all",
        _restore,
        whole=False,
        prepare=_back_up,
        between=_nothing_half_restored,
        into_empty=True,
    ),
    Operation(
        "restore a maildrop",
        _restore_maildrop,
        whole=False,
        prepare=_back_up_then_lose,
        between=_adds_up,
    ),
)
