"""The first way through a source: every message is read, and what the store has to know of it is noted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from mailstack.cli import show
from mailstack.cli.importing.source import Found, Source, Uidl, moment
from mailstack.mail import arrival, mbox_header
from mailstack.mail.lines import Canonicaliser
from mailstack.mail.spool import Spool
from mailstack.store.clock import microseconds
from mailstack.store.imports import Wanted

_EMPTY: Final = "it is empty"


class Content(NamedTuple):
    """A message's canonical octets, which are what RETR sends."""

    digest: bytes
    octets: int
    dotted: bool
    head: bytes


class Measured(NamedTuple):
    """One message of a source, and what it is for the store."""

    found: Found
    digest: bytes
    octets: int
    at: int  # microseconds since the epoch
    reverse_path: str

    @property
    def wanted(self) -> Wanted:
        """What the store decides by."""
        return Wanted(self.digest, self.found.unique_id, self.found.certain)

    @property
    def source_id(self) -> str:
        """Its unique-id there, if that is certain."""
        return (self.found.unique_id or "") if self.found.certain else ""


def measured(source: Source, uidl: Uidl) -> Iterator[Measured]:
    """All messages that can be read; the others are told among the source's problems."""
    passed_over = 0
    for found in source.find():
        try:
            content = read(source.chunks(found), lambda chunk: None)
        except OSError as error:
            source.problems.append(f"{found.place}: {error.strerror or error}")
            continue
        if not content.octets:
            source.problems.append(f"{found.place}: {_EMPTY}")
            continue
        at = found.at or arrival.received_at(content.head) or found.at_latest
        reverse_path = arrival.return_path(content.head)
        x_uidl = _x_uidl(content.head) if found.from_format or found.unique_id is None else None
        takes = x_uidl and uidl is Uidl.x_uidl
        passed_over += bool(found.from_format and x_uidl and not takes)
        yield Measured(
            found._replace(unique_id=x_uidl, certain=True) if takes else found,
            content.digest,
            content.octets,
            0 if at is None else microseconds(moment(at.timestamp())),
            found.sender if reverse_path is None else reverse_path,
        )
    if passed_over:
        source.notes.append(
            f"there is X-UIDL in the header of {show.counted(passed_over, 'message')}, which a Dovecot with"
            " pop3_reuse_xuidl = yes takes for the unique-id: --uidl x-uidl does so, too"
        )


def read(chunks: Iterator[bytes], keep: Callable[[bytes], None]) -> Content:
    """Read a message to its end; `keep` gets its canonical octets as they come. Raises OSError."""
    canonicaliser = Canonicaliser()
    digest = hashlib.sha256()
    octets, dotted, head, ends_line = 0, False, b"", True
    for chunk in _canonical(canonicaliser, chunks):
        digest.update(chunk)
        keep(chunk)
        octets += len(chunk)
        dotted = dotted or b"\n." in chunk or (ends_line and chunk.startswith(b"."))
        ends_line = chunk.endswith(b"\n")
        if len(head) < arrival.HEAD_OCTETS:
            head += chunk[: arrival.HEAD_OCTETS - len(head)]
    return Content(digest.digest(), octets, dotted, head)


def spooled(chunks: Iterator[bytes], spool: Spool) -> Content:
    """Read a message into a spool."""
    return read(chunks, spool.write)


def _canonical(canonicaliser: Canonicaliser, chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        if made := canonicaliser.feed(chunk):
            yield made
    if made := canonicaliser.finish():
        yield made


def _x_uidl(head: bytes) -> str | None:
    end = head.find(b"\r\n\r\n")
    return mbox_header.separated(head if end < 0 else head[: end + 4]).x_uidl
