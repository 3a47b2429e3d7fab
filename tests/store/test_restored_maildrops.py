"""One account's mail, or one message, comes back from a backup beside what is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, delete, func, select, update

from mailstack.errors import NotFound
from mailstack.mail.address import Mailbox
from mailstack.store import accounts, removal, undo
from mailstack.store.backups import maildrop, missing
from mailstack.store.backups.copy import upgraded
from mailstack.store.backups.folder import Folder
from mailstack.store.engine import Database
from mailstack.store.removal import Expunge
from mailstack.store.tables import REMOVED_BY_ADMIN, content, entry, message
from tests.store import operations
from tests.support import maildrops
from tests.support.backups import JO, KIM, LARGE, back_up, bring_back, expunge, mail, restored, validity
from tests.support.contents import Contents, contents, findings
from tests.support.fetched import whole


def test_one_account_gets_back_what_it_lacks(two_maildrops: Database, folder: Folder, tmp_path: Path) -> None:
    before = mail(two_maildrops, "kim")
    back_up(two_maildrops, folder)
    old = validity(two_maildrops, "kim")
    expunge(two_maildrops, 2, 1, 2, 3, 21)
    expunge(two_maildrops, 1, 2)  # whose message 2 is gone now, while 1 and 3 are still jo's
    new = maildrops.deposit(two_maildrops, b"Subject: new\r\n\r\n", KIM)
    assert bring_back(two_maildrops, folder, tmp_path, "kim") == 4
    after = mail(two_maildrops, "kim")
    assert list(after)[:-1] == list(before)
    assert {name: after[name] for name in before} == before
    assert validity(two_maildrops, "kim") > old
    with two_maildrops.reading() as connection:
        shared = connection.execute(
            select(entry.c.message_id).where(entry.c.account_id == 2).order_by(entry.c.uid)
        )
        numbers = shared.scalars().all()
    assert numbers[0] == 1, "what another recipient still has is not stored twice"
    assert numbers[1] > new
    assert bring_back(two_maildrops, folder, tmp_path, "kim") == 0
    assert findings(two_maildrops) == []


def test_what_is_only_left_over_still_serves_a_restore(
    two_maildrops: Database, folder: Folder, tmp_path: Path
) -> None:
    before = mail(two_maildrops, "kim")
    back_up(two_maildrops, folder)
    with two_maildrops.writing() as connection:
        removal.expunge(connection, [Expunge(2, [1, 21]), Expunge(1, [1])])
    assert bring_back(two_maildrops, folder, tmp_path, "kim") == 2
    for _ in range(2):
        assert mail(two_maildrops, "kim") == before
        assert findings(two_maildrops) == []
        with two_maildrops.writing() as connection:
            assert connection.scalar(select(func.count()).select_from(message)) == 21
            maildrops.sweep(connection)


def test_one_message_comes_back_alone(two_maildrops: Database, folder: Folder, tmp_path: Path) -> None:
    before = mail(two_maildrops, "kim")
    back_up(two_maildrops, folder)
    expunge(two_maildrops, 2, *range(1, 22))
    wanted = list(before)[20]
    assert bring_back(two_maildrops, folder, tmp_path, "kim", wanted) == 1
    assert mail(two_maildrops, "kim") == {wanted: before[wanted]}
    with upgraded(folder, folder.find(None), tmp_path) as copy, two_maildrops.reading() as connection:
        with pytest.raises(NotFound, match="no message 7"):
            missing.plan(connection, copy, Mailbox("kim", "example.org"), ["7"])
        with pytest.raises(NotFound, match="no account"):
            missing.plan(connection, copy, Mailbox("eve", "example.org"))


def test_an_account_under_a_removed_ones_name_keeps_its_own_mail(
    two_maildrops: Database, folder: Folder, tmp_path: Path
) -> None:
    before = mail(two_maildrops, "kim")
    back_up(two_maildrops, folder)
    with two_maildrops.writing() as connection:
        accounts.remove_account(connection, Mailbox("kim", "example.org"))
    maildrops.add_accounts(two_maildrops, KIM)
    maildrops.deposit(two_maildrops, b"Subject: first of the new\r\n\r\n", KIM)
    (own,) = mail(two_maildrops, "kim")
    assert bring_back(two_maildrops, folder, tmp_path, "kim") == 21
    assert set(mail(two_maildrops, "kim")) == {own, *before}
    assert findings(two_maildrops) == []


@pytest.fixture
def in_two_views(database: Database) -> Database:
    """A message for two accounts that has a surrogate (RFC 6858), and one that has a prefix of its own."""
    maildrops.add_accounts(database, JO, KIM)
    with database.writing() as connection:
        utf8, in_ascii = "Subject: ö\r\n\r\n".encode() + LARGE, b"Subject: o\r\n\r\n" + LARGE
        operations.deposited(connection, (b"Subject: 1\r\n\r\n", (1,)), (utf8, (1, 2)), surrogate=in_ascii)
    return database


def seen(database: Database) -> Contents:
    """Everything but the numbers that a restore may not give again."""
    found = contents(database)
    return found._replace(accounts=[row[:6] + row[7:] for row in found.accounts])


def newest(connection: Connection) -> int:
    """The id of the message that came last."""
    return connection.execute(select(message.c.id).order_by(message.c.id.desc()).limit(1)).scalar_one()


@pytest.mark.parametrize("still_there_for", [(), (1,)])
def test_a_surrogate_comes_back_with_its_message(
    in_two_views: Database, folder: Folder, tmp_path: Path, still_there_for: tuple[int, ...]
) -> None:
    before = seen(in_two_views)
    back_up(in_two_views, folder)
    expunge(in_two_views, 2, 1)
    if not still_there_for:
        expunge(in_two_views, 1, 2)
    for name in ("jo", "kim"):
        bring_back(in_two_views, folder, tmp_path, name)
    assert findings(in_two_views) == []
    after = seen(in_two_views)
    assert after.entries == before.entries
    assert after.accounts == before.accounts
    if still_there_for:
        assert after == before
    with in_two_views.reading() as connection:
        octets = whole(connection, 2, 1, surrogates=True)
        assert octets[: octets.index(b"\r\n\r\n")].endswith(b"Subject: o")


def test_a_message_whose_surrogate_is_lost_comes_back_as_it_came(
    in_two_views: Database, folder: Folder, tmp_path: Path
) -> None:
    with in_two_views.writing() as connection:
        twin = newest(connection)
        connection.execute(delete(content).where(content.c.id == (twin << 16) + 1))
    back_up(in_two_views, folder)
    expunge(in_two_views, 2, 1)
    expunge(in_two_views, 1, 2)
    with upgraded(folder, folder.find(None), tmp_path) as copy:
        with in_two_views.writing() as connection:
            found = missing.plan(connection, copy, Mailbox("kim", "example.org"))
            target = accounts.find_account(connection, Mailbox("kim", "example.org"))
        run = maildrop.Return(in_two_views, copy, found, target)
        assert [step.done <= step.total for step in run.run()] != []
    assert (run.restored, len(run.findings)) == (1, 1)
    assert f"message {twin}" in run.findings[0]
    assert findings(in_two_views) == []
    with in_two_views.reading() as connection:
        assert "ö".encode() in whole(connection, 2, 1, surrogates=True)


def test_a_damaged_surrogate_gets_its_content_back(
    in_two_views: Database, folder: Folder, tmp_path: Path
) -> None:
    before = seen(in_two_views)
    back_up(in_two_views, folder)
    with in_two_views.reading() as connection:
        twin = newest(connection)
    maildrops.overwrite(in_two_views, twin, b"\r\n")
    assert len(findings(in_two_views)) == 1  # and notes it
    assert bring_back(in_two_views, folder, tmp_path, "kim") == 1
    assert findings(in_two_views) == []
    with in_two_views.writing() as connection:
        maildrops.sweep(connection)
    assert seen(in_two_views) == before, "jo's, too, which is the same"
    assert bring_back(in_two_views, folder, tmp_path, "jo") == 0


def test_a_surrogate_that_is_damaged_in_the_backup_too_is_done_without(
    in_two_views: Database, folder: Folder, tmp_path: Path
) -> None:
    with in_two_views.reading() as connection:
        twin = newest(connection)
    maildrops.overwrite(in_two_views, twin, b"\r\n")
    (said,) = findings(in_two_views)
    back_up(in_two_views, folder)
    with upgraded(folder, folder.find(None), tmp_path) as copy:
        with in_two_views.reading() as connection:
            found = missing.plan(connection, copy, Mailbox("kim", "example.org"))
            target = accounts.find_account(connection, Mailbox("kim", "example.org"))
        run = maildrop.Return(in_two_views, copy, found, target)
        for _ in run.run():
            pass
    assert run.findings == [said]
    assert findings(in_two_views) == [said], "jo's entry still has the damaged one"
    with in_two_views.reading() as connection:
        assert "ö".encode() in whole(connection, 2, 1, surrogates=True)


def test_a_damaged_message_gets_its_content_back(
    two_maildrops: Database, folder: Folder, tmp_path: Path
) -> None:
    before = mail(two_maildrops, "kim")
    back_up(two_maildrops, folder)
    maildrops.overwrite(two_maildrops, 3, b"Subject: X\r\n\r\n.\r\n")
    said = "message 3 is damaged: its content is not what was deposited"
    assert findings(two_maildrops) == [said]  # and notes it
    assert bring_back(two_maildrops, folder, tmp_path, "kim", list(before)[2]) == 1
    assert mail(two_maildrops, "kim") == before
    assert findings(two_maildrops) == [said], "jo's entry still has the damaged one"
    assert bring_back(two_maildrops, folder, tmp_path, "jo") == 1
    assert findings(two_maildrops) == []
    with two_maildrops.writing() as connection:
        maildrops.sweep(connection)
        there = connection.execute(select(message.c.id).where(message.c.id == 3)).all()
        assert there == [], "nobody needs the damaged one any more"
        uids = connection.execute(select(entry.c.uid).where(entry.c.account_id == 2).order_by(entry.c.uid))
        assert uids.scalars().all() == list(range(1, 22))


def test_a_damaged_message_that_was_removed_leaves_nothing_behind(
    two_maildrops: Database, folder: Folder, tmp_path: Path
) -> None:
    before = mail(two_maildrops, "kim")
    back_up(two_maildrops, folder)
    maildrops.overwrite(two_maildrops, 21, b"\r\n")
    with two_maildrops.writing() as connection:
        removal.expunge(connection, [Expunge(2, [21], REMOVED_BY_ADMIN)])
    findings(two_maildrops)  # notes the damage
    assert bring_back(two_maildrops, folder, tmp_path, "kim") == 1
    with two_maildrops.writing() as connection:
        maildrops.sweep(connection)
    assert findings(two_maildrops) == []
    assert mail(two_maildrops, "kim") == before


def late(
    database: Database, folder: Folder, working: Path, name: str, since_the_plan: Callable[[], object]
) -> maildrop.Return:
    """Restore one account's mail by a plan from before something else happened."""
    run = restored(database, folder, working, name, since_the_plan=since_the_plan)
    assert run.findings == []
    assert findings(database) == []
    return run


