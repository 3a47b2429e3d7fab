"""Backups made, read and restored by the store's own functions, each in a line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from mailstack.mail.address import Mailbox
from mailstack.mail.spool import PART_OCTETS
from mailstack.store import accounts, browse, removal
from mailstack.store.backups import maildrop, missing
from mailstack.store.backups.copy import upgraded
from mailstack.store.backups.folder import Folder
from mailstack.store.backups.make import Backup
from mailstack.store.backups.restore import Restoration
from mailstack.store.backups.verify import Verification
from mailstack.store.engine import Database
from mailstack.store.progress import Progress
from mailstack.store.removal import Expunge
from tests.support import maildrops

JO, KIM = "jo@example.org", "kim@example.org"
LARGE = b"Subject: large\r\n\r\n" + b"x" * 2 * PART_OCTETS + b"\r\n"


def back_up(database: Database, folder: Folder) -> Backup:
    """Make a backup, whole."""
    run = Backup(database, folder)
    exhaust(run.run())
    return run


def exhaust(steps: Iterable[Progress]) -> None:
    """Run to the end; progress never says more than all."""
    for step in steps:
        assert step.total is not None
        assert 0 <= step.done <= step.total


def verify(folder: Folder, name: str | None = None) -> list[str]:
    """What reading a backup through finds."""
    run = Verification(folder, folder.find(name))
    exhaust(run.run())
    return run.findings


def restore(database: Database, folder: Folder, working: Path) -> list[str]:
    """Restore all of the newest backup; what is said of it."""
    run = Restoration(database, folder, folder.find(None), working)
    exhaust(run.run())
    return run.findings


def bring_back(database: Database, folder: Folder, working: Path, name: str, *unique_ids: str) -> int:
    """Restore one account's mail from the newest backup, which has all of it; how many messages that were."""
    run = restored(database, folder, working, name, *unique_ids)
    assert run.findings == []
    return run.restored


def restored(
    database: Database,
    folder: Folder,
    working: Path,
    name: str,
    *unique_ids: str,
    since_the_plan: Callable[[], object] = lambda: None,
) -> maildrop.Return:
    """Restore one account's mail from the newest backup, as far as it has it.

    Between the plan and the work something else may happen.
    """
    with upgraded(folder, folder.find(None), working) as copy:
        with database.writing() as connection:
            found = missing.plan(connection, copy, Mailbox(name, "example.org"), unique_ids)
            target = accounts.find_account(connection, Mailbox(name, "example.org"))
        since_the_plan()
        run = maildrop.Return(database, copy, found, target)
        exhaust(run.run())
        return run


def mail(database: Database, name: str) -> dict[str, bytes]:
    """An account's messages by unique-id, in order, as a client gets them."""
    with database.reading() as connection:
        found = accounts.find_account(connection, Mailbox(name, "example.org"))
    entries = list(browse.walk(database, found.id))
    return {each.unique_id: b"".join(browse.octets_of(database, found.id, each.uid)) for each in entries}


def expunge(database: Database, account_id: int, *uids: int) -> None:
    """Remove entries as a session does, and the content that nobody has any more."""
    with database.writing() as connection:
        removal.expunge(connection, [Expunge(account_id, uids)])
        maildrops.sweep(connection)


def validity(database: Database, name: str) -> int:
    """The uid validity of an account."""
    with database.reading() as connection:
        return accounts.find_account(connection, Mailbox(name, "example.org")).uid_validity
