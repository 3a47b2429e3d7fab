"""What Dovecot and Courier note beside a Maildir is read as they read it, and file names are taken apart."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailstack.errors import BadData
from mailstack.mail import arrival, courier, dovecot, maildir, unique_id
from mailstack.mail.address import parse_mailbox
from mailstack.mail.dovecot import Format, Listed
from tests.support.samples import corpus_folder

bases = st.text(st.characters(codec="utf-8", exclude_characters="/:\n\0"), min_size=1, max_size=20)
numbers = st.integers(1, (1 << 32) - 1)
printable = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=20)


def samples(name: str) -> Path:
    folder = corpus_folder()
    if folder is None:
        pytest.skip("there is no corpus here")
    return folder / "maildir-samples" / name


def expected(name: str) -> list[str]:
    return [line.split()[1] for line in (samples(name) / "expected-uidl.txt").read_text().splitlines()]


# -- file names ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "base", "flags", "seconds"),
    [
        ("1700086400.M101P42.mx1,S=641:2,RS", "1700086400.M101P42.mx1,S=641", "RS", 1700086400),
        ("1700086400.M101P42.mx1", "1700086400.M101P42.mx1", "", 1700086400),
        ("1700086400.x:1,S", "1700086400.x", "", 1700086400),
        ("a:2,:2,S", "a", ":2,S", None),
        ("17.x:2,", "17.x", "", None),
        ("", "", "", None),
    ],
)
def test_a_file_name_is_a_base_and_flags(name: str, base: str, flags: str, seconds: int | None) -> None:
    parsed = maildir.parse(name)
    assert (parsed, parsed.seconds) == ((base, flags), seconds)


def test_order_is_that_of_the_numbers_and_then_of_the_names() -> None:
    names = [maildir.parse(name) for name in ("10.b", "9.c", "10.a", "x", "9" * 5000)]
    assert [name.base for name in sorted(names, key=lambda name: name.order)][:4] == [
        "x",
        "9.c",
        "10.a",
        "10.b",
    ]


# -- Dovecot -------------------------------------------------------------------------------------


@given(
    numbers,
    st.dictionaries(
        bases, st.tuples(numbers, st.none() | printable, st.none() | numbers, st.none() | printable)
    ),
)
def test_a_uidlist_is_read_as_it_was_written(
    validity: int, written: dict[str, tuple[int, str | None, int | None, str | None]]
) -> None:
    text = f"3 V{validity} N1 G0123\n"
    for base, (uid, given_id, order, guid) in written.items():
        fields = [("P", given_id), ("O", order), ("G", guid), ("W", 12)]
        said = "".join(f" {letter}{value}" for letter, value in fields if value is not None)
        text += f"{uid}{said} :{base}:2,S\n"
    found = dovecot.parse_uidlist(text)
    assert (found.uid_validity, found.problems) == (validity, [])
    assert found.next_uid == max((uid for uid, *_ in written.values()), default=0) + 1
    assert found.messages == {base: Listed(row[0], base, *row[1:]) for base, row in written.items()}


@given(st.text())
def test_any_text_is_a_list_or_bad_data(text: str) -> None:
    for parse in (dovecot.parse_uidlist, courier.parse_sizelist):
        for content in (text, f"3 V5 N6\n{text}", f"1 5 6\n{text}", f"/3 5 6\n{text}"):
            with suppress(BadData):
                parse(content)


def test_lines_that_are_none_are_told_and_the_others_are_read() -> None:
    found = dovecot.parse_uidlist("3 V5 N3\n1 :a\nnonsense\n0 :b\n4294967296 :c\n2 Pid :d\n3 :e")
    assert list(found.messages) == ["a", "d", "e"]
    assert [problem.partition(":")[0] for problem in found.problems] == [
        "line 7",
        "line 3",
        "line 4",
        "line 5",
    ]
    assert courier.parse_sizelist("/3 5 9\na 1 1:9:0\nbroken\nb 1 2:9").problems == [
        "line 4: the file ends within a line",
        "line 3: this is not a file name, a size and a number: 'broken'",
    ]


@pytest.mark.parametrize("text", ["", "3\n", "2 V5 N6\n", "3 N6\n", "1 5\n", "1 0 5\n", "3 Vx N6\n"])
def test_a_list_without_a_head_is_refused(text: str) -> None:
    with pytest.raises(BadData, match="line 1"):
        dovecot.parse_uidlist(text)


def test_an_empty_saved_unique_id_is_the_file_name() -> None:
    assert dovecot.parse_uidlist("3 V5 N6\n1 P W3 :a.b:2,\n").messages["a.b"].unique_id == "a.b"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("%08Xu%08Xv", "0000000a6b0388a7"),
        ("%08Xv%08Xu", "6b0388a70000000a"),
        ("%v.%u", "1795393703.10"),
        ("UID%u-%v", "UID10-1795393703"),
        ("%Xu%%", "a%"),
        ("%f", "17.x"),
        ("%g", "17.x"),
        ("%Mf", "d5b905b5d8e9fdc374962f852f42d156"),
        ("%v-%Mu", "1795393703-d3d9446802a44259755d38e6d163e820"),
        ("%{uid | hex(8)}%{uidvalidity | hex(8)}", "0000000a6b0388a7"),
        ("%{uidvalidity}.%{uid}", "1795393703.10"),
        ("%{uid|hex}", "a"),
        ("%{filename}", "17.x"),
    ],
)
def test_a_format_makes_what_dovecot_makes(text: str, said: str) -> None:
    assert Format(text).unique_id(uid=10, uid_validity=1795393703, base="17.x") == said


def test_tpop3d_made_the_md5_of_the_file_name() -> None:  # as Dovecot 2.3 gives it with this format
    made = Format("%Mf").unique_id(uid=1, uid_validity=1, base="1700000002.M1P1.h")
    assert made == "1577abc8dd6d218ed31632a306b0dba2"
    Format("%Mf").unique_id(uid=1, uid_validity=1, base="1.\udcff")


@pytest.mark.parametrize(
    "text", ["%m", "%08Xm", "%Mm", "%M", "%", "%{md5}", "%{uid", "%-3u", "%{uid | upper}"]
)
def test_what_files_do_not_tell_is_refused(text: str) -> None:
    with pytest.raises(BadData, match="over POP3"):
        Format(text)


def test_formats_of_the_real_server() -> None:
    for line in (samples("dovecot-default") / "expected-uidl-by-format.tsv").read_text().splitlines()[1:]:
        text, said = line.split("\t")
        listed = dovecot.parse_uidlist((samples("dovecot-default") / "dovecot-uidlist").read_text())
        first = min(listed.messages.values(), key=lambda each: each.uid)
        made = Format(text).unique_id(uid=first.uid, uid_validity=listed.uid_validity, base=first.base)
        assert made == said


@pytest.mark.parametrize("name", ["dovecot-default", "dovecot-v1-uidlist"])
def test_lists_of_the_real_server(name: str) -> None:
    listed = dovecot.parse_uidlist((samples(name) / "dovecot-uidlist").read_text())
    made = [
        Format(dovecot.DEFAULT_FORMAT).unique_id(uid=each.uid, uid_validity=listed.uid_validity)
        for each in sorted(listed.messages.values())
    ]
    assert made == expected(name)


# -- Courier -------------------------------------------------------------------------------------


@given(st.dictionaries(bases, st.tuples(numbers, st.integers(0, 9))))
def test_a_sizelist_is_read_as_it_was_written(written: dict[str, tuple[int, int]]) -> None:
    rows = "".join(f"{base}:2,S 12 {number}:{validity}:0\n" for base, (number, validity) in written.items())
    found = courier.parse_sizelist(f"/3 1 5\n{rows}")
    assert (found.uid_validity, found.problems) == (5, [])
    assert found.next_number == max((number for number, _ in written.values()), default=0) + 1
    assert found.messages == {
        base: f"UID{number}-{validity}" if validity else f"UID{number}"
        for base, (number, validity) in written.items()
    }


def test_a_message_without_a_number_is_known_by_its_name() -> None:
    assert courier.unique_id(0, 5, "17.a+b 'c' é") == "17.a+2Bb+20+27c+27+20+C3+A9"


@pytest.mark.parametrize("name", ["courier-v2", "courier-v3"])
def test_lists_of_the_real_courier(name: str) -> None:
    found = courier.parse_sizelist((samples(name) / "courierpop3dsizelist").read_text())
    assert list(found.messages.values()) == expected(name)


# -- unique-ids and trace fields -----------------------------------------------------------------


def test_a_unique_id_has_1_to_70_printable_octets() -> None:
    assert all(map(unique_id.is_valid, ["!", "~" * 70, "1.1"]))
    assert not any(map(unique_id.is_valid, ["", "~" * 71, "a b", "é", "a\n", "\x7f", "\udcff"]))


@given(st.integers(0, 1 << 64), st.integers(0, 1 << 64))
def test_our_own_form_is_known_to_the_letter(uid_validity: int, uid: int) -> None:
    assert unique_id.own(f"{uid_validity}.{uid}") == (uid_validity, uid)
    for other in (
        f"0{uid_validity}.{uid}",
        f"{uid_validity}.0{uid}",
        f"{uid_validity}",
        f"{uid_validity}.{uid} ",
        f"+{uid_validity}.{uid}",
    ):
        assert unique_id.own(other) is None


def test_trace_fields_on_top_are_read() -> None:
    head = (
        b"Return-Path: <eve@example.net>\r\nReceived: from a\r\n\tby b; Thu, 26 Nov 2026 02:37:27 +0100\r\n"
        b"Received: by c; Wed, 25 Nov 2026 00:00:00 +0000\r\n\r\nReceived: by d; no\r\n"
    )
    assert arrival.received_at(head) == datetime(2026, 11, 26, 1, 37, 27, tzinfo=UTC)
    assert arrival.return_path(head) == "eve@example.net"
    assert arrival.return_path(b"Return-Path: <>\n\n") == ""
    assert arrival.received_at(b"\r\nReceived: by c; Wed, 25 Nov 2026 00:00:00 +0000\r\n") is None
    folded = b"Return-Path:\r\n <@a.example:eve@example.net> (c)\r\nReturn-Path: <>\r\n"
    assert arrival.return_path(folded) == "eve@example.net"
    assert arrival.return_path(b'return-path : "e v"@example.net\n') == '"e v"@example.net'
    assert arrival.return_path(b"A: b\n\nReturn-Path: <eve@example.net>\n") is None


@pytest.mark.parametrize(
    "path",
    [
        b"\x1b[2Jeve@a",
        b"eve\0@a",
        b"<e\x07ve@a>",
        b"<eve\xc2\x9b@a>",
        b"MAILER-DAEMON",
        b"-",
        b"x" * 300 + b"@a",
    ],
)
def test_a_return_path_that_is_no_mailbox_is_the_null_one(path: bytes) -> None:
    assert arrival.return_path(b"Return-Path: " + path + b"\nReturn-Path: <eve@example.net>\n") == ""


@pytest.mark.parametrize(
    ("header", "is_so"),
    [
        (b"Received: by c with UTF8SMTPS id 1; date", True),
        (b"Received: from a (using TLSv1.3)\r\n by c (Postfix)\r\n\twith utf8esmtpsa id 1; date", True),
        (b"Received: by d with LMTP id 1; date\r\nReceived: by c with UTF8SMTP id 1; date", True),
        (b"Received: from c by c with local id k3v7qhx2-1; date", True),
        (b"Received: from c by c with local\r\n    id k3v7qhx2-12; date", True),
        (b"Received: by d with ESMTP id 1; date\r\nReceived: by c with local id k3v7qhx2-1; date", False),
        (
            b"Received: from www-data by c with local (Exim 4.96)\n\t(envelope-from <w@c>)\n\tid 1rX-2A; d",
            False,
        ),
        (b"Received: from jo by c with local id 1rXyZ0-0001Ab-2C; date", False),
        (b"Received: by c with ESMTPS id 1; date", False),
        (b"Subject: with UTF8SMTP\r\n\r\nReceived: by c with UTF8SMTP; date", False),
        (b"Subject: x", False),
        (b"", False),
    ],
)
def test_whether_a_message_came_with_smtputf8(header: bytes, is_so: bool) -> None:  # RFC 6531 §4.3
    assert arrival.is_internationalized(header + b"\r\n\r\nbody\r\n") is is_so


@given(st.binary())
def test_any_trace_fields_are_understood_or_not(octets: bytes) -> None:
    arrival.received_at(octets)
    arrival.received_at(b"Received: by c; " + octets)
    arrival.received_at(b"Received: by c; Thu, 26 Nov " + octets)
    path = arrival.return_path(b"Return-Path: " + octets)
    assert path is not None
    assert not path or str(parse_mailbox(path)) == path