def test_what_somebody_else_brought_back_does_not_come_twice(
    two_maildrops: Database, folder: Folder, tmp_path: Path
) -> None:  # RFC 1939 §7
    before = mail(two_maildrops, "kim")
    names = list(before)
    back_up(two_maildrops, folder)
    with two_maildrops.writing() as connection:
        removal.expunge(connection, [Expunge(2, [1, 2, 21], REMOVED_BY_ADMIN)])

    def undone() -> None:
        with two_maildrops.writing() as connection:
            undo.bring_back(connection, 2, [names[1], names[20]])

    run = late(two_maildrops, folder, tmp_path, "kim", undone)
    assert (run.restored, run.stayed) == (1, 2)
    assert mail(two_maildrops, "kim") == before


def test_what_an_import_brought_under_its_old_unique_id_stays(
    two_maildrops: Database, folder: Folder, tmp_path: Path
) -> None:
    def name(uid: int) -> None:
        with two_maildrops.writing() as connection:
            mine = (entry.c.account_id == 2) & (entry.c.uid == uid)
            connection.execute(update(entry).where(mine).values(unique_id="000000016b0388a7"))

    def imported() -> None:
        maildrops.deposit(two_maildrops, LARGE, KIM)
        name(22)

    name(21)
    back_up(two_maildrops, folder)
    expunge(two_maildrops, 2, 21)
    run = late(two_maildrops, folder, tmp_path, "kim", imported)
    assert (run.restored, run.stayed) == (0, 1)
    assert list(mail(two_maildrops, "kim"))[20:] == ["000000016b0388a7"]


def test_a_damaged_message_whose_owner_has_deleted_it_comes_back(
    two_maildrops: Database, folder: Folder, tmp_path: Path
) -> None:
    before = mail(two_maildrops, "kim")
    back_up(two_maildrops, folder)
    maildrops.overwrite(two_maildrops, 21, b"\r\n")
    assert len(findings(two_maildrops)) == 1  # and notes it
    run = late(two_maildrops, folder, tmp_path, "kim", lambda: expunge(two_maildrops, 2, 21))
    assert (run.restored, run.stayed) == (1, 0)
    assert mail(two_maildrops, "kim") == before
