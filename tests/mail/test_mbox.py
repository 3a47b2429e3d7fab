"""Messages come out of an mbox as they went in, whoever wrote it (RFC 4155, and what is older)."""

from __future__ import annotations

import mailbox
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailstack.mail import from_line, mbox, mbox_header
from mailstack.mail.lines import canonical
from mailstack.mail.mbox import Place, Read, Unquoter
from tests.support.samples import corpus_folder

YEAR_1971 = datetime(1971, 1, 1)  # noqa: DTZ001 (what hypothesis asks for)
FROM = b"From eve@example.net Thu Nov 26 02:37:27 2026\n"


def reading(file: bytes) -> Read:
    return lambda at, octets: file[at : at + octets]


def unquoted(octets: bytes, piece: int = 1 << 20) -> bytes:
    unquoter = Unquoter()
    pieces = [unquoter.feed(octets[at : at + piece]) for at in range(0, len(octets), piece)]
    return b"".join(pieces) + unquoter.finish()


def content(file: bytes, place: Place) -> bytes:
    octets = file[place.start : place.end]
    return unquoted(octets) if place.quoted else octets


def contents(file: bytes) -> list[bytes]:
    return [content(file, place) for place in mbox.places(reading(file), len(file))]


# -- what stands in the line ---------------------------------------------------------------------

LINES = [
    (b"From eve@example.net Thu Nov 26 02:37:27 2026\n", "2026-11-26T02:37:27"),
    (b"From eve@example.net  Thu Nov  6 02:37:27 2026\r\n", "2026-11-06T02:37:27"),
    (b"From eve@example.net Thu Nov 26 02:37 2026", "2026-11-26T02:37:00"),
    (b"From eve@example.net Thu Nov 26 02:37:27 2026 +0200\n", "2026-11-26T00:37:27"),
    (b"From eve@example.net Thu Nov 26 02:37:27 -0130 2026\n", "2026-11-26T04:07:27"),
    (b"From eve@example.net Thu Nov 26 02:37:27 MET 2026\n", "2026-11-26T02:37:27"),
    (b"From eve@example.net Thu, 26 Nov 2026 02:37:27 +0100\n", "2026-11-26T01:37:27"),
    (b"From eve Thu Nov 26 02:37:27 2026 remote from there\n", "2026-11-26T02:37:27"),
    (b"From - Thu Nov 26 02:37:27 2026\n", "2026-11-26T02:37:27"),
    (b"From \"eve m\"@example.net Thu Nov 26 02:37:27 2026\n", "2026-11-26T02:37:27"),
    (b"From Thu Nov 26 02:37:60 2026\n", "2026-11-26T02:37:59"),
    (b"From next-message@example.com  Mon Jan 00 00:00:00 0000\n", None),
    (b"From - \n", None),
]  # fmt: skip


@pytest.mark.parametrize(("line", "at"), LINES)
def test_a_line_tells_when_the_message_came(line: bytes, at: str | None) -> None:
    parsed = from_line.parse(line)
    assert parsed is not None
    assert parsed.at == (at and datetime.fromisoformat(at).replace(tzinfo=UTC))


@pytest.mark.parametrize(
    "line",
    [
        b"From Russia with love\n",
        b"From \n",
        b"From eve@example.net\n",
        b">From eve@example.net Thu Nov 26 02:37:27 2026\n",
        b"from eve@example.net Thu Nov 26 02:37:27 2026\n",
        b"From: eve@example.net Thu Nov 26 02:37:27 2026\n",
        b"From eve@example.netThu Nov 26 02:37:27 2026\n",
        b"From the first day, Thu Nov 26, on\n",
    ],
)
def test_a_line_of_text_begins_no_message(line: bytes) -> None:
    assert from_line.parse(line) is None


@given(st.datetimes(min_value=YEAR_1971), st.from_regex(r"[!-~]{1,30}", fullmatch=True))
def test_what_an_export_writes_is_understood(at: datetime, sender: str) -> None:
    parsed = from_line.parse(f"From {sender} {at:%a %b %d %H:%M:%S %Y}\n".encode())
    assert parsed == (sender, at.replace(microsecond=0, tzinfo=UTC))


@given(st.binary())
def test_any_line_is_one_or_none(octets: bytes) -> None:
    from_line.parse(octets)
    from_line.parse(b"From " + octets)


# -- where messages begin and end ----------------------------------------------------------------

