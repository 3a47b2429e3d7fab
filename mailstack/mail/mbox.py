"""Messages in an mbox: where each begins and ends, and what its lines were before they were quoted.

Nothing in such a file says which of its formats it has. A `From ` line begins a message, with a blank
line before it or without, as for the servers that keep mail in such files; a Content-Length is believed
only where a message, or the end of the file, follows just there, so that a forged one is none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Final, NamedTuple

from mailstack.mail import from_line, mbox_header
from mailstack.mail.from_line import FromLine

Read = Callable[[int, int], bytes]
"""At an offset, so many octets of the file, or fewer where it ends."""

WINDOW_OCTETS: Final = 1 << 20
MAX_HEADER_OCTETS: Final = 1 << 20

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_HEADER_END: Final = re.compile(rb"^\r?\n", re.MULTILINE)
_FIELD: Final = re.compile(rb"[!-9;-~]{1,100}:")
_QUOTED: Final = re.compile(rb"^>(>*From )", re.MULTILINE)
_LONGEST_QUOTE: Final = 1000


class Place(NamedTuple):
    """One message in the file, without its From_ line and the blank line that ends it."""

    line: FromLine
    start: int
    end: int
    quoted: bool  # its writer has put a `>` before lines that begin with `From `
    abrupt: bool  # no blank line before it: it may be text of the one before


class _Begin(NamedTuple):
    at: int
    start: int  # behind the line
    line: FromLine
    abrupt: bool
    weak: bool  # it counts only where the message before is told to end


def begins(read: Read) -> bool:
    """Whether the file is an mbox: it begins with a From_ line."""
    return _first(read(0, from_line.MAX_OCTETS)) is not None


def places(read: Read, size: int) -> Iterator[Place]:
    """All messages of a file of so many octets, in order; what stands before the first is none."""
    found = _begins(read)
    begin = next((each for each in found if not each.weak), None)
    waiting: list[_Begin] = []
    told: int | None = None
    while begin is not None:
        abrupt = begin.abrupt and told is None  # where the one before was told to end here, it did
        waiting = waiting or list(islice(found, 1))
        told = _told_end(read, begin.start, waiting[0].at if waiting else size, size)
        following = None
        for each in chain(waiting, found):
            if not each.weak if told is None else each.at >= told:
                following = each
                break
        waiting = []
        if told is not None:
            yield Place(begin.line, begin.start, told, _is_quoted(read, begin.start, told), abrupt)
        else:
            until = size if following is None else following.at
            yield Place(begin.line, begin.start, _without_blank(read, begin.start, until), True, abrupt)
        begin = following


class Unquoter:
    """Content in chunks of any size, with one `>` fewer before each `From ` that has some (mboxrd)."""

    __slots__ = ("_held", "_mid_line")

    def __init__(self) -> None:
        self._held = b""  # the beginning of a line that may be quoted
        self._mid_line = False

    def feed(self, chunk: bytes) -> bytes:
        """The next chunk, but for the beginning of a line that may turn out to be quoted."""
        data, self._held = self._held + chunk, b""
        last = data.rfind(b"\n") + 1
        if (last or not self._mid_line) and len(data) - last < _LONGEST_QUOTE and _may_be_quoted(data[last:]):
            data, self._held = data[:last], data[last:]
        if not data:
            return b""
        mid_line, self._mid_line = self._mid_line, not data.endswith(b"\n")
        if not mid_line:
            return _QUOTED.sub(rb"\1", data)
        end = data.find(b"\n") + 1 or len(data)
        return data[:end] + _QUOTED.sub(rb"\1", data[end:])

    def finish(self) -> bytes:
        """What was held back."""
        held, self._held = self._held, b""
        return _QUOTED.sub(rb"\1", held)


def _may_be_quoted(beginning: bytes) -> bool:
    """Whether the beginning of a line, which is not nothing, may be one of `>From `."""
    stripped = beginning.lstrip(b">")
    return beginning.startswith(b">") and b"From ".startswith(stripped)


def _first(head: bytes) -> int | None:
    """Where the first line begins, behind blank lines and a byte order mark, if it is a From_ line."""
    body = head.removeprefix(_BYTE_ORDER_MARK).lstrip(b"\r\n")
    return len(head) - len(body) if from_line.parse(body[: body.find(b"\n") + 1 or None]) else None


def _begins(read: Read) -> Iterator[_Begin]:
    """The From_ lines of the whole file, some of which may be text of a message."""
    head = read(0, from_line.MAX_OCTETS + 16)
    first = _first(head[: from_line.MAX_OCTETS])
    if first is not None:
        line = head[first : head.find(b"\n", first) + 1 or None]
        yield _Begin(first, first + len(line), from_line.parse(line) or from_line.UNDATED, False, False)
    at = 0
    while window := read(at, WINDOW_OCTETS):
        # Before the window, what tells whether a line begins there; behind it, the rest of a line.
        before = read(max(at - 4, 0), at - max(at - 4, 0))
        data = before + window + read(at + len(window), 2 * from_line.MAX_OCTETS)
        start = data.find(b"\nFrom ", max(len(before) - 1, 0))
        while -1 < start < len(before) + len(window) - 1:
            place = at - len(before) + start + 1
            line = data[start + 1 : data.find(b"\n", start + 1) + 1 or None]
            if place != first and len(line) <= from_line.MAX_OCTETS:
                # No copy of what is before it: a window may be full of such lines.
                ends_blank = data.endswith((b"\n", b"\n\r"), max(start - 2, 0), start)
                blank_before = ends_blank or start + at - len(before) in (0, 1)
                parsed = from_line.parse(line)
                if parsed:
                    behind = data[start + 1 + len(line) :]
                    weak = parsed == from_line.UNDATED and not (blank_before or _FIELD.match(behind))
                    yield _Begin(place, place + len(line), parsed, not blank_before, weak)
            start = data.find(b"\nFrom ", start + 1)
        at += len(window)


def header(read: Read, start: int, end: int) -> bytes:
    """A message's header with its blank line, as it is in the file; of one without end, some whole lines."""
    octets = min(16 * 1024, end - start)
    while True:
        data = read(start, octets)
        if found := _HEADER_END.search(data):
            return data[: found.end()]
        if octets >= end - start:
            return data
        if octets >= MAX_HEADER_OCTETS:
            return data[: data.rfind(b"\n") + 1]
        octets = min(octets * 8, MAX_HEADER_OCTETS, end - start)


