"""Which format a source has: found out, or said."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Final

from mailstack.cli.importing.eml import SUFFIX, Eml
from mailstack.cli.importing.maildir import COURIER_LIST, DOVECOT_LIST, Maildir
from mailstack.cli.importing.mbox import Mbox
from mailstack.cli.importing.source import Source, Uidl
from mailstack.errors import BadData
from mailstack.mail import from_line, mbox
from mailstack.mail.dovecot import Format


class Kind(StrEnum):
    """How the mail lies there."""

    auto = "auto"
    mbox = "mbox"
    maildir = "maildir"
    eml = "eml"


_DBOX: Final = ("mailboxes", "dbox-Mails", "storage")
_CYRUS: Final = ("cyrus.index", "cyrus.header")


def opened(path: Path, kind: Kind, uidl: Uidl, uidl_format: str) -> Source:
    """The source at this place; raises BadData or OSError where there is none."""
    if path.exists() and not (path.is_dir() or path.is_file()):
        raise BadData(f"{path}: it is neither a file nor a folder")
    if kind is Kind.auto:
        kind = _guessed(path)
    made = Format(uidl_format)
    if kind is Kind.maildir:
        _require_maildir(path, uidl)
        return Maildir(path, uidl, made)
    if kind is Kind.eml:
        return Eml(path, uidl)
    if uidl in (Uidl.courier, Uidl.names):
        raise BadData(f"{path}: --uidl {uidl} is for a Maildir, and this is an mbox")
    _require_mbox(path)
    return Mbox(path, uidl, made)


def _guessed(path: Path) -> Kind:
    if not path.is_dir():
        if _begins_mbox(path):
            return Kind.mbox
        if path.suffix.lower() == SUFFIX:
            return Kind.eml
        if not path.stat().st_size:
            raise BadData(f"{path}: it is empty")
        raise BadData(
            f"{path}: this is no mbox, for its first line does not begin with 'From ', a sender and a time,"
            " and its name does not end in .eml; --format eml takes whatever is in it for one message"
        )
    names = {entry.name for entry in os.scandir(path)}
    if names & {"cur", "new"}:
        return Kind.maildir
    if any(name.lower().endswith(SUFFIX) for name in names):
        return Kind.eml
    raise BadData(f"{path}: {_advice(path, names)}")


def _advice(path: Path, names: set[str]) -> str:
    if names & set(_DBOX):
        return (
            "this is a dbox of Dovecot; on the old server make a Maildir of it, which keeps the unique-ids:"
            " doveadm backup -u USER maildir:/some/folder"
        )
    if names & set(_CYRUS):
        return (
            "this is a folder of Cyrus, whose files tell half of each unique-id: fetch mail and unique-ids"
            " from the old server over POP3, or complete the files' names, as docs/moving.md shows"
        )
    if inner := [name for name in ("Maildir", "maildir", "mail", "mbox") if name in names]:
        return f"there is no mail right here; did you mean {path / inner[0]}?"
    return "there is no mail in it: no folders cur and new, and no .eml files"


def _begins_mbox(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(from_line.MAX_OCTETS)
    return mbox.begins(lambda at, octets: head[at : at + octets])


def _require_mbox(path: Path) -> None:
    if not _begins_mbox(path):
        raise BadData(
            f"{path}: this is no mbox: its first line does not begin with 'From ', a sender and a time"
        )


def _require_maildir(path: Path, uidl: Uidl) -> None:
    if not any((path / name).is_dir() for name in ("cur", "new")):
        raise BadData(f"{path}: this is no Maildir: there are no folders cur and new in it")
    for wanted, name in ((Uidl.dovecot, DOVECOT_LIST), (Uidl.courier, COURIER_LIST)):
        if uidl is wanted and not (path / name).exists():
            raise BadData(f"{path}: there is no {name} in it, which --uidl {uidl} needs")
