"""`mailstack maildrop import` once more: after wrong unique-ids, after a removal, after a restore."""

from __future__ import annotations

import os
from pathlib import Path

from mailstack.store.engine import Database
from tests.cli.conftest import CommandLine
from tests.cli.importing import JO, imported, maildir, uidl
from tests.support import maildrops


def dovecot(folder: Path) -> Path:
    return maildir(
        folder / "Maildir",
        {
            "cur/1.a:2,S": b"Subject: one\n\n",
            "cur/2.a:2,S": b"Subject: two\n\n",
            "new/3.a": b"Subject: 3\n\n",
        },
        dovecot_uidlist="3 V5 N3\n1 :1.a\n2 :2.a\n",
    )


RIGHT = ("--uidl-format", "%v.%u")


def test_messages_that_came_under_other_unique_ids_do_not_come_again(jo: CommandLine, tmp_path: Path) -> None:
    source = dovecot(tmp_path)
    imported(jo, source)
    for more in ((), ("--dry-run",)):
        refused = jo("maildrop", "import", JO, source, *RIGHT, *more)
        assert refused.code == os.EX_DATAERR
        assert "2 of 3 messages came here before under other unique-ids" in refused.err
        assert f"mailstack maildrop remove {JO} --imported" in refused.err
    assert len(uidl(jo)) == 3
    assert imported(jo, source)["imported"] == 0
    again = jo("maildrop", "import", JO, source, *RIGHT, "--again", "--json")
    assert (again.code, again.json["imported"], len(again.json["not_kept"])) == (os.EX_DATAERR, 2, 1)
    assert len(uidl(jo)) == 5


def test_an_import_with_wrong_unique_ids_is_taken_out_and_done_anew(
    jo: CommandLine, store: Database, tmp_path: Path
) -> None:
    native = maildrops.deposit(store, b"native\r\n", JO)
    assert native
    source = dovecot(tmp_path)
    imported(jo, source)
    wrong = uidl(jo)[1:]
    assert jo("maildrop", "remove", JO, "--imported").code == os.EX_USAGE  # nobody is here to say yes
    told = jo.good("maildrop", "remove", JO, "--imported", "--yes", "--json").json
    assert (told["messages"], told["undo_seconds"]) == (3, 7 * 86400)
    assert len(uidl(jo)) == 1
    assert imported(jo, source, *RIGHT)["imported"] == 3
    assert uidl(jo)[1:] == ["5.1", "5.2", "5.3"]
    assert imported(jo, source, *RIGHT)["imported"] == 0
    jo.good("maildrop", "restore", JO, "--all")
    assert sorted(uidl(jo)[1:]) == sorted([*wrong, "5.1", "5.2", "5.3"])
    jo.good("database", "check")


def test_unique_ids_of_what_was_taken_out_are_given_to_no_other_message(
    jo: CommandLine, tmp_path: Path
) -> None:
    imported(jo, maildir(tmp_path / "a", {"cur/x": b"Subject: one\n\n"}))
    jo.good("maildrop", "remove", JO, "x", "--yes")
    other = maildir(tmp_path / "b", {"cur/x": b"Subject: two\n\n"})
    told = jo("maildrop", "import", JO, other, "--json")
    assert (told.code, len(told.json["not_kept"])) == (os.EX_DATAERR, 1)


def test_unique_ids_that_were_right_come_through_the_cure_of_the_wrong_ones(
    jo: CommandLine, tmp_path: Path
) -> None:
    source = maildir(
        tmp_path / "Maildir",
        {"cur/1.a": b"Subject: one\n\n", "cur/2.a": b"Subject: two\n\n", "cur/3.a": b"Subject: 3\n\n"},
        dovecot_uidlist="3 V5 N4\n1 PUID1-9 :1.a\n2 PUID2-9 :2.a\n3 :3.a\n",
    )
    imported(jo, source)
    assert uidl(jo) == ["UID1-9", "UID2-9", "0000000300000005"]
    jo.good("maildrop", "remove", JO, "--imported", "--yes")
    assert imported(jo, source, *RIGHT)["not_kept"] == []
    assert uidl(jo) == ["UID1-9", "UID2-9", "5.3"]
    jo.good("maildrop", "restore", JO, "--all")  # what came again is there already
    assert sorted(uidl(jo)) == ["0000000300000005", "5.3", "UID1-9", "UID2-9"]
    jo.good("database", "check")


def test_mail_without_unique_ids_that_was_taken_out_and_restored_does_not_come_again(
    jo: CommandLine, tmp_path: Path
) -> None:
    one, two = b"Subject: one\n\n", b"Subject: two\n\n"
    source = maildir(tmp_path / "Maildir", {"cur/1.a": one, "cur/2.a": one, "cur/3.a": two})
    assert imported(jo, source, "--uidl", "new")["imported"] == 3
    had = uidl(jo)
    jo.good("maildrop", "remove", JO, "--imported", "--yes")
    jo.good("maildrop", "restore", JO, had[0], had[2])
    assert imported(jo, source, "--uidl", "new")["imported"] == 1  # the one of two alike that is not here
    assert uidl(jo)[:2] == [had[0], had[2]]
    assert imported(jo, source, "--uidl", "new")["imported"] == 0
    assert len(uidl(jo)) == 3
