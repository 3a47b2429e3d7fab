"""`mailstack maildrop import` of what is damaged, changes meanwhile, or is no mail at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from mailstack.cli.exits import advised
from mailstack.store import imports
from tests.cli.conftest import CommandLine, Outcome
from tests.cli.importing import FROM, JO, imported, maildir, uidl


def problems(outcome: Outcome) -> list[str]:
    assert outcome.code == 65
    told: list[str] = outcome.json["problems"]
    return told


def test_damaged_files_are_told_and_the_rest_is_imported(jo: CommandLine, tmp_path: Path) -> None:
    source = maildir(
        tmp_path / "Maildir",
        {"cur/1.a": b"a\n", "cur/2.b": b"", "new/1.a": b"again\n", "cur/3.\udcff": b"c\n"},
        dovecot_uidlist="3 V5 N4\n1 :1.a\nnonsense\n2 :2.b\n3 :3.",
    )
    (source / "cur" / "4.d").symlink_to(tmp_path / "nowhere")
    (source / "cur" / "5.e").mkdir()
    told = problems(jo("maildrop", "import", JO, source, "--json"))
    assert sorted(told) == [
        "cur/1.a: another file has this name, and only that is imported",
        "cur/2.b: it is empty",
        "cur/4.d: No such file or directory",
        "dovecot-uidlist: line 3: this is not a UID and a file name: 'nonsense'",
        "dovecot-uidlist: line 5: the file ends within a line",
    ]
    assert uidl(jo) == ["0000000100000005", "0000000400000005"]


def test_a_from_line_within_is_told_with_its_number(jo: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "mbox"
    file.write_bytes(FROM + b"A: b\n\ntext\n" + FROM + b"A: c\n\ntext\n")
    assert problems(jo("maildrop", "import", JO, file, "--json"))[0].startswith(
        "mbox: message 2 begins without"
    )
    assert len(uidl(jo)) == 2


def test_a_list_that_is_none_stops_the_import(jo: CommandLine, tmp_path: Path) -> None:
    source = maildir(tmp_path / "Maildir", {"cur/1.a": b"a\n"}, dovecot_uidlist="")
    refused = jo("maildrop", "import", JO, source)
    assert refused.code == 65
    assert "--uidl new" in refused.err
    assert uidl(jo) == []
    imported(jo, source, "--uidl", "new")
    assert len(uidl(jo)) == 1


@pytest.mark.parametrize(
    ("make", "options", "refusal"),
    [
        (lambda path: None, (), (66, "No such file")),
        (lambda path: path.mkdir(), (), (65, "no folders cur and new")),
        (lambda path: (path / "Maildir").mkdir(parents=True), (), (65, "did you mean")),
        (lambda path: (path / "mailboxes").mkdir(parents=True), (), (65, "doveadm backup")),
        (lambda path: (path / "cyrus.index").mkdir(parents=True), (), (65, "a folder of Cyrus")),
        (lambda path: path.mkdir(), ("--format", "maildir"), (65, "this is no Maildir")),
        (lambda path: (path / "cur").mkdir(parents=True), ("--uidl", "courier"), (65, "no courierpop3d")),
        (lambda path: path.write_bytes(b"A: b\n\n"), ("--format", "mbox"), (65, "this is no mbox")),
        (lambda path: path.write_bytes(FROM), ("--uidl", "courier"), (65, "is for a Maildir")),
        (lambda path: path.write_bytes(b""), (), (65, "it is empty")),
        (os.mkfifo, (), (65, "neither a file nor a folder")),
        (lambda path: path.write_bytes(b"root:x:0:0:\n"), (), (65, "--format eml takes")),
        (
            lambda path: path.write_bytes(b"A: b\n\n"),
            ("--format", "eml", "--uidl", "dovecot"),
            (65, "single files"),
        ),
    ],
)  # fmt: skip
def test_what_is_no_source_is_refused_with_advice(
    jo: CommandLine, tmp_path: Path, make: Any, options: tuple[str, ...], refusal: tuple[int, str]
) -> None:
    make(tmp_path / "source")
    refused = jo("maildrop", "import", JO, tmp_path / "source", *options)
    assert refused.code == refusal[0]
    assert refusal[1] in refused.err


@pytest.mark.parametrize("kind", ["maildir", "eml"])
def test_a_named_pipe_among_the_files_is_told(jo: CommandLine, tmp_path: Path, kind: str) -> None:
    source = maildir(tmp_path / "source", {"cur/1.eml": b"a\n"})
    os.mkfifo(source / "cur" / "2.eml")
    told = problems(jo("maildrop", "import", JO, source if kind == "maildir" else source / "cur", "--json"))
    assert [each.rpartition("/")[2] for each in told] == ["2.eml: it is no file"]
    assert len(uidl(jo)) == 1


def test_files_that_may_not_be_read_come_with_advice(tmp_path: Path) -> None:
    with pytest.raises(PermissionError, match="make a copy for it: cp -a"), advised(tmp_path):
        raise PermissionError(13, "Permission denied", "/srv/old")


def test_a_file_that_becomes_another_one_meanwhile_is_told_and_comes_with_the_next_run(
    jo: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = maildir(tmp_path / "Maildir", {"cur/1.a": b"a\n", "cur/2.b": b"b\n"})
    known = imports.known

    def changed_meanwhile(*arguments: Any) -> Any:
        (source / "cur" / "1.a").write_bytes(b"other\n")
        return known(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(imports, "known", changed_meanwhile)
        told = problems(jo("maildrop", "import", JO, source, "--json"))
    assert told == ["cur/1.a: it changed while the import ran; run the same command again"]
    assert uidl(jo) == ["2.b"]
    imported(jo, source)
    assert uidl(jo) == ["2.b", "1.a"]


def test_a_file_that_its_server_moves_meanwhile_is_found(
    jo: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = maildir(tmp_path / "Maildir", {"new/1.a": b"a\n"})
    known = imports.known

    def moved_meanwhile(*arguments: Any) -> Any:
        (source / "new" / "1.a").rename(source / "cur" / "1.a:2,S")
        return known(*arguments)

    monkeypatch.setattr(imports, "known", moved_meanwhile)
    assert imported(jo, source)["imported"] == 1
    assert uidl(jo) == ["1.a"]
