"""Framing of content: CRLF.CRLF alone ends DATA, the count alone ends BDAT."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailstack.smtp.data import ChunkReader, DotReader

END = b"\r\n.\r\n"


def read(reader: DotReader | ChunkReader, chunks: list[bytes]) -> tuple[bytes, bytes | None]:
    """Content, and the octets behind the end or None when there was no end."""
    content, chunks = b"", list(chunks)
    while chunks and not reader.done:
        content += reader.feed(chunks.pop(0))
    return content, (reader.rest + b"".join(chunks) if reader.done else None)


def in_pieces(stream: bytes, size: int) -> list[bytes]:
    return [stream[at : at + size] for at in range(0, len(stream), size)]


# -- DATA ----------------------------------------------------------------------------------------

CASES = [
    (b".\r\n", b"", b"", "the end at once: an empty message (as if after CRLF)"),
    (b"\r\n.\r\n", b"\r\n", b"", "one empty line"),
    (b"a\r\n.\r\n", b"a\r\n", b"", "one line"),
    (b"a\r\n.\r\nQUIT\r\n", b"a\r\n", b"QUIT\r\n", "what is pipelined behind the end"),
    (b"a\r\n.\r\n.\r\n", b"a\r\n", b".\r\n", "a second dot is no content"),
    (b"..\r\n.\r\n", b".\r\n", b"", "a stuffed dot in the first line"),
    (b"a\r\n..\r\n.\r\n", b"a\r\n.\r\n", b"", "a stuffed dot alone"),
    (b"a\r\n...b\r\n.\r\n", b"a\r\n..b\r\n", b"", "only the first dot goes"),
    (b".a\r\n.\r\n", b"a\r\n", b"", "a dot that was not doubled goes too: RFC 5321 §4.5.2"),
    (b"a.\r\n.\r\n", b"a.\r\n", b"", "a dot at the end of a line"),
    (b"a.b\r\n . \r\n.\r\n", b"a.b\r\n . \r\n", b"", "dots elsewhere"),
    (b"..\r\n..\r\n..\r\n.\r\n", b".\r\n.\r\n.\r\n", b"", "stuffed lines in a row"),
    (b"\x00\xff\r\n.\r\n\x00", b"\x00\xff\r\n", b"\x00", "any octet is content"),
    (b"a\r\n.", b"a\r\n", None, "not yet the end"),
    (b"a\r\n.\r", b"a\r\n", None, "not yet the end"),
    (b"", b"", None, "nothing yet"),
]


@pytest.mark.parametrize(("stream", "content", "rest", "reason"), CASES)
def test_data_ends_with_a_dot_alone(stream: bytes, content: bytes, rest: bytes | None, reason: str) -> None:
    for size in range(1, len(stream) + 2):
        assert read(DotReader(), in_pieces(stream, size)) == (content, rest), f"{reason}, in chunks of {size}"


# Around a dot each of them ends data for some server; for us only the first does, on both sides.
LINE_ENDS = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\r\n",
    b"\n\r",
    b"\r\n\n",
    b"\r\x00\n",
    b"\x00",
    b"\r \n",
    b"\x85",
    b"\x0b",
    b"\x0c",
]
SMUGGLED = b"MAIL FROM:<evil@example.com>"


@pytest.mark.parametrize("after", LINE_ENDS)
@pytest.mark.parametrize("before", LINE_ENDS)
def test_nothing_else_ends_data(before: bytes, after: bytes) -> None:
    """The matrix of SMTP smuggling: every pair of line ends around a dot, cut at every octet."""
    stream = b"a" + before + b"." + after + SMUGGLED + END + b"QUIT\r\n"
    if before.endswith(b"\r\n") and after.startswith(b"\r\n"):
        expected = b"a" + before, after[2:] + SMUGGLED + END + b"QUIT\r\n"
    else:
        dot = b"" if before.endswith(b"\r\n") else b"."
        expected = b"a" + before + dot + after + SMUGGLED + b"\r\n", b"QUIT\r\n"
    for cut in range(len(stream) + 1):
        assert read(DotReader(), [stream[:cut], stream[cut:]]) == expected
    assert read(DotReader(), in_pieces(stream, 1)) == expected


def reference(stream: bytes) -> tuple[bytes, bytes | None]:
    """Line by line, where CRLF alone ends a line; a last line that has no end is left out."""
    content = b""
    while b"\r\n" in stream:
        line, _, stream = stream.partition(b"\r\n")
        if line == b".":
            return content, stream
        content += line.removeprefix(b".") + b"\r\n"
    return content, None


STREAMS = st.lists(st.sampled_from([b"\r\n", b"\r\n.", b"\r", b"\n", b".", b"a", END, b"\x00"])).map(b"".join)


@given(STREAMS, st.lists(st.integers(0, 6), min_size=1))
def test_any_cuts_give_what_the_reference_gives(stream: bytes, sizes: list[int]) -> None:
    chunks, at = [], 0
    for size in sizes:
        chunks.append(stream[at : at + size])
        at += size
    content, rest = read(DotReader(), [*chunks, stream[at:]])
    expected, expected_rest = reference(stream)
    assert rest == expected_rest
    assert content == expected if rest is not None else content.startswith(expected)


@given(st.lists(st.sampled_from([b".", b"a", b"\r\n", b"\r", b"\n"])).map(b"".join), st.binary(max_size=9))
def test_what_was_stuffed_comes_back(content: bytes, behind: bytes) -> None:
    content += b"\r\n"
    stuffed = re.sub(rb"(?:(?<=\r\n)|\A)\.", b"..", content)
    for size in (1, 2, 3, 1 << 20):
        assert read(DotReader(), in_pieces(stuffed + b".\r\n" + behind, size)) == (content, behind)


def test_ordinary_chunks_are_not_copied() -> None:
    reader = DotReader()
    chunk = b"a line\r\n" * 100 + b"and a half"
    assert reader.feed(chunk) is chunk


def test_reading_goes_no_further_than_the_end() -> None:
    reader = DotReader()
    reader.feed(b".\r\n")
    with pytest.raises(ValueError, match="end"):
        reader.feed(b"a")


@pytest.mark.parametrize("octets", [b"a", b"\r", b"\n", b".", b".\r", b"\r\n", b"\r\n..", b"\r\n.\r"])
def test_hostile_content_takes_linear_time(octets: bytes) -> None:  # quadratic would outlast the time limit
    reader = DotReader()
    given = sum(len(reader.feed(octets * 20_000)) for _ in range(100))
    assert given <= 2_000_000 * len(octets)
    reader = DotReader()
    for octet in octets * (100_000 // len(octets)):
        assert len(reader.feed(bytes([octet]))) <= 2
    assert not reader.done


# -- BDAT ----------------------------------------------------------------------------------------


@given(st.binary(max_size=40), st.binary(max_size=20), st.integers(1, 50))
def test_bdat_takes_exactly_the_octets_announced(
    content: bytes, behind: bytes, size: int
) -> None:  # RFC 3030 §2
    content = content.replace(b"a", END)  # to BDAT, the end of DATA is content like any other
    assert read(ChunkReader(len(content)), in_pieces(content + behind, size)) == (content, behind)


def test_bdat_of_no_octets_is_done_at_once() -> None:
    reader = ChunkReader(0)
    assert (reader.done, reader.rest) == (True, b"")
    with pytest.raises(ValueError, match="come"):
        reader.feed(b"a")


def test_bdat_waits_for_its_octets() -> None:
    assert read(ChunkReader(3), [b"a", b"", b"b"]) == (b"ab", None)