LINES_OF_TEXT = [
    b"", b"text", b"From here on", b">From there", b">>From", b"From ", b".", b"Subject: x", b">", b"\xff\x00"
]  # fmt: skip
NOT_QUOTED = [FROM[:-1], b"From -"]


def messages(lines: list[bytes]) -> st.SearchStrategy[list[bytes]]:
    body = st.lists(st.sampled_from(lines), max_size=6).map(
        lambda each: b"".join(line + b"\n" for line in each)
    )
    return st.lists(body.map(lambda each: b"Subject: a\n\n" + each))


@given(messages([*LINES_OF_TEXT, FROM[:-1]]), st.sampled_from([b"\n", b"\r\n"]), st.integers(40, 200))
def test_mboxrd_gives_back_what_went_in(written: list[bytes], line_end: bytes, window: int) -> None:
    file = b"".join(FROM + re.sub(rb"(?m)^(>*From )", rb">\1", each) + b"\n" for each in written)
    file = file.replace(b"\n", line_end)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mbox, "WINDOW_OCTETS", window)
        found = contents(file)
    assert [each.replace(line_end, b"\n") for each in found] == written


@given(messages(LINES_OF_TEXT + NOT_QUOTED))
def test_mboxcl2_needs_no_quoting(written: list[bytes]) -> None:
    headed = [b"Content-Length: %d\n%b" % (len(each.partition(b"\n\n")[2]), each) for each in written]
    found = contents(b"".join(FROM + each + b"\n" for each in headed))
    # Where nothing but quoted lines begins with "From ", the file may as well be mboxcl.
    assert found == [each if b"\nFrom " in each else each.replace(b"\n>From ", b"\nFrom ") for each in headed]


def test_mboxcl_is_quoted_and_mboxcl2_is_not() -> None:
    quoted = b"Content-Length: 11\n\n>From here\n"
    assert contents(FROM + quoted + b"\n" + FROM + b"A: b\n\nc\n") == [
        b"Content-Length: 11\n\nFrom here\n",
        b"A: b\n\nc\n",
    ]
    plain = b"Content-Length: 22\n\n>From here\nFrom there\n"
    assert contents(FROM + plain + b"\n" + FROM + b"A: b\n\nc\n")[0] == plain


@pytest.mark.parametrize("octets", [0, 1, 3, 5, 40, 90, 10**17])
def test_a_forged_length_hides_no_message(octets: int) -> None:
    file = (
        FROM
        + b"Content-Length: %d\n\nfour\n\n" % octets
        + FROM
        + b"A: b\n\nsecond\n\n"
        + FROM
        + b"A: b\n\nthird\n"
    )
    assert len(contents(file)) == 3


def test_a_length_of_the_next_message_is_not_taken_for_that_of_one_without_a_body() -> None:
    file = FROM + b"Subject: no body\n" + FROM + b"Content-Length: 2\n\nb\n\n" + FROM + b"A: b\n\nc\n"
    assert len(contents(file)) == 3


def test_a_line_within_text_begins_a_message_as_for_the_servers_and_is_told() -> None:
    file = FROM + b"A: b\n\nseen:\n" + FROM + b"A: b\n\nc\n\n" + FROM + b"A: b\n\nd\n"
    assert [place.abrupt for place in mbox.places(reading(file), len(file))] == [False, True, False]


def test_the_last_message_may_lack_its_blank_line_or_its_line_end() -> None:
    assert contents(FROM + b"A: b\n\nc\n") == [b"A: b\n\nc\n"]
    assert contents(FROM + b"A: b\n\nc") == [b"A: b\n\nc"]
    assert contents(FROM + b"A: b\n") == [b"A: b\n"]
    assert contents(FROM) == [b""]
    assert contents(FROM + b"\n" + FROM + b"\n") == [b"", b""]


def test_what_begins_with_something_else_is_no_mbox() -> None:
    assert mbox.begins(reading(b"\xef\xbb\xbf\n" + FROM))
    assert not mbox.begins(reading(b"Subject: x\n\n" + FROM))
    assert not mbox.begins(reading(b""))


@given(
    st.lists(
        st.sampled_from(
            [FROM, b"From -\n", b"\n", b"\r\n", b"Content-Length: 3\n", b"a\n", b"\xff", b"X" * 1100]
        ),
        max_size=20,
    )
)
def test_places_are_in_order_and_apart(pieces: list[bytes]) -> None:
    file = b"".join(pieces)
    ends = [0]
    for place in mbox.places(reading(file), len(file)):
        assert ends[-1] <= place.start <= place.end <= len(file)
        ends.append(place.end)


