"""A maildrop as files: one a message (.eml), one for all (mbox), or a Maildir.

In an .eml file a message is octet for octet what POP3 sends. The others are formats of Unix, whose
programs expect lines that end with LF alone; Return-Path and Delivered-To are in all of them.
What is cut off has another name than what was asked for, so nobody takes it for the whole.
Unique-ids are in all of them, too, for `maildrop import`: in the names of files, in a field before
each message of an mbox, and beside a Maildir as Dovecot keeps them, which can take it over as it is.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from mailstack.files import publish, sync
from mailstack.mail.mbox_header import EXPORTED
from mailstack.store.browse import Entry


class Message(NamedTuple):
    """An entry and its octets, read as they are asked for."""

    entry: Entry
    octets: Iterable[bytes]


@contextmanager
def whole(target: Path, *, folder: bool) -> Iterator[Path]:
    """Where to write what gets the name `target` once all of it is on the disk; else nothing is left of it.

    A `folder` may take the place of an empty one. What is written is for its owner alone. A killed export
    leaves its files under the passing name.
    """
    passing = target.with_name(f"{target.name}.partial") if target.name else target
    for each in (target, passing):
        if os.path.lexists(each) and not (folder and each is target and _is_empty_folder(target)):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(each))
    mask = os.umask(0o077)
    try:
        yield passing
        _sync_all(passing)
        publish(passing, target)
    except BaseException as error:
        _removed(passing)
        if isinstance(error, OSError) and error.filename is None:  # the disk is full, say
            raise OSError(error.errno, error.strerror, str(target)) from error
        raise
    finally:
        os.umask(mask)


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and next(path.iterdir(), None) is None


def _sync_all(path: Path) -> None:
    os.sync()  # one wait for all; what each file is asked then is done already, or tells of an error
    for each in path.rglob("*"):
        sync(each)


def _removed(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def eml(target: Path, messages: Iterable[Message]) -> Iterator[Entry]:
    """Write a directory with a file for every message, named by uid and unique-id."""
    target.mkdir()
    for entry, octets in messages:
        # A unique-id may have any printable character in it, a slash too (RFC 1939 §7).
        path = target / f"{entry.uid:08}-{quote(entry.unique_id, safe='')}.eml"
        with path.open("xb") as file:
            file.writelines(octets)
        _set_age(path, entry)
        yield entry


def mbox(target: Path, messages: Iterable[Message]) -> Iterator[Entry]:
    """Write one file in the format `mboxrd`: RFC 4155, with every quoting of "From " undoable."""
    with target.open("xb") as file:
        for entry, octets in messages:
            sender = re.sub(r"\s", "_", entry.reverse_path) or "MAILER-DAEMON"
            file.write(f"From {sender} {entry.delivered_at:%a %b %d %H:%M:%S %Y}\n".encode())
            file.write(b"%b: %b\n" % (EXPORTED, entry.unique_id.encode()))
            for begins, line in _lines(octets):
                file.write(b">" + line if begins and _FROM.match(line) else line)
            file.write(b"\n")
            yield entry


def maildir(target: Path, messages: Iterable[Message]) -> Iterator[Entry]:
    """Write a Maildir; every message is new, and as old as it was."""
    for folder in ("tmp", "new", "cur"):
        (target / folder).mkdir(parents=True)
    listed: list[str] = []
    host = socket.gethostname().replace("/", "_").replace(":", "_")
    for entry, octets in messages:
        at = entry.delivered_at.timestamp()
        name = f"{int(at)}.M{entry.delivered_at.microsecond}P{os.getpid()}Q{entry.uid}.{host}"
        with (target / "tmp" / name).open("xb") as file:
            file.writelines(line for _, line in _lines(octets))
        _set_age(target / "tmp" / name, entry)
        (target / "tmp" / name).rename(target / "new" / name)
        listed.append(f"{entry.uid} P{entry.unique_id} W{entry.octets} :{name}\n")
        yield entry
    last = listed[-1].partition(" ")[0] if listed else "0"
    head = f"3 V{int(time.time())} N{int(last) + 1}\n"
    (target / "dovecot-uidlist").write_text("".join([head, *listed]))


WRITERS: dict[str, Callable[[Path, Iterable[Message]], Iterator[Entry]]] = {
    "eml": eml, "mbox": mbox, "maildir": maildir,
}  # fmt: skip


_FROM = re.compile(rb">*From ")
_PIECE_OCTETS = 1 << 20


def _set_age(path: Path, entry: Entry) -> None:
    at = entry.delivered_at.timestamp()
    os.utime(path, (at, at))


def _lines(octets: Iterable[bytes]) -> Iterator[tuple[bool, bytes]]:
    """The lines with LF for CRLF, a long one in pieces, and for each whether a line begins there."""
    begins, rest = True, b""
    for part in octets:
        *whole, rest = (rest + part).split(b"\r\n")
        for line in whole:
            yield begins, line + b"\n"
            begins = True
        if len(rest) > _PIECE_OCTETS:
            yield begins, rest[:-1]
            begins, rest = False, rest[-1:]  # which may be the first half of a CRLF
    if rest:
        yield begins, rest + b"\n"
