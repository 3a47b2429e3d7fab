"""`mailstack maildrop`: what a reader of its files gets is what was sent."""

from __future__ import annotations

import errno
import json
import mailbox
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete

from mailstack.cli import export, show
from mailstack.mail.spool import PART_OCTETS
from mailstack.store import browse
from mailstack.store.engine import Database
from mailstack.store.parts import content_id
from mailstack.store.tables import content
from tests.cli.conftest import CommandLine
from tests.support import maildrops

JO = "jo@example.org"
RETURN_PATH = b"Return-Path: <eve@example.net>\r\n"
CONTENTS = [
    b"Subject: one\r\n\r\nFrom here\r\n>From there\r\n.\r\n",
    b"Subject: two\r\n\r\n\xff\x00 8-bit\r\n",
    b"Subject: long\r\n\r\n" + b"x" * (5 * PART_OCTETS) + b"\r\nFrom the end\r\n",
]


@pytest.fixture
def filled(mailstack: CommandLine, store: Database) -> CommandLine:
    """A server whose account jo has the messages of CONTENTS."""
    mailstack.good("account", "add", JO)
    for each in CONTENTS:
        maildrops.deposit(store, each, JO)
    return mailstack


@pytest.mark.parametrize("on_terminal", [True, False])
def test_no_table_prints_control_characters(capsys, monkeypatch, on_terminal: bool) -> None:
    """What is in the store may be older than the rules that keep such things out."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: on_terminal)
    show.table(("from",), [["\x1b[2J\0\x9b@é.example"]], empty="")
    show.facts({"from": "\x1b[2J\0\x9b@é.example"})
    assert capsys.readouterr().out.count("\\x1b[2J\\x00\\x9b@é.example") == 2


@pytest.mark.parametrize(
    "text", ["\x1b[2J\0", "\x9b2J", "\x7f", "\u202e", "\U000e0001", "\udcff", 'é "€" \\ 🐎\n']
)
def test_json_has_no_control_characters_and_says_the_same(capsys, text: str) -> None:
    show.as_json({"from": text, text: ["", text]})
    told = capsys.readouterr().out
    assert json.loads(told) == {"from": text, text: ["", text]}
    assert "".join(told.split("\n")).isprintable()
    assert ("é" in told, "🐎" in told) == ("é" in text, "🐎" in text)


def test_list_tells_what_a_client_would_see(filled: CommandLine) -> None:
    listed = filled.good("maildrop", "list", JO, "--json").json
    assert [each["octets"] for each in listed] == [len(RETURN_PATH + each) for each in CONTENTS]
    assert [each["uid"] for each in listed] == [1, 2, 3]
    assert {each["reverse_path"] for each in listed} == {"eve@example.net"}
    header, *rows = filled.good("maildrop", "list", JO).out.splitlines()
    assert header.split() == ["unique-id", "octets", "delivered", "from"]
    assert [row.split()[0] for row in rows] == [each["unique_id"] for each in listed]


def test_show_counts(filled: CommandLine) -> None:
    shown = filled.good("maildrop", "show", JO, "--json").json
    assert shown["messages"] == 3
    assert shown["octets"] == sum(len(RETURN_PATH + each) for each in CONTENTS)
    assert shown["oldest"] < shown["newest"]
    assert "messages       3\n" in filled.good("maildrop", "show", JO).out


def test_an_empty_maildrop_says_so(mailstack: CommandLine) -> None:
    mailstack.good("account", "add", JO)
    listed = mailstack.good("maildrop", "list", JO)
    assert (listed.out, listed.err) == ("", "jo@example.org has no messages\n")
    assert mailstack.good("maildrop", "show", JO, "--json").json["oldest"] is None


def test_show_prints_one_message_as_it_is(filled: CommandLine) -> None:
    unique_id = filled.good("maildrop", "list", JO, "--json").json[0]["unique_id"]
    shown = filled.good("maildrop", "show", JO, unique_id).out
    assert shown.encode() == RETURN_PATH + CONTENTS[0]
    assert filled("maildrop", "show", JO, "1.1").code == 67


def test_show_tells_a_script_of_one_message(filled: CommandLine, store: Database) -> None:
    maildrops.deposit(store, b"Subject: gr\xc3\xbcn\r\nX-Folded: a\r\n b\r\n\xff: \xff\r\n\r\nbody\r\n", JO)
    *_, last = filled.good("maildrop", "list", JO, "--json").json
    shown = filled.good("maildrop", "show", JO, last["unique_id"], "--json").json
    header = shown.pop("header")
    assert shown == last
    assert header[:3] == [["Return-Path", "<eve@example.net>"], ["Subject", "grün"], ["X-Folded", "a\r\n b"]]
    assert "body" not in str(header)


def test_eml_files_are_the_octets(filled: CommandLine, tmp_path: Path) -> None:
    said = filled.good("maildrop", "export", JO, tmp_path / "out").out
    assert said == f"3 messages of {JO} are in {tmp_path}/out\n"
    files = sorted((tmp_path / "out").iterdir())
    assert [file.read_bytes() for file in files] == [RETURN_PATH + each for each in CONTENTS]
    assert re.fullmatch(r"00000001-\d+\.1\.eml", files[0].name)


def test_an_mbox_is_read_by_pythons_own_library(filled: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "out.mbox"
    exported = filled.good("maildrop", "export", JO, file, "--format", "mbox", "--json").json
    assert exported == {"messages": 3, "target": str(file), "format": "mbox", "damaged": []}
    found = mailbox.mbox(file, create=False)
    assert [message["Subject"] for message in found] == ["one", "two", "long"]
    assert found[0].get_from().startswith("eve@example.net ")
    # In mboxrd a quoted line loses one ">" again.
    bodies = [re.sub(rb"(?m)^>(>*From )", rb"\1", found.get_bytes(key)) for key in found.iterkeys()]
    listed = filled.good("maildrop", "list", JO, "--json").json
    assert bodies == [
        b"X-Mailstack-UIDL: %b\n" % entry["unique_id"].encode() + (RETURN_PATH + each).replace(b"\r\n", b"\n")
        for entry, each in zip(listed, CONTENTS, strict=True)
    ]
    found.close()


def test_a_maildir_is_read_by_pythons_own_library(filled: CommandLine, tmp_path: Path) -> None:
    filled.good("maildrop", "export", JO, tmp_path / "out", "--format", "maildir")
    found = mailbox.Maildir(tmp_path / "out", create=False)
    contents = sorted(found.get_bytes(key) for key in found.iterkeys())
    assert contents == sorted((RETURN_PATH + each).replace(b"\r\n", b"\n") for each in CONTENTS)
    listed = filled.good("maildrop", "list", JO, "--json").json
    assert {int(message.get_date()) for message in found} <= {
        _seconds(each["delivered_at"]) for each in listed
    }
    assert list((tmp_path / "out" / "tmp").iterdir()) == []


def _seconds(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp())


@pytest.mark.parametrize("kind", ["eml", "maildir"])
def test_an_empty_folder_may_be_there(filled: CommandLine, tmp_path: Path, kind: str) -> None:
    (tmp_path / "out").mkdir()
    filled.good("maildrop", "export", JO, tmp_path / "out", "--format", kind)


@pytest.mark.parametrize("kind", ["eml", "mbox", "maildir"])
def test_nothing_is_overwritten(filled: CommandLine, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "out"
    filled.good("maildrop", "export", JO, target, "--format", kind)
    refused = filled("maildrop", "export", JO, target, "--format", kind)
    assert (refused.code, "File exists" in refused.err) == (73, True)


@pytest.mark.parametrize("kind", ["eml", "mbox", "maildir"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_what_is_cut_off_does_not_look_whole(
    filled: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, error: BaseException
) -> None:
    whole = browse.octets_of

    def cut_off(database: Database, account_id: int, uid: int) -> Iterator[bytes]:
        if uid == 2:
            assert [left.name for left in tmp_path.glob("out*")] == ["out.partial"]
            raise error
        yield from whole(database, account_id, uid)

    monkeypatch.setattr(browse, "octets_of", cut_off)
    failed = filled("maildrop", "export", JO, tmp_path / "out", "--format", kind)
    assert failed.code in (130, 74)
    assert failed.code == 130 or f"{tmp_path}/out: No space left" in failed.err
    assert list(tmp_path.glob("out*")) == []


@pytest.mark.parametrize("kind", ["eml", "mbox", "maildir"])
def test_an_export_is_for_its_owner_alone(filled: CommandLine, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "out"
    filled.good("maildrop", "export", JO, target, "--format", kind)
    assert [each for each in (target, *target.rglob("*")) if each.stat().st_mode & 0o77] == []


@pytest.mark.parametrize("part", [0, 3])
def test_a_damaged_message_does_not_keep_the_others(
    filled: CommandLine, store: Database, tmp_path: Path, part: int
) -> None:
    with store.writing() as connection:
        connection.execute(delete(content).where(content.c.id == content_id(3, part)))
    exported = filled("maildrop", "export", JO, tmp_path / "out", "--json")
    assert exported.code == 65
    assert len(exported.json["damaged"]) == 1
    assert "message 3" in exported.err
    files = sorted((tmp_path / "out").iterdir())
    assert [file.read_bytes() for file in files][:2] == [RETURN_PATH + each for each in CONTENTS[:2]]


@given(st.lists(st.binary(max_size=8), max_size=6), st.integers(1, 9))
def test_lines_are_those_of_the_whole_however_it_is_cut(parts: list[bytes], piece: int) -> None:
    whole = b"\r\n".join(parts) + b"\r\n"
    cut = [whole[start : start + piece] for start in range(0, len(whole), piece)]
    lines = list(export._lines(cut))
    assert b"".join(line for _, line in lines) == whole.replace(b"\r\n", b"\n")
    assert all(begins for begins, _ in lines)


def test_a_long_line_comes_in_pieces_and_only_its_start_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_PIECE_OCTETS", 4)
    lines = list(export._lines([b"123456", b"789\r", b"\nnext\r\n"]))
    assert b"".join(line for _, line in lines) == b"123456789\nnext\n"
    assert [line for begins, line in lines if begins] == [b"12345", b"next\n"]


def test_messages_are_removed_by_name_and_brought_back(filled: CommandLine) -> None:
    names = [each["unique_id"] for each in filled.good("maildrop", "list", JO, "--json").json]
    assert filled("maildrop", "remove", JO).code == 64
    assert filled("maildrop", "remove", JO, names[0], "--imported").code == 64
    unknown = filled("maildrop", "remove", JO, names[0], "1.1", "--yes")
    assert (unknown.code, unknown.err) == (67, "mailstack: there is no message 1.1 in this maildrop\n")
    said = filled.good("maildrop", "remove", JO, names[0], names[2], "--yes")
    assert said.out == f"2 messages of {JO} removed\n"
    assert said.err == "for 7d maildrop restore brings them back\n"
    assert [each["unique_id"] for each in filled.good("maildrop", "list", JO, "--json").json] == [names[1]]
    removed = filled.good("maildrop", "removed", JO, "--json").json
    assert [each["removed_by"] for each in removed] == ["admin", "admin"]
    assert "mailstack maildrop remove took 2 messages" in filled.good("trace", JO).out
    assert filled.good("maildrop", "remove", JO, "--imported").out == f"0 messages of {JO} removed\n"
    filled.good("maildrop", "restore", JO, "--all")
    assert [each["unique_id"] for each in filled.good("maildrop", "list", JO, "--json").json] == names
    filled.good("database", "check")


def test_a_trace_takes_a_bare_name_as_other_commands_do(filled: CommandLine) -> None:
    names = [each["unique_id"] for each in filled.good("maildrop", "list", JO, "--json").json]
    filled.good("maildrop", "remove", "jo", names[0], "--yes")
    assert filled.good("trace", "jo").out == filled.good("trace", JO).out
    filled.good("account", "remove", JO, "--yes")
    assert filled.good("trace", "jo").out == filled.good("trace", JO).out != ""
    assert filled.good("trace", "nobody").out == ""
    assert filled("trace", "no body").code == 67
