"""Canonical content: every line ends with CRLF, and CR and LF stand nowhere else (RFC 5321 §2.3.8).

A client that takes a bare LF for a line end, or a bare CR, would see lines that we did not: a dot
alone, a forged header field. So neither is ever stored.
"""

from __future__ import annotations

import re
from io import IncrementalNewlineDecoder
from typing import Final

_SLICE_OCTETS: Final = 64 * 1024
"""A longer text is a block of memory that comes fresh from the system: 4.3 ms for 5 MB in place of 2.4."""

_DOTS_BEHIND: Final = {line_end: re.compile(line_end + rb"\.") for line_end in (b"\n", b"\r\n")}
_WINDOW_OCTETS = 4096


def dot_at_line_start(octets: bytes, line_end: bytes) -> int:
    """Where the first dot is that comes behind such a line end, CRLF or LF, or -1.

    Base64, which most octets of mail are, has no dot: that is known ten times sooner than a regular
    expression has searched it. So one searches only what is behind some dot.
    """
    behind = _DOTS_BEHIND[line_end]
    dot = octets.find(b".")
    while dot >= 0:
        window = dot + _WINDOW_OCTETS
        if found := behind.search(octets, max(0, dot - len(line_end)), window):
            return found.end() - 1
        dot = octets.find(b".", window)
    return -1


def canonical(content: bytes) -> bytes:
    """The whole content in canonical form; what is canonical already comes back as it is."""
    canonicaliser = Canonicaliser()
    return canonicaliser.feed(content) + canonicaliser.finish()


class Canonicaliser:
    """Content in chunks of any size into canonical chunks: a bare LF becomes CRLF, a bare CR one space.

    A CR that became CRLF could make a header field out of part of one; a space cannot. No chunk
    that comes out ends between CR and LF.
    """

    __slots__ = ("_ends_line", "_held", "bare_newlines")

    def __init__(self) -> None:
        self.bare_newlines = 0
        """How many bare CR and bare LF have been replaced so far."""
        self._held = b""  # a CR whose next octet has not come yet
        self._ends_line = True  # of all that went out; nothing at all needs no line end

    def feed(self, chunk: bytes) -> bytes:
        """The next chunk in canonical form, but for a CR at its end, which is held back."""
        if self._held:
            chunk = self._held + chunk
            self._held = b""
        if chunk.endswith(b"\r"):
            chunk = chunk[:-1]
            self._held = b"\r"
        if not chunk:
            return b""
        if not _is_canonical(chunk):
            chunk = self._replaced(chunk)
        self._ends_line = chunk.endswith(b"\n")
        return chunk

    def finish(self) -> bytes:
        """What was held back, and a CRLF where the content has no end of line; empty content stays empty."""
        if self._held:
            self._held = b""
            self._ends_line = True
            self.bare_newlines += 1
            return b" \r\n"
        if self._ends_line:
            return b""
        self._ends_line = True
        return b"\r\n"

    def _replaced(self, chunk: bytes) -> bytes:
        pairs = chunk.count(b"\r\n")
        self.bare_newlines += chunk.count(b"\r") + chunk.count(b"\n") - 2 * pairs
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b" ").replace(b"\n", b"\r\n")


def _is_canonical(chunk: bytes) -> bool:
    # The decoder notes which line ends it has seen, in one pass over octets that Latin-1 maps one
    # to one: 2.7 GB/s, where counting CR, LF and CRLF takes four times as long.
    decoder = IncrementalNewlineDecoder(None, translate=False)
    if len(chunk) > _SLICE_OCTETS:
        view = memoryview(chunk)
        for at in range(0, len(chunk), _SLICE_OCTETS):
            decoder.decode(str(view[at : at + _SLICE_OCTETS], "latin-1"))
        decoder.decode("", final=True)
    else:
        decoder.decode(chunk.decode("latin-1"), final=True)  # final: a CR at the end is a bare one
    return decoder.newlines is None or decoder.newlines == "\r\n"