@given(st.lists(st.sampled_from([b">", b"From ", b"From", b"\n", b"\r\n", b"x", b" "])), st.integers(1, 9))
def test_a_quote_goes_however_the_file_is_cut(pieces: list[bytes], piece: int) -> None:
    octets = b"".join(pieces)
    assert unquoted(octets, piece) == re.sub(rb"(?m)^>(>*From )", rb"\1", octets)


# -- the fields that are no part of the message --------------------------------------------------


def test_what_servers_keep_in_a_header_is_taken_out() -> None:
    header = (
        b"Return-Path: <eve@example.net>\nX-IMAPbase: 1795393813 0000000007\nX-UID: 3     \nStatus: RO\n"
        b"Subject: x\n Status: y\nX-Keywords: a\n b\nContent-Length: 77\nX-UIDL: abc \n\n"
    )
    found = mbox_header.separated(header)
    assert found.octets == b"Return-Path: <eve@example.net>\nSubject: x\n Status: y\nX-UIDL: abc \n\n"
    assert (found.content_octets, found.uid, found.x_uidl) == (77, 3, "abc")
    assert (found.uid_validity, found.last_uid) == (1795393813, 7)


def test_behind_a_unique_id_of_ours_nothing_is_taken_out() -> None:
    found = mbox_header.separated(b"X-Mailstack-UIDL: 1.5\nStatus: as sent\n\n")
    assert (found.octets, found.exported) == (b"Status: as sent\n\n", "1.5")
    assert mbox_header.separated(b"A: b\nX-Mailstack-UIDL: 1.5\n\n").exported is None


@given(
    st.lists(
        st.sampled_from(
            [b"Status: RO", b"A: b", b" c", b"\n", b"\r\n", b":", b"X-UID: 9", b"\xff", b"X-UIDL:"]
        )
    )
)
def test_any_header_comes_apart(pieces: list[bytes]) -> None:
    header = b"".join(pieces)
    found = mbox_header.separated(header)
    again = mbox_header.separated(found.octets)
    assert len(found.octets) <= len(header)
    assert again.uid is None or again.octets != found.octets or b"X-UID" not in found.octets.split(b"\n")


# -- files of others -----------------------------------------------------------------------------


def samples() -> list[Path]:
    folder = corpus_folder()
    return sorted((folder / "mbox-samples").glob("*.mbox")) if folder else []


COUNTS = {
    "dovecot-wrote-xuid": 7, "laminas-INBOX-crlf": 7, "laminas-INBOX-unix": 7, "mime4j-rlug": 5,
    "mimekit-content-length": 29, "mimekit-unmunged": 2, "sisimai-mbox-1": 1, "spamassassin-nice": 3,
    "zeta-pine-postponed": 2,
}  # fmt: skip


@pytest.mark.parametrize("path", samples(), ids=lambda path: path.stem)
def test_real_files_have_the_messages_that_they_have(path: Path) -> None:
    assert len(contents(path.read_bytes())) == COUNTS[path.stem]


@pytest.mark.skipif(not samples(), reason="there is no corpus here")
def test_sizes_are_those_that_dovecot_told() -> None:
    folder = next(path.parent for path in samples())
    told = [
        line.split()[3]
        for line in (folder / "dovecot-wrote-xuid.expected.txt").read_text().splitlines()
        if line[0] != "#"
    ]
    file = (folder / "dovecot-wrote-xuid.mbox").read_bytes()
    sizes = []
    for place in mbox.places(reading(file), len(file)):
        header = mbox.header(reading(file), place.start, place.end)
        octets = canonical(mbox_header.separated(header).octets + file[place.start + len(header) : place.end])
        # A last line end without a blank line behind it is none for Dovecot, and so one less.
        sizes.append(len(octets) if file[place.end :].startswith(b"\n") else len(octets) - 2)
    assert sizes == list(map(int, told))


def test_pythons_own_library_writes_what_we_read(tmp_path: Path) -> None:
    box = mailbox.mbox(tmp_path / "box")
    for number in range(3):
        message = mailbox.mboxMessage(b"Subject: %d\n\nFrom me\n" % number)
        message.set_from("eve@example.net", True)
        box.add(message)
    box.close()
    assert contents((tmp_path / "box").read_bytes()) == [
        b"Subject: %d\n\nFrom me\n" % number for number in range(3)
    ]
