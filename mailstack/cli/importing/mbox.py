"""An mbox as a source: one file, in which servers and mail programs keep their notes beside the mail."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mailstack.cli.importing.source import CHUNK_OCTETS, Found, Uidl, moment
from mailstack.mail import arrival, mbox, mbox_header
from mailstack.mail.dovecot import Format
from mailstack.mail.mbox import Place, Unquoter
from mailstack.mail.mbox_header import Header


class _Key(NamedTuple):
    start: int
    end: int
    quoted: bool


class Mbox:
    """A file that begins with `From `."""

    def __init__(self, path: Path, uidl: Uidl, uidl_format: Format) -> None:
        self.kind = "an mbox"
        self.problems: list[str] = []
        self.notes: list[str] = []
        self._name = path.name
        self._uidl = uidl
        self._format = uidl_format
        self._file = path.open("rb", buffering=0)
        self._uid_validity: int | None = None
        self._last_uid = 0

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def find(self) -> Iterator[Found]:
        """The messages in the order of the file."""
        status = os.fstat(self._file.fileno())
        modified = moment(status.st_mtime)
        number = 0
        for place in mbox.places(self._read, status.st_size):
            header = mbox_header.separated(mbox.header(self._read, place.start, place.end))
            if not number and self._uid_validity is None:  # later ones may be forged
                self._uid_validity = header.uid_validity
            if not number and header.internal:
                continue
            number += 1
            self._tell_abrupt(place, number)
            yield Found(
                f"message {number}",
                _Key(place.start, place.end, place.quoted),
                self._unique_id(header),
                at=moment(place.line.at.timestamp()) if place.line.at else None,
                at_latest=modified,
                sender=arrival.reverse_path(place.line.sender),
            )

    def chunks(self, found: Found) -> Iterator[bytes]:
        """The message without what is no part of it, its lines as they were before they were quoted."""
        start, end, quoted = found.key
        head = mbox.header(self._read, start, end)
        unquoter = Unquoter() if quoted else None
        for chunk in self._raw(mbox_header.separated(head).octets, start + len(head), end):
            yield unquoter.feed(chunk) if unquoter else chunk
        if unquoter:
            yield unquoter.finish()

    def _raw(self, head: bytes, at: int, end: int) -> Iterator[bytes]:
        yield head
        while at < end:
            chunk = self._read(at, min(CHUNK_OCTETS, end - at))
            if not chunk:
                raise OSError("the file has become shorter")
            yield chunk
            at += len(chunk)

    def _read(self, at: int, octets: int) -> bytes:
        return os.pread(self._file.fileno(), octets, at)

    def _unique_id(self, header: Header) -> str | None:
        if header.exported is not None and self._uidl is Uidl.auto:
            return header.exported
        if self._uidl in (Uidl.auto, Uidl.dovecot) and (made := self._made(header)) is not None:
            return made
        return header.x_uidl if self._uidl in (Uidl.auto, Uidl.x_uidl) else None

    def _made(self, header: Header) -> str | None:
        """Of an X-UID that can be true: a sender may have written one, and servers number upwards."""
        if header.uid is None or self._uid_validity is None or header.uid <= self._last_uid:
            return None
        self._last_uid = header.uid
        return self._format.unique_id(uid=header.uid, uid_validity=self._uid_validity)

    def _tell_abrupt(self, place: Place, number: int) -> None:
        if place.abrupt:
            self.problems.append(
                f"{self._name}: message {number} begins without a blank line before it;"
                f" look whether it is text of message {number - 1}, which then ends too early"
            )
