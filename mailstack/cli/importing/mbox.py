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
        self._next_uid = 1
        self._uid = 0  # of the message before

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
                self._next_uid = (header.last_uid or 0) + 1
            if not number and header.internal:
                continue
            number += 1
            self._tell_abrupt(place, number)
            found = Found(
                f"message {number}",
                _Key(place.start, place.end, place.quoted),
                at=moment(place.line.at.timestamp()) if place.line.at else None,
                at_latest=modified,
                sender=arrival.reverse_path(place.line.sender),
            )
            yield self._known(found, header)

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

    def _known(self, found: Found, header: Header) -> Found:
        """The message with the unique-id by which its server knows it."""
        if header.exported is not None and self._uidl is Uidl.auto:
            return found._replace(unique_id=header.exported)
        if self._uid_validity is not None and self._uidl is not Uidl.new:
            certain = self._number(header.uid)
            made = self._format.unique_id(uid=self._uid, uid_validity=self._uid_validity)
            return found._replace(unique_id=made, certain=certain, from_format=True)
        return found._replace(unique_id=header.x_uidl if self._uidl is Uidl.auto else None)

    def _number(self, uid: int | None) -> bool:
        """Number the next message as Dovecot does; whether its X-UID says so.

        Numbers rise, and none is beyond the last UID that the file notes: others a sender has written.
        """
        certain = uid is not None and self._uid < uid < self._next_uid
        if uid is not None and certain:
            self._uid = uid
        else:
            self._uid = self._next_uid
            self._next_uid += 1
        return certain

    def _tell_abrupt(self, place: Place, number: int) -> None:
        if place.abrupt:
            self.problems.append(
                f"{self._name}: message {number} begins without a blank line before it;"
                f" look whether it is text of message {number - 1}, which then ends too early"
            )
