"""The header as it passes: `Return-Path:` goes, `Received:` is counted, an empty one is ended."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailstack.mail.header import HeaderFilter
from tests.support import reference


def filtered(content: bytes, size: int) -> tuple[bytes, HeaderFilter]:
    header_filter = HeaderFilter()
    pieces = [header_filter.feed(content[at : at + size]) for at in range(0, len(content), size)]
    return b"".join(pieces) + header_filter.finish(), header_filter


CASES = [
    (b"", b"", "nothing"),
    (b"Subject: a\r\n\r\nb\r\n", b"Subject: a\r\n\r\nb\r\n", "nothing to remove"),
    (b"Return-Path: <a@b>\r\nTo: c\r\n\r\n", b"To: c\r\n\r\n", "the first field"),
    (b"To: c\r\nReturn-Path: <a@b>\r\n\r\n", b"To: c\r\n\r\n", "the last field"),
    (b"To: c\r\nreturn-PATH: <a@b>\r\n", b"To: c\r\n", "any case, and a header without a blank line"),
    (b"Return-Path \t: <a@b>\r\n\r\n", b"\r\n", "blanks before the colon: RFC 5322 §4.5"),
    (b"Return-Path:\r\n <a@b>\r\n\t(c)\r\nTo: c\r\n\r\n", b"To: c\r\n\r\n", "folded: all its lines go"),
    (b"Return-Path: <a>\r\nRETURN-PATH: <b>\r\n\r\n", b"\r\n", "every one of them"),
    (b"Return-Path: <a>\r\n", b"", "and nothing else"),
    (
        b"To: c\r\n Return-Path: <a>\r\n\r\n",
        b"To: c\r\n Return-Path: <a>\r\n\r\n",
        "a continuation is no field",
    ),
    (b"\r\nReturn-Path: <a>\r\n", b"\r\nReturn-Path: <a>\r\n", "an empty header: the rest is body"),
    (b"To: c\r\n\r\nReturn-Path: <a>\r\n", b"To: c\r\n\r\nReturn-Path: <a>\r\n", "in the body"),
    (b"hello\r\nReturn-Path: <a>\r\n", b"\r\nhello\r\nReturn-Path: <a>\r\n", "a body without a header"),
    (b" x\r\nReturn-Path: <a>\r\n", b"\r\n x\r\nReturn-Path: <a>\r\n", "a continuation of nothing"),
    (b"\t\r\nTo: c\r\n\r\n", b"\r\n\t\r\nTo: c\r\n\r\n", "of nothing but blanks, too"),
    (
        b"To: c\r\nhello\r\nReturn-Path: <a>\r\n",
        b"To: c\r\nhello\r\nReturn-Path: <a>\r\n",
        "a line that is no field",
    ),
    (b"Return-Path: <a>\r\nhello\r\n", b"\r\nhello\r\n", "a body behind a field that goes"),
    (b"From eve Mon\r\nReturn-Path: <a>\r\n", b"X-Mailbox-Line: From eve Mon\r\n", "a line of an mbox"),
    (
        b">From eve\r\nFrom joe\r\n\tb\r\nFrom jim\r\n",
        b"X-Mailbox-Line: >From eve\r\nX-Mailbox-Line: From joe\r\n\tb\r\nX-Mailbox-Line: From jim\r\n",
        "several",
    ),
    (b"From eve\r\nhello\r\n", b"X-Mailbox-Line: From eve\r\n\r\nhello\r\n", "and a body"),
    (b"From eve\r\n b\r\nhello\r\n", b"X-Mailbox-Line: From eve\r\n b\r\n\r\nhello\r\n", "folded"),
    (b"To: c\r\nFrom jim\r\n", b"To: c\r\nFrom jim\r\n", "but nowhere else"),
    (b"From : eve\r\nReturn-Path: <a>\r\n", b"From : eve\r\n", "a field: RFC 5322 §4.5"),
    (b"From", b"\r\nFrom", "the content ended there"),
    (b"X-Return-Path: <a>\r\n\r\n", b"X-Return-Path: <a>\r\n\r\n", "another name"),
    (b"Return-Path-X: <a>\r\n\r\n", b"Return-Path-X: <a>\r\n\r\n", "another name"),
    (b"Return-Path\r\n\r\n", b"\r\nReturn-Path\r\n\r\n", "no colon"),
    (b": a\r\nReturn-Path: <a>\r\n", b"\r\n: a\r\nReturn-Path: <a>\r\n", "no name"),
    (b"\xc3\xa9: a\r\nReturn-Path: <a>\r\n", b"\r\n\xc3\xa9: a\r\nReturn-Path: <a>\r\n", "a name is ASCII"),
    (b"Subject: \xff\x00\r\nReturn-Path: <\xff>\r\n\r\n", b"Subject: \xff\x00\r\n\r\n", "a body is anything"),
    (b"Return-Path: <a>", b"", "the content ended within the field"),
    (b"Return-Path", b"\r\nReturn-Path", "or before one could know"),
    (b"To: c\r\n\r", b"To: c\r\n\r", "or within the blank line"),
]


@pytest.mark.parametrize(("content", "expected", "reason"), CASES)
def test_only_return_path_fields_of_the_header_go(content: bytes, expected: bytes, reason: str) -> None:
    for size in (1, 2, 3, 5, 1000):
        assert filtered(content, size)[0] == expected, f"{reason}, in chunks of {size}"


def test_received_fields_are_counted_in_the_header_alone() -> None:  # RFC 5321 §6.3
    content = (
        b"Received: a\r\n b\r\nRECEIVED : c\r\nX-Received: d\r\nTo: e\r\n Received: f\r\n\r\nReceived: g\r\n"
    )
    for size in (1, 2, 7, 1000):
        kept, header_filter = filtered(content, size)
        assert kept == content
        assert header_filter.received_fields == 2
        assert header_filter.header_octets == content.index(b"\r\n\r\n") + 2


@pytest.mark.parametrize(
    ("content", "dotted"),
    [
        (b"", False),
        (b".", True),
        (b".\r\n", True),
        (b".X: a\r\n\r\nb\r\n", True),
        (b"a.\r\nb .\r\n", False),
        (b"To: a\r\n\r\nb\r\n..\r\n", True),
        (b"To: a\r\n\r\n.b\r\n", True),
        (b"To: a\r\n.b\r\n", True),
        (b".b\r\n", True),
        (b"From .\r\n.X: a\r\n", True),
        (b"From .\r\n", False),
        (b"Return-Path: a\r\n.X: a\r\n\r\n", True),
        (b"Return-Path: a\r\n .\r\n\r\n", False),
        (b"Return-Path: .\r\n\r\n.", True),
    ],
)
def test_a_dot_at_the_beginning_of_a_kept_line_is_noted(content: bytes, dotted: bool) -> None:
    for size in (1, 2, 3, 1000):
        assert filtered(content, size)[1].dotted is dotted


def test_a_line_of_any_length_is_not_held_back() -> None:
    header_filter = HeaderFilter()
    assert header_filter.feed(b"Subject: ") == b"Subject: "
    assert all(header_filter.feed(b"a" * 65536) for _ in range(16))
    assert header_filter.feed(b"\r\nReturn-Path:") == b"\r\n"
    assert not any(header_filter.feed(b"a" * 65536) for _ in range(16))
    assert header_filter.feed(b"\r\n b\r\nTo: c\r\n") == b"To: c\r\n"
    assert header_filter.header_octets == 9 + 2 * 16 * 65536 + 2 + 12 + 2 + 4 + 7


@pytest.mark.parametrize("octet", [b"a", b" "])
def test_a_name_without_end_is_no_field(octet: bytes) -> None:
    content = b"a" + octet * 2000 + b": b\r\nReturn-Path: <c>\r\n"
    for size in (1, 100, 10_000):
        kept, header_filter = filtered(content, size)
        assert kept == b"\r\n" + content
        assert header_filter.header_octets == 0


@pytest.mark.parametrize("octet", [b"a", b" "])
def test_a_name_may_be_as_long_as_a_line(octet: bytes) -> None:  # RFC 5322 §2.1.1
    content = b"a" + octet * 997 + b": b\r\nReturn-Path: <c>\r\n"
    for size in (1, 100, 10_000):
        assert filtered(content, size)[0] == content[: content.index(b"Return-Path")]


# -- against an obvious reference ----------------------------------------------------------------


PIECES = st.sampled_from(
    [
        b"Return-Path:",
        b"return-path \t:",
        b"Return-",
        b"Received:",
        b"received :",
        b"To:",
        b"From ",
        b">From ",
        b".x:",
        b":",
        b" ",
        b"\t",
    ]
    + [b"\r\n"] * 5
    + [b"\r\n\r\n", b"text", b".", b"\xe9", b"n" * 998, b" " * 998, b"\r"]
)


@given(st.lists(PIECES, max_size=30).map(b"".join), st.lists(st.integers(0, 20), min_size=1))
def test_any_cuts_give_what_the_reference_gives(content: bytes, sizes: list[int]) -> None:
    content += b"\r\n"
    header_filter = HeaderFilter()
    kept, at = b"", 0
    for size in sizes:
        kept += header_filter.feed(content[at : at + size])
        at += size
    kept += header_filter.feed(content[at:]) + header_filter.finish()
    found = kept, header_filter.received_fields, header_filter.header_octets, header_filter.dotted
    assert found == reference.with_its_header(content)
