"""Canonical content: CRLF ends every line, and CR and LF stand nowhere else."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailstack.mail import lines
from mailstack.mail.lines import Canonicaliser, canonical, dot_at_line_start

CASES = [
    (b"", b"", 0, "an empty message stays empty"),
    (b"\r\n", b"\r\n", 0, "one empty line"),
    (b"a\r\nb\r\n", b"a\r\nb\r\n", 0, "canonical already"),
    (b"a", b"a\r\n", 0, "no line end at all"),
    (b"a\r\nb", b"a\r\nb\r\n", 0, "no line end after the last line"),
    (b"a\nb\n", b"a\r\nb\r\n", 2, "a bare LF becomes CRLF"),
    (b"a\rb\r\n", b"a b\r\n", 1, "a bare CR becomes a space, for CRLF could begin a header field"),
    (b"a\r\r\n", b"a \r\n", 1, "CR CR LF is a bare CR and a line end"),
    (b"a\n\r\n", b"a\r\n\r\n", 1, "LF CR LF is a bare LF and a line end"),
    (b"a\n\rb", b"a\r\n b\r\n", 2, "LF CR is two bare octets"),
    (b"a\r", b"a \r\n", 1, "a CR as the last octet"),
    (b"\r\r\r", b"   \r\n", 3, "nothing but CR"),
    (b"\n", b"\r\n", 1, "nothing but LF"),
    (b"\n.\n", b"\r\n.\r\n", 2, "a dot alone between bare LF: RETR will stuff it"),
    (b"\x00\x0b\x0c\x1c\x85\xff\r\n", b"\x00\x0b\x0c\x1c\x85\xff\r\n", 0, "no other octet is a line end"),
    ("é\u2028\u0085\r\n".encode(), "é\u2028\u0085\r\n".encode(), 0, "nor is any other character"),
]


def feed_in_pieces(content: bytes, size: int) -> tuple[bytes, int]:
    canonicaliser = Canonicaliser()
    pieces = [canonicaliser.feed(content[at : at + size]) for at in range(0, len(content), size)]
    assert not any(piece.endswith(b"\r") for piece in pieces)
    return b"".join(pieces) + canonicaliser.finish(), canonicaliser.bare_newlines


@pytest.mark.parametrize(("content", "expected", "bare", "reason"), CASES)
def test_lines_end_with_crlf_and_nothing_else(
    content: bytes, expected: bytes, bare: int, reason: str
) -> None:
    assert canonical(content) == expected, reason
    for size in (1, 2, 3, 64):
        assert feed_in_pieces(content, size) == (expected, bare), reason


def reference(content: bytes) -> tuple[bytes, int]:
    """Octet by octet."""
    out, bare, at = bytearray(), 0, 0
    while at < len(content):
        if content[at : at + 2] == b"\r\n":
            out += b"\r\n"
            at += 2
            continue
        octet = content[at : at + 1]
        bare += octet in b"\r\n"
        out += {b"\r": b" ", b"\n": b"\r\n"}.get(octet, octet)
        at += 1
    return bytes(out if not out or out.endswith(b"\r\n") else out + b"\r\n"), bare


LINES = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b".", b" ", b"\x85", b"\xff\x00"])).map(
    b"".join
)


@given(LINES, st.lists(st.integers(0, 7), min_size=1))
def test_any_cuts_give_what_the_reference_gives(content: bytes, sizes: list[int]) -> None:
    canonicaliser = Canonicaliser()
    out, at = b"", 0
    for size in sizes:
        out += canonicaliser.feed(content[at : at + size])
        at += size
    out += canonicaliser.feed(content[at:]) + canonicaliser.finish()
    assert (out, canonicaliser.bare_newlines) == reference(content)
    assert canonical(content) == out
    assert canonical(out) == out
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", out)


@pytest.mark.parametrize("lines", [100, 50_000])
def test_canonical_chunks_are_not_copied(lines: int) -> None:
    chunk = b"a line\r\n" * lines
    assert Canonicaliser().feed(chunk) is chunk


@pytest.mark.parametrize("at", [0, 65_534, 65_535, 65_536, 65_537, 131_071, 131_072, 200_000])
@pytest.mark.parametrize("octets", [b"\r", b"\n", b"\r\n", b"\n\r", b"\r\r\n"])
def test_a_long_chunk_is_looked_at_as_a_whole(at: int, octets: bytes) -> None:
    content = b"x" * at + octets + b"x" * (200_000 - at)
    assert feed_in_pieces(content, len(content)) == reference(content)


def test_finishing_twice_adds_nothing() -> None:
    canonicaliser = Canonicaliser()
    assert canonicaliser.feed(b"a") + canonicaliser.finish() + canonicaliser.finish() == b"a\r\n"


PIECES = st.lists(st.sampled_from([b"a", b".", b"\r", b"\n", b"\r\n.", b"\n.", b"bcdefgh"]), max_size=30)


@pytest.mark.parametrize("window", [1, 2, 3, 7, lines._WINDOW_OCTETS])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@given(pieces=PIECES)
def test_a_dot_at_a_line_start_is_found_wherever_it_is(
    window: int, line_end: bytes, pieces: list[bytes]
) -> None:
    octets = b"".join(pieces)
    found = octets.find(line_end + b".")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "_WINDOW_OCTETS", window)
        assert dot_at_line_start(octets, line_end) == (found + len(line_end) if found >= 0 else -1)


def test_a_dot_at_a_line_start_is_found_behind_many_windows() -> None:
    text = b"Dots. And more of them.\r\n" * 1000
    assert dot_at_line_start(text, b"\r\n") == -1
    assert dot_at_line_start(text + b"." + text, b"\r\n") == len(text)
    base64 = b"x" * 76 + b"\r\n"
    assert dot_at_line_start(b"a.b\r\n" + base64 * 1000 + b".\r\n", b"\n") == 5 + 78 * 1000
