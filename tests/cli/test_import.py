"""`mailstack maildrop import`: no client notices the move, and running it again does no harm."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import delete

from mailstack.mail.spool import PART_OCTETS
from mailstack.store import messages
from mailstack.store.engine import Database
from mailstack.store.tables import entry
from tests.cli.conftest import CommandLine
from tests.cli.importing import ANN, FROM, JO, entries, imported, maildir, octets, uidl
from tests.support import maildrops
from tests.support.fetched import whole
from tests.support.samples import corpus_folder

CORPUS = corpus_folder()
CONTENTS = [
    b"Subject: one\r\n\r\nFrom here\r\n>From there\r\n.\r\n",
    b"Subject: two\r\nStatus: as sent\r\nContent-Length: 3\r\n\r\n\xff\x00 8-bit\r\n",
    b"\r\n",
    b"no header\r\n\r\nFrom eve@example.net Thu Nov 26 02:37:27 2026\r\n\r\n",
    b"Subject: long\r\n\r\n" + b"x" * (5 * PART_OCTETS) + b"\r\nFrom the end\r\n\r\n\r\n",
]


# -- what an export writes -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["eml", "mbox", "maildir"])
def test_an_export_comes_back_as_it_was(jo: CommandLine, store: Database, tmp_path: Path, kind: str) -> None:
    for content in CONTENTS:
        maildrops.deposit(store, content, JO)
    jo.good("maildrop", "import", JO, foreign(tmp_path))
    out = tmp_path / "out"
    jo.good("maildrop", "export", JO, out, "--format", kind)
    told = imported(jo, out, address=ANN)
    assert (told["imported"], told["not_kept"], told["problems"]) == (len(CONTENTS) + 1, [], [])
    before, after = entries(jo), entries(jo, ANN)
    for one, other in zip(before, after, strict=True):
        assert {**other, "mail_id": "", "uid": 0} == {
            **one,
            "mail_id": "",
            "uid": 0,
            "delivered_at": other["delivered_at"],
        }
        assert (
            abs(
                datetime.fromisoformat(one["delivered_at"]) - datetime.fromisoformat(other["delivered_at"])
            ).total_seconds()
            < 1
        )
    jo.good("maildrop", "export", JO, tmp_path / "a")
    jo.good("maildrop", "export", ANN, tmp_path / "b")
    files = [sorted((tmp_path / name).iterdir()) for name in ("a", "b")]
    assert [each.name for each in files[0]] == [each.name for each in files[1]]
    assert [each.read_bytes() for each in files[0]] == [each.read_bytes() for each in files[1]]
    # Into its own maildrop nothing comes twice, nor back.
    assert imported(jo, out)["imported"] == 0
    with store.writing() as connection:
        connection.execute(delete(entry).where(entry.c.account_id == 1, entry.c.uid == 2))
    assert imported(jo, out)["imported"] == 0
    jo.good("database", "check", "--repair")


@pytest.mark.parametrize("kind", ["eml", "mbox", "maildir"])
def test_internationalized_mail_keeps_its_form_for_clients_that_know_ascii_only(
    jo: CommandLine, store: Database, tmp_path: Path, kind: str
) -> None:  # RFC 6858
    sent = "From: jö@example.net\r\nSubject: Grüße\r\n\r\n".encode() + b"x" * (2 * PART_OCTETS) + b"\r\n"
    jo.good("deliver", "--sender", "jö@example.net", JO, stdin=sent)
    jo.good("maildrop", "export", JO, tmp_path / "out", "--format", kind)
    assert imported(jo, tmp_path / "out", address=ANN)["imported"] == 1
    with store.reading() as connection:
        for utf8 in (True, False):
            before, after = (whole(connection, each, 1, surrogates=not utf8) for each in (1, 2))
            assert after == before
            header = after.partition(b"\r\n\r\n")[0]
            assert header.isascii() != utf8
        counted = [messages.snapshot(connection, each) for each in (1, 2)]
        assert [each.surrogates for each in counted] == [1, 1]
        assert counted[1].surrogate_octets == counted[0].surrogate_octets
    jo.good("database", "check")


def test_raw_utf8_that_came_by_no_smtputf8_stays_as_clients_have_seen_it(
    jo: CommandLine, store: Database, tmp_path: Path
) -> None:
    """As what cron and PHP hand to Exim: no server has sent that in any other form."""
    sent = (
        "Received: from www-data by mx1.example.org with local (Exim 4.96)\n"
        "\t(envelope-from <w@example.org>)\n\tid 1rXyZ0-0001Ab-2C; Thu, 26 Nov 2026 02:37:27 +0000\n"
        "From: Büro <w@example.org>\nSubject: Grüße\n\nx\n"
    ).encode()
    assert imported(jo, maildir(tmp_path / "in", {"cur/1.a:2,": sent}))["imported"] == 1
    with store.reading() as connection:
        assert whole(connection, 1, 1, surrogates=True) == sent.replace(b"\n", b"\r\n")
        assert messages.snapshot(connection, 1).surrogates == 0


def foreign(folder: Path) -> Path:
    """A message whose unique-id no file name could have."""
    return maildir(
        folder / "foreign",
        {"cur/1.a:2,S": b"Subject: foreign\n\nbody\n"},
        dovecot_uidlist='3 V5 N2\n1 P!"/%#:~ :1.a\n',
    )


# -- Maildir -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "list_name"),
    [
        ("dovecot-default", "dovecot-uidlist"),
        ("dovecot-from-courier", "dovecot-uidlist"),
        ("dovecot-v1-uidlist", "dovecot-uidlist"),
        ("courier-v2", "courierpop3dsizelist"),
        ("courier-v3", "courierpop3dsizelist"),
    ],
)
def test_real_servers_unique_ids_are_kept(jo: CommandLine, tmp_path: Path, name: str, list_name: str) -> None:
    if CORPUS is None:
        pytest.skip("there is no corpus here")
    samples = CORPUS / "maildir-samples"
    shutil.copytree(samples / "dovecot-default" / "cur", tmp_path / "Maildir" / "cur")
    shutil.copy(samples / name / list_name, tmp_path / "Maildir" / list_name)
    imported(jo, tmp_path / "Maildir")
    expected = [line.split()[1] for line in (samples / name / "expected-uidl.txt").read_text().splitlines()]
    assert uidl(jo) == expected
    if name == "dovecot-default":
        sizes = [
            int(line.split()[1]) for line in (samples / name / "expected-list.txt").read_text().splitlines()
        ]
        assert [each["octets"] for each in entries(jo)] == sizes


def test_new_mail_and_changed_flags_are_as_courier_takes_them(jo: CommandLine, tmp_path: Path) -> None:
    if CORPUS is None:
        pytest.skip("there is no corpus here")
    samples = CORPUS / "maildir-samples" / "courier-flags-and-new"
    names = (samples / "files.txt").read_text().split()
    source = maildir(tmp_path / "Maildir", {f"cur/{name}": name.encode() for name in names})
    shutil.copy(samples / "courierpop3dsizelist.before", source / "courierpop3dsizelist")
    imported(jo, source)
    assert uidl(jo) == [line.split()[1] for line in (samples / "expected-uidl.txt").read_text().splitlines()]


def test_file_names_are_unique_ids_where_no_server_has_noted_any(jo: CommandLine, tmp_path: Path) -> None:
    long = "3." + "x" * 80
    source = maildir(
        tmp_path / "Maildir", {"new/2.b": b"b\n", "cur/1.a:2,S": b"a\n", f"cur/{long}:2,": b"c\n"}
    )
    told = jo("maildrop", "import", JO, source, "--json")
    assert uidl(jo)[:2] == ["1.a", "2.b"]
    assert len(told.json["not_kept"]) == 1
    assert "more than 70 characters" in told.json["not_kept"][0]
    assert "file names" in told.json["notes"][0]
    assert told.code == os.EX_DATAERR
    assert "clients download again: 1 message whose unique-id was not kept" in told.err


def test_the_old_format_of_unique_ids_can_be_named(jo: CommandLine, tmp_path: Path) -> None:
    source = maildir(tmp_path / "Maildir", {"cur/1.a": b"a\n"}, dovecot_uidlist="3 V255 N3\n2 :1.a\n")
    imported(jo, source, "--uidl-format", "%v.%u")
    assert uidl(jo) == ["255.2"]
    refused = jo("maildrop", "import", JO, source, "--uidl-format", "%m")
    assert (refused.code, "over POP3" in refused.err) == (65, True)


def test_dovecot_may_have_taken_x_uidl_before_its_format(jo: CommandLine, tmp_path: Path) -> None:
    source = maildir(
        tmp_path / "Maildir",
        {
            "cur/3.a": b"X-UIDL: old-qpopper-id-1\n\n",
            "cur/2.a": b"X-UIDL: old-qpopper-id-2\n\n",
            "cur/1.a": b"Subject: none\n\n",
            "cur/4.a": b"X-UIDL: beaten by P\n\n",
            "new/5.a": b"X-UIDL: \n\n",
        },
        dovecot_uidlist="3 V1700000000 N5\n1 :3.a\n2 :2.a\n3 :1.a\n4 PUID4 :4.a\n",
    )
    formatted = [f"0000000{uid}6553f100" for uid in range(1, 6)]
    looked = imported(jo, source, "--dry-run")
    assert [each["unique_id"] for each in looked["messages"]] == [*formatted[:3], "UID4", formatted[4]]
    assert "X-UIDL in the header of 2 messages" in looked["notes"][0]
    assert "pop3_reuse_xuidl" in looked["notes"][0]
    assert imported(jo, source, "--uidl", "x-uidl")["notes"] == []
    assert uidl(jo) == ["old-qpopper-id-1", "old-qpopper-id-2", formatted[2], "UID4", formatted[4]]


def test_folders_are_told_and_can_be_imported_by_name(jo: CommandLine, tmp_path: Path) -> None:
    source = maildir(tmp_path / "Maildir", {"cur/1.a": b"a\n"}, dovecot_uidlist="3 V5 N2\n1 :1.a\n")
    maildir(source / ".Sent", {"cur/1.s": b"s\n"})
    (source / "cur" / "cur").mkdir()  # of somebody's mistake
    assert "folders are not imported, for a maildrop has none: .Sent;" in imported(jo, source)["notes"][0]
    imported(jo, source / ".Sent")
    assert [each["octets"] for each in entries(jo)] == [3, 3]


# -- mbox and single files -----------------------------------------------------------------------


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_an_mbox_is_mail_without_what_servers_noted_in_it(
    jo: CommandLine, tmp_path: Path, line_end: bytes
) -> None:
    file = tmp_path / "mbox"
    file.write_bytes(
        (
            FROM + b"X-IMAPbase: 255 0000000009\nX-UID: 3   \nStatus: RO\nSubject: a\n\n>From a\n\n"
            + FROM + b"X-UID: 9\nSubject: b\nReturn-Path: <x@example.net>\n\nb\n\n"
            + FROM + b"Subject: c\nX-UIDL: abc\n\nc\n"
        ).replace(b"\n", line_end)
    )  # fmt: skip
    imported(jo, file)
    assert uidl(jo) == ["00000003000000ff", "00000009000000ff", "0000000a000000ff"]
    assert octets(jo, "00000003000000ff", tmp_path) == b"Subject: a\r\n\r\nFrom a\r\n"
    assert octets(jo, "0000000a000000ff", tmp_path) == b"Subject: c\r\nX-UIDL: abc\r\n\r\nc\r\n"
    assert [each["reverse_path"] for each in entries(jo)] == [
        "eve@example.net",
        "x@example.net",
        "eve@example.net",
    ]
    assert {each["delivered_at"] for each in entries(jo)} == {"2026-01-01T02:37:27+00:00"}


def test_uw_wrote_the_numbers_the_other_way_round(jo: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "mbox"
    file.write_bytes(FROM + b"X-IMAPbase: 255 9\nX-UID: 3\n\na\n")
    imported(jo, file, "--uidl-format", "%08Xv%08Xu")
    assert uidl(jo) == ["000000ff00000003"]


@pytest.mark.parametrize("forged", [b"4242", b"2", b"1", b"x"])
def test_what_an_mbox_has_no_number_for_gets_the_next_ones_as_dovecot_gives_them(
    jo: CommandLine, tmp_path: Path, forged: bytes
) -> None:
    def written(last: bytes, third: bytes, fourth: bytes) -> Path:
        base = FROM + b"X-IMAPbase: 1795786593 000000000" + last + b"\nX-UID: 1\n\na\n\n"
        rest = FROM + b"X-UID: 2\n\nb\n\n" + FROM + third + b"\nc\n\n" + FROM + fourth + b"\nd\n"
        (tmp_path / "mbox").write_bytes(base + rest)
        return tmp_path / "mbox"

    imported(jo, written(b"2", b"", b"X-UID: " + forged + b"\n"))
    assert uidl(jo) == [f"0000000{uid}6b098761" for uid in (1, 2, 3, 4)]
    told = imported(jo, written(b"4", b"X-UID: 3\n", b"X-UID: 4\n"))  # by Dovecot's next session
    assert (told["imported"], told["not_kept"]) == (0, [])


def test_x_uidl_before_the_format_in_an_mbox(jo: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "mbox"
    file.write_bytes(
        FROM + b"X-IMAPbase: 255 2\nX-UID: 1\nX-UIDL: old\n\na\n\n" + FROM + b"X-UID: 2\n\nb\n\n"
    )
    assert "pop3_reuse_xuidl" in imported(jo, file, "--dry-run")["notes"][0]
    imported(jo, file, "--uidl", "x-uidl")
    assert uidl(jo) == ["old", "00000002000000ff"]


def test_without_the_last_uid_no_number_is_believed(jo: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "mbox"
    file.write_bytes(FROM + b"X-IMAPbase: 255\nX-UID: 3\n\na\n")
    imported(jo, file)
    assert "000000ff" not in uidl(jo)[0]


def test_mail_without_unique_ids_gets_our_own_once(jo: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "mbox"
    file.write_bytes(2 * (FROM + b"Subject: twice\n\nsame\n\n") + FROM + b"Subject: once\n\nx\n\n")
    assert imported(jo, file)["imported"] == 3
    assert imported(jo, file)["imported"] == 0
    file.write_bytes(file.read_bytes() + FROM + b"Subject: later\n\n")
    assert imported(jo, file)["imported"] == 1
    assert len(set(uidl(jo))) == 4


def test_single_files(jo: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "one.eml").write_bytes(b"Received: by a; Thu, 1 Jan 2026 02:37:27 +0100\n\nbare\rCR\n")
    told = imported(jo, tmp_path / "one.eml")
    assert told["address"] == JO
    assert (told["imported"], len(uidl(jo))) == (1, 1)
    assert octets(jo, uidl(jo)[0], tmp_path).endswith(b"\r\n\r\nbare CR\r\n")
    assert entries(jo)[0]["delivered_at"] == "2026-01-01T01:37:27+00:00"
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b.eml").write_bytes(b"Subject: b\n\n")
    (tmp_path / "folder" / "notes.txt").write_bytes(b"no mail")
    told = imported(jo, tmp_path / "folder", "--uidl", "names")
    assert uidl(jo)[1:] == ["b"]
    assert told["notes"] == [f"1 of 2 names in {tmp_path}/folder do not end in .eml"]


@pytest.mark.parametrize(
    "content", [b"\tx\r\nTo: a\r\n", b"x\r\nReturn-Path: <a@b.example>\r\n", b"From x\r\n"]
)
def test_what_is_no_header_stays_as_it_was(jo: CommandLine, tmp_path: Path, content: bytes) -> None:
    """Its octets have been listed to clients already; nothing of ours is put before them."""
    (tmp_path / "one.eml").write_bytes(content)
    imported(jo, tmp_path / "one.eml")
    (found,) = entries(jo)
    assert octets(jo, found["unique_id"], tmp_path) == content
    assert found["octets"] == len(content)


def test_a_return_path_of_control_characters_reaches_no_terminal(jo: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "one.eml").write_bytes(b"Return-Path: <\x1b[2J\0@example.net>\n\nx\n")
    (tmp_path / "box").write_bytes(b"From \x1b[2J\0@example.net Thu Jan  1 02:37:27 2026\n\nx\n")
    imported(jo, tmp_path / "one.eml")
    imported(jo, tmp_path / "box")
    assert [each["reverse_path"] for each in entries(jo)] == ["", ""]


# -- what may go wrong ---------------------------------------------------------------------------


def test_a_second_run_brings_nothing_back(jo: CommandLine, store: Database, tmp_path: Path) -> None:
    source = maildir(tmp_path / "Maildir", {"cur/1.a": b"a\n", "cur/2.b": b"b\n"})
    imported(jo, source)
    with store.writing() as connection:
        connection.execute(delete(entry).where(entry.c.unique_id == "1.a"))
    (source / "new" / "3.c").write_bytes(b"c\n")
    (source / "cur" / "4.d").write_bytes(b"d\n")
    (source / "cur" / "2.b").rename(source / "cur" / "2.b:2,RS")
    told = imported(jo, source)
    assert (told["found"], told["imported"], told["there"]) == (4, 2, 2)
    assert uidl(jo) == ["2.b", "3.c", "4.d"]


def test_a_dry_run_shows_what_would_be_done_and_does_nothing(jo: CommandLine, tmp_path: Path) -> None:
    source = maildir(tmp_path / "Maildir", {"cur/1.a": b"a\n"})
    shown = jo.good("maildrop", "import", JO, source, "--dry-run")
    header, row = shown.out.splitlines()
    assert row.split()[:3] == ["1", "1.a", "3"]
    assert "1 message of a Maildir would be imported" in shown.err
    told = imported(jo, source, "--dry-run")
    assert [each["unique_id"] for each in told["messages"]] == ["1.a"]
    assert (header.split()[0], uidl(jo)) == ("number", [])


def test_a_quota_is_asked_before_the_first_message(jo: CommandLine, tmp_path: Path) -> None:
    source = maildir(tmp_path / "Maildir", {"cur/1.a": b"a" * 3000, "cur/2.b": b"b"})
    jo.good("account", "quota", JO, "2KiB")
    for options in ((), ("--dry-run",)):
        refused = jo("maildrop", "import", JO, source, *options)
        assert refused.code == 75
        assert "nothing was imported" in refused.err
    assert "--over-quota" in refused.err
    assert uidl(jo) == []
    imported(jo, source, "--over-quota")
    assert len(uidl(jo)) == 2
    assert imported(jo, source)["there"] == 2


def test_what_housekeeping_will_remove_is_told(jo: CommandLine, tmp_path: Path) -> None:
    source = maildir(tmp_path / "Maildir", {"cur/1.a": b"a\n"}, dovecot_uidlist="3 V5 N2\n1 :1.a\n")
    jo.good("account", "keep", JO, "--for", "90d")
    assert "1 of them came more than 90d ago" in imported(jo, source, "--dry-run")["notes"][0]


def test_nobody_there(jo: CommandLine, tmp_path: Path) -> None:
    assert jo("maildrop", "import", "nobody@example.org", tmp_path).code == 67


def test_a_trace_tells_of_it(jo: CommandLine, tmp_path: Path) -> None:
    source = maildir(tmp_path / "Maildir", {"cur/1.a": b"a\n"})
    imported(jo, source)
    assert f"1 message of {JO} imported from a Maildir, {source}" in jo.good("trace", JO).out


def test_no_message_is_from_the_future(jo: CommandLine, tmp_path: Path) -> None:
    source = maildir(tmp_path / "Maildir", {"cur/9999999999.a": b"a\n"})
    os.utime(source / "cur" / "9999999999.a", (9_999_999_999, 9_999_999_999))
    imported(jo, source)
    assert datetime.fromisoformat(entries(jo)[0]["delivered_at"]) <= datetime.now(UTC)