def _told_end(read: Read, start: int, header_end: int, size: int) -> int | None:
    """Where the message ends that Content-Length tells of, if that can be true."""
    head = header(read, start, header_end)
    octets = mbox_header.separated(head).content_octets
    if octets is None or not _HEADER_END.search(head):
        return None
    end = start + len(head) + octets
    if end > size:
        return None
    behind = read(end, from_line.MAX_OCTETS + 4)
    line = behind.lstrip(b"\r\n")
    if not line:
        return end
    if len(behind) - len(line) > 4 or (behind == line and read(end - 1, 1) != b"\n"):
        return None
    return end if from_line.parse(line[: line.find(b"\n") + 1 or None]) else None


def _is_quoted(read: Read, start: int, end: int) -> bool:
    """Whether no line begins with `From ` in a message that may have some (mboxcl, not mboxcl2)."""
    at = start
    while at < end:
        data = read(at, min(WINDOW_OCTETS, end - at))
        if b"\nFrom " in data or not data:
            return False
        at += len(data) if at + len(data) >= end or len(data) < 6 else len(data) - 5
    return True


def _without_blank(read: Read, start: int, end: int) -> int:
    """The end of a message without the blank line before the next From_ line."""
    tail = read(max(start, end - 4), min(4, end - start))
    for line_end in (b"\r\n", b"\n"):
        if tail.endswith(b"\n" + line_end):
            return end - len(line_end)
    return end - len(tail) if tail in (b"\n", b"\r\n") else end
